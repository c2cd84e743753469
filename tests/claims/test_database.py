"""The database of claims: its tables in every version, and what PostgreSQL adds."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from realdamage.claims import migrate
from realdamage.claims.database import BANDS, Base, Database, Event
from realdamage.claims.index import ClaimIndex, Fingerprint
from realdamage.core.fingerprint import PhotoHash
from realdamage.errors import RealDamageError, UsageError

pytestmark = pytest.mark.filterwarnings(
    "ignore:Skipped unsupported reflection", "ignore:autogenerate skipping"
)
MIGRATIONS = Path(migrate.__file__).with_name("migrations")
OLD = Path(__file__).with_name("store_version_2.sql")


@pytest.fixture
def opened(tmp_path, database_url):
    """`opened()`: the database, its tables made."""

    def open_it():
        database = Database(database_url or tmp_path / "claims.sqlite")
        with database.reading():
            return database

    return open_it


def log_something(database, name="tried"):
    with database.transaction() as session:
        database.record(session, {"event": name})


@pytest.mark.databases
def test_the_revisions_together_make_the_tables_of_the_models(opened):
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == migrate.HEAD
    with opened()._engine.connect() as connection:
        found = MigrationContext.configure(connection, opts={"version_table": migrate.TABLE})
        assert found.get_current_revision() == migrate.HEAD
        assert compare_metadata(found, Base.metadata) == []
        if connection.dialect.name == "sqlite":  # Alembic does not see its indexes of expressions
            query = "SELECT name, sql FROM sqlite_master WHERE name LIKE 'photos_band%'"
            indexes = dict(tuple(row) for row in connection.execute(text(query)))
            assert len(indexes) == len(BANDS)
            for start, length, _ in BANDS:
                assert f"substr(fine, {start}, {length})" in indexes[f"photos_band_{start}"]


def test_a_store_from_before_the_revisions_is_brought_up_to_date(tmp_path):
    path = tmp_path / "claims.sqlite"
    with sqlite3.connect(path) as old:
        old.executescript(OLD.read_text())
    database = Database(path)
    report = database.verify()
    assert (report.problems, len(report.entries)) == ((), 1)
    seen = PhotoHash(np.uint64(5), np.arange(4, dtype=np.uint64), np.ones(768, np.float32))
    found = ClaimIndex(database).find_fingerprint(Fingerprint("ab" * 32, seen, seen))
    assert [one.claim_id for one in found] == ["A"]
    log_something(database)
    assert len(database.verify().entries) == 2
    with database._engine.connect() as connection:
        migrated = MigrationContext.configure(connection, opts={"version_table": migrate.TABLE})
        assert compare_metadata(migrated, Base.metadata) == []


@pytest.mark.databases
def test_tables_of_a_newer_version_are_left_alone(opened):
    database = opened()
    log_something(database)
    with database.transaction() as session:
        session.execute(text(f"UPDATE {migrate.TABLE} SET version_num = '9999'"))
    database.close()
    with pytest.raises(RealDamageError) as caught:
        opened()
    assert caught.value.code == "newer_database"
    with database.reading() as session:
        assert session.query(Event).count() == 1


@pytest.mark.slow
def test_tables_that_another_program_made_are_left_alone(postgres):
    url = postgres.new_url()
    with create_engine(url).begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER)"))
    log_something(Database(url))  # tables of other names do not matter
    url = postgres.new_url()
    with create_engine(url).begin() as connection:
        connection.execute(text("CREATE TABLE events (id INTEGER)"))
    with pytest.raises(RealDamageError) as caught:
        log_something(Database(url))
    assert caught.value.code == "not_an_index"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("claims", "database_url"),
        ("mysql://user:hunter2@host/claims", "database_url"),
        ("postgresql://me:hunter2@127.0.0.1:1/claims", "database_unusable"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_its_password(url, code):
    with pytest.raises(RealDamageError) as caught:
        log_something(Database(url))
    assert caught.value.code == code
    assert "hunter2" not in str(caught.value)


@pytest.mark.slow
def test_a_machine_that_vanished_while_it_wrote_stops_no_other(postgres, monkeypatch):
    """Its server notices after 2/3 of the time that others wait for their turn."""
    monkeypatch.setattr("realdamage.claims.database._WAIT_S", 3.0)
    url = postgres.new_url()
    vanished, other = Database(url), Database(url)
    with other.reading():
        pass

    def write_slowly():
        with vanished.transaction() as session:
            vanished.record(session, {"event": "lost"})
            log_something(other)

    with pytest.raises(RealDamageError) as caught:
        write_slowly()
    assert caught.value.code == "database_unusable"
    assert [one["event"] for one in other.verify().entries] == ["tried"]


@pytest.mark.databases
def test_a_store_is_never_opened_with_another_database(tmp_path, database_url):
    made = "claims.elsewhere" if database_url else "claims.sqlite"
    other = "" if database_url else "postgresql://127.0.0.1:1/claims"
    (tmp_path / made).touch()
    Database.of_store(tmp_path, database_url)
    with pytest.raises(UsageError) as caught:
        Database.of_store(tmp_path, other)
    assert caught.value.code == "other_database"
