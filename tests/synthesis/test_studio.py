from __future__ import annotations

import numpy as np
import pytest

from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import SynthesisError
from realdamage.synthesis.scenery.lying import LYING
from realdamage.synthesis.scenery.scene import View
from realdamage.synthesis.scenery.shapes import Box, Disc, Turned, upright
from realdamage.synthesis.scenery.standing import STANDING
from realdamage.synthesis.studio import Studio

SMALL = Studio(long_side=(128, 160))


def test_same_seeds_same_photo_to_the_byte() -> None:
    for seed in range(3):
        first, again = (SMALL.render(seed, 7, "cracked") for _ in range(2))
        np.testing.assert_array_equal(first.rgb, again.rgb)
        np.testing.assert_array_equal(first.object_mask, again.object_mask)
        np.testing.assert_array_equal(first.damage_mask, again.damage_mask)


def test_scene_seed_fixes_the_scene_and_camera_seed_the_shot() -> None:
    first, second, other = SMALL.render(1, 1), SMALL.render(1, 2), SMALL.render(2, 1)
    assert first.rgb.shape == second.rgb.shape
    assert (first.rgb != second.rgb).mean() > 0.5
    overlap = (first.object_mask & second.object_mask).sum() / (
        first.object_mask | second.object_mask
    ).sum()
    assert overlap > 0.75  # the hand shook a little
    assert overlap < 1.0
    assert (
        other.rgb.shape != first.rgb.shape or np.abs(other.rgb.astype(int) - first.rgb).mean() > 10
    )


def test_sizes_are_as_asked_portrait_and_landscape() -> None:
    shapes = [SMALL.render(seed, 0).rgb.shape for seed in range(16)]
    assert all(128 <= max(shape[:2]) <= 160 for shape in shapes)
    assert any(shape[0] > shape[1] for shape in shapes)
    assert any(shape[0] < shape[1] for shape in shapes)


def test_the_product_is_in_the_frame_and_the_photo_is_well_exposed() -> None:
    shares, means = [], []
    for seed in range(30):
        capture = SMALL.render(seed, seed)
        assert capture.rgb.dtype == np.uint8
        assert not capture.damage_mask.any()
        shares.append(capture.object_mask.mean())
        means.append(capture.rgb.mean())
        assert capture.rgb.std() > 8
    assert min(shares) > 0.05
    assert max(shares) < 0.95
    assert 90 < np.mean(means) < 165


@pytest.mark.parametrize("damage", DAMAGES)
def test_real_damage_is_on_the_product_before_the_camera(damage: str) -> None:
    contrast = []
    for seed in range(6):
        intact, damaged = SMALL.render(seed, 5), SMALL.render(seed, 5, damage)
        np.testing.assert_array_equal(intact.object_mask, damaged.object_mask)
        assert damaged.damage_mask.any()
        assert not (damaged.damage_mask & ~damaged.object_mask).any()
        change = np.abs(damaged.rgb.astype(int) - intact.rgb).mean(-1)
        contrast.append(
            change[damaged.damage_mask].mean() / max(change[~damaged.object_mask].mean(), 0.1)
        )
    assert np.median(contrast) > 2.0


def test_damage_does_not_shift_the_photos_brightness() -> None:
    """A detector must not tell damaged photos by their mean: exposure is metered on what is there."""
    shifts = [
        SMALL.render(seed, seed + 100, DAMAGES[seed % len(DAMAGES)]).rgb.mean()
        - SMALL.render(seed, seed).rgb.mean()
        for seed in range(20)
    ]
    same = [
        SMALL.render(seed, seed + 100).rgb.mean() - SMALL.render(seed, seed).rgb.mean()
        for seed in range(20)
    ]
    assert abs(np.mean(shifts) - np.mean(same)) < 2.0  # levels of 255


def test_every_product_can_be_made() -> None:
    for make in (*STANDING, *LYING):
        for seed in range(3):
            product = make(np.random.default_rng(seed))
            assert product.parts
            assert 0.2 < product.radius < 1.5
            assert all(
                np.isfinite(material.texture).all()
                and 0 <= material.texture.min() <= material.texture.max() <= 1
                for part in product.parts
                for material in part.materials
            )


def test_rays_meet_solids_where_geometry_says() -> None:
    origin = np.array([0, -5, 0.5], np.float32)
    rays = np.array([[0, 0, 0.6], [1, 1, 0.8], [0, 0.2, 0]], np.float32)
    box = Box(upright(z=0.5), (0.5, 0.5, 0.5))
    np.testing.assert_allclose(box.reach(origin, rays), [4.5, np.inf, np.inf])
    touch = box.touch(np.array([[0.0], [-0.5], [0.5]], np.float32))
    np.testing.assert_allclose(touch.normal[:, 0], [0, -1, 0], atol=1e-3)
    assert touch.face[0] == 2
    assert (touch.u[0], touch.v[0]) == (0.5, 0.5)
    body = Turned(upright(), (0.4, 0.4), (0.0, 1.0))
    np.testing.assert_allclose(body.reach(origin, rays)[:1], [4.6], rtol=1e-5)
    down = np.array([[0.1], [0.0], [-1.0]], np.float32)
    np.testing.assert_allclose(
        Disc(upright(z=0.2), 0.3).reach(np.array([0, 0, 1], np.float32), down), [0.8], rtol=1e-5
    )


def test_a_view_looks_at_its_product() -> None:
    view = View(
        azimuth=0.3,
        elevation=0.6,
        roll=0.1,
        distance=3.0,
        height=0.5,
        focal=200.0,
        shift=(0.0, 0.0),
    )
    ray = view.rays((100, 120), np.array([50]), np.array([60]))
    np.testing.assert_allclose(view.eye + 3.0 * ray[:, 0], [0, 0, 0.5], atol=1e-5)
    np.testing.assert_allclose(view.axes.T @ view.axes, np.eye(3), atol=1e-6)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(SynthesisError, match='Did you mean "stained"'):
        SMALL.render(0, 0, "staind")
    for sides in ((10, 64), (200, 100)):
        with pytest.raises(SynthesisError, match="long_side"):
            Studio(long_side=sides)
    with pytest.raises(SynthesisError, match="camera_seed"):
        SMALL.render(0, -1)
