"""Kept claims as cases: the queue, decisions by people, statements through links, repeats."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from realdamage.claims import EvidenceLog, verify_evidence
from realdamage.claims.proof import check_proof
from realdamage.claims.videos import seal

ROLES = {"shop": "", "ana": "reviewer", "bo": "reviewer", "ops": "admin"}
FINAL_AT_ONCE = "cases: {undo_minutes: 0}"


class Desk:
    """A shop whose claims are cases; reads and changes them as people do."""

    def __init__(self, shop):
        self.shop, self.call, self.claim = shop, shop.call, shop.claim

    def case(self, claim_id):
        return self.call("GET", f"claims/{claim_id}/case").json()

    def act(self, claim_id, what, by="ana", **fields):
        version = self.case(claim_id)["case"]["version"]
        body = {"version": version, "reason": "seen the photos", **fields}
        return self.call("POST", f"claims/{claim_id}/{what}", by, json=body)

    def link(self, claim_id, side):
        made = self.call("POST", f"claims/{claim_id}/links", json={"side": side})
        assert made.status_code == 201, made.text
        return str(made.json()["path"]).removeprefix("s/")

    def state_it(self, token, files=None, **fields):
        files = files or self.shop.photos(9)
        return self.call("POST", f"statements/{token}", "", files=files, data=fields)

    def statement(self, claim_id, number):
        """Its folder below the claim's, and what is stored of it."""
        folder = "statements/" + self.case(claim_id)["statements"][number]["folder"]
        path = f"claims/{claim_id}/files/{folder}/statement.json"
        return folder, self.call("GET", path).json()


@pytest.fixture
def open_desk(open_shop, tmp_path):
    """`open_desk("cases: {undo_minutes: 0}", **settings)`"""

    def start(policy="", **settings):
        if policy:
            settings["claim_policy"] = tmp_path / "policy.yaml"
            settings["claim_policy"].write_text(policy)
        return Desk(open_shop(ROLES, **settings))

    return start


def refusal(response):
    return response.status_code, response.json()["error"]["code"]


@pytest.fixture
def move_clock(monkeypatch):
    """Set the clock of the store ahead, in hours."""

    def move(hours):
        for module in ("cases", "statements", "webhooks"):
            ahead = lambda: time.time() + 3600 * hours  # noqa: E731
            monkeypatch.setattr(f"realdamage.service.{module}.now", ahead)

    return move


# The queue


@pytest.mark.databases
def test_the_queue_is_searched_filtered_ordered_and_paged(open_desk, tmp_path):
    desk = open_desk()
    for number, amount in enumerate(("10", "300.50", "20.5")):
        about = {"order_id": f"O-{number}", "product": "杯子 mug" if number else "lamp"}
        about |= {"buyer": f"zhang.san{number}@example", "device": f"cookie-{number}"}
        about |= {"merchant": "m1" if number else "m2", "amount": amount, "currency": "CNY"}
        desk.claim(f"C-{number}", seed=number, **about)

    def found(**query):
        answer = desk.call("GET", "claims", params=query)
        assert answer.status_code == 200, answer.text
        return [case["claim_id"] for case in answer.json()["cases"]]

    assert found() == ["C-0", "C-1", "C-2"], "the nearest deadline first"
    assert found(order="expected_loss")[0] == "C-1"
    assert found(order="created", limit=1, offset=1) == ["C-1"]
    assert found(q="杯子") == ["C-1", "C-2"]
    assert found(q="o-2") == ["C-2"]
    assert found(q="zhang.san1@example") == ["C-1"], "by the whole reference, which is not stored"
    assert found(q="zhang.san") == []
    assert found(q="%") == []
    assert found(merchant="m2") == ["C-0"]
    assert found(state="decided") == []
    answer = desk.call("GET", "claims", params={"limit": 1}).json()
    assert (answer["total"], answer["counts"]) == (3, {"open": 3})
    assert answer["cases"][0]["amount"] == "10.00"
    for wrong in ({"order": "amount"}, {"limit": 0}, {"state": "judging"}):
        assert desk.call("GET", "claims", params=wrong).status_code == 422
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"zhang.san" not in files, "of buyer and device only keyed hashes are stored"
    assert b"cookie-" not in files
    assert (tmp_path / "store" / "secret").stat().st_mode & 0o077 == 0


@pytest.mark.databases
def test_repeats_are_facts_and_change_no_recommendation(open_desk, move_clock):
    desk = open_desk()

    def repeats(claim_id):
        return desk.case(claim_id)["case"]["repeats"]

    first = desk.claim("A", seed=1, buyer="b").json()["recommendation"]
    desk.claim("B", seed=2, buyer="b", device="d")
    other = desk.claim("C", seed=3, buyer="b", device="d").json()
    assert other["recommendation"] == first
    desk.claim("D", seed=1, buyer="somebody else")
    assert repeats("C") == {"days": 30, "same_buyer": 2, "same_device": 1, "same_photo": 0}
    assert repeats("D")["same_photo"] == 1
    desk.call("DELETE", "claims/A")
    assert repeats("C")["same_buyer"] == 1
    assert repeats("D")["same_photo"] == 0
    move_clock(24 * 31)
    assert repeats("C")["same_buyer"] == 0, "they expire"


# Decisions


def test_a_decision_is_a_persons_and_can_be_undone_until_it_is_final(open_desk, move_clock):
    desk = open_desk()
    desk.claim("A", amount="50")
    assert refusal(desk.act("A", "decisions", "shop", action="refund")) == (403, "reviewer_only")
    for wrong in (
        {"action": "refund", "reason": ""},
        {"action": "part"},
        {"action": "part", "amount": "60"},
        {"action": "refund", "amount": "5"},
    ):
        assert refusal(desk.act("A", "decisions", **wrong)) == (422, "invalid_field")
    decided = desk.act("A", "decisions", action="part", amount="20.50").json()
    assert decided["case"]["state"] == "decided"
    (decision,) = decided["decisions"]
    assert (decision["by"], decision["amount"], decision["can_undo"]) == ("ana", "20.50", True)
    assert refusal(desk.act("A", "decisions", action="refund")) == (409, "wrong_state")
    assert refusal(desk.act("A", "close")) == (409, "not_final")
    assert desk.act("A", "decisions/1/undo", "bo").json()["case"]["state"] == "open"
    assert desk.act("A", "decisions", action="refund").status_code == 200
    move_clock(1)
    assert refusal(desk.act("A", "decisions/2/undo")) == (409, "final")
    assert desk.act("A", "close").json()["case"]["state"] == "closed"
    names = [one["event"] for one in desk.case("A")["events"]][::-1]
    steps = ["evidence_written", "decided", "decision_undone", "decided", "decision_final"]
    assert names == [*steps, "closed"]


def test_without_keys_one_person_decides_but_does_not_refuse_alone(open_shop, tmp_path):
    desk = Desk(open_shop())
    desk.claim("A")
    proposed = desk.act("A", "decisions", action="refuse").json()
    assert proposed["rules"] == {"second_person": ["refuse"], "is_local": True}
    confirmed = desk.act("A", "decisions/1/confirm")
    assert refusal(confirmed) == (403, "same_person")
    assert "--api-keys" in confirmed.json()["error"]["message"]
    assert desk.act("A", "decisions/1/undo").json()["case"]["state"] == "open"
    decided = desk.act("A", "decisions", action="refund").json()
    assert decided["case"]["state"] == "decided"
    assert [one["by"] for one in decided["decisions"]] == ["local", "local"]
    # Behind another check of callers a decision still needs a key.
    behind = Desk(open_shop(store=tmp_path / "other", no_auth=True))
    behind.claim("A")
    assert refusal(behind.act("A", "decisions", action="refund")) == (403, "reviewer_only")


def test_a_refusal_needs_a_second_person_and_an_appeal_a_third(open_desk):
    desk = open_desk(FINAL_AT_ONCE)
    desk.claim("A")
    proposed = desk.act("A", "decisions", action="refuse").json()
    assert proposed["case"]["state"] == "open"
    assert proposed["decisions"][0]["waits"]
    assert refusal(desk.act("A", "decisions", "bo", action="refund")) == (409, "waits_for_second")
    assert refusal(desk.act("A", "decisions/1/confirm")) == (403, "same_person")
    assert refusal(desk.act("A", "decisions/7/confirm", "bo")) == (404, "not_found")
    assert desk.act("A", "decisions/1/confirm", "bo").json()["case"]["state"] == "decided"
    assert refusal(desk.act("A", "decisions/1/confirm", "bo")) == (409, "wrong_state")
    assert desk.act("A", "appeal", "shop", side="buyer").json()["case"]["state"] == "appealed"
    for person in ("ana", "bo"):
        again = desk.act("A", "decisions", person, action="refund")
        assert refusal(again) == (403, "same_person")


def test_of_two_reviewers_at_once_one_is_told_that_the_case_has_changed(open_desk):
    desk = open_desk()
    desk.claim("A")
    body = {"version": 1, "reason": "seen it", "action": "refund"}
    gate = threading.Barrier(2)

    def decide(by):
        gate.wait(10)
        return desk.call("POST", "claims/A/decisions", by, json=body)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(decide, ("ana", "bo")))
    (lost,) = (one for one in answers if one.status_code != 200)
    assert refusal(lost) == (409, "changed_meanwhile")
    assert len(desk.case("A")["decisions"]) == 1


def test_every_change_is_in_the_chained_log_and_texts_are_not(open_desk, tmp_path):
    desk = open_desk(FINAL_AT_ONCE)
    desk.claim("A")
    desk.act("A", "decisions", action="refund", reason="a private remark")
    assert desk.call("GET", "log").status_code == 403
    lines = desk.call("GET", "log", "ops").content
    assert b"private" not in lines
    path = tmp_path / "log.jsonl"
    path.write_bytes(lines)
    report = verify_evidence(tmp_path / "store" / "claims" / "A", log=path)
    assert (report.problems, report.entries) == ((), 3)
    proof = desk.call("GET", "claims/A/proof").json()
    proved = [one["event"] for one in check_proof(proof, proof["root"])]
    assert proved == ["evidence_written", "decided", "decision_final"]
    assert refusal(desk.call("GET", "claims/C-9/proof")) == (404, "not_found")
    assert desk.call("DELETE", "claims/A").status_code == 200
    assert refusal(desk.call("GET", "claims/A/case")) == (404, "not_found")
    assert b"private" not in (tmp_path / "store" / "claims.sqlite").read_bytes()


# Statements


def test_both_sides_are_heard_and_in_the_evidence(open_desk, tmp_path):
    desk = open_desk()
    desk.claim("A", order_id="O-1", product="mug", buyer="b")
    merchant, buyer = desk.link("A", "merchant"), desk.link("A", "buyer")
    assert desk.case("A")["case"]["state"] == "waiting_buyer"
    page = desk.call("GET", f"statements/{buyer}", "").json()
    assert (page["product"], page["order_id"], page["frames"]) == ("mug", "O-1", 6)
    assert (len(page["nonce"]), page["repeats"]["same_buyer"]) == (4, 0)
    assert desk.call("GET", f"statements/{merchant}", "").json()["repeats"] is None
    said = "packed well\n包装完好<script>alert(1)</script>"
    assert desk.state_it(merchant, text=said).status_code == 201
    start = int(time.time() * 1000)
    taken = ",".join(str(start + 400 * n) for n in range(3))
    frames = desk.shop.photos(20, 21, 22, field="frames")
    sent = desk.state_it(buyer, frames, nonce=page["nonce"], taken=taken)
    assert sent.status_code == 201, sent.text
    found = desk.case("A")
    assert found["case"]["state"] == "open"
    sides = [(one["side"], one["text"]) for one in found["statements"]]
    assert sides == [("merchant", said), ("buyer", "")]
    assert "包装完好&lt;script&gt;" in desk.call("GET", "claims/A/evidence.html").text
    folder, statement = desk.statement("A", 1)
    recapture = statement["recapture"]
    facts = ("nonce_matches", "in_order", "after_the_link", "distinct")
    assert [recapture[name] for name in facts] == [True] * 4
    assert (recapture["screen"], recapture["virtual_camera"]) == ("not_checked",) * 2
    assert len(statement["photos"]) == 3
    for path in (f"{folder}/photo-01.jpg", "pictures/photo-01.jpg"):
        picture = desk.call("GET", f"claims/A/files/{path}")
        assert picture.content[:2] == b"\xff\xd8"
    assert desk.call("GET", "claims/A/files/log.jsonl").status_code == 404
    log, evidence = tmp_path / "store" / "claims.sqlite", tmp_path / "store" / "claims" / "A"
    assert verify_evidence(evidence, log=log).problems == ()
    (evidence / folder / "photo-01.jpg").write_bytes(b"other")
    assert len(verify_evidence(evidence, log=log).problems) == 2, "in both logs"

    same = desk.shop.photos(5, 5, field="frames")
    again = desk.state_it(desk.link("A", "buyer"), same, nonce="nope", taken="2000,1000")
    assert again.status_code == 201
    recapture = desk.statement("A", 2)[1]["recapture"]
    assert [recapture[name] for name in facts] == [False] * 4
    assert desk.call("DELETE", "claims/A").status_code == 200
    assert not evidence.exists()


@pytest.mark.databases
def test_links_work_once_until_they_expire_and_cannot_be_forged(open_desk, move_clock):
    desk = open_desk("cases: {statement_hours: 2, undo_minutes: 0}")
    desk.claim("A")
    token = desk.link("A", "buyer")
    forged = token[:-1] + ("0" if token[-1] != "0" else "1")
    later = ".".join([token.split(".")[0], "99999999999", token.split(".")[2]])
    for wrong in (forged, later, "x", "..%2f.."):
        assert refusal(desk.state_it(wrong, text="hello"))[0] == 404
    unreadable = desk.state_it(token, [("photos", ("a", b"no photo"))])
    assert refusal(unreadable) == (422, "unreadable_photo")
    with ThreadPoolExecutor(2) as pool:
        sent = list(pool.map(lambda _: desk.state_it(token, text="hello"), range(2)))
    assert sorted(one.status_code for one in sent) == [201, 410]
    assert refusal(desk.state_it(token, text="again")) == (410, "link_used")
    old, new = desk.link("A", "buyer"), desk.link("A", "buyer")
    assert refusal(desk.state_it(old, text="old")) == (410, "link_revoked")
    empty = desk.state_it(new, [("text", (None, ""))])
    assert refusal(empty) == (422, "missing_field")
    move_clock(3)
    assert refusal(desk.call("GET", f"statements/{new}", "")) == (410, "link_expired")
    move_clock(0)
    desk.act("A", "decisions", action="refund")
    assert refusal(desk.call("GET", f"statements/{new}", "")) == (409, "wrong_state")
    assert len(desk.case("A")["statements"]) == 1


def test_a_sealed_packing_video_is_known_and_a_broken_or_large_one_is_refused(
    open_desk, trial, encode, tmp_path
):
    pytest.importorskip("av")
    photos = [encode(size=(320, 240), seed=seed) for seed in (4, 5)]
    video = trial("case").packing_video(photos, (320, 240))  # H.264, with metadata
    path, seals = tmp_path / "packing.mp4", EvidenceLog(tmp_path / "seals.jsonl")
    path.write_bytes(video)
    entry = seal(path, "SO-1", seals)
    desk = open_desk(seals=seals.path, max_video_bytes=len(video) + 8)
    desk.claim("A", order_id="SO-1")
    token = desk.link("A", "merchant")

    def send(*videos):
        return desk.state_it(token, [("videos", (f"{len(one)}.mp4", one)) for one in videos])

    ten_gb = {"content": b"", "headers": {"Content-Length": str(10 << 30)}}
    huge = desk.shop.client.post(f"/v1/statements/{token}", **ten_gb)
    assert refusal(huge) == (413, "too_large")
    assert refusal(send(video + bytes(9))) == (413, "too_large")
    assert refusal(send(video[: len(video) // 2])) == (422, "video_damaged")
    assert desk.case("A")["statements"] == []
    said = send(video, video + bytes(8))
    assert said.status_code == 201, said.text
    first, other = desk.statement("A", 0)[1]["videos"]
    (sealed,) = first["sealed"]
    assert sealed == {"order": "SO-1", "time": entry["time"], "hash": entry["hash"]}
    assert (first["codec"], first["width"], first["varies"]) == ("h264", 320, False)
    assert first["made"].startswith("2026-11-30")
    assert other["sealed"] == []
    page = desk.call("GET", "claims/A/evidence.html").text
    assert page.count("Sealed for the order SO-1") == 1
