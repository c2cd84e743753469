"""Keys, queue, deadline, draining, reload, shadow, figures and logs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from realdamage.errors import ModelFileError, RealDamageError, UsageError
from realdamage.service.app import create_app
from realdamage.service.keys import hash_key
from realdamage.service.logs import JsonLines
from realdamage.service.operation import reload_keys, reload_model
from realdamage.service.refusals import Refusal
from realdamage.service.settings import Settings
from realdamage.service.workload import Workload

Serve = Callable[..., TestClient]
Encode = Callable[..., bytes]
KEY, ADMIN = "k" * 32, "a" * 32


def figures(client: TestClient, name: str, **headers: str) -> dict[str, float]:
    """Samples of one metric, by its labels."""
    families = text_string_to_metric_families(client.get("/metrics", headers=headers).text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {
        " ".join(sample.labels[key] for key in sorted(sample.labels)): sample.value
        for sample in samples
    }


def post(client: TestClient, *photos: bytes, **headers: Any) -> Any:
    return client.post(
        "/v1/photos", files=[("photos", ("a.jpg", photo)) for photo in photos], headers=headers
    )


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@contextmanager
def held(client: TestClient) -> Iterator[None]:
    """The network of the service waits until the block ends."""
    model = client.app.state.service.models.get()  # type: ignore[attr-defined]
    gate, scorer = threading.Event(), model.scorer._scorer
    model.scorer._scorer = lambda tiles: (gate.wait(10), scorer(tiles))[1]
    try:
        yield
    finally:
        gate.set()
        model.scorer._scorer = scorer


@pytest.fixture
def keyed(serve: Serve, tmp_path: Path) -> TestClient:
    path = tmp_path / "keys.txt"
    path.write_text(
        f"# ours\n{hash_key(KEY, 'shop')}\n\n{hash_key(ADMIN, 'ops')} admin  # the night shift\n"
    )
    return serve(api_keys=path)


def test_keys(keyed: TestClient, encode: Encode) -> None:
    photo = encode()
    for headers in ({}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer"}):
        response = post(keyed, photo, **headers)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "no_key")
        assert response.headers["www-authenticate"] == "Bearer"
    for headers in (
        {"X-API-Key": KEY[:-1]},
        {"Authorization": f"Bearer {KEY}x"},
        {"X-API-Key": b"\xff"},
    ):
        response = post(keyed, photo, **headers)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "wrong_key")
        assert KEY[:-1] not in response.text
    assert post(keyed, photo, **{"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert post(keyed, photo, **{"X-API-Key": KEY}).status_code == 200


def test_every_route_but_the_open_ones_needs_a_key(keyed: TestClient) -> None:
    paths = keyed.get("/openapi.json").json()["paths"]
    assert len(paths) >= 5
    for path, methods in paths.items():
        for method in methods:
            status = keyed.request(method, path.replace("{", "").replace("}", "")).status_code
            assert (status == 200) == (path in ("/healthz", "/readyz")), path
            assert status in (200, 401)
    for path in ("/docs", "/"):
        assert keyed.get(path).status_code in (200, 404)


def test_only_an_admin_loads_a_model(keyed: TestClient) -> None:
    refused = keyed.post("/v1/model/reload", headers={"X-API-Key": KEY})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "admin_only")
    assert (
        keyed.post("/v1/model/reload", headers={"X-API-Key": ADMIN}).json()["model_version"]
        == "test-1"
    )


def test_without_keys_nobody_is_an_admin(serve: Serve) -> None:
    assert serve().post("/v1/model/reload").status_code == 403


def test_hash_key_refuses_what_can_be_guessed() -> None:
    with pytest.raises(UsageError, match="has 6 characters, at least 24"):
        hash_key("secret\n", "x")


@pytest.mark.parametrize("name", ["", "my shop", "#a", "a,b", "x" * 65, "a\n"])
def test_a_name_that_could_not_be_read_back_gets_no_line(name: str) -> None:
    with pytest.raises(UsageError, match="of a key: 1 to 64 letters"):
        hash_key("k" * 32, name)


@pytest.mark.parametrize("line", [KEY, f"shop {KEY}", f"shop {'0' * 64} root", f"shop {'Z' * 64}"])
def test_a_wrong_line_among_the_keys_is_named_and_not_shown(
    line: str, tmp_path: Path, model_file: Path
) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(f"\n{line}\n")
    with pytest.raises(UsageError, match=r"keys.txt:2: not a key; expected NAME SHA256") as caught:
        create_app(Settings(model=model_file, api_keys=path))
    assert KEY not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="rights of files")
@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)])
def test_keys_that_every_user_can_read_give_a_warning(
    mode: int, warnings: int, keyed: TestClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.txt"
    path.chmod(mode)
    caplog.clear()
    with caplog.at_level(logging.INFO, "realdamage.service"):
        reload_keys(keyed.app.state.service)  # type: ignore[attr-defined]
    fields = [record.fields for record in caplog.records if record.levelno == logging.WARNING]  # type: ignore[attr-defined]
    assert [(found["file"], found["mode"]) for found in fields] == [(path, f"{mode:o}")] * warnings
    assert keyed.get("/v1/model", headers={"X-API-Key": KEY}).status_code == 200


def test_a_file_without_keys_is_no_open_door(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("# none yet\n")
    with pytest.raises(UsageError, match="no key in it"):
        create_app(Settings(api_keys=path))
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        create_app(Settings(api_keys=tmp_path / "other.txt"))


def test_another_page_in_the_browser_cannot_call(serve: Serve, encode: Encode) -> None:
    client = serve()
    assert post(client, encode(), Origin="http://127.0.0.1").status_code == 200
    refused = post(client, encode(), Origin="https://evil.example")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "other_origin")
    for host in ("evil.example", "127.0.0.1.evil.example", "[::1", ""):
        refused = client.get("/v1/model", headers={"Host": host})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "wrong_host")
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert client.get("/v1/model", headers={"Host": host}).status_code == 200


def test_security_headers_are_on_every_answer(serve: Serve) -> None:
    client = serve()
    for path in ("/", "/docs", "/v1/model", "/nothing"):
        headers = client.get(path).headers
        assert (
            "default-src 'self'; img-src 'self' blob: data:" in headers["content-security-policy"]
        )
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    answer = client.get("/v1/model", headers={"X-Request-ID": "from-the-shop.7"})
    assert answer.headers["x-request-id"] == "from-the-shop.7"
    answer = client.get("/v1/model", headers={"X-Request-ID": "two words"})
    assert len(answer.headers["x-request-id"]) == 16


def test_no_page_loads_from_elsewhere(serve: Serve) -> None:
    docs = serve().get("/docs").text
    assert "POST /v1/photos" in docs
    assert "share of synthetic photos among yours" in docs
    assert "//" not in docs.replace("<!doctype html>", "")
    assert "<script" not in docs


def test_pages_are_files_of_the_folder_only(serve: Serve) -> None:
    client = serve()
    for name in (
        "../app.py",
        "..%2Fapp.py",
        "%2e%2e/settings.py",
        "nothing.js",
        "index.html%00",
        ".",
    ):
        response = client.get(f"/page/{name}")
        assert response.status_code == 404, name
        assert response.json()["error"]["code"] == "not_found"


def test_large_headers_and_json_bodies_are_refused(serve: Serve) -> None:
    client = serve()
    assert (
        client.get("/v1/model", headers={"X-Long": "x" * 20_000}).json()["error"]["code"]
        == "headers_too_large"
    )
    refused = client.post("/v1/model/reload", content=b"x" * 70_000)
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_large")


def test_a_full_queue_refuses_at_once(serve: Serve, encode: Encode) -> None:
    client, photo = serve(max_queue=2, max_photos=2), encode()
    with ThreadPoolExecutor(1) as pool:
        with held(client):
            first = pool.submit(post, client, photo, photo)
            end = time.monotonic() + 5
            while figures(client, "realdamage_queue_photos") != {"": 2.0}:
                assert time.monotonic() < end
            refused = post(client, photo)
        assert first.result(10).status_code == 200
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert post(client, photo).status_code == 200


def test_bytes_of_all_requests_together_are_bounded(serve: Serve, encode: Encode) -> None:
    photo = encode()
    client = serve(max_body_bytes=2 * len(photo), max_upload_bytes=2 * len(photo))
    with ThreadPoolExecutor(1) as pool:
        with held(client):
            first = pool.submit(post, client, photo)
            end = time.monotonic() + 5
            while figures(client, "realdamage_queue_photos") != {"": 1.0}:
                assert time.monotonic() < end
            refused = post(client, photo)
        assert first.result(10).status_code == 200
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
    assert post(client, photo).status_code == 200


def test_the_deadline_drops_what_has_not_begun(serve: Serve, encode: Encode) -> None:
    client, photo = serve(deadline=0.3, workers=1, max_photos=3), encode()
    runs = []
    with held(client):
        late = post(client, photo, photo, photo)
        runs.append(figures(client, "realdamage_photos_total"))
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline")
    end = time.monotonic() + 5
    while figures(client, "realdamage_queue_photos") != {"": 0.0}:
        assert time.monotonic() < end
    assert sum(figures(client, "realdamage_photos_total").values()) <= 1, "two of three never began"
    assert runs == [{}]
    assert post(client, photo).status_code == 200


def test_not_ready_while_every_worker_is_long_past_its_deadline(
    serve: Serve, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, photo = serve(workers=2), encode()
    workload = client.app.state.service.workload  # type: ignore[attr-defined]

    def ready_with(late: int) -> tuple[int, str | None]:
        """With that many photos being judged: the status, and the code of the refusal."""
        wait_until(lambda: len(workload._running) == late)
        answer = client.get("/readyz")
        return answer.status_code, answer.json().get("error", {}).get("code")

    with ThreadPoolExecutor(2) as pool, held(client):
        first = pool.submit(post, client, photo)
        monkeypatch.setattr(
            "realdamage.service.workload._STUCK_AFTER_S", -1000.0
        )  # as if the deadlines had long passed
        assert ready_with(1) == (200, None), "the other worker is free"
        second = pool.submit(post, client, photo)
        assert ready_with(2) == (503, "workers_stuck")
        monkeypatch.undo()
        assert ready_with(2) == (200, None), "both are in time"
    assert (first.result(10).status_code, second.result(10).status_code) == (200, 200)
    assert ready_with(0) == (200, None)


def test_closing_does_not_wait_for_a_photo_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realdamage.service.workload._CLOSE_S", 0.01)
    workload, gate, begun = Workload(1, 4, lambda _: None), threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(
            asyncio.run,
            workload.run([lambda: (begun.set(), gate.wait())], [1], time.monotonic() + 60, 60),
        )
        assert begun.wait(30)
        workload.close()
        assert not job.done()
        gate.set()
        assert job.result(30) == [(None, True)]


def test_draining(serve: Serve, encode: Encode) -> None:
    client, photo = serve(), encode()
    service = client.app.state.service  # type: ignore[attr-defined]
    assert client.get("/readyz").json() == {"status": "ready"}
    with ThreadPoolExecutor(1) as pool:
        with held(client):
            accepted = pool.submit(post, client, photo)
            end = time.monotonic() + 5
            while service.active == 0:
                assert time.monotonic() < end
            time.sleep(0.05)
            service.draining = True
            refused = post(client, photo)
            assert client.get("/readyz").status_code == 503
            assert client.get("/healthz").status_code == 200
        assert accepted.result(10).json()["results"][0]["verdict"]["outcome"] == "real"
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
    assert refused.headers["connection"] == "close"


def test_head_answers_as_get_without_a_body(keyed: TestClient) -> None:
    service = keyed.app.state.service  # type: ignore[attr-defined]
    for draining, statuses in ((False, (200, 200, 200)), (True, (200, 503, 503))):
        service.draining = draining
        for path, status in zip(("/healthz", "/readyz", "/"), statuses, strict=True):
            head, get = keyed.head(path), keyed.get(path)
            assert (head.status_code, head.content) == (status, b""), path
            assert get.status_code == status
            own = {"x-request-id"}
            assert {k: v for k, v in head.headers.items() if k not in own} == {
                k: v for k, v in get.headers.items() if k not in own
            }
    service.draining = False
    assert (
        figures(keyed, "realdamage_requests_total", **{"X-API-Key": KEY})["HEAD /readyz 503"] == 1
    )
    described = keyed.get("/openapi.json").json()["paths"]
    assert [path for path, methods in described.items() if "head" in methods] == []
    refused = keyed.head("/v1/model", headers={"X-API-Key": KEY})
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")


def test_not_ready_before_a_model_is_loaded(model_file: Path) -> None:
    client = TestClient(
        create_app(Settings(model=model_file)), base_url="http://127.0.0.1"
    )  # not started
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").json()["error"]["code"] == "loading"
    assert client.get("/v1/model").status_code == 503


def test_a_model_is_replaced_and_a_broken_one_is_not(
    serve: Serve, encode: Encode, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    path, photo = write_model(tmp_path / "served.onnx"), encode(red=True)
    client = serve(model=path)
    service = client.app.state.service  # type: ignore[attr-defined]

    def outcome() -> tuple[str, str]:
        verdict = post(client, photo).json()["results"][0]["verdict"]
        return verdict["outcome"], verdict["model_version"]

    assert outcome() == ("synthetic", "test-1")
    write_model(path, t_synthetic=50.0, model_version="test-2")
    asyncio.run(reload_model(service))
    assert outcome() == ("review", "test-2")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        Refusal, match=r"not replaced, the old one goes on: .*served\.onnx"
    ) as caught:
        asyncio.run(reload_model(service))
    assert caught.value.status_code == 422
    path.unlink()
    with pytest.raises(Refusal, match="No such file"):
        asyncio.run(reload_model(service))
    assert outcome() == ("review", "test-2")
    assert figures(client, "realdamage_model_reloads_total") == {"loaded": 2.0, "kept_old": 2.0}
    assert next(iter(figures(client, "realdamage_model_info"))).endswith(" test-2")


def test_requests_keep_the_model_they_began_with(
    serve: Serve, encode: Encode, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    path, photo = write_model(tmp_path / "served.onnx"), encode()
    client = serve(model=path, workers=4)
    service, stop = client.app.state.service, threading.Event()  # type: ignore[attr-defined]

    def call() -> set[tuple[int, bool]]:
        found = set()
        while not stop.is_set():
            response = post(client, photo)
            body = response.json()
            found.add(
                (
                    response.status_code,
                    body["model_version"] == body["results"][0]["verdict"]["model_version"],
                )
            )
        return found

    with ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(call) for _ in range(3)]
        for number in range(5):
            write_model(path, model_version=f"test-{number}")
            service.models.load()
        stop.set()
        assert set.union(*(caller.result(10) for caller in callers)) == {(200, True)}


def test_a_broken_model_or_shadow_does_not_start(tmp_path: Path, model_file: Path) -> None:
    broken = tmp_path / "broken.onnx"
    shutil.copy(model_file, broken)
    broken.write_bytes(broken.read_bytes()[:-100])
    for settings in (Settings(model=broken), Settings(model=model_file, shadow_model=broken)):
        with pytest.raises(ModelFileError, match=r"broken\.onnx"), TestClient(create_app(settings)):
            pass


def test_a_shadow_never_answers(
    serve: Serve, encode: Encode, tmp_path: Path, write_model: Callable[..., Path], model_file: Path
) -> None:
    shadow = write_model(tmp_path / "shadow.onnx", t_synthetic=50.0, model_version="next")
    client = serve(shadow_model=shadow, shadow_share=1.0)
    service = client.app.state.service  # type: ignore[attr-defined]
    answer = post(client, encode(), encode(red=True), b"broken").json()
    assert [r["verdict"]["outcome"] for r in answer["results"][:2]] == ["real", "synthetic"]
    assert answer["model_version"] == "test-1"
    service.shadow._pool.submit(lambda: None).result(10)  # one thread: all before it are done
    assert figures(client, "realdamage_shadow_photos_total") == {"": 2.0}
    assert figures(client, "realdamage_shadow_disagreements_total") == {"synthetic review": 1.0}

    def fail(tiles: Any) -> Any:
        raise RuntimeError("the shadow is broken")

    service.shadow._model.scorer._scorer = fail
    assert post(client, encode()).json()["results"][0]["verdict"]["outcome"] == "real"
    service.shadow._pool.submit(lambda: None).result(10)
    assert figures(client, "realdamage_shadow_lost_total") == {"error": 1.0}


def test_a_shadow_looks_at_its_share_only(serve: Serve, encode: Encode, model_file: Path) -> None:
    client = serve(shadow_model=model_file, shadow_share=0.0)
    post(client, encode())
    assert figures(client, "realdamage_shadow_photos_total") == {"": 0.0}


def test_figures(serve: Serve, encode: Encode) -> None:
    client = serve()
    post(client, encode(), encode(red=True), b"broken")
    client.get("/v1/nothing-1")
    client.get("/v1/nothing-2")
    assert figures(client, "realdamage_photos_total") == {
        "real": 1.0,
        "synthetic": 1.0,
        "unreadable": 1.0,
    }
    requests = figures(client, "realdamage_requests_total")
    assert requests["POST /v1/photos 200"] == 1.0
    assert requests["GET unmatched 404"] == 2.0
    assert figures(client, "realdamage_request_seconds_count")["/v1/photos"] == 1.0
    assert figures(client, "realdamage_batch_tiles_sum") == {"": 2 * 5 * 3}
    assert figures(serve(), "realdamage_photos_total") == {}, "a registry for each service"


def test_a_network_that_fails_is_a_503_and_no_crash(serve: Serve, encode: Encode) -> None:
    client = serve()
    model = client.app.state.service.models.get()  # type: ignore[attr-defined]

    def fail(tiles: Any) -> Any:
        raise ModelFileError("the model fails on tiles")

    scorer, model.scorer._scorer = model.scorer._scorer, fail
    refused = post(client, encode())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")

    def burst(tiles: Any) -> Any:
        raise RuntimeError("mug.jpg")

    model.scorer._scorer = burst
    refused = post(client, encode())
    assert (refused.status_code, refused.json()["error"]["code"]) == (500, "internal")
    assert "mug" not in refused.text
    not_ready = client.get("/readyz")
    assert (not_ready.status_code, not_ready.json()["error"]["code"]) == (503, "model_fails")
    model.scorer._scorer = scorer
    assert client.get("/readyz").status_code == 200, "it tries the model again by itself"
    assert post(client, encode()).status_code == 200


def test_a_store_that_fails_is_told_to_the_log_and_not_to_the_caller(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(store=tmp_path / "store")
    service = client.app.state.service  # type: ignore[attr-defined]
    service.judged.add("1" * 64)
    database = service.reviews._database
    database.execute(
        f"PRAGMA max_page_count={database.execute('PRAGMA page_count').fetchone()[0]}"
    )  # a full disk
    note, full = {"photo_sha256": "1" * 64, "decision": "real", "note": "x" * 2000}, []
    with caplog.at_level(logging.ERROR, "realdamage.service"):
        for _ in range(20):
            full.append(client.post("/v1/reviews", json=note))
    assert full[-1].status_code == 503
    error = full[-1].json()["error"]
    assert error["code"] == "unavailable"
    assert str(tmp_path) not in full[-1].text
    fields = caplog.records[-1].fields  # type: ignore[attr-defined]
    assert "full" in fields["reason"]
    assert fields["request_id"] == error["request_id"]
    assert client.get("/v1/reviews").status_code == 200, "what was stored can still be read"


def test_keys_are_read_anew(keyed: TestClient, tmp_path: Path) -> None:
    service = keyed.app.state.service  # type: ignore[attr-defined]
    assert keyed.get("/v1/model", headers={"X-API-Key": KEY}).status_code == 200
    (tmp_path / "keys.txt").write_text(hash_key("n" * 32, "new"))
    reload_keys(service)
    assert keyed.get("/v1/model", headers={"X-API-Key": KEY}).status_code == 401
    assert keyed.get("/v1/model", headers={"X-API-Key": "n" * 32}).status_code == 200
    for text in ("", "broken", "# nobody"):
        (tmp_path / "keys.txt").write_text(text)
        reload_keys(service)
        assert keyed.get("/v1/model", headers={"X-API-Key": "n" * 32}).status_code == 200
        assert keyed.get("/v1/model").status_code == 401, "a file without keys is no open door"


def test_log_lines_are_json_without_photos_or_names(
    serve: Serve, encode: Encode, caplog: pytest.LogCaptureFixture
) -> None:
    photo = encode()
    with caplog.at_level(logging.INFO, "realdamage.service"):
        client = serve()
        client.post(
            "/v1/photos",
            files=[("photos", ("secret-name.jpg", photo)), ("photos", ("hidden.jpg", b"x"))],
        )
    lines = [
        JsonLines().format(record)
        for record in caplog.records
        if record.name == "realdamage.service"
    ]
    assert not any("secret-name" in line or "hidden" in line for line in lines)
    (request,) = (json.loads(line) for line in lines if '"request"' in line)
    assert {key: request[key] for key in ("route", "method", "status", "photos", "level")} == {
        "route": "/v1/photos", "method": "POST", "status": 200, "photos": 2, "level": "info",
    }  # fmt: skip
    assert request["bytes"] > len(photo)
    assert request["ms"] > 0


def test_slots_before_loading_say_so(model_file: Path) -> None:
    app = create_app(Settings(model=model_file))
    with pytest.raises(RealDamageError, match="no model is loaded yet"):
        app.state.service.models.get()
