"""The trial of the listing comparison: pairs are what their kind says, and counts are right."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from realdamage.core.decode import decode
from realdamage.data.manifest import read_manifest, write_manifest
from realdamage.photo_pairs.decide import OUTCOMES

sys.path.insert(0, str(Path(__file__).parent))
from listing_trial import (
    COLUMNS,
    KINDS,
    TRANSFORMATIONS,
    Trial,
    draw_pairs,
    launder,
    main,
    summarise,
)


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


def test_pairs_are_what_their_kind_says_and_repeat_with_the_seed(products: Path) -> None:
    manifest = read_manifest(products)
    group = {
        (products / name).read_bytes(): group
        for name, group in manifest.table[["file_name", "group"]].values
    }
    pairs = list(draw_pairs(manifest, 40, seed=1, half="all"))
    assert {pair.kind for pair in pairs} == set(KINDS)
    for pair in pairs:
        assert pair.painted.any() == (pair.kind == "painted_copy")
        assert pair.painted.shape == decode(pair.claim).shape[:2]
        if pair.kind.startswith("other"):
            assert pair.claim != pair.listing
            assert (group[pair.claim] == group[pair.listing]) == (pair.kind == "other_shot")
    again = list(draw_pairs(manifest, 40, seed=1, half="all"))
    assert [pair.claim for pair in again] == [pair.claim for pair in pairs]


def test_no_photo_is_in_both_halves(products: Path) -> None:
    manifest = read_manifest(products)
    seen = [
        {pair.listing for pair in draw_pairs(manifest, 60, 0, half) if pair.kind == "copy"}
        for half in ("tune", "report")
    ]
    assert all(seen)
    assert not seen[0] & seen[1]


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


def test_rates_intervals_and_recall_are_counted_right() -> None:
    trials = [
        Trial("painted_copy", "saved", "same_capture", recall, 0.1, 100.0) for recall in (1.0, 0.4)
    ]
    trials += [Trial("painted_copy", "logo", "unrelated", 0.0, math.nan, 400.0)]
    rows = {(row["kind"], row["transformation"]): row for row in summarise(trials)}
    assert set(rows) == {
        ("painted_copy", "all"),
        ("painted_copy", "saved"),
        ("painted_copy", "logo"),
    }
    row = rows["painted_copy", "all"]
    assert (row["n"], row["same_capture"], row["unrelated"]) == (3, 0.6667, 0.3333)
    # Wilson 1927 for 2 of 3 at 95%.
    assert (row["same_capture_low"], row["same_capture_high"]) == (0.2077, 0.9385)
    assert (row["box_recall"], row["box_hit"], row["false_area"]) == (0.4667, 0.3333, 0.1)
    assert row["ms_median"] == 100


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


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [(["--pairs", "0"], 2, "--pairs 0: at least 1 pair"), (["--photos", "nowhere"], 2, "nowhere")],
)
def test_wrong_input_is_named(
    products: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    assert main(["--photos", str(products), "--csv", str(tmp_path / "x.csv"), *arguments]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()
