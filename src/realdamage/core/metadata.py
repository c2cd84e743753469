"""What an ONNX file says about itself, so that one file is all that a service needs.

The metadata lies as JSON in the file's `metadata_props["realdamage"]`, beside two digests: `graph_sha256` of the graph
with its weights, `policy_sha256` of the metadata. A file whose parts do not belong together is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from realdamage.core.onnx_file import graph_sha256, split_metadata, with_metadata, write_atomically
from realdamage.core.photo import PixelSpec
from realdamage.core.policy import Calibration, Policy
from realdamage.core.pooling import Pooling
from realdamage.core.records import record_from_dict
from realdamage.errors import MissingModelError, ModelFileError

FORMAT_VERSION = 1
_KEY = "realdamage"
_MOST_NAMED = 5


@dataclass(frozen=True)
class ModelMetadata:
    """Everything the wrapper has to know about a network, and where it comes from.

    calibration, policy: None until `realdamage calibrate` has put them in.
    demo: True for a model that shows the software and is not to be trusted; it never says synthetic by default.
    training: manifest digest, audit verdict, experiment, git commit, creation time. metrics: figures of its validation.
    Both hold plain JSON values.
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
        """Canonical JSON: sorted keys, no spaces. Raises ModelFileError when a value has no JSON form (NaN too)."""
        try:
            return _canonical(asdict(self))
        except (TypeError, ValueError) as error:
            raise ModelFileError(
                f"the model's metadata cannot be written as JSON: {error}; use null for NaN"
            ) from error

    @classmethod
    def from_json(cls, text: str) -> ModelMetadata:
        """Read what `to_json` wrote. Raises ModelFileError on another format version or a missing or wrong value."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ModelFileError(
                f"the model's metadata is not JSON: {error}; export the model again"
            ) from error
        version = values.get("format_version") if isinstance(values, dict) else None
        if not isinstance(version, int) or version < 1:
            raise ModelFileError(
                f"the model's metadata has format_version {version!r}; export the model again"
            )
        if version > FORMAT_VERSION:
            raise ModelFileError(
                f"the model has format version {version}, this realdamage reads up to {FORMAT_VERSION}; "
                "upgrade: pip install --upgrade realdamage"
            )
        return record_from_dict(cls, values, "metadata")


def write_model_file(path: str | Path, onnx_bytes: bytes, metadata: ModelMetadata) -> None:
    """Write the model with this metadata, replacing any it had; whole or not at all.

    Raises ModelFileError when `onnx_bytes` is no ONNX model, RealDamageError when the file cannot be written.
    """
    canonical = metadata.to_json()
    values = json.loads(canonical)
    values["graph_sha256"] = graph_sha256(onnx_bytes)
    values["policy_sha256"] = _sha256(canonical)
    write_atomically(path, with_metadata(onnx_bytes, {_KEY: json.dumps(values)}))


def read_model_file(path: str | Path) -> tuple[bytes, ModelMetadata, str]:
    """Read a model file: (its bytes, its metadata, the hex digest of its graph and weights).

    Raises ModelFileError, naming the file, when it is missing (MissingModelError), damaged, without our metadata, of a
    newer format version, or when graph or metadata were changed after it was written.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        where = _where_models_are(Path(path))
        kind = MissingModelError if isinstance(error, FileNotFoundError) else ModelFileError
        raise kind(f"{path}: the model cannot be read: {error.strerror}; {where}") from error
    try:
        return data, *_parse(data)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error


def stored_policy_sha256(data: bytes) -> str:
    """The digest of everything beside graph and weights, as it stands in the bytes of a model file that
    `read_model_file` has checked."""
    return str(json.loads(split_metadata(data)[1][_KEY])["policy_sha256"])


def _where_models_are(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    found = sorted(each.name for each in folder.glob("*.onnx"))
    if not found:
        return "name the .onnx file that realdamage-export has written"
    return f"name one of those in {folder}: {', '.join(found[:_MOST_NAMED])}{', …' if len(found) > _MOST_NAMED else ''}"


def _parse(data: bytes) -> tuple[ModelMetadata, str]:
    graph, entries = split_metadata(data)
    if _KEY not in entries:
        raise ModelFileError(
            "an ONNX file without realdamage's metadata, so how to cut and judge a photo is unknown; "
            "write it with: realdamage-export checkpoint=…"
        )
    try:
        values = json.loads(entries[_KEY])
        stored = {key: values.pop(key, None) for key in ("graph_sha256", "policy_sha256")}
        canonical = _canonical(values)
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelFileError(
            f"the model's metadata is not a JSON object: {error}; export the model again"
        ) from error
    metadata = ModelMetadata.from_json(canonical)
    digest = hashlib.sha256(graph).hexdigest()
    if stored["graph_sha256"] != digest:
        raise ModelFileError(
            f"the graph or its weights were changed or damaged after export (sha256 {digest[:12]}…, "
            f"written as {str(stored['graph_sha256'])[:12]}…); copy the file again or export it again"
        )
    if stored["policy_sha256"] != _sha256(canonical):
        raise ModelFileError(
            "the metadata was changed after it was written; set thresholds with `realdamage calibrate`, not by hand"
        )
    return metadata, digest


def _canonical(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
