"""What a training run needs before it costs anything: photos, and a folder of its own or a checkpoint to go on from.
Imports no torch, so that a mistake in the call is told at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from realdamage.configuration import plain
from realdamage.errors import ConfigError, MissingModelError, RealDamageError
from realdamage.training.settings import FREE, changed_settings

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
"""In the folder of a run: what it was trained with, resolved."""

# More than a fold may change: how long it trains, where, and what is looked at on the way.
_FREE_TO_RESUME = (*FREE, "trainer", "callbacks", "monitor", "demo", "debug")
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


def check_photos(config: DictConfig) -> None:
    """Raises ConfigError when `data.root` is not there and no recipe makes it."""
    root = config.data.root
    if not config.data.recipe and not Path(root).exists():
        raise ConfigError(
            f"data.root={root}: no such file or folder. Name the folder of the photos, or a table of them, or let "
            "data.recipe make them there."
        )


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keeps a second run out of the folder. The kernel releases the lock when the process dies. Only the first process
    of a distributed run takes it, so the others may enter. Raises ConfigError when another run holds the folder, and
    RealDamageError when it cannot be written."""
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
            f"{folder}: another run is writing into this folder. Wait until it ends, or choose another folder with "
            "name=…"
        ) from None
    except OSError as error:
        raise RealDamageError(
            f"{folder}: cannot be written ({error.strerror or error}). Choose another folder with paths.out=…"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows does not remove an open file
            path.unlink()
        lock.release()


def checkpoint_to_resume(config: DictConfig) -> Path | None:
    """The checkpoint that `resume` names. Raises ConfigError when the folder holds a run that this one would replace
    without `overwrite`, or a debug run would change a real one, and MissingModelError when the named checkpoint is not
    there."""
    folder = Path(config.paths.run)
    last = folder / "last.ckpt"
    had = folder / CONFIG
    if config.debug and had.is_file() and not OmegaConf.select(OmegaConf.load(had), "debug"):
        raise ConfigError(
            f"{folder} holds a real run, which a debug run must not change. Leave out paths.run and hydra.run.dir, or "
            "name another folder; if nobody needs that run, remove its folder"
        )
    if config.resume not in (None, "last"):
        if not Path(config.resume).is_file():
            raise MissingModelError(
                f"resume={config.resume}: no such file. Give a .ckpt, or resume=last."
            )
        _check_settings(config, Path(config.resume))
        return Path(config.resume)
    if config.resume is None and last.is_file() and not config.overwrite:
        raise ConfigError(
            f"{config.paths.run} already holds a run. Go on with resume=last, start over with overwrite=true, "
            "or choose another folder with name=…"
        )
    if config.resume == "last" and not last.is_file():
        log.info("resume=last: %s holds no checkpoint yet; starting a new run", config.paths.run)
        return None
    if config.resume:
        _check_settings(config, last)
        return last
    return None


def _check_settings(config: DictConfig, checkpoint: Path) -> None:
    """Raises ConfigError naming what differs from the settings that the checkpoint's run began with: optimizer and
    schedule come from the checkpoint, so new ones would be recorded and not be taken."""
    began_with = checkpoint.parent / CONFIG
    if not began_with.is_file():
        return
    had: Any = OmegaConf.to_container(OmegaConf.load(began_with))
    if changed := changed_settings(had, plain(config), _FREE_TO_RESUME):
        raise ConfigError(
            f"resume={config.resume}: {checkpoint} was trained with other settings: {'; '.join(changed)}. Resume with "
            f"those, or start a new run from its weights: model.weights={checkpoint} name=…"
        )
