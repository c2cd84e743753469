"""Reads the recipe that a generator leaves in its picture: parameters of Stable Diffusion, or a graph of ComfyUI."""

from __future__ import annotations

import json
import re
from typing import Any

from realdamage.phrases import Phrase, phrase
from realdamage.provenance.containers import clean
from realdamage.provenance.labels import parse_object
from realdamage.provenance.precedence import Declared

# The web UI's last line: "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: …".
_STEPS, _SAMPLER = re.compile(r"\bSteps: ?\d{1,5}\b"), re.compile(r"\bSampler: ?[\w +-]{1,60}")
_PARAMETERS = re.compile(
    r"\b(Steps|Sampler|CFG scale|Seed|Size|Model|Model hash|Denoising strength): ?([^,\n]{1,100})"
)
_EDITS = re.compile(r"\b(Denoising strength|Mask blur|Inpaint area): ?")
_GRAPH = re.compile(r"\s*(prompt|workflow)\s*:\s*", re.IGNORECASE)
_MAX_GRAPH = 2 << 20
# Other programs' keywords in PNG; their values are JSON with the model and the seed.
_OTHER_KEYWORDS = {
    "invokeai_metadata": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "fooocus_scheme": "Fooocus",
}

Recipe = tuple[str, Declared, dict[str, str], Phrase]


def find_recipe(text: str, keyword: str = "") -> Recipe | None:
    """The form, what it declares, fields and sentence of a recipe in `text`, or None.

    keyword: of the PNG text, or "" elsewhere. It must look like one: `parameters` with steps and a sampler, a graph
    whose nodes have a type.
    """
    if keyword in _OTHER_KEYWORDS and parse_object(text) is not None:
        maker = _OTHER_KEYWORDS[keyword]
        return (
            "png_parameters",
            "ai_generated",
            {"program": maker},
            phrase("recipe_program", program=maker),
        )
    if _STEPS.search(text[-20_000:]) and _SAMPLER.search(text[-20_000:]):
        return _parameters(text[-20_000:])
    prefix = _GRAPH.match(text)
    graph = text[prefix.end() :] if prefix else text
    if prefix or keyword.lower() == "workflow" or "class_type" in text[:_MAX_GRAPH]:
        return _comfyui(graph)
    return None


def _parameters(text: str) -> Recipe:
    fields = {name: clean(value) for name, value in _PARAMETERS.findall(text)}
    declares: Declared = "ai_edited" if _EDITS.search(text) else "ai_generated"
    return (
        "png_parameters",
        declares,
        fields,
        phrase("recipe_edit_run" if declares == "ai_edited" else "recipe_run"),
    )


def _comfyui(text: str) -> Recipe | None:
    if len(text) > _MAX_GRAPH:
        return None
    try:
        graph = json.loads(text.strip("\x00 \r\n\t"))
    except (ValueError, RecursionError):
        return None
    kinds = _node_types(graph)
    if not kinds:
        return None
    samples = any("sampler" in kind.lower() for kind in kinds)
    loads = any(kind.lower().startswith("loadimage") for kind in kinds)
    declares: Declared = "ai_possible" if not samples else "ai_edited" if loads else "ai_generated"
    what = {"ai_generated": "comfyui_generates", "ai_edited": "comfyui_edits"}.get(
        declares, "comfyui_unknown"
    )
    fields = {"nodes": str(len(kinds)), "types": clean(", ".join(sorted(set(kinds))))}
    return "comfyui", declares, fields, phrase(what)


def _node_types(graph: Any) -> list[str]:
    """The types of a graph's nodes: of the form to run ({id: {class_type}}) or the form to draw ({nodes: [{type}]})."""
    if not isinstance(graph, dict):
        return []
    nodes, key = (
        (graph["nodes"], "type")
        if isinstance(graph.get("nodes"), list)
        else (list(graph.values()), "class_type")
    )
    found = [node.get(key) for node in nodes if isinstance(node, dict)]
    return [kind for kind in found if isinstance(kind, str)]
