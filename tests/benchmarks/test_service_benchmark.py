"""What HTTP costs: requests a second and waiting times of a real server process at 1, 8 and 32
callers, compared with one-by-one calls of the wrapper. Photos of 640×480, one a request."""

import io
import runpy
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from realdamage.core.detector import Detector

THREADS = 2


@pytest.fixture(scope="module")
def photo(measures, photo_factory):
    data, shrink = io.BytesIO(), 1 if measures else 4
    Image.fromarray(photo_factory(480 // shrink, 640 // shrink, 0)).save(data, "JPEG", quality=90)
    return data.getvalue()


@pytest.fixture(scope="module")
def url():
    process = runpy.run_path(str(Path(__file__).parents[1] / "serving.py"))["Process"]
    server = process("--deadline", "300", "--threads", str(THREADS))
    yield server.url
    server.kill()


def post(client, photo):
    """Milliseconds of one request; its verdict must be there."""
    start = time.perf_counter()
    answer = client.post("/v1/photos", files={"photos": ("p.jpg", photo)})
    took = 1000 * (time.perf_counter() - start)
    assert answer.status_code == 200, answer.text
    assert "verdict" in answer.json()["results"][0]
    return took


@pytest.mark.parametrize("clients", [1, 8, 32])
def test_callers_at_once(benchmark, report, measures, url, photo, clients):
    each = max(4, 64 // clients) if measures else 1
    clients = clients if measures else min(clients, 2)

    def call(_):
        with httpx.Client(base_url=url, timeout=300) as client:
            return [post(client, photo) for _ in range(each)]

    def all_at_once():
        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            found = [ms for waits in pool.map(call, range(clients)) for ms in waits]
        return time.perf_counter() - start, found

    seconds, waits = benchmark.pedantic(all_at_once, rounds=1)
    assert len(waits) == clients * each
    detector, count = Detector.load(threads=THREADS), 16 if measures else 1
    detector.predict(photo)
    start = time.perf_counter()
    for _ in range(count):
        detector.predict(photo)
    alone = count / (time.perf_counter() - start)
    rate = len(waits) / seconds
    report("requests a second", rate, ".1f")
    for share in (50, 95, 99):
        report(f"p{share} ms", float(np.percentile(waits, share)), ".0f")
    report("wrapper alone, photos a second", alone, ".1f")
    report("service / wrapper", rate / alone, ".2f")
