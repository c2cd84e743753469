"""The label of China's GB 45438-2025 in text, whatever wraps it, and the platforms' labels that look like it."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from typing import Any

from realdamage.phrases import Phrase, phrase
from realdamage.provenance.containers import clean
from realdamage.provenance.precedence import Declared

FIELDS = (
    *("Label", "ContentProducer", "ProduceID", "ReservedCode1"),
    *("ContentPropagator", "PropagateID", "ReservedCode2"),
)
# The variant of a cloud service, in EXIF's ImageDescription.
SERVICE_FIELDS = ("ServiceProvider", "ServiceUser")
_VALUES: dict[str, Declared] = {
    "1": "ai_generated",
    "2": "ai_possible",
    "3": "ai_suspected",
    "0": "none",
}
_MEANINGS: dict[Declared, str] = {
    "ai_generated": "label_generated",
    "ai_possible": "label_possible",
    "ai_suspected": "label_suspected",
}
# Labels of ByteDance's apps: other fields, other values. 0 says nothing.
_PLATFORM_KEYS = ("aigc_label_type", "aigc_type")
_MAX_TEXT = 1 << 20
_MAX_TRIES = 8
_MAX_UNWRAPPED = 4


def find_label(text: str) -> dict[str, str] | None:
    """The fields of a label in `text`, or None without one of them.

    Read as JSON, with or without an outer "AIGC", escaped for XML up to twice, as a string inside JSON, or as the bare
    word AIGC followed by its JSON.
    """
    for values in _objects(text):
        known = (*FIELDS, *SERVICE_FIELDS)
        fields = {key: clean(_plain(values[key])) for key in known if key in values}
        if fields:
            return fields
    return None


def find_platform_label(text: str) -> dict[str, str] | None:
    """A ByteDance app's own label (`aigc_label_type`, `aigc_type`) with its value; it is no label of the standard."""
    if not any(key in text for key in _PLATFORM_KEYS):
        return None
    for values in _objects(text):
        fields = {key: clean(_plain(values[key])) for key in _PLATFORM_KEYS if key in values}
        if fields:
            return fields
    return None


def judge_label(fields: dict[str, str]) -> tuple[Declared, list[Phrase], bool]:
    """What a label declares, the sentence for people, and whether its value is one of the standard's."""
    value = fields.get("Label", "").strip()
    code = "1" if value.upper() == "AIGC" else value.removesuffix(".0")
    declared: Declared = _VALUES.get(code, "ai_possible")
    clear = code in ("1", "2", "3")
    maker = next(
        (fields[key] for key in ("ContentProducer", "ServiceProvider") if fields.get(key)), ""
    )
    if clear:
        said = phrase(_MEANINGS[declared], value=value)
    else:
        said = phrase("label_unknown", value=value) if value else phrase("label_empty")
    producer = [phrase("label_producer", producer=maker)] if maker else []
    return declared, [phrase("label"), said, *producer, phrase("full_stop")], clear


def judge_platform_label(fields: dict[str, str]) -> tuple[Declared, Phrase]:
    """What a platform's own label declares: at most "possible", for its values are nowhere laid down."""
    told = ", ".join(f"{key}={value}" for key, value in fields.items())
    declared: Declared = (
        "ai_possible"
        if any(value not in ("0", "", "None") for value in fields.values())
        else "none"
    )
    return declared, phrase("platform_label", told=told)


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object at the start of `text`, whatever follows it; None without one, or when it is too deep or long."""
    start = text[:_MAX_TEXT].lstrip("\ufeff \t\r\n")
    if not start.startswith("{"):
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(start)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Every object that may be a label: those in `text` and, a few layers down, those inside them."""
    layers = [text[:_MAX_TEXT]]
    for _ in range(2):
        if "&" not in layers[-1]:
            break
        layers.append(html.unescape(layers[-1]))
    if '\\"' in layers[-1]:
        layers.append(layers[-1].replace('\\"', '"'))
    for layer in layers:
        for found in _first_objects(layer):
            yield from _unwrapped(found)


def _first_objects(text: str) -> Iterator[dict[str, Any]]:
    stripped = text.lstrip("\ufeff \t\r\n=\"'>:")
    if (found := parse_object(stripped)) is not None:
        yield found
    position = -1
    for _ in range(_MAX_TRIES):
        position = text.find("AIGC", position + 1)
        if position < 0:
            return
        brace = text.find("{", position, position + 24)
        if brace >= 0 and (found := parse_object(text[brace:])) is not None:
            yield found


def _unwrapped(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield values
    inner: Any = values
    for _ in range(_MAX_UNWRAPPED):
        inner = next(
            (
                inner[key]
                for key in ("AIGC", "aigc", "aigc_info", "AigcInfo", "aigcInfo", "data")
                if key in inner
            ),
            None,
        )
        if isinstance(inner, str):
            inner = parse_object(inner) or (
                parse_object(html.unescape(inner)) if "&" in inner else None
            )
        if not isinstance(inner, dict):
            return
        yield inner


def _plain(value: Any) -> str:
    """A JSON value as text; what is inside objects and lists is not repeated."""
    return (
        str(value)
        if isinstance(value, str | int | float)
        else ""
        if value is None
        else f"({type(value).__name__})"
    )
