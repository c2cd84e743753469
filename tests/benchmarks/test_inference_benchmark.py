"""What a verdict costs with the `vit_micro` architecture (random weights): time from bytes, its parts, memory.

`make bench` times it on two threads and prints a table. Ratios come from one run, so they are what to compare; a run of
the tests uses photos of a quarter of the size, to check that the code still runs.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from realdamage.core.detector import Detector
from realdamage.core.model_file import ModelMetadata, read_model_file, write_model_file
from realdamage.core.pooling import Pooling, pool
from realdamage.core.scorer import OnnxScorer
from realdamage.core.tiles import PixelSpec, assemble, cover, read_photo
from realdamage.core.verdict import find_regions
from realdamage.exporting.exporter import PARITY_CALIBRATION, onnx_bytes
from realdamage.training.network import EvidenceViT, build_network

THREADS = 2
SIZES = {"640x480": (640, 480), "1280x960": (1280, 960), "4000x3000": (4000, 3000)}
METADATA = ModelMetadata(
    pixel_spec=PixelSpec(tile=128, patch=16, overlap=16, max_side=2048),
    pooling=Pooling(),
    calibration=PARITY_CALIBRATION,
    policy=None,
    backbone="vit_micro",
    demo=False,
    model_version="benchmark",
)

# The high-water mark of this program alone: ru_maxrss would begin at that of the process that started it.
PEAK = """
import sys
from pathlib import Path
from realdamage import Detector
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
print(peak())
detector = Detector.load(sys.argv[1], threads=int(sys.argv[2]))
print(peak())
for photo in sys.argv[3:]:
    detector.predict(photo)
    print(peak())
"""

Report = Callable[[str, float, str], None]
Jpeg = Callable[[str], Path]


@pytest.fixture(scope="module")
def jpeg(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    photo_factory: Callable[[int, int, int], np.ndarray],
) -> Jpeg:
    """`jpeg("640x480")`: the path of a photo of that size, quality 90; each is made once."""
    folder = tmp_path_factory.mktemp("jpeg")
    shrink = 4 if not request.config.getoption("benchmark_enable") else 1

    def make(size: str) -> Path:
        path = folder / f"{size}.jpg"
        if not path.exists():
            width, height = (side // shrink for side in SIZES[size])
            Image.fromarray(photo_factory(height, width, 0)).save(path, quality=90)
        return path

    return make


@pytest.fixture(scope="module")
def network() -> EvidenceViT:
    torch.manual_seed(0)
    return build_network("vit_micro", tile=METADATA.pixel_spec.tile, pretrained=False).eval()


@pytest.fixture(scope="module")
def exported(network: EvidenceViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "vit_micro.onnx"
    write_model_file(path, onnx_bytes(network, opset=20), METADATA)
    return path


def seconds(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Of the fastest round of each; taken in turn, so that a slow moment of the machine meets all of them."""
    best = dict.fromkeys(steps, math.inf)
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


@pytest.mark.parametrize("size", SIZES)
def test_a_verdict(
    benchmark: BenchmarkFixture, report: Report, exported: Path, jpeg: Jpeg, size: str
) -> None:
    """From bytes; and the shares of its parts, each timed alone."""
    detector, data = Detector.load(exported, threads=THREADS), jpeg(size).read_bytes()
    verdict = benchmark(detector.predict, data)
    spec, photo = detector.pixel_spec, read_photo(data, detector.pixel_spec)
    assert verdict.score == detector.predict_photo(photo).score
    tiles = cover(photo.rgb, spec)
    scorer = OnnxScorer(read_model_file(exported)[0], threads=THREADS)
    logit, evidence = scorer(tiles.tiles)
    assert verdict.heatmap is not None
    heatmap = verdict.heatmap

    def map_and_regions() -> None:
        assemble(evidence, tiles, spec)
        find_regions(heatmap, verdict.cell, (photo.width, photo.height))

    parts = seconds(
        {
            "decode": lambda: read_photo(data, spec),
            "quality": lambda: replace(photo).quality,  # a copy has not measured it yet
            "tiles": lambda: cover(photo.rgb, spec),
            "network": lambda: scorer(tiles.tiles),
            "pooling": lambda: pool(logit, evidence, detector.metadata.pooling),
            "map and regions": map_and_regions,
        },
        1 if benchmark.disabled else 5,
    )
    report("count of tiles", len(tiles.tiles), "d")
    if not benchmark.disabled:
        report("ms", benchmark.stats["min"] * 1e3, ".0f")
    for name, part in parts.items():
        report(f"share of {name}", part / sum(parts.values()), ".1%")


def test_a_list(benchmark: BenchmarkFixture, report: Report, exported: Path, jpeg: Jpeg) -> None:
    """64 photos in one call, against one call each: the next is read while the network runs."""
    detector = Detector.load(exported, threads=THREADS)
    photos = [jpeg("640x480").read_bytes()] * (4 if benchmark.disabled else 64)
    verdicts = benchmark.pedantic(
        detector.predict, args=(photos,), rounds=1 if benchmark.disabled else 3
    )
    assert {verdict.score for verdict in verdicts} == {detector.predict(photos[0]).score}
    took = seconds(
        {
            "list": lambda: detector.predict(photos),
            "each": lambda: [detector.predict(photo) for photo in photos],
        },
        1 if benchmark.disabled else 3,
    )
    report("photos a second", len(photos) / took["list"], ".1f")
    report("one call each / list", took["each"] / took["list"], ".2f")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_memory(benchmark: BenchmarkFixture, report: Report, exported: Path, jpeg: Jpeg) -> None:
    """Peak of a process that scores one photo after the other, in MiB."""
    photos = [str(jpeg(size)) for size in ("1280x960", "4000x3000")]
    command = [sys.executable, "-c", PEAK, str(exported), str(THREADS), *photos]
    done = benchmark.pedantic(
        lambda: subprocess.run(command, capture_output=True, text=True, check=True),
        rounds=1,
        iterations=1,
    )
    peaks = [float(line) for line in done.stdout.split()]
    assert peaks == sorted(peaks)
    assert peaks[-1] < 400
    for name, peak in zip(("import", "load", "1280x960", "4000x3000"), peaks, strict=True):
        report(f"peak MiB after {name}", peak, ".0f")
