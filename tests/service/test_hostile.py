"""Hostile bytes: whatever comes in, every answer is one that the interface describes, and the
service goes on.

SOAK_PHOTOS=20000 makes the mutation test as long as wanted.
"""

import csv
import os
import random
import subprocess
import sys
import typing
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks as openapi_checks

from realdamage.core.decode import decode
from realdamage.errors import PhotoError
from realdamage.provenance import Declared, read_provenance
from realdamage.service.app import create_app
from realdamage.service.reviews import JudgedPhotos
from realdamage.service.settings import Settings

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP")
STARTS = (b"", b"--x", b"--x\r\n", b'--x\r\nContent-Disposition: form-data; name="')
MUTANTS = int(os.environ.get("SOAK_PHOTOS", "1400"))


@pytest.mark.parametrize("form", FORMATS)
def test_mutants_are_decoded_or_refused(form, trial):
    """Any other exception than PhotoError, or a crash, fails this."""
    hostile, draw = trial("hostile_photos"), random.Random(f"mutants of {form}")
    data = hostile.photo(form, draw, side=40)
    counts = {"decoded": 0, "refused": 0}
    for _ in range(MUTANTS // len(FORMATS)):
        mutant = hostile.mutate(data, draw)
        try:
            assert decode(mutant, max_pixels=1_000_000).ndim == 3
            counts["decoded"] += 1
        except PhotoError:
            counts["refused"] += 1
    assert counts["refused"] > 0
    assert counts["decoded"] > 0 or form == "PNG", "only PNG has a checksum over every byte"


@settings(max_examples=150, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0"]),
)
@example(b"", b"RIFF\xff\xff\xff\xffWEBP")
def test_any_bytes_are_refused_and_have_no_provenance_that_fails(data, head):
    with pytest.raises(PhotoError):
        decode(head + data)
    if head + data:
        assert read_provenance(head + data).declared in typing.get_args(Declared)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(STARTS), st.binary(max_size=300))
def test_any_body_is_answered_with_a_reason(plain, start, body):
    kind = {"content-type": "multipart/form-data; boundary=x"}
    response = plain.post("/v1/photos", content=start + body, headers=kind)
    assert response.status_code in (400, 413, 422)
    assert response.json()["error"]["message"]


@pytest.fixture(scope="module")
def plain(model_file):
    with TestClient(
        create_app(Settings(model=model_file, threads=1)), base_url="http://127.0.0.1"
    ) as client:
        yield client


class EveryOther(JudgedPhotos):
    """Takes every second photo that it is asked for as one that was judged."""

    _asked = 0

    def __contains__(self, sha256):
        self._asked += 1
        return self._asked % 2 == 0


@pytest.mark.slow
def test_the_interface_is_as_described(model_file, tmp_path, trial):
    """Status codes, content types and bodies are those of /openapi.json, for input made from it;
    photos and rubbish stand where it says binary."""
    draw, hostile = random.Random(3), trial("hostile_photos")
    files = [hostile.photo(form, draw, side=40) for form in FORMATS] + [b"rubbish"]
    schemathesis.openapi.format("binary", st.sampled_from(files))
    # The client below is called testserver, which only --no-auth admits.
    app = create_app(Settings(model=model_file, threads=1, no_auth=True, store=tmp_path / "store"))
    app.state.service.load_model()
    app.state.service.judged = EveryOther()
    checks = [
        not_a_server_error,
        openapi_checks.status_code_conformance,
        openapi_checks.content_type_conformance,
        openapi_checks.response_schema_conformance,
    ]
    answered = Counter()
    for result in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        operation = result.ok()
        label = operation.label
        counts = "multipart" in str(operation.definition.raw) or label == "POST /v1/reviews"

        @settings(
            max_examples=8 if counts else 3,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(), st.just(label))
        def call(case, label):
            response = case.call_and_validate(checks=checks)
            answered[f"{label} {response.status_code}"] += 1
            if label == "POST /v1/photos":
                answered["photos judged"] += response.text.count('"outcome"')

        call()
    needed = (
        "photos judged",
        "POST /v1/claims 200",
        "POST /v1/reviews 201",
        "POST /v1/reviews 409",
    )
    assert min(answered[one] for one in needed) > 0, answered
    assert answered["POST /v1/photos 422"] + answered["POST /v1/claims 422"] > 0, answered


@pytest.mark.slow
def test_a_real_server_under_load_answers_everybody(start_process, model_file, tmp_path):
    """`tests/trials/locustfile.py` in short: mixed good and hostile input."""
    if find_spec("locust") is None:  # an import would patch this process's sockets and threads
        pytest.skip("needs locust")
    server = start_process("--model", model_file)
    script = Path(__file__).parents[1] / "trials" / "locustfile.py"
    load = ("locust", "-f", str(script), "--headless", "--host", server.url, "--users", "6")
    ending = ("--spawn-rate", "6", "--run-time", "3s", "--stop-timeout", "60")
    done = subprocess.run(
        [sys.executable, "-m", *load, *ending, "--csv", str(tmp_path / "load")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "load_stats.csv").open() as file:
        total = list(csv.DictReader(file))[-1]
    assert int(total["Request Count"]) >= 3
    assert int(total["Failure Count"]) == 0
    assert server.process.poll() is None
