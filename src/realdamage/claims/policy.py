"""What follows from what was found: rules in YAML that a fraud team can read and edit without touching code."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from realdamage.claims.policy import Recommendation
from realdamage.errors import ConfigError, MissingExtraError

RECOMMENDATIONS: tuple[Recommendation, ...] = ("approve", "ask_photo", "review", "escalate")
"""From the lightest to the weightiest; of several findings the weightiest recommendation counts."""


@dataclass(frozen=True)
class PhotoRules:
    """What a claim must bring. at_least, at_most: photos, those that can be read and those given. listings_at_most:
    listing photos. min_side: of a photo's shorter side, in pixels."""

    at_least: int = 1
    at_most: int = 20
    listings_at_most: int = 10
    min_side: int = 320


@dataclass(frozen=True)
class ComparisonRules:
    """When a difference to the listing photo counts. min_agreement: share of the overlap, outside the changes, that
    must agree; min_changed: share of the overlap that must have changed; min_overlap: share of the claim photo that the
    listing photo must cover; all in 0..1."""

    min_agreement: float = 0.8
    min_changed: float = 0.0005
    min_overlap: float = 0.3


@dataclass(frozen=True)
class Rules:
    """What each finding recommends; "approve" takes no notice of it. The default file says what each one means."""

    declared_ai_generated: Recommendation = "escalate"
    declared_ai_edited: Recommendation = "escalate"
    declared_ai_possible: Recommendation = "review"
    declared_ai_suspected: Recommendation = "review"
    credentials_broken: Recommendation = "review"
    preview_differs: Recommendation = "review"
    same_capture_changed: Recommendation = "escalate"
    listing_photo_itself: Recommendation = "ask_photo"
    listing_unrelated: Recommendation = "approve"
    no_photo_matches_listing: Recommendation = "ask_photo"
    reused_in_other_claim: Recommendation = "escalate"
    repeated_in_claim: Recommendation = "approve"
    verdict_synthetic: Recommendation = "review"
    verdict_review: Recommendation = "review"
    photo_unreadable: Recommendation = "ask_photo"
    photo_too_small: Recommendation = "ask_photo"
    photo_unfit: Recommendation = "ask_photo"
    whole_photo_processed: Recommendation = "ask_photo"
    too_few_photos: Recommendation = "ask_photo"


@dataclass(frozen=True)
class ClaimPolicy:
    """How a claim is decided; read from YAML, every key of which has a default.

    name: of your own choosing, copied into the evidence. escalate_up_to: an outcome `synthetic` escalates only when
    the model promises at most this share of false alarms for the whole claim (photos times alpha); None asks for no
    promise.

    Raises ConfigError on a value out of range.
    """

    name: str = "default"
    photos: PhotoRules = field(default_factory=PhotoRules)
    comparison: ComparisonRules = field(default_factory=ComparisonRules)
    rules: Rules = field(default_factory=Rules)
    escalate_up_to: float | None = 0.1

    def __post_init__(self) -> None:
        photos = self.photos
        for key in ("at_least", "at_most", "min_side"):
            if getattr(photos, key) < 1:
                raise ConfigError(
                    f"photos.{key}: {getattr(photos, key)}, but it must be at least 1"
                )
        if photos.listings_at_most < 0:
            raise ConfigError(
                f"photos.listings_at_most: {photos.listings_at_most}, but it cannot be negative"
            )
        if photos.at_least > photos.at_most:
            raise ConfigError(
                f"photos.at_least: {photos.at_least} is above photos.at_most: {photos.at_most}"
            )
        shares = {f"comparison.{key}": value for key, value in asdict(self.comparison).items()}
        for key, value in (shares | {"escalate_up_to": self.escalate_up_to}).items():
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{key}: {value}, but it must be in 0..1")

    @classmethod
    def default(cls) -> ClaimPolicy:
        """What holds without a file."""
        return cls()

    @classmethod
    def from_yaml(cls, path: str | Path) -> ClaimPolicy:
        """Read a policy file; keys that it leaves out keep their default.

        Raises ConfigError naming file and key: no such file, not YAML, an unknown key (with the one that was probably
        meant), a value of another type or out of range. MissingExtraError without pyyaml.
        """
        try:
            import yaml
        except ModuleNotFoundError as error:
            raise MissingExtraError("a claim policy", "claims", error.name) from None
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            hint = f"; write one with: realdamage claim --write-policy {path}" * isinstance(
                error, FileNotFoundError
            )
            raise ConfigError(
                f"{path}: the claim policy cannot be read: {error.strerror}{hint}"
            ) from error
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
        try:
            policy: ClaimPolicy = _read(cls, {} if values is None else values, "")
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        return policy

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        return asdict(self)


def default_yaml() -> str:
    """The default policy as a file to edit, with a comment on every key."""
    return Path(__file__).with_name("policy.yaml").read_text(encoding="utf-8")


def _read(cls: Any, values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{where.rstrip('.') or 'the file'}: expected `key: value` lines, found {values!r}"
        )
    fields = {found.name: found for found in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            known = f"did you mean {where}{near[0]}?" if near else f"known are {', '.join(fields)}"
            raise ConfigError(f"unknown key {where}{key}; {known}")
    return cls(
        **{key: _value(fields[key], value, f"{where}{key}") for key, value in values.items()}
    )


def _value(key: dataclasses.Field[Any], value: Any, where: str) -> Any:
    if isinstance(key.default_factory, type):
        return _read(key.default_factory, value, f"{where}.")
    if key.type == "Recommendation":
        if value in RECOMMENDATIONS:
            return value
        near = difflib.get_close_matches(str(value), RECOMMENDATIONS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"{where}: {value!r} is no recommendation ({', '.join(RECOMMENDATIONS)}){hint}"
        )
    if key.type == "str" and isinstance(value, str):
        return value
    if value is None and "None" in str(key.type):
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (isinstance(value, int) or "float" in str(key.type)):
        return float(value) if "float" in str(key.type) else value
    raise ConfigError(f"{where}: expected {key.type}, found {value!r}")
