"""Names of generators in metadata, and generators known by how they fill several fields.

A photo editor is no generator: its name does not say what it did to a photo.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from realdamage.provenance.precedence import Declared

_MAX_TEXT = 2000
_JOB = re.compile(r"\bJob ID: ?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SIGNATURE = re.compile(r"Signature: [A-Za-z0-9+/=]{64,}")


@dataclass(frozen=True)
class Generator:
    """A row of generators.json; the first match counts. words: whole words, ignoring case.

    anywhere: rare enough words to count as an author, a credit, a maker or a model, not just
        software.
    shared: words that other programs and devices use too (Firefly is a camera, Gemini a phone); as
        software, they declare that it may be AI, no more.
    """

    name: str
    words: tuple[str, ...] = ()
    declares: Declared = "ai_generated"
    anywhere: bool = False
    shared: tuple[str, ...] = ()


def find_generator(text: str, *, author: bool = False) -> Generator | None:
    """The generator that the first 2000 characters of a text name, or None.

    author: the text names a person, a firm or a model, so only rare names count.
    """
    start = text[:_MAX_TEXT]
    for generator, pattern in _patterns("words"):
        if (generator.anywhere or not author) and pattern.search(start):
            return generator
    for generator, pattern in () if author else _patterns("shared"):
        if pattern.search(start):
            return replace(generator, declares="ai_possible")
    return None


def find_handwriting(texts: dict[str, str]) -> str:
    """The generator known by how it fills several fields, or "". texts: by field name.

    Midjourney ends its description with a job; Grok signs it and writes an id as Artist.
    """
    description = texts.get("ImageDescription", "") or texts.get("Description", "")
    artist = texts.get("Artist", "").strip()
    if _JOB.search(description[-_MAX_TEXT:]):
        return "Midjourney"
    if _SIGNATURE.match(description[:_MAX_TEXT]) and _UUID.fullmatch(artist):
        return "Grok"
    return ""


@cache
def _patterns(which: str) -> list[tuple[Generator, re.Pattern[str]]]:
    found = []
    for row in json.loads(Path(__file__).with_name("generators.json").read_text("utf-8")):
        if words := row.get(which):
            row.update(words=tuple(row.get("words", ())), shared=tuple(row.get("shared", ())))
            pattern = re.compile("|".join(map(_whole_word, words)), re.IGNORECASE)
            found.append((Generator(**row), pattern))
    return found


def _whole_word(text: str) -> str:
    escaped = re.escape(text)
    if text.isascii() or "·" in text:
        return rf"(?<![^\W_]){escaped}(?![^\W_])"
    return escaped  # scripts without spaces have no word boundaries
