"""What an engine is: one generator of a recipe, loaded, that makes AI edits of real photos.

To add one, write a class with the members of `Engine` and name it in a recipe as `engine:
my_module:MyEngine`. All randomness comes from the generator that the caller passes in, so a
recipe's seed fixes every photo.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from realdamage.errors import RealDamageError, SynthesisError

RGB = NDArray[np.uint8]
Mask = NDArray[np.bool_]

ENGINES = {
    "codec": "realdamage.synthesis.codec:Codec",
    "inpaint": "realdamage.synthesis.diffusion:Inpaint",
    "edit": "realdamage.synthesis.diffusion:Editor",
}
"""The engines of the package. A recipe may also give the `module:Class` of another one."""


@dataclass(frozen=True)
class Edit:
    """An edited photo.

    rgb: uint8 [h, w, 3], the same size as the photo that went in.
    mask: bool [h, w], the pixels that were painted or regenerated (blend above 0.5).
    damage: the damage type that was added, or "".
    details: how it was made (model, prompt, seed, …), by manifest column.
    """

    rgb: RGB
    mask: Mask
    damage: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass
class GeneratorSettings:
    """A generator of a recipe.

    weights: a hub id, folder or file, as the engine takes it; null leaves the generator out.
    family: of the manifest; generators of one family are left out of training together.
    engine: a name of ENGINES, or module:Class.
    options: further settings of the engine.
    """

    weights: str | None = None
    family: str = ""
    engine: str = "codec"
    options: dict[str, Any] | None = None


class Engine(Protocol):
    """A loaded generator; `kinds` and the flags are known before it is loaded."""

    kinds: ClassVar[Sequence[str]]
    """The kinds of photos that it makes: ai_region, ai_whole or both."""
    uses_prompts: ClassVar[bool]
    """Whether its edits depend on the prompt catalogue."""
    fills_machine: ClassVar[bool]
    """Whether a second process would have to wait for it, as for a GPU."""

    def __init__(self, name: str, settings: GeneratorSettings, prompts: Mapping[str, Any]) -> None:
        """Loads the weights. name: of the generator. prompts: the configuration's `prompts`."""

    def apply(self, rgb: RGB, kind: str, damage: str, rng: np.random.Generator) -> Edit:
        """Edits rgb: uint8 [h, w, 3], as one of `kinds`; "" adds no damage. The same photo and
        random state give the same edit."""
        ...


def engine_class(engine: str) -> type[Engine]:
    """The class behind a recipe's `engine`. Raises SynthesisError."""
    module, colon, name = ENGINES.get(engine, engine).partition(":")
    known = f"give one of {', '.join(ENGINES)}, or module:Class"
    if not colon:
        raise SynthesisError(f"engine={engine}: unknown; {known}", code="unknown_engine")
    try:
        return cast(type[Engine], getattr(import_module(module), name))
    except (ImportError, AttributeError) as error:
        raise SynthesisError(f"engine={engine}: {error}; {known}", code="unknown_engine") from error


def random_region(shape: tuple[int, ...], rng: np.random.Generator) -> Mask:
    """A random blob, bool [h, w], of 1–3 ellipses, not shaped like any object and never empty."""
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
    region[min(height - 1, max(0, int(cy))), min(width - 1, max(0, int(cx)))] = True
    return region


# Weights of `diffusers`, from a folder or the hub, for the codecs and the diffusion engines.


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
        why = (
            f"{short(error)}. Give a folder that save_pretrained() wrote, or a hub id. Without a "
            f"network: hf download {model} --local-dir FOLDER, then that folder. A gated or "
            "private model needs hf auth login."
        )
        if out_of_memory(error):
            why = "memory ran out. Set offload=true, or use a smaller model."
        message = f"{what} {model} could not be loaded: {why}"
        raise SynthesisError(message, code="bad_weights") from error


def short(error: BaseException) -> str:
    """Class and first words of an error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def out_of_memory(error: BaseException) -> bool:
    """Whether memory of the machine or of a GPU ran out."""
    said = ("out of memory", "can't allocate memory", "not enough memory")
    by_torch = isinstance(error, RuntimeError) and any(each in str(error).lower() for each in said)
    return by_torch or isinstance(error, MemoryError)
