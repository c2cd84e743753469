"""Which photos of a set are scored, and which of them share their random numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from realdamage.data.manifest import Manifest
from realdamage.errors import ConfigError


def draw_photos(manifest: Manifest, limit: int, seed: int = 0) -> Manifest:
    """At most `limit` photos, in the manifest's order: whole groups, drawn at random, and a part of the last one.

    Both halves of a pair lie in one group, so nearly all pairs stay whole. Raises ConfigError: `limit` below 2, or the
    draw holds one class only though the set has both.
    """
    if limit < 2:
        raise ConfigError(
            f"data.limit={limit}: at least 2, as a real and a synthetic photo are needed"
        )
    table = manifest.table
    if len(manifest) <= limit:
        return manifest
    names, group = np.unique(table["group"].to_numpy(dtype=str), return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(names))[group]
    chosen = np.zeros(len(table), dtype=bool)
    chosen[np.argsort(place, kind="stable")[:limit]] = True
    drawn = manifest.subset(chosen)
    missing = set(table["label"]) - set(drawn.table["label"])
    if missing:
        raise ConfigError(
            f"data.limit={limit}: no {missing.pop()} photo was drawn of {len(manifest)}; raise it"
        )
    return drawn


def draw_keys(table: pd.DataFrame) -> list[str]:
    """What the random numbers of each photo of a manifest's table hang on: the original that it was made from, over
    any number of steps, or its own name."""
    made_from = {
        name: pair for name, pair in zip(table["file_name"], table["pair"], strict=True) if pair
    }

    def original(name: str) -> str:
        seen = {name}
        while (before := made_from.get(name)) and before not in seen:
            seen.add(before)
            name = before
        return name

    return [original(name) for name in table["file_name"]]
