"""The `inpaint` engine: has a diffusion model paint damage into a region of a photo, from a prompt.

The photo is never resized, since that would destroy the camera's traces around the region: the model sees a window of
the photo at native resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from realdamage.errors import SynthesisError
from realdamage.synthesis.diffusion import GRID, DiffusionSettings
from realdamage.synthesis.engine import Edit
from realdamage.synthesis.pipeline import RGB, Mask, Pipeline
from realdamage.synthesis.prompts import PromptCatalogue

Soft = npt.NDArray[np.float32]

CONTEXT = 32
"""Pixels around the region that the window holds at least, where the photo has them."""
GROWTH = 64
"""Windows for larger regions have sides that are multiples of it; some networks halve their latents three times."""
_FAINT = 1 / 255  # a blend below it changes no pixel by a whole grey level
_INSTRUCTED = ("Edit", "Kontext")  # inpainting classes that read instructions, not descriptions


class Inpaint:
    """Regenerates a region through an inpainting pipeline: any that `AutoPipelineForInpainting` covers, FLUX-Fill, or
    the class that the settings name.

    `generator`, `family`: names for the manifest. Raises SynthesisError when the pipeline can't be loaded or doesn't
    inpaint, ConfigError for languages that the catalogue lacks, MissingExtraError without the extra "synth".
    """

    def __init__(
        self, settings: DiffusionSettings, generator: str, family: str, prompts: PromptCatalogue
    ) -> None:
        prompts.check(settings.languages, settings.materials)
        self.settings, self.generator, self.family, self.prompts = (
            settings,
            generator,
            family,
            prompts,
        )
        self._pipeline = Pipeline(settings, generator, masked=True)

    def regenerate(self, rgb: RGB, region: Mask, damage: str, rng: np.random.Generator) -> Edit:
        """Paints `damage` (one of DAMAGES, or "" for none) into `region` bool [h, w] of rgb: uint8 [h, w, 3].

        With settings.blend the region, grown and feathered by a few pixels, is pasted back and the mask is where the
        blend is above one half; every other pixel keeps its bytes. Without it the whole window is pasted, and is the
        mask: a latent pipeline decodes all of it anew, the region and its surroundings.
        Raises SynthesisError: an empty region, out of memory, a picture that is none.
        """
        if not region.any():
            raise SynthesisError("nothing to regenerate: the region is empty")
        instructed = any(word in self._pipeline.name for word in _INSTRUCTED)
        asked = self.prompts.instruction if instructed else self.prompts.draw
        prompt = asked(damage, rng, self.settings.languages, self.settings.materials)
        seed = int(rng.integers(2**31))
        soft = feather(region, rng)
        rows, columns = (_span(soft.max(axis=axis), self.settings.side, rng) for axis in (1, 0))
        inside = (rows.inside, columns.inside)
        padding = (rows.padding, columns.padding)
        window = np.pad(rgb[inside], (*padding, (0, 0)), mode="symmetric")
        wanted = _whole_cells(np.pad(soft[inside] > 0, padding))
        picture = self._pipeline(window, prompt, seed, wanted)
        if picture.shape != window.shape:
            raise SynthesisError(
                f"{self._pipeline.name} answers a window of {window.shape[1]}x{window.shape[0]} pixels with "
                f"{picture.shape[1]}x{picture.shape[0]}: set {self._pipeline.key}.side to a size that it keeps "
                f"(a multiple of {GROWTH})."
            )
        (top, _), (left, _) = padding
        height, width = rgb[inside].shape[:2]
        painted = picture[top : top + height, left : left + width]
        blend = (
            soft[inside][..., None]
            if self.settings.blend
            else np.ones((height, width, 1), np.float32)
        )
        out, mask = rgb.copy(), np.zeros(rgb.shape[:2], np.bool_)
        out[inside] = np.clip(
            np.rint(blend * painted + (1.0 - blend) * rgb[inside]), 0, 255
        ).astype(np.uint8)
        mask[inside] = blend[..., 0] > 0.5
        return Edit(out, mask, damage, self._pipeline.details(prompt, seed))


def feather(region: Mask, rng: np.random.Generator) -> Soft:
    """The blend of an edit of `region`: float32 [h, w] in 0..1; the region is grown by 2–8 pixels and its edge made
    soft over a few."""
    grown = ndimage.binary_dilation(region, iterations=int(rng.integers(2, 9)))
    soft: Soft = ndimage.gaussian_filter(grown.astype(np.float32), float(rng.uniform(0.5, 4.0)))
    soft[soft < _FAINT] = 0.0
    return soft


@dataclass(frozen=True)
class _Span:
    """A window along one axis: `inside` the photo, and the `padding` (before, after) that it needs beyond it."""

    inside: slice
    padding: tuple[int, int]


def _span(profile: Soft, side: int, rng: np.random.Generator) -> _Span:
    """A window of `side` pixels, or larger in steps of GROWTH, at a random place around what is above 0 in `profile`
    float32 [n]: neither the region's place in the window nor the latent grid's on the photo must tell anything."""
    length = len(profile)
    touched = np.flatnonzero(profile > 0)
    first, last = max(0, int(touched[0]) - CONTEXT), min(length, int(touched[-1]) + 1 + CONTEXT)
    size = side if last - first <= side else -(-(last - first) // GROWTH) * GROWTH
    if size >= length:
        before = int(rng.integers(0, size - length + 1))
        return _Span(slice(0, length), (before, size - length - before))
    start = int(rng.integers(max(0, last - size), min(first, length - size) + 1))
    return _Span(slice(start, start + size), (0, 0))


def _whole_cells(mask: Mask) -> Mask:
    """The mask, grown to whole cells of GRID × GRID pixels: pipelines shrink it to their latents by picking single
    pixels, and a thin line would fall between them. bool [h, w], sides multiples of GRID."""
    height, width = mask.shape
    cells = mask.reshape(height // GRID, GRID, width // GRID, GRID).any(axis=(1, 3))
    return cells.repeat(GRID, axis=0).repeat(GRID, axis=1)
