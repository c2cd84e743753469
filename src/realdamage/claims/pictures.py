"""The pictures of a claim's evidence: drawn anew and small, so that no metadata of a file gets into the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from realdamage.claims.decide import ClaimPhoto
from realdamage.core.decode import decode
from realdamage.core.overlay import draw_overlay

MAX_SIDE = 720
"""Of an embedded picture, in pixels; at most about 150 kB each."""
_QUALITY = 80
_WITHOUT_DIFFERENCES = "unrelated"


@dataclass(frozen=True)
class PhotoPictures:
    """Data URIs: the photo; the same under its heat map, "" without one; (listing, picture) of each comparison."""

    photo: str
    heat: str
    comparisons: tuple[tuple[str, str], ...]


def draw_pictures(
    photo: ClaimPhoto, data: bytes, listings: Mapping[str, bytes]
) -> PhotoPictures | None:
    """The pictures of one photo whose file is `data`; None when it could not be read. listings: bytes by name."""
    if photo.error:
        return None
    rgb = decode(data)
    small = Image.fromarray(rgb)
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    heat = ""
    if photo.verdict is not None and photo.verdict.heatmap is not None:
        heat = _data_uri(draw_overlay(np.asarray(small), photo.verdict, reasons=False))
    pairs = []
    for name, found in photo.comparisons:
        if found.outcome != _WITHOUT_DIFFERENCES:
            from realdamage.photo_pairs import draw_comparison

            pair = draw_comparison(rgb, decode(listings[name]), found)
            pair.thumbnail((2 * MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
            pairs.append((name, _data_uri(pair)))
    return PhotoPictures(_data_uri(small), heat, tuple(pairs))


def _data_uri(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.convert("RGB").save(data, format="JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
