"""The trial of the listing comparison: pairs are what their kind says, and counts are right."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from realdamage.core.decode import decode
from realdamage.data.manifest import write_manifest
from realdamage.photo_pairs.decide import OUTCOMES

sys.path.insert(0, str(Path(__file__).parent))
from listing_trial import COLUMNS, TRANSFORMATIONS, launder, main


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six products of one source, two photos each, 240x180."""
    root = tmp_path_factory.mktemp("products")
    rows = []
    for product in range(6):
        for view in range(2):
            rng = np.random.default_rng([product, view])
            ground = rng.integers(60, 190, (60, 80, 3), dtype=np.uint8)
            picture = Image.fromarray(ground).resize((240, 180), Image.Resampling.BICUBIC)
            draw = ImageDraw.Draw(picture)
            for _ in range(60):
                x, y, size = rng.uniform(0, 240), rng.uniform(0, 180), rng.uniform(4, 30)
                draw.rectangle(
                    (x, y, x + size, y + size), fill=tuple(int(v) for v in rng.integers(0, 256, 3))
                )
            name = f"{product}_{view}.jpg"
            picture.save(root / name, quality=92)
            rows.append(
                {"file_name": name, "label": "real", "source": "shop", "group": f"product{product}"}
            )
    write_manifest(root, pd.DataFrame(rows))
    return root


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_the_mask_moves_with_the_pixels(name: str) -> None:
    mask = np.zeros((120, 160), bool)
    mask[30:60, 50:90] = True
    rgb = np.where(mask[..., None], np.uint8(20), np.full((120, 160, 3), 230, np.uint8))
    data, moved = launder(rgb, mask, name, np.random.default_rng(3))
    dark = decode(data).astype(int).mean(axis=-1) < 90
    assert moved.shape == dark.shape
    # All but the outermost pixels, which a resize blends with their surroundings.
    assert not (moved & ~ndimage.binary_dilation(dark, iterations=2)).any()
    assert not (ndimage.binary_erosion(dark, iterations=2) & ~moved).any()
    assert moved.sum() > 0.8 * dark.sum()


def test_the_command_writes_its_table(
    products: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "listing.csv"
    arguments = ["--photos", str(products), "--pairs", "8", "--half", "all", "--csv", str(table)]
    assert main(arguments) == 0
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    totals = [row for row in rows if row["transformation"] == "all"]
    assert sum(int(row["n"]) for row in totals) == 8
    assert all(
        sum(float(row[outcome]) for outcome in OUTCOMES) == pytest.approx(1, abs=1e-3)
        for row in rows
    )
    copies = [row for row in totals if row["kind"] in ("copy", "painted_copy")]
    assert copies
    assert all(float(row["same_capture"]) == 1 for row in copies)
    assert "kind" in capsys.readouterr().out
