"""Finds where one photo shows what another shows: local features, matched and agreeing on one homography.

Features of Lowe 2004 (SIFT) under the Hellinger distance (Arandjelović & Zisserman 2012), agreement by MAGSAC++ (Barath
et al. 2020). Neither size, rotation nor light matters to them; a mirror image does, so that is tried apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from realdamage.core.decode import Float32Array, UInt8Array

if TYPE_CHECKING:
    from realdamage.photo_pairs.features import Prepared

Matrix = NDArray[np.float64]

MAX_FEATURES = 2500
# Below it a photo is too plain to be told from others: by chance alone, a handful of features agrees on something.
MIN_FEATURES = 24
MIN_INLIERS = 12
_RATIO = 0.8  # of the distances to the nearest and the second nearest feature (Lowe 2004)
_REPROJECTION = 3.0  # pixels at the scale of the features
_MIN_INLIER_SHARE = 0.15
_MIN_SPREAD = 0.002  # share of the claim photo that the inliers' hull covers
_SCALES = (0.04, 25.0)  # claim pixels per listing pixel
_MAX_STRETCH = 3.0  # ratio of the scales along two directions, and of the scales at two corners
_PLENTY = 60  # inliers with which the mirror image needs not be tried


@dataclass(frozen=True)
class Features:
    """Local features of one photo. points: float32 [n, 2], (x, y). descriptors: float32 [n, 128], of unit length."""

    points: Float32Array
    descriptors: Float32Array


@dataclass(frozen=True)
class Match:
    """How two photos lie on each other.

    homography: 3x3 from the pixels of the listing photo to those of the claim photo, at the scales that the features
    were found at; None when no believable one was found. inliers, matches: see `Comparison`.
    """

    homography: Matrix | None
    inliers: int
    matches: int


def find_features(grey: UInt8Array) -> Features:
    """The strongest `MAX_FEATURES` local features of a uint8 [h, w] photo."""
    import cv2

    # Half of the usual contrast: the products of catalogues lie in soft light before a plain background.
    found, descriptors = cv2.SIFT.create(
        nfeatures=MAX_FEATURES, contrastThreshold=0.02
    ).detectAndCompute(grey, None)
    if descriptors is None or not found:
        return Features(np.empty((0, 2), np.float32), np.empty((0, 128), np.float32))
    points = np.array([feature.pt for feature in found], np.float32)
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    return Features(points, np.sqrt(shares).astype(np.float32))


def match_photos(claim: Prepared, listing: Prepared) -> tuple[Match, bool]:
    """(the better alignment of the listing photo, as it is or mirrored left to right; whether either photo is too
    plain to be aligned). The homography takes pixels of `listing.grey` as it is to those of `claim.grey`."""
    if min(len(claim.features.points), len(listing.features.points)) < MIN_FEATURES:
        return Match(None, 0, 0), True
    straight = match_features(claim.features, listing.features, claim.grey.size)
    if straight.homography is not None and straight.inliers >= _PLENTY:
        return straight, False
    turned = match_features(claim.features, listing.mirrored, claim.grey.size)
    if turned.homography is None or (
        straight.homography is not None and straight.inliers >= turned.inliers
    ):
        return straight, False
    mirror = np.array([[-1.0, 0.0, listing.grey.shape[1] - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return Match(turned.homography @ mirror, turned.inliers, turned.matches), False


def match_features(claim: Features, listing: Features, area: int) -> Match:
    """Match two photos' features, without mirroring: such a homography is not believed. area: of the claim photo, in
    pixels."""
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
    # Repeated patterns give several matches at one place; a place counts once.
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
    """Whether a camera could have seen it: no mirror, no fold, no extreme scale or slant where the features lie.

    source: float32 [n, 2], the inliers in the listing photo.
    """
    import cv2

    left, top = source.min(axis=0)
    right, bottom = source.max(axis=0)
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)
    depths = np.column_stack([corners, np.ones(4)]) @ homography[2]
    if np.abs(depths).min() < 1e-9 or not (np.sign(depths) == np.sign(depths[0])).all():
        return False
    quad = cv2.perspectiveTransform(corners[None].astype(np.float32), homography)[0].astype(
        np.float64
    )
    edges = np.roll(quad, -1, axis=0) - quad
    following = np.roll(edges, -1, axis=0)
    if not (edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0] > 0).all():
        return False
    scales = []
    for point in (*corners, corners.mean(axis=0)):
        large, small = np.linalg.svd(jacobian(homography, point), compute_uv=False)
        if small <= 0 or large / small > _MAX_STRETCH:
            return False
        scales.append(float(np.sqrt(large * small)))
    return (
        _SCALES[0] < min(scales)
        and max(scales) < _SCALES[1]
        and max(scales) / min(scales) < _MAX_STRETCH
    )


def jacobian(homography: Matrix, point: NDArray[np.float64]) -> Matrix:
    """2x2: how far (x, y) of the claim photo moves with (x, y) of the listing photo at `point`."""
    x, y, depth = homography @ np.array([point[0], point[1], 1.0])
    jacobi: Matrix = (
        homography[:2, :2] - np.outer([x / depth, y / depth], homography[2, :2])
    ) / depth
    return jacobi


def _mutual_pairs(claim: Float32Array, listing: Float32Array) -> NDArray[np.int64]:
    """int [n, 2]: features that are each other's nearest, and clearly nearer than the second nearest."""
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
