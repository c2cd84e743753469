"""The chained log with eight writers at once: how many changes a second are on the disk."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from realdamage.claims.database import Database

Report = Callable[[str, float, str], None]
WRITERS = 8


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """An empty database that flushes to the disk, as in production."""
    if request.param == "sqlite":
        yield tmp_path / "claims.sqlite"
        return
    module: Any = runpy.run_path(str(Path(__file__).parents[1] / "postgres.py"))
    if module["find_programs"]() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = module["Server"](is_safe=True)
    yield server.new_url()
    server.close()


def test_eight_writers(
    benchmark: BenchmarkFixture, report: Report, where: Path | str, request: pytest.FixtureRequest
) -> None:
    each = 50 if request.config.getoption("benchmark_enable") else 3
    database = Database(where)
    with database.reading():
        pass  # its tables are made

    def write(writer: int) -> None:
        for number in range(each):
            with database.transaction() as session:
                database.record(session, {"event": "tried", "writer": writer, "number": number})

    def write_all() -> None:
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(write, range(WRITERS)))

    benchmark.pedantic(write_all, rounds=3)
    found = database.verify()
    assert found.problems == ()
    assert len(found.entries) % (WRITERS * each) == 0
    seconds = benchmark.stats.stats.min if benchmark.stats else float("inf")
    report("entries a second, of 8 writers", WRITERS * each / seconds, ".0f")
    database.close()
