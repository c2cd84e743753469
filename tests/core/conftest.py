"""A network that sees redness (redness.onnx.txt): evidence of a patch = (mean red - mean blue) /
16, logit = its mean.

Its answers can be worked out by hand.
"""

import numpy as np
import pytest


@pytest.fixture
def write_red_model(tmp_path, save_red_model):
    """Writes the network with its metadata, some of it changed, and returns the path."""

    def write(**changes):
        return save_red_model(tmp_path / "model" / "red.onnx", **changes)

    return write


@pytest.fixture
def blue_photo():
    """A bluish photo (evidence -4) with red rectangles (evidence +10) at the given (left, top,
    right, bottom)."""

    def make(width, height, *red_boxes):
        rgb = np.empty((height, width, 3), dtype=np.uint8)
        rgb[:] = (80, 100, 144)
        for left, top, right, bottom in red_boxes:
            rgb[top:bottom, left:right] = (200, 100, 40)
        return rgb

    return make
