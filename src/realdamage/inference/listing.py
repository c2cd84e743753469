"""Writes verdicts line by line: a table for people, CSV and JSON lines for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from realdamage.inference.errors import PhotoError
from realdamage.inference.verdict import MEASURED_COLUMNS, PREDICTION_COLUMNS, UNREADABLE, Verdict

_TABLE = "{:<{width}}  {:<9}  {:>8}  {:>11}  {:>7}  {}"


def header(form: str, width: int) -> list[str]:
    """The lines before the first verdict; `width` of the column of file names, in characters."""
    if form == "table":
        titles = _TABLE.format("file", "outcome", "score", "probability", "regions", "reasons", width=width)
        return [titles, "-" * max(len(titles), width + 60)]
    return [_csv_line((*PREDICTION_COLUMNS, *MEASURED_COLUMNS))] if form == "csv" else []


def line(form: str, width: int, file_name: str, found: Verdict | PhotoError, ms: float) -> str:
    """One photo without a line break: its verdict, or why it has none; `ms`: milliseconds from bytes to verdict.

    CSV has the columns of a predictions file, then MEASURED_COLUMNS; JSON lines have `file_name`, `ms` and the verdict
    without its heat map, or no `outcome` and an `error` as /v1/photos tells it.
    """
    if form == "csv":
        return _csv_line(row(file_name, found, ms).values())
    if form == "jsonl":
        values = (
            {"outcome": None, "error": found.to_dict()}
            if isinstance(found, PhotoError)
            else json.loads(found.to_json(heatmap=False))
        )
        return json.dumps({"file_name": file_name, "ms": round(ms, 1), **values})
    if isinstance(found, PhotoError):
        return _TABLE.format(file_name, "-", "-", "-", "-", UNREADABLE, width=width)
    probability = "-" if found.probability is None else f"{found.probability:.3f}"
    codes = ", ".join(reason.code for reason in found.reasons) or "-"
    return _TABLE.format(
        file_name, found.outcome, f"{found.score:+.2f}", probability, len(found.regions), codes, width=width
    )


def row(file_name: str, found: Verdict | PhotoError, ms: float) -> Mapping[str, Any]:
    """The same under PREDICTION_COLUMNS and MEASURED_COLUMNS; a photo that could not be read has neither score nor
    outcome, for the reason `unreadable`."""
    if isinstance(found, PhotoError):
        empty = dict.fromkeys((*PREDICTION_COLUMNS, *MEASURED_COLUMNS), "")
        return empty | {"file_name": file_name, "reasons": UNREADABLE}
    return found.to_row(file_name, ms)


def _csv_line(values: Iterable[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(values)
    return buffer.getvalue()
