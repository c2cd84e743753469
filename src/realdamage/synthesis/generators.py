"""The generators of a recipe behind one face: each edits a region, the whole photo, or both, with damage or without.

A codec has no idea of damage: it is painted first and then written anew by the codec. Diffusion models are asked for
the damage in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from realdamage.errors import SynthesisError
from realdamage.synthesis.engine import Edit
from realdamage.synthesis.paint import Paint

if TYPE_CHECKING:
    from realdamage.synthesis.prompts import PromptCatalogue

RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

ENGINES = ("codec", "inpaint", "edit")


@dataclass(frozen=True)
class GeneratorSettings:
    """A generator of a recipe: `name` and `family` for the manifest; `engine`: one of ENGINES; `weights`: hub id or
    folder (a codec also: a name of HOUSE_CODECS or a .safetensors of ours); `options`: fields of
    `diffusion.DiffusionSettings`, for the engines inpaint and edit."""

    name: str
    weights: str
    family: str
    engine: str = "codec"
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        where = f"recipe.generators.{self.name}"
        if self.engine not in ENGINES:
            raise SynthesisError(f"{where}.engine={self.engine}: allowed are {', '.join(ENGINES)}")
        if self.engine == "codec" and self.options:
            raise SynthesisError(
                f"{where}.options: a codec takes none; found {', '.join(self.options)}"
            )


class Generator(Protocol):
    """One generator, loaded. `regions`, `wholes`: which edits it can make."""

    name: str
    family: str
    regions: bool
    wholes: bool

    def region(self, rgb: RGB, product: Mask | None, damage: str, rng: np.random.Generator) -> Edit:
        """Regenerates a region of rgb uint8 [h, w, 3], with the damage, or without one when it is ""; `product`: bool
        [h, w], where the product is, if that is known."""
        ...

    def whole(self, rgb: RGB, product: Mask | None, damage: str, rng: np.random.Generator) -> Edit:
        """The same for the whole photo; the mask is all True."""
        ...


class CodecGenerator:
    """Paints the damage, then passes the place, or the whole photo, through the codec."""

    regions = wholes = True

    def __init__(self, settings: GeneratorSettings) -> None:
        from realdamage.synthesis.codec import Codec

        self.name, self.family = settings.name, settings.family
        self.codec, self.paint = Codec(settings.weights, settings.name, settings.family), Paint()

    def region(self, rgb: RGB, product: Mask | None, damage: str, rng: np.random.Generator) -> Edit:
        painted = self.paint.apply(rgb, rng, damage, product) if damage else None
        region = painted.mask if painted else random_region(rgb.shape[:2], rng)
        # What the codec regenerated holds all of the paint but its faint rim.
        edit = self.codec.regenerate(painted.rgb if painted else rgb, region, rng)
        return Edit(edit.rgb, edit.mask, damage)

    def whole(self, rgb: RGB, product: Mask | None, damage: str, rng: np.random.Generator) -> Edit:
        painted = self.paint.apply(rgb, rng, damage, product).rgb if damage else rgb
        edit = self.codec.apply(painted, rng)
        return Edit(edit.rgb, edit.mask, damage)


class InpaintGenerator:
    """Asks an inpainting model for the damage inside a random region on the product."""

    regions, wholes = True, False

    def __init__(self, settings: GeneratorSettings, prompts: PromptCatalogue) -> None:
        from realdamage.synthesis.inpaint import Inpaint

        self.name, self.family = settings.name, settings.family
        self.engine = Inpaint(_diffusion(settings), settings.name, settings.family, prompts)

    def region(self, rgb: RGB, product: Mask | None, damage: str, rng: np.random.Generator) -> Edit:
        # A random blob, not the product's outline: masks shaped like objects would teach objects.
        region = random_region(rgb.shape[:2], rng)
        if product is not None and (region & product).any():
            region &= product
        return self.engine.regenerate(rgb, region, damage, rng)

    def whole(self, rgb: RGB, product: Mask | None, damage: str, rng: np.random.Generator) -> Edit:
        raise SynthesisError(f"{self.name}: an inpainting model edits regions, not whole photos")


class EditGenerator:
    """Tells an instruction editor to add the damage; the whole frame is synthesised anew."""

    regions, wholes = False, True

    def __init__(self, settings: GeneratorSettings, prompts: PromptCatalogue) -> None:
        from realdamage.synthesis.instruct import Instruct

        self.name, self.family = settings.name, settings.family
        self.engine = Instruct(_diffusion(settings), settings.name, settings.family, prompts)

    def region(self, rgb: RGB, product: Mask | None, damage: str, rng: np.random.Generator) -> Edit:
        raise SynthesisError(f"{self.name}: an instruction editor edits whole photos, not regions")

    def whole(self, rgb: RGB, product: Mask | None, damage: str, rng: np.random.Generator) -> Edit:
        return self.engine.edit(rgb, damage, rng)


def load_generators(
    settings: Sequence[GeneratorSettings], prompts: Mapping[str, Any]
) -> list[Generator]:
    """Loads every generator. `prompts`: the section of that name of the configuration. Raises SynthesisError and
    MissingExtraError as the engines do."""
    from realdamage.synthesis.prompts import PromptCatalogue

    loaded: list[Generator] = []
    for each in settings:
        if each.engine == "codec":
            loaded.append(CodecGenerator(each))
        else:
            made = InpaintGenerator if each.engine == "inpaint" else EditGenerator
            loaded.append(made(each, PromptCatalogue.from_config(prompts)))
    return loaded


def random_region(shape: tuple[int, ...], rng: np.random.Generator) -> Mask:
    """A random blob, bool [h, w]: a union of 1–3 ellipses of 8–30% of the photo's short side, not shaped like any
    object."""
    height, width = shape[:2]
    y, x = np.ogrid[:height, :width]
    region = np.zeros((height, width), np.bool_)
    short = min(height, width)
    cy, cx = rng.uniform(0.2, 0.8) * height, rng.uniform(0.2, 0.8) * width
    for _ in range(int(rng.integers(1, 4))):
        ry, rx = rng.uniform(0.08, 0.3, 2) * short / 2
        angle = rng.uniform(0, np.pi)
        dy, dx = y - cy, x - cx
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        region |= (u / rx) ** 2 + (v / ry) ** 2 <= 1.0
        cy, cx = cy + rng.normal(0, ry), cx + rng.normal(0, rx)
    region[min(height - 1, max(0, int(cy))), min(width - 1, max(0, int(cx)))] = True  # never empty
    return region


def _diffusion(settings: GeneratorSettings) -> Any:
    from realdamage.synthesis.diffusion import DiffusionSettings

    options = dict(settings.options or {})
    known = {field.name for field in fields(DiffusionSettings)} - {"model"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise SynthesisError(
            f"recipe.generators.{settings.name}.options.{unknown[0]}: unknown; known are {', '.join(sorted(known))}"
        )
    options = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    return DiffusionSettings(model=settings.weights, **options)
