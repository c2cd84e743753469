"""A Triton repository, and the wrapper that scores through a server of it. The server here is a
stand-in: it speaks Triton's gRPC, keeps to config.pbtxt, and runs the file in onnxruntime."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from realdamage.commands import export
from realdamage.configuration import compose
from realdamage.core.detector import Detector
from realdamage.core.model_file import read_model_file
from realdamage.core.triton import TritonScorer
from realdamage.errors import RealDamageError, UsageError
from realdamage.exporting.parity import awkward_photos
from realdamage.exporting.triton import write_repository


class StandIn(service_pb2_grpc.GRPCInferenceServiceServicer):
    """What a Triton server does with one model of a repository."""

    def __init__(self, folder):
        text = (folder / "config.pbtxt").read_text()
        self.config = text_format.Parse(text, model_config_pb2.ModelConfig())
        self.session = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
        self.batches = []

    def ModelConfig(self, request, context):  # noqa: N802
        if request.name != self.config.name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {request.name}")
        return service_pb2.ModelConfigResponse(config=self.config)

    def ModelInfer(self, request, context):  # noqa: N802
        (sent,), (tensor,) = self.config.input, request.inputs
        batch, *dims = tensor.shape
        assert (tensor.name, tensor.datatype) == (sent.name, "UINT8")
        assert sent.data_type == model_config_pb2.TYPE_UINT8
        if batch > self.config.max_batch_size or dims != list(sent.dims):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unexpected shape {tensor.shape}")
        self.batches.append(batch)
        tiles = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(tensor.shape)
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        for output in self.config.output:
            (values,) = self.session.run([output.name], {"tiles": tiles})
            shape = output.reshape.shape if output.HasField("reshape") else output.dims
            assert (values.dtype, values.shape[1:]) == (np.float32, tuple(shape))
            answer.outputs.add(name=output.name, datatype="FP32", shape=[batch, *output.dims])
            answer.raw_output_contents.append(values.tobytes())
        return answer


@pytest.fixture
def folder(save_red_model, tmp_path):
    return write_repository(save_red_model(tmp_path / "red.onnx"), tmp_path / "models")


@pytest.fixture
def stand_in(folder):
    servicer = StandIn(folder)
    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None)


def test_verdicts_are_those_of_the_local_session(stand_in, folder, tmp_path):
    servicer, url = stand_in
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert files == ["1/model.onnx", "config.pbtxt"]
    assert servicer.config.HasField("dynamic_batching")
    local = Detector(tmp_path / "red.onnx")
    remote = pickle.loads(pickle.dumps(Detector(TritonScorer(url))))  # as processes get it
    assert remote.metadata == read_model_file(tmp_path / "red.onnx")[1]
    assert remote.graph_sha256 == local.graph_sha256
    assert remote.policy_sha256 == local.policy_sha256
    photos = awkward_photos(64)
    for name, photo in photos.items():
        here, there = local.predict(photo), remote.predict(photo)
        assert (here.outcome, here.regions) == (there.outcome, there.regions), name
        assert here.score == pytest.approx(there.score, abs=1e-5)
        assert here.probability == pytest.approx(there.probability, abs=1e-5)
        np.testing.assert_allclose(here.heatmap, there.heatmap, atol=1e-5)
    assert max(servicer.batches) > 8, "a photo's tiles travel together"
    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(remote.predict, [photos["wide.png"]] * 12))
    assert len({verdict.score for verdict in verdicts}) == 1


def test_what_cannot_be_scored(stand_in):
    servicer, url = stand_in
    detector = Detector(TritonScorer(url))
    with pytest.raises(RealDamageError) as unknown:
        TritonScorer(url, "other")
    with pytest.raises(RealDamageError) as unreachable:
        TritonScorer("127.0.0.1:1", timeout=0.2)
    servicer.config.input[0].dims[0] = 64
    with pytest.raises(RealDamageError) as refused:
        detector.predict(awkward_photos(64)["wide.png"])
    assert {unknown.value.code, unreachable.value.code, refused.value.code} == {"triton"}
    text = servicer.config.parameters["realdamage"].string_value
    servicer.config.parameters["realdamage"].string_value = text.replace("test-1", "test-2")
    with pytest.raises(RealDamageError) as changed:
        TritonScorer(url)
    assert changed.value.code == "metadata_changed"
    del servicer.config.parameters["realdamage"]
    with pytest.raises(RealDamageError) as bare:
        TritonScorer(url)
    assert bare.value.code == "no_metadata"


@pytest.mark.usefixtures("exported")
def test_the_command_takes_a_checkpoint_or_a_model(tiny_run, tiny_onnx, tmp_path, run_command):
    def write(source, name):
        given = ("target=triton", f"checkpoint={source}", f"output={tmp_path / name}")
        export.run(compose("export", [*given, f"paths.run={tmp_path}"]))

    for source, name in ((tiny_run / "best.ckpt", "a"), (tiny_onnx, "b")):
        write(source, name)
        written = tmp_path / name / "realdamage" / "1" / "model.onnx"
        assert read_model_file(written)[2] == read_model_file(tiny_onnx)[2]
        assert (tmp_path / name / "realdamage" / "config.pbtxt").exists()
    # A second time, a checkpoint's model is up to date, and a model is there already.
    write(tiny_run / "best.ckpt", "a")
    with pytest.raises(UsageError):
        write(tiny_onnx, "b")
    with pytest.raises(UsageError):
        export.run(compose("export", [f"checkpoint={tiny_onnx}", f"paths.run={tmp_path}"]))
    unknown = run_command("export", "target=tensorrt", f"checkpoint={tiny_run}/best.ckpt")
    assert unknown.code == 2
    assert "target=tensorrt" in unknown.err
