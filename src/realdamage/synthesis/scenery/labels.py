"""Printed artwork: packaging labels, covers, parcel stickers and screens with text, logos, bar codes and pictures.

Drawn with Pillow in display colours and returned as linear albedo. Words are made up, so that no brand appears.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from realdamage.synthesis.fields import Array, to_linear

_SYLLABLES = (
    "ba",
    "ve",
    "lo",
    "mi",
    "ra",
    "ton",
    "ka",
    "su",
    "ner",
    "fi",
    "do",
    "pel",
    "gra",
    "zu",
    "ti",
    "mo",
    "sha",
    "quin",
)
_WORDS = (
    "FRESH",
    "ORGANIC",
    "PREMIUM",
    "CLASSIC",
    "PURE",
    "ORIGINAL",
    "NEW",
    "EXTRA",
    "FRAGILE",
    "DELUXE",
    "250 g",
    "1 L",
    "No. 5",
    "XL",
)

Colour = tuple[int, int, int]


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at a size in pixels, the same on every machine."""
    return ImageFont.load_default(size)


def name(rng: np.random.Generator) -> str:
    """A made-up brand name."""
    return "".join(str(s) for s in rng.choice(_SYLLABLES, int(rng.integers(2, 4)))).capitalize()


def _colour(rng: np.random.Generator) -> Colour:
    if rng.random() < 0.3:
        grey = int(rng.choice([20, 40, 235, 250, 128]))
        return grey, grey, grey
    r, g, b = (int(v) for v in rng.integers(10, 250, 3))
    return r, g, b


def contrast(background: Colour) -> Colour:
    """Black or white, whichever can be read on the background."""
    return (250, 250, 250) if sum(background) < 380 else (15, 15, 15)


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: float, fill: Colour
) -> None:
    draw.text(at, text, font=font(max(6, int(size))), fill=fill, anchor="mm")


def _bar_code(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, box: tuple[float, float, float, float]
) -> None:
    x0, y0, x1, y1 = box
    draw.rectangle(box, fill=(250, 250, 250))
    x = x0 + 4
    while x < x1 - 4:
        bar = float(rng.choice([1, 1, 2, 3]))
        draw.rectangle((x, y0 + 3, x + (bar - 1), max(y0 + 4, y1 - 8)), fill=(10, 10, 10))
        x += bar + float(rng.choice([1, 1, 2, 3]))
    _text(draw, ((x0 + x1) / 2, y1 - 4), str(rng.integers(10**8, 10**9)), 8, (10, 10, 10))


def _small_print(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    box: tuple[float, float, float, float],
    ink: Colour,
) -> None:
    x0, y0, x1, y1 = box
    pitch = float(rng.uniform(5, 8))
    for y in np.arange(y0, y1, pitch):
        x = x0
        end = x0 + (x1 - x0) * rng.uniform(0.6, 1)
        while x < end:
            word = float(rng.uniform(4, 18))
            draw.line((x, y, min(x + word, end), y), fill=ink, width=max(1, int(pitch / 3)))
            x += word + 3


def _logo(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    centre: tuple[float, float],
    size: float,
    fill: Colour,
) -> None:
    points = int(rng.integers(3, 9))
    inner = rng.uniform(0.35, 0.95)
    angles = np.arange(2 * points) * np.pi / points + rng.uniform(0, 1)
    radii = size * np.where(np.arange(2 * points) % 2, inner, 1.0)
    if rng.random() < 0.4:
        draw.ellipse(
            (centre[0] - size, centre[1] - size, centre[0] + size, centre[1] + size),
            fill=contrast(fill),
        )
        radii = radii * 0.75
    draw.polygon(
        [
            (centre[0] + r * np.cos(a), centre[1] + r * np.sin(a))
            for r, a in zip(radii, angles, strict=True)
        ],
        fill=fill,
    )


def _canvas(width: int, height: int, fill: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width, height), fill)
    return image, ImageDraw.Draw(image)


def _decor(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    """Bands, discs, rays or a landscape of hills behind the words."""
    kind = int(rng.integers(5))
    if kind == 0:
        top = rng.uniform(0.1, 0.7) * height
        draw.rectangle((0, top, width, top + rng.uniform(0.1, 0.35) * height), fill=_colour(rng))
    elif kind == 1:
        for _ in range(int(rng.integers(2, 9))):
            x, y, r = rng.random() * width, rng.random() * height, rng.uniform(0.05, 0.3) * width
            draw.ellipse((x - r, y - r, x + r, y + r), fill=_colour(rng))
    elif kind == 2:
        fill, count = _colour(rng), int(rng.integers(4, 12))
        for k in range(count):
            x = k * width / count
            draw.polygon(
                [
                    (x, height),
                    (x + width / count / 2, height),
                    (x + width * rng.uniform(0.2, 0.4), 0),
                    (x, 0),
                ],
                fill=fill,
            )
    elif kind == 3:
        for k in range(3):
            along = np.linspace(0, width, 12)
            waves = np.sin(along / width * rng.uniform(3, 12) + rng.uniform(0, 6))
            ridge = zip(
                along.tolist(), (height * (0.45 + 0.15 * k + 0.08 * waves)).tolist(), strict=True
            )
            draw.polygon([(0, height), *ridge, (width, height)], fill=_colour(rng))


def package(rng: np.random.Generator, width: int = 192, height: int = 256) -> Array:
    """The front of a package or a book cover, linear albedo [height, width, 3]."""
    base = _colour(rng)
    image, draw = _canvas(width, height, base)
    _decor(draw, rng, width, height)
    ink = contrast(base) if rng.random() < 0.7 else _colour(rng)
    title = name(rng)
    size = min(width * rng.uniform(0.14, 0.26), 1.7 * width / len(title))
    middle = height * rng.uniform(0.15, 0.4)
    if rng.random() < 0.4:
        draw.rectangle(
            (width * 0.05, middle - size * 0.7, width * 0.95, middle + size * 0.7),
            fill=contrast(ink),
        )
    _text(draw, (width / 2, middle), title, size, ink)
    _text(draw, (width / 2, middle + size * 0.9), str(rng.choice(_WORDS)), size * 0.45, ink)
    _logo(
        draw,
        rng,
        (width * rng.uniform(0.25, 0.75), height * rng.uniform(0.55, 0.75)),
        width * rng.uniform(0.08, 0.22),
        _colour(rng),
    )
    if rng.random() < 0.6:
        _small_print(draw, rng, (width * 0.08, height * 0.84, width * 0.6, height * 0.96), ink)
    if rng.random() < 0.4:
        _bar_code(draw, rng, (width * 0.62, height * 0.82, width * 0.95, height * 0.97))
    return to_linear(np.asarray(image))


def back(rng: np.random.Generator, width: int = 192, height: int = 256) -> Array:
    """The text side of a package: small print, a table, a bar code; linear albedo [height, width, 3]."""
    base = _colour(rng)
    image, draw = _canvas(width, height, base)
    ink = contrast(base)
    _text(draw, (width / 2, height * 0.1), name(rng), height * 0.08, ink)
    _small_print(draw, rng, (width * 0.08, height * 0.2, width * 0.92, height * 0.5), ink)
    for y in np.arange(0.55, 0.78, 0.05) * height:
        draw.line((width * 0.1, y, width * 0.9, y), fill=ink)
    _bar_code(draw, rng, (width * 0.1, height * 0.8, width * 0.6, height * 0.96))
    return to_linear(np.asarray(image))


def sticker_on(rng: np.random.Generator, texture: Array) -> Array:
    """A parcel's face: an address label and packing tape on a given texture [m, m, 3] (a new array)."""
    side = texture.shape[0]
    out = texture.copy()
    if rng.random() < 0.7:
        middle, half = side // 2 + int(rng.integers(-10, 11)), int(side * rng.uniform(0.05, 0.09))
        tape = np.array([0.75, 0.62, 0.42], np.float32) if rng.random() < 0.6 else np.float32(0.85)
        out[:, middle - half : middle + half] = (
            0.45 * out[:, middle - half : middle + half] + 0.4 * tape
        )
    if rng.random() < 0.7:
        image, draw = _canvas(110, 76, (245, 245, 242))
        _text(draw, (55, 10), name(rng).upper() + " LOGISTICS", 10, (10, 10, 10))
        _small_print(draw, rng, (6, 22, 80, 42), (20, 20, 20))
        _bar_code(draw, rng, (8, 46, 100, 74))
        y, x = (int(v) for v in rng.integers(10, side - 120, 2))
        out[y : y + 76, x : x + 110] = to_linear(np.asarray(image))
    return out


def screen(rng: np.random.Generator, width: int = 160, height: int = 320) -> Array:
    """The front of a phone: a frame, a black rim, a screen that is off or shows icons; linear [height, width, 3]."""
    image, draw = _canvas(width, height, _colour(rng))
    draw.rounded_rectangle((3, 3, width - 4, height - 4), 12, fill=(8, 8, 9))
    rim = int(rng.integers(7, 14))
    inner = (rim, rim * 1.5, width - rim, height - rim * 1.5)
    if rng.random() < 0.35:
        draw.rounded_rectangle(inner, 8, fill=(22, 23, 27))
    else:
        wallpaper, scenery = _canvas(width, height, _colour(rng))
        _decor(scenery, rng, width, height)
        opening = Image.new("L", (width, height))
        ImageDraw.Draw(opening).rounded_rectangle(inner, 8, fill=255)
        image.paste(wallpaper, (0, 0), opening)
        for row in range(int(rng.integers(2, 6))):
            for column in range(4):
                x, y = rim + 9 + column * (width - 2 * rim) / 4.2, 64 + row * 44
                draw.rounded_rectangle((x, y, x + 24, y + 24), 6, fill=_colour(rng))
        _text(
            draw,
            (width / 2, 40),
            f"{rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}",
            26,
            (245, 245, 245),
        )
    draw.ellipse((width / 2 - 4, 5, width / 2 + 4, 13), fill=(2, 2, 3), outline=(40, 40, 44))
    return to_linear(np.asarray(image))


def keys(rng: np.random.Generator, width: int = 256, height: int = 128) -> Array:
    """A keyboard or remote control: rows of keys with letters, linear albedo [height, width, 3]."""
    base = _colour(rng)
    image, draw = _canvas(width, height, base)
    cap = _colour(rng)
    rows, columns = int(rng.integers(3, 7)), int(rng.integers(4, 14))
    dx, dy = width / (columns + 1), height / (rows + 1)
    for row in range(rows):
        for column in range(columns):
            x, y = dx * (column + 1), dy * (row + 1)
            draw.rounded_rectangle(
                (x - dx * 0.42, y - dy * 0.4, x + dx * 0.42, y + dy * 0.4), 3, fill=cap
            )
            _text(draw, (x, y), chr(int(rng.integers(65, 91))), dy * 0.45, contrast(cap))
    return to_linear(np.asarray(image))
