"""POST /v1/claims and what is stored of a claim: nothing unless asked, and everything gone when it should be."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from realdamage.claims import ClaimPolicy, EvidenceLog, judge_claim, verify_evidence
from realdamage.core.detector import Detector
from realdamage.core.model_file import read_model_file, with_metadata
from realdamage.errors import ConfigError, RealDamageError
from realdamage.service import app as app_module
from realdamage.service.keys import hash_key
from realdamage.service.refusals import Refusal
from realdamage.service.retention import Purged, purge
from realdamage.service.storage import ClaimStore

Serve = Callable[..., TestClient]
Encode = Callable[..., bytes]
SIZE = (640, 480)


def post(
    client: TestClient, photos: list[bytes], listings: list[bytes] | None = None, **fields: str
) -> Any:
    files = [("photos", (f"photo-{n}.jpg", data)) for n, data in enumerate(photos)]
    files += [("listings", (f"listing-{n}.jpg", data)) for n, data in enumerate(listings or [])]
    return client.post("/v1/claims", files=files, data=fields)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def with_gps(photo: bytes) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 30.123), 3: "E", 4: (11.0, 34.0, 31.5)})
    exif[0x010F] = "CameraMaker"
    out = io.BytesIO()
    with Image.open(io.BytesIO(photo)) as image:
        image.save(out, "JPEG", exif=exif, quality=90)
    return out.getvalue()


def test_a_claim_is_judged_and_nothing_is_stored(
    serve: Serve, encode: Encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = [encode(size=SIZE, noise=1), encode(size=SIZE, noise=1, red=True), b"broken"]
    client = serve()
    response = post(
        client, photos, [encode(size=SIZE, noise=1, seed=2)], text="It came broken", claim_id="R-1"
    )
    claim = response.json()
    assert response.status_code == 200
    assert (claim["claim_id"], claim["text"]) == ("R-1", "It came broken")
    assert claim["recommendation"] in ("approve", "ask_photo", "review", "escalate")
    outcomes = [
        photo["verdict"]["outcome"] if photo["verdict"] else photo["error"] != ""
        for photo in claim["photos"]
    ]
    assert outcomes == ["real", "synthetic", True]
    assert {reason["code"] for reason in claim["reasons"]} >= {
        "verdict_synthetic",
        "photo_unreadable",
    }
    assert "evidence_url" not in claim
    assert files_below(tmp_path) == set()
    assert client.get("/v1/claims/R-1").status_code == 404
    metrics = client.get("/metrics").text
    assert f'realdamage_claims_total{{recommendation="{claim["recommendation"]}"}} 1.0' in metrics
    assert 'realdamage_photos_total{outcome="unreadable"} 1.0' in metrics


def test_evidence_cites_the_settings_that_the_model_file_holds(
    serve: Serve, encode: Encode, model_file: Path, tmp_path: Path
) -> None:
    data, metadata, graph_sha256 = read_model_file(model_file)
    values = json.loads(metadata.to_json())
    del values["metrics"]  # as an older version wrote it, which did not know this key
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    stored = json.dumps(values | {"graph_sha256": graph_sha256, "policy_sha256": digest})
    path = tmp_path / "older.onnx"
    path.write_bytes(with_metadata(data, {"realdamage": stored}))
    photo = encode(size=SIZE)
    assert (
        judge_claim([("a.jpg", photo)], detector=Detector.load(path)).model["policy_sha256"]
        == digest
    )
    assert post(serve(model=path), [photo]).json()["model"]["policy_sha256"] == digest


def test_without_heat_maps(serve: Serve, encode: Encode) -> None:
    claim = post(serve(), [encode(size=SIZE)], heatmaps="false").json()
    assert claim["photos"][0]["verdict"]["heatmap"] is None


def test_requests_that_are_refused(serve: Serve, encode: Encode) -> None:
    client, photo = serve(), encode(size=SIZE)
    cases = [
        (post(client, []), 415, "not_multipart"),
        (post(client, [], [photo]), 422, "missing_field"),
        (post(client, [b"broken"]), 422, "unreadable_photo"),
        (post(client, [photo], keep="true"), 422, "no_store"),
        (post(client, [photo], keep="1"), 422, "invalid_field"),
        (post(client, [photo], claim_id="../x"), 422, "invalid_field"),
        (post(client, [photo], claim_id=""), 422, "invalid_field"),
        (post(client, [photo], text="x" * 20_001), 422, "invalid_field"),
        (post(client, [photo], text="x" * 70_000), 413, "too_large"),
        (post(client, [photo], txt="hello"), 422, "unknown_field"),
        (post(serve(max_pixels=10_000), [photo]), 422, "unreadable_photo"),
    ]
    for response, status, code in cases:
        assert (response.status_code, response.json()["error"]["code"]) == (status, code), (
            response.text
        )


def test_one_photo_that_is_too_large_fails_alone(serve: Serve, encode: Encode) -> None:
    small, large = encode(size=(96, 64)), encode(size=(97, 64))
    answer = post(serve(max_pixels=96 * 64), [small, large], [large])
    assert answer.status_code == 200
    claim = answer.json()
    assert [photo["error"] != "" for photo in claim["photos"]] == [False, True]
    assert "97x64 is 6208 pixels, at most 6144" in claim["photos"][1]["error"]
    assert "too large" in claim["listings"][0]["error"]


def test_a_kept_claim_can_be_read_checked_and_deleted(
    serve: Serve, encode: Encode, tmp_path: Path
) -> None:
    store, photo = tmp_path / "store", with_gps(encode(size=SIZE))
    client = serve(store=store)
    claim = post(client, [photo], keep="true", claim_id="R-2").json()
    assert claim["evidence_url"] == "/v1/claims/R-2/evidence.html"
    page = client.get(claim["evidence_url"])
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script" not in page.headers["content-security-policy"]
    assert "sandbox" in page.headers["content-security-policy"]
    stored = client.get("/v1/claims/R-2").json()
    assert stored["recommendation"] == claim["recommendation"]
    assert stored["photos"][0]["sha256"] == claim["photos"][0]["sha256"]
    assert verify_evidence(store / "claims" / "R-2").problems == ()
    kept = {name for name in files_below(store) if "sqlite" not in name}
    assert kept == {
        "log.jsonl",
        *(f"claims/R-2/{name}" for name in ("evidence.html", "evidence.json", "log.jsonl")),
    }
    blobs = [path.read_bytes() for path in store.rglob("*") if path.is_file()]
    assert not any(photo[:2000] in blob for blob in blobs), "no original is stored"
    assert not any(b"30.123" in blob or b"31.5" in blob for blob in blobs), "nor a position"

    again = post(client, [photo], keep="true", claim_id="R-2")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "claim_exists")
    assert client.delete("/v1/claims/R-2").json() == {"deleted": "R-2"}
    assert client.get("/v1/claims/R-2").status_code == 404
    assert client.get("/v1/claims/R-2/evidence.html").status_code == 404
    assert client.delete("/v1/claims/R-2").status_code == 404
    written, deleted = EvidenceLog(store / "log.jsonl").verify().entries
    assert (written["event"], deleted["event"]) == ("evidence_written", "claim_deleted")
    assert deleted["payload"] == {
        "claim_id": "R-2", "evidence": True, "photos": 1, "reviews": 0, "by": "", "reason": "request",
    }  # fmt: skip


def test_what_reviewers_said_of_a_claim_goes_with_it(
    serve: Serve, encode: Encode, tmp_path: Path
) -> None:
    client = serve(store=tmp_path / "store")
    photo = encode(size=SIZE)
    post(client, [photo], keep="true", claim_id="kept")
    digest = hashlib.sha256(photo).hexdigest()
    for claim_id in ("kept", "judged-only"):
        review = {
            "photo_sha256": digest,
            "decision": "real",
            "claim_id": claim_id,
            "note": "secret",
        }
        assert client.post("/v1/reviews", json=review).status_code == 201
        assert client.delete(f"/v1/claims/{claim_id}").json() == {"deleted": claim_id}
        assert client.get("/v1/reviews", params={"claim_id": claim_id}).json()["reviews"] == []
        assert client.delete(f"/v1/claims/{claim_id}").status_code == 404


def test_what_is_deleted_is_logged_with_the_key_that_asked(
    serve: Serve, encode: Encode, tmp_path: Path
) -> None:
    key = "k" * 32
    client = serve(store=tmp_path / "store", api_key_hashes=hash_key(key, "shop"))
    client.headers["X-API-Key"] = key
    post(client, [encode(size=SIZE), encode(size=SIZE, seed=1)], keep="true", claim_id="kept")
    photos = [encode(size=SIZE, seed=seed) for seed in range(3)]
    client.post(
        "/v1/photos", files=[("photos", ("photo.jpg", photo)) for photo in photos]
    )  # so that they are judged
    for claim_id, count in (("kept", 2), ("judged-only", 1), ("订单 7", 3)):
        for photo in photos[:count]:
            digest = hashlib.sha256(photo).hexdigest()
            review = {"photo_sha256": digest, "decision": "real", "claim_id": claim_id}
            assert client.post("/v1/reviews", json=review).status_code == 201
        assert client.delete(f"/v1/claims/{claim_id}").status_code == 200
        assert client.delete(f"/v1/claims/{claim_id}").status_code == 404
    entries = EvidenceLog(tmp_path / "store" / "log.jsonl").verify().entries
    assert [entry["event"] for entry in entries] == ["evidence_written", *["claim_deleted"] * 3]
    found = [
        [entry["payload"].get(key, 0) for key in ("claim_id", "photos", "reviews", "by")]
        for entry in entries[1:]
    ]
    assert found == [
        ["kept", 2, 2, "shop"],
        ["judged-only", 0, 1, "shop"],
        ["订单 7", 0, 3, "shop"],
    ]


def test_the_clock_is_confirmed_for_one_pass_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps months after the operator looked at it is in doubt again."""
    confirmed: list[bool] = []

    def purge_once(store: object, *, clock_confirmed: bool) -> Purged:
        confirmed.append(clock_confirmed)
        return Purged((), ())

    async def three_passes() -> None:
        settings = SimpleNamespace(review_days=None, clock_confirmed=True)
        task = asyncio.create_task(app_module._purge(None, SimpleNamespace(settings=settings)))  # type: ignore[arg-type]
        while len(confirmed) < 3:
            await asyncio.sleep(0.01)
        task.cancel()

    monkeypatch.setattr(app_module, "purge", purge_once)
    monkeypatch.setattr(app_module, "_PURGE_EVERY_S", 0)
    asyncio.run(three_passes())
    assert confirmed[:3] == [True, False, False]


def test_earlier_claims_are_remembered_only_when_kept(
    serve: Serve, encode: Encode, tmp_path: Path
) -> None:
    client, photo = serve(store=tmp_path / "store"), encode(size=SIZE)

    def earlier(**fields: str) -> list[str]:
        claim = post(client, [photo], **fields).json()
        return [seen["claim_id"] for seen in claim["photos"][0]["duplicates"]]

    assert earlier(claim_id="A") == []
    assert earlier(claim_id="B", keep="true") == [], "A was not kept"
    assert earlier(claim_id="C") == ["B"]
    assert earlier(claim_id="D", keep="true") == ["B"]
    client.delete("/v1/claims/B")
    assert earlier(claim_id="E") == ["D"]


def test_a_claim_that_fails_is_forgotten(
    serve: Serve, encode: Encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, photo = serve(store=tmp_path / "store"), encode(size=SIZE)

    def full(*_: Any) -> None:
        raise RealDamageError("no room on the disk")

    with monkeypatch.context() as patch:
        patch.setattr(ClaimStore, "keep", full)
        refused = post(client, [photo], claim_id="A", keep="true")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    claim = post(client, [photo], claim_id="B", keep="true").json()
    assert claim["photos"][0]["duplicates"] == []


def test_one_id_for_two_claims_at_once(tmp_path: Path) -> None:
    store = ClaimStore(tmp_path, 30)
    begun, end = threading.Event(), threading.Event()

    def first() -> None:
        with store.new("A"):
            begun.set()
            end.wait(5)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(first)
        assert begun.wait(5)
        with pytest.raises(Refusal, match="'A' is being judged"), store.new("A"):
            pass
        end.set()
        running.result(5)
    with store.new("A"):
        pass
    store.close()


@pytest.mark.parametrize(
    "claim_id", ["..", ".", "a/b", "", "-", "x" * 65, "a\0", "log.jsonl/..", "ä"]
)
def test_an_id_is_never_a_way_out_of_the_store(claim_id: str, tmp_path: Path) -> None:
    (tmp_path / "evidence.json").write_text("secret")
    store = ClaimStore(tmp_path / "store", 30)
    for call in (lambda: store.read(claim_id, "evidence.json"), lambda: store.delete(claim_id)):
        with pytest.raises(Refusal, match="no claim"):
            call()
    assert (tmp_path / "evidence.json").read_text() == "secret"
    store.close()


def test_old_claims_are_purged(serve: Serve, encode: Encode, tmp_path: Path) -> None:
    folder, photo = tmp_path / "store", encode(size=SIZE)
    client = serve(store=folder, retention_days=7)
    for name, days in (("old", 8), ("young", 6)):
        post(client, [photo], claim_id=name, keep="true")
        then = time.time() - 86400 * days
        os.utime(folder / "claims" / name / "evidence.json", (then, then))
    store = ClaimStore(folder, 7)
    assert purge(store) == Purged(("old",), ())
    assert purge(store) == Purged((), ())
    store.close()
    assert client.get("/v1/claims/old").status_code == 404
    assert client.get("/v1/claims/young").status_code == 200
    duplicates = post(client, [photo], claim_id="new").json()["photos"][0]["duplicates"]
    assert [seen["claim_id"] for seen in duplicates] == ["young"]


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RealDamageError, match="the store cannot be made"):
        ClaimStore(tmp_path / "file" / "store", 30)


def test_the_rules_of_the_policy_file_count(serve: Serve, encode: Encode, tmp_path: Path) -> None:
    client = serve()
    limits = ClaimPolicy.default().photos
    settings = client.app.state.service.settings  # type: ignore[attr-defined]
    assert settings.max_photos >= limits.at_most + limits.listings_at_most, (
        "the largest claim is one request"
    )
    assert (
        post(client, [encode()] * (limits.at_most + 1)).json()["error"]["code"] == "too_many_photos"
    )
    wrong = tmp_path / "policy.yaml"
    wrong.write_text("photos: {at_leest: 2}\n")
    with pytest.raises(ConfigError, match="at_leest"):
        serve(claim_policy=wrong)


def test_a_claim_past_its_deadline_leaves_nothing(
    serve: Serve, encode: Encode, tmp_path: Path
) -> None:
    client = serve(store=tmp_path / "store", deadline=0.05)
    service = client.app.state.service  # type: ignore[attr-defined]
    scorer = service.models.get().scorer
    fast = scorer._scorer
    scorer._scorer = lambda tiles: (time.sleep(0.3), fast(tiles))[1]
    late = post(client, [encode(size=SIZE)], claim_id="late", keep="true")
    assert late.status_code in (408, 504)
    end = time.monotonic() + 10
    while "realdamage_queue_photos 0.0" not in client.get("/metrics").text:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert not (tmp_path / "store" / "claims" / "late").exists()
    assert len(ClaimStore(tmp_path / "store", 30).index) == 0
