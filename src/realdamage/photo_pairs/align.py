"""Lays the listing photo over the claim photo to a fraction of a pixel, in its colours and with its sharpness.

What is left over between two copies of one shot must be noise; a shift of half a pixel or another brightness would look
like change everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realdamage.core.decode import Float32Array, UInt8Array
from realdamage.photo_pairs.features import Matrix, jacobian

_POINTS = 900
_WINDOW = (15, 15)
_ROUNDS = 3
_RIM = 3  # pixels inside the listing photo's edge that resampling may have touched
_TONE_KNOTS = 24
_TONE_SAMPLE = 30_000
_SHARPNESSES = (0.0, 0.45, 0.7, 1.0, 1.4, 2.0)  # sigma of the blur, pixels


@dataclass(frozen=True, eq=False)
class Alignment:
    """Both photos on one grid of pixels, that of the claim photo or a coarser one.

    claim, listing: float32 [h, w, 3] in 0..255. covered: bool [h, w], where the listing photo reaches.
    homography: pixels of the listing photo as given → pixels of the claim photo as given. overlap: see `Comparison`.
    motion: median residual movement of what was tracked, in pixels of the grid: parallax, a bent package; NaN when too
    little could be tracked. tracked: number of points.
    """

    claim: Float32Array
    listing: Float32Array
    covered: NDArray[np.bool_]
    homography: Matrix
    overlap: float
    motion: float
    tracked: int


def align(claim: UInt8Array, listing: UInt8Array, homography: Matrix) -> Alignment | None:
    """Refine `homography` (listing → claim, pixels of uint8 [h, w, 3] as given) and bring both photos to one grid.

    None when the photos hardly overlap. The grid is the claim photo's, or coarser where the listing photo is.
    """
    import cv2

    centre = cv2.perspectiveTransform(
        np.array([[[claim.shape[1] / 2, claim.shape[0] / 2]]], np.float64),
        np.linalg.inv(homography),
    )[0, 0]
    scale = float(np.sqrt(abs(np.linalg.det(jacobian(homography, centre)))))
    coarser = min(1.0, 1.0 / scale)
    grid, to_grid = _shrunk(claim, coarser)
    source, to_source = _shrunk(listing, min(1.0, scale))
    warp = to_grid @ homography @ np.linalg.inv(to_source)
    height, width = grid.shape[:2]
    motion, tracked = float("nan"), 0
    for _ in range(_ROUNDS):
        if not _covered(source, warp, (width, height)).any():
            return None
        laid = np.asarray(
            cv2.warpPerspective(source, warp, (width, height), flags=cv2.INTER_CUBIC), np.uint8
        )
        correction, motion, tracked = _track(grid, laid, _covered(source, warp, (width, height)))
        if correction is None:
            break
        warp = correction @ warp
        warp /= warp[2, 2]
    covered = _covered(source, warp, (width, height))
    if covered.sum() < 1024:
        return None
    laid = np.asarray(
        cv2.warpPerspective(
            source, warp, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        ),
        np.uint8,
    )
    toned = _in_tone(laid.astype(np.float32), grid.astype(np.float32), covered)
    sharp_claim, sharp_listing = _equally_sharp(grid.astype(np.float32), toned, covered)
    refined = np.linalg.inv(to_grid) @ warp @ to_source
    overlap = float(_covered(source, warp, (width, height), rim=0).mean())
    return Alignment(
        sharp_claim, sharp_listing, covered, refined / refined[2, 2], overlap, motion, tracked
    )


def _shrunk(rgb: UInt8Array, scale: float) -> tuple[UInt8Array, Matrix]:
    """The photo at `scale` (at most 1) and the matrix from its pixels to the smaller photo's; pixel centres are whole
    numbers in both."""
    import cv2

    height, width = rgb.shape[:2]
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    if scale > 0.97 or size[0] >= width or size[1] >= height:
        return rgb, np.eye(3)
    across, down = size[0] / width, size[1] / height
    matrix = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)), matrix


def _covered(
    source: UInt8Array, warp: Matrix, size: tuple[int, int], rim: int = _RIM
) -> NDArray[np.bool_]:
    import cv2

    height, width = source.shape[:2]
    inside = np.zeros((height, width), np.uint8)
    inside[rim : height - rim, rim : width - rim] = 255
    return np.asarray(cv2.warpPerspective(inside, warp, size, flags=cv2.INTER_LINEAR)) > (
        250 if rim else 127
    )


def _track(
    grid: UInt8Array, laid: UInt8Array, covered: NDArray[np.bool_]
) -> tuple[Matrix | None, float, int]:
    """(homography that corrects the laid photo, the residual motion it leaves, number of points), from points tracked
    after Lucas & Kanade 1981; None for the homography when too few were."""
    import cv2

    greys = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in (laid, grid)]
    inner = cv2.erode(covered.astype(np.uint8), np.ones((9, 9), np.uint8), borderValue=0)
    # Of equal brightness and contrast, or the tracker follows the light.
    means, deviations = zip(*(cv2.meanStdDev(grey, mask=inner) for grey in greys), strict=True)
    gain = float(deviations[1][0, 0] / max(1.0, deviations[0][0, 0]))
    matched = (greys[0].astype(np.float32) - float(means[0][0, 0])) * gain + float(means[1][0, 0])
    start = np.clip(matched, 0, 255).astype(np.uint8)
    distance = max(4.0, min(grid.shape[:2]) / 60)
    points = cv2.goodFeaturesToTrack(start, _POINTS, 0.005, distance, mask=inner)
    if points is None or len(points) < 20:
        return None, float("nan"), 0 if points is None else len(points)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.005)
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        start,
        greys[1],
        points,
        np.zeros_like(points),
        winSize=_WINDOW,
        maxLevel=1,
        criteria=criteria,
    )
    source, target = points.reshape(-1, 2), found.reshape(-1, 2)
    near = (status.ravel() == 1) & (np.abs(target - source).max(axis=1) < 8)
    if near.sum() < 20:
        return None, float("nan"), int(near.sum())
    source, target = source[near], target[near]
    correction, agrees = cv2.findHomography(
        source, target, cv2.USAC_MAGSAC, 1.0, maxIters=3000, confidence=0.999
    )
    if correction is None or agrees.sum() < 12:
        return None, float("nan"), len(source)
    after = cv2.perspectiveTransform(source[None], correction)[0]
    return correction, float(np.median(np.linalg.norm(after - target, axis=1))), len(source)


def _in_tone(laid: Float32Array, claim: Float32Array, covered: NDArray[np.bool_]) -> Float32Array:
    """The laid photo in the colours of the claim photo: a curve for each channel, or a linear mix of the channels
    before it where that fits better; from the pixels that fit, so that painted areas have no say."""
    here = np.flatnonzero(covered)
    here = here[:: max(1, len(here) // _TONE_SAMPLE)]
    wanted = claim.reshape(-1, 3)[here]
    choices = [_curved(photo, wanted, here) for photo in (laid, _mixed(laid, wanted, here))]
    errors = [np.abs(choice.reshape(-1, 3)[here] - wanted).max(axis=1) for choice in choices]
    better = int(np.quantile(errors[1], 0.7) < 0.95 * np.quantile(errors[0], 0.7))
    return choices[better]


def _mixed(laid: Float32Array, wanted: Float32Array, here: NDArray[np.int64]) -> Float32Array:
    """Each channel a weighted sum of all, as after a change of saturation."""
    sample = np.column_stack([laid.reshape(-1, 3)[here], np.ones(len(here), np.float32)]).astype(
        np.float64
    )
    fits = np.ones(len(sample), bool)
    for _ in range(4):
        mix = np.linalg.lstsq(sample[fits], wanted[fits].astype(np.float64), rcond=1e-4)[0]
        error = np.abs(sample @ mix - wanted).max(axis=1)
        fits = error <= max(2.0, float(np.quantile(error, 0.7)))
    mixed: Float32Array = laid @ mix[:3].astype(np.float32) + mix[3].astype(np.float32)
    return mixed


def _curved(photo: Float32Array, wanted: Float32Array, here: NDArray[np.int64]) -> Float32Array:
    """Each channel through the typical value that the claim photo has where this photo has one."""
    curved = photo.copy()
    given = photo.reshape(-1, 3)[here]
    for channel in range(3):
        values, goal = given[:, channel], wanted[:, channel]
        knots = np.unique(np.quantile(values, np.linspace(0, 1, _TONE_KNOTS + 1)))
        bins = np.clip(np.searchsorted(knots, values, side="right") - 1, 0, max(0, len(knots) - 2))
        occupied = [index for index in range(len(knots) - 1) if (bins == index).sum() > 30]
        if not occupied:
            continue
        centres = np.array([np.median(values[bins == index]) for index in occupied])
        offsets = np.array(
            [np.median(goal[bins == index] - values[bins == index]) for index in occupied]
        )
        curved[..., channel] += np.interp(curved[..., channel], centres, offsets).astype(np.float32)
    return np.clip(curved, 0, 255)


def _equally_sharp(
    claim: Float32Array, listing: Float32Array, covered: NDArray[np.bool_]
) -> tuple[Float32Array, Float32Array]:
    """Both photos, the sharper one blurred like the other: the blur that leaves the smallest typical difference."""
    import cv2

    greys = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in (claim, listing)]
    # Where there is something to be sharp: in smooth places the strongest blur would win, for it takes the noise away.
    edges = np.hypot(*(cv2.Sobel(greys[1], cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1))))
    here = np.flatnonzero(covered & (edges >= np.quantile(edges[covered], 0.75)))
    here = here[:: max(1, len(here) // 50_000)]

    def left_over(which: int, sigma: float) -> float:
        first, second = (
            cv2.GaussianBlur(grey, (0, 0), sigma) if index == which and sigma else grey
            for index, grey in enumerate(greys)
        )
        difference = np.abs(first - second).ravel()[here]
        return float(np.minimum(difference, 4 * np.median(difference) + 1).mean())

    choices = [(which, sigma) for which in (1, 0) for sigma in _SHARPNESSES if sigma or which == 1]
    # Blurring both is always a little better than neither, so the listing photo as it is has an advance.
    which, sigma = min(
        choices, key=lambda choice: left_over(*choice) * (0.98 if choice == (1, 0.0) else 1.0)
    )
    if not sigma:
        return claim, listing
    blurred = cv2.GaussianBlur((claim, listing)[which], (0, 0), sigma)
    return (claim, np.asarray(blurred)) if which else (np.asarray(blurred), listing)
