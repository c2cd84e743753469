"""The manifest: one CSV file that says what every photo shows, read and checked at the door so that nobody downstream
has to ask again. It follows the Hugging Face image-folder convention, so `datasets.load_dataset("imagefolder")` reads
the same folder.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, UnidentifiedImageError

from realdamage.data.checks import check_files_exist, check_header, check_table
from realdamage.data.tables import read_csv
from realdamage.data.vocabulary import (
    CONDITIONS,
    DAMAGES,
    KIND_LABELS,
    KINDS,
    KNOWN_COLUMNS,
    LABELS,
    SPLITS,
)
from realdamage.errors import ManifestError, MissingManifestError
from realdamage.files import PHOTO_SUFFIXES, write_atomically

__all__ = [
    "CONDITIONS",
    "DAMAGES",
    "KINDS",
    "KIND_LABELS",
    "KNOWN_COLUMNS",
    "LABELS",
    "METADATA_NAME",
    "SPLITS",
    "Manifest",
    "read_manifest",
    "read_mask",
    "write_manifest",
]

METADATA_NAME = "metadata.csv"
# The Hugging Face reader takes the types of the columns from the first so many rows.
_HF_TYPED_ROWS = 10_000


@dataclass(frozen=True, eq=False)
class Manifest:
    """The checked rows of a manifest and the folder that their paths are relative to.

    `table`: one row per photo, index 0..n-1, all of `KNOWN_COLUMNS` in order and then the file's own extra columns;
    every value is a string, "" where the file had none.
    """

    root: Path
    table: pd.DataFrame

    def __len__(self) -> int:
        return len(self.table)

    def path(self, file_name: str) -> Path:
        """Where a photo or mask lies; `file_name` as the table has it."""
        return self.root / file_name

    def subset(self, mask: pd.Series | npt.NDArray[np.bool_]) -> Manifest:
        """The rows where `mask` bool [n] holds, renumbered from 0. Their pairs may then lie outside the subset."""
        return Manifest(
            self.root, self.table.loc[np.asarray(mask, dtype=bool)].reset_index(drop=True)
        )

    def select(self, *, split: str) -> Manifest:
        """The rows of one split. Raises MissingManifestError: there is none, naming the splits that there are."""
        chosen = self.table["split"] == split
        if not chosen.any():
            found = ", ".join(
                f"{name or '(none)'}: {n}" for name, n in self.table["split"].value_counts().items()
            )
            raise MissingManifestError(
                f"{self.root}: no photo has split {split!r} (photos per split: {found}). "
                f"Fill the column 'split' with {', '.join(SPLITS)}, or ask for a split that is there."
            )
        return self.subset(chosen)

    def digest(self) -> str:
        """SHA-256 (hex) of what the rows say: the same for every order of rows and of extra columns, wherever the
        folder lies. The photos' bytes count only through the column `sha256`."""
        extra = sorted(set(self.table.columns) - set(KNOWN_COLUMNS))
        ordered = self.table[[*KNOWN_COLUMNS, *extra]].sort_values("file_name", kind="stable")
        return hashlib.sha256(_to_csv(ordered)).hexdigest()


def read_manifest(folder_or_csv: str | Path, *, check_files: bool = True) -> Manifest:
    """Reads and checks `metadata.csv` of a folder, or a CSV file of another name; opens no photo.

    Fills what follows from the rest: `kind` of real photos (damaged when the condition is, else original) and an empty
    `group` (that of the photo's pair, else the photo's own name). `check_files=False` skips the look at the disk.

    Raises ManifestError: no such file, not UTF-8, not a table, a column missing, a value that is not allowed, a path
    that leaves the folder, a photo named twice, a pair or file that does not exist. The message names row and column.
    """
    path = find_csv(Path(folder_or_csv))
    columns, records, rows = read_csv(path)
    check_header(columns, str(path))
    if not records:
        raise ManifestError(f"{path}: no rows below the column names. Add one row per photo.")
    table = with_known_columns(pd.DataFrame(records, columns=columns, dtype=str))
    check_table(table, rows, str(path))
    if check_files:
        check_files_exist(table, rows, path.parent, str(path))
    return Manifest(path.parent, with_defaults(table))


def write_manifest(root: str | Path, table: pd.DataFrame) -> Path:
    """Checks `table` and writes it as `root/metadata.csv`, whole or not at all; returns the path.

    Known columns come first, in their order; columns without any value are left out. Beyond 10,000 rows, those with
    and without a mask (or a generator, …), and those whose group (or …) is a number and is a word, are interleaved,
    because the Hugging Face reader types the columns by the first 10,000. Files need not exist yet.
    Raises ManifestError as `read_manifest` does; RealDamageError: cannot write.
    """
    path = Path(root) / METADATA_NAME
    check_header(list(table.columns), str(path))
    if table.empty:
        raise ManifestError(f"{path}: the table has no rows. Add one row per photo.")
    text = with_known_columns(table.reset_index(drop=True).astype(object).fillna("").astype(str))
    check_table(text, np.arange(len(text), dtype=np.int64) + 2, str(path))
    if len(text) > _HF_TYPED_ROWS:
        text = _interleaved(text)
    write_atomically(path, _to_csv(text.loc[:, (text != "").any()]))
    return path


def read_mask(manifest: Manifest, row: int, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask of the photo at position `row`: bool [h, w], True where pixels were regenerated or painted.

    `size` (h, w): of the upright photo, which the mask must have. Raises ManifestError: the row has no mask, the file
    is no image with values 0..255, or its size differs.
    """
    named = manifest.table[["file_name", "mask_file_name"]].iloc[row]
    file_name, mask_name = str(named["file_name"]), str(named["mask_file_name"])
    if not mask_name:
        raise ManifestError(
            f"{manifest.root}: {file_name!r} has no mask; its column mask_file_name is empty."
        )
    path = manifest.path(mask_name)
    try:
        with Image.open(path) as image:
            if image.size != (size[1], size[0]):
                raise ManifestError(
                    f"{path}: the mask is {image.width}×{image.height} pixels, but its photo {file_name!r} is "
                    f"{size[1]}×{size[0]}. A mask needs the size of the upright photo: write it again."
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


def find_csv(given: Path) -> Path:
    """The CSV file of a folder, or the one named. Raises ManifestError that says what lies there instead."""
    path = given if given.is_file() else given / METADATA_NAME
    if not path.is_file() or path.suffix.lower() != ".csv":
        raise nothing_here(given)
    return path


def nothing_here(given: Path) -> ManifestError:
    """Why there is no manifest to read at a path, and what to do about it."""
    if given.is_file():
        return ManifestError(
            f"{given}: not a CSV file. Name a folder with {METADATA_NAME}, or a CSV file."
        )
    if not given.is_dir():
        return MissingManifestError(
            f"{given}: no such file or folder. Name a folder with {METADATA_NAME}, or a CSV file."
        )
    nested = sorted(given.glob(f"*/{METADATA_NAME}"))
    if nested:
        return ManifestError(
            f"{given}: no {METADATA_NAME} here, but in {nested[0].parent}. Name that folder."
        )
    photos = sum(1 for file in given.rglob("*") if file.suffix.lower() in PHOTO_SUFFIXES)
    return ManifestError(
        f"{given}: no {METADATA_NAME} in this folder ({photos or 'no'} photos below it). Write one beside the photos: "
        f"a first line `file_name,label` and one line per photo, such as `box.jpg,real` "
        f"(labels: {', '.join(LABELS)}; further columns: {', '.join(KNOWN_COLUMNS[2:])})."
    )


def with_known_columns(table: pd.DataFrame) -> pd.DataFrame:
    """All known columns in their order, "" where the table has none, then its own."""
    extra: Sequence[str] = [column for column in table.columns if column not in KNOWN_COLUMNS]
    return table.reindex(columns=[*KNOWN_COLUMNS, *extra], fill_value="")


def with_defaults(table: pd.DataFrame) -> pd.DataFrame:
    """What follows from the rest: see `read_manifest`."""
    real_kind = np.where(table["condition"] == "damaged", "damaged", "original")
    kind = table["kind"].mask(
        (table["kind"] == "") & (table["label"] == "real"), pd.Series(real_kind, table.index)
    )
    own = table["group"].mask(table["group"] == "", table["file_name"])
    groups = dict(zip(table["file_name"].tolist(), own.tolist(), strict=True))
    of_pair = pd.Series(
        [groups.get(name, "") for name in table["pair"].tolist()], table.index, dtype=str
    )
    group = own.mask((table["group"] == "") & (of_pair != ""), of_pair)
    return table.assign(kind=kind, group=group)


def _interleaved(text: pd.DataFrame) -> pd.DataFrame:
    """The rows so that the first hold each sort of row there is (which cells are empty, integers, other numbers,
    booleans or words), and every stretch holds them in their shares."""
    sort = pd.DataFrame(0, index=text.index, columns=text.columns)
    for column in text.columns:
        words = text[column].str.strip().str.lower()
        number = words.str.fullmatch(
            r"[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?|inf|infinity)"
        )
        integer = words.str.fullmatch(r"[+-]?\d+")
        boolean = words.isin(["true", "false"])
        sort[column] = np.select([words == "", integer, number, boolean], [0, 1, 2, 3], default=4)
    pattern = sort.groupby(list(sort.columns)).ngroup()
    rows = pattern.groupby(pattern)
    share = rows.cumcount() / rows.transform("size")
    return text.loc[share.sort_values(kind="stable").index]


def _to_csv(table: pd.DataFrame) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(zip(*(table[column].tolist() for column in table.columns), strict=True))
    return buffer.getvalue().encode("utf-8")
