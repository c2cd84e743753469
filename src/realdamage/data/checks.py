"""The rules a manifest must keep, checked column by column, so that every fault is named before a photo is opened.

All checks are vectorised over the table; each error names file, row, column, the value found and what to write instead.
"""

from __future__ import annotations

import difflib
import logging
import os
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.data.vocabulary import ALLOWED_VALUES, KIND_LABELS, KNOWN_COLUMNS, REQUIRED_COLUMNS
from realdamage.errors import ManifestError

logger = logging.getLogger(__name__)

# A backslash, a leading slash, a drive letter, or a path segment that is empty, "." or "..".
_AWKWARD_PATH = r"\\|^[A-Za-z]:|(?:^|/)\.{0,2}(?:/|$)"


def check_header(columns: list[str], source: str) -> None:
    """Raises ManifestError: a required column is missing, a name is empty or occurs twice."""
    for column in REQUIRED_COLUMNS:
        if column not in columns:
            raise ManifestError(
                f"{source}: the column {column!r} is missing; found: {', '.join(map(repr, columns)) or 'nothing'}."
                + _header_hint(column, columns)
            )
    for position, column in enumerate(columns, start=1):
        if not column:
            raise ManifestError(
                f"{source}, row 1: column {position} has no name. Name it or remove it."
            )
        if columns.count(column) > 1:
            raise ManifestError(
                f"{source}, row 1: the column {column!r} occurs twice. Keep one of them."
            )
    absent = [column for column in KNOWN_COLUMNS if column not in columns]
    for column in columns:
        near = None if column in KNOWN_COLUMNS else near_match(column, absent)
        if near:
            logger.warning(
                "%s: %r is not a known column and is left as it is; did you mean %r?",
                source,
                column,
                near,
            )


def check_table(table: pd.DataFrame, rows: npt.NDArray[np.int64], source: str) -> None:
    """Checks the values of a table that has all known columns, as strings, "" where empty.

    `rows` int [n]: the number of each row in the file, for the messages; `source`: the file's name.
    Raises ManifestError at the first rule that a row breaks.
    """
    check = _TableCheck(table, rows, source)
    check.values()
    check.meanings()
    check.paths()
    check.uniqueness_and_pairs()


def check_files_exist(
    table: pd.DataFrame, rows: npt.NDArray[np.int64], root: Path, source: str
) -> None:
    """Lists each folder the table names once, instead of asking for each file.

    Raises ManifestError: a photo or mask is missing or is not a file.
    """
    check = _TableCheck(table, rows, source)
    present: dict[str, set[str]] = {}
    for column in ("file_name", "mask_file_name"):
        names = table[column].tolist()
        missing = np.zeros(len(names), dtype=bool)
        for index, name in enumerate(names):
            if not name:
                continue
            folder, _, base = name.rpartition("/")
            if folder not in present:
                present[folder] = _files_in(root / folder)
            missing[index] = base not in present[folder]
        check.refuse(column, missing, lambda name: _missing_file(name, root, present))


@dataclass(frozen=True)
class _TableCheck:
    table: pd.DataFrame
    rows: npt.NDArray[np.int64]
    source: str

    def refuse(
        self, column: str, bad: pd.Series | npt.NDArray[np.bool_], explain: Callable[[str], str]
    ) -> None:
        """Raises ManifestError for the first row of `bad`, worded by `explain(value found)`, and counts the others."""
        positions = np.flatnonzero(np.asarray(bad))
        if not len(positions):
            return
        first = positions[0]
        found = str(self.table[column].iat[first])
        others = (
            f" ({len(positions) - 1} more rows with the same fault.)" if len(positions) > 1 else ""
        )
        raise ManifestError(
            f"{self.source}, row {self.rows[first]}, column {column}: {explain(found)}{others}"
        )

    def values(self) -> None:
        self.refuse(
            "file_name", self.table["file_name"] == "", lambda _: "is empty. Name the photo's file."
        )
        for column, allowed in ALLOWED_VALUES.items():
            optional = column not in REQUIRED_COLUMNS
            permitted = {*allowed, ""} if optional else set(allowed)
            self.refuse(
                column,
                ~self.table[column].isin(permitted),
                _wrong_value(allowed, optional=optional),
            )
        malformed = (self.table["sha256"] != "") & ~self.table["sha256"].str.fullmatch(
            "[0-9a-f]{64}"
        )
        self.refuse(
            "sha256",
            malformed,
            lambda found: f"found {found!r}; allowed: 64 lower-case hexadecimal digits, or empty.",
        )

    def meanings(self) -> None:
        """Columns that contradict each other."""
        table = self.table
        other_label = (table["kind"] != "") & (table["kind"].map(KIND_LABELS) != table["label"])
        self.refuse(
            "kind",
            other_label,
            lambda kind: (
                f"{kind!r} is a kind of {KIND_LABELS[kind]} photo, but the row's label says otherwise. "
                f"Allowed for real: {_kinds_of('real')}; for synthetic: {_kinds_of('synthetic')}."
            ),
        )
        self.refuse(
            "condition",
            (table["kind"] == "damaged") & (table["condition"] == "intact"),
            lambda found: (
                f"found {found!r} beside kind 'damaged'; allowed there: damaged, unknown, or empty."
            ),
        )
        for column in ("generator", "family"):
            self.refuse(
                column,
                (table["label"] == "real") & (table[column] != ""),
                lambda found: (
                    f"found {found!r} on a photo with label 'real'. Empty it, or correct the label."
                ),
            )

    def paths(self) -> None:
        for column in ("file_name", "pair", "mask_file_name"):
            names = self.table[column]
            self.refuse(
                column, (names != "") & names.str.contains(_AWKWARD_PATH, regex=True), _wrong_path
            )

    def uniqueness_and_pairs(self) -> None:
        names = self.table["file_name"]

        def duplicate(found: str) -> str:
            first = self.rows[int(np.argmax(names.to_numpy() == found))]
            return f"{found!r} is already in row {first}. A photo has one row: remove one of them."

        self.refuse("file_name", names.duplicated(), duplicate)
        pair = self.table["pair"]
        self.refuse(
            "pair",
            pair == names,
            lambda found: f"{found!r} is the row itself. Name the original, or empty it.",
        )
        known = {"", *names.tolist()}  # pandas' own isin takes seconds for 100,000 names
        unknown = np.array([name not in known for name in pair.tolist()], dtype=bool)

        def no_row(found: str) -> str:
            others = names[
                names != names.iat[int(np.argmax(unknown))]
            ]  # a photo is never its own original
            return (
                f"{found!r} names no row of this manifest.{did_you_mean(found, others)} "
                "Add the original's row, or empty the cell."
            )

        self.refuse("pair", unknown, no_row)


def _wrong_value(allowed: Iterable[str], *, optional: bool) -> Callable[[str], str]:
    def explain(found: str) -> str:
        choices = ", ".join(allowed) + (", or empty" if optional else "")
        return f"found {found!r}; allowed: {choices}.{did_you_mean(found, allowed)}"

    return explain


def _wrong_path(found: str) -> str:
    if "\\" in found:
        return f"found {found!r}: write the path with forward slashes, relative to the folder of the manifest."
    if found.startswith("/") or found[1:2] == ":":
        return (
            f"found {found!r}, an absolute path. Write it relative to the folder of the manifest."
        )
    normal = posixpath.normpath(found)
    if normal == ".." or normal.startswith("../"):
        return f"found {found!r}, which leaves the folder of the manifest. Move the file inside, or the manifest up."
    return f"found {found!r}; write the same path plainly: {normal!r}."


def _files_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise ManifestError(
            f"{folder}: cannot be listed ({error.strerror}). Check its permissions."
        ) from error


def _missing_file(name: str, root: Path, present: dict[str, set[str]]) -> str:
    folder = name.rpartition("/")[0]
    stem = PurePosixPath(name).stem.lower()
    alike = sorted(base for base in present[folder] if PurePosixPath(base).stem.lower() == stem)
    hint = (
        f" There is {(f'{folder}/' if folder else '') + alike[0]!r}; did you mean that?"
        if alike
        else ""
    )
    return f"{name!r} is not a file under {root}.{hint} Restore the file or remove its row."


def _header_hint(missing: str, columns: list[str]) -> str:
    separator = next(
        (mark for mark in (";", "\t", "|") if len(columns) == 1 and mark in columns[0]), None
    )
    if separator:
        return f" The values seem to be separated by {separator!r}: save the file with commas."
    near = near_match(missing, columns)
    return (
        f" Rename {near!r} to {missing!r}?"
        if near
        else " The first row must hold the column names."
    )


def near_match(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` is probably a misspelling of; capitals and blanks do not count."""
    by_plain = {choice.strip().lower(): choice for choice in choices}
    match = difflib.get_close_matches(word.strip().lower(), by_plain, n=1, cutoff=0.7)
    return by_plain[match[0]] if match else None


def did_you_mean(found: str, choices: Iterable[str]) -> str:
    """The near match of a misspelt word as the end of a message; "" when there is none."""
    near = near_match(found, choices)
    return f" Did you mean {near!r}?" if near else ""


def _kinds_of(label: str) -> str:
    return ", ".join(kind for kind, owner in KIND_LABELS.items() if owner == label)
