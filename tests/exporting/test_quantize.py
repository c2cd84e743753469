"""A variant is shipped when it is as good and faster, and for no other reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from realdamage.commands.cli import main
from realdamage.core.detector import Detector
from realdamage.core.metadata import ModelMetadata, read_model_file, write_model_file
from realdamage.core.photo import PixelSpec
from realdamage.core.policy import Calibration, Policy
from realdamage.core.pooling import Pooling
from realdamage.core.scorer import OnnxScorer
from realdamage.data.manifest import Manifest, read_manifest
from realdamage.errors import ManifestError, ModelFileError, RealDamageError, UsageError
from realdamage.evaluation import predictions
from realdamage.evaluation.figures import tpr_at_fpr
from realdamage.evaluation.localise import localisation_metrics
from realdamage.evaluation.predictions import PatchEvidence, score_manifest
from realdamage.exporting import quantize, quantized_graph
from realdamage.exporting.quantized_gate import Drop, Limits, Variant, measure_variants, negatives

METADATA = ModelMetadata(
    pixel_spec=PixelSpec(tile=64, patch=16, overlap=16, max_side=256),
    pooling=Pooling(),
    calibration=Calibration(slope=1.0, intercept=0.0, prior=0.5),
    policy=Policy(
        t_synthetic=1.0, t_real=-1.0, fpr=0.01, miss=0.05, negatives="real", photos={"real": 30}
    ),
    backbone="roughness",
    demo=False,
    model_version="1",
)
# The smoother a patch, the more synthetic: a residual front end, two convolutions, a product and two heads.
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


def network(sharpness: float = 1.0) -> bytes:
    """`sharpness` 0: it sees nothing, negative: it is always wrong."""
    eye = np.eye(3, dtype=np.float32)
    weights: dict[str, Any] = {
        "box": np.repeat(np.repeat(eye[:, :, None, None], 3, 2), 3, 3) / 9,
        "both_signs": np.concatenate([eye, -eye])[:, :, None, None],
        "sums": np.full((4, 6, 1, 1), 1 / 6, np.float32),
        "mix": np.eye(4, dtype=np.float32) + 0.1,
        "patch_head": np.full((4, 1), -0.5 * sharpness, np.float32),
        "tile_head": np.full((4, 1), -0.4 * sharpness, np.float32),
        "shift": np.full(1, 6.0 * sharpness, np.float32),
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


def layers_of(data: bytes) -> quantized_graph.Layers:
    return quantized_graph.find_layers(quantized_graph.prepared(data))


def outputs_of(data: bytes, names: tuple[str, ...]) -> list[str]:
    nodes = quantized_graph.prepared(data).graph.node
    return [node.output[0] for node in nodes if node.name in names]


def detector_of(data: bytes) -> Detector:
    return Detector(OnnxScorer(data, threads=1), replace(METADATA, calibration=None, policy=None))


@pytest.fixture(scope="module")
def photos(write_set: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """55 photos of 20 groups: 12 train, 4 are val, 4 test."""
    return read_manifest(write_set(tmp_path_factory.mktemp("quantize") / "photos", groups=20))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model_file(tmp_path / "model.onnx", network(), METADATA)
    return tmp_path / "model.onnx"


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[bytes], bool]], None]:
    """`slow(which)`: a clock by which the graphs that `which` names take 9 ms a photo, others 3, however busy the
    machine that runs the tests."""

    def make(which: Callable[[bytes], bool]) -> None:
        clock = {"now": 0.0}

        class Scorer(OnnxScorer):
            def __init__(self, data: bytes, *, threads: int | None = None) -> None:
                super().__init__(data, threads=threads)
                self._seconds = 0.009 if which(data) else 0.003

            def __call__(self, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                clock["now"] += self._seconds
                return super().__call__(tiles)

        monkeypatch.setattr(quantize, "OnnxScorer", Scorer)
        monkeypatch.setattr(predictions, "time", SimpleNamespace(perf_counter=lambda: clock["now"]))

    return make


def integers(data: bytes) -> bool:
    return b"DequantizeLinear" in data


def tiles(n: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.clip(rng.normal(128, 8, (n, 64, 64, 3)), 0, 255).astype(np.uint8)


def test_front_and_heads_are_found_by_structure() -> None:
    data = network()
    layers = layers_of(data)
    assert "band" in outputs_of(data, layers.front)
    assert (
        outputs_of(data, layers.front)[-1] == "signs"
    )  # the filter has weights too, but pixels go around it
    assert outputs_of(data, layers.convolutions) == ["summed"]
    assert outputs_of(data, layers.products) == ["mixed"]
    assert {"patches", "tile", "logit", "evidence"} <= set(outputs_of(data, layers.heads))


def test_integers_only_where_they_were_asked_for_and_nearly_the_same_answer() -> None:
    data = network()
    layers = layers_of(data)
    inner = layers.convolutions + layers.products
    variant = quantized_graph.to_int8(quantized_graph.prepared(data), inner, tiles())
    nodes = onnx.load_model_from_string(variant).graph.node
    made = {name: node for node in nodes for name in node.output}
    from_integers = {
        node.name
        for node in nodes
        if node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in made
    }
    assert from_integers == set(inner)
    for before, after in zip(OnnxScorer(data)(tiles()), OnnxScorer(variant)(tiles()), strict=True):
        assert not np.array_equal(before, after)
        np.testing.assert_allclose(after, before, atol=0.2)


def test_half_precision_keeps_the_contract_the_front_and_the_heads() -> None:
    data = network()
    layers = layers_of(data)
    variant = quantized_graph.to_fp16(quantized_graph.prepared(data), layers.front + layers.heads)
    weights = {
        tensor.name: tensor.data_type
        for tensor in onnx.load_model_from_string(variant).graph.initializer
    }
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert {weights[name] for name in ("sums", "mix")} == {half}
    assert {weights[name] for name in ("box", "both_signs", "patch_head", "tile_head")} == {single}
    for before, after in zip(OnnxScorer(data)(tiles()), OnnxScorer(variant)(tiles()), strict=True):
        np.testing.assert_allclose(after, before, atol=0.02)


def test_a_network_without_inner_layers_is_refused(model_file: Path) -> None:
    with pytest.raises(ModelFileError, match="nothing to quantize"):
        layers_of(model_file.read_bytes())


def test_figures_are_those_of_the_evaluation(photos: Manifest) -> None:
    data, other = network(), network(sharpness=-1.0)
    (worse,) = measure_variants(
        detector_of(data),
        {"worse": (detector_of(other), 2.0)},
        photos,
        Limits(0.01, 0.01),
        n_boot=50,
    )
    assert worse.ap is not None
    for own, tpr, ap in (
        (data, worse.tpr.base, worse.ap.base),
        (other, worse.tpr.variant, worse.ap.variant),
    ):
        table, evidence = score_manifest(detector_of(own), photos)
        scores = {
            label: table[table["label"] == label]["score"].to_numpy()
            for label in ("real", "synthetic")
        }
        assert tpr == pytest.approx(tpr_at_fpr(scores["real"], scores["synthetic"], 0.01))
        assert ap == pytest.approx(localisation_metrics(evidence, n_boot=2)["pixel_ap"])
    assert worse.tpr.drop == pytest.approx(worse.tpr.base)
    assert worse.tpr.base > 0.2
    assert worse.tpr.low is not None
    assert worse.tpr.low > 0
    assert [fault.split(" by")[0] for fault in worse.faults[:2]] == [
        "TPR drops",
        "localisation AP drops",
    ]


def test_the_same_network_loses_nothing_and_too_few_groups_give_no_interval(
    photos: Manifest,
) -> None:
    detector, few = detector_of(network()), photos.select(split="val")
    (same,) = measure_variants(
        detector, {"same": (detector, 1.0)}, few, Limits(0.01, 0.01), n_boot=20
    )
    assert same.ap is not None
    assert (same.tpr.drop, same.tpr.low, same.tpr.high) == (0, None, None)
    assert (same.ap.drop, same.ap.low, same.ap.high) == (0, None, None)


def test_a_model_that_sees_nothing_proves_nothing(photos: Manifest) -> None:
    blind = detector_of(network(sharpness=0.0))
    with pytest.raises(RealDamageError, match="nothing to lose"):
        measure_variants(
            blind, {"same": (blind, 1.0)}, photos.select(split="val"), Limits(0.01, 0.01), n_boot=2
        )


def test_really_damaged_photos_decide_where_there_are_enough(photos: Manifest) -> None:
    table = photos.table
    name, which = negatives(table)
    assert (name, which.sum()) == ("real", (table["label"] == "real").sum())
    damaged = table[table["kind"] == "damaged"]
    many = table.loc[[*table.index, *np.resize(damaged.index, 100)]].reset_index(drop=True)
    name, which = negatives(many)
    assert (name, which.sum()) == ("really damaged", 100 + len(damaged))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ()),
        ({"ratio_high": 1.0}, ("not faster",)),
        ({"ratio_low": 1.1, "ratio_high": 1.3}, ("slower",)),
        ({"tpr": Drop(0.9, 0.88, None, None, 0.01)}, ("TPR drops by 0.020, more than 0.01",)),
        ({"tpr": Drop(0.9, 0.89, None, None, 0.01)}, ()),
        (
            {"ap": Drop(0.5, 0.4, 0.0, 0.2, 0.01)},
            ("localisation AP drops by 0.100, more than 0.01",),
        ),
        ({"ap": None}, ()),
    ],
)
def test_faults(change: dict[str, Any], expected: tuple[str, ...]) -> None:
    fine = Drop(0.5, 0.6, -0.2, 0.0, 0.01)
    variant = Variant("x", 1.0, fine, fine, 10.0, 5.0, 0.5, 0.4, 0.6)
    assert replace(variant, **change).faults == expected


def test_the_fastest_good_variant_is_written_without_thresholds(
    model: Path,
    photos: Manifest,
    slow: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    slow(lambda data: not integers(data))
    report = tmp_path / "report.json"
    arguments = [
        "--manifest",
        str(photos.root),
        "--max-tpr-drop",
        "0.3",
        "--max-ap-drop",
        "0.3",
        "--threads",
        "1",
    ]
    assert main(["quantize", str(model), *arguments, "--json", str(report)]) == 0
    shown = capsys.readouterr().out
    written = tmp_path / "model.int8.onnx"
    data, metadata, digest = read_model_file(written)
    _, _, before = read_model_file(model)
    assert integers(data)
    assert (metadata.calibration, metadata.policy) == (None, None)
    assert digest != before
    assert metadata.training["quantized"]["float_graph_sha256"] == before
    assert replace(metadata, training={}) == replace(METADATA, calibration=None, policy=None)
    assert Detector.load(written).predict(np.full((80, 80, 3), 128, np.uint8)).outcome == "review"
    assert "run realdamage calibrate on it" in shown
    found = json.loads(report.read_text())
    assert (found["chosen"], found["output"]) == ("int8", str(written))
    assert {each["name"]: each["faults"] for each in found["variants"]} == {
        "int8": [],
        "fp16": ["not faster"],
    }
    assert found["variants"][0]["ratio"] == pytest.approx(1 / 3)
    assert "1% false positives of so few photos means none at all" in shown

    assert main(["quantize", str(written), *arguments]) == 3
    assert "quantized already (nodes DequantizeLinear, QuantizeLinear)" in capsys.readouterr().err


def test_parts_are_tried_and_nothing_is_written_when_none_is_faster(
    model: Path,
    photos: Manifest,
    slow: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    slow(integers)
    arguments = ["--manifest", str(photos.root), "--variants", "int8", "--threads", "1"]
    assert main(["quantize", str(model), *arguments]) == 1
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if line.startswith("int8")]
    assert [line[:18].strip() for line in lines] == ["int8", "int8 convolutions", "int8 MatMuls"]
    assert all("3.00×" in line and line.endswith("slower") for line in lines)
    assert "nothing was written" in shown
    assert [path.name for path in tmp_path.glob("*.onnx")] == ["model.onnx"]


def test_wrong_input_is_refused_before_any_work(model: Path, photos: Manifest) -> None:
    def run(**options: Any) -> None:
        quantize.quantize_model(model, photos, **options)

    for options, words in (
        ({"split": "train"}, "trained on"),
        ({"limit": 5}, "limit=5 must be at least 20"),
        ({"calibration_photos": 0}, "calibration_photos=0"),
        ({"variants": ["int4"]}, "'int4', there are int8, fp16"),
        ({"variants": []}, "none"),
        ({"max_tpr_drop": -0.1}, "max_tpr_drop=-0.1"),
        ({"threads": 0}, "threads=0"),
        ({"output": model}, "is the model itself"),
    ):
        with pytest.raises(UsageError, match=words):
            run(**options)
    with pytest.raises(ManifestError, match="no photo has split 'policy'"):
        run(split="policy")


def test_demonstration_models_and_one_class_are_refused(model: Path, photos: Manifest) -> None:
    real = photos.subset((photos.table["label"] == "real") | (photos.table["split"] == "train"))
    with pytest.raises(ManifestError, match="has only real photos"):
        quantize.quantize_model(model, real)
    write_model_file(model, network(), replace(METADATA, demo=True))
    with pytest.raises(ModelFileError, match="demonstration"):
        quantize.quantize_model(model, photos)


def test_photos_without_masks_are_judged_by_their_scores_alone(photos: Manifest) -> None:
    bare = photos.select(split="val")
    bare = Manifest(bare.root, bare.table.assign(mask_file_name=""))
    evidence: list[PatchEvidence] = score_manifest(detector_of(network()), bare)[1]
    assert evidence == []
    same = detector_of(network())
    (found,) = measure_variants(same, {"same": (same, 1.0)}, bare, Limits(0.01, 0.01), n_boot=20)
    assert found.ap is None
    assert found.tpr.drop == 0
