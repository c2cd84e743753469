"""A photo that was shown on a screen before it was handed in: as a screenshot, or photographed off the screen.

Both are how a picture leaves a generator's app without its metadata, and how honest buyers forward photos too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from realdamage.data.degradations import RGB, Blur, Jpeg, Noise
from realdamage.evaluation.steps import Mask, Pixels

Points = npt.NDArray[np.float64]

MAX_SHOWN = 2048
"""Long side, in pixels, of what a screen shows of a photo at most."""
VIEWER = 17
"""Grey level around a photo that an app shows, of 255."""


@dataclass(frozen=True)
class Screenshot:
    """A phone's screenshot of the photo in a gallery: fitted to the screen (`scale` of its size), bars above and below
    (each `bar` of its height), status bar on top; a PNG file at first, which loses nothing, then a JPEG of `quality`.
    Whether the app is black or white is drawn."""

    scale: float
    quality: int
    bar: float = 0.15

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = (max(1, round(side * self.scale)) for side in photo.rgb.shape[:2])
        shown = photo.resized((height, width), "bilinear")  # a graphics chip scales so
        dark, minutes, charge = (
            rng.random() < 0.5,
            int(rng.integers(24 * 60)),
            float(rng.uniform(0.2, 1.0)),
        )
        paper, ink = ((0, 0, 0), (235, 235, 235)) if dark else ((250, 250, 250), (30, 30, 30))
        bar = round(height * self.bar)
        screen = Image.new("RGB", (width, height + 2 * bar), paper)
        screen.paste(Image.fromarray(shown.rgb), (0, bar))
        _draw_status(screen, bar, f"{minutes // 60}:{minutes % 60:02d}", charge, ink)
        mask = None if shown.mask is None else np.pad(shown.mask, ((bar, bar), (0, 0)))
        return Pixels(Jpeg(self.quality)(np.asarray(screen)), mask)


def _draw_status(
    screen: Image.Image, bar: int, clock: str, charge: float, ink: tuple[int, int, int]
) -> None:
    """The clock, the battery and the line that closes an app."""
    draw, width = ImageDraw.Draw(screen), screen.width
    size = max(4, min(round(width * 0.035), bar // 2))
    draw.text((round(width * 0.06), size // 2), clock, ink, font=ImageFont.load_default(size))
    right, top = round(width * 0.94), size // 2 + size // 6
    left, bottom = right - 2 * size, top + size
    draw.rounded_rectangle(
        (left, top, right, bottom), size // 4, outline=ink, width=max(1, size // 10)
    )
    draw.rectangle(
        (left + 2, top + 2, left + 2 + charge * (right - left - 4), bottom - 2), fill=ink
    )
    low = screen.height - max(2, bar // 4)
    draw.rectangle((width * 0.35, low, width * 0.65, low + max(1, size // 8)), fill=ink)


@dataclass(frozen=True)
class Recapture:
    """The photo on a screen, photographed by hand, at `scale` of its size: perspective and rotation, the screen's
    sub-pixel grid beating against the sensor's (moiré, `moire` = depth of the beat in linear light, 0..1), its black
    glow, white point and a reflection, another tone curve, slight blur, `noise` (sigma in grey levels), JPEG of
    `quality`. Angles, pitch of the grid and colours are drawn.

    The grid is not painted but sampled: its value at each sensor pixel's centre, so it beats as a real one does.
    """

    scale: float = 1.0
    moire: float = 0.12
    noise: float = 2.5
    quality: int = 88

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> Pixels:
        longest = max(photo.rgb.shape[:2])
        scale = min(self.scale, MAX_SHOWN / longest)
        if scale != 1:
            size = (
                max(1, round(photo.rgb.shape[0] * scale)),
                max(1, round(photo.rgb.shape[1] * scale)),
            )
            photo = photo.resized(size, "lanczos" if scale < 1 else "bicubic")
        height, width = photo.rgb.shape[:2]
        to_screen = _homography(_seen_corners(height, width, rng), _corners(height, width))
        shown = _seen(photo.rgb, to_screen, Image.Resampling.BICUBIC, VIEWER)
        seen = self._photographed(shown, to_screen, rng)
        seen = Noise(self.noise, int(rng.integers(2**31)))(Blur(0.45)(seen))
        if photo.mask is None:
            return Pixels(Jpeg(self.quality)(seen), None)
        mask = _seen(photo.mask, to_screen, Image.Resampling.BILINEAR, 0)
        return Pixels(Jpeg(self.quality)(seen), np.clip(mask, 0, 1))

    def _photographed(self, shown: RGB, to_screen: Points, rng: np.random.Generator) -> RGB:
        """What the sensor makes of the light that the screen emits."""
        height, width = shown.shape[:2]
        y, x = np.mgrid[0:height, 0:width].astype(np.float32) + np.float32(0.5)
        pitch = 1 + rng.choice([-1, 1]) * rng.uniform(0.03, 0.12)  # sensor pixels to a screen pixel
        depth = _ramp(x, y, rng, 0.5, 1.0) * np.float32(
            self.moire
        )  # the focus is not the same everywhere
        column, row = (axis * np.float32(2 * np.pi / pitch) for axis in _mapped(to_screen, x, y))
        gains, glow = rng.uniform((0.92, 0.98, 1.0), (1.0, 1.0, 1.12)), rng.uniform(0.004, 0.015)
        reflection = _ramp(x, y, rng, 0.0, rng.uniform(0.01, 0.05))
        vignette = 1 - rng.uniform(0.1, 0.25) * (
            ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) * 2
        )
        exposure, gamma = rng.uniform(1.0, 1.15), rng.uniform(1.9, 2.4)
        linear = ((np.arange(256) / 255) ** 2.2).astype(np.float32)
        seen = np.empty_like(shown)
        for channel in range(3):
            # Red, green and blue stripes lie a third of a pixel apart: that is why moiré is coloured.
            grid = 1 + depth * (
                np.cos(column - np.float32(2 * np.pi / 3 * channel)) + 0.5 * np.cos(row)
            )
            light = (
                linear[shown[..., channel]] * gains[channel] + glow
            ) * grid * vignette * exposure + reflection
            seen[..., channel] = np.rint(255 * np.clip(light, 0, 1) ** (1 / gamma))
        return seen


def _corners(height: int, width: int) -> Points:
    return np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float64)


def _seen_corners(height: int, width: int, rng: np.random.Generator) -> Points:
    """Where the sensor sees the photo's corners, float64 [4, 2] of (x, y): held by hand, nearly filling the frame."""
    angle, inset = np.deg2rad(rng.uniform(0.7, 2.5) * rng.choice([-1, 1])), rng.uniform(0.025, 0.05)
    middle = np.array([width, height]) / 2
    turned = (_corners(height, width) - middle) * (1 - 2 * inset)
    turned = turned @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(turned + middle + rng.uniform(-0.02, 0.02, (4, 2)) * (width, height))


def _homography(source: Points, target: Points) -> Points:
    """The perspective map, float64 [3, 3], that sends four points (x, y) to four others."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(values)), 1.0).reshape(3, 3)


def _mapped(homography: Points, x: Mask, y: Mask) -> tuple[Mask, Mask]:
    (a, b, c), (d, e, f), (g, h, i) = homography.astype(np.float32)
    below = g * x + h * y + i
    return (a * x + b * y + c) / below, (d * x + e * y + f) / below


def _seen(
    plane: npt.NDArray[Any], homography: Points, resampling: Image.Resampling, around: int
) -> npt.NDArray[Any]:
    """uint8 [h, w, 3] or float32 [h, w] as the sensor sees it, at the same size, in front of `around`."""
    rim = (
        2  # Pillow cuts the picture's edge off hard; inside a rim it is interpolated like all else
    )
    padded = np.pad(plane, [(rim, rim)] * 2 + [(0, 0)] * (plane.ndim - 2), constant_values=around)
    coefficients = (np.array([[1, 0, rim], [0, 1, rim], [0, 0, 1]]) @ homography).ravel()
    coefficients /= coefficients[-1]
    seen = Image.fromarray(padded).transform(
        (plane.shape[1], plane.shape[0]),
        Image.Transform.PERSPECTIVE,
        coefficients[:8].tolist(),
        resampling,
        fillcolor=(around,) * 3 if plane.ndim == 3 else around,
    )
    return np.asarray(seen)


def _ramp(x: Mask, y: Mask, rng: np.random.Generator, low: float, high: float) -> Mask:
    """From `low` to `high` across the frame in a drawn direction: float32 [h, w]."""
    angle = rng.uniform(0, 2 * np.pi)
    along = x / x.max() * np.cos(angle) + y / y.max() * np.sin(angle)
    along = (along - along.min()) / max(float(np.ptp(along)), 1e-6)
    return np.asarray(low + (high - low) * along, dtype=np.float32)
