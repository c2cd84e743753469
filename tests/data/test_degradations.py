"""Degradations: within their bounds, the same for the same seed, and relative to the photo's
size."""

import numpy as np
import pytest

from realdamage.data.degradations import Blur, Degradations, Jpeg, Noise, Resize, Sharpen, Webp
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


def drawn(degradations, count=200, epoch=0):
    rng = np.random.default_rng(0)
    return [degradations.draw(rng, epoch) for _ in range(count)]


def test_every_draw_lies_within_its_bounds_and_reaches_across_them():
    steps = [step for each in drawn(ALWAYS) for step in each.steps]
    reach = {
        (Resize, "scale"): ALWAYS.scale,
        (Blur, "sigma"): ALWAYS.blur_sigma,
        (Sharpen, "percent"): ALWAYS.sharpen_percent,
        (Noise, "sigma"): ALWAYS.noise_sigma,
        (Jpeg | Webp, "quality"): ALWAYS.quality,
    }
    for (kind, name), (low, high) in reach.items():
        values = [getattr(step, name) for step in steps if isinstance(step, kind)]
        assert len(values) == (400 if name == "quality" else 200)  # two compressions
        assert low <= min(values) < low + 0.1 * (high - low), kind
        assert high - 0.1 * (high - low) < max(values) <= high, kind
    assert {step.subsampling for step in steps if isinstance(step, Jpeg)} == {"4:2:0", "4:4:4"}
    filters = {step.filter for step in steps if isinstance(step, Resize)}
    assert filters == {"bilinear", "bicubic", "lanczos", "box"}
    assert any(isinstance(step, Webp) for step in steps)
    # Half of the second JPEGs lie on another grid.
    seconds = [each.steps[-1] for each in drawn(ALWAYS)]
    shifted = [step.shift for step in seconds if isinstance(step, Jpeg) and step.shift != (0, 0)]
    assert 70 < len(shifted) < 130
    assert {value for shift in shifted for value in shift} == set(range(8))


def test_the_grid_of_a_shifted_jpeg_starts_before_the_first_pixel(photo_factory):
    """Blocks of a hard JPEG meet where the neighbours differ most."""
    photo = photo_factory(96, 96, 0)
    for shift in ((0, 0), (3, 6)):
        saved = Jpeg(5, "4:4:4", shift)(photo).astype(int)
        assert saved.shape == photo.shape
        for axis, moved in enumerate(shift):
            jumps = np.abs(np.diff(saved, axis=axis)).mean(axis=(1 - axis, 2))
            starts = [jumps[(start - 1) % 8 :: 8].mean() for start in range(8)]
            assert np.argmax(starts) == -moved % 8


def test_the_probability_is_a_share_of_the_crops_and_the_curriculum_starts_clean():
    share = drawn(Degradations(probability=0.5, jpeg=1.0, webp=0.0), 1000)
    assert abs(np.mean([each.steps != () for each in share]) - 0.5) < 0.05  # three deviations
    growing = Degradations(
        probability=1.0, jpeg=1.0, webp=0.0, quality=(50, 95), curriculum_epochs=4
    )

    def qualities(epoch):
        steps = [step for each in drawn(growing, 1000, epoch) for step in each.steps]
        return [step.quality for step in steps if isinstance(step, Jpeg)]

    half = qualities(2)
    assert qualities(0) == []
    assert 500 < len(half) < 700  # half of the draws, a fifth of them saved twice
    assert min(half) >= 72  # half of the way down from 95 to 50
    assert min(qualities(4)) < 55


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"probability": 1.5}, "data.degradations.probability=1.5"),
        ({"jpeg": 0.8, "webp": 0.9}, "data.degradations.jpeg=0.8"),
        ({"scale": (0.9, 0.5)}, "data.degradations.scale"),
        ({"quality": (0, 90)}, "data.degradations.quality"),
    ],
)
def test_a_wrong_setting_is_named(settings, key):
    with pytest.raises(ConfigError, match="^" + key.replace(".", r"\.")):
        Degradations(**settings)
