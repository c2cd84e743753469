"""Honest overlays: what buyers and support staff add to a real photo without touching what it
shows.

Arrows, circles, boxes, strokes, captions, dates, stickers, a mosaic over an address, a little more
brightness. Such photos stay real, and a detector must not take the overlay for a forgery.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from realdamage.synthesis.engine import RGB, Edit
from realdamage.synthesis.fields import Walk

Colour = tuple[int, int, int]
Point = tuple[float, float]

_PENS = (
    *((230, 30, 30), (250, 210, 20), (30, 170, 60), (30, 90, 230)),
    *((255, 255, 255), (15, 15, 15), (240, 60, 170)),
)
_WORDS = (
    *("broken here", "see crack", "DAMAGED", "look!", "scratch", "arrived like this", "defect"),
    *("refund please", "this side", "??", "stain"),
)
_SYLLABLES = (
    *("ba", "ve", "lo", "mi", "ra", "ton", "ka", "su", "ner"),
    *("fi", "do", "pel", "gra", "zu", "ti", "mo", "sha", "quin"),
)
_OVERSAMPLE_UP_TO = 1600  # long side; beyond it a pixel is fine enough for a smooth line


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at a size in pixels, the same on every machine."""
    return ImageFont.load_default(size)


@dataclass(frozen=True)
class _Overlay:
    """A transparent sheet over a photo of `size` (w, h), drawn on in pixels of the photo.

    scale: pixels of the sheet for one of the photo. spot, reach: what the marks point at, and its
    size.
    """

    draw: ImageDraw.ImageDraw
    scale: int
    size: tuple[int, int]
    spot: Point
    reach: float
    pen: Colour
    width: float
    rng: np.random.Generator

    def line(self, points: Sequence[Point], width: float = 0.0, fill: Colour | None = None) -> None:
        thick = max(1, round((width or self.width) * self.scale))
        scaled = [(x * self.scale, y * self.scale) for x, y in points]
        self.draw.line(scaled, fill=(*(fill or self.pen), 255), width=thick, joint="curve")

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        self.draw.polygon([(x * self.scale, y * self.scale) for x, y in points], fill=(*fill, 255))

    def disc(self, centre: Point, rx: float, ry: float, fill: Colour) -> None:
        (x, y), scale = centre, self.scale
        box = ((x - rx) * scale, (y - ry) * scale, (x + rx) * scale, (y + ry) * scale)
        self.draw.ellipse(box, fill=(*fill, 255))

    def text(
        self, at: Point, text: str, height: float, fill: Colour, backing: Colour | None = None
    ) -> None:
        """Text that begins at `at`, moved so that it starts inside the photo."""
        scale = self.scale
        face = _font(max(7, round(height * scale)))
        box = self.draw.textbbox((0, 0), text, font=face)
        left, top, right, bottom = (v / scale for v in box)
        x = float(np.clip(at[0], 2, max(2.0, self.size[0] - (right - left) - 4)))
        y = float(np.clip(at[1], 2, max(2.0, self.size[1] - (bottom - top) - 4)))
        if backing is not None:
            end_x, end_y = x + right - left + 3, y + bottom - top + 3
            corners = ((x - 3) * scale, (y - 2) * scale, end_x * scale, end_y * scale)
            self.draw.rectangle(corners, fill=(*backing, 255))
        start = ((x - left) * scale, (y - top) * scale)
        self.draw.text(start, text, font=face, fill=(*fill, 255))

    def somewhere(self) -> Point:
        x, y = self.rng.random(2) * self.size
        return float(x), float(y)


def _circle(o: _Overlay) -> None:
    by_hand = o.rng.random() < 0.6
    rx, ry = (float(radius) for radius in o.reach * o.rng.uniform(0.8, 1.3, 2))
    turns, wobble = (1.08, 0.12) if by_hand else (1.0, 0.0)
    angles = np.linspace(0, 2 * np.pi * turns, 48) + o.rng.uniform(0, 2 * np.pi)
    drift = 1 + wobble * np.cumsum(o.rng.normal(0, 0.25, 48)) / 3
    x, y = o.spot[0] + rx * drift * np.cos(angles), o.spot[1] + ry * drift * np.sin(angles)
    o.line(list(zip(x.tolist(), y.tolist(), strict=True)))


def _box(o: _Overlay) -> None:
    rx, ry = o.reach * o.rng.uniform(0.7, 1.3, 2)
    turns = ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1), (1, -1))
    o.line([(o.spot[0] + dx * rx, o.spot[1] + dy * ry) for dx, dy in turns])


def _arrow(o: _Overlay) -> None:
    angle, length = o.rng.uniform(0, 2 * np.pi), o.reach * o.rng.uniform(1.2, 2.5)
    away = np.array([np.cos(angle), np.sin(angle)])
    tip = np.array(o.spot) + away * o.reach * 0.3
    head = max(4 * o.width, 0.3 * length)
    side = np.array([-away[1], away[0]]) * head * 0.45
    barb = tip + away * head
    o.line(
        [(x, y) for x, y in ((tip + away * length).tolist(), (tip + away * head * 0.8).tolist())]
    )
    o.polygon([(x, y) for x, y in np.stack([tip, barb + side, barb - side]).tolist()], o.pen)


def _stroke(o: _Overlay) -> None:
    walk = Walk(max(2.0, o.reach / 8), wander=0.5, straighten=0.1)
    path = walk.points(o.rng, o.somewhere(), float(o.rng.uniform(0, 6.3)), o.reach * 3)
    o.line([(x, y) for x, y in path.tolist()])


def _caption(o: _Overlay) -> None:
    height = o.width * o.rng.uniform(4, 8)
    backing = None
    if o.rng.random() < 0.4:
        backing = (250, 250, 250) if sum(o.pen) < 380 else (15, 15, 15)
    at = (o.spot[0] - o.reach, o.spot[1] + o.reach * 1.3)
    o.text(at, str(o.rng.choice(_WORDS)), height, o.pen, backing)


def _date(o: _Overlay) -> None:
    ranges = ((1, 29), (1, 13), (2015, 2027), (0, 24), (0, 60))
    day, month, year, hour, minute = (int(o.rng.integers(*bounds)) for bounds in ranges)
    camera = "".join(str(part) for part in o.rng.choice(_SYLLABLES, int(o.rng.integers(2, 4))))
    texts = (
        f"{year}/{month:02d}/{day:02d} {hour:02d}:{minute:02d}",
        f"{day:02d}.{month:02d}.{year}",
        f"{camera.capitalize()} {year}-{month:02d}-{day:02d}",
    )
    text = str(o.rng.choice(texts))
    x = o.size[0] * float(o.rng.choice([0.03, 0.55]))
    y = o.size[1] * float(o.rng.choice([0.03, 0.92]))
    height = o.width * o.rng.uniform(3.5, 5.5)
    o.text((x, y), text, height, (255, 160, 40) if o.rng.random() < 0.5 else (250, 250, 250))


def _face(o: _Overlay, x: float, y: float, r: float) -> None:
    o.disc((x, y), r, r, (255, 205, 50))
    for side in (-1, 1):
        o.disc((x + side * 0.35 * r, y - 0.25 * r), 0.11 * r, 0.18 * r, (60, 40, 20))
    mood = float(o.rng.choice([-1, 1]))
    mouth = np.linspace(-1, 1, 12).tolist()
    points = [(x + 0.5 * r * m, y + r * (0.35 + mood * 0.2 * (1 - m * m))) for m in mouth]
    o.line(points, 0.1 * r, (60, 40, 20))


def _heart(o: _Overlay, x: float, y: float, r: float) -> None:
    t = np.linspace(0, 2 * np.pi, 40)
    across = (16 * np.sin(t) ** 3).tolist()
    up = (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)).tolist()
    points = [(x + r * a / 16, y - r * b / 16) for a, b in zip(across, up, strict=True)]
    o.polygon(points, (230, 40, 60))


def _warning(o: _Overlay, x: float, y: float, r: float) -> None:
    corners = [(x + 1.1 * r * np.sin(a), y - 1.1 * r * np.cos(a)) for a in (0, 2.094, 4.189)]
    o.polygon(corners, (250, 200, 20))
    o.line([*corners, corners[0]], 0.12 * r, (20, 20, 20))
    o.line([(x, y - 0.5 * r), (x, y + 0.1 * r)], 0.16 * r, (20, 20, 20))
    o.disc((x, y + 0.32 * r), 0.09 * r, 0.09 * r, (20, 20, 20))


def _tick(o: _Overlay, x: float, y: float, r: float) -> None:
    o.disc((x, y), r, r, (40, 180, 80) if o.rng.random() < 0.5 else (225, 50, 50))
    points = [(x - 0.5 * r, y), (x - 0.1 * r, y + 0.4 * r), (x + 0.5 * r, y - 0.4 * r)]
    o.line(points, 0.2 * r, (255, 255, 255))


def _sticker(o: _Overlay) -> None:
    x, y = o.somewhere()
    r = o.reach * o.rng.uniform(0.4, 0.9)
    (_face, _heart, _warning, _tick)[int(o.rng.integers(4))](o, x, y, r)


_DRAWN: dict[str, Callable[[_Overlay], None]] = {
    "circle": _circle,
    "box": _box,
    "arrow": _arrow,
    "stroke": _stroke,
    "caption": _caption,
    "date": _date,
    "sticker": _sticker,
}


def _mosaic(rgb: RGB, rng: np.random.Generator) -> RGB:
    """Hides a rectangle, as over an address: large pixels, or a strong blur."""
    out, (h, w) = rgb.copy(), rgb.shape[:2]
    tall, wide = (max(4, int(side * rng.uniform(0.08, 0.28))) for side in (h, w))
    y, x = int(rng.integers(0, max(1, h - tall))), int(rng.integers(0, max(1, w - wide)))
    where = slice(y, y + tall), slice(x, x + wide)
    part = Image.fromarray(out[where])
    block = max(3, round(min(h, w) * rng.uniform(0.015, 0.04)))
    size = (max(1, part.width // block), max(1, part.height // block))
    filling = Image.Resampling.NEAREST if rng.random() < 0.6 else Image.Resampling.BICUBIC
    out[where] = np.asarray(part.resize(size, Image.Resampling.BOX).resize(part.size, filling))
    return out


def _tone(rgb: RGB, rng: np.random.Generator) -> RGB:
    """Changes brightness, contrast and gamma of the whole photo, moderately."""
    curve = (np.arange(256) / 255) ** np.exp(rng.normal(0, 0.18)) - 0.5
    curve = 0.5 + curve * rng.uniform(0.85, 1.2) + rng.normal(0, 0.04)
    table = (np.clip(curve, 0, 1) * 255 + 0.5).astype(np.uint8)
    toned: RGB = table[rgb]
    return toned


_RETOUCHED: dict[str, Callable[[RGB, np.random.Generator], RGB]] = {
    "mosaic": _mosaic,
    "tone": _tone,
}
ANNOTATIONS = (*_DRAWN, *_RETOUCHED)


def annotated(rgb: RGB, rng: np.random.Generator, kinds: Sequence[str] = ANNOTATIONS) -> Edit:
    """A photo with one to three honest annotations on it, near the middle.

    rgb: uint8 [h, w, 3]; kinds: some of ANNOTATIONS, to draw from. The mask holds exactly the
    pixels whose bytes changed.
    """
    count = min(int(rng.integers(1, 4)), len(kinds))
    chosen = [str(kind) for kind in rng.choice(list(kinds), count, replace=False)]
    out = rgb
    for kind in chosen:
        if kind in _RETOUCHED:
            out = _RETOUCHED[kind](out, rng)
    drawn = [kind for kind in chosen if kind in _DRAWN]
    if drawn:
        out = _overlaid(out, drawn, rng)
    return Edit(out, (out != rgb).any(-1))


def _overlaid(rgb: RGB, kinds: Sequence[str], rng: np.random.Generator) -> RGB:
    h, w = rgb.shape[:2]
    scale = 2 if max(h, w) <= _OVERSAMPLE_UP_TO else 1
    sheet = Image.new("RGBA", (w * scale, h * scale))
    across, down = (float(np.clip(rng.normal(0.5, 0.15), 0.1, 0.9)) for _ in range(2))
    overlay = _Overlay(
        draw=ImageDraw.Draw(sheet),
        scale=scale,
        size=(w, h),
        spot=(w * across, h * down),
        reach=min(h, w) * float(rng.uniform(0.06, 0.2)),
        pen=_PENS[int(rng.integers(len(_PENS)))],
        width=max(1.2, min(h, w) * float(rng.uniform(0.006, 0.014))),
        rng=rng,
    )
    for kind in kinds:
        _DRAWN[kind](overlay)
    fine = sheet.resize((w, h), Image.Resampling.BOX)
    photo = Image.fromarray(rgb)
    photo.paste(fine.convert("RGB"), mask=fine.getchannel("A"))
    return np.array(photo)
