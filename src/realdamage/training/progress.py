"""Progress of a training run where there is no terminal: one line an epoch, and one now and then inside long epochs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from realdamage.core.progress import SECONDS_BETWEEN_LINES
from realdamage.training.dataset import Batch


class PlainProgress(Callback):
    """Prints lines that a log file can keep; under a terminal Lightning's rich bar takes its place."""

    def __init__(self) -> None:
        self._told = self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._told = self._started = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        now = time.monotonic()
        if trainer.is_global_zero and now - self._told >= 3 * SECONDS_BETWEEN_LINES:
            self._told = now
            done, total = batch_idx + 1, int(trainer.num_training_batches)
            rest = (now - self._started) / done * (total - done)
            print(f"{_epoch(trainer)}: step {done}/{total}, about {rest:.0f} s left", flush=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            figures = {**trainer.logged_metrics, **trainer.callback_metrics}
            shown = "  ".join(
                f"{name} {float(figures[name]):.3f}"
                for name in sorted(figures)
                if name.startswith(("train/loss", "val/"))
            )
            seconds = time.monotonic() - self._started
            print(f"{_epoch(trainer)}: {shown}  ({seconds:.0f} s)", flush=True)


def _epoch(trainer: L.Trainer) -> str:
    """Counted from 1, as `trainer.max_epochs` counts them; Lightning counts from 0."""
    return f"epoch {trainer.current_epoch + 1}" + (
        f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
    )
