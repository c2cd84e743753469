"""Damage that fills an area: stains, dents, crushed places, and the growths and burns of "other"."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from realdamage.synthesis.damage_site import Site, Surface
from realdamage.synthesis.fields import Array, blob, blur, grid, noise, smoothstep

# What a layer of the liquid takes out of red, green and blue light (optical density).
_LIQUIDS = {
    "coffee": (0.55, 0.95, 1.5),
    "wine": (0.35, 1.4, 0.9),
    "ink": (1.5, 1.2, 0.6),
    "grease": (0.30, 0.36, 0.50),
    "mud": (0.9, 1.15, 1.45),
    "juice": (0.10, 0.55, 1.3),
    "water": (0.25, 0.24, 0.22),
}


def _around(site: Site, radius: float, spread: float) -> tuple[float, float]:
    dy, dx = site.rng.normal(0, spread, 2) * radius
    return site.centre[0] + float(dy), site.centre[1] + float(dx)


def stained(site: Site) -> Surface:
    """A dried spill: it takes light out of the surface, most at its rim, with splashes beside it."""
    rng, unit, radius = site.rng, site.unit, site.radius
    absorb = np.array(_LIQUIDS[str(rng.choice(list(_LIQUIDS)))], np.float32) * np.float32(
        rng.uniform(0.7, 1.3)
    )
    depth = blob(
        rng, site.shape, site.centre, radius * 0.92, wobble=0.28, stretch=rng.uniform(1, 1.8)
    )
    depth += np.float32(0.16 * radius) * noise(rng, site.shape, radius / 2.5, octaves=3)
    for _ in range(int(rng.integers(0, 9))):
        size = radius * rng.uniform(0.04, 0.17)
        depth = np.maximum(
            depth, blob(rng, site.shape, _around(site, radius, 0.9), size, wobble=0.2, waves=3)
        )
    edge = rng.uniform(0.6, 2.0) * unit
    wet = smoothstep(-edge, edge, depth)
    rim = np.exp(-np.abs(depth - 1.5 * unit) / (rng.uniform(1.5, 4.0) * unit)) * wet
    density = (
        wet * np.clip(0.55 + 0.35 * noise(rng, site.shape, radius / 2, octaves=3), 0.1, 1.2)
        + rng.uniform(0.2, 0.8) * rim
    )
    return Surface(weight=wet, gain=np.exp(-density[..., None] * absorb).astype(np.float32))


def dented(site: Site) -> Surface:
    """Dents: smooth hollows with a raised lip that bend the light and the print, a highlight on the far slope."""
    rng, radius = site.rng, site.radius
    height, touched = np.zeros(site.shape, np.float32), np.zeros(site.shape, np.float32)
    count = int(rng.choice([1, 1, 1, 2, 3]))
    for k in range(count):
        size = radius / np.sqrt(count)
        centre = _around(site, radius, 0.9) if k else site.centre
        f = blob(
            rng, site.shape, centre, size, wobble=0.18, stretch=rng.uniform(1, 2.4), waves=4
        ) / np.float32(size)
        hollow = (
            smoothstep(0.0, rng.uniform(0.4, 0.9), f)
            if rng.random() < 0.6
            else np.clip(f, 0, 1) ** 1.3
        )
        lip = np.exp(-((f / 0.13) ** 2)) * rng.uniform(0.02, 0.12)
        height += np.float32(size) * (lip - np.float32(rng.uniform(0.30, 0.65)) * hollow)
        touched = np.maximum(touched, smoothstep(-0.16, 0.02, f))
    height = blur(height, max(0.05 * radius, 0.6 * site.unit))
    dy, dx = np.gradient(height)
    facing = np.maximum(-dx * site.light[0] - dy * site.light[1], 0)
    return Surface(
        weight=touched,
        height=height,
        gain=np.exp(0.25 * height / np.float32(radius)).astype(np.float32),
        glint=(rng.uniform(0, 0.35) * smoothstep(0.25, 0.8, facing)).astype(np.float32),
        warp=(2.0 * site.unit * dy, 2.0 * site.unit * dx),
    )


def crushed(site: Site) -> Surface:
    """A caved-in place: many sharp folds at once, the print displaced, dark in the valleys."""
    rng, radius, unit = site.rng, 1.2 * site.radius, site.unit
    f = blob(
        rng, site.shape, site.centre, radius, wobble=0.25, stretch=rng.uniform(1, 2)
    ) / np.float32(radius)
    inside = smoothstep(0.0, 0.35, f)
    cell = radius * rng.uniform(0.45, 0.9)
    tall = cell * rng.uniform(0.55, 1.0)
    ridges = sum(
        (
            np.abs(noise(rng, site.shape, (cell / share, cell * rng.uniform(0.6, 1.6) / share)))
            * share
            for share in (1.0, 0.5, 0.25)
        ),
        start=np.zeros(site.shape, np.float32),
    )
    height = inside * np.float32(tall) * (ridges - np.float32(0.6))
    push = radius * rng.uniform(0.15, 0.32)
    warp = (
        push * inside * noise(rng, site.shape, cell),
        push * inside * noise(rng, site.shape, cell),
    )
    return Surface(
        weight=smoothstep(-0.02, 0.12, f),
        height=blur(height, 0.6 * unit),
        gain=(1 - inside * 0.7 * np.exp(-ridges / 0.12)).astype(np.float32),
        warp=warp,
    )


def _specks(site: Site, count: int, smallest: float, largest: float, fuzz: float) -> Array:
    """Coverage [h, w] of many soft round spots, denser towards the centre."""
    cover = np.zeros(site.shape, np.float32)
    for _ in range(count):
        y, x = _around(site, site.radius, 0.45)
        size = site.radius * float(np.exp(site.rng.uniform(np.log(smallest), np.log(largest))))
        rows, columns = grid(site.shape, (y, x))
        cover = np.maximum(
            cover, smoothstep(-fuzz, fuzz, 1 - np.hypot(rows, columns) / np.float32(size))
        )
    return cover


def _mould(site: Site) -> Surface:
    spots = _specks(site, int(site.rng.integers(12, 40)), 0.08, 0.42, 0.6)
    furry = np.clip(
        spots * (0.9 + 0.6 * noise(site.rng, site.shape, 3 * site.unit, octaves=2)), 0, 1
    )
    shade = site.rng.choice([0, 1, 2])
    colour = np.array(
        [(0.03, 0.05, 0.03), (0.02, 0.02, 0.025), (0.16, 0.22, 0.17)][shade], np.float32
    )
    material = site.grained(colour * np.float32(site.level), 0.5)
    return Surface(
        weight=smoothstep(0.05, 0.6, spots),
        cover=(0.9 * furry).astype(np.float32),
        material=material,
    )


def _burn(site: Site) -> Surface:
    rng, radius = site.rng, site.radius
    f = blob(
        rng, site.shape, site.centre, radius, wobble=0.2, stretch=rng.uniform(1, 1.6)
    ) / np.float32(radius)
    f = f + np.float32(0.28) * noise(rng, site.shape, radius / 2, octaves=4)
    char, scorch = smoothstep(0.15, 0.55, f), smoothstep(-0.05, 0.4, f)
    gain = np.exp(
        -scorch[..., None] * np.array([0.5, 1.0, 1.7], np.float32) - 2.2 * char[..., None]
    )
    blisters = -0.6 * site.unit * char * noise(rng, site.shape, 4 * site.unit, octaves=2)
    return Surface(weight=smoothstep(-0.08, 0.05, f), gain=gain.astype(np.float32), height=blisters)


def _rust(site: Site) -> Surface:
    rng, radius = site.rng, site.radius
    f = blob(rng, site.shape, site.centre, radius, wobble=0.3) / np.float32(radius)
    f = f + np.float32(0.5) * noise(rng, site.shape, radius / 2, octaves=4)
    eaten = smoothstep(0.0, 0.25, f)
    tone = np.clip(0.5 + noise(rng, site.shape, 5 * site.unit, octaves=3), 0, 1)[..., None]
    colour = (1 - tone) * np.array([0.10, 0.03, 0.012], np.float32) + tone * np.array(
        [0.45, 0.17, 0.05], np.float32
    )
    return Surface(
        weight=smoothstep(-0.05, 0.1, f),
        cover=(0.85 * eaten).astype(np.float32),
        material=site.grained((colour * site.level).astype(np.float32), 0.25),
        height=-0.7 * site.unit * eaten * noise(rng, site.shape, 3 * site.unit, octaves=2),
    )


def _bleached(site: Site) -> Surface:
    rng, radius = site.rng, site.radius
    f = blob(
        rng, site.shape, site.centre, radius, wobble=0.25, stretch=rng.uniform(1, 2)
    ) / np.float32(radius)
    f = f + np.float32(0.3) * noise(rng, site.shape, radius / 2, octaves=4)
    pale = 0.25 * site.tint() + np.float32(0.62 * site.level) * np.array(
        [1.0, 0.97, 0.9], np.float32
    )
    cover = smoothstep(0.0, 0.4, f) * rng.uniform(0.5, 0.85)
    return Surface(
        weight=smoothstep(-0.05, 0.1, f),
        cover=cover,
        material=np.broadcast_to(pale, (*site.shape, 3)),
    )


_OTHERS: tuple[Callable[[Site], Surface], ...] = (_mould, _burn, _rust, _bleached)


def other(site: Site) -> Surface:
    """Mould, a burn, rust or a bleached patch."""
    return _OTHERS[int(site.rng.integers(len(_OTHERS)))](site)
