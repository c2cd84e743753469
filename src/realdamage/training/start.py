"""A training run's folder: one run at a time, and the checkpoint to resume.

Does not import torch, so that a mistake in the call is reported immediately.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from realdamage.configuration import plain
from realdamage.errors import ConfigError, MissingModelError, RealDamageError
from realdamage.files import write_atomically
from realdamage.schema import TrainConfig

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
"""In the folder of a run: its resolved configuration."""
FINISHED = "finished.json"
"""In the folder of a run that came to its end: which checkpoint and which photos it ended with."""

# These do not change what is learned.
_FREE_DATA = ("data.workers", "data.cache_gib")
FREE = ("name", "resume", "overwrite", "threads", "paths", "logger", *_FREE_DATA)
# A resumed run may also train longer, elsewhere, and measure other things on the way.
_FREE_TO_RESUME = (*FREE, "trainer", "callbacks", "monitor", "demo", "debug")
_PATHS = ("data.root", "model.weights")
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keeps a second run out of the folder; the kernel releases the lock when the process dies.

    Only the first process of a distributed run takes it, so the others may enter. Raises
    ConfigError when another run holds the folder, and RealDamageError when it cannot be written.
    """
    if any(os.environ.get(name, "0") != "0" for name in _RANKS):
        yield
        return
    path = folder / ".lock"
    lock = FileLock(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigError(
            f"{folder}: another run is writing to this folder. Wait until it ends, or choose "
            "another folder with name=…",
            code="folder_in_use",
        ) from None
    except OSError as error:
        raise RealDamageError(
            f"{folder}: cannot be written ({error.strerror or error}). Choose another folder with "
            "paths.out=…",
            code="cannot_write",
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows does not remove an open file
            path.unlink()
        lock.release()


def checkpoint_to_resume(config: DictConfig) -> Path | None:
    """The checkpoint that `resume` names, None for a new run.

    Raises ConfigError when the folder holds a run that this one would replace without `overwrite`,
    or when settings differ from those of the checkpoint; MissingModelError when the checkpoint does
    not exist.
    """
    folder = Path(config.paths.run)
    last = folder / "last.ckpt"
    if config.resume is None:
        if last.is_file() and not config.overwrite:
            raise ConfigError(
                f"{folder} already holds a run. Continue it with resume=last, start over with "
                "overwrite=true, or choose another folder with name=…",
                code="folder_has_run",
            )
        return None
    checkpoint = last if config.resume == "last" else Path(config.resume)
    if not checkpoint.is_file():
        if config.resume == "last":
            log.info("resume=last: %s holds no checkpoint yet; starting a new run", folder)
            return None
        raise MissingModelError(
            f"resume={checkpoint}: no such file. Give a .ckpt, or resume=last.", code="no_such_file"
        )
    began_with = checkpoint.parent / CONFIG
    if began_with.is_file():
        values: Any = OmegaConf.to_container(OmegaConf.load(began_with))
        # Optimiser and schedule come from the checkpoint, so new settings would be recorded but not
        # used.
        if changed := changed_settings(values, plain(config), _FREE_TO_RESUME):
            raise ConfigError(
                f"resume={config.resume}: {checkpoint} was trained with other settings: "
                f"{'; '.join(changed)}. Resume with those, or start a new run from its weights: "
                f"model.weights={checkpoint} name=…",
                code="other_settings",
            )
    return checkpoint


@dataclass(frozen=True)
class FinishedRun:
    """How a run ended. last_sha256: of its last.ckpt. manifest_sha256: of its photos. best: the
    name of the best checkpoint. score: its figure; None: not measured."""

    last_sha256: str
    manifest_sha256: str
    best: str
    score: float | None

    def write(self, folder: Path) -> None:
        """Writes it into the run's folder."""
        write_atomically(folder / FINISHED, json.dumps(asdict(self), indent=2).encode())


def finished_run(config: DictConfig, resume: Path | None) -> FinishedRun | None:
    """How the run ended that `resume` would continue; None if it did not, or if any setting has
    changed since."""
    folder = Path(config.paths.run)
    files = (folder / FINISHED, folder / CONFIG)
    if config.overwrite or resume is None or resume != folder / "last.ckpt":
        return None
    if not all(each.is_file() for each in files):
        return None
    ended = FinishedRun(**json.loads(files[0].read_text()))
    had: Any = OmegaConf.to_container(OmegaConf.load(files[1]))
    same = ended.last_sha256 == file_sha256(resume) and not changed_settings(had, plain(config))
    return ended if same else None


def file_sha256(path: Path) -> str:
    """Digest (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changed_settings(
    had: Mapping[str, Any], wanted: Mapping[str, Any], free: tuple[str, ...] = FREE
) -> list[str]:
    """The settings that differ between two resolved configurations of realdamage-train, as "KEY was
    A, now B".

    free: keys, or groups of them, that may differ.
    """
    defaults = _flat(OmegaConf.to_container(OmegaConf.structured(TrainConfig)))
    before, after = _flat(had), _flat(wanted)
    changed = []
    for key in dict.fromkeys([*after, *before]):
        # A key that is new since then had its default; one that is gone was off.
        old, new = (each.get(key, defaults.get(key)) for each in (before, after))
        if key in _PATHS and old and new:
            old, new = Path(old).resolve(), Path(new).resolve()
        may_differ = any(f"{key}.".startswith(f"{each}.") for each in free)
        if (old or new) and old != new and not may_differ:
            changed.append(f"{key} was {old}, now {new}")
    return changed


def _flat(values: Any, above: str = "") -> dict[str, Any]:
    """{"data.root": …}; empty mappings count as absent."""
    if not isinstance(values, Mapping):
        return {above: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{above}.{key}" if above else str(key))
    return flat
