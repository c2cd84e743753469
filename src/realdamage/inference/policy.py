"""From a score to a probability and an outcome: the calibration and the decision policy that travel with a model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from realdamage.inference.errors import ConfigError, UsageError
from realdamage.inference.records import record_from_dict

Outcome: TypeAlias = Literal["real", "review", "synthetic"]


@dataclass(frozen=True)
class Calibration:
    """Platt scaling of the photo score (Platt 1999): probability = sigmoid(slope * score + intercept).

    slope: above 0, so that a higher score is never less synthetic.
    prior: share of synthetic photos in the calibration set, strictly between 0 and 1.

    Raises ConfigError on a number out of range or an unknown method.
    """

    slope: float
    intercept: float
    prior: float
    method: str = "platt"

    def __post_init__(self) -> None:
        if self.method != "platt":
            raise ConfigError(f"Calibration: method={self.method!r} is unknown; the only method is 'platt'")
        if not (math.isfinite(self.slope) and self.slope > 0):
            raise ConfigError(f"Calibration: slope={self.slope} must be a finite number above 0")
        if not math.isfinite(self.intercept):
            raise ConfigError(f"Calibration: intercept={self.intercept} must be a finite number")
        if not 0 < self.prior < 1:
            raise ConfigError(f"Calibration: prior={self.prior} must be above 0 and below 1")

    def probability(self, score: float, prior: float | None = None) -> float:
        """The probability in 0..1 that a photo with this score is synthetic.

        prior: the share of synthetic photos where the model is used, above 0 and below 1; without it, the share in the
        calibration set. Re-weights by the prior odds (Elkan 2001). Raises UsageError on a prior out of range.
        """
        log_odds = self.slope * score + self.intercept
        if prior is not None:
            check_prior(prior)
            log_odds += _log_odds(prior) - _log_odds(self.prior)
        return 1 / (1 + math.exp(-log_odds)) if log_odds >= 0 else math.exp(log_odds) / (1 + math.exp(log_odds))

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Calibration:
        """Read what `to_dict` wrote. Raises ModelFileError on a missing, unknown or wrong value."""
        return record_from_dict(cls, values, "calibration")


@dataclass(frozen=True)
class Policy:
    """The two thresholds on the score, and how they were chosen.

    t_synthetic: score at and above which a photo is called synthetic. t_real: at and below which it is called real;
    lowered to `t_synthetic` when above it. Between them a person should look.
    fpr, miss: the rates that the thresholds were chosen at: honest photos called synthetic, synthetic ones called real.
    negatives: which photos `fpr` was measured on. photos: how many photos of each sort were used.
    guarantee: the statistical promise, None when there is none.
    whole_photo_share: share of patches, in 0..1, whose evidence is synthetic from which a photo counts as processed as
    a whole (see `Detector`); None switches the rule off.

    Raises ConfigError on a number out of range.
    """

    t_synthetic: float
    t_real: float
    fpr: float
    miss: float
    negatives: str
    photos: dict[str, int]
    guarantee: dict[str, Any] | None = None
    whole_photo_share: float | None = 0.9

    def __post_init__(self) -> None:
        for key in ("t_synthetic", "t_real"):
            if not math.isfinite(getattr(self, key)):
                raise ConfigError(f"Policy: {key}={getattr(self, key)} must be a finite number")
        for key in ("fpr", "miss"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"Policy: {key}={getattr(self, key)} must be in 0..1")
        if self.whole_photo_share is not None and not 0 < self.whole_photo_share <= 1:
            raise ConfigError(f"Policy: whole_photo_share={self.whole_photo_share} must be above 0 and at most 1")
        if self.t_real > self.t_synthetic:
            object.__setattr__(self, "t_real", self.t_synthetic)

    def outcome(self, score: float) -> Outcome:
        """What to call a photo with this score; a score equal to both thresholds is synthetic."""
        if score >= self.t_synthetic:
            return "synthetic"
        return "real" if score <= self.t_real else "review"

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Policy:
        """Read what `to_dict` wrote. Raises ModelFileError on a missing, unknown or wrong value."""
        return record_from_dict(cls, values, "policy")


def check_prior(prior: float) -> None:
    """Raises UsageError unless `prior` is above 0 and below 1."""
    if not 0 < prior < 1:
        raise UsageError(f"prior={prior} must be above 0 and below 1: the share of synthetic photos among yours")


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))
