"""What happens to a photo before it reaches a claim: recompression, resizing, blur and noise, drawn
at random but repeatable.

A degradation is drawn once and applied to both halves of a pair with the same random numbers, so
that its traces cannot separate real from synthetic. It acts on a window around the crop. Scales are
relative, so resizing the window is the same as resizing the photo.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from realdamage.errors import ConfigError

RGB = npt.NDArray[np.uint8]

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
SUBSAMPLINGS = {"4:4:4": 0, "4:2:0": 2}


Step = Callable[[RGB], RGB]
"""A pixel operation: uint8 [h, w, 3] in, uint8 [h', w', 3] out. Only `Resize` changes the size."""


@dataclass(frozen=True)
class Jpeg:
    """Saves as JPEG and reads it back.

    quality: 1..95.
    subsampling: "4:2:0" or "4:4:4".
    shift: how far (y, x) the 8×8 grid starts before the first pixel, as after a crop, in 0..7
        pixels.
    """

    quality: int
    subsampling: str = "4:2:0"
    shift: tuple[int, int] = (0, 0)

    def __call__(self, rgb: RGB) -> RGB:
        (y, x), (height, width) = self.shift, rgb.shape[:2]
        padded = np.pad(rgb, ((y, 0), (x, 0), (0, 0)), mode="edge")
        subsampling = SUBSAMPLINGS[self.subsampling]
        saved = _through_file(padded, "JPEG", quality=self.quality, subsampling=subsampling)
        return saved[y : y + height, x : x + width]


@dataclass(frozen=True)
class Webp:
    """Saves as lossy WebP and reads it back. `quality`: 0..100."""

    quality: int

    def __call__(self, rgb: RGB) -> RGB:
        return _through_file(rgb, "WEBP", quality=self.quality, method=2)


@dataclass(frozen=True)
class Resize:
    """Resizes by `scale` (below 1 shrinks) with one of `FILTERS`."""

    scale: float
    filter: str = "bicubic"

    def __call__(self, rgb: RGB) -> RGB:
        height, width = rgb.shape[:2]
        size = (max(1, round(width * self.scale)), max(1, round(height * self.scale)))
        return np.asarray(Image.fromarray(rgb).resize(size, FILTERS[self.filter]))


@dataclass(frozen=True)
class Blur:
    """Gaussian blur; `sigma` in pixels."""

    sigma: float

    def __call__(self, rgb: RGB) -> RGB:
        return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(self.sigma)))


@dataclass(frozen=True)
class Sharpen:
    """Unsharp mask, as phones do: adds `percent` of the difference to a blur of `radius` pixels."""

    percent: int
    radius: float = 1.5

    def __call__(self, rgb: RGB) -> RGB:
        mask = ImageFilter.UnsharpMask(self.radius, self.percent, threshold=0)
        return np.asarray(Image.fromarray(rgb).filter(mask))


@dataclass(frozen=True)
class Noise:
    """Gaussian noise; `sigma` in grey levels of 255. One seed gives windows of one size the same
    noise."""

    sigma: float
    seed: int

    def __call__(self, rgb: RGB) -> RGB:
        noise = np.random.default_rng(self.seed).normal(0.0, self.sigma, rgb.shape)
        return np.clip(np.rint(rgb + noise), 0, 255).astype(np.uint8)


def _through_file(rgb: RGB, file_format: str, **options: int) -> RGB:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, file_format, **options)
    buffer.seek(0)
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class Degradation:
    """A fixed sequence of steps."""

    steps: tuple[Step, ...] = ()

    @property
    def scale(self) -> float:
        """Size of the output relative to the input."""
        return math.prod(step.scale for step in self.steps if isinstance(step, Resize))

    def __call__(self, rgb: RGB) -> RGB:
        for step in self.steps:
            rgb = step(rgb)
        return rgb


@dataclass(frozen=True)
class Degradations:
    """The distribution that degradations are drawn from, `data.degradations` in a configuration.

    The steps come in the order of a chat app: resize, blur, sharpening, noise, first and second
    compression. In half of the draws the second one's 8×8 grid is off the first one's. Ranges
    include both ends.
    """

    probability: float = 0.0  # share of the crops that are degraded at all
    resize: float = 0.3  # probability of this step in those crops; the other steps are the same
    scale: tuple[float, float] = (0.5, 1.0)  # of the resize, relative to the photo
    blur: float = 0.1
    blur_sigma: tuple[float, float] = (0.3, 1.0)  # in pixels
    sharpen: float = 0.0
    sharpen_percent: tuple[int, int] = (20, 120)
    noise: float = 0.1
    noise_sigma: tuple[float, float] = (1.0, 5.0)  # in grey levels
    jpeg: float = 0.8  # probability that the first compression is JPEG
    webp: float = 0.1  # probability that it is WebP instead
    quality: tuple[int, int] = (50, 95)
    double: float = 0.2  # probability of a second compression, as JPEG
    # Probability and strength rise from zero over this many epochs, as training that starts on
    # compressed photos stays at chance (data/results/LOG.md).
    curriculum_epochs: int = 0
    filters: tuple[str, ...] = ("bilinear", "bicubic", "lanczos", "box")  # of the resize

    def __post_init__(self) -> None:
        for name in ("probability", "resize", "blur", "sharpen", "noise", "jpeg", "webp", "double"):
            self._check(name, 0.0 <= getattr(self, name) <= 1.0, "must be in 0..1")
        # 0.7 + 0.3 may come out a little above 1.
        rule = f"with webp={self.webp} the sum is above 1, but the first compression is one of them"
        self._check("jpeg", self.jpeg + self.webp <= 1.0 + 1e-9, rule)
        self._check("curriculum_epochs", self.curriculum_epochs >= 0, "must be at least 0")
        limits = {
            "scale": (0.05, 2),
            "quality": (1, 95),
            "blur_sigma": (0, 10),
            "sharpen_percent": (0, 500),
            "noise_sigma": (0, 100),
        }
        for name, (low, high) in limits.items():
            first, last = getattr(self, name)
            self._check(name, low <= first <= last <= high, f"must rise and lie in {low}..{high}")
        known = bool(self.filters) and set(self.filters) <= set(FILTERS)
        self._check("filters", known, f"allowed are {', '.join(FILTERS)}")

    def _check(self, name: str, fits: bool, rule: str) -> None:
        if not fits:
            raise ConfigError(f"data.degradations.{name}={getattr(self, name)}: {rule}")

    def draw(self, rng: np.random.Generator, epoch: int = 0) -> Degradation:
        """Draws a degradation. How many numbers it takes from `rng` depends on what is drawn."""
        strength = min(1.0, epoch / self.curriculum_epochs) if self.curriculum_epochs else 1.0
        use, resize, blur, noise, codec, double = rng.random(6)
        seed = int(rng.integers(2**31))
        if use >= self.probability * strength:
            return Degradation()
        steps: list[Step] = []
        if resize < self.resize:
            low, high = (1.0 + (end - 1.0) * strength for end in self.scale)
            scale = float(rng.uniform(low, high))
            steps.append(Resize(scale, str(rng.choice(list(self.filters)))))
        if blur < self.blur:
            steps.append(Blur(float(rng.uniform(*self.blur_sigma)) * strength))
        if self.sharpen and rng.random() < self.sharpen:
            low, high = self.sharpen_percent
            steps.append(Sharpen(int(rng.integers(low, high + 1) * strength)))
        if noise < self.noise:
            steps.append(Noise(float(rng.uniform(*self.noise_sigma)) * strength, seed))
        if codec < self.jpeg:
            steps.append(self._jpeg(rng, strength))
        elif codec < self.jpeg + self.webp:
            steps.append(Webp(self._quality(rng, strength)))
        if double < self.double:
            shift = (int(rng.integers(8)), int(rng.integers(8))) if rng.random() < 0.5 else (0, 0)
            steps.append(replace(self._jpeg(rng, strength), shift=shift))
        return Degradation(tuple(steps))

    def _quality(self, rng: np.random.Generator, strength: float) -> int:
        low, high = self.quality
        return int(rng.integers(round(high - (high - low) * strength), high + 1))

    def _jpeg(self, rng: np.random.Generator, strength: float) -> Jpeg:
        return Jpeg(self._quality(rng, strength), "4:2:0" if rng.random() < 0.7 else "4:4:4")
