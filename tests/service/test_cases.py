"""Kept claims as cases: the queue, decisions by people, statements through links, repeats, jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from realdamage.claims import EvidenceLog, verify_evidence
from realdamage.claims.proof import check_proof
from realdamage.claims.videos import seal
from realdamage.service.auth import hash_key

Serve = Callable[..., TestClient]
Encode = Callable[..., bytes]
Wait = Callable[[Callable[[], object]], None]
KEYS = {name: f"{name}-" + "k" * 32 for name in ("shop", "ana", "bo", "ops")}
ROLES = {"ana": "reviewer", "bo": "reviewer", "ops": "admin"}
SIZE = (320, 240)


class Shop:
    """A service with a store, called by a shop, two reviewers and an admin."""

    def __init__(self, client: TestClient, encode: Encode) -> None:
        self.client, self.encode = client, encode
        self.service = client.app.state.service  # type: ignore[attr-defined]

    def call(self, method: str, path: str, by: str = "shop", **options: Any) -> Any:
        headers = {"X-API-Key": KEYS[by]} if by else {}
        headers |= options.pop("headers", {})
        return self.client.request(method, f"/v1/{path}", headers=headers, **options)

    def claim(self, claim_id: str, *, seed: int = 0, **fields: str) -> Any:
        photos = [("photos", ("a.jpg", self.encode(size=SIZE, seed=seed)))]
        data = {"keep": "true", "claim_id": claim_id, **fields}
        answer = self.call("POST", "claims", files=photos, data=data)
        assert answer.status_code in (200, 202), answer.text
        return answer

    def case(self, claim_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"claims/{claim_id}/case").json()
        return found

    def state(self, claim_id: str) -> str:
        return str(self.case(claim_id)["case"]["state"])

    def act(self, claim_id: str, what: str, by: str = "ana", **fields: Any) -> Any:
        version = self.case(claim_id)["case"]["version"]
        body = {"version": version, "reason": "seen the photos", **fields}
        return self.call("POST", f"claims/{claim_id}/{what}", by, json=body)

    def link(self, claim_id: str, side: str) -> str:
        made = self.call("POST", f"claims/{claim_id}/links", json={"side": side})
        assert made.status_code == 201, made.text
        return str(made.json()["path"]).removeprefix("s/")

    def state_it(self, token: str, files: Any = None, **fields: str) -> Any:
        files = files or [("photos", ("box.jpg", self.encode(size=SIZE, seed=9)))]
        return self.call("POST", f"statements/{token}", "", files=files, data=fields)


@pytest.fixture
def open_shop(
    serve: Serve, encode: Encode, tmp_path: Path, database_url: str
) -> Callable[..., Shop]:
    """`open_shop(policy="cases: {undo_minutes: 0}", **settings)`"""

    def start(policy: str = "", **settings: Any) -> Shop:
        if policy:
            path = tmp_path / "policy.yaml"
            path.write_text(policy)
            settings["claim_policy"] = path
        lines = [f"{hash_key(key, name)} {ROLES.get(name, '')}" for name, key in KEYS.items()]
        settings = {"store": tmp_path / "store", **settings}
        settings |= {"database": database_url}
        return Shop(serve(api_key_hashes=",".join(lines), **settings), encode)

    return start


def refusal(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.fixture
def move_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the clock of the store ahead, in hours."""

    def move(hours: float) -> None:
        for module in ("cases", "statements", "webhooks"):
            ahead = lambda: time.time() + 3600 * hours  # noqa: E731
            monkeypatch.setattr(f"realdamage.service.{module}.now", ahead)

    return move


# The queue


@pytest.mark.databases
def test_the_queue_is_searched_filtered_ordered_and_paged(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    for number, amount in enumerate(("10", "300.50", "20.5")):
        about = {"order_id": f"O-{number}", "product": "杯子 mug" if number else "lamp"}
        buyer = {"buyer": f"buyer {number}", "merchant": "m1" if number else "m2"}
        shop.claim(f"C-{number}", seed=number, amount=amount, currency="CNY", **about, **buyer)

    def found(**query: Any) -> list[str]:
        answer = shop.call("GET", "claims", params=query)
        assert answer.status_code == 200, answer.text
        return [case["claim_id"] for case in answer.json()["cases"]]

    assert found() == ["C-0", "C-1", "C-2"], "the nearest deadline first"
    assert found(order="expected_loss")[0] == "C-1"
    assert found(order="created", limit=1, offset=1) == ["C-1"]
    assert found(q="杯子") == ["C-1", "C-2"]
    assert found(q="o-2") == ["C-2"]
    assert found(q="buyer 1") == ["C-1"], "by the whole reference, which is not stored"
    assert found(q="buyer") == []
    assert found(q="%") == []
    assert found(merchant="m2") == ["C-0"]
    assert found(state="decided") == []
    answer = shop.call("GET", "claims", params={"limit": 1}).json()
    assert (answer["total"], answer["counts"]) == (3, {"open": 3})
    assert answer["cases"][0]["amount"] == "10.00"
    for wrong in ({"order": "amount"}, {"limit": 0}, {"state": "judging"}):
        assert shop.call("GET", "claims", params=wrong).status_code == 422


def test_what_is_stored_of_a_buyer_is_a_keyed_hash(
    open_shop: Callable[..., Shop], tmp_path: Path
) -> None:
    shop = open_shop()
    shop.claim("A", buyer="zhang.san@example", device="cookie-77")
    blobs = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"zhang.san" not in blobs
    assert b"cookie-77" not in blobs
    secret = (tmp_path / "store" / "secret").stat()
    assert secret.st_mode & 0o077 == 0


@pytest.mark.databases
def test_repeats_are_facts_and_change_no_recommendation(
    open_shop: Callable[..., Shop], move_clock: Callable[[float], None]
) -> None:
    shop = open_shop()
    first = shop.claim("A", seed=1, buyer="b").json()["recommendation"]
    shop.claim("B", seed=2, buyer="b", device="d")
    other = shop.claim("C", seed=3, buyer="b", device="d").json()
    assert other["recommendation"] == first
    shop.claim("D", seed=1, buyer="somebody else")
    facts = {"days": 30, "same_buyer": 2, "same_device": 1, "same_photo": 0}
    assert shop.case("C")["case"]["repeats"] == facts
    assert shop.case("D")["case"]["repeats"]["same_photo"] == 1
    shop.call("DELETE", "claims/A")
    assert shop.case("C")["case"]["repeats"]["same_buyer"] == 1
    assert shop.case("D")["case"]["repeats"]["same_photo"] == 0
    move_clock(24 * 31)
    assert shop.case("C")["case"]["repeats"]["same_buyer"] == 0, "they expire"


# Decisions


@pytest.mark.databases
def test_a_decision_is_a_persons_and_can_be_undone_until_it_is_final(
    open_shop: Callable[..., Shop], move_clock: Callable[[float], None]
) -> None:
    shop = open_shop()
    shop.claim("A", amount="50")
    assert refusal(shop.act("A", "decisions", "shop", action="refund")) == (403, "reviewer_only")
    assert refusal(shop.act("A", "decisions", action="refund", reason="")) == (422, "invalid_field")
    assert refusal(shop.act("A", "decisions", action="part")) == (422, "invalid_field")
    assert refusal(shop.act("A", "decisions", action="part", amount="60"))[0] == 422
    assert refusal(shop.act("A", "decisions", action="refund", amount="5"))[0] == 422
    decided = shop.act("A", "decisions", action="part", amount="20.50").json()
    assert decided["case"]["state"] == "decided"
    (decision,) = decided["decisions"]
    assert (decision["by"], decision["amount"], decision["can_undo"]) == ("ana", "20.50", True)
    assert refusal(shop.act("A", "decisions", action="refund")) == (409, "wrong_state")
    assert refusal(shop.act("A", "close")) == (409, "not_final")
    assert shop.act("A", "decisions/1/undo", "bo").json()["case"]["state"] == "open"
    assert shop.act("A", "decisions", action="refund").status_code == 200
    move_clock(1)
    assert refusal(shop.act("A", "decisions/2/undo")) == (409, "final")
    assert shop.act("A", "close").json()["case"]["state"] == "closed"
    names = [one["event"] for one in shop.case("A")["events"]][::-1]
    steps = ["evidence_written", "decided", "decision_undone", "decided", "decision_final"]
    assert names == [*steps, "closed"]


def test_without_keys_one_person_decides_but_does_not_refuse_alone(
    serve: Serve, encode: Encode, tmp_path: Path
) -> None:
    client = serve(store=tmp_path / "store")
    files = [("photos", ("a.jpg", encode(size=SIZE)))]
    kept = {"keep": "true", "claim_id": "A"}
    assert client.post("/v1/claims", files=files, data=kept).status_code == 200

    def act(what: str, version: int, **fields: str) -> Any:
        body = {"version": version, "reason": "seen the photos", **fields}
        return client.post(f"/v1/claims/A/{what}", json=body)

    proposed = act("decisions", 1, action="refuse").json()
    assert proposed["rules"] == {"second_person": ["refuse"], "is_local": True}
    confirmed = act("decisions/1/confirm", 2)
    assert refusal(confirmed) == (403, "same_person")
    assert "--api-keys" in confirmed.json()["error"]["message"]
    assert act("decisions/1/undo", 2).json()["case"]["state"] == "open"
    decided = act("decisions", 3, action="refund").json()
    assert decided["case"]["state"] == "decided"
    assert [one["by"] for one in decided["decisions"]] == ["local", "local"]


def test_behind_another_check_of_callers_a_decision_still_needs_a_key(
    serve: Serve, encode: Encode, tmp_path: Path
) -> None:
    client = serve(store=tmp_path / "store", no_auth=True)
    files = [("photos", ("a.jpg", encode(size=SIZE)))]
    client.post("/v1/claims", files=files, data={"keep": "true", "claim_id": "A"})
    body = {"version": 1, "reason": "seen the photos", "action": "refund"}
    decided = client.post("/v1/claims/A/decisions", json=body)
    assert refusal(decided) == (403, "reviewer_only")


def test_a_refusal_needs_a_second_person_and_an_appeal_a_third(
    open_shop: Callable[..., Shop],
) -> None:
    shop = open_shop("cases: {undo_minutes: 0}")
    shop.claim("A")
    proposed = shop.act("A", "decisions", action="refuse").json()
    assert proposed["case"]["state"] == "open"
    assert proposed["decisions"][0]["waits"]
    assert refusal(shop.act("A", "decisions", "bo", action="refund")) == (409, "waits_for_second")
    assert refusal(shop.act("A", "decisions/1/confirm")) == (403, "same_person")
    assert refusal(shop.act("A", "decisions/7/confirm", "bo")) == (404, "not_found")
    assert shop.act("A", "decisions/1/confirm", "bo").json()["case"]["state"] == "decided"
    assert refusal(shop.act("A", "decisions/1/confirm", "bo")) == (409, "wrong_state")
    assert shop.act("A", "appeal", "shop", side="buyer").json()["case"]["state"] == "appealed"
    for person in ("ana", "bo"):
        again = shop.act("A", "decisions", person, action="refund")
        assert refusal(again) == (403, "same_person")


@pytest.mark.databases
def test_of_two_reviewers_at_once_one_is_told_that_the_case_has_changed(
    open_shop: Callable[..., Shop],
) -> None:
    shop = open_shop()
    shop.claim("A")
    version = shop.case("A")["case"]["version"]
    body = {"version": version, "reason": "seen it", "action": "refund"}
    gate = threading.Barrier(2)

    def decide(by: str) -> Any:
        gate.wait(10)
        return shop.call("POST", "claims/A/decisions", by, json=body)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(decide, ("ana", "bo")))
    assert sorted(one.status_code for one in answers) == [200, 409]
    (lost,) = (one for one in answers if one.status_code == 409)
    assert refusal(lost) == (409, "changed_meanwhile")
    assert len(shop.case("A")["decisions"]) == 1


@pytest.mark.databases
def test_every_change_is_in_the_chained_log_and_texts_are_not(
    open_shop: Callable[..., Shop], tmp_path: Path, database_url: str
) -> None:
    shop = open_shop("cases: {undo_minutes: 0}")
    shop.claim("A")
    shop.act("A", "decisions", action="refund", reason="a private remark")
    assert shop.call("GET", "log").status_code == 403
    lines = shop.call("GET", "log", "ops").content
    assert b"private" not in lines
    path = tmp_path / "log.jsonl"
    path.write_bytes(lines)
    report = verify_evidence(tmp_path / "store" / "claims" / "A", log=path)
    assert (report.problems, report.entries) == ((), 3)
    proof = shop.call("GET", "claims/A/proof").json()
    proved = [one["event"] for one in check_proof(proof, proof["root"])]
    assert proved == ["evidence_written", "decided", "decision_final"]
    assert refusal(shop.call("GET", "claims/C-9/proof")) == (404, "not_found")
    assert shop.call("DELETE", "claims/A").status_code == 200
    assert refusal(shop.call("GET", "claims/A/case")) == (404, "not_found")
    if not database_url:
        stored = (tmp_path / "store" / "claims.sqlite").read_bytes()
        assert b"private" not in stored


# Statements


@pytest.mark.databases
def test_both_sides_are_heard_and_in_the_evidence(
    open_shop: Callable[..., Shop], tmp_path: Path, database_url: str
) -> None:
    shop = open_shop()
    shop.claim("A", order_id="O-1", product="mug", buyer="b")
    merchant, buyer = shop.link("A", "merchant"), shop.link("A", "buyer")
    assert shop.state("A") == "waiting_buyer"
    page = shop.call("GET", f"statements/{buyer}", "").json()
    assert (page["product"], page["order_id"], page["frames"]) == ("mug", "O-1", 6)
    assert (len(page["nonce"]), page["repeats"]["same_buyer"]) == (4, 0)
    assert shop.call("GET", f"statements/{merchant}", "").json()["repeats"] is None
    script = "<script>alert(1)</script>"
    assert shop.state_it(merchant, text=f"packed well\n包装完好{script}").status_code == 201
    frames = [("frames", (f"f{n}.jpg", shop.encode(size=SIZE, seed=20 + n))) for n in range(3)]
    start = int(time.time() * 1000)
    taken = ",".join(str(start + 400 * n) for n in range(3))
    sent = shop.state_it(buyer, frames, nonce=page["nonce"], taken=taken)
    assert sent.status_code == 201, sent.text
    found = shop.case("A")
    assert found["case"]["state"] == "open"
    sides = [(one["side"], one["text"]) for one in found["statements"]]
    assert sides == [("merchant", f"packed well\n包装完好{script}"), ("buyer", "")]
    assert "包装完好&lt;script&gt;" in shop.call("GET", "claims/A/evidence.html").text
    folder = found["statements"][1]["folder"]
    path = f"claims/A/files/statements/{folder}/statement.json"
    statement = shop.call("GET", path).json()
    recapture = statement["recapture"]
    assert [recapture[key] for key in ("nonce_matches", "in_order", "distinct")] == [True] * 3
    assert (recapture["screen"], recapture["virtual_camera"]) == ("not_checked",) * 2
    assert len(statement["photos"]) == 3
    picture = shop.call("GET", path.replace("statement.json", "photo-01.jpg"))
    assert picture.content[:2] == b"\xff\xd8"
    assert shop.call("GET", "claims/A/files/pictures/photo-01.jpg").status_code == 200
    assert shop.call("GET", "claims/A/files/log.jsonl").status_code == 404
    log = database_url or tmp_path / "store" / "claims.sqlite"
    evidence = tmp_path / "store" / "claims" / "A"
    assert verify_evidence(evidence, log=log).problems == ()
    (evidence / "statements" / folder / "photo-01.jpg").write_bytes(b"other")
    assert len(verify_evidence(evidence, log=log).problems) == 2, "in both logs"
    assert shop.call("DELETE", "claims/A").status_code == 200
    assert not evidence.exists()


@pytest.mark.databases
def test_links_work_once_until_they_expire_and_cannot_be_forged(
    open_shop: Callable[..., Shop], move_clock: Callable[[float], None]
) -> None:
    shop = open_shop("cases: {statement_hours: 2, undo_minutes: 0}")
    shop.claim("A")
    token = shop.link("A", "buyer")
    forged = token[:-1] + ("0" if token[-1] != "0" else "1")
    later = ".".join([token.split(".")[0], "99999999999", token.split(".")[2]])
    for wrong in (forged, later, "x", "..%2f.."):
        assert refusal(shop.state_it(wrong, text="hello"))[0] == 404
    assert refusal(shop.state_it(token, [("photos", ("a", b"no photo"))])) == (
        *(422, "unreadable_photo"),
    )
    with ThreadPoolExecutor(2) as pool:
        sent = list(pool.map(lambda _: shop.state_it(token, text="hello"), range(2)))
    assert sorted(one.status_code for one in sent) == [201, 410]
    assert refusal(shop.state_it(token, text="again")) == (410, "link_used")
    old, new = shop.link("A", "buyer"), shop.link("A", "buyer")
    assert refusal(shop.state_it(old, text="old")) == (410, "link_revoked")
    empty = shop.call("POST", f"statements/{new}", "", files=[("text", (None, ""))])
    assert refusal(empty) == (422, "missing_field")
    move_clock(3)
    assert refusal(shop.call("GET", f"statements/{new}", "")) == (410, "link_expired")
    move_clock(0)
    shop.act("A", "decisions", action="refund")
    assert refusal(shop.call("GET", f"statements/{new}", "")) == (409, "wrong_state")
    assert len(shop.case("A")["statements"]) == 1


def test_frames_out_of_order_or_with_another_number_are_said_so(
    open_shop: Callable[..., Shop],
) -> None:
    shop = open_shop()
    shop.claim("A")
    same = shop.encode(size=SIZE, seed=5)
    frames = [("frames", (f"f{n}.jpg", same)) for n in range(2)]
    token = shop.link("A", "buyer")
    assert shop.state_it(token, frames, nonce="nope", taken="2000,1000").status_code == 201
    folder = shop.case("A")["statements"][0]["folder"]
    found = shop.call("GET", f"claims/A/files/statements/{folder}/statement.json").json()
    names = ("nonce_matches", "in_order", "after_the_link", "distinct")
    assert [found["recapture"][name] for name in names] == [False] * 4


# Videos


@pytest.fixture(scope="module")
def video(trial: Callable[[str], Any], encode: Encode) -> bytes:
    """An H.264 video with metadata."""
    pytest.importorskip("av")
    photos = [encode(size=SIZE, seed=seed) for seed in (4, 5)]
    made: bytes = trial("case").packing_video(photos, SIZE)
    return made


def test_a_video_that_cannot_be_read_is_refused_and_another_may_be_sent(
    open_shop: Callable[..., Shop], video: bytes
) -> None:
    shop = open_shop()
    shop.claim("A")
    token = shop.link("A", "merchant")
    broken = [("videos", ("packing.mp4", video[: len(video) // 2]))]
    assert refusal(shop.state_it(token, broken, text="packed")) == (422, "video_damaged")
    assert shop.case("A")["statements"] == []
    assert shop.state_it(token, [("videos", ("packing.mp4", video))]).status_code == 201


def test_ten_gigabytes_are_refused_before_they_are_sent(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop(max_video_bytes=1000)
    shop.claim("A")
    token = shop.link("A", "merchant")
    huge = shop.call(
        "POST", f"statements/{token}", "", content=b"", headers={"Content-Length": str(10 << 30)}
    )
    assert refusal(huge) == (413, "too_large")
    more = shop.state_it(token, [("videos", ("packing.mp4", bytes(2000)))])
    assert refusal(more) == (413, "too_large")
    assert shop.call("GET", f"statements/{token}", "").status_code == 200, "it still works"


def test_a_sealed_packing_video_is_known_and_in_the_evidence(
    open_shop: Callable[..., Shop], video: bytes, tmp_path: Path
) -> None:
    path, seals = tmp_path / "packing.mp4", EvidenceLog(tmp_path / "seals.jsonl")
    path.write_bytes(video)
    entry = seal(path, "SO-1", seals)
    shop = open_shop(seals=seals.path)
    shop.claim("A", order_id="SO-1")
    sent = [("videos", ("packing.mp4", video)), ("videos", ("other.mp4", video + bytes(8)))]
    said = shop.state_it(shop.link("A", "merchant"), sent)
    assert said.status_code == 201, said.text
    folder = shop.case("A")["statements"][0]["folder"]
    found = shop.call("GET", f"claims/A/files/statements/{folder}/statement.json").json()
    first, other = found["videos"]
    (sealed,) = first["sealed"]
    assert (sealed["order"], sealed["time"], sealed["hash"]) == (
        *("SO-1", entry["time"], entry["hash"]),
    )
    assert (first["codec"], first["width"], first["varies"]) == ("h264", SIZE[0], False)
    assert first["made"].startswith("2026-11-30")
    assert other["sealed"] == []
    page = shop.call("GET", "claims/A/evidence.html").text
    assert page.count("Sealed for the order SO-1") == 1


# Jobs


@pytest.mark.databases
def test_a_claim_can_be_judged_after_its_request_was_answered(
    open_shop: Callable[..., Shop], wait_until: Wait, encode: Encode
) -> None:
    shop = open_shop()
    answer = shop.claim("A", later="true")
    job = answer.json()
    assert (answer.status_code, job["status"], job["claim_id"]) == (202, "running", "A")
    assert answer.headers["location"] == job["url"]

    def status(url: str) -> str:
        return str(shop.call("GET", url.removeprefix("/v1/")).json()["status"])

    wait_until(lambda: status(job["url"]) == "done")
    assert shop.state("A") == "open"
    photos = [("photos", ("a.jpg", encode(size=SIZE)))]
    again = {"later": "true", "keep": "true", "claim_id": "A"}
    twice = shop.call("POST", "claims", files=photos, data=again)
    assert refusal(twice) == (409, "claim_exists")
    lost = shop.call("POST", "claims", files=photos, data={"later": "true"})
    assert refusal(lost) == (422, "invalid_field")
    assert refusal(shop.call("GET", "jobs/nothing")) == (404, "not_found")


def test_cases_and_batches_need_a_store(serve: Serve) -> None:
    client = serve()
    assert refusal(client.get("/v1/claims")) == (404, "not_found")
    batch = client.post("/v1/batches", files=[("photos", ("A/1.jpg", b"x"))])
    assert refusal(batch) == (404, "not_found")
