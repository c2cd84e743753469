"""Writes verdicts line by line: a table for people, CSV and JSON lines for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable

from realdamage.inference.verdict import MEASURED_COLUMNS, PREDICTION_COLUMNS, Verdict

_TABLE = "{:<{width}}  {:<9}  {:>8}  {:>11}  {:>7}  {}"


def header(form: str, width: int) -> list[str]:
    """The lines before the first verdict; `width` of the column of file names, in characters."""
    if form == "table":
        titles = _TABLE.format("file", "outcome", "score", "probability", "regions", "reasons", width=width)
        return [titles, "-" * max(len(titles), width + 60)]
    return [_csv_line((*PREDICTION_COLUMNS, *MEASURED_COLUMNS))] if form == "csv" else []


def line(form: str, width: int, file_name: str, verdict: Verdict, ms: float) -> str:
    """One verdict without a line break; `ms`: milliseconds from the photo's bytes to the verdict.

    CSV has the columns of a predictions file, then MEASURED_COLUMNS; JSON lines have `file_name`, `ms` and the verdict
    without its heat map.
    """
    if form == "csv":
        return _csv_line(verdict.to_row(file_name, ms).values())
    if form == "jsonl":
        verdict_values = json.loads(verdict.to_json(heatmap=False))
        return json.dumps({"file_name": file_name, "ms": round(ms, 1), **verdict_values})
    probability = "-" if verdict.probability is None else f"{verdict.probability:.3f}"
    codes = ", ".join(reason.code for reason in verdict.reasons) or "-"
    return _TABLE.format(
        file_name, verdict.outcome, f"{verdict.score:+.2f}", probability, len(verdict.regions), codes, width=width
    )


def _csv_line(values: Iterable[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(values)
    return buffer.getvalue()
