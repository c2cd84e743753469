"""Weights of `diffusers`, from a folder or the hub: errors that say what to do. For the codecs and
the diffusion engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from realdamage.errors import RealDamageError, SynthesisError

_UNREACHABLE = {
    *("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError"),
    *("TransportError", "TimeoutError", "TimeoutException", "HfHubHTTPError"),
}


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
        if out_of_memory(error):
            why = "memory ran out. Set dtype=bfloat16 or offload=true, or use a smaller model."
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


def _remedy(error: BaseException, model: str) -> str:
    """What to do about an error of diffusers or the hub, by the classes of all errors behind it."""
    if Path(model).expanduser().is_dir():
        return "The folder must hold what save_pretrained() or `hf download` wrote."
    names: set[str] = set()
    cause: BaseException | None = error
    while cause is not None:
        names.update(kind.__name__ for kind in type(cause).__mro__)
        cause = cause.__cause__ or cause.__context__
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
