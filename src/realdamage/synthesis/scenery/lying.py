"""Products that lie flat: books, phones, plates, garments, shoes, bags, each a thin box or a low relief.

Each maker assembles solids and materials from a generator, about one unit large around the origin of the ground.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from realdamage.synthesis.fields import Array, blur, noise
from realdamage.synthesis.scenery import labels, materials
from realdamage.synthesis.scenery.materials import Material, coating
from realdamage.synthesis.scenery.scene import Part, Product
from realdamage.synthesis.scenery.shapes import Box, Relief, upright

_RELIEF = 192  # height samples along the side of a relief
_FROM_ABOVE = (0.75, 1.5)


def book(rng: np.random.Generator) -> Product:
    """A lying book: printed cover, paper sides."""
    half = (
        float(rng.uniform(0.32, 0.45)),
        float(rng.uniform(0.42, 0.6)),
        float(rng.uniform(0.03, 0.1)),
    )
    cover = Material(labels.package(rng), *coating(rng))
    paper = Material(materials.pages(rng), 0.0, 1.0)
    box = Box(upright(z=half[2], yaw=rng.uniform(-0.8, 0.8)), half, 0.006)
    return Product(
        (Part(box, (cover, paper, paper, paper, paper, cover)),),
        float(np.hypot(*half[:2])),
        half[2],
        _FROM_ABOVE,
    )


def device(rng: np.random.Generator) -> Product:
    """A phone, a tablet, a keyboard or a remote control lying flat."""
    keyed = rng.random() < 0.35
    if keyed:
        half = (
            float(rng.uniform(0.45, 0.75)),
            float(rng.uniform(0.15, 0.28)),
            float(rng.uniform(0.015, 0.05)),
        )
        face = Material(labels.keys(rng), 0.1, 0.6)
    else:
        half = (
            float(rng.uniform(0.24, 0.4)),
            float(rng.uniform(0.48, 0.6)),
            float(rng.uniform(0.012, 0.03)),
        )
        face = Material(labels.screen(rng), 0.9, 0.08)
    shell = Material(
        materials.brushed(rng) if rng.random() < 0.5 else materials.plain(rng), 0.4, 0.3
    )
    box = Box(upright(z=half[2], yaw=rng.uniform(-0.9, 0.9)), half, 0.01)
    part = Part(box, (shell, shell, shell, shell, shell, face))
    return Product((part,), float(np.hypot(*half[:2])), half[2], _FROM_ABOVE)


def _lying(
    heights: Array, texture: Array, gloss: float, roughness: float, size: float, yaw: float
) -> Product:
    """A relief of `size` units a side as a product."""
    relief = Relief(upright(yaw=yaw), heights.astype(np.float32), size)
    y, x = np.nonzero(heights > 0)
    radius = float(np.hypot(x / _RELIEF - 0.5, y / _RELIEF - 0.5).max()) * size
    return Product(
        (Part(relief, (Material(texture, gloss, roughness),)),), radius, 0.0, (0.95, 1.5)
    )


def _rounded(mask: Array, height: float, softness: float) -> Array:
    """Heights of a stuffed outline: 0 outside `mask` [m, m], rising to `height` within about `softness` samples."""
    inner = np.clip(2 * blur(mask, softness) - 1, 0, 1)
    return np.where(mask > 0.5, 0.012 + height * np.sqrt(inner), 0).astype(np.float32)


def _outline(polygons: Sequence[Sequence[tuple[float, float]]]) -> Array:
    """Coverage [m, m] of polygons given in 0..1 (x to the right, y down)."""
    image = Image.new("L", (_RELIEF, _RELIEF))
    draw = ImageDraw.Draw(image)
    for polygon in polygons:
        draw.polygon([(x * _RELIEF, y * _RELIEF) for x, y in polygon], fill=255)
    return np.asarray(image, np.float32) / np.float32(255)


def plate(rng: np.random.Generator) -> Product:
    """A plate with a raised rim and perhaps painted rings."""
    axis = np.linspace(-1, 1, _RELIEF, dtype=np.float32)
    r = np.hypot(axis[:, None], axis[None, :]) / np.float32(0.96)
    well = float(rng.uniform(0.55, 0.75))
    heights = np.where(r < 1, 0.02 + 0.10 * np.clip((r - well) / (1 - well), 0, 1) ** 0.7, 0)
    glaze = materials.plain(rng, materials.colour(rng, (0.0, 0.25), (0.7, 0.98)))
    axis = np.linspace(-1, 1, materials.TEXELS, dtype=np.float32)
    ring = np.hypot(axis[:, None], axis[None, :]) / np.float32(0.96)
    for _ in range(int(rng.integers(0, 3))):
        place, width = rng.uniform(0.3, 0.97), rng.uniform(0.01, 0.06)
        glaze = np.where((np.abs(ring - place) < width)[..., None], materials.colour(rng), glaze)
    return _lying(
        blur(heights.astype(np.float32), 1.0) * (r < 1), glaze, 0.5, 0.15, 1.3, rng.uniform(0, 6.3)
    )


def garment(rng: np.random.Generator) -> Product:
    """A T-shirt, trousers or a towel spread out, with folds and perhaps a print."""
    sleeve, waist = rng.uniform(0.28, 0.45), rng.uniform(0.20, 0.30)
    kind = rng.random()
    if kind < 0.45:
        half = [
            (0.06, 0.10),
            (0.22, 0.06),
            (0.46, 0.16),
            (0.46 - 0.04, sleeve),
            (waist, 0.30),
            (waist + 0.01, 0.94),
        ]
    elif kind < 0.75:
        half = [(0.0, 0.05), (waist - 0.02, 0.05), (waist + 0.05, 0.95), (0.09, 0.96), (0.02, 0.38)]
    else:
        half = [(0.0, 0.12), (rng.uniform(0.25, 0.44), 0.12), (rng.uniform(0.25, 0.44), 0.9)]
    polygon = [(0.5 + x, y) for x, y in half] + [(0.5 - x, y) for x, y in reversed(half)]
    shape = (_RELIEF, _RELIEF)
    wander = [(x + rng.normal(0, 0.008), y + rng.normal(0, 0.008)) for x, y in polygon]
    mask = blur(_outline([wander]), 1.2)
    folds = sum(
        (np.abs(noise(rng, shape, (cell, cell * rng.uniform(1, 3)))) for cell in (40, 22)),
        start=np.zeros(shape, np.float32),
    )
    heights = _rounded(mask, 0.02, 3.0) + np.where(
        mask > 0.5, rng.uniform(0.01, 0.035) * blur(folds, 1.0), 0
    )
    texture = materials.cloth(rng)
    if rng.random() < 0.4:
        art = labels.package(rng, 72, 84)
        row, column = int(materials.TEXELS * 0.28), (materials.TEXELS - 72) // 2
        texture[row : row + 84, column : column + 72] = (
            0.85 * art + 0.1 * texture[row : row + 84, column : column + 72]
        )
    return _lying(heights, texture, 0.0, 1.0, 1.7, rng.normal(0, 0.35))


def shoes(rng: np.random.Generator) -> Product:
    """A pair of shoes from above: rounded soles, an opening, laces."""
    wide, waist = rng.uniform(0.10, 0.13), rng.uniform(0.7, 0.9)
    y = np.linspace(0, 1, 24)
    narrowed = 1 - (1 - waist) * np.sin(np.pi * np.clip(y * 1.6 - 0.5, 0, 1))
    side = wide * np.sqrt(np.clip(1 - (2 * y - 1) ** 4, 0, 1)) * narrowed
    polygons, holes, laces = [], [], Image.new("L", (materials.TEXELS, materials.TEXELS))
    draw = ImageDraw.Draw(laces)
    for middle in (0.5 - wide * 1.35, 0.5 + wide * 1.35):
        shift = rng.normal(0, 0.015)
        polygons.append(
            [(middle + s, 0.08 + 0.84 * v + shift) for s, v in zip(side, y, strict=True)]
            + [
                (middle - s, 0.08 + 0.84 * v + shift)
                for s, v in zip(side[::-1], y[::-1], strict=True)
            ]
        )
        holes.append(
            [
                (middle + 0.55 * wide * np.cos(a), 0.70 + shift + 0.15 * np.sin(a))
                for a in np.linspace(0, 6.28, 20)
            ]
        )
        for k in range(5):
            ends = [
                (
                    (middle + s * 0.45 * wide) * materials.TEXELS,
                    (0.36 + 0.04 * k + shift) * materials.TEXELS,
                )
                for s in (-1, 1)
            ]
            draw.line(ends, fill=255, width=3)
    mask, hole = _outline(polygons), _outline(holes)
    heights = _rounded(mask, 0.20, 7.0) * (1 - 0.75 * blur(hole, 1.5))
    texture = (materials.leather if rng.random() < 0.6 else materials.cloth)(rng)
    opening = np.asarray(Image.fromarray(hole).resize((materials.TEXELS,) * 2), np.float32)[
        ..., None
    ]
    lace = np.asarray(laces, np.float32)[..., None] / np.float32(255)
    texture = texture * (1 - 0.8 * opening) + lace * (
        materials.colour(rng, (0, 0.3), (0.2, 1.0)) - texture
    )
    return _lying(
        heights,
        texture.astype(np.float32),
        float(rng.uniform(0, 0.35)),
        0.5,
        1.5,
        rng.normal(0, 0.5),
    )


def bag(rng: np.random.Generator) -> Product:
    """A pouch, a handbag or a stuffed bag lying down: leather, fabric or printed film."""
    top, bottom = rng.uniform(0.22, 0.38), rng.uniform(0.3, 0.42)
    high = rng.uniform(0.12, 0.3)
    polygon = [(0.5 - top, high), (0.5 + top, high), (0.5 + bottom, 0.88), (0.5 - bottom, 0.88)]
    mask = (blur(_outline([polygon]), 5.0) > 0.5).astype(np.float32)
    shape = (_RELIEF, _RELIEF)
    wrinkles = np.abs(noise(rng, shape, 30, 3)) * rng.uniform(0.01, 0.06)
    heights = _rounded(mask, rng.uniform(0.08, 0.22), 12.0) + np.where(mask > 0.5, wrinkles, 0)
    kind = int(rng.integers(3))
    if kind == 0:
        texture, gloss, roughness = materials.leather(rng), 0.2, 0.45
    elif kind == 1:
        texture, gloss, roughness = materials.cloth(rng), 0.0, 1.0
    else:
        texture, gloss, roughness = (
            labels.package(rng, materials.TEXELS, materials.TEXELS),
            0.5,
            0.2,
        )
    return _lying(heights, texture, gloss, roughness, 1.4, rng.normal(0, 0.6))


LYING: tuple[Callable[[np.random.Generator], Product], ...] = (
    book,
    device,
    plate,
    garment,
    shoes,
    bag,
)
"""Makers of products that lie."""
