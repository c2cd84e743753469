"""Reads a set of photos in any layout into a checked Manifest; opens no photo.

Layouts: `manifest` (a folder with metadata.csv, or a CSV file of that shape), `imagefolder`
(Hugging Face's image folder: metadata.csv, .jsonl or .parquet, also in split folders), `folders`
(real and synthetic), `fraudbench`, `table` (any table with a column mapping), `real` (a folder of
real photos without any table) and `auto`, which looks at what is there.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.data.manifest import (
    METADATA_NAME,
    Manifest,
    checked,
    did_you_mean,
    find_csv,
    nothing_here,
    with_defaults,
    with_known_columns,
    write_manifest,
)
from realdamage.data.tables import TABLE_SUFFIXES, RawTable, read_table
from realdamage.data.vocabulary import ALLOWED_VALUES, KNOWN_COLUMNS, LABELS, REQUIRED_COLUMNS
from realdamage.errors import ConfigError, ManifestError, MissingManifestError, UsageError
from realdamage.files import PHOTO_SUFFIXES

logger = logging.getLogger(__name__)

LAYOUTS = ("auto", "manifest", "imagefolder", "folders", "fraudbench", "table", "real")
# Folder names in lower case, and the label of the photos in them.
LABEL_FOLDERS = {
    "real": "real",
    "authentic": "real",
    "synthetic": "synthetic",
    "fake": "synthetic",
    "ai": "synthetic",
}
# Hugging Face's own keywords (`datasets.data_files.SPLIT_KEYWORDS`), and our names of the splits.
SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "dev", "val"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_METADATA_NAMES = tuple(f"metadata{suffix}" for suffix in TABLE_SUFFIXES)
# Sets that are made of parts have the column `part`, which may be mapped too.
_COLUMNS = (*KNOWN_COLUMNS, "part")
_WHERE = "(realdamage manifest --columns FILE, data.reader in a configuration)"
# FraudBench (arXiv 2605.08820). Negative reviews show really damaged goods. The edits start from
# photos of undamaged goods, which are in Positive if they are included at all.
_NEGATIVE, _POSITIVE, _DEEPFAKE = "Negative", "Positive", "DeepFake"
# Families by the start of the generator's name, named as in the shared generated set.
_FAMILIES = {"gpt-image": "gpt-image", "nano-banana": "gemini-imagen", "qwen-image": "qwen"}


@dataclass(frozen=True)
class Reader:
    """What to read and how to understand it.

    layout: one of `LAYOUTS`; "auto" looks at what is there.
    columns: our column -> theirs, or "" to ignore their column of that name. Other columns keep
        their names.
    values: our column -> their word -> ours. Then every word needs a mapping; empty cells stay
        empty unless "" is mapped.
    constants: our column -> the value of every row, whatever the table has.
    relative_to: the folder that a table's absolute paths lie below; it becomes the set's folder.
    Raises ConfigError that names the key.
    """

    layout: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    relative_to: str = ""

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ConfigError(
                f"layout {self.layout!r} is unknown; allowed: {', '.join(LAYOUTS)}."
                f"{did_you_mean(self.layout, LAYOUTS)}"
            )
        for key in ("columns", "values", "constants"):
            for column in getattr(self, key):
                if column not in _COLUMNS:
                    raise ConfigError(
                        f"{key}.{column}: unknown column; allowed: {', '.join(_COLUMNS)}."
                        f"{did_you_mean(column, _COLUMNS)} In `{key}` our name comes first."
                    )
        for column, word in self.constants.items():
            if column in self.columns or column in self.values:
                raise ConfigError(
                    f"constants.{column}: also in columns or values. Keep one of them."
                )
            _check_word(f"constants.{column}", column, word)
        for column, words in self.values.items():
            for theirs, ours in words.items():
                _check_word(f"values.{column}.{theirs}", column, ours)


def _check_word(key: str, column: str, word: str) -> None:
    allowed = ALLOWED_VALUES.get(column)
    if allowed and word not in allowed and (word or column in REQUIRED_COLUMNS):
        raise ConfigError(
            f"{key}: found {word!r}; allowed: {', '.join(allowed)}.{did_you_mean(word, allowed)}"
        )


def reader_from_mapping(mapping: Mapping[str, Any] | None, where: str = "data.reader") -> Reader:
    """A Reader from plain values of YAML or Hydra: numbers and booleans become words ("0", "true"),
    null becomes "". Raises ConfigError that names the key after `where`."""
    known = [each.name for each in fields(Reader)]
    for key in mapping or {}:
        if key not in known:
            hint = f" Put it under columns: {{{key}: …}}." if key in _COLUMNS else ""
            raise ConfigError(
                f"{where}: unknown key {key!r}; allowed: {', '.join(known)}."
                f"{did_you_mean(str(key), known)}{hint}"
            )
    depths = {"layout": 0, "columns": 1, "values": 2, "constants": 1, "relative_to": 0}
    given = {
        key: _plain(value, f"{where}.{key}", depths[key])
        for key, value in (mapping or {}).items()
        if value is not None
    }
    try:
        return Reader(**given)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def reader_from_yaml(path: str | Path) -> Reader:
    """A Reader from a YAML file with the keys layout, columns, values, constants and
    relative_to.

    Every value is read as it is written, so `0`, `yes` and `true` need no quotes.
    Raises ConfigError.
    """
    import yaml

    try:
        found = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Name a YAML file.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({error}).") from error
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"{path}: found {type(found).__name__}. Write the keys columns, values and constants."
        )
    return reader_from_mapping(found, str(path))


def _plain(value: Any, where: str, depth: int) -> Any:
    """A value in words: a word, or a mapping of `depth` levels of words."""
    if depth == 0:
        if isinstance(value, (Mapping, list, tuple)):
            raise ConfigError(f"{where}: found {value!r}, not a single word.")
        if isinstance(value, bool):
            return str(value).lower()
        return "" if value is None else str(value)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: found {value!r}. Write it as `key: value`.")
    return {
        _plain(key, where, 0): _plain(inner, f"{where}.{key}", depth - 1)
        for key, inner in value.items()
    }


AUTO = Reader()


def read_dataset(root: str | Path, reader: Reader = AUTO, *, check_files: bool = True) -> Manifest:
    """Reads a set of photos in any layout into a Manifest whose root is the folder (of the table).

    check_files: whether to check that the files exist that tables name.
    Columns that a layout does not fill stay empty; kind and group follow as in `read_manifest`.
    Raises ManifestError: nothing of the layout is there, or a row breaks the manifest's rules.
    ConfigError: the reader's mapping does not fit the layout.
    """
    root = Path(root)
    layout = find_layout(root) if reader.layout == "auto" else reader.layout
    if layout not in _ROWS:
        files = _table_files(root, layout)
        folder = root if layout == "imagefolder" else files[0].parent
        if reader.relative_to:
            folder = Path(reader.relative_to)
            if layout == "imagefolder" or not folder.is_dir():
                raise ConfigError(
                    f"relative_to={folder}: must be a folder, and is for one table; {root} is "
                    f"read by layout {layout}. Correct it {_WHERE}."
                )
        parts = [_from_table(path, reader, folder, check_files) for path in files]
        table = with_known_columns(pd.concat(parts, ignore_index=True).fillna(""))
        return Manifest(folder, with_defaults(table))
    if reader.columns or reader.values:
        raise ConfigError(
            f"columns and values are for tables; {root} is read by layout {layout}, which has none."
        )
    if not root.is_dir():
        raise MissingManifestError(
            f"{root}: no such folder. The layout {layout} is a folder of photos."
        )
    frame = _from_folders(root, layout).assign(**reader.constants)
    rows = np.arange(len(frame), dtype=np.int64) + 1
    return Manifest(root, with_defaults(checked(frame, rows, str(root))))


def find_layout(root: Path, otherwise: str = "") -> str:
    """The layout of what is at `root`: "table" for a file, `otherwise` for a folder of no layout.

    Raises ManifestError that lists the layouts: none found, and no `otherwise`.
    """
    if root.is_file():
        return "table"
    if not root.is_dir():
        raise nothing_here(root)
    if (root / METADATA_NAME).is_file():
        return "manifest"
    if _image_folder_files(root):
        return "imagefolder"
    if (root / "index.parquet").is_file() and any(root.glob("shard-*.tar")):
        raise ManifestError(
            f"{root}: holds shards, which only training reads. Name the folder of the photos.",
            code="shards",
        )
    inside = _folders(root)
    if any((root / folder / _DEEPFAKE).is_dir() for folder in ("", *inside)):
        return "fraudbench"
    splits = [root / name for name in inside if name.lower() in SPLIT_FOLDERS]
    if any(n.lower() in LABEL_FOLDERS for folder in (root, *splits) for n in _folders(folder)):
        return "folders"
    if otherwise:
        return otherwise
    raise ManifestError(
        f"{nothing_here(root)} If all photos are real: realdamage manifest {root} --layout real. "
        f"Also read: {', '.join(_METADATA_NAMES[1:])}, in split folders too; photos in folders "
        f"{', '.join(LABEL_FOLDERS)}; FraudBench; and other tables: "
        "realdamage manifest TABLE --columns FILE."
    )


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


# --- Tables ---


def _table_files(root: Path, layout: str) -> list[Path]:
    """The files of a layout that has tables."""
    if layout == "manifest":
        return [find_csv(root)]
    if layout == "table":
        if root.is_file():
            return [root]
        found = ManifestError if root.is_dir() else MissingManifestError
        raise found(f"{root}: not a file. Name the table itself ({', '.join(TABLE_SUFFIXES)}).")
    files = _image_folder_files(root) if root.is_dir() else []
    if not files:
        raise ManifestError(
            f"{root}: no image folder. Looked for {', '.join(_METADATA_NAMES)} in it and in its "
            f"folders {', '.join(SPLIT_FOLDERS)}."
        )
    return files


def _image_folder_files(root: Path) -> list[Path]:
    """The metadata of an image folder: one in the folder itself, else those of split folders."""
    order = list(dict.fromkeys(SPLIT_FOLDERS.values()))
    splits = [name for name in _folders(root) if name.lower() in SPLIT_FOLDERS]
    splits.sort(key=lambda name: order.index(SPLIT_FOLDERS[name.lower()]))
    own = _metadata_of(root)
    return own or [path for name in splits for path in _metadata_of(root / name)]


def _metadata_of(folder: Path) -> list[Path]:
    """The one metadata file of a folder; empty when there is none."""
    there = [folder / name for name in _METADATA_NAMES if (folder / name).is_file()]
    # Our own commands write metadata.csv next to the others, so it is the newest.
    if len(there) > 1 and there[0].name != METADATA_NAME:
        raise ManifestError(f"{there[0]} and {there[1].name} both exist. Keep one of them.")
    return there[:1]


def _from_table(path: Path, reader: Reader, root: Path, check_files: bool) -> pd.DataFrame:
    """The checked rows of a table; those of a split folder get its split and paths from `root`."""
    frame, rows, _ = _mapped(read_table(path), reader)
    if reader.relative_to:
        frame = _below(root, frame, rows, path)
        return checked(frame, rows, str(path), root if check_files else None)
    files_in = path.parent if check_files else None
    if path.parent == root:
        return checked(frame, rows, str(path), files_in)
    split = SPLIT_FOLDERS[path.parent.name.lower()]
    if "split" in frame:
        other = (frame["split"] != "") & (frame["split"] != split)
        if other.any():
            first = int(np.argmax(other.to_numpy()))
            raise ManifestError(
                f"{path}, row {rows[first]}, column split: found {frame['split'].iat[first]!r} in "
                f"a folder of split {split!r}. Empty the cell, or write one metadata.csv for all: "
                f"realdamage manifest {root}"
            )
    table = checked(frame.assign(split=split), rows, str(path), files_in)
    return _prefixed(table, path.parent.name)


def _below(
    folder: Path, frame: pd.DataFrame, rows: npt.NDArray[np.int64], path: Path
) -> pd.DataFrame:
    """The rows with their absolute paths as seen from `folder`. Raises ManifestError: one lies
    elsewhere (code outside)."""
    tops = dict.fromkeys(each.as_posix() for each in (folder.absolute(), folder.resolve()))
    moved = {}
    for name in _path_columns(frame):
        paths = frame[name]
        for top in tops:
            paths = paths.str.removeprefix(f"{top.rstrip('/')}/")
        outside = paths.map(lambda each: PurePath(each).is_absolute())
        if outside.any():
            first = int(np.argmax(outside.to_numpy()))
            raise ManifestError(
                f"{path}, row {rows[first]}, column {name}: found {paths.iat[first]!r}, which is "
                f"not below relative_to={folder}. Name the folder above all photos {_WHERE}.",
                code="outside",
            )
        moved[name] = paths
    return frame.assign(**moved)


def _path_columns(table: pd.DataFrame) -> list[str]:
    return [
        name
        for name in table.columns
        if name in ("file_name", "pair") or name.endswith("_file_name")
    ]


def _prefixed(table: pd.DataFrame, folder: str) -> pd.DataFrame:
    """The rows with their paths as seen from above `folder`."""
    moved = {
        name: table[name].where(table[name] == "", f"{folder}/" + table[name])
        for name in _path_columns(table)
    }
    # The group of a photo without one is its own name.
    named = ~table["group"].isin(table["file_name"])
    return table.assign(**moved, group=table["group"].where(named, f"{folder}/" + table["group"]))


def _mapped(table: RawTable, reader: Reader) -> RawTable:
    """The table with our columns and words.

    Raises ManifestError: their column is missing, a word has no mapping, or a required column of
    ours is still missing. ConfigError: `values` of a column that is missing.
    """
    theirs, rows, path = table
    there = ", ".join(theirs.columns)
    for ours, name in reader.columns.items():
        if name and name not in theirs.columns:
            raise ManifestError(
                f"{path}: no column {name!r}, which should become our {ours!r}; found: {there}."
                f"{did_you_mean(name, theirs.columns)} Correct columns.{ours} {_WHERE}."
            )
    taken = {*reader.columns.values(), *reader.columns, *reader.constants}
    empty = pd.Series("", theirs.index)
    named = {ours: theirs[name] if name else empty for ours, name in reader.columns.items()}
    kept = {name: theirs[name] for name in theirs.columns if name not in taken}
    frame = pd.DataFrame({**named, **kept}, index=theirs.index, dtype=str)
    frame = frame.assign(**reader.constants)
    for column in (*reader.values, *REQUIRED_COLUMNS):
        if column not in frame.columns:
            raise (ConfigError if column in reader.values else ManifestError)(
                f"{path}: no column {column!r}; found: {there}."
                f"{did_you_mean(column, theirs.columns)} Rename it, or map it: "
                f"columns: {{{column}: THEIR_COLUMN}} {_WHERE}."
            )
    # Labels are not guessed: sets differ in which of 0 and 1 is synthetic.
    values = {"label": {label: label for label in LABELS}, **reader.values}
    for column, words in values.items():
        found = frame[column]
        unknown = ~found.isin([*words, ""])
        if unknown.any():
            row = rows[int(np.argmax(unknown.to_numpy()))]
            listed = list(dict.fromkeys(found[unknown]))[:4]
            example = ", ".join(f"{word!r}: …" for word in listed)
            raise ManifestError(
                f"{path}, row {row}, column {column}: found {listed[0]!r}; allowed: "
                f"{', '.join(map(repr, words))}.{did_you_mean(listed[0], words)} Map other words: "
                f"values: {{{column}: {{{example}}}}} {_WHERE}."
            )
        frame[column] = found.map(lambda word, words=words: words.get(word, word))
    return RawTable(frame, rows, path)


# --- Folders without a table ---


def photos_below(root: Path) -> list[str]:
    """The photos in a folder and below it, as sorted paths relative to it with forward slashes.

    Hidden names are skipped; linked folders are followed, each once.
    Raises ManifestError: a folder cannot be listed, or a name is not UTF-8.
    """

    def refuse(error: OSError) -> None:
        raise ManifestError(
            f"{error.filename}: cannot be listed ({error.strerror}). Check its permissions."
        )

    names: list[str] = []
    seen: set[tuple[int, int]] = set()
    start = len(str(root)) + 1
    for folder, below, files in os.walk(root, onerror=refuse, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = [name for name in below if not name.startswith(".")]
        inside = folder[start:].replace(os.sep, "/")
        prefix = f"{inside}/" if inside else ""
        for name in files:
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 (speed)
            if suffix in PHOTO_SUFFIXES and not name.startswith("."):
                names.append(prefix + name)
    for name in names:
        if not name.isascii() and name.encode(errors="replace").decode() != name:
            raise ManifestError(f"{root}: the file name {name!r} is not UTF-8. Rename the file.")
    return sorted(names)


def _label_row(name: str) -> dict[str, str] | None:
    """A photo below `real/` or `synthetic/` (see `LABEL_FOLDERS`), also in split folders."""
    folders = name.lower().split("/")[:-1]
    split = SPLIT_FOLDERS.get(folders[0], "") if folders else ""
    label = LABEL_FOLDERS.get("".join(folders[1:2] if split else folders[:1]), "")
    return {"label": label, "split": split} if label else None


def _real_row(name: str) -> dict[str, str] | None:
    return {"label": "real"}


def _fraudbench_row(name: str) -> dict[str, str] | None:
    """`{category}/Negative/Review_*/IMG` and `{category}/DeepFake/{generator}/Review_*/IMG`.

    Negative is real and damaged. An edit is `ai_whole`: hosted models regenerate the whole photo,
    and there are no masks. Its product is intact, and its damage has no known type ("other", in
    both). Photos of undamaged products are read from `{category}/Positive/Review_*`. Reviews of one
    number are one `group`: they may show different products, which does no harm.
    """
    parts = name.split("/")
    buckets = [i for i, part in enumerate(parts) if part in (_NEGATIVE, _POSITIVE, _DEEPFAKE)]
    if not buckets:
        return None
    at, bucket = buckets[0], parts[buckets[0]]
    generator = parts[at + 1] if bucket == _DEEPFAKE else ""
    inside = parts[at + (2 if generator else 1) :]
    if len(inside) < 2 or not inside[0].startswith("Review_"):
        return None
    category = "/".join(parts[:at])
    row = {"source": "fraudbench", "group": f"{category}/{inside[0]}", "category": category}
    if bucket == _POSITIVE:
        return row | {"label": "real", "kind": "original", "condition": "intact"}
    row["damage"] = "other"
    if bucket == _NEGATIVE:
        return row | {"label": "real", "kind": "damaged", "condition": "damaged"}
    families = [family for line, family in _FAMILIES.items() if generator.startswith(line)]
    made = {"generator": generator, "family": families[0] if families else generator}
    return row | made | {"label": "synthetic", "kind": "ai_whole", "condition": "intact"}


_ROWS = {"folders": _label_row, "fraudbench": _fraudbench_row, "real": _real_row}
"""The layouts without a table: what the name of a photo says; None if it is outside."""


def _from_folders(root: Path, layout: str) -> pd.DataFrame:
    """The rows of a layout without a table. Raises ManifestError."""
    found = {name: _ROWS[layout](name) for name in photos_below(root)}
    rows = [{"file_name": name, **row} for name, row in found.items() if row]
    outside = [name for name, row in found.items() if not row]
    labels = Counter(row["label"] for row in rows)
    metadata = root.glob("*/**/metadata.*") if layout == "real" else ()
    tables = [path for path in metadata if path.suffix in TABLE_SUFFIXES]
    if tables:
        raise ManifestError(
            f"{root}: cannot take all photos as real, because {tables[0]} describes some of them. "
            "Name that folder, or move it elsewhere."
        )
    if layout == "fraudbench" and set(labels) != set(LABELS):
        raise ManifestError(
            f"{root}: {labels['real']} real and {labels['synthetic']} synthetic photos; FraudBench "
            "has both. {category}/Negative/Review_*/IMG is real, "
            "{category}/DeepFake/{generator}/Review_*/IMG is synthetic."
        )
    if not rows:
        folders = f" named {', '.join(LABEL_FOLDERS)}" if layout == "folders" else ""
        raise ManifestError(f"{root}: no photos in this folder or in folders below it{folders}.")
    if layout == "folders" and outside:
        raise ManifestError(
            f"{root}: {len(outside)} photos are outside of the folders {', '.join(LABEL_FOLDERS)}, "
            f"such as {outside[0]!r}. Move or remove them, or write a metadata.csv."
        )
    if outside:
        logger.warning(
            "%s: ignored %d photos that are in no Review_* folder of FraudBench, such as %r",
            *(root, len(outside), outside[0]),
        )
    table = pd.DataFrame(rows, dtype=str).fillna("")
    return _paired(table) if layout == "fraudbench" else table


def _paired(table: pd.DataFrame) -> pd.DataFrame:
    """FraudBench's edits with the one undamaged photo of their review and name as their pair.

    A Negative review of the same number shows another product. A model may change the suffix.
    """
    stems = table["file_name"].map(lambda name: PurePosixPath(name).stem)
    photo = table["group"] + "/" + stems
    originals = table["file_name"].where(table["kind"] == "original").groupby(photo)
    pair = originals.transform("first").where(originals.transform("count") == 1)
    return table.assign(pair=pair.where(table["label"] == "synthetic").fillna(""))


# --- The command ---


def reads_own_metadata(source: Path, reader: Reader = AUTO) -> bool:
    """Whether reading `source` reads the very file that `write_metadata` would write."""
    return reader.layout == "auto" and (source / METADATA_NAME).is_file()


def write_metadata(
    source: Path, reader: Reader = AUTO, out: Path | None = None, *, overwrite: bool = False
) -> tuple[Path, Manifest]:
    """Reads `source` and writes metadata.csv into its folder, or into `out` above the photos.

    Returns the path and what was read.
    Raises UsageError: the file exists (code exists), or `out` is not above the photos (code
    outside); and what `read_dataset` and `write_manifest` raise.
    """
    root = source if source.is_dir() else source.parent
    root = Path(reader.relative_to) if reader.relative_to else root
    folder = root if out is None else out
    own = reads_own_metadata(source, reader)
    if own or ((folder / METADATA_NAME).exists() and not overwrite):
        raise UsageError(
            f"{(root if own else folder) / METADATA_NAME} exists. Keep it, or replace it with "
            "--overwrite, and say what else to read with --layout",
            code="exists",
        )
    inside = os.path.relpath(root.resolve(), folder.resolve()).replace(os.sep, "/")
    if inside.split("/")[0] == "..":
        raise UsageError(
            f"{folder}: the photos are in {root}, outside of that folder. "
            "Choose the photos' folder or one above",
            code="outside",
        )
    manifest = read_dataset(source, reader)
    table = manifest.table if inside == "." else _prefixed(manifest.table, inside)
    return write_manifest(folder, table), manifest


def stale_metadata(folder: Path) -> Sequence[Path]:
    """Metadata files other than metadata.csv; Hugging Face's reader refuses two of them."""
    return [folder / name for name in _METADATA_NAMES[1:] if (folder / name).is_file()]
