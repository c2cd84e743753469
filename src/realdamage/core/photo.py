"""The pixel contract: the one way from a photo's bytes to the tiles a network sees.

Training, evaluation and serving all import it, because a detector of faint traces is only as good as the agreement
between the pixels it was trained on and the pixels it is given. Everything here works on uint8 RGB; normalisation is
part of the network.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realdamage.core.decoding import (
    MAX_PIXELS,
    MIN_SIDE,
    PHOTO_SUFFIXES,
    Float32Array,
    PhotoSource,
    UInt8Array,
    contents_of,
    decode,
    decode_contents,
    name_of,
)
from realdamage.core.quality import PhotoQuality, file_jpeg_quality, measure_quality
from realdamage.core.records import record_from_dict
from realdamage.errors import ConfigError

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE",
    "PHOTO_SUFFIXES",
    "Cover",
    "Photo",
    "PixelSpec",
    "assemble",
    "cover",
    "decode",
    "limit_side",
    "pad_to_patches",
    "read_photo",
]

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


_STRIPE = 256


@dataclass(frozen=True)
class PixelSpec:
    """How a photo becomes tiles. All sides are in pixels.

    tile: side of a tile, a multiple of `patch`.
    patch: side of the square that one evidence value stands for.
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
        if self.patch < 1:
            raise ConfigError(f"PixelSpec: patch={self.patch}, but a patch is at least 1 pixel")
        if self.tile < 1 or self.tile % self.patch:
            raise ConfigError(
                f"PixelSpec: tile={self.tile} is not a positive multiple of patch={self.patch}"
            )
        if not 0 <= self.overlap < self.tile or self.overlap % self.patch:
            raise ConfigError(
                f"PixelSpec: overlap={self.overlap} is not a multiple of patch={self.patch} in 0..tile={self.tile}, "
                "the tile excluded"
            )
        if self.max_side < self.tile:
            raise ConfigError(
                f"PixelSpec: max_side={self.max_side} is below tile={self.tile}; raise it"
            )
        if self.filter not in _FILTERS:
            raise ConfigError(
                f"PixelSpec: filter={self.filter!r} is unknown; take one of {', '.join(_FILTERS)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> PixelSpec:
        """Read what `to_dict` wrote. Raises ModelFileError on a missing, unknown or wrong value."""
        return record_from_dict(cls, values, "pixel_spec")


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    rgb: uint8 [h, w, 3], upright, sRGB, its longer side at most `max_side` of the spec.
    width, height: of the upright photo before that limit.
    scale: side of `rgb` / side of the upright photo, in 0..1.
    sha256: hex digest of the file's bytes; of shape and RGB when the photo came as an array or a PIL image.
    upright: uint8 [height, width, 3], before that limit; None when `rgb` is.
    file_quality: what its JPEG file's own tables say (`file_jpeg_quality`), None without such a file.
    """

    rgb: UInt8Array
    width: int
    height: int
    scale: float
    sha256: str
    upright: UInt8Array | None = None
    file_quality: float | None = None

    @cached_property
    def quality(self) -> PhotoQuality:
        """How much fine detail is left, before the limit; measured when first asked for: training does without."""
        return measure_quality(
            self.rgb if self.upright is None else self.upright, self.file_quality
        )


@dataclass(frozen=True)
class Cover:
    """All tiles of a photo, none of its area skipped.

    tiles: uint8 [n, tile, tile, 3]. origins: int [n, 2], (y, x) of each tile in the padded photo, multiples of `patch`.
    grid: (rows, cols) of patches in the padded photo.
    """

    tiles: UInt8Array
    origins: NDArray[np.int64]
    grid: tuple[int, int]


def read_photo(
    source: PhotoSource, spec: PixelSpec, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Photo:
    """Decode a photo (see `decode`) and limit its longer side to `spec.max_side`; `name` is what errors call it."""
    contents = contents_of(source)
    rgb = decode_contents(contents, name or name_of(source), max_pixels)
    height, width = rgb.shape[:2]
    sha256 = (
        hashlib.sha256(contents)
        if isinstance(contents, bytes)
        else hashlib.sha256(repr(rgb.shape).encode())
    )
    if not isinstance(contents, bytes):
        sha256.update(np.ascontiguousarray(rgb).data)
    limited = limit_side(rgb, spec)
    scale = max(limited.shape[:2]) / max(height, width)
    upright = None if limited is rgb else rgb
    return Photo(
        limited, width, height, scale, sha256.hexdigest(), upright, file_jpeg_quality(contents)
    )


def limit_side(rgb: UInt8Array, spec: PixelSpec) -> UInt8Array:
    """Resize uint8 [h, w, 3] so that its longer side is `spec.max_side`; return it untouched when it is not longer."""
    height, width = rgb.shape[:2]
    scale = spec.max_side / max(height, width)
    if scale >= 1:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return _resize(rgb, size, _FILTERS[spec.filter])


def _resize(rgb: UInt8Array, size: tuple[int, int], resampling: Image.Resampling) -> UInt8Array:
    """Pillow's resize to (width, height), to the same pixels: it too resamples along the rows first, then along the
    columns. Done in stripes, for which a large photo needs not be copied whole into Pillow's own form."""
    width, height = size
    wide = np.empty((len(rgb), width, 3), dtype=np.uint8)
    for top in range(0, len(rgb), _STRIPE):
        stripe = Image.fromarray(rgb[top : top + _STRIPE])
        wide[top : top + _STRIPE] = np.asarray(stripe.resize((width, stripe.height), resampling))
    resized = np.empty((height, width, 3), dtype=np.uint8)
    for left in range(0, width, _STRIPE):
        stripe = Image.fromarray(np.ascontiguousarray(wide[:, left : left + _STRIPE]))
        resized[:, left : left + _STRIPE] = np.asarray(
            stripe.resize((stripe.width, height), resampling)
        )
    return resized


def pad_to_patches(rgb: UInt8Array, spec: PixelSpec) -> UInt8Array:
    """Reflect-pad uint8 [h, w, 3] on the right and below to multiples of a patch and to at least one tile."""
    pads = [max(spec.tile, -(-side // spec.patch) * spec.patch) - side for side in rgb.shape[:2]]
    if pads == [0, 0]:
        return rgb
    return np.pad(rgb, ((0, pads[0]), (0, pads[1]), (0, 0)), mode="reflect")


def cover(rgb: UInt8Array, spec: PixelSpec) -> Cover:
    """Cut uint8 [h, w, 3] into overlapping tiles at native resolution; the last row and column end at the edge."""
    padded = pad_to_patches(rgb, spec)
    height, width = padded.shape[:2]
    origins = [(y, x) for y in _starts(height, spec) for x in _starts(width, spec)]
    tiles = np.stack([padded[y : y + spec.tile, x : x + spec.tile] for y, x in origins])
    return Cover(
        tiles, np.array(origins, dtype=np.int64), (height // spec.patch, width // spec.patch)
    )


def assemble(evidence: Float32Array, cover: Cover, spec: PixelSpec) -> Float32Array:
    """Lay the tiles' evidence float32 [n, h, w] over the photo: float32 [rows, cols], the mean where tiles overlap.

    Raises ValueError when the evidence is not one value per patch of every tile of the cover.
    """
    side = spec.tile // spec.patch
    if evidence.shape != (len(cover.origins), side, side):
        raise ValueError(
            f"evidence has shape {evidence.shape}, the cover needs {(len(cover.origins), side, side)}"
        )
    total = np.zeros(cover.grid, dtype=np.float64)
    count = np.zeros(cover.grid, dtype=np.int64)
    for values, (row, col) in zip(evidence, cover.origins // spec.patch, strict=True):
        total[row : row + side, col : col + side] += values
        count[row : row + side, col : col + side] += 1
    return (total / count).astype(np.float32)


def _starts(length: int, spec: PixelSpec) -> list[int]:
    return [*range(0, length - spec.tile, spec.tile - spec.overlap), length - spec.tile]
