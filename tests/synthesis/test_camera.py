from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from realdamage.synthesis.camera import Camera, demosaic, mosaic, random_camera


@pytest.fixture
def plain_camera() -> Camera:
    """A camera that adds next to nothing of its own."""
    return Camera(
        blur=0.0,
        vignette=0.0,
        brightness=0.25,
        warmth=0.0,
        balance=(0.0, 0.0),
        shot=1e-7,
        read=0.0,
        phase=(0, 0),
        malvar=True,
        crosstalk=0.2,
        denoise=0.0,
        sharpen=0.0,
        sharpen_radius=1.0,
        contrast=0.0,
        quality=98,
        subsampling=0,
    )


def grey(level: float = 0.3, shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    return np.full((*shape, 3), level, np.float32)


@pytest.mark.parametrize("phase", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("malvar", [False, True])
def test_demosaicing_gives_back_a_smooth_picture(phase: tuple[int, int], malvar: bool) -> None:
    y, x = np.mgrid[0:40, 0:50].astype(np.float32)
    planes = np.stack([0.2 + 0.01 * x, 0.3 + 0.005 * y, 0.5 - 0.004 * x])
    raw = mosaic(planes, phase)
    assert raw[phase] == planes[0][phase]
    assert raw[1 - phase[0], 1 - phase[1]] == planes[2][1 - phase[0], 1 - phase[1]]
    out = demosaic(raw, phase, malvar=malvar)
    np.testing.assert_allclose(out[:, 3:-3, 3:-3], planes[:, 3:-3, 3:-3], atol=1e-5)


def test_exposure_and_white_balance_reach_their_aim(plain_camera: Camera) -> None:
    rgb = plain_camera.photograph(grey(), np.random.default_rng(0))
    # 0.25 of linear light is 137 of 255 in sRGB.
    assert abs(float(rgb.mean()) - 137) < 2
    warm = replace(plain_camera, warmth=1.0).photograph(grey(), np.random.default_rng(0))
    assert np.ptp(warm.reshape(-1, 3).mean(0)) < 3  # fully balanced
    off = replace(plain_camera, balance=(0.2, 0.0)).photograph(grey(), np.random.default_rng(0))
    assert off[..., 0].mean() > off[..., 1].mean() + 8


def test_noise_grows_with_light_and_iso_and_is_drawn_by_the_generator(plain_camera: Camera) -> None:
    noisy = replace(plain_camera, shot=1e-3)
    first = noisy.photograph(grey(), np.random.default_rng(0))
    np.testing.assert_array_equal(first, noisy.photograph(grey(), np.random.default_rng(0)))
    assert (first != noisy.photograph(grey(), np.random.default_rng(1))).any()
    calm = plain_camera.photograph(grey(), np.random.default_rng(0))
    assert first.std() > 3 * calm.std()


def test_the_mosaic_leaves_correlated_noise(plain_camera: Camera) -> None:
    """Demosaicing interpolates, so neighbouring pixels share noise; white noise would not."""
    photo = replace(plain_camera, shot=2e-3, malvar=False).photograph(
        grey(shape=(128, 128)), np.random.default_rng(0)
    )
    red = photo[..., 0].astype(float) - photo[..., 0].mean()
    neighbours = (red[:, 1:] * red[:, :-1]).mean() / (red**2).mean()
    assert neighbours > 0.2


def test_vignetting_blur_and_sharpening(plain_camera: Camera) -> None:
    dark = replace(plain_camera, vignette=0.4).photograph(grey(), np.random.default_rng(0))
    assert dark[32, 40].mean() > dark[0, 0].mean() + 15
    edge = grey()
    edge[:, 40:] = 0.1
    contrast = {
        name: int(
            np.abs(
                np.diff(camera.photograph(edge, np.random.default_rng(0))[32, :, 1].astype(int))
            ).max()
        )
        for name, camera in {
            "plain": plain_camera,
            "blurred": replace(plain_camera, blur=2.0),
            "sharpened": replace(plain_camera, blur=2.0, sharpen=1.0),
        }.items()
    }
    assert contrast["blurred"] < contrast["sharpened"] < contrast["plain"]


def test_random_cameras_differ_and_are_reproducible() -> None:
    cameras = [random_camera(np.random.default_rng(seed)) for seed in range(20)]
    assert cameras[3] == random_camera(np.random.default_rng(3))
    assert len({camera.shot for camera in cameras}) == 20
    assert {camera.subsampling for camera in cameras} == {0, 2}
    assert all(90 <= camera.quality <= 98 for camera in cameras)


@pytest.mark.parametrize("shape", [(33, 47), (64, 300)])
def test_odd_sizes(shape: tuple[int, int]) -> None:
    rgb = random_camera(np.random.default_rng(0)).photograph(
        grey(shape=shape), np.random.default_rng(0)
    )
    assert rgb.shape == (*shape, 3)
    assert rgb.dtype == np.uint8
