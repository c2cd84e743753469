"""Damage that opens the surface and shows what is under or behind it: tears, holes, missing pieces."""

from __future__ import annotations

import numpy as np

from realdamage.synthesis.damage_site import Site, Surface
from realdamage.synthesis.fields import (
    Array,
    Stroke,
    blob,
    blur,
    grid,
    noise,
    smoothstep,
    strokes,
    tapered,
    walk,
)

# Albedo of what shows under a torn or broken surface.
_INNER = np.array(
    [(0.42, 0.30, 0.18), (0.78, 0.76, 0.72), (0.55, 0.55, 0.56), (0.06, 0.055, 0.05)], np.float32
)


def _beneath(site: Site) -> Array:
    """The material that an opening shows: what lies behind the product at its outline, an inner layer elsewhere."""
    if site.at_edge:
        return site.grained(site.background(), 0.05)
    inner = _INNER[int(site.rng.integers(len(_INNER)))] * np.float32(
        site.level * site.rng.uniform(0.6, 1.0)
    )
    return site.grained(inner, 0.22, cell=4.0)


def _cast_shadow(site: Site, opening: Array, depth: float) -> Array:
    """Share of light [h, w] that the rim facing the light takes from the floor of an opening `depth` pixels deep."""
    dy, dx = (round(float(site.light[k] * depth)) for k in (1, 0))
    lid = np.roll(1 - opening, (-dy, -dx), (0, 1))
    return blur(lid, max(0.25 * depth, 0.7 * site.unit)) * opening


def _rim_relief(opening: Array, depth: float, width: float) -> Array:
    """Height [h, w] of a rim that bends into the opening over `width` pixels."""
    return -np.float32(depth) * blur(opening, width)


def torn(site: Site) -> Surface:
    """A rip: ragged lips, one with a fringe of pale fibres, the inside showing between them, in shade."""
    rng, unit, radius = site.rng, site.unit, site.radius
    stretch = rng.uniform(1.4, 3.4)
    half, wide = radius * np.sqrt(stretch) * 1.1, radius / np.sqrt(stretch) * 0.85
    heading = rng.uniform(0, np.pi)
    y, x = grid(site.shape, site.centre)
    along = x * np.float32(np.cos(heading)) + y * np.float32(np.sin(heading))
    across = y * np.float32(np.cos(heading)) - x * np.float32(np.sin(heading))
    across = across + np.float32(0.25 * radius) * noise(rng, site.shape, radius)
    taper = np.clip(1 - (along / np.float32(half)) ** 2, 0, 1) ** 0.7
    ragged = noise(rng, site.shape, 9 * unit, octaves=4) * np.float32(3.2 * unit)
    gap = np.float32(wide * rng.uniform(0.45, 0.7)) * taper - np.abs(across) + ragged * (taper > 0)
    fringe_side = smoothstep(-0.3, 0.3, across / np.float32(wide) * rng.choice([-1, 1]))
    fringe = np.float32(wide * 0.45) * taper * (0.35 + 0.65 * fringe_side)
    fringe = fringe * np.clip(0.6 + 0.8 * noise(rng, site.shape, 7 * unit, octaves=3), 0.1, 1.4)
    opening = smoothstep(-0.7 * unit, 0.7 * unit, gap) * (taper > 0)
    bare = smoothstep(-0.7 * unit, 0.7 * unit, gap + fringe) * (taper > 0)
    fibres = strokes(site.shape, _fibres(site, heading, half, wide)) * bare
    pale = np.float32(site.level) * np.array(
        rng.choice([(0.86, 0.84, 0.80), (0.62, 0.47, 0.31)]), np.float32
    )
    shadow = _cast_shadow(site, opening, rng.uniform(2, 5) * unit)[..., None]
    inside = _beneath(site) * (1 - np.float32(rng.uniform(0.4, 0.8)) * shadow)
    lips = site.grained(pale, 0.12, cell=3.0)
    floor = np.clip(opening - 0.9 * fibres, 0, 1)[..., None]
    return Surface(
        weight=smoothstep(-3.0 * unit, 0.0, gap + fringe) * (taper > 0),
        cover=bare.astype(np.float32),
        material=(lips + floor * (inside - lips)).astype(np.float32),
        height=_rim_relief(opening, 1.6 * unit, 1.2 * unit)
        + _rim_relief(-bare, 1.1 * unit, 1.0 * unit),
    )


def _fibres(site: Site, heading: float, half: float, wide: float) -> list[Stroke]:
    """Short threads that reach across the opening from its lips."""
    rng = site.rng
    lines: list[Stroke] = []
    for place in rng.uniform(-0.85, 0.85, int(half / site.unit)):
        side = rng.choice([-1, 1])
        root = wide * 0.6 * side * (1 - place**2) ** 0.7
        tip = root - side * rng.uniform(2, 7) * site.unit
        slant = place * half + rng.normal(0, 2.5) * site.unit
        ends = [
            (
                site.centre[1] + u * np.cos(heading) - v * np.sin(heading),
                site.centre[0] + u * np.sin(heading) + v * np.cos(heading),
            )
            for u, v in ((place * half, root), (slant, tip))
        ]
        lines.append((*ends[0], *ends[1], 0.5 * site.unit))
    return lines


def holed(site: Site) -> Surface:
    """Holes right through: dark inside, deepest under the rim towards the light, a frayed and slightly bent rim."""
    rng, unit, radius = site.rng, site.unit, site.radius
    count = int(rng.choice([1, 1, 2, 3, 5]))
    f = np.full(site.shape, -1e3, np.float32)
    for k in range(count):
        size = radius * 0.85 / np.sqrt(count) * (rng.uniform(0.7, 1.2) if k else 1.0)
        away = rng.normal(0, 1.0, 2) * radius * (k > 0)
        centre = (site.centre[0] + float(away[0]), site.centre[1] + float(away[1]))
        f = np.maximum(
            f, blob(rng, site.shape, centre, size, wobble=0.22, stretch=rng.uniform(1, 1.6))
        )
    f = f + np.float32(rng.uniform(0.5, 1.8) * unit) * noise(rng, site.shape, 4 * unit, octaves=3)
    opening = smoothstep(-0.6 * unit, 0.8 * unit, f)
    fray = smoothstep(-4.0 * unit, -0.5 * unit, f)
    shadow = _cast_shadow(site, opening, rng.uniform(0.25, 0.6) * radius / np.sqrt(count))[
        ..., None
    ]
    floor = (
        (0.25 * site.tint() + 0.10 * _beneath(site)) * (1 - 0.8 * shadow) * rng.uniform(0.25, 0.9)
    )
    pale = 0.6 * site.tint() + np.float32(0.25 * site.level)
    fringe = (
        fray * (1 - opening) * np.clip(0.4 + noise(rng, site.shape, 3 * unit, octaves=2), 0, 0.8)
    )
    return Surface(
        weight=smoothstep(-4.5 * unit, -2.0 * unit, f),
        cover=np.maximum(opening, fringe).astype(np.float32),
        material=(pale + opening[..., None] * (floor - pale)).astype(np.float32),
        height=_rim_relief(opening, rng.uniform(1.5, 3.0) * unit, 1.4 * unit),
    )


def _polygon(site: Site, centre: tuple[float, float], radius: float, sides: int) -> Array:
    """Pixels inside (positive) or outside (negative) an irregular convex polygon around `centre` (y, x), [h, w]."""
    rng = site.rng
    y, x = grid(site.shape, centre)
    f = np.full(site.shape, np.inf, np.float32)
    for angle in (
        np.arange(sides) + rng.uniform(-0.45, 0.45, sides)
    ) * 2 * np.pi / sides + rng.uniform(0, np.pi):
        far = np.float32(rng.uniform(0.55, 1.2) * radius)
        f = np.minimum(f, far - x * np.float32(np.cos(angle)) - y * np.float32(np.sin(angle)))
    return f


def _splits(site: Site) -> Array:
    """Coverage [h, w] of short cracks that run from the broken place into the surface."""
    rng = site.rng
    lines: list[Stroke] = []
    for _ in range(int(rng.integers(1, 6))):
        heading, reach = rng.uniform(0, 2 * np.pi), site.radius * rng.uniform(1.2, 2.0)
        path = walk(
            rng, (site.centre[1], site.centre[0]), heading, reach, 4 * site.unit, wander=0.15
        )
        widths = site.unit * rng.uniform(0.8, 1.5) * np.linspace(1, 0.4, len(path))
        lines += tapered(path, widths)
    return strokes(site.shape, lines)


def broken(site: Site) -> Surface:
    """A missing chip: straight facets round a piece that is gone, a rough fracture face, cracks that start from it."""
    rng, unit, radius = site.rng, site.unit, site.radius
    ragged = np.float32(2.0 * unit) * noise(rng, site.shape, 7 * unit, octaves=3)
    outer = _polygon(site, site.centre, radius, int(rng.integers(4, 8))) + ragged
    gone = smoothstep(-0.6 * unit, 0.6 * unit, outer)
    # Behind the outline there is nothing; inside the surface the fracture slopes down to a floor, if it has one.
    floor_size = radius * (rng.uniform(0.75, 0.95) if site.at_edge else rng.uniform(0.0, 0.6))
    off_centre = (
        site.centre[0] + float(rng.normal(0, 0.15)) * radius,
        site.centre[1] + float(rng.normal(0, 0.15)) * radius,
    )
    inner = _polygon(site, off_centre, floor_size, int(rng.integers(3, 6))) + ragged
    face = gone * (1 - smoothstep(-unit, unit, inner))
    downhill = np.clip(outer, 0, None) / np.maximum(
        np.clip(outer, 0, None) - np.minimum(inner, 0), 1.0
    )
    ripples = (
        np.float32(0.8 * unit) * noise(rng, site.shape, (5 * unit, 9 * unit), octaves=2) * face
    )
    pale = np.float32(0.35 * site.level * rng.uniform(0.1, 1.0))
    flesh = site.grained(0.65 * site.tint() + pale, 0.12, cell=3.0)
    shadow = _cast_shadow(site, gone, 0.3 * radius)[..., None]
    floor = _beneath(site) * (1 - np.float32(rng.uniform(0.3, 0.7)) * shadow)
    cracks = _splits(site) * (1 - gone)
    return Surface(
        weight=np.maximum(
            smoothstep(-2.0 * unit, 0.0, outer), smoothstep(0.01, 0.16, blur(cracks, 1.2 * unit))
        ),
        cover=gone,
        material=floor + face[..., None] * (flesh - floor),
        gain=np.exp(-1.4 * cracks - np.float32(rng.uniform(0.3, 1.0)) * downhill * face),
        height=blur(-np.float32(rng.uniform(0.25, 0.5) * radius) * downhill, 0.6 * unit)
        + ripples
        - blur(cracks, unit),
    )
