"""Fine detail falls with blur; the JPEG quality is that of the file; the gate's limits."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from realdamage.core.quality import Gate, PhotoQuality, file_jpeg_quality, measure_quality
from realdamage.core.tiles import PixelSpec, read_photo
from realdamage.errors import ConfigError

RGB = np.ndarray


@pytest.fixture
def photo(photo_factory):
    return photo_factory(300, 400, 0)


def jpeg(rgb, quality):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def saved(rgb, quality):
    return np.asarray(Image.open(io.BytesIO(jpeg(rgb, quality))))


def test_the_compression_is_that_of_the_files_own_tables(photo):
    twice = jpeg(saved(photo, 40), 95)
    assert file_jpeg_quality(twice) == 95
    assert read_photo(twice, PixelSpec()).quality.compression == 95
    assert measure_quality(saved(photo, 40)).compression == 100


def test_fine_detail_falls_with_blur_and_with_a_smaller_size_in_between(photo):
    image = Image.fromarray(photo)
    blurred = [image.filter(ImageFilter.GaussianBlur(sigma)) for sigma in (0, 0.7, 1)]
    halved = image.resize((image.width // 2, image.height // 2)).resize(image.size)
    found = [
        # Saved once more, as a photo is that was changed.
        measure_quality(saved(np.asarray(one), 92)).fine_detail or 0
        for one in (*blurred, halved)
    ]
    assert found[0] > 1.5 * found[1] > 1.5 * 1.5 * found[2]
    assert found[3] < found[0] / 2.5


def test_a_flat_photo_has_no_detail_and_white_noise_as_much_as_can_be():
    flat = measure_quality(np.full((33, 32, 3), 255, np.uint8))
    assert flat == PhotoQuality(32, 100.0, 0.0)
    noise = np.random.default_rng(0).normal(90, 10, (200, 260, 3))
    found = measure_quality(np.clip(np.rint(noise), 0, 255).astype(np.uint8))
    assert found.fine_detail == pytest.approx(1, abs=0.05)


QUALITY = PhotoQuality(short_side=300, compression=40.0, fine_detail=0.03)


@pytest.mark.parametrize(
    ("gate", "quality", "expected"),
    [
        (Gate(), QUALITY, []),
        (Gate(min_side=300, min_quality=40.0, min_fine_detail=0.03), QUALITY, []),
        (
            Gate(min_side=301, min_fine_detail=0.031, min_quality=41),
            QUALITY,
            ["too_small", "too_soft", "too_compressed"],
        ),
        (
            Gate(min_fine_detail=0.05),
            PhotoQuality(300, 40.0),
            [],
        ),  # what was not measured is no fault
    ],
)
def test_a_photo_at_a_limit_passes_and_one_below_it_does_not(gate, quality, expected):
    assert [fault.template for fault in gate.faults(quality)] == expected


@pytest.mark.parametrize(("key", "value"), [("min_side", 0), ("min_fine_detail", float("nan"))])
def test_limits_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError, match=f"{key}={value}"):
        Gate(**{key: value})
