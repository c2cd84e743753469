"""What every engine on the `diffusers` library shares: its settings, where it runs, and errors that say what to do.

Torch is imported when a device is chosen, not before: the recipe runner reads settings and ranks without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from realdamage.errors import RealDamageError, SynthesisError

DTYPES = ("auto", "float32", "bfloat16", "float16")
GRID = 16
"""Sides that are multiples of it suit every latent pipeline: 8 pixels a latent, two latents a transformer's patch."""


@dataclass(frozen=True)
class DiffusionSettings:
    """One generator. None always means: as the pipeline has it by default.

    model: hub id, or folder of a whole pipeline (with model_index.json);
    pipeline: name of the diffusers class; None: the class that the model names, or the inpainting one beside it;
    steps: of denoising; guidance: how closely the prompt is followed; strength: in 0..1, how much noise the photo's own
    pixels get, 1 paints anew;
    side: of the window that an inpainting pipeline sees, pixels, a multiple of 16 (512 for SD 1/2, 1024 for SDXL, SD 3
    and FLUX); editors see the whole photo;
    blend: paste the region only, through a feathered mask; otherwise the whole window as the pipeline gave it;
    dtype: one of DTYPES, auto: float32 on the CPU, else bfloat16 where the GPU has it and float16 where not;
    variant: of the weights' files, such as fp16; device: cpu, cuda:1, …, auto: this process's GPU if there is one;
    languages: of the prompts; materials: of the products, so that prompts name no other (none given: any);
    offload: keep on the GPU only the part of the pipeline that runs, for less memory at less speed.

    Raises SynthesisError for values outside their range.
    """

    model: str
    pipeline: str | None = None
    steps: int | None = None
    guidance: float | None = None
    strength: float | None = None
    side: int = 512
    blend: bool = True
    dtype: str = "auto"
    variant: str | None = None
    device: str = "auto"
    languages: tuple[str, ...] = ("en",)
    offload: bool = False
    materials: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not _is(value, kind):
                wanted = (
                    getattr(kind, "__name__", str(kind))
                    if get_origin(kind) is not tuple
                    else "list of texts"
                )
                raise SynthesisError(f"generator {self.model}: {name}={value!r}; allowed: {wanted}")
        wrong = {
            "model": (not self.model, "give a hub id or a folder"),
            "steps": (self.steps is not None and self.steps < 1, "at least one step"),
            "guidance": (self.guidance is not None and self.guidance < 0, "a number from 0 up"),
            "strength": (
                self.strength is not None and not 0 < self.strength <= 1,
                "above 0, up to 1",
            ),
            "side": (self.side < 64 or self.side % GRID != 0, f"a multiple of {GRID}, at least 64"),
            "dtype": (self.dtype not in DTYPES, f"one of {', '.join(DTYPES)}"),
            "languages": (not self.languages, "at least one language of the prompt catalogue"),
        }
        for name, (is_wrong, allowed) in wrong.items():
            if is_wrong:
                raise SynthesisError(
                    f"generator {self.model}: {name}={getattr(self, name)!r}; allowed: {allowed}"
                )


def _is(value: Any, kind: Any) -> bool:
    """Whether `value` has the type of a setting; whole numbers will do where numbers are wanted, yes and no won't."""
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    kinds = get_args(kind) or (kind,)
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def rank_and_world() -> tuple[int, int]:
    """(number of this process, number of processes), as torchrun's RANK and WORLD_SIZE say; (0, 1) without them.
    Raises SynthesisError when they contradict each other."""
    rank, world = _environment_number("RANK", 0), _environment_number("WORLD_SIZE", 1)
    if not 0 <= rank < world:
        raise SynthesisError(
            f"RANK={rank} with WORLD_SIZE={world}: start the processes with torchrun, or unset both"
        )
    return rank, world


def _environment_number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    if value and not value.isdigit():
        raise SynthesisError(
            f"the environment variable {name}={value!r} is no number; torchrun sets it, else unset it"
        )
    return int(value) if value else default


def choose_device(device: str) -> str:
    """The torch device for a setting: "auto" is the GPU of this process's LOCAL_RANK where there are GPUs, else the
    CPU. Raises SynthesisError for a device that this machine hasn't."""
    import torch

    count = torch.cuda.device_count()
    if device == "auto":
        device = f"cuda:{_environment_number('LOCAL_RANK', 0)}" if count else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise SynthesisError(
            f"device={device}: no device of torch; give cpu, cuda, cuda:1 or auto"
        ) from error
    if wanted.type == "cuda" and (wanted.index or 0) >= count:
        raise SynthesisError(
            f"device={device}: this machine has {count} GPUs that torch can use. "
            "Start as many processes as there are GPUs (torchrun --nproc-per-node), or set device=cpu."
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
    """The folder that `model` names, or None when it is a hub id. Raises SynthesisError, naming `what`, when it reads
    like a path and there is no such folder."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or model.startswith((".", "~")) or len(folder.parts) != 2:
        raise SynthesisError(
            f"{what} {model}: no such folder. Give a folder of diffusers weights, or a hub id."
        )
    return None


def hub_answers() -> bool:
    """Whether the hub can be reached. The hub's own client retries each file of a model for half a minute."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # of the HTTP library in use, whichever that is, or OfflineModeIsEnabled
        return False
    return True


@contextmanager
def loading(what: str, model: str) -> Iterator[None]:
    """Turns whatever goes wrong while `model` is loaded into a SynthesisError that says what to do; `what` says whose
    weights they are."""
    try:
        yield
    except RealDamageError:
        raise
    except Exception as error:
        if _out_of_memory(error):
            why = "memory ran out. A smaller dtype (bfloat16), offload=true or a smaller model needs less."
        else:
            why = f"{_short(error)}. {_remedy(error, model)}"
        raise SynthesisError(f"{what} {model} could not be loaded: {why}") from error


@contextmanager
def running(name: str, key: str) -> Iterator[None]:
    """Turns what goes wrong while the pipeline class `name` runs into a SynthesisError; `key`: the configuration key of
    its generator."""
    try:
        yield
    except RealDamageError:
        raise
    except Exception as error:
        if _out_of_memory(error):
            _free_memory()
            raise SynthesisError(
                f"{name} ran out of memory ({_short(error)}). Set {key}.side smaller (or recipe.source.max_side, for "
                f"an editor), {key}.offload=true or {key}.dtype=bfloat16, or use fewer recipe.workers. "
                "What was made is kept; run the same command to go on."
            ) from error
        raise SynthesisError(
            f"{name} failed ({_short(error)}); check the settings of {key}"
        ) from error


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    says_so = any(
        words in text for words in ("out of memory", "can't allocate memory", "not enough memory")
    )
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and says_so)


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _remedy(error: BaseException, model: str) -> str:
    """What to do about an error of diffusers or of the hub, told by the classes of all errors behind it."""
    names: set[str] = set()
    cause: BaseException | None = error
    while cause is not None:
        names.update(kind.__name__ for kind in type(cause).__mro__)
        cause = cause.__cause__ or cause.__context__
    if Path(model).expanduser().is_dir():
        return "The folder must hold what save_pretrained() or `hf download` wrote, of this variant if one is set."
    if names & {"GatedRepoError"}:
        return f"Accept its licence at https://huggingface.co/{model} and log in: hf auth login."
    if names & {"RepositoryNotFoundError", "RevisionNotFoundError"}:
        return "The hub has no such model, or it is private (then: hf auth login)."
    if names & {
        "LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError", "TransportError",
        "TimeoutError", "TimeoutException", "HfHubHTTPError",
    }:  # fmt: skip
        return (
            "It is not in the cache and the hub can't be reached. Where there is a network: "
            f"hf download {model} --local-dir FOLDER; then give that folder as the model."
        )
    return "Is it a diffusers model, and is the variant (if one is set) among its files?"
