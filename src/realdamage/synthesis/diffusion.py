"""The engines `inpaint` and `edit`: a diffusion pipeline paints damage into a region of a photo, or
changes the whole photo on an instruction, as a buyer would in a chat window.

Any `diffusers` pipeline works that takes a photo and a prompt: what its call accepts is read from
its signature. Torch and diffusers are imported when a pipeline is loaded, not before.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from realdamage.errors import MissingExtraError, SynthesisError
from realdamage.synthesis.codec import blended, feather
from realdamage.synthesis.engine import (
    RGB,
    Edit,
    GeneratorSettings,
    Mask,
    loading,
    out_of_memory,
    random_region,
    short,
    weights_folder,
)
from realdamage.synthesis.prompts import Prompt, PromptCatalogue

GRID = 16
"""Sides that are multiples of it suit every latent pipeline: 8 pixels a latent, two latents a
transformer's patch."""
CONTEXT = 32
"""Pixels around the region that an inpainting window holds at least, where the photo has them."""
GROWTH = 64
"""Windows for larger regions have sides that are multiples of it; some networks halve their latents
three times."""
_FAINT = 1 / 255  # a blend below it changes no pixel by a whole grey level
_INSTRUCTED = ("Edit", "Kontext")  # inpainting classes that read instructions, not descriptions


@dataclass
class DiffusionSettings:
    """The `options` of a generator. Raises SynthesisError for values outside their range."""

    model: str  # hub id, or folder of a whole pipeline (with model_index.json); from `weights`
    pipeline: str | None = None  # diffusers class; None: the model's own, or its inpainting sibling
    # Arguments of the pipeline's call by its own names: num_inference_steps, guidance_scale, …
    call: dict[str, Any] = field(default_factory=dict)
    side: int = 512  # of the window that an inpainting pipeline sees, pixels
    languages: list[str] = field(default_factory=lambda: ["en"])  # of the prompts
    offload: bool = False  # only the running part is on the GPU: less memory, less speed

    def __post_init__(self) -> None:
        whole = isinstance(self.side, int) and self.side >= 64 and self.side % GRID == 0
        allowed = {
            "side": (whole, f"a multiple of {GRID} from 64 up"),
            "languages": (bool(self.languages), "at least one language"),
        }
        for name, (fits, rule) in allowed.items():
            if not fits:
                value = getattr(self, name)
                raise SynthesisError(f"generator {self.model}: {name}={value!r}; allowed: {rule}")


class Pipeline:
    """A loaded pipeline with its prompts. A safety checker is left out: it blackens what it takes
    for indecent, and a black photo labelled "damage" would teach a detector the wrong thing.

    name: of the generator in the recipe.
    prompts: the `prompts` section of the configuration.
    masked: whether an inpainting pipeline is wanted, or else an editor.
    Raises SynthesisError (weights, class or settings that don't fit, memory), ConfigError
    (languages without prompts) and MissingExtraError.
    """

    def __init__(
        self, name: str, settings: GeneratorSettings, prompts: Mapping[str, Any], *, masked: bool
    ) -> None:
        self.key = f"recipe.generators.{name}.options"
        try:
            self.settings = DiffusionSettings(str(settings.weights), **(settings.options or {}))
        except TypeError as error:
            raise SynthesisError(f"{self.key}: {error}", code="wrong_option") from error
        self.prompts = PromptCatalogue(**prompts)
        self.prompts.check(self.settings.languages)
        try:
            import accelerate  # noqa: F401
            import diffusers
            import transformers
        except ImportError as error:
            raise MissingExtraError(f"the generator {name}", "synth", error.name) from error
        # The recipe shows its own progress; the bars of every photo would bury it.
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        what = f"generator {name}: model"
        folder = weights_folder(self.settings.model, what)
        with loading(what, self.settings.model):
            self._pipe: Any = self._load(masked)
        self.name = type(self._pipe).__name__
        self._call = inspect.signature(type(self._pipe).__call__).parameters
        if unknown := self.settings.call.keys() - self._call.keys():
            raise SynthesisError(
                f"{self.key}.call: {self.name} does not take {', '.join(sorted(unknown))}"
            )
        self._model = {
            "model": folder.resolve().name if folder else self.settings.model,
            "model_revision": "" if folder else _revision(self.settings.model),
        }

    def _load(self, masked: bool) -> Any:
        import torch

        settings = self.settings
        device, dtype = "cpu", torch.float32
        if torch.cuda.is_available():
            half = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
            device, dtype = "cuda", half
        if settings.offload and device == "cpu":
            raise SynthesisError(
                f"{self.key}.offload=true, but there is no GPU to offload: remove it"
            )
        kind, loader = _pipeline_class(settings, self.key, masked)
        options: dict[str, Any] = {"dtype": dtype}
        takes = inspect.signature(kind.__init__).parameters
        unchecked = {"safety_checker": None, "requires_safety_checker": False}
        options |= {name: value for name, value in unchecked.items() if name in takes}
        pipe = loader.from_pretrained(settings.model, **options)
        pipe.set_progress_bar_config(disable=True)
        if settings.offload:
            pipe.enable_model_cpu_offload(device=device)
            return pipe
        return pipe.to(device)

    def ask(self, damage: str, form: str, rng: np.random.Generator) -> tuple[Prompt, int]:
        """A prompt for `damage` ("" for none) and a seed. form: "descriptions" or
        "instructions"."""
        prompt = self.prompts.draw(form, damage, rng, self.settings.languages)
        return prompt, int(rng.integers(2**31))

    def __call__(self, rgb: RGB, prompt: Prompt, seed: int, mask: Mask | None = None) -> RGB:
        """The pipeline's picture, uint8 [h', w', 3], of rgb: uint8 [h, w, 3], sides multiples of
        GRID. The size is that of `rgb` unless the pipeline insists on another. The same seed gives
        the same picture on the same device.

        mask: bool [h, w], what to paint.
        Raises SynthesisError: out of memory, or a picture with NaN, of one colour, or withheld by
        the pipeline.
        """
        import torch

        height, width = rgb.shape[:2]
        offered = {"height": height, "width": width, "output_type": "np"}
        # Kontext would move the photo to one of its favourite sizes otherwise.
        offered |= {"max_area": height * width, "_auto_resize": False}
        given: dict[str, Any] = {name: each for name, each in offered.items() if name in self._call}
        given |= self.settings.call | {"prompt": prompt.text, "image": Image.fromarray(rgb)}
        if "negative_prompt" in self._call:
            given["negative_prompt"] = prompt.negative
        if mask is not None:
            given["mask_image"] = Image.fromarray(mask.astype(np.uint8) * 255)
        # Drawn on the CPU, so that a seed means the same on every device.
        given["generator"] = torch.Generator("cpu").manual_seed(seed)
        try:
            picture = np.asarray(self._pipe(**given).images[0])
        except Exception as error:
            if not out_of_memory(error):
                message = f"{self.name} failed ({short(error)}); check the settings of {self.key}"
                raise SynthesisError(message, code="pipeline_failed") from error
            raise SynthesisError(
                f"{self.name} ran out of memory ({short(error)}). Set {self.key}.side smaller (for "
                f"an editor recipe.source.max_side), or {self.key}.offload=true. Finished photos "
                "are kept; run the same command to go on.",
                code="out_of_memory",
            ) from error
        if picture.dtype != np.uint8:
            if not np.isfinite(picture).all():
                raise SynthesisError(
                    f"{self.name} gave a picture with NaN (an overflow). Use another GPU or model."
                )
            picture = np.rint(np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8)
        if not np.ptp(picture):
            raise SynthesisError(f"{self.name} gave a picture of one colour; see {self.key}.")
        return picture

    def details(self, prompt: Prompt, seed: int) -> dict[str, str]:
        """How a picture was made, for the manifest: model, model_revision (of a hub model), prompt,
        negative_prompt, seed, call (the arguments of the options) and libraries."""
        import diffusers
        import torch
        import transformers

        versions = [f"{m.__name__} {m.__version__}" for m in (diffusers, torch, transformers)]
        details = {
            **self._model,
            "prompt": prompt.text,
            "negative_prompt": prompt.negative if "negative_prompt" in self._call else "",
            "seed": str(seed),
            "call": json.dumps(self.settings.call),
            "libraries": ", ".join(versions),
        }
        return {name: value for name, value in details.items() if value}


def _revision(model: str) -> str:
    """The commit of a hub model in the cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "model_index.json")
    return Path(found).parent.name if isinstance(found, str) else ""


def _pipeline_class(settings: DiffusionSettings, key: str, masked: bool) -> tuple[Any, Any]:
    """(class of the pipeline, class whose from_pretrained loads it or its inpainting sibling)."""
    import diffusers

    named = settings.pipeline
    if named is None:
        named = str(diffusers.DiffusionPipeline.load_config(settings.model)["_class_name"])
    kind = getattr(diffusers, named, None)
    if not (inspect.isclass(kind) and issubclass(kind, diffusers.DiffusionPipeline)):
        version = diffusers.__version__
        raise SynthesisError(f"{key}: diffusers {version} has no such pipeline: {named}")
    call = inspect.signature(kind.__call__).parameters
    if "prompt" in call and "image" in call and ("mask_image" in call) == masked:
        return kind, kind
    if masked and settings.pipeline is None:
        return kind, diffusers.AutoPipelineForInpainting
    wanted = "a photo and a mask_image" if masked else "a photo and no mask (engine=inpaint does)"
    raise SynthesisError(
        f"{key}: {named} is not a pipeline that takes a prompt, {wanted}. Name a class with "
        f"{key}.pipeline, or choose another model."
    )


# --- The engines ---


class Editor:
    """Edits whole photos through a pipeline that takes a photo and an instruction (InstructPix2Pix,
    FLUX Kontext, Qwen-Image-Edit, …). Such a model synthesises every pixel again, also those that
    look the same as before.

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
        prompt, seed = self.pipeline.ask(damage, "instructions", rng)
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


class Inpaint:
    """Regenerates a random region through an inpainting pipeline: any that
    `AutoPipelineForInpainting` covers, FLUX-Fill, or the class that the options name. Errors: see
    `Pipeline`.

    The photo is never resized, since that would destroy the camera's traces around the region: the
    model sees a window of the photo at native resolution.
    """

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
        side = pipeline.settings.side
        rows, row_padding = _window(soft.max(axis=1), side, rng)
        columns, column_padding = _window(soft.max(axis=0), side, rng)
        inside, padding = (rows, columns), (row_padding, column_padding)
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


def _window(
    profile: npt.NDArray[np.float32], side: int, rng: np.random.Generator
) -> tuple[slice, tuple[int, int]]:
    """A window along one axis: its part inside the photo, and the padding (before, after) that it
    needs beyond the photo.

    It has `side` pixels, or more in steps of GROWTH, at a random place around what is above 0 in
    `profile` [n]: neither the region's place in the window nor the latent grid's on the photo may
    reveal anything.
    """
    length = len(profile)
    touched = np.flatnonzero(profile > 0)
    first, last = max(0, int(touched[0]) - CONTEXT), min(length, int(touched[-1]) + 1 + CONTEXT)
    size = side if last - first <= side else -(-(last - first) // GROWTH) * GROWTH
    if size >= length:
        before = int(rng.integers(0, size - length + 1))
        return slice(0, length), (before, size - length - before)
    start = int(rng.integers(max(0, last - size), min(first, length - size) + 1))
    return slice(start, start + size), (0, 0)


def _whole_cells(mask: Mask) -> Mask:
    """The mask, grown to whole cells of GRID × GRID pixels: pipelines shrink it to their latents by
    picking single pixels, and a thin line would fall between them. bool [h, w], sides multiples of
    GRID."""
    height, width = mask.shape
    cells = mask.reshape(height // GRID, GRID, width // GRID, GRID).any(axis=(1, 3))
    return cells.repeat(GRID, axis=0).repeat(GRID, axis=1)
