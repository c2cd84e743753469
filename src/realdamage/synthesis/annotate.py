"""Honest overlays: what buyers and support staff add to a real photo without touching what it shows.

Arrows, circles, boxes, strokes, captions, dates, stickers, a mosaic over an address, a little more brightness. Such
photos stay real, and a detector must not take the overlay for a forgery.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from realdamage.errors import SynthesisError
from realdamage.synthesis.engine import Edit
from realdamage.synthesis.fields import walk
from realdamage.synthesis.scenery.labels import contrast, font, name

Colour = tuple[int, int, int]
Point = tuple[float, float]

_PENS: tuple[Colour, ...] = (
    (230, 30, 30),
    (250, 210, 20),
    (30, 170, 60),
    (30, 90, 230),
    (255, 255, 255),
    (15, 15, 15),
    (240, 60, 170),
)
_WORDS = (
    "broken here",
    "see crack",
    "DAMAGED",
    "look!",
    "scratch",
    "arrived like this",
    "defect",
    "refund please",
    "this side",
    "??",
    "stain",
)
_OVERSAMPLE_UP_TO = 1600  # long side; beyond it a pixel is fine enough for a smooth line


@dataclass(frozen=True)
class _Overlay:
    """A transparent sheet over a photo (w, h): draw in photo pixels; `spot` is what the marks point at."""

    draw: ImageDraw.ImageDraw
    scale: int
    size: tuple[int, int]
    spot: Point
    reach: float
    pen: Colour
    width: float
    rng: np.random.Generator

    def line(
        self, points: Sequence[Point], width: float | None = None, fill: Colour | None = None
    ) -> None:
        thick = max(1, round((self.width if width is None else width) * self.scale))
        scaled = [(x * self.scale, y * self.scale) for x, y in points]
        self.draw.line(scaled, fill=(*(fill or self.pen), 255), width=thick, joint="curve")

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        self.draw.polygon([(x * self.scale, y * self.scale) for x, y in points], fill=(*fill, 255))

    def disc(self, centre: Point, rx: float, ry: float, fill: Colour) -> None:
        x, y = centre
        box = tuple(v * self.scale for v in (x - rx, y - ry, x + rx, y + ry))
        self.draw.ellipse((box[0], box[1], box[2], box[3]), fill=(*fill, 255))

    def text(
        self, at: Point, text: str, height: float, fill: Colour, backing: Colour | None = None
    ) -> None:
        """Text whose left middle is at `at`, moved so that it starts inside the photo."""
        face = font(max(7, round(height * self.scale)))
        left, top, right, bottom = (
            v / self.scale for v in self.draw.textbbox((0, 0), text, font=face)
        )
        x = float(np.clip(at[0], 2, max(2.0, self.size[0] - (right - left) - 4)))
        y = float(np.clip(at[1], 2, max(2.0, self.size[1] - (bottom - top) - 4)))
        if backing is not None:
            box = tuple(
                v * self.scale for v in (x - 3, y - 2, x + right - left + 3, y + bottom - top + 3)
            )
            self.draw.rectangle((box[0], box[1], box[2], box[3]), fill=(*backing, 255))
        self.draw.text(
            ((x - left) * self.scale, (y - top) * self.scale), text, font=face, fill=(*fill, 255)
        )

    def somewhere(self) -> Point:
        x, y = self.rng.random(2) * self.size
        return float(x), float(y)


def _ring(
    centre: Point, rx: float, ry: float, turns: float, wobble: float, rng: np.random.Generator
) -> list[Point]:
    angles = np.linspace(0, 2 * np.pi * turns, 48) + rng.uniform(0, 2 * np.pi)
    drift = 1 + wobble * np.cumsum(rng.normal(0, 0.25, 48)) / 3
    x, y = centre[0] + rx * drift * np.cos(angles), centre[1] + ry * drift * np.sin(angles)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _circle(o: _Overlay) -> None:
    by_hand = o.rng.random() < 0.6
    rx, ry = o.reach * o.rng.uniform(0.8, 1.3, 2)
    o.line(
        _ring(
            o.spot, float(rx), float(ry), 1.08 if by_hand else 1.0, 0.12 if by_hand else 0.0, o.rng
        )
    )


def _box(o: _Overlay) -> None:
    rx, ry = o.reach * o.rng.uniform(0.7, 1.3, 2)
    x, y = o.spot
    o.line(
        [
            (x - rx, y - ry),
            (x + rx, y - ry),
            (x + rx, y + ry),
            (x - rx, y + ry),
            (x - rx, y - ry),
            (x + rx, y - ry),
        ]
    )


def _arrow(o: _Overlay) -> None:
    angle, length = o.rng.uniform(0, 2 * np.pi), o.reach * o.rng.uniform(1.2, 2.5)
    away = np.array([np.cos(angle), np.sin(angle)])
    tip = np.array(o.spot) + away * o.reach * 0.3
    tail, head = tip + away * length, max(4 * o.width, 0.3 * length)
    side = np.array([-away[1], away[0]]) * head * 0.45
    o.line([(float(p[0]), float(p[1])) for p in (tail, tip + away * head * 0.8)])
    o.polygon(
        [
            (float(p[0]), float(p[1]))
            for p in (tip, tip + away * head + side, tip + away * head - side)
        ],
        o.pen,
    )


def _stroke(o: _Overlay) -> None:
    path = walk(
        o.rng,
        o.somewhere(),
        float(o.rng.uniform(0, 6.3)),
        o.reach * 3,
        max(2.0, o.reach / 8),
        wander=0.5,
        straighten=0.1,
    )
    o.line([(float(x), float(y)) for x, y in path])


def _caption(o: _Overlay) -> None:
    height = o.width * o.rng.uniform(4, 8)
    backing = contrast(o.pen) if o.rng.random() < 0.4 else None
    o.text(
        (o.spot[0] - o.reach, o.spot[1] + o.reach * 1.3),
        str(o.rng.choice(_WORDS)),
        height,
        o.pen,
        backing,
    )


def _date(o: _Overlay) -> None:
    day, month, year, hour, minute = (
        int(o.rng.integers(a, b)) for a, b in ((1, 29), (1, 13), (2015, 2027), (0, 24), (0, 60))
    )
    text = str(
        o.rng.choice(
            [
                f"{year}/{month:02d}/{day:02d} {hour:02d}:{minute:02d}",
                f"{day:02d}.{month:02d}.{year}",
                f"{name(o.rng)} {year}-{month:02d}-{day:02d}",
            ]
        )
    )
    x, y = (
        o.size[0] * float(o.rng.choice([0.03, 0.55])),
        o.size[1] * float(o.rng.choice([0.03, 0.92])),
    )
    o.text(
        (x, y),
        text,
        o.width * o.rng.uniform(3.5, 5.5),
        (255, 160, 40) if o.rng.random() < 0.5 else (250, 250, 250),
    )


def _sticker(o: _Overlay) -> None:
    x, y = o.somewhere()
    r = o.reach * o.rng.uniform(0.4, 0.9)
    kind = int(o.rng.integers(4))
    if kind == 0:  # a face
        o.disc((x, y), r, r, (255, 205, 50))
        for side in (-1, 1):
            o.disc((x + side * 0.35 * r, y - 0.25 * r), 0.11 * r, 0.18 * r, (60, 40, 20))
        mood = float(o.rng.choice([-1, 1]))
        mouth = np.linspace(-1, 1, 12)
        o.line(
            [(x + 0.5 * r * m, y + r * (0.35 + mood * 0.2 * (1 - m * m))) for m in mouth.tolist()],
            0.1 * r,
            (60, 40, 20),
        )
    elif kind == 1:  # a heart
        t = np.linspace(0, 2 * np.pi, 40)
        hx, hy = (
            16 * np.sin(t) ** 3,
            13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t),
        )
        o.polygon(
            [
                (x + r * a / 16, y - r * b / 16)
                for a, b in zip(hx.tolist(), hy.tolist(), strict=True)
            ],
            (230, 40, 60),
        )
    elif kind == 2:  # a warning sign
        corners = [(x + 1.1 * r * np.sin(a), y - 1.1 * r * np.cos(a)) for a in (0, 2.094, 4.189)]
        o.polygon(corners, (250, 200, 20))
        o.line([*corners, corners[0]], 0.12 * r, (20, 20, 20))
        o.line([(x, y - 0.5 * r), (x, y + 0.1 * r)], 0.16 * r, (20, 20, 20))
        o.disc((x, y + 0.32 * r), 0.09 * r, 0.09 * r, (20, 20, 20))
    else:  # a tick or a cross on a disc
        o.disc((x, y), r, r, (40, 180, 80) if o.rng.random() < 0.5 else (225, 50, 50))
        o.line(
            [(x - 0.5 * r, y), (x - 0.1 * r, y + 0.4 * r), (x + 0.5 * r, y - 0.4 * r)],
            0.2 * r,
            (255, 255, 255),
        )


_DRAWN: dict[str, Callable[[_Overlay], None]] = {
    "circle": _circle,
    "box": _box,
    "arrow": _arrow,
    "stroke": _stroke,
    "caption": _caption,
    "date": _date,
    "sticker": _sticker,
}


def _rectangle(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[slice, slice]:
    h, w = shape
    tall, wide = (max(4, int(side * rng.uniform(0.08, 0.28))) for side in (h, w))
    y, x = int(rng.integers(0, max(1, h - tall))), int(rng.integers(0, max(1, w - wide)))
    return slice(y, y + tall), slice(x, x + wide)


def _mosaic(rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Hides a rectangle, as over an address: large pixels, or a strong blur."""
    out, where = rgb.copy(), _rectangle(rng, (rgb.shape[0], rgb.shape[1]))
    part = Image.fromarray(out[where])
    block = max(3, round(min(rgb.shape[:2]) * rng.uniform(0.015, 0.04)))
    small = part.resize(
        (max(1, part.width // block), max(1, part.height // block)), Image.Resampling.BOX
    )
    filling = Image.Resampling.NEAREST if rng.random() < 0.6 else Image.Resampling.BICUBIC
    out[where] = np.asarray(small.resize(part.size, filling))
    return out


def _tone(rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Brightness, contrast and gamma of the whole photo, moderately."""
    levels = np.arange(256) / 255
    curve = (
        0.5
        + (levels ** np.exp(rng.normal(0, 0.18)) - 0.5) * rng.uniform(0.85, 1.2)
        + rng.normal(0, 0.04)
    )
    table = (np.clip(curve, 0, 1) * 255 + 0.5).astype(np.uint8)
    toned: NDArray[np.uint8] = table[rgb]
    return toned


_RETOUCHED: dict[str, Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]]] = {
    "mosaic": _mosaic,
    "tone": _tone,
}
ANNOTATIONS = (*_DRAWN, *_RETOUCHED)


@dataclass(frozen=True)
class Annotate:
    """Puts one to `most` honest annotations of the given `kinds` (names of ANNOTATIONS) on a photo.

    Raises SynthesisError when `kinds` is empty or has an unknown name, or `most` is below 1.
    """

    kinds: Sequence[str] = ANNOTATIONS
    most: int = 3
    generator: str = ""
    family: str = ""

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in ANNOTATIONS]
        if unknown or not self.kinds:
            found = f'"{unknown[0]}"' if unknown else "none"
            raise SynthesisError(
                f"Annotate: kinds must be some of {', '.join(ANNOTATIONS)}; found {found}."
            )
        if self.most < 1:
            raise SynthesisError(f"Annotate: most must be at least 1, found {self.most}.")

    def apply(
        self,
        rgb: NDArray[np.uint8],
        rng: np.random.Generator,
        region: NDArray[np.bool_] | None = None,
    ) -> Edit:
        """Annotates rgb: uint8 [h, w, 3]; the mask holds exactly the pixels whose bytes changed.

        region: bool [h, w], what the marks point at (real damage, say); a place near the middle when None or empty.
        """
        count = min(int(rng.integers(1, self.most + 1)), len(self.kinds))
        chosen = [str(kind) for kind in rng.choice(list(self.kinds), count, replace=False)]
        out = rgb
        for kind in chosen:
            if kind in _RETOUCHED:
                out = _RETOUCHED[kind](out, rng)
        drawn = [kind for kind in chosen if kind in _DRAWN]
        if drawn:
            out = _overlaid(out, drawn, rng, region)
        return Edit(rgb=out, mask=(out != rgb).any(-1), damage="")


def _overlaid(
    rgb: NDArray[np.uint8],
    kinds: Sequence[str],
    rng: np.random.Generator,
    region: NDArray[np.bool_] | None,
) -> NDArray[np.uint8]:
    h, w = rgb.shape[:2]
    scale = 2 if max(h, w) <= _OVERSAMPLE_UP_TO else 1
    sheet = Image.new("RGBA", (w * scale, h * scale))
    if region is not None and region.any():
        y, x = np.nonzero(region)
        spot = (float(x.mean()), float(y.mean()))
        reach = float(max(np.ptp(x), np.ptp(y))) * 0.6 + 0.02 * min(h, w)
    else:
        spot = (
            float(w * np.clip(rng.normal(0.5, 0.15), 0.1, 0.9)),
            float(h * np.clip(rng.normal(0.5, 0.15), 0.1, 0.9)),
        )
        reach = min(h, w) * float(rng.uniform(0.06, 0.2))
    overlay = _Overlay(
        draw=ImageDraw.Draw(sheet),
        scale=scale,
        size=(w, h),
        spot=spot,
        reach=reach,
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
