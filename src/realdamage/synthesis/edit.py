"""The `edit` engine: an editing model changes the whole photo on an instruction, as a buyer would
in a chat window.

Such a model synthesises every pixel again, also those that look the same as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from realdamage.synthesis.diffusion import GRID, Pipeline
from realdamage.synthesis.engine import RGB, Edit, GeneratorSettings


class Editor:
    """Edits whole photos through a pipeline that takes a photo and an instruction (InstructPix2Pix,
    FLUX Kontext, Qwen-Image-Edit, …). An image-to-image pipeline (its call takes a `strength`) is
    given a description instead.

    The pipeline is asked for the photo's own size, padded to a multiple of 16, so that its pixels
    reach the detector as its decoder wrote them. The answer of one that insists on another size is
    resized, as a tool would do; the detail `resized` says so ("1024x768 to 1600x1200"). The real
    photos of such a set must be resized too, or the detector learns the resize. Errors: see
    `Pipeline`.
    """

    kinds: ClassVar = ("ai_whole",)
    uses_prompts: ClassVar = True
    fills_machine: ClassVar = True

    def __init__(self, name: str, settings: GeneratorSettings, prompts: Mapping[str, Any]) -> None:
        self.pipeline = Pipeline(name, settings, prompts, masked=False)

    def apply(self, rgb: RGB, kind: str, damage: str, rng: np.random.Generator) -> Edit:
        """Edits rgb: uint8 [h, w, 3]; see `Engine`. The mask is all True."""
        form = "descriptions" if self.pipeline.takes("strength") else "instructions"
        prompt, seed = self.pipeline.ask(damage, form, rng)
        height, width = rgb.shape[:2]
        padded = np.pad(rgb, ((0, -height % GRID), (0, -width % GRID), (0, 0)), mode="symmetric")
        picture = self.pipeline(padded, prompt, seed)
        details = self.pipeline.details(prompt, seed)
        if picture.shape != padded.shape:
            (tall, wide), (high, broad) = picture.shape[:2], padded.shape[:2]
            details["resized"] = f"{wide}x{tall} to {broad}x{high}"
            larger = Image.fromarray(picture).resize((broad, high), Image.Resampling.LANCZOS)
            picture = np.asarray(larger)
        out = np.ascontiguousarray(picture[:height, :width])
        return Edit(out, np.ones((height, width), np.bool_), damage, details)
