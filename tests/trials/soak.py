"""`python tests/trials/soak.py`: a real server under mixed good and hostile input for some minutes.

It ends by itself and says what went wrong: a lost request, a refusal without a reason, memory
that grows, a crash.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import random
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP")
_ATTACKS = (
    "photo",
    "mutant",
    "cut",
    "rubbish",
    "bomb",
    "no_form",
    "wrong_field",
    "half_body",
    "too_many",
    "long_head",
)
_BOUNDARY = b"realdamage-soak"
_GROWTH_MIB = 64.0
"""How much larger the server may be at the end than after the first fifth: what its allocator
keeps is not a leak."""


@dataclass
class Findings:
    """statuses: answers by kind of input and status. faults: what must not happen, in words."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)

    @property
    def growth_mib(self) -> float:
        """Between the memory after the first fifth of the time and the end."""
        seen = self.memory_mib
        return seen[-1] - seen[len(seen) // 5] if seen else 0.0


def soak(
    seconds: float, *, clients: int = 4, seed: int = 0, options: tuple[str, ...] = ()
) -> Findings:
    """Start a server on a free port of this machine, call it that long, stop it. options: of
    `realdamage serve`."""
    findings = Findings()
    command = [sys.executable, "-m", "realdamage", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            port = _port_of(server)
            drain = threading.Thread(
                target=lambda: [None for _ in server.stderr or ()], daemon=True
            )
            drain.start()
            end = time.monotonic() + seconds
            callers = [
                threading.Thread(
                    target=_call_until, args=(end, port, random.Random(f"{seed}/{n}"), findings)
                )
                for n in range(clients)
            ]
            for caller in callers:
                caller.start()
            while any(caller.is_alive() for caller in callers):
                time.sleep(min(1.0, seconds / 20))
                if server.poll() is None:
                    findings.memory_mib.append(_resident_mib(server.pid))
            for caller in callers:
                caller.join()
            if server.poll() is not None:
                findings.faults.append(f"the server ended with code {server.returncode}")
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                findings.faults.append("the server did not stop within a minute")
                server.kill()
    if findings.growth_mib > _GROWTH_MIB:
        findings.faults.append(
            f"memory grew by {findings.growth_mib:.0f} MiB, more than {_GROWTH_MIB:.0f}"
        )
    return findings


def mutate(data: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, taken out, doubled or cut off."""
    found = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        if not found:
            break
        at = draw.randrange(len(found))
        kind = draw.randrange(5)
        if kind == 0:
            found[at] = draw.randrange(256)
        elif kind == 1:
            found[at : at + 4] = draw.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0")
            )
        elif kind == 2:
            del found[at : at + draw.randint(1, 64)]
        elif kind == 3:
            found[at:at] = found[at : at + draw.randint(1, 64)]
        else:
            del found[max(1, at) :]
    return bytes(found)


def photo(form: str, draw: random.Random, side: int = 160) -> bytes:
    """A photo of noise in this format."""
    rgb = np.random.default_rng(draw.randrange(2**32)).integers(
        0, 256, (side, side + 32, 3), dtype=np.uint8
    )
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, form)
    return data.getvalue()


def _call_until(end: float, port: int, draw: random.Random, findings: Findings) -> None:
    while time.monotonic() < end:
        kind = draw.choice(_ATTACKS)
        try:
            status, body = _call(port, kind, draw)
        except OSError as error:
            # A server stops reading a body that it refuses; the sender may notice that first.
            if kind not in ("too_many", "half_body", "long_head"):
                findings.faults.append(f"{kind}: no answer ({type(error).__name__}: {error})")
            findings.statuses[kind, 0] += 1
            continue
        except http.client.HTTPException as error:
            findings.faults.append(f"{kind}: a broken answer ({type(error).__name__})")
            continue
        findings.statuses[kind, status] += 1
        if fault := _fault(kind, status, body):
            findings.faults.append(f"{kind}: {fault}: status {status}: {body[:200]!r}")


def _fault(kind: str, status: int, body: bytes) -> str:
    """What is wrong with an answer; empty when nothing is."""
    if status == 200:
        return "" if json.loads(body)["results"] else "no result"
    if not 400 <= status < 500:
        return "neither an answer nor a refusal"
    if not body.startswith(b"{"):
        return (
            "" if kind == "long_head" else "a refusal without a reason"
        )  # cut before our code sees it
    return "" if json.loads(body)["error"]["message"] else "a refusal without a reason"


def _call(port: int, kind: str, draw: random.Random) -> tuple[int, bytes]:
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY.decode()}"}
    form = draw.choice(_FORMATS)
    photos, field_name = [photo(form, draw)], "photos"
    if kind == "mutant":
        photos = [mutate(photos[0], draw) for _ in range(3)]
    elif kind == "cut":
        photos = [photos[0][: draw.randrange(len(photos[0]))]]
    elif kind == "rubbish":
        photos = [draw.randbytes(draw.randrange(5000))]
    elif kind == "bomb":
        photos = [_bomb()]
    elif kind == "wrong_field":
        field_name = "photo"
    elif kind == "too_many":
        photos = [b"x"] * 100
    elif kind == "long_head":
        headers["X-Long"] = "x" * 40_000
    body = _form(field_name, photos)
    if kind == "no_form":
        body = draw.randbytes(2000)
    elif kind == "half_body":
        body = body[: len(body) // 2]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/photos", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _form(name: str, photos: list[bytes]) -> bytes:
    head = b'Content-Disposition: form-data; name="' + name.encode() + b'"; filename="p"\r\n\r\n'
    parts = b"".join(b"--" + _BOUNDARY + b"\r\n" + head + data + b"\r\n" for data in photos)
    return parts + b"--" + _BOUNDARY + b"--\r\n"


def _bomb() -> bytes:
    """A small file whose header says 400 million pixels."""
    data = bytearray()
    small = io.BytesIO()
    Image.new("1", (64, 64)).save(small, "PNG")
    data += small.getvalue()
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    crc = zlib.crc32(bytes(data[12:29]))
    data[29:33] = crc.to_bytes(4, "big")
    return bytes(data)


def _port_of(server: subprocess.Popen[str]) -> int:
    for line in server.stderr or ():
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError:
            raise SystemExit(f"the server does not start: {line.strip()}") from None
        if event.get("event") == "listening":
            return int(event["url"].rpartition(":")[2])
    raise SystemExit(f"the server ended with code {server.wait()}")


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status")
    text = status.read_text() if status.exists() else ""
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024 if "VmRSS:" in text else 0.0


def main() -> int:
    """0 when nothing went wrong, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python tests/trials/soak.py", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=10.0, metavar="N", help="how long (%(default)s)"
    )
    parser.add_argument(
        "--clients", type=int, default=4, metavar="N", help="callers at once (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="another seed, other input (%(default)s)"
    )
    parser.add_argument(
        "--model", metavar="FILE", help="the .onnx file; default: the one in the package"
    )
    arguments = parser.parse_args()
    options = ("--model", arguments.model) if arguments.model else ()
    findings = soak(
        60 * arguments.minutes, clients=arguments.clients, seed=arguments.seed, options=options
    )
    for (kind, status), count in sorted(findings.statuses.items()):
        print(f"{kind:12} {status or 'closed':>6} {count:8d}")
    if findings.memory_mib:
        print(
            f"memory {findings.memory_mib[-1]:.0f} MiB at the end, "
            f"{findings.growth_mib:+.1f} since the first fifth"
        )
    for fault, count in Counter(findings.faults).most_common(20):
        print(f"FAULT x{count}: {fault}")
    print(f"{sum(findings.statuses.values())} requests, {len(findings.faults)} faults")
    return 1 if findings.faults else 0


if __name__ == "__main__":
    sys.exit(main())
