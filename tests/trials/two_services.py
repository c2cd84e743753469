"""`python tests/trials/two_services.py`: two services on one PostgreSQL, one killed under load.

It starts the server and both services on this machine. Two reviewers decide each claim at the same
time on different services; then callers keep claims, one service is killed (SIGKILL), and they go
on with the other one. Nothing that was acknowledged may be lost, and no id may be stuck.

--namespaces: each service runs in a network namespace of its own, as on two machines. --cut: one
is not killed but loses its network, so that neither database nor callers hear of it.
"""

from __future__ import annotations

import argparse
import io
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from realdamage.claims.database import Database
from realdamage.service.auth import hash_key

_TESTS = Path(__file__).parents[1]
Server: Any = runpy.run_path(str(_TESTS / "postgres.py"))["Server"]
_Process: Any = runpy.run_path(str(_TESTS / "serving.py"))["Process"]
_KEYS = {name: f"{name}-" + "k" * 32 for name in ("shop", "ana", "bo")}
_ROLES = {"ana": "reviewer", "bo": "reviewer"}
_TIMEOUT_S = 60.0
_LOST_S = 15.0  # after which a caller takes a service without a network for dead
_STUCK_S = 120.0


@dataclass
class Findings:
    """acknowledged: ids that a service answered with 200. resent: ids whose answer was lost.
    waits: seconds until an answer. freed: of these, for a resent id until it could be used again.
    faults: what must not happen, in words."""

    acknowledged: set[str] = field(default_factory=set)
    resent: set[str] = field(default_factory=set)
    waits: list[float] = field(default_factory=list)
    freed: float = 0.0
    faults: list[str] = field(default_factory=list)
    decided: int = 0
    seconds: float = 0.0
    log_entries: int = 0


@dataclass(frozen=True)
class Machine:
    """Where a service runs. address: of its own. namespace, link: of its network, if not ours."""

    address: str = "127.0.0.1"
    namespace: str = ""
    link: str = ""

    def serve(self, *options: str) -> Any:
        """A process of `realdamage serve`."""
        inside = ("ip", "netns", "exec", self.namespace) if self.namespace else ()
        return _Process("--host", self.address, *options, inside=inside)

    def cut(self) -> None:
        """Take its network away."""
        _ip("link", "set", self.link, "down")


class Network:
    """A bridge on this machine and two network namespaces on it; needs root and iproute2."""

    def __init__(self) -> None:
        number = os.getpid() % 0xFFFF
        self._bridge, self._third = f"rd{number:x}", f"198.18.{number % 256}"
        self.here, self.net = f"{self._third}.1", f"{self._third}.0/24"
        names = [f"{self._bridge}-{one}" for one in "ab"]
        self.machines = [
            Machine(f"{self._third}.{host}", namespace=name, link=name)
            for host, name in enumerate(names, start=2)
        ]

    def __enter__(self) -> Network:
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("address", "add", f"{self.here}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for one in self.machines:
                inside = ("-n", one.namespace)
                _ip("netns", "add", one.namespace)
                peer = ("peer", "name", "eth0", "netns", one.namespace)
                _ip("link", "add", one.link, "type", "veth", *peer)
                _ip("link", "set", one.link, "master", self._bridge, "up")
                _ip(*inside, "address", "add", f"{one.address}/24", "dev", "eth0")
                _ip(*inside, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.machines:
            _ip("link", "delete", one.link, check=False)
            _ip("netns", "delete", one.namespace, check=False)
        _ip("link", "delete", self._bridge, check=False)


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=not check)


class Service:
    """A service and how callers reach it."""

    def __init__(self, machine: Machine, *options: str) -> None:
        self.timeout = _TIMEOUT_S
        self.process = machine.serve(*options)

    def call(self, method: str, path: str, by: str = "shop", **options: Any) -> httpx.Response:
        options |= {"headers": {"X-API-Key": _KEYS[by]}, "timeout": self.timeout}
        answer: httpx.Response = self.process.client.request(method, f"/v1/{path}", **options)
        return answer

    def keep(self, claim_id: str, seed: int) -> httpx.Response:
        """Send a claim of one photo, to be kept."""
        fields = {"claim_id": claim_id, "keep": "true"}
        return self.call("POST", "claims", files={"photos": _photo(seed)}, data=fields)

    def resend(self, claim_id: str, seed: int) -> httpx.Response:
        """Send a claim until the service that died no longer counts as judging it."""
        end = time.monotonic() + _STUCK_S
        while _code(answer := self.keep(claim_id, seed)) == "claim_under_way":
            if time.monotonic() > end:
                break
            time.sleep(0.2)
        return answer


def two_services(
    *,
    url: str,
    folder: Path,
    claims: int,
    callers: int,
    options: tuple[str, ...] = (),
    machines: Sequence[Machine] = (Machine(), Machine()),
    cut: bool = False,
) -> Findings:
    """Run the trial. url: of an empty database; "": a file in the folder. claims: acknowledged
    before the kill, and decided. callers: threads. options: of `realdamage serve`. cut: one loses
    its network instead.
    """
    found = Findings()
    lines = [f"{hash_key(key, name)} {_ROLES.get(name, '')}" for name, key in _KEYS.items()]
    given = ["--store", str(folder), "--api-key-hashes", ",".join(lines)]
    given += ["--database", url] if url else []
    with ExitStack() as stack:
        services = []
        for machine in machines:
            services.append(Service(machine, *given, *options))
            stack.callback(services[-1].process.kill)
        _decide_twice(services, found, min(claims, 10))
        services[0].timeout = _LOST_S if cut else _TIMEOUT_S
        lose = machines[0].cut if cut else services[0].process.kill
        _lose_one(services, found, claims, callers, lose)
        survivor = services[1]
        for claim_id in sorted(found.acknowledged):
            for path in (f"claims/{claim_id}", f"claims/{claim_id}/case"):
                if survivor.call("GET", path).status_code != 200:
                    found.faults.append(f"{claim_id}: acknowledged and lost ({path})")
    report = Database.of_store(folder, url).verify()
    found.faults += report.problems
    found.log_entries = len(report.entries)
    written = [one for one in report.entries if one["event"] == "evidence_written"]
    if len(written) != len(found.acknowledged):
        fault = f"{len(written)} claims in the log, {len(found.acknowledged)} acknowledged"
        found.faults.append(fault)
    return found


def _decide_twice(services: list[Service], found: Findings, count: int) -> None:
    """Two people decide each claim at the same time: one is heard, the other one has to read."""
    body = {"version": 1, "reason": "seen the photos", "action": "refund"}
    for number in range(count):
        claim_id, gate = f"decided-{number}", threading.Barrier(2)
        if services[number % 2].keep(claim_id, number).status_code == 200:
            found.acknowledged.add(claim_id)

        def decide(who: int, claim_id: str = claim_id, gate: Any = gate) -> int:
            gate.wait()
            path = f"claims/{claim_id}/decisions"
            return services[who].call("POST", path, ("ana", "bo")[who], json=body).status_code

        with ThreadPoolExecutor(2) as pool:
            statuses = sorted(pool.map(decide, range(2)))
        found.decided += 1
        if statuses != [200, 409]:
            found.faults.append(f"{claim_id}: two decisions at once were answered {statuses}")


def _lose_one(
    services: list[Service],
    found: Findings,
    claims: int,
    callers: int,
    lose: Callable[[], None],
) -> None:
    """Callers keep claims on both; the first service is lost after so many answers. Each caller
    then goes on with the other one, and sends again what was not answered."""
    begun, enough, over = time.monotonic(), threading.Event(), threading.Event()

    def call(caller: int) -> None:
        service, number = services[caller % 2], 0
        while not over.is_set():
            claim_id, start = f"c{caller}-{number}", time.monotonic()
            seed = 1000 * (caller + 1) + number
            try:
                answer = service.keep(claim_id, seed)
            except httpx.HTTPError:
                found.resent.add(claim_id)
                service, lost = services[1], time.monotonic()
                answer = service.resend(claim_id, seed)
                found.freed = max(found.freed, time.monotonic() - lost)
            found.waits.append(time.monotonic() - start)
            known = claim_id in found.resent and _code(answer) == "claim_exists"
            if answer.status_code == 200 or known:
                found.acknowledged.add(claim_id)
            else:
                found.faults.append(f"{claim_id}: {answer.status_code} {answer.text[:200]}")
            if answer.status_code == 200 and answer.json()["photos"][0]["duplicates"]:
                found.faults.append(f"{claim_id}: an honest retry looks like another claim")
            number += 1
            if len(found.waits) >= claims:
                enough.set()
            if len(found.waits) >= 2 * claims:
                over.set()

    with ThreadPoolExecutor(callers) as pool:
        running = [pool.submit(call, caller) for caller in range(callers)]
        enough.wait(600)
        lose()
        for one in running:
            one.result()
    found.seconds = time.monotonic() - begun
    if not found.resent:
        found.faults.append("the lost service owed nobody an answer: send more at once")


def _code(answer: httpx.Response) -> str:
    return "" if answer.status_code == 200 else str(answer.json()["error"]["code"])


def _photo(seed: int) -> bytes:
    rgb = np.random.default_rng(seed).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "JPEG", quality=85)
    return data.getvalue()


def main() -> int:
    """0 when nothing went wrong, 1 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python tests/trials/two_services.py", description=__doc__
    )
    parser.add_argument("--claims", type=int, default=100, help="before the kill (%(default)s)")
    parser.add_argument("--namespaces", action="store_true", help="a network for each service")
    parser.add_argument("--cut", action="store_true", help="with --namespaces: do not kill, unplug")
    arguments = parser.parse_args()
    if arguments.cut and not arguments.namespaces:
        parser.error("--cut needs --namespaces")
    with ExitStack() as stack:
        given: dict[str, Any] = {"cut": arguments.cut}
        network = stack.enter_context(Network()) if arguments.namespaces else None
        server = Server(is_safe=True, net=network.net if network else "")
        stack.callback(server.close)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url = server.new_url()
        if network:
            given["machines"] = network.machines
            url = url.replace("127.0.0.1", network.here)
        found = two_services(
            url=url,
            folder=Path(folder) / "store",
            claims=arguments.claims,
            callers=6,
            options=("--threads", "1", "--deadline", "60"),
            **given,
        )
    waits = np.percentile(found.waits, [50, 95, 99]) if found.waits else [0, 0, 0]
    print(f"decided by two at once   {found.decided}")
    print(f"acknowledged             {len(found.acknowledged)}, {len(found.resent)} sent again")
    print(f"claims a second          {len(found.waits) / max(found.seconds, 1e-9):.1f}")
    print(f"seconds until ids free   {found.freed:.1f} at most")
    print("seconds p50 p95 p99      " + " ".join(f"{one:.2f}" for one in waits))
    print(f"entries in the log       {found.log_entries}")
    for fault in found.faults[:20]:
        print(f"FAULT {fault}")
    print(f"{len(found.faults)} faults")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
