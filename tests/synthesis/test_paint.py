"""Painted damage: every type, where it goes, and that nothing else changes."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from realdamage.data.vocabulary import DAMAGES
from realdamage.synthesis.paint import Paint, draw_damage, find_object

every_damage = pytest.mark.parametrize("damage", DAMAGES)


def photo():
    """A red box on a grey table with a little noise, uint8."""
    image = Image.new("RGB", (260, 200), (190, 188, 185))
    ImageDraw.Draw(image).rectangle((78, 50, 182, 160), fill=(180, 40, 35))
    noise = np.random.default_rng(0).normal(0, 3, (200, 260, 3))
    return (np.asarray(image) + noise).clip(0, 255).astype(np.uint8)


def scene():
    """A soft colour gradient with a little texture, linear light."""
    y, x = np.mgrid[0:120, 0:160].astype(np.float32)
    base = np.stack([0.3 + 0.2 * x / 160, 0.25 + 0.2 * y / 120, np.full_like(x, 0.35)], -1)
    texture = 0.02 * np.random.default_rng(0).standard_normal(base.shape)
    return (base + texture).clip(0, 1).astype(np.float32)


@every_damage
def test_the_damage_can_be_seen_and_stays_on_the_product(damage):
    linear = scene()
    shares, contrasts = [], []
    for seed in range(12):
        out, alpha = draw_damage(linear, damage, np.random.default_rng(seed))
        shares.append((alpha > 0).mean())
        contrasts.append((np.abs(out - linear).max(-1) > 0.02).mean())
    assert min(shares) > 0.002
    assert max(shares) < 0.18
    assert 0.01 < float(np.mean(shares)) < 0.10
    # Steps of 0.02 in linear light are about 6 levels of 255 in mid-tones: clearly visible.
    assert float(np.mean(contrasts)) > 0.004
    for window in (np.s_[30:90, 50:110], np.s_[50:53, 50:53]):
        product = np.zeros(linear.shape[:2], bool)
        product[window] = True
        for seed in range(3):
            out, alpha = draw_damage(linear, damage, np.random.default_rng(seed), product)
            assert not (alpha > 0)[~product].any()
            np.testing.assert_array_equal(out[~product], linear[~product])


@every_damage
def test_paint_changes_the_mask_and_nothing_else(damage):
    for rgb in (*(np.full((96, 96, 3), level, np.uint8) for level in (0, 255)), photo()):
        edit = Paint().apply(rgb, np.random.default_rng(2), damage)
        assert (edit.damage, edit.rgb.dtype) == (damage, np.uint8)
        np.testing.assert_array_equal(edit.rgb[~edit.mask], rgb[~edit.mask])
    changed = (edit.rgb != rgb).any(-1)
    assert changed.mean() > 0.002
    assert changed[edit.mask].mean() > 0.5


def test_paint_finds_the_product_before_a_plain_background():
    rgb = photo()
    likely, region = find_object(rgb)
    assert region is not None
    truth = np.zeros(rgb.shape[:2], bool)
    truth[50:160, 78:182] = True
    assert (region & truth).sum() / (region | truth).sum() > 0.9
    assert likely[truth].mean() > 3 * likely[~truth].mean()
    for seed in range(5):
        assert Paint().apply(rgb, np.random.default_rng(seed)).mask[region].any()
