"""Files that give the class away are found; files that do not are left in peace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.data.manifest import Manifest, read_manifest, write_manifest
from realdamage.data.shortcuts import container_auroc, container_facts
from realdamage.inference.errors import ManifestError, PhotoError


def photo_set(folder: Path, n: int, quality: dict[str, int]) -> Manifest:
    """`n` photos of noise, alternately real and synthetic; only the JPEG quality may differ between the two."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = ["real" if i % 2 else "synthetic" for i in range(n)]
    names = [f"{i:03}.jpg" for i in range(n)]
    for name, label in zip(names, labels, strict=True):
        pixels = rng.normal(rng.uniform(60, 200), rng.uniform(2, 40), (48, 64, 3)).clip(0, 255).astype(np.uint8)
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


def test_the_figure_is_reproducible(tmp_path: Path) -> None:
    manifest = photo_set(tmp_path / "set", 40, {"real": 85, "synthetic": 85})
    assert container_auroc(manifest, n_boot=20) == container_auroc(manifest, n_boot=20)


def test_a_group_is_never_on_both_sides_of_a_fold(tmp_path: Path) -> None:
    # Each group has a size of its own: only a classifier that saw the same group before could tell its label.
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
    assert (a["progressive"], a["has_exif"], b["has_exif"], c["has_icc"]) == (True, True, False, False)
    # libjpeg's tables: those of ITU-T T.81, annex K, scaled to the quality; at 50 they sum to 3688 and 5505.
    assert (a["luma_table"], a["chroma_table"]) == (1858, 2780)
    assert (b["luma_table"], b["chroma_table"]) == (369, 558)
    assert (c["format"], c["luma_table"], c["chroma_table"]) == ("PNG", 0, 0)


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("not a picture")
    with pytest.raises(PhotoError, match=r"a\.jpg: cannot be read as an image"):
        container_facts(tmp_path / "a.jpg")


def test_too_few_groups_of_a_class_are_refused(tmp_path: Path) -> None:
    manifest = photo_set(tmp_path / "set", 6, {"real": 85, "synthetic": 85})
    one_class = manifest.subset(manifest.table["label"] == "real")
    with pytest.raises(ManifestError, match="with 3 real and 0 synthetic photos"):
        container_auroc(one_class)
    one_product = Manifest(manifest.root, manifest.table.assign(group="shoe"))
    with pytest.raises(ManifestError, match="each class needs photos of at least two groups"):
        container_auroc(one_product)
