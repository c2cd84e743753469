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
from hydra.errors import HydraException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from realdamage import configuration
from realdamage.inference.errors import ConfigError, MissingExtraError, ModelFileError
from realdamage.training.classifier import MONITORED, DamageClassifier, read_checkpoint
from realdamage.training.datamodule import DamageDataModule
from realdamage.training.progress import PlainProgress
from realdamage.training.record import training_record

log = logging.getLogger(__name__)


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
        clean_views=classifier.loss_weights.consistency > 0,
    )
    callbacks = [instantiate("callbacks", name, config.callbacks[name]) for name in config.callbacks]
    loggers = [instantiate("logger", name, config.logger[name]) for name in config.logger]
    callbacks, loggers = [made for made in callbacks if made], [made for made in loggers if made]
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
        raise ConfigError(f"trainer: {error} On a machine without a GPU, say trainer=cpu.") from error
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
    if config.resume == "last" and not last.is_file():
        log.info("resume=last: %s holds no checkpoint yet; starting a new run", config.paths.run)
        return None
    return last if config.resume else None


def check_resumable(path: Path, classifier: DamageClassifier) -> None:
    """Raises ModelFileError when the checkpoint cannot be read or holds another architecture than this run's."""
    found, wanted = read_checkpoint(path)["state_dict"], classifier.state_dict()
    wrong = [name for name in {*found, *wanted} if name not in found or name not in wanted]
    wrong += [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
    if wrong:
        raise ModelFileError(
            f"resume={path}: a checkpoint of another architecture than this run's, {classifier.hparams['backbone']} "
            f"with adapt={classifier.adaptation.strategy} ({len(wrong)} weights differ, such as {min(wrong)}). "
            "Resume with the settings of that run, or start another with name=…"
        )


def run(config: DictConfig) -> None:
    """Trains, and says where the checkpoints are."""
    for message in (".*does not have many workers.*", ".*exists and is not empty.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    resume = checkpoint_to_resume(config)
    trainer, classifier, datamodule = build(config)
    if resume:
        check_resumable(resume, classifier)
    if trainer.is_global_zero:
        for name in ("best.ckpt", "last.ckpt") if config.overwrite and not resume else ():
            (Path(config.paths.run) / name).unlink(missing_ok=True)
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
