"""The prompts that generated damage is asked for with, put together from phrase lists (configs/prompts), so that a set
shows what many buyers would type and not one sentence a thousand times.

A catalogue covers every damage type in every language; that is checked when it is read, not at the first photo that
needs the missing phrase.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

import numpy as np

from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import ConfigError

SEVERITIES = ("slight", "clear", "severe")
GENERIC = "generic"
"""The material of a prompt that names none in particular."""
_SENTENCE = ("damage", "place", "material", "degree", "state")

Phrases = tuple[str, ...]


@dataclass(frozen=True)
class Prompt:
    """What a pipeline is asked for: `text`, and in `negative` what is not wanted; `language` as the catalogue names
    it; `material` and `severity`: the catalogue's words that were drawn, severity "" where no damage is asked for."""

    text: str
    negative: str
    language: str
    material: str
    severity: str


@dataclass(frozen=True)
class Sentences:
    """Templates: `descriptions` say what is to be seen, `instructions` what is to be done to the photo, `negatives`
    what is not wanted."""

    descriptions: Phrases
    instructions: Phrases
    negatives: Phrases


@dataclass(frozen=True)
class DamagePhrases:
    """One damage in one language: as a state ("cracked"), where it may be, and as a thing seen, for each severity."""

    states: Phrases
    places: Phrases
    seen: Mapping[str, Phrases]


@dataclass(frozen=True)
class Language:
    """All that is said in one language: words for each material and severity, sentences that ask for
    damage ("damaged") and that ask for none ("plain"), phrases of each damage."""

    materials: Mapping[str, Phrases]
    degrees: Mapping[str, Phrases]
    sentences: Mapping[str, Sentences]
    damages: Mapping[str, DamagePhrases]


@dataclass(frozen=True)
class PromptCatalogue:
    """Draws prompts. `generic_share`: how often no particular material is named, in 0..1; `fits`: the materials that
    each damage happens to; `languages`: by name ("en", "zh", …)."""

    generic_share: float
    fits: Mapping[str, Phrases]
    languages: Mapping[str, Language]

    @classmethod
    def from_config(cls, mapping: Mapping[str, Any]) -> PromptCatalogue:
        """A catalogue from the `prompts` section of a configuration (`schema_recipe.PromptsConfig`).

        Raises ConfigError, naming the key: a damage, severity or material without phrases, one that is not known, a
        placeholder that nothing fills, a sentence that does not name the damage, or a share outside 0..1.
        """
        share = float(mapping.get("generic_share", 0.5))
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"prompts.generic_share={share}: a share lies in 0..1")
        fits_node = _section(mapping, "fits", "prompts.fits", DAMAGES)
        fits = {
            damage: _phrases(fits_node[damage], f"prompts.fits.{damage}", ()) for damage in DAMAGES
        }
        languages = mapping.get("languages") or {}
        if not languages:
            raise ConfigError("prompts.languages is empty: give at least one language, such as en")
        materials = dict.fromkeys(
            (GENERIC, *(material for fitting in fits.values() for material in fitting))
        )
        return cls(
            share,
            fits,
            {
                name: _language(node, str(name), tuple(materials))
                for name, node in languages.items()
            },
        )

    def draw(
        self,
        damage: str,
        rng: np.random.Generator,
        languages: Sequence[str],
        materials: Sequence[str] = (),
    ) -> Prompt:
        """A description of what is to be seen, for inpainting. damage: one of DAMAGES, or "" to add none;
        languages: evenly drawn from; materials: those to draw from (none: all that the damage happens to).
        Raises ConfigError for a damage, language or material that the catalogue doesn't have."""
        return self._prompt("descriptions", damage, rng, languages, materials)

    def instruction(
        self,
        damage: str,
        rng: np.random.Generator,
        languages: Sequence[str],
        materials: Sequence[str] = (),
    ) -> Prompt:
        """What is to be done to the photo, for editing models ("Add a crack …"); arguments and errors as in `draw`."""
        return self._prompt("instructions", damage, rng, languages, materials)

    def check(self, languages: Sequence[str], materials: Sequence[str]) -> None:
        """Raises ConfigError unless the catalogue has these languages (at least one) and materials."""
        if not languages:
            raise ConfigError(
                f"no language to write prompts in: languages is empty; known: {', '.join(self.languages)}"
            )
        for language in languages:
            _known(language, self.languages, "the prompt catalogue's languages")
            for material in materials:
                _known(
                    material, self.languages[language].materials, "the prompt catalogue's materials"
                )

    def _prompt(
        self,
        form: str,
        damage: str,
        rng: np.random.Generator,
        languages: Sequence[str],
        materials: Sequence[str],
    ) -> Prompt:
        self.check(languages, materials)
        name = _pick(languages, rng)
        language = self.languages[name]
        if damage:
            _known(damage, DAMAGES, "damage types")
        fitting = self.fits[damage] if damage else tuple(language.materials)
        if materials:
            fitting = tuple(material for material in fitting if material in materials)
        generic = rng.random() < self.generic_share or not fitting
        material = GENERIC if generic else _pick(fitting, rng)
        words = {"material": _pick(language.materials[material], rng)}
        severity = ""
        if damage:
            phrases, severity = language.damages[damage], _pick(SEVERITIES, rng)
            words["damage"] = _pick(phrases.seen[severity], rng)
            words["place"] = _pick(phrases.places, rng).format(**words)
            words["degree"] = _pick(language.degrees[severity], rng)
            words["state"] = _pick(phrases.states, rng)
        sentences = language.sentences["damaged" if damage else "plain"]
        text = _pick(getattr(sentences, form), rng).format(**words)
        return Prompt(
            text, _pick(sentences.negatives, rng).format(**words), name, material, severity
        )


def _language(node: Mapping[str, Any], name: str, materials: Sequence[str]) -> Language:
    where = f"prompts.languages.{name}"
    words = _section(node, "materials", f"{where}.materials", materials)
    degrees = _section(node, "degrees", f"{where}.degrees", SEVERITIES)
    sentences = _section(node, "sentences", f"{where}.sentences", ("damaged", "plain"))
    damages = _section(node, "damages", f"{where}.damages", DAMAGES)
    return Language(
        {key: _phrases(words[key], f"{where}.materials.{key}", ()) for key in materials},
        {key: _phrases(degrees[key], f"{where}.degrees.{key}", ()) for key in SEVERITIES},
        {
            "damaged": _sentences(
                sentences["damaged"], f"{where}.sentences.damaged", _SENTENCE, {"damage", "state"}
            ),
            "plain": _sentences(
                sentences["plain"], f"{where}.sentences.plain", ("material",), set()
            ),
        },
        {damage: _damage(damages[damage], f"{where}.damages.{damage}") for damage in DAMAGES},
    )


def _sentences(
    node: Mapping[str, Any], where: str, allowed: Sequence[str], one_of: set[str]
) -> Sentences:
    return Sentences(
        _phrases(node.get("descriptions"), f"{where}.descriptions", allowed, one_of),
        _phrases(node.get("instructions"), f"{where}.instructions", allowed, one_of),
        _phrases(node.get("negatives"), f"{where}.negatives", ("material",)),
    )


def _damage(node: Mapping[str, Any], where: str) -> DamagePhrases:
    seen = _section(node, "seen", f"{where}.seen", SEVERITIES)
    return DamagePhrases(
        _phrases(node.get("states"), f"{where}.states", ()),
        _phrases(node.get("places"), f"{where}.places", ("material",)),
        {
            severity: _phrases(seen[severity], f"{where}.seen.{severity}", ())
            for severity in SEVERITIES
        },
    )


def _section(
    node: Mapping[str, Any], key: str, where: str, wanted: Sequence[str]
) -> Mapping[str, Any]:
    """The mapping `node[key]`, which must have exactly the keys `wanted`."""
    found: Mapping[str, Any] = node.get(key) or {}
    for name in found:
        _known(str(name), wanted, where)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ConfigError(
            f"{where}: nothing for {', '.join(missing)}. Every one of {', '.join(wanted)} needs an entry"
        )
    return found


def _phrases(
    node: Iterable[Any] | None,
    where: str,
    allowed: Sequence[str],
    one_of: Collection[str] = frozenset(),
) -> Phrases:
    """The phrases of a list: none empty, placeholders among `allowed`, and one of `one_of` in each if any are given."""
    phrases = tuple(str(phrase).strip() for phrase in node or ())
    if not phrases or not all(phrases):
        raise ConfigError(f"{where} has no phrase, or an empty one: give a list of texts")
    for phrase in phrases:
        try:
            names = {name for _, name, _, _ in Formatter().parse(phrase) if name is not None}
        except ValueError as error:
            raise ConfigError(
                f'{where}: "{phrase}" has a lone brace ({error}); write {{{{ or }}}} for a brace'
            ) from error
        for name in names:
            _known(name, allowed, f'the placeholders of {where} ("{phrase}")')
        if one_of and not names & set(one_of):
            options = " or ".join(f"{{{name}}}" for name in sorted(one_of))
            raise ConfigError(
                f'{where}: "{phrase}" does not say which damage: put {options} into it'
            )
    return phrases


def _known(name: str, allowed: Collection[str], where: str) -> None:
    if name not in allowed:
        near = difflib.get_close_matches(name, list(allowed), n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        known = f"known: {', '.join(allowed)}" if allowed else "none is filled there"
        raise ConfigError(f'"{name}" is not among {where}; {known}.{hint}')


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
