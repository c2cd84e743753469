"""One set of draws behind every interval, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from realdamage.evaluation import resampling
from realdamage.evaluation.comparison import compare_models
from realdamage.evaluation.metrics import photo_metrics
from realdamage.evaluation.predictions import FURTHER_COLUMNS, PREDICTION_COLUMNS
from realdamage.evaluation.resampling import GroupDraws
from realdamage.evaluation.robustness_table import robustness_table
from realdamage.evaluation.slices import slice_table
from realdamage.rendering.report_figures import parts_table, roc_curves


def photos(n: int) -> pd.DataFrame:
    """Scores of n photos, half of them synthetic; every photo is a group of its own."""
    synthetic = np.arange(n) % 2 == 1
    empty = dict.fromkeys((*PREDICTION_COLUMNS, *FURTHER_COLUMNS), "")
    return pd.DataFrame({**empty, "file_name": [f"{index}.jpg" for index in range(n)]}).assign(
        label=np.where(synthetic, "synthetic", "real"),
        kind=np.where(synthetic, "ai_region", "damaged"),
        generator=np.where(synthetic, "maker", ""),
        outcome="review",
        score=np.random.default_rng(0).normal(size=n) + synthetic,
        probability=0.5,
    )


def test_a_figure_has_the_same_interval_in_every_table() -> None:
    table = photos(400)
    expected = photo_metrics(table)["intervals"]
    [sliced] = slice_table(table, ["generator"]).to_dict(orient="records")
    [robust] = robustness_table(table).to_dict(orient="records")
    [part] = parts_table(table, {"maker": ["maker"]})
    for row in (sliced, robust, part):
        for key in ("auroc", "tpr_at_fpr_1"):
            assert [row[f"{key}_low"], row[f"{key}_high"]] == pytest.approx(expected[key], abs=1e-9)
    curve = roc_curves(table)[0]
    at = curve.fpr.index(pytest.approx(0.01))
    assert [curve.low[at], curve.high[at]] == pytest.approx(expected["tpr_at_fpr_1"], abs=1e-9)


@pytest.mark.parametrize("size", [1, 999])
def test_figures_do_not_depend_on_the_size_of_a_chunk(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    scores, groups = rng.normal(size=60), np.arange(60) // 2
    negatives, positives = np.arange(25), np.arange(25, 60)
    draws = GroupDraws(groups, n_boot=50, seed=0)
    whole = (
        draws.roc(scores, positives, negatives, (0.1,)),
        draws.share(scores[positives] > 0, positives),
    )
    monkeypatch.setattr(resampling, "_CHUNK", size)
    np.testing.assert_allclose(
        draws.roc(scores, positives, negatives, (0.1,)), whole[0], rtol=1e-12
    )
    np.testing.assert_allclose(draws.share(scores[positives] > 0, positives), whole[1], rtol=1e-12)
    assert whole[0].shape == (2, 51)
    assert whole[1][0] == pytest.approx((scores[25:] > 0).mean())


def test_fifty_thousand_photos_take_less_than_150_mib() -> None:
    table, rows = photos(50_000), np.arange(50_000)
    tracemalloc.start()
    try:
        [row] = slice_table(table, ["generator"]).to_dict(orient="records")
        # Fewer draws where the number of figures is what would fill the memory.
        compare_models(table, table.assign(score=-table["score"]), n_boot=50)
        draws = GroupDraws(rows, n_boot=50, seed=0)
        curve = draws.roc(
            table["score"].to_numpy(), rows[1::2], rows[::2], np.geomspace(0.001, 1, 61).tolist()
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert row["auroc"] == pytest.approx(curve[0, 0])
    assert row["auroc_low"] < row["auroc"] < row["auroc_high"]
    assert curve.shape == (62, 51)
    assert peak < 150 * 2**20
