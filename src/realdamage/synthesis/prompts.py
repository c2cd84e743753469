"""The prompts that generated damage is asked for with, put together from phrase lists
(configs/prompts), so that a set shows what many buyers would type and not one sentence a thousand
times.

A catalogue covers every damage type in every language. That is checked when it is read, not at the
first photo that needs a missing phrase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from typing import Any, NamedTuple

import numpy as np

from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import ConfigError

SEVERITIES = ("slight", "clear", "severe")
GENERIC = "generic"
"""The material of a prompt that names none in particular."""
FORMS = ("descriptions", "instructions")
"""What is to be seen (for inpainting), and what is to be done to the photo (for editors)."""


class Prompt(NamedTuple):
    """What a pipeline is asked for, and what is not wanted."""

    text: str
    negative: str


@dataclass(frozen=True)
class PromptCatalogue:
    """Draws prompts; also the shape of `prompts` in the YAML files. configs/prompts/damage.yaml
    says what the keys mean.

    Raises ConfigError, naming the key: an entry that is missing or empty, a placeholder that
    nothing fills, or a share outside 0..1.
    """

    generic_share: float = 0.5
    fits: dict[str, list[str]] = field(default_factory=dict)
    languages: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0.0 <= self.generic_share <= 1.0:
            raise ConfigError(f"prompts.generic_share={self.generic_share}: must be in 0..1")
        for name, language in self.languages.items():
            _check(language, self.materials, f"prompts.languages.{name}")

    @property
    def materials(self) -> list[str]:
        """All materials that a prompt may name."""
        return [GENERIC, *dict.fromkeys(name for names in self.fits.values() for name in names)]

    def check(self, languages: Sequence[str]) -> None:
        """Raises ConfigError unless the catalogue has all of these languages."""
        for language in languages:
            if language not in self.languages:
                known = ", ".join(self.languages) or "none"
                raise ConfigError(f"{language!r} is not among prompts.languages; there are {known}")

    def draw(
        self, form: str, damage: str, rng: np.random.Generator, languages: Sequence[str]
    ) -> Prompt:
        """A prompt of a form of FORMS. damage: one of DAMAGES, or "" to add none. languages: evenly
        drawn from."""
        language = self.languages[_pick(languages, rng)]
        fitting = self.fits.get(damage, ()) if damage else self.materials
        generic = rng.random() < self.generic_share or not fitting
        material = GENERIC if generic else _pick(fitting, rng)
        words = {"material": _pick(language["materials"][material], rng)}
        if damage:
            phrases, severity = language["damages"][damage], _pick(SEVERITIES, rng)
            words["damage"] = _pick(phrases["seen"][severity], rng)
            words["place"] = _pick(phrases["places"], rng).format(**words)
            words["degree"] = _pick(language["degrees"][severity], rng)
            words["state"] = _pick(phrases["states"], rng)
        sentences = language["sentences"]["damaged" if damage else "plain"]
        text = _pick(sentences[form], rng).format(**words)
        return Prompt(text, _pick(sentences["negatives"], rng).format(**words))


def _check(language: Any, materials: Sequence[str], where: str) -> None:
    """Fills in every phrase that a prompt may need."""
    material = {"material": "x"}
    words = material | dict.fromkeys(("damage", "place", "degree", "state"), "x")
    needed: list[tuple[str, dict[str, str]]] = [(f"materials.{name}", {}) for name in materials]
    needed += [(f"degrees.{severity}", {}) for severity in SEVERITIES]
    for damage in DAMAGES:
        needed += [(f"damages.{damage}.states", {}), (f"damages.{damage}.places", material)]
        needed += [(f"damages.{damage}.seen.{severity}", {}) for severity in SEVERITIES]
    for form in (*FORMS, "negatives"):
        needed += [(f"sentences.damaged.{form}", words), (f"sentences.plain.{form}", material)]
    for key, values in needed:
        try:
            phrases: Sequence[str] = reduce(getitem, key.split("."), language)
            filled = [phrase.format(**values) for phrase in phrases]
        except (LookupError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{where}.{key} is missing, or has a placeholder that nothing fills ({error})"
            ) from error
        if not all(text.strip() for text in filled) or not filled:
            raise ConfigError(f"{where}.{key} has no phrase, or an empty one: give a list of texts")


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return str(choices[int(rng.integers(len(choices)))])
