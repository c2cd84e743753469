"""Jobs outlive their service: a real process is killed with -9, and the next one goes on."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from realdamage.claims import verify_evidence
from realdamage.claims.database import Case, Database, Delivery, Event, Job
from realdamage.service.schemas import Refusal
from realdamage.service.store import ClaimStore, purge

PROGRAM = """
import sys, time
from pathlib import Path
from realdamage.commands.cli import main
from realdamage.service import jobs, routes

def held(function, name):
    def run(*given, **more):
        while Path(name).exists():
            Path(f"{name}-reached").touch()
            time.sleep(0.05)
        return function(*given, **more)
    return run

routes.judge_claim = held(routes.judge_claim, "judge")
jobs.Jobs._finish = held(jobs.Jobs._finish, "finish")
jobs.MOST_TRIES = 2
sys.exit(main())
"""
TRIES = 2


class Killable:
    """A service with a store whose judging, or whose note that a job is done, can be held."""

    def __init__(self, start_process, model, folder):
        targets = folder / "hooks.txt"
        targets.write_text(f"http://127.0.0.1:9/hook {'s' * 32} claim.judged\n")
        options = ("--model", model, "--store", "store", "--webhooks", targets, "--workers", "4")
        self.process = start_process(*options, program=("-c", PROGRAM))
        self.folder = folder / "cwd"
        self.store = self.folder / "store"

    def hold(self, what):
        (self.folder / what).touch()
        (self.folder / f"{what}-reached").unlink(missing_ok=True)

    def reached(self, what):
        return (self.folder / f"{what}-reached").exists()

    def release(self, what):
        (self.folder / what).unlink()

    def get(self, path):
        return self.process.client.get(path).json()

    def send(self, claim_id, photo):
        data = {"keep": "true", "later": "true", "claim_id": claim_id, "buyer": "zhang.san"}
        sent = [("photos", ("a.jpg", photo))]
        return self.process.client.post("/v1/claims", files=sent, data=data)

    def rows(self, table):
        database = Database(self.store / "claims.sqlite")
        with database.reading() as session:
            found = list(session.scalars(select(table)))
        database.close()
        return found


@pytest.fixture
def service(start_process, model_file, tmp_path):
    return Killable(start_process, model_file, tmp_path)


@pytest.mark.slow
def test_jobs_of_a_killed_service_are_finished_once_or_given_up(service, encode, wait_until):
    photos = {claim_id: encode(size=(320, 240), seed=ord(claim_id)) for claim_id in "ABC"}
    urls = {}

    def send_and_hold(claim_id, at, code):
        """Send a claim, and hold its job at this point, where another request gets this code."""
        service.hold(at)
        answer = service.send(claim_id, photos[claim_id])
        assert answer.status_code == 202
        urls[claim_id] = answer.json()["url"]
        wait_until(lambda: service.reached(at))
        assert service.send(claim_id, photos[claim_id]).json()["error"]["code"] == code

    send_and_hold("A", "finish", "claim_exists")
    send_and_hold("B", "judge", "claim_under_way")
    service.process.kill()
    files = b"".join(path.read_bytes() for path in service.folder.rglob("*") if path.is_file())
    assert b"zhang.san" not in files, "only its keyed hash waits on the disk"
    service.release("finish")
    service.release("judge")
    service.process.start()
    for claim_id in "AB":
        wait_until(lambda url=urls[claim_id]: service.get(url)["status"] == "done")
        assert service.get(f"/v1/claims/{claim_id}/case")["case"]["state"] == "open"
        folder = service.store / "claims" / claim_id
        assert verify_evidence(folder, log=service.store / "claims.sqlite").passed
    assert list((service.store / "jobs").iterdir()) == []

    send_and_hold("C", "judge", "claim_under_way")
    for _ in range(TRIES - 1):
        service.process.kill()
        service.hold("judge")
        service.process.start()
        wait_until(lambda: service.reached("judge"))
    service.process.kill()
    service.process.start()
    wait_until(lambda: service.get(urls["C"])["status"] == "failed")
    assert service.get(urls["C"])["error"]["code"] == "interrupted"
    assert [one.event for one in service.rows(Event)] == ["evidence_written"] * 2
    assert [one.event for one in service.rows(Delivery)] == ["claim.judged"] * 2
    service.release("judge")
    assert service.send("C", photos["C"]).status_code == 202, "its id is free again"


def test_a_job_whose_photos_are_gone_fails_visibly(serve, tmp_path, wait_until):
    store = ClaimStore(tmp_path / "store", 30)
    with store.database.transaction() as session:
        about = {"claim_id": "A", "worker": "dead", "created": time.time()}
        session.add(Job(id="x", status="running", **about))
    store.close()
    client = serve(store=tmp_path / "store")
    wait_until(lambda: client.get("/v1/jobs/x").json()["status"] == "failed")
    assert client.get("/v1/jobs/x").json()["error"]["code"] == "interrupted"


def test_what_a_job_begins_again_is_not_purged_meanwhile(tmp_path):
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


def test_a_job_waits_for_a_request_that_is_about_to_be_refused(tmp_path, monkeypatch):
    store = ClaimStore(tmp_path / "store", 30)
    with store.database.transaction() as session:
        session.add(Job(id="x", claim_id="A", status="running", worker="w", created=time.time()))
    begin, reached, go = store._begin, threading.Event(), threading.Event()

    def slow(claim_id, job_id):
        if not job_id:
            reached.set()
            assert go.wait(60)
        begin(claim_id, job_id)

    def judge(job_id):
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


def test_a_claim_that_is_judged_later_cannot_be_deleted_or_sent_again_meanwhile(
    open_shop, held, wait_until
):
    shop = open_shop()

    def refused(answer, status, code):
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)

    with held(shop.client):
        answer = shop.claim("A", later="true")
        job = answer.json()
        assert (answer.status_code, job["status"], job["claim_id"]) == (202, "running", "A")
        assert answer.headers["location"] == job["url"]
        refused(shop.call("DELETE", "claims/A"), 409, "claim_under_way")
        refused(shop.claim("A"), 409, "claim_under_way")
    wait_until(lambda: shop.call("GET", job["url"]).json()["status"] == "done")
    assert shop.call("GET", "claims/A/case").json()["case"]["state"] == "open"
    refused(shop.claim("A", later="true"), 409, "claim_exists")
    refused(shop.call("GET", "jobs/nothing"), 404, "not_found")
    assert shop.call("DELETE", "claims/A").status_code == 200
