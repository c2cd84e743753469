"""A network that sees redness (redness.onnx.txt): evidence of a patch = (mean red - mean blue) /
16, logit = its mean.

Its answers can be worked out by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realdamage.core.model_file import ModelMetadata, write_model_file
from realdamage.core.policy import Calibration, Policy
from realdamage.core.pooling import Pooling
from realdamage.core.tiles import PixelSpec


@pytest.fixture
def metadata() -> ModelMetadata:
    return ModelMetadata(
        pixel_spec=PixelSpec(tile=32, patch=16, overlap=16, max_side=160),
        pooling=Pooling(tile_sharpness=2.0, patch_sharpness=1.0, patch_weight=0.5),
        calibration=Calibration(slope=1.5, intercept=-0.5, prior=0.4),
        policy=Policy(
            t_synthetic=1.0,
            t_real=-1.0,
            fpr=0.01,
            miss=0.05,
            negatives="damaged",
            photos={"real": 30, "synthetic": 20},
        ),
        backbone="redness",
        demo=False,
        model_version="test-1",
        training={"manifest": "abc", "experiment": "none"},
        metrics={"auroc": 0.75, "tpr_at_fpr_1": None},
    )


@pytest.fixture
def write_red_model(
    tmp_path: Path, red_network: bytes, metadata: ModelMetadata
) -> Callable[..., Path]:
    """Writes the network with its metadata, some of it changed, and returns the path."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "model" / "red.onnx"
        write_model_file(path, red_network, replace(metadata, **changes))
        return path

    return write


@pytest.fixture
def blue_photo() -> Callable[..., np.ndarray]:
    """A bluish photo (evidence -4) with red rectangles (evidence +10) at the given (left, top,
    right, bottom)."""

    def make(width: int, height: int, *red_boxes: tuple[int, int, int, int]) -> np.ndarray:
        rgb = np.empty((height, width, 3), dtype=np.uint8)
        rgb[:] = (80, 100, 144)
        for left, top, right, bottom in red_boxes:
            rgb[top:bottom, left:right] = (200, 100, 40)
        return rgb

    return make
