"""Scores become probabilities and outcomes exactly as the file's numbers say."""

import math

import pytest

from realdamage.core.policy import Calibration, Policy
from realdamage.errors import ConfigError, UsageError

PLATT = {"slope": 1.0, "intercept": 0.0, "prior": 0.5}
POLICY = {
    **{"t_synthetic": 2.0, "t_real": -1.0, "fpr": 0.01, "miss": 0.05},
    **{"negatives": "damaged", "photos": {"real": 9}},
}


def test_platt_scaling_by_hand():
    calibration = Calibration(slope=2.0, intercept=-1.0, prior=0.5)
    assert calibration.probability(0.5) == 0.5
    assert calibration.probability(1.0) == pytest.approx(1 / (1 + math.exp(-1)))
    assert [calibration.probability(score) for score in (1e6, -1e6)] == [1.0, 0.0]


def test_the_prior_reweights_by_its_odds():
    calibration = Calibration(**PLATT)
    assert calibration.probability(0.0, prior=0.02) == pytest.approx(0.02)
    assert calibration.probability(1.3, prior=0.5) == pytest.approx(calibration.probability(1.3))
    for prior in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(UsageError, match=f"prior={prior}"):
            calibration.probability(0.0, prior=prior)


def test_the_score_at_a_probability_is_where_the_curve_reaches_it():
    calibration = Calibration(**PLATT | {"slope": 0.7})
    for prior in (None, 0.2):
        score = calibration.score_at(0.25, prior)
        assert calibration.probability(score, prior) == pytest.approx(0.25)
    with pytest.raises(UsageError):
        calibration.score_at(1.0)


def test_thresholds_include_their_own_score():
    outcomes = [Policy(**POLICY).outcome(score) for score in (2.0, 1.999, -0.999, -1.0, math.nan)]
    assert outcomes == ["synthetic", "review", "review", "real", "review"]
    crossed = Policy(**POLICY | {"t_real": 5.0})
    assert crossed.t_real == 2.0
    assert [crossed.outcome(score) for score in (1.99, 2.0)] == ["real", "synthetic"]


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (Calibration, PLATT | {"slope": 0.0}),
        (Calibration, PLATT | {"method": "beta"}),
        (Policy, POLICY | {"t_synthetic": math.inf}),
        (Policy, POLICY | {"whole_photo_share": 0.0}),
    ],
)
def test_numbers_out_of_range_are_refused(cls, values):
    with pytest.raises(ConfigError, match=cls.__name__):
        cls(**values)
