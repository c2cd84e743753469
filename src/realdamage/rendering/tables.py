"""Metrics as text for a terminal; the same figures, with the reason wherever one is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from realdamage.rendering.figure_titles import COUNTED_ON

_HEADLINES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "tpr_at_fpr_0.5": "TPR at 0.5% FPR, really damaged",
    "tpr_at_fpr_1": "TPR at 1% FPR, really damaged",
    "tpr_at_fpr_5": "TPR at 5% FPR, really damaged",
    "tpr_at_fpr_0.5_all_real": "TPR at 0.5% FPR, all real",
    "tpr_at_fpr_1_all_real": "TPR at 1% FPR, all real",
    "tpr_at_fpr_5_all_real": "TPR at 5% FPR, all real",
    "balanced_accuracy": "balanced accuracy",
    "brier": "Brier score (0 is best)",
    "ece": "calibration error (ECE)",
}
_SLICE_COLUMNS = {
    "n": "n",
    "auroc": "AUROC",
    "tpr_at_fpr_1": "TPR@1%",
    "tpr_at_fpr_5": "TPR@5%",
    "called_synthetic": "synthetic",
    "called_real": "real",
}


def format_table(metrics: Mapping[str, Any]) -> str:
    """What `photo_metrics` returned, as lines for a terminal: overall figures, one row per kind and per generator."""
    unscored = f", {metrics['n_unscored']} not scored" if metrics["n_unscored"] else ""
    cut = metrics["balanced_accuracy_threshold"]
    titles = _HEADLINES | (
        {} if cut is None else {"balanced_accuracy": f"balanced accuracy at score {cut:.3g}"}
    )
    lines = [
        f"{metrics['n']} photos in {metrics['n_groups']} groups: {metrics['n_real']} real "
        f"({metrics['n_damaged']} really damaged), {metrics['n_synthetic']} synthetic{unscored}",
        "",
    ]
    for name, title in titles.items():
        note = _interval(metrics["intervals"].get(name)) or metrics["reasons"].get(name, "")
        lines.append(f"{title:<34}{_cell(metrics[name]):>7}   {note}".rstrip())
    lines.append(_pairs_line(metrics["pairs"]))
    for title, rows in (("kind", metrics["per_kind"]), ("generator", metrics["per_generator"])):
        if rows:
            lines += ["", *_slice_lines(title, rows)]
    if metrics["localisation"]:
        lines += ["", *_localisation_lines(metrics["localisation"])]
    return "\n".join(lines)


_ROBUSTNESS_COLUMNS = {
    "n": "n",
    "auroc": "AUROC",
    "auroc_drop": "drop",
    "tpr_at_fpr_1": "TPR@1%",
    "false_alarms": "accused",
    "false_alarms_all_real": "accused, all real",
    "called_real": "missed",
    "review": "review",
}
_CUT_COLUMNS = {
    "n": "n",
    "auroc": "AUROC",
    "tpr_at_fpr_1": "TPR@1%",
    "called_synthetic": "synthetic",
    "called_real": "real",
}
_WITH_INTERVAL = (
    "auroc",
    "auroc_drop",
    "tpr_at_fpr_1",
    "false_alarms",
    "false_alarms_all_real",
    "called_synthetic",
)


def format_robustness(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `robustness` in metrics.json as text for a terminal, "" without any."""
    return "\n".join(["", *robustness_lines(pd.DataFrame(rows))]) if rows else ""


def robustness_lines(table: pd.DataFrame) -> list[str]:
    """What `robustness_table` returned, for a terminal; `accused`: share of the really damaged photos called synthetic,
    and of all real ones; `missed`: share of the synthetic ones called real. Tables made before one of these was
    measured lack its column."""
    columns = {key: title for key, title in _ROBUSTNESS_COLUMNS.items() if key in table.columns}
    lines = _frame_lines(table, ["perturbation"], columns)
    if "n_damaged" in table.columns and table[list(COUNTED_ON)].notna().any(axis=None):
        damaged, real = (_range(table[key]) for key in ("n_damaged", "n_real"))
        lines.append(
            f"  – accused: called synthetic, of {damaged} really damaged and of all {real} real photos"
        )
    return lines


def slice_lines(table: pd.DataFrame, title: str) -> list[str]:
    """What `slice_table` returned, for a terminal, under `title`; `synthetic` and `real`: what the slice's own photos
    were called, its real ones where it has any."""
    keys = list(table.columns[: list(table.columns).index("n")])
    return [title, *_frame_lines(table, keys, _CUT_COLUMNS)]


def _frame_lines(table: pd.DataFrame, keys: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """One line per row, with intervals, then each note once, with its rows where it does not hold for all."""
    rows = table.to_dict(orient="records")
    names = [" × ".join(_short(str(row[key])) for key in keys) for row in rows]
    width = max([len(name) for name in names], default=0)
    sizes = {key: 23 if key in _WITH_INTERVAL else 8 for key in columns}
    lines = [
        f"{'':<{width}}" + "".join(f"{heading:>{sizes[key]}}" for key, heading in columns.items())
    ]
    for name, row in zip(names, rows, strict=True):
        cells = (f"{_with_interval(row, key):>{sizes[key]}}" for key in columns)
        lines.append(f"{name:<{width}}" + "".join(cells))
    notes: dict[str, list[str]] = {}
    for name, row in zip(names, rows, strict=True):
        for note in filter(None, row["note"].split("; ")):
            notes.setdefault(note, []).append(name)
    for note, where in notes.items():
        rest = f" and {len(where) - 3} more" if len(where) > 3 else ""
        told = "" if len(where) == len(rows) else f"{', '.join(where[:3])}{rest}: "
        lines.append(f"  – {told}{note}")
    return lines


def _range(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low} to {high}"


def _with_interval(row: Mapping[Any, Any], key: str) -> str:
    low, high = (row.get(f"{key}_{end}") for end in ("low", "high"))
    if _missing(row[key]) or _missing(low) or _missing(high):
        return _cell(row[key])
    return f"{row[key]:.3f} ({low:.3f}–{high:.3f})"


def _short(name: str, limit: int = 40) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _slice_lines(title: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = {
        f"{name} (never trained on)" if row.get("trained_on") is False else name: row
        for name, row in rows.items()
    }
    width = min(40, max(len(title), *(len(name) for name in rows)))
    lines = [f"{title:<{width}}" + "".join(f"{heading:>11}" for heading in _SLICE_COLUMNS.values())]
    for name, row in rows.items():
        lines.append(
            f"{_short(name, width):<{width}}"
            + "".join(f"{_cell(row[key]):>11}" for key in _SLICE_COLUMNS)
        )
    reasons = dict.fromkeys(reason for row in rows.values() for reason in row["reasons"].values())
    return lines + [f"  – {reason}" for reason in reasons]


def _pairs_line(pairs: Mapping[str, Any]) -> str:
    title = "edit scores above its original"
    if pairs["reason"]:
        return f"{title:<34}{_cell(None):>7}   {pairs['reason']}"
    told = f"{_interval((pairs['low'], pairs['high']))}; {pairs['n']} pairs, median {pairs['median_difference']:+.3f}"
    return f"{title:<34}{pairs['edit_higher']:>7.3f}   {told}"


def _localisation_lines(found: Mapping[str, Any]) -> list[str]:
    """A line for all photos, one for each kind where there are several, and what the same map would get by luck."""
    if found["reason"]:
        return [f"localisation: {found['reason']}"]
    kinds = {kind: row for kind, row in found["per_kind"].items() if len(found["per_kind"]) > 1}
    columns = (
        "photos",
        "mask area",
        "pixel AP",
        "F1",
        "IoU",
        "best F1",
        "all: AP",
        "all: F1",
        "all: IoU",
    )
    keys = (
        "n_photos",
        "mask_area",
        "pixel_ap",
        "f1",
        "iou",
        "best_f1",
        "prevalence",
        "baseline_f1",
        "baseline_iou",
    )
    lines = [f"{'localisation':<14}" + "".join(f"{heading:>11}" for heading in columns)]
    for name, row in {"all photos": found, **kinds}.items():
        lines.append(f"{name:<14}" + "".join(f"{_cell(row[key]):>11}" for key in keys))
    ends = {"pixel AP": "pixel_ap", "F1": "f1", "IoU": "iou", "best F1": "best_f1"}
    told = (
        f"{title} {_interval(found['intervals'][key])}"
        for title, key in ends.items()
        if found["intervals"][key]
    )
    lines.append("  – " + "; ".join(told))
    return [
        *lines,
        "  – F1 and IoU at the shipped threshold; “all”: a map that calls every patch painted",
    ]


def _interval(ends: Sequence[float] | None) -> str:
    return f"95%: {ends[0]:.3f} to {ends[1]:.3f}" if ends else ""


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _cell(value: float | int | None) -> str:
    if value is None or _missing(value):
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
