"""A training run from its configuration to its last line: what trains, what it records, and what to type next."""

from __future__ import annotations

import datetime
import logging
import math
import shlex
import sys
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
from hydra.errors import HydraException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from realdamage.commit import git_commit
from realdamage.core.progress import SECONDS_BETWEEN_LINES
from realdamage.errors import ConfigError, MissingExtraError, ModelFileError
from realdamage.schema import MONITORED, TrainConfig
from realdamage.training.datamodule import DamageDataModule
from realdamage.training.dataset import Batch
from realdamage.training.module import MIN_REAL_FOR_1_PERCENT, DamageClassifier
from realdamage.training.network import read_checkpoint
from realdamage.training.start import CONFIG

# What Lightning says about its own defaults, with paths of this library; users cannot act on any of it.
_NOISE = (
    ".*does not have many workers.*",
    ".*exists and is not empty.*",
    ".*LeafSpec.*",
    ".*is smaller than the logging interval.*",
    ".*module.s. in eval mode at the start of training.*",  # frozen ones stay there
    ".*dirpath has changed.*",
)
_NEEDS = {
    "val/auroc": "real and synthetic photos",
    "val/tpr_at_fpr_1_all_real": f"{MIN_REAL_FOR_1_PERCENT} real photos and some synthetic ones",
    "val/localisation_ap": "synthetic photos with a mask",
}


def fit(config: DictConfig, resume: Path | None) -> None:
    """Trains and prints where the checkpoints are. `resume`: the checkpoint to continue from.

    Raises ConfigError, ManifestError, PhotoError and ModelFileError; KeyboardInterrupt with the next command.
    """
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    trainer, classifier, datamodule = build(config)
    steps_before = check_resumable(resume, classifier) if resume else None
    if trainer.is_global_zero:
        sizes = [(p.numel(), p.requires_grad) for p in classifier.network.parameters()]
        count, learning = sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns)
        print(
            f"{config.model.backbone}: {count / 1e6:.1f} million parameters, {learning / 1e6:.1f} million learn",
            flush=True,
        )
    try:
        trainer.fit(classifier, datamodule=datamodule, ckpt_path=resume, weights_only=True)
    except (
        SystemExit
    ):  # how Lightning ends on Ctrl-C (with code 1) and on SIGTERM (with 0, as if it were done)
        if not trainer.is_global_zero:
            raise
        raise KeyboardInterrupt(how_to_continue(trainer, config, resume)) from None
    if trainer.is_global_zero:
        if trainer.global_step == steps_before:
            print(
                f"already at epoch {trainer.current_epoch} of {trainer.max_epochs}; raise trainer.max_epochs or "
                "trainer.max_steps to go on"
            )
        print_ending(trainer, config.monitor)


def build(config: DictConfig) -> tuple[L.Trainer, DamageClassifier, DamageDataModule]:
    """Trainer, module and data module of a composed configuration. Raises ConfigError naming the key, ModelFileError
    and MissingExtraError."""
    settings: Any = OmegaConf.to_object(config)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    L.seed_everything(settings.seed, workers=True, verbose=False)
    classifier = DamageClassifier(settings.model, settings.adapt, training_record(settings))
    datamodule = DamageDataModule(settings.data, classifier.pixel_spec, settings.seed)
    callbacks = _instantiate("callbacks", config.callbacks)
    figures = {*MONITORED, "val/loss", *(f"train/{name}" for name in ("loss", *classifier.losses))}
    for made in callbacks:
        if getattr(made, "monitor", None) not in {None, *figures}:
            raise ConfigError(
                f"callbacks: no figure {made.monitor} to monitor; there are {', '.join(sorted(figures))}"
            )
    terminal = sys.stdout.isatty()
    callbacks += [RunFolder(config), *([] if terminal else [PlainProgress()])]
    try:
        trainer = L.Trainer(
            **vars(settings.trainer),
            num_sanity_val_steps=0,
            enable_progress_bar=terminal,
            enable_model_summary=False,
            callbacks=callbacks,
            logger=_instantiate("logger", config.logger) or False,
            default_root_dir=settings.paths.run,
            use_distributed_sampler=False,  # EpochSampler and WholePhotoSampler share the photos out themselves
        )
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(
            f"trainer: {error} On a machine without a GPU, use trainer=cpu."
        ) from error
    return trainer, classifier, datamodule


def _instantiate(group: str, nodes: DictConfig) -> list[Any]:
    """Callbacks or loggers by their `_target_`, without those set to null."""
    made = []
    for name, node in nodes.items():
        if not node:
            continue
        try:
            made.append(hydra.utils.instantiate(node))
        except (ImportError, HydraException) as error:
            missing = error if isinstance(error, ImportError) else error.__cause__
            if not isinstance(missing, ImportError):
                raise ConfigError(f"{group}.{name}: {error}") from error
            raise MissingExtraError(f"{group}={name}", str(name), missing.name) from error
    return made


def training_record(settings: TrainConfig) -> dict[str, Any]:
    """What a run writes about itself into the checkpoint, and from there into the exported file: plain values. The
    data module adds the manifest's digest and the audit's verdict."""
    return {
        "experiment": settings.name,
        "demo": settings.demo,
        "seed": settings.seed,
        "git_commit": git_commit(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "realdamage": version("realdamage"),
        "audit": "not run",
    }


def check_resumable(path: Path, classifier: DamageClassifier) -> int:
    """The steps that the checkpoint has taken. Raises ModelFileError: it cannot be read, or holds another
    architecture."""
    checkpoint = read_checkpoint(path)
    found, wanted = checkpoint["state_dict"], classifier.state_dict()
    wrong = [
        name
        for name in {*found, *wanted}
        if name not in found or name not in wanted or found[name].shape != wanted[name].shape
    ]
    if wrong:
        raise ModelFileError(
            f"resume={path}: a checkpoint of another architecture than this run's, {classifier.model.backbone} with "
            f"adapt={classifier.adapt.strategy} ({len(wrong)} weights differ, such as {min(wrong)}). Resume with the "
            "settings of that run, or start another with name=…",
            code="other_architecture",
        )
    return int(checkpoint["global_step"])


class RunFolder(L.Callback):
    """Writes the resolved configuration into the run's folder, and removes the checkpoints of the run that it replaces.

    It waits for the first step: a call that fails earlier leaves the old run as it was.
    """

    def __init__(self, config: DictConfig) -> None:
        self._config = config

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(self._config.paths.run)
        folder.mkdir(parents=True, exist_ok=True)
        if self._config.overwrite and not self._config.resume:
            for name in ("best.ckpt", "last.ckpt"):
                (folder / name).unlink(missing_ok=True)
        OmegaConf.save(self._config, folder / CONFIG, resolve=True)


class PlainProgress(L.Callback):
    """Progress where there is no terminal: one line per epoch, and some inside long epochs."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._printed = self._started = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        now = time.monotonic()
        if trainer.is_global_zero and now - self._printed >= 3 * SECONDS_BETWEEN_LINES:
            self._printed = now
            done, total = batch_idx + 1, int(trainer.num_training_batches)
            rest = (now - self._started) / done * (total - done)
            print(f"{_epoch(trainer)}: step {done}/{total}, about {rest:.0f} s left", flush=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            shown = _figures(
                {**trainer.logged_metrics, **trainer.callback_metrics}, "train/loss", "val/"
            )
            seconds = time.monotonic() - self._started
            print(f"{_epoch(trainer)}: {shown}  ({seconds:.0f} s)", flush=True)


def _epoch(trainer: L.Trainer) -> str:
    """Counted from 1, as in `trainer.max_epochs`; Lightning counts from 0."""
    limited = (trainer.max_epochs or 0) > 0
    return f"epoch {trainer.current_epoch + 1}" + (f" of {trainer.max_epochs}" if limited else "")


def _figures(logged: Mapping[str, Any], *prefixes: str) -> str:
    """The measured ones of the figures with these prefixes, for a line of text."""
    values = {name: float(logged[name]) for name in sorted(logged) if name.startswith(prefixes)}
    return "  ".join(
        f"{name} {value:.3f}" for name, value in values.items() if math.isfinite(value)
    )


def how_to_continue(trainer: L.Trainer, config: DictConfig, resume: Path | None) -> str:
    """What to type after an interruption. A last.ckpt from before the first step is that of the run to be replaced."""
    arguments = [each for each in sys.argv[1:] if not each.startswith(("resume=", "overwrite="))]
    if (Path(config.paths.run) / "last.ckpt").is_file() and (resume or trainer.global_step):
        command = shlex.join(["realdamage-train", *arguments, "resume=last"])
        return f"continue from the last finished epoch: {command}"
    return "no epoch was finished; run the same command to start again"


def print_ending(trainer: L.Trainer, monitor: str) -> None:
    """Prints the best checkpoint by `monitor`, or why there is none, and the next command."""
    kept = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    best = next((each for each in kept if each.monitor == monitor), None)
    last = next((each for each in kept if each.monitor is None), None)
    # A resumed run in a folder that was moved does not know the score any more.
    score = best.best_model_score if best else None
    measured = best is not None and (score is None or math.isfinite(float(score)))
    path = _checkpoint(best) if measured else ""
    if path:
        print(f"best checkpoint by {monitor}: {path}")
    if shown := _figures(trainer.logged_metrics, "val/"):
        print(f"last epoch: {shown}")
    if not path:
        path = _checkpoint(last)
        if best is not None:
            print(
                f"no best checkpoint: {monitor} was not measured, {_why_unmeasured(trainer, monitor)}. "
                + (
                    f"{path} holds the last epoch."
                    if path
                    else "callbacks.last=null keeps no other."
                )
            )
    if path:
        print(f"next: realdamage-export checkpoint={path}")


def _checkpoint(kept: ModelCheckpoint | None) -> str:
    """The checkpoint's path, "" if there is none. A resumed run remembers its first folder, but may have been moved."""
    if kept is None or not kept.best_model_path:
        return ""
    own = Path(kept.dirpath or "") / Path(kept.best_model_path).name
    return str(own) if own.is_file() else kept.best_model_path


def _why_unmeasured(trainer: L.Trainer, monitor: str) -> str:
    every = trainer.check_val_every_n_epoch or 0
    if trainer.limit_val_batches == 0:
        return "as trainer.limit_val_batches=0 switches validation off"
    if every > trainer.current_epoch:
        return f"as trainer.check_val_every_n_epoch={every} is more than this run's {trainer.current_epoch} epochs"
    return (
        f"as it needs {_NEEDS[monitor]}, which the {int(trainer.num_val_batches[0])} validated photos lack "
        f"(trainer.limit_val_batches={trainer.limit_val_batches})"
    )
