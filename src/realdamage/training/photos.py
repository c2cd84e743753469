"""The photos of a training run: read, excluded, weighed and audited, all before torch is
imported."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.data.audit import AuditReport, audit, read_exceptions
from realdamage.data.manifest import Manifest
from realdamage.data.readers import read_dataset
from realdamage.data.shards import holds_shards, read_shards
from realdamage.data.splits import check_splits, split_command
from realdamage.data.vocabulary import LABELS
from realdamage.errors import ConfigError, ManifestError
from realdamage.schema import DataConfig

log = logging.getLogger(__name__)

AUDITED = 20_000
"""Photos of a set in shards that the audit before a training looks at."""


@dataclass(frozen=True)
class TrainingPhotos:
    """A set that is fit for training.

    manifest: without what `data.exclude` names in train and val.
    weights: in the loss, float [rows of the train split].
    """

    manifest: Manifest
    audit: AuditReport
    weights: npt.NDArray[np.float64]

    def describe(self, data: DataConfig) -> dict[str, Any]:
        """What a model is trained on, for its metadata: the manifest's digest, photos and
        generators of the train split, what was excluded, and the audit's verdict."""
        train = self.manifest.select(split="train").table
        counts = train["label"].value_counts()
        return {
            "manifest_sha256": self.manifest.digest(),
            "photos": {str(label): int(count) for label, count in counts.items()},
            "generators": sorted(set(train["generator"]) - {""}),
            "excluded": {column: sorted(values) for column, values in data.exclude.items()},
            "audit": self.audit.verdict(),
        }


def made_later(data: DataConfig) -> bool:
    """Whether `data.recipe` still has to make the photos."""
    return bool(data.recipe) and not (Path(data.root) / "metadata.csv").is_file()


def training_photos(data: DataConfig) -> TrainingPhotos:
    """Reads and audits the set.

    Raises ConfigError (codes no_photos, config) when settings do not fit it, and ManifestError
    (codes no_split, one_label, audit_failed, …) when it cannot be trained on.
    """
    manifest, kept = _read(data)
    photos = manifest.subset(kept)
    for split in ("train", "val"):
        found = photos.select(split=split).table["label"].value_counts().to_dict()
        if set(found) != set(LABELS):
            raise ManifestError(
                f"{manifest.root}: split {split} has {found}; training needs both labels in it. "
                "Add photos, or split again: realdamage split --overwrite.",
                code="one_label",
            )
    weights = _weights(photos.select(split="train"), data)
    # Exceptions are checked against the whole set: a part may be held back for the test.
    exceptions = read_exceptions(manifest)
    used = manifest.table["split"].isin(("train", "val"))
    judged = manifest.subset(kept & used)
    if holds_shards(data.root):
        judged = _drawn(judged)
    report = audit(judged, quick=True, exceptions=exceptions)
    _judge(report, data)
    return TrainingPhotos(photos, report, weights)


def chosen_photos(data: DataConfig) -> Manifest:
    """The photos of a run, not audited. Raises ConfigError and ManifestError, as
    `training_photos`."""
    manifest, kept = _read(data)
    return manifest.subset(kept)


def _read(data: DataConfig) -> tuple[Manifest, pd.Series]:
    """The set, and which of its rows `data.exclude` leaves in."""
    in_shards = holds_shards(data.root)
    if not in_shards and not Path(data.root).exists():
        raise ConfigError(
            f"data.root={data.root}: no such file or folder. Give the folder of the photos, or a "
            "table of them, or let data.recipe make them there.",
            code="no_photos",
        )
    manifest = read_shards(data.root) if in_shards else read_dataset(data.root, data.reader)
    table = manifest.table
    if not (table["split"] != "").any():
        # Splits made on the fly would be forgotten, and the model judged on photos that it was
        # trained on.
        written = (manifest.root / "metadata.csv").is_file()
        first = "" if written else f"realdamage manifest {data.root}, then "
        raise ManifestError(
            f"{manifest.root}: the photos have no split yet. Write them into the manifest: "
            f"{first}{split_command(manifest, manifest.root)}",
            code="no_split",
        )
    check_splits(table)
    return manifest, ~(_excluded(manifest, data) & table["split"].isin(("train", "val")))


def _drawn(manifest: Manifest) -> Manifest:
    """Some `AUDITED` photos, in whole groups: reading the headers of millions takes hours."""
    groups = manifest.table["group"]
    sizes = groups.value_counts().sample(frac=1.0, random_state=0)
    chosen = sizes.index[sizes.cumsum().sub(sizes) < AUDITED]
    return manifest.subset(groups.isin(chosen))


def _excluded(manifest: Manifest, data: DataConfig) -> pd.Series:
    """Rows that `data.exclude` names."""
    table = manifest.table
    named = pd.Series(False, table.index)
    for column, values in data.exclude.items():
        known = set(column_of(manifest, column, "data.exclude")) - {""}
        if unknown := sorted(set(values) - known):
            raise ConfigError(
                f"data.exclude.{column}={unknown}: {manifest.root} has no such {column}; it "
                f"has {', '.join(sorted(known))}"
            )
        named |= table[column].isin(values)
    return named


def column_of(manifest: Manifest, column: str, key: str) -> pd.Series:
    """A column that the setting `key` names. Raises ConfigError where there is none."""
    if column not in manifest.table.columns:
        raise ConfigError(
            f"{key}: {manifest.root} has no column {column}; it has "
            f"{', '.join(manifest.table.columns)}"
        )
    return manifest.table[column]


def _weights(train: Manifest, data: DataConfig) -> npt.NDArray[np.float64]:
    label = train.table["label"]
    of_kind = train.table["kind"].map(data.kind_weights).fillna(1.0)  # it may be unknown
    weights = label.map(data.class_weights) * of_kind
    for each in LABELS:
        if not weights[label == each].any():
            raise ConfigError(
                f"data.class_weights, data.kind_weights: every {each} photo of the train split of "
                f"{train.root} weighs 0; class_weights.{each} and the weight of one of its kinds "
                "must be above 0"
            )
    return np.asarray(weights, np.float64)


def _judge(report: AuditReport, data: DataConfig) -> None:
    """Stops on a leak, or warns of it. Broken files are left to `data.on_error`."""
    if report.leaks:
        leaks = "\n".join(f"- {leak}" for leak in report.leaks)
        found = f"{report.root}: the photos give their label away without the damage:\n{leaks}\n"
        if data.audit == "stop":
            raise ManifestError(
                f"{found}For all figures: realdamage audit {data.root} --html audit.html. Fix the "
                "set, or train anyway with data.audit=warn; the model's metadata will say so.",
                code="audit_failed",
            )
        log.warning("%sTraining anyway (data.audit=warn); the model's metadata will say so.", found)
    elif report.measured:
        figures = ", ".join(f"{t.title} {t.auroc:.3f}" for t in report.tests if t.measured)
        log.info("audit passed (AUROC of the shortcuts: %s)", figures)
    else:
        log.warning("%s", report.summary)
