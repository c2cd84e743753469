"""A load test: callers who send good and hostile photos, and claims. With a running service:

    locust -f tests/trials/locustfile.py --headless --users 8 --run-time 10m --host http://127.0.0.1:8000

API_KEY=… sends a key. A failure is an answer that nobody should get: 5xx, a broken one, a refusal
without a reason. locust then ends with exit code 1. Memory is watched with Prometheus.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

from locust import FastHttpUser, between, task

sys.path.insert(0, str(Path(__file__).parent))
from hostile_photos import FORMATS, bomb, mutate, photo

_KEY = os.environ.get("API_KEY", "")
_BUSY = (429,)
"""How a service refuses that has more to do than it can: with a reason, and no failure."""


class Caller(FastHttpUser):
    """Waits a little between requests, as people do."""

    wait_time = between(0.0, 0.5)

    def on_start(self) -> None:
        self.draw = random.Random(random.random())
        self.client.headers = {"Authorization": f"Bearer {_KEY}"} if _KEY else {}

    def _photo(self) -> bytes:
        return photo(self.draw.choice(FORMATS), self.draw)

    def _send(self, kind: str, path: str, expected: tuple[int, ...], **body: Any) -> None:
        """Counts as failed unless the answer is one of `expected`, or a refusal as too busy."""
        headers = {**self.client.headers, **body.pop("headers", {})}
        with self.client.post(
            path, name=f"{path} {kind}", headers=headers, catch_response=True, **body
        ) as answer:
            found = (
                answer.json() if "json" in (answer.headers or {}).get("content-type", "") else {}
            )
            if answer.status_code in _BUSY and found["error"]["message"]:
                answer.success()
            elif answer.status_code not in expected:
                answer.failure(f"status {answer.status_code}: {(answer.text or '')[:200]}")
            elif answer.status_code != 200 and not found.get("error", {}).get("message"):
                answer.failure("a refusal without a reason")
            elif answer.status_code == 200 and not (found.get("results") or found.get("photos")):
                answer.failure("no result")
            else:
                answer.success()

    def _send_photos(self, kind: str, photos: list[bytes], expected: tuple[int, ...]) -> None:
        self._send(kind, "/v1/photos", expected, **_form([("photos", each) for each in photos]))

    @task(8)
    def send_a_photo(self) -> None:
        self._send_photos("photo", [self._photo()], (200,))

    @task(2)
    def send_a_claim(self) -> None:
        parts = [("photos", self._photo()), ("photos", self._photo()), ("listings", self._photo())]
        self._send("claim", "/v1/claims", (200,), **_form(parts))

    @task
    def send_mutants(self) -> None:
        self._send_photos("mutants", [mutate(self._photo(), self.draw) for _ in range(3)], (200,))

    @task
    def send_a_cut_photo(self) -> None:
        data = self._photo()
        self._send_photos("cut", [data[: self.draw.randrange(len(data))]], (200,))

    @task
    def send_rubbish(self) -> None:
        self._send_photos("rubbish", [self.draw.randbytes(self.draw.randrange(5000))], (200,))

    @task
    def send_a_bomb(self) -> None:
        self._send_photos("bomb", [bomb()], (200,))

    @task
    def send_too_many(self) -> None:
        self._send_photos("too many", [b"x"] * 100, (413,))

    @task
    def send_a_wrong_field(self) -> None:
        body = _form([("photo", self._photo())])
        self._send("wrong field", "/v1/photos", (422,), **body)

    @task
    def send_no_form(self) -> None:
        self._send("no form", "/v1/photos", (400, 415), data=self.draw.randbytes(2000))

    @task
    def send_half_a_form(self) -> None:
        body = _form([("photos", self._photo())])
        body["data"] = body["data"][: len(body["data"]) // 2]
        self._send("half a form", "/v1/photos", (400,), **body)


def _form(parts: list[tuple[str, bytes]]) -> dict[str, Any]:
    """A multipart body and its header; locust's own encoder would need names of files."""
    mark = b"realdamage-load"
    data = b"".join(
        b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="p"\r\n\r\n%s\r\n'
        % (mark, name.encode(), content)
        for name, content in parts
    )
    kind = f"multipart/form-data; boundary={mark.decode()}"
    return {"data": data + b"--%s--\r\n" % mark, "headers": {"Content-Type": kind}}
