from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import SynthesisError
from realdamage.synthesis.fields import to_bytes, to_linear
from realdamage.synthesis.paint import Paint, find_object


def photo(height: int = 200, width: int = 260, seed: int = 0) -> np.ndarray:
    """A red box on a grey table with a little noise, uint8."""
    image = Image.new("RGB", (width, height), (190, 188, 185))
    box = (width * 0.3, height * 0.25, width * 0.7, height * 0.8)
    ImageDraw.Draw(image).rectangle(box, fill=(180, 40, 35))
    noise = np.random.default_rng(seed).normal(0, 3, (height, width, 3))
    return (np.asarray(image) + noise).clip(0, 255).astype(np.uint8)


def test_linear_light_and_back_is_exact_for_every_byte() -> None:
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_bytes(to_linear(every)), every)


@pytest.mark.parametrize("damage", DAMAGES)
def test_paint_changes_the_mask_and_nothing_else(damage: str) -> None:
    rgb = photo()
    edit = Paint().apply(rgb, np.random.default_rng(2), damage)
    assert edit.damage == damage
    assert edit.rgb.dtype == np.uint8
    assert edit.rgb.shape == rgb.shape
    assert edit.mask.dtype == np.bool_
    np.testing.assert_array_equal(edit.rgb[~edit.mask], rgb[~edit.mask])  # tolerance: none
    changed = (edit.rgb != rgb).any(-1)
    assert changed.mean() > 0.002
    assert changed[edit.mask].mean() > 0.5


def test_paint_is_deterministic() -> None:
    rgb = photo()
    for seed in range(4):
        first = Paint().apply(rgb, np.random.default_rng(seed))
        again = Paint().apply(rgb, np.random.default_rng(seed))
        np.testing.assert_array_equal(first.rgb, again.rgb)
        np.testing.assert_array_equal(first.mask, again.mask)
        assert first.damage == again.damage


def test_all_types_are_drawn_equally_unless_told_otherwise() -> None:
    rgb = photo(64, 64)
    counts = dict.fromkeys(DAMAGES, 0)
    for seed in range(200):
        counts[Paint().apply(rgb, np.random.default_rng(seed)).damage] += 1
    # Binomial(200, 0.1): mean 20, standard deviation 4.2.
    assert min(counts.values()) >= 6
    assert max(counts.values()) <= 38
    only = {
        Paint(("torn", "holed")).apply(rgb, np.random.default_rng(seed)).damage
        for seed in range(20)
    }
    assert only == {"torn", "holed"}


def test_paint_finds_the_product_before_a_plain_background() -> None:
    rgb = photo()
    likely, region = find_object(rgb)
    assert region is not None
    truth = np.zeros(rgb.shape[:2], bool)
    truth[50:160, 78:182] = True
    assert (region & truth).sum() / (region | truth).sum() > 0.9
    assert likely[truth].mean() > 3 * likely[~truth].mean()
    inside = [
        Paint().apply(rgb, np.random.default_rng(seed)).mask[region].sum() for seed in range(10)
    ]
    assert min(inside) > 0


def test_without_a_plain_background_there_is_no_outline() -> None:
    busy = np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    busy = np.asarray(Image.fromarray(busy).resize((160, 120), Image.Resampling.BOX))
    blocks = np.kron(
        np.random.default_rng(1).integers(0, 256, (6, 8, 3)), np.ones((20, 20, 1))
    ).astype(np.uint8)
    assert find_object(blocks)[1] is None
    assert find_object(busy)[0].shape == (120, 160)


def test_paint_keeps_to_a_region() -> None:
    rgb = photo()
    region = np.zeros(rgb.shape[:2], bool)
    region[20:90, 20:120] = True
    for damage in DAMAGES:
        edit = Paint().apply(rgb, np.random.default_rng(0), damage, region)
        assert not edit.mask[~region].any()


@pytest.mark.parametrize("shape", [(64, 64), (48, 900), (900, 48)])
def test_tiny_and_long_photos(shape: tuple[int, int]) -> None:
    rgb = photo(*shape)
    for seed in range(5):
        edit = Paint().apply(rgb, np.random.default_rng(seed))
        assert edit.rgb.shape == rgb.shape
        assert edit.mask.any()


def test_black_and_white_photos_can_be_painted() -> None:
    for level in (0, 255):
        rgb = np.full((96, 96, 3), level, np.uint8)
        for damage in DAMAGES:
            edit = Paint().apply(rgb, np.random.default_rng(0), damage)
            np.testing.assert_array_equal(edit.rgb[~edit.mask], rgb[~edit.mask])


def test_wrong_damages_stop_early() -> None:
    with pytest.raises(SynthesisError, match='Did you mean "scratched"'):
        Paint(("cracked", "scratchd"))
    with pytest.raises(SynthesisError, match="damages is empty"):
        Paint(())
    with pytest.raises(SynthesisError, match='"dent"'):
        Paint().apply(photo(), np.random.default_rng(0), "dent")
