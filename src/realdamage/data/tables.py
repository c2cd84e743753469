"""Reads CSV and Parquet files into columns of strings; no type is guessed.

The number of each row is kept as the index, so that every later check can name file and row.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from realdamage.errors import ManifestError

logger = logging.getLogger(__name__)

TABLE_SUFFIXES = (".csv", ".parquet")


def read_table(path: Path) -> pd.DataFrame:
    """The rows of a file; every value a string, "" where the file had none.

    The index is each row's number: of the record in a CSV file, whose first one holds the column
    names, and the position from 1 in Parquet. Columns without a name, and those of bytes, lists and
    objects, are left out.
    Raises ManifestError: not such a file, unreadable, a column name twice, or no rows.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise ManifestError(
            f"{path}: not a table ({', '.join(TABLE_SUFFIXES)}). "
            "Name a table, or the folder of the photos."
        )
    try:
        frame = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 ({error}). Save the file as UTF-8.") from error
    except (OSError, ValueError) as error:
        raise ManifestError(
            f"{path}: cannot be read ({str(error).strip()}). Values that hold a comma or a quote "
            "must be between double quotes."
        ) from error
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ManifestError(f"{path}: the column {twice[0]!r} occurs twice. Keep one of them.")
    if frame.empty:
        raise ManifestError(f"{path}: no rows. Add one row per photo.")
    return frame.fillna("")


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        # Without a header, pandas renames no column and takes none as the index.
        records = pd.read_csv(
            path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    frame = records.iloc[1:].set_axis(records.iloc[0].tolist(), axis=1)
    frame.index += 1
    return frame.loc[:, frame.columns != ""]  # pandas saves its index in a column without a name


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    binary = {field.name for field in schema if "binary" in str(field.type)}
    unread = [field.name for field in schema if field.name in binary or field.type.num_fields]
    if unread:
        logger.warning("%s: ignored %s: only plain values are read", path, unread)
    # pandas saves its index as a column of this name.
    names = [n for n in schema.names if n not in unread and not n.startswith("__index_level_")]
    table = pq.read_table(path, columns=names)
    words = {name: table.column(name).cast(pa.string()).fill_null("") for name in names}
    frame = pd.DataFrame({name: column.to_pylist() for name, column in words.items()}, dtype=str)
    frame.index += 1
    return frame
