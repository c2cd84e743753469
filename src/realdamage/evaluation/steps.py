"""The single steps that a photo goes through before it is handed in, each for the photo and for its mask.

Those of training (`training.degradations`) are taken as they are: what a net learns to see through and what it is
measured on must be the same JPEG. Here are the ones that move pixels, that draw numbers, or that training lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from realdamage.data.degradations import FILTERS, RGB, Jpeg, Resize
from realdamage.data.degradations import Noise as SeededNoise

Mask = npt.NDArray[np.float32]
JPEG_GRID = 8


class Pixels(NamedTuple):
    """rgb: uint8 [h, w, 3], upright. mask: float32 [h, w] in 0..1, the share of the pixel that is synthetic, or None
    where nobody knows."""

    rgb: RGB
    mask: Mask | None

    def resized(self, size: tuple[int, int], resampling: str) -> Pixels:
        """Both at size (h, w): the photo with a filter of `training.degradations.FILTERS`, the mask with a plain one,
        which never leaves 0..1."""
        shape = (size[1], size[0])
        rgb = np.asarray(Image.fromarray(self.rgb).resize(shape, FILTERS[resampling]))
        if self.mask is None:
            return Pixels(rgb, None)
        plain = Image.Resampling.BOX if size[0] < self.mask.shape[0] else Image.Resampling.BILINEAR
        return Pixels(rgb, np.asarray(Image.fromarray(self.mask).resize(shape, plain)))


class DrawnStep(Protocol):
    """A step of ours: photo and mask in, photo and mask out; `rng` gives all that is drawn."""

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> Pixels: ...


@dataclass(frozen=True)
class ResizeBack:
    """Resizes by `scale` and back to the photo's own size, with a named filter."""

    scale: float
    filter: str = "bicubic"

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = photo.rgb.shape[:2]
        smaller = Resize(self.scale, self.filter)(photo.rgb)
        return photo._replace(
            rgb=np.asarray(Image.fromarray(smaller).resize((width, height), FILTERS[self.filter]))
        )


@dataclass(frozen=True)
class Crop:
    """Keeps a window of `keep` (0..1) of each side, somewhere. The damage may end up outside, as it may for a buyer."""

    keep: float

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> Pixels:
        rows, columns = (
            self._window(side, share)
            for side, share in zip(photo.rgb.shape[:2], rng.random(2), strict=True)
        )
        return Pixels(
            photo.rgb[rows, columns], None if photo.mask is None else photo.mask[rows, columns]
        )

    def _window(self, side: int, share: float) -> slice:
        kept = max(1, round(side * self.keep))
        start = int(share * (side - kept + 1))
        return slice(start, start + kept)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise; `sigma` in grey levels of 255."""

    sigma: float

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> Pixels:
        return photo._replace(rgb=SeededNoise(self.sigma, int(rng.integers(2**31)))(photo.rgb))


@dataclass(frozen=True)
class DoubleJpeg:
    """Two JPEG saves of quality `first` and `second`; the grid of the first lies 1..7 pixels off, as after a crop."""

    first: int
    second: int
    subsampling: str = "4:2:0"

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> Pixels:
        (height, width), (y, x) = photo.rgb.shape[:2], rng.integers(1, JPEG_GRID, 2)
        padded = np.pad(photo.rgb, ((y, 0), (x, 0), (0, 0)), mode="edge")
        once = Jpeg(self.first, self.subsampling)(padded)[y : y + height, x : x + width]
        return photo._replace(rgb=Jpeg(self.second, self.subsampling)(once))


@dataclass(frozen=True)
class Sharpen:
    """Unsharp mask, as phones and galleries do: `percent` of the difference to a blur of sigma `radius` pixels."""

    percent: int
    radius: float = 1.5

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> Pixels:
        mask = ImageFilter.UnsharpMask(self.radius, self.percent, threshold=0)
        return photo._replace(rgb=np.asarray(Image.fromarray(photo.rgb).filter(mask)))


@dataclass(frozen=True)
class Denoise:
    """A phone's night mode in two strokes: `strength` (0..1) of a 3×3 median in the brightness, and colours blurred by
    sigma `chroma` pixels."""

    strength: float
    chroma: float = 2.0

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> Pixels:
        luma, *colours = Image.fromarray(photo.rgb).convert("YCbCr").split()
        luma = Image.blend(luma, luma.filter(ImageFilter.MedianFilter(3)), self.strength)
        smooth = [plane.filter(ImageFilter.GaussianBlur(self.chroma)) for plane in colours]
        return photo._replace(rgb=np.asarray(Image.merge("YCbCr", (luma, *smooth)).convert("RGB")))
