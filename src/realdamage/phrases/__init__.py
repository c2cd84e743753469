"""The sentences of reasons and findings, as phrases with named values that another language can
fill in too.

A sentence is one phrase or several. It travels as English text together with its phrases. `en.json`
and `zh.json` hold the same names; the review page loads `zh.json` from the service. A phrase says
what photos and files show, never what a person did. One that ends a sentence has its full stop.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

ATTACHED = (",", ";", ":", ".")
"""A phrase that begins with one of these follows the previous one without a space."""


def page_json(language: str) -> bytes:
    """The phrases of a language ("en", "zh") as a JSON object: their text by name."""
    return Path(__file__).with_name(f"{language}.json").read_bytes()


@cache
def phrases_in(language: str) -> dict[str, str]:
    """The text of a language ("en", "zh") by the name of the phrase; {name} is filled in."""
    found: dict[str, str] = json.loads(page_json(language))
    return found


ENGLISH = phrases_in("en")


@dataclass(frozen=True)
class Phrase:
    """A part of a sentence. template: a name in ENGLISH. values: by the names used there, as they
    are shown."""

    template: str
    values: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def english(self) -> str:
        """The phrase in English. Raises KeyError for a template of another version."""
        return ENGLISH[self.template].format(**self.values)

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        return {"template": self.template, "values": dict(self.values)}


def phrase(template: str, **values: str | int) -> Phrase:
    """The phrase of a template, filled in."""
    return Phrase(template, {name: str(value) for name, value in values.items()})


def in_language(phrases: Sequence[Phrase], language: str) -> str:
    """The sentence that the phrases make. language: "en" or "zh". Raises KeyError or IndexError for
    phrases of another version."""
    texts, sentence = phrases_in(language), ""
    for one in phrases:
        words = texts[one.template].format(**one.values)
        attached = not sentence or language == "zh" or words.startswith(ATTACHED)
        sentence += words if attached else f" {words}"
    return sentence


def in_english(phrases: Sequence[Phrase]) -> str:
    """The sentence that the phrases make."""
    return in_language(phrases, "en")


def printable(text: str, keep: str = "") -> str:
    """Without control characters, invisible marks that change the direction of writing, and broken
    characters."""
    return "".join(
        one
        for one in text
        if one in keep or unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )


class Said(Protocol):
    """A reason, or a finding in a file."""

    @property
    def sentence(self) -> str: ...
    @property
    def phrases(self) -> tuple[Phrase, ...]: ...


def said_of(one: Said) -> tuple[Phrase, ...]:
    """The phrases of a sentence; the text itself for one without phrases."""
    return one.phrases or (phrase("verbatim", text=one.sentence),)


def read_phrases(values: Any) -> tuple[Phrase, ...]:
    """Read a list of what `Phrase.to_dict` wrote; None is empty.

    Raises TypeError, KeyError or AttributeError on anything else.
    """
    found = tuple(Phrase(one["template"], dict(one["values"].items())) for one in values or ())
    for one in found:
        texts = (one.template, *one.values, *one.values.values())
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"expected text in a phrase, found {one}")
    return found
