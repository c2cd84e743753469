"""Compares a photo with the preview inside its file, which edits often leave unchanged."""

from __future__ import annotations

import numpy as np
from PIL import Image

from realdamage.core.decode import open_photo
from realdamage.provenance.precedence import ThumbnailState

# Side of the grey versions that are compared, and of the blocks whose means are.
_SIDE, _BLOCK = 48, 3
TOLERANCE = 32.0
"""Largest difference of a block's mean, of 255, from a camera's own scaling and sharpening
(tested)."""
_DARK = 24  # a band at the edge that is darker than this is the bar of a letterbox
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF")
_MAX_PIXELS, _MAX_SIDE = 1_000_000, 2048  # of a thumbnail, which usually has 160x120


def compare_thumbnail(photo: bytes, thumbnail: bytes, max_pixels: int) -> ThumbnailState:
    """ "matches" or "differs"; "none" when either cannot be decoded or is too large, or when the
    thumbnail is not a JPEG (EXIF allows no other compression).

    All four rotations of the thumbnail are tried, since some programs turn only one of the two;
    with another shape, without bars and as the photo's middle. Brightness and contrast may differ;
    then no block of 1/16 of the side may differ by more than TOLERANCE.
    """
    if not thumbnail.startswith(b"\xff\xd8\xff"):
        return "none"
    try:
        small = open_photo(thumbnail, "thumbnail", min(max_pixels, _MAX_PIXELS))
        if max(small.size) > _MAX_SIDE:
            return "none"
        whole = open_photo(photo, "photo", max_pixels)
        if whole.format not in _FORMATS:
            return "none"
        whole.draft("L", (4 * _SIDE, 4 * _SIDE))  # a JPEG is decoded at about that size
        grey, preview = whole.convert("L"), small.convert("L")
        turned = [preview.rotate(angle, expand=True) for angle in (0, 90, 180, 270)]
        best = min(_difference(*pair) for angle in turned for pair in _aligned(grey, angle))
        return "matches" if best <= TOLERANCE else "differs"
    except Exception:  # decoders raise all kinds of errors on a broken file
        return "none"


def _aligned(whole: Image.Image, small: Image.Image) -> list[tuple[Image.Image, Image.Image]]:
    """Pairs that may show the same: unchanged, without bars, and the photo's middle."""
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
    across, down = min(width, round(height * shape)), min(height, round(width / shape))
    across, down = max(1, across), max(1, down)
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def _has_bars(image: Image.Image, inside: tuple[int, int, int, int]) -> bool:
    grey = np.asarray(image, np.float64)
    left, top, right, bottom = inside
    outside = np.ones(grey.shape, np.bool_)
    outside[top:bottom, left:right] = False
    return bool(outside.any()) and float(grey[outside].mean()) < _DARK


def _difference(one: Image.Image, other: Image.Image) -> float:
    """The largest difference of a block's mean, of 255, after one linear fit of all grey values."""
    size, box = (_SIDE, _SIDE), Image.Resampling.BOX
    first, second = (np.asarray(image.resize(size, box), np.float64) for image in (one, other))
    spread = first.std()
    plain = (spread < 1, second.std() < 1)
    if all(plain):
        return float(abs(first.mean() - second.mean()))
    first, second = first - first.mean(), second - second.mean()
    gain = float((first * second).mean() / spread**2) if not any(plain) else 0.0
    if gain <= 0:
        return 255.0
    blocks = (second / max(gain, 0.25) - first).reshape(_SIDE // _BLOCK, _BLOCK, -1, _BLOCK)
    return float(np.abs(blocks.mean(axis=(1, 3))).max())
