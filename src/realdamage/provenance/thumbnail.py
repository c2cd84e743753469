"""Compares a photo with the small picture inside its file: whoever edits a photo often forgets it."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realdamage.core.decode import open_photo
from realdamage.provenance.precedence import ThumbnailState

Grey: TypeAlias = NDArray[np.float64]
# Side of the grey versions that are compared, and of the blocks whose means are.
_SIDE, _BLOCK = 48, 3
# Largest difference of a block's mean, of 255, that a camera's own scaling, sharpening and compression make (tested).
TOLERANCE = 32.0
# A band at the edge is a bar of a letterbox when it is this dark.
_DARK = 24
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF")
# A thumbnail has some 160x120 pixels; EXIF knows no other compression of it than JPEG.
_MAX_THUMBNAIL_PIXELS, _MAX_THUMBNAIL_SIDE = 1_000_000, 2048


def compare_thumbnail(photo: bytes, thumbnail: bytes, max_pixels: int) -> ThumbnailState:
    """ "matches" or "differs"; "none" when either cannot be decoded or has more than `max_pixels` pixels, or when the
    thumbnail is not a JPEG, has more than 1,000,000 pixels or a side above 2,048.

    Both as they lie in the file, in whichever of the four orientations fits best, for some programs turn only one. A
    thumbnail of another shape may have bars, or show the middle: both are tried. Brightness and contrast of the whole
    may differ; then no block of 1/16 of the side may differ by more than TOLERANCE.
    """
    if not thumbnail.startswith(b"\xff\xd8\xff"):
        return "none"
    try:
        small = open_photo(thumbnail, "thumbnail", min(max_pixels, _MAX_THUMBNAIL_PIXELS))
        if max(small.size) > _MAX_THUMBNAIL_SIDE:
            return "none"
        whole = open_photo(photo, "photo", max_pixels)
        if whole.format not in _FORMATS:
            return "none"
        whole.draft(
            "L", (4 * _SIDE, 4 * _SIDE)
        )  # a JPEG is decoded at that size; others as they are
        return _compare(whole.convert("L"), small.convert("L"))
    except Exception:  # decoders raise whatever they like on a broken file
        return "none"


def _compare(whole: Image.Image, small: Image.Image) -> ThumbnailState:
    turned = [small.rotate(angle, expand=True) for angle in (0, 90, 180, 270)]
    best = min(_difference(one, other) for angle in turned for one, other in _aligned(whole, angle))
    return "matches" if best <= TOLERANCE else "differs"


def _aligned(whole: Image.Image, small: Image.Image) -> list[tuple[Image.Image, Image.Image]]:
    """Pairs that may show the same: as they are, without bars, and the photo's middle."""
    shape, wanted = whole.width / whole.height, small.width / small.height
    if abs(shape / wanted - 1) < 0.02:
        return [(whole, small)]
    pairs = [(whole.crop(_middle(whole, wanted)), small)]
    middle = _middle(small, shape)
    if _has_bars(small, middle):
        pairs.append((whole, small.crop(middle)))
    return pairs


def _middle(image: Image.Image, shape: float) -> tuple[int, int, int, int]:
    """The largest box of `shape` (width / height) in the middle of an image."""
    width, height = image.size
    if width / height > shape:
        inner = max(1, round(height * shape))
        return (width - inner) // 2, 0, (width - inner) // 2 + inner, height
    inner = max(1, round(width / shape))
    return 0, (height - inner) // 2, width, (height - inner) // 2 + inner


def _has_bars(image: Image.Image, inside: tuple[int, int, int, int]) -> bool:
    grey = np.asarray(image, np.float64)
    left, top, right, bottom = inside
    outside = np.ones(grey.shape, np.bool_)
    outside[top:bottom, left:right] = False
    return bool(outside.any()) and float(grey[outside].mean()) < _DARK


def _difference(one: Image.Image, other: Image.Image) -> float:
    """The largest difference of a block's mean, of 255, after one linear fit of all grey values."""
    size = (_SIDE, _SIDE)
    first, second = (
        np.asarray(i.resize(size, Image.Resampling.BOX), np.float64) for i in (one, other)
    )
    spread = first.std()
    plain = (spread < 1, second.std() < 1)
    if all(plain):
        return float(abs(first.mean() - second.mean()))
    if any(plain):
        return 255.0
    gain = float(((first - first.mean()) * (second - second.mean())).mean() / spread**2)
    if gain <= 0:
        return 255.0
    residual = (second - second.mean()) / max(gain, 0.25) - (first - first.mean())
    blocks = residual.reshape(_SIDE // _BLOCK, _BLOCK, _SIDE // _BLOCK, _BLOCK).mean(axis=(1, 3))
    return float(np.abs(blocks).max())
