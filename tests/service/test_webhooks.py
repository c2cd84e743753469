"""Webhooks: signed, sent again, given up visibly, and never in each other's way."""

import hashlib
import hmac
import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from realdamage.claims.database import Database, Delivery
from realdamage.errors import UsageError
from realdamage.service import webhooks
from realdamage.service.metrics import Metrics
from realdamage.service.webhooks import SIGNATURE, Webhooks, read_targets

SECRET = "s" * 32


class Receiver:
    """A target on a free port; `status` is what it answers, `gate` holds the answer back."""

    def __init__(self):
        self.status, self.gate = 200, threading.Event()
        self.gate.set()
        self.seen = []
        self.marks = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.seen.append((json.loads(body), body, self.headers[SIGNATURE]))
                marks = ("X-Realdamage-Delivery", "X-Realdamage-Attempt")
                receiver.marks.append(tuple(self.headers[name] for name in marks))
                receiver.gate.wait(10)
                self.send_response(receiver.status)
                self.send_header("Location", "http://127.0.0.1:9/")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def receivers():
    made = (Receiver(), Receiver())
    yield made
    for one in made:
        one.gate.set()
        one.server.shutdown()


@pytest.fixture
def hooks(tmp_path, receivers, database_url):
    path = tmp_path / "webhooks.txt"
    first, second = receivers
    path.write_text(f"# ours\n{first.url} {SECRET}\n{second.url} {SECRET} claim.decided\n")
    database = Database(database_url or tmp_path / "claims.sqlite")
    return Webhooks(read_targets(path), database, Metrics())


def add(hooks, event, claim_id="A"):
    with hooks._database.transaction() as session:
        hooks.add(session, event, claim_id, state="open")


@pytest.mark.databases
def test_an_event_is_signed_and_goes_to_those_who_want_it(hooks, receivers):
    with suppress(ZeroDivisionError), hooks._database.transaction() as session:
        hooks.add(session, "claim.judged", "B")
        raise ZeroDivisionError  # so the change was not made
    add(hooks, "claim.judged")
    assert [hooks.deliver(target) for target in hooks.targets] == [1, 0]
    ((values, body, signature),) = receivers[0].seen
    assert (values["event"], values["claim_id"], values["state"]) == ("claim.judged", "A", "open")
    at, _, signed = signature.partition(",v1=")
    assert abs(time.time() - int(at.removeprefix("t="))) < 60
    message = f"{at.removeprefix('t=')}.".encode() + body
    assert signed == hmac.new(SECRET.encode(), message, hashlib.sha256).hexdigest()
    assert hooks.listing("delivered", 10)["counts"] == {"delivered": 1}


def test_a_failure_is_tried_again_and_given_up_in_sight(hooks, receivers, monkeypatch):
    """A redirect is a failure as well: it leads to an address that is not listed."""
    receivers[0].status = 302
    add(hooks, "claim.judged")
    target, start = hooks.targets[0], time.time()
    waits = []
    for attempt in range(webhooks._ATTEMPTS):
        assert hooks.deliver(target) == 1
        assert hooks.deliver(target) == 0, "not before its time"
        with hooks._database.reading() as session:
            delivery = session.query(Delivery).one()
        waits.append(delivery.next_at - webhooks.now())
        assert delivery.status == ("dead" if attempt == webhooks._ATTEMPTS - 1 else "waiting")
        monkeypatch.setattr(webhooks, "now", lambda at=delivery.next_at: max(start, at) + 1)
    assert waits[1] > waits[0] > 30, "with growing waits"
    assert len(receivers[0].seen) == webhooks._ATTEMPTS
    (dead,) = hooks.listing("dead", 10)["deliveries"]
    assert dead["error"] == "HTTP 302"
    assert not hooks.retry(dead["id"] + 1)
    receivers[0].status = 204
    assert hooks.retry(dead["id"])
    assert (hooks.deliver(target), hooks.listing("dead", 10)["deliveries"]) == (1, [])


def test_a_delivery_whose_sender_was_killed_comes_again_marked(hooks, receivers, monkeypatch):
    add(hooks, "claim.judged")
    assert hooks._take(hooks.targets[0]) is not None, "and then it was killed"
    assert hooks.deliver(hooks.targets[0]) == 0, "another process may be sending it"
    monkeypatch.setattr(webhooks, "now", lambda: time.time() + 3600)
    assert [hooks.deliver(hooks.targets[0]) for _ in range(2)] == [1, 0]
    ((number, attempt),) = receivers[0].marks
    assert (number, attempt) == ("1", "2")


def test_a_target_that_hangs_delays_no_other(hooks, receivers, wait_until, monkeypatch):
    monkeypatch.setattr(webhooks, "_POLL_S", 0.05)
    receivers[0].gate.clear()
    add(hooks, "claim.decided")
    hooks.start()
    wait_until(lambda: receivers[0].seen)
    wait_until(lambda: receivers[1].seen)
    add(hooks, "claim.decided", "B")
    wait_until(lambda: len(receivers[1].seen) == 2)
    assert len(receivers[0].seen) == 1
    hooks.stop()


def test_only_listed_targets_with_a_secret_are_called(tmp_path):
    path = tmp_path / "webhooks.txt"
    for line in (
        f"http://example.com/ {SECRET}",
        "https://example.com/ short",
        f"https://example.com/ {SECRET} claim.unheard",
    ):
        path.write_text(f"\n{line}\n")
        with pytest.raises(UsageError, match=r"webhooks\.txt:2") as caught:
            read_targets(path)
        assert caught.value.code == "webhooks"
        assert SECRET not in str(caught.value)
