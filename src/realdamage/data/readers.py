"""Reads a set of photos in any layout into a checked Manifest; opens no photo.

Layouts: `manifest` (a folder with metadata.csv, or a CSV file of that shape), `folders` (real and
synthetic), `fraudbench`, `table` (CSV or Parquet, with a column mapping), `real` (a folder of real
photos without any table) and `auto`, which looks at what is there.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pandas as pd

from realdamage.data.manifest import (
    METADATA_NAME,
    Manifest,
    checked,
    find_csv,
    nothing_here,
    with_defaults,
    write_manifest,
)
from realdamage.data.tables import TABLE_SUFFIXES, read_table
from realdamage.data.vocabulary import KNOWN_COLUMNS, LABELS
from realdamage.errors import (
    ConfigError,
    ManifestError,
    MissingManifestError,
    UsageError,
    did_you_mean,
)
from realdamage.files import photos_below

logger = logging.getLogger(__name__)

LAYOUTS = ("auto", "manifest", "folders", "fraudbench", "table", "real")
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
    """What to read and how to understand it; `data.reader` of a configuration.

    layout: one of `LAYOUTS`; "auto" looks at what is there.
    columns: our column -> theirs, or "" to ignore their column of that name. Other columns keep
        their names.
    values: our column -> their word -> ours. Then every word needs a mapping; empty cells stay
        empty unless "" is mapped. Numbers and booleans of YAML become words ("0", "true").
    constants: our column -> the value of every row, whatever the table has.
    relative_to: the folder that a table's absolute paths lie below; it becomes the set's folder.
    Raises ConfigError that names the key.
    """

    layout: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    relative_to: str = ""

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ConfigError(
                f"layout {self.layout!r} is unknown; allowed: {', '.join(LAYOUTS)}."
                f"{did_you_mean(self.layout, LAYOUTS)} Correct it {_WHERE}."
            )
        mappings: list[Any] = [self.columns, self.constants, self.values]
        if isinstance(self.values, Mapping):
            mappings += self.values.values()
        if not all(isinstance(each, Mapping) for each in mappings):
            raise ConfigError(
                "columns, values and constants hold `name: word`, values under each column. "
                f"Correct them {_WHERE}."
            )
        words = {
            column: {_word(theirs): _word(ours) for theirs, ours in own.items()}
            for column, own in self.values.items()
        }
        object.__setattr__(self, "values", words)
        for key in ("columns", "values", "constants"):
            for column in getattr(self, key):
                if column not in _COLUMNS:
                    raise ConfigError(
                        f"{key}.{column}: unknown column; allowed: {', '.join(_COLUMNS)}."
                        f"{did_you_mean(column, _COLUMNS)} In `{key}` our name comes first. "
                        f"Correct it {_WHERE}."
                    )


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def reader_from_yaml(path: str | Path) -> Reader:
    """A Reader from a YAML file with the keys layout, columns, values, constants and
    relative_to.

    Every value is read as it is written, so `0`, `yes` and `true` need no quotes.
    Raises ConfigError.
    """
    import yaml

    try:
        found = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({error}).") from error
    keys = [each.name for each in fields(Reader)]
    if not isinstance(found, Mapping):
        raise ConfigError(f"{path}: write `key: …` with the keys {', '.join(keys)}.")
    if wrong := [key for key in found if key not in keys]:
        raise ConfigError(
            f"{path}: {wrong[0]!r} is no key; the keys are {', '.join(keys)}."
            f"{did_you_mean(wrong[0], keys)}"
        )
    try:
        return Reader(**found)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


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
        return _from_table(_table_of(root, layout), reader, check_files)
    if reader.columns or reader.values:
        raise ConfigError(
            f"columns and values are for tables; {root} is read by layout {layout}, which has none."
        )
    if not root.is_dir():
        raise MissingManifestError(
            f"{root}: no such folder. The layout {layout} is a folder of photos."
        )
    frame = _from_folders(root, layout).assign(**reader.constants)
    return Manifest(root, with_defaults(checked(frame, str(root))))


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
        f"Also read: photos in folders {', '.join(LABEL_FOLDERS)}; FraudBench; and tables "
        f"({', '.join(TABLE_SUFFIXES)}): realdamage manifest TABLE --columns FILE."
    )


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


# --- Tables ---


def _table_of(root: Path, layout: str) -> Path:
    """The file of a layout that has one."""
    if layout == "manifest":
        return find_csv(root)
    if not root.is_file():
        found = ManifestError if root.is_dir() else MissingManifestError
        raise found(f"{root}: not a file. Name the table itself ({', '.join(TABLE_SUFFIXES)}).")
    return root


def _from_table(path: Path, reader: Reader, check_files: bool) -> Manifest:
    frame, folder = _mapped(read_table(path), path, reader), path.parent
    if reader.relative_to:
        folder = Path(reader.relative_to)
        if not folder.is_dir():
            raise ConfigError(f"relative_to={folder}: no such folder. Correct it {_WHERE}.")
        frame = _below(folder, frame, path)
    try:
        table = checked(frame, str(path), folder if check_files else None)
    except ManifestError as error:
        raise ManifestError(f"{error} Other columns and words can be mapped {_WHERE}.") from error
    return Manifest(folder, with_defaults(table))


def _below(folder: Path, frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rows with their absolute paths as seen from `folder`. Raises ManifestError: one lies
    elsewhere (code outside)."""
    tops = dict.fromkeys(each.as_posix() for each in (folder.absolute(), folder.resolve()))
    moved = {}
    for name in frame.columns.intersection(["file_name", "pair", "mask_file_name"]):
        paths = frame[name]
        for top in tops:
            paths = paths.str.removeprefix(f"{top.rstrip('/')}/")
        outside = paths[paths.map(lambda each: PurePath(each).is_absolute())]
        if len(outside):
            raise ManifestError(
                f"{path}, row {outside.index[0]}, column {name}: found {outside.iat[0]!r}, which "
                f"is not below relative_to={folder}. Name the folder above all photos {_WHERE}.",
                code="outside",
            )
        moved[name] = paths
    return frame.assign(**moved)


def _mapped(theirs: pd.DataFrame, path: Path, reader: Reader) -> pd.DataFrame:
    """The table with our columns and words. Labels are not guessed: sets differ in which of 0 and 1
    is synthetic.

    Raises ManifestError: a column is missing, or a word has no mapping.
    """
    taken = {*reader.columns.values(), *reader.columns, *reader.constants}
    there = theirs.columns
    for name in (*reader.columns.values(), *(reader.values.keys() - taken)):
        if name and name not in there:
            raise ManifestError(
                f"{path}: no column {name!r}; found: {', '.join(there)}."
                f"{did_you_mean(name, there)} Correct the mapping {_WHERE}."
            )
    empty = pd.Series("", theirs.index)
    named = {ours: theirs[name] if name else empty for ours, name in reader.columns.items()}
    kept = {name: theirs[name] for name in there if name not in taken}
    frame = pd.DataFrame({**named, **kept}, index=theirs.index, dtype=str)
    frame = frame.assign(**reader.constants)
    for column, words in reader.values.items():
        found = frame[column]
        unknown = found[~found.isin([*words, ""])]
        if len(unknown):
            word = str(unknown.iat[0])
            raise ManifestError(
                f"{path}, row {unknown.index[0]}, column {column}: found {word!r}; "
                f"mapped are {', '.join(map(repr, words))}.{did_you_mean(word, words)} "
                f"Correct the mapping {_WHERE}."
            )
        frame[column] = found.map(lambda word, words=words: words.get(word, word))
    return frame


# --- Folders without a table ---


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
    names = (path.relative_to(root).as_posix() for path in photos_below(root))
    found = {name: _ROWS[layout](name) for name in sorted(names)}
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
            "%s: ignored %d photos that are in no folder of the layout %s, such as %r",
            *(root, len(outside), layout, outside[0]),
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
    source: Path, reader: Reader = AUTO, *, overwrite: bool = False
) -> tuple[Path, Manifest]:
    """Reads `source` and writes metadata.csv into the set's folder; returns its path, and what was
    read.

    Raises UsageError: the file exists (code exists); and what `read_dataset` and `write_manifest`
    raise.
    """
    manifest = read_dataset(source, reader)
    path = manifest.root / METADATA_NAME
    if reads_own_metadata(source, reader) or (path.exists() and not overwrite):
        raise UsageError(
            f"{path} exists. Keep it, or replace it with --overwrite, and say what else to read "
            "with --layout",
            code="exists",
        )
    return write_manifest(manifest.root, manifest.table), manifest
