"""The `inpaint` engine: a diffusion model paints damage into a region of a photo, from a prompt.

The photo is never resized, since that would destroy the camera's traces around the region: the
model sees a window of the photo at native resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from realdamage.errors import SynthesisError
from realdamage.synthesis.codec import blended, feather
from realdamage.synthesis.diffusion import GRID, Pipeline
from realdamage.synthesis.engine import RGB, Edit, GeneratorSettings, Mask, random_region

CONTEXT = 32
"""Pixels around the region that the window holds at least, where the photo has them."""
GROWTH = 64
"""Windows for larger regions have sides that are multiples of it; some networks halve their latents
three times."""
_FAINT = 1 / 255  # a blend below it changes no pixel by a whole grey level
_INSTRUCTED = ("Edit", "Kontext")  # inpainting classes that read instructions, not descriptions


class Inpaint:
    """Regenerates a random region through an inpainting pipeline: any that
    `AutoPipelineForInpainting` covers, FLUX-Fill, or the class that the options name. Errors: see
    `Pipeline`."""

    kinds: ClassVar = ("ai_region",)
    uses_prompts: ClassVar = True
    fills_machine: ClassVar = True

    def __init__(self, name: str, settings: GeneratorSettings, prompts: Mapping[str, Any]) -> None:
        self.pipeline = Pipeline(name, settings, prompts, masked=True)

    def apply(self, rgb: RGB, kind: str, damage: str, rng: np.random.Generator) -> Edit:
        """Edits rgb: uint8 [h, w, 3]; see `Engine`. The region is a random blob: masks shaped like
        objects would teach objects."""
        return self.regenerate(rgb, random_region(rgb.shape[:2], rng), damage, rng)

    def regenerate(self, rgb: RGB, region: Mask, damage: str, rng: np.random.Generator) -> Edit:
        """Paints `damage` ("" for none) into `region` bool [h, w] of rgb: uint8 [h, w, 3].

        The region, grown and feathered by a few pixels, is pasted back; the mask is where the blend
        is above one half. Every other pixel keeps its bytes. Raises SynthesisError: an empty
        region, out of memory, an unusable picture.
        """
        pipeline = self.pipeline
        instructed = any(word in pipeline.name for word in _INSTRUCTED)
        form = "instructions" if instructed else "descriptions"
        prompt, seed = pipeline.ask(damage, form, rng)
        soft = feather(region, rng)
        soft[soft < _FAINT] = 0.0
        rows, columns = (_span(soft.max(axis=axis), pipeline.settings.side, rng) for axis in (1, 0))
        inside, padding = (rows.inside, columns.inside), (rows.padding, columns.padding)
        window = np.pad(rgb[inside], (*padding, (0, 0)), mode="symmetric")
        picture = pipeline(window, prompt, seed, _whole_cells(np.pad(soft[inside] > 0, padding)))
        if picture.shape != window.shape:
            (tall, wide), (height, width) = window.shape[:2], picture.shape[:2]
            raise SynthesisError(
                f"{pipeline.name} answers a window of {wide}x{tall} pixels with {width}x{height}: "
                f"set {pipeline.key}.side to a size that it keeps (a multiple of {GROWTH})."
            )
        (top, _), (left, _) = padding
        height, width = rgb[inside].shape[:2]
        out, mask = rgb.copy(), np.zeros(rgb.shape[:2], np.bool_)
        painted = picture[top : top + height, left : left + width]
        out[inside] = blended(soft[inside], painted, rgb[inside])
        mask[inside] = soft[inside] > 0.5
        return Edit(out, mask, damage, pipeline.details(prompt, seed))


@dataclass(frozen=True)
class _Span:
    """A window along one axis: `inside` the photo, and the `padding` (before, after) that it needs
    beyond it."""

    inside: slice
    padding: tuple[int, int]


def _span(profile: npt.NDArray[np.float32], side: int, rng: np.random.Generator) -> _Span:
    """A window of `side` pixels, or larger in steps of GROWTH, at a random place around what is
    above 0 in `profile` [n]: neither the region's place in the window nor the latent grid's on the
    photo may reveal anything."""
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
    """The mask, grown to whole cells of GRID × GRID pixels: pipelines shrink it to their latents by
    picking single pixels, and a thin line would fall between them. bool [h, w], sides multiples of
    GRID."""
    height, width = mask.shape
    cells = mask.reshape(height // GRID, GRID, width // GRID, GRID).any(axis=(1, 3))
    return cells.repeat(GRID, axis=0).repeat(GRID, axis=1)
