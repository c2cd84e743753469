"""Reads what a service has judged: the output of `realdamage predict`, in any of its forms, without labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realdamage.core.verdict import MEASURED_COLUMNS, UNREADABLE
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.predictions import read_table_csv

_NUMBERS = ("score", "width", "height", *MEASURED_COLUMNS)
_STRINGS = ("file_name", "group", "outcome", "reasons", "photo_sha256", "graph_sha256")
_NEEDED = ("score", "outcome", "graph_sha256")
_FORMS = (".csv", ".parquet", ".jsonl", ".ndjson")


def read_log(path: str | Path) -> pd.DataFrame:
    """The verdicts of a log, one row each: numbers as float64 (NaN where empty), the rest as strings.

    CSV and Parquet as `realdamage predict` and realdamage-evaluate write them, or JSON lines. The same file name may
    come again, and columns that older versions did not write are empty. Raises UsageError: no such file;
    RealDamageError: another form, a needed column is missing, a wrong value (named with its row).
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMS:
        raise RealDamageError(
            f"{path}: a log ends in {', '.join(_FORMS)}; found {suffix!r}. Rename it."
        )
    try:
        if suffix == ".parquet":
            table = pd.read_parquet(path)
        elif suffix == ".csv":
            table = read_table_csv(path)
        else:
            table = _from_lines(path)
    except ImportError as error:
        raise RealDamageError(
            f"{path}: Parquet needs a package that is missing. pip install pyarrow"
        ) from error
    except OSError as error:
        kind = UsageError if isinstance(error, FileNotFoundError) else RealDamageError
        raise kind(f"{path}: cannot be read ({error.strerror or error}).") from error
    except pd.errors.EmptyDataError as error:
        raise RealDamageError(
            f"{path}: is empty. Write it with: realdamage predict PHOTOS --output {path}"
        ) from error
    except ValueError as error:
        raise RealDamageError(f"{path}: not a readable table ({error}).") from error
    if table.empty:
        raise RealDamageError(f"{path}: holds no verdict.")
    missing = [column for column in _NEEDED if column not in table.columns]
    if missing:
        raise RealDamageError(
            f"{path}: not a log of verdicts; it has no column {', '.join(missing)} (found: "
            f"{', '.join(map(str, table.columns[:8]))}). Write it with: realdamage predict PHOTOS --output LOG.csv"
        )
    return _typed(table.reindex(columns=[*_STRINGS, *_NUMBERS]), path)


def _from_lines(path: str | Path) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RealDamageError(
                f"{path}, line {number}: not a verdict in JSON ({type(error).__name__}: {error})."
            ) from error
    return pd.DataFrame(rows)


def _row(verdict: dict[str, Any]) -> dict[str, Any]:
    """The verdict as a row; reasons as their codes, quality as its numbers. A photo that could not be read has a name
    and the reason `unreadable`."""
    if verdict.get("error"):
        return {"file_name": verdict["file_name"], **dict.fromkeys(_NEEDED), "reasons": UNREADABLE}
    quality = verdict.get("quality") or {}
    return {
        **{key: verdict.get(key) for key in (*_STRINGS, *_NUMBERS)},
        **{key: verdict[key] for key in _NEEDED},
        "reasons": " ".join(reason["code"] for reason in verdict.get("reasons") or ()),
        **{key: quality.get(key) for key in ("sharpness", "compression", "fine_detail")},
    }


def _typed(table: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    typed: dict[str, pd.Series] = {
        column: table[column].fillna("").astype(str) for column in _STRINGS
    }
    for column in _NUMBERS:
        numbers = pd.to_numeric(table[column], errors="coerce").astype("float64")
        given = table[column].notna() & ~table[column].astype(str).str.lower().isin(["", "nan"])
        wrong = np.flatnonzero(given & ~np.isfinite(numbers))
        if len(wrong):
            raise RealDamageError(
                f"{path}, row {wrong[0] + 2}, column {column}: found {table[column].iat[wrong[0]]!r}, not a finite "
                "number."
            )
        typed[column] = numbers
    return table.assign(**typed)
