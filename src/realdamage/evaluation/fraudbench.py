"""FraudBench's own table (arXiv 2605.08820) for our predictions, beside the published rows, and what that table lacks:
how many edits are found while hardly any photo of real damage is accused.

The figures are those of the authors' `tools/compute_accuracy.py` (github.com/Tristan0318/FraudBench): each is computed
within a category and averaged over the categories that have it. Photos of undamaged products do not count there.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.data.bootstrap import DRAWS, WeightedRoc, bootstrap_interval
from realdamage.errors import ConfigError, RealDamageError
from realdamage.evaluation.predictions import check_predictions, clean, group_ids

Floats = npt.NDArray[np.float64]

GENERATORS = (
    *("gpt-image-2", "grok-imagine-image", "nano-banana-2"),
    *("wan2.7-image-pro", "qwen-image-2.0-pro", "qwen-image-edit-max"),
)
"""In the order of the published table."""
FIGURES = ("tnr", *(f"tpr {name}" for name in GENERATORS), "balanced_accuracy", "f1")
_FALSE_POSITIVE_RATE = 0.01
# With fewer negatives, a rate of 1% would mean no error at all among these few.
_MIN_NEGATIVES = 100
_SHORT = ("TNR", "gpt-2", "grok", "nano-2", "wan2.7", "qwen-2.0", "qwen-edit", "bal.acc", "F1")


def benchmark_figures(name: str | None, predictions: pd.DataFrame) -> dict[str, Any] | None:
    """The figures of the benchmark of this name; None without one. Raises ConfigError: there is no such benchmark."""
    if name is None:
        return None
    if name != "fraudbench":
        raise ConfigError(
            f"benchmark={name}: allowed is fraudbench; write +benchmark=fraudbench, or leave it out"
        )
    return fraudbench_figures(predictions)


def published_rows() -> list[dict[str, Any]]:
    """The published table: sort (mllm, detector, people), name, `FIGURES` and their source."""
    text = (
        files("realdamage.evaluation")
        .joinpath("fraudbench_published.csv")
        .read_text(encoding="utf-8")
    )
    rows = csv.DictReader(text.splitlines())
    return [
        {key: float(value) if key in FIGURES else value for key, value in row.items()}
        for row in rows
    ]


def fraudbench_figures(
    predictions: pd.DataFrame, *, n_boot: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Predictions of a set read with layout `fraudbench`; ready for JSON.

    - rows: ours, one per hard call: outcome `synthetic` (review counts as not called), and a calibrated probability of
      at least 0.5 (only with probabilities); each with `FIGURES`, and `intervals` of 95% by bootstrap over reviews.
    - beyond: auroc and tpr_at_fpr_1 over all photos at once, of all edits and per generator, with intervals.
    - published: see `published_rows`. notes: what to know of the averages. n_…: photos counted.

    Raises RealDamageError: no photo of real damage or no edit has a score, or a group names no review.
    """
    check_predictions(predictions)
    photos = clean(predictions)
    negative = (photos["label"] == "real") & (photos["kind"] == "damaged")
    scored = photos[
        (negative | (photos["label"] == "synthetic")) & photos["score"].notna()
    ].reset_index(drop=True)
    synthetic = (scored["label"] == "synthetic").to_numpy()
    if synthetic.all() or not synthetic.any():
        raise RealDamageError(
            f"FraudBench compares photos of real damage with edits; found {int((~synthetic).sum())} and "
            f"{int(synthetic.sum())} with a score. Evaluate the whole set, as +benchmark=fraudbench does."
        )
    category = scored["group"].str.rpartition("/")[0]
    unnamed = np.flatnonzero(~scored["group"].str.contains(r"(?:^|/)Review_[^/]*$"))
    if len(unnamed):
        raise RealDamageError(
            f"{scored['file_name'].iat[unnamed[0]]}: its group {scored['group'].iat[unnamed[0]]!r} is not FraudBench's "
            "CATEGORY/Review_…. Read the set with data.reader.layout=fraudbench."
        )
    calls = {"outcome synthetic": (scored["outcome"] == "synthetic").to_numpy()}
    notes = _notes(scored, category, negative, photos)
    if scored["probability"].notna().all():
        calls["probability >= 0.5"] = (scored["probability"] >= 0.5).to_numpy()
    else:
        notes.append(
            "The model is not calibrated: no row for a probability of 0.5. Run realdamage calibrate."
        )
    if (scored["outcome"] == "review").all():
        notes.append("Every photo is left to review, so the outcome synthetic finds nothing.")
    groups = group_ids(scored).to_numpy()
    return {
        "name": "fraudbench",
        "rows": [
            _row(name, called, scored, category, n_boot, seed) for name, called in calls.items()
        ],
        "beyond": _beyond(scored, synthetic, groups, n_boot, seed),
        "published": published_rows(),
        "notes": notes,
        "n_categories": int(category.nunique()),
        "n_negatives": int((~synthetic).sum()),
        "n_edits": int(synthetic.sum()),
    }


def format_benchmark(figures: Mapping[str, Any]) -> str:
    """What `benchmark_figures` returned, as lines for a terminal."""
    width = max(len(row["name"]) for row in [*figures["published"], *figures["rows"]]) + 2
    lines = [
        f"FraudBench (arXiv 2605.08820): averages over {figures['n_categories']} categories, {figures['n_negatives']} "
        f"photos of real damage, {figures['n_edits']} edits (the paper: 29, 1012 and 5928)",
        "",
        f"{'':<{width + 11}}TPR by generator",
        f"{'':<{width}}" + "".join(f"{title:>11}" for title in _SHORT),
    ]
    for title, rows in (("published", figures["published"]), ("this model", figures["rows"])):
        lines += [f"- {title}"]
        for row in rows:
            lines.append(
                f"{row['name']:<{width}}" + "".join(f"{_cell(row[key]):>11}" for key in FIGURES)
            )
            lines += [f"{'  95%':<{width}}" + _ends(row)] if "intervals" in row else []
    lines += [
        "",
        f"not in that table, over all photos at once{'AUROC (95%)':>22}{'TPR at 1% FPR (95%)':>28}",
    ]
    lines += [
        f"{name:<42}{_with_ends(row, 'auroc'):>22}{_with_ends(row, 'tpr_at_fpr_1'):>28}"
        for name, row in figures["beyond"].items()
    ]
    reasons = dict.fromkeys(row["reason"] for row in figures["beyond"].values() if row["reason"])
    return "\n".join([*lines, *(f"  – {note}" for note in [*reasons, *figures["notes"]])])


def _notes(
    scored: pd.DataFrame, category: pd.Series, negative: pd.Series, photos: pd.DataFrame
) -> list[str]:
    notes = ["Review counts as not synthetic: a claim that a person looks at is not refused."]
    unscored = int(photos["score"].isna().sum())
    if unscored:
        notes.append(f"{unscored} photos could not be read and are left out.")
    intact = int(((photos["label"] == "real") & ~negative).sum())
    if intact:
        notes.append(f"{intact} photos of undamaged products are left out, as in the paper.")
    for label, sort, figures in (
        ("real", "photos of real damage", "TNR"),
        ("synthetic", "edits", "TPR"),
    ):
        lacking = sorted(set(category) - set(category[scored["label"] == label]))
        if lacking:
            notes.append(
                f"{len(lacking)} categories have no {sort} and are left out of {figures} and balanced accuracy: "
                f"{', '.join(lacking[:5])}{' …' if len(lacking) > 5 else ''}."
            )
    missing = [name for name in GENERATORS if name not in set(scored["generator"])]
    if missing:
        notes.append(
            f"No edits by {', '.join(missing)}: balanced accuracy and F1 do not compare with the paper's."
        )
    others = sorted(set(scored.loc[scored["label"] == "synthetic", "generator"]) - set(GENERATORS))
    if others:
        notes.append(
            f"Edits by {', '.join(others)} count in balanced accuracy and F1; the paper has none of them."
        )
    return notes


def _row(
    name: str,
    called: npt.NDArray[np.bool_],
    scored: pd.DataFrame,
    category: pd.Series,
    n_boot: int,
    seed: int,
) -> dict[str, Any]:
    """The figures of one hard call, macro-averaged."""
    codes, categories = pd.factorize(category)
    sorts = [
        "",
        *GENERATORS,
    ]  # "" are photos of real damage; generators that the paper lacks come last
    column = (
        scored["generator"]
        .map({key: index for index, key in enumerate(sorts) if key})
        .fillna(len(sorts))
    )
    sort = np.where(scored["label"] == "synthetic", column, 0).astype(np.int64)
    shape = (len(categories), len(sorts) + 1, 2)
    cell = np.ravel_multi_index((codes, sort, called.astype(np.int64)), shape)

    def statistic(weights: npt.NDArray[Any]) -> Floats:
        counts = np.bincount(cell, weights=weights.astype(np.float64), minlength=math.prod(shape))
        return _macro(counts.astype(np.float64).reshape(shape))

    low, high = bootstrap_interval(
        statistic, group_ids(scored).to_numpy(), n_boot=n_boot, seed=seed
    )
    values = dict(zip(FIGURES, _plain(statistic(np.ones(len(cell)))), strict=True))
    ends = zip(_plain(low), _plain(high), strict=True)
    return {"name": name, **values, "intervals": dict(zip(FIGURES, ends, strict=True))}


def _macro(counts: Floats) -> Floats:
    """`FIGURES` from counts [category, real or generator, not called or called]; NaN where no category has one."""
    rates = _ratio(counts[..., 1], counts.sum(axis=-1))
    tnr = 1 - rates[:, 0]
    missed, found = counts[:, 1:].sum(axis=1).T
    balanced = (tnr + _ratio(found, found + missed)) / 2
    f1 = _ratio(2 * found, 2 * found + missed + counts[:, 0, 1])
    per_category = np.column_stack([tnr, rates[:, 1 : 1 + len(GENERATORS)], balanced, f1])
    known = ~np.isnan(per_category)
    return _ratio(
        np.where(known, per_category, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64)
    )


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def _beyond(
    scored: pd.DataFrame,
    synthetic: npt.NDArray[np.bool_],
    groups: npt.NDArray[Any],
    n_boot: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    generator = scored["generator"].to_numpy()
    wanted = {"all edits": synthetic}
    wanted |= {
        str(name): synthetic & (generator == name) for name in sorted(set(generator[synthetic]))
    }
    rows = {}
    for name, edits in wanted.items():
        counted = ~synthetic | edits
        roc = WeightedRoc(scored["score"].to_numpy(dtype=np.float64)[counted], synthetic[counted])
        values = roc.figures(np.ones(counted.sum()), (_FALSE_POSITIVE_RATE,))

        def statistic(weights: npt.NDArray[Any], roc: WeightedRoc = roc) -> Floats:
            return roc.figures(weights, (_FALSE_POSITIVE_RATE,))

        low, high = bootstrap_interval(statistic, groups[counted], n_boot=n_boot, seed=seed)
        keys = ("auroc", "tpr_at_fpr_1")
        row: dict[str, Any] = dict(zip(keys, _plain(values), strict=True))
        row["intervals"] = dict(zip(keys, zip(_plain(low), _plain(high), strict=True), strict=True))
        row |= {"n": int(edits.sum()), "reason": None}
        if (~synthetic).sum() < _MIN_NEGATIVES:
            row["tpr_at_fpr_1"] = row["intervals"]["tpr_at_fpr_1"] = None
            row["reason"] = (
                f"{int((~synthetic).sum())} photos of real damage; a rate of 1% takes {_MIN_NEGATIVES}"
            )
        rows[name] = row
    return rows


def _plain(values: Floats) -> Sequence[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _ends(row: Mapping[str, Any]) -> str:
    ends = [row["intervals"][key] for key in FIGURES]
    return "".join(
        ("–" if low is None else f"{low:.2f}–{high:.2f}").rjust(11) for low, high in ends
    )


def _with_ends(row: Mapping[str, Any], key: str) -> str:
    ends = row["intervals"][key]
    if row[key] is None or ends is None or ends[0] is None:
        return _cell(row[key])
    return f"{row[key]:.3f} ({ends[0]:.3f}–{ends[1]:.3f})"
