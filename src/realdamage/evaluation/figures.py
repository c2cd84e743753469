"""All figures of one evaluation, as `metrics.json` holds them: of the photos as they are, of slices, and under each
perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from realdamage.core.model_file import ModelMetadata
from realdamage.data.manifest import Manifest
from realdamage.data.shortcuts import container_auroc
from realdamage.errors import ManifestError
from realdamage.evaluation.localisation import localisation_metrics
from realdamage.evaluation.metrics import photo_metrics
from realdamage.evaluation.perturbations import Perturbation
from realdamage.evaluation.predictions import clean
from realdamage.evaluation.robustness import ScoredSuite
from realdamage.evaluation.robustness_table import robustness_table
from realdamage.evaluation.slices import CLEAN, json_records, standard_slices

# What is kept of each perturbation's localisation; all of it is there for the photos as they are.
_LOCALISATION = (
    "pixel_ap",
    "prevalence",
    "f1",
    "best_f1",
    "baseline_f1",
    "n_photos",
    "intervals",
    "reason",
)


def all_figures(scored: ScoredSuite, metadata: ModelMetadata, *, seed: int = 0) -> dict[str, Any]:
    """What `photo_metrics` says of the photos as they are, "slices" (`standard_slices`) and, after perturbations,
    "robustness": the rows of `robustness_table`, each with its `title` and `localisation`. Raises RealDamageError as
    these do."""
    calibration = metadata.calibration
    threshold = calibration.score_at(0.5, prior=0.5) if calibration else None
    metrics = photo_metrics(
        clean(scored.predictions), scored.localisation(), threshold=threshold, seed=seed
    )
    trained_on = metadata.training.get("generators")
    named = set(scored.suite.manifest.table["generator"])
    for name, row in metrics["per_generator"].items():
        row["trained_on"] = name in trained_on if trained_on is not None and name in named else None
    slices = standard_slices(scored.predictions, seed=seed)
    metrics["slices"] = {name: json_records(table) for name, table in slices.items()}
    if scored.suite.perturbations:
        metrics["robustness"] = _robustness(scored, scored.suite.perturbations, seed)
    return metrics


def _robustness(
    scored: ScoredSuite, perturbations: Sequence[Perturbation], seed: int
) -> list[dict[str, Any]]:
    titles = {each.name: each.title for each in perturbations}
    rows = json_records(robustness_table(scored.predictions, seed=seed))
    for row in rows:
        name = "" if row["perturbation"] == CLEAN else row["perturbation"]
        own = scored.predictions[scored.predictions["perturbation"] == name]
        found = localisation_metrics(scored.localisation(name), own, seed=seed)
        row |= {
            "title": titles.get(name, "As it is"),
            "localisation": {key: found[key] for key in _LOCALISATION},
        }
    return rows


def shortcut_figures(
    manifest: Manifest, predictions: pd.DataFrame, *, seed: int = 0
) -> dict[str, Any]:
    """AUROC of a classifier that sees the scored photos' files' own facts alone, and its 95% interval; None with a
    reason where the photos are too few to say."""
    judged = predictions.loc[predictions["score"].notna(), "file_name"]
    try:
        found = container_auroc(
            manifest.subset(np.isin(manifest.table["file_name"], judged)), seed=seed
        )
    except ManifestError as error:
        return {"auroc": None, "low": None, "high": None, "text": str(error)}
    text = f"AUROC {found.auroc:.3f} (95%: {found.low:.3f} to {found.high:.3f})"
    return {**found._asdict(), "text": text}
