"""The Open Inference Protocol: verdicts as tensors, also for a foreign client."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http
import yaml
from tritonclient.utils import InferenceServerException

import realdamage.service.app
from realdamage.core.detector import Detector
from realdamage.service.app import create_app
from realdamage.service.auth import hash_key
from realdamage.service.inference_routes import MODEL
from realdamage.service.settings import Settings

INFER = "/v2/models/realdamage/infer"
LENGTH = "Inference-Header-Content-Length"


def tensor(*photos, **changes):
    data = [base64.b64encode(photo).decode() for photo in photos]
    about = {"name": "photos", "datatype": "BYTES", "shape": [len(photos)], "data": data}
    return {**about, **changes}


def refused(response, status, code):
    """The protocol wants a sentence in `error`."""
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code), response.text
    assert isinstance(body["error"], str)
    assert body["request_id"] == response.headers["x-request-id"]


def test_json_gets_the_verdicts_of_the_wrapper(serve, encode, model_file):
    photos = [encode(), encode("PNG", red=True)]
    sent = {"id": "a1", "inputs": [tensor(*photos, b"rubbish", shape=[3, 1])]}
    response = serve().post(INFER, json=sent)
    assert response.status_code == 200, response.text
    answer = response.json()
    about = {name: answer[name] for name in ("id", "model_name", "model_version")}
    assert about == {"id": "a1", "model_name": "realdamage", "model_version": "test-1"}
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert {name: (one["datatype"], one["shape"]) for name, one in outputs.items()} == {
        "outcome": ("BYTES", [3]),
        "score": ("FP64", [3]),
        "probability": ("FP64", [3]),
        "verdict": ("BYTES", [3]),
    }
    expected = Detector.load(model_file).predict(photos)
    assert outputs["outcome"]["data"] == ["real", "synthetic", "unreadable"]
    assert outputs["score"]["data"] == [*(one.score for one in expected), None]
    assert outputs["probability"]["data"] == [*(one.probability for one in expected), None]
    *verdicts, failed = map(json.loads, outputs["verdict"]["data"])
    assert verdicts == [json.loads(one.to_json(heatmap=False)) for one in expected]
    assert failed["error"]["code"] == "unreadable_photo"


def test_what_is_refused(serve, encode):
    photo = encode()
    client = serve(max_photos=2, max_photo_bytes=len(photo))

    def post(*inputs, **more):
        return client.post(INFER, json={"inputs": list(inputs), **more})

    assert post(tensor(photo, photo)).status_code == 200
    refused(post(tensor(b"", b"", b"")), 413, "too_many_photos")
    refused(post(tensor(photo + b"x")), 413, "too_large")
    refused(post(tensor(photo, shape=[2])), 422, "invalid_field")
    refused(post(tensor(photo, data=["~"])), 422, "invalid_field")
    refused(post(tensor(photo, datatype="UINT8")), 422, "invalid_field")
    refused(post(), 422, "invalid_field")
    refused(post(tensor(photo), outputs=[{"name": "heat"}]), 422, "invalid_field")
    refused(post(tensor(data=[[]] * 20_000)), 413, "too_large")
    refused(client.post(INFER, content=b"{"), 400, "malformed")
    gzip = {"content-encoding": "gzip"}
    refused(client.post(INFER, content=b"{}", headers=gzip), 415, "compressed")
    refused(client.post(INFER.replace("realdamage", "other"), json={}), 404, "not_found")
    refused(client.get("/v2/models/realdamage/versions/9"), 404, "not_found")
    refused(client.get("/v2/nothing"), 404, "not_found")


def test_a_binary_body_that_does_not_fit(serve):
    client = serve()
    for length, size, after, status, code in (
        ("999999", 5, b"\x01\0\0\0x", 400, "malformed"),
        ("", 6, b"\x01\0\0\0x", 422, "invalid_field"),
        ("", 5, b"\x02\0\0\0x", 422, "invalid_field"),
        ("", None, b"\x01\0\0\0x", 422, "invalid_field"),
    ):
        about = tensor(data=None, shape=[1], parameters={"binary_data_size": size})
        head = json.dumps({"inputs": [about]}).encode()
        headers = {LENGTH: length or str(len(head))}
        refused(client.post(INFER, content=head + after, headers=headers), status, code)


@pytest.mark.slow
def test_a_foreign_client(encode, model_file, tmp_path, trial):
    """NVIDIA's client speaks to a running service; by default it sends and asks for binary data."""
    keys, key = tmp_path / "keys.txt", "k" * 32
    keys.write_text(hash_key(key, "shop") + "\n")
    headers = {"X-API-Key": key}
    photos = [encode(), encode("PNG", red=True), b"rubbish"]
    expected = Detector.load(model_file).predict(photos[:2])
    app = create_app(Settings(model=model_file, threads=1, api_keys=keys))
    with trial("screenshots").running(app) as url:
        client = tritonclient.http.InferenceServerClient(url.removeprefix("http://"))
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("realdamage", headers=headers)
        assert client.is_model_ready("realdamage", "test-1", headers=headers)
        assert not client.is_model_ready("other", headers=headers)
        extensions = client.get_server_metadata(headers=headers)["extensions"]
        assert extensions == ["binary_tensor_data"]
        about = client.get_model_metadata("realdamage", headers=headers)
        assert about["inputs"] == [{"name": "photos", "datatype": "BYTES", "shape": [-1]}]

        binary, plain = (tritonclient.http.InferInput("photos", [3], "BYTES") for _ in range(2))
        binary.set_data_from_numpy(np.array(photos, dtype=object))
        encoded = [base64.b64encode(photo).decode() for photo in photos]
        plain.set_data_from_numpy(np.array(encoded, dtype=object), binary_data=False)
        names = ("outcome", "score", "verdict")
        wanted = [tritonclient.http.InferRequestedOutput(n, binary_data=False) for n in names]
        for sent, outputs in ((binary, None), (plain, wanted)):
            given = dict(headers)  # the client writes into it
            result = client.infer("realdamage", [sent], outputs=outputs, headers=given)
            outcomes = [getattr(one, "decode", one.__str__)() for one in result.as_numpy("outcome")]
            assert outcomes == ["real", "synthetic", "unreadable"]
            scores = result.as_numpy("score")
            assert scores[:2].tolist() == [one.score for one in expected]
            assert np.isnan(scores[2])
            last = json.loads(result.as_numpy("verdict")[2])
            assert last["error"]["code"] == "unreadable_photo"
        # Not pytest.raises: it would keep the client alive until another thread collects it.
        message = ""
        try:
            client.infer("realdamage", [binary])
        except InferenceServerException as error:
            message = error.message()
        assert "A key is needed" in message


def test_the_manifest_for_kserve_names_what_the_service_has(serve):
    path = Path(realdamage.service.app.__file__).with_name("kserve.yaml")
    manifest = yaml.safe_load(path.read_text())
    predictor = manifest["spec"]["predictor"]
    (container,) = predictor["containers"]
    client = serve()
    for probe in ("readinessProbe", "livenessProbe"):
        assert client.get(container[probe]["httpGet"]["path"]).status_code == 200
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["containerPort"]
    assert manifest["metadata"]["name"] == MODEL, "KServe calls the model by the service's name"
    settings = {f"REALDAMAGE_{name.upper()}" for name in Settings.model_fields}
    assert {one["name"] for one in container["env"]} <= settings
    assert predictor["timeout"] > Settings().deadline
