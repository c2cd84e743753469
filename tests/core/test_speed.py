"""What a photo costs besides the network: `make bench` times these on this machine; `make test` runs each once."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from realdamage.core.detector import Detector
from realdamage.core.model_file import ModelMetadata
from realdamage.core.pooling import Pooling, pool
from realdamage.core.tiles import PixelSpec, cover, read_photo

SPEC = PixelSpec(tile=128, patch=16, overlap=32, max_side=2048)


@pytest.fixture(scope="module")
def jpeg(photo_factory: Callable[[int, int, int], np.ndarray]) -> bytes:
    """A photo of a phone after a chat application: 800×600, quality 85."""
    buffer = io.BytesIO()
    Image.fromarray(photo_factory(600, 800, 0)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def test_decode(benchmark: BenchmarkFixture, jpeg: bytes) -> None:
    assert benchmark(read_photo, jpeg, SPEC).rgb.shape == (600, 800, 3)


def test_cover(benchmark: BenchmarkFixture, jpeg: bytes) -> None:
    tiles = benchmark(cover, read_photo(jpeg, SPEC).rgb, SPEC).tiles
    assert tiles.shape == (8 * 6, 128, 128, 3)


def test_pool(benchmark: BenchmarkFixture) -> None:
    rng = np.random.default_rng(0)
    logit, evidence = (
        rng.normal(size=48).astype(np.float32),
        rng.normal(size=(48, 8, 8)).astype(np.float32),
    )
    assert np.isfinite(benchmark(pool, logit, evidence, Pooling()))


def test_judge(
    benchmark: BenchmarkFixture,
    jpeg: bytes,
    write_red_model: Callable[..., Path],
    metadata: ModelMetadata,
) -> None:
    path = write_red_model(pixel_spec=replace(metadata.pixel_spec, tile=32, max_side=2048))
    verdict = benchmark(Detector.load(path, threads=1).predict, jpeg)
    assert verdict.heatmap.shape == (38, 50)
