"""POST /v1/photos: what a photo gets, and what becomes of a request that cannot be answered."""

import asyncio
import base64
import io
import itertools
import json
import tempfile

import pytest
from PIL import Image

from realdamage.core.detector import Detector
from realdamage.errors import UsageError

HEAD = b'--x\r\nContent-Disposition: form-data; name="photos"; filename="a"\r\n\r\n'
FORM = "multipart/form-data; boundary=x"


def files(*photos, field="photos"):
    return [(field, (f"{index}.jpg", data)) for index, data in enumerate(photos)]


def refused(response, status, code):
    """The message of a refusal, after checking its form."""
    body = response.json()
    assert (response.status_code, body["error"]["code"]) == (status, code), response.text
    assert set(body["error"]) == {"code", "message", "request_id"}
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    return body["error"]["message"]


def test_a_photo_gets_the_verdict_of_the_wrapper(serve, encode, model_file):
    photos, client = [encode(), encode("PNG", red=True)], serve()
    answer = client.post("/v1/photos", files=files(*photos)).json()
    verdicts = Detector.load(model_file).predict(photos)
    expected = [json.loads(verdict.to_json()) for verdict in verdicts]
    assert [result["verdict"] for result in answer["results"]] == expected
    assert [result["name"] for result in answer["results"]] == ["0.jpg", "1.jpg"]
    assert [value["outcome"] for value in expected] == ["real", "synthetic"]
    with Image.open(io.BytesIO(base64.b64decode(expected[1]["heatmap"]))) as heatmap:
        assert heatmap.size == (6, 4)
    assert answer["model_version"] == "test-1"
    assert answer["graph_sha256"] == expected[0]["graph_sha256"]
    given = {"heatmaps": "false", "prior": "0.01"}
    rare = client.post("/v1/photos", files=files(photos[0]), data=given).json()
    verdict = rare["results"][0]["verdict"]
    assert verdict["heatmap"] is None
    expected_rare = Detector.load(model_file, prior=0.01).predict(photos[0])
    assert verdict["probability"] == expected_rare.probability
    assert verdict["score"] == expected[0]["score"]


def test_signers_under_the_list_of_authorities_are_trusted(serve, encode, signing, tmp_path):
    anchors = tmp_path / "anchors.pem"
    anchors.write_text(signing.authority)
    sent = files(signing.sign("digitalCapture", data=encode()))
    for given, expected in ((anchors, "trusted"), (None, "untrusted")):
        client = serve(trust_anchors=given)
        photo = client.post("/v1/photos", files=sent).json()["results"][0]["provenance"]
        claim = client.post("/v1/claims", files=sent).json()["photos"][0]["provenance"]
        for provenance in (photo, claim):
            assert provenance["findings"][0]["fields"]["validation"] == expected
    anchors.write_text("none")
    with pytest.raises(UsageError, match=r"anchors\.pem"):
        serve(trust_anchors=anchors)


def test_a_broken_photo_fails_alone(serve, encode):
    photos = (encode()[:400], b"", encode(), b"%PDF-1.7", encode(size=(100, 100)))
    answer = serve(max_pixels=6144).post("/v1/photos", files=files(*photos))
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert ["verdict" in result for result in results] == [False, False, True, False, False]
    assert {results[i]["error"]["code"] for i in (0, 1, 3, 4)} == {"unreadable_photo"}
    assert results[1]["error"]["message"].startswith("1.jpg: ")
    assert "100x100 is 10000 pixels, at most 6144" in results[4]["error"]["message"]


def test_fields_and_bodies_that_are_missing_unknown_or_wrong(serve, encode):
    client, photo = serve(), files(encode())

    def post(sent, **data):
        return client.post("/v1/photos", files=sent, data=data)

    for prior in ("0", "1", "nan", "half"):
        assert "prior" in refused(post(photo, prior=prior), 422, "invalid_field")
    assert "heatmaps" in refused(post(photo, heatmaps="no"), 422, "invalid_field")
    assert "photos" in refused(post(files(b"x", field="photo")), 422, "unknown_field")
    refused(post({"heatmaps": (None, "true")}), 422, "missing_field")
    refused(post({"photos": (None, "text")}), 422, "not_a_file")
    refused(post([*photo, ("prior", (None, b"\xff"))]), 422, "invalid_field")
    refused(post([*photo, *[("prior", (None, b"0.1"))] * 2]), 422, "invalid_field")
    long_name = [("photos", ("a" * 9000, b"x"))]
    refused(post(long_name), 400, "malformed")
    refused(client.post("/v1/photos", content=encode()), 415, "not_multipart")
    for body, kind in ((b"--x", "multipart/form-data"), (HEAD + b"ha", FORM)):
        response = client.post("/v1/photos", content=body, headers={"content-type": kind})
        refused(response, 400, "malformed")


def test_limits_in_number_and_bytes(serve, encode):
    photo = encode()
    client = serve(max_photos=2, max_photo_bytes=len(photo), max_body_bytes=4 * len(photo))
    assert client.post("/v1/photos", files=files(photo, photo)).status_code == 200
    many = client.post("/v1/photos", files=files(*[b"x"] * 3))
    assert " 2 " in refused(many, 413, "too_many_photos")
    for sent, limit in ((photo + b"x", len(photo)), (photo * 5, 4 * len(photo))):
        large = client.post("/v1/photos", files=files(sent))
        assert f"more than {limit} bytes" in refused(large, 413, "too_large")


def drive(client, pieces, **headers):
    """Sends a body piece by piece without Content-Length: (pieces that were read, status, body
    of the answer)."""
    given = {"host": "127.0.0.1", "content-type": FORM} | headers
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/photos",
        "query_string": b"",
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in given.items()],
    }
    sent = []
    taken = 0

    async def receive():
        nonlocal taken
        piece = next(pieces, None)
        if piece is None:
            await asyncio.sleep(10)
        taken += 1
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(message):
        sent.append(message)

    asyncio.run(client.app(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return taken, sent[0]["status"], json.loads(body)["error"]


def test_a_body_is_refused_while_it_comes(serve):
    """An endless body is read as far as the limit, whatever its headers say; a slow one, until the
    deadline."""
    client = serve(max_body_bytes=100_000, max_photo_bytes=60_000)
    endless = itertools.chain([HEAD], itertools.repeat(bytes(10_000)))
    taken, status, error = drive(client, endless)
    assert (status, error["code"]) == (413, "too_large")
    assert taken == 8, "the head, 60,000 bytes, one piece more"
    endless = itertools.cycle([HEAD, bytes(30_000), b"\r\n"])
    taken, status, error = drive(client, endless, content_length="50")
    assert (status, error["code"]) == (413, "too_large")
    assert taken == 11, "three photos of 30,000 bytes, and the fourth passes the limit"
    taken, status, _ = drive(client, itertools.repeat(b"x"), content_length="100001")
    assert (taken, status) == (0, 413)
    slow = serve(deadline=0.1)
    taken, status, error = drive(slow, iter([HEAD, b"abc"]))
    assert (taken, status, error["code"]) == (2, 408, "slow_upload")
    assert "realdamage_upload_bytes 0.0" in slow.get("/metrics").text


def test_nothing_is_written_to_the_disk(serve, encode, tmp_path, monkeypatch):
    """5 MB, over Starlette's own limit for parts in memory."""
    opened = []

    def candidates():
        opened.append(1)
        return iter(["never"])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "_get_candidate_names", candidates)
    photo = encode("BMP", size=(1400, 1250))
    assert len(photo) > 5_000_000
    client = serve(max_photo_bytes=6_000_000)
    assert "verdict" in client.post("/v1/photos", files=files(photo)).json()["results"][0]
    assert client.post("/v1/photos", files=files(photo + photo)).status_code == 413
    assert (list(tmp_path.iterdir()), opened) == ([], [])
    metrics = client.get("/metrics").text
    assert "realdamage_upload_bytes 0.0" in metrics
    assert "realdamage_queue_photos 0.0" in metrics
