"""Fine detail falls with blur; the JPEG quality is that of the file; the gate's limits."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from realdamage.core.quality import Gate, PhotoQuality, file_jpeg_quality, measure_quality
from realdamage.core.tiles import PixelSpec, read_photo
from realdamage.errors import ConfigError

RGB = np.ndarray


def scene(width: int = 400, height: int = 300, seed: int = 0) -> RGB:
    """Things with edges in all directions, under sensor noise of 2 grey levels; drawn large, then
    made smaller."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (4 * width, 4 * height), (120, 110, 100))
    draw = ImageDraw.Draw(image)
    for _ in range(150):
        x, y, a, b = rng.random(4) * (4 * width, 4 * height, width, height)
        draw.ellipse(
            (x, y, x + a, y + b), fill=tuple(int(value) for value in rng.integers(20, 235, 3))
        )
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX), np.float64)
    return np.clip(np.rint(small + rng.normal(0, 2, small.shape)), 0, 255).astype(np.uint8)


def jpeg(rgb: RGB, quality: int, *, subsampling: int = 2) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


def saved(rgb: RGB, quality: int) -> RGB:
    return np.asarray(Image.open(io.BytesIO(jpeg(rgb, quality))))


def blurred(rgb: RGB, sigma: float) -> RGB:
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(sigma)))


def test_the_compression_is_that_of_the_files_own_tables() -> None:
    twice = jpeg(saved(scene(), 40), 95)
    assert file_jpeg_quality(twice) == 95
    assert read_photo(twice, PixelSpec()).quality.compression == 95
    assert measure_quality(saved(scene(), 40)).compression == 100


def detail(rgb: RGB) -> float:
    """Saved once more, as a photo is that was changed."""
    found = measure_quality(saved(rgb, 92)).fine_detail
    assert found is not None
    return found


def halved(rgb: RGB) -> RGB:
    """Half size and back."""
    image = Image.fromarray(rgb)
    return np.asarray(image.resize((image.width // 2, image.height // 2)).resize(image.size))


@pytest.mark.parametrize("seed", range(2))
def test_fine_detail_falls_with_blur_and_with_a_smaller_size_in_between(seed: int) -> None:
    photo = scene(seed=seed)
    found = [detail(blurred(photo, sigma)) for sigma in (0, 0.7, 1)]
    assert found[0] > 1.5 * found[1] > 1.5 * 1.5 * found[2]
    assert detail(halved(photo)) < found[0] / 2.5


def test_a_flat_photo_has_no_detail_and_white_noise_as_much_as_can_be() -> None:
    flat = measure_quality(np.full((33, 32, 3), 255, np.uint8))
    assert flat == PhotoQuality(32, 100.0, 0.0)
    noise = np.random.default_rng(0).normal(90, 10, (200, 260, 3))
    found = measure_quality(np.clip(np.rint(noise), 0, 255).astype(np.uint8))
    assert found.fine_detail == pytest.approx(1, abs=0.05)


QUALITY = PhotoQuality(short_side=300, compression=40.0, fine_detail=0.03)


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        (Gate(), []),
        (Gate(min_side=300, min_quality=40.0, min_fine_detail=0.03), []),
        (
            Gate(min_side=301, min_fine_detail=0.031, min_quality=41),
            ["too_small", "too_soft", "too_compressed"],
        ),
    ],
)
def test_a_photo_at_a_limit_passes_and_one_below_it_does_not(
    gate: Gate, expected: list[str]
) -> None:
    assert [fault.template for fault in gate.faults(QUALITY)] == expected


@pytest.mark.parametrize("values", [{"min_side": 0}, {"min_fine_detail": float("nan")}])
def test_limits_out_of_range_are_refused(values: dict[str, float]) -> None:
    ((key, value),) = values.items()
    with pytest.raises(ConfigError, match=f"{key}={value}"):
        Gate(**values)


def test_what_was_not_measured_is_no_fault() -> None:
    assert Gate(min_fine_detail=0.05).faults(PhotoQuality(300, 40.0)) == []
