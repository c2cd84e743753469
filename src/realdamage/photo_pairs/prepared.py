"""A photo made ready for comparison: read, and searched for local features, once for all photos it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from realdamage.core.decode import MAX_PIXELS, PhotoSource, UInt8Array
from realdamage.core.tiles import Photo, PixelSpec, limit_side, read_photo
from realdamage.photo_pairs.features import Features, find_features

Role: TypeAlias = Literal["claim", "listing"]

FEATURE_SIDE = 800
"""Longer side at which features are found, in pixels."""
# What is kept of a photo: a claim photo is the grid that is compared; of a listing photo, a crop may fill that grid.
_SIDES: dict[Role, int] = {"claim": 1024, "listing": 4096}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A photo in one of the two roles; its features are found when they are first asked for.

    photo: its longer side at most 1,024 pixels as a claim photo, 4,096 as a listing photo.
    """

    photo: Photo
    role: Role

    @cached_property
    def grey(self) -> UInt8Array:
        """uint8 [h, w], its longer side at most `FEATURE_SIDE`."""
        return np.asarray(
            Image.fromarray(limit_side(self.photo.rgb, _limited_to(FEATURE_SIDE))).convert("L")
        )

    @cached_property
    def features(self) -> Features:
        """Of `grey`."""
        return find_features(self.grey)

    @cached_property
    def mirrored(self) -> Features:
        """Of `grey` with left and right swapped: local features know no mirror image."""
        return find_features(np.ascontiguousarray(self.grey[:, ::-1]))


def prepare(source: PhotoSource, role: Role, *, max_pixels: int = MAX_PIXELS) -> Prepared:
    """Read a photo for `compare`, in the role that it will have there: "claim" or "listing".

    Sources and max_pixels as in `compare`. Raises PhotoError, naming the photo, when it cannot be read.
    """
    name = str(source) if isinstance(source, str | Path) else f"{role} photo"
    return Prepared(
        read_photo(source, _limited_to(_SIDES[role]), name=name, max_pixels=max_pixels), role
    )


def _limited_to(side: int) -> PixelSpec:
    return PixelSpec(max_side=side, filter="box")
