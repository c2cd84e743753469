"""Audits a set before a model is trained on it.

A detector learns whatever separates the classes, so the audit looks for what gives the label away
without the damage. It also finds broken files and masks, and photos in the wrong split. A set
fails when a shortcut test's lower bound is above `shortcuts.LIMIT`, or when a file is an error.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.core.progress import Track, no_progress
from realdamage.data.duplicates import duplicate_groups
from realdamage.data.manifest import EXCEPTIONS_NAME, Manifest
from realdamage.data.shortcuts import (
    LIMIT,
    SHORTCUTS,
    PhotoFacts,
    Shortcut,
    read_facts,
    separation,
    shows_damage,
    standing_out,
    too_few,
)
from realdamage.data.splits import components, crossings
from realdamage.data.vocabulary import LABELS
from realdamage.errors import ManifestError

_COUNTED = ["label", "kind", "family", "generator", "damage", "source", "split"]
_EXAMPLES = 4  # of each label
# A narrow failure must show however the groups are dealt into folds: of this many deals, the most
# cautious counts. Of 800 tests on honest sets of 60 to 400 photos, 7 failed by their first deal and
# none by all five.
_DEALS, _NARROW = 5, 0.1
_BOOT_OF_A_COLUMN = 200  # enough to see whether a column leaks; its figure is not reported
_SINGLE = {shortcut.name for shortcut in SHORTCUTS if len(shortcut.columns) == 1}


class AuditException(NamedTuple):
    """A shortcut that is allowed in one part of a set, and why."""

    part: str
    test: str
    reason: str


class Item(NamedTuple):
    """One case of a problem: the files it concerns, and what was found."""

    files: tuple[str, ...]
    detail: str = ""


@dataclass(frozen=True)
class Problem:
    """A fault of the files or the manifest.

    kind: one of `_PROBLEMS`.
    severity: "error" fails the audit, "warning" does not.
    message: what it is and what to do.
    """

    kind: str
    severity: str
    message: str
    items: tuple[Item, ...]

    @property
    def title(self) -> str:
        return f"{len(self.items)} {self.kind.replace('_', ' ')}"


@dataclass(frozen=True)
class ShortcutTest:
    """How well a classifier separates the classes by a few facts alone.

    name: see `shortcuts.SHORTCUTS`.
    rows: photos it was measured on.
    auroc, low, high: AUROC and its 95% interval; NaN when not measured, then `note` says why.
    part: of the set; "" for all rows without an exception.
    exception: the reason why this part may leak.
    columns: those that leak alone, the worst first.
    examples: photos that the classifier is surest of, real ones first.
    """

    name: str
    rows: int
    blocking: bool
    auroc: float = math.nan
    low: float = math.nan
    high: float = math.nan
    part: str = ""
    exception: str = ""
    failed: bool = False
    columns: tuple[str, ...] = ()
    advice: str = ""
    note: str = ""
    examples: tuple[str, ...] = ()

    @property
    def measured(self) -> bool:
        return not math.isnan(self.auroc)

    @property
    def title(self) -> str:
        """The name, and the part of an exception."""
        return f"{self.name} ({self.part or 'no part'})" if self.exception else self.name

    @property
    def culprit(self) -> str:
        """What gives the labels away: the columns, or the test's name if it has one column."""
        if not self.columns:
            return f"{self.name} (its columns together, none of them alone)"
        return self.name if self.name in _SINGLE else f"{self.name} ({', '.join(self.columns)})"

    @property
    def leak(self) -> str:
        """A sentence for a failed test: what leaks, how much, what to do."""
        interval = f"95%: {self.low:.3f} to {self.high:.3f}, all above {LIMIT}"
        return f"{self.culprit}, AUROC {self.auroc:.3f} ({interval}). {self.advice}"

    @property
    def figures(self) -> list[float | None]:
        """AUROC, low and high, rounded; None when not measured."""
        values = (self.auroc, self.low, self.high)
        return [None if math.isnan(value) else round(value, 4) for value in values]


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    manifest_sha256: see `Manifest.digest`.
    quick: whether only headers and columns were read.
    photos: number of each label.
    counts: label, kind, family, generator, damage, source, split (and part, if there are parts) and
        `photos` of each combination.
    """

    root: str
    manifest_sha256: str
    quick: bool
    photos: dict[str, int]
    counts: tuple[dict[str, Any], ...]
    problems: tuple[Problem, ...]
    tests: tuple[ShortcutTest, ...]
    exceptions: tuple[AuditException, ...] = ()

    @property
    def failed_tests(self) -> tuple[ShortcutTest, ...]:
        return tuple(test for test in self.tests if test.failed)

    @property
    def leaks(self) -> tuple[str, ...]:
        """A sentence for each thing by which a model could be right for the wrong reason.

        Files that merely cannot be used are not among them.
        """
        cheats = [p for p in self.problems if p.kind in ("label_conflict", "crossing")]
        found = [f"{problem.message} ({len(problem.items)})" for problem in cheats]
        return (*(test.leak for test in self.failed_tests), *found)

    @property
    def failed(self) -> bool:
        return bool(self.failed_tests) or any(p.severity == "error" for p in self.problems)

    @property
    def measured(self) -> bool:
        """Whether any blocking test was measured; a set can be too small for all of them."""
        return any(test.measured for test in self.tests if test.blocking)

    @property
    def passed(self) -> bool:
        return self.measured and not self.failed

    @property
    def summary(self) -> str:
        """One line: passed, every reason why not, or why nothing could be measured."""
        if self.failed:
            errors = [problem.title for problem in self.problems if problem.severity == "error"]
            reasons = [test.culprit for test in self.failed_tests] + errors
            return f"audit failed: {'; '.join(reasons)}"
        blocking = [test for test in self.tests if test.blocking]
        if not self.measured:
            note = max(blocking, key=lambda test: test.rows).note
            return f"audit: nothing could be measured (too few photos: {note})"
        notes = [problem.title for problem in self.problems]
        missing = [t.name for t in blocking if not t.exception and not t.measured]
        if missing:
            notes.append(f"not measured: {', '.join(missing)}")
        return f"audit passed ({'; '.join(notes)})" if notes else "audit passed"

    def verdict(self) -> dict[str, Any]:
        """For the metadata of a model trained on the set, as plain JSON values.

        verdict: "passed", "failed, overridden", or "not measured".
        tests: AUROC, low and high of each test; null: not measured.
        """
        measured = "passed" if self.measured else "not measured"
        return {
            "verdict": "failed, overridden" if self.leaks else measured,
            "tests": {test.name: test.figures for test in self.tests if not test.exception},
            "exceptions": [
                {"part": t.part, "test": t.name, "reason": t.exception, "auroc": t.figures}
                for t in self.tests
                if t.exception
            ],
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON values; figures that were not measured are null."""
        values = asdict(self)
        for test in values["tests"]:
            test.update({key: None for key in ("auroc", "low", "high") if math.isnan(test[key])})
        for problem in values["problems"]:
            problem["items"] = [item._asdict() for item in problem["items"]]
            problem["count"] = len(problem["items"])
        values["exceptions"] = [exception._asdict() for exception in self.exceptions]
        return {**values, "passed": self.passed, "limit": LIMIT, "verdict": self.verdict()}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)


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

    quick: headers and columns only, as training does. Leaves out the tests "bytes" and "colour",
        damaged pixels, near-duplicates and the content of masks.
    exceptions: None: reads those next to the manifest.
    Raises ManifestError: the set has photos of one label only, or `read_exceptions` raises it.
    """
    table = manifest.table
    labels = {label: int((table["label"] == label).sum()) for label in LABELS}
    if not all(labels.values()):
        found = ", ".join(f"{count} {label}" for label, count in labels.items())
        raise ManifestError(
            f"{manifest.root}: an audit looks for what separates real from synthetic photos, but "
            f"there are {found}. Audit a set that has both."
        )
    allowed = read_exceptions(manifest) if exceptions is None else tuple(exceptions)
    facts = read_facts(manifest, pixels=not quick, workers=workers, progress=progress)
    sha256 = _digests(manifest, facts)
    groups = components(table.assign(sha256=sha256.where(sha256 != "", table["sha256"])))
    rows = _readable(table.assign(group=groups), facts)
    asked = [shortcut for shortcut in SHORTCUTS if not (quick and shortcut.pixels)]
    tests = [_tests(s, rows, allowed, seed) for s in progress(asked, len(asked), "testing")]
    counted = [*_COUNTED, *(["part"] if "part" in table else [])]
    counts = table.groupby(counted, sort=True).size().rename("photos").reset_index()
    return AuditReport(
        root=str(manifest.root),
        manifest_sha256=manifest.digest(),
        quick=quick,
        photos=labels,
        counts=tuple({str(k): v for k, v in row.items()} for row in counts.to_dict("records")),
        problems=_problems(manifest, facts, sha256, groups),
        tests=tuple(chain(*tests)),
        exceptions=allowed,
    )


def read_exceptions(manifest: Manifest) -> tuple[AuditException, ...]:
    """The exceptions in `audit_exceptions.json` next to the manifest; none without that file.

    Raises ManifestError: not a JSON list of objects with part, test and reason; a part that no row
    has, an unknown test, or an empty reason. Names the entry.
    """
    path = manifest.root / EXCEPTIONS_NAME
    try:
        text = manifest.shards.text(EXCEPTIONS_NAME) if manifest.shards else path.read_text("utf-8")
        found = tuple(AuditException(**entry) for entry in json.loads(text))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError) as error:
        raise ManifestError(
            f"{path}: cannot be read ({error}). Write a JSON list of objects with part, test, "
            "reason, or remove it."
        ) from error
    tests, parts = [each.name for each in SHORTCUTS], sorted(set(_part(manifest.table)))
    for number, entry in enumerate(found, start=1):
        if entry.test not in tests or entry.part not in parts or not entry.reason.strip():
            raise ManifestError(
                f"{path}, entry {number}: found {entry}. The tests are {', '.join(tests)}, the "
                f"parts {', '.join(parts)}; the reason says why this part may leak its label."
            )
    return found


# --- Shortcuts ---


def _part(table: pd.DataFrame) -> pd.Series:
    return table["part"] if "part" in table else pd.Series("", table.index, dtype=object)


def _readable(table: pd.DataFrame, facts: Sequence[PhotoFacts]) -> pd.DataFrame:
    """The rows of readable photos with all facts, and a bool column `synthetic`."""
    rows = [row for row, fact in enumerate(facts) if not fact.error]
    frame = pd.DataFrame([facts[row].container for row in rows], index=rows)
    colours = [facts[row].colour or (math.nan,) * 3 for row in rows]
    frame[["red", "green", "blue"]] = np.array(colours, dtype=float).reshape(-1, 3)
    return frame.assign(
        file_name=table["file_name"],
        group=table["group"],
        synthetic=table["label"] == "synthetic",
        source=table["source"],
        damage=table["damage"],
        shows_damage=shows_damage(table),
        part=_part(table),
    )


def _tests(
    shortcut: Shortcut, rows: pd.DataFrame, exceptions: Sequence[AuditException], seed: int
) -> list[ShortcutTest]:
    """One test over all rows without an exception, then one over each part with one."""
    reasons = {e.part: e.reason for e in exceptions if e.test == shortcut.name}
    for fact in {"damage", "shows_damage"} & set(shortcut.facts):
        rows = rows[rows[fact] != ""]  # unknown for the others
    tests = [_test(shortcut, rows[~rows["part"].isin(reasons)], seed)]
    for name, reason in reasons.items():
        tested = _test(shortcut, rows[rows["part"] == name], seed)
        note = "" if tested.measured else tested.note
        allowed = replace(tested, part=name, exception=reason, failed=False, advice="", note=note)
        tests.append(allowed)
    return tests


def _test(shortcut: Shortcut, rows: pd.DataFrame, seed: int) -> ShortcutTest:
    test = ShortcutTest(shortcut.name, len(rows), shortcut.blocking)
    synthetic, groups = rows["synthetic"].to_numpy(dtype=bool), rows["group"].to_numpy()
    reason = too_few(synthetic, groups)
    if reason:
        return replace(test, note=reason)
    facts = rows[shortcut.facts]
    found, scores = separation(facts, synthetic, groups, seed=seed)
    for again in range(1, _DEALS):
        if not LIMIT < found.low < LIMIT + _NARROW:
            break
        other, other_scores = separation(facts, synthetic, groups, seed=seed + again)
        if other.low < found.low:
            found, scores = other, other_scores
    test = replace(test, auroc=found.auroc, low=found.low, high=found.high)
    if found.low <= LIMIT:
        return test
    columns = _leaking(shortcut, rows, seed)
    examples = _surest(rows["file_name"].to_numpy(), synthetic, scores)
    test = replace(test, columns=columns, examples=examples)
    if not shortcut.blocking:
        return replace(test, note="differs, but regeneration itself may do that")
    return replace(test, failed=True, advice=_advice(shortcut, columns, rows))


def _leaking(shortcut: Shortcut, rows: pd.DataFrame, seed: int) -> tuple[str, ...]:
    """The columns that separate the classes on their own, the worst first."""
    if len(shortcut.columns) == 1:
        return tuple(shortcut.columns)
    synthetic, groups = rows["synthetic"].to_numpy(dtype=bool), rows["group"].to_numpy()
    found = {
        column: separation(
            rows[list(facts)], synthetic, groups, n_boot=_BOOT_OF_A_COLUMN, seed=seed
        )[0]
        for column, facts in shortcut.columns.items()
    }
    alone = [column for column, each in found.items() if each.low > LIMIT]
    return tuple(sorted(alone, key=lambda column: -found[column].auroc))


def _surest(
    names: npt.NDArray[np.object_],
    synthetic: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float64],
) -> tuple[str, ...]:
    """The photos that the classifier is right about, the surest first; real ones first."""
    order = np.argsort(scores, kind="stable")
    real = [str(names[i]) for i in order if not synthetic[i] and scores[i] < 0]
    fake = [str(names[i]) for i in order[::-1] if synthetic[i] and scores[i] > 0]
    return (*real[:_EXAMPLES], *fake[:_EXAMPLES])


def _advice(shortcut: Shortcut, columns: tuple[str, ...], rows: pd.DataFrame) -> str:
    synthetic = rows["synthetic"].to_numpy(dtype=bool)
    found = [
        standing_out(name, rows[list(shortcut.columns[name])], synthetic) for name in columns[:3]
    ]
    damaged = (rows["shows_damage"] == "yes").to_numpy()
    cures = {
        "container": "Save both classes in the same way: realdamage neutralise IN OUT.",
        "source": (
            "Add photos of the class that such a source lacks (edits of its real photos, or real "
            "photos from the source of the synthetic ones), or leave it out."
        ),
        "damage": (
            "Paint the types that the real photos have, and add real photos of the types that only "
            "synthetic ones show."
        ),
        "condition": (
            "Add photos of real damage, and photos that were regenerated without any damage."
            if damaged[synthetic].mean() > damaged[~synthetic].mean()
            else "Paint damage into more photos, and add real photos of intact products."
        ),
    }
    values = f"{'; '.join(found)}. " if found else ""
    return values + cures[shortcut.name]


# --- Problems ---

# Severity and message of each kind of problem, in the order of a report.
_PROBLEMS = {
    "unreadable": ("error", "photos cannot be read. Replace the files or remove their rows."),
    "label_conflict": (
        "error",
        "files have the same bytes, but one is labelled real and one synthetic. "
        "Keep the right one of each.",
    ),
    "duplicate": ("warning", "files have the same bytes. Keep one of each."),
    "sha256": (
        "warning",
        "files have other bytes than the column sha256 says. "
        "Find out which is right, and write the column again.",
    ),
    "crossing": (
        "error",
        "groups, pairs or equal files are in several splits. "
        "Give each one split: realdamage split FOLDER --overwrite.",
    ),
    "near_duplicate": (
        "warning",
        "photos of different groups look alike, but are in different splits. Look at them on the "
        "page (--html); where they show the same, give them one group and split again.",
    ),
    "near_duplicate_group": ("warning", "groups of look-alikes are too large to be plausible."),
    "mask_missing": ("error", "masks do not exist. Restore the files, or empty their cells."),
    "mask_on_real": (
        "error",
        "real photos have a mask of regenerated pixels. Correct the label, or empty the cell.",
    ),
    "mask_unusable": (
        "error",
        "masks cannot be used. Write them again as 8-bit greyscale, 0 and 255.",
    ),
    "mask_size": ("error", "masks have another size than the upright photo. Write them again."),
    "mask_empty": ("error", "masks mark no pixel. Write them again, or remove the rows."),
    "mask_absent": (
        "warning",
        "photos with an edited region have no mask: they do not teach where the edit is.",
    ),
    "mask_partial": (
        "warning",
        "photos regenerated as a whole have a mask of less than half of it. "
        "Fill it, or call them ai_region.",
    ),
}
_Found = Iterator[tuple[str, Item]]


def _problems(
    manifest: Manifest,
    facts: Sequence[PhotoFacts],
    sha256: pd.Series,
    groups: npt.NDArray[np.int64],
) -> tuple[Problem, ...]:
    """Errors first. sha256: see `_digests`; groups: int [n], rows that must not be separated."""
    items: dict[str, list[Item]] = {kind: [] for kind in _PROBLEMS}
    table = manifest.table
    for kind, item in chain(
        _broken_files(manifest, facts),
        _equal_files(table, sha256),
        _crossings(table, groups),
        _near_duplicates(table, facts, groups),
    ):
        items[kind].append(item)
    found = [Problem(kind, *_PROBLEMS[kind], tuple(items[kind])) for kind in items if items[kind]]
    return tuple(sorted(found, key=lambda problem: problem.severity))


def _digests(manifest: Manifest, facts: Sequence[PhotoFacts]) -> pd.Series:
    """SHA-256 of each file that may have a copy, else "".

    Without pixels, these are the files that agree in size and header with another.
    """
    index = manifest.table.index
    found = pd.Series([fact.sha256 for fact in facts], index, dtype=object)
    header = pd.Series([repr(f.container) if f.container else "" for f in facts], index)
    unknown = (found == "") & (header != "") & header.duplicated(keep=False)
    for row in np.flatnonzero(unknown).tolist():
        found.iat[row] = hashlib.sha256(manifest.photo_bytes(row)).hexdigest()
    return found


def _broken_files(manifest: Manifest, facts: Sequence[PhotoFacts]) -> _Found:
    for name, fact in zip(manifest.table["file_name"], facts, strict=True):
        if fact.error:
            yield "unreadable", Item((name,), fact.error.removeprefix(f"{manifest.path(name)}: "))
        for fault, detail in fact.mask_faults:
            yield f"mask_{fault}", Item((name,), detail)


def _equal_files(table: pd.DataFrame, sha256: pd.Series) -> _Found:
    copies = table[(sha256 != "") & sha256.duplicated(keep=False)]
    for _, rows in copies.groupby(sha256, sort=False):
        labels = sorted(set(rows["label"]))
        kind = "label_conflict" if len(labels) > 1 else "duplicate"
        yield kind, Item(tuple(rows["file_name"]), " and ".join(labels))
    wrong = (table["sha256"] != "") & (sha256 != "") & (table["sha256"] != sha256)
    rows = table.assign(found=sha256)[wrong][["file_name", "sha256", "found"]]
    for name, stated, found in rows.itertuples(index=False):
        detail = f"the column says {stated[:12]}…, the file is {found[:12]}…"
        yield "sha256", Item((name,), detail)


def _crossings(table: pd.DataFrame, groups: npt.NDArray[np.int64]) -> _Found:
    for _, rows in crossings(table, groups).groupby("component"):
        yield "crossing", Item(tuple(rows["file_name"]), " and ".join(rows["split"]))


def _near_duplicates(
    table: pd.DataFrame, facts: Sequence[PhotoFacts], groups: npt.NDArray[np.int64]
) -> _Found:
    rows = np.array([row for row, fact in enumerate(facts) if fact.look], dtype=np.int64)
    found = duplicate_groups([fact.look for fact in facts if fact.look])
    split, name = table["split"].to_numpy(), table["file_name"].to_numpy()
    seen: set[tuple[int, int]] = set()
    for number in np.argsort(found.distances, kind="stable"):
        a, b = rows[found.pairs[number]]
        both = (min(groups[a], groups[b]), max(groups[a], groups[b]))
        apart = split[a] and split[b] and split[a] != split[b] and groups[a] != groups[b]
        if apart and both not in seen:  # the nearest pair of two groups represents them all
            seen.add(both)
            bits = f"their hashes differ in {found.distances[number]} of 256 bits"
            detail = f"{split[a]} and {split[b]}; {bits}"
            yield "near_duplicate", Item((str(name[a]), str(name[b])), detail)
    for warning in found.warnings:
        yield "near_duplicate_group", Item((), warning)
