"""Where two aligned photos differ by more than noise, and how well their fine texture agrees."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realdamage.core.decode import Float32Array
from realdamage.photo_pairs.align import Alignment

_FLOOR = 6.0  # grey levels of 255 that never count as change
_NOISE_FACTOR = 4.0  # times the typical difference of pixels in such surroundings
_LEVELS = 10  # of local activity, each with its own typical difference
_CEILING = (12.0, 0.6)  # the tolerance is at most this plus this times the local activity
_BLOCK = 15  # side of the window of the fine correlation, pixels
_FINE_SIGMA = 2.0
_TEXTURE = 3.0  # deviation of the fine band, in grey levels, from which a place is textured
_CORRELATED = 0.6  # correlation of the fine bands from which a place is the same
_NOISE_WINDOW = 9
_NOISE_LEVELS = (0.5, 2.0)  # deviation of the listing photo's noise in smooth places, grey levels
# Its variance in the claim photo over that: neither smoothed away nor added to.
_NOISE_RATIOS = (0.5, 2.0)
_MIN_NOISE_SHARE = 0.05  # of the overlap, that must be so
_NOISE_CORRELATED = 0.25


@dataclass(frozen=True, eq=False)
class Differences:
    """What differs between two aligned photos. agreement, changed: see `Comparison`.

    strength: float32 [h, w], the difference in units of what noise explains; 0 outside the overlap.
    levels: float32 [h, w], the difference in grey levels of 255.
    areas: int32 [h, w], 0 or the number of the changed area, from 1.
    boxes: (left, top, right, bottom) of areas 1, 2, … in pixels of the grid.
    textured: share of the overlap with fine texture. fine: share of that with correlated fine
        bands.
    noise_differs: smooth places have sensor noise of the same strength, but not the same noise.
    """

    strength: Float32Array
    levels: Float32Array
    areas: NDArray[np.int32]
    boxes: tuple[tuple[int, int, int, int], ...]
    agreement: float
    changed: float
    textured: float
    fine: float
    noise_differs: bool


def find_differences(alignment: Alignment) -> Differences:
    """Compare the photos of an alignment, tolerant of one pixel of misalignment and of
    recompression."""
    import cv2

    whole = alignment.covered.astype(np.uint8)
    covered = cv2.erode(whole, np.ones((5, 5), np.uint8), borderValue=1).astype(bool)
    claim, listing = (
        np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb), np.float32)
        for rgb in (alignment.claim, alignment.listing)
    )
    brightness, colour = _tolerant_differences(claim, listing)
    active = _activity(listing[..., 0])
    colourful = active + _activity(listing[..., 1]) + _activity(listing[..., 2])
    # Files keep colours at half the resolution: near coloured edges they differ more than
    # brightness.
    relative = brightness / _tolerance(brightness, active, covered)
    relative = np.maximum(relative, colour / _tolerance(colour, colourful, covered))
    strength = np.where(covered, relative, 0).astype(np.float32)
    levels = np.where(covered, np.maximum(brightness, colour), 0).astype(np.float32)
    areas, boxes = _areas(strength, covered)
    outside = covered & (areas == 0)
    agreement = float((strength[outside] <= 1).mean()) if outside.any() else 0.0
    textured, fine = _fine_agreement(claim[..., 0], listing[..., 0], covered)
    return Differences(
        strength=strength,
        levels=levels,
        areas=areas,
        boxes=boxes,
        agreement=agreement,
        changed=float((areas > 0).sum() / max(1, int(covered.sum()))),
        textured=textured,
        fine=fine,
        noise_differs=_noise_differs(claim[..., 0], listing[..., 0], outside),
    )


def _tolerant_differences(
    claim: Float32Array, listing: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """(of brightness: the smallest local mean over shifts of up to one pixel; of colour: coarser,
    as in files), in grey levels."""
    import cv2

    height, width = claim.shape[:2]
    padded = cv2.copyMakeBorder(listing[..., 0], 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    best = np.full((height, width), np.inf, np.float32)
    for down in range(3):
        for across in range(3):
            shifted = padded[down : down + height, across : across + width]
            np.minimum(best, cv2.boxFilter(np.abs(claim[..., 0] - shifted), -1, (3, 3)), out=best)
    colour = cv2.GaussianBlur(claim[..., 1:] - listing[..., 1:], (0, 0), 2.0)
    return best, np.abs(colour).max(axis=-1)


def _activity(luma: Float32Array) -> Float32Array:
    """Local deviation of the brightness, which recompression errors grow with."""
    import cv2

    mean = cv2.boxFilter(luma, -1, (9, 9))
    variance = cv2.boxFilter(luma * luma, -1, (9, 9)) - mean * mean
    return np.sqrt(np.maximum(variance, 0)).astype(np.float32)


def _tolerance(
    levels: Float32Array, activity: Float32Array, covered: NDArray[np.bool_]
) -> Float32Array:
    """Grey levels that noise explains at each pixel: measured in the photos, for smooth and busy
    places, and limited, so that two different shots do not excuse each other."""
    differences, activities = levels[covered], activity[covered]
    knots = np.quantile(activities, np.linspace(0, 1, _LEVELS + 1))
    centres, typical = [], []
    for low, high in itertools.pairwise(knots):
        here = (activities >= low) & (activities <= high)
        if here.any():
            centres.append(float(np.median(activities[here])))
            typical.append(float(np.median(differences[here])))
    noise = np.interp(activity, centres, np.maximum.accumulate(typical))
    tolerance = np.clip(_NOISE_FACTOR * noise, _FLOOR, _CEILING[0] + _CEILING[1] * activity)
    return tolerance.astype(np.float32)


def _areas(
    strength: Float32Array, covered: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], tuple[tuple[int, int, int, int], ...]]:
    """Connected places above the tolerance, gaps closed, largest first, without stray pixels."""
    import cv2

    above = (strength > 1).astype(np.uint8)
    side = max(5, round(max(strength.shape) / 60)) | 1
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    joined = cv2.morphologyEx(above, cv2.MORPH_CLOSE, ellipse) * covered.astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    flat = labels.ravel()
    strong = np.bincount(flat, weights=strength.ravel() > 1.5, minlength=count)
    weights = np.minimum(strength, 6).ravel() * above.ravel()
    summed = np.bincount(flat, weights=weights, minlength=count)
    smallest = max(12, round(0.00015 * covered.sum()))
    kept = [index for index in range(1, count) if strong[index] >= smallest]
    kept.sort(key=lambda index: -summed[index])
    renumbered = np.zeros(count, np.int32)
    renumbered[kept] = np.arange(1, len(kept) + 1)
    boxes = tuple(
        (int(left), int(top), int(left + wide), int(top + high))
        for left, top, wide, high, _ in stats[kept].tolist()
    )
    return renumbered[labels], boxes


def _bands(
    claim: Float32Array, listing: Float32Array, sigma: float, side: int
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """(variance of the claim photo's fine band in windows of `side`, of the listing photo's, and
    their correlation)."""
    import cv2

    bands = [luma - cv2.GaussianBlur(luma, (0, 0), sigma) for luma in (claim, listing)]
    window = (side, side)
    first, second = (np.maximum(cv2.boxFilter(band * band, -1, window), 1e-3) for band in bands)
    shared = cv2.boxFilter(bands[0] * bands[1], -1, window)
    return first, second, shared / np.sqrt(first * second)


def _fine_agreement(
    claim: Float32Array, listing: Float32Array, covered: NDArray[np.bool_]
) -> tuple[float, float]:
    """(share of the overlap with fine texture, share of that with correlated fine bands)."""
    _, variance, correlation = _bands(claim, listing, _FINE_SIGMA, _BLOCK)
    textured = covered & (variance > _TEXTURE**2)
    if not textured.any():
        return 0.0, 0.0
    share = float(textured.sum() / max(1, covered.sum()))
    return share, float((correlation[textured] > _CORRELATED).mean())


def _noise_differs(
    claim: Float32Array, listing: Float32Array, unchanged: NDArray[np.bool_]
) -> bool:
    """Whether both photos have sensor noise of similar strength that is not the same: two shots.

    Noise that was smoothed away or added proves nothing: the strengths then differ.
    """
    first, second, correlation = _bands(claim, listing, 1.0, _NOISE_WINDOW)
    ratio, (low, high) = first / second, _NOISE_LEVELS
    smooth = unchanged & (second > low**2) & (second < high**2)
    smooth &= (ratio > _NOISE_RATIOS[0]) & (ratio < _NOISE_RATIOS[1])
    if smooth.sum() < max(500, _MIN_NOISE_SHARE * unchanged.sum()):
        return False
    return bool(np.median(correlation[smooth]) < _NOISE_CORRELATED)
