"""From a trained network to one ONNX file, written only when file and network agree."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import torch

from realdamage.core.model_file import ModelMetadata, write_model_file
from realdamage.errors import ModelFileError
from realdamage.exporting.parity import parity
from realdamage.training.network import EvidenceViT

OPSET = 20


def export_network(
    network: EvidenceViT, metadata: ModelMetadata, output: str | Path, *, tolerance: float
) -> float:
    """Writes `output`, or nothing. Returns the largest difference that the parity check found.

    Raises ModelFileError: torch and the ONNX file differ by more than `tolerance` (see `parity`).
    """
    network = network.eval().cpu()
    data = onnx_bytes(network)
    difference, worst = parity(network, data, metadata)
    if not difference <= tolerance:  # also when it is not a number
        raise ModelFileError(
            f"{output} was not written: torch and the ONNX file differ by {difference:.2e} on the "
            f"photo '{worst}', more than tolerance={tolerance:g}. Report this backbone.",
            code="parity",
        )
    write_model_file(output, data, metadata)
    return difference


def onnx_bytes(network: EvidenceViT) -> bytes:
    """The network as one ONNX model: `tiles` uint8 [n, tile, tile, 3] → `logit` [n], `evidence`
    [n, h, w]; n is dynamic."""
    example = torch.zeros((2, network.tile, network.tile, 3), dtype=torch.uint8)
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they report every rewritten node
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            input_names=["tiles"],
            output_names=["logit", "evidence"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelFileError("torch.onnx.export returned nothing; it needs torch 2.15 or later")
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info):
        part.ClearField("metadata_props")  # stack traces of the exporting machine
        part.ClearField("doc_string")
    model.ClearField("doc_string")
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
