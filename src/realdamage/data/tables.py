"""Tables as files hold them, read into words: a CSV, JSONL or Parquet file becomes columns of strings with the number
of each row, so that every later check can name file and row and nobody guesses a type.
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
    """A table before its columns mean anything to us.

    `frame`: every value a string, "" where the file had none; `rows` int [n]: the number of each row in the file, for
    the messages (the line in a text file, the position from 1 in Parquet); `path`: of the file.
    """

    frame: pd.DataFrame
    rows: npt.NDArray[np.int64]
    path: Path


def read_table(path: Path) -> RawTable:
    """Reads a file by its ending. Booleans become "true" and "false", lists and objects JSON; columns that hold bytes
    are left out with a warning. Raises ManifestError: cannot be read, broken (naming the row), or no rows."""
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise ManifestError(
            f"{path}: not a table ({', '.join(TABLE_SUFFIXES)}). Name one, or the folder of the photos."
        )
    table = readers[path.suffix.lower()](path)
    if table.frame.empty:
        raise ManifestError(f"{path}: no rows. Add one row per photo.")
    for column in table.frame.columns:
        if list(table.frame.columns).count(column) > 1:
            raise ManifestError(
                f"{path}, row 1: the column {column!r} occurs twice. Keep one of them."
            )
    return table


def read_csv(path: Path) -> tuple[list[str], list[list[str]], npt.NDArray[np.int64]]:
    """Column names, records and the line each record starts on (1 = the column names). Raises ManifestError."""
    # The csv module, not pandas: it keeps line numbers, refuses ragged rows and never guesses a type.
    reader = csv.reader(io.StringIO(_text(path, "CSV UTF-8"), newline=""), strict=True)
    records: list[list[str]] = []
    rows: list[int] = []
    columns: list[str] = []
    line = 1
    try:
        columns = next(reader, [])
        line = reader.line_num + 1
        for record in reader:
            if record:
                if len(record) != len(columns):
                    raise ManifestError(
                        f"{path}, row {line}: {len(record)} values, but there are {len(columns)} columns. "
                        "Put values that hold a comma or a quote between double quotes."
                    )
                records.append(record)
                rows.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(
            f"{path}, row {line}: not valid CSV ({error}). Check the quotes in that row."
        ) from error
    return columns, records, np.asarray(rows, dtype=np.int64)


def _read_csv(path: Path) -> RawTable:
    columns, records, rows = read_csv(path)
    separator = next(
        (mark for mark in (";", "\t", "|") if len(columns) == 1 and mark in columns[0]), None
    )
    if separator:
        raise ManifestError(
            f"{path}: the values seem to be separated by {separator!r}. Save the file with commas."
        )
    frame = pd.DataFrame(records, columns=columns, dtype=str)
    return RawTable(
        frame.drop(columns=[""], errors="ignore"), rows, path
    )  # the index that pandas writes has no name


def _read_jsonl(path: Path) -> RawTable:
    rows: list[int] = []
    objects: list[dict[str, str]] = []
    for line, text in enumerate(_text(path, "UTF-8").split("\n"), start=1):
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
                f"{path}, row {line}: found {text.strip()[:40]!r}, not an object. Write one object per line, such as "
                '{"file_name": "box.jpg", "label": "real"}.'
            )
        objects.append(
            {key: value if isinstance(value, str) else _word(value) for key, value in found.items()}
        )
        rows.append(line)
    columns = list(dict.fromkeys(key for each in objects for key in each))
    frame = pd.DataFrame(
        {column: [each.get(column, "") for each in objects] for column in columns}, dtype=str
    )
    return RawTable(frame, np.asarray(rows, dtype=np.int64), path)


def _read_parquet(path: Path) -> RawTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        holds_bytes = [field.name for field in schema if _holds_bytes(field.type)]
        if holds_bytes:
            logger.warning(
                "%s: left out %s, which hold bytes; photos are read from files of their own",
                path,
                holds_bytes,
            )
        # pandas keeps its index as a column of this name; it says nothing about a photo.
        wanted = [
            name
            for name in schema.names
            if name not in holds_bytes and not name.startswith("__index_level_")
        ]
        table = pq.read_table(path, columns=wanted)
    except (OSError, pa.ArrowException) as error:
        raise ManifestError(
            f"{path}: cannot be read as Parquet ({error}). Write the file again."
        ) from error
    frame = pd.DataFrame(
        {name: _words(table.column(name)) for name in table.column_names}, dtype=str
    )
    return RawTable(frame, np.arange(table.num_rows, dtype=np.int64) + 1, path)


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
    import pyarrow as pa

    inner = [kind.field(index).type for index in range(kind.num_fields)]
    binary = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
    )
    return any(is_kind(kind) for is_kind in binary) or any(_holds_bytes(field) for field in inner)


def _word(value: Any) -> str:
    """A JSON value as one cell."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _text(path: Path, wanted: str) -> str:
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
            f"{path}, row {line}: not UTF-8 (byte 0x{content[error.start]:02x}). Save the file as {wanted}."
        ) from error
