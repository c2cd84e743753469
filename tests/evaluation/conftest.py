"""A model file whose network is known by heart (the redder, the more synthetic), photos that it can
judge, and tables of predictions.
"""

import numpy as np
import pandas as pd
import pytest

from realdamage.core.tiles import PixelSpec
from realdamage.evaluation.predictions import predictions_table


@pytest.fixture
def model_file(save_red_model, tmp_path):
    """An uncalibrated model file: evidence of a patch = (mean red - mean blue) / 16."""
    spec = PixelSpec(tile=32, patch=16, overlap=16, max_side=256)
    return save_red_model(tmp_path / "red.onnx", pixel_spec=spec, calibration=None, policy=None)


@pytest.fixture(scope="session")
def predictions_of():
    """`predictions_of(label=[…], score=[…], …)`: a predictions table with these columns; the others
    are empty.

    Without `kind`, real photos are damaged and synthetic ones ai_region. Without `outcome`, scores
    from 2 are synthetic, those below 0 real, the others for review.
    """

    def make(**columns):
        table = pd.DataFrame(columns)
        if "file_name" not in columns:
            table["file_name"] = [f"{index}.jpg" for index in range(len(table))]
        if "kind" not in columns:
            table["kind"] = np.where(table["label"] == "synthetic", "ai_region", "damaged")
        if "outcome" not in columns:
            called = [table["score"] >= 2, table["score"] < 0]
            table["outcome"] = np.select(called, ["synthetic", "real"], "review")
        return predictions_table(table)

    return make
