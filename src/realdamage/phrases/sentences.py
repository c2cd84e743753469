"""The sentences of reasons and findings as phrases with named values, so that they can be said in another language.

A sentence is one phrase or several. It travels as English text with its phrases beside it; whoever has a template of
the same name in another language fills it with the same values (the review page: `service/page/sentences.js`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from realdamage.phrases.templates import TEMPLATES

_ATTACHED = (",", ";", ":", ".")
"""What begins so follows the phrase before it without a space."""


@dataclass(frozen=True)
class Phrase:
    """A part of a sentence. template: a name in TEMPLATES. values: by their names there, as they stand in the sentence;
    numbers are text with the digits and the unit that are shown."""

    template: str
    values: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def english(self) -> str:
        """The phrase in English. Raises KeyError for a template of another version."""
        return TEMPLATES[self.template].format(**self.values)

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        return {"template": self.template, "values": dict(self.values)}


def phrase(template: str, **values: str | int) -> Phrase:
    """The phrase of a template, filled in."""
    return Phrase(template, {name: str(value) for name, value in values.items()})


def in_english(phrases: Sequence[Phrase]) -> str:
    """The sentence that the phrases make."""
    text = ""
    for one in phrases:
        words = one.english
        text += words if not text or words.startswith(_ATTACHED) else f" {words}"
    return text


def printable(text: str, keep: str = "") -> str:
    """Without control characters, invisible marks that turn the direction of writing, and halves of characters."""
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
    """What a sentence is made of; one that came without phrases, word for word."""
    return one.phrases or (phrase("verbatim", text=one.sentence),)


def read_phrases(values: Any) -> tuple[Phrase, ...]:
    """Read what `Phrase.to_dict` gave for each; None, as in the JSON of older versions, is no phrase.

    Raises TypeError, KeyError or AttributeError on anything else.
    """
    found = tuple(Phrase(one["template"], dict(one["values"].items())) for one in values or ())
    for one in found:
        if not all(
            isinstance(text, str) for text in (one.template, *one.values, *one.values.values())
        ):
            raise TypeError(f"expected text in a phrase, found {one}")
    return found
