"""Solids that a camera ray can hit: boxes, turned bodies, ring handles and low reliefs lying on the ground.

Just enough ray casting, vectorised over rays, for product-like photos: correct perspective, silhouettes and shadows.
Rays and points are component-first float32 arrays [3, n]; the ground is z = 0 and products are about one unit large.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from realdamage.synthesis.fields import Array, mix

_MISS = np.float32(np.inf)


@dataclass(frozen=True)
class Pose:
    """Where a solid stands: columns of `turn` [3, 3] are its own axes in the world, `place` [3] its origin."""

    turn: Array
    place: Array

    def inwards(self, origin: Array, rays: Array) -> tuple[Array, Array]:
        """Origin [3] or [3, n] and rays [3, n] in the solid's own frame."""
        shift = origin - (self.place if origin.ndim == 1 else self.place[:, None])
        return mix(self.turn.T, shift), mix(self.turn.T, rays)

    def onto(self, points: Array) -> Array:
        """Points [3, n] of the world in the solid's own frame."""
        return mix(self.turn.T, points - self.place[:, None])

    def outwards(self, directions: Array) -> Array:
        """Directions [3, n] of the solid's own frame in the world."""
        return mix(self.turn, directions)


def upright(x: float = 0, y: float = 0, z: float = 0, yaw: float = 0) -> Pose:
    """A pose that stands upright at a place, turned by `yaw` radians about the vertical."""
    sin, cos = np.sin(yaw), np.cos(yaw)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)
    return Pose(turn, np.array([x, y, z], np.float32))


@dataclass(frozen=True)
class Touch:
    """Where rays touch a solid: normal [3, n] in the world, u and v in 0..1 [n], face number [n]."""

    normal: Array
    u: Array
    v: Array
    face: NDArray[np.int32]


class Solid(Protocol):
    """`reach` finds the hits of many rays; `touch` describes the surface at points that were hit."""

    def reach(self, origin: Array, rays: Array) -> Array:
        """Distance [n] in units of the rays [3, n] from origin ([3] or [3, n]); inf where a ray misses."""
        ...

    def touch(self, points: Array) -> Touch:
        """The surface at points [3, n] that lie on it."""
        ...


@dataclass(frozen=True)
class Box:
    """A box with rounded edges; `half` are half its sides, faces are numbered -x, +x, -y, +y, -z, +z."""

    pose: Pose
    half: tuple[float, float, float]
    rounding: float = 0.02

    def reach(self, origin: Array, rays: Array) -> Array:
        own, along = self.pose.inwards(origin, rays)
        near, far = np.float32(-np.inf), _MISS
        for axis in range(3):
            inverse = 1 / np.where(np.abs(along[axis]) < 1e-9, np.float32(1e-9), along[axis])
            a, b = (-self.half[axis] - own[axis]) * inverse, (self.half[axis] - own[axis]) * inverse
            near, far = np.maximum(near, np.minimum(a, b)), np.minimum(far, np.maximum(a, b))
        return np.where((near <= far) & (near > 1e-3), near, _MISS)

    def touch(self, points: Array) -> Touch:
        own = self.pose.onto(points)
        half = np.array(self.half, np.float32)[:, None]
        share = own / half
        axis = np.abs(share).argmax(0)
        columns = np.arange(own.shape[1])
        face = (2 * axis + (share[axis, columns] > 0)).astype(np.int32)
        bent = np.sign(own) * np.maximum(np.abs(own) - (half - np.float32(self.rounding)), 1e-6)
        normal = self.pose.outwards(bent / np.linalg.norm(bent, axis=0))
        across = np.where(axis == 0, share[1], share[0])
        up = np.where(axis == 2, share[1], share[2])
        mirrored = (face == 0) | (face == 3)
        return Touch(
            normal, np.where(mirrored, 0.5 - across / 2, 0.5 + across / 2), 0.5 - up / 2, face
        )


@dataclass(frozen=True)
class Turned:
    """A turned body about its own z axis: straight pieces between (radius, height) knots of rising height, ends open.

    u runs round the body, v from its top to its foot.
    """

    pose: Pose
    radii: tuple[float, ...]
    heights: tuple[float, ...]

    def reach(self, origin: Array, rays: Array) -> Array:
        o, d = self.pose.inwards(origin, rays)
        best = np.full(rays.shape[1], _MISS, np.float32)
        square_d, product, square_o = (
            d[0] ** 2 + d[1] ** 2,
            o[0] * d[0] + o[1] * d[1],
            o[0] ** 2 + o[1] ** 2,
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            for k in range(len(self.radii) - 1):
                low, high = self.heights[k], self.heights[k + 1]
                slope = (self.radii[k + 1] - self.radii[k]) / (high - low)
                base = self.radii[k] + slope * (o[2] - low)
                a = square_d - (slope * d[2]) ** 2
                b = product - slope * base * d[2]
                root = np.sqrt(b * b - a * (square_o - base * base))
                for t in ((-b - root) / a, (-b + root) / a):
                    z = o[2] + t * d[2]
                    best = np.where((z >= low) & (z <= high) & (t > 1e-3) & (t < best), t, best)
        return best

    def touch(self, points: Array) -> Touch:
        own = self.pose.onto(points)
        heights, radii = np.array(self.heights), np.array(self.radii)
        slopes = np.diff(radii) / np.diff(heights)
        knots = np.concatenate([slopes[:1], (slopes[1:] + slopes[:-1]) / 2, slopes[-1:]])
        slope = np.interp(own[2], heights, np.clip(knots, -4, 4)).astype(np.float32)
        radius = np.hypot(own[0], own[1]) + np.float32(1e-6)
        normal = np.stack([own[0] / radius, own[1] / radius, -slope]) / np.sqrt(1 + slope * slope)
        u = np.arctan2(own[1], own[0]) / np.float32(2 * np.pi) + 0.5
        v = (heights[-1] - own[2]) / np.float32(heights[-1] - heights[0])
        return Touch(
            self.pose.outwards(normal), u, v.astype(np.float32), np.zeros(own.shape[1], np.int32)
        )


@dataclass(frozen=True)
class Disc:
    """A flat round lid of a turned body: facing along its own z axis."""

    pose: Pose
    radius: float

    def reach(self, origin: Array, rays: Array) -> Array:
        o, d = self.pose.inwards(origin, rays)
        t = -o[2] / np.where(np.abs(d[2]) < 1e-9, np.float32(1e-9), d[2])
        hit = (o[0] + t * d[0]) ** 2 + (o[1] + t * d[1]) ** 2 < self.radius**2
        return np.where(hit & (t > 1e-3), t, _MISS)

    def touch(self, points: Array) -> Touch:
        own = self.pose.onto(points)
        normal = np.repeat(self.pose.turn[:, 2:], own.shape[1], axis=1)
        size = np.float32(2 * self.radius)
        return Touch(
            normal, own[0] / size + 0.5, own[1] / size + 0.5, np.zeros(own.shape[1], np.int32)
        )


@dataclass(frozen=True)
class Handle:
    """The half x > 0 of a ring in its own x-z plane, seen as if it were round in section: the ear of a mug."""

    pose: Pose
    radius: float
    thickness: float

    def reach(self, origin: Array, rays: Array) -> Array:
        o, d = self.pose.inwards(origin, rays)
        t = -o[1] / np.where(np.abs(d[1]) < 1e-9, np.float32(1e-9), d[1])
        away = np.hypot(o[0] + t * d[0], o[2] + t * d[2]) - self.radius
        outside = (np.abs(away) < self.thickness) & (o[0] + t * d[0] > 0)
        return np.where(outside & (t > 1e-3), t, _MISS)

    def touch(self, points: Array) -> Touch:
        own = self.pose.onto(points)
        radius = np.hypot(own[0], own[2]) + np.float32(1e-6)
        lean = np.clip((radius - self.radius) / self.thickness, -0.99, 0.99).astype(np.float32)
        flat = np.sqrt(1 - lean * lean)
        normal = self.pose.outwards(
            np.stack([lean * own[0] / radius, flat, lean * own[2] / radius])
        )
        half = np.full(own.shape[1], 0.5, np.float32)
        return Touch(normal, half, half, np.zeros(own.shape[1], np.int32))


@dataclass(frozen=True)
class Relief:
    """A low thing on the ground: heights [m, m] in units (first row far off; 0: nothing) on a square of side `size`."""

    pose: Pose
    heights: Array
    size: float
    slopes: tuple[Array, Array] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        texel = self.size / self.heights.shape[0]
        down, across = np.gradient(self.heights, texel)
        object.__setattr__(self, "slopes", (across.astype(np.float32), -down.astype(np.float32)))

    def _texels(self, x: Array, y: Array) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        side = self.heights.shape[0]
        column = (x / self.size + 0.5) * side
        row = (0.5 - y / self.size) * side
        within = (column >= 0) & (column < side) & (row >= 0) & (row < side)
        index = np.clip(row, 0, side - 1).astype(np.int32) * side + np.clip(
            column, 0, side - 1
        ).astype(np.int32)
        return index, within

    def reach(self, origin: Array, rays: Array) -> Array:
        o, d = self.pose.inwards(origin, rays)
        down = np.where(np.abs(d[2]) < 1e-4, np.float32(1e-4), d[2])
        flat = self.heights.ravel()
        height = np.full(rays.shape[1], self.heights.max() / 2, np.float32)
        for _ in range(3):
            t = (height - o[2]) / down
            index, within = self._texels(o[0] + t * d[0], o[1] + t * d[1])
            height = flat[index] * within
        return np.where((height > 0) & (t > 1e-3), t, _MISS)

    def touch(self, points: Array) -> Touch:
        own = self.pose.onto(points)
        index, _ = self._texels(own[0], own[1])
        tilt = np.stack(
            [-self.slopes[0].ravel()[index], -self.slopes[1].ravel()[index], np.ones_like(own[0])]
        )
        normal = self.pose.outwards(tilt / np.linalg.norm(tilt, axis=0))
        u, v = own[0] / self.size + 0.5, 0.5 - own[1] / self.size
        return Touch(normal, u, v, np.zeros(own.shape[1], np.int32))
