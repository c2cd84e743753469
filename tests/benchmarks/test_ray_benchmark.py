"""Ray against the local runner: photos a second of both on all processors of this machine, what Ray
costs at the start and for each photo, and what it costs to lose a worker.

`make bench PYTEST_ARGS=tests/benchmarks/test_ray_benchmark.py`. Ratios come from one run, so they
are what to compare.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from realdamage.scale import score
from realdamage.scale.run import Engine

T = TypeVar("T")
Report = Callable[[str, float, str], None]
PHOTOS = 400


@pytest.fixture(scope="module")
def names(
    tmp_path_factory: pytest.TempPathFactory, photo_factory: Callable[..., object]
) -> list[str]:
    """Many names of one photo of 640×480."""
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(photo_factory(480, 640, 0)).save(folder / "0.jpg", quality=90)
    paths = [folder / f"{index}.jpg" for index in range(PHOTOS)]
    for path in paths[1:]:
        path.symlink_to(paths[0])
    return [str(path) for path in paths]


def arrivals(names: list[str], output: Path, engine: Engine, *, kill: bool = False) -> list[float]:
    """When each row came, in seconds. kill: a worker, after a third of them."""
    start = time.perf_counter()
    times: list[float] = []

    def timed(steps: Iterable[T], total: int, description: str) -> Iterator[T]:
        for step in steps:
            times.append(time.perf_counter() - start)
            if kill and len(times) == total // 3:
                processes = psutil.Process().children(recursive=True)
                next(one for one in processes if "(_Judging)" in "".join(one.cmdline())).kill()
            yield step

    assert score(names, output, engine=engine, progress=timed).judged == len(times) == len(names)
    return times


def steady(times: list[float]) -> float:
    """Photos a second after the first quarter, when all workers run."""
    first = len(times) // 4
    return (len(times) - first) / (times[-1] - times[first - 1])


@pytest.mark.slow
def test_ray_against_the_local_runner(
    benchmark: BenchmarkFixture, report: Report, names: list[str], tmp_path: Path
) -> None:
    if benchmark.disabled:
        pytest.skip("tests/scale/test_ray.py runs the same on few photos")
    os.environ["RAY_raylet_start_wait_time_s"] = "300"  # 30 are too few on busy processors
    local = benchmark.pedantic(arrivals, args=(names, tmp_path / "local", "local"), rounds=1)
    start = time.perf_counter()
    from realdamage.scale.cluster import connect

    connect()
    started = time.perf_counter() - start
    ray = arrivals(names, tmp_path / "ray", "ray")
    again = arrivals(names, tmp_path / "local again", "local")
    killed = arrivals(names, tmp_path / "killed", "ray", kill=True)
    local_rate = (steady(local) + steady(again)) / 2
    report("local, photos a second", local_rate, ".1f")
    report("ray, photos a second, steady", steady(ray), ".1f")
    report("ray / local, steady", steady(ray) / local_rate, ".2f")
    report("ray / local, with all starts", local[-1] / (started + ray[-1]), ".2f")
    report("ms more a photo, steady", 1000 / steady(ray) - 1000 / local_rate, ".1f")
    report("s to start Ray here", started, ".1f")
    report("s to the first photo", ray[0], ".1f")
    report("s lost with a worker", killed[-1] - ray[-1], ".1f")
