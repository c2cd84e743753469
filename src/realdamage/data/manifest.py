"""The manifest: one CSV file that says what every photo shows.

It is checked when it is read, so that later code can rely on it. It follows the Hugging Face
image-folder convention, so `datasets.load_dataset("imagefolder")` reads the same folder.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, UnidentifiedImageError

from realdamage.core.decode import read_file
from realdamage.data.tables import read_table
from realdamage.data.vocabulary import (
    ALLOWED_VALUES,
    KIND_LABELS,
    KNOWN_COLUMNS,
    LABELS,
    REQUIRED_COLUMNS,
    SPLITS,
)
from realdamage.errors import (
    ManifestError,
    MissingManifestError,
    PhotoError,
    did_you_mean,
    near_match,
)
from realdamage.files import write_atomically

METADATA_NAME = "metadata.csv"
EXCEPTIONS_NAME = "audit_exceptions.json"
# A backslash, a leading slash, a drive letter, or a path segment that is empty, "." or "..".
_AWKWARD_PATH = r"\\|^[A-Za-z]:|(?:^|/)\.{0,2}(?:/|$)"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Shards:
    """Where the photos and masks of a manifest are, if they are in shards (`data/shards.py`).

    url: of the folder, for fsspec.
    names: of the shards.
    places: int64 [n, 5]: the shard of each row, then where its photo starts and its size, and the
        same for its mask, in bytes; size 0: no mask.
    """

    url: str
    names: tuple[str, ...]
    places: npt.NDArray[np.int64]

    def text(self, name: str) -> str:
        """A small file next to the shards. Raises FileNotFoundError."""
        from fsspec.core import url_to_fs

        files, path = url_to_fs(f"{self.url}/{name}")
        return bytes(files.cat_file(path)).decode("utf-8")

    def read(self, row: int, mask: bool = False) -> bytes:
        """The bytes of a photo or mask. Raises PhotoError (code no_shard): its shard is missing or
        too short."""
        from fsspec.core import url_to_fs

        shard, *places = self.places[row].tolist()
        start, size = places[2:] if mask else places[:2]
        url = f"{self.url}/{self.names[shard]}"
        try:
            # Not kept: file systems of networks are not safe in forked workers. fsspec keeps one
            # for each process.
            files, path = url_to_fs(url)
            data: bytes = files.cat_file(path, start, start + size)
        except (OSError, ImportError) as error:
            raise PhotoError(f"{url}: cannot be read ({error})", code="no_shard") from error
        if len(data) != size:
            raise PhotoError(
                f"{url}: {len(data)} bytes at {start}, not {size}. Copy the shard again",
                code="no_shard",
            )
        return data


@dataclass(frozen=True, eq=False)
class Manifest:
    """The checked rows of a manifest.

    root: the folder that their paths are relative to.
    table: one row per photo, index 0..n-1; all of `KNOWN_COLUMNS` in order, then the file's own
        columns. Every value is a string, "" where the file had none.
    shards: None: every photo is a file of its own.
    """

    root: Path
    table: pd.DataFrame
    shards: Shards | None = None

    def __len__(self) -> int:
        return len(self.table)

    def path(self, file_name: str) -> Path:
        """The path of a photo or mask that the table names."""
        return self.root / file_name

    def photo(self, row: int) -> Path | IO[bytes]:
        """The photo at position `row`: its path, or an open file if it is in a shard."""
        if self.shards:
            return io.BytesIO(self.shards.read(row))
        return self.path(self._name(row))

    def photo_bytes(self, row: int) -> bytes:
        """The bytes of the photo at position `row`. Raises PhotoError."""
        return self.shards.read(row) if self.shards else read_file(self.root / self._name(row))

    def mask(self, row: int) -> Path | IO[bytes]:
        """The mask of the photo at position `row`, as `photo`."""
        if self.shards:
            return io.BytesIO(self.shards.read(row, mask=True))
        return self.path(str(self.table["mask_file_name"].iat[row]))

    def _name(self, row: int) -> str:
        return str(self.table["file_name"].iat[row])

    def subset(self, mask: pd.Series | npt.NDArray[np.bool_]) -> Manifest:
        """The rows where `mask` bool [n] is True, renumbered. Their pairs may be outside of it."""
        kept = np.asarray(mask, dtype=bool)
        shards = self.shards and replace(self.shards, places=self.shards.places[kept])
        return Manifest(self.root, self.table.loc[kept].reset_index(drop=True), shards)

    def select(self, *, split: str) -> Manifest:
        """The rows of one split. Raises MissingManifestError: it has none; names those it has."""
        chosen = self.table["split"] == split
        if not chosen.any():
            counts = self.table["split"].value_counts()
            found = ", ".join(f"{name or '(none)'}: {n}" for name, n in counts.items())
            raise MissingManifestError(
                f"{self.root}: no photo has split {split!r} (photos per split: {found}). Fill the "
                f"column 'split' with {', '.join(SPLITS)}, or choose one of the splits found."
            )
        return self.subset(chosen)

    def digest(self) -> str:
        """SHA-256 (hex) of the rows, whatever their order and the folder's path.

        The photos' bytes count only through the column `sha256`.
        """
        extra = sorted(set(self.table.columns) - set(KNOWN_COLUMNS))
        ordered = self.table[[*KNOWN_COLUMNS, *extra]].sort_values("file_name", kind="stable")
        return hashlib.sha256(_to_csv(ordered)).hexdigest()

    def files_digest(self) -> str:
        """SHA-256 (hex) of size and time of the photos' and masks' files; reads none of them."""
        facts = []
        for name in self.table[["file_name", "mask_file_name"]].to_numpy().flat:
            path = self.path(name)
            stat = path.stat() if name and path.is_file() else None
            facts.append((name, stat and (stat.st_size, stat.st_mtime_ns)))
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def read_manifest(folder_or_csv: str | Path, *, check_files: bool = True) -> Manifest:
    """Reads and checks `metadata.csv` of a folder, or a CSV file of another name; opens no photo.

    Fills in what follows from other columns: `kind` of real photos (damaged when the condition is,
    else original) and an empty `group` (that of the photo's pair, else the photo's own name).
    check_files: whether to check that the files exist.
    Raises ManifestError: the file or a row breaks the contract. Names the row and the column.
    """
    path = find_csv(Path(folder_or_csv))
    table = checked(read_table(path), str(path), path.parent if check_files else None)
    return Manifest(path.parent, with_defaults(table))


def write_manifest(root: str | Path, table: pd.DataFrame) -> Path:
    """Checks `table` and writes it as `root/metadata.csv`, whole or not at all; returns the path.

    Known columns come first, in their order; columns without any value are left out. Files need not
    exist yet.
    Raises ManifestError as `read_manifest` does; RealDamageError: cannot write.
    """
    path = Path(root) / METADATA_NAME
    if table.empty:
        raise ManifestError(f"{path}: the table has no rows. Add one row per photo.")
    words = table.astype(object).fillna("").astype(str)
    text = checked(words.set_axis(range(2, len(words) + 2)), str(path))
    write_atomically(path, _to_csv(text.loc[:, (text != "").any()]))
    return path


def read_mask(manifest: Manifest, row: int, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask of the photo at position `row`: bool [h, w], True where pixels were changed.

    size: (h, w) of the upright photo, which the mask must have.
    Raises ManifestError: no mask, another size, or not an image with values 0 and 255.
    """
    named = manifest.table[["file_name", "mask_file_name"]].iloc[row]
    file_name, mask_name = str(named["file_name"]), str(named["mask_file_name"])
    if not mask_name:
        raise ManifestError(
            f"{manifest.root}: {file_name!r} has no mask; its column mask_file_name is empty."
        )
    path = manifest.path(mask_name)
    try:
        with Image.open(manifest.mask(row)) as image:
            if image.size != (size[1], size[0]):
                raise ManifestError(
                    f"{path}: the mask is {image.width}×{image.height} pixels, but its photo "
                    f"{file_name!r} is {size[1]}×{size[0]}. "
                    "Write the mask again in the size of the upright photo."
                )
            if image.mode not in ("1", "L", "P", "RGB"):
                raise ManifestError(
                    f"{path}: a mask of mode {image.mode}. Save it as 8-bit greyscale, 0 and 255."
                )
            grey = np.asarray(image.convert("L"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ManifestError(
            f"{path}: the mask of {file_name!r} cannot be read ({error}). Write it again."
        ) from error
    if grey.max() == 1:
        raise ManifestError(f"{path}: the mask's values are 0 and 1. Write 0 and 255.")
    return grey > 127


def patch_share(
    mask: npt.NDArray[np.bool_ | np.float32], size: tuple[int, int], patch: int
) -> npt.NDArray[np.float32]:
    """Share of each patch, in 0..1, that the mask covers: float32 [ceil(h/patch), ceil(w/patch)].

    A patch at the edge counts only its part inside the photo. Training and evaluation both use it.
    mask: [H, W] of the upright photo, bool, or float32 in 0..1 (NaN: unknown).
    size: (h, w) of the photo after the limit on its side.
    """
    covered = mask.astype(np.float32)
    if mask.shape != size:
        image = Image.fromarray(covered)
        covered = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BOX))
    rows, columns = np.arange(0, size[0], patch), np.arange(0, size[1], patch)
    sums = np.add.reduceat(np.add.reduceat(covered, rows, axis=0), columns, axis=1)
    area = np.outer(np.diff([*rows, size[0]]), np.diff([*columns, size[1]]))
    return np.asarray(sums / area, dtype=np.float32)


def find_csv(given: Path) -> Path:
    """The CSV file of a folder, or the file itself. Raises ManifestError: there is none."""
    path = given if given.is_file() else given / METADATA_NAME
    if not path.is_file() or path.suffix.lower() != ".csv":
        raise nothing_here(given)
    return path


def nothing_here(given: Path) -> ManifestError:
    """Says why there is no manifest at a path, and what to do about it."""
    advice = f"Name a folder with {METADATA_NAME}, or a CSV file."
    if given.is_file():
        return ManifestError(f"{given}: not a CSV file. {advice}")
    if not given.is_dir():
        return MissingManifestError(f"{given}: no such file or folder. {advice}")
    return ManifestError(
        f"{given}: no {METADATA_NAME} in this folder. Write one next to the photos: a first line "
        "`file_name,label` and one line per photo, such as `box.jpg,real`. Labels: "
        f"{', '.join(LABELS)}."
    )


def with_known_columns(table: pd.DataFrame) -> pd.DataFrame:
    """All known columns in their order, "" where the table has none, then its own."""
    extra = [column for column in table.columns if column not in KNOWN_COLUMNS]
    return table.reindex(columns=[*KNOWN_COLUMNS, *extra], fill_value="")


def with_defaults(table: pd.DataFrame) -> pd.DataFrame:
    """Fills in kind and group, see `read_manifest`."""
    names = table["file_name"]
    real_kind = table["condition"].map({"damaged": "damaged"}).fillna("original")
    kind = table["kind"].mask((table["kind"] == "") & (table["label"] == "real"), real_kind)
    own = table["group"].mask(table["group"] == "", names)
    groups = dict(zip(names.tolist(), own.tolist(), strict=True))
    of_pair = pd.Series([groups.get(pair, "") for pair in table["pair"]], table.index, dtype=str)
    group = own.mask((table["group"] == "") & (of_pair != ""), of_pair)
    return table.assign(kind=kind, group=group)


def checked(frame: pd.DataFrame, source: str, files_in: Path | None = None) -> pd.DataFrame:
    """The table with all known columns, once every rule of the manifest holds.

    frame: strings, "" where empty; its index numbers the rows in the messages.
    source: the file's name, for the messages.
    files_in: the folder in which the photos and masks must exist; None: not checked.
    Raises ManifestError at the first rule that a row breaks.
    """
    _check_header(list(frame.columns), source)
    table = with_known_columns(frame)
    rules = [_values(table), _contradictions(table), _paths(table), _names_and_pairs(table)]
    if files_in is not None:
        rules.append(_files(table, files_in))
    for column, bad, explain in chain(*rules):
        positions = np.flatnonzero(np.asarray(bad))
        if len(positions):
            found = str(table[column].iat[positions[0]])
            row = table.index[positions[0]]
            message = f"{source}, row {row}, column {column}: {explain(found)}"
            if len(positions) > 1:
                message += f" ({len(positions) - 1} more rows with the same fault.)"
            raise ManifestError(message)
    return table.reset_index(drop=True)


def _check_header(columns: list[str], source: str) -> None:
    for column in REQUIRED_COLUMNS:
        if column not in columns:
            near = near_match(column, columns)
            hint = f"Rename {near!r}?" if near else "The first row must hold the column names."
            raise ManifestError(
                f"{source}: the column {column!r} is missing; "
                f"found: {', '.join(map(repr, columns))}. {hint}"
            )
    absent = [column for column in KNOWN_COLUMNS if column not in columns]
    for column in columns:
        near = None if column in KNOWN_COLUMNS else near_match(column, absent)
        if near:
            logger.warning(
                "%s: unknown column %r is kept unchanged; did you mean %r?", source, column, near
            )


# --- Rules: the column, the rows that break it, and what is wrong, given the value found ---

_Rules = Iterator[tuple[str, Any, Callable[[str], str]]]


def _values(table: pd.DataFrame) -> _Rules:
    yield "file_name", table["file_name"] == "", lambda _: "is empty. Name the photo's file."
    for column, allowed in ALLOWED_VALUES.items():
        permitted = allowed if column in REQUIRED_COLUMNS else (*allowed, "")
        choices = ", ".join(word or "or empty" for word in permitted)

        def explain(found: str, choices: str = choices, allowed: Sequence[str] = allowed) -> str:
            return f"found {found!r}; allowed: {choices}.{did_you_mean(found, allowed)}"

        yield column, ~table[column].isin(permitted), explain
    yield (
        "sha256",
        (table["sha256"] != "") & ~table["sha256"].str.fullmatch("[0-9a-f]{64}"),
        lambda found: f"found {found!r}; allowed: 64 lower-case hexadecimal digits, or empty.",
    )


def _contradictions(table: pd.DataFrame) -> _Rules:
    yield (
        "kind",
        (table["kind"] != "") & (table["kind"].map(KIND_LABELS) != table["label"]),
        lambda kind: (
            f"{kind!r} is a kind of {KIND_LABELS[kind]} photo, but the row has another label. "
            f"Allowed for real: {_kinds_of('real')}; for synthetic: {_kinds_of('synthetic')}."
        ),
    )
    yield (
        "condition",
        (table["kind"] == "damaged") & (table["condition"] == "intact"),
        lambda found: (
            f"found {found!r}, but the kind is 'damaged'; allowed then: damaged, unknown, or empty."
        ),
    )
    for column in ("generator", "family"):
        yield (
            column,
            (table["label"] == "real") & (table[column] != ""),
            lambda found: (
                f"found {found!r} on a photo with label 'real'. Empty it, or correct the label."
            ),
        )


def _paths(table: pd.DataFrame) -> _Rules:
    for column in ("file_name", "pair", "mask_file_name"):
        names = table[column]
        yield (
            column,
            (names != "") & names.str.contains(_AWKWARD_PATH, regex=True),
            lambda found: (
                f"found {found!r}. Write a path relative to the manifest's folder and inside of it,"
                " with forward slashes."
            ),
        )


def _names_and_pairs(table: pd.DataFrame) -> _Rules:
    names, pair = table["file_name"], table["pair"]
    yield (
        "file_name",
        names.duplicated(),
        lambda found: (
            f"{found!r} is already in row {names.index[names == found][0]}. A photo has one row: "
            "remove one of them."
        ),
    )
    yield (
        "pair",
        pair == names,
        lambda found: f"{found!r} is the row itself. Name the original, or empty it.",
    )
    known = {"", *names.tolist()}  # pandas' own isin takes seconds for 100,000 names
    yield (
        "pair",
        [name not in known for name in pair.tolist()],
        lambda found: (
            f"{found!r} names no row of this manifest. Add the original's row, or empty the cell."
        ),
    )


def _files(table: pd.DataFrame, root: Path) -> _Rules:
    for column in ("file_name", "mask_file_name"):
        yield (
            column,
            [name != "" and not (root / name).is_file() for name in table[column].tolist()],
            lambda name: f"{name!r} is not a file in {root}. Restore the file or remove its row.",
        )


def _kinds_of(label: str) -> str:
    return ", ".join(kind for kind, owner in KIND_LABELS.items() if owner == label)


def _to_csv(table: pd.DataFrame) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(zip(*(table[column].tolist() for column in table.columns), strict=True))
    return buffer.getvalue().encode("utf-8")
