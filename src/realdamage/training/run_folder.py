"""The folder of a run changes only when its first step is about to be taken: a call that fails before, on its photos or
its settings, leaves the run that lies there as it was."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from omegaconf import DictConfig, OmegaConf

from realdamage.training.start import CONFIG


class RunFolder(L.Callback):
    """Writes the resolved configuration into the run's folder, and removes the checkpoints of the run before.

    start_over: whether there may be such checkpoints, to be replaced (`overwrite=true` without `resume`).
    """

    def __init__(self, config: DictConfig, *, start_over: bool) -> None:
        self._config, self._start_over = config, start_over
        self._folder = Path(config.paths.run)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        for name in ("best.ckpt", "last.ckpt") if self._start_over else ():
            (self._folder / name).unlink(missing_ok=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self._config, self._folder / CONFIG, resolve=True)
