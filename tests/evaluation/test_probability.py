"""Curves from score to probability say what happens, and a table shows where they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression

from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.predictions import PREDICTION_COLUMNS
from realdamage.evaluation.probability import (
    fit_calibration,
    fit_isotonic,
    fit_platt,
    held_out_brier,
    reliability_table,
)


def test_platt_scaling_finds_the_odds_that_the_scores_were_drawn_with() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(1, 2, 20_000)
    labels = rng.random(20_000) < 1 / (1 + np.exp(-(0.8 * scores - 1.5)))
    calibration = fit_platt(scores, labels, np.arange(20_000))
    assert calibration.slope == pytest.approx(0.8, abs=0.03)
    assert calibration.intercept == pytest.approx(-1.5, abs=0.06)
    assert calibration.prior == pytest.approx(labels.mean())
    probabilities = np.array([calibration.probability(score) for score in scores])
    for low in np.arange(0, 1, 0.2):
        bin_ = (probabilities >= low) & (probabilities < low + 0.2)
        assert labels[bin_].mean() == pytest.approx(probabilities[bin_].mean(), abs=0.03)


def test_platt_scaling_is_platts_own_loss_at_its_minimum() -> None:
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.normal(-30, 10, 40), rng.normal(20, 10, 60)])
    labels = np.repeat([0, 1], [40, 60])
    target = np.where(labels == 1, 61 / 62, 1 / 42)

    def loss(parameters: np.ndarray) -> float:
        log_odds = parameters[0] * scores + parameters[1]
        return float(np.sum(np.logaddexp(0, log_odds) - target * log_odds))

    best = minimize(
        loss, [0.1, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}
    ).x
    calibration = fit_platt(scores, labels, np.arange(100))
    assert (calibration.slope, calibration.intercept) == pytest.approx(tuple(best), rel=1e-3)


def test_scores_that_separate_the_classes_entirely_stay_modest() -> None:
    calibration = fit_platt([-1.0] * 20 + [1.0] * 20, [0] * 20 + [1] * 20, range(40))
    # Platt's targets of 20 and 20 photos: 21/22 and 1/22.
    assert calibration.probability(1.0) == pytest.approx(21 / 22, abs=1e-3)
    assert calibration.probability(-1.0) == pytest.approx(1 / 22, abs=1e-3)


def test_a_product_photographed_often_weighs_one_photo_per_class() -> None:
    rng = np.random.default_rng(0)
    scores, labels, groups = rng.normal(0, 1, 60), np.arange(60) % 2, np.arange(60)
    scores = scores + labels
    once = fit_platt(scores, labels, groups)
    often = np.concatenate([np.arange(60), np.repeat([4, 7], 50)])
    repeated = fit_platt(scores[often], labels[often], groups[often])
    assert (repeated.slope, repeated.intercept) == pytest.approx(
        (once.slope, once.intercept), rel=1e-3
    )
    assert repeated.prior == once.prior == 0.5


def stairs(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose probability jumps twice:

    0.05 below 0, 0.5 up to 1, 0.95 above; no sigmoid is near it.
    """
    rng = np.random.default_rng(seed)
    scores = rng.uniform(-20, 2, n)
    chance = np.where(scores < 0, 0.05, np.where(scores < 1, 0.5, 0.95))
    return scores, rng.random(n) < chance


def test_isotonic_knots_say_what_scikit_learn_says() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=300)
    labels = rng.random(300) < 1 / (1 + np.exp(-2 * scores))
    calibration = fit_isotonic(scores, labels, np.arange(300))
    reference = IsotonicRegression(
        y_min=1 / ((~labels).sum() + 2),
        y_max=(labels.sum() + 1) / (labels.sum() + 2),
        out_of_bounds="clip",
    ).fit(scores, labels)
    asked = np.concatenate([scores, rng.uniform(-9, 9, 100)])
    found = np.array([calibration.probability(score) for score in asked])
    np.testing.assert_allclose(found, reference.predict(asked), atol=1e-12)
    assert 0 < found.min() < found.max() < 1
    assert calibration.prior == pytest.approx(labels.mean())


def test_isotonic_never_says_that_it_is_certain() -> None:
    calibration = fit_isotonic([-1.0] * 20 + [1.0] * 20, [0] * 20 + [1] * 20, range(40))
    assert calibration.probability(1e9) == pytest.approx(21 / 22)
    assert calibration.probability(-1e9) == pytest.approx(1 / 22)


def test_isotonic_finds_stairs() -> None:
    scores, labels = stairs(20_000)
    calibration = fit_isotonic(scores, labels, np.arange(len(scores)))
    assert [calibration.probability(score) for score in (-10, 0.5, 1.5)] == pytest.approx(
        [0.05, 0.5, 0.95], abs=0.05
    )


def test_auto_takes_the_lower_brier_score_on_held_out_groups() -> None:
    scores, labels = stairs(1000)
    calibration, brier = fit_calibration("auto", scores, labels, np.arange(1000))
    assert brier is not None
    assert calibration == fit_isotonic(scores, labels, np.arange(1000))
    # The best that can be is the noise itself: 0.05 * 0.95 for 20 of 22 and for the last, 0.25 for
    # one.
    assert brier["isotonic"] == pytest.approx(21 / 22 * 0.0475 + 0.25 / 22, abs=0.01)
    assert brier["isotonic"] < brier["platt"] - 0.001

    rng = np.random.default_rng(0)
    scores = rng.normal(size=120)
    labels = rng.random(120) < 1 / (1 + np.exp(-2 * scores))
    calibration, brier = fit_calibration("auto", scores, labels, np.arange(120))
    assert brier is not None
    assert brier["platt"] < brier["isotonic"]
    assert calibration == fit_platt(scores, labels, np.arange(120))


def test_auto_holds_whole_groups_out() -> None:
    # Ten photos of each product, all alike: held out apart from each other, the steps would be
    # learnt by heart.
    rng = np.random.default_rng(0)
    scores, labels = np.repeat(rng.normal(size=40), 10), np.repeat(rng.random(40) < 0.5, 10)
    scores[labels] += 1
    together = held_out_brier(scores, labels, np.repeat(np.arange(40), 10))
    apart = held_out_brier(scores, labels, np.arange(400))
    assert together["isotonic"] > apart["isotonic"] + 0.03


def test_a_tie_goes_to_platt() -> None:
    scores, labels = np.repeat([-1.0, 1.0], 50), np.repeat([0, 1], 50)
    calibration, brier = fit_calibration("auto", scores, labels, np.arange(100))
    assert brier is not None
    assert round(brier["platt"], 4) == round(brier["isotonic"], 4)
    assert calibration.method == "platt"


def test_the_method_that_is_named_is_taken() -> None:
    scores, labels = stairs(200)
    for method in ("platt", "isotonic"):
        groups = np.arange(200)
        calibration, brier = fit_calibration(method, scores, labels, groups)  # type: ignore[arg-type]
        assert (calibration.method, brier) == (method, None)
    with pytest.raises(UsageError):
        fit_calibration("beta", scores, labels, np.arange(200))  # type: ignore[arg-type]


def test_what_cannot_be_fitted_is_refused() -> None:
    for fit in (fit_platt, fit_isotonic, held_out_brier):
        with pytest.raises(RealDamageError):
            fit(np.zeros(5), np.zeros(5), range(5))  # one class
    with pytest.raises(RealDamageError):
        held_out_brier([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1], ["a", "b", "c", "c"])  # one group
    scores = np.random.default_rng(0).normal(size=50)
    for fit in (fit_platt, fit_isotonic):
        with pytest.raises(RealDamageError):
            fit(scores, scores < 0, range(50))  # scores that fall with the label
    with pytest.raises(RealDamageError):
        fit_platt(np.ones(50), np.arange(50) % 2, range(50))


def stated_of(
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
    """Scores of two unit normals two apart, and the probability that Bayes gives at the prior they
    are drawn with.
    """
    rng = np.random.default_rng(seed)
    synthetic = rng.random(n) < prior
    scores = rng.normal(np.where(synthetic, 1.0, -1.0))
    odds = prior / (1 - prior) * np.exp(2 * scores)
    return stated_of(odds / (1 + odds), synthetic)


def test_bins_are_those_of_scikit_learn() -> None:
    predictions = calibrated(500)
    table = reliability_table(predictions, bins=10)
    observed, mean = calibration_curve(
        predictions["label"] == "synthetic",
        predictions["probability"],
        n_bins=10,
        strategy="quantile",
    )
    assert list(table["bin"]) == list(range(10))
    np.testing.assert_allclose(table["observed"], observed, atol=1e-12)
    np.testing.assert_allclose(table["mean_probability"], mean, atol=1e-12)
    assert list(table["n"]) == [50] * 10
    assert table["n_synthetic"].sum() == (predictions["label"] == "synthetic").sum()
    assert (
        table["high_probability"][:-1].to_numpy() < table["low_probability"][1:].to_numpy()
    ).all()


def test_a_bin_by_hand() -> None:
    table = reliability_table(stated_of(np.repeat([0.2, 0.8], 10), np.arange(20) % 5 == 0), bins=2)
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
    alone = reliability_table(stated_of(stated, synthetic), bins=2)
    together = reliability_table(stated_of(stated, synthetic, np.arange(80) // 4), bins=2)
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
        stated_of(np.repeat([0.1, 0.9], [95, 5]), np.arange(100) >= 90), bins=10
    )
    assert list(table["n"]) == [95, 5]
    assert list(table["bin"]) == [0, 1]


def test_perturbed_and_unjudged_photos_do_not_count() -> None:
    predictions = calibrated(100)
    predictions.loc[:9, "perturbation"] = "jpeg_50"
    predictions.loc[10:19, "probability"] = np.nan
    assert reliability_table(predictions, bins=5)["n"].sum() == 80


@pytest.mark.parametrize(
    ("change", "options", "error"),
    [
        ({"probability": np.nan}, {}, RealDamageError),
        ({"label": "real"}, {}, RealDamageError),
        ({}, {"prior": 0.01}, UsageError),
        ({}, {"prior": 1.0, "calibration_prior": 0.5}, UsageError),
    ],
)
def test_bad_input_is_refused(
    change: dict[str, Any], options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        reliability_table(calibrated(50).assign(**change), **options)
