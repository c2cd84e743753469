"""Ray against the local runner: photos a second of both on all processors of this machine, and what
Ray costs at the start. What a lost worker costs is tested in tests/scale/test_ray.py.

`make bench PYTEST_ARGS=tests/benchmarks/test_ray_benchmark.py`. Ratios come from one run, so they
are what to compare.
"""

import time
from typing import TypeVar

import pytest
from PIL import Image

from realdamage.scale import score

T = TypeVar("T")
PHOTOS = 160


@pytest.fixture(scope="module")
def names(tmp_path_factory, photo_factory):
    """Many names of one photo of 640×480."""
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(photo_factory(480, 640, 0)).save(folder / "0.jpg", quality=90)
    paths = [folder / f"{index}.jpg" for index in range(PHOTOS)]
    for path in paths[1:]:
        path.symlink_to(paths[0])
    return [str(path) for path in paths]


class Run:
    """One run: when it judged its first photo, and its rate after the first quarter of the photos,
    when all workers run."""

    def __init__(self, names, output, engine):
        self.start = time.perf_counter()
        done = score(names, output, engine=engine, progress=self.watch)
        assert done.judged == self.judged == len(names)
        self.seconds = time.perf_counter() - self.start

    def watch(self, steps, total, description):
        for number, step in enumerate(steps, start=1):
            now = time.perf_counter()
            if number == 1:
                self.first = now - self.start
            if number == total // 4:
                quarter = now
            if number == total:
                self.rate = (total - total // 4) / (now - quarter)
            self.judged = number
            yield step


@pytest.mark.slow
def test_ray_against_the_local_runner(benchmark, report, names, tmp_path):
    """Each gets one thread a session. On a busy machine the runner with more processes gets more of
    it, so the ratio says something on a quiet one only."""
    if benchmark.disabled:
        pytest.skip("tests/scale/test_ray.py runs the same on few photos")
    from realdamage.scale.cluster import connect

    local = benchmark.pedantic(Run, args=(names, tmp_path / "local", "local"), rounds=1)
    start = time.perf_counter()
    connect()
    started = time.perf_counter() - start
    ray = Run(names, tmp_path / "ray", "ray")
    again = Run(names, tmp_path / "again", "local")
    rate = (local.rate + again.rate) / 2
    report("photos a second, local", rate, ".1f")
    report("photos a second, Ray, steady", ray.rate, ".1f")
    report("Ray / local, steady", ray.rate / rate, ".2f")
    report("Ray / local, start and end included", local.seconds / (started + ray.seconds), ".2f")
    report("s to start Ray", started, ".1f")
    report("s to its first photo", ray.first, ".1f")
