"""What happens to a photo on its way to the claim: recompression, resizing, blur, noise, drawn at random, repeatable.

A chain is drawn once and applied to both halves of a pair, with the same random numbers, so that no trace of the
laundering itself tells real from synthetic. It acts on a window around the crop: scales are relative, so resizing the
window is resizing the photo. Imports no torch, so that the robustness suite can use it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

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


class Step(Protocol):
    """One degradation: uint8 [h, w, 3] in, uint8 [h', w', 3] out; only `Resize` changes the size."""

    def __call__(self, rgb: RGB) -> RGB: ...


@dataclass(frozen=True)
class Jpeg:
    """Saves as JPEG and reads it back. `quality`: 1..95; `subsampling`: "4:2:0" or "4:4:4"; `shift`: how far (y, x) the
    8×8 grid starts before the first pixel, as after a crop, in 0..7 pixels."""

    quality: int
    subsampling: str = "4:2:0"
    shift: tuple[int, int] = (0, 0)

    def __call__(self, rgb: RGB) -> RGB:
        (y, x), (height, width) = self.shift, rgb.shape[:2]
        padded = np.pad(rgb, ((y, 0), (x, 0), (0, 0)), mode="edge")
        saved = _through_file(
            padded, "JPEG", quality=self.quality, subsampling=SUBSAMPLINGS[self.subsampling]
        )
        return saved[y : y + height, x : x + width]


@dataclass(frozen=True)
class Webp:
    """Saves as lossy WebP and reads it back. `quality`: 0..100."""

    quality: int

    def __call__(self, rgb: RGB) -> RGB:
        return _through_file(rgb, "WEBP", quality=self.quality, method=2)


@dataclass(frozen=True)
class Resize:
    """Resizes by `scale` (0..1 shrinks) with a named filter."""

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
class Noise:
    """Gaussian noise; `sigma` in grey levels of 255. The same seed gives the same noise to the same window size."""

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
class Chain:
    """A fixed sequence of steps. `scale`: size of the output relative to the input."""

    steps: tuple[Step, ...] = ()

    @property
    def scale(self) -> float:
        scale = 1.0
        for step in self.steps:
            if isinstance(step, Resize):
                scale *= step.scale
        return scale

    def __call__(self, rgb: RGB) -> RGB:
        for step in self.steps:
            rgb = step(rgb)
        return rgb


@dataclass(frozen=True)
class Degradations:
    """The distribution that chains are drawn from; one probability for each step, in the order of a chat app's chain:
    resize, blur, noise, first compression, second compression, whose 8×8 grid lies off the first one's in half of
    the draws.

    `probability`: share of the crops that get a chain at all. Ranges are inclusive: `scale` relative to the photo,
    `quality` of JPEG and WebP, `blur` sigma in pixels, `noise` sigma in grey levels. `curriculum_epochs`: over so many
    epochs probability and strength rise from zero (clean first, as training from the start on compressed photos stays
    at chance: data/results/LOG.md).
    """

    probability: float = 0.0
    resize: float = 0.3
    scale: tuple[float, float] = (0.5, 1.0)
    blur: float = 0.1
    blur_sigma: tuple[float, float] = (0.3, 1.0)
    noise: float = 0.1
    noise_sigma: tuple[float, float] = (1.0, 5.0)
    jpeg: float = 0.8
    webp: float = 0.1
    quality: tuple[int, int] = (50, 95)
    double: float = 0.2
    curriculum_epochs: int = 0
    filters: Sequence[str] = field(default=("bilinear", "bicubic", "lanczos", "box"))

    def __post_init__(self) -> None:
        for name in ("probability", "resize", "blur", "noise", "jpeg", "webp", "double"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ConfigError(
                    f"data.degradations.{name}={value}: a probability, must be in 0..1"
                )
        if (
            self.jpeg + self.webp > 1.0 + 1e-9
        ):  # one draw decides between them; 0.7 + 0.3 may come out a little above 1
            raise ConfigError(
                f"data.degradations.jpeg={self.jpeg}, webp={self.webp}: the first compression is one of them or none, "
                "so their sum must be in 0..1"
            )
        if self.curriculum_epochs < 0:
            raise ConfigError(
                f"data.degradations.curriculum_epochs={self.curriculum_epochs}: must not be negative"
            )
        for name, low, high in (
            ("scale", 0.05, 1.0),
            ("quality", 1, 95),
            ("blur_sigma", 0, 10),
            ("noise_sigma", 0, 100),
        ):
            first, last = getattr(self, name)
            if not low <= first <= last <= high:
                raise ConfigError(
                    f"data.degradations.{name}=[{first}, {last}]: must rise and lie within {low}..{high}"
                )
        unknown = [name for name in self.filters if name not in FILTERS]
        if unknown or not self.filters:
            raise ConfigError(
                f"data.degradations.filters={list(self.filters)}: allowed are {', '.join(FILTERS)}"
            )

    def draw(self, rng: np.random.Generator, epoch: int = 0) -> Chain:
        """Draws a chain. How many numbers it takes from `rng` depends on what is drawn: change a setting, and what is
        drawn from the same `rng` afterwards changes too."""
        strength = min(1.0, epoch / self.curriculum_epochs) if self.curriculum_epochs else 1.0
        use, resize, blur, noise, codec, double = rng.random(6)
        seed = int(rng.integers(2**31))
        if use >= self.probability * strength:
            return Chain()
        steps: list[Step] = []
        if resize < self.resize:
            low = 1.0 - (1.0 - self.scale[0]) * strength
            steps.append(
                Resize(
                    float(rng.uniform(min(low, self.scale[1]), self.scale[1])),
                    str(rng.choice(list(self.filters))),
                )
            )
        if blur < self.blur:
            steps.append(Blur(float(rng.uniform(*self.blur_sigma)) * strength))
        if noise < self.noise:
            steps.append(Noise(float(rng.uniform(*self.noise_sigma)) * strength, seed))
        if codec < self.jpeg:
            steps.append(self._jpeg(rng, strength))
        elif codec < self.jpeg + self.webp:
            steps.append(Webp(self._quality(rng, strength)))
        if double < self.double:
            shift = (int(rng.integers(8)), int(rng.integers(8))) if rng.random() < 0.5 else (0, 0)
            steps.append(replace(self._jpeg(rng, strength), shift=shift))
        return Chain(tuple(steps))

    def _quality(self, rng: np.random.Generator, strength: float) -> int:
        low, high = self.quality
        return int(rng.integers(round(high - (high - low) * strength), high + 1))

    def _jpeg(self, rng: np.random.Generator, strength: float) -> Jpeg:
        return Jpeg(self._quality(rng, strength), "4:2:0" if rng.random() < 0.7 else "4:4:4")
