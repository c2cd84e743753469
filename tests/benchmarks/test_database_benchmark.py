"""The index of earlier claims at a million photos: the first look-up of a process, the next ones,
and how long a purge keeps others from writing. The chained log with eight writers at once."""

import runpy
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from realdamage.claims.database import Database, Photo
from realdamage.claims.index import ClaimIndex, Fingerprint
from realdamage.core.fingerprint import PhotoHash

PURGED = 20_000
WRITERS = 8
KINDS = ("sqlite", pytest.param("postgres", marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def count(measures):
    return 1_000_000 if measures else 2_000


def random_rows(rng, start, end, old):
    """Photos of these numbers; the first `old` are from 2020."""
    size = 32 + 32 + 768
    coarse = rng.integers(-(2**63), 2**63 - 1, end - start).tolist()
    drawn = rng.bytes(size * (end - start))
    for n in range(end - start):
        one = drawn[n * size : (n + 1) * size]
        seen = f"{2020 if start + n < old else 2026}-01-01T00:00:00+00:00"
        yield f"c-{start + n}", 1, seen, one[:32], coarse[n], one[32:64], one[64:]


@pytest.fixture(scope="module", params=KINDS)
def where(request, count, tmp_path_factory):
    """A database with hashes of so many photos, their bits drawn by chance."""
    path = tmp_path_factory.mktemp("index") / "claims.sqlite"
    if request.param == "postgres":
        path = request.getfixturevalue("postgres").new_url()
    database, rng = Database(path), np.random.default_rng(0)
    bands = [one for one in Photo.__table__.indexes if "_band_" in str(one.name)]
    with database.transaction() as session:
        for band in bands:  # making them at the end is faster
            session.execute(text(f"DROP INDEX {band.name}"))
    columns = [column.name for column in Photo.__table__.columns if column.name != "id"]
    insert = f"INSERT INTO photos ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    copy = f"COPY photos ({', '.join(columns)}) FROM STDIN (FORMAT binary)"
    for start in range(0, count, 20_000):
        rows = random_rows(rng, start, min(start + 20_000, count), min(PURGED, count // 2))
        with database.transaction() as session:
            connection = session.connection().connection.driver_connection
            if isinstance(path, Path):
                connection.executemany(insert, rows)
                continue
            with connection.cursor().copy(copy) as rows_in:
                rows_in.set_types(["text", "int4", "text", "bytea", "int8", "bytea", "bytea"])
                for row in rows:
                    rows_in.write_row(row)
    with database.transaction() as session:
        for band in bands:
            band.create(session.connection())
        if not isinstance(path, Path):
            session.execute(text("ANALYZE photos"))  # it does so itself, but a minute later
    database.close()
    yield path
    if isinstance(path, Path):
        path.unlink()


def photo(seed):
    rng = np.random.default_rng([1, seed])
    hashes = [
        PhotoHash(words[0], words[1:], np.zeros(768, np.float32))
        for words in rng.integers(0, 2**64 - 1, (2, 5), dtype=np.uint64)
    ]
    return Fingerprint(rng.bytes(32).hex(), *hashes)


def test_looking_a_photo_up(benchmark, report, where):
    with ClaimIndex(Database(where)) as index:
        with index.database.reading():
            pass  # connected, as a service is before its first claim
        start, cpu = time.perf_counter(), time.process_time()
        assert index.find_fingerprint(photo(0)) == ()
        first, first_cpu = time.perf_counter() - start, time.process_time() - cpu
        seeds = iter(range(1, 10_000))
        benchmark.pedantic(lambda: index.find_fingerprint(photo(next(seeds))), rounds=20)
    report("first look-up, ms", 1000 * first, ".1f")
    report("first look-up, ms of CPU in this process", 1000 * first_cpu, ".1f")
    if isinstance(where, Path):
        report("file, GB", where.stat().st_size / 1e9, ".2f")


def test_purging(benchmark, report, where, count, monkeypatch):
    """The longest time that one transaction keeps others from writing."""
    times = []
    transaction = Database.transaction

    @contextmanager
    def timed(database):
        start = time.perf_counter()
        with transaction(database) as session:
            yield session
        times.append(time.perf_counter() - start)

    monkeypatch.setattr(Database, "transaction", timed)
    with ClaimIndex(Database(where)) as index:
        gone = benchmark.pedantic(lambda: index.purge(1000), rounds=1)
    assert gone == min(PURGED, count // 2)
    assert len(times) > 1
    report("longest transaction of a purge, s", max(times), ".2f")
    report("photos purged a second", gone / sum(times), ".0f")


@pytest.mark.parametrize("kind", KINDS)
def test_eight_writers(benchmark, report, kind, measures, tmp_path):
    """How many changes a second are on the disk: flushed, as in production."""
    where = tmp_path / "claims.sqlite"
    server = None
    if kind == "postgres":
        module = runpy.run_path(str(Path(__file__).parents[1] / "postgres.py"))
        if module["find_programs"]() is None:
            pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
        server = module["Server"](is_safe=True)
        where = server.new_url()
    each, database = 50 if measures else 3, Database(where)
    with database.reading():
        pass  # its tables are made

    def write(writer):
        for number in range(each):
            with database.transaction() as session:
                database.record(session, {"event": "tried", "writer": writer, "number": number})

    def write_all():
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(write, range(WRITERS)))

    benchmark.pedantic(write_all, rounds=3)
    found = database.verify()
    assert found.problems == ()
    assert len(found.entries) % (WRITERS * each) == 0
    if measures:
        rate = WRITERS * each / benchmark.stats.stats.min
        report("entries a second, of 8 writers", rate, ".0f")
    database.close()
    if server:
        server.close()
