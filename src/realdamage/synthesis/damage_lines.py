"""Damage that runs along lines: cracks, scratches and creases."""

from __future__ import annotations

import numpy as np

from realdamage.synthesis.damage_site import Site, Surface
from realdamage.synthesis.fields import (
    Array,
    Stroke,
    blur,
    grid,
    noise,
    smoothstep,
    strokes,
    tapered,
    walk,
)


def _crack_lines(site: Site) -> list[Stroke]:
    """Arms that leave the point of impact, fork at sharp angles and thin out; sometimes joined by rings (glass)."""
    rng, unit = site.rng, site.unit
    budget = (
        np.pi * site.radius**2 / (4.0 * unit)
    )  # pixels of line that fill the wanted area, some beside the product
    web = rng.random() < 0.45
    arms = int(rng.integers(5, 10)) if web else int(rng.integers(1, 4))
    start = (site.centre[1], site.centre[0])
    first = rng.uniform(0, 2 * np.pi)
    length = budget / arms * (0.6 if web else 0.55)
    thickness = unit * rng.uniform(1.0, 2.2)
    pending = [
        (
            start,
            first + 2 * np.pi * (k + rng.uniform(-0.3, 0.3)) / arms,
            length * rng.uniform(0.6, 1.2),
            thickness,
            0,
        )
        for k in range(arms)
    ]
    lines: list[Stroke] = []
    spent, paths = 0.0, []
    while pending and spent < budget:
        origin, heading, reach, wide, depth = pending.pop(0)
        step = unit * rng.uniform(2.5, 5.0)
        path = walk(rng, origin, heading, reach, step, wander=0.16 if web else 0.30)
        lines += tapered(
            path, wide * np.linspace(1, 0.35, len(path)) * rng.uniform(0.7, 1.3, len(path))
        )
        spent += reach
        if depth == 0:
            paths.append(path)
        if depth < 3:
            for _ in range(int(rng.integers(1, 3 if web else 4))):
                fork = path[int(rng.integers(len(path) // 5, len(path)))]
                angle = heading + rng.choice([-1, 1]) * rng.uniform(0.35, 1.1)
                pending.append(
                    (
                        (fork[0], fork[1]),
                        angle,
                        reach * rng.uniform(0.3, 0.65),
                        wide * 0.65,
                        depth + 1,
                    )
                )
    if web:
        for share in np.cumsum(rng.uniform(0.12, 0.3, 3)):
            knots = [path[min(int(share * len(path)), len(path) - 1)] for path in paths]
            for a, b in zip(knots, [*knots[1:], knots[0]], strict=True):
                if rng.random() < 0.7 and np.hypot(*(a - b)) < site.radius * 1.5:
                    middle = (a + b) / 2 + rng.normal(0, unit * 2, 2)
                    lines += tapered(np.stack([a, middle, b]), np.full(2, thickness * 0.6))
    return lines


def cracked(site: Site) -> Surface:
    """Branching cracks: a dark core, one bevelled side bright and the other in shade, sometimes a glassy glint."""
    rng, unit = site.rng, site.unit
    core = strokes(site.shape, _crack_lines(site))
    soft = blur(core, 0.9 * unit)
    along = 1 + 0.5 * noise(rng, site.shape, 14 * unit)
    glassy = rng.random() < 0.35
    glint = 0.55 * core * np.maximum(noise(rng, site.shape, 9 * unit), 0) if glassy else None
    return Surface(
        weight=smoothstep(0.01, 0.16, blur(core, 1.4 * unit)),
        height=-rng.uniform(1.2, 2.6) * unit * soft * along,
        gain=np.exp(-rng.uniform(0.9, 2.4) * core * along),
        glint=glint,
    )


def scratched(site: Site) -> Surface:
    """Nearly parallel fine lines of uneven pressure: a paler layer laid bare, glitter where they face the light."""
    rng, unit = site.rng, site.unit
    heading = rng.uniform(0, np.pi)
    budget = np.pi * site.radius**2 / (3.2 * unit)
    scuff = rng.random() < 0.4
    lines: list[Stroke] = []
    while budget > 0:
        reach = site.radius * (rng.uniform(0.5, 1.4) if scuff else rng.uniform(1.0, 3.2))
        bearing = heading + rng.normal(0, 0.09 if scuff else 0.22)
        offset = rng.normal(0, 0.6 if scuff else 0.5, 2) * site.radius
        start = (
            site.centre[1] + offset[0] - np.cos(bearing) * reach / 2,
            site.centre[0] + offset[1],
        )
        start = (start[0], start[1] - np.sin(bearing) * reach / 2)
        path = walk(rng, start, bearing, reach, 5 * unit, wander=0.02, straighten=0.0)
        pressure = np.sin(np.linspace(0.15, np.pi - 0.1, len(path))) * rng.uniform(
            0.5, 1.1, len(path)
        )
        lines += tapered(path, unit * rng.uniform(0.5, 1.5) * np.maximum(pressure, 0.3))
        budget -= reach
    core = strokes(site.shape, lines) * np.clip(
        0.85 + 0.7 * noise(rng, site.shape, 6 * unit), 0.1, 1
    )
    bare = 0.5 * site.tint() + np.float32(0.38 * site.level)
    across = abs(np.cos(heading) * site.light[1] - np.sin(heading) * site.light[0])
    return Surface(
        weight=smoothstep(0.01, 0.16, blur(core, 0.9 * unit)),
        height=-rng.uniform(0.5, 1.3) * unit * blur(core, 0.7 * unit),
        cover=core * rng.uniform(0.35, 0.85),
        material=site.grained(bare if rng.random() < 0.75 else 0.25 * bare, 0.15),
        glint=(0.1 + 0.5 * across) * core * np.maximum(noise(rng, site.shape, 5 * unit), 0),
    )


def _fold(site: Site, heading: float, offset: float, reach: float) -> tuple[Array, Array]:
    """Signed pixels across a gently curved line, and how present it is along its length (0..1), both [h, w]."""
    rng = site.rng
    y, x = grid(site.shape, site.centre)
    along = x * np.float32(np.cos(heading)) + y * np.float32(np.sin(heading))
    across = y * np.float32(np.cos(heading)) - x * np.float32(np.sin(heading)) - np.float32(offset)
    bend = np.float32(rng.normal(0, 0.10) / reach) * along * along
    kinks = np.float32(rng.uniform(0.4, 1.5) * site.unit) * noise(
        rng, site.shape, reach / 3, octaves=2
    )
    shift = np.float32(rng.uniform(-0.3, 0.3) * reach)
    return across - bend - kinks, smoothstep(
        0.0, 0.45, 1 - np.abs(along - shift) / np.float32(reach)
    )


def creased(site: Site) -> Surface:
    """Folds: facets tilted to either side of a line, paired light and dark, the line itself worn pale."""
    rng, unit = site.rng, site.unit
    count = int(rng.integers(1, 6))
    swath = rng.uniform(3.5, 6.5) * unit
    reach = float(
        np.clip(np.pi * site.radius**2 / (count * 3.2 * swath), site.radius * 0.8, site.radius * 4)
    )
    heading, crossing = rng.uniform(0, np.pi), rng.random() < 0.5
    weight, height, worn, pinched = np.zeros((4, *site.shape), np.float32)
    for k in range(count):
        bearing = heading + (np.pi / 2 if crossing and k % 2 else 0) + rng.normal(0, 0.25)
        offset = rng.normal(0, 0.7) * site.radius * (k > 0)
        across, present = _fold(site, bearing, offset, reach * rng.uniform(0.6, 1.1))
        distance = np.abs(across)
        sharp, steep = rng.uniform(0.5, 1.1) * swath, rng.uniform(0.7, 1.5)
        line = present * np.exp(-((distance / (0.9 * unit)) ** 2))
        if rng.random() < 0.5:  # a ridge, rubbed pale
            worn = np.maximum(worn, line)
        else:  # a valley, dark at its bottom
            steep = -steep
            pinched = np.maximum(pinched, line)
        height += np.float32(steep * sharp) * present * np.exp(-distance / np.float32(sharp))
        weight = np.maximum(
            weight, present * smoothstep(0, 1, (2.2 * swath - distance) / np.float32(swath))
        )
    pale = np.float32(0.45) * site.tint() + np.float32(0.5 * site.level)
    wear = np.float32(rng.uniform(0.2, 0.9)) * np.clip(
        0.5 + noise(rng, site.shape, 5 * unit, octaves=2), 0, 1
    )
    return Surface(
        weight=weight,
        height=blur(height, 0.4 * unit),
        gain=np.exp(-np.float32(rng.uniform(0.3, 1.0)) * pinched),
        cover=worn * wear,
        material=site.grained(pale, 0.1),
    )
