"""The LightningDataModule: from a folder with a manifest to batches, made first by a recipe when it is not there
yet."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
import pandas as pd
from torch.utils.data import DataLoader

from realdamage.core.photo import PixelSpec
from realdamage.core.progress import track
from realdamage.data.audit import AuditReport, audit, read_exceptions
from realdamage.data.degradations import Degradations
from realdamage.data.manifest import KINDS, LABELS, Manifest
from realdamage.data.readers import read_dataset, reader_from_mapping
from realdamage.data.splits import check_splits, split_command
from realdamage.errors import ConfigError, ManifestError
from realdamage.rendering.audit_text import unmeasured_because
from realdamage.training.dataset import (
    Batch,
    EpochSampler,
    PairDataset,
    WholePhotoDataset,
    WholePhotoSampler,
    collate_units,
    unit_chances,
)

log = logging.getLogger(__name__)


class DamageDataModule(L.LightningDataModule):
    """Batches of a manifest's train and val splits.

    All arguments are primitives, so that checkpoints load with `weights_only`. `root`: folder of photos, or a table
    of them; `reader`: how they lie there (layout, columns, values, constants: see `realdamage.data.readers.Reader`);
    `recipe`: what to synthesize there first when it is empty (None: an error); `pixel_spec`: of the network;
    `batch_units`: pairs or single photos a step; `class_weights`, `kind_weights`: factors on a photo's loss;
    `exclude`: what is left out of train and val, for figures on what was never trained on: values by column of the
    manifest ({"family": ["taesd"], "source": ["shop"]}); `on_error`: "raise" or
    "skip" for photos that cannot be read; `audit`: what to do when the photos give their label away without the
    damage (`realdamage.data.audit`, the quick form, over train and val): "stop", or "warn" and tell it in the model's
    metadata; `cache_gib`: memory for training photos that stay decoded, with `workers: 0` only; `part_shares`: share
    of the draws of each part of the set, see `unit_chances` (empty: an epoch is every unit once); synthetic photos
    without an original then get a real partner; `epoch_units`: draws of such an epoch (None: as many as units).

    Raises ManifestError and ConfigError with the key that is off.
    """

    def __init__(
        self,
        root: str,
        pixel_spec: dict[str, Any],
        seed: int,
        reader: dict[str, Any] | None = None,
        recipe: str | None = None,
        batch_units: int = 16,
        tiles_per_photo: int = 2,
        focus: float = 0.7,
        workers: int = 0,
        degradations: dict[str, Any] | None = None,
        class_weights: dict[str, float] | None = None,
        kind_weights: dict[str, float] | None = None,
        exclude: dict[str, list[str]] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        audit: Literal["stop", "warn"] = "stop",
        cache_gib: float = 0.0,
        part_shares: dict[str, float] | None = None,
        epoch_units: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.spec = PixelSpec(**pixel_spec)
        self.reader = reader_from_mapping(reader)
        given = (degradations or {}).items()
        drawn: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given}
        self.degradations = Degradations(**drawn)
        _check_weights("data.class_weights", class_weights, LABELS)
        _check_weights("data.kind_weights", kind_weights, KINDS)
        if batch_units < 1:
            raise ConfigError(f"data.batch_units={batch_units}: must be at least 1")
        if workers < 0:
            raise ConfigError(f"data.workers={workers}: must not be negative")
        if cache_gib > 0 and workers > 0:
            raise ConfigError(
                f"data.cache_gib={cache_gib} with data.workers={workers}: each worker would decode and keep every "
                "photo for itself. Set one of them to 0."
            )
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"data.on_error={on_error}: allowed are raise, skip")
        if audit not in ("stop", "warn"):
            raise ConfigError(f"data.audit={audit}: allowed are stop, warn")
        if epoch_units is not None and (epoch_units < 1 or not part_shares):
            raise ConfigError(
                f"data.epoch_units={epoch_units}: at least 1, and only with data.part_shares"
            )
        self.manifest: Manifest | None = None
        self.audit_report: AuditReport | None = None
        self._reported: set[str] = set()

    def prepare_data(self) -> None:
        """Makes the photos by the recipe when the folder has none. Lightning calls it in one process only."""
        recipe, root = self.hparams["recipe"], Path(self.hparams["root"])
        if recipe and not (root / "metadata.csv").is_file():
            from realdamage.configuration import compose, plain
            from realdamage.synthesis.recipe import synthesize
            from realdamage.synthesis.settings import recipe_from_config

            log.info("%s has no photos yet; making them by recipe %s", root, recipe)
            config = compose("synthesize", [f"+recipe={recipe}", f"out={root}"])
            synthesize(
                recipe_from_config(plain(config.recipe), plain(config.prompts)),
                root,
                progress=track,
            )

    def setup(self, stage: str | None = None) -> None:
        if self.manifest is not None:
            return
        manifest = read_dataset(Path(self.hparams["root"]), self.reader)
        table = manifest.table
        if not (table["split"] != "").any():
            # Assigned on the fly they would be forgotten, and the model be judged on photos that it was trained on.
            written = (manifest.root / "metadata.csv").is_file()
            first = "" if written else f"realdamage manifest {self.hparams['root']}, then "
            raise ManifestError(
                f"{manifest.root}: the photos have no split yet. Write them into the manifest: "
                f"{first}{split_command(manifest, manifest.root)}"
            )
        check_splits(table)
        dropped = self._excluded(manifest) & table["split"].isin(("train", "val"))
        self.manifest = replace(manifest, table=table[~dropped].reset_index(drop=True))
        for split in ("train", "val"):
            labels = self.manifest.table.loc[
                self.manifest.table["split"] == split, "label"
            ].value_counts()
            if set(labels.index) != set(LABELS):
                raise ManifestError(
                    f"{manifest.root}: split {split} has {dict(labels) or 'no photos'}; training needs both labels in "
                    "it. Add photos, or split again: realdamage split --overwrite."
                )
        self._photo_weights(self._split("train"))  # wrong ones are told before anything takes time
        used = self.manifest.table["split"].isin(("train", "val"))
        # Exceptions are checked against the whole set: a part may be held back for the test.
        self.audit_report = self._in_first_process(
            partial(
                audit, self.manifest.subset(used), quick=True, exceptions=read_exceptions(manifest)
            )
        )
        self._heed(self.audit_report)

    def _in_first_process(self, work: Callable[[], AuditReport]) -> AuditReport:
        """What `work` returns or raises in the first of this run's processes; the others wait for it."""
        if self.trainer is None or self.trainer.world_size == 1:
            return work()
        outcome: AuditReport | Exception | None = None
        if self.trainer.is_global_zero:
            try:
                outcome = work()
            except Exception as error:  # the other processes must not wait for ever
                outcome = error
        outcome = self.trainer.strategy.broadcast(outcome)
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome is not None  # the first process always sends one
        return outcome

    def _excluded(self, manifest: Manifest) -> pd.Series:
        """Which rows `data.exclude` names. Their test photos stay in the set: they are what the figure is for."""
        table = manifest.table
        named = pd.Series(False, table.index)
        for column, values in (self.hparams["exclude"] or {}).items():
            if column not in table.columns:
                columns = ", ".join(name for name in table.columns if (table[name] != "").any())
                raise ConfigError(
                    f"data.exclude.{column}: {manifest.root} has no such column; it has {columns}"
                )
            unknown = sorted(set(values) - set(table[column]))
            if unknown:
                known = ", ".join(sorted(set(table[column]) - {""}))
                raise ConfigError(
                    f"data.exclude.{column}={unknown}: {manifest.root} has no such {column}; it has {known}"
                )
            named |= table[column].isin(values)
        return named

    def _heed(self, report: AuditReport) -> None:
        """Stops on a leak, or warns of it; broken files are for `on_error` to judge."""
        figures = ", ".join(f"{t.title} {t.auroc:.3f}" for t in report.tests if t.measured)
        if not report.leaks:
            if report.measured:
                log.info("audit passed (AUROC of the shortcuts: %s)", figures)
            else:
                log.warning("audit: nothing could be measured (%s)", unmeasured_because(report))
            return
        leaks = "\n".join(f"- {leak}" for leak in report.leaks)
        told = f"{report.root}: the train and val photos give their label away without the damage:\n{leaks}"
        if self.hparams["audit"] == "warn":
            log.warning(
                "%s\nGoing on, as data.audit=warn says; the model's metadata will tell it.", told
            )
            return
        raise ManifestError(
            f"{told}\nSee it all with: realdamage audit {self.hparams['root']} --html audit.html. Mend the set, or "
            "train all the same with data.audit=warn, which the model's metadata will tell."
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        manifest = self._split("train")
        dataset = PairDataset(
            manifest,
            self.spec,
            self.degradations,
            seed=int(self.hparams["seed"]),
            tiles_per_photo=self.hparams["tiles_per_photo"],
            focus=self.hparams["focus"],
            photo_weights=self._photo_weights(manifest),
            on_error=self.hparams["on_error"],
            cache_gib=self.hparams["cache_gib"],
            partners=bool(self.hparams["part_shares"]),
        )
        rank, world_size = self._process()
        batch_units = int(self.hparams["batch_units"])
        shares, draws = self.hparams["part_shares"], self.hparams["epoch_units"]
        chances = unit_chances(manifest, dataset.units, shares) if shares else None
        sampler = EpochSampler(
            len(dataset), int(self.hparams["seed"]), rank, world_size, chances, draws
        )
        return DataLoader(
            dataset,
            batch_size=batch_units,
            sampler=sampler,
            collate_fn=collate_units,
            drop_last=len(sampler) >= batch_units,
            **self._workers(),
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        dataset = WholePhotoDataset(self._split("val"), self.spec, self.hparams["on_error"])
        sampler = WholePhotoSampler(len(dataset), *self._process())
        return DataLoader(dataset, batch_size=None, sampler=sampler, **self._workers())

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Says once, by name, which photos were skipped; workers cannot speak for themselves."""
        for message in batch["skipped"]:
            if message not in self._reported:
                self._reported.add(message)
                log.warning("skipped a photo: %s", message)
        return batch

    @property
    def skipped(self) -> list[str]:
        """Messages of all photos skipped so far."""
        return sorted(self._reported)

    def describe(self) -> dict[str, Any]:
        """What the model was trained on, for its metadata: the manifest's digest, photos and generators of the train
        split, and the audit's verdict."""
        train = self._split("train").table
        return {
            "manifest_sha256": self.manifest.digest() if self.manifest else "",
            "photos": {
                str(label): int(count) for label, count in train["label"].value_counts().items()
            },
            "generators": sorted(set(train["generator"]) - {""}),
            "excluded": {
                column: sorted(values) for column, values in (self.hparams["exclude"] or {}).items()
            },
            "audit": self.audit_report.verdict() if self.audit_report else "not run",
        }

    def _split(self, split: str) -> Manifest:
        if self.manifest is None:
            raise ManifestError("the data module has not read its manifest yet; call setup() first")
        return self.manifest.select(split=split)

    def _photo_weights(self, manifest: Manifest) -> list[float]:
        classes: Mapping[str, float] = self.hparams["class_weights"] or {}
        kinds: Mapping[str, float] = self.hparams["kind_weights"] or {}
        pairs = zip(manifest.table["label"], manifest.table["kind"], strict=True)
        weights = [float(classes.get(label, 1.0) * kinds.get(kind, 1.0)) for label, kind in pairs]
        for label in LABELS:
            if not any(
                weight
                for weight, of in zip(weights, manifest.table["label"], strict=True)
                if of == label
            ):
                raise ConfigError(
                    f"data.class_weights, data.kind_weights: every {label} photo of the train split of {manifest.root} "
                    f"weighs 0; class_weights.{label} and that of one of its kinds must be above 0"
                )
        return weights

    def _process(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _workers(self) -> dict[str, Any]:
        workers = int(self.hparams["workers"])
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": on_gpu}


def _check_weights(key: str, weights: dict[str, float] | None, allowed: tuple[str, ...]) -> None:
    for name, weight in (weights or {}).items():
        if name not in allowed:
            raise ConfigError(f"{key}.{name}: unknown; allowed are {', '.join(allowed)}")
        if not 0 <= weight < math.inf:
            raise ConfigError(f"{key}.{name}={weight}: a weight must be finite and not negative")
