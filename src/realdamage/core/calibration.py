"""From a score to a probability: the curve that travels with a model; evaluation/ fits it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from realdamage.core.records import record_from_dict
from realdamage.errors import ConfigError, UsageError

CALIBRATION_METHODS = ("platt", "isotonic")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The curve from the photo score to the probability of synthetic.

    method: "platt" (Platt 1999), probability = sigmoid(slope * score + intercept), strictly rising; or "isotonic"
    (Zadrozny & Elkan 2002), straight lines between `knots` and flat beyond them, never falling.
    slope: above 0, so that a higher score is never less synthetic; slope and intercept are None unless "platt".
    knots: (score, probability), scores rising, probabilities never falling, above 0 and below 1; empty for "platt".
    prior: share of synthetic photos in the calibration set, strictly between 0 and 1.

    Raises ConfigError on a number out of range or an unknown method.
    """

    prior: float
    slope: float | None = None
    intercept: float | None = None
    method: str = "platt"
    knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.method not in CALIBRATION_METHODS:
            known = " and ".join(repr(name) for name in CALIBRATION_METHODS)
            raise ConfigError(
                f"Calibration: method={self.method!r} is unknown; the methods are {known}"
            )
        if not 0 < self.prior < 1:
            raise ConfigError(f"Calibration: prior={self.prior} must be above 0 and below 1")
        if self.method == "isotonic":
            self._check_knots()
            return
        if self.slope is None or not (math.isfinite(self.slope) and self.slope > 0):
            raise ConfigError(f"Calibration: slope={self.slope} must be a finite number above 0")
        if self.intercept is None or not math.isfinite(self.intercept):
            raise ConfigError(f"Calibration: intercept={self.intercept} must be a finite number")
        if self.knots:
            raise ConfigError(f"Calibration: {len(self.knots)} knots, but method='platt' has none")

    def _check_knots(self) -> None:
        if self.slope is not None or self.intercept is not None:
            raise ConfigError(
                "Calibration: method='isotonic' has knots, neither slope nor intercept"
            )
        if not self.knots:
            raise ConfigError(
                "Calibration: method='isotonic' needs at least one knot (score, probability)"
            )
        for score, probability in self.knots:
            if not (math.isfinite(score) and 0 < probability < 1):
                raise ConfigError(
                    f"Calibration: knot ({score}, {probability}) must be a finite score and a probability above 0 and "
                    "below 1"
                )
        for (low, before), (high, after) in pairwise(self.knots):
            if high <= low or after < before:
                raise ConfigError(
                    f"Calibration: knot ({high}, {after}) follows ({low}, {before}); scores must rise, probabilities "
                    "must not fall"
                )

    def probability(self, score: float, prior: float | None = None) -> float:
        """The probability in 0..1 that a photo with this score is synthetic.

        prior: the share of synthetic photos where the model is used, above 0 and below 1; without it, the share in the
        calibration set. Re-weights by the prior odds (Elkan 2001). Raises UsageError on a prior out of range.
        """
        log_odds = self._own_log_odds(score)
        if prior is not None:
            check_prior(prior)
            log_odds += _log_odds(prior) - _log_odds(self.prior)
        return (
            1 / (1 + math.exp(-log_odds))
            if log_odds >= 0
            else math.exp(log_odds) / (1 + math.exp(log_odds))
        )

    def score_at(self, probability: float, prior: float | None = None) -> float | None:
        """The lowest score whose probability (at `prior`, see `probability`) is at least this one, above 0 and below 1;
        None where the curve lies above it everywhere or never reaches it."""
        if not 0 < probability < 1:
            raise UsageError(f"probability={probability} must be above 0 and below 1")
        log_odds = _log_odds(probability)
        if prior is not None:
            check_prior(prior)
            log_odds += _log_odds(self.prior) - _log_odds(prior)
        if self.slope is not None and self.intercept is not None:
            return (log_odds - self.intercept) / self.slope
        wanted = 1 / (1 + math.exp(-log_odds))
        for (low, before), (high, after) in pairwise(self.knots):
            if before < wanted <= after:
                return low + (high - low) * (wanted - before) / (after - before)
        return None

    def _own_log_odds(self, score: float) -> float:
        if self.slope is not None and self.intercept is not None:
            return self.slope * score + self.intercept
        scores, probabilities = zip(*self.knots, strict=True)
        return _log_odds(float(np.interp(score, scores, probabilities)))

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Calibration:
        """Read what `to_dict` wrote. Raises ModelFileError on a missing, unknown or wrong value."""
        return record_from_dict(cls, values, "calibration")


def check_prior(prior: float) -> None:
    """Raises UsageError unless `prior` is above 0 and below 1."""
    if not 0 < prior < 1:
        raise UsageError(
            f"prior={prior} must be above 0 and below 1: the share of synthetic photos among yours"
        )


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))
