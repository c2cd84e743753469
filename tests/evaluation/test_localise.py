"""Heat maps are measured against the painted patches and against a map that marks every patch."""

from __future__ import annotations

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
def test_localisation_needs_both_sorts_of_patch(evidence: list[PatchEvidence], reason: str) -> None:
    found = localisation_metrics(evidence)
    assert found["pixel_ap"] is None
    assert reason in found["reason"]


def photos_of(n: int, shift: float = 2.0, seed: int = 0) -> list[PatchEvidence]:
    rng = np.random.default_rng(seed)
    found = []
    for index in range(n):
        painted = np.zeros((8, 6), dtype=bool)
        painted[rng.integers(0, 4) :, : rng.integers(1, 4)] = True
        heat = 1 / (1 + np.exp(-rng.normal(shift * painted - 1, 1)))
        found.append(PatchEvidence(f"{index}.jpg", heat.astype(np.float32), painted))
    return found


def test_f1_and_iou_are_taken_at_the_shipped_threshold_which_is_called() -> None:
    heat = np.array([[0.5, 0.49], [0.9, 0.2]], dtype=np.float32)
    painted = np.array([[True, True], [False, False]])
    found = localisation_metrics([PatchEvidence("a.jpg", heat, painted)], n_boot=2)
    # Called: the patches with 0.5 and 0.9; one of them is painted, one painted patch is missed.
    assert found["f1"] == pytest.approx(2 * 1 / (2 + 2))
    assert found["iou"] == pytest.approx(1 / 3)
    assert (found["baseline_f1"], found["baseline_iou"]) == (pytest.approx(2 / 3), 0.5)


def test_the_draws_agree_with_figures_of_the_drawn_photos_themselves() -> None:
    # Two groups: a draw holds one of them twice, or both. So the ends of the interval are the
    # figures of one alone.
    evidence = photos_of(30, shift=1.0) + [
        photo._replace(file_name=f"second {photo.file_name}")
        for photo in photos_of(30, shift=3.0, seed=1)
    ]
    names = [photo.file_name for photo in evidence]
    groups = ["first"] * 30 + ["second"] * 30
    table = predictions_table(pd.DataFrame({"file_name": names, "group": groups}))
    found = localisation_metrics(evidence, table, n_boot=200)["intervals"]
    first, second = (
        localisation_metrics(half, n_boot=2) for half in (evidence[:30], evidence[30:])
    )
    for key, tolerance in (("pixel_ap", 0.002), ("f1", 1e-9), ("iou", 1e-9), ("best_f1", 0.002)):
        assert found[key] == pytest.approx(sorted([first[key], second[key]]), abs=tolerance)
