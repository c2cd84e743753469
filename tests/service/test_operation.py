"""Keys, limits on work, deadlines, readiness, reload, figures and logs."""

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from realdamage.errors import ModelFileError, UsageError
from realdamage.service import limits
from realdamage.service.app import create_app
from realdamage.service.auth import hash_key
from realdamage.service.limits import DeadlineError
from realdamage.service.metrics import JsonLines
from realdamage.service.models import SharedScorer
from realdamage.service.routes import reload_keys, reload_model
from realdamage.service.settings import Settings

KEY, ADMIN = "k" * 32, "a" * 32


def figures(client, name, **headers):
    """Samples of one metric, by its labels."""
    families = text_string_to_metric_families(client.get("/metrics", headers=headers).text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {
        " ".join(sample.labels[key] for key in sorted(sample.labels)): sample.value
        for sample in samples
    }


def post(client, *photos, **headers):
    files = [("photos", ("a.jpg", photo)) for photo in photos]
    return client.post("/v1/photos", files=files, headers=headers)


def refusal(response):
    return response.status_code, response.json()["error"]["code"]


# Keys


def test_keys_are_checked_on_every_route_and_reloaded(serve, encode, tmp_path):
    path, photo, new = tmp_path / "keys.txt", encode(), "n" * 32
    path.write_text(
        f"# ours\n{hash_key(KEY, 'shop')}\n\n{hash_key(ADMIN, 'ops')} admin  # the night shift\n"
    )
    client = serve(api_keys=path)
    for headers in ({}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer"}):
        response = post(client, photo, **headers)
        assert refusal(response) == (401, "no_key")
        assert response.headers["www-authenticate"] == "Bearer"
    for key in (KEY[:-1], KEY + "x", b"\xff"):
        response = post(client, photo, **{"X-API-Key": key})
        assert refusal(response) == (401, "wrong_key")
        assert KEY[:-1] not in response.text
    assert post(client, photo, **{"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert post(client, photo, **{"X-API-Key": KEY}).status_code == 200

    paths = client.get("/openapi.json").json()["paths"]
    assert len(paths) >= 10
    for route, methods in paths.items():
        for method in methods:
            status = client.request(method, route.replace("{", "").replace("}", "")).status_code
            is_open = route in ("/healthz", "/readyz") or route.startswith("/v2/health/")
            expected = 200 if is_open else 401
            # A signed link is the key of its statement; without a store there is none.
            expected = 404 if route.startswith("/v1/statements/") else expected
            assert status == expected, route
    for route in ("/docs", "/", "/page/app.js"):
        assert client.get(route).status_code == 200

    for text in (hash_key(new, "new"), "", "broken", "# nobody"):  # no file opens the door
        path.write_text(text)
        reload_keys(client.app.state.service)
        assert client.get("/v1/model", headers={"X-API-Key": new}).status_code == 200
        assert client.get("/v1/model", headers={"X-API-Key": KEY}).status_code == 401
        assert client.get("/v1/model").status_code == 401


def test_a_name_that_cannot_be_read_back_or_a_weak_key_gets_no_line():
    for key, name, code in ((KEY, "my shop", "key_name"), ("secret\n", "x", "short_key")):
        with pytest.raises(UsageError) as caught:
            hash_key(key, name)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"shop {KEY}", "not_a_key"),
        (f"shop {'0' * 64} tenant=../x", "not_a_key"),
        ("# none yet\n", "no_keys"),
        (None, "unreadable_keys"),
    ],
)
def test_a_file_of_wrong_keys_does_not_start_and_is_not_shown(text, code, tmp_path):
    path = tmp_path / "keys.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"keys\.txt") as caught:
        create_app(Settings(api_keys=path))
    assert caught.value.code == code
    assert KEY not in str(caught.value)


# What every request passes


def test_another_page_in_the_browser_cannot_call(serve, encode):
    client = serve()
    assert post(client, encode(), Origin="http://127.0.0.1").status_code == 200
    assert refusal(post(client, encode(), Origin="https://evil.example")) == (403, "other_origin")
    for host in ("evil.example", "127.0.0.1.evil.example", "[::1", ""):
        assert refusal(client.get("/v1/model", headers={"Host": host})) == (403, "wrong_host")
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert client.get("/v1/model", headers={"Host": host}).status_code == 200


def test_every_answer_has_security_headers_and_what_is_too_large_is_refused(serve):
    client = serve()
    for path in ("/", "/docs", "/v1/model", "/nothing"):
        answer = client.get(path)
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; img-src")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert len(answer.headers["x-request-id"]) == 16
        assert "<script>" not in answer.text
    assert client.head("/healthz").status_code == 200
    named = client.get("/v1/model", headers={"X-Request-ID": "from-the-shop.7"})
    assert named.headers["x-request-id"] == "from-the-shop.7"
    for name in ("..%2Fapp.py", "%2e%2e/settings.py", "index.html%00", "docs.html.j2"):
        assert refusal(client.get(f"/page/{name}")) == (404, "not_found"), name
    long_head = client.get("/v1/model", headers={"X-Long": "x" * 20_000})
    assert refusal(long_head) == (431, "headers_too_large")
    large = client.post("/v1/reviews", content=b"x" * 70_000)
    assert refusal(large) == (413, "too_large")


# Work


@pytest.mark.parametrize("limit", ["max_queue", "max_upload_bytes"])
def test_a_full_service_refuses_at_once(serve, encode, held, wait_until, limit):
    photo = encode()
    size = 2 * len(photo)
    settings = {
        "max_queue": {"max_queue": 1, "max_photos": 1},
        "max_upload_bytes": {"max_body_bytes": size, "max_upload_bytes": size},
    }
    client = serve(**settings[limit])
    with ThreadPoolExecutor(1) as pool:
        with held(client):
            first = pool.submit(post, client, photo)
            wait_until(lambda: figures(client, "realdamage_queue_photos") == {"": 1.0})
            refused = post(client, photo)
        assert first.result(10).status_code == 200
    assert refusal(refused) == (429, "busy")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert post(client, photo).status_code == 200


def test_the_deadline_drops_what_has_not_begun(serve, encode, held, wait_until):
    client, photo = serve(deadline=0.3, workers=1, max_photos=3), encode()
    with held(client):
        late = post(client, photo, photo, photo)
    assert refusal(late) == (504, "deadline")
    wait_until(lambda: figures(client, "realdamage_queue_photos") == {"": 0.0})
    judged = sum(figures(client, "realdamage_photos_total").values())
    assert judged <= 1, "two of three never began"
    assert post(client, photo).status_code == 200


def test_one_run_of_the_network_at_a_time_and_none_after_its_deadline():
    gate, running, most = threading.Event(), [0], [0]

    def network(tiles):
        running[0] += 1
        most[0] = max(most[0], running[0])
        gate.wait(10)
        running[0] -= 1
        return tiles.mean(axis=(1, 2, 3)), None

    shared = SharedScorer(network)
    tiles = [np.full((n, 8, 8, 3), n, np.uint8) for n in (1, 2, 3)]
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(shared.until(float("inf")), one) for one in tiles]
        with pytest.raises(DeadlineError):
            shared.until(time.monotonic() + 0.02)(tiles[0])
        gate.set()
        assert [call.result(10)[0].tolist() for call in calls] == [[1], [2, 2], [3, 3, 3]]
    assert most == [1]
    with pytest.raises(DeadlineError):
        shared.until(time.monotonic() - 1)(tiles[0])


# Readiness


def test_not_ready_while_every_worker_is_long_past_its_deadline(
    serve, encode, held, wait_until, monkeypatch
):
    client, photo = serve(workers=2), encode()
    queue = client.app.state.service.queue

    def ready_with(late):
        """With that many photos being judged: the status, and the code of the refusal."""
        wait_until(lambda: sum(job.running() for job in queue._jobs) == late)
        answer = client.get("/readyz")
        return answer.status_code, answer.json().get("error", {}).get("code")

    with ThreadPoolExecutor(2) as pool, held(client):
        first = pool.submit(post, client, photo)
        monkeypatch.setattr(limits, "_STUCK_AFTER_S", -1000.0)  # as if the deadlines had passed
        assert ready_with(1) == (200, None), "the other worker is free"
        second = pool.submit(post, client, photo)
        assert ready_with(2) == (503, "workers_stuck")
        monkeypatch.undo()
        assert ready_with(2) == (200, None), "both are in time"
    assert (first.result(10).status_code, second.result(10).status_code) == (200, 200)
    assert ready_with(0) == (200, None)


def test_not_ready_before_a_model_is_loaded(model_file):
    app = create_app(Settings(model=model_file))
    client = TestClient(app, base_url="http://127.0.0.1")  # not started
    assert client.get("/healthz").status_code == 200
    assert refusal(client.get("/readyz")) == (503, "loading")
    assert refusal(client.get("/v1/model")) == (503, "unavailable")


def test_a_network_that_fails_is_a_503_and_no_crash(serve, encode, caplog):
    client = serve()
    shared = client.app.state.service.loaded_model().scorer

    def failing(error):
        def fail(tiles):
            raise error

        return fail

    scorer, shared._scorer = shared._scorer, failing(ModelFileError("/srv/m.onnx fails"))
    with caplog.at_level(logging.ERROR, "realdamage.service"):
        refused = post(client, encode())
    assert refusal(refused) == (503, "unavailable")
    assert "/srv" not in refused.text, "for the log, not for the caller"
    fields = caplog.records[-1].fields
    assert "/srv/m.onnx" in fields["reason"]
    assert fields["request_id"] == refused.json()["error"]["request_id"]
    shared._scorer = failing(RuntimeError("mug.jpg"))
    refused = post(client, encode())
    assert refusal(refused) == (500, "internal")
    assert "mug" not in refused.text
    assert refusal(client.get("/readyz")) == (503, "model_fails")
    shared._scorer = scorer
    assert client.get("/readyz").status_code == 200, "it tries the model again by itself"
    assert post(client, encode()).status_code == 200


# Models


def test_a_model_is_replaced_and_a_broken_one_is_not(serve, encode, tmp_path, write_model):
    path, photo = write_model(tmp_path / "served.onnx"), encode(red=True)
    client = serve(model=path)
    service = client.app.state.service

    def outcome():
        verdict = post(client, photo).json()["results"][0]["verdict"]
        return verdict["outcome"], verdict["model_version"]

    assert outcome() == ("synthetic", "test-1")
    write_model(path, policy=None, model_version="test-2")
    reload_model(service)
    assert outcome() == ("review", "test-2")
    path.write_bytes(path.read_bytes()[:-100])
    reload_model(service)
    assert outcome() == ("review", "test-2")
    assert figures(client, "realdamage_model_reloads_total") == {"loaded": 2.0, "kept_old": 1.0}
    assert next(iter(figures(client, "realdamage_model_info"))).endswith(" test-2")
    with pytest.raises(ModelFileError, match=r"served\.onnx"):
        serve(model=path)


# Figures and logs


def test_figures_and_log_lines_have_no_photos_or_names(serve, encode, caplog):
    client = serve()
    photos = [("secret-name.jpg", encode()), ("b.jpg", encode(red=True)), ("hidden.jpg", b"x")]
    with caplog.at_level(logging.INFO, "realdamage.service"):
        client.post("/v1/photos", files=[("photos", photo) for photo in photos])
    client.get("/v1/nothing-1")
    client.get("/v1/nothing-2")
    outcomes = {"real": 1.0, "synthetic": 1.0, "unreadable": 1.0}
    assert figures(client, "realdamage_photos_total") == outcomes
    requests = figures(client, "realdamage_requests_total")
    assert requests["POST /v1/photos 200"] == 1.0
    assert requests["GET unmatched 404"] == 2.0
    assert figures(client, "realdamage_request_seconds_count")["/v1/photos"] == 1.0
    assert figures(serve(), "realdamage_photos_total") == {}, "a registry for each service"
    lines = [JsonLines().format(one) for one in caplog.records if one.name == "realdamage.service"]
    assert not any("secret-name" in line or "hidden" in line for line in lines)
    (request,) = (json.loads(line) for line in lines if '"request"' in line)
    expected = {"route": "/v1/photos", "method": "POST", "status": 200, "photos": 3}
    assert {key: request[key] for key in expected} == expected
    assert request["bytes"] > len(photos[0][1])
    assert request["ms"] > 0
