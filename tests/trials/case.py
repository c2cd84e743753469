"""`python tests/trials/case.py`: one claim from the listing to the appeal, against a real service.

It starts `realdamage serve` with a store, keys and a webhook, and prints each step. It ends with 1
when a step does not come out as it should.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx

from realdamage.claims import EvidenceLog, verify_evidence
from realdamage.service.auth import hash_key
from realdamage.service.webhooks import SIGNATURE, check_signature

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample" / "photos"
KEYS = {name: f"{name}-of-the-walk-through-{'k' * 12}" for name in ("shop", "ana", "bo", "eve")}
SECRET = "a-secret-of-the-webhook-target"
POLICY = "cases: {undo_minutes: 0, near_hours: 200}\n"


class Receiver:
    """A webhook target of this machine: the events, in the order received."""

    def __init__(self) -> None:
        self.events: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                signature = self.headers[SIGNATURE]
                fits = check_signature(SECRET, body, signature, at=time.time(), within=60)
                self.send_response(200 if fits else 401)
                self.end_headers()
                if fits:
                    receiver.events.append(json.loads(body)["event"])

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait_for(self, event: str) -> bool:
        """Whether it came within a minute."""
        end = time.monotonic() + 60
        while event not in self.events and time.monotonic() < end:
            time.sleep(0.2)
        return event in self.events


class Walk:
    """The calls of the shop and of three reviewers, and how they came out."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=f"{url}/v1", timeout=600)
        self.failed = 0

    def call(self, by: str, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"X-API-Key": KEYS[by]} if by else {}
        return self.client.request(method, path, headers=headers, **options)

    def step(self, what: str, fits: bool, found: object = "") -> None:
        print(f"{'ok  ' if fits else 'FAIL'}  {what} {found}".rstrip())
        self.failed += not fits

    def change(self, by: str, path: str, **values: Any) -> httpx.Response:
        version = self.case()["case"]["version"]
        body = {"version": version, "reason": "seen the photos", **values}
        return self.call(by, "POST", f"claims/W-1/{path}", json=body)

    def case(self) -> dict[str, Any]:
        found: dict[str, Any] = self.call("shop", "GET", "claims/W-1/case").json()
        return found

    def link(self, side: str) -> str:
        made = self.call("shop", "POST", "claims/W-1/links", json={"side": side}).json()
        return str(made["path"]).removeprefix("s/")


def walk(url: str, store: Path, receiver: Receiver, video: Path | None) -> int:
    """All steps. Returns how many failed."""
    steps = Walk(url)
    painted, listing = SAMPLE / "000004_pasted.jpg", SAMPLE / "000004_original.jpg"
    files: Any = [("photos", ("claim.jpg", painted.read_bytes()))]
    files += [("listings", ("shop.jpg", listing.read_bytes()))]
    about = {"claim_id": "W-1", "keep": "true", "amount": "89.90", "currency": "CNY"}
    about |= {"order_id": "SO-1", "product": "running shoes", "buyer": "b-1"}
    claim = steps.call("shop", "POST", "claims", files=files, data=about).json()
    codes = [reason["code"] for reason in claim["reasons"]]
    steps.step("a painted copy of the listing", "same_capture_changed" in codes, codes[0])
    steps.step("webhook claim.judged", receiver.wait_for("claim.judged"))
    merchant = steps.link("merchant")
    sent: Any = [("photos", ("box.jpg", listing.read_bytes()))]
    if video is not None:
        sent.append(("videos", (video.name, video.read_bytes())))
    said = steps.call("", "POST", f"statements/{merchant}", files=sent, data={"text": "packed"})
    steps.step("the merchant's statement", said.status_code == 201, said.text[:120])
    again = steps.call("", "POST", f"statements/{merchant}", files=sent)
    steps.step("its link works once", again.status_code == 410)
    buyer = steps.link("buyer")
    nonce = steps.call("", "GET", f"statements/{buyer}").json()["nonce"]
    start = int(time.time() * 1000)
    frames: Any = [
        ("frames", (f"{n}.jpg", (SAMPLE / name).read_bytes()))
        for n, name in enumerate(("000004_original.jpg", "000004_pasted.jpg"))
    ]
    data = {"nonce": nonce, "taken": f"{start},{start + 400}"}
    said = steps.call("", "POST", f"statements/{buyer}", files=frames, data=data)
    steps.step("the buyer's frames", said.status_code == 201, said.text[:120])
    steps.step("webhook statement.received", receiver.wait_for("statement.received"))
    for one in steps.case()["statements"]:
        path = f"claims/W-1/files/statements/{one['folder']}/statement.json"
        found = steps.call("shop", "GET", path).json()
        if one["side"] == "buyer":
            steps.step("the product is the listing's", found["recapture"]["product"] != "unrelated")
        elif video is not None:
            steps.step("the video was sealed before", bool(found["videos"][0]["sealed"]))
    refused = steps.change("ana", "decisions", action="refuse")
    steps.step("a refusal waits", refused.json()["decisions"][0]["waits"])
    alone = steps.change("ana", "decisions/1/confirm")
    steps.step("for another person", alone.status_code == 403)
    both = steps.change("bo", "decisions/1/confirm").json()
    steps.step("two people decide", both["case"]["state"] == "decided")
    steps.step("webhook claim.decided", receiver.wait_for("claim.decided"))
    appealed = steps.change("shop", "appeal", side="buyer").json()
    steps.step("the buyer appeals", appealed["case"]["state"] == "appealed")
    third = steps.change("eve", "decisions", action="part", amount="20").json()
    steps.step("a third person decides", third["case"]["state"] == "decided")
    steps.step("webhook deadline.near", receiver.wait_for("deadline.near"))
    closed = steps.change("eve", "close").json()
    steps.step("the case is closed", closed["case"]["state"] == "closed")
    report = verify_evidence(store / "claims" / "W-1", log=store / "claims.sqlite")
    steps.step("evidence and log verified", report.passed, f"{report.entries} entries")
    return steps.failed


def main() -> int:
    """0 when all steps came out right."""
    parser = argparse.ArgumentParser(prog="python tests/trials/case.py", description=__doc__)
    parser.add_argument("--model", metavar="FILE", help="default: the one in the package")
    parser.add_argument("--video", type=Path, metavar="FILE", help="a packing video to seal first")
    given = parser.parse_args()
    receiver = Receiver()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, seals = folder / "store", folder / "seals.jsonl"
        (folder / "policy.yaml").write_text(POLICY)
        hook = f"http://127.0.0.1:{receiver.server.server_port}/hook {SECRET}\n"
        (folder / "webhooks.txt").write_text(hook)
        lines = [
            f"{hash_key(key, who)} {'reviewer' if who != 'shop' else ''}\n"
            for who, key in KEYS.items()
        ]
        (folder / "keys.txt").write_text("".join(lines))
        if given.video and importlib.util.find_spec("realdamage.claims.videos"):
            from realdamage.claims.videos import seal

            seal(given.video, "SO-1", EvidenceLog(seals))
        options = {"store": store, "api-keys": folder / "keys.txt", "port": 0}
        options |= {"claim-policy": folder / "policy.yaml", "webhooks": folder / "webhooks.txt"}
        options |= {"seals": seals, "deadline": 300}
        options |= {"model": given.model} if given.model else {}
        command = [sys.executable, "-m", "realdamage", "serve"]
        for option, value in options.items():
            command += [f"--{option}", str(value)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            url = ""
            for line in server.stderr:
                event = json.loads(line)
                url = event.get("url", url)
                if event["event"] == "ready":
                    break
            rest = threading.Thread(target=lambda: list(server.stderr or ()), daemon=True)
            rest.start()
            try:
                failed = walk(url, store, receiver, given.video)
            finally:
                server.terminate()
                rest.join(30)
    print(f"{failed} steps failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
