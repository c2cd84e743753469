"""What a training run needs before it costs anything: photos, and a folder of its own or a checkpoint to go on from.
Imports no torch, so that a mistake in the call is told at once."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from realdamage.inference.errors import ConfigError, MissingModelError

log = logging.getLogger(__name__)


def check_photos(config: DictConfig) -> None:
    """Raises ConfigError when `data.root` is not there and no recipe makes it."""
    root = config.data.root
    if not config.data.recipe and not Path(root).exists():
        raise ConfigError(
            f"data.root={root}: no such file or folder. Name the folder of the photos, or a table of them, or let "
            "data.recipe make them there."
        )


def checkpoint_to_resume(config: DictConfig) -> Path | None:
    """The checkpoint that `resume` names. Raises ConfigError when the folder holds a run that nobody said to go on
    with, and MissingModelError when the named checkpoint is not there."""
    last = Path(config.paths.run) / "last.ckpt"
    if config.resume not in (None, "last"):
        if not Path(config.resume).is_file():
            raise MissingModelError(f"resume={config.resume}: no such file. Give a .ckpt, or resume=last.")
        return Path(config.resume)
    if config.resume is None and last.is_file() and not config.overwrite:
        raise ConfigError(
            f"{config.paths.run} already holds a run. Go on with resume=last, start over with overwrite=true, "
            "or choose another folder with name=…"
        )
    if config.resume == "last" and not last.is_file():
        log.info("resume=last: %s holds no checkpoint yet; starting a new run", config.paths.run)
        return None
    return last if config.resume else None
