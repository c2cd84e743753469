"""What a run keeps and shows on the way: its last checkpoint, pictures of each validation, speed,
and a suggested learning rate. configs/callbacks and configs/debug switch them on."""

from __future__ import annotations

import io
import logging
import math
import signal
import threading
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch.callbacks import Checkpoint, LearningRateFinder
from lightning.pytorch.utilities.exceptions import _TunerExitException
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics.classification import BinaryConfusionMatrix, BinaryROC

from realdamage.core.detector import Detector
from realdamage.core.overlay import contact_sheet, draw_pair
from realdamage.core.tiles import read_photo
from realdamage.errors import ModelFileError, PhotoError
from realdamage.files import write_atomically
from realdamage.training.module import DamageClassifier, model_metadata
from realdamage.training.network import EvidenceViT, TorchScorer

log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Writes `path` after each epoch, inside an epoch every `minutes` (null: never), and when the
    run is asked to stop. A run that resumes from it equals one that was never stopped.

    SIGTERM and the first Ctrl-C let the running step end, or the running validation; then the run
    exits with 128 and the number of the signal.
    """

    def __init__(self, path: str, minutes: float | None = 15.0) -> None:
        self.path = path
        self.seconds = math.inf if minutes is None else 60 * minutes
        self._stop = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved = time.monotonic()
        if threading.current_thread() is not threading.main_thread():
            return
        # Lightning's handler of SIGTERM talks to the other processes, which may be in the middle of
        # exchanging gradients. Lightning puts the old handlers back in the end.
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self._stop = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log.warning("stopping after this step or validation; Ctrl-C stops now and saves nothing")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return
        wish = self._stop or int(time.monotonic() - self._saved >= self.seconds)
        if trainer.world_size > 1:
            # All processes must do the same, and a signal reaches them at different steps.
            device = trainer.strategy.root_device
            wish = int(trainer.strategy.reduce(torch.tensor(wish, device=device), reduce_op="max"))
        if wish and batch_idx:
            self._save(trainer)
        if wish > 1:
            raise SystemExit(128 + wish)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()  # a resumed run does not log these steps again
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved = time.monotonic()

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Does not count a batch that has not begun; Lightning would log one step too far."""
        batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        if batches["current"]["ready"] > batches["current"]["started"]:
            batches["is_last_batch"] = False
            for count in (batches["current"], batches["total"]):
                count["ready"] = count["started"]


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints next to the old ones. Lightning writes them to /tmp, and on another disk
    copies them over the old ones, so that a run killed then has none."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(path, buffer.getvalue())


class ValidationPictures(L.Callback):
    """At each validation: ROC curve and confusion matrix of all photos (at the score 0), and a
    sheet of the same few photos with their heat maps.

    TensorBoard, MLflow and Weights & Biases show them; without one of these they become PNG files
    in `folder`. The sheet is made through the wrapper, as a service would judge the photos. Must
    come before a callback that averages weights, which puts the others back after a validation.

    photos: of the sheet, half of them synthetic.
    """

    def __init__(self, folder: str, photos: int = 12) -> None:
        self.folder, self.photos = Path(folder), photos
        self.roc, self.confusion = BinaryROC(thresholds=512), BinaryConfusionMatrix()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.roc.to(pl_module.device)
        self.confusion.to(pl_module.device)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if outputs is not None:
            self.roc.update(outputs["rank"], outputs["label"])
            self.confusion.update(outputs["rank"], outputs["label"])

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        # Every process must take part in computing the figures.
        matrix = self.confusion.compute()
        both_labels = bool((matrix.sum(dim=1) > 0).all())
        curve = self.roc.compute() if both_labels else None
        if trainer.is_global_zero:
            if curve:
                self._show(trainer, "roc_and_confusion", self._figures(curve))
            if sheet := self._sheet(trainer, pl_module):
                self._show(trainer, "photos", sheet)
        self.roc.reset()
        self.confusion.reset()

    def _figures(self, curve: Any) -> Image.Image:
        figure = Figure(figsize=(9, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        self.roc.plot(curve, ax=left)
        self.confusion.plot(ax=right, labels=["real", "synthetic"])
        left.set_title("ROC curve")
        right.set_title("at the score 0")
        return as_picture(figure)

    def _sheet(self, trainer: Any, classifier: DamageClassifier) -> Image.Image | None:
        manifest = trainer.datamodule.manifest.select(split="val")
        detector = Detector(TorchScorer(classifier.network), model_metadata(classifier))
        cells = []
        for row in drawn_evenly(manifest.table["label"], self.photos):
            name, label = manifest.table.loc[row, ["file_name", "label"]]
            try:
                photo = read_photo(manifest.photo(row), classifier.pixel_spec)
                verdict = detector.predict_photo(photo)
            except (PhotoError, ModelFileError):
                continue  # reported already: by `data.on_error`, or as a loss that is NaN
            cells.append(draw_pair(photo.rgb, verdict, f"{label}: {name}", side=200))
        return contact_sheet(cells, columns=4) if cells else None

    def _show(self, trainer: L.Trainer, name: str, picture: Image.Image) -> None:
        shown = [log_picture(each, name, picture, trainer.global_step) for each in trainer.loggers]
        if not any(shown):
            self.folder.mkdir(parents=True, exist_ok=True)
            picture.save(self.folder / f"epoch_{trainer.current_epoch + 1:03d}_{name}.png")


def drawn_evenly(labels: pd.Series, count: int) -> list[int]:
    """Row numbers of at most `count` photos, always the same ones, of each label as many."""
    shuffled = labels.reset_index(drop=True).sample(frac=1.0, random_state=0)
    return sorted(shuffled.groupby(shuffled).head(count // 2).index)


def log_picture(logger: Any, name: str, picture: Image.Image, step: int) -> bool:
    """Hands a picture to a logger. False if it takes none, as the CSV logger."""
    tag = f"val/{name}"
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(logger, "log_image"):  # Weights & Biases
        logger.log_image(tag, [picture])
    elif hasattr(experiment, "add_image"):  # TensorBoard
        experiment.add_image(tag, np.asarray(picture), step, dataformats="HWC")
    elif hasattr(experiment, "log_image"):  # MLflow
        experiment.log_image(logger.run_id, picture, key=tag, step=step)
    else:
        return False
    return True


def as_picture(figure: Figure) -> Image.Image:
    """A matplotlib figure as RGB pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return Image.fromarray(pixels[..., :3].copy())


class Speed(L.Callback):
    """Logs `train/photos_per_s` of all processes, loading included, and on a GPU that Lightning
    knows `train/mfu`, the share of its peak rate that the network's own operations use."""

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        dtype = torch.bfloat16 if "bf16" in str(trainer.precision) else torch.float32
        if str(trainer.precision).startswith("16"):
            dtype = torch.float16
        self._peak = get_available_flops(trainer.strategy.root_device, dtype)
        self._per_tile = flops_per_tile(pl_module.network) if self._peak else 0
        self._restart()  # a run that resumes inside an epoch does not start one

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._restart()

    def _restart(self) -> None:
        self._since, self._photos, self._tiles = time.perf_counter(), 0, 0

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self._photos += len(batch["photo_label"])
        self._tiles += len(batch["tiles"])
        if trainer.global_step % max(1, trainer.log_every_n_steps):
            return
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._since
        pl_module.log("train/photos_per_s", self._photos * trainer.world_size / seconds)
        if self._peak:
            pl_module.log("train/mfu", self._tiles * self._per_tile / seconds / self._peak)
        self._restart()


def flops_per_tile(network: EvidenceViT) -> int:
    """Floating-point operations of one tile's way forward and back, frozen layers left out of the
    way back."""
    device = network.mean.device
    tile = torch.zeros(1, network.tile, network.tile, 3, dtype=torch.uint8, device=device)
    learning = network.training
    with FlopCounterMode(display=False) as counter:
        logit, evidence = network.eval()(tile)
        (logit.sum() + evidence.sum()).backward()
    network.zero_grad()
    network.train(learning)
    return int(counter.get_total_flops())


class SuggestLearningRate(LearningRateFinder):
    """Raises the rate from step to step, suggests where the loss falls fastest (Smith 2017), draws
    the curve into `folder`, and ends the run. All layers learn at that one rate, so with
    adapt.layer_decay or adapt.stem the suggestion is a little low."""

    def __init__(self, folder: str, steps: int = 100) -> None:
        super().__init__(max_lr=1.0, num_training_steps=steps, update_attr=False)
        self.folder = Path(folder)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        found = self.optimal_lr
        rate = found.suggestion() if found else None
        if found and rate:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / "learning_rate.png"
            figure = Figure(figsize=(6, 4), layout="constrained")
            found.plot(suggest=True, ax=figure.subplots())
            as_picture(figure).save(path)
            log.info("suggested: model.lr=%.1e (curve: %s)", rate, path)
        else:
            log.warning("no learning rate could be suggested: the loss never fell; try more steps")
        raise _TunerExitException  # how Lightning's own tuner ends a run
