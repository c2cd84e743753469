"""From a composed configuration to what trains: trainer, module and data module."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
from hydra.errors import HydraException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from realdamage.errors import ConfigError, MissingExtraError, ModelFileError
from realdamage.training.classifier import MONITORED, DamageClassifier, read_checkpoint
from realdamage.training.datamodule import DamageDataModule
from realdamage.training.ending import MissingFigures
from realdamage.training.progress import PlainProgress
from realdamage.training.record import training_record
from realdamage.training.run_folder import RunFolder


def build(config: DictConfig) -> tuple[L.Trainer, DamageClassifier, DamageDataModule]:
    """Trainer, module and data module of a composed configuration. Raises errors of ours that name the key."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.monitor not in MONITORED:
        raise ConfigError(f"monitor={config.monitor}: allowed are {', '.join(MONITORED)}")
    L.seed_everything(config.seed, workers=True, verbose=False)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    record = training_record(config.name, demo=config.demo, seed=config.seed)
    classifier = DamageClassifier(**plain["model"], adapt=plain["adapt"], record=record)
    datamodule = DamageDataModule(
        **plain["data"],
        pixel_spec=classifier.pixel_spec.to_dict(),
        seed=config.seed,
    )
    callbacks = [
        instantiate("callbacks", name, config.callbacks[name]) for name in config.callbacks
    ]
    loggers = [instantiate("logger", name, config.logger[name]) for name in config.logger]
    callbacks, loggers = [made for made in callbacks if made], [made for made in loggers if made]
    figures = {
        *MONITORED,
        "val/loss",
        "train/loss",
        *(f"train/{name}" for name in plain["model"]["loss"]),
    }
    for made in callbacks:
        if getattr(made, "monitor", None) not in {None, *figures}:
            raise ConfigError(
                f"callbacks: no figure {made.monitor} to monitor; there are {', '.join(sorted(figures))}"
            )
    callbacks += [
        RunFolder(config, start_over=config.overwrite and not config.resume),
        MissingFigures(),
    ]
    terminal = sys.stdout.isatty()
    if not terminal:
        callbacks.append(PlainProgress())
    try:
        trainer = L.Trainer(
            **plain["trainer"],
            enable_progress_bar=terminal,
            enable_model_summary=False,
            callbacks=callbacks,
            logger=loggers or False,
            default_root_dir=config.paths.run,
            use_distributed_sampler=False,  # EpochSampler and WholePhotoSampler share the photos out themselves
        )
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(
            f"trainer: {error} On a machine without a GPU, say trainer=cpu."
        ) from error
    return trainer, classifier, datamodule


def instantiate(group: str, name: str, node: DictConfig | None) -> Any:
    """The callback or logger of a `_target_`; None for null. Raises MissingExtraError for a logger whose package is
    not installed."""
    if not node:
        return None
    try:
        return hydra.utils.instantiate(node)
    except (ImportError, HydraException) as error:
        causes = (error, error.__cause__)
        missing = next((cause for cause in causes if isinstance(cause, ImportError)), None)
        if missing is None:
            raise ConfigError(f"{group}.{name}: {error}") from error
        raise MissingExtraError(f"{group}={name}", name, getattr(missing, "name", None)) from error


def check_resumable(path: Path, classifier: DamageClassifier) -> int:
    """The steps that the checkpoint has taken. Raises ModelFileError when it cannot be read or holds another
    architecture than this run's."""
    checkpoint = read_checkpoint(path)
    found, wanted = checkpoint["state_dict"], classifier.state_dict()
    wrong = [name for name in {*found, *wanted} if name not in found or name not in wanted]
    wrong += [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
    if wrong:
        raise ModelFileError(
            f"resume={path}: a checkpoint of another architecture than this run's, {classifier.hparams['backbone']} "
            f"with adapt={classifier.adaptation.strategy} ({len(wrong)} weights differ, such as {min(wrong)}). "
            "Resume with the settings of that run, or start another with name=…"
        )
    return int(checkpoint["global_step"])
