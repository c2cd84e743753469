"""Finds where one photo shows what another shows: local features that agree on one homography.

SIFT (Lowe 2004) under the Hellinger distance (Arandjelović & Zisserman 2012), agreement by MAGSAC++
(Barath et al. 2020). Size, rotation and light do not matter; mirror images are tried apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realdamage.core.decode import MAX_PIXELS, Float32Array, PhotoSource, UInt8Array
from realdamage.core.tiles import Photo, PixelSpec, limit_side, limited_photo, read_photo

Matrix: TypeAlias = NDArray[np.float64]
Role: TypeAlias = Literal["claim", "listing"]

FEATURE_SIDE = 800
"""Longer side at which features are found, in pixels."""
# What is kept of a photo: a claim photo is the grid of the comparison, which a crop of a listing
# photo may fill.
_SIDES: dict[Role, int] = {"claim": 1024, "listing": 4096}
MAX_FEATURES = 2500
MIN_FEATURES = 24  # with fewer, a photo is too plain: a handful of features agrees by chance
MIN_INLIERS = 12
_RATIO = 0.8  # of the distances to the nearest and the second nearest feature (Lowe 2004)
_REPROJECTION = 3.0  # pixels at the scale of the features
_MIN_INLIER_SHARE = 0.15
_MIN_SPREAD = 0.002  # share of the claim photo that the inliers' hull covers
_SCALES = (0.04, 25.0)  # claim pixels per listing pixel
_MAX_STRETCH = 3.0  # ratio of the scales along two directions, and of the scales at two corners
_PLENTY = 60  # inliers from which the mirror image is not tried


class Features(NamedTuple):
    """points: float32 [n, 2], (x, y). descriptors: float32 [n, 128], of unit length."""

    points: Float32Array
    descriptors: Float32Array


class Match(NamedTuple):
    """How two photos align. inliers, matches: see `Comparison`.

    homography: 3x3, pixels of the listing photo to those of the claim photo (`photo.rgb`); None if
        no camera could have made it.
    """

    homography: Matrix | None
    inliers: int
    matches: int


@dataclass(frozen=True, eq=False)
class Prepared:
    """A photo in one of the two roles; its features are found on first use.

    photo: its longer side at most 1,024 pixels as a claim photo, 4,096 as a listing photo.
    """

    photo: Photo

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the pixels that are compared, `photo.rgb`."""
        return self.photo.rgb.shape[1], self.photo.rgb.shape[0]

    @cached_property
    def grey(self) -> UInt8Array:
        """uint8 [h, w], its longer side at most `FEATURE_SIDE`."""
        small = limit_side(self.photo.rgb, _limited_to(FEATURE_SIDE))
        return np.asarray(Image.fromarray(small).convert("L"))

    @cached_property
    def features(self) -> Features:
        """Of `grey`."""
        return find_features(self.grey)

    @cached_property
    def mirrored(self) -> Features:
        """Of `grey` with left and right swapped."""
        return find_features(np.ascontiguousarray(self.grey[:, ::-1]))


def prepare(source: PhotoSource | Photo, role: Role, *, max_pixels: int = MAX_PIXELS) -> Prepared:
    """Read a photo for `compare`, in the role "claim" or "listing"; a `Photo` is not decoded again.

    Raises PhotoError, naming the photo, when it cannot be read.
    """
    spec = _limited_to(_SIDES[role])
    if isinstance(source, Photo):
        photo = limited_photo(source.full, spec, source.sha256, source.file_quality)
    else:
        name = str(source) if isinstance(source, str | Path) else f"{role} photo"
        photo = read_photo(source, spec, name=name, max_pixels=max_pixels)
    return Prepared(photo)


def _limited_to(side: int) -> PixelSpec:
    return PixelSpec(max_side=side, filter="box")


def find_features(grey: UInt8Array) -> Features:
    """The strongest `MAX_FEATURES` local features of a uint8 [h, w] photo."""
    import cv2

    # Half of the usual contrast: catalogues show products in soft light on a plain background.
    sift = cv2.SIFT.create(nfeatures=MAX_FEATURES, contrastThreshold=0.02)
    found, descriptors = sift.detectAndCompute(grey, None)
    if descriptors is None or not found:
        return Features(np.empty((0, 2), np.float32), np.empty((0, 128), np.float32))
    points = np.array([feature.pt for feature in found], np.float32)
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    return Features(points, np.sqrt(shares).astype(np.float32))


def match_photos(claim: Prepared, listing: Prepared) -> tuple[Match, bool]:
    """(the better alignment, as is or mirrored; whether a photo is too plain to be aligned)."""
    if min(len(claim.features.points), len(listing.features.points)) < MIN_FEATURES:
        return Match(None, 0, 0), True
    best = _match(claim.features, listing.features, claim.grey.size)
    if best.homography is None or best.inliers < _PLENTY:
        turned = _match(claim.features, listing.mirrored, claim.grey.size)
        if turned.homography is not None and (
            best.homography is None or turned.inliers > best.inliers
        ):
            homography = turned.homography @ mirror(listing.grey.shape[1])
            best = turned._replace(homography=homography)
    if best.homography is None:
        return best, False
    small_claim, small_listing = (one.grey.shape[::-1] for one in (claim, listing))
    up, down = scaling(small_claim, claim.size), scaling(listing.size, small_listing)
    return best._replace(homography=up @ best.homography @ down), False


def scaling(given: tuple[int, int], wanted: tuple[int, int]) -> Matrix:
    """3x3: pixels of a photo of size (width, height) to its pixels at another size.

    Pixel centres are whole numbers.
    """
    across, down = wanted[0] / given[0], wanted[1] / given[1]
    return np.array([[across, 0.0, (across - 1) / 2], [0.0, down, (down - 1) / 2], [0.0, 0.0, 1.0]])


def mirror(width: int) -> Matrix:
    """3x3: swaps left and right of a photo; pixel centres are whole numbers."""
    return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def _match(claim: Features, listing: Features, area: int) -> Match:
    """Match two photos' features without mirroring. area: of the claim photo, in pixels."""
    import cv2

    pairs = _mutual_pairs(claim.descriptors, listing.descriptors)
    if len(pairs) < MIN_INLIERS:
        return Match(None, 0, len(pairs))
    source, target = listing.points[pairs[:, 1]], claim.points[pairs[:, 0]]
    estimate, agrees = cv2.findHomography(
        source, target, cv2.USAC_MAGSAC, _REPROJECTION, maxIters=5000, confidence=0.999
    )
    if estimate is None or not np.isfinite(estimate).all():
        return Match(None, 0, len(pairs))
    homography = np.asarray(estimate, np.float64)
    kept = agrees.ravel().astype(bool)
    # Repeated patterns give several matches at one place, which count once.
    inliers = len(np.unique(np.round(target[kept] / 2), axis=0))
    spread = cv2.contourArea(cv2.convexHull(target[kept])) / area if kept.any() else 0.0
    believable = (
        inliers >= MIN_INLIERS
        and inliers >= _MIN_INLIER_SHARE * len(pairs)
        and spread >= _MIN_SPREAD
        and is_believable(homography, source[kept])
    )
    return Match(homography if believable else None, inliers, len(pairs))


def is_believable(homography: Matrix, source: Float32Array) -> bool:
    """Whether a camera could have seen it: no mirror, fold, extreme scale or slant at the features.

    source: float32 [n, 2], the inliers in the listing photo.
    """
    import cv2

    left, top = source.min(axis=0)
    right, bottom = source.max(axis=0)
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)
    depths = np.column_stack([corners, np.ones(4)]) @ homography[2]
    if np.abs(depths).min() < 1e-9 or not (np.sign(depths) == np.sign(depths[0])).all():
        return False
    warped = cv2.perspectiveTransform(corners[None].astype(np.float32), homography)[0]
    quad = warped.astype(np.float64)
    edges = np.roll(quad, -1, axis=0) - quad
    following = np.roll(edges, -1, axis=0)
    if not (edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0] > 0).all():
        return False  # mirrored or folded
    scales = []
    for point in (*corners, corners.mean(axis=0)):
        large, small = np.linalg.svd(jacobian(homography, point), compute_uv=False)
        if small <= 0 or large / small > _MAX_STRETCH:
            return False
        scales.append(float(np.sqrt(large * small)))
    smallest, largest = min(scales), max(scales)
    return _SCALES[0] < smallest and largest < _SCALES[1] and largest / smallest < _MAX_STRETCH


def jacobian(homography: Matrix, point: NDArray[np.float64]) -> Matrix:
    """2x2: how far (x, y) of the claim photo moves with (x, y) of the listing photo at `point`."""
    x, y, depth = homography @ np.array([point[0], point[1], 1.0])
    slope = homography[:2, :2] - np.outer([x / depth, y / depth], homography[2, :2])
    return np.asarray(slope / depth, np.float64)


def _mutual_pairs(claim: Float32Array, listing: Float32Array) -> NDArray[np.int64]:
    """int [n, 2]: features that are each other's nearest, clearly nearer than the second."""
    likeness = claim @ listing.T
    nearest = likeness.argmax(axis=1)
    back = likeness.argmax(axis=0)
    rows = np.arange(len(claim))
    best = likeness[rows, nearest].copy()
    likeness[rows, nearest] = -1
    second = likeness.max(axis=1)
    distances = [np.sqrt(np.maximum(0, 2 - 2 * value)) for value in (best, second)]
    kept = (back[nearest] == rows) & (distances[0] < _RATIO * distances[1])
    return np.column_stack([rows[kept], nearest[kept]]).astype(np.int64)
