"""A model file whose network is known by heart (the redder, the more synthetic), photos that it can
judge, and tables of predictions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.core.tiles import PixelSpec
from realdamage.data.manifest import Manifest, read_manifest, write_manifest
from realdamage.evaluation.predictions import FURTHER_COLUMNS, PREDICTION_COLUMNS


@pytest.fixture
def model_file(save_red_model: Callable[..., Path], tmp_path: Path) -> Path:
    """An uncalibrated model file: evidence of a patch = (mean red - mean blue) / 16."""
    spec = PixelSpec(tile=32, patch=16, overlap=16, max_side=256)
    return save_red_model(tmp_path / "red.onnx", pixel_spec=spec, calibration=None, policy=None)


@pytest.fixture
def write_photos(tmp_path: Path) -> Callable[..., Manifest]:
    """`write_photos(rows)`: each row names `file_name`, `label`, what else it likes, and `red`
    (0..255, not written).

    Photos are 80×64 PNG files with blue 128, so that they score (red - 128) / 16; those with a
    `mask_file_name` are as red only in their left 40 columns, which the mask covers, and else 0.
    """

    def write(rows: list[dict[str, object]]) -> Manifest:
        folder = tmp_path / "photos"
        folder.mkdir()
        for row in rows:
            pixels = np.full((64, 80, 3), (0, 0, 128), dtype=np.uint8)
            painted = np.zeros((64, 80), dtype=np.uint8)
            painted[:, : 40 if row.get("mask_file_name") else 80] = 255
            pixels[..., 0] = np.where(painted > 0, row["red"], 0)
            Image.fromarray(pixels).save(folder / str(row["file_name"]))
            if row.get("mask_file_name"):
                Image.fromarray(painted).save(folder / str(row["mask_file_name"]))
        write_manifest(folder, pd.DataFrame(rows).drop(columns="red"))
        return read_manifest(folder)

    return write


@pytest.fixture(scope="session")
def predictions_of() -> Callable[..., pd.DataFrame]:
    """`predictions_of(label=[…], score=[…], …)`: a predictions table with these columns; the others
    are empty.

    Without `kind`, real photos are damaged and synthetic ones ai_region. Without `outcome`, scores
    from 2 are synthetic, those below 0 real, the others for review.
    """

    def make(**columns: object) -> pd.DataFrame:
        table = pd.DataFrame(columns)
        if "file_name" not in columns:
            table["file_name"] = [f"{index}.jpg" for index in range(len(table))]
        if "kind" not in columns:
            table["kind"] = np.where(table["label"] == "synthetic", "ai_region", "damaged")
        if "outcome" not in columns:
            called = [table["score"] >= 2, table["score"] < 0]
            table["outcome"] = np.select(called, ["synthetic", "real"], "review")
        empty = dict.fromkeys((*PREDICTION_COLUMNS, *FURTHER_COLUMNS), "")
        return table.assign(**{key: "" for key in empty if key not in table})

    return make
