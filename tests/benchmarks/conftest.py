"""Figures of the benchmarks beyond their timings, printed as one table when all are done."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

Report = Callable[[str, float, str], None]
_ROWS = pytest.StashKey[list[tuple[str, str, str]]]()


@pytest.fixture
def report(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Report:
    """`report("network", 0.8, ".0%")` puts a figure into the benchmark's `extra_info` and the table
    at the end; the third argument is its format."""
    rows = request.config.stash.setdefault(_ROWS, [])

    def add(name: str, value: float, form: str) -> None:
        benchmark.extra_info[name] = value
        rows.append((request.node.name, name, format(value, form)))

    return add


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash.get(_ROWS, [])
    if not rows or not config.getoption("benchmark_enable"):
        return  # a single run of each, on smaller photos, says nothing about speed
    terminalreporter.section("figures of the benchmarks")
    test, name = (max(len(row[column]) for row in rows) for column in (0, 1))
    for row in rows:
        terminalreporter.write_line(f"{row[0]:{test}}  {row[1]:{name}}  {row[2]:>8}")
