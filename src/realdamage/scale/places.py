"""Where photos come from and verdicts go: paths of this machine, or URLs of object storage."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from pyarrow import fs

from realdamage.core.verdict import MEASURED_COLUMNS, PREDICTION_COLUMNS
from realdamage.errors import RealDamageError, UsageError
from realdamage.files import PHOTO_SUFFIXES, find_photos, is_url, unescape_cell, write_atomically

_TABLES = {".csv", ".parquet"}
_NAME_COLUMNS = ("file_name", "path")
_NUMBERS = {"score", "probability", "width", "height", "ms", *MEASURED_COLUMNS}
_SCHEMA = pa.schema(
    (name, pa.float64() if name in _NUMBERS else pa.string())
    for name in (*PREDICTION_COLUMNS, *MEASURED_COLUMNS, "error")
)
_RUN = "_run.json"  # readers of Parquet folders skip names with an underscore


def find_sources(source: str | Path | Iterable[str]) -> list[str]:
    """The photos of a folder, a glob, a table of paths, an object or a prefix, or several of these;
    each once, in order.

    A table is a .csv or .parquet file with a column `file_name` or `path`, relative to its folder.
    Raises UsageError when one of them has no photo or cannot be read.
    """
    given = [str(source)] if isinstance(source, str | Path) else [str(one) for one in source]
    found: dict[str, None] = {}
    for kind, several in itertools.groupby(given, _kind):
        if kind == "path":
            found.update((str(path), None) for path in find_photos(several, keep_missing=True))
        else:
            find = _of_table if kind == "table" else _of_prefix
            found.update((name, None) for one in several for name in find(one))
    if not found:
        raise UsageError("no photo to judge; name photos, folders or tables", code="no_such_photo")
    return list(found)


def _kind(name: str) -> str:
    if PurePosixPath(name).suffix.lower() in _TABLES:
        return "table"
    return "url" if is_url(name) else "path"


def _of_table(name: str) -> list[str]:
    is_csv = name.lower().endswith(".csv")
    try:
        filesystem, path = _place(name)
        with filesystem.open_input_file(path) as file:
            if is_csv:
                text = pa.csv.ConvertOptions(column_types=dict.fromkeys(_NAME_COLUMNS, pa.string()))
                table = pa.csv.read_csv(file, convert_options=text)
            else:
                table = pa.parquet.read_table(file)
        column = next((one for one in _NAME_COLUMNS if one in table.column_names), None)
        names = table[column].cast(pa.string()).to_pylist() if column else []
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's are of these kinds
        raise UsageError(
            f"{name}: not a readable table: {error}", code="unreadable_table"
        ) from error
    if column is None:
        columns = ", ".join(table.column_names[:8])
        needed = " or ".join(_NAME_COLUMNS)
        message = f"{name}: needs a column {needed} with the photos' paths; found {columns}"
        raise UsageError(message, code="missing_columns")
    folder = name.rpartition("/")[0]
    values = [unescape_cell(value) if is_csv else value for value in names if value]
    return [_in_folder(value, folder) for value in values]


def _in_folder(value: str, folder: str) -> str:
    """The photo that a table in `folder` names."""
    if is_url(value) or value.startswith("/") or not folder:
        return value
    return f"{folder}/{quote(value)}" if is_url(folder) else f"{folder}/{value}"


def _of_prefix(url: str) -> list[str]:
    filesystem, path = _place(url)
    scheme = url.partition("://")[0]
    try:
        if filesystem.get_file_info(path).type == fs.FileType.File:
            return [url]
        below = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    except OSError as error:
        raise UsageError(f"{url}: cannot be listed: {error}", code="no_such_photo") from error
    names = sorted(info.path for info in below if info.type == fs.FileType.File)
    photos = [name for name in names if PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES]
    if not photos:
        raise UsageError(f"{url}: no photo below this prefix", code="no_such_photo")
    return [f"{scheme}://{quote(name)}" for name in photos]


def _place(name: str) -> tuple[fs.FileSystem, str]:
    """Raises UsageError on a URL that pyarrow cannot use."""
    if not is_url(name):
        return fs.LocalFileSystem(), name
    try:
        filesystem, path = fs.FileSystem.from_uri(name)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: not a usable URL: {error}", code="unknown_url") from error
    return filesystem, path


class Parts:
    """A folder of Parquet parts, each whole or absent, and of the run that they belong to.

    Raises UsageError when the folder holds parts of another run: other photos, model or options.
    """

    def __init__(self, output: str | Path, names: Sequence[str], run: Mapping[str, Any]) -> None:
        self._output, self._names = str(output).rstrip("/"), names
        self._size = int(run["part_size"])
        digest = hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()
        record = {**run, "photos": len(names), "photos_sha256": digest}
        self._filesystem, self._path = _place(self._output)
        there = self._there()
        if _RUN in there:
            found = json.loads(self._read(_RUN))
            if found != record:
                changed = sorted(key for key in record if found.get(key) != record[key])
                raise UsageError(
                    f"{output}: holds the verdicts of another run (other {', '.join(changed)}). "
                    "Name another folder, or remove this one",
                    code="other_run",
                )
        elif there:
            message = f"{output}: holds other files. Name a new or an empty folder"
            raise UsageError(message, code="folder_in_use")
        else:
            self._write(_RUN, json.dumps(record, indent=1).encode())
        numbers = range(-(-len(names) // self._size))
        self.pending = [number for number in numbers if _part_name(number) not in there]
        """Numbers of the parts that are not there yet."""

    def photos(self, part: int) -> Sequence[str]:
        """The names of a part's photos."""
        return self._names[part * self._size : (part + 1) * self._size]

    def write(self, part: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Raises RealDamageError when it cannot be written; nothing of it is then there."""
        columns = {
            field.name: [_cell(row.get(field.name, ""), field.name) for row in rows]
            for field in _SCHEMA
        }
        buffer = io.BytesIO()
        pa.parquet.write_table(pa.table(columns, schema=_SCHEMA), buffer)
        self._write(_part_name(part), buffer.getvalue())

    def _there(self) -> set[str]:
        below = fs.FileSelector(self._path, allow_not_found=True)
        try:
            names = {info.base_name for info in self._filesystem.get_file_info(below)}
        except OSError as error:
            message = f"{self._output}: cannot be listed: {error}"
            raise RealDamageError(message, code="cannot_list") from error
        return {name for name in names if not name.startswith(".")}

    def _read(self, name: str) -> bytes:
        with self._filesystem.open_input_stream(f"{self._path}/{name}") as stream:
            contents: bytes = stream.read()
        return contents

    def _write(self, name: str, data: bytes) -> None:
        if isinstance(self._filesystem, fs.LocalFileSystem):
            write_atomically(Path(self._path) / name, data)
            return
        try:  # an object appears once it is complete
            with self._filesystem.open_output_stream(f"{self._path}/{name}") as stream:
                stream.write(data)
        except OSError as error:
            message = f"{self._output}/{name}: cannot be written: {error}"
            raise RealDamageError(message, code="cannot_write") from error


def _part_name(number: int) -> str:
    return f"part-{number:06d}.parquet"


def _cell(value: Any, column: str) -> Any:
    if column in _NUMBERS:
        return None if value == "" else float(value)
    # Parquet holds UTF-8 only, and the name of a file may be anything.
    return str(value).encode(errors="backslashreplace").decode()
