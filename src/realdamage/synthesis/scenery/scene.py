"""What stands before the studio's camera and from where it is seen: the two values that a rendering depends on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from realdamage.synthesis.fields import Array
from realdamage.synthesis.scenery.materials import Material
from realdamage.synthesis.scenery.shapes import Solid


@dataclass(frozen=True)
class Part:
    """A solid and the material of each of its faces; the last material serves the faces that follow."""

    solid: Solid
    materials: tuple[Material, ...]


@dataclass(frozen=True)
class Product:
    """parts: the first hit along a ray is what one sees. radius, height: of a sphere around it all, and its middle's
    height. elevation: from how high it is usually photographed, radians (low, high)."""

    parts: tuple[Part, ...]
    radius: float
    height: float
    elevation: tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """A product on a ground, before a wall, under a lamp.

    ground, wall: albedo [m, m, 3]; *_scale: units that one texture covers. ground_turn: radians. ground_gloss: 0..1.
    wall_distance: behind the product, units. light: unit vector [3] towards the lamp. softness: radius of the lamp as
    seen from the product. ambient: share of the light that comes from everywhere. windows: directions [k, 3] of further
    bright areas that glossy things mirror. falloff: how fast the lamp's light fades across the scene.
    """

    product: Product
    ground: Array
    ground_scale: float
    ground_turn: float
    ground_gloss: float
    wall: Array
    wall_scale: float
    wall_distance: float
    light: Array
    softness: float
    ambient: float
    windows: Array
    falloff: float


@dataclass(frozen=True)
class View:
    """Where the photographer stands: azimuth, elevation and roll in radians; `distance` in units to a point `height`
    units above the origin; focal length in pixels; shift of that point from the frame's middle in pixels (x, y)."""

    azimuth: float
    elevation: float
    roll: float
    distance: float
    height: float
    focal: float
    shift: tuple[float, float]

    @cached_property
    def axes(self) -> Array:
        """Columns: the frame's right, down and the viewing direction, in the world [3, 3]."""
        sin, cos = np.sin(self.azimuth), np.cos(self.azimuth)
        forward = np.array(
            [sin * np.cos(self.elevation), cos * np.cos(self.elevation), -np.sin(self.elevation)]
        )
        right = np.array([cos, -sin, 0.0])
        down = np.cross(forward, right)
        s, c = np.sin(self.roll), np.cos(self.roll)
        columns: Array = np.stack([c * right + s * down, c * down - s * right, forward], 1).astype(
            np.float32
        )
        return columns

    @cached_property
    def eye(self) -> Array:
        """The camera's place in the world [3]."""
        place: Array = (np.array([0, 0, self.height]) - self.distance * self.axes[:, 2]).astype(
            np.float32
        )
        return place

    def frame(self, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Matrix [3, 3] from pixels (x, y, 1) of a photo (h, w) to ray directions in the world, not normalised."""
        cx, cy = shape[1] / 2 + self.shift[0], shape[0] / 2 + self.shift[1]
        pixels = np.array(
            [
                [1 / self.focal, 0, -cx / self.focal],
                [0, 1 / self.focal, -cy / self.focal],
                [0, 0, 1],
            ]
        )
        matrix: NDArray[np.float64] = self.axes.astype(np.float64) @ pixels
        return matrix

    def rays(
        self, shape: tuple[int, int], rows: NDArray[np.generic], columns: NDArray[np.generic]
    ) -> Array:
        """Unit rays [3, n] through the crossings of pixel rows and columns of a photo (h, w), row by row."""
        y, x = np.meshgrid(rows.astype(np.float32), columns.astype(np.float32), indexing="ij")
        frame = self.frame(shape).astype(np.float32)
        rays: Array = frame[:, :1] * x.ravel() + frame[:, 1:2] * y.ravel() + frame[:, 2:]
        rays /= np.sqrt((rays * rays).sum(0))
        return rays
