"""The reliability table counts what was said against what was true, at the prior that is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.predictions import PREDICTION_COLUMNS
from realdamage.evaluation.reliability import COLUMNS, reliability_table


def predictions_of(
    stated: np.ndarray, synthetic: np.ndarray, groups: np.ndarray | None = None
) -> pd.DataFrame:
    n = len(stated)
    table = pd.DataFrame(
        {**dict.fromkeys(PREDICTION_COLUMNS, ""), "file_name": [f"{i}.jpg" for i in range(n)]}
    )
    return table.assign(
        probability=stated,
        score=stated,
        label=np.where(synthetic, "synthetic", "real"),
        group=[f"g{i}" for i in (np.arange(n) if groups is None else groups)],
    )


def calibrated(n: int, prior: float = 0.5, seed: int = 0) -> pd.DataFrame:
    """Scores of two unit normals two apart, and the probability that Bayes gives at the prior they are drawn with."""
    rng = np.random.default_rng(seed)
    synthetic = rng.random(n) < prior
    scores = rng.normal(np.where(synthetic, 1.0, -1.0))
    odds = prior / (1 - prior) * np.exp(2 * scores)
    return predictions_of(odds / (1 + odds), synthetic)


def test_bins_are_those_of_scikit_learn() -> None:
    predictions = calibrated(500)
    table = reliability_table(predictions, bins=10)
    observed, mean = calibration_curve(
        predictions["label"] == "synthetic",
        predictions["probability"],
        n_bins=10,
        strategy="quantile",
    )
    assert list(table.columns) == list(COLUMNS)
    np.testing.assert_allclose(table["observed"], observed, atol=1e-12)
    np.testing.assert_allclose(table["mean_probability"], mean, atol=1e-12)
    assert list(table["n"]) == [50] * 10
    assert table["n_synthetic"].sum() == (predictions["label"] == "synthetic").sum()
    assert (
        table["high_probability"][:-1].to_numpy() < table["low_probability"][1:].to_numpy()
    ).all()


def test_a_bin_by_hand() -> None:
    table = reliability_table(
        predictions_of(np.repeat([0.2, 0.8], 10), np.arange(20) % 5 == 0), bins=2
    )
    assert list(table["n"]) == [10, 10]
    assert list(table["observed"]) == pytest.approx([0.2, 0.2])
    interval = binomtest(2, 10).proportion_ci(method="exact")
    assert (table["observed_low"][0], table["observed_high"][0]) == pytest.approx(
        (interval.low, interval.high)
    )


def test_intervals_of_a_calibrated_model_hold_its_probabilities() -> None:
    inside = [
        (table["observed_low"] <= table["mean_probability"])
        & (table["mean_probability"] <= table["observed_high"])
        for table in (reliability_table(calibrated(400, seed=seed), bins=10) for seed in range(30))
    ]
    assert 0.94 <= np.mean(inside) <= 1
    wrong = calibrated(4000)
    wrong["probability"] = wrong["probability"] ** 3
    table = reliability_table(wrong, bins=10)
    middle = table[table["mean_probability"].between(0.1, 0.9)]
    assert (middle["observed_low"] > middle["mean_probability"]).all()


def test_photos_of_one_product_widen_the_interval() -> None:
    stated, synthetic = np.repeat([0.3, 0.6], 40), np.arange(80) // 4 % 2 == 0
    alone = reliability_table(predictions_of(stated, synthetic), bins=2)
    together = reliability_table(predictions_of(stated, synthetic, np.arange(80) // 4), bins=2)
    assert list(together["n_groups"]) == [10, 10]
    assert list(together["observed"]) == list(alone["observed"]) == [0.5, 0.5]
    interval = binomtest(5, 10).proportion_ci(method="exact")
    assert (together["observed_low"][0], together["observed_high"][1]) == pytest.approx(
        (interval.low, interval.high)
    )
    assert (together["observed_low"] < alone["observed_low"]).all()


def test_both_axes_move_to_the_prior_that_is_asked_for() -> None:
    balanced, rare = calibrated(20_000), calibrated(200_000, prior=0.05, seed=1)
    moved = reliability_table(balanced, bins=10, prior=0.05, calibration_prior=0.5)
    # Nine in ten at even odds is one in three at one in twenty: 9 * (0.05 / 0.95).
    told = reliability_table(balanced, bins=10)
    odds = told["mean_probability"] / (1 - told["mean_probability"]) / 19
    assert moved["high_probability"].iloc[-1] < told["high_probability"].iloc[-1]
    np.testing.assert_allclose(moved["mean_probability"], odds / (1 + odds), rtol=0.12)
    # A calibrated model stays calibrated when the share of synthetic photos changes.
    for table in (moved, reliability_table(rare, bins=10)):
        np.testing.assert_allclose(table["observed"], table["mean_probability"], atol=0.03)
    assert (
        (moved["observed_low"] <= moved["observed"]) & (moved["observed"] <= moved["observed_high"])
    ).all()


def test_equal_probabilities_share_a_bin() -> None:
    table = reliability_table(
        predictions_of(np.repeat([0.1, 0.9], [95, 5]), np.arange(100) >= 90), bins=10
    )
    assert list(table["n"]) == [95, 5]
    assert list(table["bin"]) == [0, 1]


def test_perturbed_and_unjudged_photos_do_not_count() -> None:
    predictions = calibrated(100)
    predictions.loc[:9, "perturbation"] = "jpeg_50"
    predictions.loc[10:19, "probability"] = np.nan
    assert reliability_table(predictions, bins=5)["n"].sum() == 80


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({"probability": np.nan}, {}, RealDamageError, "not calibrated when it judged them"),
        ({"label": "real"}, {}, RealDamageError, "found 0 synthetic and 50 real"),
        ({"probability": 1.5}, {}, RealDamageError, r"a probability of 1.5 is not in 0..1"),
        ({}, {"bins": 0}, UsageError, "bins=0 must be at least 1"),
        ({}, {"prior": 0.01}, UsageError, "prior needs calibration_prior"),
        ({}, {"prior": 1.0, "calibration_prior": 0.5}, UsageError, r"prior=1.0 must be above 0"),
        ({}, {"prior": 0.1, "calibration_prior": 0.0}, UsageError, r"prior=0.0 must be above 0"),
    ],
)
def test_bad_input_is_named(
    change: dict[str, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        reliability_table(calibrated(50).assign(**change), **options)
