"""The `edit` engine: has an editing model change the whole photo on an instruction, as a buyer would in a chat window.

Such a model re-synthesises every pixel, also those that look the same as before.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from realdamage.synthesis.diffusion import GRID, DiffusionSettings
from realdamage.synthesis.engine import Edit
from realdamage.synthesis.pipeline import RGB, Pipeline
from realdamage.synthesis.prompts import PromptCatalogue


class Instruct:
    """Edits whole photos through a pipeline that takes a photo and an instruction: InstructPix2Pix, FLUX Kontext,
    Qwen-Image-Edit, … An image-to-image pipeline (its call takes a `strength`) is given a description instead.

    The pipeline is asked for the photo's own size, padded to a multiple of 16, so that its pixels reach the detector as
    its decoder wrote them. One that insists on a size of its own (LongCat: about one megapixel) shows the whole photo
    at another scale, so cropping cannot bring it back: it is resized, as a tool would before it hands the photo out.
    The detail `resized` says so ("1024x768 to 1600x1200"). A resize leaves a trace of its own, which the real photos of
    such a set must have too, or the detector learns the resize. `side` and `blend` of the settings play no part:
    recipe.source.max_side bounds what an editor has to hold in memory.

    `generator`, `family`: names for the manifest. Raises SynthesisError when the pipeline can't be loaded or edits
    nothing, ConfigError for languages that the catalogue lacks, MissingExtraError without the extra "synth".
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
        self._pipeline = Pipeline(settings, generator, masked=False)

    def edit(self, rgb: RGB, damage: str, rng: np.random.Generator) -> Edit:
        """Puts `damage` (one of DAMAGES, or "" for none) on rgb: uint8 [h, w, 3]; the mask is all True.
        Raises SynthesisError: out of memory, or a picture that is none."""
        asked = self.prompts.draw if self._pipeline.takes("strength") else self.prompts.instruction
        prompt = asked(damage, rng, self.settings.languages, self.settings.materials)
        seed = int(rng.integers(2**31))
        height, width = rgb.shape[:2]
        padded = np.pad(rgb, ((0, -height % GRID), (0, -width % GRID), (0, 0)), mode="symmetric")
        picture = self._pipeline(padded, prompt, seed)
        details = self._pipeline.details(prompt, seed)
        if picture.shape != padded.shape:
            (tall, wide), (high, broad) = picture.shape[:2], padded.shape[:2]
            details["resized"] = f"{wide}x{tall} to {broad}x{high}"
            picture = np.asarray(
                Image.fromarray(picture).resize((broad, high), Image.Resampling.LANCZOS)
            )
        out = np.ascontiguousarray(picture[:height, :width])
        return Edit(out, np.ones((height, width), np.bool_), damage, details)
