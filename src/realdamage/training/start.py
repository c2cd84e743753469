"""What a training run needs before it costs anything: photos, and a folder of its own or a checkpoint to go on from.
Imports no torch, so that a mistake in the call is told at once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from realdamage.configuration import plain
from realdamage.inference.errors import ConfigError, MissingModelError
from realdamage.training.settings import FREE, changed_settings

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
"""In the folder of a run: what it was trained with, resolved."""

# More than a fold may change: how long it trains, where, and what is looked at on the way.
_FREE_TO_RESUME = (*FREE, "trainer", "callbacks", "monitor", "demo")


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
