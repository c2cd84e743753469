"""`realdamage-train +experiment=quickstart`: fine-tunes a ViT; keeps the best and the last checkpoint in the run's
folder."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf

from realdamage import configuration
from realdamage.inference.errors import ConfigError, ModelFileError
from realdamage.training.classifier import DamageClassifier
from realdamage.training.datamodule import DamageDataModule
from realdamage.training.progress import PlainProgress
from realdamage.training.record import training_record

log = logging.getLogger(__name__)


def build(config: DictConfig) -> tuple[L.Trainer, DamageClassifier, DamageDataModule]:
    """Trainer, module and data module of a composed configuration. Raises errors of ours that name the key."""
    if config.threads:
        torch.set_num_threads(config.threads)
    L.seed_everything(config.seed, workers=True, verbose=False)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    record = training_record(config.name, demo=config.demo, seed=config.seed)
    classifier = DamageClassifier(**plain["model"], adapt=plain["adapt"], record=record)
    datamodule = DamageDataModule(**plain["data"], pixel_spec=classifier.pixel_spec.to_dict(), seed=config.seed)
    callbacks = [hydra.utils.instantiate(callback) for callback in config.callbacks.values() if callback]
    loggers = [hydra.utils.instantiate(logger) for logger in config.logger.values() if logger]
    terminal = sys.stdout.isatty()
    if not terminal:
        callbacks.append(PlainProgress())
    trainer = L.Trainer(
        **plain["trainer"],
        enable_progress_bar=terminal,
        enable_model_summary=False,
        callbacks=callbacks,
        logger=loggers or False,
        default_root_dir=config.paths.run,
        use_distributed_sampler=False,  # EpochSampler and WholePhotoSampler share the photos out themselves
    )
    return trainer, classifier, datamodule


def checkpoint_to_resume(config: DictConfig) -> Path | None:
    """The checkpoint that `resume` names. Raises ConfigError when the folder holds a run that nobody said to go on
    with, and ModelFileError when the named checkpoint is not there."""
    last = Path(config.paths.run) / "last.ckpt"
    if config.resume not in (None, "last"):
        if not Path(config.resume).is_file():
            raise ModelFileError(f"resume={config.resume}: no such file. Give a .ckpt, or resume=last.")
        return Path(config.resume)
    if config.resume is None and last.is_file() and not config.overwrite:
        raise ConfigError(
            f"{config.paths.run} already holds a run. Go on with resume=last, start over with overwrite=true, "
            "or choose another folder with name=…"
        )
    return last if config.resume == "last" and last.is_file() else None


def run(config: DictConfig) -> None:
    """Trains, and says where the checkpoints are."""
    for message in (".*does not have many workers.*", ".*exists and is not empty.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    resume = checkpoint_to_resume(config)
    trainer, classifier, datamodule = build(config)
    if trainer.is_global_zero:
        Path(config.paths.run).mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, Path(config.paths.run) / "config.yaml", resolve=True)
        count = sum(p.numel() for p in classifier.network.parameters())
        learning = sum(p.numel() for p in classifier.network.parameters() if p.requires_grad)
        print(
            f"{config.model.backbone}: {count / 1e6:.1f} million parameters, {learning / 1e6:.1f} million learn",
            flush=True,
        )
    trainer.fit(classifier, datamodule=datamodule, ckpt_path=resume, weights_only=True)
    best = getattr(trainer.checkpoint_callback, "best_model_path", "")
    if trainer.is_global_zero and best:
        figures = "  ".join(
            f"{name} {value:.3f}" for name, value in sorted(trainer.logged_metrics.items()) if "val/" in name
        )
        print(f"best checkpoint by {config.monitor}: {best}\nlast epoch: {figures}")
        print(f"next: realdamage-export checkpoint={best}")


def main() -> None:
    """Entry point of the command."""
    configuration.run("train", run)


if __name__ == "__main__":
    main()
