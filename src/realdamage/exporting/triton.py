"""Writes a model file as the model repository of a Triton server, which `TritonScorer` uses."""

from __future__ import annotations

import json
from pathlib import Path

from realdamage.core.detector import BATCH_TILES
from realdamage.core.model_file import METADATA_KEY, read_model_file, split_metadata
from realdamage.core.triton import MODEL
from realdamage.files import write_atomically

_QUEUE_DELAY_US = 2000
"""How long a request may wait for others, so that one run serves several."""

# Triton adds the batch dimension. It wants at least one more, so `logit` is [n, 1] there.
_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch}
input [{{ name: "tiles", data_type: TYPE_UINT8, dims: [{tile}, {tile}, 3] }}]
output [
  {{ name: "logit", data_type: TYPE_FP32, dims: [1], reshape {{ shape: [] }} }},
  {{ name: "evidence", data_type: TYPE_FP32, dims: [{side}, {side}] }}
]
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
parameters [{{ key: "{key}", value {{ string_value: {metadata} }} }}]
"""


def model_path(repository: str | Path) -> Path:
    """Where the ONNX file lies in a repository."""
    return Path(repository) / MODEL / "1" / "model.onnx"


def write_repository(model: str | Path, repository: str | Path) -> Path:
    """Write REPOSITORY/realdamage with config.pbtxt and 1/model.onnx; returns that folder.

    Raises ModelFileError when `model` is no model file, RealDamageError when writing fails.
    """
    data, metadata, _ = read_model_file(model)
    spec, target = metadata.pixel_spec, model_path(repository)
    config = _CONFIG.format(
        name=MODEL,
        batch=BATCH_TILES,
        tile=spec.tile,
        side=spec.tile // spec.patch,
        delay=_QUEUE_DELAY_US,
        key=METADATA_KEY,
        # As a string of protobuf's text format: the entry is ASCII, where JSON's escapes are valid.
        metadata=json.dumps(split_metadata(data)[1][METADATA_KEY]),
    )
    folder = target.parents[1]
    write_atomically(folder / "config.pbtxt", config.encode())
    write_atomically(target, data)  # last: a server that watches the folder waits for it
    return folder
