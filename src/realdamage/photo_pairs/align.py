"""Lays the listing photo over the claim photo to a fraction of a pixel, in its colours.

What is left between two copies of one shot must be noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realdamage.core.decode import Float32Array, UInt8Array
from realdamage.photo_pairs.features import Matrix, jacobian, scaling

_POINTS = 900
_WINDOW = (15, 15)
_ROUNDS = 3
_RIM = 3  # pixels inside the listing photo's edge that resampling may have touched
_LEAST_COVERED = 1024  # pixels
_TONE_KNOTS = 24
_TONE_SAMPLE = 30_000
_SHARPNESSES = (0.0, 0.45, 0.7, 1.0, 1.4, 2.0)  # sigma of the blur, pixels


@dataclass(frozen=True, eq=False)
class Alignment:
    """Both photos on one grid of pixels, that of the claim photo or a coarser one.

    claim, listing: float32 [h, w, 3] in 0..255. covered: bool [h, w], where the listing photo
        reaches.
    homography: pixels of the listing photo as given to pixels of the claim photo as given.
    motion: median residual movement of tracked points, in pixels (parallax); NaN with too few
        points.
    """

    claim: Float32Array
    listing: Float32Array
    covered: NDArray[np.bool_]
    homography: Matrix
    overlap: float
    motion: float


def align(claim: UInt8Array, listing: UInt8Array, homography: Matrix) -> Alignment | None:
    """Refine `homography` (listing to claim, pixels of uint8 [h, w, 3]) and bring both to one grid.

    The grid is the coarser one of the two. None when they hardly overlap.
    """
    import cv2

    middle = np.array([[[claim.shape[1] / 2, claim.shape[0] / 2]]], np.float64)
    centre = cv2.perspectiveTransform(middle, np.linalg.inv(homography))[0, 0]
    scale = float(np.sqrt(abs(np.linalg.det(jacobian(homography, centre)))))
    grid, to_grid = _shrunk(claim, min(1.0, 1.0 / scale))
    source, to_source = _shrunk(listing, min(1.0, scale))
    warp = to_grid @ homography @ np.linalg.inv(to_source)
    size = (grid.shape[1], grid.shape[0])
    motion = float("nan")
    for _ in range(_ROUNDS):
        covered = _covered(source, warp, size)
        if not covered.any():
            return None
        laid = np.asarray(cv2.warpPerspective(source, warp, size, flags=cv2.INTER_CUBIC), np.uint8)
        correction, motion = _track(grid, laid, covered)
        if correction is None:
            break
        warp = correction @ warp
        warp /= warp[2, 2]
    covered = _covered(source, warp, size)
    if covered.sum() < _LEAST_COVERED:
        return None
    border = cv2.BORDER_REPLICATE
    whole = cv2.warpPerspective(source, warp, size, flags=cv2.INTER_CUBIC, borderMode=border)
    given = grid.astype(np.float32)
    toned = _in_tone(np.asarray(whole, np.float32), given, covered)
    sharp_claim, sharp_listing = _equally_sharp(given, toned, covered)
    refined = np.linalg.inv(to_grid) @ warp @ to_source
    overlap = float(_covered(source, warp, size, rim=0).mean())
    return Alignment(sharp_claim, sharp_listing, covered, refined / refined[2, 2], overlap, motion)


def _shrunk(rgb: UInt8Array, scale: float) -> tuple[UInt8Array, Matrix]:
    """The photo at `scale` (at most 1) and the matrix from its pixels to the smaller photo's."""
    import cv2

    height, width = rgb.shape[:2]
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    if scale > 0.97 or size[0] >= width or size[1] >= height:
        return rgb, np.eye(3)
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    return small, scaling((width, height), size)


def _covered(
    source: UInt8Array, warp: Matrix, size: tuple[int, int], rim: int = _RIM
) -> NDArray[np.bool_]:
    import cv2

    height, width = source.shape[:2]
    inside = np.zeros((height, width), np.uint8)
    inside[rim : height - rim, rim : width - rim] = 255
    laid = np.asarray(cv2.warpPerspective(inside, warp, size, flags=cv2.INTER_LINEAR))
    return laid > (250 if rim else 127)


def _track(
    grid: UInt8Array, laid: UInt8Array, covered: NDArray[np.bool_]
) -> tuple[Matrix | None, float]:
    """(homography that corrects the laid photo, the residual motion), from points tracked after
    Lucas & Kanade 1981; (None, NaN) when too few were."""
    import cv2

    failed = (None, float("nan"))
    greys = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in (laid, grid)]
    inner = cv2.erode(covered.astype(np.uint8), np.ones((9, 9), np.uint8), borderValue=0)
    # At equal brightness and contrast: otherwise the tracker follows the light.
    means, deviations = zip(*(cv2.meanStdDev(grey, mask=inner) for grey in greys), strict=True)
    gain = float(deviations[1][0, 0] / max(1.0, deviations[0][0, 0]))
    matched = (greys[0].astype(np.float32) - float(means[0][0, 0])) * gain + float(means[1][0, 0])
    start = np.clip(matched, 0, 255).astype(np.uint8)
    distance = max(4.0, min(grid.shape[:2]) / 60)
    points = cv2.goodFeaturesToTrack(start, _POINTS, 0.005, distance, mask=inner)
    if points is None or len(points) < 20:
        return failed
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.005)
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        start, greys[1], points, np.zeros_like(points), winSize=_WINDOW, maxLevel=1, criteria=until
    )
    source, target = points.reshape(-1, 2), found.reshape(-1, 2)
    near = (status.ravel() == 1) & (np.abs(target - source).max(axis=1) < 8)
    if near.sum() < 20:
        return failed
    source, target = source[near], target[near]
    correction, agrees = cv2.findHomography(
        source, target, cv2.USAC_MAGSAC, 1.0, maxIters=3000, confidence=0.999
    )
    if correction is None or agrees.sum() < 12:
        return failed
    after = cv2.perspectiveTransform(source[None], correction)[0]
    return correction, float(np.median(np.linalg.norm(after - target, axis=1)))


def _in_tone(laid: Float32Array, claim: Float32Array, covered: NDArray[np.bool_]) -> Float32Array:
    """The laid photo in the claim photo's colours: a curve for each channel, after a linear mix of
    the channels if that fits better; from the pixels that fit, so that painted areas do not count.
    """
    here = np.flatnonzero(covered)
    here = here[:: max(1, len(here) // _TONE_SAMPLE)]
    wanted = claim.reshape(-1, 3)[here]
    choices = [_curved(photo, wanted, here) for photo in (laid, _mixed(laid, wanted, here))]
    errors = [np.abs(choice.reshape(-1, 3)[here] - wanted).max(axis=1) for choice in choices]
    better = int(np.quantile(errors[1], 0.7) < 0.95 * np.quantile(errors[0], 0.7))
    return choices[better]


def _mixed(laid: Float32Array, wanted: Float32Array, here: NDArray[np.int64]) -> Float32Array:
    """Each channel as a weighted sum of all, as after a change of saturation."""
    ones = np.ones(len(here), np.float32)
    sample = np.column_stack([laid.reshape(-1, 3)[here], ones]).astype(np.float64)
    fits = np.ones(len(sample), bool)
    for _ in range(4):
        mix = np.linalg.lstsq(sample[fits], wanted[fits].astype(np.float64), rcond=1e-4)[0]
        error = np.abs(sample @ mix - wanted).max(axis=1)
        fits = error <= max(2.0, float(np.quantile(error, 0.7)))
    mixed: Float32Array = laid @ mix[:3].astype(np.float32) + mix[3].astype(np.float32)
    return mixed


def _curved(photo: Float32Array, wanted: Float32Array, here: NDArray[np.int64]) -> Float32Array:
    """Each channel mapped to the claim photo's typical value at the same value of this photo."""
    curved = photo.copy()
    given = photo.reshape(-1, 3)[here]
    for channel in range(3):
        values, goal = given[:, channel], wanted[:, channel]
        knots = np.unique(np.quantile(values, np.linspace(0, 1, _TONE_KNOTS + 1)))
        bins = np.clip(np.searchsorted(knots, values, side="right") - 1, 0, max(0, len(knots) - 2))
        inside = [bins == index for index in range(len(knots) - 1)]
        inside = [here_too for here_too in inside if here_too.sum() > 30]
        if not inside:
            continue
        centres = np.array([np.median(values[chosen]) for chosen in inside])
        offsets = np.array([np.median(goal[chosen] - values[chosen]) for chosen in inside])
        curved[..., channel] += np.interp(curved[..., channel], centres, offsets).astype(np.float32)
    return np.clip(curved, 0, 255)


def _equally_sharp(
    claim: Float32Array, listing: Float32Array, covered: NDArray[np.bool_]
) -> tuple[Float32Array, Float32Array]:
    """Both photos, the sharper one blurred: by the blur that leaves the smallest typical
    difference."""
    import cv2

    greys = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in (claim, listing)]
    # At edges only: in smooth places the strongest blur would win, since it removes the noise.
    edges = np.hypot(*(cv2.Sobel(greys[1], cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1))))
    here = np.flatnonzero(covered & (edges >= np.quantile(edges[covered], 0.75)))
    here = here[:: max(1, len(here) // 50_000)]

    def left_over(choice: tuple[int, float]) -> float:
        which, sigma = choice
        pair = list(greys)
        if sigma:
            pair[which] = cv2.GaussianBlur(pair[which], (0, 0), sigma)
        difference = np.abs(pair[0] - pair[1]).ravel()[here]
        typical = float(np.minimum(difference, 4 * np.median(difference) + 1).mean())
        # A little blur always helps a little, so no blur at all has an advantage.
        return typical * 0.98 if choice == (1, 0.0) else typical

    choices = [(which, sigma) for which in (1, 0) for sigma in _SHARPNESSES if sigma or which == 1]
    which, sigma = min(choices, key=left_over)
    if not sigma:
        return claim, listing
    blurred = np.asarray(cv2.GaussianBlur((claim, listing)[which], (0, 0), sigma), np.float32)
    return (claim, blurred) if which else (blurred, listing)
