"""Metrics as text for a terminal; the same figures, with the reason wherever one is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HEADLINES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "tpr_at_fpr_0.5": "TPR at 0.5% FPR, really damaged",
    "tpr_at_fpr_1": "TPR at 1% FPR, really damaged",
    "tpr_at_fpr_5": "TPR at 5% FPR, really damaged",
    "tpr_at_fpr_0.5_all_real": "TPR at 0.5% FPR, all real",
    "tpr_at_fpr_1_all_real": "TPR at 1% FPR, all real",
    "tpr_at_fpr_5_all_real": "TPR at 5% FPR, all real",
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
    lines = [
        f"{metrics['n']} photos in {metrics['n_groups']} groups: {metrics['n_real']} real "
        f"({metrics['n_damaged']} really damaged), {metrics['n_synthetic']} synthetic{unscored}",
        "",
    ]
    for name, title in _HEADLINES.items():
        interval = metrics["intervals"].get(name)
        note = f"95%: {interval[0]:.3f} to {interval[1]:.3f}" if interval else metrics["reasons"].get(name, "")
        lines.append(f"{title:<34}{_cell(metrics[name]):>7}   {note}".rstrip())
    for title, rows in (("kind", metrics["per_kind"]), ("generator", metrics["per_generator"])):
        if rows:
            lines += ["", *_slice_lines(title, rows)]
    if metrics["localisation"]:
        lines += ["", _localisation_line(metrics["localisation"])]
    return "\n".join(lines)


def _slice_lines(title: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = {f"{name} (never trained on)" if row.get("trained_on") is False else name: row for name, row in rows.items()}
    width = min(40, max(len(title), *(len(name) for name in rows)))
    lines = [f"{title:<{width}}" + "".join(f"{heading:>11}" for heading in _SLICE_COLUMNS.values())]
    for name, row in rows.items():
        short = name if len(name) <= width else name[: width - 1] + "…"
        lines.append(f"{short:<{width}}" + "".join(f"{_cell(row[key]):>11}" for key in _SLICE_COLUMNS))
    reasons = dict.fromkeys(reason for row in rows.values() for reason in row["reasons"].values())
    return lines + [f"  – {reason}" for reason in reasons]


def _localisation_line(found: Mapping[str, Any]) -> str:
    if found["reason"]:
        return f"localisation: {found['reason']}"
    return (
        f"localisation on {found['n_photos']} photos: pixel AP {found['pixel_ap']:.3f} "
        f"(baseline {found['prevalence']:.3f}), best F1 {found['best_f1']:.3f} (baseline {found['baseline_f1']:.3f})"
    )


def _cell(value: float | int | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
