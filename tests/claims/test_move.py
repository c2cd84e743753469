"""A store's tables move from SQLite to PostgreSQL: all of them, once, also after a kill."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from realdamage.claims import move
from realdamage.claims.database import (
    ELSEWHERE,
    FILE_NAME,
    Base,
    Case,
    Database,
    Delivery,
    Photo,
    Review,
    Setting,
)
from realdamage.claims.log import locked
from realdamage.errors import RealDamageError, UsageError

pytestmark = pytest.mark.slow


def review(claim_id: str) -> Review:
    names = ("photo_sha256", "decision", "damage", "file_name", "note", "reviewer", "key_name")
    texts = dict.fromkeys((*names, "model_version", "decided_at"), "x")
    return Review(claim_id=claim_id, outcome=None, score=0.5, **texts)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with rows in some tables, and a tenant's; tests must not change it."""
    folder = tmp_path_factory.mktemp("move") / "store"
    for home, count in ((folder, 7), (folder / "tenants" / "north", 2)):
        home.mkdir(parents=True)
        database = Database(home / FILE_NAME)
        with database.transaction() as session:
            for number in range(count):
                claim_id = f"C-{number}"
                about = {"claim_id": claim_id, "number": 1, "seen": "2026", "coarse": -number}
                digests = {"sha256": bytes([number]) * 32, "fine": b"\0" * 32}
                session.add(Photo(**about, **digests, thumbnail=b"\xff" * 768))
                session.add(Case(claim_id=claim_id, state="open", created=1.5, updated=2.0))
                session.add(review(claim_id))
                delivery = {"url": "https://x", "event": "e", "body": "裂", "created": 0.1}
                session.add(Delivery(claim_id=claim_id, **delivery))
                database.record(session, {"event": "noted", "claim_id": claim_id})
            session.add(Setting(name="retention_checked", value=0.25))
        database.close()
    return folder


@pytest.fixture
def folder(store: Path, tmp_path: Path) -> Path:
    return shutil.copytree(store, tmp_path / "store")


def rows(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    with database.reading() as session:
        return {
            table.name: [tuple(row) for row in session.execute(select(table).order_by(*table.c))]
            for table in Base.metadata.sorted_tables
        }


def check_moved(folder: Path, url: str) -> None:
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
            session.add(review("new"))  # its number was not used before
            database.record(session, {"event": "later"})
        assert database.verify().problems == ()
    target.close()


def test_all_rows_are_moved_and_the_tables_go_on(
    folder: Path, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(move, "_CHUNK", 3)
    url = postgres.new_url()
    moved = move.move_store(folder, url)
    assert moved == {str(folder / "tenants" / "north"): 11, str(folder): 36}
    check_moved(folder, url)
    with pytest.raises(UsageError) as caught:
        move.move_store(folder, url)
    assert caught.value.code == "no_store"


@pytest.mark.parametrize(("where", "step"), [(move, "follow_chain"), (Path, "rename")])
def test_a_move_that_was_killed_is_repeated(
    folder: Path, postgres: Any, monkeypatch: pytest.MonkeyPatch, where: Any, step: str
) -> None:
    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    url = postgres.new_url()
    with monkeypatch.context() as patch:
        patch.setattr(where, step, die)
        with pytest.raises(KeyboardInterrupt):
            move.move_store(folder, url)
    assert (folder / FILE_NAME).exists()
    move.move_store(folder, url)
    check_moved(folder, url)


def test_a_target_with_other_rows_and_a_store_in_use_are_left_alone(
    folder: Path, postgres: Any
) -> None:
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


def test_a_copy_that_differs_is_undone(
    folder: Path, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, counted = postgres.new_url(), move._counts

    def one_less(session: Any) -> dict[str, int]:
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
