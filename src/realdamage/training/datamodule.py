"""The LightningDataModule: from a folder with a manifest to batches. A recipe makes the photos
first if there are none."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
from torch.utils.data import DataLoader

from realdamage.core.progress import track
from realdamage.core.tiles import PixelSpec
from realdamage.data.audit import AuditReport, audit, read_exceptions
from realdamage.data.manifest import LABELS, Manifest
from realdamage.data.readers import read_dataset, reader_from_mapping
from realdamage.data.splits import check_splits, split_command
from realdamage.errors import ConfigError, ManifestError
from realdamage.schema import DataConfig
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

    pixel_spec: of the network.

    The hyper-parameters in a checkpoint are plain values, so that it loads with `weights_only`.
    Raises ManifestError and ConfigError.
    """

    def __init__(self, data: DataConfig, pixel_spec: PixelSpec, seed: int) -> None:
        super().__init__()
        self.save_hyperparameters({**asdict(data), "pixel_spec": asdict(pixel_spec), "seed": seed})
        self.data, self.spec, self.seed = data, pixel_spec, seed
        self.reader = reader_from_mapping(asdict(data.reader))
        self.manifest: Manifest | None = None
        self.audit_report: AuditReport | None = None
        self._reported: set[str] = set()

    def prepare_data(self) -> None:
        """Makes the photos by the recipe when the folder has none. Lightning calls it in one
        process only."""
        recipe, root = self.data.recipe, Path(self.data.root)
        if recipe and not (root / "metadata.csv").is_file():
            from realdamage.configuration import compose, plain
            from realdamage.synthesis.recipe import recipe_from_config
            from realdamage.synthesis.runner import synthesize

            log.info("%s has no photos yet; making them by recipe %s", root, recipe)
            config = compose("synthesize", [f"+recipe={recipe}", f"out={root}"])
            made = recipe_from_config(plain(config.recipe))
            synthesize(made, root, plain(config.prompts), progress=track)

    def setup(self, stage: str | None = None) -> None:
        if self.manifest is not None:
            return
        manifest = read_dataset(Path(self.data.root), self.reader)
        table = manifest.table
        if not (table["split"] != "").any():
            # Splits made on the fly would be forgotten, and the model judged on photos that it was
            # trained on.
            written = (manifest.root / "metadata.csv").is_file()
            first = "" if written else f"realdamage manifest {self.data.root}, then "
            raise ManifestError(
                f"{manifest.root}: the photos have no split yet. Write them into the manifest: "
                f"{first}{split_command(manifest, manifest.root)}",
                code="no_split",
            )
        check_splits(table)
        dropped = self._excluded(manifest) & table["split"].isin(("train", "val"))
        self.manifest = replace(manifest, table=table[~dropped].reset_index(drop=True))
        for split in ("train", "val"):
            found = dict(self._split(split).table["label"].value_counts())
            if set(found) != set(LABELS):
                raise ManifestError(
                    f"{manifest.root}: split {split} has {found or 'no photos'}; training needs "
                    "both labels in it. Add photos, or split again: realdamage split --overwrite.",
                    code="one_label",
                )
        self._photo_weights(self._split("train"))  # fails before anything takes time
        used = self.manifest.table["split"].isin(("train", "val"))
        # Exceptions are checked against the whole set: a part may be held back for the test.
        exceptions = read_exceptions(manifest)
        self.audit_report = audit(self.manifest.subset(used), quick=True, exceptions=exceptions)
        self._judge(self.audit_report)

    def _excluded(self, manifest: Manifest) -> pd.Series:
        """Rows that `data.exclude` names. Their test photos stay in the set: the figure is about
        them."""
        table = manifest.table
        named = pd.Series(False, table.index)
        for column, values in self.data.exclude.items():
            if column not in table.columns:
                raise ConfigError(
                    f"data.exclude.{column}: {manifest.root} has no such column; it has "
                    f"{', '.join(table.columns)}"
                )
            known = set(table[column]) - {""}
            if unknown := sorted(set(values) - known):
                raise ConfigError(
                    f"data.exclude.{column}={unknown}: {manifest.root} has no such {column}; it "
                    f"has {', '.join(sorted(known))}"
                )
            named |= table[column].isin(values)
        return named

    def _judge(self, report: AuditReport) -> None:
        """Stops on a leak, or warns of it. Broken files are left to `on_error`."""
        if report.leaks:
            leaks = "\n".join(f"- {leak}" for leak in report.leaks)
            found = (
                f"{report.root}: the photos give their label away without the damage:\n{leaks}\n"
            )
            if self.data.audit == "stop":
                raise ManifestError(
                    f"{found}For all figures: realdamage audit {self.data.root} --html "
                    "audit.html. Fix the set, or train anyway with data.audit=warn; the model's "
                    "metadata will say so.",
                    code="audit_failed",
                )
            log.warning(
                "%sTraining anyway (data.audit=warn); the model's metadata will say so.", found
            )
        elif report.measured:
            figures = ", ".join(f"{t.title} {t.auroc:.3f}" for t in report.tests if t.measured)
            log.info("audit passed (AUROC of the shortcuts: %s)", figures)
        else:
            note = max((t for t in report.tests if t.blocking), key=lambda test: test.rows).note
            log.warning("audit: nothing could be measured (too few photos: %s)", note)

    def train_dataloader(self) -> DataLoader[Batch]:
        data, manifest = self.data, self._split("train")
        weights = self._photo_weights(manifest)
        dataset = PairDataset(manifest, self.spec, data, seed=self.seed, photo_weights=weights)
        shares = data.part_shares
        chances = unit_chances(manifest, dataset.units, shares) if shares else None
        sampler = EpochSampler(len(dataset), self.seed, *self._process(), chances, data.epoch_units)
        return DataLoader(
            dataset,
            batch_size=data.batch_units,
            sampler=sampler,
            collate_fn=collate_units,
            drop_last=len(sampler) >= data.batch_units,
            **self._workers(),
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        dataset = WholePhotoDataset(self._split("val"), self.spec, self.data.on_error)
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
        """What the model was trained on, for its metadata: the manifest's digest, photos and
        generators of the train split, what was excluded, and the audit's verdict."""
        train = self._split("train").table
        counts = train["label"].value_counts()
        return {
            "manifest_sha256": self.manifest.digest() if self.manifest else "",
            "photos": {str(label): int(count) for label, count in counts.items()},
            "generators": sorted(set(train["generator"]) - {""}),
            "excluded": {column: sorted(values) for column, values in self.data.exclude.items()},
            "audit": self.audit_report.verdict() if self.audit_report else "not run",
        }

    def _split(self, split: str) -> Manifest:
        if self.manifest is None:
            raise ManifestError("the data module has not read its manifest yet; call setup() first")
        return self.manifest.select(split=split)

    def _photo_weights(self, manifest: Manifest) -> list[float]:
        labels = manifest.table["label"].map(self.data.class_weights)
        weights = labels * manifest.table["kind"].map(self.data.kind_weights)
        for label in LABELS:
            if not weights[manifest.table["label"] == label].any():
                raise ConfigError(
                    f"data.class_weights, data.kind_weights: every {label} photo of the train "
                    f"split of {manifest.root} weighs 0; class_weights.{label} and that of one of "
                    "its kinds must be above 0"
                )
        return [float(weight) for weight in weights]

    def _process(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _workers(self) -> dict[str, Any]:
        workers = self.data.workers
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": on_gpu}
