"""Faults of files, groups and masks that an audit lists: each with what to do, and with the rows it concerns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.data.audit_report import Item, Problem
from realdamage.data.duplicates import duplicate_groups
from realdamage.data.manifest import Manifest
from realdamage.data.photo_facts import MASK_FAULTS, PhotoFacts

_MASK_MESSAGES = {
    "missing": ("error", "masks are not there. Restore the files, or empty their cells."),
    "on_real": (
        "error",
        "real photos have a mask of what was regenerated. Correct the label, or empty the cell.",
    ),
    "unusable": ("error", "masks cannot be used. Write them again as 8-bit greyscale, 0 and 255."),
    "size": ("error", "masks have another size than the upright photo. Write them again."),
    "empty": ("error", "masks mark no pixel. Write them again, or remove the rows."),
    "absent": (
        "warning",
        "photos with an edited region have no mask: they teach the photo's label, but not where.",
    ),
    "partial": (
        "warning",
        "photos regenerated as a whole have a mask of less than half of it. Fill it, or call them ai_region.",
    ),
}


def digests(manifest: Manifest, facts: Sequence[PhotoFacts]) -> pd.Series:
    """SHA-256 of each file where it can matter, else "": of all that were read whole; without pixels, of files that
    agree in size and header, since no others can be the same."""
    found = pd.Series([fact.sha256 for fact in facts], manifest.table.index, dtype=object)
    header = pd.Series(
        [repr(fact.container) if fact.container else "" for fact in facts], manifest.table.index
    )
    unknown = (found == "") & (header != "") & header.duplicated(keep=False)
    for row in np.flatnonzero(unknown).tolist():
        with manifest.path(str(manifest.table["file_name"].iat[row])).open("rb") as file:
            found.iat[row] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def find_problems(
    manifest: Manifest,
    facts: Sequence[PhotoFacts],
    sha256: pd.Series,
    groups: npt.NDArray[np.int64],
) -> tuple[Problem, ...]:
    """Errors first. `sha256`: see `digests`; `groups` int [n]: the rows that may not be separated."""
    found = [
        _unreadable(manifest, facts),
        *_duplicates(manifest.table, sha256),
        _disagreements(manifest.table, sha256),
        _crossings(manifest.table, groups),
        *_near_duplicates(manifest.table, facts, groups),
        *_masks(manifest.table, facts),
    ]
    return tuple(sorted((p for p in found if p and p.items), key=lambda problem: problem.severity))


def _unreadable(manifest: Manifest, facts: Sequence[PhotoFacts]) -> Problem:
    rows = zip(manifest.table["file_name"], facts, strict=True)
    items = tuple(
        Item((n,), f.error.removeprefix(f"{manifest.path(n)}: ")) for n, f in rows if f.error
    )
    return Problem(
        "unreadable",
        "error",
        "photos cannot be read. Replace the files or remove their rows.",
        items,
    )


def _duplicates(table: pd.DataFrame, sha256: pd.Series) -> Iterable[Problem]:
    same: list[Item] = []
    contradicting: list[Item] = []
    for _, rows in table[(sha256 != "") & sha256.duplicated(keep=False)].groupby(
        sha256, sort=False
    ):
        labels = sorted(set(rows["label"]))
        item = Item(tuple(rows["file_name"]), " and ".join(labels))
        (contradicting if len(labels) > 1 else same).append(item)
    yield Problem(
        "label_conflict",
        "error",
        "files have the same bytes, but one is labelled real and one synthetic. Keep the right one of each.",
        tuple(contradicting),
    )
    yield Problem(
        "duplicate", "warning", "files have the same bytes. Keep one of each.", tuple(same)
    )


def _disagreements(table: pd.DataFrame, sha256: pd.Series) -> Problem:
    wrong = (table["sha256"] != "") & (sha256 != "") & (table["sha256"] != sha256)
    items = tuple(
        Item((name,), f"the column says {said[:12]}…, the file is {is_[:12]}…")
        for name, said, is_ in zip(
            table["file_name"][wrong], table["sha256"][wrong], sha256[wrong], strict=True
        )
    )
    message = "files are not those that the column sha256 names. Look which is right, and write the column again."
    return Problem("sha256", "warning", message, items)


def _crossings(table: pd.DataFrame, groups: npt.NDArray[np.int64]) -> Problem:
    used = table.assign(group=groups)[table["split"] != ""]
    firsts = used[used.groupby("group")["split"].transform("nunique") > 1].drop_duplicates(
        ["group", "split"]
    )
    items = [
        Item(tuple(rows["file_name"]), " and ".join(rows["split"]))
        for _, rows in firsts.groupby("group")
    ]
    message = "groups, pairs or equal files lie in several splits. Give each one split: realdamage split FOLDER --overwrite."
    return Problem("crossing", "error", message, tuple(items))


def _near_duplicates(
    table: pd.DataFrame, facts: Sequence[PhotoFacts], groups: npt.NDArray[np.int64]
) -> Iterable[Problem]:
    rows = np.array(
        [row for row, fact in enumerate(facts) if fact.look is not None], dtype=np.int64
    )
    found = duplicate_groups([fact.look for fact in facts if fact.look is not None])
    split, name = table["split"].to_numpy(), table["file_name"].to_numpy()
    items: dict[
        tuple[int, int], Item
    ] = {}  # the nearest pair of two groups stands for all of their edits
    for number in np.argsort(found.distances, kind="stable"):
        a, b = rows[found.pairs[number]]
        if split[a] and split[b] and split[a] != split[b] and groups[a] != groups[b]:
            detail = f"{split[a]} and {split[b]}; their hashes differ in {found.distances[number]} of 256 bits"
            both = (min(groups[a], groups[b]), max(groups[a], groups[b]))
            items.setdefault(both, Item((str(name[a]), str(name[b])), detail))
    message = (
        "photos of different groups look alike, but lie in different splits. Look at them on the page (--html); where "
        "they show the same, give them one group and split again."
    )
    yield Problem("near_duplicate", "warning", message, tuple(items.values()))
    large = tuple(Item((), warning) for warning in found.warnings)
    yield Problem(
        "near_duplicate_group",
        "warning",
        "groups of look-alikes are too large to be believed.",
        large,
    )


def _masks(table: pd.DataFrame, facts: Sequence[PhotoFacts]) -> Iterable[Problem]:
    for fault in MASK_FAULTS:
        severity, message = _MASK_MESSAGES[fault]
        items = tuple(
            Item((name,), detail)
            for name, fact in zip(table["file_name"], facts, strict=True)
            for kind, detail in fact.mask_faults
            if kind == fault
        )
        yield Problem(f"mask_{fault}", severity, message, items)
