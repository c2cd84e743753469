"""From a score to a probability and an outcome; stored in the model file, fitted by evaluation/."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from realdamage.core.quality import Gate
from realdamage.core.records import Record, require, require_between
from realdamage.errors import UsageError

Outcome: TypeAlias = Literal["real", "review", "synthetic"]


@dataclass(frozen=True, kw_only=True)
class Calibration(Record):
    """Platt scaling (Platt 1999): probability of synthetic = sigmoid(slope * score + intercept).

    slope: above 0. method, knots: of model files; only "platt", without knots, is known.
    prior: share of synthetic photos in the calibration set, in 0..1 exclusive.

    Raises ConfigError on a number out of range or an unknown method.
    """

    prior: float
    slope: float
    intercept: float
    method: str = "platt"
    knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        require_between(self, ("prior",), 0, 1, ends=False)
        require_between(self, ("slope",), 0, math.inf, ends=False)
        require_between(self, ("intercept",), -math.inf, math.inf, ends=False)
        require(
            self.method == "platt" and not self.knots,
            f"Calibration: method={self.method!r} is unknown; run `realdamage calibrate` again",
        )

    def probability(self, score: float, prior: float | None = None) -> float:
        """The probability in 0..1 that a photo with this score is synthetic.

        prior: share of synthetic photos where the model is used, by default that of the calibration
            set; re-weights by the prior odds (Elkan 2001). Raises UsageError unless in 0..1
            exclusive.
        """
        return _sigmoid(self.slope * score + self.intercept + self._shift(prior))

    def score_at(self, probability: float, prior: float | None = None) -> float:
        """The score with this probability, which is in 0..1 exclusive."""
        if not 0 < probability < 1:
            raise UsageError(f"probability={probability} must be above 0 and below 1")
        return (_log_odds(probability) - self._shift(prior) - self.intercept) / self.slope

    def _shift(self, prior: float | None) -> float:
        """What another prior adds to the log odds."""
        if prior is None:
            return 0.0
        check_prior(prior)
        return _log_odds(prior) - _log_odds(self.prior)


def check_prior(prior: float) -> None:
    """Raises UsageError unless `prior` is above 0 and below 1."""
    if not 0 < prior < 1:
        raise UsageError(
            f"prior={prior} must be above 0 and below 1: the share of synthetic photos among yours"
        )


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _sigmoid(log_odds: float) -> float:
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds))


@dataclass(frozen=True)
class Bound(Record):
    """One guaranteed share of wrong outcomes, and the calibration photos that it rests on.

    share: in 0..1 exclusive. photos: n of the binomial, drawn from `drawn_from`.
    errors: those on the wrong side. allowed: errors that n, share and delta allow.
    upper: upper confidence bound (Clopper & Pearson 1934) at `allowed`, at most `share`.
    kinds: the kinds of photo it is about; empty: all.
    """

    share: float
    photos: int
    drawn_from: int
    errors: int
    allowed: int
    upper: float
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Guarantee(Record):
    """The guarantee behind the thresholds, for photos drawn like the calibration photos.

    delta: the risk of an unlucky draw of calibration photos, for each bound.
    accused: of photos with real damage, called `synthetic`; None when not asked for.
    passed: of synthetic photos, called `real`; None when not asked for.
    split, seed, manifest_sha256, drawn: which photos were drawn from which manifest, and how.
    """

    delta: float
    accused: Bound | None
    passed: Bound | None
    split: str
    seed: int
    manifest_sha256: str
    statement: str
    drawn: str = "one photo a group"

    @property
    def alpha(self) -> float | None:
        """The share of `accused`."""
        return self.accused.share if self.accused else None

    @property
    def beta(self) -> float | None:
        """The share of `passed`."""
        return self.passed.share if self.passed else None


@dataclass(frozen=True)
class WorstSource(Record):
    """The source of real calibration photos with the largest share called synthetic.

    photos, called_synthetic, to_review: counts of its real photos, before any gate was set.
    raised_by, raised_from: the source `t_synthetic` was raised for, and its earlier value; or None.
    """

    source: str
    photos: int
    called_synthetic: int
    to_review: int
    statement: str
    raised_by: str | None = None
    raised_from: float | None = None


@dataclass(frozen=True)
class Policy(Record):
    """The two thresholds on the score, and how they were chosen.

    t_synthetic: photos with at least this score are called synthetic.
    t_real: photos with at most this score are called real; at most `t_synthetic`.
    fpr, miss: rates at the choice: honest photos called synthetic, synthetic photos called real.
    negatives: which photos `fpr` was measured on. photos: how many of each sort were used.
    guarantee: holds with the rules below too, since they only send photos to review.
    whole_photo_share: from this share of synthetic patches on, a photo goes to review; None: never.
    min_scale: a photo that was shrunk further before it was judged is not called synthetic but goes
        to review, as no calibration photo was; None: no limit.
    gate: the least quality of a photo that is judged. worst_source: None without a comparison.

    Raises ConfigError on a number out of range.
    """

    t_synthetic: float
    t_real: float
    fpr: float
    miss: float
    negatives: str
    photos: dict[str, int]
    guarantee: Guarantee | None = None
    whole_photo_share: float | None = 0.9
    min_scale: float | None = None
    gate: Gate | None = None
    worst_source: WorstSource | None = None

    def __post_init__(self) -> None:
        require_between(self, ("t_synthetic", "t_real"), -math.inf, math.inf, ends=False)
        require_between(self, ("fpr", "miss", "whole_photo_share", "min_scale"), 0, 1)
        require(self.whole_photo_share != 0, "Policy: whole_photo_share must be above 0, or null")
        if self.t_real > self.t_synthetic:
            object.__setattr__(self, "t_real", self.t_synthetic)

    def outcome(self, score: float) -> Outcome:
        """What to call a photo with this score; a score equal to both thresholds is synthetic."""
        if score >= self.t_synthetic:
            return "synthetic"
        return "real" if score <= self.t_real else "review"
