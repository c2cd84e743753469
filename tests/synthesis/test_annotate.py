"""Honest overlays change what they draw, near what they point at, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from realdamage.errors import SynthesisError
from realdamage.synthesis.annotate import ANNOTATIONS, Annotate


def photo(height: int = 160, width: int = 220) -> np.ndarray:
    return np.random.default_rng(0).integers(60, 200, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("kind", ANNOTATIONS)
def test_mask_is_what_changed(kind: str) -> None:
    rgb = photo()
    before = rgb.copy()
    for seed in range(6):
        edit = Annotate((kind,)).apply(rgb, np.random.default_rng(seed))
        np.testing.assert_array_equal(rgb, before)
        assert edit.damage == ""
        assert edit.rgb.dtype == np.uint8
        np.testing.assert_array_equal(edit.mask, (edit.rgb != rgb).any(-1))
        assert 0.001 < edit.mask.mean() < (1.01 if kind == "tone" else 0.6)


def test_annotations_are_deterministic_and_varied() -> None:
    first, again = (
        [Annotate().apply(photo(), np.random.default_rng(seed)).rgb for seed in range(10)]
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    assert len({rgb.tobytes() for rgb in first}) == 10


@pytest.mark.parametrize("kind", ["circle", "box"])
def test_marks_surround_the_region(kind: str) -> None:
    rgb = np.full((200, 200, 3), 128, np.uint8)
    region = np.zeros((200, 200), bool)
    region[120:140, 50:80] = True
    edit = Annotate((kind,)).apply(rgb, np.random.default_rng(1), region)
    rows, columns = np.nonzero(edit.mask)
    assert abs((rows.min() + rows.max()) / 2 - 130) < 12
    assert abs((columns.min() + columns.max()) / 2 - 65) < 12


@pytest.mark.parametrize("shape", [(64, 64), (40, 800), (800, 40), (1700, 40)])
def test_tiny_and_long_photos(shape: tuple[int, int]) -> None:
    for seed, kind in enumerate(ANNOTATIONS):
        edit = Annotate((kind,)).apply(photo(*shape), np.random.default_rng(seed))
        assert edit.rgb.shape == (*shape, 3)


@pytest.mark.parametrize("kinds", [("circel",), ()])
def test_wrong_kinds_are_named(kinds: tuple[str, ...]) -> None:
    with pytest.raises(SynthesisError, match="circle"):
        Annotate(kinds)
