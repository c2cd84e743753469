"""Forged damage without any network: draws damage on a finished photo, as an image editor would.

On its own it makes the `pasted` control; followed by a generator's codec it makes AI damage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import SynthesisError
from realdamage.synthesis.damage import check_damage, draw_damage
from realdamage.synthesis.engine import Edit
from realdamage.synthesis.fields import Array, blur, to_bytes, to_linear

_SEARCHED = 160  # long side at which the object is looked for, pixels
_PLAIN_RIM = (
    0.85  # share of the photo's rim that must have one colour for the background to count as plain
)
_UNLIKE = 32.0  # distance in sRGB levels at which a pixel no longer has the background's colour


def find_object(rgb: NDArray[np.uint8]) -> tuple[Array, NDArray[np.bool_] | None]:
    """Where the product probably is: (likelihood float32 [h, w] in 0..1, its pixels bool [h, w] or None).

    The likelihood is higher for pixels unlike the photo's rim and in the middle. Only before a plain background can
    the product's outline be told without a network; otherwise the second value is None. rgb: uint8 [h, w, 3].
    """
    h, w = rgb.shape[:2]
    scale = min(1.0, _SEARCHED / max(h, w))
    size = (max(2, round(w * scale)), max(2, round(h * scale)))
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX), np.float32)
    rim = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    background = np.median(rim, 0)
    unlike = np.sqrt(((small - background) ** 2).sum(-1))
    plain = float((np.sqrt(((rim - background) ** 2).sum(-1)) < _UNLIKE).mean()) > _PLAIN_RIM
    region = None
    if plain:
        found = ndimage.binary_fill_holes(ndimage.binary_opening(unlike > _UNLIKE, iterations=1))
        if 0.06 < found.mean() < 0.8:
            soft = blur(found.astype(np.float32), 1.0)
            region = _resized(soft, (w, h)) > 0.5
    blurred = blur(unlike, 0.03 * max(size))
    y = np.linspace(-1, 1, size[1], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, size[0], dtype=np.float32)[None, :]
    likely = (0.05 + blurred / max(float(blurred.max()), 1.0)) ** 2 * np.exp(-2.0 * (x * x + y * y))
    return np.clip(_resized(likely.astype(np.float32), (w, h)), 0, 1), region


def _resized(field: Array, size: tuple[int, int]) -> Array:
    return np.asarray(Image.fromarray(field).resize(size, Image.Resampling.BILINEAR), np.float32)


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
        likely = None
        if region is None:
            likely, region = find_object(rgb)
        painted, alpha = draw_damage(to_linear(rgb), damage, rng, region=region, likely=likely)
        mask = alpha > 0
        return Edit(rgb=np.where(mask[..., None], to_bytes(painted), rgb), mask=mask, damage=damage)
