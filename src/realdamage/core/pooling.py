"""The photo score: one formula over all tiles for the training loss, evaluation and the detector.

A soft maximum (log-mean-exp): the damage may fill one tile of two hundred, yet one noisy patch
should not decide alone. numpy and torch run the same lines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from realdamage.core.records import Record, require, require_between


@dataclass(frozen=True)
class Pooling(Record):
    """The formula's name and parameters, stored in the model file.

    tile_sharpness, patch_sharpness: above 0; near 0 the mean, for large values the maximum.
    patch_weight: in 0..1, share of the patches' evidence; the rest is the tiles' logits.

    Raises ConfigError on a number out of range or an unknown name.
    """

    name: str = "log_mean_exp"
    tile_sharpness: float = 3.0
    patch_sharpness: float = 4.0
    patch_weight: float = 0.5

    def __post_init__(self) -> None:
        require(
            self.name == "log_mean_exp",
            f"Pooling: name={self.name!r} is unknown; the only formula is 'log_mean_exp'",
        )
        require_between(self, ("tile_sharpness", "patch_sharpness"), 0, math.inf, ends=False)
        require_between(self, ("patch_weight",), 0, 1)


def log_mean_exp(x: Any, sharpness: float, xp: Any = np) -> Any:
    """log(mean(exp(sharpness * x))) / sharpness, shifted by the maximum so that it cannot overflow.

    x: float array or tensor, at least one element. xp: its library, numpy or torch.
    """
    top = xp.amax(x)
    return top + xp.log(xp.mean(xp.exp(sharpness * (x - top)))) / sharpness


def pool(logit: Any, evidence: Any, pooling: Pooling, xp: Any = np) -> Any:
    """The photo score (a logit; higher is more synthetic), a scalar of the library `xp`.

    logit: [n], one per tile. evidence: [n, h, w], one per patch of every tile.
    """
    tiles = log_mean_exp(logit, pooling.tile_sharpness, xp)
    patches = log_mean_exp(evidence, pooling.patch_sharpness, xp)
    return (1 - pooling.patch_weight) * tiles + pooling.patch_weight * patches
