"""The Open Inference Protocol, version 2: its clients send photos and get verdicts, as JSON or with
the binary extension."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.concurrency import run_in_threadpool

from realdamage import __version__
from realdamage.core.verdict import UNREADABLE, Verdict
from realdamage.errors import PhotoError
from realdamage.service.models import ServedModel
from realdamage.service.routes import Shared, count_photos, judge_upload, ready
from realdamage.service.schemas import Answer, Refusal, Upload, errors, not_valid
from realdamage.service.settings import Settings

MODEL = "realdamage"
_HEADER_LENGTH = "Inference-Header-Content-Length"
_MOST_VALUES = 10_000  # of a JSON body; Python needs much more memory for them than they have bytes
_MAX_HEADER_BYTES = 64 * 1024
_FORMS = "Send JSON, or JSON and tensors with the binary extension"
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

OutputName = Literal["outcome", "score", "probability", "verdict"]
Base64 = Annotated[bytes, WithJsonSchema({"type": "string", "contentEncoding": "base64"})]


class InputParameters(Answer):
    binary_data_size: Annotated[int, Field(ge=0)] | None = None
    """bytes of this tensor after the JSON; instead of `data`"""


class PhotosTensor(Answer):
    model_config = ConfigDict(val_json_bytes="base64")

    name: Literal["photos"]
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=2)]
    """[n], or [n, 1]"""
    datatype: Literal["BYTES"]
    parameters: InputParameters = InputParameters()
    data: list[Base64] | list[list[Base64]] | None = None
    """the photos' files in base64"""


class OutputParameters(Answer):
    binary_data: bool = False


class OutputChoice(Answer):
    name: OutputName
    parameters: OutputParameters = OutputParameters()


class RequestParameters(Answer):
    binary_data_output: bool = False


class InferRequest(Answer):
    id: Annotated[str, Field(max_length=200)] = ""
    """returned in the answer"""
    parameters: RequestParameters = RequestParameters()
    inputs: Annotated[list[PhotosTensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[OutputChoice], Field(max_length=8)] = Field(default=[])
    """default: all"""


class TensorAnswer(Answer):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = Field(default={})
    data: list[str | float | None] | None = None
    """a photo that cannot be read has the outcome `unreadable` and no numbers"""


class InferAnswer(Answer):
    id: str | None = None
    model_name: str
    model_version: str
    outputs: list[TensorAnswer]


class TensorAbout(Answer):
    name: str
    datatype: str
    shape: list[int]


class ModelAbout(Answer):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorAbout]
    outputs: list[TensorAbout]


class ServerAbout(Answer):
    name: str
    version: str
    extensions: list[str]


class InferError(Answer):
    """The protocol's error: a sentence where the other routes have an object."""

    error: str
    code: str
    request_id: str


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    described = errors(*statuses).items()
    return {status: {**about, "model": InferError} for status, about in described}


router = APIRouter(prefix="/v2", tags=["inference"], responses=_errors())


# Clients that read the description know the only name; another one is a 404, not a 422.
Name = Annotated[str, Path(json_schema_extra={"enum": [MODEL]})]


def _served(service: Shared, name: Name, version: str | None = None) -> ServedModel:
    """The model, if the path names it. Raises Refusal 404."""
    model = service.loaded_model()
    found = model.metadata.model_version
    if name != MODEL or version not in (None, found):
        raise Refusal(404, "not_found", f"The only model here is {MODEL!r}, version {found!r}.")
    return model


Served = Annotated[ServedModel, Depends(_served)]


@router.get("")
async def server() -> ServerAbout:
    """Name, version and extensions of this server."""
    return ServerAbout(name="realdamage", version=__version__, extensions=["binary_tensor_data"])


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """The process runs."""
    return {"live": True}


@router.get("/health/ready")
async def is_ready(service: Shared) -> dict[str, bool]:
    """As /readyz."""
    await ready(service)
    return {"ready": True}


@router.get("/models/{name}/versions/{version}", responses=_errors(404))
@router.get("/models/{name}", responses=_errors(404))
async def model(model: Served) -> ModelAbout:
    """Tensors and version of the model."""
    return ModelAbout(
        name=MODEL,
        versions=[model.metadata.model_version],
        platform="realdamage_onnx",
        inputs=[TensorAbout(name="photos", datatype="BYTES", shape=[-1])],
        outputs=[
            TensorAbout(name=name, datatype=kind, shape=[-1]) for name, kind in _DATATYPES.items()
        ],
    )


@router.get("/models/{name}/versions/{version}/ready", responses=_errors(404))
@router.get("/models/{name}/ready", responses=_errors(404))
async def model_is_ready(model: Served, service: Shared) -> dict[str, str | bool]:
    """As /readyz."""
    await ready(service)
    return {"name": MODEL, "ready": True}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A JSON schema without references, for a place that cannot bring its definitions."""
    if isinstance(schema, list):
        return [_inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    kept = {key: value for key, value in schema.items() if key not in ("$defs", "default")}
    return {key: _inlined(value, definitions) for key, value in kept.items()}


_SCHEMA = InferRequest.model_json_schema()
_JSON = {"application/json": {"schema": _inlined(_SCHEMA, _SCHEMA["$defs"])}}
_BODY = {"requestBody": {"required": True, "content": {**_JSON, **_BINARY}}}
_INFER: dict[str, Any] = {
    "response_model": InferAnswer,
    "responses": {**_errors(400, 404, 408, 415, 422, 429, 504), 200: {"content": _BINARY}},
    "openapi_extra": _BODY,
}


@router.post("/models/{name}/versions/{version}/infer", **_INFER)
@router.post("/models/{name}/infer", **_INFER)
async def infer(request: Request, model: Served, service: Shared) -> Response:
    """Judge photos. Each is an element of the BYTES tensor `photos`: base64 in JSON, or the file's
    bytes with the binary extension. An unreadable photo fails alone, as in /v1/photos."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(415, "compressed", "Compressed bodies are not read. Send it as it is.")
    body, header_length = await request.body(), request.headers.get(_HEADER_LENGTH)
    wanted, photos = await run_in_threadpool(_read, body, header_length, service.settings)
    await count_photos(request, service, len(photos))
    detector, deadline = model.detector(request.state.deadline), request.state.deadline
    jobs = [partial(judge_upload, service, detector, photo) for photo in photos]
    judged = await service.queue.run(jobs, deadline)
    return _answer(wanted, judged, model.metadata.model_version)


# Requests


def _read(
    body: bytes, header_length: str | None, settings: Settings
) -> tuple[InferRequest, list[Upload]]:
    """The request and its photos. Raises Refusal 400, 413 or 422."""
    head, tensors = body, b""
    if header_length is not None:
        is_number = re.fullmatch("[0-9]{1,18}", header_length)
        length = int(header_length) if is_number else len(body) + 1
        if length > len(body):
            message = f"{_HEADER_LENGTH} is {header_length[:40]!r}; the body has {len(body)} bytes."
            raise Refusal(400, "malformed", message)
        head, tensors = body[:length], body[length:]
    request = _read_head(head, is_whole=header_length is None)
    (tensor,) = request.inputs
    if tensor.parameters.binary_data_size is not None:
        if tensor.parameters.binary_data_size != len(tensors):
            size = f"{tensor.parameters.binary_data_size}, but {len(tensors)} bytes follow the JSON"
            raise Refusal(422, "invalid_field", f"photos: binary_data_size is {size}.")
        photos = _split(tensors)
    elif tensors:
        raise Refusal(422, "invalid_field", f"{len(tensors)} bytes follow the JSON for no tensor.")
    else:
        rows = [[row] if isinstance(row, bytes) else row for row in tensor.data or []]
        photos = [photo for row in rows for photo in row]
    if math.prod(tensor.shape) != len(photos):
        message = f"photos: the shape is {tensor.shape}, but there are {len(photos)} photos."
        raise Refusal(422, "invalid_field", message)
    if len(photos) > settings.max_photos:
        message = f"The request has more than {settings.max_photos} photos. Send fewer at once."
        raise Refusal(413, "too_many_photos", message)
    if max(map(len, photos)) > settings.max_photo_bytes:
        message = f"A photo has more than {settings.max_photo_bytes} bytes."
        raise Refusal(413, "too_large", message)
    return request, [Upload(f"photo {number}", data) for number, data in enumerate(photos, 1)]


def _read_head(head: bytes, *, is_whole: bool) -> InferRequest:
    """is_whole: the JSON holds the photos too, so it may be long."""
    values = head.count(b",") + head.count(b"[") + head.count(b"{")
    if values > _MOST_VALUES or (not is_whole and len(head) > _MAX_HEADER_BYTES):
        raise Refusal(413, "too_large", "The JSON has too many values. Send fewer photos at once.")
    try:
        return InferRequest.model_validate_json(head)
    except ValidationError as error:
        found = error.errors()
        if found[0]["type"] == "json_invalid":
            message = f"The JSON cannot be read: {found[0]['msg'][:200]}. {_FORMS}."
            raise Refusal(400, "malformed", message) from error
        raise not_valid(found, InferRequest.model_fields) from error


def _split(tensor: bytes) -> list[bytes]:
    """The elements of a BYTES tensor: each after its length, uint32 little-endian."""
    elements, position = [], 0
    while position < len(tensor):
        start = position + 4
        position = start + int.from_bytes(tensor[position:start], "little")
        elements.append(tensor[start:position])
    if position != len(tensor):
        message = "photos: the last photo is cut off; each comes after its length in 4 bytes."
        raise Refusal(422, "invalid_field", message)
    return elements


# Answers


_DATATYPES = {"outcome": "BYTES", "score": "FP64", "probability": "FP64", "verdict": "BYTES"}


def _values(found: Verdict | PhotoError) -> dict[str, str | float | None]:
    """The element of each output."""
    if isinstance(found, PhotoError):
        failed = json.dumps({"error": found.to_dict()})
        return {"outcome": UNREADABLE, "score": None, "probability": None, "verdict": failed}
    numbers = {"score": found.score, "probability": found.probability}
    return {"outcome": found.outcome, **numbers, "verdict": found.to_json(heatmap=False)}


def _answer(
    request: InferRequest, judged: Sequence[Verdict | PhotoError], version: str
) -> Response:
    all_binary = request.parameters.binary_data_output
    wanted: dict[str, bool] = {one.name: one.parameters.binary_data for one in request.outputs}
    outputs, tensors = [], b""
    elements = [_values(found) for found in judged]
    for name, is_binary in (wanted or dict.fromkeys(_DATATYPES, all_binary)).items():
        values = [one[name] for one in elements]
        output: dict[str, Any] = {"name": name, "datatype": _DATATYPES[name]}
        output["shape"] = [len(values)]
        if is_binary:
            tensor = b"".join(_binary(value) for value in values)
            output["parameters"] = {"binary_data_size": len(tensor)}
            tensors += tensor
        else:
            output["data"] = values
        outputs.append(output)
    answer = {"model_name": MODEL, "model_version": version, "outputs": outputs}
    if request.id:
        answer["id"] = request.id
    head = json.dumps(answer, allow_nan=False).encode()
    if not tensors:
        return Response(head, media_type="application/json")
    headers = {_HEADER_LENGTH: str(len(head))}
    return Response(head + tensors, headers=headers, media_type="application/octet-stream")


def _binary(value: str | float | None) -> bytes:
    """An element of a BYTES or FP64 tensor; a missing number is NaN."""
    if isinstance(value, str):
        text = value.encode()
        return struct.pack("<I", len(text)) + text
    return struct.pack("<d", math.nan if value is None else value)
