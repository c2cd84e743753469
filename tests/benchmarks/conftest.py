"""Figures of the benchmarks beyond their timings, printed as one table when all are done."""

import math
import time

import pytest

_ROWS = pytest.StashKey[list[tuple[str, str, str]]]()


@pytest.fixture
def report(benchmark, request):
    """`report("network", 0.8, ".0%")` puts a figure into the benchmark's `extra_info` and the table
    at the end; the third argument is its format."""
    rows = request.config.stash.setdefault(_ROWS, [])

    def add(name, value, form):
        benchmark.extra_info[name] = value
        rows.append((request.node.name, name, format(value, form)))

    return add


@pytest.fixture(scope="session")
def measures(request):
    """False in a run of the tests, which only sees that the code still runs."""
    return bool(request.config.getoption("benchmark_enable"))


@pytest.fixture(scope="session")
def seconds(measures):
    """`seconds({"a": step, "b": other})`: those of the fastest of five rounds of each step. Taken
    in turn, so that a slow moment of the machine affects all of them."""

    def timed(steps):
        best = dict.fromkeys(steps, math.inf)
        for _ in range(5 if measures else 1):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                best[name] = min(best[name], time.perf_counter() - start)
        return best

    return timed


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(_ROWS, [])
    if not rows or not config.getoption("benchmark_enable"):
        return
    terminalreporter.section("figures of the benchmarks")
    test, name = (max(len(row[column]) for row in rows) for column in (0, 1))
    for row in rows:
        terminalreporter.write_line(f"{row[0]:{test}}  {row[1]:{name}}  {row[2]:>8}")
