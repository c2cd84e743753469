"""Products that stand: packages, parcels, cans, mugs, bottles, bowls.

Each maker assembles solids and materials from a generator, about one unit large around the origin of the ground.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from realdamage.synthesis.fields import Array
from realdamage.synthesis.scenery import labels, materials
from realdamage.synthesis.scenery.materials import Material, coating
from realdamage.synthesis.scenery.scene import Part, Product
from realdamage.synthesis.scenery.shapes import Box, Disc, Handle, Turned, upright

_FROM_THE_SIDE = (0.12, 0.85)


def _sunken(texture: Array) -> Material:
    """The floor of an open body: the same colour, but little light gets there."""
    return Material(np.float32(0.55) * texture, 0.05, 0.7)


def carton(rng: np.random.Generator) -> Product:
    """A printed package: artwork in front, small print behind, plain or printed sides."""
    half = (
        float(rng.uniform(0.2, 0.5)),
        float(rng.uniform(0.08, 0.4)),
        float(rng.uniform(0.3, 0.62)),
    )
    gloss, roughness = coating(rng)

    def print_on(texture: Array) -> Material:
        return Material(texture, gloss, roughness)

    front, behind = print_on(labels.package(rng)), print_on(labels.back(rng))
    side = behind if rng.random() < 0.5 else print_on(materials.plain(rng))
    top = side if rng.random() < 0.5 else print_on(labels.package(rng, 192, 128))
    box = Box(upright(z=half[2], yaw=rng.uniform(-0.9, 0.9)), half, float(rng.uniform(0.004, 0.03)))
    return Product(
        (Part(box, (side, side, front, behind, top)),),
        float(np.hypot(np.hypot(*half[:2]), half[2])),
        half[2],
        _FROM_THE_SIDE,
    )


def parcel(rng: np.random.Generator) -> Product:
    """A cardboard box with tape and an address label."""
    half = (
        float(rng.uniform(0.3, 0.6)),
        float(rng.uniform(0.25, 0.5)),
        float(rng.uniform(0.12, 0.45)),
    )
    board = materials.cardboard(rng)
    faces = tuple(Material(labels.sticker_on(rng, board), 0.02, 0.9) for _ in range(2))
    plain = Material(board, 0.02, 0.9)
    box = Box(upright(z=half[2], yaw=rng.uniform(-0.9, 0.9)), half, 0.012)
    radius = float(np.hypot(np.hypot(*half[:2]), half[2]))
    return Product(
        (Part(box, (plain, plain, faces[0], plain, plain, faces[1])),), radius, half[2], (0.25, 1.1)
    )


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
    return Turned(upright(yaw=yaw), tuple(radii), tuple(heights))


def can(rng: np.random.Generator) -> Product:
    """A tin or drinks can with printed sides and metal lid."""
    r, h = float(rng.uniform(0.22, 0.42)), float(rng.uniform(0.55, 1.05))
    metal = Material(materials.brushed(rng), 0.8, 0.25, metal=1.0)
    art = Material(_round_label(rng, materials.plain(rng), 0.06, 0.95), *coating(rng))
    body = _turned((r * 0.88, r, r, r * 0.86), (0.0, 0.05 * h, 0.93 * h, h), rng.uniform(0, 6.3))
    lid = Disc(upright(z=h * 0.985), r * 0.87)
    return Product(
        (Part(body, (art,)), Part(lid, (metal,))), float(np.hypot(r, h / 2)), h / 2, _FROM_THE_SIDE
    )


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
        upright(1.02 * r * np.cos(yaw), 1.02 * r * np.sin(yaw), 0.52 * h, yaw), 0.28 * h, 0.05
    )
    ceramic = Material(glaze, gloss, roughness)
    floor = Disc(upright(z=0.03), 0.94 * r * flare)
    parts = (
        Part(body, (Material(texture, gloss, roughness),)),
        Part(ear, (ceramic,)),
        Part(floor, (_sunken(glaze),)),
    )
    return Product(parts, float(np.hypot(r * 1.5, h / 2)), h / 2, (0.2, 0.95))


def bottle(rng: np.random.Generator) -> Product:
    """A bottle or jar of glass or plastic with a label and a cap."""
    r, h = float(rng.uniform(0.17, 0.32)), float(rng.uniform(0.9, 1.25))
    shoulder, neck = float(rng.uniform(0.5, 0.75)), float(rng.uniform(0.3, 0.6))
    clear = float(rng.uniform(0.3, 0.75)) if rng.random() < 0.5 else 0.0
    tint = materials.colour(rng, (0.1, 0.9), (0.15, 0.9))
    body_texture = materials.plain(rng, tint)
    radii = (r * 0.93, r, r, r * (1 + neck) / 2, r * neck, r * neck)
    heights = tuple(
        h * s for s in (0.0, 0.04, shoulder, (1 + 2 * shoulder) / 3, (2 + shoulder) / 3, 0.93)
    )
    yaw = float(rng.uniform(0, 6.3))
    glass = Material(_wrapped(body_texture), 0.5, 0.12, clear=clear)
    parts = [Part(_turned(radii, heights, yaw), (glass,))]
    low, high = h * shoulder * rng.uniform(0.1, 0.3), h * shoulder * rng.uniform(0.7, 0.98)
    art = Material(_round_label(rng, body_texture, 0.0, 1.0), *coating(rng))
    parts.append(Part(_turned((r * 1.01, r * 1.01), (float(low), float(high)), yaw), (art,)))
    cap = Material(_wrapped(materials.plain(rng)), *coating(rng))
    parts.append(Part(_turned((r * neck * 1.12,) * 2, (h * 0.9, h), yaw), (cap,)))
    parts.append(Part(Disc(upright(z=h), r * neck * 1.12), (cap,)))
    return Product(tuple(parts), float(np.hypot(r, h / 2)), h / 2, (0.1, 0.6))


def bowl(rng: np.random.Generator) -> Product:
    """A bowl, vase or pot of ceramic, wood or metal, open at the top."""
    knots = int(rng.integers(4, 6))
    heights = np.linspace(0, rng.uniform(0.35, 1.0), knots)
    tall = float(heights[-1])
    radii = np.clip(
        rng.uniform(0.3, 0.55) + np.cumsum(rng.uniform(-0.5, 0.9, knots)) * tall / knots * 0.5,
        0.16,
        0.65,
    )
    texture, gloss, roughness, metal = (
        (materials.plain(rng), 0.45, 0.2, 0.0),
        (materials.wood(rng), 0.1, 0.6, 0.0),
        (materials.brushed(rng), 0.8, 0.3, 1.0),
    )[int(rng.integers(3))]
    shell = Material(_wrapped(texture), gloss, roughness, metal)
    body = _turned(radii.tolist(), heights.tolist(), rng.uniform(0, 6.3))
    radius = float(np.hypot(radii.max(), tall / 2))
    floor = Disc(upright(z=0.02), 0.97 * float(np.interp(0.02, heights, radii)))
    parts = (Part(body, (shell,)), Part(floor, (_sunken(texture),)))
    return Product(parts, radius, tall / 2, (0.25, 1.1))


STANDING: tuple[Callable[[np.random.Generator], Product], ...] = (
    carton,
    parcel,
    can,
    mug,
    bottle,
    bowl,
)
"""Makers of products that stand."""
