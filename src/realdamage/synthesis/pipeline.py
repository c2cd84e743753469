"""Diffusion pipelines behind one call, so that the engines `inpaint` and `edit` need not know which generator they run.

Any pipeline of the `diffusers` library will do that takes a photo and a prompt: what its call accepts is read from its
signature. Torch and diffusers are imported when a pipeline is loaded, not before.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from realdamage.errors import MissingExtraError, SynthesisError
from realdamage.synthesis.diffusion import (
    DiffusionSettings,
    choose_device,
    choose_dtype,
    loading,
    running,
    weights_folder,
)
from realdamage.synthesis.prompts import Prompt

RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_FLAT = 1  # grey levels: a picture that varies by less shows nothing


class Pipeline:
    """A loaded pipeline. A safety checker is left out where the pipeline has one: it blackens what it takes for
    indecent, and a black photo labelled "damage" would teach a detector the wrong thing.

    generator: the name in the recipe; masked: whether an inpainting pipeline is wanted, or else an editor.
    Raises SynthesisError (weights, class or settings that don't fit, memory) and MissingExtraError.
    """

    def __init__(self, settings: DiffusionSettings, generator: str, *, masked: bool) -> None:
        self.settings, self.key = settings, f"recipe.generators.{generator}.options"
        try:
            import accelerate  # noqa: F401
            import diffusers
            import transformers
        except ImportError as error:
            raise MissingExtraError(f"the generator {generator}", "synth", error.name) from error
        # Our own bar tells how far the set is; the bars of every photo would bury it.
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        what = f"generator {generator}: model"
        weights_folder(settings.model, what)
        with loading(what, settings.model):
            self._pipe: Any = self._load(masked)
        self.name = type(self._pipe).__name__
        self._call = inspect.signature(type(self._pipe).__call__).parameters
        self._set = call_settings(self._call, settings, self.name, self.key)
        self._revision = _revision(settings.model)

    def _load(self, masked: bool) -> Any:
        settings, device = self.settings, choose_device(self.settings.device)
        if settings.offload and device == "cpu":
            raise SynthesisError(
                f"{self.key}.offload=true, but there is no GPU to offload: remove it"
            )
        kind, loader = _pipeline_class(settings, self.key, masked)
        options: dict[str, Any] = {"dtype": choose_dtype(settings.dtype, device)}
        if settings.variant:
            options["variant"] = settings.variant
        takes = inspect.signature(kind.__init__).parameters
        unchecked = {"safety_checker": None, "requires_safety_checker": False}
        options |= {name: value for name, value in unchecked.items() if name in takes}
        pipe = loader.from_pretrained(settings.model, **options)
        pipe.set_progress_bar_config(disable=True)
        if settings.offload:
            pipe.enable_model_cpu_offload(device=device)
            return pipe
        return pipe.to(device)

    def takes(self, name: str) -> bool:
        """Whether the pipeline's call has a parameter of this name."""
        return name in self._call

    def __call__(self, rgb: RGB, prompt: Prompt, seed: int, mask: Mask | None = None) -> RGB:
        """The pipeline's picture, uint8 [h', w', 3], of rgb: uint8 [h, w, 3], sides multiples of GRID. mask: bool
        [h, w], what to paint. The size is that of `rgb` unless the pipeline insists on another. The same seed gives the
        same picture on the same device.

        Raises SynthesisError: out of memory, or a picture with NaN, of one colour, or withheld by the pipeline.
        """
        import torch
        from PIL import Image

        height, width = rgb.shape[:2]
        offered = {"height": height, "width": width, "output_type": "np"}
        # Kontext would move the photo to one of its favourite sizes otherwise.
        offered |= {"max_area": height * width, "_auto_resize": False}
        given: dict[str, Any] = {
            name: value for name, value in offered.items() if name in self._call
        }
        given |= self._set | {"prompt": prompt.text, "image": Image.fromarray(rgb)}
        if uses_negative(self._call, self._set):
            given["negative_prompt"] = prompt.negative
        if mask is not None:
            given["mask_image"] = Image.fromarray(mask.astype(np.uint8) * 255)
        # Drawn on the CPU, so that a seed means the same on every device.
        given["generator"] = torch.Generator("cpu").manual_seed(seed)
        with running(self.name, self.key):
            answer = self._pipe(**given)
        return self._picture(answer)

    def _picture(self, answer: Any) -> RGB:
        images = getattr(answer, "images", None)
        if images is None:
            raise SynthesisError(
                f"{self.key}: {self.name} gives no images; name another class with {self.key}.pipeline"
            )
        if any(getattr(answer, "nsfw_content_detected", None) or ()):
            raise SynthesisError(
                f"{self.key}: {self.name} withheld its picture as indecent; choose another model"
            )
        picture = np.asarray(images[0])
        if picture.dtype != np.uint8:
            if not np.isfinite(picture).all():
                raise SynthesisError(
                    f"{self.name} gave a picture with NaN: its numbers overflowed in this dtype. "
                    f"Set {self.key}.dtype=bfloat16 or float32."
                )
            picture = np.rint(np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8)
        if np.ptp(picture) < _FLAT:
            raise SynthesisError(
                f"{self.name} gave a picture of one colour. Set {self.key}.dtype=bfloat16 or float32, or more "
                f"{self.key}.steps."
            )
        return picture

    def details(self, prompt: Prompt, seed: int) -> dict[str, str]:
        """How a picture was made, for the manifest: model, model_revision (of a hub model), prompt, negative_prompt,
        seed, guidance, strength, steps (those the pipeline has) and libraries."""
        import diffusers
        import torch
        import transformers

        used = {name: parameter.default for name, parameter in self._call.items()} | self._set
        folder = Path(self.settings.model).expanduser()
        details = {
            "model": folder.resolve().name if folder.is_dir() else self.settings.model,
            "model_revision": self._revision,
            "prompt": prompt.text,
            "negative_prompt": prompt.negative if uses_negative(self._call, self._set) else "",
            "seed": str(seed),
            "guidance": _number(used.get(guidance_parameter(self._call) or "")),
            "strength": _number(used.get("strength")),
            "steps": _number(used.get("num_inference_steps")),
            "libraries": ", ".join(
                f"{m.__name__} {m.__version__}" for m in (diffusers, torch, transformers)
            ),
        }
        return {name: value for name, value in details.items() if value}


def guidance_parameter(call: Mapping[str, inspect.Parameter]) -> str | None:
    """The parameter that `guidance` sets: `true_cfg_scale` where it is what guides by default (Qwen), else
    `guidance_scale` (for FLUX that is the scale its network was distilled with)."""
    true = call.get("true_cfg_scale")
    if true is not None and isinstance(true.default, int | float) and true.default > 1:
        return "true_cfg_scale"
    return "guidance_scale" if "guidance_scale" in call else None


def uses_negative(call: Mapping[str, inspect.Parameter], chosen: Mapping[str, Any]) -> bool:
    """Whether a negative prompt has any effect: the pipeline takes one, and runs classifier-free guidance."""
    name = guidance_parameter(call)
    if (
        "negative_prompt" not in call
        or name is None
        or (name == "guidance_scale" and "true_cfg_scale" in call)
    ):
        return False
    scale = chosen.get(name, call[name].default)
    return isinstance(scale, int | float) and scale > 1


def call_settings(
    call: Mapping[str, inspect.Parameter], settings: DiffusionSettings, name: str, key: str
) -> dict[str, Any]:
    """The settings that were given, under the names that the pipeline's call has for them. Raises SynthesisError for
    one that the pipeline `name` doesn't take."""
    wanted = {
        "steps": ("num_inference_steps", settings.steps),
        "guidance": (guidance_parameter(call), settings.guidance),
        "strength": ("strength", settings.strength),
    }
    chosen: dict[str, Any] = {}
    for setting, (parameter, value) in wanted.items():
        if value is None:
            continue
        if parameter not in call or parameter is None:
            raise SynthesisError(
                f"{key}.{setting}={value}: {name} takes no {setting}. Remove the setting."
            )
        chosen[parameter] = value
    return chosen


def _pipeline_class(settings: DiffusionSettings, key: str, masked: bool) -> tuple[Any, Any]:
    """(class of the pipeline or of its sibling, class whose from_pretrained loads it)."""
    import diffusers

    named = settings.pipeline
    if named is None:
        named = str(diffusers.DiffusionPipeline.load_config(settings.model)["_class_name"])
    kind = getattr(diffusers, named, None)
    if not (inspect.isclass(kind) and issubclass(kind, diffusers.DiffusionPipeline)):
        names = [name for name in dir(diffusers) if name.endswith("Pipeline")]
        near = difflib.get_close_matches(named, names, n=1)
        hint = f"Did you mean {near[0]}?" if near else "A newer diffusers may have it."
        where = f"{key}.pipeline={named}" if settings.pipeline else f"{key}: the model is a {named}"
        raise SynthesisError(
            f"{where}: diffusers {diffusers.__version__} has no such pipeline. {hint}"
        )
    call = inspect.signature(kind.__call__).parameters
    if "prompt" in call and "image" in call and ("mask_image" in call) == masked:
        return kind, kind
    if masked and settings.pipeline is None and _has_inpainting_sibling(named):
        return kind, diffusers.AutoPipelineForInpainting
    if "mask_image" in call:
        raise SynthesisError(
            f"{key}: {named} is an inpainting pipeline; use it with engine=inpaint"
        )
    lacks = (
        "inpaints nothing (its call takes no mask_image)"
        if masked
        else "edits no photo (its call takes no image)"
    )
    example = "StableDiffusionInpaintPipeline" if masked else "QwenImageEditPipeline"
    raise SynthesisError(
        f"{key}: {named} {lacks}. Choose a model that does, or name a class that can use this one, like "
        f"{key}.pipeline={example}."
    )


def _has_inpainting_sibling(name: str) -> bool:
    """Whether AutoPipelineForInpainting knows a pipeline for models of the class `name`."""
    from diffusers.pipelines import auto_pipeline

    wanted = name.replace("ControlPipeline", "ControlInpaintPipeline")
    mappings: Any = auto_pipeline.SUPPORTED_TASKS_MAPPINGS
    families = [
        family
        for mapping in mappings
        for family, kind in mapping.items()
        if kind.__name__ == wanted
    ]
    return any(family in auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING for family in families)


def _revision(model: str) -> str:
    """The commit of a hub model that lies in the cache, "" for a folder."""
    from huggingface_hub import try_to_load_from_cache

    if Path(model).expanduser().is_dir():
        return ""
    found = try_to_load_from_cache(model, "model_index.json")
    return Path(found).parent.name if isinstance(found, str) else ""


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else ""
