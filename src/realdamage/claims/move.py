"""Moves the tables of a store from SQLite to PostgreSQL, for `realdamage move-store`.

A database is copied in one transaction and checked in it, so that after a kill there is nothing in
the target, or everything. The SQLite file is set aside last; until then the move can be repeated.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sqlalchemy import func, insert, select, text
from sqlalchemy.orm import Session

from realdamage.claims.database import ELSEWHERE, FILE_NAME, Base, Database, log_lines
from realdamage.claims.log import follow_chain, locked
from realdamage.errors import RealDamageError, UsageError

MOVED = f"{FILE_NAME}.moved"
"""What the SQLite file is called afterwards."""
_CHUNK = 2000  # rows that are read at a time
_TABLES = Base.metadata.sorted_tables


def move_store(folder: Path, url: str) -> dict[str, int]:
    """Move the tables of a store and its tenants; returns how many rows each database had.

    Raises UsageError for a store without SQLite files, in use, or a target that is not empty, and
    RealDamageError when a copy is not equal to its original; then the target stays empty.
    """
    target = Database(url)
    if not target.is_postgres:
        raise UsageError("--database: expected postgresql+psycopg://USER@HOST/NAME", code="target")
    homes = {home: target.of_tenant(home.name) for home in sorted((folder / "tenants").glob("*"))}
    homes[folder] = target
    homes = {home: to for home, to in homes.items() if (home / FILE_NAME).is_file()}
    if not homes:
        raise UsageError(f"{folder}: no store with a {FILE_NAME} to move", code="no_store")
    _check_is_idle(folder)
    moved = {}
    try:
        for home, to in homes.items():
            source = Database(home / FILE_NAME)
            try:
                moved[str(home)] = _copy(source, to)
            finally:
                source.close()
            (home / ELSEWHERE).touch(0o600)
            (home / FILE_NAME).rename(home / MOVED)
    except OSError as error:
        raise RealDamageError(
            f"{folder}: cannot set {FILE_NAME} aside: {error.strerror or error}. Check permissions "
            "and repeat the command.",
            code="store_not_writable",
        ) from error
    finally:
        target.close()
    return moved


def _check_is_idle(folder: Path) -> None:
    """Raises UsageError while a service holds the lock of its file in the store."""
    for path in (folder / "workers").glob("*"):
        with suppress(FileNotFoundError):
            try:
                with path.open("r+b") as file, locked(file, wait=False):
                    pass
            except BlockingIOError:
                raise UsageError(
                    f"{folder}: a service runs on this store; stop it first", code="store_in_use"
                ) from None


def _copy(source: Database, target: Database) -> int:
    """Copy all tables, unless a killed move has done so; returns the number of rows."""
    with source.transaction() as read, target.transaction() as write:  # nobody else writes
        write.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        if not any(_counts(write).values()):
            for table in _TABLES:
                rows = read.execute(select(table).execution_options(yield_per=_CHUNK)).mappings()
                for some in rows.partitions():
                    write.execute(insert(table), [dict(row) for row in some])
                if (number := table.autoincrement_column) is not None:
                    last = select(func.max(number)).scalar_subquery()
                    own = func.pg_get_serial_sequence(table.name, number.name)
                    write.execute(select(func.setval(own, last)))
        elif _state(read) != _state(write):
            raise UsageError(f"{target.name}: is not empty; name a new database", code="not_empty")
        counts, expected = _counts(write), _counts(read)
        faults = [name for name, count in expected.items() if counts[name] != count]
        report = follow_chain(log_lines(write), target.name)
        if faults or (report.problems and expected["events"]):
            raise RealDamageError(
                f"{target.name}: the copy is not equal to {source.name}: "
                f"{', '.join([*faults, *report.problems[:1]])}. Nothing was moved.",
                code="copy_differs",
            )
        return sum(counts.values())


def _counts(session: Session) -> dict[str, int]:
    return {
        table.name: session.scalar(select(func.count()).select_from(table)) or 0
        for table in _TABLES
    }


def _state(session: Session) -> tuple[dict[str, int], str]:
    """How many rows there are, and the head of the log."""
    return _counts(session), follow_chain(log_lines(session), "").head
