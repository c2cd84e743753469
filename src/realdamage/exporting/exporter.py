"""From a trained network to one ONNX file, written only when file and network agree.

The parity gate goes from file bytes to verdict on awkward photos: not square, larger than a tile, rotated by EXIF,
grey, RGBA, nearly black, as JPEG and as PNG. What a service will see is compared, not only the graph.
"""

from __future__ import annotations

import io
import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from PIL import Image
from torch import nn

from realdamage.core.detector import Detector
from realdamage.core.metadata import ModelMetadata, write_model_file
from realdamage.core.onnx_file import graph_sha256
from realdamage.core.policy import Calibration
from realdamage.core.scorer import OnnxScorer
from realdamage.core.verdict import Verdict
from realdamage.errors import ModelFileError
from realdamage.training.network import EvidenceViT
from realdamage.training.network import TorchScorer

PARITY_CALIBRATION = Calibration(method="platt", slope=1.0, intercept=0.0, prior=0.5)
"""Stands in while the file has no calibration of its own, so that the gate compares probabilities."""


@dataclass(frozen=True)
class Exported:
    """What was written: `difference`, the largest difference of a probability or heat-map value over the awkward
    photos."""

    path: Path
    bytes: int
    opset: int
    difference: float


def export_network(
    network: EvidenceViT,
    metadata: ModelMetadata,
    output: str | Path,
    *,
    opset: int,
    tolerance: float,
) -> Exported:
    """Writes `output`, or nothing: raises ModelFileError when torch and the wrapper differ by more than `tolerance` in
    probability or heat map on any awkward photo, naming the photo and the difference."""
    network = network.eval().cpu()
    data = onnx_bytes(network, opset)
    difference, worst = parity(network, data, metadata)
    if not difference <= tolerance:
        raise ModelFileError(
            f"{output} was not written: torch and the ONNX file differ by {difference:.2e} on the photo '{worst}', "
            f"more than tolerance={tolerance:g}. Try another opset, or report this backbone."
        )
    write_model_file(output, data, metadata)
    return Exported(Path(output), Path(output).stat().st_size, opset, difference)


def onnx_bytes(network: EvidenceViT, opset: int) -> bytes:
    """The network as one ONNX model: `tiles` uint8 [n, tile, tile, 3] → `logit` [n], `evidence` [n, h, w]; n is
    dynamic."""
    side = network.tile
    example = torch.randint(
        0, 256, (2, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
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
            opset_version=opset,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelFileError(
            "torch.onnx.export returned no program; this needs torch 2.15 or later"
        )
    model = program.model_proto
    for node in model.graph.node:
        node.ClearField("metadata_props")  # stack traces of the exporting machine
        node.ClearField("doc_string")
    for value in model.graph.value_info:
        value.ClearField("metadata_props")
    model.ClearField("doc_string")
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def parity(network: nn.Module, data: bytes, metadata: ModelMetadata) -> tuple[float, str]:
    """Largest difference in probability or heat map between torch and the wrapper over the awkward photos, and the
    photo's name; that of the first photo whose difference is not finite, if there is one."""
    judged = replace(metadata, calibration=metadata.calibration or PARITY_CALIBRATION)
    digest = graph_sha256(data)
    pair = (
        Detector(TorchScorer(network), judged, graph_sha256=digest),
        Detector(OnnxScorer(data), judged, graph_sha256=digest),
    )
    worst, name_of_worst = -1.0, ""
    for name, photo in awkward_photos(metadata.pixel_spec.tile).items():
        ours, theirs = (detector.predict(photo) for detector in pair)
        difference = float(np.abs(_values(ours) - _values(theirs)).max())
        if not np.isfinite(difference):
            return difference, name
        if difference > worst:
            worst, name_of_worst = difference, name
    return worst, name_of_worst


def _values(verdict: Verdict) -> npt.NDArray[np.float64]:
    """What must agree: the probability, then the heat map."""
    heatmap = np.zeros(0) if verdict.heatmap is None else verdict.heatmap.ravel()
    return np.array(
        [float("nan") if verdict.probability is None else verdict.probability, *heatmap]
    )


def awkward_photos(tile: int, seed: int = 0) -> dict[str, bytes]:
    """File bytes of photos that pixel code gets wrong, by name."""
    rng = np.random.default_rng(seed)

    def texture(height: int, width: int) -> np.ndarray:
        small = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
        smooth = np.asarray(
            Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), np.int16
        )
        return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)

    rotated = Image.Exif()
    rotated[0x0112] = 6
    wide = Image.fromarray(texture(tile + tile // 3, 2 * tile + 7))
    return {
        "wide.jpg": _file(wide, "JPEG", quality=85),
        "wide.png": _file(wide, "PNG"),
        "large.jpg": _file(
            Image.fromarray(texture(3 * tile + 1, 3 * tile + 1)), "JPEG", quality=92
        ),
        "small.png": _file(Image.fromarray(texture(tile // 2, tile // 2 + 3)), "PNG"),
        "exif_rotated.jpg": _file(wide, "JPEG", quality=85, exif=rotated.tobytes()),
        "grey.jpg": _file(wide.convert("L"), "JPEG", quality=85),
        "rgba.png": _file(wide.convert("RGBA"), "PNG"),
        "nearly_black.jpg": _file(
            Image.fromarray(rng.integers(0, 3, (tile + 9, tile + 30, 3), dtype=np.uint8)), "JPEG"
        ),
    }


def _file(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()
