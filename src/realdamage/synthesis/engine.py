"""What every engine of the synthesis room promises, so that the recipe runner can chain them without knowing any.

An engine takes a finished photo and gives back the edited photo together with the pixels it touched. All randomness
comes from the generator that the caller passes in, so that a recipe's seed fixes every photo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Edit:
    """A photo after an engine.

    rgb: uint8 [h, w, 3], the same size as the photo that went in.
    mask: bool [h, w], the pixels that the engine painted or regenerated (blend above 0.5 where it blends).
    damage: one of the manifest's damage types, or "" when the engine drew no damage.
    details: how it was made (model, prompt, seed, …), by the names of the manifest columns that they go to.
    """

    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    damage: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """Edits a photo; `generator` and `family` are what the manifest's columns of that name will say."""

    @property
    def generator(self) -> str: ...

    @property
    def family(self) -> str: ...

    def apply(self, rgb: NDArray[np.uint8], rng: np.random.Generator) -> Edit:
        """Edits rgb: uint8 [h, w, 3]; the same photo and generator state give the same edit."""
        ...
