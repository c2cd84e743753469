"""`python tests/trials/case.py`: one claim from the listing to the appeal, against a real service.

It seals a packing video, starts `realdamage serve` with a store, keys and a webhook, and prints
each step. It ends with 1 when a step does not come out as it should.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import av
import httpx
from PIL import Image

from realdamage.claims import EvidenceLog, verify_evidence
from realdamage.claims.videos import seal
from realdamage.service.auth import hash_key
from realdamage.service.webhooks import SIGNATURE, sign

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample" / "photos"
KEYS = {name: f"{name}-of-the-walk-through-{'k' * 12}" for name in ("shop", "ana", "bo", "eve")}
SECRET = "a-secret-of-the-webhook-target"
POLICY = "cases: {undo_minutes: 0, near_hours: 200}\n"


def packing_video(photos: Sequence[bytes], size: tuple[int, int] = (640, 480)) -> bytes:
    """An H.264 video as of a phone over a packing table: each photo for a second, with metadata."""
    data = io.BytesIO()
    tags = {"title": "packing", "creation_time": "2026-11-30T08:00:00Z", "make": "Table"}
    with av.open(data, "w", format="mp4", options={"movflags": "use_metadata_tags"}) as output:
        output.metadata.update(tags)
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for photo in photos:
            with Image.open(io.BytesIO(photo)) as opened:
                picture = opened.convert("RGB").resize(size)
            for _ in range(10):
                output.mux(stream.encode(av.VideoFrame.from_image(picture)))
        output.mux(stream.encode())
    return data.getvalue()


class Receiver(BaseHTTPRequestHandler):
    """A webhook target of this machine. events: in the order received."""

    events: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signature = self.headers[SIGNATURE]
        at = int(signature.partition(",")[0].removeprefix("t="))
        fits = sign(SECRET, body, at) == signature and abs(time.time() - at) < 60
        self.send_response(200 if fits else 401)
        self.end_headers()
        if fits:
            self.events.append(json.loads(body)["event"])

    def log_message(self, *_: Any) -> None:
        pass


class Walk:
    """The calls of the shop and of three reviewers to a service, and how they came out."""

    def __init__(self, options: dict[str, Any]) -> None:
        command = [sys.executable, "-m", "realdamage", "serve"]
        for option, value in options.items():
            command += [f"--{option}", str(value)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        url = ""
        for line in self.process.stderr:
            event = json.loads(line)
            url = event.get("url", url)
            if event["event"] == "ready":
                break
        rest = threading.Thread(target=lambda: list(self.process.stderr or ()), daemon=True)
        rest.start()
        self.client = httpx.Client(base_url=f"{url}/v1", timeout=600)
        self.failed = 0

    def call(self, by: str, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"X-API-Key": KEYS[by]} if by else {}
        return self.client.request(method, path, headers=headers, **options)

    def step(self, what: str, fits: bool, found: object = "") -> None:
        print(f"{'ok  ' if fits else 'FAIL'}  {what} {found}".rstrip())
        self.failed += not fits

    def webhook(self, event: str) -> None:
        """Waits up to a minute for it."""
        end = time.monotonic() + 60
        while event not in Receiver.events and time.monotonic() < end:
            time.sleep(0.2)
        self.step(f"webhook {event}", event in Receiver.events)

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


def walk(steps: Walk, store: Path, video: bytes) -> None:
    """One claim from the listing to the end."""
    painted, listing = SAMPLE / "000004_pasted.jpg", SAMPLE / "000004_original.jpg"
    files: Any = [("photos", ("claim.jpg", painted.read_bytes()))]
    files += [("listings", ("shop.jpg", listing.read_bytes()))]
    about = {"claim_id": "W-1", "keep": "true", "amount": "89.90", "currency": "CNY"}
    about |= {"order_id": "SO-1", "product": "running shoes", "buyer": "b-1"}
    claim = steps.call("shop", "POST", "claims", files=files, data=about).json()
    codes = [reason["code"] for reason in claim["reasons"]]
    steps.step("a painted copy of the listing", "same_capture_changed" in codes, codes[0])
    steps.webhook("claim.judged")
    merchant = steps.link("merchant")
    sent: Any = [("photos", ("box.jpg", listing.read_bytes()))]
    sent.append(("videos", ("packing.mp4", video)))
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
    steps.webhook("statement.received")
    for one in steps.case()["statements"]:
        path = f"claims/W-1/files/statements/{one['folder']}/statement.json"
        found = steps.call("shop", "GET", path).json()
        if one["side"] == "buyer":
            steps.step("the product is the listing's", found["recapture"]["product"] != "unrelated")
        else:
            seals = found["videos"][0]["sealed"]
            orders = [seal["order"] for seal in seals]
            steps.step("the video was sealed before", orders == ["SO-1"], seals[:1])
            compared = [one for photo in found["photos"] for one in photo["comparisons"]]
            steps.step("its frames are compared", bool(compared), f"{len(compared)} comparisons")
    page = steps.call("shop", "GET", "claims/W-1/evidence.html").text
    steps.step("the evidence says so", "Sealed for the order SO-1" in page)
    refused = steps.change("ana", "decisions", action="refuse")
    steps.step("a refusal waits", refused.json()["decisions"][0]["waits"])
    alone = steps.change("ana", "decisions/1/confirm")
    steps.step("for another person", alone.status_code == 403)
    both = steps.change("bo", "decisions/1/confirm").json()
    steps.step("two people decide", both["case"]["state"] == "decided")
    steps.webhook("claim.decided")
    appealed = steps.change("shop", "appeal", side="buyer").json()
    steps.step("the buyer appeals", appealed["case"]["state"] == "appealed")
    third = steps.change("eve", "decisions", action="part", amount="20").json()
    steps.step("a third person decides", third["case"]["state"] == "decided")
    steps.webhook("deadline.near")
    closed = steps.change("eve", "close").json()
    steps.step("the case is closed", closed["case"]["state"] == "closed")
    report = verify_evidence(store / "claims" / "W-1", log=store / "claims.sqlite")
    steps.step("evidence and log verified", report.passed, f"{report.entries} entries")
    package = store.parent / "case.zip"
    command = [sys.executable, "-m", "realdamage", "case", "--store", str(store), "--buyer", "b-1"]
    made = subprocess.run([*command, "--out", str(package)], check=False, capture_output=True)
    steps.step("the case package is made and verified", made.returncode == 0, made.stderr[-200:])
    with zipfile.ZipFile(package) as opened:
        checked = json.loads(opened.read("verification.json"))
        is_pdf = opened.read("summary.pdf").startswith(b"%PDF-")
    steps.step("with its summary", is_pdf and all(one["passed"] for one in checked))


def main() -> int:
    """0 when all steps came out right."""
    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, seals = folder / "store", folder / "seals.jsonl"
        (folder / "policy.yaml").write_text(POLICY)
        hook = f"http://127.0.0.1:{receiver.server_port}/hook {SECRET}\n"
        (folder / "webhooks.txt").write_text(hook)
        roles = {who: "" if who == "shop" else "reviewer" for who in KEYS}
        lines = [f"{hash_key(key, who)} {roles[who]}\n" for who, key in KEYS.items()]
        (folder / "keys.txt").write_text("".join(lines))
        video = folder / "packing.mp4"
        photos = [(SAMPLE / f"00000{n}_original.jpg").read_bytes() for n in (4, 6)]
        video.write_bytes(packing_video(photos))
        seal(video, "SO-1", EvidenceLog(seals))
        options = {"store": store, "api-keys": folder / "keys.txt", "port": 0}
        options |= {"claim-policy": folder / "policy.yaml", "webhooks": folder / "webhooks.txt"}
        options |= {"seals": seals, "deadline": 300}
        steps = Walk(options)
        try:
            walk(steps, store, video.read_bytes())
        finally:
            steps.process.kill()
            steps.process.wait()
    print(f"{steps.failed} steps failed")
    return 1 if steps.failed else 0


if __name__ == "__main__":
    sys.exit(main())
