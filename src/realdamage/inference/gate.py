"""When a photo is too poor to be judged: limits on its quality, below which no outcome is given, not even "real"."""

from __future__ import annotations

import math
from dataclasses import dataclass

from realdamage.inference.errors import ConfigError
from realdamage.inference.quality import PhotoQuality


@dataclass(frozen=True)
class Gate:
    """The least quality of a photo that the model was shown to be right on (`realdamage gate`); None: no limit.

    min_side: of `PhotoQuality.short_side`, in pixels. min_sharpness: of `sharpness`, above 0 and below 1.
    min_quality: of `compression`, in 1..100. A photo at a limit passes it.

    Raises ConfigError on a number out of range.
    """

    min_side: int | None = None
    min_sharpness: float | None = None
    min_quality: float | None = None

    def __post_init__(self) -> None:
        if self.min_side is not None and self.min_side < 1:
            raise ConfigError(f"Gate: min_side={self.min_side} must be at least 1 pixel")
        if self.min_sharpness is not None and not 0 < self.min_sharpness < 1:
            raise ConfigError(f"Gate: min_sharpness={self.min_sharpness} must be above 0 and below 1")
        if self.min_quality is not None and not (math.isfinite(self.min_quality) and 1 <= self.min_quality <= 100):
            raise ConfigError(f"Gate: min_quality={self.min_quality} must be in 1..100")

    def faults(self, quality: PhotoQuality) -> list[tuple[str, str]]:
        """Why a photo of this quality is not judged: (code, sentence) for each limit that it misses."""
        found: list[tuple[str, str]] = []
        if self.min_side is not None and quality.short_side < self.min_side:
            found.append(
                (
                    "too_small",
                    f"The photo's shorter side has {quality.short_side} pixels; the model can be trusted from "
                    f"{self.min_side} on. Ask for the photo at its full size.",
                )
            )
        if self.min_sharpness is not None and quality.sharpness < self.min_sharpness:
            found.append(
                (
                    "too_blurred",
                    f"The photo's sharpness is {_short_of(quality.sharpness, self.min_sharpness)}; the model can be "
                    f"trusted from {self.min_sharpness:.3f} on. Ask for a sharper photo.",
                )
            )
        if self.min_quality is not None and quality.compression < self.min_quality:
            found.append(
                (
                    "too_compressed",
                    f"The photo was compressed like a JPEG of quality {quality.compression:.0f}; the model can be "
                    f"trusted from {self.min_quality:.0f} on. Ask for the original, not one that a chat app sent.",
                )
            )
        return found


def _short_of(value: float, limit: float) -> str:
    """With as many digits as it takes to tell it from the limit."""
    return next((text for digits in (3, 4, 5) if (text := f"{value:.{digits}f}") != f"{limit:.{digits}f}"), f"{value}")
