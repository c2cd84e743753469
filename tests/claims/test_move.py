"""A store's tables move from SQLite to PostgreSQL: all of them, once, also after a kill."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from realdamage.claims import move
from realdamage.claims.database import ELSEWHERE, FILE_NAME, Base, Database, Review
from realdamage.claims.log import locked
from realdamage.errors import RealDamageError, UsageError

pytestmark = pytest.mark.slow


TABLES = Base.metadata.sorted_tables
VALUES = {
    str: lambda number: f"裂 {number}",
    int: lambda number: number,
    float: lambda number: number / 4,
    bool: lambda number: number % 2 == 0,
    bytes: lambda number: bytes([number]) * 32,
}


def filled(table, number):
    """A row of the table."""
    return {one.name: VALUES[one.type.python_type](number) for one in table.columns}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with rows in all tables, and a tenant's; tests must not change it."""
    folder = tmp_path_factory.mktemp("move") / "store"
    for home, count in ((folder, 7), (folder / "tenants" / "north", 2)):
        home.mkdir(parents=True)
        database = Database(home / FILE_NAME)
        with database.transaction() as session:
            for number in range(1, count + 1):
                for table in TABLES:
                    if table.name != "events":
                        session.execute(insert(table).values(filled(table, number)))
                database.record(session, {"event": "noted", "claim_id": f"C-{number}"})
        database.close()
    return folder


@pytest.fixture
def folder(store, tmp_path):
    return shutil.copytree(store, tmp_path / "store")


def rows(database):
    with database.reading() as session:
        return {
            table.name: [tuple(row) for row in session.execute(select(table).order_by(*table.c))]
            for table in TABLES
        }


def check_moved(folder, url):
    target = Database.of_store(folder, url)
    for home, database in (
        (folder, target),
        (folder / "tenants" / "north", target.of_tenant("north")),
    ):
        assert not (home / FILE_NAME).exists()
        source = Database(home / move.MOVED)
        assert rows(database) == rows(source)
        source.close()
        assert database.verify().problems == ()
        with database.transaction() as session:
            values = filled(Base.metadata.tables["reviews"], 9)
            values.pop("id")  # the next one was not used before
            session.add(Review(**values))
            database.record(session, {"event": "later"})
        assert database.verify().problems == ()
    target.close()


def test_all_rows_are_moved_and_the_tables_go_on(folder, postgres, monkeypatch):
    monkeypatch.setattr(move, "_CHUNK", 3)
    url = postgres.new_url()
    moved = move.move_store(folder, url)
    tenant = str(folder / "tenants" / "north")
    assert moved == {tenant: 2 * len(TABLES), str(folder): 7 * len(TABLES)}
    check_moved(folder, url)
    with pytest.raises(UsageError) as caught:
        move.move_store(folder, url)
    assert caught.value.code == "no_store"


@pytest.mark.parametrize(("where", "step"), [(move, "follow_chain"), (Path, "rename")])
def test_a_move_that_was_killed_is_repeated(folder, postgres, monkeypatch, where, step):
    def die(*_):
        raise KeyboardInterrupt

    url = postgres.new_url()
    with monkeypatch.context() as patch:
        patch.setattr(where, step, die)
        with pytest.raises(KeyboardInterrupt):
            move.move_store(folder, url)
    assert (folder / FILE_NAME).exists()
    move.move_store(folder, url)
    check_moved(folder, url)


def test_a_target_with_other_rows_and_a_store_in_use_are_left_alone(folder, postgres):
    url = postgres.new_url()
    other = Database(url)
    with other.transaction() as session:
        other.record(session, {"event": "noted"})
    with pytest.raises(UsageError) as caught:
        move.move_store(folder, url)
    assert caught.value.code == "not_empty"
    assert sum(map(len, rows(other).values())) == 1
    other.close()
    (folder / "workers").mkdir()
    with (
        (folder / "workers" / "a").open("wb") as file,
        locked(file),
        pytest.raises(UsageError) as caught,
    ):
        move.move_store(folder, postgres.new_url())
    assert caught.value.code == "store_in_use"
    assert (folder / FILE_NAME).exists()
    assert not (folder / ELSEWHERE).exists()


def test_a_copy_that_differs_is_undone(folder, postgres, monkeypatch):
    url, counted = postgres.new_url(), move._counts

    def one_less(session):
        found = counted(session)
        is_copy = session.get_bind().dialect.name == "postgresql" and found["photos"]
        return found | {"photos": found["photos"] - 1} if is_copy else found

    monkeypatch.setattr(move, "_counts", one_less)
    with pytest.raises(RealDamageError) as caught:
        move.move_store(folder, url)
    assert caught.value.code == "copy_differs"
    target = Database(url)
    assert not any(rows(target.of_tenant("north")).values())
    assert not any(rows(target).values())
    target.close()
