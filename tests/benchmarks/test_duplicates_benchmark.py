"""How long finding near-duplicates takes: all pairs of 100,000 hashes, and hashing one photo."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from realdamage.data.duplicates import Grouping, PhotoHash, duplicate_groups, perceptual_hash


def test_grouping_100_000_hashes(benchmark: BenchmarkFixture) -> None:
    """Every photo has one copy; the issue's limit is a minute."""
    count = 2_000 if benchmark.disabled else 100_000
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**63, (count // 2, 5), dtype=np.uint64)
    thumbnails = rng.normal(size=(count // 2, 768)).astype(np.float32)
    thumbnails /= np.linalg.norm(thumbnails, axis=1, keepdims=True)
    hashes = [
        PhotoHash(row[0], row[1:], small)
        for row, small in zip(words, thumbnails, strict=True)
        for _ in (0, 1)
    ]
    found: Grouping = benchmark.pedantic(duplicate_groups, args=(hashes,), rounds=1)
    assert found.labels.max() + 1 == count // 2


def test_hashing_a_photo(
    benchmark: BenchmarkFixture, photo_factory: Callable[..., np.ndarray]
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo_factory(960, 1280, 0)).save(buffer, "JPEG", quality=90)
    found = benchmark(lambda: perceptual_hash(Image.open(io.BytesIO(buffer.getvalue()))))
    assert found.thumbnail.any()
