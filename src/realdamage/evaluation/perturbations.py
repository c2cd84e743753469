"""What a photo went through before it was handed in: named, repeatable lists of steps, for a photo
and its mask.

What a step draws depends on the seed, the perturbation and the pair alone, so both halves of a pair
go through the same. The steps that training uses too come from `data.degradations`: what a network
learns to see through and what it is measured on are the same JPEG.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from realdamage.data import degradations
from realdamage.data.degradations import (
    FILTERS,
    RGB,
    SUBSAMPLINGS,
    Blur,
    Jpeg,
    Resize,
    Sharpen,
    Webp,
)
from realdamage.errors import ConfigError, did_you_mean

Mask = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
Rng = np.random.Generator

JPEG_GRID = 8
MAX_SHOWN = 2048
"""Longest side, in pixels, of a photo on a screen."""
VIEWER = 17
"""Grey level, of 255, around a photo that an app shows."""


class Pixels(NamedTuple):
    """rgb: uint8 [h, w, 3], upright. mask: float32 [h, w] in 0..1, the share of each pixel that is
    synthetic; None where it is unknown."""

    rgb: RGB
    mask: Mask | None

    def scaled(self, scale: float, resampling: str) -> Pixels:
        """Both at `scale`: the photo with a filter of `FILTERS`, the mask with a plain one, which
        never leaves 0..1."""
        rgb = Resize(scale, resampling)(self.rgb)
        if self.mask is None:
            return Pixels(rgb, None)
        shape = (rgb.shape[1], rgb.shape[0])
        smaller = shape[1] < self.mask.shape[0]
        plain = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
        return Pixels(rgb, np.asarray(Image.fromarray(self.mask).resize(shape, plain)))


@dataclass(frozen=True)
class ResizeBack:
    """Resizes by `scale` and back to the photo's own size."""

    scale: float
    filter: str = "bicubic"

    def __call__(self, photo: Pixels, rng: Rng) -> Pixels:
        height, width = photo.rgb.shape[:2]
        smaller = Image.fromarray(Resize(self.scale, self.filter)(photo.rgb))
        return photo._replace(rgb=np.asarray(smaller.resize((width, height), FILTERS[self.filter])))


@dataclass(frozen=True)
class Crop:
    """Keeps a window of `keep` (0..1) of each side, somewhere; the damage may end up outside."""

    keep: float

    def __call__(self, photo: Pixels, rng: Rng) -> Pixels:
        windows = []
        for side, share in zip(photo.rgb.shape[:2], rng.random(2), strict=True):
            kept = max(1, round(side * self.keep))
            start = int(share * (side - kept + 1))
            windows.append(slice(start, start + kept))
        window = tuple(windows)
        return Pixels(photo.rgb[window], None if photo.mask is None else photo.mask[window])


@dataclass(frozen=True)
class Noise:
    """Gaussian noise; `sigma` in grey levels of 255."""

    sigma: float

    def __call__(self, photo: Pixels, rng: Rng) -> Pixels:
        noise = degradations.Noise(self.sigma, int(rng.integers(2**31)))
        return photo._replace(rgb=noise(photo.rgb))


@dataclass(frozen=True)
class DoubleJpeg:
    """Two JPEG saves of quality `first` and `second`; the first one's grid is 1..7 pixels off, as
    after a crop."""

    first: int
    second: int
    subsampling: str = "4:2:0"

    def __call__(self, photo: Pixels, rng: Rng) -> Pixels:
        y, x = rng.integers(1, JPEG_GRID, 2).tolist()
        once = Jpeg(self.first, self.subsampling, shift=(y, x))(photo.rgb)
        return photo._replace(rgb=Jpeg(self.second, self.subsampling)(once))


@dataclass(frozen=True)
class Denoise:
    """A phone's night mode: `strength` (0..1) of a 3×3 median in the brightness, and colours
    blurred by sigma `chroma` pixels."""

    strength: float
    chroma: float = 2.0

    def __call__(self, photo: Pixels, rng: Rng) -> Pixels:
        luma, *colours = Image.fromarray(photo.rgb).convert("YCbCr").split()
        luma = Image.blend(luma, luma.filter(ImageFilter.MedianFilter(3)), self.strength)
        smooth = [plane.filter(ImageFilter.GaussianBlur(self.chroma)) for plane in colours]
        return photo._replace(rgb=np.asarray(Image.merge("YCbCr", (luma, *smooth)).convert("RGB")))


@dataclass(frozen=True)
class Screenshot:
    """A phone's screenshot of the photo at `scale` of its size, in a dark or light gallery, with
    bars above and below (each `bar` of its height), saved as JPEG of `quality`."""

    scale: float
    quality: int
    bar: float = 0.15

    def __call__(self, photo: Pixels, rng: Rng) -> Pixels:
        shown = photo.scaled(self.scale, "bilinear")  # as graphics chips scale
        height, width = shown.rgb.shape[:2]
        dark = rng.random() < 0.5
        minutes, charge = int(rng.integers(24 * 60)), float(rng.uniform(0.2, 1.0))
        paper, ink = ((0, 0, 0), (235, 235, 235)) if dark else ((250, 250, 250), (30, 30, 30))
        bar = round(height * self.bar)
        screen = Image.new("RGB", (width, height + 2 * bar), paper)
        screen.paste(Image.fromarray(shown.rgb), (0, bar))
        _draw_status(screen, bar, f"{minutes // 60}:{minutes % 60:02d}", charge, ink)
        mask = None if shown.mask is None else np.pad(shown.mask, ((bar, bar), (0, 0)))
        return Pixels(Jpeg(self.quality)(np.asarray(screen)), mask)


@dataclass(frozen=True)
class Recapture:
    """The photo on a screen, photographed by hand at `scale` of its size, saved as JPEG. Angles,
    pitch of the screen's grid and colours are drawn.

    moire: depth of the grid in linear light, 0..1; sampled at each sensor pixel's centre, as a real
    one is. noise: sigma in grey levels.
    """

    scale: float = 1.0
    moire: float = 0.12
    noise: float = 2.5
    quality: int = 88

    def __call__(self, photo: Pixels, rng: Rng) -> Pixels:
        scale = min(self.scale, MAX_SHOWN / max(photo.rgb.shape[:2]))
        if scale != 1:
            photo = photo.scaled(scale, "lanczos" if scale < 1 else "bicubic")
        height, width = photo.rgb.shape[:2]
        to_screen = _screen_seen_by_hand(height, width, rng)
        shown = _warped(photo.rgb, to_screen, Image.Resampling.BICUBIC, VIEWER)
        seen = self._photographed(shown, to_screen, rng)
        seen = degradations.Noise(self.noise, int(rng.integers(2**31)))(Blur(0.45)(seen))
        mask = photo.mask
        if mask is not None:
            mask = np.clip(_warped(mask, to_screen, Image.Resampling.BILINEAR, 0), 0, 1)
        return Pixels(Jpeg(self.quality)(seen), mask)

    def _photographed(self, shown: RGB, to_screen: Points, rng: Rng) -> RGB:
        """What the sensor makes of the light that the screen emits."""
        height, width = shown.shape[:2]
        y, x = np.mgrid[0:height, 0:width].astype(np.float32) + np.float32(0.5)
        pitch = 1 + rng.choice([-1, 1]) * rng.uniform(0.03, 0.12)  # sensor pixels a screen pixel
        # The focus is not the same everywhere.
        depth = _ramp(x, y, rng, 0.5, 1.0) * np.float32(self.moire)
        column, row = (axis * np.float32(2 * np.pi / pitch) for axis in _mapped(to_screen, x, y))
        gains, glow = rng.uniform((0.92, 0.98, 1.0), (1.0, 1.0, 1.12)), rng.uniform(0.004, 0.015)
        reflection = _ramp(x, y, rng, 0.0, rng.uniform(0.01, 0.05))
        from_centre = (x / width - 0.5) ** 2 + (y / height - 0.5) ** 2
        vignette = 1 - rng.uniform(0.1, 0.25) * (from_centre * 2)
        exposure, gamma = rng.uniform(1.0, 1.15), rng.uniform(1.9, 2.4)
        linear = ((np.arange(256) / 255) ** 2.2).astype(np.float32)
        seen = np.empty_like(shown)
        for channel in range(3):
            # The stripes of a screen pixel are a third of it apart: that is why moiré is coloured.
            stripe = np.cos(column - np.float32(2 * np.pi / 3 * channel))
            grid = 1 + depth * (stripe + 0.5 * np.cos(row))
            emitted = (linear[shown[..., channel]] * gains[channel] + glow) * grid
            light = emitted * vignette * exposure + reflection
            seen[..., channel] = np.rint(255 * np.clip(light, 0, 1) ** (1 / gamma))
        return seen


STEPS: Mapping[str, type] = {
    "jpeg": Jpeg,
    "webp": Webp,
    "double_jpeg": DoubleJpeg,
    "resize": Resize,
    "resize_back": ResizeBack,
    "crop": Crop,
    "blur": Blur,
    "noise": Noise,
    "sharpen": Sharpen,
    "denoise": Denoise,
    "screenshot": Screenshot,
    "recapture": Recapture,
}
"""The names of a suite's steps; their parameters are the fields of these classes."""

# A parameter means the same in every step that has it: (lowest, highest), which are integers where
# it must be one, or the names allowed.
_ALLOWED: Mapping[str, tuple[float, float] | Mapping[str, Any]] = {
    **dict.fromkeys(("quality", "first", "second"), (1, 100)),
    **dict.fromkeys(("keep", "bar"), (0.05, 1.0)),
    **dict.fromkeys(("strength", "moire"), (0.0, 1.0)),
    **dict.fromkeys(("sigma", "noise"), (0.0, 100.0)),
    **dict.fromkeys(("radius", "chroma"), (0.1, 20.0)),
    "scale": (0.05, 4.0),
    "percent": (0, 500),
    "filter": FILTERS,
    "subsampling": SUBSAMPLINGS,
}
_RESERVED = ("clean", "none")  # names for the unchanged photo


@dataclass(frozen=True)
class Perturbation:
    """A list of steps. name: in the predictions' column `perturbation`. title: for people."""

    name: str
    title: str
    steps: tuple[Any, ...]

    @property
    def file_quality(self) -> int | None:
        """Quality of the JPEG file that the last step saves; None: another file, or no file."""
        last = self.steps[-1]
        if isinstance(last, DoubleJpeg):
            return last.second
        return last.quality if isinstance(last, Jpeg | Screenshot | Recapture) else None

    def __call__(self, photo: Pixels, *, seed: int, key: str) -> Pixels:
        """The photo and its mask after all steps. What they draw depends on (seed, name, key)
        alone; give both halves of a pair the same `key`."""
        digest = hashlib.sha256(f"{seed}\0{self.name}\0{key}".encode()).digest()
        words = np.frombuffer(digest, dtype=np.uint32).tolist()
        for position, step in enumerate(self.steps):
            # A stream for each step, so that what one draws does not shift the next one's.
            rng = np.random.default_rng([*words, position])
            if isinstance(step, Resize):
                photo = photo.scaled(step.scale, step.filter)
            elif isinstance(step, Jpeg | Webp | Blur | Sharpen):
                photo = photo._replace(rgb=step(photo.rgb))
            else:
                photo = step(photo, rng)
        return photo


def suite_from_config(config: Mapping[str, Any]) -> tuple[Perturbation, ...]:
    """The perturbations of the section `robustness` of a configuration, as plain values:
    {"perturbations": {name: {"title": …, "steps": [{"step": name of STEPS, parameter: value, …},
    …]}, or None for one taken out}}.

    Raises ConfigError naming the key, what was found there and what is allowed.
    """
    found = config["perturbations"].items()
    return tuple(_perturbation(str(name), entry) for name, entry in found if entry is not None)


def _perturbation(name: str, entry: Any) -> Perturbation:
    where = f"robustness.perturbations.{name}"
    if not re.fullmatch("[a-z0-9][a-z0-9_]*", name) or name in _RESERVED:
        raise ConfigError(
            f"{where}: a name has small letters, digits and _; {' and '.join(_RESERVED)} mean the "
            "unchanged photo"
        )
    steps = entry.get("steps") if isinstance(entry, Mapping) else None
    if not isinstance(steps, list) or not steps or set(entry) - {"title", "steps"}:
        raise ConfigError(
            f"{where}={entry}: write {{title: …, steps: [{{step: NAME, …}}]}}, or null to leave it "
            "out"
        )
    made = tuple(_step(f"{where}.steps[{index}]", values) for index, values in enumerate(steps))
    return Perturbation(name, str(entry.get("title") or name), made)


def _step(where: str, values: Any) -> Any:
    kind = str(values.get("step")) if isinstance(values, Mapping) else ""
    if kind not in STEPS:
        raise ConfigError(
            f"{where}={values}: write {{step: NAME, parameter: value, …}} with a NAME of "
            f"{', '.join(STEPS)}.{did_you_mean(kind, STEPS)}"
        )
    given = {name: value for name, value in values.items() if name != "step"}
    known = {field.name: field for field in fields(STEPS[kind]) if field.name in _ALLOWED}
    required = [name for name, field in known.items() if field.default is MISSING]
    for name in (*given, *required):
        if name not in known or name not in given:
            takes = f"takes {', '.join(known)}"
            needs = f" and needs {' and '.join(required)}" if required else ""
            hint = did_you_mean(name, known)
            raise ConfigError(f"{where}.{name}: the step {kind} {takes}{needs}.{hint}")
    return STEPS[kind](**{name: _value(f"{where}.{name}", name, given[name]) for name in given})


def _value(where: str, name: str, value: Any) -> Any:
    allowed = _ALLOWED[name]
    if isinstance(allowed, Mapping):
        if value not in allowed:
            raise ConfigError(f"{where}={value}: allowed are {', '.join(allowed)}")
        return value
    low, high = allowed
    numbers = int if isinstance(low, int) else int | float
    if isinstance(value, bool) or not isinstance(value, numbers) or not low <= value <= high:
        sort = "whole number" if numbers is int else "number"
        raise ConfigError(f"{where}={value}: must be a {sort} in {low:g}..{high:g}")
    return type(low)(value)


def _draw_status(
    screen: Image.Image, bar: int, clock: str, charge: float, ink: tuple[int, int, int]
) -> None:
    """The clock, the battery and the line that closes an app."""
    draw, width = ImageDraw.Draw(screen), screen.width
    size = max(4, min(round(width * 0.035), bar // 2))
    draw.text((round(width * 0.06), size // 2), clock, ink, font=ImageFont.load_default(size))
    right, top = round(width * 0.94), size // 2 + size // 6
    left, bottom = right - 2 * size, top + size
    battery = (left, top, right, bottom)
    draw.rounded_rectangle(battery, size // 4, outline=ink, width=max(1, size // 10))
    full = left + 2 + charge * (right - left - 4)
    draw.rectangle((left + 2, top + 2, full, bottom - 2), fill=ink)
    low = screen.height - max(2, bar // 4)
    draw.rectangle((width * 0.35, low, width * 0.65, low + max(1, size // 8)), fill=ink)


def _screen_seen_by_hand(height: int, width: int, rng: Rng) -> Points:
    """The perspective map, float64 [3, 3], from the sensor to the photo on the screen, which nearly
    fills the frame."""
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float64)
    angle, inset = np.deg2rad(rng.uniform(0.7, 2.5) * rng.choice([-1, 1])), rng.uniform(0.025, 0.05)
    middle = np.array([width, height]) / 2
    turned = (corners - middle) * (1 - 2 * inset)
    turned = turned @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    seen = turned + middle + rng.uniform(-0.02, 0.02, (4, 2)) * (width, height)
    rows = []
    for (x, y), (u, v) in zip(seen, corners, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows), corners.ravel()), 1.0).reshape(3, 3)


def _mapped(homography: Points, x: Mask, y: Mask) -> tuple[Mask, Mask]:
    (a, b, c), (d, e, f), (g, h, i) = homography.astype(np.float32)
    below = g * x + h * y + i
    return (a * x + b * y + c) / below, (d * x + e * y + f) / below


def _warped(
    plane: npt.NDArray[Any], homography: Points, resampling: Image.Resampling, around: int
) -> npt.NDArray[Any]:
    """uint8 [h, w, 3] or float32 [h, w] as the sensor sees it, at the same size, in front of
    `around`."""
    rim = 2  # Pillow cuts the picture's edge off hard; inside a rim it is interpolated
    padding = [(rim, rim)] * 2 + [(0, 0)] * (plane.ndim - 2)
    padded = Image.fromarray(np.pad(plane, padding, constant_values=around))
    coefficients = (np.array([[1, 0, rim], [0, 1, rim], [0, 0, 1]]) @ homography).ravel()
    coefficients /= coefficients[-1]
    size, data = (plane.shape[1], plane.shape[0]), coefficients[:8].tolist()
    fill = (around,) * 3 if plane.ndim == 3 else around
    warp = Image.Transform.PERSPECTIVE
    return np.asarray(padded.transform(size, warp, data, resampling, fillcolor=fill))


def _ramp(x: Mask, y: Mask, rng: Rng, low: float, high: float) -> Mask:
    """From `low` to `high` across the frame in a drawn direction: float32 [h, w]."""
    angle = rng.uniform(0, 2 * np.pi)
    along = x / x.max() * np.cos(angle) + y / y.max() * np.sin(angle)
    along = (along - along.min()) / max(float(np.ptp(along)), 1e-6)
    return np.asarray(low + (high - low) * along, dtype=np.float32)
