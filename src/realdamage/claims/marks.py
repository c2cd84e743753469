"""Reads visible marks of AI near the upper and lower edge of a photo.

GB 45438-2025 asks for a visible text such as "AI生成" or "人工智能合成" at an edge or a corner, at
least 5% of the shorter side high; generators stamp sparkles and their names. A template finds the
sparkle; text recognition (the extra "ocr") reads the words. Anyone can put such words on a photo,
so a mark leads to a person.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realdamage.core.decode import UInt8Array
from realdamage.errors import MissingExtraError
from realdamage.phrases import Phrase, phrase, printable

Box: TypeAlias = tuple[int, int, int, int]
BAND = 0.2
"""Height of the searched bands, as a share of the photo's shorter side."""
MIN_SPARKLE = 0.86
"""Correlation from which the sparkle counts; chosen with tests/trials/marks_trial.py --seed 0."""
# Sides of the photo's shorter side at which text and sparkles are looked for, in pixels.
_TEXT_SIDE, _SPARKLE_SIDE = 480, 480
_SPARKLE_SIDES = tuple(round(36 * 1.125**step) for step in range(6))
_SPARKLE_STROKE = 31  # widest shape, in pixels at that side
_CORNER = 0.18  # of the shorter side, within which a sparkle is
_MIN_CONTRAST = 5.0  # deviation in grey levels inside a window
_MIN_READ = 0.6  # confidence of the recognition
_MIN_HEIGHT = 0.02  # of a line, as a share of the shorter side

_AI = r"(?:A ?[I1L|]|人工智能)"
_MADE = r"(?:生成|合成|创作|制作|绘制|作画)"
_ENGLISH_AI = r"A ?[I1L|]\.?(?![A-Z0-9])"
_MAKERS = r"(?:豆包|即梦|可灵|通义|文心|元宝|混元|智谱|海螺)"
_NAMES = r"JIMENG|DOUBAO|GEMINI|NANO ?BANANA|MIDJOURNEY|DALL ?[·.-]? ?E"
_DONE = r"(?:MADE|\w?ENERATED|CREATED|EDITED|PRODUCED)"
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_AI}.{{0,4}}{_MADE}",
        rf"{_MADE}.{{0,3}}{_AI}(?![A-Z0-9])",
        rf"{_DONE} ?(?:WITH|BY|USING) ?(?:\w{{2,10}} )?{_ENGLISH_AI}",
        rf"\bA ?[I1L|] ?-? ?(?:{_DONE}|GEN\b)",
        r"\w?ENERATED ?(?:WITH|BY) ?A$",  # the reader loses a last, thin I
        rf"{_MAKERS} ?A ?[I1L|]",
        rf"^\W*(?:{_MAKERS}|{_NAMES})\W*(?:\d[\d.]*)?$",
        r"\bSTABLE ?DIFFUSION\b",
    )
)


@dataclass(frozen=True)
class Mark:
    """A visible mark. text: as read, or "sparkle". box: (left, top, right, bottom) in pixels of the
    upright photo, right and bottom exclusive. likeness: correlation or confidence, in 0..1."""

    text: str
    box: Box
    found_by: Literal["template", "ocr"]
    likeness: float

    @property
    def said(self) -> Phrase:
        """What is shown."""
        if self.text == "sparkle":
            return phrase("visible_ai_sparkle")
        return phrase("visible_ai_mark", text=self.text)

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types."""
        return asdict(self) | {"box": list(self.box), "likeness": round(self.likeness, 3)}


def find_marks(rgb: UInt8Array, *, ocr: bool | None = None) -> tuple[Mark, ...]:
    """The visible marks of AI in an upright photo, uint8 [h, w, 3]; one for each place. ocr: read
    text too; by default if the recogniser is installed. Raises MissingExtraError without it."""
    read = has_ocr() if ocr is None else ocr
    found = list(_recognised(rgb)) if read else []
    for mark in _sparkles(rgb):
        if not any(_overlap(mark.box, other.box) for other in found):
            found.append(mark)
    return tuple(found)


def has_ocr() -> bool:
    """Whether the recogniser of text is installed (the extra `ocr`)."""
    return find_spec("rapidocr") is not None


def is_mark(text: str) -> bool:
    """Whether a line of text says that AI made the picture. A brand's name alone is a mark only
    where it is the whole line."""
    line = " ".join(unicodedata.normalize("NFKC", text).upper().split())
    return any(pattern.search(line) for pattern in _PATTERNS)


def _bands(height: int, width: int) -> list[tuple[int, int]]:
    """(first row, end) of the searched bands."""
    band = max(1, round(BAND * min(height, width)))
    return [(0, min(band, height)), (max(0, height - band), height)]


def _recognised(rgb: UInt8Array) -> Iterator[Mark]:
    """Marks among the lines of text in the bands."""
    height, width = rgb.shape[:2]
    short = min(height, width)
    scale = _TEXT_SIDE / short
    for top, bottom in _bands(height, width):
        size = (max(32, round(width * scale)), max(32, round((bottom - top) * scale)))
        band = Image.fromarray(rgb[top:bottom]).resize(size, Image.Resampling.BICUBIC)
        read = load_recogniser()(np.asarray(band)[..., ::-1].copy())
        lines = (read.boxes, read.txts, read.scores)
        for corners, text, confidence in zip(*lines, strict=True) if read.txts else ():
            points = np.asarray(corners, np.float64) / scale
            box = _box(points.min(axis=0), points.max(axis=0), top, (width, bottom - top))
            tall = (box[3] - box[1]) >= _MIN_HEIGHT * short
            if tall and float(confidence) >= _MIN_READ and is_mark(text):
                yield Mark(printable(text), box, "ocr", float(confidence))


def _box(
    low: NDArray[np.float64], high: NDArray[np.float64], top: int, limits: tuple[int, int]
) -> Box:
    """The box of a place in a band that begins at the row `top`. limits: the band's width and
    height."""
    left, upper = (int(value) for value in np.clip(np.floor(low), 0, limits))
    right, lower = (int(value) for value in np.clip(np.ceil(high), 0, limits))
    return left, upper + top, right, lower + top


@cache
def load_recogniser() -> Any:
    """The recogniser, on one thread; its models are in its package."""
    try:
        from rapidocr import RapidOCR
    except ModuleNotFoundError:
        raise MissingExtraError("reading words on photos", "ocr", "rapidocr") from None
    one_thread = ("intra_op_num_threads", "inter_op_num_threads")
    options: dict[str, int | str] = {f"EngineConfig.onnxruntime.{name}": 1 for name in one_thread}
    # The bands are long and low: their longer side is limited, not the shorter one raised to 736.
    options |= {"Det.limit_side_len": 960, "Det.limit_type": "max"}
    return RapidOCR(params={**options, "Global.use_cls": False, "Global.log_level": "error"})


def _sparkles(rgb: UInt8Array) -> Iterator[Mark]:
    """The best sparkle of each band, if it is like enough."""
    height, width = rgb.shape[:2]
    for top, bottom in _bands(height, width):
        scale = _SPARKLE_SIDE / min(height, width)
        grey = _grey(np.ascontiguousarray(rgb[top:bottom]), scale)
        likeness, x, y, side = max(_candidates(grey, is_upper=top == 0), default=(0.0, 0, 0, 0))
        if likeness >= MIN_SPARKLE:
            low, high = (np.array([x + more, y + more]) / scale for more in (0, side))
            box = _box(low, high, top, (width, bottom - top))
            yield Mark("sparkle", box, "template", min(1.0, likeness))


def _candidates(
    grey: NDArray[np.float32], *, is_upper: bool
) -> Iterator[tuple[float, int, int, int]]:
    """(correlation, x, y, side) of the best place for each size of sparkle in the corners of a
    band."""
    import cv2

    reach = round(_CORNER * _SPARKLE_SIDE)
    top = 0 if is_upper else max(0, grey.shape[0] - reach)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_SPARKLE_STROKE, _SPARKLE_STROKE))
    for left in (0, max(0, grey.shape[1] - reach)):
        corner = np.ascontiguousarray(grey[top : top + reach, left : left + reach])
        # What is brighter, and what is darker, than its surroundings and narrower than the kernel.
        for operation in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
            shapes = np.asarray(cv2.morphologyEx(corner, operation, kernel), np.float32)
            for side in _SPARKLE_SIDES:
                if side <= min(shapes.shape):
                    likeness, x, y = _best_place(shapes, _sparkle(side))
                    yield likeness, left + x, top + y, side


def _grey(band: UInt8Array, scale: float) -> NDArray[np.float32]:
    import cv2

    size = (max(32, round(band.shape[1] * scale)), max(16, round(band.shape[0] * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    grey = cv2.cvtColor(band, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, size, interpolation=interpolation), np.float32)


def _best_place(
    shapes: NDArray[np.float32], template: NDArray[np.float32]
) -> tuple[float, int, int]:
    """(correlation, x, y) of the place most like the template; plain areas count as unlike."""
    import cv2

    size = template.shape[::-1]
    found = cv2.matchTemplate(shapes, template, cv2.TM_CCOEFF_NORMED)
    mean, square = (
        cv2.boxFilter(values, -1, size, anchor=(0, 0)) for values in (shapes, shapes * shapes)
    )
    plain = (square - mean * mean)[: found.shape[0], : found.shape[1]] < _MIN_CONTRAST**2
    found[plain | ~np.isfinite(found)] = 0
    _, likeness, _, (x, y) = cv2.minMaxLoc(found)
    return float(likeness), x, y


@cache
def _sparkle(side: int) -> NDArray[np.float32]:
    """A star with four points and hollow sides on a dark square, whose side is 1.5 stars."""
    fine = np.abs(np.linspace(-1.5, 1.5, 4 * side, dtype=np.float32)) ** (2 / 3)
    inside = fine[:, None] + fine[None, :] <= 1
    drawn = inside.reshape(side, 4, side, 4).mean(axis=(1, 3))
    return np.asarray(255 * drawn, np.float32)


def _overlap(one: Box, other: Box) -> bool:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return across > 0 and down > 0
