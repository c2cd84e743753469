"""Tiles cover the whole photo at native resolution, and evidence finds its way back to where it was seen."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from realdamage.core.tiles import PixelSpec, assemble, cover, limit_side, pad_to_patches, read_photo
from realdamage.errors import ConfigError, ModelFileError, PhotoError


@st.composite
def specs(draw: st.DrawFn) -> PixelSpec:
    patch = draw(st.sampled_from([8, 14, 16]))
    side = draw(st.integers(1, 6))
    return PixelSpec(tile=side * patch, patch=patch, overlap=draw(st.integers(0, side - 1)) * patch)


sides = st.integers(32, 260)


@given(specs(), sides, sides)
@settings(max_examples=60, deadline=None)
def test_the_cover_skips_no_pixel_and_changes_none(
    spec: PixelSpec, height: int, width: int
) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    tiles = cover(rgb, spec)
    rebuilt = np.full((tiles.grid[0] * spec.patch, tiles.grid[1] * spec.patch, 3), -1)
    for tile, (y, x) in zip(tiles.tiles, tiles.origins, strict=True):
        rebuilt[y : y + spec.tile, x : x + spec.tile] = tile
    assert np.array_equal(rebuilt, pad_to_patches(rgb, spec))
    assert np.array_equal(rebuilt[:height, :width], rgb)
    assert not (tiles.origins % spec.patch).any()
    assert len(np.unique(tiles.origins, axis=0)) == len(tiles.origins)


@given(specs(), sides, sides, st.floats(-50, 50, width=32))
@settings(max_examples=60, deadline=None)
def test_constant_evidence_assembles_to_that_constant(
    spec: PixelSpec, height: int, width: int, constant: float
) -> None:
    tiles = cover(np.zeros((height, width, 3), np.uint8), spec)
    side = spec.tile // spec.patch
    assembled = assemble(np.full((len(tiles.tiles), side, side), constant, np.float32), tiles, spec)
    assert assembled.shape == tiles.grid
    assert assembled.dtype == np.float32
    assert (assembled == np.float32(constant)).all()


@given(specs(), sides, sides)
@settings(max_examples=30, deadline=None)
def test_evidence_goes_back_to_where_it_was_seen(spec: PixelSpec, height: int, width: int) -> None:
    tiles = cover(np.zeros((height, width, 3), np.uint8), spec)
    truth = np.random.default_rng(1).normal(size=tiles.grid).astype(np.float32)
    side = spec.tile // spec.patch
    seen = np.stack([truth[y : y + side, x : x + side] for y, x in tiles.origins // spec.patch])
    assert np.allclose(assemble(seen, tiles, spec), truth, atol=1e-6)


def test_overlapping_evidence_is_averaged() -> None:
    spec = PixelSpec(tile=32, patch=16, overlap=16)
    tiles = cover(np.zeros((32, 48, 3), np.uint8), spec)
    evidence = np.array([np.zeros((2, 2)), np.ones((2, 2))], np.float32)
    assert assemble(evidence, tiles, spec).tolist() == [[0, 0.5, 1]] * 2


def test_evidence_of_another_shape_is_refused() -> None:
    spec = PixelSpec(tile=32, patch=16, overlap=16)
    tiles = cover(np.zeros((32, 48, 3), np.uint8), spec)
    with pytest.raises(
        ValueError, match=r"evidence has shape \(2, 4, 4\), the cover needs \(2, 2, 2\)"
    ):
        assemble(np.zeros((2, 4, 4), np.float32), tiles, spec)


def test_padding_mirrors_the_photo() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (40, 100, 3), dtype=np.uint8)
    padded = pad_to_patches(rgb, PixelSpec(tile=64, patch=16, overlap=16))
    assert padded.shape == (64, 112, 3)
    assert np.array_equal(padded[40:64, :100], rgb[38:14:-1])
    assert np.array_equal(padded[:40, 100:112], rgb[:, 98:86:-1])


def test_a_photo_that_fits_is_never_resized() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (48, 128, 3), dtype=np.uint8)
    assert limit_side(rgb, PixelSpec(max_side=128)) is rgb


def test_a_longer_photo_is_resized_with_the_named_filter() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (50, 300, 3), dtype=np.uint8)
    limited = limit_side(rgb, PixelSpec(max_side=150, filter="bicubic"))
    assert np.array_equal(
        limited, np.asarray(Image.fromarray(rgb).resize((150, 25), Image.Resampling.BICUBIC))
    )
    assert not np.array_equal(limited, limit_side(rgb, PixelSpec(max_side=150, filter="lanczos")))


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos", "box", "hamming"])
@pytest.mark.parametrize(
    ("height", "width", "max_side"), [(1000, 611, 519), (300, 901, 899), (33, 1400, 64)]
)
def test_resizing_in_stripes_gives_pillows_own_pixels(
    name: str, height: int, width: int, max_side: int
) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    limited = limit_side(rgb, PixelSpec(tile=32, overlap=16, max_side=max_side, filter=name))
    size = (limited.shape[1], limited.shape[0])
    assert max(size) == max_side
    assert np.array_equal(
        limited, np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling[name.upper()]))
    )


def test_read_photo_keeps_the_upright_size_and_digests_the_bytes(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (200, 400, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.png"
    Image.fromarray(rgb).save(path, exif=exif)
    photo = read_photo(path, PixelSpec(max_side=128))
    assert (photo.width, photo.height) == (200, 400)
    assert photo.rgb.shape == (128, 64, 3)
    assert photo.scale == pytest.approx(0.32)
    assert photo.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_arrays_of_other_shapes_with_the_same_bytes_have_other_digests() -> None:
    rgb = np.zeros((64, 128, 3), np.uint8)
    wide, high = read_photo(rgb, PixelSpec()), read_photo(rgb.reshape(128, 64, 3), PixelSpec())
    assert wide.sha256 != high.sha256
    assert wide.sha256 == read_photo(Image.fromarray(rgb), PixelSpec()).sha256


def test_errors_call_the_photo_by_the_given_name() -> None:
    with pytest.raises(PhotoError, match=r"^claim 7/photo 2: the file is empty"):
        read_photo(b"", PixelSpec(), name="claim 7/photo 2")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tile": 100}, "tile=100 is not a positive multiple of patch=16"),
        ({"tile": 0}, "tile=0 is not"),
        ({"patch": 0}, "patch=0"),
        ({"overlap": 8}, "overlap=8 is not a multiple of patch=16"),
        ({"overlap": 128}, "overlap=128"),
        ({"overlap": -16}, "overlap=-16"),
        ({"max_side": 64}, "max_side=64 is below tile=128"),
        ({"filter": "nearest"}, "filter='nearest' is unknown; take one of bilinear"),
    ],
)
def test_a_spec_that_does_not_fit_together_is_refused(
    values: dict[str, int | str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        PixelSpec(**values)  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match=f"pixel_spec: .*{message}"):
        PixelSpec.from_dict(PixelSpec().to_dict() | values)


def test_a_spec_survives_the_round_trip() -> None:
    spec = PixelSpec(tile=224, patch=14, overlap=56, max_side=4096, filter="box")
    assert PixelSpec.from_dict(spec.to_dict()) == spec
