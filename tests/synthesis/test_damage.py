from __future__ import annotations

import numpy as np
import pytest

from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import SynthesisError
from realdamage.synthesis import damage as damage_module
from realdamage.synthesis.damage import draw_damage
from realdamage.synthesis.damage_site import shade


def scene(height: int = 240, width: int = 320, seed: int = 0) -> np.ndarray:
    """A soft colour gradient with a little texture, linear light."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    base = np.stack([0.3 + 0.2 * x / width, 0.25 + 0.2 * y / height, np.full_like(x, 0.35)], -1)
    return (base + 0.02 * rng.standard_normal(base.shape)).clip(0, 1).astype(np.float32)


def test_every_damage_of_the_manifest_can_be_drawn_and_no_other() -> None:
    assert tuple(damage_module._DRAW) == DAMAGES


@pytest.mark.parametrize("damage", DAMAGES)
def test_same_seed_same_damage_and_another_seed_another(damage: str) -> None:
    linear = scene()
    first, alpha = draw_damage(linear, damage, np.random.default_rng(3))
    again, alpha_again = draw_damage(linear, damage, np.random.default_rng(3))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(alpha, alpha_again)
    other, _ = draw_damage(linear, damage, np.random.default_rng(4))
    assert (other != first).any()


@pytest.mark.parametrize("damage", DAMAGES)
def test_area_is_within_bounds_and_the_damage_can_be_seen(damage: str) -> None:
    linear = scene()
    shares, contrasts = [], []
    for seed in range(24):
        out, alpha = draw_damage(linear, damage, np.random.default_rng(seed))
        touched = alpha > 0
        shares.append(touched.mean())
        contrasts.append((np.abs(out - linear).max(-1) > 0.02).mean())
    assert min(shares) > 0.002
    assert max(shares) < 0.18
    assert 0.01 < float(np.mean(shares)) < 0.10
    # Steps of 0.02 in linear light are about 6 levels of 255 in mid-tones: clearly visible.
    assert float(np.mean(contrasts)) > 0.004


@pytest.mark.parametrize("damage", DAMAGES)
def test_alpha_says_exactly_where_the_photo_changed(damage: str) -> None:
    linear = scene()
    before = linear.copy()
    out, alpha = draw_damage(linear, damage, np.random.default_rng(1))
    np.testing.assert_array_equal(linear, before)
    assert out.dtype == alpha.dtype == np.float32
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    assert np.isfinite(out).all()
    assert out.min() >= 0
    assert out.max() <= 1
    np.testing.assert_array_equal(out[alpha == 0], linear[alpha == 0])


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_stays_on_the_product(damage: str) -> None:
    linear = scene()
    region = np.zeros(linear.shape[:2], bool)
    region[60:180, 100:220] = True
    for seed in range(6):
        out, alpha = draw_damage(linear, damage, np.random.default_rng(seed), region=region)
        assert (alpha > 0).any()
        assert not (alpha > 0)[~region].any()
        np.testing.assert_array_equal(out[~region], linear[~region])


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("shape", [(64, 64), (64, 640), (640, 64), (33, 47)])
def test_tiny_and_long_photos(damage: str, shape: tuple[int, int]) -> None:
    linear = scene(*shape)
    out, alpha = draw_damage(linear, damage, np.random.default_rng(0))
    assert out.shape == (*shape, 3)
    assert alpha.shape == shape
    assert (alpha > 0).any()


def test_an_empty_region_means_the_whole_photo_and_a_speck_is_enough() -> None:
    linear = scene()
    nothing = np.zeros(linear.shape[:2], bool)
    _, alpha = draw_damage(linear, "stained", np.random.default_rng(0), region=nothing)
    assert (alpha > 0).mean() > 0.01
    speck = nothing.copy()
    speck[100:103, 100:103] = True
    for damage in DAMAGES:
        _, alpha = draw_damage(linear, damage, np.random.default_rng(0), region=speck)
        assert not (alpha > 0)[~speck].any()


def test_damage_goes_where_it_is_likely() -> None:
    linear = scene()
    likely = np.zeros(linear.shape[:2], np.float32)
    likely[:, 240:] = 1.0
    centres = []
    for seed in range(12):
        _, alpha = draw_damage(linear, "holed", np.random.default_rng(seed), likely=likely)
        centres.append(np.nonzero(alpha)[1].mean())
    assert np.mean(centres) > 230


def test_unknown_damage_names_the_near_match() -> None:
    with pytest.raises(SynthesisError, match=r'"craked".*Did you mean "cracked"\?.*scratched'):
        draw_damage(scene(), "craked", np.random.default_rng(0))
    with pytest.raises(SynthesisError, match="Known types: cracked"):
        draw_damage(scene(), "", np.random.default_rng(0))


def test_a_slope_towards_the_light_is_brighter() -> None:
    hollow = np.zeros((41, 41), np.float32)
    y, x = np.mgrid[-20:21, -20:21]
    hollow -= 6 * np.exp(-(x**2 + y**2) / 80).astype(np.float32)
    from_left = shade(hollow, (-0.7, 0.0, 0.714))
    # In a hollow, the slope on the far side faces the light.
    assert from_left[20, 27] > 1.1
    assert from_left[20, 13] < 0.9
    np.testing.assert_allclose(shade(np.zeros((5, 5), np.float32), (0.0, 0.6, 0.8)), 1.0, atol=1e-6)


def test_stains_only_take_light() -> None:
    linear = scene()
    for seed in range(8):
        out, _ = draw_damage(linear, "stained", np.random.default_rng(seed))
        assert (out <= linear + 1e-6).all()
