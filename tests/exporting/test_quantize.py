"""The int8 variant is written when it passes the recall check, and for no other reason."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from realdamage.core.detector import Detector
from realdamage.core.model_file import read_model_file, write_model_file
from realdamage.core.scorer import OnnxScorer
from realdamage.core.tiles import PixelSpec
from realdamage.data.manifest import read_manifest
from realdamage.errors import ManifestError, ModelFileError, UsageError
from realdamage.evaluation import predictions
from realdamage.exporting import quantize
from realdamage.exporting.quantize import Recall, check_recall, quantize_model, to_int8

# The smoother a patch, the more synthetic: a residual front end, convolutions, a product, heads.
GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
roughness (uint8[n,64,64,3] tiles) => (float[n] logit, float[n,4,4] evidence) {
    pixels = Cast<to=1>(tiles)
    planes = Transpose<perm=[0,3,1,2]>(pixels)
    mean = Conv<pads=[1,1,1,1]>(planes, box)
    band = Sub(planes, mean)
    signs = Conv(band, both_signs)
    rough = Relu(signs)
    summed = Conv(rough, sums)
    cells = AveragePool<kernel_shape=[16,16], strides=[16,16]>(summed)
    rows = Reshape(cells, rows_shape)
    tokens = Transpose<perm=[0,2,1]>(rows)
    mixed = MatMul(tokens, mix)
    patches = MatMul(mixed, patch_head)
    shifted = Add(patches, shift)
    evidence = Reshape(shifted, map_shape)
    summary = ReduceMean<keepdims=0>(mixed, middle)
    tile = Gemm(summary, tile_head, shift)
    logit = Squeeze(tile, middle)
}
"""


def network():
    eye = np.eye(3, dtype=np.float32)
    weights = {
        "box": np.repeat(np.repeat(eye[:, :, None, None], 3, 2), 3, 3) / 9,
        "both_signs": np.concatenate([eye, -eye])[:, :, None, None],
        "sums": np.full((4, 6, 1, 1), 1 / 6, np.float32),
        "mix": np.eye(4, dtype=np.float32) + 0.1,
        "patch_head": np.full((4, 1), -0.5, np.float32),
        "tile_head": np.full((4, 1), -0.4, np.float32),
        "shift": np.full(1, 6.0, np.float32),
        "rows_shape": np.array([0, 4, 16]),
        "map_shape": np.array([0, 4, 4]),
        "middle": np.array([1]),
    }
    model = onnx.parser.parse_model(GRAPH)
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in weights.items()
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def photos(tiny_manifest):
    """44 photos: 22 train, 11 are val, 11 test."""
    return read_manifest(tiny_manifest)


@pytest.fixture
def metadata(red_metadata):
    spec = PixelSpec(tile=64, patch=16, overlap=16, max_side=256)
    return replace(red_metadata, pixel_spec=spec)


@pytest.fixture
def model(metadata, tmp_path):
    write_model_file(tmp_path / "model.onnx", network(), metadata)
    return tmp_path / "model.onnx"


@pytest.fixture
def clock(monkeypatch):
    """`clock(seconds)`: the variant takes so long for a photo, and the model 3 ms, however busy the
    machine that runs the tests. Both are judged by few photos, so one more or less is no drop."""
    monkeypatch.setattr(quantize, "MAX_DROP", 0.3)

    def make(seconds):
        now = {"time": 0.0}

        class Scorer(OnnxScorer):
            def __init__(self, data, *, threads=None):
                super().__init__(data, threads=threads)
                self._seconds = seconds if b"DequantizeLinear" in data else 0.003

            def __call__(self, tiles):
                now["time"] += self._seconds
                return super().__call__(tiles)

        monkeypatch.setattr(quantize, "OnnxScorer", Scorer)
        monkeypatch.setattr(predictions, "time", SimpleNamespace(perf_counter=lambda: now["time"]))

    return make


def test_only_inner_products_become_integers_and_the_answer_is_nearly_the_same():
    tiles = np.random.default_rng(0).normal(128, 8, (6, 64, 64, 3)).clip(0, 255).astype(np.uint8)
    data = network()
    variant = to_int8(data, tiles)
    nodes = onnx.load_model_from_string(variant).graph.node
    dequantized = {
        name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output
    }
    from_integers = [
        node.output[0]
        for node in nodes
        if node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in dequantized
    ]
    assert [name.split("_")[0] for name in from_integers] == ["mixed"]
    for before, after in zip(OnnxScorer(data)(tiles), OnnxScorer(variant)(tiles), strict=True):
        assert not np.array_equal(before, after)
        np.testing.assert_allclose(after, before, atol=0.2)
    with pytest.raises(ModelFileError) as error:
        to_int8(variant, tiles)
    assert error.value.code == "nothing_to_quantize"


def test_a_good_variant_is_written_without_thresholds_if_it_is_faster(
    model, metadata, photos, clock, tmp_path
):
    clock(0.009)
    slower = quantize_model(model, photos, threads=1)
    assert (slower.faults, slower.output) == (("not faster",), None)
    assert "not faster" in quantize.summary_text(slower)
    assert [path.name for path in tmp_path.glob("*.onnx")] == ["model.onnx"]
    clock(0.001)
    found = quantize_model(model, photos, threads=1)
    written = tmp_path / "model.int8.onnx"
    assert (found.faults, found.output) == ((), str(written))
    assert (found.variant.ms, found.model.ms) == pytest.approx((1, 3))
    assert str(written) in quantize.summary_text(found)
    _, made, digest = read_model_file(written)
    before = read_model_file(model)[2]
    assert digest != before
    assert made.training["quantized"]["float_graph_sha256"] == before
    assert replace(made, training={}) == replace(metadata, calibration=None, policy=None)
    assert Detector.load(written).predict(np.full((80, 80, 3), 128, np.uint8)).outcome == "review"


def test_the_recall_check():
    model = Recall(tpr=0.9, ap=0.5, ms=3, mb=1)

    def faults(**change):
        variant = replace(model, **{"ms": 1, **change})
        return [text.split(" by")[0] for text in check_recall(model, variant)]

    assert faults() == faults(tpr=0.89) == []
    assert faults(tpr=0.88, ap=0.4) == ["TPR drops", "localisation AP drops"]
    assert faults(ms=3) == ["not faster"]
    assert "nothing to lose" in check_recall(replace(model, tpr=0.0), model)[0]


def test_what_cannot_be_checked_is_refused(model, metadata, photos):
    for wrong in ({"output": model}, {"split": "train"}, {"limit": 5}):
        with pytest.raises(UsageError):
            quantize_model(model, photos, **wrong)
    real = photos.subset((photos.table["label"] == "real") | (photos.table["split"] == "train"))
    with pytest.raises(ManifestError) as error:
        quantize_model(model, real)
    assert error.value.code == "one_class"
    write_model_file(model, network(), replace(metadata, demo=True))
    with pytest.raises(ModelFileError, match="demonstration"):
        quantize_model(model, photos, threads=1)
