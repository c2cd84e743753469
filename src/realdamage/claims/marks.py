"""Reads visible marks of AI near the upper and lower edge of a photo.

GB 45438-2025 asks for a visible text such as "AI生成" or "人工智能合成" at an edge or a corner, at
least 5% of the shorter side high; generators stamp sparkles and their names. Templates find the
sparkle, and few of the words (data/results/LOG.md); text recognition (the extra "ocr") reads most.
Anyone can put such words on a photo, so a mark leads to a person.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realdamage.core.decode import UInt8Array
from realdamage.errors import MissingExtraError
from realdamage.phrases import Phrase, phrase, printable

Box: TypeAlias = tuple[int, int, int, int]
Match: TypeAlias = tuple[str, float, tuple[float, float, float, float]]
"""(what it is like, correlation, (left, top, right, bottom))."""

BAND = 0.2
"""Height of the searched bands, as a share of the photo's shorter side."""
# Both chosen with tests/trials/marks_trial.py --seed 0, reported with --seed 7.
MIN_WORD = 0.52
"""Correlation from which a template of a word counts."""
MIN_SPARKLE = 0.86
"""Correlation from which the template of the sparkle counts."""
# Sides of the photo's shorter side at which text, words and sparkles are looked for, in pixels.
_TEXT_SIDE, _WORD_SIDE, _SPARKLE_SIDE = 480, 320, 480
_WORD_HEIGHTS = tuple(round(12 * 1.13**step) for step in range(9))
_SPARKLE_SIDES = tuple(round(36 * 1.125**step) for step in range(6))
_WORD_STROKE, _SPARKLE_STROKE = 7, 31  # widest stroke or shape, in pixels at those sides
_CORNER = 0.18  # of the shorter side, within which a sparkle is
_MIN_CONTRAST = 5.0  # deviation in grey levels inside a window
_MIN_READ = 0.6  # confidence of the recognition
_MIN_HEIGHT = 0.02  # of a line, as a share of the shorter side
_SHEET_HEIGHT = 40  # of a word in marks.png

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
    """A visible mark. text: as read; "sparkle" for the star-shaped logo.

    box: (left, top, right, bottom) in pixels of the upright photo, right and bottom exclusive.
    found_by: "template" or "ocr". likeness: correlation or confidence, in 0..1.
    """

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
    """The visible marks of AI in an upright photo, uint8 [h, w, 3]; one for each place.

    ocr: recognise text too; by default if the recogniser is installed. Raises RealDamageError with
        the code missing_extra when it, or a package that it imports, is missing.
    """
    read = has_ocr() if ocr is None else ocr
    found = list(_recognised(rgb)) if read else []
    for mark in _matched(rgb):
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


def _matched(rgb: UInt8Array) -> Iterator[Mark]:
    """Marks that look like a template: of each band the best word and, in its corners, the best
    sparkle."""
    height, width = rgb.shape[:2]
    for top, bottom in _bands(height, width):
        band = np.ascontiguousarray(rgb[top:bottom])
        for search in (_best_word, _best_sparkle):
            name, likeness, place = search(band, min(height, width), upper=top == 0)
            if likeness >= (MIN_WORD if search is _best_word else MIN_SPARKLE):
                left, high, right, low = place
                limits = (width, bottom - top)
                box = _box(np.array([left, high]), np.array([right, low]), top, limits)
                yield Mark(name, box, "template", min(1.0, likeness))


def _best_word(band: UInt8Array, short: int, upper: bool) -> Match:
    """The place in a band that is most like a word. short: shorter side of the photo."""
    scale = _WORD_SIDE / short
    best: Match = ("", 0.0, (0.0, 0.0, 0.0, 0.0))
    for lines in _strokes(_grey(band, scale), _WORD_STROKE):
        for name, template in _words():
            for tall in _WORD_HEIGHTS:
                best = max(best, _best(name, lines, _resized(template, tall), scale), key=_likeness)
    return best


def _best_sparkle(band: UInt8Array, short: int, upper: bool) -> Match:
    """The place in the two corners of a band that is most like a sparkle."""
    scale = _SPARKLE_SIDE / short
    reach = round(_CORNER * _SPARKLE_SIDE)
    grey = _grey(band, scale)
    rows = slice(0, reach) if upper else slice(max(0, grey.shape[0] - reach), None)
    best: Match = ("", 0.0, (0.0, 0.0, 0.0, 0.0))
    for left in (0, max(0, grey.shape[1] - reach)):
        corner = np.ascontiguousarray(grey[rows, left : left + reach])
        for shapes in _strokes(corner, _SPARKLE_STROKE):
            for side in _SPARKLE_SIDES:
                found = _best("sparkle", shapes, _sparkle(side), scale, (left, rows.start))
                best = max(best, found, key=_likeness)
    return best


def _likeness(found: Match) -> float:
    return found[1]


def _grey(band: UInt8Array, scale: float) -> NDArray[np.float32]:
    import cv2

    size = (max(32, round(band.shape[1] * scale)), max(16, round(band.shape[0] * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    grey = cv2.cvtColor(band, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, size, interpolation=interpolation), np.float32)


def _strokes(grey: NDArray[np.float32], side: int) -> tuple[NDArray[np.float32], ...]:
    """What is brighter, and what is darker, than its surroundings and narrower than `side`."""
    import cv2

    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    operations = (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT)
    return tuple(
        np.asarray(cv2.morphologyEx(grey, operation, kernel), np.float32)
        for operation in operations
    )


def _best(
    name: str,
    lines: NDArray[np.float32],
    template: NDArray[np.float32],
    scale: float,
    offset: tuple[int, int] = (0, 0),
) -> Match:
    """The place of `lines` most like the template, in pixels of the band. offset: of `lines`."""
    import cv2

    high, wide = template.shape
    if high > lines.shape[0] or wide > lines.shape[1]:
        return name, 0.0, (0.0, 0.0, 0.0, 0.0)
    found = cv2.matchTemplate(lines, template, cv2.TM_CCOEFF_NORMED)
    mean, square = (
        cv2.boxFilter(values, -1, (wide, high), anchor=(0, 0)) for values in (lines, lines * lines)
    )
    plain = (square - mean * mean)[: found.shape[0], : found.shape[1]] < _MIN_CONTRAST**2
    found[plain | ~np.isfinite(found)] = 0
    _, likeness, _, (x, y) = cv2.minMaxLoc(found)
    left, top = (x + offset[0]) / scale, (y + offset[1]) / scale
    return name, float(likeness), (left, top, left + wide / scale, top + high / scale)


@cache
def _words() -> tuple[tuple[str, NDArray[np.float32]], ...]:
    """(text, template [40, w]) of each word: the rows of marks.png, made by
    tests/trials/marks_trial.py."""
    sheet = Path(__file__).with_name("marks.png")
    with Image.open(sheet) as picture:
        names = picture.info["words"].split("|")
        pixels = np.asarray(picture.convert("L"), np.float32)
    rows = pixels.reshape(len(names), _SHEET_HEIGHT, pixels.shape[1])
    cut = [row[:, : int(np.flatnonzero(row.any(axis=0))[-1]) + 1] for row in rows]
    return tuple(zip(names, cut, strict=True))


def _resized(template: NDArray[np.float32], tall: int) -> NDArray[np.float32]:
    import cv2

    size = (max(2, round(template.shape[1] * tall / template.shape[0])), tall)
    return np.asarray(cv2.resize(template, size, interpolation=cv2.INTER_AREA), np.float32)


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
