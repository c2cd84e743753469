"""Datasets and samplers: the crops of training units, and whole photos for validation.

A unit is a pair (an original and what was made of it) or a single photo. Both halves of a pair get
the same crop and the same degradation. Every draw depends only on the seed, the epoch, the unit and
how often the epoch had it before, so a resumed run and a run with another number of workers see the
same crops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch.utils.data import Dataset, Sampler

from realdamage.core.tiles import PixelSpec, cover
from realdamage.data.degradations import Degradation, Resize
from realdamage.data.manifest import Manifest, patch_share
from realdamage.errors import ConfigError, ManifestError, PhotoError
from realdamage.schema import DataConfig
from realdamage.training.crops import Crop, View, crops_label, cut_alike, read_view, tile_label

Batch = dict[str, Any]
Chances = npt.NDArray[np.float64]
Units = npt.NDArray[np.int64]
"""Rows of the manifest, int64 [units, 2]: a photo and its original, which comes first; -1: none. An
array, because a list of a million tuples would be copied by every worker that reads it."""


class EpochSampler(Sampler[tuple[int, int, int]]):
    """Yields (epoch, index, times this epoch had it before): this process's share of an order that
    depends on the seed and the epoch alone.

    Lightning calls `set_epoch` before each epoch; `resume` starts in the middle of one. The last,
    short round is filled up from the front, so that all processes take the same number of steps.

    chances: of each unit, float [length], summing to 1; an epoch then is `draws` draws with
        replacement (None: `length`). Without them it is every unit once.
    shards: the shard of each unit, int [length]. The order then goes through `mixed` random shards
        at a time, and a process reads a stretch of it.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        chances: Chances | None = None,
        draws: int | None = None,
        shards: npt.NDArray[np.int64] | None = None,
        mixed: int = 1,
    ) -> None:
        self.length, self.seed, self.rank, self.world_size = length, seed, rank, world_size
        self.chances, self.draws = chances, length if chances is None else draws or length
        self.shards, self.mixed = shards, mixed
        self.epoch = 0
        self._resumed = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def resume(self, epoch: int, done: int) -> None:
        """Starts with `epoch`, without the `done` units that this process had of it."""
        self.epoch, self._resumed = epoch, (epoch, done)

    def __len__(self) -> int:
        return -(-self.draws // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.chances is not None:
            order = rng.choice(self.length, self.draws, p=self.chances)
        elif self.shards is not None:
            turn = rng.permutation(self.shards.max() + 1)[self.shards] // self.mixed
            order = np.lexsort((rng.random(self.length), turn))
        else:
            order = rng.permutation(self.length)
        order = np.resize(order, len(self) * self.world_size)
        before = pd.Series(order).groupby(order).cumcount()
        places = range(self.rank, len(order), self.world_size)
        if self.shards is not None:
            places = range(self.rank * len(self), (self.rank + 1) * len(self))
        epoch, done = self._resumed
        for place in places[done if self.epoch == epoch else 0 :]:
            yield self.epoch, int(order[place]), int(before[place])


class PairDataset(Dataset[Batch]):
    """Training units of a manifest; `dataset[epoch, index, times before]` gives one unit's crops as
    a batch of its own.

    With `part_shares`, each synthetic photo without an original gets a real photo as a partner,
    with the same degradation. Such units are always degraded, so that both photos share the last
    save of their histories, and each photo is resized by a factor of its own before
    (`unpaired_scale`).

    photo_weights: weight in the loss, float [rows of the manifest] (None: 1).
    """

    def __init__(
        self,
        manifest: Manifest,
        spec: PixelSpec,
        data: DataConfig,
        *,
        seed: int,
        photo_weights: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.manifest, self.spec, self.data, self.seed = manifest, spec, data, seed
        self.photo_weights = np.ones(len(manifest)) if photo_weights is None else photo_weights
        self.units = training_units(manifest)
        self.always_degraded = replace(
            data.degradations,
            probability=1.0,
            jpeg=1.0 - data.degradations.webp,
            curriculum_epochs=0,
        )
        self._partners = _by_source(manifest) if data.part_shares else []
        self._synthetic = (manifest.table["label"] == "synthetic").to_numpy()
        self._cache: dict[int, View] = {}
        self._cache_left = data.cache_gib * 2**30

    def __len__(self) -> int:
        return len(self.units)

    def _view(self, row: int) -> View:
        if row in self._cache:
            return self._cache[row]
        view = read_view(self.manifest, row, self.spec)
        # The first photos stay: an epoch reads every photo once, so none is better kept than
        # another.
        if view.nbytes <= self._cache_left:
            self._cache_left -= view.nbytes
            self._cache[row] = view
        return view

    def __getitem__(self, key: tuple[int, int] | tuple[int, int, int] | int) -> Batch:
        # Lightning's overfit_batches uses a sequential sampler instead; its few batches
        # must stay the same.
        epoch, index, *before = (0, key) if isinstance(key, int) else key
        rng = np.random.default_rng(
            [self.seed, epoch, index, *(times for times in before if times)]
        )
        skipped: list[str] = []
        for attempt in range(len(self.units)):
            unit = [
                row for row in self.units[(index + attempt) % len(self.units)].tolist() if row >= 0
            ]
            degradations, paired = self.data.degradations, True
            if self._partners and len(unit) == 1 and self._synthetic[unit[0]]:
                paired = False
                source = self._partners[int(rng.integers(len(self._partners)))]
                unit = [int(rng.choice(source)), *unit]
                degradations = self.always_degraded
            try:
                views = [self._view(row) for row in unit]
            except (PhotoError, ManifestError) as error:
                if self.data.on_error == "raise":
                    raise
                skipped.append(str(error))
                continue
            draw = self._cut if paired else self._cut_unpaired
            cuts = [
                draw(views, degradations.draw(rng, epoch), rng)
                for _ in range(self.data.tiles_per_photo)
            ]
            return {**self._batch(views, cuts), "skipped": skipped}
        raise ManifestError(
            f"{self.manifest.root}: none of its training photos can be read; the first: "
            f"{skipped[0]}"
        )

    def _cut(
        self, views: list[View], degradation: Degradation, rng: np.random.Generator
    ) -> list[Crop]:
        return cut_alike(views, self.spec, degradation, self.data.focus, rng)

    def _cut_unpaired(
        self, views: list[View], degradation: Degradation, rng: np.random.Generator
    ) -> list[Crop]:
        crops = []
        for view in views:
            low, high = np.log(self.data.unpaired_scale)
            scale = float(np.exp(rng.uniform(low, high)))
            filters = list(self.data.degradations.filters)
            own = () if scale == 1.0 else (Resize(scale, str(rng.choice(filters))),)
            crops += self._cut([view], Degradation((*own, *degradation.steps)), rng)
        return crops

    def _batch(self, views: list[View], cuts: list[list[Crop]]) -> Batch:
        crops = list(zip(*cuts, strict=True))  # [photos][tiles_per_photo]
        shares = np.stack([[crop.share for crop in found] for found in crops])
        labels = [crops_label(view, share) for view, share in zip(views, shares, strict=True)]
        flat = [crop for found in crops for crop in found]
        return {
            "tiles": torch.from_numpy(np.stack([crop.tile for crop in flat])),
            "patch_share": torch.from_numpy(shares.reshape(-1, *shares.shape[2:])),
            "tile_label": torch.tensor([tile_label(crop.share) for crop in flat]),
            "photo_label": torch.tensor(labels),
            "photo_weight": torch.tensor([float(self.photo_weights[view.row]) for view in views]),
        }


def training_units(manifest: Manifest) -> Units:
    """An (original, derived) for each row whose `pair` is there, then the other rows alone."""
    pair = manifest.table["pair"]
    original = pd.Index(manifest.table["file_name"]).get_indexer(pd.Index(pair))
    derived = np.flatnonzero((pair != "").to_numpy() & (original >= 0))
    alone = np.ones(len(manifest), np.bool_)
    alone[derived] = alone[original[derived]] = False
    single = np.flatnonzero(alone)
    pairs = np.column_stack([original[derived], derived])
    return np.concatenate([pairs, np.column_stack([np.full_like(single, -1), single])])


def unit_chances(manifest: Manifest, units: Units, shares: Mapping[str, float]) -> Chances:
    """The chance of each unit in a draw, float64 [units].

    shares: of the draws, for each part of the set (column `part`); taken relative to their sum.

    Inside a part, a generator (a family where none is named) is drawn by the square root of its
    units, then a source by the square root of its units, then one of these. A unit belongs to the
    part of its last photo; real photos count as one generator. Raises ConfigError: a part that the
    set does not have.
    """
    if "part" not in manifest.table:
        raise ConfigError(f"data.part_shares: {manifest.root} has no column part")
    last = manifest.table.iloc[units[:, 1]]
    chances = np.zeros(len(units))
    for part, share in shares.items():
        inside = (last["part"] == part).to_numpy()
        if share < 0 or (share and not inside.any()):
            raise ConfigError(
                f"data.part_shares.{part}={share}: must be at least 0, and 0 for a part that "
                f"{manifest.root} does not have; it has "
                f"{', '.join(sorted(set(manifest.table['part'])))}"
            )
        generator = last["generator"].where(last["generator"] != "", last["family"])[inside]
        source = last["source"][inside]
        of_generator = generator.groupby(generator).transform("size")
        of_source = source.groupby([generator, source]).transform("size")
        # Scaled so that the weights of each generator still sum to its own square root.
        weights = of_source**-0.5
        weights *= of_generator**0.5 / weights.groupby(generator).transform("sum")
        chances[inside] = share * weights / weights.sum()
    chances /= chances.sum()
    return chances


FEW = 20
"""Sources with fewer real photos count as one when partners are drawn: few photos are soon learned
by heart."""


def _by_source(manifest: Manifest) -> list[npt.NDArray[np.int64]]:
    """Rows of the unedited real photos of each source, the small sources together."""
    table = manifest.table.reset_index(drop=True)
    rows = table[table["kind"].isin(("original", "damaged"))]
    source = rows["source"].where(rows.groupby("source")["source"].transform("size") >= FEW, "")
    return [np.asarray(index, np.int64) for index in rows.groupby(source).groups.values()]


def collate_units(units: Sequence[Batch]) -> Batch:
    """Joins units. The tiles of a photo follow each other, and every photo has the same number of
    them."""
    keys = [key for key in units[0] if key != "skipped"]
    batch: Batch = {key: torch.cat([unit[key] for unit in units]) for key in keys}
    batch["skipped"] = [message for unit in units for message in unit["skipped"]]
    return batch


class WholePhotoDataset(Dataset[Batch]):
    """Photos for validation: every tile of the full cover, as the wrapper cuts them.

    Index -1 means no photo: it fills up the last round when several processes share a split, and
    counts for nothing.
    """

    def __init__(self, manifest: Manifest, spec: PixelSpec, on_error: str = "raise") -> None:
        self.manifest, self.spec, self.on_error = manifest, spec, on_error

    def __len__(self) -> int:
        return len(self.manifest.table)

    def __getitem__(self, index: int) -> Batch:
        skipped: list[str] = []
        if index >= 0:
            try:
                return self._whole(index)
            except (PhotoError, ManifestError) as error:
                if self.on_error == "raise":
                    raise
                skipped.append(str(error))
        side = self.spec.tile
        cells = side // self.spec.patch
        return {
            "tiles": torch.zeros(1, side, side, 3, dtype=torch.uint8),
            "patch_share": torch.full((1, cells, cells), float("nan")),
            "photo_label": torch.tensor([float("nan")]),
            "whole_edit": False,
            "skipped": skipped,
        }

    def _whole(self, index: int) -> Batch:
        view = read_view(self.manifest, index, self.spec)
        tiles = cover(view.rgb, self.spec)
        side = self.spec.tile // self.spec.patch
        share = np.full(tiles.grid, np.nan, np.float32)
        if view.mask is not None:
            share = patch_share(view.mask, view.mask.shape, self.spec.patch)
        corners = tiles.origins // self.spec.patch
        cells = [share[row : row + side, col : col + side] for row, col in corners]
        return {
            "tiles": torch.from_numpy(tiles.tiles),
            "patch_share": torch.from_numpy(np.stack(cells)),
            "photo_label": torch.tensor([float(view.label)]),
            "whole_edit": self.manifest.table["kind"].iat[index] == "ai_whole",
            "skipped": [],
        }


class WholePhotoSampler(Sampler[int]):
    """This process's photos, filled up with -1 to the same count in every process.

    The order looks random and is always the same: manifests are sorted by source or label, and
    `trainer.limit_val_batches` takes the first ones.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.rank, self.world_size = length, rank, world_size

    def __len__(self) -> int:
        return -(-self.length // self.world_size)

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng(0).permutation(self.length)
        for place in range(self.rank, len(self) * self.world_size, self.world_size):
            yield int(order[place]) if place < self.length else -1
