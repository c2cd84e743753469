"""Brings the tables of a database to this version's, one revision after the other, with Alembic.

A revision is a file in migrations/versions, named by its number. To change the tables: change
`claims.database`, add a file with the next number and set HEAD; a test compares the two.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from realdamage.errors import RealDamageError

HEAD = "0003"
"""The newest revision that this version knows."""
TABLE = "realdamage_revision"
_FOLDER = Path(__file__).with_name("migrations")
_APPLICATION = 0x7264_6D67  # "rdmg", in the file's header: other programs' databases are left alone
_BEFORE_ALEMBIC = 2  # user_version of SQLite files that have the tables of the first revision
_VERSION = 3
_alembic = threading.Lock()  # its context is one for the whole process


def bring_up_to_date(connection: Connection, name: str, tables: Collection[str]) -> None:
    """Make or change the tables in this transaction. name: of the database. tables: their names.

    Raises RealDamageError for another program's database (not_an_index), or one of a newer version
    (newer_database).
    """
    found = _revision(connection, name, tables)
    if found == HEAD:
        return
    known = [path.name[: len(HEAD)] for path in (_FOLDER / "versions").glob("*.py")]
    if found and found not in known:
        raise RealDamageError(
            f"{name}: its tables have the revision {found!r}, and this version knows {HEAD} at "
            "most. Use the version of realdamage that made them, or a newer one.",
            code="newer_database",
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _alembic:
        if found and TABLE not in inspect(connection).get_table_names():
            command.stamp(config, found)
        command.upgrade(config, HEAD)


def _revision(connection: Connection, name: str, tables: Collection[str]) -> str:
    """The revision of the tables, "" in an empty database."""
    there = set(inspect(connection).get_table_names())
    if connection.dialect.name == "sqlite":
        found = _check_file(connection, name)
        if found:
            return found
    elif TABLE not in there and there & set(tables):
        mine = min(there & set(tables))
        raise _foreign(name, f"a table {mine!r} that realdamage did not make")
    if TABLE not in there:
        return ""
    return str(connection.scalar(text(f"SELECT version_num FROM {TABLE}")) or "unknown")


def _check_file(connection: Connection, name: str) -> str:
    """Mark a new SQLite file as ours. Returns the revision of a file from before Alembic."""

    def value(sql: str) -> int:
        return int(connection.exec_driver_sql(sql).scalar() or 0)

    application, version = value("PRAGMA application_id"), value("PRAGMA user_version")
    is_new = value("SELECT count(*) FROM sqlite_master") == 0
    if not is_new and (application, version) not in (
        (_APPLICATION, _BEFORE_ALEMBIC),
        (_APPLICATION, _VERSION),
    ):
        raise _foreign(name, f"application {application:#x}, version {version}")
    if is_new or version == _BEFORE_ALEMBIC:
        connection.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION}")
        connection.exec_driver_sql(f"PRAGMA user_version = {_VERSION}")
    return "0001" if version == _BEFORE_ALEMBIC and not is_new else ""


def _foreign(name: str, found: str) -> RealDamageError:
    return RealDamageError(
        f"{name}: not a database of claims of this version (it has {found}); name a new one",
        code="not_an_index",
    )
