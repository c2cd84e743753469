"""FraudBench's own table (arXiv 2605.08820) for these predictions, next to the published rows.

The figures are those of the authors' `tools/compute_accuracy.py` (Tristan0318/FraudBench on
GitHub): each is computed within a category and averaged over the categories that have it. Photos
of undamaged products do not count there.
"""

from __future__ import annotations

import csv
import math
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from realdamage.data.bootstrap import Floats, GroupDraws, percentile_interval, ratio
from realdamage.errors import RealDamageError
from realdamage.evaluation.predictions import clean, group_ids

GENERATORS = (
    *("gpt-image-2", "grok-imagine-image", "nano-banana-2"),
    *("wan2.7-image-pro", "qwen-image-2.0-pro", "qwen-image-edit-max"),
)
"""In the order of the published table."""
FIGURES = ("tnr", *(f"tpr {name}" for name in GENERATORS), "balanced_accuracy", "f1")


def published_rows() -> list[dict[str, Any]]:
    """The published table: sort (mllm, detector, people), name, `FIGURES` and their source."""
    path = files("realdamage.evaluation").joinpath("fraudbench_published.csv")
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return [
        {key: float(value) if key in FIGURES else value for key, value in row.items()}
        for row in rows
    ]


def fraudbench_figures(predictions: pd.DataFrame) -> dict[str, Any]:
    """Figures of a set read with layout `fraudbench`; ready for JSON.

    - rows: this model's, one per hard call: outcome `synthetic` (review counts as not called), and
      a calibrated probability of at least 0.5; each with `FIGURES`, and `intervals` of 95% by
      bootstrap over reviews.
    - published: see `published_rows`. notes: what to know about the averages. n_…: photos counted.

    Raises RealDamageError: no photo of real damage or no edit has a score, or another layout.
    """
    photos = clean(predictions)
    damaged = (photos["label"] == "real") & (photos["kind"] == "damaged")
    edits = photos["label"] == "synthetic"
    scored = photos[(damaged | edits) & photos["score"].notna()].reset_index(drop=True)
    synthetic = (scored["label"] == "synthetic").to_numpy()
    if synthetic.all() or not synthetic.any():
        raise RealDamageError(
            f"FraudBench compares photos of real damage with edits; found {(~synthetic).sum()} and "
            f"{synthetic.sum()} with a score. Evaluate the whole set with +benchmark=fraudbench.",
            code="one_class",
        )
    unnamed = scored[~scored["group"].str.contains(r"(?:^|/)Review_[^/]*$")]
    if len(unnamed):
        raise RealDamageError(
            f"{unnamed['file_name'].iat[0]}: its group {unnamed['group'].iat[0]!r} is not "
            "FraudBench's CATEGORY/Review_…. Read the set with data.reader.layout=fraudbench.",
            code="other_layout",
        )
    calls = {"outcome synthetic": scored["outcome"] == "synthetic"}
    if scored["probability"].notna().all():
        calls["probability >= 0.5"] = scored["probability"] >= 0.5
    return {
        "name": "fraudbench",
        "rows": [{"name": name, **_row(called, scored)} for name, called in calls.items()],
        "published": published_rows(),
        "notes": _notes(scored, photos),
        "n_categories": int(_category(scored).nunique()),
        "n_negatives": int((~synthetic).sum()),
        "n_edits": int(synthetic.sum()),
    }


def _category(photos: pd.DataFrame) -> pd.Series:
    return photos["group"].str.rpartition("/")[0]


def _notes(scored: pd.DataFrame, photos: pd.DataFrame) -> list[str]:
    notes = ["Review counts as not synthetic: a claim that a person looks at is not refused."]
    if n := len(photos) - len(scored):
        notes.append(f"{n} photos are left out: of undamaged products, or without a score.")
    found = set(scored.loc[scored["label"] == "synthetic", "generator"])
    if missing := [name for name in GENERATORS if name not in found]:
        notes.append(f"No edits by {', '.join(missing)}: compare no averages with the paper's.")
    if others := sorted(found - set(GENERATORS)):
        notes.append(f"Edits by {', '.join(others)} count in the averages; the paper has none.")
    return notes


def _row(called: pd.Series, scored: pd.DataFrame) -> dict[str, Any]:
    """The figures of one hard call, averaged over categories."""
    codes, categories = pd.factorize(_category(scored))
    # Column 0 are photos of real damage; generators that the paper lacks come last.
    last = len(GENERATORS) + 1
    columns = {name: column for column, name in enumerate(GENERATORS, start=1)}
    sort = scored["generator"].map(columns).fillna(last).where(scored["label"] == "synthetic", 0)
    shape = (len(categories), last + 1, 2)
    cell = np.ravel_multi_index((codes, sort.astype(int), called.astype(int)), shape)

    cells = (np.arange(math.prod(shape)) == cell[:, None]).astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        """[figures, b] under weights [b, photos]."""
        counts = (weights @ cells).reshape(-1, *shape)
        rates = ratio(counts[..., 1], counts.sum(axis=-1))
        tnr = 1 - rates[..., 0]
        missed, found = np.moveaxis(counts[:, :, 1:].sum(axis=2), -1, 0)
        balanced = (tnr + ratio(found, found + missed)) / 2
        f1 = ratio(2 * found, 2 * found + missed + counts[:, :, 0, 1])
        by_generator = np.moveaxis(rates[..., 1:last], -1, 0)
        per_category = np.stack([tnr, *by_generator, balanced, f1])
        known = ~np.isnan(per_category)
        total = np.where(known, per_category, 0.0).sum(axis=-1)
        return ratio(total, known.sum(axis=-1, dtype=np.float64))

    draws = GroupDraws(group_ids(scored).to_numpy()).figures(statistic, np.arange(len(scored)))
    rows = np.stack([draws[:, 0], *percentile_interval(draws[:, 1:])], axis=1).tolist()
    plain = [[None if math.isnan(value) else value for value in row] for row in rows]
    return {
        **{key: row[0] for key, row in zip(FIGURES, plain, strict=True)},
        "intervals": {key: tuple(row[1:]) for key, row in zip(FIGURES, plain, strict=True)},
    }
