"""A training run from its configuration to its last line: what trains, what it records, and what to
type next."""

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

from realdamage.commit import git_commit
from realdamage.core.progress import SECONDS_BETWEEN_LINES
from realdamage.errors import ConfigError, ModelFileError, Stopped
from realdamage.schema import TrainConfig
from realdamage.training.callbacks import AtomicCheckpoints
from realdamage.training.datamodule import DamageDataModule
from realdamage.training.module import MIN_REAL_FOR_1_PERCENT, DamageClassifier
from realdamage.training.network import read_checkpoint
from realdamage.training.photos import TrainingPhotos
from realdamage.training.start import CONFIG, FINISHED, FinishedRun, file_sha256

log = logging.getLogger(__name__)

# What Lightning says about its own defaults, with paths of this library; users cannot act on any of
# it.
_NOISE = (
    ".*does not have many workers.*",
    ".*exists and is not empty.*",
    ".*LeafSpec.*",
    ".*is smaller than the logging interval.*",
    ".*module.s. in eval mode at the start of training.*",  # frozen ones stay there
    ".*dirpath has changed.*",
    ".*sync_dist=True.*",  # the figures are of all processes already
    ".*dataloader is not resumable.*",  # it is: DamageDataModule.state_dict
)
_NEEDS = {
    "val/auroc": "real and synthetic photos",
    "val/tpr_at_fpr_1_all_real": f"{MIN_REAL_FOR_1_PERCENT} real photos and some synthetic ones",
    "val/localisation_ap": "synthetic photos with a mask",
}


def fit(config: DictConfig, resume: Path | None, photos: TrainingPhotos | None) -> float | None:
    """Trains and logs where the checkpoints are. Returns the best figure (`config.monitor`), None
    if it was not measured.

    resume: the checkpoint to continue from. photos: None if a recipe has yet to make them.
    Raises ConfigError, ManifestError, PhotoError and ModelFileError; Stopped with the next command.
    """
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    logging.captureWarnings(True)  # into train.log too
    logging.getLogger("lightning").handlers.clear()  # the root's print its messages already
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    trainer, classifier, datamodule = build(config, photos)
    checkpoint = read_checkpoint(resume) if resume else {}
    if resume and (missing := classifier.state_dict().keys() - checkpoint["state_dict"].keys()):
        raise ModelFileError(
            f"{resume}: was written for another {config.model.backbone}: it lacks {min(missing)}. "
            "Train again with overwrite=true, or use the version that wrote it.",
            code="other_architecture",
        )
    steps_before = checkpoint.get("global_step")
    if trainer.is_global_zero:
        sizes = [(p.numel(), p.requires_grad) for p in classifier.network.parameters()]
        log.info(
            "%s: %.1f million parameters, %.1f million learn",
            config.model.backbone,
            sum(count for count, _ in sizes) / 1e6,
            sum(count for count, learns in sizes if learns) / 1e6,
        )
    try:
        trainer.fit(classifier, datamodule=datamodule, ckpt_path=resume, weights_only=True)
    except SystemExit as stop:
        if not trainer.is_global_zero:
            raise SystemExit from None  # with 0: at any other code the launcher kills all processes
        # LastCheckpoint ends with 130 or 143; without it, Lightning ends with 1 on Ctrl-C and with
        # None on SIGTERM.
        code = 130 if stop.code == 1 else int(stop.code or 143)
        raise Stopped(how_to_continue(trainer, config, resume), code) from None
    finally:
        logging.captureWarnings(False)
    if trainer.is_global_zero and trainer.global_step == steps_before:
        log.info("already at epoch %d; raise trainer.max_epochs to go on", trainer.current_epoch)
    last = Path(config.paths.run) / "last.ckpt"
    path, score = log_ending(trainer, config.monitor, last)
    if trainer.is_global_zero and last.is_file():
        digest = datamodule.describe()["manifest_sha256"]
        FinishedRun(file_sha256(last), digest, Path(path).name, score).write(last.parent)
    return score


def build(
    config: DictConfig, photos: TrainingPhotos | None = None
) -> tuple[L.Trainer, DamageClassifier, DamageDataModule]:
    """Trainer, module and data module of a composed configuration. Raises ConfigError and
    ModelFileError."""
    settings: Any = OmegaConf.to_object(config)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    L.seed_everything(settings.seed, verbose=False)
    classifier = DamageClassifier(settings.model, settings.adapt, training_record(settings))
    datamodule = DamageDataModule(settings.data, classifier.pixel_spec, settings.seed, photos)
    profiler = settings.trainer.profiler
    try:
        if isinstance(profiler, Mapping):
            profiler = hydra.utils.instantiate(config.trainer.profiler)
        trainer = L.Trainer(
            **{**vars(settings.trainer), "profiler": profiler},
            num_sanity_val_steps=0,
            enable_progress_bar=sys.stdout.isatty(),
            enable_model_summary=False,
            callbacks=[*_instantiate(config.callbacks), RunFolder(config), EpochLines()],
            plugins=[AtomicCheckpoints()],
            logger=_instantiate(config.logger) or False,
            default_root_dir=settings.paths.run,
            use_distributed_sampler=False,  # the data module has its own samplers
        )
    except HydraException as error:
        extras = ",".join(sorted({"tensorboard", "mlflow", "wandb"} & set(config.logger)))
        fix = f'. Install it: pip install "realdamage[{extras}]"' if extras else ""
        raise ConfigError(f"callbacks, logger, trainer.profiler: {error}{fix}") from error
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(
            f"trainer: {error} On a machine without a GPU, use trainer=cpu."
        ) from error
    return trainer, classifier, datamodule


def _instantiate(nodes: DictConfig) -> list[Any]:
    """Callbacks or loggers by their `_target_`, without those set to null."""
    return [hydra.utils.instantiate(node) for node in nodes.values() if node]


def training_record(settings: TrainConfig) -> dict[str, Any]:
    """What a run writes about itself into the checkpoint, and from there into the exported file:
    plain values. The data module adds the manifest's digest and the audit's verdict."""
    return {
        "experiment": settings.name,
        "demo": settings.demo,
        "seed": settings.seed,
        "git_commit": git_commit(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "realdamage": version("realdamage"),
        "audit": "not run",
    }


class RunFolder(L.Callback):
    """Writes the resolved configuration into the run's folder, and removes the checkpoints of the
    run that it replaces.

    It waits for the first step: a call that fails earlier leaves the old run as it was.
    """

    def __init__(self, config: DictConfig) -> None:
        self._config = config

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(self._config.paths.run)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FINISHED).unlink(missing_ok=True)
        for partial in folder.glob(".*.ckpt.*.tmp"):  # of a run killed while it wrote them
            partial.unlink()
        if self._config.overwrite and not self._config.resume:
            for name in ("best.ckpt", "last.ckpt"):
                (folder / name).unlink(missing_ok=True)
        OmegaConf.save(self._config, folder / CONFIG, resolve=True)


class EpochLines(L.Callback):
    """One line per epoch, and where there is no terminal with a progress bar, some inside long
    epochs."""

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._printed = self._started = time.monotonic()
        self._steps = 0

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.on_train_start(trainer)  # which alone is called when a run resumes inside an epoch

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        self._steps += 1
        bar = trainer.progress_bar_callback is not None
        late = now - self._printed >= 3 * SECONDS_BETWEEN_LINES
        if late and trainer.is_global_zero and not bar:
            self._printed = now
            done, total = batch_idx + 1, int(trainer.num_training_batches)
            rest = (now - self._started) / self._steps * (total - done)
            log.info("%s: step %d/%d, about %.0f s left", _epoch(trainer), done, total, rest)

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            logged = {**trainer.logged_metrics, **trainer.callback_metrics}
            seconds = time.monotonic() - self._started
            shown = _figures(logged, "train/loss", "val/")
            log.info("%s: %s  (%.0f s)", _epoch(trainer), shown, seconds)


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
    """What to type after an interruption. A last.ckpt from before the first step is that of the run
    to be replaced."""
    arguments = [each for each in sys.argv[1:] if not each.startswith(("resume=", "overwrite="))]
    if (Path(config.paths.run) / "last.ckpt").is_file() and (resume or trainer.global_step):
        command = shlex.join(["realdamage-train", *arguments, "resume=last"])
        return f"continue with: {command}"
    return "there is no checkpoint yet; run the same command to start again"


def log_ending(trainer: L.Trainer, monitor: str, last: Path) -> tuple[str, float | None]:
    """Logs the best checkpoint by `monitor`, or what that figure needs, and the next command.
    Returns that checkpoint, "" if there is none, and the figure, None if it was not measured."""
    kept = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    best = next((each for each in kept if each.monitor == monitor), None)
    # A resumed run in a folder that was moved does not know the score any more.
    score = float(best.best_model_score) if best and best.best_model_score is not None else None
    if not trainer.is_global_zero:
        return "", score
    path = _checkpoint(best) if score is None or math.isfinite(score) else ""
    if path:
        log.info("best checkpoint by %s: %s", monitor, path)
    elif last.is_file():
        log.info(
            "no best checkpoint: %s was not measured. It needs a validation with %s "
            "(trainer.limit_val_batches=%s, trainer.check_val_every_n_epoch=%s).",
            monitor,
            _NEEDS[monitor],
            trainer.limit_val_batches,
            trainer.check_val_every_n_epoch,
        )
    if path := path or (str(last) if last.is_file() else ""):
        if shown := _figures(trainer.logged_metrics, "val/"):
            log.info("last epoch: %s", shown)
        log.info("next: realdamage-export checkpoint=%s", path)
    return path, score if score is not None and math.isfinite(score) else None


def _checkpoint(kept: ModelCheckpoint | None) -> str:
    """The checkpoint's path, "" if there is none. A resumed run remembers its first folder, but may
    have been moved."""
    if kept is None or not kept.best_model_path:
        return ""
    own = Path(kept.dirpath or "") / Path(kept.best_model_path).name
    return str(own) if own.is_file() else kept.best_model_path
