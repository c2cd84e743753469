"""Tables of predictions, and a model file that calls a photo synthetic by its redness, with photos
for it."""

import numpy as np
import pandas as pd
import pytest

from realdamage.core.detector import Detector
from realdamage.core.policy import Policy
from realdamage.evaluation.predictions import predictions_table


@pytest.fixture(scope="session")
def predictions():
    """`predictions(label=[…], score=[…], …)`: a table of predictions with these columns, empty
    otherwise."""

    def make(**columns):
        files = [f"photo{i}.jpg" for i in range(len(columns["label"]))]
        return predictions_table(pd.DataFrame({"file_name": files, **columns}))

    return make


@pytest.fixture(scope="session")
def judge():
    """`judge(rows)`: with the outcomes of thresholds at -2 and +2, and the probabilities."""

    def judged(rows):
        score = rows["score"]
        outcome = np.select([score >= 2, score <= -2], ["synthetic", "real"], "review")
        reasons = np.where(outcome == "review", "between_thresholds", "")
        probability = 1 / (1 + np.exp(-score))
        return rows.assign(outcome=outcome, reasons=reasons, probability=probability)

    return judged


@pytest.fixture(scope="session")
def judged(predictions, judge):
    """100 really damaged photos, three of them accused, and 100 edits: 60 found, 30 for review, 10
    missed."""
    rows = predictions(
        label=["real"] * 100 + ["synthetic"] * 100,
        kind=["damaged"] * 100 + ["ai_region"] * 100,
        generator=[""] * 100 + ["taesd"] * 50 + ["Nano Banana"] * 50,
        family=[""] * 100 + ["taesd"] * 50 + ["gemini-imagen"] * 50,
        damage="cracked",
        source="shop",
        score=np.repeat([3.0, 0.0, 4.0, 1.0, -3.0], [3, 97, 60, 30, 10]),
    )
    return judge(rows)


@pytest.fixture(scope="session")
def policy():
    """The thresholds of `judge`."""
    used = {"real": 300, "damaged": 110, "synthetic": 200}
    return Policy(
        2.0, -2.0, fpr=0.01, miss=0.05, negatives="damaged", photos=used, whole_photo_share=None
    )


@pytest.fixture(scope="session")
def red(save_red_model, tmp_path_factory):
    """A detector without thresholds."""
    path = tmp_path_factory.mktemp("red") / "red.onnx"
    return Detector.load(save_red_model(path, calibration=None, policy=None), threads=1)
