"""The store of kept claims: whose folder it is, what two processes do in it at once, and what
killed ones leave."""

import multiprocessing
import os
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from fastapi.testclient import TestClient

from realdamage.claims import database as tables
from realdamage.claims import evidence, judge_claim
from realdamage.claims.database import Case, Database, Event, Review
from realdamage.claims.evidence import HTML_NAME, JSON_NAME, LOG_NAME
from realdamage.claims.index import take_fingerprint
from realdamage.core.detector import Detector
from realdamage.errors import RealDamageError, UsageError
from realdamage.service import store as store_module
from realdamage.service.app import create_app
from realdamage.service.schemas import Refusal
from realdamage.service.settings import Settings
from realdamage.service.store import LEAST_FREE_BYTES, ClaimStore, Purged, purge

DIED = 9


@pytest.fixture
def store(tmp_path, database_url):
    found = ClaimStore(tmp_path, 30, database=database_url)
    yield found
    found.close()


def kept(store, claim_id, days_ago=0):
    """A claim as it is stored, without the judging."""
    folder = store.claims / claim_id
    with store.new(claim_id):
        folder.mkdir()
        for name in (HTML_NAME, JSON_NAME, LOG_NAME):
            (folder / name).write_text("{}")
        with store.database.transaction() as session:
            case = session.get_one(Case, claim_id)
            case.state, case.updated = "open", time.time() - 86400 * days_ago
            store.database.record(session, {"event": "evidence_written", "claim_id": claim_id})
    return folder


def names(store):
    return sorted(path.name for path in store.claims.iterdir())


def events(store):
    with store.database.reading() as session:
        return [entry.event for entry in session.query(Event).order_by(Event.index)]


@contextmanager
def refuses(code):
    with pytest.raises(Refusal) as refused:
        yield
    assert refused.value.code == code


def refusal(response):
    return response.status_code, response.json()["error"]["code"]


# Whose folder it is, and who works in it


def test_a_folder_of_somebody_else_is_refused_and_a_new_disk_is_taken(tmp_path):
    (tmp_path / "photos" / "claims" / "R-1").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "photos"):
        with pytest.raises(UsageError) as caught:
            ClaimStore(folder, 30)
        assert caught.value.code == "not_a_store"
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    (tmp_path / "file").touch()
    with pytest.raises(RealDamageError) as failed:
        ClaimStore(tmp_path / "file" / "store", 30)
    assert failed.value.code == "store_not_writable"
    disk = tmp_path / "disk"
    (disk / "lost+found").mkdir(parents=True)
    for _ in range(2):
        ClaimStore(disk, 30).close()
    assert list((disk / "workers").iterdir()) == []


def test_an_id_is_never_a_way_out_of_the_store(store):
    (store.folder / "evidence.json").write_text("secret")
    for claim_id in ("..", "a/b", "", "a\0"):
        with refuses("not_found"):
            store.read(claim_id, JSON_NAME)
        with refuses("not_found"):
            store.delete(claim_id)
    kept(store, "A")
    with refuses("not_found"):
        store.read("A", "../../evidence.json")
    assert (store.folder / "evidence.json").read_text() == "secret"


@pytest.mark.databases
def test_an_id_is_taken_for_other_processes_too_and_free_after_a_failure(
    tmp_path, store, database_url
):
    other = ClaimStore(tmp_path, 30, database=database_url)

    def judged_elsewhere():
        with refuses("claim_under_way"), other.new("A"):
            pass
        with refuses("claim_under_way"):
            other.delete("A")
        with refuses("not_found"):
            other.read("A", JSON_NAME)
        assert purge(other) == Purged((), ())
        raise RealDamageError("no room")

    with pytest.raises(RealDamageError, match="no room"), store.new("A"):
        judged_elsewhere()
    kept(other, "A")
    with refuses("claim_exists"), store.new("A"):
        pass
    assert store.read("A", JSON_NAME) == b"{}"
    other.close()


def _open_and_add(folder, database, number):
    store = ClaimStore(folder, 30, database=database)
    for step in range(5):
        kept(store, f"p{number}-{step}")
    store.close()


@pytest.mark.databases
def test_processes_that_open_a_new_store_at_once(tmp_path, database_url):
    fork, folder = multiprocessing.get_context("fork"), tmp_path / "s"
    given = [(folder, database_url, number) for number in range(3)]
    processes = [fork.Process(target=_open_and_add, args=one) for one in given]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    report = Database.of_store(folder, database_url).verify()
    assert (report.problems, len(report.entries)) == ((), 15), "one chain, whoever writes"


# A full disk


def test_a_full_disk_refuses_new_claims_and_lets_old_ones_be_deleted(
    open_shop, tmp_path, monkeypatch
):
    folder, usage, shop = tmp_path / "store", shutil.disk_usage, open_shop()
    client = shop.client
    for claim_id in ("A", "B"):
        assert shop.claim(claim_id).status_code == 200
    assert client.get("/readyz").status_code == 200

    def nearly_full(path):
        return usage(path)._replace(free=LEAST_FREE_BYTES - 1)

    transaction = Database.transaction

    def without_room(database):
        if (folder / "claims" / "A").exists():
            raise RealDamageError("database or disk is full")
        return transaction(database)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    monkeypatch.setattr(Database, "transaction", without_room)
    assert refusal(client.get("/readyz")) == (503, "store_full")
    figure = re.search(r"(?m)^realdamage_store_free_bytes (\S+)$", client.get("/metrics").text)
    assert figure is not None
    assert float(figure[1]) == LEAST_FREE_BYTES - 1
    assert refusal(shop.claim("C", seed=1)) == (503, "store_full")
    assert client.delete("/v1/claims/A").json() == {"deleted": "A"}
    assert client.get("/v1/claims/A").status_code == 404
    entry = Database(folder / "claims.sqlite").verify().entries[-1]
    assert (entry["event"], entry["payload"]["claim_id"]) == ("claim_deleted", "A")


# Retention


def test_what_killed_processes_left_is_purged_and_nothing_else(store):
    claims = store.claims
    for name in (".A.0a1b2c3d.tmp", "B", "C", ".snapshot", "notes"):
        (claims / name).mkdir()
    for name in (".A.0a1b2c3d.tmp", "B"):
        (claims / name / HTML_NAME).touch()
    (claims / "notes" / "mine.txt").touch()
    with store.new("D"):
        (claims / ".D.0a1b2c3d.tmp").mkdir()
        assert purge(store) == Purged((), ())
        assert names(store) == [".D.0a1b2c3d.tmp", ".snapshot", "notes"]
    with refuses("claim_exists"), store.new("notes"):
        pass
    with refuses("not_found"):
        store.delete("notes")
    assert (claims / "notes" / "mine.txt").exists()


def test_old_claims_are_purged_though_one_of_them_cannot_be_removed(store, monkeypatch):
    for claim_id, days in (("A", 40), ("B", 31), ("C", 29)):
        kept(store, claim_id, days_ago=days)
    remove = shutil.rmtree

    def stuck(path, **options):
        if path.name == "A":
            raise PermissionError(13, "Permission denied")
        remove(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stuck)
        gone = purge(store)
    assert gone.claims == ("B",)
    (problem,) = gone.problems
    assert "claims/A" in problem
    purge(store)
    assert names(store) == ["C"]


def test_a_start_31_days_ahead_removes_nothing_until_the_clock_is_confirmed(store, monkeypatch):
    start = time.time()

    def set_clock(days):
        monkeypatch.setattr(tables, "now", lambda: start + 86400 * days)

    for number in range(3):
        kept(store, f"c-{number}")
    assert purge(store) == Purged((), ())
    set_clock(31)
    for number in range(2):
        done = purge(store)
        assert (done.claims, done.clock_in_doubt) == ((), True)
        (problem,) = done.problems
        assert "--clock-confirmed" in problem
        kept(store, f"new-{number}")  # a service that goes on does not make the clock right
    set_clock(0.1)
    assert purge(store) == Purged((), ()), "the clock was set right"
    set_clock(31)
    assert len(purge(store, clock_confirmed=True).claims) == 5
    assert "clock_confirmed" in events(store)


def test_decisions_are_purged_only_after_a_given_number_of_days(
    model_file, store, wait_until, caplog
):
    names = Review.__table__.columns.keys()
    about = dict.fromkeys(names, "") | {"id": 1, "score": None, "outcome": None}
    with store.database.transaction() as session:
        session.add(Review(**about | {"decided_at": "2020-01-01T00:00:00.000Z"}))
    for days, left in ((None, 1), (50, 0)):
        given = {"threads": 1, "store": store.folder, "review_days": days}
        caplog.clear()
        with (
            caplog.at_level("INFO", "realdamage.service"),
            TestClient(create_app(Settings(model=model_file, **given))),
        ):
            wait_until(lambda: any(record.message == "purged" for record in caplog.records))
        with store.database.reading() as session:
            assert session.query(Review).count() == left


# A process that dies while it keeps or deletes a claim


@pytest.fixture(scope="module")
def photos(encode):
    return [("a.jpg", encode(size=(320, 240)))]


@pytest.fixture(scope="module")
def claim(model_file, photos):
    return judge_claim(photos, detector=Detector.load(model_file, threads=1), claim_id="A")


@pytest.fixture(scope="module")
def fingerprint(claim):
    rgb = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    return take_fingerprint(rgb, claim.photos[0].sha256)


def die(*_, **__):
    os._exit(DIED)


def after(call):
    return lambda *arguments, **options: (call(*arguments, **options), die())[0]


def never(store):
    pass


def when_indexed(store):
    store.index.add_fingerprints = after(store.index.add_fingerprints)


def half_written(store):
    evidence._write = after(evidence._write)


def when_moved(store):
    store.database.record = die


def when_logged(store):
    store.database.record = after(store.database.record)


def when_half_removed(store):
    store_module.shutil.rmtree = die


@pytest.fixture
def keep(tmp_path, claim, photos, fingerprint, database_url):
    """`keep(arm)`: keep the claim in a store that was armed to kill its process."""

    def run(arm):
        store = ClaimStore(tmp_path, 30, database=database_url)
        arm(store)
        with store.new(claim.claim_id):
            store.index.add_fingerprints(claim.claim_id, [fingerprint])
            store.keep(claim, photos, [], {"recommendation": claim.recommendation})
        store.close()

    return run


def run_and_die(target, *arguments):
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == DIED


def sightings(store, fingerprint):
    return [one.claim_id for one in store.index.find_fingerprint(fingerprint, other_than="B")]


def check_is_gone(store, fingerprint):
    """For callers; a purge may still have something to remove."""
    with refuses("not_found"):
        store.read("A", JSON_NAME)
    assert sightings(store, fingerprint) == []


def what_is_left(store):
    """The folders and the photos of the index after two purges."""
    for _ in range(2):
        assert purge(store) == Purged((), ())
    return names(store), len(store.index)


@pytest.mark.databases
def test_a_claim_that_was_not_kept_leaves_no_trace_and_its_id_is_free(keep, fingerprint, store):
    arms = (when_indexed, half_written, when_moved, when_logged)
    for arm in arms:
        run_and_die(keep, arm)
        check_is_gone(store, fingerprint)
        assert what_is_left(store) == ([], 0)
        run_and_die(keep, arm)
        check_is_gone(store, fingerprint)
        keep(never)
        assert sightings(store, fingerprint) == ["A"]
        assert what_is_left(store) == (["A"], 1)
        store.delete("A")
    assert events(store) == ["evidence_written", "claim_deleted"] * len(arms)


@pytest.mark.databases
def test_a_deletion_that_was_begun_is_completed_and_logged(
    keep, fingerprint, tmp_path, store, database_url
):
    def remove(arm):
        other = ClaimStore(tmp_path, 30, database=database_url)
        arm(other)
        other.delete("A")

    arms = (when_half_removed, when_moved, when_logged)
    for arm in arms:
        keep(never)
        run_and_die(remove, arm)
        check_is_gone(store, fingerprint)
        assert what_is_left(store) == ([], 0)
    assert events(store) == ["evidence_written", "claim_deleted"] * len(arms)


@pytest.mark.databases
@pytest.mark.parametrize("fails", [False, True])
def test_of_two_claims_with_one_photo_at_once_the_second_waits_for_the_first(
    fails, fingerprint, store
):
    asks = threading.Event()
    under_way = store._is_under_way
    store._is_under_way = lambda claim_id: (asks.set(), under_way(claim_id))[1]

    def second():
        with store.new("B"):
            store.index.add_fingerprints("B", [fingerprint])
            return sightings(store, fingerprint)

    with ThreadPoolExecutor(1) as pool:
        try:
            with store.new("A"):
                store.index.add_fingerprints("A", [fingerprint])
                running = pool.submit(second)
                assert asks.wait(10)
                found = store.index.find_fingerprint(fingerprint, other_than="A")
                assert found == (), "B came later"
                assert not running.done()
                if fails:
                    raise RealDamageError("no room")
                (store.claims / "A").mkdir()
                (store.claims / "A" / JSON_NAME).touch()
                with store.database.transaction() as session:
                    session.get_one(Case, "A").state = "open"
        except RealDamageError:
            assert fails
        assert running.result(10) == ([] if fails else ["A"])


# PostgreSQL


@pytest.mark.slow
def test_a_claim_whose_database_was_away_is_interrupted_and_its_id_is_free(
    tmp_path, postgres, claim, photos
):
    url = postgres.new_url()
    first, second = (ClaimStore(tmp_path, 30, database=url) for _ in range(2))
    about = {"recommendation": claim.recommendation}

    def taken_over():
        postgres.stop()
        with refuses("store_fails"):
            second.check()
        postgres.start()
        second.check()
        assert not second.workers.lives(first.workers.own), "its lock ended with the connection"
        with second.new("A"):
            second.keep(claim, photos, [], about)
        first.keep(claim, photos, [], about)

    with refuses("interrupted"), first.new("A"):
        taken_over()
    assert second.read("A", JSON_NAME)
    first.check()
    assert second.workers.lives(first.workers.own), "it has taken its lock again"
    assert events(first) == ["evidence_written"]
    first.close()
    assert not second.workers.lives(first.workers.own)
    second.close()
