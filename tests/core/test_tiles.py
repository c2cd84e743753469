"""Tiles cover the whole photo at native resolution; evidence and scores are the same everywhere."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from realdamage.core.pooling import Pooling, log_mean_exp, pool
from realdamage.core.tiles import PixelSpec, assemble, cover, limit_side, pad_to_patches, read_photo
from realdamage.errors import ConfigError

sides = st.integers(32, 260)


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@st.composite
def specs(draw):
    patch = draw(st.sampled_from([8, 14, 16]))
    side = draw(st.integers(1, 6))
    return PixelSpec(tile=side * patch, patch=patch, overlap=draw(st.integers(0, side - 1)) * patch)


@given(specs(), sides, sides)
@settings(max_examples=30, deadline=None)
def test_tiles_cover_the_photo_and_evidence_fits(spec, height, width):
    rgb = noise(height, width)
    tiles = cover(rgb, spec)
    rebuilt = np.full((tiles.grid[0] * spec.patch, tiles.grid[1] * spec.patch, 3), -1)
    for tile, (y, x) in zip(tiles.tiles, tiles.origins, strict=True):
        rebuilt[y : y + spec.tile, x : x + spec.tile] = tile
    assert np.array_equal(rebuilt, pad_to_patches(rgb, spec))
    assert np.array_equal(rebuilt[:height, :width], rgb)
    assert not (tiles.origins % spec.patch).any()
    assert len(np.unique(tiles.origins, axis=0)) == len(tiles.origins)
    truth = np.random.default_rng(1).normal(size=tiles.grid).astype(np.float32)
    side = spec.tile // spec.patch
    seen = np.stack([truth[y : y + side, x : x + side] for y, x in tiles.origins // spec.patch])
    assembled = assemble(seen, tiles, spec)
    assert assembled.dtype == np.float32
    assert np.allclose(assembled, truth, atol=1e-6)


def test_padding_mirrors_the_photo():
    rgb = noise(40, 100)
    padded = pad_to_patches(rgb, PixelSpec(tile=64, patch=16, overlap=16))
    assert padded.shape == (64, 112, 3)
    assert np.array_equal(padded[40:64, :100], rgb[38:14:-1])
    assert np.array_equal(padded[:40, 100:112], rgb[:, 98:86:-1])


@pytest.mark.parametrize(
    ("name", "size"),
    [("bilinear", (1000, 611, 519)), ("lanczos", (300, 901, 899)), ("box", (33, 1400, 64))],
)
def test_a_longer_photo_is_resized_to_pillows_own_pixels(name, size):
    height, width, max_side = size
    rgb = noise(height, width)
    limited = limit_side(rgb, PixelSpec(tile=32, overlap=16, max_side=max_side, filter=name))
    shape = (limited.shape[1], limited.shape[0])
    assert max(shape) == max_side
    expected = Image.fromarray(rgb).resize(shape, Image.Resampling[name.upper()])
    assert np.array_equal(limited, np.asarray(expected))
    assert limit_side(rgb, PixelSpec(max_side=1400)) is rgb


def test_read_photo_keeps_the_upright_size_and_digests_the_bytes(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.png"
    Image.fromarray(noise(200, 400)).save(path, exif=exif)
    photo = read_photo(path, PixelSpec(max_side=128))
    assert (photo.width, photo.height) == (200, 400)
    assert photo.rgb.shape == (128, 64, 3)
    assert photo.full.shape == (400, 200, 3)
    assert photo.scale == pytest.approx(0.32)
    assert photo.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    # Arrays of other shapes with the same bytes have other digests.
    rgb = np.zeros((64, 128, 3), np.uint8)
    wide, high = read_photo(rgb, PixelSpec()), read_photo(rgb.reshape(128, 64, 3), PixelSpec())
    assert wide.sha256 != high.sha256
    assert wide.sha256 == read_photo(Image.fromarray(rgb), PixelSpec()).sha256


def test_the_score_is_one_formula_in_numpy_and_torch():
    logit, evidence = np.array([0.0, math.log(3)]), np.ones((2, 1, 2))
    assert log_mean_exp(logit, 1.0) == pytest.approx(math.log(2))
    assert log_mean_exp(np.array([1e4, 1e4 - 700.0]), 8.0) == pytest.approx(1e4 - math.log(2) / 8)
    pooling = Pooling(patch_weight=0.25, tile_sharpness=1.0, patch_sharpness=1.0)
    assert pool(logit, evidence, pooling) == pytest.approx(0.75 * math.log(2) + 0.25)
    torch = pytest.importorskip("torch")
    tiles = torch.tensor([0.5, 0.5, -3.0], requires_grad=True)  # a tie: amax splits its gradient
    patches = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pooling = Pooling(patch_weight=0.25, tile_sharpness=2.0)
    score = pool(tiles, patches, pooling, torch)
    in_numpy = pool(tiles.detach().numpy(), patches.detach().numpy(), pooling)
    assert float(score) == pytest.approx(float(in_numpy), abs=1e-6)
    # Gradients reach every tile and patch.
    score.backward()
    assert (tiles.grad > 0).all()
    assert (patches.grad > 0).all()
    assert float(tiles.grad.sum()) == pytest.approx(0.75, abs=1e-5)
    assert float(patches.grad.sum()) == pytest.approx(0.25, abs=1e-5)


@pytest.mark.parametrize(
    ("cls", "key", "value"),
    [
        (PixelSpec, "tile", 100),
        (PixelSpec, "tile", 0),
        (PixelSpec, "overlap", 128),
        (PixelSpec, "max_side", 64),
        (PixelSpec, "filter", "nearest"),
        (Pooling, "name", "max"),
        (Pooling, "tile_sharpness", 0.0),
    ],
)
def test_values_out_of_range_are_refused(cls, key, value):
    with pytest.raises(ConfigError, match=f"{key}={value!r}"):
        cls(**{key: value})
