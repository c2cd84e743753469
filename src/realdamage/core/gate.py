"""When a photo is too poor to be judged: limits on its quality, below which no outcome is given, not even "real"."""

from __future__ import annotations

import math
from dataclasses import dataclass

from realdamage.core.quality import PhotoQuality
from realdamage.errors import ConfigError
from realdamage.phrases.sentences import Phrase, phrase


@dataclass(frozen=True)
class Gate:
    """The least quality of a photo that the model was shown to be right on (`realdamage gate`); None: no limit.

    min_side: of `PhotoQuality.short_side`, in pixels. min_sharpness: of `sharpness`, above 0 and below 1.
    min_quality: of `compression`, in 1..100. min_fine_detail: of `fine_detail`, above 0. A photo at a limit passes it,
    and so does one whose `fine_detail` was not measured.

    Raises ConfigError on a number out of range.
    """

    min_side: int | None = None
    min_sharpness: float | None = None
    min_quality: float | None = None
    min_fine_detail: float | None = None

    def __post_init__(self) -> None:
        if self.min_side is not None and self.min_side < 1:
            raise ConfigError(f"Gate: min_side={self.min_side} must be at least 1 pixel")
        if self.min_sharpness is not None and not 0 < self.min_sharpness < 1:
            raise ConfigError(
                f"Gate: min_sharpness={self.min_sharpness} must be above 0 and below 1"
            )
        if self.min_quality is not None and not (
            math.isfinite(self.min_quality) and 1 <= self.min_quality <= 100
        ):
            raise ConfigError(f"Gate: min_quality={self.min_quality} must be in 1..100")
        if self.min_fine_detail is not None and not 0 < self.min_fine_detail < math.inf:
            raise ConfigError(
                f"Gate: min_fine_detail={self.min_fine_detail} must be a number above 0"
            )

    def faults(self, quality: PhotoQuality) -> list[Phrase]:
        """Why a photo of this quality is not judged: a phrase, named as the reason's code, for each limit it misses."""
        found: list[Phrase] = []
        if self.min_side is not None and quality.short_side < self.min_side:
            found.append(phrase("too_small", side=quality.short_side, limit=self.min_side))
        if self.min_sharpness is not None and quality.sharpness < self.min_sharpness:
            sharpness = _short_of(quality.sharpness, self.min_sharpness)
            found.append(
                phrase("too_blurred", sharpness=sharpness, limit=f"{self.min_sharpness:.3f}")
            )
        detail = quality.fine_detail
        if (
            self.min_fine_detail is not None
            and detail is not None
            and detail < self.min_fine_detail
        ):
            shown = _short_of(detail, self.min_fine_detail)
            found.append(phrase("too_soft", detail=shown, limit=f"{self.min_fine_detail:.4f}"))
        if self.min_quality is not None and quality.compression < self.min_quality:
            limit = f"{self.min_quality:.0f}"
            found.append(
                phrase("too_compressed", quality=f"{quality.compression:.0f}", limit=limit)
            )
        return found


def _short_of(value: float, limit: float) -> str:
    """With as many digits as it takes to tell it from the limit."""
    return next(
        (text for digits in (3, 4, 5) if (text := f"{value:.{digits}f}") != f"{limit:.{digits}f}"),
        f"{value}",
    )
