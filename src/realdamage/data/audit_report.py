"""What an audit found, as typed values: for the page, for a file, for the metadata of a model."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from realdamage.data.shortcuts import LIMIT, SHORTCUTS

_SINGLE = {shortcut.name for shortcut in SHORTCUTS if len(shortcut.columns) == 1}


class AuditException(NamedTuple):
    """A shortcut that somebody allows in one part of a set, and why."""

    part: str
    test: str
    reason: str


class Item(NamedTuple):
    """One case of a problem: the files it concerns, and what was found."""

    files: tuple[str, ...]
    detail: str = ""


@dataclass(frozen=True)
class Problem:
    """A fault of the files or the manifest. `kind`: unreadable, duplicate, label_conflict, sha256, crossing,
    near_duplicate, near_duplicate_group or mask_…; `severity`: "error" fails the audit, "warning" does not; `message`:
    what it is and what to do."""

    kind: str
    severity: str
    message: str
    items: tuple[Item, ...]

    @property
    def title(self) -> str:
        return self.kind.replace("_", " ")


@dataclass(frozen=True)
class ShortcutTest:
    """How well a classifier tells the classes apart by a few facts alone.

    `name`: see `shortcuts.SHORTCUTS`; `part`: of the set, "" for all rows that no exception takes out; `auroc`, `low`,
    `high`: AUROC and its 95% interval, NaN when not measured, and then `note` says why; `rows`: photos it was measured
    on; `columns`: those that leak alone, the worst first; `exception`: the reason why this part may leak; `examples`:
    photos that the classifier tells most surely, real ones first.
    """

    name: str
    part: str
    auroc: float
    low: float
    high: float
    rows: int
    blocking: bool
    columns: tuple[str, ...] = ()
    failed: bool = False
    exception: str = ""
    advice: str = ""
    note: str = ""
    examples: tuple[str, ...] = ()

    @property
    def measured(self) -> bool:
        return not math.isnan(self.auroc)

    @property
    def title(self) -> str:
        """The name, and the part for one that is allowed."""
        return f"{self.name} ({self.part or 'no part'})" if self.exception else self.name

    @property
    def culprit(self) -> str:
        """What gives the labels away in a test that leaks: its columns, or the test's own name where it is one."""
        if not self.columns:
            return f"{self.name} (its columns together, none of them alone)"
        return (
            self.name
            if len(self.columns) == 1 and self.name in _SINGLE
            else f"{self.name} ({', '.join(self.columns)})"
        )

    @property
    def leak(self) -> str:
        """A sentence for a failed test: what leaks, how much, what to do."""
        interval = (
            f"AUROC {self.auroc:.3f} (95%: {self.low:.3f} to {self.high:.3f}, all above {LIMIT})"
        )
        return f"{self.culprit}, {interval}. {self.advice}"


@dataclass(frozen=True)
class AuditReport:
    """`root`: the folder; `manifest_sha256`: see `Manifest.digest`; `quick`: whether only headers and columns were
    read; `photos`: number of each label; `counts`: one record of label, kind, family, generator, damage, source, split
    (and part, where there are parts) and `photos` for each combination that occurs."""

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
        """A sentence for everything by which a model could be right for the wrong reason; files that merely cannot be
        used are not among them."""
        cheats = (p for p in self.problems if p.kind in ("label_conflict", "crossing"))
        return (
            *(test.leak for test in self.failed_tests),
            *(f"{p.message} ({len(p.items)})" for p in cheats),
        )

    @property
    def failed(self) -> bool:
        return bool(self.failed_tests) or any(
            problem.severity == "error" for problem in self.problems
        )

    @property
    def measured(self) -> bool:
        """Whether any test that can fail a set was measured: of a set too small for all of them nothing is known."""
        return any(test.measured for test in self.tests if test.blocking)

    @property
    def passed(self) -> bool:
        return self.measured and not self.failed

    @property
    def unmeasured_reason(self) -> str:
        """Why nothing could be measured: what the blocking test with the most photos lacked."""
        blocking = [test for test in self.tests if test.blocking]
        if not blocking:
            return "no test was asked for"
        return f"too few photos: {max(blocking, key=lambda test: test.rows).note}"

    @property
    def summary(self) -> str:
        """One line: passed, every reason why not, or why nothing could be measured."""
        if self.failed:
            reasons = [test.culprit for test in self.failed_tests]
            reasons += [f"{len(p.items)} {p.title}" for p in self.problems if p.severity == "error"]
            return f"audit failed: {'; '.join(reasons)}"
        if not self.measured:
            return f"audit: nothing could be measured ({self.unmeasured_reason})"
        notes = [f"{len(p.items)} {p.title}" for p in self.problems]
        missing = [t.name for t in self.tests if t.blocking and not t.exception and not t.measured]
        if missing:
            notes.append(f"not measured: {', '.join(missing)}")
        return f"audit passed ({'; '.join(notes)})" if notes else "audit passed"

    def verdict(self) -> dict[str, Any]:
        """For the metadata of a model trained on the set, as plain JSON values: that a failed audit was overridden,
        that it passed, or that nothing could be measured; AUROC, low and high of each test (null: not measured); the
        exceptions that were made."""
        judged = {t.name: t for t in self.tests if not t.exception}
        allowed = [t for t in self.tests if t.exception]
        return {
            "verdict": "failed, overridden"
            if self.leaks
            else "passed"
            if self.measured
            else "not measured",
            "tests": {name: _figures(test) for name, test in judged.items()},
            "exceptions": [
                {"part": t.part, "test": t.name, "reason": t.exception, "auroc": _figures(t)}
                for t in allowed
            ],
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON values; figures that were not measured are null."""
        values = asdict(self)
        for test in values["tests"]:
            test.update({key: None for key in ("auroc", "low", "high") if math.isnan(test[key])})
        values["problems"] = [
            {**asdict(p), "items": [item._asdict() for item in p.items], "count": len(p.items)}
            for p in self.problems
        ]
        values["exceptions"] = [exception._asdict() for exception in self.exceptions]
        return {**values, "passed": self.passed, "limit": LIMIT, "verdict": self.verdict()}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)


def _figures(test: ShortcutTest) -> list[float | None]:
    return [
        None if math.isnan(value) else round(value, 4)
        for value in (test.auroc, test.low, test.high)
    ]
