"""Does damage that one photo shows persist in another photo of the same object?

Two shots of one object never agree pixel by pixel: the light, the place and the folds differ. So
each small window looks for its like nearby in the other photo, and a marked region counts as
different only when its surroundings do find theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from realdamage.core.decode import Float32Array
from realdamage.photo_pairs.align import Alignment, align
from realdamage.photo_pairs.features import Matrix, Prepared, match_photos, scaling
from realdamage.phrases import Phrase, phrase

Box: TypeAlias = tuple[int, int, int, int]

# Chosen on half of the pairs of tests/trials/persist_trial.py, reported on the other half.
MIN_AROUND = 0.66
"""Likeness of the surroundings from which the two photos can be compared at all."""
MAX_INSIDE = 0.40
"""Likeness of a marked region up to which it counts as different."""
# Where the surroundings agree nearly everywhere, a region that differs a little stands out too.
CLOSE_AROUND, CLOSE_INSIDE = 0.90, 0.80
_SIDE = 512  # longer side of the compared grid, in pixels
_WINDOW = 17  # pixels of the grid
_REACH = 6  # pixels of the grid that a window may have moved
_STEP = 2
_TEXTURE = 5.0  # deviation in grey levels from which a window shows something
_MIN_PIXELS = 150  # textured pixels of the grid that a region needs
_MIN_AROUND_PIXELS = 2000
_MIN_COVERED = 0.9  # share of a region that the other photo must show
_MIN_INLIERS = 20


@dataclass(frozen=True)
class DamageDiffers:
    """A marked region of one photo, compared with the same place in another photo.

    box, other_box: (left, top, right, bottom) in pixels of the upright photos, right and bottom
        exclusive; `other_box` is where the region should be in the other photo.
    inside, around: mean likeness of the region and of its surroundings, correlations in -1..1.
    """

    box: Box
    other_box: Box
    inside: float
    around: float

    @property
    def is_different(self) -> bool:
        """Whether the region differs while its surroundings agree."""
        limit = CLOSE_INSIDE if self.around >= CLOSE_AROUND else MAX_INSIDE
        return self.around >= MIN_AROUND and self.inside <= limit

    def said(self, other: str) -> Phrase:
        """What is shown. other: name of the other photo."""
        likeness = {"inside": f"{self.inside:.2f}", "around": f"{self.around:.2f}"}
        box = ", ".join(str(side) for side in self.box)
        return phrase("damage_differs", box=box, other=other, **likeness)

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        return asdict(self) | {"box": list(self.box), "other_box": list(self.other_box)}


def find_differing_damage(
    photo: Prepared, other: Prepared, boxes: Sequence[Box]
) -> tuple[DamageDiffers, ...]:
    """The marked regions of `photo` that `other`, a photo of the same object, does not show.

    photo: prepared as "claim". other: prepared as "listing". boxes: in pixels of the upright
        `photo`, such as a verdict's regions.
    Nothing is said of a region that `other` does not reach, nor when the surroundings differ too.
    """
    return tuple(one for one in compare_regions(photo, other, boxes) if one.is_different)


def compare_regions(
    photo: Prepared, other: Prepared, boxes: Sequence[Box]
) -> tuple[DamageDiffers, ...]:
    """Each marked region with its likeness, in the order of `boxes`, without those that cannot be
    compared: the photos share too little, or the region shows nothing but a plain surface."""
    if not boxes:
        return ()
    match, _ = match_photos(photo, other)
    if match.homography is None or match.inliers < _MIN_INLIERS:
        return ()
    alignment = align(photo.photo.rgb, other.photo.rgb, match.homography)
    if alignment is None:
        return ()
    likeness, shown, reached = likeness_map(alignment)
    scale = likeness.shape[1] / photo.photo.width
    regions = [_on_grid(box, scale, shown.shape) for box in boxes]
    around = shown & reached
    for rows, columns in regions:
        around[rows, columns] = False
    if around.sum() < _MIN_AROUND_PIXELS:
        return ()
    outside = float(likeness[around].mean())
    found = []
    for box, place in zip(boxes, regions, strict=True):
        here = (shown & reached)[place]
        if here.sum() >= _MIN_PIXELS and reached[place].mean() >= _MIN_COVERED:
            inside = float(likeness[place][here].mean())
            other_box = _mapped(box, photo, other, alignment)
            found.append(DamageDiffers(box, other_box, inside, outside))
    return tuple(found)


def likeness_map(alignment: Alignment) -> tuple[Float32Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """(how well the window around each pixel finds its like in the other photo, a correlation in
    -1..1; where the claim photo shows something; where the other photo reaches), all [h, w] with a
    longer side of at most 512 pixels."""
    import cv2

    height, width = alignment.covered.shape
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    first, second = (_grey(rgb, size) for rgb in (alignment.claim, alignment.listing))
    whole = cv2.resize(alignment.covered.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    window = (_WINDOW, _WINDOW)
    reached = cv2.erode(whole, np.ones((5, 5), np.uint8), borderValue=1).astype(bool)
    first_mean, first_deviation = _moments(first, window)
    second_mean, second_deviation = _moments(second, window)
    best = np.full(first.shape, -1.0, np.float32)
    padded = [
        np.pad(values, _REACH, mode="reflect") for values in (second, second_mean, second_deviation)
    ]
    steps = range(0, 2 * _REACH + 1, _STEP)
    for down in steps:
        for across in steps:
            rows, columns = slice(down, down + size[1]), slice(across, across + size[0])
            shifted, mean, deviation = (values[rows, columns] for values in padded)
            shared = cv2.boxFilter(first * shifted, -1, window) - first_mean * mean
            np.maximum(best, shared / (first_deviation * deviation), out=best)
    return np.clip(best, -1, 1), first_deviation > _TEXTURE, reached


def _grey(rgb: Float32Array, size: tuple[int, int]) -> Float32Array:
    import cv2

    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)


def _moments(grey: Float32Array, window: tuple[int, int]) -> tuple[Float32Array, Float32Array]:
    """(mean, deviation) in each window; the deviation is at least one grey level."""
    import cv2

    mean = np.asarray(cv2.boxFilter(grey, -1, window), np.float32)
    variance = np.asarray(cv2.boxFilter(grey * grey, -1, window), np.float32) - mean * mean
    return mean, np.sqrt(np.maximum(variance, 1.0))


def _on_grid(box: Box, scale: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    left, top, right, bottom = (value * scale for value in box)
    rows = slice(max(0, math.floor(top)), min(shape[0], math.ceil(bottom)))
    return rows, slice(max(0, math.floor(left)), min(shape[1], math.ceil(right)))


def _mapped(box: Box, photo: Prepared, other: Prepared, alignment: Alignment) -> Box:
    """Where a box of `photo` is in `other`, inside its frame."""
    import cv2

    full = (photo.photo.width, photo.photo.height)
    back: Matrix = (
        scaling(other.size, (other.photo.width, other.photo.height))
        @ np.linalg.inv(alignment.homography)
        @ scaling(full, photo.size)
    )
    left, top, right, bottom = box
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)
    there = cv2.perspectiveTransform(corners[None], back)[0]
    limits = (other.photo.width, other.photo.height)
    low = np.clip(np.floor(there.min(axis=0)), 0, limits).astype(int)
    high = np.clip(np.ceil(there.max(axis=0)), 0, limits).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
