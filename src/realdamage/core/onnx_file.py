"""Reads and replaces the metadata of an ONNX file without the `onnx` package, which a service does not install.

An ONNX file is one protobuf message (ModelProto, onnx.proto3). Only its outermost fields are walked here: metadata
entries are `metadata_props` (field 14, a StringStringEntryProto with key = 1 and value = 2); all else is copied byte
for byte, so the network inside cannot change by being calibrated.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from realdamage.errors import ModelFileError, RealDamageError

_GRAPH, _METADATA = 7, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NOT_ONNX = "not an ONNX file, or a damaged one; export it again or copy it again"


def split_metadata(data: bytes) -> tuple[bytes, dict[str, str]]:
    """The model without any metadata entry, and the entries. Raises ModelFileError when it is no ONNX model."""
    kept: list[memoryview] = []
    entries: dict[str, str] = {}
    fields = set()
    for number, field, payload in _fields(memoryview(data)):
        fields.add(number)
        if number == _METADATA:
            parts = {key: bytes(value) for key, _, value in _fields(payload)}
            try:
                entries[parts.get(1, b"").decode()] = parts.get(2, b"").decode()
            except UnicodeDecodeError as error:
                raise ModelFileError(_NOT_ONNX) from error
        else:
            kept.append(field)
    if _GRAPH not in fields:
        raise ModelFileError(_NOT_ONNX)
    return b"".join(kept), entries


def with_metadata(data: bytes, entries: Mapping[str, str]) -> bytes:
    """The model with exactly these metadata entries; those it had are gone. Raises ModelFileError as above."""
    graph, _ = split_metadata(data)
    messages = (
        _field(1, key.encode()) + _field(2, value.encode()) for key, value in entries.items()
    )
    return graph + b"".join(_field(_METADATA, message) for message in messages)


def graph_sha256(data: bytes) -> str:
    """Hex digest of the model without its metadata entries: of the graph and its weights."""
    return hashlib.sha256(split_metadata(data)[0]).hexdigest()


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a whole file or none: a temporary file beside it, flushed to the disk, then renamed over `path`.

    Makes missing parent folders. Raises RealDamageError when the disk is full or the place cannot be written; whatever
    was at `path` before is then still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RealDamageError(
            f"{path}: cannot be written: {error.strerror or error}. "
            "Nothing was changed; make room, or choose another place"
        ) from error


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield (number, the field's bytes with its tag, its payload) for each outermost field of a protobuf message."""
    position = 0
    while position < len(data):
        start = position
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == _VARINT:
            begin, (_, position) = position, _varint(data, position)
        elif wire == _BYTES:
            length, begin = _varint(data, position)
            position = begin + length
        elif wire in (_FIXED64, _FIXED32):
            begin, position = position, position + (8 if wire == _FIXED64 else 4)
        else:
            raise ModelFileError(_NOT_ONNX)
        if position > len(data) or tag >> 3 == 0:
            raise ModelFileError(_NOT_ONNX)
        yield tag >> 3, data[start:position], data[begin:position]


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ModelFileError(_NOT_ONNX)


def _field(number: int, payload: bytes) -> bytes:
    return _to_varint(number << 3 | _BYTES) + _to_varint(len(payload)) + payload


def _to_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
