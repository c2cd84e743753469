"""The prompts that generated damage is asked for with, put together from phrase lists
(configs/prompts), so that a set shows what many buyers would type and not one sentence a thousand
times.

A catalogue covers every damage type in every language. That is checked when it is read, not at the
first photo that needs a missing phrase.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

import numpy as np

from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import ConfigError

SEVERITIES = ("slight", "clear", "severe")
GENERIC = "generic"
"""The material of a prompt that names none in particular."""
FORMS = ("descriptions", "instructions")
"""What is to be seen (for inpainting), and what is to be done to the photo (for editors)."""


@dataclass(frozen=True)
class Prompt:
    """What a pipeline is asked for: `text`, and in `negative` what is not wanted.

    language, material, severity: the catalogue's words that were drawn; severity is "" without
    damage.
    """

    text: str
    negative: str
    language: str
    material: str
    severity: str


@dataclass(frozen=True)
class PromptCatalogue:
    """Draws prompts from a checked `prompts` section; configs/prompts/damage.yaml says what its
    keys mean."""

    generic_share: float
    fits: Mapping[str, Sequence[str]]
    materials: Sequence[str]
    languages: Mapping[str, Any]

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> PromptCatalogue:
        """Raises ConfigError, naming the key: an entry that is missing, empty or unknown, a
        placeholder that nothing fills, a sentence that does not name the damage, or a share outside
        0..1."""
        share = float(section.get("generic_share", 0.5))
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"prompts.generic_share={share}: must be in 0..1")
        fits, languages = section.get("fits") or {}, section.get("languages") or {}
        _check(fits, dict.fromkeys(DAMAGES, _BARE), "prompts.fits")
        fitting = dict.fromkeys(material for each in fits.values() for material in each)
        materials = [GENERIC, *fitting]
        if not languages:
            raise ConfigError("prompts.languages is empty: give at least one language, such as en")
        for name, language in languages.items():
            _check(language, _shape(materials), f"prompts.languages.{name}")
        return cls(share, fits, materials, languages)

    def check(self, languages: Sequence[str]) -> None:
        """Raises ConfigError unless the catalogue has all of these languages."""
        for language in languages:
            _known(language, self.languages, "prompts.languages")

    def draw(
        self, form: str, damage: str, rng: np.random.Generator, languages: Sequence[str]
    ) -> Prompt:
        """A prompt of a form of FORMS. damage: one of DAMAGES, or "" to add none. languages: evenly
        drawn from.
        Raises ConfigError for a damage or language that the catalogue doesn't have."""
        self.check(languages)
        name = _pick(languages, rng)
        language = self.languages[name]
        if damage:
            _known(damage, DAMAGES, "the damage types")
        fitting = self.fits[damage] if damage else self.materials
        generic = rng.random() < self.generic_share or not fitting
        material = GENERIC if generic else _pick(fitting, rng)
        words = {"material": _pick(language["materials"][material], rng)}
        severity = ""
        if damage:
            phrases, severity = language["damages"][damage], _pick(SEVERITIES, rng)
            words["damage"] = _pick(phrases["seen"][severity], rng)
            words["place"] = _pick(phrases["places"], rng).format(**words)
            words["degree"] = _pick(language["degrees"][severity], rng)
            words["state"] = _pick(phrases["states"], rng)
        sentences = language["sentences"]["damaged" if damage else "plain"]
        text = _pick(sentences[form], rng).format(**words)
        negative = _pick(sentences["negatives"], rng).format(**words)
        return Prompt(text, negative, name, material, severity)


@dataclass(frozen=True)
class _Phrases:
    """A list of phrases: which placeholders they may have, and of which they must have one."""

    allowed: Sequence[str] = ()
    one_of: Collection[str] = ()


_BARE, _MATERIAL = _Phrases(), _Phrases(("material",))
_NAMED = _Phrases(("damage", "place", "material", "degree", "state"), ("damage", "state"))


def _shape(materials: Sequence[str]) -> Mapping[str, Any]:
    """The keys that a language must have, down to the lists of phrases."""
    seen = dict.fromkeys(SEVERITIES, _BARE)
    damage = {"states": _BARE, "places": _MATERIAL, "seen": seen}
    return {
        "materials": dict.fromkeys(materials, _BARE),
        "degrees": dict.fromkeys(SEVERITIES, _BARE),
        "sentences": {
            "damaged": {**dict.fromkeys(FORMS, _NAMED), "negatives": _MATERIAL},
            "plain": dict.fromkeys((*FORMS, "negatives"), _MATERIAL),
        },
        "damages": dict.fromkeys(DAMAGES, damage),
    }


def _check(node: Any, shape: Mapping[str, Any] | _Phrases, where: str) -> None:
    """Raises ConfigError unless `node` has exactly the keys of `shape` and its phrases are
    right."""
    if not isinstance(shape, _Phrases):
        for name in node or ():
            _known(str(name), shape, where)
        if missing := [name for name in shape if name not in (node or ())]:
            raise ConfigError(f"{where}: no entry for {', '.join(missing)}")
        for name, part in shape.items():
            _check(node[name], part, f"{where}.{name}")
        return
    if not node or not all(str(phrase).strip() for phrase in node):
        raise ConfigError(f"{where} has no phrase, or an empty one: give a list of texts")
    for phrase in node:
        try:
            names = {name for _, name, _, _ in Formatter().parse(phrase) if name is not None}
        except ValueError as error:
            raise ConfigError(
                f'{where}: "{phrase}" has a lone brace; write {{{{ or }}}}'
            ) from error
        for name in names:
            _known(name, shape.allowed, f'the placeholders of {where} ("{phrase}")')
        if shape.one_of and not names & set(shape.one_of):
            options = " or ".join(f"{{{name}}}" for name in sorted(shape.one_of))
            raise ConfigError(
                f'{where}: "{phrase}" does not name the damage: put {options} into it'
            )


def _known(name: str, allowed: Collection[str], where: str) -> None:
    if name not in allowed:
        near = difflib.get_close_matches(name, list(allowed), n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise ConfigError(
            f'"{name}" is not among {where}; known: {", ".join(allowed) or "none"}.{hint}'
        )


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return str(choices[int(rng.integers(len(choices)))])
