"""The `codec` engine: paints damage, then passes the place, or the whole photo, through a
generator's latent codec.

Whatever a latent diffusion model paints, its decoder writes the pixels. Decoding the photo's own
latents leaves the same trace without the cost of generating.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from realdamage.errors import SynthesisError
from realdamage.synthesis.engine import RGB, Edit, GeneratorSettings, Mask, random_region
from realdamage.synthesis.paint import Paint

CONTEXT = 16
"""Pixels around a region that the codec sees too, so that the region has no empty border."""
STRIDE = 16
"""Crops are padded to a multiple of it: codecs halve a side up to four times."""


class Codec:
    """Regenerates pixels through the codec `settings.weights`; see `autoencoders.load_autoencoder`
    for what that can be and for the errors."""

    kinds: ClassVar = ("ai_region", "ai_whole")
    uses_prompts: ClassVar = False
    fills_machine: ClassVar = False

    def __init__(self, name: str, settings: GeneratorSettings, prompts: Mapping[str, Any]) -> None:
        from realdamage.synthesis.autoencoders import load_autoencoder

        del prompts
        if settings.options:
            found = ", ".join(settings.options)
            raise SynthesisError(
                f"recipe.generators.{name}.options: a codec takes none; found {found}"
            )
        self._autoencode = load_autoencoder(str(settings.weights))
        self._paint = Paint()

    def apply(self, rgb: RGB, kind: str, damage: str, rng: np.random.Generator) -> Edit:
        """Edits rgb: uint8 [h, w, 3]; see `Engine`. The region is the painted place, or a random
        blob without damage."""
        painted = self._paint.apply(rgb, rng, damage) if damage else None
        photo = painted.rgb if painted else rgb
        if kind == "ai_whole":
            return Edit(self.reconstruct(photo), np.ones(rgb.shape[:2], np.bool_), damage)
        # What the codec regenerates holds all of the paint but its faint rim.
        region = painted.mask if painted else random_region(rgb.shape[:2], rng)
        edited, mask = self.regenerate(photo, region, rng)
        return Edit(edited, mask, damage)

    def regenerate(self, rgb: RGB, region: Mask, rng: np.random.Generator) -> tuple[RGB, Mask]:
        """(The photo with `region` bool [h, w] regenerated, where the blend is above one half). The
        region is grown and feathered by a few pixels. Raises SynthesisError for an empty region."""
        soft = feather(region, rng)
        rows, cols = (np.flatnonzero(soft.max(axis=axis) > 1e-3) for axis in (1, 0))
        # A random margin, so that the codec's grid does not always start at the edge of the damage.
        margin = CONTEXT + rng.integers(0, STRIDE, 4)
        top, bottom = max(0, rows[0] - margin[0]), min(rgb.shape[0], rows[-1] + 1 + margin[1])
        left, right = max(0, cols[0] - margin[2]), min(rgb.shape[1], cols[-1] + 1 + margin[3])
        inside = slice(top, bottom), slice(left, right)
        out = rgb.copy()
        out[inside] = blended(soft[inside], self.reconstruct(rgb[inside]), rgb[inside])
        return out, soft > 0.5

    def reconstruct(self, rgb: RGB) -> RGB:
        """uint8 [h, w, 3] to the same size, every pixel painted again by the codec."""
        height, width = rgb.shape[:2]
        pad = [(0, -height % STRIDE), (0, -width % STRIDE), (0, 0)]
        x = np.pad(rgb, pad, mode="symmetric").astype(np.float32) / 127.5 - 1.0
        y = self._autoencode(x)
        grey: npt.NDArray[np.floating] = np.rint((y[:height, :width] + 1.0) * 127.5)
        return grey.astype(np.uint8)


def feather(region: Mask, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The blend of an edit of `region`, float32 [h, w] in 0..1: grown by 2–8 pixels, its edge made
    soft over a few.
    Raises SynthesisError for an empty region."""
    if not region.any():
        raise SynthesisError("nothing to regenerate: the region is empty")
    grown = ndimage.binary_dilation(region, iterations=int(rng.integers(2, 9)))
    soft: npt.NDArray[np.float32] = ndimage.gaussian_filter(
        grown.astype(np.float32), float(rng.uniform(0.5, 4.0))
    )
    return soft


def blended(blend: npt.NDArray[np.float32], edited: RGB, photo: RGB) -> RGB:
    """uint8 [h, w, 3]: `edited` where `blend` [h, w] is 1, `photo` where it is 0."""
    mixed = blend[..., None] * edited + (1.0 - blend[..., None]) * photo
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
