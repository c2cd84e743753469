"""Degradations: within their bounds, the same for the same seed, and relative to the photo's
size."""

from __future__ import annotations

import numpy as np
import pytest

from realdamage.data.degradations import (
    Blur,
    Degradation,
    Degradations,
    Jpeg,
    Noise,
    Resize,
    Sharpen,
    Webp,
)
from realdamage.errors import ConfigError

ALWAYS = Degradations(
    probability=1.0,
    resize=1.0,
    scale=(0.5, 0.8),
    blur=1.0,
    blur_sigma=(0.4, 0.9),
    sharpen=1.0,
    sharpen_percent=(30, 60),
    noise=1.0,
    noise_sigma=(2.0, 3.0),
    jpeg=0.5,
    webp=0.5,
    quality=(60, 70),
    double=1.0,
)


def drawn(degradations: Degradations, count: int = 200, epoch: int = 0) -> list[Degradation]:
    rng = np.random.default_rng(0)
    return [degradations.draw(rng, epoch) for _ in range(count)]


def test_every_draw_lies_within_its_bounds_and_reaches_across_them() -> None:
    steps = [step for each in drawn(ALWAYS) for step in each.steps]
    scales = [step.scale for step in steps if isinstance(step, Resize)]
    sigmas = [step.sigma for step in steps if isinstance(step, Blur)]
    percents = [step.percent for step in steps if isinstance(step, Sharpen)]
    assert 30 <= min(percents) < 33 < 57 < max(percents) <= 60
    noises = [step.sigma for step in steps if isinstance(step, Noise)]
    qualities = [step.quality for step in steps if isinstance(step, Jpeg | Webp)]
    assert len(scales) == len(sigmas) == len(noises) == 200
    assert len(qualities) == 400  # the second compression of each
    assert 0.5 <= min(scales) < 0.52
    assert 0.78 < max(scales) <= 0.8
    assert 0.4 <= min(sigmas) < 0.42
    assert 0.88 < max(sigmas) <= 0.9
    assert 2.0 <= min(noises) < 2.05
    assert 2.95 < max(noises) <= 3.0
    assert set(qualities) == set(range(60, 71))
    assert {step.subsampling for step in steps if isinstance(step, Jpeg)} == {"4:2:0", "4:4:4"}
    assert {step.filter for step in steps if isinstance(step, Resize)} == {
        "bilinear",
        "bicubic",
        "lanczos",
        "box",
    }
    assert any(isinstance(step, Webp) for step in steps)


def test_half_of_the_second_jpegs_lie_on_another_grid() -> None:
    seconds = [each.steps[-1] for each in drawn(ALWAYS)]
    shifted = [step.shift for step in seconds if isinstance(step, Jpeg) and step.shift != (0, 0)]
    assert 70 < len(shifted) < 130
    assert {value for shift in shifted for value in shift} == set(range(8))


def test_the_grid_of_a_shifted_jpeg_starts_before_the_first_pixel(photo_factory) -> None:
    """Blocks of a hard JPEG meet where the neighbours differ most."""
    photo = photo_factory(96, 96, 0)
    for shift in ((0, 0), (3, 6)):
        saved = Jpeg(5, "4:4:4", shift)(photo).astype(int)
        assert saved.shape == photo.shape
        jumps = (
            np.abs(np.diff(saved, axis=0)).mean(axis=(1, 2)),
            np.abs(np.diff(saved, axis=1)).mean(axis=(0, 2)),
        )
        starts = [
            int(np.argmax([jump[(start - 1) % 8 :: 8].mean() for start in range(8)]))
            for jump in jumps
        ]
        assert starts == [-shift[0] % 8, -shift[1] % 8]


def test_probability_is_the_share_of_crops_that_are_degraded() -> None:
    assert all(each.steps == () for each in drawn(Degradations(probability=0.0)))
    share = np.mean(
        [
            each.steps != ()
            for each in drawn(Degradations(probability=0.5, jpeg=1.0, webp=0.0), 1000)
        ]
    )
    assert abs(share - 0.5) < 0.05  # three standard deviations


def test_the_curriculum_starts_clean_and_grows() -> None:
    growing = Degradations(
        probability=1.0, jpeg=1.0, webp=0.0, quality=(50, 95), curriculum_epochs=4
    )
    assert all(each.steps == () for each in drawn(growing, epoch=0))
    half = [each for each in drawn(growing, 1000, epoch=2) if each.steps]
    assert abs(len(half) / 1000 - 0.5) < 0.05
    qualities = [step.quality for each in half for step in each.steps if isinstance(step, Jpeg)]
    assert min(qualities) >= 72  # half of the way down from 95 to 50
    full = [
        step.quality
        for each in drawn(growing, epoch=4)
        for step in each.steps
        if isinstance(step, Jpeg)
    ]
    assert min(full) < 55


def test_noise_has_its_sigma_and_hits_both_halves_of_a_pair_alike() -> None:
    first, second = np.full((200, 200, 3), 100, np.uint8), np.full((200, 200, 3), 120, np.uint8)
    step = Noise(4.0, seed=9)
    assert step(first).std() == pytest.approx(4.0, abs=0.1)
    np.testing.assert_array_equal(step(first).astype(int) - 100, step(second).astype(int) - 120)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"probability": 1.5}, "data.degradations.probability=1.5"),
        ({"jpeg": 0.8, "webp": 0.9}, "data.degradations.jpeg=0.8"),
        ({"curriculum_epochs": -1}, "data.degradations.curriculum_epochs=-1"),
        ({"double": -0.1}, "data.degradations.double=-0.1"),
        ({"scale": (0.9, 0.5)}, "data.degradations.scale"),
        ({"quality": (0, 90)}, "data.degradations.quality"),
        ({"filters": ("bicubc",)}, "data.degradations.filters"),
        ({"filters": ()}, "data.degradations.filters"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match="^" + key.replace(".", r"\.")):
        Degradations(**settings)
