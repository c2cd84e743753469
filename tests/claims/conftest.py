"""Photos for claims, as bytes, and a detector that sees redness: blue textures are real, red
rectangles synthetic."""

import io

import numpy as np
import pytest
from PIL import Image

from realdamage.core.detector import Detector
from realdamage.core.policy import Calibration
from realdamage.core.pooling import Pooling


@pytest.fixture(scope="session")
def claim_photo(photo_factory):
    """`claim_photo(seed, red=False, size=(400, 360), quality=90)`: a JPEG's bytes; `red` paints a
    quarter."""

    def make(seed, *, red=False, size=(400, 360), quality=90):
        width, height = size
        grey = photo_factory(height, width, seed)[..., :1].astype(np.float64)
        rgb = (grey * (0.4, 0.6, 0.5) + (0, 0, 100)).clip(0, 255).astype(np.uint8)
        if red:
            rgb[: height // 2, : width // 2] = (200, 100, 40)
        data = io.BytesIO()
        Image.fromarray(rgb).save(data, format="JPEG", quality=quality)
        return data.getvalue()

    return make


@pytest.fixture(scope="session")
def detector(save_red_model, tmp_path_factory):
    path = save_red_model(
        tmp_path_factory.mktemp("claim") / "red.onnx",
        pooling=Pooling(tile_sharpness=2.0, patch_sharpness=1.0, patch_weight=0.5),
        calibration=Calibration(slope=1.5, intercept=-0.5, prior=0.4),
    )
    return Detector.load(path, threads=1)
