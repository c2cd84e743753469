"""A network that sees redness (redness.onnx.txt): evidence of a patch = (mean red - mean blue) /
16, logit = its mean.

Its answers can be worked out by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def write_red_model(tmp_path: Path, save_red_model: Callable[..., Path]) -> Callable[..., Path]:
    """Writes the network with its metadata, some of it changed, and returns the path."""

    def write(**changes: Any) -> Path:
        return save_red_model(tmp_path / "model" / "red.onnx", **changes)

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
