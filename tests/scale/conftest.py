"""A model, photos to judge, and the rows of a run."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.scale import Judge


@pytest.fixture
def model(save_red_model, tmp_path):
    return Judge(save_red_model(tmp_path / "red.onnx"), threads=1)


@pytest.fixture
def photos(tmp_path):
    """`photos(5)`: paths of photos, each redder than the one before."""

    def write(count):
        (tmp_path / "photos").mkdir()
        paths = [tmp_path / "photos" / f"{index:03d}.png" for index in range(count)]
        for index, path in enumerate(paths):
            rgb = np.full((40, 48, 3), 100, np.uint8)
            rgb[:20, :, 0] += index
            Image.fromarray(rgb).save(path)
        return [str(path) for path in paths]

    return write


@pytest.fixture
def rows():
    """The table in a folder of parts, without the times."""
    return lambda folder: pd.read_parquet(folder).drop(columns="ms")
