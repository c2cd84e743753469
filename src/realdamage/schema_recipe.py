"""The shape of a recipe of `synthesize.py` and of the prompts beside it: what may be set, of which type, with which
default. Hydra merges the YAML files into these dataclasses, as into those of `realdamage.schema`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class SourceConfig:
    """See `realdamage.synthesis.settings.SourceSettings`."""

    kind: str = "studio"
    root: str | None = None
    more: list[str] = field(default_factory=list)
    splits: str | None = None
    groups: int = 200
    damaged_share: float = 0.5
    per_source: int | None = None
    damaged_first: bool = False
    max_side: int = 2048
    crop: int | None = None


@dataclass
class WriterConfig:
    """See `realdamage.synthesis.settings.WriterSettings`."""

    quality: list[int] | None = field(default_factory=lambda: [90, 97])


@dataclass
class GeneratorConfig:
    """See `realdamage.synthesis.generators.GeneratorSettings`; `weights` null leaves it out; `options` are checked when
    the engine is loaded."""

    engine: str = "codec"
    weights: str | None = MISSING
    family: str = MISSING
    options: dict[str, Any] | None = None


@dataclass
class IncludeConfig:
    """See `realdamage.synthesis.settings.IncludeSettings`."""

    root: str | None = None
    splits: str | None = None
    fractions: dict[str, float] = field(
        default_factory=lambda: {"train": 0.7, "val": 0.1, "test": 0.2}
    )
    exceptions: dict[str, str] = field(default_factory=dict)


@dataclass
class SharesConfig:
    """How many photos of each derived kind a real photo gets on average."""

    annotated: float = 0.0
    ai_region: float = 0.0
    ai_whole: float = 0.0
    pasted: float = 0.0


@dataclass
class RecipeConfig:
    """See `realdamage.synthesis.settings.Recipe`; `generators` and `include` are named, so that a command line can
    change one, or take it out with null."""

    name: str = MISSING
    seed: int = 0
    source: SourceConfig = field(default_factory=SourceConfig)
    shares: dict[str, SharesConfig] = field(default_factory=dict)
    paint_share: float | None = None
    overlay_share: float = 0.1
    damages: list[str] | None = None
    generators: dict[str, GeneratorConfig | None] = field(default_factory=dict)
    include: dict[str, IncludeConfig | None] = field(default_factory=dict)
    writer: WriterConfig = field(default_factory=WriterConfig)
    fractions: dict[str, float] = field(
        default_factory=lambda: {"train": 0.6, "val": 0.2, "test": 0.2}
    )
    workers: int | None = None


@dataclass
class SentencesConfig:
    """See `realdamage.synthesis.prompts.Sentences`."""

    descriptions: list[str] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)
    negatives: list[str] = field(default_factory=list)


@dataclass
class DamagePhrasesConfig:
    """See `realdamage.synthesis.prompts.DamagePhrases`."""

    states: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    seen: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class LanguageConfig:
    """See `realdamage.synthesis.prompts.Language`."""

    materials: dict[str, list[str]] = field(default_factory=dict)
    degrees: dict[str, list[str]] = field(default_factory=dict)
    sentences: dict[str, SentencesConfig] = field(default_factory=dict)
    damages: dict[str, DamagePhrasesConfig] = field(default_factory=dict)


@dataclass
class PromptsConfig:
    """See `realdamage.synthesis.prompts.PromptCatalogue`; read only by the generators that take a prompt."""

    generic_share: float = 0.5
    fits: dict[str, list[str]] = field(default_factory=dict)
    languages: dict[str, LanguageConfig] = field(default_factory=dict)
