"""Audits a set before a GPU day is spent on it: a detector of AI edits learns the data set first, if the set lets it.

Counts, broken files and masks, photos in the wrong split, and tests of what gives the label away without the damage.
A set fails when a shortcut test's lower bound lies above `shortcuts.LIMIT`, or when a file is an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.core.progress import Track, no_progress
from realdamage.data.audit_problems import digests, find_problems
from realdamage.data.audit_report import AuditException, AuditReport, Item, Problem, ShortcutTest
from realdamage.data.bootstrap import DRAWS
from realdamage.data.manifest import Manifest
from realdamage.data.photo_facts import PhotoFacts, read_facts
from realdamage.data.shortcuts import (
    LIMIT,
    SHORTCUTS,
    Shortcut,
    Told,
    shows_damage,
    standing_out,
    told_by,
    too_few,
)
from realdamage.data.splits import components
from realdamage.data.vocabulary import LABELS
from realdamage.errors import ManifestError

__all__ = [
    "EXCEPTIONS_NAME",
    "LIMIT",
    "AuditException",
    "AuditReport",
    "Item",
    "Problem",
    "ShortcutTest",
    "audit",
    "read_exceptions",
]

EXCEPTIONS_NAME = "audit_exceptions.json"
_COUNTED = ["label", "kind", "family", "generator", "damage", "source", "split"]
_EXAMPLES = 4  # of each label
# A narrow failure must show however the groups are dealt into folds: the most cautious of so many deals counts. Of 800
# tests on honest sets of 60 to 400 photos, 7 failed by their first deal and none by all five.
_DEALS, _NARROW = 5, 0.1
_BOOT_OF_A_COLUMN = 200  # enough to tell whether a column leaks; its figure is not reported


def audit(
    manifest: Manifest,
    *,
    quick: bool = False,
    workers: int | None = None,
    seed: int = 0,
    progress: Track = no_progress,
    exceptions: Sequence[AuditException] | None = None,
) -> AuditReport:
    """Reads every file once and judges the set.

    quick: headers and columns only, no pixel decoded (what training asks for); the tests "bytes" and "colour", damaged
    pixels, near-duplicates and the content of masks are left out. exceptions: None reads those beside the manifest.

    Raises ManifestError: the set has photos of one label only, or `read_exceptions` refuses the file.
    """
    labels = {label: int((manifest.table["label"] == label).sum()) for label in LABELS}
    if not all(labels.values()):
        found = ", ".join(f"{count} {label}" for label, count in labels.items())
        raise ManifestError(
            f"{manifest.root}: an audit asks what tells real from synthetic photos, but there are {found}. "
            "Audit the set that both are in."
        )
    allowed = read_exceptions(manifest) if exceptions is None else tuple(exceptions)
    facts = read_facts(manifest, pixels=not quick, workers=workers, progress=progress)
    sha256 = digests(manifest, facts)
    groups = components(
        manifest.table.assign(sha256=sha256.where(sha256 != "", manifest.table["sha256"]))
    )
    frame = _frame(manifest.table, facts)
    read = manifest.table.loc[frame.index]
    rows = _Rows(
        frame,
        read["file_name"].to_numpy(),
        (read["label"] == "synthetic").to_numpy(),
        groups[frame.index],
    )
    asked = [shortcut for shortcut in SHORTCUTS if not (quick and shortcut.pixels)]
    counted = [*_COUNTED, *(["part"] if "part" in manifest.table else [])]
    counts = manifest.table.groupby(counted, sort=True).size().rename("photos").reset_index()
    return AuditReport(
        root=str(manifest.root),
        manifest_sha256=manifest.digest(),
        quick=quick,
        photos=labels,
        counts=tuple(
            {str(k): v for k, v in record.items()} for record in counts.to_dict("records")
        ),
        problems=find_problems(manifest, facts, sha256, groups),
        tests=tuple(
            test
            for s in progress(asked, len(asked), "testing")
            for test in _tests(s, rows, allowed, seed)
        ),
        exceptions=allowed,
    )


def read_exceptions(manifest: Manifest) -> tuple[AuditException, ...]:
    """The exceptions that `audit_exceptions.json` beside the manifest makes, none when there is no such file.

    Raises ManifestError: not a JSON list of objects with part, test and reason; a part that no row has, an unknown
    test, or no reason.
    """
    path = manifest.root / EXCEPTIONS_NAME
    if not path.is_file():
        return ()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestError(
            f"{path}: cannot be read as JSON ({error}). Correct or remove it."
        ) from error
    if not isinstance(entries, list):
        raise ManifestError(
            f"{path}: found {type(entries).__name__}; write a list of objects with part, test, reason."
        )
    parts = set(_parts(manifest.table))
    return tuple(
        _exception(entry, f"{path}, entry {number}", parts)
        for number, entry in enumerate(entries, start=1)
    )


def _exception(entry: Any, where: str, parts: set[str]) -> AuditException:
    wanted = set(AuditException._fields)
    if (
        not isinstance(entry, dict)
        or set(entry) != wanted
        or not all(isinstance(v, str) for v in entry.values())
    ):
        raise ManifestError(
            f"{where}: found {json.dumps(entry)}; write the texts part, test and reason."
        )
    names = [shortcut.name for shortcut in SHORTCUTS]
    if entry["test"] not in names:
        raise ManifestError(
            f"{where}: unknown test {entry['test']!r}; there are {', '.join(names)}."
        )
    if entry["part"] not in parts:
        known = ", ".join(repr(part) for part in sorted(parts))
        raise ManifestError(
            f"{where}: no row has part {entry['part']!r}; the column part holds {known}."
        )
    if not entry["reason"].strip():
        raise ManifestError(
            f"{where}: the reason is empty. Say why this part may give its label away."
        )
    return AuditException(**entry)


def _parts(table: pd.DataFrame) -> pd.Series:
    return table["part"] if "part" in table else pd.Series("", table.index, dtype=object)


def _frame(table: pd.DataFrame, facts: Sequence[PhotoFacts]) -> pd.DataFrame:
    """What the tests may see of each readable photo, under the manifest's row numbers."""
    rows = [row for row, fact in enumerate(facts) if not fact.error]
    frame = pd.DataFrame([facts[row].container for row in rows], index=rows)
    colours = [facts[row].colour or (np.nan,) * 3 for row in rows]
    frame[["red", "green", "blue"]] = np.array(colours, dtype=float).reshape(-1, 3)
    return frame.assign(
        source=table["source"],
        damage=table["damage"],
        shows_damage=shows_damage(table),
        part=_parts(table),
    )


@dataclass(frozen=True)
class _Rows:
    """Readable photos to test: `frame` see `_frame`; `names`: of the files; `synthetic` bool, `groups` int, [n]."""

    frame: pd.DataFrame
    names: npt.NDArray[np.object_]
    synthetic: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.int64]

    def where(self, chosen: pd.Series) -> _Rows:
        mask = chosen.to_numpy(dtype=bool)
        return _Rows(self.frame[mask], self.names[mask], self.synthetic[mask], self.groups[mask])

    def told_by(self, facts: Iterable[str], seed: int, n_boot: int = DRAWS) -> Told:
        return told_by(
            self.frame[list(facts)], self.synthetic, self.groups, n_boot=n_boot, seed=seed
        )


def _tests(
    shortcut: Shortcut, rows: _Rows, exceptions: Sequence[AuditException], seed: int
) -> list[ShortcutTest]:
    """One test over all rows that no exception takes out, then one over each part that an exception does."""
    reasons = {e.part: e.reason for e in exceptions if e.test == shortcut.name}
    for fact in (
        "damage",
        "shows_damage",
    ):  # photos of which the manifest does not say it are left out
        if any(fact in facts for facts in shortcut.columns.values()):
            rows = rows.where(rows.frame[fact] != "")
    part = rows.frame["part"]
    judged = _test(shortcut, rows.where(~part.isin(reasons)), seed)
    return [
        judged,
        *(
            _test(shortcut, rows.where(part == name), seed, name, why)
            for name, why in reasons.items()
        ),
    ]


def _test(
    shortcut: Shortcut, rows: _Rows, seed: int, part: str = "", exception: str = ""
) -> ShortcutTest:
    n = len(rows.frame)
    blank = ShortcutTest(
        shortcut.name, part, math.nan, math.nan, math.nan, n, shortcut.blocking, exception=exception
    )
    reason = too_few(rows.synthetic, rows.groups)
    if reason:
        return replace(blank, note=reason)
    facts = list(chain(*shortcut.columns.values()))
    told = rows.told_by(facts, seed)
    for again in range(1, _DEALS):
        if not LIMIT < told.low < LIMIT + _NARROW:
            break
        told = min(told, rows.told_by(facts, seed + again), key=lambda found: found.low)
    measured = replace(blank, auroc=told.auroc, low=told.low, high=told.high)
    if told.low <= LIMIT:
        return measured
    columns = _leaking(shortcut, rows, seed)
    leaking = replace(measured, columns=columns, examples=_surest(rows, told))
    if exception:
        return leaking
    if not shortcut.blocking:
        return replace(leaking, note="tells them apart, but regeneration itself may do that")
    return replace(leaking, failed=True, advice=_advice(shortcut, columns, rows))


def _leaking(shortcut: Shortcut, rows: _Rows, seed: int) -> tuple[str, ...]:
    """The columns that tell the classes apart alone, the worst first."""
    if len(shortcut.columns) == 1:
        return tuple(shortcut.columns)
    told = {
        column: rows.told_by(facts, seed, _BOOT_OF_A_COLUMN)
        for column, facts in shortcut.columns.items()
    }
    alone = [column for column, found in told.items() if found.low > LIMIT]
    return tuple(sorted(alone, key=lambda column: -told[column].auroc))


def _surest(rows: _Rows, told: Told) -> tuple[str, ...]:
    """The photos that the classifier is right about, the surest first: real ones, then synthetic ones."""
    order = np.argsort(told.scores, kind="stable")
    real = [str(rows.names[i]) for i in order if not rows.synthetic[i] and told.scores[i] < 0]
    fake = [str(rows.names[i]) for i in order[::-1] if rows.synthetic[i] and told.scores[i] > 0]
    return (*real[:_EXAMPLES], *fake[:_EXAMPLES])


def _advice(shortcut: Shortcut, columns: tuple[str, ...], rows: _Rows) -> str:
    named = columns[:3]
    values = "; ".join(
        standing_out(name, rows.frame[list(shortcut.columns[name])], rows.synthetic)
        for name in named
    )
    values = f"{values}. " if columns else ""
    if shortcut.name == "container":
        return f"{values}Save both classes alike: realdamage neutralise IN OUT."
    if shortcut.name == "source":
        return (
            f"{values}Add photos of the class that such a source lacks (edits of its real photos, or real photos where "
            "the synthetic ones come from), or leave it out."
        )
    if shortcut.name == "damage":
        return (
            f"{values}Paint the types that the real photos have, and add real photos of the types that only "
            "synthetic ones show."
        )
    damaged = (rows.frame["shows_damage"] == "yes").to_numpy()
    if damaged[rows.synthetic].mean() > damaged[~rows.synthetic].mean():
        return f"{values}Add photos of real damage, and photos that were regenerated without any damage."
    return f"{values}Paint damage into more photos, and add real photos of intact products."
