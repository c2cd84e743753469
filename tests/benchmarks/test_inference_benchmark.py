"""What a verdict of the packaged model costs: time from a photo's bytes, where it goes, and memory.

`make bench` times it on two threads and prints a table at the end. Ratios come from one run, so
they are what to compare.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from realdamage.core.detector import PACKAGED_MODEL, Detector
from realdamage.core.pooling import Pooling, pool
from realdamage.core.scorer import OnnxScorer
from realdamage.core.tiles import PixelSpec, assemble, cover, read_photo
from realdamage.core.verdict import find_regions
from realdamage.exporting.onnx import onnx_bytes
from realdamage.schema import ModelConfig
from realdamage.training.network import TorchScorer, build_network

THREADS = 2
SIZES = {"640x480": (640, 480), "1280x960": (1280, 960), "4000x3000": (4000, 3000)}
# The high-water mark of this program alone: ru_maxrss would begin at that of the process that
# started it.
PEAK = """
import sys
from pathlib import Path
from realdamage import Detector
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
print(peak())
detector = Detector(threads=int(sys.argv[1]))
print(peak())
for photo in sys.argv[2:]:
    detector.predict(photo)
    print(peak())
"""


@pytest.fixture(scope="module")
def jpeg(measures, tmp_path_factory, photo_factory):
    """`jpeg("640x480")`: the path of a photo of that size, quality 90; each is made once."""
    folder = tmp_path_factory.mktemp("jpeg")

    def make(size):
        path = folder / f"{size}.jpg"
        if not path.exists():
            width, height = (side // (1 if measures else 4) for side in SIZES[size])
            Image.fromarray(photo_factory(height, width, 0)).save(path, quality=90)
        return path

    return make


@pytest.fixture(scope="module")
def detector():
    return Detector(threads=THREADS)


@pytest.mark.parametrize("size", SIZES)
def test_a_verdict(benchmark, report, seconds, detector, jpeg, size):
    """From bytes; and the shares of its parts, each timed alone."""
    data, spec = jpeg(size).read_bytes(), detector.pixel_spec
    verdict = benchmark(detector.predict, data)
    photo = read_photo(data, spec)
    assert verdict.score == detector.predict_photo(photo).score
    tiles = cover(photo.rgb, spec)
    scorer = OnnxScorer(PACKAGED_MODEL.read_bytes(), threads=THREADS)
    logit, evidence = scorer(tiles.tiles)

    def map_and_regions():
        assemble(evidence, tiles, spec)
        find_regions(verdict.heatmap, verdict.cell, (photo.width, photo.height))

    parts = seconds(
        {
            "decode": lambda: read_photo(data, spec),
            "quality": lambda: replace(photo).quality,  # a copy has not measured it yet
            "tiles": lambda: cover(photo.rgb, spec),
            "network": lambda: scorer(tiles.tiles),
            "pooling": lambda: pool(logit, evidence, detector.metadata.pooling),
            "map and regions": map_and_regions,
        }
    )
    report("count of tiles", len(tiles.tiles), "d")
    if not benchmark.disabled:
        report("ms", benchmark.stats["min"] * 1e3, ".0f")
    for name, part in parts.items():
        report(f"share of {name}", part / sum(parts.values()), ".1%")


def test_onnx_against_torch(benchmark, report, seconds, measures, detector, jpeg):
    """How many times as long torch takes for one network, of random weights."""
    backbone = "vit_lite" if measures else "test_vit"
    network = build_network(ModelConfig(backbone, 128, False)).eval()
    spec = PixelSpec(tile=128, patch=16, overlap=16, max_side=2048)
    metadata = replace(detector.metadata, pixel_spec=spec, pooling=Pooling())
    onnx = OnnxScorer(onnx_bytes(network), threads=THREADS)
    in_onnx, in_torch = (Detector(one, metadata) for one in (onnx, TorchScorer(network)))
    data, before = jpeg("1280x960").read_bytes(), torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        score = benchmark.pedantic(in_torch.predict, args=(data,), rounds=1).score
        steps = {"onnx": lambda: in_onnx.predict(data), "torch": lambda: in_torch.predict(data)}
        took = seconds(steps)
    finally:
        torch.set_num_threads(before)
    assert score == pytest.approx(in_onnx.predict(data).score, abs=1e-4)
    report("torch / onnx", took["torch"] / took["onnx"], ".2f")


def test_a_list(benchmark, report, seconds, detector, jpeg):
    """Photos in one call, against one call each: the next is read while the network runs."""
    photos = [jpeg("640x480").read_bytes()] * (2 if benchmark.disabled else 64)
    verdicts = benchmark.pedantic(detector.predict, args=(photos,), rounds=1)
    assert {verdict.score for verdict in verdicts} == {detector.predict(photos[0]).score}
    took = seconds(
        {
            "list": lambda: detector.predict(photos),
            "each": lambda: [detector.predict(photo) for photo in photos],
        }
    )
    report("photos a second", len(photos) / took["list"], ".1f")
    report("one call each / list", took["each"] / took["list"], ".2f")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_memory(benchmark, report, jpeg):
    """Peak of a process that scores one photo after the other, in MiB."""
    photos = [str(jpeg(size)) for size in ("1280x960", "4000x3000")]
    command = [sys.executable, "-c", PEAK, str(THREADS), *photos]
    given = {"capture_output": True, "text": True, "check": True}
    done = benchmark.pedantic(subprocess.run, args=(command,), kwargs=given, rounds=1)
    peaks = [float(line) for line in done.stdout.split()]
    assert peaks == sorted(peaks)
    assert peaks[-1] < 400
    for name, peak in zip(("import", "load", "1280x960", "4000x3000"), peaks, strict=True):
        report(f"peak MiB after {name}", peak, ".0f")
