"""When two photos count as the same one, and which photos of one claim repeat each other.

Stricter than the search for near-duplicates in a training set (data/duplicates.py), because a person's claim hangs on
it: two photos that an honest buyer took of one thing are not the same photo, and plain surfaces match only byte by
byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from realdamage.claims.decide import Duplicate
from realdamage.core.decode import UInt8Array
from realdamage.core.fingerprint import PhotoHash, perceptual_hash

COARSE_RADIUS = 12
"""Bits of 64 in which candidates may differ."""
FINE_RADIUS = 32
"""Bits of 256 in which the same photo may differ. Re-saves down to a third of the side stay below 15, half of the crops
by 2% below 34; from 38 on, photos of two like products on one shelf are joined (data/results/LOG.md)."""
CORRELATION = 0.93
"""Of the thumbnails, at least."""
_PLAIN_CONTRAST = (
    4.0  # grey levels over the frame; a coloured wall has less, though its colours differ from grey
)


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """A photo's digest and hashes. sha256: hex digest of its bytes. seen, mirror: hashes of the photo, and of it with
    left and right swapped."""

    sha256: str
    seen: PhotoHash
    mirror: PhotoHash


def take_fingerprint(rgb: UInt8Array, sha256: str) -> Fingerprint:
    """The fingerprint of decoded pixels, uint8 [h, w, 3]. Raises MissingExtraError without imagehash."""
    photo = Image.fromarray(rgb)
    photo.thumbnail((512, 512), Image.Resampling.BOX)
    small = np.asarray(photo.resize((16, 16), Image.Resampling.BOX), np.float32)
    plain = float(small.std(axis=(0, 1)).max()) < _PLAIN_CONTRAST
    seen, mirror = (
        perceptual_hash(one) for one in (photo, photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    )
    if plain:
        seen, mirror = (
            one._replace(thumbnail=np.zeros_like(one.thumbnail)) for one in (seen, mirror)
        )
    return Fingerprint(sha256, seen, mirror)


def distance(a: PhotoHash, b: PhotoHash) -> int | None:
    """Bits of 256 between two photos that count as the same; None for photos that do not, plain ones among them."""
    if int(np.bitwise_count(a.coarse ^ b.coarse)) > COARSE_RADIUS:
        return None
    bits = int(np.bitwise_count(a.fine ^ b.fine).sum())
    if bits > FINE_RADIUS or float(a.thumbnail @ b.thumbnail) < CORRELATION:
        return None
    return bits


def match(photo: Fingerprint, sha256: str, other: PhotoHash) -> tuple[int, bool, bool] | None:
    """(distance, exact, mirrored) when another photo, known by digest and hash, is the same one; None otherwise."""
    if photo.sha256 == sha256:
        return 0, True, False
    for mirrored, own in ((False, photo.seen), (True, photo.mirror)):
        if (bits := distance(own, other)) is not None:
            return bits, False, mirrored
    return None


def repeats(photos: Sequence[tuple[str, Fingerprint]]) -> list[Duplicate]:
    """Photos of one claim that repeat an earlier one of it, each pair once, told at the later photo."""
    found = []
    for index, (name, photo) in enumerate(photos):
        for earlier, other in photos[:index]:
            if (same := match(photo, other.sha256, other.seen)) is not None:
                bits, exact, mirrored = same
                found.append(Duplicate(name, earlier, "", bits, exact, "", mirrored))
    return found
