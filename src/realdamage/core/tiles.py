"""The one way from a photo's bytes to the tiles that a network sees, in training and serving alike.

All of it is uint8 RGB; the network normalises.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realdamage.core.decode import (
    MAX_PIXELS,
    Float32Array,
    PhotoSource,
    UInt8Array,
    contents_of,
    decode_contents,
    name_of,
)
from realdamage.core.quality import PhotoQuality, file_jpeg_quality, measure_quality
from realdamage.core.records import Record, require
from realdamage.core.spans import span

_FILTERS = ("bilinear", "bicubic", "lanczos", "box", "hamming")
_STRIPE = 256


@dataclass(frozen=True)
class PixelSpec(Record):
    """How a photo becomes tiles. All sides are in pixels.

    tile: side of a tile, a multiple of `patch`.
    patch: side of the square that one evidence value covers.
    overlap: how far neighbouring tiles overlap, a multiple of `patch` below `tile`.
    max_side: photos with a longer side are resized to it, others are never resized.
    filter: the resampling filter of that resize: bilinear, bicubic, lanczos, box or hamming.

    Raises ConfigError when the values do not fit together.
    """

    tile: int = 128
    patch: int = 16
    overlap: int = 32
    max_side: int = 2048
    filter: str = "lanczos"

    def __post_init__(self) -> None:
        patch = self.patch
        require(patch >= 1, f"PixelSpec: patch={patch} must be at least 1 pixel")
        for key, least, most in (("tile", patch, self.max_side), ("overlap", 0, self.tile - patch)):
            value = getattr(self, key)
            require(
                least <= value <= most and value % patch == 0,
                f"PixelSpec: {key}={value} must be a multiple of patch={patch} in {least}..{most} "
                f"(max_side={self.max_side})",
            )
        require(
            self.filter in _FILTERS,
            f"PixelSpec: filter={self.filter!r} is unknown; use one of {', '.join(_FILTERS)}",
        )


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    rgb: uint8 [h, w, 3], upright, sRGB, its longer side at most `max_side` of the spec.
    width, height: of the upright photo before that limit.
    scale: side of `rgb` / side of the upright photo, in 0..1.
    sha256: hex digest of the file's bytes; of shape and RGB for an array or a PIL image.
    upright: uint8 [height, width, 3], before that limit; None when `rgb` is.
    file_quality: quality by the JPEG file's own tables (`file_jpeg_quality`), None for other files.
    path: of the file, when the photo was given by its path.
    """

    rgb: UInt8Array
    width: int
    height: int
    scale: float
    sha256: str
    upright: UInt8Array | None = None
    file_quality: float | None = None
    path: Path | None = None

    @property
    def full(self) -> UInt8Array:
        """uint8 [height, width, 3], as decoded, before the limit."""
        return self.rgb if self.upright is None else self.upright

    @cached_property
    def quality(self) -> PhotoQuality:
        """How much fine detail the photo has, before the limit. Measured on first use."""
        return measure_quality(self.full, self.file_quality)


@dataclass(frozen=True)
class Cover:
    """All tiles of a photo; no area is skipped.

    tiles: uint8 [n, tile, tile, 3]. origins: int [n, 2], (y, x) of each in the padded photo.
    grid: (rows, cols) of patches in the padded photo.
    """

    tiles: UInt8Array
    origins: NDArray[np.int64]
    grid: tuple[int, int]


def read_photo(
    source: PhotoSource, spec: PixelSpec, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Photo:
    """Decode a photo and limit its longer side to `spec.max_side`; errors call it `name`."""
    with span("decode"):
        contents = contents_of(source)
        rgb = decode_contents(contents, name or name_of(source), max_pixels)
        if isinstance(contents, bytes):
            sha256 = hashlib.sha256(contents)
        else:
            sha256 = hashlib.sha256(repr(rgb.shape).encode())
            sha256.update(np.ascontiguousarray(rgb).data)
        photo = limited_photo(rgb, spec, sha256.hexdigest(), file_jpeg_quality(contents))
    return replace(photo, path=Path(source)) if isinstance(source, str | Path) else photo


def limited_photo(
    rgb: UInt8Array, spec: PixelSpec, sha256: str, file_quality: float | None = None
) -> Photo:
    """The photo of decoded pixels, uint8 [h, w, 3], limited to `spec.max_side`."""
    height, width = rgb.shape[:2]
    limited = limit_side(rgb, spec)
    scale = max(limited.shape[:2]) / max(height, width)
    upright = None if limited is rgb else rgb
    return Photo(limited, width, height, scale, sha256, upright, file_quality)


def limit_side(rgb: UInt8Array, spec: PixelSpec) -> UInt8Array:
    """Resize uint8 [h, w, 3] to a longer side of `spec.max_side`, or return it if it is smaller."""
    height, width = rgb.shape[:2]
    scale = spec.max_side / max(height, width)
    if scale >= 1:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return _resize(rgb, size, Image.Resampling[spec.filter.upper()])


def _resize(rgb: UInt8Array, size: tuple[int, int], resampling: Image.Resampling) -> UInt8Array:
    """Pillow's resize to (width, height): rows, then columns, as Pillow does it, but in stripes, so
    that a large photo is not copied whole into Pillow's own format."""
    width, height = size
    wide = np.empty((len(rgb), width, 3), dtype=np.uint8)
    for top in range(0, len(rgb), _STRIPE):
        rows = Image.fromarray(rgb[top : top + _STRIPE])
        wide[top : top + _STRIPE] = np.asarray(rows.resize((width, rows.height), resampling))
    resized = np.empty((height, width, 3), dtype=np.uint8)
    for left in range(0, width, _STRIPE):
        columns = Image.fromarray(np.ascontiguousarray(wide[:, left : left + _STRIPE]))
        small = columns.resize((columns.width, height), resampling)
        resized[:, left : left + _STRIPE] = np.asarray(small)
    return resized


def pad_to_patches(rgb: UInt8Array, spec: PixelSpec) -> UInt8Array:
    """Reflect-pad uint8 [h, w, 3] on the right and bottom to whole patches, at least one tile."""
    pads = [max(spec.tile, -(-side // spec.patch) * spec.patch) - side for side in rgb.shape[:2]]
    if pads == [0, 0]:
        return rgb
    return np.pad(rgb, ((0, pads[0]), (0, pads[1]), (0, 0)), mode="reflect")


def cover(rgb: UInt8Array, spec: PixelSpec) -> Cover:
    """Cut uint8 [h, w, 3] into overlapping tiles; the last row and column end at the edge."""
    padded = pad_to_patches(rgb, spec)
    height, width = padded.shape[:2]
    origins = [(y, x) for y in _starts(height, spec) for x in _starts(width, spec)]
    tiles = np.stack([padded[y : y + spec.tile, x : x + spec.tile] for y, x in origins])
    grid = (height // spec.patch, width // spec.patch)
    return Cover(tiles, np.array(origins, dtype=np.int64), grid)


def assemble(evidence: Float32Array, cover: Cover, spec: PixelSpec) -> Float32Array:
    """Lay the tiles' evidence float32 [n, h, w] over the photo: float32 [rows, cols], averaged."""
    side = spec.tile // spec.patch
    total = np.zeros(cover.grid, dtype=np.float64)
    count = np.zeros(cover.grid, dtype=np.int64)
    for values, (row, col) in zip(evidence, cover.origins // spec.patch, strict=True):
        total[row : row + side, col : col + side] += values
        count[row : row + side, col : col + side] += 1
    return (total / count).astype(np.float32)


def _starts(length: int, spec: PixelSpec) -> list[int]:
    return [*range(0, length - spec.tile, spec.tile - spec.overlap), length - spec.tile]
