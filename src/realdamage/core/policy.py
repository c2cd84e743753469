"""From a score to an outcome: the decision policy that travels with a model, and the promise behind its thresholds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from realdamage.core.calibration import CALIBRATION_METHODS, Calibration, check_prior
from realdamage.core.gate import Gate
from realdamage.core.records import record_from_dict
from realdamage.errors import ConfigError

__all__ = [
    "CALIBRATION_METHODS",
    "Bound",
    "Calibration",
    "Gate",
    "Guarantee",
    "Outcome",
    "Policy",
    "WorstSource",
    "check_prior",
]

Outcome: TypeAlias = Literal["real", "review", "synthetic"]


@dataclass(frozen=True)
class Bound:
    """One promised share, and the calibration photos that it rests on.

    share: the promised share of wrong outcomes, above 0 and below 1. photos: independent photos that were counted, the
    n of the binomial. drawn_from: how many photos of this sort there were. errors: how many of `photos` the threshold
    gets wrong. allowed: how many errors n, the share and delta allow, fixed before any score was seen. upper: the upper
    confidence bound (Clopper & Pearson 1934) at `allowed`, at most `share`.

    Raises ConfigError on numbers that contradict each other.
    """

    share: float
    photos: int
    drawn_from: int
    errors: int
    allowed: int
    upper: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"Bound: share={self.share} must be above 0 and below 1")
        if not 0 <= self.errors <= self.allowed < self.photos <= self.drawn_from:
            raise ConfigError(
                f"Bound: errors={self.errors}, allowed={self.allowed}, photos={self.photos}, drawn_from="
                f"{self.drawn_from} must rise in this order, from 0"
            )
        if not 0 < self.upper <= self.share:
            raise ConfigError(
                f"Bound: upper={self.upper} must be above 0 and at most share={self.share}"
            )


@dataclass(frozen=True)
class Guarantee:
    """The statistical promise behind the thresholds: per photo, for photos drawn like the calibration photos.

    delta: the risk that the draw of the calibration photos was a lucky one, for each promise on its own.
    accused: of photos with real damage, called `synthetic` (alpha). passed: of synthetic photos, called `real` (beta).
    Either is None when it was not asked for, never both. split, seed, manifest_sha256: which photos were drawn from
    which manifest; drawn: how. statement: the promise in words.

    Raises ConfigError on a number out of range.
    """

    delta: float
    accused: Bound | None
    passed: Bound | None
    split: str
    seed: int
    manifest_sha256: str
    statement: str
    drawn: str = "one photo a group"

    def __post_init__(self) -> None:
        if not 0 < self.delta < 1:
            raise ConfigError(f"Guarantee: delta={self.delta} must be above 0 and below 1")
        if self.accused is None and self.passed is None:
            raise ConfigError("Guarantee: promises nothing; accused or passed must be given")

    @property
    def alpha(self) -> float | None:
        """The promised share of photos with real damage that are called synthetic; None when not asked for."""
        return self.accused.share if self.accused else None

    @property
    def beta(self) -> float | None:
        """The promised share of synthetic photos that are called real; None when not asked for."""
        return self.passed.share if self.passed else None

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Guarantee:
        """Read what `to_dict` wrote. Raises ModelFileError on a missing, unknown or wrong value."""
        return record_from_dict(cls, values, "guarantee")


@dataclass(frozen=True)
class WorstSource:
    """The source of real calibration photos with the largest share called synthetic.

    photos: its real photos, of every kind. called_synthetic, to_review: how many of them, before any gate was set.
    raised_by: the source that `t_synthetic` was raised for, and raised_from: what it was before; None if it was not.
    statement: all of this in words.

    Raises ConfigError on counts that contradict each other.
    """

    source: str
    photos: int
    called_synthetic: int
    to_review: int
    statement: str
    raised_by: str | None = None
    raised_from: float | None = None

    def __post_init__(self) -> None:
        if (
            min(self.called_synthetic, self.to_review) < 0
            or self.called_synthetic + self.to_review > self.photos
        ):
            raise ConfigError(
                f"WorstSource: called_synthetic={self.called_synthetic} and to_review={self.to_review} must be counts "
                f"of its {self.photos} photos"
            )


@dataclass(frozen=True)
class Policy:
    """The two thresholds on the score, and how they were chosen.

    t_synthetic: score at and above which a photo is called synthetic. t_real: at and below which it is called real;
    lowered to `t_synthetic` when above it. Between them a person should look.
    fpr, miss: the rates that the thresholds were chosen at: honest photos called synthetic, synthetic ones called real.
    negatives: which photos `fpr` was measured on. photos: how many photos of each sort were used.
    guarantee: the statistical promise, None when there is none. The rules that turn an outcome into `review`
    (gate, whole_photo_share, demo) make both other outcomes rarer only, so a promise survives them.
    whole_photo_share: share of patches, in 0..1, whose evidence is synthetic from which a photo counts as processed as
    a whole (see `Detector`); None switches the rule off.
    gate: what a photo must be to be judged at all; None lets every photo pass.
    worst_source: what the thresholds do to one source of real photos; None when sources were not compared.

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
    gate: Gate | None = None
    worst_source: WorstSource | None = None

    def __post_init__(self) -> None:
        for key in ("t_synthetic", "t_real"):
            if not math.isfinite(getattr(self, key)):
                raise ConfigError(f"Policy: {key}={getattr(self, key)} must be a finite number")
        for key in ("fpr", "miss"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"Policy: {key}={getattr(self, key)} must be in 0..1")
        if self.whole_photo_share is not None and not 0 < self.whole_photo_share <= 1:
            raise ConfigError(
                f"Policy: whole_photo_share={self.whole_photo_share} must be above 0 and at most 1"
            )
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
