"""Titles of the figures that tables of slices and of perturbations tell, the same on every page and card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from realdamage.rendering.pages import figure, percent

SLICE_FIGURES: Mapping[str, str] = {
    "auroc": "AUROC",
    "tpr_at_fpr_1": "TPR at 1% FPR",
    "called_synthetic": "called synthetic",
    "called_real": "called real",
}
ROBUSTNESS_FIGURES: Mapping[str, str] = {
    "auroc": "AUROC",
    "auroc_drop": "AUROC lost",
    "tpr_at_fpr_1": "TPR at 1% FPR",
    "false_alarms": "real damage called synthetic",
    "false_alarms_all_real": "any real photo called synthetic",
    "called_real": "synthetic called real",
    "review": "to review",
}
COUNTED_ON: Mapping[str, str] = {"false_alarms": "n_damaged", "false_alarms_all_real": "n_real"}
"""Columns whose photos are fewer than the row's n: the column that says how many they are."""
_SHARES = {
    "tpr_at_fpr_1",
    "called_synthetic",
    "called_real",
    "false_alarms",
    "false_alarms_all_real",
    "review",
}


def format_figure(key: str, value: Any) -> str:
    """A figure as people read it: shares in percent, others with three decimals, – where there is none."""
    return percent(value) if key in _SHARES else figure(value)


def of_how_many(row: Mapping[str, Any], key: str) -> str:
    """ " of 18" behind a share whose photos are fewer than the row's, "" where that is not known or not so."""
    n = row.get(COUNTED_ON.get(key, ""))
    return "" if n is None or row.get(key) is None else f" of {int(n):,}"


def measured(titles: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The columns that any of the rows has a figure in."""
    return {
        key: title for key, title in titles.items() if any(row.get(key) is not None for row in rows)
    }
