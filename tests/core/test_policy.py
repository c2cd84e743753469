"""Scores become probabilities and outcomes exactly as the file's numbers say."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import pytest

from realdamage.core.model_file import ModelMetadata
from realdamage.core.policy import Bound, Calibration, Guarantee, Policy, WorstSource
from realdamage.core.pooling import Pooling
from realdamage.core.records import record_from_dict
from realdamage.core.tiles import PixelSpec
from realdamage.errors import ConfigError, ModelFileError, UsageError

BOUND = {"share": 0.05, "photos": 93, "drawn_from": 110, "errors": 1, "allowed": 1, "upper": 0.0499}
GUARANTEE = {
    "delta": 0.05,
    "accused": Bound(**BOUND),
    "passed": None,
    "split": "policy",
    "seed": 0,
    "manifest_sha256": "0" * 64,
    "statement": "…",
}
WORST = {"source": "phones", "photos": 30, "called_synthetic": 2, "to_review": 9, "statement": "…"}
KNOTS = ((-1.0, 0.1), (0.0, 0.2), (2.0, 0.6))
POLICY = {
    "t_synthetic": 2.0,
    "t_real": -1.0,
    "fpr": 0.01,
    "miss": 0.05,
    "negatives": "damaged",
    "photos": {"real": 9},
}


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


def test_isotonic_knots_by_hand() -> None:
    calibration = Calibration(method="isotonic", knots=KNOTS, prior=0.5)
    scores = (-9, -1, -0.5, 0, 1, 2, 1e6)
    assert [calibration.probability(score) for score in scores] == pytest.approx(
        [0.1, 0.1, 0.15, 0.2, 0.4, 0.6, 0.6]
    )
    assert math.isnan(calibration.probability(math.nan))


def test_the_prior_reweights_knots_too() -> None:
    calibration = Calibration(method="isotonic", knots=KNOTS, prior=0.5)
    # Odds of 0.6 are 1.5; at a prior of 0.2 they are multiplied by 0.25.
    assert calibration.probability(2.0, prior=0.2) == pytest.approx(0.375 / 1.375)
    assert calibration.probability(2.0, prior=0.5) == pytest.approx(0.6)


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(slope=0.7, intercept=-1.0, prior=0.3),
        Calibration(method="isotonic", knots=KNOTS, prior=0.3),
    ],
)
@pytest.mark.parametrize("prior", [None, 0.2, 0.5])
def test_the_score_at_a_probability_is_where_the_curve_reaches_it(
    calibration: Calibration, prior: float | None
) -> None:
    score = calibration.score_at(0.4, prior)
    assert score is not None
    assert calibration.probability(score, prior) == pytest.approx(0.4)
    assert calibration.probability(score - 0.01, prior) < 0.4


def test_the_curve_may_never_reach_a_probability() -> None:
    calibration = Calibration(method="isotonic", knots=KNOTS, prior=0.5)
    assert calibration.score_at(0.05) is calibration.score_at(0.7) is None
    with pytest.raises(UsageError, match=r"probability=1.0 must be above 0 and below 1"):
        calibration.score_at(1.0)


@pytest.mark.parametrize(("score", "expected"), [(1e6, 1.0), (-1e6, 0.0)])
def test_extreme_scores_do_not_overflow(score: float, expected: float) -> None:
    assert Calibration(slope=3.0, intercept=0.0, prior=0.5).probability(score) == expected


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, math.nan])
def test_a_prior_out_of_range_is_refused(prior: float) -> None:
    with pytest.raises(UsageError, match="must be above 0 and below 1"):
        Calibration(slope=1.0, intercept=0.0, prior=0.5).probability(0.0, prior=prior)


@pytest.mark.parametrize(
    ("score", "outcome"),
    [
        (2.0, "synthetic"),
        (1.999, "review"),
        (-0.999, "review"),
        (-1.0, "real"),
        (math.nan, "review"),
    ],
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
        (
            Calibration,
            {"slope": 0.0, "intercept": 0.0, "prior": 0.5},
            "slope=0.0 must be a finite number above 0",
        ),
        (Calibration, {"slope": 1.0, "intercept": math.nan, "prior": 0.5}, "intercept=nan"),
        (Calibration, {"slope": 1.0, "intercept": 0.0, "prior": 1.0}, "prior=1.0"),
        (
            Calibration,
            {"slope": 1.0, "intercept": 0.0, "prior": 0.5, "method": "beta"},
            "method='beta'",
        ),
        (Calibration, {"prior": 0.5}, "slope=None must be a finite number above 0"),
        (
            Calibration,
            {"slope": 1.0, "intercept": 0.0, "prior": 0.5, "knots": KNOTS},
            "3 knots, but method='platt'",
        ),
        (Calibration, {"prior": 0.5, "method": "isotonic"}, "needs at least one knot"),
        (
            Calibration,
            {"prior": 0.5, "method": "isotonic", "slope": 1.0, "knots": KNOTS},
            "neither slope nor inter",
        ),
        (
            Calibration,
            {"prior": 0.5, "method": "isotonic", "knots": ((0.0, 1.0),)},
            r"knot \(0.0, 1.0\) must be",
        ),
        (
            Calibration,
            {"prior": 0.5, "method": "isotonic", "knots": ((0.0, 0.2), (0.0, 0.3))},
            "scores must rise",
        ),
        (
            Calibration,
            {"prior": 0.5, "method": "isotonic", "knots": ((0.0, 0.2), (1.0, 0.1))},
            "must not fall",
        ),
        (Bound, BOUND | {"share": 1.0}, "share=1.0 must be above 0 and below 1"),
        (Bound, BOUND | {"errors": 2}, "errors=2, allowed=1, photos=93, drawn_from=110 must rise"),
        (Bound, BOUND | {"photos": 111}, "photos=111, drawn_from=110 must rise"),
        (Bound, BOUND | {"upper": 0.06}, "upper=0.06 must be above 0 and at most share=0.05"),
        (Guarantee, GUARANTEE | {"delta": 0.0}, "delta=0.0 must be above 0 and below 1"),
        (Guarantee, GUARANTEE | {"accused": None}, "promises nothing"),
        (
            WorstSource,
            WORST | {"to_review": 29},
            "called_synthetic=2 and to_review=29 must be counts of its 30 photos",
        ),
        (WorstSource, WORST | {"called_synthetic": -1}, "called_synthetic=-1"),
        (Policy, POLICY | {"t_synthetic": math.inf}, "t_synthetic=inf"),
        (Policy, POLICY | {"fpr": 1.1}, "fpr=1.1"),
        (Policy, POLICY | {"whole_photo_share": 0.0}, "whole_photo_share=0.0"),
    ],
)
def test_numbers_out_of_range_are_refused(cls: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls(**values)
    plain = {
        key: asdict(value) if isinstance(value, Bound) else value for key, value in values.items()
    }
    with pytest.raises(ModelFileError, match=message):
        record_from_dict(cls, plain, "file")


@pytest.mark.parametrize(
    "value",
    [
        Calibration(slope=1.25, intercept=-0.5, prior=0.3),
        Calibration(method="isotonic", knots=KNOTS, prior=0.3),
        Guarantee(**GUARANTEE),
        Policy(
            **POLICY,
            guarantee=Guarantee(**GUARANTEE | {"passed": Bound(**BOUND)}),
            whole_photo_share=None,
        ),
        Policy(**POLICY, worst_source=WorstSource(**WORST, raised_by="phones", raised_from=1.5)),
    ],
)
def test_the_round_trip(value: Calibration | Guarantee | Policy) -> None:
    assert type(value).from_dict(json.loads(json.dumps(value.to_dict()))) == value


def test_the_promised_shares_are_none_when_not_asked_for() -> None:
    assert (Guarantee(**GUARANTEE).alpha, Guarantee(**GUARANTEE).beta) == (0.05, None)


def test_files_from_before_there_were_knots_and_promises_are_read() -> None:
    metadata = ModelMetadata(
        PixelSpec(), Pooling(), None, None, backbone="x", demo=False, model_version="0"
    )
    older = json.loads(metadata.to_json()) | {
        "calibration": {"slope": 1.5, "intercept": -0.5, "prior": 0.4, "method": "platt"},
        "policy": POLICY | {"guarantee": None, "whole_photo_share": 0.9},
    }
    read = ModelMetadata.from_json(json.dumps(older))
    assert read.calibration == Calibration(slope=1.5, intercept=-0.5, prior=0.4)
    assert read.policy == Policy(**POLICY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t_sinthetic": 1.0}, "policy: unknown key 't_sinthetic'; known are t_synthetic"),
        ({"fpr": "0.01"}, r"policy\.fpr: expected float, found '0.01'"),
        ({"fpr": True}, r"policy\.fpr: expected float, found True"),
        ({"photos": {"real": 1.5}}, r"policy\.photos\.real: expected int, found 1.5"),
        ({"guarantee": 3}, r"policy\.guarantee: expected an object, found 3"),
        (
            {"guarantee": {"alpha": 0.05}},
            r"policy\.guarantee: unknown key 'alpha'; known are delta",
        ),
    ],
)
def test_wrong_values_name_the_key_and_what_was_found(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        Policy.from_dict(POLICY | change)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ModelFileError, match="policy: the key 'miss' is missing"):
        Policy.from_dict({key: value for key, value in POLICY.items() if key != "miss"})
