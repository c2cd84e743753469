"""Diffusion pipelines behind one call, for the engines `inpaint` and `edit`.

Any `diffusers` pipeline works that takes a photo and a prompt: what its call accepts is read from
its signature. Torch and diffusers are imported when a pipeline is loaded, not before.
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from realdamage.errors import MissingExtraError, RealDamageError, SynthesisError
from realdamage.synthesis.engine import RGB, GeneratorSettings, Mask
from realdamage.synthesis.prompts import Prompt, PromptCatalogue

DTYPES = ("auto", "float32", "bfloat16", "float16")
GRID = 16
"""Sides that are multiples of it suit every latent pipeline: 8 pixels a latent, two latents a
transformer's patch."""


@dataclass
class DiffusionSettings:
    """The `options` of a generator. None means the pipeline's own default. Raises SynthesisError
    for values outside their range."""

    model: str  # hub id, or folder of a whole pipeline (with model_index.json); from `weights`
    pipeline: str | None = None  # diffusers class; None: the model's own, or its inpainting sibling
    steps: int | None = None  # of denoising
    guidance: float | None = None  # how closely the prompt is followed
    strength: float | None = None  # in 0..1: noise on the photo's own pixels; 1 paints all again
    side: int = 512  # of the window that an inpainting pipeline sees, pixels
    dtype: str = "auto"  # auto: float32 on the CPU, else bfloat16 or float16, as the GPU has it
    device: str = "auto"  # cpu, cuda:1, …; auto: this process's GPU, if there is one
    languages: list[str] = field(default_factory=lambda: ["en"])  # of the prompts
    offload: bool = False  # only the running part is on the GPU: less memory, less speed

    def __post_init__(self) -> None:
        allowed = {
            "steps": (self.steps is None or self.steps >= 1, "at least 1"),
            "guidance": (self.guidance is None or self.guidance >= 0, "at least 0"),
            "strength": (self.strength is None or 0 < self.strength <= 1, "above 0, up to 1"),
            "side": (self.side >= 64 and self.side % GRID == 0, f"a multiple of {GRID} from 64 up"),
            "dtype": (self.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
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
        self.settings = _diffusion_settings(settings, self.key)
        self.prompts = PromptCatalogue.from_config(prompts)
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
        weights_folder(self.settings.model, what)
        with loading(what, self.settings.model):
            self._pipe: Any = self._load(masked)
        self.name = type(self._pipe).__name__
        self._call = inspect.signature(type(self._pipe).__call__).parameters
        self._set = call_settings(self._call, self.settings, self.name, self.key)
        self._revision = _revision(self.settings.model)

    def _load(self, masked: bool) -> Any:
        settings, device = self.settings, choose_device(self.settings.device)
        if settings.offload and device == "cpu":
            raise SynthesisError(
                f"{self.key}.offload=true, but there is no GPU to offload: remove it"
            )
        kind, loader = _pipeline_class(settings, self.key, masked)
        options: dict[str, Any] = {"dtype": choose_dtype(settings.dtype, device)}
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
        return self.prompts.draw(form, damage, rng, self.settings.languages), int(
            rng.integers(2**31)
        )

    def takes(self, parameter: str) -> bool:
        """Whether the pipeline's call has a parameter of this name."""
        return parameter in self._call

    def __call__(self, rgb: RGB, prompt: Prompt, seed: int, mask: Mask | None = None) -> RGB:
        """The pipeline's picture, uint8 [h', w', 3], of rgb: uint8 [h, w, 3], sides multiples of
        GRID. The size is that of `rgb` unless the pipeline insists on another. The same seed gives
        the same picture on the same device.

        mask: bool [h, w], what to paint.
        Raises SynthesisError: out of memory, or a picture with NaN, of one colour, or withheld by
        the pipeline.
        """
        import torch
        from PIL import Image

        height, width = rgb.shape[:2]
        offered = {"height": height, "width": width, "output_type": "np"}
        # Kontext would move the photo to one of its favourite sizes otherwise.
        offered |= {"max_area": height * width, "_auto_resize": False}
        given: dict[str, Any] = {name: each for name, each in offered.items() if self.takes(name)}
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
                f"{self.key}: {self.name} gives no images; name another class with "
                f"{self.key}.pipeline"
            )
        if any(getattr(answer, "nsfw_content_detected", None) or ()):
            raise SynthesisError(
                f"{self.key}: {self.name} withheld its picture as indecent; choose another model"
            )
        picture = np.asarray(images[0])
        better = f"Set {self.key}.dtype=bfloat16 or float32"
        if picture.dtype != np.uint8:
            if not np.isfinite(picture).all():
                raise SynthesisError(
                    f"{self.name} gave a picture with NaN (an overflow). {better}."
                )
            picture = np.rint(np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8)
        if not np.ptp(picture):
            raise SynthesisError(
                f"{self.name} gave a picture of one colour. {better}, or more {self.key}.steps."
            )
        return picture

    def details(self, prompt: Prompt, seed: int) -> dict[str, str]:
        """How a picture was made, for the manifest: model, model_revision (of a hub model), prompt,
        negative_prompt, seed, guidance, strength, steps (those that the pipeline has) and
        libraries."""
        import diffusers
        import torch
        import transformers

        used = {name: parameter.default for name, parameter in self._call.items()} | self._set
        folder = Path(self.settings.model).expanduser()
        versions = [f"{m.__name__} {m.__version__}" for m in (diffusers, torch, transformers)]
        details = {
            "model": folder.resolve().name if folder.is_dir() else self.settings.model,
            "model_revision": self._revision,
            "prompt": prompt.text,
            "negative_prompt": prompt.negative if uses_negative(self._call, self._set) else "",
            "seed": str(seed),
            "guidance": _number(used.get(guidance_parameter(self._call) or "")),
            "strength": _number(used.get("strength")),
            "steps": _number(used.get("num_inference_steps")),
            "libraries": ", ".join(versions),
        }
        return {name: value for name, value in details.items() if value}


def _diffusion_settings(settings: GeneratorSettings, key: str) -> DiffusionSettings:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    given = {**(settings.options or {}), "model": settings.weights}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(DiffusionSettings), given)
    except OmegaConfBaseException as error:
        said = f"{key}.{error.full_key}: {str(error).splitlines()[0]}"
        raise SynthesisError(said, code="wrong_option") from error
    made: Any = OmegaConf.to_object(merged)
    return cast(DiffusionSettings, made)


def guidance_parameter(call: Mapping[str, inspect.Parameter]) -> str | None:
    """The parameter that `guidance` sets: `true_cfg_scale` where it guides by default (Qwen), else
    `guidance_scale` (for FLUX the scale that its network was distilled with)."""
    true = call.get("true_cfg_scale")
    if true is not None and isinstance(true.default, int | float) and true.default > 1:
        return "true_cfg_scale"
    return "guidance_scale" if "guidance_scale" in call else None


def uses_negative(call: Mapping[str, inspect.Parameter], chosen: Mapping[str, Any]) -> bool:
    """Whether the pipeline takes a negative prompt and runs classifier-free guidance, so that it
    has an effect."""
    name = guidance_parameter(call)
    distilled = name == "guidance_scale" and "true_cfg_scale" in call
    if name is None or distilled or "negative_prompt" not in call:
        return False
    scale = chosen.get(name, call[name].default)
    return isinstance(scale, int | float) and scale > 1


def call_settings(
    call: Mapping[str, inspect.Parameter], settings: DiffusionSettings, name: str, key: str
) -> dict[str, Any]:
    """The given settings under the names of the pipeline's call. Raises SynthesisError for one that
    it doesn't take."""
    wanted = {
        "steps": ("num_inference_steps", settings.steps),
        "guidance": (guidance_parameter(call), settings.guidance),
        "strength": ("strength", settings.strength),
    }
    chosen: dict[str, Any] = {}
    for setting, (parameter, value) in wanted.items():
        if value is None:
            continue
        if parameter is None or parameter not in call:
            raise SynthesisError(f"{key}.{setting}={value}: {name} takes none. Remove the setting.")
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
        version = diffusers.__version__
        raise SynthesisError(f"{where}: diffusers {version} has no such pipeline. {hint}")
    call = inspect.signature(kind.__call__).parameters
    if "prompt" in call and "image" in call and ("mask_image" in call) == masked:
        return kind, kind
    if masked and settings.pipeline is None and _has_inpainting_sibling(named):
        return kind, diffusers.AutoPipelineForInpainting
    if "mask_image" in call:
        raise SynthesisError(
            f"{key}: {named} is an inpainting pipeline; use it with engine=inpaint"
        )
    lacks = "mask_image" if masked else "image"
    example = "StableDiffusionInpaintPipeline" if masked else "QwenImageEditPipeline"
    raise SynthesisError(
        f"{key}: the call of {named} takes no {lacks}. Choose another model, or name a class that "
        f"can use this one, like {key}.pipeline={example}."
    )


def _has_inpainting_sibling(name: str) -> bool:
    """Whether AutoPipelineForInpainting knows a pipeline for models of the class `name`."""
    from diffusers.pipelines import auto_pipeline

    wanted = name.replace("ControlPipeline", "ControlInpaintPipeline")
    mappings: Any = auto_pipeline.SUPPORTED_TASKS_MAPPINGS
    known = [pair for mapping in mappings for pair in mapping.items()]
    families = [family for family, kind in known if kind.__name__ == wanted]
    return any(family in auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING for family in families)


def _revision(model: str) -> str:
    """The commit of a hub model in the cache, "" for a folder."""
    from huggingface_hub import try_to_load_from_cache

    if Path(model).expanduser().is_dir():
        return ""
    found = try_to_load_from_cache(model, "model_index.json")
    return Path(found).parent.name if isinstance(found, str) else ""


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else ""


def rank_and_world() -> tuple[int, int]:
    """(number of this process, number of processes) under torchrun; (0, 1) without it. Raises
    SynthesisError when the two contradict each other."""
    rank, world = _environment_number("RANK", 0), _environment_number("WORLD_SIZE", 1)
    if not 0 <= rank < world:
        raise SynthesisError(
            f"RANK={rank} with WORLD_SIZE={world}: start the processes with torchrun, or unset both"
        )
    return rank, world


def _environment_number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    if value and not value.isdigit():
        raise SynthesisError(f"the environment variable {name}={value!r} is no number; unset it")
    return int(value) if value else default


def choose_device(device: str) -> str:
    """The device for this process; see DiffusionSettings. Raises SynthesisError for one that this
    machine hasn't."""
    import torch

    count = torch.cuda.device_count()
    if device == "auto":
        device = f"cuda:{_environment_number('LOCAL_RANK', 0)}" if count else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise SynthesisError(f"device={device}: unknown; give cpu, cuda, cuda:1 or auto") from error
    if wanted.type == "cuda" and (wanted.index or 0) >= count:
        raise SynthesisError(
            f"device={device}: this machine has {count} GPUs that torch can use. "
            "Start one process for each (torchrun --nproc-per-node), or set device=cpu."
        )
    return device


def choose_dtype(name: str, device: str) -> Any:
    """The torch dtype for a setting on a device; see DiffusionSettings."""
    import torch

    if name != "auto":
        return getattr(torch, name)
    if torch.device(device).type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def weights_folder(model: str, what: str) -> Path | None:
    """The folder that `model` names, or None for a hub id. Raises SynthesisError for a path to no
    folder."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or model.startswith((".", "~")) or len(folder.parts) != 2:
        raise SynthesisError(
            f"{what} {model}: no such folder. Give a folder of diffusers weights, or a hub id.",
            code="no_weights",
        )
    return None


def hub_answers() -> bool:
    """Whether the hub can be reached. Its own client retries each file of a model for half a
    minute."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # of whichever HTTP library is in use, or OfflineModeIsEnabled
        return False
    return True


@contextmanager
def loading(what: str, model: str) -> Iterator[None]:
    """Turns an error while `model` is loaded into a SynthesisError that says what to do. what:
    whose weights."""
    try:
        yield
    except RealDamageError:
        raise
    except Exception as error:
        why = f"{short(error)}. {_remedy(error, model)}"
        if _out_of_memory(error):
            why = "memory ran out. Set dtype=bfloat16 or offload=true, or use a smaller model."
        message = f"{what} {model} could not be loaded: {why}"
        raise SynthesisError(message, code="bad_weights") from error


@contextmanager
def running(name: str, key: str) -> Iterator[None]:
    """Turns an error while the pipeline class `name` runs into a SynthesisError. key: of its
    settings."""
    try:
        yield
    except RealDamageError:
        raise
    except Exception as error:
        if not _out_of_memory(error):
            message = f"{name} failed ({short(error)}); check the settings of {key}"
            raise SynthesisError(message, code="pipeline_failed") from error
        raise SynthesisError(
            f"{name} ran out of memory ({short(error)}). Set {key}.side smaller (for an editor "
            f"recipe.source.max_side), {key}.offload=true or {key}.dtype=bfloat16. Finished photos "
            "are kept; run the same command to go on.",
            code="out_of_memory",
        ) from error


def short(error: BaseException) -> str:
    """Class and first words of an error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _out_of_memory(error: BaseException) -> bool:
    said = ("out of memory", "can't allocate memory", "not enough memory")
    by_torch = isinstance(error, RuntimeError) and any(each in str(error).lower() for each in said)
    return by_torch or isinstance(error, MemoryError)


def _remedy(error: BaseException, model: str) -> str:
    """What to do about an error of diffusers or of the hub, by the classes of all errors behind
    it."""
    names: set[str] = set()
    cause: BaseException | None = error
    while cause is not None:
        names.update(kind.__name__ for kind in type(cause).__mro__)
        cause = cause.__cause__ or cause.__context__
    if Path(model).expanduser().is_dir():
        return "The folder must hold what save_pretrained() or `hf download` wrote."
    if "GatedRepoError" in names:
        return f"Accept its licence at https://huggingface.co/{model} and log in: hf auth login."
    if names & {"RepositoryNotFoundError", "RevisionNotFoundError"}:
        return "The hub has no such model, or it is private (then: hf auth login)."
    if names & _UNREACHABLE:
        return (
            "It is not in the cache and the hub can't be reached. Where there is a network: "
            f"hf download {model} --local-dir FOLDER; then give that folder as the model."
        )
    return "Is it a diffusers model?"


_UNREACHABLE = {
    *("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError"),
    *("TransportError", "TimeoutError", "TimeoutException", "HfHubHTTPError"),
}
