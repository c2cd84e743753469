"""What follows from a finding: rules in YAML that a fraud team can edit, and the texts for the
buyer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from realdamage.core.records import Record, record_from_dict, require
from realdamage.errors import ConfigError, MissingExtraError, ModelFileError
from realdamage.phrases import phrases_in

Recommendation: TypeAlias = Literal["approve", "ask_photo", "review", "escalate"]
RECOMMENDATIONS: tuple[Recommendation, ...] = get_args(Recommendation)
"""From the least to the most serious; of several findings the most serious one counts."""


@dataclass(frozen=True)
class PhotoRules:
    """What a claim must bring. at_least: readable photos. at_most: photos. listings_at_most:
    listing photos. min_side: of a photo's shorter side, in pixels."""

    at_least: int = 1
    at_most: int = 20
    listings_at_most: int = 10
    min_side: int = 320


@dataclass(frozen=True)
class ComparisonRules:
    """When a difference to the listing photo counts; shares in 0..1. min_agreement: of the overlap,
    outside the changes. min_changed: of the overlap. min_overlap: of the claim photo."""

    min_agreement: float = 0.8
    min_changed: float = 0.0005
    min_overlap: float = 0.3


@dataclass(frozen=True)
class Rules:
    """What each finding recommends; "approve" ignores it. policy.yaml explains each of them."""

    declared_ai_generated: Recommendation = "escalate"
    declared_ai_edited: Recommendation = "escalate"
    declared_ai_possible: Recommendation = "review"
    declared_ai_suspected: Recommendation = "review"
    credentials_broken: Recommendation = "review"
    preview_differs: Recommendation = "review"
    visible_ai_mark: Recommendation = "review"
    damage_differs: Recommendation = "review"
    video_frames_synthetic: Recommendation = "review"
    video_unlike_photos: Recommendation = "approve"
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
    seen_at_other_shop: Recommendation = "review"


Action: TypeAlias = Literal["refund", "part", "require_return", "ask", "refuse"]


@dataclass(frozen=True)
class CaseRules:
    """How people handle a kept claim. second_person: decisions that another person must confirm.
    repeat_days: how long earlier claims of a buyer or device count."""

    decide_hours: float = 168
    statement_hours: float = 72
    near_hours: float = 24
    undo_minutes: float = 10
    second_person: tuple[Action, ...] = ("refuse",)
    appeal_needs_other_person: bool = True
    repeat_days: float = 30


@dataclass(frozen=True)
class ClaimPolicy(Record):
    """How a claim is decided; read from YAML, every key of which has a default.

    escalate_up_to: `synthetic` escalates only when the model guarantees at most this share of false
        alarms for the whole claim (photos times alpha); None needs no guarantee.
    Raises ConfigError on a value out of range.
    """

    name: str = "default"
    photos: PhotoRules = field(default_factory=PhotoRules)
    comparison: ComparisonRules = field(default_factory=ComparisonRules)
    rules: Rules = field(default_factory=Rules)
    cases: CaseRules = field(default_factory=CaseRules)
    escalate_up_to: float | None = 0.1

    def __post_init__(self) -> None:
        photos = asdict(self.photos)
        for key, value in photos.items():
            least = 0 if key == "listings_at_most" else 1
            require(value >= least, f"photos.{key}: {value}, but it must be at least {least}")
        require(
            self.photos.at_least <= self.photos.at_most,
            f"photos.at_least: {self.photos.at_least} is above photos.at_most: "
            f"{self.photos.at_most}",
        )
        for key in ("decide_hours", "statement_hours", "near_hours", "undo_minutes", "repeat_days"):
            hours = getattr(self.cases, key)
            require(0 <= hours <= 87_600, f"cases.{key}: {hours}, but it must be in 0..87600")
        shares = {f"comparison.{key}": value for key, value in asdict(self.comparison).items()}
        for key, value in (shares | {"escalate_up_to": self.escalate_up_to}).items():
            require(value is None or 0 <= value <= 1, f"{key}: {value}, but it must be in 0..1")

    @classmethod
    def from_yaml(cls, path: str | Path) -> ClaimPolicy:
        """Read a policy file; missing keys keep their default. Raises ConfigError naming file and
        key, MissingExtraError without pyyaml."""
        try:
            import yaml
        except ModuleNotFoundError as error:
            raise MissingExtraError("a claim policy", "claims", error.name) from None
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(
                f"{path}: no such claim policy; write one with: realdamage claim --write-policy "
                f"{path}"
            ) from error
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
        try:
            return record_from_dict(cls, {} if values is None else values, "policy")
        except ModelFileError as error:
            text = str(error).removeprefix("policy: ").removeprefix("policy.")
            raise ConfigError(f"{path}: {text}") from None


def default_yaml() -> str:
    """The default policy as a file to edit, with a comment on every key."""
    return Path(__file__).with_name("policy.yaml").read_text(encoding="utf-8")


def message_to_buyer(recommendation: Recommendation, *, whole_item: bool = False) -> dict[str, str]:
    """The text for the buyer under "en" and "zh". whole_item: with `ask_photo`, ask for one photo
    of the whole item and nothing else."""
    asks_whole = whole_item and recommendation == "ask_photo"
    name = "buyer_whole_item" if asks_whole else f"buyer_{recommendation}"
    return {language: phrases_in(language)[name] for language in ("en", "zh")}
