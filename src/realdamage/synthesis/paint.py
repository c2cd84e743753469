"""Forged damage without any network: draws damage on a finished photo, as an image editor would.

On its own it makes the `pasted` control; followed by a generator's codec it makes AI damage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realdamage.inference.errors import SynthesisError
from realdamage.synthesis.damage import DAMAGES, check_damage, draw_damage
from realdamage.synthesis.engine import Edit
from realdamage.synthesis.fields import Array, blur, to_bytes, to_linear

_COARSE = 40  # cells along the long side on which the object is looked for


def object_likelihood(rgb: NDArray[np.uint8]) -> Array:
    """Where a product probably is, float32 [h, w] in 0..1: pixels unlike the photo's rim, rather in the middle.

    rgb: uint8 [h, w, 3].
    """
    h, w = rgb.shape[:2]
    scale = _COARSE / max(h, w)
    size = (max(2, round(w * scale)), max(2, round(h * scale)))
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX), np.float32)
    rim = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    unlike = np.sqrt(((small - np.median(rim, 0)) ** 2).sum(-1))
    unlike = blur(unlike.astype(np.float32), 1.2)
    unlike /= max(float(unlike.max()), 1.0)
    y = np.linspace(-1, 1, size[1], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, size[0], dtype=np.float32)[None, :]
    likely = (0.05 + unlike) ** 2 * np.exp(-2.0 * (x * x + y * y))
    stretched = Image.fromarray(likely.astype(np.float32)).resize((w, h), Image.Resampling.BILINEAR)
    return np.clip(np.asarray(stretched, np.float32), 0, 1)


@dataclass(frozen=True)
class Paint:
    """Paints one damage on a photo; the type is drawn evenly from `damages`.

    Raises SynthesisError when `damages` is empty or names an unknown type.
    """

    damages: Sequence[str] = DAMAGES
    generator: str = "paint"
    family: str = ""

    def __post_init__(self) -> None:
        if not self.damages:
            raise SynthesisError(
                f"Paint needs at least one damage type: damages is empty. Known types: {', '.join(DAMAGES)}."
            )
        for damage in self.damages:
            check_damage(damage)

    def apply(
        self,
        rgb: NDArray[np.uint8],
        rng: np.random.Generator,
        damage: str | None = None,
        region: NDArray[np.bool_] | None = None,
    ) -> Edit:
        """Damages rgb: uint8 [h, w, 3]; the mask holds every pixel it may have changed, all others keep their bytes.

        damage: a type, or None for one of `damages` at random. region: bool [h, w] to stay within; when None, a place
        that looks like the product. Raises SynthesisError for an unknown type.
        """
        damage = str(rng.choice(list(self.damages))) if damage is None else damage
        likely = object_likelihood(rgb) if region is None else None
        painted, alpha = draw_damage(to_linear(rgb), damage, rng, region=region, likely=likely)
        mask = alpha > 0
        return Edit(rgb=np.where(mask[..., None], to_bytes(painted), rgb), mask=mask, damage=damage)
