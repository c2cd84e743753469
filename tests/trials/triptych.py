"""Draws the README's first picture: a photo, the same photo with AI damage, and the verdict's heat
map with the damaged area outlined.

`python tests/trials/triptych.py FOLDER FILE --model MODEL` writes data/results/heatmap.png: FILE is
an edit with a mask and an original in FOLDER's metadata.csv.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFont

from realdamage.core.detector import Detector
from realdamage.core.overlay import with_caption
from realdamage.data.manifest import read_mask
from realdamage.data.readers import read_dataset
from realdamage.errors import RealDamageError, UsageError
from realdamage.files import write_atomically

_HEIGHT, _CAPTION, _GAP, _GREY, _OUTLINE = 380, 28, 8, (70, 70, 70), (0, 0, 0)


def triptych(folder: Path, file_name: str, model: Path | None) -> Image.Image:
    """Three panels next to each other. Raises UsageError for a photo without
    original or mask."""
    manifest = read_dataset(folder)
    table = manifest.table
    rows = np.flatnonzero(table["file_name"] == file_name)
    if not len(rows) or not table["pair"].iat[rows[0]] or not table["mask_file_name"].iat[rows[0]]:
        raise UsageError(f"{folder}: {file_name} is not a photo with an original and a mask there")
    row = int(rows[0])
    detector = Detector(model, allow_demo=True) if model else Detector()
    path = manifest.path(file_name)
    verdict = detector(path)
    with Image.open(path) as image:
        edited = image.convert("RGB")
    with Image.open(manifest.path(table["pair"].iat[row])) as image:
        original = image.convert("RGB")
    marked = np.array(verdict.overlay(edited))
    _outline(marked, read_mask(manifest, row, (edited.height, edited.width)))
    marked = marked[: edited.height]  # without the overlay's own caption
    panels = [
        (original, "the photo"),
        (edited, "AI damage added"),
        (Image.fromarray(marked), f"heat map: {verdict.outcome}; black: the edited area"),
    ]
    width = round(edited.width * _HEIGHT / edited.height)
    font = ImageFont.load_default(15)
    strip = Image.new("RGB", (3 * width + 2 * _GAP, _HEIGHT + _CAPTION), "white")
    for number, (panel, text) in enumerate(panels):
        small = panel.resize((width, _HEIGHT), Image.Resampling.LANCZOS)
        strip.paste(with_caption(small, text, font, _CAPTION, _GREY), (number * (width + _GAP), 0))
    return strip


def _outline(rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> None:
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    cv2.drawContours(rgb, contours, -1, _OUTLINE, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("file_name")
    parser.add_argument("--model", type=Path, help="default: the packaged model")
    options = parser.parse_args()
    try:
        strip = triptych(options.folder, options.file_name, options.model)
    except RealDamageError as error:
        print(error, file=sys.stderr)
        return 2
    buffer = io.BytesIO()
    strip.save(buffer, "PNG", optimize=True)
    write_atomically("data/results/heatmap.png", buffer.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
