"""Writes verdicts line by line: a table for people, CSV and JSON lines for programs.

File names come from strangers. A table shows them without control characters. In CSV, text that a spreadsheet would
run as a formula gets a leading apostrophe, which `unescape_cell` takes off again.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from realdamage.core.verdict import MEASURED_COLUMNS, PREDICTION_COLUMNS, UNREADABLE, Verdict
from realdamage.errors import PhotoError
from realdamage.phrases.sentences import printable

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
"""A spreadsheet may run a cell that starts with one of these; full-width forms and white space count too."""

_FORMULA_CELL = re.compile(f"'*[{re.escape(''.join(FORMULA))}]")
_TABLE = "{:<{width}}  {:<9}  {:>8}  {:>11}  {:>7}  {}"


def header(form: str, width: int) -> list[str]:
    """The lines before the first verdict; `width` of the column of file names, in characters."""
    if form == "table":
        titles = _TABLE.format(
            "file", "outcome", "score", "probability", "regions", "reasons", width=width
        )
        return [titles, "-" * max(len(titles), width + 60)]
    return [csv_line((*PREDICTION_COLUMNS, *MEASURED_COLUMNS))] if form == "csv" else []


def line(form: str, width: int, file_name: str, found: Verdict | PhotoError, ms: float) -> str:
    """One photo as one record: its verdict, or why it has none; `ms`: milliseconds from bytes to verdict.

    CSV has the columns of a predictions file, then MEASURED_COLUMNS; JSON lines have `file_name`, `ms` and the verdict
    without its heat map, or no `outcome` and an `error` as /v1/photos tells it.
    """
    if form == "csv":
        return csv_line(row(file_name, found, ms).values())
    if form == "jsonl":
        values = (
            {"outcome": None, "error": found.to_dict()}
            if isinstance(found, PhotoError)
            else json.loads(found.to_json(heatmap=False))
        )
        return json.dumps({"file_name": file_name, "ms": round(ms, 1), **values})
    file_name = printable(file_name)
    if isinstance(found, PhotoError):
        return _TABLE.format(file_name, "-", "-", "-", "-", UNREADABLE, width=width)
    probability = "-" if found.probability is None else f"{found.probability:.3f}"
    codes = ", ".join(reason.code for reason in found.reasons) or "-"
    return _TABLE.format(
        file_name,
        found.outcome,
        f"{found.score:+.2f}",
        probability,
        len(found.regions),
        codes,
        width=width,
    )


def row(file_name: str, found: Verdict | PhotoError, ms: float) -> Mapping[str, Any]:
    """The same under PREDICTION_COLUMNS and MEASURED_COLUMNS; a photo that could not be read has neither score nor
    outcome, for the reason `unreadable`."""
    if isinstance(found, PhotoError):
        empty = dict.fromkeys((*PREDICTION_COLUMNS, *MEASURED_COLUMNS), "")
        return empty | {"file_name": file_name, "reasons": UNREADABLE}
    return found.to_row(file_name, ms)


def csv_line(values: Iterable[object]) -> str:
    """One record of a CSV file, without its end. Text is escaped, numbers stay as they are, line breaks are quoted."""
    buffer = io.StringIO()
    end = "\r\n"  # the writer quotes the characters of its own line end, and only those
    cells = (escape_cell(value) if isinstance(value, str) else value for value in values)
    csv.writer(buffer, lineterminator=end).writerow(cells)
    return buffer.getvalue().removesuffix(end)


def escape_cell(text: str) -> str:
    """`text` with an apostrophe in front where a spreadsheet would run it."""
    return f"'{text}" if _FORMULA_CELL.match(text) else text


def unescape_cell(text: str) -> str:
    """What `escape_cell` was given."""
    return text[1:] if text.startswith("'") and _FORMULA_CELL.match(text) else text
