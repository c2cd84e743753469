"""Reads CSV, JSONL and Parquet files into columns of strings.

The number of each row is kept, so that every later check can name file and row. No type is guessed.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.errors import ManifestError

logger = logging.getLogger(__name__)

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")


class RawTable(NamedTuple):
    """A table as its file has it, before its columns are checked or mapped.

    frame: every value a string, "" where the file had none.
    rows: int [n], each row's number in the file: its line, or its position from 1 in Parquet.
    """

    frame: pd.DataFrame
    rows: npt.NDArray[np.int64]
    path: Path


def read_table(path: Path) -> RawTable:
    """Reads a file by its suffix.

    Booleans become "true" and "false", lists and objects JSON. Columns without a name (the index
    that pandas writes) and columns of bytes are left out.
    Raises ManifestError: unreadable, broken (names the row), a column name twice, or no rows.
    """
    readers = dict(zip(TABLE_SUFFIXES, (_read_csv, _read_jsonl, _read_parquet), strict=True))
    if path.suffix.lower() not in readers:
        raise ManifestError(
            f"{path}: not a table ({', '.join(TABLE_SUFFIXES)}). "
            "Name a table, or the folder of the photos."
        )
    columns, records, rows = readers[path.suffix.lower()](path)
    for column in columns:
        if column and columns.count(column) > 1:
            raise ManifestError(
                f"{path}, row 1: the column {column!r} occurs twice. Keep one of them."
            )
    if not records:
        raise ManifestError(f"{path}: no rows. Add one row per photo.")
    frame = pd.DataFrame(records, columns=columns, dtype=str)
    return RawTable(frame.drop(columns=[""], errors="ignore"), np.array(rows, np.int64), path)


_Content = tuple[list[str], list[list[str]], list[int]]
"""Column names, records and row numbers."""


def _read_csv(path: Path) -> _Content:
    # The csv module, not pandas: it keeps line numbers, refuses ragged rows and guesses no type.
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    records: list[list[str]] = []
    rows: list[int] = []
    columns: list[str] = []
    line = 1
    try:
        columns = next(reader, [])
        line = reader.line_num + 1
        for record in reader:
            if record and len(record) != len(columns):
                raise ManifestError(
                    f"{path}, row {line}: {len(record)} values, but there are {len(columns)} "
                    "columns. Put values that hold a comma or a quote between double quotes."
                )
            if record:
                records.append(record)
                rows.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(
            f"{path}, row {line}: not valid CSV ({error}). Check the quotes in that row."
        ) from error
    for separator in ";\t|":
        if len(columns) == 1 and separator in columns[0]:
            raise ManifestError(
                f"{path}: the values seem to be separated by {separator!r}. "
                "Save the file with commas."
            )
    return columns, records, rows


def _read_jsonl(path: Path) -> _Content:
    rows: list[int] = []
    objects: list[dict[str, Any]] = []
    for line, text in enumerate(_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise ManifestError(
                f"{path}, row {line}: not valid JSON ({error}). Write one object per line."
            ) from error
        if not isinstance(found, dict):
            raise ManifestError(
                f"{path}, row {line}: found {text.strip()[:40]!r}, not an object. Write one object "
                'per line, such as {"file_name": "box.jpg", "label": "real"}.'
            )
        objects.append(found)
        rows.append(line)
    columns = list(dict.fromkeys(key for each in objects for key in each))
    return columns, [[_word(each.get(key)) for key in columns] for each in objects], rows


def _read_parquet(path: Path) -> _Content:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        of_bytes = [field.name for field in schema if _holds_bytes(field.type)]
        # pandas saves its index as a column of this name.
        wanted = [
            name
            for name in schema.names
            if name not in of_bytes and not name.startswith("__index_level_")
        ]
        table = pq.read_table(path, columns=wanted)
    except (OSError, pa.ArrowException) as error:
        raise ManifestError(
            f"{path}: cannot be read as Parquet ({error}). Write the file again."
        ) from error
    if of_bytes:
        logger.warning("%s: ignored %s: bytes are not read, only photo files", path, of_bytes)
    columns = [_words(table.column(name)) for name in wanted]
    records = [list(record) for record in zip(*columns, strict=True)]
    return wanted, records, list(range(1, table.num_rows + 1))


def _words(column: Any) -> list[str]:
    """The cells of an Arrow column."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type):
        return [_word(value) for value in column.to_pylist()]
    words: list[str] = column.cast(pa.string()).fill_null("").to_pylist()
    return words


def _holds_bytes(kind: Any) -> bool:
    inner = [kind.field(index).type for index in range(kind.num_fields)]
    return "binary" in str(kind) or any(_holds_bytes(field) for field in inner)


def _word(value: Any) -> str:
    """A JSON value as one cell."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ManifestError(
            f"{path}: cannot be read ({error.strerror}). Check its permissions."
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ManifestError(
            f"{path}, row {line}: not UTF-8 (byte 0x{content[error.start]:02x}). "
            "Save the file as UTF-8."
        ) from error
