"""Surfaces that products and rooms are made of: colour textures in linear light and how they shine.

Every function draws a texture [m, m, 3] (albedo, linear, 0..1) from a generator; no two calls look alike.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from realdamage.synthesis.fields import Array, blur, noise, to_bytes, to_linear

TEXELS = 256


@dataclass(frozen=True)
class Material:
    """texture: albedo [m, m, 3]. gloss: strength of reflections, 0..1. roughness: 0 mirror .. 1 dull.
    metal: 1 when reflections take the surface's colour. clear: share of light that passes through (glass)."""

    texture: Array
    gloss: float = 0.15
    roughness: float = 0.6
    metal: float = 0.0
    clear: float = 0.0


def coating(rng: np.random.Generator) -> tuple[float, float]:
    """Gloss and roughness of coated card, plastic or lacquer."""
    return float(rng.uniform(0.02, 0.5)), float(rng.uniform(0.2, 0.9))


def colour(
    rng: np.random.Generator,
    saturation: tuple[float, float] = (0.1, 0.85),
    value: tuple[float, float] = (0.15, 0.95),
) -> Array:
    """A random colour, linear RGB [3]; limits are those of HSV in display space."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return to_linear(np.round(np.array(rgb) * 255).astype(np.uint8))


def display(colour: Array) -> tuple[int, int, int]:
    """Linear RGB [3] as the sRGB triple that Pillow draws with."""
    r, g, b = (int(v) for v in to_bytes(colour))
    return r, g, b


def muted(rng: np.random.Generator) -> Array:
    """A colour of rooms and furniture, linear RGB [3]: mostly greys, beiges and browns, light or dark."""
    hue = rng.normal(0.09, 0.03) if rng.random() < 0.7 else rng.random()
    rgb = colorsys.hsv_to_rgb(hue % 1, 0.4 * rng.random() ** 1.5, 0.22 + 0.75 * rng.random() ** 0.6)
    return to_linear(np.round(np.array(rgb) * 255).astype(np.uint8))


def _between(a: Array, b: Array, share: NDArray[np.floating]) -> Array:
    share = share.clip(0, 1).astype(np.float32)[..., None]
    mixed: Array = a + share * (b - a)
    return mixed


def _toned(base: Array, tone: NDArray[np.floating]) -> Array:
    """A colour [3], or a texture, times a brightness field [m, m]: albedo that stays physical, [m, m, 3]."""
    albedo = np.clip(base * tone[..., None], 0.003, 0.95)
    return albedo.astype(np.float32, copy=False)


def plain(rng: np.random.Generator, base: Array | None = None) -> Array:
    """One colour with faint unevenness: plastic, paint, laminate."""
    base = colour(rng) if base is None else base
    shape = (TEXELS, TEXELS)
    return _toned(base, 1 + 0.04 * noise(rng, shape, 60, 2) + 0.03 * noise(rng, shape, 2))


def wood(rng: np.random.Generator) -> Array:
    """Boards with grain, sometimes with gaps between them."""
    shape = (TEXELS, TEXELS)
    warm = np.array([0.42, 0.24, 0.11], np.float32) * np.float32(rng.uniform(0.25, 1.5))
    warm = warm * np.array([1, rng.uniform(0.85, 1.25), rng.uniform(0.7, 1.9)], np.float32)
    grain = noise(rng, shape, (3, 90), 3) + 0.6 * noise(rng, shape, (14, 200), 2)
    rows = np.arange(TEXELS)
    boards = int(rng.choice([1, 3, 4, 6]))
    board = rows * boards // TEXELS
    tone = 1 + 0.35 * grain + (rng.uniform(-0.18, 0.18, boards)[board])[:, None]
    if boards > 1:
        tone *= np.where(rows * boards % TEXELS < 1.5 * boards, 0.35, 1.0)[:, None]
    return _toned(warm, tone)


def cloth(rng: np.random.Generator, base: Array | None = None) -> Array:
    """Woven fabric: threads, sometimes stripes or checks."""
    base = colour(rng, (0.0, 0.6), (0.2, 0.95)) if base is None else base
    rows, columns = np.indices((TEXELS, TEXELS), dtype=np.float32)
    pitch = rng.uniform(3.5, 7)
    weave = np.sin(2 * np.pi * rows / pitch) * np.sin(
        2 * np.pi * (columns + rows * rng.uniform(0, 1)) / pitch
    )
    tone = (
        1
        + 0.10 * weave
        + 0.10 * noise(rng, (TEXELS, TEXELS), (2, 6))
        + 0.06 * noise(rng, (TEXELS, TEXELS), 50, 2)
    )
    texture = _toned(base, tone)
    kind = rng.random()
    if kind < 0.35:
        second = colour(rng)
        period, duty = TEXELS / rng.integers(4, 14), rng.uniform(0.2, 0.6)
        down, across = ((at % period < duty * period).astype(np.float32) for at in (rows, columns))
        bands = (down + across) / 2 if kind < 0.12 else down
        texture = _between(texture, _toned(second, tone), 0.9 * bands)
    return texture


def tiles(rng: np.random.Generator) -> Array:
    """Floor or wall tiles with joints."""
    count = int(rng.integers(2, 5))
    at = np.arange(TEXELS) * count / TEXELS
    number, edge = at.astype(int), rng.uniform(0.008, 0.016) * count
    open_joint = (at % 1 < edge).astype(np.float32)
    joint = np.maximum(open_joint[:, None], open_joint[None, :])
    tint = rng.uniform(0.92, 1.06, (count, count)).astype(np.float32)[np.ix_(number, number)]
    tone = tint * (1 + 0.10 * noise(rng, (TEXELS, TEXELS), 30, 4))
    tone += joint * (np.float32(rng.uniform(0.35, 0.8)) - tone)
    return _toned(muted(rng), tone)


def stone(rng: np.random.Generator) -> Array:
    """Concrete or marble: blotches, or veins."""
    shape = (TEXELS, TEXELS)
    base = muted(rng)
    if rng.random() < 0.5:
        veins = np.exp(-np.abs(noise(rng, shape, 70, 4)) / 0.04)
        return _between(
            base, base * np.float32(0.45), 0.8 * veins * np.clip(0.5 + noise(rng, shape, 60), 0, 1)
        )
    speckle = 0.14 * noise(rng, shape, 40, 4) + 0.10 * noise(rng, shape, 2, 1)
    return _toned(base, 1 + speckle)


def carpet(rng: np.random.Generator) -> Array:
    """Pile: strong fine speckle, softly blotched."""
    shape = (TEXELS, TEXELS)
    pile = rng.standard_normal(shape).astype(np.float32)
    tone = 1 + 0.28 * blur(pile, 0.7) + 0.14 * noise(rng, shape, 30, 3)
    return _toned(muted(rng), tone)


def cardboard(rng: np.random.Generator) -> Array:
    """Brown board: fibres and faint flutes."""
    shape = (TEXELS, TEXELS)
    base = np.array([0.46, 0.31, 0.18], np.float32) * np.float32(rng.uniform(0.75, 1.25))
    flutes = (
        0.025 * np.sin(2 * np.pi * np.arange(TEXELS, dtype=np.float32) / rng.uniform(5, 9))[None, :]
    )
    tone = 1 + 0.07 * noise(rng, shape, (2, 5), 2) + 0.05 * noise(rng, shape, 50, 2) + flutes
    return _toned(base, tone)


def brushed(rng: np.random.Generator) -> Array:
    """Brushed metal: streaks in one direction."""
    base = colour(rng, (0.0, 0.12), (0.65, 0.9))
    streaks = 0.12 * noise(rng, (TEXELS, TEXELS), (1.5, 120), 2)
    return _toned(base, 1 + streaks)


def leather(rng: np.random.Generator) -> Array:
    """Leather or grained plastic: small dark cells."""
    shape = (TEXELS, TEXELS)
    base = colour(rng, (0.05, 0.7), (0.08, 0.6))
    cells = np.exp(-np.abs(noise(rng, shape, 6, 2)) / 0.12)
    return _toned(base, 1 - 0.35 * cells + 0.08 * noise(rng, shape, 50, 2)).astype(np.float32)


def pages(rng: np.random.Generator) -> Array:
    """The cut side of a book: thin lines along it."""
    lines = 0.12 * noise(rng, (TEXELS, TEXELS), (2, 200), 1)
    return _toned(np.array([0.80, 0.76, 0.66], np.float32), 1 + lines)


def _tabletop(rng: np.random.Generator) -> Array:
    return plain(rng, muted(rng))


def _bedspread(rng: np.random.Generator) -> Array:
    return cloth(rng, muted(rng))


_GROUNDS: tuple[tuple[Callable[[np.random.Generator], Array], float], ...] = (
    (wood, 0.25),
    (_tabletop, 0.20),
    (_bedspread, 0.0),
    (tiles, 0.25),
    (stone, 0.15),
    (carpet, 0.0),
)


def random_ground(rng: np.random.Generator) -> tuple[Array, float]:
    """What products lie on: a texture [m, m, 3] and the most it can gloss."""
    make, gloss = _GROUNDS[int(rng.integers(len(_GROUNDS)))]
    return make(rng), gloss


def room(rng: np.random.Generator) -> Array:
    """A background far out of focus: a bare wall, or things on shelves and in a room; albedo [m, m, 3]."""
    if rng.random() < 0.5:
        return plain(rng, muted(rng))
    side = 96
    image = Image.new("RGB", (side, side), display(muted(rng)))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(6, 26))):
        x, y, wide, tall = (
            int(v) for v in rng.integers((0, 0, 5, 5), (side - 8, side - 8, 34, 34))
        )
        draw.rectangle(
            (x, y, x + wide, y + tall),
            fill=display(colour(rng) if rng.random() < 0.4 else muted(rng)),
        )
    return to_linear(
        np.asarray(image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.7, 3.5)))))
    )
