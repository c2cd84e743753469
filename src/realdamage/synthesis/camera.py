"""A simulated phone camera: what a sensor and its processing write into pixels, from scene light to in-camera JPEG.

Order of the steps as in a phone: lens (blur, vignetting), exposure, colour of the light, shot and read noise on a Bayer
mosaic, white balance, demosaicing, colour matrix, denoising, tone curve, sharpening, JPEG. Photos made here carry the
periodic and noise traces that a generator's decoder would wash out.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realdamage.synthesis.fields import Array, blur, dot, luminance, mix, to_srgb

_SENSITIVITY = np.array(
    [0.62, 1.0, 0.70], np.float32
)  # of the sensor's red, green and blue pixels to white light
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Camera:
    """One camera with the settings of one shot; `random_camera` draws plausible ones.

    blur: lens blur, sigma in pixels. vignette: light lost in the corners, 0..1. brightness: mean linear luminance aimed
    at. warmth: colour of the scene's light, 0 = white, > 0 = warm. balance: what the white balance leaves of it (red
    and blue gains - 1). shot, read: noise variance per unit of light, and noise floor (full scale = 1). phase: (row,
    column) of red in the 2 × 2 mosaic. malvar: gradient-corrected demosaicing instead of bilinear. crosstalk: colour
    saturation lost in the sensor and given back by the colour matrix. denoise, sharpen, contrast: strengths of these
    steps. sharpen_radius: pixels. quality, subsampling: of the in-camera JPEG (Pillow's numbers: 0 = 4:4:4, 2 = 4:2:0).
    """

    blur: float
    vignette: float
    brightness: float
    warmth: float
    balance: tuple[float, float]
    shot: float
    read: float
    phase: tuple[int, int]
    malvar: bool
    crosstalk: float
    denoise: float
    sharpen: float
    sharpen_radius: float
    contrast: float
    quality: int
    subsampling: int

    def photograph(self, scene: Array, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A photo, uint8 [h, w, 3], of the scene: float32 [h, w, 3], linear light >= 0. `rng` draws the noise only."""
        light = np.moveaxis(scene, -1, 0)
        light = np.stack([blur(plane, self.blur) for plane in light])
        light *= self._exposure(scene) * self._falloff(light.shape[1], light.shape[2])
        colours = self._develop(light, rng)
        encoded = self._tone(self._denoised(colours))
        return self._jpeg(self._sharpened(encoded))

    def _exposure(self, scene: Array) -> float:
        return self.brightness / max(float(luminance(scene[::4, ::4]).mean()), 1e-3)

    def _falloff(self, h: int, w: int) -> Array:
        y = np.linspace(-1, 1, h, dtype=np.float32)[:, None]
        x = np.linspace(-1, 1, w, dtype=np.float32)[None, :]
        distance = (x * x + y * y) / 2
        lost = np.float32(self.vignette) * distance * (0.6 + 0.4 * distance)
        return (1 - lost).astype(np.float32)

    def _develop(self, light: Array, rng: np.random.Generator) -> Array:
        """Sensor and raw processing: light [3, h, w] -> linear colours [3, h, w] in 0..1."""
        lamp = np.exp(np.float32(self.warmth) * np.array([0.35, 0.0, -0.45], np.float32))
        leak = (1 - self.crosstalk) * np.eye(3, dtype=np.float32) + np.float32(self.crosstalk / 3)
        planes = mix(leak * (_SENSITIVITY * lamp)[:, None], light)
        raw = mosaic(planes, self.phase)
        noisy = raw + np.sqrt(
            np.float32(self.shot) * np.maximum(raw, 0) + np.float32(self.read**2)
        ) * rng.standard_normal(raw.shape, np.float32)
        raw = np.round(np.clip(noisy, 0, 1) * 1023) / np.float32(1023)
        gains = np.array([1 + self.balance[0], 1, 1 + self.balance[1]], np.float32) / (
            _SENSITIVITY * lamp
        )
        # White balance before demosaicing, clipped together, so that highlights stay white.
        balanced = np.minimum(
            raw * mosaic(np.broadcast_to(gains[:, None, None], planes.shape), self.phase), 1
        )
        planes = demosaic(balanced.astype(np.float32), self.phase, malvar=self.malvar)
        return np.clip(mix(np.linalg.inv(leak), planes), 0, 1)

    def _denoised(self, colours: Array) -> Array:
        """Smooths colour and, below a threshold that follows the noise, brightness."""
        luma = dot(_LUMA, colours)
        smooth = blur(luma, 0.8)
        detail = luma - smooth
        floor = np.float32(self.denoise * 1.5) * np.sqrt(
            np.float32(self.shot) * np.maximum(smooth, 0) + np.float32(self.read**2)
        )
        kept = smooth + detail * detail * detail / (
            detail * detail + floor * floor + np.float32(1e-9)
        )
        sigma = 0.7 + 1.3 * self.denoise
        red, blue = (blur(colours[c] - luma, sigma) for c in (0, 2))
        green = -(_LUMA[0] * red + _LUMA[2] * blue) / _LUMA[1]
        return np.stack([kept + red, kept + green, kept + blue])

    def _tone(self, linear: Array) -> Array:
        """sRGB curve with more or less contrast in the middle, 0..1."""
        x = to_srgb(linear)
        toned: Array = x + np.float32(self.contrast) * x * (1 - x) * (2 * x - 1)
        return toned

    def _sharpened(self, encoded: Array) -> Array:
        luma = dot(_LUMA, encoded)
        edge = np.clip(luma - blur(luma, self.sharpen_radius), -0.12, 0.12)
        crisp: Array = np.clip(encoded + np.float32(self.sharpen) * edge, 0, 1)
        return crisp

    def _jpeg(self, encoded: Array) -> NDArray[np.uint8]:
        pixels = (np.moveaxis(encoded, 0, -1) * 255 + 0.5).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(
            buffer, "JPEG", quality=self.quality, subsampling=self.subsampling
        )
        buffer.seek(0)
        with Image.open(buffer) as photo:
            return np.array(photo.convert("RGB"))


def random_camera(rng: np.random.Generator) -> Camera:
    """A phone camera and the settings of one shot."""
    shot = float(np.exp(rng.uniform(np.log(8e-5), np.log(1.6e-3))))
    return Camera(
        blur=float(rng.uniform(0.4, 0.8)),
        vignette=float(rng.uniform(0.0, 0.35)),
        brightness=float(np.clip(rng.lognormal(np.log(0.25), 0.35), 0.1, 0.55)),
        warmth=float(rng.normal(0.2, 0.7)),
        balance=(float(rng.normal(0, 0.05)), float(rng.normal(0, 0.06))),
        shot=shot,
        read=float(np.sqrt(shot) * rng.uniform(0.03, 0.12)),
        phase=(int(rng.integers(2)), int(rng.integers(2))),
        malvar=bool(rng.random() < 0.7),
        crosstalk=float(rng.uniform(0.1, 0.35)),
        denoise=float(rng.uniform(0.2, 1.0)),
        sharpen=float(rng.uniform(0.4, 1.7)),
        sharpen_radius=float(rng.uniform(0.8, 1.6)),
        contrast=float(rng.uniform(0.3, 1.6)),
        quality=int(rng.integers(90, 99)),
        subsampling=int(rng.choice([0, 2])),
    )


def mosaic(planes: Array, phase: tuple[int, int]) -> Array:
    """What a Bayer sensor sees of planes [3, h, w]: [h, w], red at `phase` (row, column), blue diagonal to it."""
    row, column = phase
    raw: Array = planes[1].copy()
    raw[row::2, column::2] = planes[0, row::2, column::2]
    raw[1 - row :: 2, 1 - column :: 2] = planes[2, 1 - row :: 2, 1 - column :: 2]
    return raw


def demosaic(raw: Array, phase: tuple[int, int], *, malvar: bool) -> Array:
    """Full colour [3, h, w] from a Bayer mosaic [h, w]; bilinear, or gradient-corrected (Malvar, He, Cutler 2004)."""
    padded = np.pad(raw, 2, mode="reflect")
    h, w = raw.shape

    def at(dy: int, dx: int) -> Array:
        return padded[2 + dy : 2 + dy + h, 2 + dx : 2 + dx + w]

    across, down = at(0, -1) + at(0, 1), at(-1, 0) + at(1, 0)
    corners = at(-1, -1) + at(-1, 1) + at(1, -1) + at(1, 1)
    green, beside, above, opposite = (across + down) / 4, across / 2, down / 2, corners / 4
    if malvar:
        across2, down2 = at(0, -2) + at(0, 2), at(-2, 0) + at(2, 0)
        green = green + raw / 2 - (across2 + down2) / 8
        beside = beside + (5 * raw - corners - across2 + down2 / 2) / 8
        above = above + (5 * raw - corners - down2 + across2 / 2) / 8
        opposite = opposite + 0.75 * raw - 0.1875 * (across2 + down2)
    out = np.stack([raw, raw, raw])
    for colour, (row, column) in ((0, phase), (2, (1 - phase[0], 1 - phase[1]))):
        out[1, row::2, column::2] = green[row::2, column::2]
        out[2 - colour, row::2, column::2] = opposite[row::2, column::2]
        out[colour, row::2, 1 - column :: 2] = beside[row::2, 1 - column :: 2]
        out[colour, 1 - row :: 2, column::2] = above[1 - row :: 2, column::2]
    return out.astype(np.float32, copy=False)
