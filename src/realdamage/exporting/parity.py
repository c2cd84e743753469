"""The parity check: torch and the ONNX file must agree from file bytes to verdict, on photos that
pixel code gets wrong: not square, larger than a tile, rotated by EXIF, grey, RGBA, nearly black.
"""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image
from torch import nn

from realdamage.core.detector import Detector
from realdamage.core.model_file import ModelMetadata, graph_sha256
from realdamage.core.policy import Calibration
from realdamage.core.scorer import OnnxScorer
from realdamage.training.network import TorchScorer

# For a file without a calibration, so that probabilities can be compared.
_CALIBRATION = Calibration(slope=1.0, intercept=0.0, prior=0.5)


def parity(network: nn.Module, data: bytes, metadata: ModelMetadata) -> tuple[float, str]:
    """The largest difference of a probability or a heat-map value between torch and the ONNX file
    over the awkward photos, and the photo's name; NaN wins."""
    judged = replace(metadata, calibration=metadata.calibration or _CALIBRATION)
    digest = graph_sha256(data)
    detectors = [
        Detector(scorer, judged, graph_sha256=digest)
        for scorer in (TorchScorer(network), OnnxScorer(data))
    ]
    differences = {}
    for name, photo in awkward_photos(metadata.pixel_spec.tile).items():
        one, other = (_compared_values(detector, photo) for detector in detectors)
        differences[name] = float(np.abs(one - other).max())
    worst = max(differences, key=lambda name: np.nan_to_num(differences[name], nan=np.inf))
    return differences[worst], worst


def _compared_values(detector: Detector, photo: bytes) -> np.ndarray:
    """What must agree: the probability, then the heat map."""
    verdict = detector.predict(photo)
    heatmap = np.zeros(0) if verdict.heatmap is None else verdict.heatmap.ravel()
    return np.array([np.nan if verdict.probability is None else verdict.probability, *heatmap])


def awkward_photos(tile: int) -> dict[str, bytes]:
    """File bytes of awkward photos by name."""
    rng = np.random.default_rng(0)

    def textured(height: int, width: int) -> Image.Image:
        small = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
        smooth = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth, np.int16) + rng.normal(0, 6, (height, width, 3))
        return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))

    rotated = Image.Exif()
    rotated[0x0112] = 6
    wide = textured(tile + tile // 3, 2 * tile + 7)
    large = textured(3 * tile + 1, 3 * tile + 1)
    small = textured(tile // 2, tile // 2 + 3)
    black = Image.fromarray(rng.integers(0, 3, (tile + 9, tile + 30, 3), dtype=np.uint8))
    return {
        "wide.jpg": _file(wide, "JPEG"),
        "wide.png": _file(wide, "PNG"),
        "large.jpg": _file(large, "JPEG"),
        "small.png": _file(small, "PNG"),
        "exif_rotated.jpg": _file(wide, "JPEG", exif=rotated.tobytes()),
        "grey.jpg": _file(wide.convert("L"), "JPEG"),
        "rgba.png": _file(wide.convert("RGBA"), "PNG"),
        "nearly_black.jpg": _file(black, "JPEG"),
    }


def _file(image: Image.Image, file_format: str, **options: bytes) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, quality=85, **options)
    return buffer.getvalue()
