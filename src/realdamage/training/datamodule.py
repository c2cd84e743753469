"""The LightningDataModule: from a folder with a manifest to batches. A recipe makes the photos
first if there are none."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import pandas as pd
from torch.utils.data import DataLoader

from realdamage.core.progress import track
from realdamage.core.tiles import PixelSpec
from realdamage.data.manifest import Manifest
from realdamage.errors import ConfigError, ManifestError
from realdamage.schema import DataConfig
from realdamage.training.dataset import (
    Batch,
    Chances,
    EpochSampler,
    PairDataset,
    Units,
    WholePhotoDataset,
    WholePhotoSampler,
    collate_units,
    unit_chances,
)
from realdamage.training.photos import TrainingPhotos, column_of, made_later, training_photos

log = logging.getLogger(__name__)


class DamageDataModule(L.LightningDataModule):
    """Batches of a manifest's train and val splits.

    pixel_spec: of the network.
    photos: of `data`, if they have been read already.

    The hyper-parameters in a checkpoint are plain values, so that it loads with `weights_only`.
    Raises ManifestError and ConfigError.
    """

    def __init__(
        self,
        data: DataConfig,
        pixel_spec: PixelSpec,
        seed: int,
        photos: TrainingPhotos | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters({**asdict(data), "pixel_spec": asdict(pixel_spec), "seed": seed})
        self.data, self.spec, self.seed = data, pixel_spec, seed
        self._photos = photos
        self._reported: set[str] = set()
        self._position = {"epoch": 0, "batches": 0}
        self._described: dict[str, Any] = {}

    def prepare_data(self) -> None:
        """Makes the photos by the recipe when the folder has none. Lightning calls it in one
        process only."""
        if not made_later(self.data):
            return
        from realdamage.configuration import compose, plain
        from realdamage.synthesis.recipe import recipe_from_config
        from realdamage.synthesis.runner import synthesize

        root, recipe = self.data.root, self.data.recipe
        log.info("%s has no photos yet; making them by recipe %s", root, recipe)
        config = compose("synthesize", [f"+recipe={recipe}", f"out={root}"])
        made = recipe_from_config(plain(config.recipe))
        synthesize(made, Path(root), plain(config.prompts), progress=track)

    def setup(self, stage: str | None = None) -> None:
        self._photos = self._photos or training_photos(self.data)

    @property
    def photos(self) -> TrainingPhotos:
        """The photos. Raises ManifestError before `setup` has read them."""
        if self._photos is None:
            raise ManifestError("the data module has not read its manifest yet; call setup() first")
        return self._photos

    @property
    def manifest(self) -> Manifest:
        """All photos, without what is excluded from train and val."""
        return self.photos.manifest

    def state_dict(self) -> dict[str, int]:
        """Where the training is, for a checkpoint: the epoch, and how many of its batches each of
        how many processes has had."""
        trainer: Any = self.trainer
        loop = trainer.fit_loop
        done = loop.epoch_loop.batch_progress.current.completed % trainer.num_training_batches
        epoch = loop.epoch_progress.current.processed
        return {"epoch": epoch, "batches": int(done), "processes": trainer.world_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets `train_dataloader` start there."""
        self._position = state
        before, now = state["processes"], self._process()[1]
        if state["batches"] and before != now:
            log.warning(
                "epoch %d began with %d processes and goes on with %d: until it ends, some photos "
                "come twice or not at all",
                state["epoch"] + 1,
                before,
                now,
            )

    def train_dataloader(self) -> DataLoader[Batch]:
        data, manifest = self.data, self.manifest.select(split="train")
        dataset = PairDataset(
            manifest, self.spec, data, seed=self.seed, photo_weights=self.photos.weights
        )
        chances: Chances | None = None
        if data.part_shares:
            chances = unit_chances(manifest, dataset.units, data.part_shares)
        elif data.balance:
            chances = balanced_chances(manifest, dataset.units, data.balance)
        of_units = shards_of(manifest, dataset.units) if data.mixed_shards else None
        sampler = EpochSampler(
            len(dataset),
            self.seed,
            *self._process(),
            chances=chances,
            draws=data.epoch_units,
            shards=of_units,
            mixed=data.mixed_shards or 1,
        )
        # Workers read ahead before Lightning sets the epoch.
        sampler.resume(self._position["epoch"], self._position["batches"] * data.batch_units)
        return DataLoader(
            dataset,
            batch_size=data.batch_units,
            sampler=sampler,
            collate_fn=collate_units,
            drop_last=len(sampler) >= data.batch_units,
            **self._workers(),
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        manifest = self.manifest.select(split="val")
        dataset = WholePhotoDataset(manifest, self.spec, self.data.on_error)
        sampler = WholePhotoSampler(len(dataset), *self._process())
        return DataLoader(dataset, batch_size=None, sampler=sampler, **self._workers())

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Reports each skipped photo once, by name; workers cannot do that themselves."""
        for message in batch["skipped"]:
            if message not in self._reported:
                self._reported.add(message)
                log.warning("skipped a photo: %s", message)
        return batch

    def describe(self) -> dict[str, Any]:
        """What the model was trained on, for its metadata."""
        # Once: it is in every checkpoint, and reads the whole table.
        self._described = self._described or self.photos.describe(self.data)
        return self._described

    def _process(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _workers(self) -> dict[str, Any]:
        workers = self.data.workers
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {
            "num_workers": workers,
            "worker_init_fn": _ignore_stops,
            "persistent_workers": workers > 0,
            "pin_memory": on_gpu,
        }


def _ignore_stops(worker: int) -> None:
    """Leaves Ctrl-C and SIGTERM, which every process of a run gets, to the process that trains: it
    still needs its workers until the checkpoint is written."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def shards_of(manifest: Manifest, units: Units) -> npt.NDArray[np.int64]:
    """The shard of each unit, counted from 0. Raises ConfigError: the photos are not in shards."""
    if manifest.shards is None:
        raise ConfigError(
            f"data.mixed_shards: the photos of {manifest.root} are files. Set it to null, or write "
            f"shards: realdamage manifest {manifest.root} --to-shards OUT",
            code="no_shards",
        )
    _, found = np.unique(manifest.shards.places[units[:, 1], 0], return_inverse=True)
    return np.asarray(found, np.int64)


def balanced_chances(manifest: Manifest, units: Units, columns: Sequence[str]) -> Chances:
    """The chance of each unit in a draw, float64 [units]: with ["family", "source"], all families
    are drawn alike, then all sources of a family, then its units.

    A unit belongs to the family of its last photo; real photos without an edit count as one
    family. Raises ConfigError: the set has no such column.
    """
    rows = units[:, 1]
    group = pd.Series(0, range(len(units)))
    chances = pd.Series(1.0, group.index)
    for column in columns:
        value = column_of(manifest, column, "data.balance").iloc[rows].reset_index(drop=True)
        inner = value.groupby([group, value]).ngroup()
        chances /= inner.groupby(group).transform("nunique")
        group = inner
    chances /= group.groupby(group).transform("size")
    return np.asarray(chances, np.float64)
