"""The folder of kept claims: whose it is, what two processes do in it at once, and what killed ones leave."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from realdamage.claims import ClaimIndex, EvidenceLog
from realdamage.claims import log as log_module
from realdamage.errors import RealDamageError, UsageError
from realdamage.service.app import create_app
from realdamage.service.refusals import Refusal
from realdamage.service.retention import CLOCK_GAP_DAYS, Purged, purge
from realdamage.service.review_store import Review, ReviewStore
from realdamage.service.settings import Settings
from realdamage.service.storage import LEAST_FREE_BYTES, ClaimStore, prepare_store

Serve = Callable[..., TestClient]
Encode = Callable[..., bytes]
LONG_AGO = time.time() - 40 * 86400


def aged(path: Path, when: float = LONG_AGO) -> Path:
    os.utime(path, (when, when))
    return path


def kept(store: ClaimStore, folder: Path, claim_id: str) -> Path:
    """A claim as it lies there, without the judging."""
    claim = folder / "claims" / claim_id
    with store.new(claim_id):
        claim.mkdir()
        for name in ("evidence.html", "evidence.json", "log.jsonl"):
            (claim / name).write_text("{}")
    return claim


def post(client: TestClient, photo: bytes, **fields: str) -> Any:
    return client.post(
        "/v1/claims", files=[("photos", ("a.jpg", photo))], data={"keep": "true", **fields}
    )


def figure(client: TestClient, name: str) -> float:
    (line,) = (
        line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name} ")
    )
    return float(line.split()[1])


def fill(monkeypatch: pytest.MonkeyPatch, while_there_is: Path) -> Callable[[], bool]:
    """The disk is full until this folder is removed: no file can be made, and SQLite cannot write."""
    usage, opened, connect, delete = (
        shutil.disk_usage,
        Path.open,
        sqlite3.connect,
        ClaimIndex.delete,
    )

    def check() -> None:
        if while_there_is.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sqlite_check() -> None:
        if while_there_is.exists():
            raise RealDamageError("database or disk is full")

    def open_path(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode != "rb":
            check()
        return opened(path, mode, *rest, **options)

    def free(path: Any) -> Any:
        return usage(path)._replace(free=LEAST_FREE_BYTES - 1)

    monkeypatch.setattr(shutil, "disk_usage", free)
    monkeypatch.setattr(Path, "open", open_path)
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **b: (sqlite_check(), connect(*a, **b))[1])
    monkeypatch.setattr(ClaimIndex, "delete", lambda *a: (sqlite_check(), delete(*a))[1])
    return while_there_is.exists


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UsageError, match="no store of this service, it holds 'photos'"):
        ClaimStore(tmp_path, 30)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    evidence = tmp_path / "photos" / "claims" / "R-1"
    evidence.mkdir(parents=True)
    with pytest.raises(UsageError, match="it holds 'claims/R-1'"):
        prepare_store(tmp_path / "photos")


def test_a_store_is_known_again_and_a_new_disk_is_taken(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".hidden").touch()
    for _ in range(2):
        store, reviews = ClaimStore(tmp_path, 30), ReviewStore(tmp_path / "reviews.sqlite")
        if not (tmp_path / "claims" / "A").exists():
            kept(store, tmp_path, "A")
        store.close()
        reviews.close()


def test_an_id_is_taken_for_other_processes_too_and_free_after_a_failure(tmp_path: Path) -> None:
    one, other = ClaimStore(tmp_path, 30), ClaimStore(tmp_path, 30)

    def judged_elsewhere() -> None:
        for act in (other.new("A"), other.reserved("A")):
            with pytest.raises(Refusal, match="is being judged") as refused, act:
                pass
            assert (refused.value.status_code, refused.value.code) == (409, "claim_under_way")
        with pytest.raises(Refusal, match="is being judged"):
            other.delete("A")
        with pytest.raises(Refusal, match="no claim 'A' is stored"):
            other.read("A", "evidence.json")
        raise RealDamageError("no room")

    with pytest.raises(RealDamageError, match="no room"), one.new("A"):
        judged_elsewhere()
    kept(other, tmp_path, "A")
    with pytest.raises(Refusal, match="stored already"), one.new("A"):
        pass
    assert one.read("A", "evidence.json") == b"{}"
    one.close()
    other.close()


def test_what_killed_processes_left_is_purged_and_nothing_else(tmp_path: Path) -> None:
    store = ClaimStore(tmp_path, 30)
    claims = tmp_path / "claims"
    half_written, half_removed, begun = claims / ".A.0a1b2c3d.tmp", claims / "B", claims / "C"
    for folder in (half_written, half_removed, begun, claims / ".snapshot", claims / "notes"):
        folder.mkdir()
    (half_written / "evidence.html").touch()
    (half_removed / "evidence.html").touch()
    (claims / "notes" / "mine.txt").touch()
    with store.new("D"):
        (claims / ".D.0a1b2c3d.tmp").mkdir()
        assert purge(store) == Purged((), ())
        assert sorted(path.name for path in claims.iterdir()) == [
            ".D.0a1b2c3d.tmp",
            ".D.lock",
            ".snapshot",
            "notes",
        ]
    assert purge(store) == Purged((), ())
    with pytest.raises(Refusal, match="stored already"), store.new("notes"):
        pass
    with pytest.raises(Refusal, match="no claim 'notes' is stored"):
        store.delete("notes")
    assert sorted(path.name for path in claims.iterdir()) == [".snapshot", "notes"]
    assert (claims / "notes" / "mine.txt").exists()
    store.close()


def test_a_claim_that_cannot_be_removed_keeps_no_other_from_being_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ClaimStore(tmp_path, 30)
    for claim_id in ("A", "B"):
        aged(kept(store, tmp_path, claim_id) / "evidence.json")
    remove = shutil.rmtree

    def stuck(path: Path) -> None:
        if path.name == "A":
            raise PermissionError(13, "Permission denied")
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stuck)
        gone = purge(store)
    assert gone.claims == ("B",)
    assert len(gone.problems) == 1
    assert "claims/A: cannot write to the store of claims: Permission denied" in gone.problems[0]
    purge(store)
    assert list((tmp_path / "claims").iterdir()) == []
    store.close()


def test_decisions_are_kept_unless_a_number_of_days_is_given(
    model_file: Path, tmp_path: Path
) -> None:
    """The purge at the start of a service."""
    path = tmp_path / "store" / "reviews.sqlite"
    for days, left in ((None, 1), (50, 1), (30, 0)):
        with TestClient(
            create_app(Settings(model=model_file, threads=1, store=path.parent, review_days=days))
        ):
            with sqlite3.connect(path) as database:
                if days is None:
                    ReviewStore(path).add(Review("1" * 64, "real"))
                    old = datetime.fromtimestamp(LONG_AGO, UTC).isoformat()
                    database.execute("UPDATE reviews SET decided_at = ?", [old])
            end = time.monotonic() + 5
            while len(ReviewStore(path).history()) != left and time.monotonic() < end:
                time.sleep(0.05)
        assert len(ReviewStore(path).history()) == left


def test_a_full_disk_is_an_error_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ClaimStore(tmp_path, 30)

    def full(path: Path, mode: str = "") -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with (
        pytest.raises(RealDamageError, match=r"claims/\.A\.lock: cannot write .*: No space left"),
        store.new("A"),
    ):
        pass
    store.close()


def test_a_full_disk_refuses_new_claims_and_lets_old_ones_be_deleted(
    serve: Serve, encode: Encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    client = serve(store=folder)
    for claim_id in ("A", "B"):
        assert post(client, encode(), claim_id=claim_id).status_code == 200
    assert client.get("/readyz").status_code == 200
    assert figure(client, "realdamage_store_free_bytes") > LEAST_FREE_BYTES

    is_full = fill(monkeypatch, while_there_is=folder / "claims" / "A")
    not_ready = client.get("/readyz")
    assert (not_ready.status_code, not_ready.json()["error"]["code"]) == (503, "store_full")
    assert figure(client, "realdamage_store_free_bytes") == LEAST_FREE_BYTES - 1
    refused = post(client, encode(seed=1), claim_id="C")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_full")
    assert is_full(), "nothing was written up to here, or it would have failed"
    assert client.delete("/v1/claims/A").json() == {"deleted": "A"}
    assert client.get("/v1/claims/A").status_code == 404
    assert [
        found.claim_id for found in ClaimIndex.open(folder / "claims.sqlite").find(encode())
    ] == ["B"]
    entry = EvidenceLog(folder / "log.jsonl").verify().entries[-1]
    assert (entry["event"], entry["payload"]["claim_id"]) == ("claim_deleted", "A")


def test_a_service_starts_on_a_full_disk_and_its_retention_makes_room(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(create_app(Settings(model=model_file, threads=1, store=tmp_path))):
        store = ClaimStore(tmp_path, 30)
        aged(kept(store, tmp_path, "A") / "evidence.json")
        store.close()
    fill(monkeypatch, while_there_is=tmp_path / "claims" / "A")
    with TestClient(
        create_app(Settings(model=model_file, threads=1, store=tmp_path)),
        base_url="http://127.0.0.1",
    ) as client:
        assert client.get("/readyz").json()["error"]["code"] == "store_full"
        end = time.monotonic() + 30
        while list((tmp_path / "claims").iterdir()):
            assert time.monotonic() < end
            time.sleep(0.02)


def test_the_store_is_part_of_readiness(serve: Serve, encode: Encode, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    client = serve(store=tmp_path)
    for claim_id in ("A", "B"):
        assert post(client, encode(), claim_id=claim_id).status_code == 200
    log.write_bytes(log.read_bytes()[:-40])
    not_ready = client.get("/readyz")
    assert (not_ready.status_code, not_ready.json()["error"]["code"]) == (503, "store_fails")
    assert str(tmp_path) not in not_ready.text
    client = serve(store=tmp_path)
    assert client.get("/readyz").json() == {"status": "ready"}
    assert post(client, encode(), claim_id="C").status_code == 200
    assert client.delete("/v1/claims/A").status_code == 200
    report = EvidenceLog(log).verify()
    assert report.problems == ()
    assert [entry["event"] for entry in report.entries] == [
        "evidence_written", "recovered", "evidence_written", "claim_deleted",
    ]  # fmt: skip
    log.write_bytes(log.read_bytes().replace(b'"by":""', b'"by":"x"'))
    assert serve(store=tmp_path).get("/readyz").json()["error"]["code"] == "store_fails"


@pytest.fixture
def shelf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ClaimStore, Callable[[float], None]]]:
    """A store with 23 claims that were kept and logged now, and a way to set the clock: in days from now."""
    store = ClaimStore(tmp_path, 30)
    for number in range(23):
        kept(store, tmp_path, f"c-{number:02}")
        store.record({"event": "evidence_written", "claim_id": f"c-{number:02}"})
    now = time.time()

    def set_clock(days: float) -> None:
        moved = datetime.fromtimestamp(now + 86400 * days, UTC)
        monkeypatch.setattr(time, "time", moved.timestamp)
        monkeypatch.setattr(
            log_module.dt, "datetime", type("", (datetime,), {"now": lambda *_: moved})
        )

    yield store, set_clock
    store.close()


Shelf = tuple[ClaimStore, Callable[[float], None]]


def events(store: ClaimStore) -> list[str]:
    return [entry["event"] for entry in store.log.verify().entries[23:]]


def test_a_start_31_days_ahead_removes_nothing(shelf: Shelf) -> None:
    store, set_clock = shelf
    set_clock(31)
    for _ in range(2):
        done = purge(store)
        assert (done.claims, done.clock_in_doubt) == ((), True)
        (problem,) = done.problems
        assert "23 of 23 claims" in problem
        assert "--clock-confirmed" in problem
        store.record(
            {"event": "evidence_written", "claim_id": "new"}
        )  # a log that goes on does not make it right
    set_clock(0.1)
    assert purge(store) == Purged((), ()), "the clock was set right"


def test_the_operator_confirms_the_clock(shelf: Shelf) -> None:
    store, set_clock = shelf
    set_clock(31)
    assert purge(store).claims == ()
    done = purge(store, clock_confirmed=True)
    assert (len(done.claims), done.problems, done.clock_in_doubt) == (23, (), False)
    assert "clock_confirmed" in events(store)


def test_a_confirmation_counts_for_the_next_starts_too(shelf: Shelf) -> None:
    store, set_clock = shelf
    set_clock(10)
    for confirmed, in_doubt in ((False, True), (True, False), (False, False)):
        assert purge(store, clock_confirmed=confirmed).clock_in_doubt == in_doubt
    assert events(store) == ["retention_checked", "clock_confirmed"]


def test_an_idle_service_logs_once_a_day_so_that_its_clock_is_not_in_doubt(shelf: Shelf) -> None:
    store, set_clock = shelf
    for hours in range(0, 24 * 30, 6):
        set_clock(hours / 24)
        assert purge(store) == Purged((), ())
    assert 22 <= events(store).count("retention_checked") <= 29
    set_clock(30.1)
    assert len(purge(store).claims) == 5


@pytest.mark.parametrize(
    ("days", "in_doubt"), [(CLOCK_GAP_DAYS - 0.1, False), (CLOCK_GAP_DAYS + 0.1, True)]
)
def test_how_long_the_log_may_be_silent(shelf: Shelf, days: float, in_doubt: bool) -> None:
    store, set_clock = shelf
    set_clock(days)
    done = purge(store)
    assert (done.claims, len(done.problems), done.clock_in_doubt) == ((), in_doubt, in_doubt)


def test_a_purge_removes_a_quarter_at_most_the_oldest_first(shelf: Shelf) -> None:
    store, _ = shelf
    for number in range(20):
        aged(store.claims / f"c-{number:02}" / "evidence.json", LONG_AGO + number)
    removed = []
    for left in (23, 18, 14, 11, 9, 7, 6, 5, 4):
        done = purge(store)
        assert done.problems == ()
        assert len(done.claims) == left // 4
        removed += done.claims
        assert done.waiting == 20 - len(removed)
    assert removed == [f"c-{number:02}" for number in range(20)]
    assert purge(store) == Purged((), ())


def test_decisions_stay_while_the_clock_is_in_doubt(
    model_file: Path, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    store, set_clock = shelf
    path = store.folder / "reviews.sqlite"
    reviews = ReviewStore(path)
    reviews.add(Review("1" * 64, "real"))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE reviews SET decided_at = '2020-01-01T00:00:00.000Z'")
    set_clock(31)
    for confirmed, left in ((False, 1), (True, 0)):
        settings = Settings(
            model=model_file,
            threads=1,
            store=store.folder,
            review_days=9,
            clock_confirmed=confirmed,
        )
        with TestClient(create_app(settings)), caplog.at_level(logging.INFO, "realdamage.service"):
            end = time.monotonic() + 30
            while not any(record.message == "purged" for record in caplog.records):
                assert time.monotonic() < end
                time.sleep(0.02)
        caplog.clear()
        assert (len(reviews.history()), len(list(store.claims.iterdir()))) == (left, 23 * left)
    reviews.close()


def _open_and_add(folder: Path, number: int) -> None:
    reviews = ReviewStore(folder / "reviews.sqlite")
    store = ClaimStore(folder, 30)
    for step in range(5):
        kept(store, folder, f"p{number}-{step}")
    store.close()
    reviews.close()


def test_processes_that_open_a_new_store_at_once(tmp_path: Path) -> None:
    spawned = multiprocessing.get_context("spawn")
    processes = [
        spawned.Process(target=_open_and_add, args=(tmp_path / "store", number))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list((tmp_path / "store" / "claims").iterdir())) == 15
