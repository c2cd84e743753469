"""The folder of kept claims: whose it is, what two processes do in it at once, and what killed
ones leave."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import multiprocessing
import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from realdamage.claims import Claim, ClaimIndex, EvidenceLog, evidence, judge_claim, verify_evidence
from realdamage.claims import log as log_module
from realdamage.claims.index import Fingerprint, take_fingerprint
from realdamage.core.detector import Detector
from realdamage.errors import RealDamageError, UsageError
from realdamage.service import app as app_module
from realdamage.service.app import create_app
from realdamage.service.reviews import Review, ReviewStore
from realdamage.service.schemas import Refusal
from realdamage.service.settings import Settings
from realdamage.service.store import CLOCK_GAP_DAYS, LEAST_FREE_BYTES, ClaimStore, Purged, purge

Serve = Callable[..., TestClient]
Encode = Callable[..., bytes]
Files = list[tuple[str, bytes]]
Wait = Callable[[Callable[[], object]], None]
LONG_AGO = time.time() - 40 * 86400
DIED = 9


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ClaimStore]:
    found = ClaimStore(tmp_path, 30)
    ReviewStore(tmp_path / "reviews.sqlite").close()  # without it the folder is not taken for ours
    yield found
    found.close()


def kept(store: ClaimStore, claim_id: str, when: float | None = None) -> Path:
    """A claim as it lies there, without the judging; when: its age."""
    claim = store.claims / claim_id
    with store.new(claim_id):
        claim.mkdir()
        for name in ("evidence.html", "evidence.json", "log.jsonl"):
            (claim / name).write_text("{}")
    if when is not None:
        os.utime(claim / "evidence.json", (when, when))
    return claim


def no_reviews(claim_id: str) -> int:
    return 0


def names(store: ClaimStore) -> list[str]:
    return sorted(path.name for path in store.claims.iterdir())


def events(store: ClaimStore) -> list[str]:
    log = store.log
    return [entry["event"] for entry in log.verify().entries] if log.path.exists() else []


def post(client: TestClient, photo: bytes, claim_id: str) -> Any:
    fields = {"keep": "true", "claim_id": claim_id}
    return client.post("/v1/claims", files=[("photos", ("a.jpg", photo))], data=fields)


def refusal(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


# Whose folder it is, and who works in it


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
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


def test_a_store_is_known_again_and_a_new_disk_is_taken(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".hidden").touch()
    for claim_id in ("A", "B"):
        store, reviews = ClaimStore(tmp_path, 30), ReviewStore(tmp_path / "reviews.sqlite")
        kept(store, claim_id)
        store.close()
        reviews.close()


@pytest.mark.parametrize(
    "claim_id", ["..", ".", "a/b", "", "-", "x" * 65, "a\0", "log.jsonl/..", "ä"]
)
def test_an_id_is_never_a_way_out_of_the_store(claim_id: str, tmp_path: Path) -> None:
    (tmp_path / "evidence.json").write_text("secret")
    store = ClaimStore(tmp_path / "store", 30)
    for call, argument in ((store.read, "evidence.json"), (store.delete, no_reviews)):
        with pytest.raises(Refusal) as refused:
            call(claim_id, argument)
        assert refused.value.code == "not_found"
    assert (tmp_path / "evidence.json").read_text() == "secret"
    store.close()


def test_an_id_is_taken_for_other_processes_too_and_free_after_a_failure(
    tmp_path: Path, store: ClaimStore
) -> None:
    other = ClaimStore(tmp_path, 30)

    def judged_elsewhere() -> None:
        for act in (other.new("A"), other.reserved("A")):
            with pytest.raises(Refusal) as refused, act:
                pass
            assert (refused.value.status_code, refused.value.code) == (409, "claim_under_way")
        with pytest.raises(Refusal) as refused:
            other.delete("A", no_reviews)
        assert refused.value.code == "claim_under_way"
        with pytest.raises(Refusal) as refused:
            other.read("A", "evidence.json")
        assert refused.value.code == "not_found"
        raise RealDamageError("no room")

    with pytest.raises(RealDamageError, match="no room"), store.new("A"):
        judged_elsewhere()
    kept(other, "A")
    with pytest.raises(Refusal) as refused, store.new("A"):
        pass
    assert refused.value.code == "claim_exists"
    assert store.read("A", "evidence.json") == b"{}"
    other.close()


def _open_and_add(folder: Path, number: int) -> None:
    reviews, store = ReviewStore(folder / "reviews.sqlite"), ClaimStore(folder, 30)
    for step in range(5):
        kept(store, f"p{number}-{step}")
    store.close()
    reviews.close()


def test_processes_that_open_a_new_store_at_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_open_and_add, args=(tmp_path / "s", n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list((tmp_path / "s" / "claims").iterdir())) == 15


# A full or damaged disk


def fill(monkeypatch: pytest.MonkeyPatch, while_there_is: Path) -> None:
    """The disk is full until this folder is removed: no file can be made, and SQLite cannot
    write."""
    usage, opened = shutil.disk_usage, Path.open
    connect, delete = sqlite3.connect, ClaimIndex.delete

    def sqlite_check() -> None:
        if while_there_is.exists():
            raise RealDamageError("database or disk is full")

    def open_path(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode != "rb" and while_there_is.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, mode, *rest, **options)

    def free(path: Any) -> Any:
        return usage(path)._replace(free=LEAST_FREE_BYTES - 1)

    monkeypatch.setattr(shutil, "disk_usage", free)
    monkeypatch.setattr(Path, "open", open_path)
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **b: (sqlite_check(), connect(*a, **b))[1])
    monkeypatch.setattr(ClaimIndex, "delete", lambda *a: (sqlite_check(), delete(*a))[1])


def test_a_file_that_cannot_be_made_is_an_error_with_its_place(
    store: ClaimStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, mode: str = "") -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(RealDamageError, match=r"claims/\.A\.lock") as caught, store.new("A"):
        pass
    assert caught.value.code == "store_not_writable"


def test_a_full_disk_refuses_new_claims_and_lets_old_ones_be_deleted(
    serve: Serve, encode: Encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    client = serve(store=folder)
    for claim_id in ("A", "B"):
        assert post(client, encode(), claim_id).status_code == 200
    assert client.get("/readyz").status_code == 200

    fill(monkeypatch, while_there_is=folder / "claims" / "A")
    assert refusal(client.get("/readyz")) == (503, "store_full")
    figure = re.search(r"(?m)^realdamage_store_free_bytes (\S+)$", client.get("/metrics").text)
    assert figure is not None
    assert float(figure[1]) == LEAST_FREE_BYTES - 1
    assert refusal(post(client, encode(seed=1), "C")) == (503, "store_full")
    assert (folder / "claims" / "A").exists(), "nothing was written, or it would have failed"
    assert client.delete("/v1/claims/A").json() == {"deleted": "A"}
    assert client.get("/v1/claims/A").status_code == 404
    with ClaimIndex.open(folder / "claims.sqlite") as index:
        assert len(index) == 1
    entry = EvidenceLog(folder / "log.jsonl").verify().entries[-1]
    assert (entry["event"], entry["payload"]["claim_id"]) == ("claim_deleted", "A")


def test_a_service_starts_on_a_full_disk_and_its_retention_makes_room(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Wait
) -> None:
    settings = Settings(model=model_file, threads=1, store=tmp_path)
    with TestClient(create_app(settings)):
        store = ClaimStore(tmp_path, 30)
        claim = kept(store, "A", LONG_AGO)
        store.close()
    fill(monkeypatch, while_there_is=claim)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        assert refusal(client.get("/readyz")) == (503, "store_full")
        wait_until(lambda: not list(claim.parent.iterdir()))


def test_a_torn_log_makes_the_store_unready_until_a_restart_mends_it(
    serve: Serve, encode: Encode, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    client = serve(store=tmp_path)
    for claim_id in ("A", "B"):
        assert post(client, encode(), claim_id).status_code == 200
    log.write_bytes(log.read_bytes()[:-40])
    not_ready = client.get("/readyz")
    assert refusal(not_ready) == (503, "store_fails")
    assert str(tmp_path) not in not_ready.text
    client = serve(store=tmp_path)
    assert client.get("/readyz").json() == {"status": "ready"}
    assert post(client, encode(), "C").status_code == 200
    assert client.delete("/v1/claims/A").status_code == 200
    report = EvidenceLog(log).verify()
    assert report.problems == ()
    found = [entry["event"] for entry in report.entries]
    assert found == ["evidence_written", "recovered", "evidence_written", "claim_deleted"]
    log.write_bytes(log.read_bytes().replace(b'"by":""', b'"by":"x"'))
    assert refusal(serve(store=tmp_path).get("/readyz")) == (503, "store_fails")


# Retention


def test_what_killed_processes_left_is_purged_and_nothing_else(store: ClaimStore) -> None:
    claims = store.claims
    half_written, half_removed, begun = claims / ".A.0a1b2c3d.tmp", claims / "B", claims / "C"
    for folder in (half_written, half_removed, begun, claims / ".snapshot", claims / "notes"):
        folder.mkdir()
    for folder in (half_written, half_removed):
        (folder / "evidence.html").touch()
    (claims / "notes" / "mine.txt").touch()
    with store.new("D"):
        (claims / ".D.0a1b2c3d.tmp").mkdir()
        assert purge(store) == Purged((), ())
        assert names(store) == [".D.0a1b2c3d.tmp", ".D.lock", ".snapshot", "notes"]
    assert purge(store) == Purged((), ())
    with pytest.raises(Refusal) as refused, store.new("notes"):
        pass
    assert refused.value.code == "claim_exists"
    with pytest.raises(Refusal) as refused:
        store.delete("notes", no_reviews)
    assert refused.value.code == "not_found"
    assert names(store) == [".snapshot", "notes"]
    assert (claims / "notes" / "mine.txt").exists()


def test_old_claims_are_purged(serve: Serve, encode: Encode, tmp_path: Path) -> None:
    folder, photo = tmp_path / "store", encode(size=(640, 480))
    client = serve(store=folder, retention_days=7)
    for name, days in (("old", 8), ("young", 6)):
        post(client, photo, name)
        then = time.time() - 86400 * days
        os.utime(folder / "claims" / name / "evidence.json", (then, then))
    store = ClaimStore(folder, 7)
    assert [purge(store), purge(store)] == [Purged(("old",), ()), Purged((), ())]
    store.close()
    statuses = [client.get(f"/v1/claims/{name}").status_code for name in ("old", "young")]
    assert statuses == [404, 200]
    duplicates = post(client, photo, "new").json()["photos"][0]["duplicates"]
    assert [seen["claim_id"] for seen in duplicates] == ["young"]


def test_a_claim_that_cannot_be_removed_keeps_no_other_from_being_so(
    store: ClaimStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for claim_id in ("A", "B"):
        kept(store, claim_id, LONG_AGO)
    remove = shutil.rmtree

    def stuck(path: Path) -> None:
        if path.name == "A":
            raise PermissionError(13, "Permission denied")
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stuck)
        gone = purge(store)
    assert gone.claims == ("B",)
    (problem,) = gone.problems
    assert "claims/A" in problem
    assert "Permission denied" in problem
    purge(store)
    assert names(store) == []


Shelf = tuple[ClaimStore, Callable[[float], None]]


@pytest.fixture
def shelf(store: ClaimStore, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A store with 23 claims that were kept and logged now, and a way to set the clock: in days
    from now."""
    for number in range(23):
        kept(store, f"c-{number:02}")
        store.record({"event": "evidence_written", "claim_id": f"c-{number:02}"})
    now = time.time()

    def set_clock(days: float) -> None:
        moved = datetime.fromtimestamp(now + 86400 * days, UTC)
        fixed = type("", (datetime,), {"now": lambda *_: moved})
        monkeypatch.setattr(time, "time", moved.timestamp)
        monkeypatch.setattr(log_module.dt, "datetime", fixed)

    return store, set_clock


def test_a_start_31_days_ahead_removes_nothing_until_the_clock_is_confirmed(shelf: Shelf) -> None:
    store, set_clock = shelf
    set_clock(31)
    for _ in range(2):
        done = purge(store)
        assert (done.claims, done.clock_in_doubt) == ((), True)
        (problem,) = done.problems
        assert "23 of 23 claims" in problem
        assert "--clock-confirmed" in problem
        # A log that goes on does not make the clock right.
        store.record({"event": "evidence_written", "claim_id": "new"})
    set_clock(0.1)
    assert purge(store) == Purged((), ()), "the clock was set right"
    set_clock(31)
    done = purge(store, clock_confirmed=True)
    assert (len(done.claims), done.problems, done.clock_in_doubt) == (23, (), False)
    assert "clock_confirmed" in events(store)


def test_a_confirmation_counts_for_the_next_starts_too(shelf: Shelf) -> None:
    store, set_clock = shelf
    set_clock(10)
    for confirmed, in_doubt in ((False, True), (True, False), (False, False)):
        assert purge(store, clock_confirmed=confirmed).clock_in_doubt == in_doubt
    assert events(store)[23:] == ["retention_checked", "clock_confirmed"]


def test_an_idle_service_logs_once_a_day_so_that_its_clock_is_not_in_doubt(shelf: Shelf) -> None:
    store, set_clock = shelf
    for hours in range(0, 24 * 30, 6):
        set_clock(hours / 24)
        assert purge(store) == Purged((), ())
    assert 22 <= events(store).count("retention_checked") <= 29
    set_clock(30.1)
    assert len(purge(store).claims) == 5


@pytest.mark.parametrize(("more", "in_doubt"), [(-0.1, False), (0.1, True)])
def test_how_long_the_log_may_be_silent(shelf: Shelf, more: float, in_doubt: bool) -> None:
    store, set_clock = shelf
    set_clock(CLOCK_GAP_DAYS + more)
    done = purge(store)
    assert (done.claims, len(done.problems), done.clock_in_doubt) == ((), in_doubt, in_doubt)


def test_a_purge_removes_a_quarter_at_most_the_oldest_first(shelf: Shelf) -> None:
    store, _ = shelf
    for number in range(20):
        path = store.claims / f"c-{number:02}" / "evidence.json"
        os.utime(path, (LONG_AGO + number, LONG_AGO + number))
    removed: list[str] = []
    for left in (23, 18, 14, 11, 9, 7, 6, 5, 4):
        done = purge(store)
        removed += done.claims
        assert (done.problems, len(done.claims)) == ((), left // 4)
        assert done.waiting == 20 - len(removed)
    assert removed == [f"c-{number:02}" for number in range(20)]
    assert purge(store) == Purged((), ())


def test_decisions_are_purged_only_after_a_given_number_of_days_and_by_a_sure_clock(
    model_file: Path, shelf: Shelf, caplog: pytest.LogCaptureFixture, wait_until: Wait
) -> None:
    store, set_clock = shelf
    path = store.folder / "reviews.sqlite"
    reviews = ReviewStore(path)
    reviews.add(Review(photo_sha256="1" * 64, decision="real"))
    with sqlite3.connect(path) as database:
        old = datetime.fromtimestamp(LONG_AGO, UTC).isoformat()
        database.execute("UPDATE reviews SET decided_at = ?", [old])
    # Days, whether the clock is confirmed, days it is ahead; decisions and claims that are left.
    steps: list[tuple[int | None, bool, float, int, int]] = [
        (None, False, 0, 1, 23),
        (50, False, 0, 1, 23),
        (30, False, 31, 1, 23),
        (30, True, 31, 0, 0),
    ]
    for days, confirmed, ahead, decisions, claims in steps:
        set_clock(ahead)
        settings = Settings(
            model=model_file,
            threads=1,
            store=store.folder,
            review_days=days,
            clock_confirmed=confirmed,
        )
        caplog.clear()
        with caplog.at_level(logging.INFO, "realdamage.service"), TestClient(create_app(settings)):
            wait_until(lambda: any(record.message == "purged" for record in caplog.records))
        assert (len(reviews.history()), len(names(store))) == (decisions, claims)
    reviews.close()


def test_the_clock_is_confirmed_for_one_pass_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps months after the operator looked at it is in doubt again."""
    confirmed: list[bool] = []

    def purge_once(store: object, *, clock_confirmed: bool) -> Purged:
        confirmed.append(clock_confirmed)
        return Purged((), ())

    async def three_passes() -> None:
        settings = SimpleNamespace(review_days=None, clock_confirmed=True)
        service: Any = SimpleNamespace(settings=settings)
        task = asyncio.create_task(app_module.purge_regularly(service, service))
        while len(confirmed) < 3:
            await asyncio.sleep(0.01)
        task.cancel()

    monkeypatch.setattr(app_module, "purge", purge_once)
    monkeypatch.setattr(app_module, "_PURGE_EVERY_S", 0)
    asyncio.run(three_passes())
    assert confirmed[:3] == [True, False, False]


# A process that dies while it keeps or deletes a claim


@pytest.fixture(scope="module")
def photos(encode: Encode) -> Files:
    return [("a.jpg", encode(size=(320, 240)))]


@pytest.fixture(scope="module")
def claim(model_file: Path, photos: Files) -> Claim:
    return judge_claim(photos, detector=Detector.load(model_file, threads=1), claim_id="A")


@pytest.fixture(scope="module")
def fingerprint(claim: Claim) -> Fingerprint:
    rgb = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    return take_fingerprint(rgb, claim.photos[0].sha256)


def die(*_: Any, **__: Any) -> None:
    os._exit(DIED)


def after(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **options: (call(*arguments, **options), die())[0]


def never(store: ClaimStore) -> None:
    pass


def as_begun(store: ClaimStore) -> None:
    store.index.add_fingerprints = die  # type: ignore[method-assign]


def when_indexed(store: ClaimStore) -> None:
    store.index.add_fingerprints = after(store.index.add_fingerprints)  # type: ignore[method-assign]


def half_written(store: ClaimStore) -> None:
    evidence._write = after(evidence._write)


def when_written(store: ClaimStore) -> None:
    Path.rename = die  # type: ignore[assignment, method-assign]


def when_moved(store: ClaimStore) -> None:
    store.log.append = die  # type: ignore[assignment, method-assign]


def when_logged(store: ClaimStore) -> None:
    store.log.append = after(store.log.append)  # type: ignore[method-assign]


def when_half_removed(store: ClaimStore) -> None:
    shutil.rmtree = die  # type: ignore[assignment]


def when_removed(store: ClaimStore) -> None:
    shutil.rmtree = after(shutil.rmtree)  # type: ignore[assignment]


def when_forgotten(store: ClaimStore) -> None:
    ClaimIndex.delete = after(ClaimIndex.delete)  # type: ignore[method-assign]


Arm = Callable[[ClaimStore], None]


@pytest.fixture
def keep(
    tmp_path: Path, claim: Claim, photos: Files, fingerprint: Fingerprint
) -> Callable[[Arm], None]:
    """`keep(arm)`: keep the claim in a store that was armed to kill its process."""

    def run(arm: Arm) -> None:
        store = ClaimStore(tmp_path, 30)
        arm(store)
        with store.new(claim.claim_id):
            store.index.add_fingerprints(claim.claim_id, [fingerprint])
            store.keep(claim, photos, [])
        store.close()

    return run


def run_and_die(target: Callable[..., None], *arguments: Any) -> None:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == DIED


def sightings(store: ClaimStore, fingerprint: Fingerprint) -> list[str]:
    return [one.claim_id for one in store.index.find_fingerprint(fingerprint, other_than="B")]


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("arm", [as_begun, when_indexed, half_written, when_written])
def test_a_claim_that_was_not_kept_leaves_no_trace_and_its_id_is_free(
    arm: Arm, again: bool, keep: Callable[[Arm], None], fingerprint: Fingerprint, store: ClaimStore
) -> None:
    run_and_die(keep, arm)
    with pytest.raises(Refusal) as refused:
        store.read("A", "evidence.json")
    assert refused.value.code == "not_found"
    assert sightings(store, fingerprint) == []
    if again:
        keep(never)
        assert sightings(store, fingerprint) == ["A"]
    assert purge(store) == Purged((), ())
    assert names(store) == ["A"] * again
    assert events(store) == ["evidence_written"] * again
    assert len(store.index) == again


@pytest.mark.parametrize("arm", [when_moved, when_logged])
def test_a_claim_that_was_kept_is_whole_and_logged_once(
    arm: Arm, keep: Callable[[Arm], None], fingerprint: Fingerprint, store: ClaimStore
) -> None:
    run_and_die(keep, arm)
    assert json.loads(store.read("A", "evidence.json"))["claim_id"] == "A"
    assert sightings(store, fingerprint) == ["A"]
    with pytest.raises(Refusal) as refused, store.new("A"):
        pass
    assert refused.value.code == "claim_exists"
    for _ in range(2):
        assert purge(store) == Purged((), ())
        assert (names(store), events(store)) == (["A"], ["evidence_written"])
    assert verify_evidence(store.claims / "A", log=store.log.path).problems == ()


@pytest.mark.parametrize("arm", [when_half_removed, when_removed, when_forgotten, when_moved])
def test_a_deletion_that_was_begun_is_completed_and_logged(
    arm: Arm,
    keep: Callable[[Arm], None],
    fingerprint: Fingerprint,
    tmp_path: Path,
    store: ClaimStore,
) -> None:
    def remove() -> None:
        other = ClaimStore(tmp_path, 30)
        arm(other)
        other.delete("A", no_reviews)

    keep(never)
    run_and_die(remove)
    with pytest.raises(Refusal) as refused:
        store.read("A", "evidence.json")
    assert refused.value.code == "not_found"
    assert sightings(store, fingerprint) == []
    for _ in range(2):
        assert purge(store) == Purged((), ())
        assert (names(store), len(store.index)) == ([], 0)
        assert events(store) == ["evidence_written", "claim_deleted"]


@pytest.mark.parametrize("fails", [False, True])
def test_of_two_claims_with_one_photo_at_once_the_second_waits_for_the_first(
    fails: bool, fingerprint: Fingerprint, store: ClaimStore
) -> None:
    asks = threading.Event()
    under_way = store._is_under_way
    store._is_under_way = lambda claim_id: (asks.set(), under_way(claim_id))[1]  # type: ignore[method-assign]

    def second() -> list[str]:
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
                (store.claims / "A" / "evidence.json").touch()
        except RealDamageError:
            assert fails
        assert running.result(10) == ([] if fails else ["A"])
