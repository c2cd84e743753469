"""Whether a run may be gone on with: what its configuration was, and what it is asked to be now. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What a run may be continued with: none of it changes what is learned.
FREE = (
    "name",
    "resume",
    "overwrite",
    "threads",
    "paths",
    "logger",
    "data.workers",
    "data.cache_gib",
)
_PATHS = ("data.root", "model.weights")
# Settings that are gone, by the value that changed nothing.
_GONE = {"model.loss.consistency": 0.0}


def changed_settings(
    had: Mapping[str, Any], wanted: Mapping[str, Any], free: tuple[str, ...] = FREE
) -> list[str]:
    """The settings that differ between two resolved configurations of realdamage-train, as "KEY was A, now B".

    free: keys, or groups of them, that may differ.
    """
    from omegaconf import OmegaConf

    from realdamage import schema

    defaults = _flat(OmegaConf.to_container(OmegaConf.structured(schema.TrainConfig)))
    before, after = _flat(had), _flat(wanted)
    told = []
    for key in dict.fromkeys([*after, *before]):
        # A key that came with a later version had its default then.
        old, new = (each.get(key, defaults.get(key)) for each in (before, after))
        if key in _PATHS and old and new:
            old, new = Path(old).resolve(), Path(new).resolve()
        if key in _GONE and old == _GONE[key]:
            continue
        if old != new and not any(key == name or key.startswith(f"{name}.") for name in free):
            told.append(f"{key} was {old}, now {new}")
    return told


def _flat(values: Any, above: str = "") -> dict[str, Any]:
    """{"data.root": …}; empty mappings count as not there."""
    if not isinstance(values, Mapping):
        return {above: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{above}.{key}" if above else str(key))
    return flat
