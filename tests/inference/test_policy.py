"""Scores become probabilities and outcomes exactly as the file's numbers say."""

from __future__ import annotations

import math
from typing import Any

import pytest

from realdamage.inference.errors import ConfigError, ModelFileError, UsageError
from realdamage.inference.policy import Calibration, Policy

POLICY = {"t_synthetic": 2.0, "t_real": -1.0, "fpr": 0.01, "miss": 0.05, "negatives": "damaged", "photos": {"real": 9}}


def test_platt_scaling_by_hand() -> None:
    calibration = Calibration(slope=2.0, intercept=-1.0, prior=0.5)
    assert calibration.probability(0.5) == 0.5
    assert calibration.probability(1.0) == pytest.approx(1 / (1 + math.exp(-1)))


def test_the_prior_reweights_by_its_odds() -> None:
    calibration = Calibration(slope=1.0, intercept=0.0, prior=0.5)
    assert calibration.probability(0.0, prior=0.02) == pytest.approx(0.02)
    odds = calibration.probability(1.3) / (1 - calibration.probability(1.3))
    again = calibration.probability(1.3, prior=0.2)
    assert again / (1 - again) == pytest.approx(odds * 0.25)
    assert calibration.probability(1.3, prior=0.5) == pytest.approx(calibration.probability(1.3))


@pytest.mark.parametrize(("score", "expected"), [(1e6, 1.0), (-1e6, 0.0)])
def test_extreme_scores_do_not_overflow(score: float, expected: float) -> None:
    assert Calibration(slope=3.0, intercept=0.0, prior=0.5).probability(score) == expected


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, math.nan])
def test_a_prior_out_of_range_is_refused(prior: float) -> None:
    with pytest.raises(UsageError, match="must be above 0 and below 1"):
        Calibration(slope=1.0, intercept=0.0, prior=0.5).probability(0.0, prior=prior)


@pytest.mark.parametrize(
    ("score", "outcome"),
    [(2.0, "synthetic"), (1.999, "review"), (-0.999, "review"), (-1.0, "real"), (math.nan, "review")],
)
def test_thresholds_include_their_own_score(score: float, outcome: str) -> None:
    assert Policy(**POLICY).outcome(score) == outcome


def test_t_real_is_lowered_to_t_synthetic() -> None:
    policy = Policy(**POLICY | {"t_real": 5.0})
    assert policy.t_real == 2.0
    assert [policy.outcome(score) for score in (1.99, 2.0)] == ["real", "synthetic"]


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (Calibration, {"slope": 0.0, "intercept": 0.0, "prior": 0.5}, "slope=0.0 must be a finite number above 0"),
        (Calibration, {"slope": 1.0, "intercept": math.nan, "prior": 0.5}, "intercept=nan"),
        (Calibration, {"slope": 1.0, "intercept": 0.0, "prior": 1.0}, "prior=1.0"),
        (Calibration, {"slope": 1.0, "intercept": 0.0, "prior": 0.5, "method": "beta"}, "method='beta'"),
        (Policy, POLICY | {"t_synthetic": math.inf}, "t_synthetic=inf"),
        (Policy, POLICY | {"fpr": 1.1}, "fpr=1.1"),
        (Policy, POLICY | {"whole_photo_share": 0.0}, "whole_photo_share=0.0"),
    ],
)
def test_numbers_out_of_range_are_refused(cls: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls(**values)
    with pytest.raises(ModelFileError, match=message):
        cls.from_dict(values)


@pytest.mark.parametrize(
    "value",
    [
        Calibration(slope=1.25, intercept=-0.5, prior=0.3),
        Policy(**POLICY, guarantee={"alpha": 0.05, "n": 59}, whole_photo_share=None),
    ],
)
def test_the_round_trip(value: Calibration | Policy) -> None:
    assert type(value).from_dict(value.to_dict()) == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t_sinthetic": 1.0}, "policy: unknown key 't_sinthetic'; known are t_synthetic"),
        ({"fpr": "0.01"}, r"policy\.fpr: expected float, found '0.01'"),
        ({"fpr": True}, r"policy\.fpr: expected float, found True"),
        ({"photos": {"real": 1.5}}, r"policy\.photos\.real: expected int, found 1.5"),
        ({"guarantee": 3}, r"policy\.guarantee: expected dict.*, found 3"),
    ],
)
def test_wrong_values_name_the_key_and_what_was_found(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        Policy.from_dict(POLICY | change)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ModelFileError, match="policy: the key 'miss' is missing"):
        Policy.from_dict({key: value for key, value in POLICY.items() if key != "miss"})
