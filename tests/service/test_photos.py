"""POST /v1/photos: what a photo gets, and what becomes of a request that cannot be answered."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from realdamage.core.detector import Detector
from realdamage.errors import UsageError

Serve = Callable[..., TestClient]
Encode = Callable[..., bytes]
HEAD = b'--x\r\nContent-Disposition: form-data; name="photos"; filename="a"\r\n\r\n'
FORM = "multipart/form-data; boundary=x"


def files(*photos: bytes, field: str = "photos") -> list[tuple[str, tuple[str, bytes]]]:
    return [(field, (f"{index}.jpg", data)) for index, data in enumerate(photos)]


def error(response: Any, status: int, code: str) -> str:
    """The message of a refusal, after checking its form."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "request_id"}
    assert body["error"]["code"] == code
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    message: str = body["error"]["message"]
    return message


def test_a_photo_gets_the_detector_s_verdict(
    serve: Serve, encode: Encode, model_file: Path
) -> None:
    photos = [encode(), encode("PNG", red=True)]
    answer = serve().post("/v1/photos", files=files(*photos)).json()
    expected = [
        json.loads(verdict.to_json()) for verdict in Detector.load(model_file).predict(photos)
    ]
    assert [result["verdict"] for result in answer["results"]] == expected
    assert [result["name"] for result in answer["results"]] == ["0.jpg", "1.jpg"]
    assert [value["outcome"] for value in expected] == ["real", "synthetic"]
    with Image.open(io.BytesIO(base64.b64decode(expected[1]["heatmap"]))) as heatmap:
        assert heatmap.size == (6, 4)
    assert (answer["model_version"], answer["graph_sha256"]) == (
        "test-1",
        expected[0]["graph_sha256"],
    )


def test_without_heat_maps(serve: Serve, encode: Encode) -> None:
    answer = serve().post("/v1/photos", files=files(encode()), data={"heatmaps": "false"}).json()
    assert answer["results"][0]["verdict"]["heatmap"] is None


def test_signers_under_the_list_of_authorities_are_trusted(
    serve: Serve, encode: Encode, signing: Any, tmp_path: Path
) -> None:
    (tmp_path / "anchors.pem").write_text(signing.authority)
    sent = files(signing.sign("digitalCapture", data=encode()))
    for settings, validation in (
        ({"trust_anchors": tmp_path / "anchors.pem"}, "trusted"),
        ({}, "untrusted"),
    ):
        client = serve(**settings)
        (result,) = client.post("/v1/photos", files=sent).json()["results"]
        assert result["provenance"]["findings"][0]["fields"]["validation"] == validation
        assert bool(result["provenance"]["trust_anchors_sha256"]) == (validation == "trusted")
        claim = client.post("/v1/claims", files=sent).json()
        assert claim["photos"][0]["provenance"]["findings"][0]["fields"]["validation"] == validation


def test_a_wrong_list_of_authorities_stops_the_start(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "anchors.pem").write_text("none")
    with pytest.raises(UsageError, match=r"anchors\.pem: no certificate in it"):
        serve(trust_anchors=tmp_path / "anchors.pem")


def test_a_broken_photo_fails_alone(serve: Serve, encode: Encode) -> None:
    answer = serve().post("/v1/photos", files=files(encode()[:400], b"", encode(), b"%PDF-1.7"))
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert ["verdict" in result for result in results] == [False, False, True, False]
    assert {results[index]["error"]["code"] for index in (0, 1, 3)} == {"unreadable_photo"}
    assert results[1]["error"]["message"] == "1.jpg: the file is empty (0 bytes)"


def test_the_prior_moves_the_probability_alone(
    serve: Serve, encode: Encode, model_file: Path
) -> None:
    client, photo = serve(), encode()
    verdicts = [
        client.post("/v1/photos", files=files(photo), data=data).json()["results"][0]["verdict"]
        for data in ({}, {"prior": "0.01"})
    ]
    assert (
        verdicts[1]["probability"]
        == Detector.load(model_file, prior=0.01).predict(photo).probability
    )
    assert verdicts[1]["probability"] < verdicts[0]["probability"]
    assert verdicts[1]["score"] == verdicts[0]["score"]


@pytest.mark.parametrize("prior", ["0", "1", "nan", "inf", "-0.2", "half", ""])
def test_a_prior_out_of_range(serve: Serve, encode: Encode, prior: str) -> None:
    message = error(
        serve().post("/v1/photos", files=files(encode()), data={"prior": prior}),
        422,
        "invalid_field",
    )
    assert message.startswith(f"prior={prior!r} must be a number above 0 and below 1")


def test_fields_that_are_missing_unknown_or_wrong(serve: Serve, encode: Encode) -> None:
    client, photo = serve(), encode()
    assert "did you mean 'photos'" in error(
        client.post("/v1/photos", files=files(photo, field="photo")), 422, "unknown_field"
    )
    error(client.post("/v1/photos", files={"heatmaps": (None, "true")}), 422, "missing_field")
    message = error(
        client.post("/v1/photos", files=files(photo), data={"heatmaps": "no"}), 422, "invalid_field"
    )
    assert message == "heatmaps='no': write true or false"
    error(client.post("/v1/photos", files={"photos": (None, "text")}), 422, "not_a_file")
    twice = [*files(photo), ("prior", (None, b"0.1")), ("prior", (None, b"0.2"))]
    assert "given twice" in error(client.post("/v1/photos", files=twice), 422, "invalid_field")


def test_bodies_that_are_no_form(serve: Serve, encode: Encode) -> None:
    client = serve()
    assert "multipart/form-data" in error(
        client.post("/v1/photos", content=encode()), 415, "not_multipart"
    )
    error(client.post("/v1/photos", json={"photos": []}), 415, "not_multipart")
    kind = {"content-type": "multipart/form-data"}
    error(client.post("/v1/photos", content=b"--x", headers=kind), 400, "malformed")
    for body in (
        b"",
        b"rubbish",
        b"--x\r\nContent-Disposition: form-data; name=photos; filename=a\r\n\r\nhalf a photo",
    ):
        error(
            client.post(
                "/v1/photos",
                content=body,
                headers={"content-type": "multipart/form-data; boundary=x"},
            ),
            400,
            "malformed",
        )


def test_limits_in_number_and_bytes(serve: Serve, encode: Encode) -> None:
    photo = encode()
    client = serve(max_photos=2, max_photo_bytes=len(photo), max_body_bytes=4 * len(photo))
    assert client.post("/v1/photos", files=files(photo, photo)).status_code == 200
    assert "more than 2 photos" in error(
        client.post("/v1/photos", files=files(*[b"x"] * 3)), 413, "too_many_photos"
    )
    message = error(client.post("/v1/photos", files=files(photo + b"x")), 413, "too_large")
    assert message.startswith(f"photo 1 of the request has more than {len(photo)} bytes")
    message = error(client.post("/v1/photos", files=files(photo * 5)), 413, "too_large")
    assert message.startswith(f"the request has more than {4 * len(photo)} bytes")


def drive(
    client: TestClient, pieces: Iterator[bytes], **headers: str
) -> tuple[int, int, dict[str, Any]]:
    """Sends a body piece by piece without Content-Length: (pieces that were read, status, body of the answer)."""
    scope = {
        **{
            "type": "http",
            "method": "POST",
            "path": "/v1/photos",
            "raw_path": b"/v1/photos",
            "query_string": b"",
        },
        **{
            "scheme": "http",
            "http_version": "1.1",
            "server": None,
            "client": None,
            "root_path": "",
        },
        "headers": [
            (b"host", b"127.0.0.1"),
            *((k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()),
        ],
    }
    sent: list[Any] = []
    taken = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        piece = next(pieces, None)
        if piece is None:
            await asyncio.sleep(10)
        taken += 1
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]
    return (
        taken,
        sent[0]["status"],
        json.loads(b"".join(message.get("body", b"") for message in sent[1:])),
    )


def test_a_body_is_refused_while_it_comes(serve: Serve) -> None:
    """An endless body is read as far as the limit, whatever its headers say."""
    client = serve(max_body_bytes=100_000, max_photo_bytes=60_000)
    endless = itertools.chain([HEAD], itertools.repeat(bytes(10_000)))
    taken, status, body = drive(client, endless, content_type=FORM)
    assert (taken, status, body["error"]["code"]) == (8, 413, "too_large"), (
        "the head, 60,000 bytes, one piece more"
    )
    endless = itertools.cycle([HEAD, bytes(30_000), b"\r\n"])
    taken, status, body = drive(client, endless, content_type=FORM, content_length="50")
    assert (status, body["error"]["code"]) == (413, "too_large")
    assert taken == 11, "three photos of 30,000 bytes, and the fourth passes the limit"
    taken, status, _ = drive(
        client, itertools.repeat(b"x"), content_type=FORM, content_length="100001"
    )
    assert (taken, status) == (0, 413)


def test_a_body_that_comes_too_slowly(serve: Serve) -> None:
    client = serve(deadline=0.1)
    taken, status, body = drive(client, iter([HEAD, b"abc"]), content_type=FORM)
    assert (taken, status, body["error"]["code"]) == (2, 408, "slow_upload")
    assert "realdamage_upload_bytes 0.0" in client.get("/metrics").text


def test_headers_of_a_part_are_bounded(serve: Serve) -> None:
    name = "a" * 9000
    response = serve().post("/v1/photos", files=[("photos", (name, b"x"))])
    assert response.status_code in (400, 413)
    assert response.json()["error"]["code"] in ("malformed", "too_large")


def test_a_photo_with_too_many_pixels_fails_from_its_header(serve: Serve, encode: Encode) -> None:
    client = serve(max_pixels=5000)
    results = client.post("/v1/photos", files=files(encode(), encode(size=(50, 100)))).json()[
        "results"
    ]
    assert "96x64 is 6144 pixels, at most 5000" in results[0]["error"]["message"]
    assert results[1]["verdict"]["width"] == 50


def test_names_are_shortened_and_cleaned(serve: Serve, encode: Encode) -> None:
    photo = encode()
    given = [
        ("photos", ("ä\x07b.jpg", photo)),
        ("photos", ("n" * 300 + ".jpg", photo)),
        ("photos", ("../../x", photo)),
    ]
    names = [result["name"] for result in serve().post("/v1/photos", files=given).json()["results"]]
    assert names[1] == "n" * 200
    assert names[2] == "../../x"
    assert all(name.isprintable() for name in names)


def test_nothing_is_written_to_the_disk(
    serve: Serve, encode: Encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 MB, over Starlette's own limit for parts in memory."""
    import tempfile

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened: list[object] = []
    monkeypatch.setattr(
        tempfile, "_get_candidate_names", lambda: opened.append(1) or iter(["never"])
    )
    photo = encode("BMP", size=(1400, 1250))
    assert len(photo) > 5_000_000
    client = serve(max_photo_bytes=6_000_000)
    assert "verdict" in client.post("/v1/photos", files=files(photo)).json()["results"][0]
    assert client.post("/v1/photos", files=files(photo + photo)).status_code == 413
    assert list(tmp_path.iterdir()) == []
    assert opened == []
    metrics = client.get("/metrics").text
    assert "realdamage_upload_bytes 0.0" in metrics
    assert "realdamage_queue_photos 0.0" in metrics
