"""Hugging Face's own library loads the folders that we write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.data.manifest import Manifest, read_manifest, read_mask

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
