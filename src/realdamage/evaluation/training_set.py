"""Whether photos are those that a model was trained on, where it errs less than anywhere else: no figure on them says
what it does on others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.data.manifest import Manifest
from realdamage.errors import ConfigError


def is_training_set(manifest: Manifest, training: Mapping[str, Any]) -> bool:
    """Whether the model was trained on this manifest, less the rows that `data.exclude` left out. `training`: what the
    model's file says of its training."""
    known = manifest.subset(~_left_out(manifest, training))
    return bool(known.digest() == training.get("manifest_sha256"))


def trained_on_note(
    manifest: Manifest, chosen: Manifest, training: Mapping[str, Any], split: str | None
) -> tuple[str, ...]:
    """What a report must say first of `chosen` photos of `manifest`: that the model was trained on them, when they were
    asked for by name (`split` "train"); () when it was not, or was trained on another set, which this cannot tell.

    Raises ConfigError: some are of the model's training photos, and nobody asked for those.
    """
    if not (chosen.table["split"] == "train").any() or not is_training_set(manifest, training):
        return ()
    count = int(((chosen.table["split"] == "train") & ~_left_out(chosen, training)).sum())
    if not count:
        return ()
    if split != "train":
        splits = sorted(set(manifest.table["split"]) - {"", "train"})
        raise ConfigError(
            f"data.split={'null' if split is None else split}: the model was trained on {count:,} of these "
            f"{len(chosen):,} photos (split train of {manifest.root}), where it errs less than elsewhere. Choose "
            f"{', '.join(f'data.split={name}' for name in splits) or 'other photos'}; data.split=train scores them "
            "and says so"
        )
    return (
        f"The model was trained on {count:,} of these {len(chosen):,} photos: the figures say what it has learned by "
        "heart, not what it does on others.",
    )


def _left_out(manifest: Manifest, training: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """bool [n]: train and val rows that `data.exclude` kept out of training."""
    table = manifest.table
    left_out = pd.Series(False, table.index)
    for column, values in (training.get("excluded") or {}).items():
        if column in table.columns:
            left_out |= table[column].isin(values)
    return (left_out & table["split"].isin(("train", "val"))).to_numpy(dtype=bool)
