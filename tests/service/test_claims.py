"""POST /v1/claims and what is stored of a claim: nothing unless asked, and everything gone when
it should be."""

import hashlib
import io
import json
import time

from PIL import Image

from realdamage.claims import ClaimPolicy, judge_claim, verify_evidence
from realdamage.claims.database import Database
from realdamage.core.detector import Detector
from realdamage.core.model_file import read_model_file, with_metadata
from realdamage.service.auth import hash_key
from realdamage.service.store import ClaimStore

SIZE = (320, 240)


def post(client, photos, listings=None, **fields):
    files = [("photos", (f"photo-{n}.jpg", data)) for n, data in enumerate(photos)]
    files += [("listings", (f"listing-{n}.jpg", data)) for n, data in enumerate(listings or [])]
    return client.post("/v1/claims", files=files, data=fields)


def review(client, photo, claim_id):
    """The status of a reviewer's decision on a photo."""
    digest = hashlib.sha256(photo).hexdigest()
    sent = {"photo_sha256": digest, "decision": "real", "claim_id": claim_id, "note": "secret"}
    return client.post("/v1/reviews", json=sent).status_code


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def with_gps(photo):
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 30.123), 3: "E", 4: (11.0, 34.0, 31.5)})
    exif[0x010F] = "CameraMaker"
    out = io.BytesIO()
    with Image.open(io.BytesIO(photo)) as image:
        image.save(out, "JPEG", exif=exif, quality=90)
    return out.getvalue()


def test_a_claim_is_judged_and_nothing_is_stored(serve, encode, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos = [encode(size=SIZE, noise=1), encode(size=SIZE, noise=1, red=True), b"broken"]
    listing = encode(size=SIZE, noise=1, seed=2)
    client = serve()
    response = post(client, photos, [listing], text="It broke", claim_id="R-1", heatmaps="false")
    claim = response.json()
    assert response.status_code == 200
    assert (claim["claim_id"], claim["text"]) == ("R-1", "It broke")
    assert claim["recommendation"] in ("approve", "ask_photo", "review", "escalate")
    verdicts = [photo["verdict"] for photo in claim["photos"]]
    assert [one and one["outcome"] for one in verdicts] == ["real", "synthetic", None]
    assert verdicts[0]["heatmap"] is None
    assert claim["photos"][2]["error"]
    codes = {reason["code"] for reason in claim["reasons"]}
    assert codes >= {"verdict_synthetic", "photo_unreadable"}
    assert "evidence_url" not in claim
    assert files_below(tmp_path) == set()
    assert client.get("/v1/claims/R-1").status_code == 404
    metrics = client.get("/metrics").text
    assert f'realdamage_claims_total{{recommendation="{claim["recommendation"]}"}} 1.0' in metrics
    assert 'realdamage_photos_total{outcome="unreadable"} 1.0' in metrics


def test_evidence_cites_the_settings_that_the_model_file_holds(serve, encode, model_file, tmp_path):
    data, metadata, graph_sha256 = read_model_file(model_file)
    values = json.loads(metadata.to_json())
    del values["metrics"]  # another version may not know this key
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    stored = json.dumps(values | {"graph_sha256": graph_sha256, "policy_sha256": digest})
    path = tmp_path / "other.onnx"
    path.write_bytes(with_metadata(data, {"realdamage": stored}))
    photo = encode(size=SIZE)
    alone = judge_claim([("a.jpg", photo)], detector=Detector.load(path))
    served = post(serve(model=path), [photo]).json()
    assert alone.model["policy_sha256"] == served["model"]["policy_sha256"] == digest


def test_requests_that_are_refused(serve, encode):
    client, photo = serve(), encode(size=SIZE)
    too_many = ClaimPolicy().photos.at_most + 1
    cases = [
        (post(client, [], [photo]), 422, "missing_field"),
        (post(client, [b"broken"]), 422, "unreadable_photo"),
        (post(client, [photo], keep="true"), 422, "no_store"),
        (post(client, [photo], keep="1"), 422, "invalid_field"),
        (post(client, [photo], claim_id="../x"), 422, "invalid_field"),
        (post(client, [photo], text="x" * 20_001), 422, "invalid_field"),
        (post(client, [photo], text="x" * 70_000), 413, "too_large"),
        (post(client, [photo] * too_many), 413, "too_many_photos"),
        (client.get("/v1/claims"), 404, "not_found"),
        (client.post("/v1/batches", files=[("photos", ("A/1.jpg", b"x"))]), 404, "not_found"),
    ]
    for response, status, code in cases:
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_a_kept_claim_can_be_read_checked_and_deleted(serve, encode, tmp_path):
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
    names = ("evidence.html", "evidence.json", "log.jsonl")
    kept = {name for name in files_below(store) if "sqlite" not in name}
    kept = {name for name in kept if not name.startswith("workers/")}
    pictures = {"claims/R-2/pictures/photo-01.jpg"}
    assert kept == {"secret", *(f"claims/R-2/{name}" for name in names), *pictures}
    blobs = [path.read_bytes() for path in store.rglob("*") if path.is_file()]
    assert not any(photo[:2000] in blob for blob in blobs), "no original is stored"
    assert not any(b"30.123" in blob or b"31.5" in blob for blob in blobs), "nor a position"

    again = post(client, [photo], keep="true", claim_id="R-2")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "claim_exists")
    lost = post(client, [photo], later="true")
    assert (lost.status_code, lost.json()["error"]["code"]) == (422, "invalid_field")
    assert client.delete("/v1/claims/R-2").json() == {"deleted": "R-2"}
    for path in ("/v1/claims/R-2", "/v1/claims/R-2/evidence.html"):
        assert client.get(path).status_code == 404
    assert client.delete("/v1/claims/R-2").status_code == 404


def test_reviews_go_with_their_claim_and_the_log_names_the_key_that_asked(serve, encode, tmp_path):
    client = serve(store=tmp_path / "store", api_key_hashes=hash_key("k" * 32, "shop"))
    client.headers["X-API-Key"] = "k" * 32
    photos = [encode(size=SIZE, seed=seed) for seed in range(3)]
    post(client, photos[:2], keep="true", claim_id="kept")
    post(client, photos)  # so that all are judged
    for claim_id, count in (("kept", 2), ("judged-only", 1), ("订单 7", 3)):
        assert [review(client, photo, claim_id) for photo in photos[:count]] == [201] * count
        assert client.delete(f"/v1/claims/{claim_id}").json() == {"deleted": claim_id}
        found = client.get("/v1/reviews", params={"claim_id": claim_id})
        assert found.json()["reviews"] == []
        assert client.delete(f"/v1/claims/{claim_id}").status_code == 404
    entries = Database(tmp_path / "store" / "claims.sqlite").verify().entries
    assert [entry["event"] for entry in entries] == ["evidence_written", *["claim_deleted"] * 3]
    first, *others = [entry["payload"] for entry in entries[1:]]
    about = {"evidence": True, "photos": 2, "reviews": 2, "statements": 0, "by": "shop"}
    about["reason"] = "request"
    assert first == {"claim_id": "kept", **about}
    counted = [(one["claim_id"], one.get("photos", 0), one["reviews"]) for one in others]
    assert counted == [("judged-only", 0, 1), ("订单 7", 0, 3)]


def test_earlier_claims_are_remembered_only_when_kept(serve, encode, tmp_path):
    client, photo = serve(store=tmp_path / "store"), encode(size=SIZE)

    def earlier(claim_id, **fields):
        claim = post(client, [photo], claim_id=claim_id, **fields).json()
        return [seen["claim_id"] for seen in claim["photos"][0]["duplicates"]]

    assert earlier("A") == []
    assert earlier("B", keep="true") == [], "A was not kept"
    assert earlier("C") == ["B"]
    assert earlier("D", keep="true") == ["B"]
    client.delete("/v1/claims/B")
    assert earlier("E") == ["D"]


def test_a_claim_past_its_deadline_leaves_nothing(serve, encode, tmp_path, wait_until):
    client = serve(store=tmp_path / "store", deadline=0.05)
    shared = client.app.state.service.loaded_model().scorer
    fast = shared._scorer
    shared._scorer = lambda tiles: (time.sleep(0.3), fast(tiles))[1]
    late = post(client, [encode(size=SIZE)], claim_id="late", keep="true")
    assert late.status_code in (408, 504)
    wait_until(lambda: "realdamage_queue_photos 0.0" in client.get("/metrics").text)
    store = ClaimStore(tmp_path / "store", 30)
    assert (list(store.claims.iterdir()), len(store.index)) == ([], 0)
    store.close()
