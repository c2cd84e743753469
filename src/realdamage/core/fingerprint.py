"""Perceptual hashes, which find the same photo after a re-save, a resize or a light crop: in a
training set (data/duplicates.py) and across claims (claims/index.py). imagehash is in the extras
analysis and claims.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from realdamage.errors import MissingExtraError

_THUMBNAIL = 16
_PLAIN_CONTRAST = 4.0  # grey levels; below it a thumbnail is noise, and so is its correlation


class PhotoHash(NamedTuple):
    """coarse, fine: uint64 and uint64 [4], perceptual hashes of 64 and 256 bits (Zauner 2010).
    thumbnail: float32 [16 · 16 · 3], colours minus their mean, of unit length, all zero for a plain
    photo."""

    coarse: np.uint64
    fine: npt.NDArray[np.uint64]
    thumbnail: npt.NDArray[np.float32]


def perceptual_hash(image: Image.Image) -> PhotoHash:
    """The hash of an opened photo, upright; JPEGs are decoded at reduced size, with the same
    result.

    Raises MissingExtraError without imagehash.
    """
    try:
        import imagehash
    except ModuleNotFoundError as error:
        raise MissingExtraError("the search for near-duplicates", "claims", error.name) from None
    image.draft("RGB", (256, 256))
    upright = ImageOps.exif_transpose(image).convert("RGB")
    grey = upright.convert("L")
    small = np.asarray(
        upright.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), np.float32
    ).ravel()
    centred = small - small.mean()
    length = float(np.linalg.norm(centred))
    plain = length < _PLAIN_CONTRAST * np.sqrt(len(small))
    return PhotoHash(
        _words(imagehash.phash(grey).hash)[0],
        _words(imagehash.phash(grey, hash_size=16).hash),
        np.zeros_like(small) if plain else (centred / length).astype(np.float32),
    )


def _words(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    return np.packbits(bits.ravel()).view(np.uint64)
