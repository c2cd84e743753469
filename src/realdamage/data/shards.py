"""Photos in WebDataset shards: tar files instead of one file for each photo, and an index of where
each photo is.

A sample of a shard is an original with all its edits and their masks, next to each other. The index
is the manifest with the place of every photo, so training reads any photo of a shard as it reads a
file: in the same order, with the same crops.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.core.decode import read_file
from realdamage.core.progress import Track, no_progress
from realdamage.data.manifest import EXCEPTIONS_NAME, Manifest, Shards
from realdamage.data.splits import check_splits
from realdamage.errors import ManifestError, MissingManifestError, UsageError
from realdamage.files import write_atomically

INDEX_NAME = "index.parquet"
SHARD_MIB = 256
_FORMAT = 1
_PLACES = ("shard", "photo_start", "photo_size", "mask_start", "mask_size")
_BLOCK = tarfile.BLOCKSIZE


def holds_shards(root: str) -> bool:
    """Whether a set is read from shards: a URL, or a folder with an index."""
    return "://" in root or (Path(root) / INDEX_NAME).is_file()


def read_shards(root: str) -> Manifest:
    """The manifest of a set in shards; opens none of them.

    root: a folder, or a URL of fsspec such as s3://bucket/set or filecache::s3://bucket/set.
    Raises MissingManifestError (code no_index): there is no index. ManifestError (bad_index): it
    cannot be read, or is of a newer format.
    """
    import fsspec
    import pyarrow as pa
    import pyarrow.parquet as pq

    url = f"{root.rstrip('/')}/{INDEX_NAME}"
    try:
        with fsspec.open(url, "rb") as file:
            table = pq.read_table(file)
        about = json.loads(table.schema.metadata[b"realdamage"])
    except FileNotFoundError:
        raise MissingManifestError(
            f"{url}: no such file. Name a folder that realdamage manifest --to-shards has written.",
            code="no_index",
        ) from None
    # Without s3fs, fsspec raises ImportError for s3://.
    except (OSError, ValueError, KeyError, TypeError, ImportError, pa.ArrowException) as error:
        raise ManifestError(f"{url}: cannot be read ({error}).", code="bad_index") from error
    if about["format"] > _FORMAT:
        raise ManifestError(
            f"{url}: format {about['format']}; this version reads {_FORMAT}. Update realdamage.",
            code="bad_index",
        )
    places = np.column_stack([table.column(name).to_numpy() for name in _PLACES])
    shards = Shards(root.rstrip("/"), tuple(about["shards"]), places)
    return Manifest(Path(root), table.drop_columns(list(_PLACES)).to_pandas(), shards)


def write_shards(
    manifest: Manifest,
    out: Path,
    *,
    shard_mib: int = SHARD_MIB,
    overwrite: bool = False,
    progress: Track = no_progress,
) -> Manifest:
    """Writes the photos and masks of a set as shards with an index into `out`.

    A shard holds one split, and its samples are a random draw of that split, so that a few shards
    look like the whole. The index is written last: without it there is no set.

    Raises UsageError: `out` holds shards (code exists) or other files (not_ours). PhotoError: a
    photo cannot be read. ManifestError as `check_splits`.
    """
    check_splits(manifest.table)
    _make_room(out, overwrite)
    writer = _Writer(manifest, out, shard_mib * 2**20)
    samples = _samples(manifest)
    with writer:
        for rows in progress(samples, len(samples), "writing shards"):
            writer.add(rows)
    exceptions = manifest.path(EXCEPTIONS_NAME)
    if exceptions.is_file():
        write_atomically(out / EXCEPTIONS_NAME, read_file(exceptions))
    _write_index(out, manifest.table, writer)
    return replace(manifest, root=out, shards=Shards(str(out), tuple(writer.names), writer.places))


def _make_room(out: Path, overwrite: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    index = out / INDEX_NAME
    if index.is_file() and not overwrite:
        raise UsageError(
            f"{out} already holds shards. Choose another folder, or replace them with --overwrite",
            code="exists",
        )
    # Without an index, shards are what an interrupted run left.
    old = list(out.glob("shard-*.tar"))
    others = {path.name for path in out.iterdir()} - {path.name for path in old}
    if others - {INDEX_NAME, EXCEPTIONS_NAME}:
        raise UsageError(
            f"{out} holds other files, such as {min(others)}. Give a new or an empty folder",
            code="not_ours",
        )
    for path in (index, out / EXCEPTIONS_NAME, *old):
        path.unlink(missing_ok=True)


def _samples(manifest: Manifest) -> list[list[int]]:
    """The rows of each sample, the original first; split by split, in a random order that is always
    the same."""
    table = manifest.table
    rows = {name: row for row, name in enumerate(table["file_name"])}
    samples: dict[int, list[int]] = {}
    for row, pair in enumerate(table["pair"]):
        samples.setdefault(rows.get(pair, row), []).append(row)
    drawn = np.random.default_rng(0).permutation(list(samples)).tolist()
    split = table["split"].tolist()
    ordered = sorted(drawn, key=lambda first: split[first])
    return [sorted(samples[first], key=lambda row: (row != first, row)) for first in ordered]


class _Writer:
    """Fills one shard after the other; `places` has the place of each row, as in `Shards`."""

    def __init__(self, manifest: Manifest, out: Path, full: int) -> None:
        self.manifest, self.out, self.full = manifest, out, full
        self.names: list[str] = []
        self.places = np.zeros((len(manifest), len(_PLACES)), np.int64)
        self._tar: tarfile.TarFile | None = None
        self._split = ""
        self._sample = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._tar:
            self._tar.close()

    def add(self, rows: list[int]) -> None:
        """Adds a sample: 000000012.0.jpg, .1.jpg, .1.mask.png, and .json with their rows."""
        records = self.manifest.table.iloc[rows].to_dict("records")
        tar = self._shard(records[0]["split"])
        key = f"{self._sample:09d}"
        self._sample += 1
        for number, (row, record) in enumerate(zip(rows, records, strict=True)):
            name = str(record["file_name"])
            ending = f"{number}{PurePosixPath(name).suffix.lower()}"
            place = [len(self.names) - 1, *self._put(tar, f"{key}.{ending}", name), 0, 0]
            if mask := str(record["mask_file_name"]):
                ending = f"{number}.mask{PurePosixPath(mask).suffix.lower()}"
                place[3:] = self._put(tar, f"{key}.{ending}", mask)
            self.places[row] = place
        said = [{column: word for column, word in each.items() if word} for each in records]
        _add(tar, f"{key}.json", json.dumps(said, ensure_ascii=False).encode())

    def _shard(self, split: str) -> tarfile.TarFile:
        if self._tar and (self._tar.offset >= self.full or split != self._split):
            self._tar.close()
            self._tar = None
        if self._tar is None:
            self.names.append(f"shard-{len(self.names):06d}.tar")
            self._tar = tarfile.open(self.out / self.names[-1], "w")  # noqa: SIM115 (__exit__ closes it)
            self._split = split
        return self._tar

    def _put(self, tar: tarfile.TarFile, member: str, name: str) -> tuple[int, int]:
        return _add(tar, member, read_file(self.manifest.path(name)))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> tuple[int, int]:
    """Adds a file; returns where its bytes start in the archive, and how many there are."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    return tar.offset - -(-len(data) // _BLOCK) * _BLOCK, len(data)


def _write_index(out: Path, table: pd.DataFrame, writer: _Writer) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = json.dumps({"format": _FORMAT, "shards": writer.names})
    columns = dict(_columns(table, writer.places))
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, metadata={"realdamage": about}), buffer)
    write_atomically(out / INDEX_NAME, buffer.getvalue())


def _columns(table: pd.DataFrame, places: npt.NDArray[np.int64]) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa

    for name in table:
        yield str(name), pa.array(table[name], pa.large_string())
    for number, name in enumerate(_PLACES):
        yield name, places[:, number]
