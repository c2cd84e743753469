"""Random fields and shapes that damage and annotations are drawn with: noise, outlines, strokes.

Everything is float32, vectorised, and a pure function of its arguments and the random generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Array = NDArray[np.float32]
Stroke = tuple[float, float, float, float, float]
"""A straight piece of a line: x0, y0, x1, y1 and its width, in pixels."""

_LEVELS = np.arange(256) / 255.0
_TO_LINEAR: Array = np.where(
    _LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4
).astype(np.float32)
# Square-root spacing, because the sRGB curve is steep near black.
_CODES = 4096
_LINEAR = (np.arange(_CODES + 1) / _CODES) ** 2
_TO_SRGB: Array = np.where(
    _LINEAR <= 0.0031308, 12.92 * _LINEAR, 1.055 * np.maximum(_LINEAR, 1e-9) ** (1 / 2.4) - 0.055
).astype(np.float32)


def to_linear(rgb: NDArray[np.uint8]) -> Array:
    """sRGB bytes to linear light in 0..1, same shape (IEC 61966-2-1)."""
    return _TO_LINEAR[rgb]


def to_bytes(linear: Array) -> NDArray[np.uint8]:
    """Linear light to sRGB bytes, same shape, clipped; `to_bytes(to_linear(rgb))` is rgb."""
    index = (np.sqrt(np.clip(linear, 0.0, 1.0)) * _CODES + 0.5).astype(np.int32)
    return (_TO_SRGB[index] * 255.0 + 0.5).astype(np.uint8)


def luminance(linear: Array) -> Array:
    """Linear light [..., 3] to luminance [...] (Rec. 709)."""
    red, green, blue = np.moveaxis(linear, -1, 0)
    weights = np.array([0.2126, 0.7152, 0.0722], np.float32)
    total: Array = weights[0] * red + weights[1] * green + weights[2] * blue
    return total


def smoothstep(low: float, high: float, x: NDArray[np.floating]) -> Array:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    t = t.astype(np.float32, copy=False)
    smooth: Array = t * t * (3.0 - 2.0 * t)
    return smooth


def blur(x: Array, sigma: float) -> Array:
    """Gaussian blur of a field [h, w], reflected at the rim."""
    return ndimage.gaussian_filter(x, sigma, mode="reflect", truncate=3.0) if sigma > 0.05 else x


def _knots(length: int, cell: float, phase: float) -> tuple[NDArray[np.int64], Array]:
    """For each of `length` pixels: the knot before it, and how far it is to the next (eased,
    0..1)."""
    position = np.arange(length) / cell + phase
    before = position.astype(np.int64)
    t = (position - before).astype(np.float32)
    return before, t * t * (3 - 2 * t)


def noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    cell: float | tuple[float, float],
    octaves: int = 1,
) -> Array:
    """Smooth value noise [h, w] within -1..1.

    cell: pixels between the knots, one number or (vertical, horizontal); each octave halves it.
    """
    cy, cx = (cell, cell) if isinstance(cell, int | float) else cell
    total = np.zeros(shape, np.float32)
    weight, reach = 1.0, 0.0
    for _ in range(octaves):
        above, down = _knots(shape[0], max(cy, 1.0), rng.random())
        before, across = _knots(shape[1], max(cx, 1.0), rng.random())
        values = rng.uniform(-weight, weight, (above[-1] + 2, before[-1] + 2)).astype(np.float32)
        rows = values[above] + down[:, None] * (values[above + 1] - values[above])
        left = rows.take(before, 1)
        total += left + across * (rows.take(before + 1, 1) - left)
        reach += weight
        weight, cy, cx = weight / 2, cy / 2, cx / 2
    return total / np.float32(reach)


def grid(shape: tuple[int, int], centre: tuple[float, float]) -> tuple[Array, Array]:
    """Coordinates (y [h, 1], x [1, w]) in pixels from `centre` (y, x)."""
    y = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    x = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(centre[1])
    return y, x


def strokes(shape: tuple[int, int], lines: Sequence[Stroke]) -> Array:
    """Coverage in 0..1 of straight pieces with round joints, anti-aliased, [h, w]."""
    oversample = 3
    canvas = Image.new("L", (shape[1] * oversample, shape[0] * oversample))
    draw = ImageDraw.Draw(canvas)
    for x0, y0, x1, y1, width in lines:
        ends = [(x * oversample, y * oversample) for x, y in ((x0, y0), (x1, y1))]
        thick = width * oversample
        draw.line(ends, fill=255, width=max(1, round(thick)))
        if thick > 4:
            for x, y in ends:
                draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=255)
    return np.asarray(canvas.reduce(oversample), np.float32) / np.float32(255)


def tapered(points: NDArray[np.float64], widths: NDArray[np.float64]) -> list[Stroke]:
    """The strokes along points [n, 2] (x, y), the k-th `widths[k]` wide; more widths are
    ignored."""
    pieces = zip(points[:-1].tolist(), points[1:].tolist(), widths.tolist(), strict=False)
    return [(x0, y0, x1, y1, width) for (x0, y0), (x1, y1), width in pieces]


@dataclass(frozen=True)
class Walk:
    """How a line strays: pixels of a step, radians of turn in a step, pull back to the heading."""

    step: float
    wander: float
    straighten: float = 0.3

    def points(
        self, rng: np.random.Generator, start: tuple[float, float], heading: float, length: float
    ) -> NDArray[np.float64]:
        """Points [n, 2] (x, y) of a line of `length` pixels that leaves `start` (x, y)."""
        count = max(2, int(length / self.step))
        turn, bearings = 0.0, np.empty(count)
        for i, push in enumerate(rng.normal(0, self.wander, count)):
            turn = turn * (1 - self.straighten) + push
            bearings[i] = heading + turn
        moves = np.stack([np.cos(bearings), np.sin(bearings)], 1) * self.step
        steps = np.vstack([np.zeros((1, 2)), np.cumsum(moves, 0)])
        points: NDArray[np.float64] = steps + np.asarray(start)
        return points
