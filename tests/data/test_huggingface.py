"""Hugging Face's own library loads the folders that we write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.data.manifest import Manifest, read_manifest, read_mask, write_manifest

Load = Callable[..., Any]
# Hugging Face types every column by its values; ours are words throughout.
IMAGES = {"file_name": "image", "mask_file_name": "mask"}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """`datasets.load_dataset("imagefolder", …)` without a network and with its own cache."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    import datasets

    datasets.disable_progress_bars()

    def run(**options: Any) -> Any:
        return datasets.load_dataset("imagefolder", cache_dir=str(tmp_path / "cache"), **options)

    return run


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def assert_same(manifest: Manifest, dataset: Any) -> None:
    """Row by row: the pixels of photo and mask, and every other value of the file."""
    assert len(manifest) == len(dataset)
    for row, theirs in enumerate(dataset):
        ours = manifest.table.iloc[row]
        photo = Image.open(manifest.path(ours["file_name"]))
        np.testing.assert_array_equal(pixels(theirs["image"]), pixels(photo))
        if ours["mask_file_name"]:
            np.testing.assert_array_equal(
                np.asarray(theirs["mask"]) > 127, read_mask(manifest, row, photo.size[::-1])
            )
        else:
            assert theirs["mask"] is None
        for column in set(dataset.column_names) - {"image", "mask", "split"}:
            assert (theirs[column] or "") == ours[column], column


def test_what_we_write_loads_with_photos_and_masks(
    load: Load, write_set: Callable[..., Path], tmp_path: Path
) -> None:
    root = write_set(tmp_path / "set", 4)
    manifest = read_manifest(root)
    dataset = load(data_dir=str(root))
    import datasets

    assert set(dataset) == {"train"}  # the splits are a column, not folders
    train = dataset["train"]
    assert {name: type(train.features[name]) for name in IMAGES.values()} == dict.fromkeys(
        IMAGES.values(), datasets.Image
    )
    written = {
        IMAGES.get(name, name) for name in pd.read_csv(root / "metadata.csv", nrows=0).columns
    }
    assert set(train.column_names) == written
    assert {"label", "pair", "group", "split"} < written
    assert {bool(name) for name in manifest.table["mask_file_name"]} == {True, False}
    assert_same(manifest, train)
    assert list(train["split"]) == manifest.table["split"].tolist()


def test_columns_that_change_their_mind_late_are_loaded_too(load: Load, tmp_path: Path) -> None:
    n = 10_100
    table = pd.DataFrame({"file_name": [f"{i}.jpg" for i in range(n)], "label": "real"})
    table["group"] = [
        str(i) if i < 10_050 else f"mug-{i}" for i in range(n)
    ]  # numbers first, words later
    table["note"] = [""] * (n - 1) + ["the only one"]
    table["area"] = ["1"] * (n - 3) + ["0.25", "", "0.5"]
    table["mask_file_name"] = [""] * (n - 2) + ["m.png", "n.png"]
    write_manifest(tmp_path / "set", table)
    assert set(read_manifest(tmp_path / "set", check_files=False).table["note"]) == {
        "",
        "the only one",
    }
    # No photo is needed: it is opened when its row is asked for.
    train = load(data_files={"train": [str(tmp_path / "set/metadata.csv")]})["train"].with_format(
        "arrow"
    )
    found = train.to_pandas().set_index(
        train.to_pandas()["image"].map(lambda image: Path(image["path"]).name)
    )
    expected = table.set_index("file_name").loc[found.index]
    assert found["group"].tolist() == expected["group"].tolist()
    assert found["note"].dropna().tolist() == ["the only one"]
    assert found["area"].dropna().sum() == n - 3 + 0.75
    assert sorted(Path(mask["path"]).name for mask in found["mask"].dropna()) == ["m.png", "n.png"]
