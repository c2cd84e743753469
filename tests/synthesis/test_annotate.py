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
        edit = Annotate((kind,), most=1).apply(rgb, np.random.default_rng(seed))
        np.testing.assert_array_equal(rgb, before)
        assert edit.damage == ""
        assert edit.rgb.dtype == np.uint8
        np.testing.assert_array_equal(edit.mask, (edit.rgb != rgb).any(-1))
        assert edit.mask.mean() > 0.001
        if kind != "tone":
            assert edit.mask.mean() < 0.6


def test_annotate_is_deterministic_and_varied() -> None:
    rgb = photo()
    edits = [Annotate().apply(rgb, np.random.default_rng(seed)) for seed in range(10)]
    for seed, edit in enumerate(edits):
        np.testing.assert_array_equal(
            edit.rgb, Annotate().apply(rgb, np.random.default_rng(seed)).rgb
        )
    assert len({edit.rgb.tobytes() for edit in edits}) == 10


@pytest.mark.parametrize("kind", ["circle", "box"])
def test_marks_surround_the_region(kind: str) -> None:
    rgb = np.full((200, 200, 3), 128, np.uint8)
    region = np.zeros((200, 200), bool)
    region[120:140, 50:80] = True
    rows, columns = np.nonzero(
        Annotate((kind,), most=1).apply(rgb, np.random.default_rng(1), region).mask
    )
    assert abs((rows.min() + rows.max()) / 2 - 130) < 12
    assert abs((columns.min() + columns.max()) / 2 - 65) < 12


@pytest.mark.parametrize("shape", [(64, 64), (40, 800), (800, 40), (1700, 40)])
def test_tiny_and_long_photos(shape: tuple[int, int]) -> None:
    for seed, kind in enumerate(ANNOTATIONS):
        edit = Annotate((kind,), most=1).apply(photo(*shape), np.random.default_rng(seed))
        assert edit.rgb.shape == (*shape, 3)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(SynthesisError, match=r'circle.*found "circel"'):
        Annotate(("circel",))
    with pytest.raises(SynthesisError, match="found none"):
        Annotate(())
    with pytest.raises(SynthesisError, match="most must be at least 1"):
        Annotate(most=0)
