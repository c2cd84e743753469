"""Localisation needs both sorts of patch, and its intervals draw whole groups. Its figures are
compared with libraries in test_metric_agreement."""

import numpy as np
import pandas as pd
import pytest

from realdamage.evaluation.localise import localisation_metrics
from realdamage.evaluation.predictions import PatchEvidence, predictions_table


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        ([], "no patch is painted in 0 photos"),
        ([PatchEvidence("a.jpg", np.ones((2, 1), "f4"), np.ones((2, 1), bool))], "every patch is"),
    ],
)
def test_localisation_needs_both_sorts_of_patch(evidence, reason):
    found = localisation_metrics(evidence)
    assert found["pixel_ap"] is None
    assert reason in found["reason"]


def photos_of(shift, seed):
    rng = np.random.default_rng(seed)
    found = []
    for index in range(30):
        painted = np.zeros((8, 6), dtype=bool)
        painted[rng.integers(0, 4) :, : rng.integers(1, 4)] = True
        heat = 1 / (1 + np.exp(-rng.normal(shift * painted - 1, 1)))
        found.append(PatchEvidence(f"{seed}/{index}.jpg", heat.astype(np.float32), painted))
    return found


def test_the_draws_agree_with_figures_of_the_drawn_photos_themselves():
    # Two groups: a draw holds one of them twice, or both. So the ends of the interval are the
    # figures of one alone.
    first, second = photos_of(shift=1.0, seed=0), photos_of(shift=3.0, seed=1)
    names = [photo.file_name for photo in first + second]
    columns = {"file_name": names, "group": ["first"] * 30 + ["second"] * 30}
    table = predictions_table(pd.DataFrame(columns))
    found = localisation_metrics(first + second, table, n_boot=100)["intervals"]
    alone = [localisation_metrics(half, n_boot=2) for half in (first, second)]
    for key, tolerance in (("pixel_ap", 0.002), ("f1", 1e-9), ("iou", 1e-9), ("best_f1", 0.002)):
        assert found[key] == pytest.approx(sorted(one[key] for one in alone), abs=tolerance)
