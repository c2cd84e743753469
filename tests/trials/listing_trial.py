"""Measures the comparison with the listing photo: makes pairs of known truth, and counts what is
said of them.

    python tests/trials/listing_trial.py --photos DIR --pairs 500 --seed 0 --csv FILE

Pairs, drawn from a folder with a manifest: copies with and without painted damage, both laundered;
other shots of the same product (photos of one group); other products of the same source; and a
second exposure, the same scene under other sensor noise, as from a tripod. Half of the groups are
for choosing thresholds, the other half for reporting.
"""

from __future__ import annotations

import io
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFont
from scipy import ndimage
from trial_table import arguments, share, write

from realdamage.core.decode import decode
from realdamage.core.progress import track
from realdamage.data.manifest import Manifest, read_manifest
from realdamage.errors import RealDamageError
from realdamage.photo_pairs import compare
from realdamage.photo_pairs.decide import OUTCOMES
from realdamage.synthesis.paint import Paint

RGB = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Both: TypeAlias = tuple[Image.Image, Image.Image]
"""A photo and its mask of painted pixels, which every transformation moves along."""
Step: TypeAlias = Callable[[Image.Image, Image.Image, np.random.Generator], Both]

HALVES = ("tune", "report")
KINDS = ("painted_copy", "copy", "other_shot", "other_product", "second_exposure")
_WEIGHTS = (0.35, 0.2, 0.2, 0.15, 0.1)
_VISIBLE = 24  # change of a pixel, in levels of 255, from which painted damage counts as visible
_SMALLEST = 0.001  # share of the photo below which painted damage is drawn again
_EXPOSURE_NOISE = 3.0  # deviation, in levels of 255
_EDGE = (0, 0, 0, 90)


def _saved(picture: Image.Image, mask: Image.Image, _: np.random.Generator) -> Both:
    return picture, mask


def _cropped(picture: Image.Image, mask: Image.Image, rng: np.random.Generator) -> Both:
    keep = rng.uniform(0.6, 0.9)
    width, height = round(picture.width * keep), round(picture.height * keep)
    left = int(rng.integers(0, picture.width - width + 1))
    top = int(rng.integers(0, picture.height - height + 1))
    box = (left, top, left + width, top + height)
    return picture.crop(box), mask.crop(box)


def _resized(scale: float) -> Step:
    def resize(picture: Image.Image, mask: Image.Image, rng: np.random.Generator) -> Both:
        size = round(picture.width * scale), round(picture.height * scale)
        photo = picture.resize(size, Image.Resampling.BICUBIC)
        return photo, mask.resize(size, Image.Resampling.BILINEAR)

    return resize


def _turned(picture: Image.Image, mask: Image.Image, rng: np.random.Generator) -> Both:
    angle = float(rng.uniform(-180, 180))
    turned = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=(255, 255, 255))
    return turned, mask.rotate(angle, Image.Resampling.BILINEAR, expand=True)


def _with_logo(picture: Image.Image, mask: Image.Image, rng: np.random.Generator) -> Both:
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    side = min(picture.size)
    place = (rng.uniform(0, 0.5) * picture.width, rng.uniform(0, 0.8) * picture.height)
    font, edge = ImageFont.load_default(side * 0.09), {"stroke_width": 1, "stroke_fill": _EDGE}
    draw.text(place, "best-shop.example", (255, 255, 255, 160), font, **edge)
    draw.ellipse((side * 0.04, side * 0.04, side * 0.16, side * 0.16), fill=(200, 30, 40, 230))
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB"), mask


def _brighter(picture: Image.Image, mask: Image.Image, rng: np.random.Generator) -> Both:
    lit = ImageEnhance.Brightness(picture).enhance(float(rng.uniform(0.75, 1.25)))
    lit = ImageEnhance.Contrast(lit).enhance(float(rng.uniform(0.8, 1.25)))
    return ImageEnhance.Color(lit).enhance(float(rng.uniform(0.7, 1.3))), mask


def _mirrored(picture: Image.Image, mask: Image.Image, rng: np.random.Generator) -> Both:
    flip = Image.Transpose.FLIP_LEFT_RIGHT
    return picture.transpose(flip), mask.transpose(flip)


def _mixed(picture: Image.Image, mask: Image.Image, rng: np.random.Generator) -> Both:
    steps = [_mirrored] if rng.random() < 0.5 else []
    for step in (*steps, _cropped, _brighter, _resized(float(rng.uniform(0.6, 1.4)))):
        picture, mask = step(picture, mask, rng)
    return picture, mask


TRANSFORMATIONS = {
    "saved": _saved,
    "cropped": _cropped,
    "smaller": _resized(0.35),
    "larger": _resized(2.0),
    "turned": _turned,
    "recompressed": _saved,
    "logo": _with_logo,
    "brighter": _brighter,
    "mirrored": _mirrored,
    "mixed": _mixed,
}
"""What a buyer does to the shop's photo before claiming it as his own."""


def launder(
    rgb: RGB, mask: Mask, transformation: str, rng: np.random.Generator
) -> tuple[bytes, Mask]:
    """(the buyer's file, a JPEG; the mask moved with the pixels). rgb: uint8 [h, w, 3]. mask: bool
    [h, w]. transformation: of `TRANSFORMATIONS`."""
    painted = Image.fromarray(mask.astype(np.uint8) * 255)
    picture, painted = TRANSFORMATIONS[transformation](Image.fromarray(rgb), painted, rng)
    quality = 40 if transformation == "recompressed" else int(rng.integers(75, 93))
    return _jpeg(picture, quality), np.asarray(painted) > 127


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    data = io.BytesIO()
    picture.save(data, format="JPEG", quality=quality, subsampling="4:2:0")
    return data.getvalue()


@dataclass(frozen=True, eq=False)
class Pair:
    """A claim photo, the listing photo it is compared with, and the painted pixels of the claim
    photo."""

    kind: str
    transformation: str
    claim: bytes
    listing: bytes
    painted: Mask


def draw_pairs(manifest: Manifest, count: int, seed: int, half: str = "report") -> Iterator[Pair]:
    """`count` pairs; each depends on the seed and its own number alone. half: of the groups."""
    table = manifest.table
    chosen = set(sorted(table["group"].unique())[HALVES.index(half) :: 2])
    groups: dict[str, list[str]] = defaultdict(list)
    sources: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    columns = (table["file_name"], table["group"], table["source"])
    for name, group, source in zip(*columns, strict=True):
        if group in chosen:
            groups[group].append(name)
            sources[source][group].append(name)
    several = [group for group in sorted(groups) if len(groups[group]) > 1]
    mixed = [source for source in sorted(sources) if len(sources[source]) > 1]
    files = sorted(name for members in groups.values() for name in members)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        kind = str(rng.choice(KINDS, p=_WEIGHTS))
        if kind == "other_shot":
            group = several[int(rng.integers(len(several)))]
            claim, listing = (str(name) for name in rng.choice(sorted(groups[group]), 2, False))
            yield _as_they_are(manifest.root, kind, claim, listing)
        elif kind == "other_product":
            source = sources[mixed[int(rng.integers(len(mixed)))]]
            two = rng.choice(sorted(source), 2, replace=False)
            claim, listing = (str(rng.choice(source[group])) for group in two)
            yield _as_they_are(manifest.root, kind, claim, listing)
        else:
            name = files[int(rng.integers(len(files)))]
            yield _copied(manifest.root / name, kind, rng)


def _as_they_are(root: Path, kind: str, claim: str, listing: str) -> Pair:
    data = (root / claim).read_bytes()
    nothing = np.zeros(decode(data).shape[:2], bool)
    return Pair(kind, "", data, (root / listing).read_bytes(), nothing)


def _copied(path: Path, kind: str, rng: np.random.Generator) -> Pair:
    rgb, listing = decode(path), path.read_bytes()
    painted = np.zeros(rgb.shape[:2], bool)
    transformation = str(rng.choice(list(TRANSFORMATIONS)))
    if kind == "second_exposure":
        scene = ndimage.median_filter(rgb, (3, 3, 1)).astype(np.float64)
        shots = [scene + rng.normal(0, _EXPOSURE_NOISE, scene.shape) for _ in range(2)]
        rgb, other = (np.clip(np.rint(shot), 0, 255).astype(np.uint8) for shot in shots)
        listing, transformation = _jpeg(Image.fromarray(other), 92), "saved"
    elif kind == "painted_copy":
        rgb, painted = _damaged(rgb, rng)
    claim, painted = launder(rgb, painted, transformation, rng)
    return Pair(kind, transformation, claim, listing, painted)


def _damaged(rgb: RGB, rng: np.random.Generator) -> tuple[RGB, Mask]:
    """Painted damage that a person could see; what is too faint is drawn again."""
    for _ in range(8):
        edit = Paint().apply(rgb, rng)
        visible = edit.mask & (np.abs(edit.rgb.astype(np.int16) - rgb).max(axis=-1) > _VISIBLE)
        if visible.mean() > _SMALLEST:
            break
    return edit.rgb, visible


def judge(pair: Pair) -> dict[str, Any]:
    """What is said of a pair, and how it fits to what was done.

    box_recall: share of the visibly painted pixels inside the change boxes; NaN without any.
    false_area: share of the claim photo that is boxed, not painted; NaN unless the pair is a copy.
    """
    found = compare(pair.claim, pair.listing)
    boxed = np.zeros((found.height, found.width), bool)
    for change in found.changes:
        left, top, right, bottom = change.box
        boxed[top:bottom, left:right] = True
    recall = float(boxed[pair.painted].mean()) if pair.painted.any() else float("nan")
    false_area = float("nan")
    if pair.kind in ("copy", "painted_copy") and pair.transformation != "logo":
        false_area = float((boxed & ~_grown(pair.painted)).mean())
    about = {"kind": pair.kind, "transformation": pair.transformation, "outcome": found.outcome}
    return about | {"box_recall": recall, "false_area": false_area}


def _grown(painted: Mask) -> Mask:
    """The painted area's own box, since a change box around a crack is no false alarm."""
    grown = np.zeros_like(painted)
    if painted.any():
        rows, columns = np.nonzero(painted)
        margin = max(painted.shape) // 40
        tall = slice(max(0, rows.min() - margin), rows.max() + margin)
        grown[tall, max(0, columns.min() - margin) : columns.max() + margin] = True
    return grown


def summarise(trials: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each kind, and for each kind of copy and transformation, with Wilson intervals at
    95%."""
    table = pd.DataFrame(trials)
    rows = []
    for kind in KINDS:
        own = table[table["kind"] == kind]
        rows += [_row(kind, "all", own)] if len(own) else []
        if kind in ("painted_copy", "copy"):
            rows += [_row(kind, str(name), few) for name, few in own.groupby("transformation")]
    return rows


def _row(kind: str, transformation: str, trials: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": kind, "transformation": transformation, "n": len(trials)}
    for outcome in OUTCOMES:
        hits = int((trials["outcome"] == outcome).sum())
        row |= share(hits, len(trials), outcome, "wilson")
    recall = trials["box_recall"].dropna()
    row |= {"painted": len(recall), "box_recall": round(recall.mean(), 4)}
    row |= {"box_hit": round((recall >= 0.5).mean(), 4)}
    return row | {"false_area": round(trials["false_area"].mean(), 4)}


def main() -> int:
    """Runs the trial and writes its table; returns the exit code."""
    parser = arguments(__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder with metadata.csv")
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--half", choices=HALVES, default="report", help="of the groups")
    options = parser.parse_args()
    try:
        pairs = draw_pairs(read_manifest(options.photos), options.pairs, options.seed, options.half)
        trials = [judge(pair) for pair in track(pairs, options.pairs, "pairs")]
    except RealDamageError as error:
        print(f"listing_trial: {error}", file=sys.stderr)
        return error.exit_code
    command = f"listing_trial --pairs {options.pairs} --seed {options.seed} --half {options.half}"
    write(summarise(trials), options.csv, command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
