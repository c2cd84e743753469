"""What a verdict costs: time from a photo's bytes, where it goes, memory, and the network's share
of what the machine can do, with the `vit_lite` architecture (random weights) and with the model
inside the package, if there is one.

`make bench` times it on two threads and prints a table at the end. Ratios come from one run, so
they are what to compare; a run of the tests uses photos of a quarter of the size, to see that the
code still runs.
"""

from __future__ import annotations

import importlib.util
import io
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from threadpoolctl import threadpool_limits

from realdamage.core.detector import PACKAGED_MODEL, Detector
from realdamage.core.model_file import ModelMetadata, read_model_file, write_model_file
from realdamage.core.pooling import Pooling, pool
from realdamage.core.scorer import OnnxScorer
from realdamage.core.tiles import PixelSpec, assemble, cover, read_photo
from realdamage.core.verdict import find_regions
from realdamage.exporting.onnx import onnx_bytes
from realdamage.exporting.parity import PARITY_CALIBRATION
from realdamage.schema import ModelConfig
from realdamage.training.network import EvidenceViT, TorchScorer, build_network

THREADS = 2
SIZES = {"640x480": (640, 480), "1280x960": (1280, 960), "4000x3000": (4000, 3000)}
METADATA = ModelMetadata(
    pixel_spec=PixelSpec(tile=128, patch=16, overlap=16, max_side=2048),
    pooling=Pooling(),
    calibration=PARITY_CALIBRATION,
    policy=None,
    backbone="vit_lite",
    demo=False,
    model_version="benchmark",
)

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
    return build_network(ModelConfig("vit_lite", METADATA.pixel_spec.tile, False)).eval()


@pytest.fixture(scope="module")
def exported(network: EvidenceViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "vit_lite.onnx"
    write_model_file(path, onnx_bytes(network), METADATA)
    return path


@pytest.fixture(scope="module", params=["vit_lite", "packaged"])
def model(request: pytest.FixtureRequest) -> Path:
    if request.param == "vit_lite":
        path: Path = request.getfixturevalue("exported")
        return path
    if not PACKAGED_MODEL.exists():
        pytest.skip("this checkout has no model inside the package")
    return PACKAGED_MODEL


def seconds(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Of the fastest round of each; taken in turn, so that a slow moment of the machine affects all
    of them."""
    best = dict.fromkeys(steps, math.inf)
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


@pytest.mark.parametrize("size", SIZES)
def test_a_verdict(
    benchmark: BenchmarkFixture, report: Report, model: Path, jpeg: Jpeg, size: str
) -> None:
    """From bytes; and the shares of its parts, each timed alone."""
    detector, data = Detector.load(model, threads=THREADS), jpeg(size).read_bytes()
    verdict = benchmark(detector.predict, data)
    spec, photo = detector.pixel_spec, read_photo(data, detector.pixel_spec)
    assert verdict.score == detector.predict_photo(photo).score
    tiles = cover(photo.rgb, spec)
    scorer = OnnxScorer(read_model_file(model)[0], threads=THREADS)
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


def test_onnx_against_torch(
    benchmark: BenchmarkFixture, report: Report, network: EvidenceViT, exported: Path, jpeg: Jpeg
) -> None:
    """The same network behind the same detector: how many times as long torch takes, as it is and
    compiled."""
    compiled = torch.compile(
        network, dynamic=True, disable=benchmark.disabled
    )  # compiling takes a minute
    detectors = {
        "onnx": Detector.load(exported, threads=THREADS),
        "torch eager": Detector(TorchScorer(network), METADATA),
        "torch.compile": Detector(TorchScorer(compiled), METADATA),
    }
    data = jpeg("1280x960").read_bytes()
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        scores = {
            name: detector.predict(data).score for name, detector in detectors.items()
        }  # compiles, too
        took = seconds(
            {
                name: lambda each=detector: each.predict(data)
                for name, detector in detectors.items()
            },
            1 if benchmark.disabled else 5,
        )
    finally:
        torch.set_num_threads(before)
    assert scores == pytest.approx(dict.fromkeys(scores, scores["onnx"]), abs=1e-4)
    benchmark.pedantic(detectors["onnx"].predict, args=(data,), rounds=1)
    for name in ("torch eager", "torch.compile"):
        report(f"{name} / onnx", took[name] / took["onnx"], ".2f")


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
def test_against_a_classification_pipeline(
    benchmark: BenchmarkFixture, report: Report, exported: Path, jpeg: Jpeg
) -> None:
    """Context, not a contest: transformers' pipeline shrinks the photo to one 224×224 view for a
    ViT-Ti of random weights, the detector looks at every pixel."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, pipeline

    config = ViTConfig(hidden_size=192, num_attention_heads=3, intermediate_size=768)
    classify = pipeline(
        "image-classification",
        model=ViTForImageClassification(config),
        image_processor=ViTImageProcessor(),
        device="cpu",
    )
    detector, data = Detector.load(exported, threads=THREADS), jpeg("1280x960").read_bytes()
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        found = benchmark(lambda: classify(Image.open(io.BytesIO(data))))
        took = seconds(
            {
                "pipeline": lambda: classify(Image.open(io.BytesIO(data))),
                "detector": lambda: detector.predict(data),
            },
            1 if benchmark.disabled else 5,
        )
    finally:
        torch.set_num_threads(before)
    assert {each["label"] for each in found} == {"LABEL_0", "LABEL_1"}
    report("detector / pipeline", took["detector"] / took["pipeline"], ".1f")


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


def test_share_of_the_matmul_rate(benchmark: BenchmarkFixture, report: Report, model: Path) -> None:
    """The network's operations a second over those of a float32 matrix product of 1024³, both on
    two threads."""
    data, metadata, _ = read_model_file(model)
    scorer, side = OnnxScorer(data, threads=THREADS), metadata.pixel_spec.tile
    count = 4 if benchmark.disabled else 32
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    logit, _ = benchmark(scorer, tiles)
    assert logit.shape == (count,)
    a, b = rng.normal(size=(2, 1024, 1024)).astype(np.float32)
    with threadpool_limits(THREADS):
        took = seconds(
            {"network": lambda: scorer(tiles), "matmul": lambda: a @ b},
            1 if benchmark.disabled else 9,
        )
    operations = operations_of_a_tile(data)
    rate, best = operations * count / took["network"], 2 * 1024**3 / took["matmul"]
    report("million operations a tile", operations / 1e6, ".0f")
    report("network, 10^9 operations a second", rate / 1e9, ".0f")
    report("share of the matmul rate", rate / best, ".0%")


def operations_of_a_tile(data: bytes) -> int:
    """Multiplications and additions of a graph's Conv, MatMul and Gemm nodes for one tile."""
    model = onnx.load_from_string(data)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]  # with symbols for the number of tiles
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.input, *graph.output, *graph.value_info]:
        shapes[value.name] = tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            terms = math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            first = shapes[node.input[0]]
            transposed = any(each.name == "transA" and each.i for each in node.attribute)
            terms = first[0] if transposed else first[-1]
        else:
            continue
        total += 2 * terms * math.prod(shapes[node.output[0]])
    return total
