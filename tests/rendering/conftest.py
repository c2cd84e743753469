"""Tables of predictions, and a model file that calls a photo synthetic by its redness, with photos
for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from realdamage.core.detector import Detector
from realdamage.core.policy import Policy
from realdamage.evaluation.predictions import predictions_table

Predictions = Callable[..., pd.DataFrame]


@pytest.fixture(scope="session")
def predictions() -> Predictions:
    """`predictions(label=[…], score=[…], …)`: a table of predictions with these columns, empty
    otherwise."""

    def make(**columns: Any) -> pd.DataFrame:
        files = [f"photo{i}.jpg" for i in range(len(columns["label"]))]
        return predictions_table(pd.DataFrame({"file_name": files, **columns}))

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
