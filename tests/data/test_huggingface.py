"""Hugging Face's own library loads the folders that we write."""

import numpy as np
import pandas as pd
from PIL import Image

from realdamage.data.manifest import read_manifest, read_mask

# Hugging Face types every column by its values; ours are words throughout.
IMAGES = {"file_name": "image", "mask_file_name": "mask"}


def pixels(image):
    return np.asarray(image.convert("RGB"))


def test_what_we_write_loads_with_photos_and_masks(write_set, tmp_path, monkeypatch):
    """Row by row: the pixels of photo and mask, and every other value of the file."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    import datasets

    datasets.disable_progress_bars()
    root = write_set(tmp_path / "set", 4)
    manifest = read_manifest(root)
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(root), cache_dir=str(tmp_path / "cache")
    )
    assert set(loaded) == {"train"}  # the splits are a column, not folders
    train = loaded["train"]
    assert all(isinstance(train.features[name], datasets.Image) for name in IMAGES.values())
    written = pd.read_csv(root / "metadata.csv", nrows=0).columns
    assert {"label", "pair", "group", "split"} < set(written)
    assert set(train.column_names) == {IMAGES.get(name, name) for name in written}
    assert {bool(name) for name in manifest.table["mask_file_name"]} == {True, False}
    assert len(manifest) == len(train)
    for row, theirs in enumerate(train):
        ours = manifest.table.iloc[row]
        photo = Image.open(manifest.path(ours["file_name"]))
        np.testing.assert_array_equal(pixels(theirs["image"]), pixels(photo))
        if ours["mask_file_name"]:
            mask = read_mask(manifest, row, photo.size[::-1])
            np.testing.assert_array_equal(np.asarray(theirs["mask"]) > 127, mask)
        else:
            assert theirs["mask"] is None
        for column in set(train.column_names) - set(IMAGES.values()):
            assert (theirs[column] or "") == ours[column], column
