"""The prompts that generated damage is asked for with, put together from phrase lists (configs/prompts), so that a set
shows what many buyers would type and not one sentence a thousand times.

A catalogue covers every damage type in every language. That is checked when it is read, not at the first photo that
needs a missing phrase.
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
_WORDS = ("damage", "place", "material", "degree", "state")


@dataclass(frozen=True)
class Prompt:
    """What a pipeline is asked for: `text`, and in `negative` what is not wanted.

    language, material, severity: the catalogue's words that were drawn; severity is "" without damage.
    """

    text: str
    negative: str
    language: str
    material: str
    severity: str


@dataclass(frozen=True)
class PromptCatalogue:
    """Draws prompts from a checked `prompts` section; configs/prompts/damage.yaml says what its keys mean."""

    generic_share: float
    fits: Mapping[str, Sequence[str]]
    materials: Sequence[str]
    languages: Mapping[str, Any]

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> PromptCatalogue:
        """Raises ConfigError, naming the key: a damage, severity or material without phrases or unknown, a placeholder
        that nothing fills, a sentence that does not name the damage, or a share outside 0..1."""
        share = float(section.get("generic_share", 0.5))
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"prompts.generic_share={share}: must be in 0..1")
        fits = _section(section, "fits", "prompts", DAMAGES)
        for damage in DAMAGES:
            _check(fits[damage], f"prompts.fits.{damage}")
        if not section.get("languages"):
            raise ConfigError("prompts.languages is empty: give at least one language, such as en")
        materials = [
            GENERIC,
            *dict.fromkeys(material for each in fits.values() for material in each),
        ]
        for name, language in section["languages"].items():
            _check_language(language, f"prompts.languages.{name}", materials)
        return cls(share, fits, materials, section["languages"])

    def check(self, languages: Sequence[str]) -> None:
        """Raises ConfigError unless the catalogue has all of these languages."""
        for language in languages:
            _known(language, self.languages, "prompts.languages")

    def draw(
        self, form: str, damage: str, rng: np.random.Generator, languages: Sequence[str]
    ) -> Prompt:
        """A prompt of a form of FORMS. damage: one of DAMAGES, or "" to add none. languages: evenly drawn from.
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


def _check_language(node: Mapping[str, Any], where: str, materials: Sequence[str]) -> None:
    for key, names in (("materials", materials), ("degrees", SEVERITIES)):
        words = _section(node, key, where, names)
        for name in names:
            _check(words[name], f"{where}.{key}.{name}")
    sentences = _section(node, "sentences", where, ("damaged", "plain"))
    for form in FORMS:
        key = f"{where}.sentences.damaged.{form}"
        _check(sentences["damaged"].get(form), key, _WORDS, ("damage", "state"))
        _check(sentences["plain"].get(form), f"{where}.sentences.plain.{form}", ("material",))
    for kind in ("damaged", "plain"):
        key = f"{where}.sentences.{kind}.negatives"
        _check(sentences[kind].get("negatives"), key, ("material",))
    damages = _section(node, "damages", where, DAMAGES)
    for damage in DAMAGES:
        key, phrases = f"{where}.damages.{damage}", damages[damage]
        seen = _section(phrases, "seen", key, SEVERITIES)
        for severity in SEVERITIES:
            _check(seen[severity], f"{key}.seen.{severity}")
        _check(phrases.get("states"), f"{key}.states")
        _check(phrases.get("places"), f"{key}.places", ("material",))


def _section(
    node: Mapping[str, Any], key: str, where: str, wanted: Sequence[str]
) -> Mapping[str, Any]:
    """The mapping `node[key]`, which must have exactly the keys `wanted`."""
    found: Mapping[str, Any] = node.get(key) or {}
    for name in found:
        _known(str(name), wanted, f"{where}.{key}")
    if missing := [name for name in wanted if name not in found]:
        raise ConfigError(f"{where}.{key}: no entry for {', '.join(missing)}")
    return found


def _check(
    phrases: Sequence[str] | None,
    where: str,
    allowed: Sequence[str] = (),
    one_of: Collection[str] = (),
) -> None:
    """Raises ConfigError unless there are phrases, none is empty, all placeholders are `allowed`, and each phrase has
    one of `one_of`, if any are given."""
    if not phrases or not all(str(phrase).strip() for phrase in phrases):
        raise ConfigError(f"{where} has no phrase, or an empty one: give a list of texts")
    for phrase in phrases:
        try:
            names = {name for _, name, _, _ in Formatter().parse(phrase) if name is not None}
        except ValueError as error:
            message = (
                f'{where}: "{phrase}" has a lone brace ({error}); write {{{{ or }}}} for a brace'
            )
            raise ConfigError(message) from error
        for name in names:
            _known(name, allowed, f'the placeholders of {where} ("{phrase}")')
        if one_of and not names & set(one_of):
            options = " or ".join(f"{{{name}}}" for name in sorted(one_of))
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
