"""Tables of predictions, and a model file that calls a photo synthetic by its redness, with photos
for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.core.detector import Detector
from realdamage.core.policy import Policy
from realdamage.data.manifest import Manifest, read_manifest, write_manifest
from realdamage.evaluation.predictions import FURTHER_COLUMNS, PREDICTION_COLUMNS

Predictions = Callable[..., pd.DataFrame]


@pytest.fixture(scope="session")
def predictions() -> Predictions:
    """`predictions(label=[…], score=[…], …)`: a table of predictions with these columns, empty
    otherwise."""

    def make(**columns: Any) -> pd.DataFrame:
        n = len(columns["label"])
        names = (*PREDICTION_COLUMNS, *FURTHER_COLUMNS)
        rows = pd.DataFrame({column: [""] * n for column in names})
        files = [f"photo{i}.jpg" for i in range(n)]
        return rows.assign(file_name=files, probability=np.nan, **columns)

    return make


@pytest.fixture(scope="session")
def judge() -> Callable[..., pd.DataFrame]:
    """`judge(rows)`: with the outcomes of thresholds at -2 and +2, and the probabilities."""

    def judged(rows: pd.DataFrame) -> pd.DataFrame:
        score = rows["score"]
        outcome = np.select([score >= 2, score <= -2], ["synthetic", "real"], "review")
        reasons = np.where(outcome == "review", "between_thresholds", "")
        probability = 1 / (1 + np.exp(-score))
        return rows.assign(outcome=outcome, reasons=reasons, probability=probability)

    return judged


@pytest.fixture
def policy() -> Policy:
    """The thresholds of `judge`."""
    used = {"real": 300, "damaged": 110, "synthetic": 200}
    return Policy(
        2.0, -2.0, fpr=0.01, miss=0.05, negatives="damaged", photos=used, whole_photo_share=None
    )


@pytest.fixture(scope="session")
def red(save_red_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """A detector without thresholds."""
    path = tmp_path_factory.mktemp("red") / "red.onnx"
    return Detector.load(save_red_model(path, calibration=None, policy=None), threads=1)


@pytest.fixture
def model_file(save_red_model: Callable[..., Path], tmp_path: Path) -> Path:
    """An uncalibrated model file, red.onnx."""
    return save_red_model(tmp_path / "red.onnx", calibration=None, policy=None)


@pytest.fixture
def write_photos(tmp_path: Path) -> Callable[..., Manifest]:
    """`write_photos(rows)`: each row has `file_name`, `label`, other columns, and `red` (0..255,
    not written).

    With a `mask_file_name` only the left half, which the mask covers, is red.
    """

    def write(rows: list[dict[str, Any]]) -> Manifest:
        folder = tmp_path / "photos"
        folder.mkdir()
        for row in rows:
            painted = np.zeros((64, 80), dtype=np.uint8)
            painted[:, : 40 if row.get("mask_file_name") else 80] = 255
            pixels = np.zeros((64, 80, 3), dtype=np.uint8)
            pixels[..., 0] = np.where(painted > 0, row["red"], 0)
            Image.fromarray(pixels).save(folder / row["file_name"])
            if row.get("mask_file_name"):
                Image.fromarray(painted).save(folder / row["mask_file_name"])
        write_manifest(folder, pd.DataFrame(rows).drop(columns="red"))
        return read_manifest(folder)

    return write
