"""Jobs outlive their service: a real process is killed with -9, and the next one goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from realdamage.claims import verify_evidence
from realdamage.claims.database import Case, Database, Delivery, Event, Job
from realdamage.service.jobs import MOST_TRIES
from realdamage.service.schemas import Refusal
from realdamage.service.store import ClaimStore, purge

Encode = Callable[..., bytes]
Wait = Callable[[Callable[[], object]], None]
PROGRAM = """
import sys, time
from pathlib import Path
from realdamage.commands.cli import main
from realdamage.service import jobs, routes

def held(function, name):
    def run(*given, **more):
        while Path(name).exists():
            Path(f"{name}-reached").touch()
            time.sleep(0.01)
        return function(*given, **more)
    return run

routes.judge_claim = held(routes.judge_claim, "judge")
jobs.Jobs._finish = held(jobs.Jobs._finish, "finish")
sys.exit(main())
"""


class Killable:
    """A service with a store whose judging, or whose note that a job is done, can be held."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.folder, self.model = folder, model
        (folder / "program.py").write_text(PROGRAM)
        (folder / "hooks.txt").write_text(f"http://127.0.0.1:9/hook {'s' * 32} claim.judged\n")
        self.start()

    def start(self) -> None:
        command = [sys.executable, "program.py", "serve", "--model", str(self.model), "--port", "0"]
        command += ["--store", "store", "--webhooks", "hooks.txt", "--workers", "2"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=self.folder)
        assert self.process.stderr is not None
        self.url = ""
        for line in self.process.stderr:
            event = json.loads(line)
            self.url = event.get("url", self.url)
            if event["event"] == "ready":
                break
        threading.Thread(target=lambda: list(self.process.stderr or ()), daemon=True).start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def hold(self, what: str) -> None:
        (self.folder / what).touch()
        (self.folder / f"{what}-reached").unlink(missing_ok=True)

    def reached(self, what: str) -> bool:
        return (self.folder / f"{what}-reached").exists()

    def release(self, what: str) -> None:
        (self.folder / what).unlink()

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.url}{path}", timeout=60).json()

    def send(self, photo: bytes, **fields: str) -> httpx.Response:
        data = {"keep": "true", "later": "true", "claim_id": "A", "buyer": "zhang.san", **fields}
        sent = [("photos", ("a.jpg", photo))]
        return httpx.post(f"{self.url}/v1/claims", files=sent, data=data, timeout=60)

    def rows(self, table: Any) -> list[Any]:
        database = Database(self.folder / "store" / "claims.sqlite")
        with database.reading() as session:
            found = list(session.scalars(select(table)))
        database.close()
        return found


@pytest.fixture
def service(model_file: Path, tmp_path: Path) -> Iterator[Killable]:
    made = Killable(model_file, tmp_path)
    yield made
    made.kill()


@pytest.mark.slow
@pytest.mark.parametrize("held", ["judge", "finish"])
def test_a_job_of_a_killed_service_is_finished_once(
    held: str, service: Killable, encode: Encode, wait_until: Wait
) -> None:
    service.hold(held)
    answer = service.send(encode(size=(320, 240)))
    assert answer.status_code == 202
    wait_until(lambda: service.reached(held))
    assert service.send(encode(size=(320, 240))).json()["error"]["code"] in (
        *("claim_under_way", "claim_exists"),
    )
    service.kill()
    files = b"".join(path.read_bytes() for path in service.folder.rglob("*") if path.is_file())
    assert b"zhang.san" not in files, "only its keyed hash waits on the disk"
    service.release(held)
    service.start()
    url = answer.json()["url"]
    wait_until(lambda: service.get(url)["status"] == "done")
    assert service.get("/v1/claims/A/case")["case"]["state"] == "open"
    assert [one.event for one in service.rows(Event)] == ["evidence_written"]
    assert [one.event for one in service.rows(Delivery)] == ["claim.judged"]
    assert list((service.folder / "store" / "jobs").iterdir()) == []
    store = service.folder / "store"
    assert verify_evidence(store / "claims" / "A", log=store / "claims.sqlite").passed


@pytest.mark.slow
def test_a_job_that_kills_its_service_is_given_up(
    service: Killable, encode: Encode, wait_until: Wait
) -> None:
    service.hold("judge")
    url = service.send(encode(size=(320, 240))).json()["url"]
    for _ in range(MOST_TRIES):
        wait_until(lambda: service.reached("judge"))
        service.kill()
        service.hold("judge")
        service.start()
    wait_until(lambda: service.get(url)["status"] == "failed")
    assert service.get(url)["error"]["code"] == "interrupted"
    assert service.rows(Event) == []
    service.release("judge")
    assert service.send(encode(size=(320, 240))).status_code == 202, "its id is free again"


def test_a_job_whose_photos_are_gone_fails_visibly(
    serve: Callable[..., Any], tmp_path: Path, wait_until: Wait
) -> None:
    store = ClaimStore(tmp_path / "store", 30)
    with store.database.transaction() as session:
        about = {"claim_id": "A", "worker": "dead", "created": time.time()}
        session.add(Job(id="x", status="running", **about))
    store.close()
    client = serve(store=tmp_path / "store")
    wait_until(lambda: client.get("/v1/jobs/x").json()["status"] == "failed")
    assert client.get("/v1/jobs/x").json()["error"]["code"] == "interrupted"


def test_what_a_job_begins_again_is_not_purged_meanwhile(tmp_path: Path) -> None:
    store = ClaimStore(tmp_path / "store", 30)
    with store.database.transaction() as session:
        for claim_id in "AB":
            about = {"worker": "dead", "created": time.time(), "updated": time.time()}
            session.add(Case(claim_id=claim_id, state="judging", **about))
        session.add(Job(id="x", claim_id="A", status="running", worker="dead", created=time.time()))
    purge(store)
    with store.database.reading() as session:
        assert list(session.scalars(select(Case.claim_id))) == ["A"]
    store.close()


def test_a_job_waits_for_a_request_that_is_about_to_be_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ClaimStore(tmp_path / "store", 30)
    with store.database.transaction() as session:
        session.add(Job(id="x", claim_id="A", status="running", worker="w", created=time.time()))
    begin, reached, go = store._begin, threading.Event(), threading.Event()

    def slow(claim_id: str, job_id: str) -> None:
        if not job_id:
            reached.set()
            assert go.wait(60)
        begin(claim_id, job_id)

    def judge(job_id: str) -> None:
        with store.new("A", job_id):
            pass

    monkeypatch.setattr(store, "_begin", slow)
    with ThreadPoolExecutor(2) as pool:
        request = pool.submit(judge, "")
        assert reached.wait(60)
        job = pool.submit(judge, "x")
        with pytest.raises(TimeoutError):
            job.result(timeout=0.2)
        go.set()
        refused = request.exception()
        assert isinstance(refused, Refusal)
        assert refused.code == "claim_under_way"
        job.result(timeout=60)
    store.close()


def test_a_claim_that_waits_cannot_be_deleted_or_sent_again(
    serve: Callable[..., Any], encode: Encode, tmp_path: Path, held: Any, wait_until: Wait
) -> None:
    client = serve(store=tmp_path / "store")
    sent = [("photos", ("a.jpg", encode(size=(320, 240))))]
    kept = {"keep": "true", "claim_id": "A"}
    with held(client):
        first = client.post("/v1/claims", files=sent, data={**kept, "later": "true"}).json()
        deleted = client.delete("/v1/claims/A")
        assert deleted.json()["error"]["code"] == "claim_under_way"
        again = client.post("/v1/claims", files=sent, data=kept)
        assert again.json()["error"]["code"] == "claim_under_way", client.get(first["url"]).text
        assert again.status_code == 409
    wait_until(lambda: client.get(first["url"]).json()["status"] == "done")
    assert client.delete("/v1/claims/A").status_code == 200
