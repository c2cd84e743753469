"""The figures of folds as people read them: a Markdown table whose columns line up in a terminal too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from realdamage.evaluation.left_out import ALL, AS_IT_IS, MEAN, WORST
from realdamage.rendering.pages import figure

_HEADINGS = (
    "real",
    "synthetic",
    "AUROC (95%)",
    "TPR at 1% FPR (95%)",
    "edit above original (95%)",
    "best F1 (all)",
)


def to_markdown(table: pd.DataFrame, column: str, unfinished: Sequence[str] = ()) -> str:
    """`table`: of `left_out_table`, with git_commit, command and date; `column`: whose values were left out. Photos as
    they are: each fold, its values, mean and worst; under perturbations: mean and worst over the folds."""
    rows = [
        {str(key): value for key, value in row.items()} for row in table.to_dict(orient="records")
    ]
    clean = [row for row in rows if row["perturbation"] == AS_IT_IS]
    lines = _lines((column, *_HEADINGS), [[_name(row), *_cells(row)] for row in clean])
    changed = [
        row for row in rows if row["perturbation"] != AS_IT_IS and row["fold"] in (MEAN, WORST)
    ]
    if changed:
        named = [[row["perturbation"], row["fold"], *_cells(row)[2:]] for row in changed]
        lines += ["", *_lines(("perturbation", "over folds", *_HEADINGS[2:]), named)]
    lines += [
        "",
        "Each fold was trained without the values named, and scored on test photos that have them. False alarms are",
        "counted on really damaged photos; “all”: F1 of a map that calls every patch painted. The interval of a mean",
        "is over other photos with the same left out; that of a worst is its fold's.",
    ]
    lines += [f"Worst: {row['note']}." for row in clean if row["fold"] == WORST and row["note"]]
    notes: dict[str, list[str]] = {}
    for row in clean:
        for note in filter(None, row["note"].split("; ") if row["fold"] != WORST else []):
            notes.setdefault(note, []).append(_name(row).replace("· ", ""))
    lines += [f"– {', '.join(names)}: {note}" for note, names in notes.items()]
    if unfinished:
        lines.append(f"Not finished, and so not counted: {', '.join(unfinished)}.")
    return "\n".join(
        [
            *lines,
            "",
            f"`{rows[0]['command']}` at {rows[0]['git_commit'][:8]}, {rows[0]['date'][:10]}.",
        ]
    )


def _name(row: dict[str, Any]) -> str:
    return str(row["fold"]) if row["left_out"] == ALL else f"· {row['left_out']}"


def _cells(row: dict[str, Any]) -> list[str]:
    counts = ["" if pd.isna(row[key]) else str(int(row[key])) for key in ("n_real", "n_synthetic")]
    figures = [_with_interval(row, key) for key in ("auroc", "tpr_at_fpr_1", "edit_higher")]
    area = figure(row["best_f1"], 2)
    return [
        *counts,
        *figures,
        area if pd.isna(row["best_f1"]) else f"{area} ({figure(row['baseline_f1'], 2)})",
    ]


def _with_interval(row: dict[str, Any], key: str) -> str:
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    told = figure(float(row[key]) if pd.notna(row[key]) else None)
    return told if pd.isna(low) else f"{told} ({figure(low)}–{figure(high)})"


def _lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(headings))]
    cells.insert(1, ["-" * width for width in widths])
    return [
        "| "
        + " | ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        + " |"
        for row in cells
    ]
