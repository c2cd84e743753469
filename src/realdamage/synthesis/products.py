"""Random products for the studio: packages, books, phones, mugs, bottles, cans, bowls, plates, garments, shoes, bags.

Each maker assembles solids and materials from a generator. A product stands (or lies) on the ground around the origin
and is about one unit large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from realdamage.synthesis import labels, materials
from realdamage.synthesis.fields import Array, blur, noise
from realdamage.synthesis.materials import Material
from realdamage.synthesis.shapes import Box, Disc, Handle, Pose, Relief, Solid, Turned, rotation

_RELIEF = 192  # height samples along the side of a relief


@dataclass(frozen=True)
class Part:
    """A solid and the material of each of its faces; the last material serves the faces that follow."""

    solid: Solid
    materials: tuple[Material, ...]


@dataclass(frozen=True)
class Product:
    """parts: the first hit along a ray is what one sees. radius, height: of a sphere around it all, and its middle's
    height. elevation: from how high it is usually photographed, radians (low, high)."""

    parts: tuple[Part, ...]
    radius: float
    height: float
    elevation: tuple[float, float]


_STANDING = (0.12, 0.85)
_LYING = (0.75, 1.5)


def _pose(x: float = 0, y: float = 0, z: float = 0, yaw: float = 0) -> Pose:
    return Pose(rotation(2, yaw), np.array([x, y, z], np.float32))


def _gloss(rng: np.random.Generator) -> tuple[float, float]:
    """Gloss and roughness of coated card, plastic or lacquer."""
    return float(rng.uniform(0.02, 0.5)), float(rng.uniform(0.2, 0.9))


def carton(rng: np.random.Generator) -> Product:
    """A printed package: artwork in front, small print behind, plain or printed sides."""
    half = (float(rng.uniform(0.2, 0.5)), float(rng.uniform(0.08, 0.4)), float(rng.uniform(0.3, 0.62)))
    gloss, roughness = _gloss(rng)

    def print_on(texture: Array) -> Material:
        return Material(texture, gloss, roughness)

    front, behind = print_on(labels.package(rng)), print_on(labels.back(rng))
    side = behind if rng.random() < 0.5 else print_on(materials.plain(rng))
    top = side if rng.random() < 0.5 else print_on(labels.package(rng, 192, 128))
    box = Box(_pose(z=half[2], yaw=rng.uniform(-0.9, 0.9)), half, float(rng.uniform(0.004, 0.03)))
    return Product(
        (Part(box, (side, side, front, behind, top)),),
        float(np.hypot(np.hypot(*half[:2]), half[2])),
        half[2],
        _STANDING,
    )


def parcel(rng: np.random.Generator) -> Product:
    """A cardboard box with tape and an address label."""
    half = (float(rng.uniform(0.3, 0.6)), float(rng.uniform(0.25, 0.5)), float(rng.uniform(0.12, 0.45)))
    board = materials.cardboard(rng)
    faces = tuple(Material(labels.sticker_on(rng, board), 0.02, 0.9) for _ in range(2))
    plain = Material(board, 0.02, 0.9)
    box = Box(_pose(z=half[2], yaw=rng.uniform(-0.9, 0.9)), half, 0.012)
    radius = float(np.hypot(np.hypot(*half[:2]), half[2]))
    return Product((Part(box, (plain, plain, faces[0], plain, plain, faces[1])),), radius, half[2], (0.25, 1.1))


def book(rng: np.random.Generator) -> Product:
    """A lying book: printed cover, paper sides."""
    half = (float(rng.uniform(0.32, 0.45)), float(rng.uniform(0.42, 0.6)), float(rng.uniform(0.03, 0.1)))
    cover = Material(labels.package(rng), *_gloss(rng))
    paper = Material(materials.pages(rng), 0.0, 1.0)
    box = Box(_pose(z=half[2], yaw=rng.uniform(-0.8, 0.8)), half, 0.006)
    return Product(
        (Part(box, (cover, paper, paper, paper, paper, cover)),), float(np.hypot(*half[:2])), half[2], _LYING
    )


def device(rng: np.random.Generator) -> Product:
    """A phone, a tablet, a keyboard or a remote control lying flat."""
    keyed = rng.random() < 0.35
    if keyed:
        half = (float(rng.uniform(0.45, 0.75)), float(rng.uniform(0.15, 0.28)), float(rng.uniform(0.015, 0.05)))
        face = Material(labels.keys(rng), 0.1, 0.6)
    else:
        half = (float(rng.uniform(0.24, 0.4)), float(rng.uniform(0.48, 0.6)), float(rng.uniform(0.012, 0.03)))
        face = Material(labels.screen(rng), 0.9, 0.08)
    shell = Material(materials.brushed(rng) if rng.random() < 0.5 else materials.plain(rng), 0.4, 0.3)
    box = Box(_pose(z=half[2], yaw=rng.uniform(-0.9, 0.9)), half, 0.01)
    return Product((Part(box, (shell, shell, shell, shell, shell, face)),), float(np.hypot(*half[:2])), half[2], _LYING)


def _wrapped(texture: Array) -> Array:
    """A texture [m, m, 3] as one that goes round a body without a seam, [m, 2m, 3]."""
    return np.concatenate([texture, texture[:, ::-1]], 1)


def _round_label(rng: np.random.Generator, body: Array, low: float, high: float) -> Array:
    """A texture that goes round a body, with a label from v = low to v = high (0 = top) that is shown twice."""
    out = _wrapped(body)
    quarter, rows = body.shape[1] // 2, slice(int(low * body.shape[0]), int(high * body.shape[0]))
    size = (quarter, rows.stop - rows.start)
    out[rows] = np.concatenate([labels.package(rng, *size), labels.back(rng, *size)] * 2, 1)
    return out


def _turned(radii: Sequence[float], heights: Sequence[float], yaw: float) -> Turned:
    return Turned(_pose(yaw=yaw), tuple(radii), tuple(heights))


def can(rng: np.random.Generator) -> Product:
    """A tin or drinks can with printed sides and metal lid."""
    r, h = float(rng.uniform(0.22, 0.42)), float(rng.uniform(0.55, 1.05))
    metal = Material(materials.brushed(rng), 0.8, 0.25, metal=1.0)
    art = Material(_round_label(rng, materials.plain(rng), 0.06, 0.95), *_gloss(rng))
    body = _turned((r * 0.88, r, r, r * 0.86), (0.0, 0.05 * h, 0.93 * h, h), rng.uniform(0, 6.3))
    lid = Disc(_pose(z=h * 0.985), r * 0.87)
    return Product((Part(body, (art,)), Part(lid, (metal,))), float(np.hypot(r, h / 2)), h / 2, _STANDING)


def mug(rng: np.random.Generator) -> Product:
    """A ceramic mug with an ear, plain or printed."""
    r, h = float(rng.uniform(0.3, 0.42)), float(rng.uniform(0.55, 0.85))
    glaze = materials.plain(rng, materials.colour(rng, (0.0, 0.7), (0.25, 0.97)))
    texture = _round_label(rng, glaze, 0.15, 0.85) if rng.random() < 0.4 else _wrapped(glaze)
    gloss, roughness = float(rng.uniform(0.2, 0.6)), float(rng.uniform(0.1, 0.4))
    # The ear to the left or right: it is flat and would vanish towards the viewer.
    yaw = float(rng.choice([0, np.pi]) + rng.uniform(-0.5, 0.5))
    flare = float(rng.uniform(0.85, 1.1))
    body = _turned((r * flare * 0.92, r * flare, r, r), (0, 0.06, h * 0.6, h), yaw)
    ear = Handle(
        Pose(rotation(2, yaw), np.array([r * 1.02 * np.cos(yaw), r * 1.02 * np.sin(yaw), h * 0.52], np.float32)),
        h * 0.28,
        0.05,
    )
    ceramic = Material(glaze, gloss, roughness)
    floor = Disc(_pose(z=0.03), r * 0.9)
    parts = (Part(body, (Material(texture, gloss, roughness),)), Part(ear, (ceramic,)), Part(floor, (ceramic,)))
    return Product(parts, float(np.hypot(r * 1.5, h / 2)), h / 2, (0.2, 0.95))


def bottle(rng: np.random.Generator) -> Product:
    """A bottle or jar of glass or plastic with a label and a cap."""
    r, h = float(rng.uniform(0.17, 0.32)), float(rng.uniform(0.9, 1.25))
    shoulder, neck = float(rng.uniform(0.5, 0.75)), float(rng.uniform(0.3, 0.6))
    clear = float(rng.uniform(0.3, 0.75)) if rng.random() < 0.5 else 0.0
    tint = materials.colour(rng, (0.1, 0.9), (0.15, 0.9))
    body_texture = materials.plain(rng, tint)
    radii = (r * 0.93, r, r, r * (1 + neck) / 2, r * neck, r * neck)
    heights = tuple(h * s for s in (0.0, 0.04, shoulder, (1 + 2 * shoulder) / 3, (2 + shoulder) / 3, 0.93))
    yaw = float(rng.uniform(0, 6.3))
    glass = Material(_wrapped(body_texture), 0.5, 0.12, clear=clear)
    parts = [Part(_turned(radii, heights, yaw), (glass,))]
    low, high = h * shoulder * rng.uniform(0.1, 0.3), h * shoulder * rng.uniform(0.7, 0.98)
    art = Material(_round_label(rng, body_texture, 0.0, 1.0), *_gloss(rng))
    parts.append(Part(_turned((r * 1.01, r * 1.01), (float(low), float(high)), yaw), (art,)))
    cap = Material(_wrapped(materials.plain(rng)), *_gloss(rng))
    parts.append(Part(_turned((r * neck * 1.12,) * 2, (h * 0.9, h), yaw), (cap,)))
    parts.append(Part(Disc(_pose(z=h), r * neck * 1.12), (cap,)))
    return Product(tuple(parts), float(np.hypot(r, h / 2)), h / 2, (0.1, 0.6))


def bowl(rng: np.random.Generator) -> Product:
    """A bowl, vase or pot of ceramic, wood or metal, open at the top."""
    knots = int(rng.integers(4, 6))
    heights = np.linspace(0, rng.uniform(0.35, 1.0), knots)
    tall = float(heights[-1])
    radii = np.clip(rng.uniform(0.3, 0.55) + np.cumsum(rng.uniform(-0.5, 0.9, knots)) * tall / knots * 0.5, 0.16, 0.65)
    texture, gloss, roughness, metal = (
        (materials.plain(rng), 0.45, 0.2, 0.0),
        (materials.wood(rng), 0.1, 0.6, 0.0),
        (materials.brushed(rng), 0.8, 0.3, 1.0),
    )[int(rng.integers(3))]
    shell = Material(_wrapped(texture), gloss, roughness, metal)
    body = _turned(radii.tolist(), heights.tolist(), rng.uniform(0, 6.3))
    radius = float(np.hypot(radii.max(), tall / 2))
    floor = Disc(_pose(z=0.02), 0.97 * float(np.interp(0.02, heights, radii)))
    parts = (Part(body, (shell,)), Part(floor, (shell,)))
    return Product(parts, radius, tall / 2, (0.25, 1.1))


def _lying(heights: Array, texture: Array, gloss: float, roughness: float, size: float, yaw: float) -> Product:
    relief = Relief(_pose(yaw=yaw), heights.astype(np.float32), size)
    y, x = np.nonzero(heights > 0)
    radius = float(np.hypot(x / _RELIEF - 0.5, y / _RELIEF - 0.5).max()) * size
    return Product((Part(relief, (Material(texture, gloss, roughness),)),), radius, 0.0, (0.95, 1.5))


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
    return _lying(blur(heights.astype(np.float32), 1.0) * (r < 1), glaze, 0.5, 0.15, 1.3, rng.uniform(0, 6.3))


def garment(rng: np.random.Generator) -> Product:
    """A T-shirt, trousers or a towel spread out, with folds and perhaps a print."""
    sleeve, waist = rng.uniform(0.28, 0.45), rng.uniform(0.20, 0.30)
    kind = rng.random()
    if kind < 0.45:
        half = [(0.06, 0.10), (0.22, 0.06), (0.46, 0.16), (0.46 - 0.04, sleeve), (waist, 0.30), (waist + 0.01, 0.94)]
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
    heights = _rounded(mask, 0.02, 3.0) + np.where(mask > 0.5, rng.uniform(0.01, 0.035) * blur(folds, 1.0), 0)
    texture = materials.cloth(rng)
    if rng.random() < 0.4:
        art = labels.package(rng, 72, 84)
        row, column = int(materials.TEXELS * 0.28), (materials.TEXELS - 72) // 2
        texture[row : row + 84, column : column + 72] = 0.85 * art + 0.1 * texture[row : row + 84, column : column + 72]
    return _lying(heights, texture, 0.0, 1.0, 1.7, rng.normal(0, 0.35))


def shoes(rng: np.random.Generator) -> Product:
    """A pair of shoes from above: rounded soles, an opening, laces."""
    wide, waist = rng.uniform(0.10, 0.13), rng.uniform(0.7, 0.9)
    y = np.linspace(0, 1, 24)
    side = (
        wide
        * np.sqrt(np.clip(1 - (2 * y - 1) ** 4, 0, 1))
        * (1 - (1 - waist) * np.sin(np.pi * np.clip(y * 1.6 - 0.5, 0, 1)))
    )
    polygons, holes, laces = [], [], Image.new("L", (materials.TEXELS, materials.TEXELS))
    draw = ImageDraw.Draw(laces)
    for middle in (0.5 - wide * 1.35, 0.5 + wide * 1.35):
        shift = rng.normal(0, 0.015)
        polygons.append(
            [(middle + s, 0.08 + 0.84 * v + shift) for s, v in zip(side, y, strict=True)]
            + [(middle - s, 0.08 + 0.84 * v + shift) for s, v in zip(side[::-1], y[::-1], strict=True)]
        )
        holes.append(
            [(middle + 0.55 * wide * np.cos(a), 0.70 + shift + 0.15 * np.sin(a)) for a in np.linspace(0, 6.28, 20)]
        )
        for k in range(5):
            ends = [
                ((middle + s * 0.45 * wide) * materials.TEXELS, (0.36 + 0.04 * k + shift) * materials.TEXELS)
                for s in (-1, 1)
            ]
            draw.line(ends, fill=255, width=3)
    mask, hole = _outline(polygons), _outline(holes)
    heights = _rounded(mask, 0.20, 7.0) * (1 - 0.75 * blur(hole, 1.5))
    texture = (materials.leather if rng.random() < 0.6 else materials.cloth)(rng)
    opening = np.asarray(Image.fromarray(hole).resize((materials.TEXELS,) * 2), np.float32)[..., None]
    lace = np.asarray(laces, np.float32)[..., None] / np.float32(255)
    texture = texture * (1 - 0.8 * opening) + lace * (materials.colour(rng, (0, 0.3), (0.2, 1.0)) - texture)
    return _lying(heights, texture.astype(np.float32), float(rng.uniform(0, 0.35)), 0.5, 1.5, rng.normal(0, 0.5))


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
        texture, gloss, roughness = labels.package(rng, materials.TEXELS, materials.TEXELS), 0.5, 0.2
    return _lying(heights, texture, gloss, roughness, 1.4, rng.normal(0, 0.6))


_MAKERS: tuple[Callable[[np.random.Generator], Product], ...] = (
    carton,
    parcel,
    book,
    device,
    can,
    mug,
    bottle,
    bowl,
    plate,
    garment,
    shoes,
    bag,
)


def random_product(rng: np.random.Generator) -> Product:
    """One product of any kind, all kinds equally often."""
    return _MAKERS[int(rng.integers(len(_MAKERS)))](rng)
