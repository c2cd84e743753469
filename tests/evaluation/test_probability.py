"""Curves from score to probability say what happens, and a table shows where they do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from realdamage.errors import RealDamageError
from realdamage.evaluation.probability import fit_platt, reliability_table

Table = Callable[..., pd.DataFrame]


def test_platt_scaling_is_platts_own_loss_at_its_minimum() -> None:
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.normal(-30, 10, 40), rng.normal(20, 10, 60)])
    labels = np.repeat([0, 1], [40, 60])
    target = np.where(labels == 1, 61 / 62, 1 / 42)

    def loss(parameters: np.ndarray) -> float:
        log_odds = parameters[0] * scores + parameters[1]
        return float(np.sum(np.logaddexp(0, log_odds) - target * log_odds))

    options = {"xatol": 1e-8, "fatol": 1e-10}
    best = minimize(loss, [0.1, 0.0], method="Nelder-Mead", options=options).x
    calibration = fit_platt(scores, labels, np.arange(100))
    assert (calibration.slope, calibration.intercept) == pytest.approx(tuple(best), rel=1e-3)


def test_scores_that_separate_the_classes_entirely_stay_modest() -> None:
    calibration = fit_platt([-1.0] * 20 + [1.0] * 20, [0] * 20 + [1] * 20, range(40))
    # Platt's targets of 20 and 20 photos: 21/22 and 1/22.
    assert calibration.probability(1.0) == pytest.approx(21 / 22, abs=1e-3)
    assert calibration.probability(-1.0) == pytest.approx(1 / 22, abs=1e-3)


def test_a_product_photographed_often_weighs_one_photo_per_class() -> None:
    rng = np.random.default_rng(0)
    labels, groups = np.arange(60) % 2, np.arange(60)
    scores = rng.normal(0, 1, 60) + labels
    once = fit_platt(scores, labels, groups)
    often = np.concatenate([np.arange(60), np.repeat([4, 7], 50)])
    repeated = fit_platt(scores[often], labels[often], groups[often])
    assert (repeated.slope, repeated.intercept) == pytest.approx(
        (once.slope, once.intercept), rel=1e-3
    )
    assert repeated.prior == once.prior == 0.5


def test_what_cannot_be_fitted_is_refused() -> None:
    scores = np.random.default_rng(0).normal(size=50)
    for given, labels, code in (
        (scores, np.zeros(50), "one_class"),
        (scores, scores < 0, "scores_do_not_rise"),
        (np.ones(50), np.arange(50) % 2, "scores_do_not_rise"),
    ):
        with pytest.raises(RealDamageError) as error:
            fit_platt(given, labels, range(50))
        assert error.value.code == code


@pytest.fixture(scope="module")
def stated_of(predictions_of: Table) -> Table:
    def make(stated: np.ndarray, synthetic: np.ndarray, group: object = "") -> pd.DataFrame:
        label = np.where(synthetic, "synthetic", "real")
        return predictions_of(label=label, score=stated, probability=stated, group=group)

    return make


@pytest.fixture(scope="module")
def calibrated(stated_of: Table) -> Table:
    """Scores of two unit normals two apart, and the probability that Bayes gives at even odds."""

    def make(n: int, seed: int = 0) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        synthetic = rng.random(n) < 0.5
        odds = np.exp(2 * rng.normal(np.where(synthetic, 1.0, -1.0)))
        return stated_of(odds / (1 + odds), synthetic)

    return make


def test_bins_are_those_of_scikit_learn(calibrated: Table) -> None:
    predictions = calibrated(500)
    table = reliability_table(predictions, bins=10)
    synthetic = predictions["label"] == "synthetic"
    observed, mean = calibration_curve(
        synthetic, predictions["probability"], n_bins=10, strategy="quantile"
    )
    np.testing.assert_allclose(table["observed"], observed, atol=1e-12)
    np.testing.assert_allclose(table["mean_probability"], mean, atol=1e-12)
    assert list(table["n"]) == [50] * 10


def test_intervals_of_a_calibrated_model_hold_its_probabilities(calibrated: Table) -> None:
    tables = [reliability_table(calibrated(400, seed), bins=10) for seed in range(30)]
    inside = [
        table["mean_probability"].between(table["observed_low"], table["observed_high"])
        for table in tables
    ]
    assert 0.94 <= np.mean(inside) <= 1
    wrong = calibrated(4000)
    wrong["probability"] = wrong["probability"] ** 3
    table = reliability_table(wrong, bins=10)
    middle = table[table["mean_probability"].between(0.1, 0.9)]
    assert (middle["observed_low"] > middle["mean_probability"]).all()


def test_each_group_counts_once_and_equal_probabilities_share_a_bin(stated_of: Table) -> None:
    stated, synthetic = np.repeat([0.3, 0.6], 40), np.arange(80) // 4 % 2 == 0
    together = stated_of(stated, synthetic, [f"g{i // 4}" for i in range(80)])
    table = reliability_table(together, bins=2)
    assert (list(table["n_groups"]), list(table["observed"])) == ([10, 10], [0.5, 0.5])
    interval = binomtest(5, 10).proportion_ci(method="exact")
    ends = table[["observed_low", "observed_high"]].to_numpy()
    assert ends == pytest.approx(np.array([[interval.low, interval.high]] * 2))
    shared = stated_of(np.repeat([0.1, 0.9], [95, 5]), np.arange(100) >= 90)
    assert list(reliability_table(shared, bins=10)["n"]) == [95, 5]
