"""Lays a report out as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from realdamage.evaluation.fraudbench import format_benchmark
from realdamage.evaluation.slices import counted_on_damaged
from realdamage.rendering import report_plots
from realdamage.rendering.figure_titles import (
    ROBUSTNESS_FIGURES,
    SLICE_FIGURES,
    format_figure,
    measured,
    of_how_many,
)
from realdamage.rendering.pages import figure, percent, render

if TYPE_CHECKING:
    from realdamage.rendering.report import Report

_ROWS = 80
"""Of a slice on the page; the JSON file has all of them."""
_FIGURES = {"n": "photos", **SLICE_FIGURES}
_ROBUSTNESS = {"n": "photos", **ROBUSTNESS_FIGURES, "pixel_ap": "pixel AP"}
# What a slice table says beside the values that it is sliced by.
_KNOWN = {
    *(
        key + end
        for key in ("auroc", "tpr_at_fpr_0.5", "tpr_at_fpr_1", "tpr_at_fpr_5", "called_synthetic")
        for end in ("", "_low", "_high")
    ),
    *(
        "n",
        "n_real",
        "n_synthetic",
        "n_groups",
        "called_real",
        "called_of",
        "note",
        "reasons",
        "trained_on",
    ),
}


def report_page(report: Report) -> str:
    """The page as HTML: it loads nothing, neither from a network nor from other files."""
    return render(
        "report.html.j2",
        report=report,
        deployed=any(row.sort == "deployed" for row in report.generators),
        headlines=[_tile(row) for row in report.headlines],
        parts=_table(report.parts, ["synthetic photos by"], _FIGURES, _ROWS),
        # Drawn here from numbers; only perturbations and kinds bring letters of a user's, and matplotlib escapes them.
        plots=[(title, Markup(svg), text) for title, svg, text in _plots(report)],
        robustness_plots=[Markup(svg) for svg in _robustness_plots(report)],
        robustness=_table(
            _named(report.robustness), ["perturbation"], _ROBUSTNESS, len(report.robustness)
        ),
        slices=[(name, _slice(name, rows, report)) for name, rows in report.slices.items()],
        benchmark=format_benchmark(report.benchmark) if report.benchmark else "",
    )


def _tile(row: Any) -> dict[str, Any]:
    tell = percent if row.share else figure
    return {
        "key": row.key,
        "title": row.title,
        "value": tell(row.value),
        "interval": f"95%: {tell(row.low)} to {tell(row.high)}" if row.low is not None else "",
        "baseline": f"without any skill {tell(row.baseline)}"
        if row.baseline is not None and row.value is not None
        else "",
        "note": row.note,
        "missing": row.value is None,
    }


def _plots(report: Report) -> Iterator[tuple[str, str, str]]:
    """(title, drawing, what it shows)."""
    if report.roc:
        yield (
            "Found, at which price",
            report_plots.roc_plot(report.roc),
            "How many synthetic photos are found while so many honest ones are accused. Bands: 95%.",
        )
    if report.reliability:
        yield (
            "Does 90% mean 90%?",
            report_plots.reliability_plot(report.reliability),
            "On the diagonal the stated probability comes true. Bars: 95%. It holds where as many photos are "
            "synthetic as in the calibration set; --prior re-weights it.",
        )
    if report.histograms:
        thresholds = "Dashed: the thresholds. " if report.thresholds else ""
        yield (
            "Where the scores lie",
            report_plots.histogram_plot(report.score_edges, report.histograms, report.thresholds),
            f"{thresholds}Each kind at its own height; blue is real, orange synthetic.",
        )


def _robustness_plots(report: Report) -> Iterator[str]:
    rows = report.robustness
    if not rows:
        return
    # Older evaluations do not tell how many photos a row has: as many as there are as they are.
    real, damaged = (
        [int(row.get(n, report.counts.get(n, 0))) for row in rows] for n in ("n_real", "n_damaged")
    )
    on_all, on_damaged = (
        f"on all {_between(real)} real photos",
        f"on {_between(damaged)} really damaged photos",
    )
    for key, title in (
        ("auroc", f"AUROC {on_all}"),
        ("tpr_at_fpr_1", f"TPR at 1% FPR {on_damaged if counted_on_damaged(damaged) else on_all}"),
        ("false_alarms", f"false alarms {on_damaged}"),
        ("false_alarms_all_real", f"false alarms {on_all}"),
    ):
        if any(row.get(key) is not None for row in rows):
            yield report_plots.robustness_plot(rows, key, title)


def _between(counts: Sequence[int]) -> str:
    """The count that all rows share, or the least and the most."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _named(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of perturbations under the titles that the suite gives them, their localisation beside the rest."""
    return [
        {
            **row,
            "perturbation": row.get("title") or str(row["perturbation"]).replace("_", " "),
            "pixel_ap": (row.get("localisation") or {}).get("pixel_ap"),
        }
        for row in rows
    ]


def _slice(name: str, rows: Sequence[Mapping[str, Any]], report: Report) -> dict[str, Any]:
    by = [column for column in rows[0] if column not in _KNOWN] if rows else []
    marked = rows
    if by == ["generator"]:
        new = {row.name for row in report.generators if row.trained_on is False}
        marked = [
            {**row, "mark": "never trained on"} if row["generator"] in new else row for row in rows
        ]
    # Rows that say something first; the order is kept otherwise.
    ordered = sorted(marked, key=lambda row: row.get("auroc") is None)
    return _table(ordered, by, _FIGURES, _ROWS)


def _table(
    rows: Sequence[Mapping[str, Any]], by: Sequence[str], titles: Mapping[str, str], most: int
) -> dict[str, Any]:
    """Rows of cells ready to print: (text, value to sort by, interval)."""
    kept = measured(titles, rows)
    return {
        "by": list(by),
        "titles": list(kept.values()),
        "more": max(0, len(rows) - most),
        "n": len(rows),
        "rows": [
            {
                "names": [
                    str(row[column]).replace("_", " ") if column == "perturbation" else row[column]
                    for column in by
                ],
                "mark": row.get("mark", ""),
                "note": row.get("note") or "",
                "few": row.get("auroc") is None,
                "cells": [_cell(row, key) for key in kept],
            }
            for row in rows[:most]
        ],
    }


def _cell(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    value, low, high = (row.get(key + end) for end in ("", "_low", "_high"))
    text, *ends = (format_figure(key, each) for each in (value, low, high))
    interval = " to ".join(ends) if value is not None and low is not None else ""
    interval = (interval + of_how_many(row, key)).strip()
    return {"text": text, "value": "" if value is None else f"{value:.6g}", "interval": interval}
