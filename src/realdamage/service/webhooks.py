"""Tells other systems what happened: signed requests to the targets that the operator listed.

An event is stored with the change that it reports, then sent from a thread of its own for each
target: one that hangs delays nobody else. A target may get an event twice; its id stays the same.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import logging
import math
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from realdamage.claims.database import Database, Delivery, now
from realdamage.errors import UsageError
from realdamage.service.metrics import Metrics, log_event
from realdamage.service.settings import read_lines

EventName = Literal["claim.judged", "claim.decided", "statement.received", "deadline.near"]
EVENTS: tuple[EventName, ...] = get_args(EventName)
SIGNATURE = "X-Realdamage-Signature"
_TIMEOUT_S = 10.0
_ATTEMPTS = 8  # the last about two hours after the first
_FIRST_WAIT_S = 60.0
_POLL_S = 1.0
_KEPT_S = 7 * 86400  # delivered events stay visible; dead ones until their claim is deleted


def _safe(url: str) -> str:
    parts = urlsplit(url)
    is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_local)
    if not (is_safe and parts.hostname) or parts.username:
        raise ValueError("the address needs https, or http on this machine, and no user name")
    return url


class Target(BaseModel):
    """Where events go. secret: signs them. events: the names that it gets."""

    model_config = ConfigDict(frozen=True)

    url: Annotated[str, AfterValidator(_safe)]
    secret: Annotated[str, Field(min_length=24)]
    events: tuple[EventName, ...] = EVENTS


def read_targets(path: Path) -> list[Target]:
    """The lines URL SECRET [EVENT,EVENT…] of a file. Raises UsageError naming the line."""
    targets = []
    for number, line in enumerate(read_lines(path, "webhooks", "webhooks"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        url, secret, *events = words if len(words) > 1 else (*words, "")
        given = {"events": ",".join(events).split(",")} if events else {}
        try:
            targets.append(Target.model_validate({"url": url, "secret": secret, **given}))
        except ValidationError as error:
            # The message leaves the line out: it holds a secret.
            fault = error.errors()[0]
            where = f"{path}:{number}: {fault['loc'][0]}: {fault['msg']}"
            message = f"{where}. Expected URL SECRET [EVENT,EVENT]"
            raise UsageError(message, code="webhooks") from None
    return targets


def sign(secret: str, body: bytes, at: int) -> str:
    """The value of the header: t=TIME,v1=HMAC-SHA256 of "TIME.BODY" as hex digits."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


class Webhooks:
    """The queue of events in the database, and the threads that send them."""

    def __init__(self, targets: list[Target], database: Database, metrics: Metrics) -> None:
        self.targets, self._database, self._metrics = targets, database, metrics
        self._stop = threading.Event()

    def start(self) -> None:
        """Start a thread for each target. They end with the process."""
        for target in self.targets:
            name = f"realdamage-webhook-{urlsplit(target.url).hostname}"
            threading.Thread(target=self._run, args=(target,), name=name, daemon=True).start()

    def stop(self) -> None:
        """Send nothing more; what waits is sent by the next start."""
        self._stop.set()

    def add(self, session: Session, event: EventName, claim_id: str, **about: Any) -> None:
        """Store an event for all targets that want it, in the transaction of its change."""
        for target in self.targets:
            if event in target.events:
                what = {"event": event, "claim_id": claim_id}
                body = json.dumps({**what, "time": int(now()), **about})
                session.add(Delivery(body=body, created=now(), url=target.url, **what))

    def deliver(self, target: Target) -> int:
        """Send what is due to one target; returns how many requests were made."""
        made = 0
        while not self._stop.is_set() and (taken := self._take(target)) is not None:
            number, body, attempts = taken
            error = _send(target, number, attempts, body.encode())
            self._note(number, attempts, error)
            made += 1
        return made

    def listing(self, status: str, limit: int) -> dict[str, Any]:
        """The newest deliveries of a status, and how many there are of each."""
        query = select(Delivery).where(Delivery.status == status).order_by(Delivery.id.desc())
        names = ("id", "url", "event", "claim_id", "created", "status", "attempts", "error")
        with self._database.reading() as session:
            grouped = select(Delivery.status, func.count()).group_by(Delivery.status)
            counts = {row[0]: row[1] for row in session.execute(grouped)}
            found = [values_of(one, names) for one in session.scalars(query.limit(limit))]
        return {"deliveries": found, "counts": counts, "targets": [one.url for one in self.targets]}

    def retry(self, number: int) -> bool:
        """Let a dead delivery be sent again; whether there is such a one."""
        with self._database.transaction() as session:
            found = session.get(Delivery, number)
            if found is None or found.status != "dead":
                return False
            found.status, found.attempts, found.next_at = "waiting", 0, 0.0
        return True

    def purge(self) -> None:
        """Forget what was delivered long ago."""
        old = Delivery.status == "delivered", Delivery.created < now() - _KEPT_S
        with self._database.transaction() as session:
            session.execute(delete(Delivery).where(*old))

    def _run(self, target: Target) -> None:
        while not self._stop.wait(_POLL_S):
            try:
                self.deliver(target)
            except Exception as error:  # the thread must go on, or the target hears no more
                log_event("webhook failed", logging.ERROR, reason=str(error))
                self._stop.wait(_FIRST_WAIT_S)

    def _take(self, target: Target) -> tuple[int, str, int] | None:
        """The next due delivery; for a while no other process takes it."""
        due = (
            Delivery.url == target.url,
            Delivery.status == "waiting",
            Delivery.next_at <= now(),
        )
        query = select(Delivery).where(*due).order_by(Delivery.id).limit(1)
        with self._database.reading() as session:
            if session.scalars(query).first() is None:
                return None
        with self._database.transaction() as session:
            found = session.scalars(query.with_for_update()).first()
            if found is None:
                return None
            found.attempts += 1
            found.next_at = now() + 3 * _TIMEOUT_S
            return found.id, found.body, found.attempts

    def _note(self, number: int, attempts: int, error: str) -> None:
        with self._database.transaction() as session:
            found = session.get(Delivery, number)
            if found is None:  # its claim was deleted meanwhile
                return
            found.error = error
            if not error:
                found.status = "delivered"
            elif attempts >= _ATTEMPTS:
                found.status = "dead"
                log_event("webhook dead", logging.ERROR, url=found.url, reason=error, id=number)
            else:
                found.next_at = now() + _FIRST_WAIT_S * 2 ** (attempts - 1)
            self._metrics.webhooks.labels(found.status).inc()


def values_of(row: Any, names: Iterable[str]) -> dict[str, Any]:
    """These columns of a row."""
    return {name: getattr(row, name) for name in names}


def _send(target: Target, number: int, attempt: int, body: bytes) -> str:
    """Why a delivery failed, or "". Redirects are failures: they lead to addresses not listed."""
    parts = urlsplit(target.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {
        "Content-Type": "application/json",
        "X-Realdamage-Delivery": str(number),
        "X-Realdamage-Attempt": str(attempt),
        SIGNATURE: sign(target.secret, body, math.floor(time.time())),
    }
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        connection.request("POST", path, body, headers)
        status = connection.getresponse().status
        return "" if 200 <= status < 300 else f"HTTP {status}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"[:200]
    finally:
        connection.close()
