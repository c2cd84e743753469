"""The parity check: the file agrees with torch from file bytes to verdict, or there is none."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from realdamage.commands import export
from realdamage.configuration import compose
from realdamage.core.model_file import read_model_file, split_metadata, write_model_file
from realdamage.core.policy import Policy
from realdamage.core.scorer import OnnxScorer
from realdamage.errors import ModelFileError, UsageError
from realdamage.exporting import onnx as exporter
from realdamage.exporting.onnx import export_network
from realdamage.exporting.parity import parity
from realdamage.training.module import load_classifier, model_metadata
from realdamage.training.network import TorchScorer

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def classifier(tiny_run):
    return load_classifier(tiny_run / "best.ckpt")


def test_file_and_network_give_one_verdict(tiny_onnx, classifier):
    data, metadata, _ = read_model_file(tiny_onnx)
    assert parity(classifier.network, data, metadata)[0] < TOLERANCE


def test_the_file_has_a_dynamic_batch_and_nothing_of_this_machine(tiny_onnx):
    assert [path.name for path in tiny_onnx.parent.iterdir()] == ["tiny.onnx"]
    data = tiny_onnx.read_bytes()
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    batch = shapes["tiles"][0]
    assert isinstance(batch, str)
    assert shapes == {"tiles": [batch, 64, 64, 3], "logit": [batch], "evidence": [batch, 4, 4]}
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [20]
    assert set(split_metadata(data)[1]) == {"realdamage"}
    assert str(Path(exporter.__file__).parent).encode() not in data


def test_a_batch_gives_what_each_tile_gives(tiny_onnx, classifier):
    tiles = np.random.default_rng(0).integers(0, 256, (33, 64, 64, 3), dtype=np.uint8)
    scorer = OnnxScorer(tiny_onnx.read_bytes(), threads=1)
    logit, evidence = scorer(tiles)
    alone = [scorer(tile[None]) for tile in tiles]
    np.testing.assert_allclose(logit, [found[0][0] for found in alone], atol=1e-5)
    expected_logit, expected_evidence = TorchScorer(classifier.network)(tiles)
    np.testing.assert_allclose(logit, expected_logit, atol=1e-4)
    np.testing.assert_allclose(evidence, expected_evidence, atol=1e-4)


def test_a_file_that_disagrees_is_not_written(tiny_run, tiny_onnx, tmp_path, monkeypatch):
    model = onnx.load(tiny_onnx)
    (head,) = [t for t in model.graph.initializer if t.name.endswith("patch_head.bias")]
    moved = numpy_helper.to_array(head) + np.float32(0.02)
    head.CopyFrom(numpy_helper.from_array(moved, head.name))
    monkeypatch.setattr(exporter, "onnx_bytes", lambda _: model.SerializeToString())
    changed = load_classifier(tiny_run / "best.ckpt")
    network, metadata = changed.network, model_metadata(changed)
    output = tmp_path / "model.onnx"
    output.write_bytes(b"the old one")
    with pytest.raises(ModelFileError, match=r"e-03.*tolerance=0\.001") as error:
        export_network(network, metadata, output, tolerance=TOLERANCE)
    assert error.value.code == "parity"
    assert output.read_bytes() == b"the old one"
    assert TOLERANCE < export_network(network, metadata, output, tolerance=0.1) < 0.1
    with torch.no_grad():
        network.patch_head.bias.fill_(float("nan"))
    with pytest.raises(ModelFileError):
        export_network(network, metadata, output, tolerance=1e9)


@pytest.mark.usefixtures("exported")
def test_an_export_is_made_again_only_when_something_has_changed(
    tiny_run, save_red_model, tmp_path
):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    checkpoint = run / "best.ckpt"
    model = save_red_model(run / "model.onnx")
    before = model.read_bytes()

    def export_again(*overrides):
        given = (f"checkpoint={checkpoint}", f"paths.run={run}", *overrides)
        export.run(compose("export", list(given)))

    with pytest.raises(UsageError):  # it is calibrated
        export_again()
    assert model.read_bytes() == before
    export_again("overwrite=true")
    # Thresholds that came later stay.
    data, metadata, _ = read_model_file(model)
    policy = Policy(t_synthetic=1, t_real=0, fpr=0.1, miss=0.1, negatives="real", photos={})
    write_model_file(model, data, replace(metadata, policy=policy))
    before = model.read_bytes()
    export_again()
    assert model.read_bytes() == before
    # Another option, another checkpoint: the file is kept unless that is asked for.
    with pytest.raises(UsageError):
        export_again("tolerance=0.01")
    torch.save(torch.load(checkpoint, weights_only=True) | {"other": 1}, checkpoint)
    with pytest.raises(UsageError):
        export_again()
    assert model.read_bytes() == before
    # A demonstration has no thresholds to lose.
    write_model_file(model, data, replace(metadata, policy=policy, demo=True))
    export_again()
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert read_model_file(model)[1].training["export"]["checkpoint_sha256"] == digest
