"""One door for every set of photos: whatever the layout, what comes in is a checked Manifest, and no photo is opened.

Layouts: `manifest` (a folder with metadata.csv, or a CSV file of that shape), `imagefolder` (Hugging Face's image
folder: metadata.csv, .jsonl or .parquet, also in split folders), `folders` (real and synthetic), `fraudbench`, `table`
(any table with a column mapping), `real` (a folder of real photos without any table) and `auto`, which looks.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from realdamage.data.checks import check_files_exist, check_header, check_table
from realdamage.data.folders import (
    LABEL_FOLDERS,
    SPLIT_FOLDERS,
    is_fraudbench,
    is_label_folders,
    read_fraudbench,
    read_label_folders,
    read_real_folder,
)
from realdamage.data.manifest import (
    METADATA_NAME,
    Manifest,
    find_csv,
    nothing_here,
    with_defaults,
    with_known_columns,
    write_manifest,
)
from realdamage.data.mapping import (
    LAYOUTS,
    Reader,
    apply_mapping,
    reader_from_mapping,
    reader_from_yaml,
)
from realdamage.data.tables import TABLE_SUFFIXES, read_table
from realdamage.errors import ConfigError, ManifestError, MissingManifestError, UsageError

__all__ = [
    "LAYOUTS",
    "Reader",
    "find_layout",
    "read_dataset",
    "reader_from_mapping",
    "reader_from_yaml",
    "reads_own_metadata",
    "stale_metadata",
    "write_metadata",
]

_METADATA_NAMES = tuple(f"metadata{suffix}" for suffix in TABLE_SUFFIXES)
_WITHOUT_TABLES = {
    "folders": read_label_folders,
    "fraudbench": read_fraudbench,
    "real": read_real_folder,
}
AUTO = Reader()


def read_dataset(root: str | Path, reader: Reader = AUTO, *, check_files: bool = True) -> Manifest:
    """Reads a set of photos in any layout into a Manifest whose root is the folder (of the table).

    `check_files=False` skips the look at the disk for what tables name. What a layout does not tell stays empty; kind
    and group follow as in `read_manifest`. Raises ManifestError: nothing of the layout is there, or a row breaks the
    manifest's rules, named by file, row and column; ConfigError: the reader's mapping does not fit the layout.
    """
    root = Path(root)
    layout = find_layout(root) if reader.layout == "auto" else reader.layout
    if layout in _WITHOUT_TABLES:
        if reader.maps_tables:
            raise ConfigError(
                f"columns and values belong to tables; {root} is read by layout {layout}, which has none."
            )
        if not root.is_dir():
            raise MissingManifestError(
                f"{root}: no such folder. The layout {layout} is a folder of photos."
            )
        rows = _WITHOUT_TABLES[layout](root)
        return Manifest(
            root, with_defaults(_checked(rows.assign(**reader.constants), root, check_files=False))
        )
    files = _table_files(root, layout)
    if layout != "imagefolder" or (len(files) == 1 and files[0].parent == root):
        return Manifest(files[0].parent, with_defaults(_mapped(files[0], reader, check_files)))
    parts = [_split_folder(path, reader, check_files) for path in files]
    return Manifest(
        root, with_defaults(with_known_columns(pd.concat(parts, ignore_index=True).fillna("")))
    )


def find_layout(root: Path, otherwise: str = "") -> str:
    """The layout of what lies at `root`: "table" for a file, `otherwise` for a folder of none, or ManifestError that
    says what was looked for."""
    if root.is_file():
        return "table"
    if root.is_dir():
        if (root / METADATA_NAME).is_file():
            return "manifest"
        if _image_folder_files(root):
            return "imagefolder"
        if is_fraudbench(root):
            return "fraudbench"
        if is_label_folders(root):
            return "folders"
        if otherwise:
            return otherwise
    error = nothing_here(root)
    if not root.is_dir():
        raise error
    raise ManifestError(
        f"{error} If all photos are real: realdamage manifest {root} --layout real. Also read: "
        f"{', '.join(_METADATA_NAMES[1:])}; metadata in folders {', '.join(SPLIT_FOLDERS)}; "
        f"photos in folders {', '.join(LABEL_FOLDERS)}; FraudBench; and a table with other columns, when you name the "
        "file and map them (realdamage manifest TABLE --columns FILE)."
    )


def reads_own_metadata(source: Path, reader: Reader = AUTO) -> bool:
    """Whether what would be read is the very file that `write_metadata` writes: there is something to check then, and
    nothing to write."""
    return reader.layout == "auto" and (source / METADATA_NAME).is_file()


def write_metadata(
    source: Path, reader: Reader = AUTO, out: Path | None = None, *, overwrite: bool = False
) -> tuple[Path, Manifest]:
    """Reads `source` and writes its rows as metadata.csv into its folder, or into `out` above the photos; returns the
    path and what was read.

    Raises UsageError: there is one already and `overwrite` is False, it is what layout "auto" would read again, or
    `out` is not above the photos; and what `read_dataset` and `write_manifest` raise.
    """
    root = source if source.is_dir() else source.parent
    folder = root if out is None else out
    if reads_own_metadata(source, reader):
        raise UsageError(
            f"{root / METADATA_NAME} is there already, and is what layout auto reads. To write it anew, say what else "
            f"to read: --layout {', '.join(name for name in LAYOUTS if name not in ('auto', 'table'))}, and --overwrite"
        )
    if (folder / METADATA_NAME).exists() and not overwrite:
        raise UsageError(
            f"{folder / METADATA_NAME} is there already. Keep it, or replace it with --overwrite"
        )
    inside = os.path.relpath(root.resolve(), folder.resolve()).replace(os.sep, "/")
    if inside.split("/")[0] == "..":
        raise UsageError(
            f"{folder}: the photos lie in {root}, outside of that folder. A metadata.csv names photos beside or below "
            "it: choose the photos' folder or one above"
        )
    manifest = read_dataset(source, reader)
    return write_manifest(
        folder, manifest.table if inside == "." else _prefixed(manifest.table, inside)
    ), manifest


def stale_metadata(folder: Path) -> list[Path]:
    """Tables beside a metadata.csv that say the same in another form; Hugging Face's reader refuses two of them."""
    return [
        folder / name
        for name in _METADATA_NAMES
        if name != METADATA_NAME and (folder / name).is_file()
    ]


def _table_files(root: Path, layout: str) -> list[Path]:
    """The files of a layout that has tables."""
    if layout == "table":
        if root.is_dir():
            raise ManifestError(
                f"{root}: a folder. Name the table itself ({', '.join(TABLE_SUFFIXES)})."
            )
        if not root.is_file():
            raise MissingManifestError(
                f"{root}: no such file. Name a table ({', '.join(TABLE_SUFFIXES)})."
            )
        return [root]
    if layout == "manifest":
        return [find_csv(root)]
    files = _image_folder_files(root) if root.is_dir() else []
    if not files:
        raise ManifestError(
            f"{root}: no image folder. Looked for {', '.join(_METADATA_NAMES)} in it and in its folders "
            f"{', '.join(SPLIT_FOLDERS)}."
        )
    return files


def _image_folder_files(root: Path) -> list[Path]:
    """The metadata of an image folder: one in the folder itself, else those of its split folders."""
    own = _metadata_of(root)
    if own:
        return [own]
    folders = sorted(folder for folder in root.iterdir() if folder.name.lower() in SPLIT_FOLDERS)
    order = ("train", "val", "test")
    found = [
        _metadata_of(folder)
        for folder in sorted(folders, key=lambda it: order.index(_split_of(it)))
    ]
    return [path for path in found if path]


def _metadata_of(folder: Path) -> Path | None:
    there = [folder / name for name in _METADATA_NAMES if (folder / name).is_file()]
    # metadata.csv is what our own commands write beside the others, so it is the newest word.
    if len(there) > 1 and there[0].name != METADATA_NAME:
        raise ManifestError(f"{there[0]} and {there[1].name} are both there. Keep one of them.")
    return there[0] if there else None


def _mapped(path: Path, reader: Reader, check_files: bool) -> pd.DataFrame:
    """The checked rows of one table, with all known columns."""
    table = apply_mapping(read_table(path), reader)
    return _checked(table.frame, path.parent, check_files, rows=table.rows, source=path)


def _checked(
    frame: pd.DataFrame,
    root: Path,
    check_files: bool,
    *,
    rows: np.ndarray | None = None,
    source: Path | None = None,
) -> pd.DataFrame:
    rows = np.arange(len(frame), dtype=np.int64) + 1 if rows is None else rows
    name = str(source or root)
    check_header(list(frame.columns), name)
    table = with_known_columns(frame)
    check_table(table, rows, name)
    if check_files:
        check_files_exist(table, rows, root, name)
    return table


def _split_folder(path: Path, reader: Reader, check_files: bool) -> pd.DataFrame:
    """The rows of one split folder, as the folder above it sees them."""
    table = apply_mapping(read_table(path), reader)
    split = _split_of(path.parent)
    if "split" in table.frame.columns:
        other = (table.frame["split"] != "") & (table.frame["split"] != split)
        if other.any():
            first = int(np.argmax(other.to_numpy()))
            raise ManifestError(
                f"{path}, row {table.rows[first]}, column split: found {table.frame['split'].iat[first]!r} in a folder "
                f"of split {split!r}. Empty the cell, or write one metadata.csv for all: realdamage manifest "
                f"{path.parent.parent}"
            )
    frame = table.frame.assign(split=split)
    return _prefixed(
        _checked(frame, path.parent, check_files, rows=table.rows, source=path), path.parent.name
    )


def _split_of(folder: Path) -> str:
    return SPLIT_FOLDERS[folder.name.lower()]


def _prefixed(table: pd.DataFrame, folder: str) -> pd.DataFrame:
    """The rows with their paths seen from above `folder`."""
    paths = [
        name
        for name in table.columns
        if name in ("file_name", "pair") or name.endswith("_file_name")
    ]
    moved = {
        name: table[name].where(table[name] == "", f"{folder}/" + table[name]) for name in paths
    }
    # A photo's own name stands for its group where nobody named one.
    group = table["group"].where(
        ~table["group"].isin(table["file_name"]), f"{folder}/" + table["group"]
    )
    return table.assign(**moved, group=group)
