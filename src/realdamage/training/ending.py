"""What a training run says at its end: which checkpoint to go on with, and when there is no best one, why."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from realdamage.training.classifier import MIN_REAL_FOR_1_PERCENT

_TAKES = {
    "val/auroc": "real and synthetic photos",
    "val/tpr_at_fpr_1_all_real": f"{MIN_REAL_FOR_1_PERCENT} real photos and some synthetic ones",
    "val/localisation_ap": "synthetic photos with a mask",
}


class MissingFigures(L.Callback):
    """Makes a monitored figure that validation could not measure NaN. ModelCheckpoint would stop the run at a missing
    one, perhaps after hours of training."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for kept in trainer.checkpoint_callbacks:
            if isinstance(kept, ModelCheckpoint) and kept.monitor:
                trainer.callback_metrics.setdefault(kept.monitor, torch.tensor(torch.nan))


def how_to_go_on(trainer: L.Trainer, folder: Path, resume: Path | None) -> str:
    """What to type after an interruption. A last.ckpt from before the first step is that of the run to be replaced."""
    arguments = [each for each in sys.argv[1:] if not each.startswith(("resume=", "overwrite="))]
    if (folder / "last.ckpt").is_file() and (resume or trainer.global_step):
        return f"go on from the last finished epoch: {shlex.join(['realdamage-train', *arguments, 'resume=last'])}"
    return "no epoch was finished; run the same command to start again"


def ending(trainer: L.Trainer, monitor: str, steps_before: int | None) -> Iterator[str]:
    """Lines for the terminal, the last one with the next command.

    monitor: the figure that chooses the best checkpoint. steps_before: optimizer steps that the resumed checkpoint had
    taken; None for a new run.
    """
    if steps_before is not None and trainer.global_step == steps_before:
        yield _nothing_left(trainer)
    kept = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    best = next((each for each in kept if each.monitor == monitor), None)
    path = _measured(best)
    figures = {
        name: float(value)
        for name, value in sorted(trainer.logged_metrics.items())
        if name.startswith("val/")
    }
    told = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
    if path:
        yield f"best checkpoint by {monitor}: {path}"
    if told:
        yield f"last epoch: {told}"
    if not path:
        path = last = next(
            (_path(each) for each in kept if each.monitor is None and each.best_model_path), ""
        )
        if best is not None:
            held = (
                f"{last} holds the last epoch"
                if last
                else "and callbacks.last=null keeps no other checkpoint"
            )
            yield f"no best checkpoint: {monitor} was not measured, {_why_unmeasured(trainer, monitor)}; {held}"
    if path:
        yield f"next: realdamage-export checkpoint={path}"


def _nothing_left(trainer: L.Trainer) -> str:
    limit = (
        "trainer.max_epochs"
        if trainer.current_epoch >= (trainer.max_epochs or 0)
        else "trainer.max_steps"
    )
    return (
        f"already at epoch {trainer.current_epoch} of {trainer.max_epochs}; raise {limit} to go on"
    )


def _measured(best: ModelCheckpoint | None) -> str:
    """The path of the best checkpoint; "" when the figure was never a number."""
    if best is None or not best.best_model_path:
        return ""
    score = best.best_model_score  # which a resumed run in a folder that was moved has forgotten
    return _path(best) if score is None or math.isfinite(float(score)) else ""


def _path(kept: ModelCheckpoint) -> str:
    """A resumed run remembers the folder that it had then, and may have been moved."""
    own = Path(kept.dirpath or "") / Path(kept.best_model_path).name
    return str(own) if own.is_file() else kept.best_model_path


def _why_unmeasured(trainer: L.Trainer, monitor: str) -> str:
    if trainer.limit_val_batches == 0:
        return "as trainer.limit_val_batches=0 leaves validation out"
    every = trainer.check_val_every_n_epoch
    if every is not None and every > trainer.current_epoch:
        return f"as trainer.check_val_every_n_epoch={every} is more than this run's {trainer.current_epoch} epochs"
    if any(name.startswith("val/") for name in trainer.callback_metrics):
        return (
            f"as it takes {_TAKES[monitor]}, which the {int(trainer.num_val_batches[0])} validated photos lack "
            f"(trainer.limit_val_batches={trainer.limit_val_batches})"
        )
    return "as no validation of this run gave it a number"
