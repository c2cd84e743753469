"""The service as a process: it starts, says where, reloads on SIGHUP, and finishes what it has
at SIGTERM."""

import io
import json
import signal
import socket
import threading
import time
from contextlib import suppress

import httpx
import pytest

from realdamage.commands import cli
from realdamage.errors import UsageError
from realdamage.service.auth import hash_key
from realdamage.service.settings import Settings, read_settings


def refusal(response):
    return response.status_code, response.json()["error"]["code"]


# A life


@pytest.mark.slow
def test_it_reloads_on_sighup_and_finishes_at_sigterm_what_it_accepted(
    start_process, write_model, encode, tmp_path, wait_until
):
    model = write_model(tmp_path / "red.onnx")
    server = start_process("--model", model)
    assert server.client.get("/readyz").status_code == 200
    write_model(model, model_version="test-2")
    for event in ("model loaded", "model not reloaded"):
        server.process.send_signal(signal.SIGHUP)
        server.wait_for(event)
        assert server.client.get("/v1/model").json()["model_version"] == "test-2"
        model.write_bytes(b"broken")

    head = b'--x\r\nContent-Disposition: form-data; name="photos"; filename="a"\r\n\r\n'
    stopping, answers = threading.Event(), []

    def slowly():
        yield head
        stopping.wait(10)
        yield encode() + b"\r\n--x--\r\n"

    def send():
        kind = {"content-type": "multipart/form-data; boundary=x"}
        answers.append(server.client.post("/v1/photos", content=slowly(), headers=kind))

    caller = threading.Thread(target=send)
    caller.start()
    idle = "realdamage_upload_bytes 0.0"
    wait_until(lambda: idle not in server.client.get("/metrics").text)
    server.process.send_signal(signal.SIGTERM)

    def is_closed():
        try:
            return not server.client.get("/readyz").is_success
        except httpx.HTTPError:
            return True

    wait_until(is_closed)
    stopping.set()
    caller.join(20)
    assert answers[0].json()["results"][0]["verdict"]["outcome"] == "real"
    assert server.process.wait(20) in (0, -signal.SIGTERM)
    assert list((tmp_path / "cwd").iterdir()) == []


STUCK = """
import sys, threading
from realdamage.commands import cli
from realdamage.service import limits, routes

def never_ends(*_, **__):
    print('{"event": "stuck"}', file=sys.stderr, flush=True)
    threading.Event().wait()

routes.read_photo, limits._CLOSE_S = never_ends, 0.1
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)]
)
def test_stopping_does_not_wait_for_a_photo_that_never_ends(
    start_process, model_file, encode, sent, code
):
    options = ("--model", model_file, "--workers", "1", "--deadline", "1")
    server = start_process(*options, program=("-c", STUCK))
    refused = server.client.post("/v1/photos", files={"photos": encode()})
    assert refusal(refused) == (504, "deadline")
    server.wait_for("stuck")
    server.process.send_signal(sent)
    assert server.process.wait(60) == code


# Callers that mean no good


@pytest.mark.slow
def test_callers_that_mean_no_good_are_hung_up_on(start_process, model_file):
    """A body with two lengths, whose rest is no request; a head that never ends, one that never
    begins, and the rest of a body that was refused."""
    server = start_process("--model", model_file, "--deadline", "0.5")
    address = ("127.0.0.1", httpx.URL(server.url).port)
    head = b"POST /v1/reviews HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(head + b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "malformed"

    refused = b"POST /v1/reviews HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n"
    for head in (b"GET / HTTP/1.1\r\nX: ", b"", refused):
        begun = time.monotonic()
        with (
            socket.create_connection(address, timeout=0.2) as connection,
            suppress(ConnectionError),
        ):
            connection.sendall(head)
            while time.monotonic() < begun + 10:
                if head:
                    connection.sendall(b"x")
                with suppress(TimeoutError):
                    if not connection.recv(4096):
                        break
        assert 0.3 < time.monotonic() - begun < 6
    for _ in range(3):
        assert server.client.get("/healthz").status_code == 200
        time.sleep(0.3)


def all_of(connection):
    """What comes until the server hangs up."""
    answer = b""
    with suppress(ConnectionError):
        while piece := connection.recv(4096):
            answer += piece
    return answer


# Settings


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr("realdamage.service.server.configure_logging", lambda: None)


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (["--host", "0.0.0.0"], 2, "--host 0.0.0.0"),
        (["--database", "postgresql://here/claims"], 2, "--store"),
        (["--max-queue", "2"], 2, "--max-queue=2 is below --max-photos=32"),
        (["--deadline", "nan"], 2, "--deadline"),
        (["--model", "absent.onnx"], 2, "absent.onnx"),
        (["--store", "/"], 2, "/: not a claim store"),
        (["--host", "no.such.host.invalid", "--no-auth"], 3, "no.such.host.invalid:8000"),
    ],
)
def test_what_does_not_start(options, code, named, capfd):
    assert cli.main(["serve", *options]) == code
    assert named in capfd.readouterr().err


def test_a_port_that_is_taken(capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 3
    assert f"127.0.0.1:{port}" in capfd.readouterr().err


def test_hash_key_prints_the_line_to_store(monkeypatch, capsys):
    key = "s" * 40
    monkeypatch.setattr("sys.stdin", io.StringIO(key + "\n"))
    assert cli.main(["serve", "--hash-key", "shop"]) == 0
    printed = capsys.readouterr().out
    assert printed == hash_key(key, "shop") + "\n"
    assert key not in printed


def test_variables_of_the_environment(monkeypatch):
    for name in ("SERVICE_HOST", "PORT_8000_TCP_ADDR"):  # Kubernetes, for a service of that name
        monkeypatch.setenv(f"REALDAMAGE_{name}", "10.0.0.1")
    monkeypatch.setenv("REALDAMAGE_PORT", "tcp://10.0.0.1:8000")
    assert read_settings({}) == Settings()
    for name, text in (("MAX_PHOTO", "3"), ("MAX_PHOTOS", "many")):
        monkeypatch.setenv(f"REALDAMAGE_{name}", text)
        with pytest.raises(UsageError, match=f"REALDAMAGE_{name}"):
            read_settings({})
        monkeypatch.delenv(f"REALDAMAGE_{name}")
