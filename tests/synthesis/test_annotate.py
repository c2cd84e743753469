"""Honest overlays change what they draw and nothing else."""

import numpy as np
import pytest

from realdamage.synthesis.annotate import ANNOTATIONS, annotated


def photo(height=160, width=220):
    return np.random.default_rng(0).integers(60, 200, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("kind", ANNOTATIONS)
def test_mask_is_what_changed(kind):
    rgb = photo()
    before = rgb.copy()
    for seed in range(4):
        edit = annotated(rgb, np.random.default_rng(seed), (kind,))
        np.testing.assert_array_equal(rgb, before)
        assert (edit.damage, edit.rgb.dtype) == ("", np.uint8)
        np.testing.assert_array_equal(edit.mask, (edit.rgb != rgb).any(-1))
        assert 0.001 < edit.mask.mean() < (1.01 if kind == "tone" else 0.6)


@pytest.mark.parametrize("shape", [(40, 800), (800, 40), (1700, 40)])
def test_long_photos(shape):
    for seed, kind in enumerate(ANNOTATIONS):
        edit = annotated(photo(*shape), np.random.default_rng(seed), (kind,))
        assert edit.rgb.shape == (*shape, 3)
