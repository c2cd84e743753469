"""An audit as plain text, for a terminal and for a log."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from realdamage.data.audit import AuditReport, Problem, ShortcutTest
from realdamage.data.shortcuts import LIMIT
from realdamage.data.vocabulary import LABELS

_VALUES = 12  # rows of a table of counts
_ITEMS = 5  # cases of a problem
COUNTED = ("kind", "generator", "damage", "source", "split")


def format_report(report: AuditReport) -> str:
    """Counts, tests, problems; the verdict is the last line."""
    sections = [
        headline(report),
        *_crosstabs(report),
        _tests(report),
        *map(_problem, report.problems),
    ]
    return "\n\n".join([*sections, verdict_line(report)])


def headline(report: AuditReport) -> str:
    """What was audited, and how."""
    labels = " and ".join(f"{report.photos[label]} {label}" for label in LABELS)
    depth = (
        "headers and columns only; the full audit reads pixels"
        if report.quick
        else "every photo decoded"
    )
    return f"{report.root}: {sum(report.photos.values())} photos, {labels} ({depth})"


def verdict_line(report: AuditReport) -> str:
    """One line: passed, all reasons why not, or why nobody knows."""
    if not report.failed:
        if not report.measured:
            return f"audit: nothing could be measured ({unmeasured_because(report)})"
        unmeasured = [
            t.name for t in report.tests if t.blocking and not t.exception and not t.measured
        ]
        notes = [f"{len(p.items)} {p.title}" for p in report.problems]
        notes += [f"not measured: {', '.join(unmeasured)}"] if unmeasured else []
        return f"audit passed ({'; '.join(notes)})" if notes else "audit passed"
    reasons = [test.culprit for test in report.failed_tests]
    reasons += [f"{len(p.items)} {p.title}" for p in report.problems if p.severity == "error"]
    return f"audit failed: {'; '.join(reasons)}"


def unmeasured_because(report: AuditReport) -> str:
    """Why no test that can fail the set was measured: what the test of most photos lacked."""
    tests = [test for test in report.tests if test.blocking]
    return (
        f"too few photos: {max(tests, key=lambda test: test.rows).note}"
        if tests
        else "no test was asked for"
    )


def outcome(test: ShortcutTest) -> str:
    """A test's verdict in a few words."""
    if test.failed:
        return test.culprit.replace(test.name, "FAILED", 1)
    if test.exception:
        return f"allowed: {test.exception}" + (
            "" if test.measured else f" (not measured: {test.note})"
        )
    if not test.measured:
        return f"not measured: {test.note}"
    return test.note or ("passed" if test.blocking else "told, not judged")


def crosstab(report: AuditReport, column: str) -> pd.DataFrame | None:
    """Photos per value of a column and label, the most frequent first; None where the column says nothing."""
    table = pd.DataFrame(report.counts)
    if (table[column] == "").all():
        return None
    counts = table.pivot_table(
        index=column, columns="label", values="photos", aggfunc="sum", fill_value=0
    )
    counts = counts.reindex(columns=list(LABELS), fill_value=0)
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    return counts.rename(index={"": "(none)"})


def _crosstabs(report: AuditReport) -> Iterator[str]:
    for column in COUNTED:
        counts = crosstab(report, column)
        if counts is None:
            continue
        if len(counts) > _VALUES:
            rest = counts.iloc[_VALUES - 1 :]
            counts = counts.iloc[: _VALUES - 1]
            counts.loc[f"… {len(rest)} more"] = rest.sum()
        width = max(len(column), *(len(str(value)) for value in counts.index))
        yield "\n".join(
            [f"{column:{width}}  {'real':>9}  {'synthetic':>9}"]
            + [
                f"{value:{width}}  {real:>9}  {fake:>9}"
                for value, real, fake in counts.itertuples()
            ]
        )


def _tests(report: AuditReport) -> str:
    width = max(len(test.title) for test in report.tests)
    lines = [
        f"What tells the labels apart by itself (fails when all of the interval lies above {LIMIT})",
        f"{'':{width}}  photos  AUROC  95% interval",
    ]
    for test in report.tests:
        figures = (
            f"{test.auroc:.3f}  {test.low:.3f} to {test.high:.3f}"
            if test.measured
            else f"{'-':>5}  {'-':14}"
        )
        lines.append(f"{test.title:{width}}  {test.rows:>6}  {figures}  {outcome(test)}")
    lines += [f"\n{test.name}: {test.advice}" for test in report.failed_tests]
    return "\n".join(lines)


def _problem(problem: Problem) -> str:
    lines = [f"{problem.severity} ({len(problem.items)}): {problem.message}"]
    lines += [
        f"  {' ~ '.join(item.files)}  {item.detail}".rstrip() for item in problem.items[:_ITEMS]
    ]
    if len(problem.items) > _ITEMS:
        lines.append(f"  … and {len(problem.items) - _ITEMS} more (--json lists all)")
    return "\n".join(lines)
