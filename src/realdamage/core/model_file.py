"""A model file: one ONNX file whose metadata hold everything a service must know about the network.

The metadata are JSON in `metadata_props["realdamage"]`, with digests of the graph with its weights
(`graph_sha256`) and of the metadata (`policy_sha256`); a file that does not match them is refused.
Services do not install `onnx`, so the outermost fields of the file (a protobuf message, ModelProto)
are read here, and all but the metadata are copied byte for byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from realdamage.core.policy import Calibration, Policy
from realdamage.core.pooling import Pooling
from realdamage.core.records import record_from_dict
from realdamage.core.tiles import PixelSpec
from realdamage.errors import MissingModelError, ModelFileError
from realdamage.files import write_atomically

FORMAT_VERSION = 1
METADATA_KEY = "realdamage"
"""Of the entry with our metadata; a Triton repository has it under the same name."""
# Numbers of fields of a ModelProto, and of protobuf's wire types.
_GRAPH, _METADATA = 7, 14
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}


@dataclass(frozen=True)
class ModelMetadata:
    """Everything the detector has to know about a network, and where it comes from.

    calibration, policy: None before `realdamage calibrate`.
    demo: the model only shows the software, and never says synthetic by default.
    training: facts about its training, and what it was exported and calibrated from; plain JSON
        values. metrics: figures of its validation.
    """

    pixel_spec: PixelSpec
    pooling: Pooling
    calibration: Calibration | None
    policy: Policy | None
    backbone: str
    demo: bool
    model_version: str
    labels: tuple[str, str] = ("real", "synthetic")
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces. Raises ModelFileError when a value has no JSON
        form (NaN too)."""
        try:
            return _canonical(asdict(self))
        except (TypeError, ValueError) as error:
            raise ModelFileError(
                f"the model's metadata cannot be written as JSON: {error}; use null for NaN"
            ) from error


def write_model_file(path: str | Path, onnx_bytes: bytes, metadata: ModelMetadata) -> None:
    """Write the model with this metadata instead of its own, whole or not at all.

    Raises ModelFileError when `onnx_bytes` is not an ONNX model, RealDamageError when writing
    fails.
    """
    canonical = metadata.to_json()
    values = json.loads(canonical)
    values["graph_sha256"] = graph_sha256(onnx_bytes)
    values["policy_sha256"] = _sha256(canonical)
    write_atomically(path, with_metadata(onnx_bytes, {METADATA_KEY: json.dumps(values)}))


def read_model_file(path: str | Path) -> tuple[bytes, ModelMetadata, str]:
    """Read a model file: (its bytes, its metadata, the hex digest of its graph and weights).

    Raises ModelFileError, naming the file: missing (MissingModelError), damaged, changed, without
    our metadata, or of another format version.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        folder = path if path.is_dir() else path.parent
        found = ", ".join(sorted(each.name for each in folder.glob("*.onnx"))[:5])
        fix = f"{folder} contains {found}" if found else "realdamage-export writes such files"
        kind = MissingModelError if isinstance(error, FileNotFoundError) else ModelFileError
        raise kind(f"{path}: the model cannot be read: {error.strerror}; {fix}") from error
    try:
        return data, *_parse(data)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}", code=error.code) from error


def stored_policy_sha256(data: bytes) -> str:
    """The digest of the metadata, as stored in a model file that `read_model_file` has checked."""
    return str(json.loads(split_metadata(data)[1][METADATA_KEY])["policy_sha256"])


def _parse(data: bytes) -> tuple[ModelMetadata, str]:
    graph, entries = split_metadata(data)
    if METADATA_KEY not in entries:
        raise ModelFileError(
            "an ONNX file without realdamage's metadata, so how to cut and judge a photo is "
            "unknown; write it with: realdamage-export checkpoint=…",
            code="no_metadata",
        )
    metadata, stored_graph, _ = read_entry(entries[METADATA_KEY])
    digest = hashlib.sha256(graph).hexdigest()
    if stored_graph != digest:
        raise ModelFileError(
            "the graph or its weights were changed or damaged after export (sha256 "
            f"{digest[:12]}…, written as {stored_graph[:12]}…); copy the file again or export "
            "it again",
            code="graph_changed",
        )
    return metadata, digest


def read_entry(text: str) -> tuple[ModelMetadata, str, str]:
    """The metadata of a model file's entry, and the digests of graph and metadata in it.

    Raises ModelFileError as `read_model_file`; the graph's digest is not checked here.
    """
    try:
        values = json.loads(text)
        stored_graph, stored_policy = (
            str(values.pop(key, None)) for key in ("graph_sha256", "policy_sha256")
        )
        canonical = _canonical(values)
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelFileError(
            f"the model's metadata is not a JSON object: {error}; export the model again"
        ) from error
    version = values.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ModelFileError(
            f"the model has format version {version!r}, this realdamage reads 1 to "
            f"{FORMAT_VERSION}. Upgrade (pip install --upgrade realdamage) or export the model "
            "again",
            code="format_version",
        )
    metadata = record_from_dict(ModelMetadata, values, "metadata")
    if stored_policy != _sha256(canonical):
        raise ModelFileError(
            "the metadata was changed after it was written; set thresholds with `realdamage "
            "calibrate`, not by hand",
            code="metadata_changed",
        )
    return metadata, stored_graph, stored_policy


def _canonical(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def split_metadata(data: bytes) -> tuple[bytes, dict[str, str]]:
    """The model without its metadata entries, and the entries. Raises ModelFileError when it is not
    an ONNX model."""
    kept: list[memoryview] = []
    entries: dict[str, str] = {}
    numbers = set()
    try:
        for number, whole, payload in _fields(memoryview(data)):
            numbers.add(number)
            if number == _METADATA:
                entry = {key: str(value, "utf-8") for key, _, value in _fields(payload)}
                entries[entry.get(1, "")] = entry.get(2, "")
            else:
                kept.append(whole)
        if _GRAPH not in numbers:
            raise ValueError
    except (ValueError, IndexError) as error:
        raise ModelFileError(
            "not an ONNX file, or a damaged one; export it again or copy it again", code="not_onnx"
        ) from error
    return b"".join(kept), entries


def with_metadata(data: bytes, entries: Mapping[str, str]) -> bytes:
    """The model with exactly these metadata entries instead of its own. Raises ModelFileError as
    above."""
    graph, _ = split_metadata(data)
    for key, value in entries.items():
        graph += _field(_METADATA, _field(1, key.encode()) + _field(2, value.encode()))
    return graph


def graph_sha256(data: bytes) -> str:
    """Hex digest of the model without its metadata entries: of the graph and its weights."""
    return hashlib.sha256(split_metadata(data)[0]).hexdigest()


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield (number, the field's bytes with its tag, its payload) for each outermost field of a
    protobuf message. Raises ValueError or IndexError on anything else."""
    position = 0
    while position < len(data):
        start = position
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        begin = position
        if wire == _VARINT:
            _, position = _varint(data, position)
        elif wire == _BYTES:
            length, begin = _varint(data, position)
            position = begin + length
        else:
            position += _FIXED.get(wire, len(data))
        if position > len(data) or number == 0:
            raise ValueError
        yield number, data[start:position], data[begin:position]


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError


def _field(number: int, payload: bytes) -> bytes:
    return _to_varint(number << 3 | _BYTES) + _to_varint(len(payload)) + payload


def _to_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
