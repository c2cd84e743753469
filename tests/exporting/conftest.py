"""The network of `tiny_onnx` as what torch exports: an export takes seconds, and its own tests look
at that file."""

import pytest

from realdamage.core.model_file import split_metadata
from realdamage.exporting import onnx as exporter


@pytest.fixture
def exported(tiny_onnx, monkeypatch):
    """What torch exports from the weights of `tiny_run`."""
    data = split_metadata(tiny_onnx.read_bytes())[0]
    monkeypatch.setattr(exporter, "onnx_bytes", lambda _: data)
