"""Photos as training units: both halves of a pair get the same crops and the same degradation, drawn with the same
numbers.

A unit is a pair (the original and what was made of it) or a single photo. Every draw depends on (seed, epoch, index)
alone, so a resumed run and a run with another number of workers see the same crops.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from realdamage.data.manifest import Manifest
from realdamage.data.masks import patch_share
from realdamage.inference.errors import ConfigError, ManifestError, PhotoError
from realdamage.inference.photo import PixelSpec, cover
from realdamage.training.crops import View, crops_label, cut_alike, read_view, tile_label
from realdamage.training.degradations import Degradations

log = logging.getLogger(__name__)

Batch = dict[str, Any]


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) in an order that depends on the seed and the epoch alone, and this process's share of it.

    Lightning calls `set_epoch` before each epoch, also after a resume. The last, short round is filled up from the
    front, so that all processes take the same number of steps.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.seed, self.rank, self.world_size = length, seed, rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.length // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        order = np.resize(order, len(self) * self.world_size)
        yield from ((self.epoch, int(index)) for index in order[self.rank :: self.world_size])


class PairDataset(Dataset[Batch]):
    """Training units of a manifest; `dataset[epoch, index]` gives one unit's crops as a batch of its own.

    `tiles_per_photo`: crops from each photo; `focus`: share of the crops of an edit that are placed on its mask;
    `photo_weights`: weight in the loss, one for each row of the manifest; `on_error`: what a photo that cannot be read
    does: "raise" stops the run, "skip" reports it by name and takes the next unit; `cache_gib`: memory for photos that
    stay decoded, in each worker that reads them (a decoded photo takes some twenty times its file); `clean_views`:
    also give each crop as it was before its degradation (`clean_tiles`), which the consistency loss compares with.
    """

    def __init__(
        self,
        manifest: Manifest,
        spec: PixelSpec,
        degradations: Degradations,
        *,
        seed: int,
        tiles_per_photo: int = 2,
        focus: float = 0.7,
        photo_weights: Sequence[float] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        cache_gib: float = 0.0,
        clean_views: bool = False,
    ) -> None:
        if cache_gib < 0:
            raise ConfigError(f"data.cache_gib={cache_gib}: must not be negative")
        if tiles_per_photo < 1:
            raise ConfigError(f"data.tiles_per_photo={tiles_per_photo}: must be at least 1")
        if not 0.0 <= focus <= 1.0:
            raise ConfigError(f"data.focus={focus}: a share, must be in 0..1")
        self.manifest, self.spec, self.degradations = manifest, spec, degradations
        self.seed, self.tiles_per_photo, self.focus, self.on_error = seed, tiles_per_photo, focus, on_error
        self.clean_views = clean_views
        self.photo_weights = np.ones(len(manifest.table)) if photo_weights is None else np.asarray(photo_weights)
        self.units = training_units(manifest)
        self._cache: dict[int, View] = {}
        self._cache_left = cache_gib * 2**30

    def __len__(self) -> int:
        return len(self.units)

    def _view(self, row: int) -> View:
        if row in self._cache:
            return self._cache[row]
        view = read_view(self.manifest, row, self.spec)
        size = view.rgb.nbytes + (0 if view.mask is None else view.mask.nbytes)
        if size <= self._cache_left:  # what came first stays: an epoch reads every photo once, so none is better kept
            self._cache_left -= size
            self._cache[row] = view
        return view

    def __getitem__(self, key: tuple[int, int] | int) -> Batch:
        # Lightning's overfit_batches puts a sequential sampler in place of ours; its few batches must stay the same.
        epoch, index = (0, key) if isinstance(key, int) else key
        skipped: list[str] = []
        for attempt in range(len(self.units)):
            unit = self.units[(index + attempt) % len(self.units)]
            try:
                views = [self._view(row) for row in unit]
            except (PhotoError, ManifestError) as error:
                if self.on_error == "raise":
                    raise
                skipped.append(str(error))
                continue
            return {**self._crops(views, np.random.default_rng([self.seed, epoch, index]), epoch), "skipped": skipped}
        raise ManifestError(f"{self.manifest.root}: none of its training photos can be read; the first: {skipped[0]}")

    def _crops(self, views: list[View], rng: np.random.Generator, epoch: int) -> Batch:
        cuts = [
            cut_alike(
                views,
                self.spec,
                self.degradations.draw(rng, epoch),
                self.focus,
                rng,
                clean_views=self.clean_views,
            )
            for _ in range(self.tiles_per_photo)
        ]
        crops = list(zip(*cuts, strict=True))  # [photos][tiles_per_photo]
        shares = np.stack([[crop.share for crop in found] for found in crops])
        labels = [crops_label(view, share) for view, share in zip(views, shares, strict=True)]
        flat = [crop for found in crops for crop in found]
        clean = [crop.clean for crop in flat if crop.clean is not None]
        return {
            "tiles": torch.from_numpy(np.stack([crop.tile for crop in flat])),
            **({"clean_tiles": torch.from_numpy(np.stack(clean))} if clean else {}),
            "patch_share": torch.from_numpy(shares.reshape(-1, *shares.shape[2:])),
            "tile_label": torch.tensor([tile_label(crop.share) for crop in flat]),
            "photo_label": torch.tensor(labels),
            "photo_weight": torch.tensor([float(self.photo_weights[view.row]) for view in views]),
        }


def training_units(manifest: Manifest) -> list[tuple[int, ...]]:
    """Rows of the manifest as units: (original, derived) for each row whose `pair` is there, (row,) for photos that
    are nobody's pair."""
    rows = {name: row for row, name in enumerate(manifest.table["file_name"])}
    units: list[tuple[int, ...]] = []
    paired: set[int] = set()
    for row, pair in enumerate(manifest.table["pair"]):
        original = rows.get(pair) if pair else None
        if original is not None:
            units.append((original, row))
            paired.update((original, row))
    units.extend((row,) for row in range(len(rows)) if row not in paired)
    return units


def collate_units(units: Sequence[Batch]) -> Batch:
    """Joins units; `photo_index` [n] says which photo of the batch a tile belongs to."""
    batch: Batch = {key: torch.cat([unit[key] for unit in units]) for key in units[0] if key != "skipped"}
    batch["skipped"] = [message for unit in units for message in unit["skipped"]]
    per_photo = len(batch["tiles"]) // len(batch["photo_label"])
    batch["photo_index"] = torch.arange(len(batch["photo_label"])).repeat_interleave(per_photo)
    return batch


class WholePhotoDataset(Dataset[Batch]):
    """Photos for validation: every tile of the full cover, as the wrapper cuts them. Index -1 stands for no photo: it
    fills up the last round when several processes share a split, and counts for nothing."""

    def __init__(self, manifest: Manifest, spec: PixelSpec, on_error: Literal["raise", "skip"] = "raise") -> None:
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
        if view.mask is None:
            share = np.full(tiles.grid, np.nan, np.float32)
        else:
            share = patch_share(view.mask, view.mask.shape, self.spec.patch)
        cells = [share[row : row + side, col : col + side] for row, col in tiles.origins // self.spec.patch]
        return {
            "tiles": torch.from_numpy(tiles.tiles),
            "patch_share": torch.from_numpy(np.stack(cells)),
            "photo_label": torch.tensor([float(view.label)]),
            "whole_edit": self.manifest.table["kind"].iat[index] == "ai_whole",
            "skipped": [],
        }


class WholePhotoSampler(Sampler[int]):
    """This process's photos, filled up with -1 to the same count in every process.

    In an order that looks random and is always the same: manifests are sorted by source or label, and
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
