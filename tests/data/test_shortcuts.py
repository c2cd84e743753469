"""Files that give the class away are found; files that do not are left in peace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.data.manifest import Manifest, read_manifest, write_manifest
from realdamage.data.shortcuts import (
    _folds,
    container_auroc,
    container_facts,
    separation,
    shows_damage,
    standing_out,
)
from realdamage.errors import ManifestError, PhotoError


def photo_set(folder: Path, n: int, quality: dict[str, int]) -> Manifest:
    """`n` photos of noise, alternately real and synthetic; only the JPEG quality may differ."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = ["real" if i % 2 else "synthetic" for i in range(n)]
    names = [f"{i:03}.jpg" for i in range(n)]
    for name, label in zip(names, labels, strict=True):
        pixels = (
            rng.normal(rng.uniform(60, 200), rng.uniform(2, 40), (48, 64, 3))
            .clip(0, 255)
            .astype(np.uint8)
        )
        Image.fromarray(pixels).save(folder / name, quality=quality[label])
    write_manifest(folder, pd.DataFrame({"file_name": names, "label": labels}))
    return read_manifest(folder)


def test_a_quality_per_class_is_found_at_once(tmp_path: Path) -> None:
    found = container_auroc(photo_set(tmp_path / "leaking", 60, {"real": 75, "synthetic": 95}))
    assert found.auroc > 0.99
    assert found.low > 0.95


def test_files_written_alike_tell_nothing(tmp_path: Path) -> None:
    found = container_auroc(photo_set(tmp_path / "honest", 200, {"real": 85, "synthetic": 85}))
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.25


def test_a_group_is_never_on_both_sides_of_a_fold(tmp_path: Path) -> None:
    # Each group has its own size: only a classifier that saw the group could know its label.
    rng = np.random.default_rng(0)
    rows = []
    for group in range(40):
        label = "real" if rng.random() < 0.5 else "synthetic"
        for copy in range(4):
            name = f"{group}_{copy}.png"
            Image.new("L", (40 + group, 40)).save(tmp_path / name)
            rows.append({"file_name": name, "label": label, "group": f"g{group}"})
    write_manifest(tmp_path, pd.DataFrame(rows))
    manifest = read_manifest(tmp_path)
    assert container_auroc(manifest, n_boot=20).auroc < 0.75
    separated = Manifest(manifest.root, manifest.table.assign(group=manifest.table["file_name"]))
    assert container_auroc(separated, n_boot=20).auroc > 0.9


def test_facts_of_a_jpeg_and_of_a_png(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 48))
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    image.save(tmp_path / "a.jpg", quality=75, subsampling="4:2:0", progressive=True, exif=exif)
    image.save(tmp_path / "b.jpg", quality=95, subsampling="4:4:4")
    image.convert("L").save(tmp_path / "c.png")
    a, b, c = (container_facts(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.png"))
    assert (a["format"], a["mode"], a["width"], a["height"]) == ("JPEG", "RGB", 64, 48)
    assert a["bytes"] == (tmp_path / "a.jpg").stat().st_size
    assert (a["subsampling"], b["subsampling"], c["subsampling"]) == ("4:2:0", "4:4:4", "")
    assert (a["progressive"], a["has_exif"], b["has_exif"], c["has_icc"]) == (
        True,
        True,
        False,
        False,
    )
    # libjpeg scales the tables of ITU-T T.81, annex K, which sum to 3688 and 5505.
    assert (a["luma_table"], a["chroma_table"]) == (1858, 2780)
    assert (b["luma_table"], b["chroma_table"]) == (369, 558)
    assert (c["format"], c["luma_table"], c["chroma_table"]) == ("PNG", 0, 0)


def test_the_facts_tell_any_two_qualities_and_any_two_tables_apart(tmp_path: Path) -> None:
    found = []
    for quality in range(1, 101):
        Image.new("RGB", (40, 40)).save(tmp_path / "a.jpg", quality=quality)
        facts = container_facts(tmp_path / "a.jpg")
        found.append((facts["luma_table"], facts["chroma_table"], facts["tables"]))
    assert len({digest for _, _, digest in found}) == 100
    assert len({(luma, chroma) for luma, chroma, _ in found}) == 100
    turned = [[16, 11] + [20] * 62, [11, 16] + [20] * 62]  # the same sums
    for name, table in zip(("b", "c"), turned, strict=True):
        Image.new("RGB", (40, 40)).save(tmp_path / f"{name}.jpg", qtables=[table, table])
    b, c = (container_facts(tmp_path / name) for name in ("b.jpg", "c.jpg"))
    assert b["luma_table"] == c["luma_table"]
    assert b["tables"] != c["tables"]


def test_a_turned_photo_has_the_size_that_it_is_seen_in(tmp_path: Path) -> None:
    for orientation, upright in ((1, (64, 48)), (3, (64, 48)), (6, (48, 64)), (8, (48, 64))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
        facts = container_facts(tmp_path / "a.jpg")
        assert facts["upright"] == upright
        assert (facts["width"], facts["aspect"]) == (
            64,
            64 / 48,
        )  # as stored: the turn itself may give a class away


def test_whether_a_photo_shows_damage_is_said_or_not_known() -> None:
    rows = [
        ("damaged", "", "yes"),
        ("intact", "torn", "yes"),
        ("unknown", "torn", "yes"),
        ("intact", "", "no"),
    ]
    rows += [("unknown", "", ""), ("", "", "")]
    table = pd.DataFrame(rows, columns=["condition", "damage", "expected"])
    assert shows_damage(table).tolist() == table["expected"].tolist()


class TestSeparation:
    synthetic = np.arange(60) % 2 == 1
    groups = np.arange(60) // 2

    def test_equal_facts_tell_exactly_nothing(self) -> None:
        found, _ = separation(pd.DataFrame({"a": ["x"] * 60}), self.synthetic, self.groups)
        assert found == (0.5, 0.5, 0.5)

    @pytest.mark.parametrize("text", [True, False])
    def test_a_fact_that_both_photos_of_a_pair_share_tells_nothing(self, text: bool) -> None:
        fact = (
            np.array([f"s{group % 7}" for group in self.groups])
            if text
            else self.groups.astype(float)
        )
        found, _ = separation(pd.DataFrame({"a": fact}), self.synthetic, self.groups)
        assert found.auroc == 0.5

    @pytest.mark.parametrize("values", [("x", "y"), (True, False), (2.0, 1.0)])
    def test_higher_scores_are_more_synthetic(self, values: tuple[str | bool | float, ...]) -> None:
        found, scores = separation(
            pd.DataFrame({"a": np.where(self.synthetic, *values)}), self.synthetic, self.groups
        )
        assert found == (1.0, 1.0, 1.0)
        assert (scores > 0).tolist() == self.synthetic.tolist()

    def test_a_leak_of_a_third_is_measured_as_such(self) -> None:
        # A third of the synthetic photos has a value that no real one has: AUROC 1/3 + 2/3 · 1/2.
        synthetic, groups = np.arange(900) % 2 == 1, np.arange(900) // 2
        fact = np.where(synthetic & (groups % 3 == 0), "x", "y")
        found, _ = separation(pd.DataFrame({"a": fact}), synthetic, groups)
        assert (
            2 / 3 - 0.02 < found.auroc < 2 / 3
        )  # a little low, as pooled scores of several folds are
        assert found.low < 2 / 3 < found.high
        assert found.high - found.low < 0.06


@pytest.mark.parametrize("seed", range(5))
def test_every_fold_and_what_is_left_of_it_hold_both_classes(seed: int) -> None:
    """Also where most groups have one class only, or a class has as many groups as folds."""
    rng = np.random.default_rng(seed)
    groups = np.arange(200) // 4
    synthetic = np.isin(groups, rng.choice(50, 5 - seed % 4, replace=False)) & (
        rng.random(200) < 0.8
    )
    folds = _folds(synthetic, groups, seed)
    assert np.array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(200))
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        for rows in (train, test):
            assert len(np.unique(synthetic[rows])) == 2


def test_what_stands_out_is_named_from_both_ends() -> None:
    synthetic = np.array([False] * 10 + [True] * 10)
    words = pd.DataFrame({"source": [*"aaaaaabbb", "", *"bbbcccccdd"]})
    assert standing_out("source", words, synthetic) == (
        "source a: 6 real, 0 synthetic; source (empty): 1 real, 0 synthetic; "
        "source c: 0 real, 5 synthetic; source d: 0 real, 2 synthetic"
    )
    flags = pd.DataFrame({"has_exif": ~synthetic})
    assert (
        standing_out("exif", flags, synthetic)
        == "exif True: 10 real, 0 synthetic; exif False: 0 real, 10 synthetic"
    )
    numbers = pd.DataFrame({"width": [*range(100, 113), *range(200, 213)]})
    assert (
        standing_out("width", numbers, np.arange(26) >= 13)
        == "width: median 106 real, 206 synthetic"
    )


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("not a picture")
    with pytest.raises(PhotoError, match=r"a\.jpg"):
        container_facts(tmp_path / "a.jpg")


def test_too_few_groups_of_a_class_are_refused(tmp_path: Path) -> None:
    manifest = photo_set(tmp_path / "set", 6, {"real": 85, "synthetic": 85})
    one_class = manifest.subset(manifest.table["label"] == "real")
    with pytest.raises(ManifestError, match="3 real and 0 synthetic"):
        container_auroc(one_class)
    one_product = Manifest(manifest.root, manifest.table.assign(group="shoe"))
    with pytest.raises(ManifestError, match="at least two groups"):
        container_auroc(one_product)
