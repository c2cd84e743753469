"""Files that give the class away are found; files that do not are left in peace."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.data.manifest import read_manifest, write_manifest
from realdamage.data.shortcuts import container_auroc, container_facts, separation
from realdamage.errors import PhotoError

SYNTHETIC, GROUPS = np.arange(60) % 2 == 1, np.arange(60) // 2


def photo_set(folder, n, quality):
    """`n` photos of noise, alternately real and synthetic; only the JPEG quality may differ."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = ["real" if i % 2 else "synthetic" for i in range(n)]
    names = [f"{i:03}.jpg" for i in range(n)]
    for name, label in zip(names, labels, strict=True):
        pixels = rng.normal(rng.uniform(60, 200), rng.uniform(2, 40), (48, 64, 3)).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name, quality=quality[label])
    write_manifest(folder, pd.DataFrame({"file_name": names, "label": labels}))
    return read_manifest(folder)


def test_a_quality_per_class_is_found_and_files_written_alike_tell_nothing(tmp_path):
    found = container_auroc(photo_set(tmp_path / "leaking", 60, {"real": 75, "synthetic": 95}))
    assert found.auroc > 0.99
    assert found.low > 0.95
    found = container_auroc(photo_set(tmp_path / "honest", 120, {"real": 85, "synthetic": 85}))
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.3


def test_a_group_is_never_on_both_sides_of_a_fold():
    """Each group has its own width: only a classifier that saw the group could know its label."""
    width = np.arange(160) // 4
    synthetic = np.random.default_rng(0).random(40)[width] < 0.5
    facts = pd.DataFrame({"width": width.astype(float)})
    assert separation(facts, synthetic, width)[0].auroc < 0.75
    assert separation(facts, synthetic, np.arange(160))[0].auroc > 0.9


def test_facts_of_a_jpeg_and_of_a_png(tmp_path):
    image = Image.new("RGB", (64, 48))
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    image.save(tmp_path / "a.jpg", quality=75, subsampling="4:2:0", progressive=True, exif=exif)
    image.save(tmp_path / "b.jpg", quality=95, subsampling="4:4:4")
    image.convert("L").save(tmp_path / "c.png")
    a, b, c = (container_facts(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.png"))
    # libjpeg scales the tables of ITU-T T.81, annex K, which sum to 3688 and 5505.
    expected = {
        "format": ("JPEG", "JPEG", "PNG"),
        "mode": ("RGB", "RGB", "L"),
        "width": (64, 64, 64),
        "height": (48, 48, 48),
        "subsampling": ("4:2:0", "4:4:4", ""),
        "progressive": (True, False, False),
        "has_exif": (True, False, False),
        "has_icc": (False, False, False),
        "luma_table": (1858, 369, 0),
        "chroma_table": (2780, 558, 0),
    }
    assert {name: (a[name], b[name], c[name]) for name in expected} == expected
    assert a["bytes"] == (tmp_path / "a.jpg").stat().st_size
    assert (a["upright"], a["aspect"]) == ((64, 48), 64 / 48)
    exif[0x0112] = 6  # a quarter turn: upright it has another size, and is measured as stored
    image.save(tmp_path / "turned.jpg", exif=exif)
    turned = container_facts(tmp_path / "turned.jpg")
    assert (turned["upright"], turned["width"], turned["aspect"]) == ((48, 64), 64, 64 / 48)
    (tmp_path / "d.jpg").write_text("not a picture")
    with pytest.raises(PhotoError, match=r"d\.jpg"):
        container_facts(tmp_path / "d.jpg")


@pytest.mark.parametrize(
    "fact",
    [["x"] * 60, [f"s{group % 7}" for group in GROUPS], GROUPS.astype(float)],
    ids=["constant", "words", "numbers"],
)
def test_a_fact_that_both_photos_of_a_pair_share_tells_nothing(fact):
    found, _ = separation(pd.DataFrame({"a": fact}), SYNTHETIC, GROUPS)
    assert found.auroc == 0.5


def test_a_leak_of_a_third_is_measured_as_such():
    # A third of the synthetic photos has a value that no real one has: AUROC 1/3 + 2/3 · 1/2.
    synthetic, groups = np.arange(900) % 2 == 1, np.arange(900) // 2
    fact = np.where(synthetic & (groups % 3 == 0), "x", "y")
    found, _ = separation(pd.DataFrame({"a": fact}), synthetic, groups)
    # A little low, as pooled scores of several folds are.
    assert 2 / 3 - 0.02 < found.auroc < 2 / 3
    assert found.low < 2 / 3 < found.high
    assert found.high - found.low < 0.06
