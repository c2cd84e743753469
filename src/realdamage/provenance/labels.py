"""Declarations of AI in free text: the label of China's GB 45438-2025, and the recipes that
generators leave (parameters of Stable Diffusion, graphs of ComfyUI)."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

from realdamage.phrases import Phrase, phrase
from realdamage.provenance.containers import clean
from realdamage.provenance.precedence import Declared, Finding

FIELDS = (
    *("Label", "ContentProducer", "ProduceID", "ReservedCode1"),
    *("ContentPropagator", "PropagateID", "ReservedCode2"),
)
SERVICE_FIELDS = ("ServiceProvider", "ServiceUser")
"""The variant of a cloud service, in EXIF's ImageDescription."""
_VALUES: dict[str, tuple[Declared, str]] = {
    "1": ("ai_generated", "label_generated"),
    "2": ("ai_possible", "label_possible"),
    "3": ("ai_suspected", "label_suspected"),
}
_WRAPPERS = ("AIGC", "aigc", "aigc_info", "AigcInfo", "aigcInfo", "data")
_MAX_TEXT = 1 << 20
_MAX_TRIES = 8
_MAX_UNWRAPPED = 4

# The web UI's last line: "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, …".
_STEPS, _SAMPLER = re.compile(r"\bSteps: ?\d{1,5}\b"), re.compile(r"\bSampler: ?[\w +-]{1,60}")
_PARAMETERS = re.compile(
    r"\b(Steps|Sampler|CFG scale|Seed|Size|Model|Model hash|Denoising strength): ?([^,\n]{1,100})"
)
_EDITS = re.compile(r"\b(Denoising strength|Mask blur|Inpaint area): ?")
_GRAPH = re.compile(r"\s*(prompt|workflow)\s*:\s*", re.IGNORECASE)
_MAX_GRAPH = 2 << 20
# PNG keywords of other programs, whose values are JSON with the model and the seed.
_OTHER_KEYWORDS = {
    "invokeai_metadata": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "fooocus_scheme": "Fooocus",
}


def find_label(text: str) -> dict[str, str] | None:
    """The fields of a label in `text`, or None: as JSON, with or without an outer "AIGC", escaped
    for XML up to twice, as a string inside JSON, or as the bare word AIGC followed by its JSON."""
    names = (*FIELDS, *SERVICE_FIELDS)
    for values in _objects(text):
        if fields := {name: clean(_plain(values[name])) for name in names if name in values}:
            return fields
    return None


def judge_label(fields: dict[str, str]) -> tuple[Declared, list[Phrase], bool]:
    """What a label declares, its sentence, and whether its value is one of the standard's."""
    value = fields.get("Label", "").strip()
    code = "1" if value.upper() == "AIGC" else value.removesuffix(".0")
    clear = code in _VALUES
    if clear:
        declared, meaning = _VALUES[code]
        said = phrase(meaning, value=value)
    else:
        declared = "none" if code == "0" else "ai_possible"
        said = phrase("label_unknown", value=value) if value else phrase("label_empty")
    maker = fields.get("ContentProducer") or fields.get("ServiceProvider")
    producer = [phrase("label_producer", producer=maker)] if maker else []
    return declared, [phrase("label"), said, *producer, phrase("full_stop")], clear


def find_recipe(text: str, where: str, keyword: str = "") -> Finding | None:
    """A generator's parameters in `text`, or None. keyword: of the PNG text, or "" elsewhere.

    It must look like them: steps and a sampler, or a graph whose nodes have a type.
    """
    if keyword in _OTHER_KEYWORDS and _parse_object(text) is not None:
        fields = {"program": _OTHER_KEYWORDS[keyword]}
        said = [phrase("recipe_program", **fields)]
        return Finding.of("png_parameters", "ai_generated", where, fields, said)
    end = text[-20_000:]
    if _STEPS.search(end) and _SAMPLER.search(end):
        fields = {name: clean(value) for name, value in _PARAMETERS.findall(end)}
        edits = _EDITS.search(end) is not None
        said = [phrase("recipe_edit_run" if edits else "recipe_run")]
        declares: Declared = "ai_edited" if edits else "ai_generated"
        return Finding.of("png_parameters", declares, where, fields, said)
    prefix = _GRAPH.match(text)
    if prefix or keyword.lower() == "workflow" or "class_type" in text[:_MAX_GRAPH]:
        return _comfyui(text[prefix.end() :] if prefix else text, where)
    return None


def _comfyui(text: str, where: str) -> Finding | None:
    if len(text) > _MAX_GRAPH:
        return None
    try:
        graph = json.loads(text.strip("\x00 \r\n\t"))
    except (ValueError, RecursionError):
        return None
    kinds = _node_types(graph)
    if not kinds:
        return None
    fields = {"nodes": str(len(kinds)), "types": clean(", ".join(sorted(set(kinds))))}
    declares: Declared = "ai_generated"
    said = phrase("comfyui_generates")
    if not any("sampler" in kind.lower() for kind in kinds):
        declares, said = "ai_possible", phrase("comfyui_unknown")
    elif any(kind.lower().startswith("loadimage") for kind in kinds):
        declares, said = "ai_edited", phrase("comfyui_edits")
    return Finding.of("comfyui", declares, where, fields, [said])


def _node_types(graph: Any) -> list[str]:
    """The types of a graph's nodes, to run ({id: {class_type}}) or to draw ({nodes: [{type}]})."""
    if not isinstance(graph, dict):
        return []
    if isinstance(graph.get("nodes"), list):
        nodes, key = graph["nodes"], "type"
    else:
        nodes, key = list(graph.values()), "class_type"
    found = [node.get(key) for node in nodes if isinstance(node, dict)]
    return [kind for kind in found if isinstance(kind, str)]


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Every object that may be a label: those in `text` and, a few layers down, inside them."""
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
    if (found := _parse_object(text.lstrip("\ufeff \t\r\n=\"'>:"))) is not None:
        yield found
    position = -1
    for _ in range(_MAX_TRIES):
        position = text.find("AIGC", position + 1)
        if position < 0:
            return
        brace = text.find("{", position, position + 24)
        if brace >= 0 and (found := _parse_object(text[brace:])) is not None:
            yield found


def _unwrapped(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield values
    inner: Any = values
    for _ in range(_MAX_UNWRAPPED):
        inner = next((inner[key] for key in _WRAPPERS if key in inner), None)
        if isinstance(inner, str):
            inner = _parse_object(inner) or _parse_object(html.unescape(inner))
        if not isinstance(inner, dict):
            return
        yield inner


def _parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object at the start of `text`; None without one, or when it is too deep or long."""
    start = text[:_MAX_TEXT].lstrip("\ufeff \t\r\n")
    if not start.startswith("{"):
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(start)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _plain(value: Any) -> str:
    """A JSON value as text; objects and lists by their type only."""
    if value is None:
        return ""
    return str(value) if isinstance(value, str | int | float) else f"({type(value).__name__})"
