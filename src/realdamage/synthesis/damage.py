"""What each type of damage does to a surface: cracks, stains, dents, tears and the others, in
linear light.

A type gets a `Site`, a window of the photo around the damaged place, and returns a `Surface`, the
physical change (relief, tint, other material, displaced print, glint). `resurface` lights that
change the same way for every type, so no type has a drawing style of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from realdamage.synthesis.fields import (
    Array,
    Stroke,
    Walk,
    blur,
    grid,
    noise,
    smoothstep,
    strokes,
    tapered,
)

Point = tuple[float, float]

_AMBIENT = 0.45  # share of the light that comes from everywhere; the rest has one direction
_FAINTEST = 0.04  # a fainter blend is dropped, so that pixels are either touched or as before


@dataclass(frozen=True)
class Site:
    """A window of the photo, [h, w], in linear light, with all that a damage type needs to know.

    inside: float32 [h, w], 1 on the product, 0 elsewhere.
    centre: (y, x) in the window.
    radius: of a disc with the wanted area, pixels.
    unit: the width of a fine line in this photo, pixels.
    light: unit vector towards the light, x right, y down, z out of the photo.
    level: luminance of a white surface here.
    """

    patch: Array
    inside: Array
    centre: Point
    radius: float
    unit: float
    light: tuple[float, float, float]
    level: float
    rng: np.random.Generator

    @property
    def shape(self) -> tuple[int, int]:
        return self.patch.shape[0], self.patch.shape[1]

    def near(self, field: Array, reach: float) -> Array:
        """The square of `field` [h, w, ...] that reaches `reach` pixels from the centre."""
        y, x = round(self.centre[0]), round(self.centre[1])
        size = max(2, round(reach))
        return field[max(0, y - size) : y + size + 1, max(0, x - size) : x + size + 1]

    @property
    def at_edge(self) -> bool:
        """Whether the damage is on the product's outline, where what is behind it can show."""
        return float(self.near(self.inside, self.radius).mean()) < 0.8

    def tint(self) -> Array:
        """The surface's own colour around the centre, linear RGB [3]."""
        tint: Array = (
            self.near(self.patch, self.radius / 2).reshape(-1, 3).mean(0, dtype=np.float32)
        )
        return tint

    def background(self) -> Array:
        """What is behind the product, continued from its outline inwards, [h, w, 3]."""
        outside = (1.0 - self.inside) + np.float32(1e-4)
        sigma = max(self.radius / 2, 2.0)
        weight = blur(outside, sigma)
        return np.stack([blur(self.patch[..., c] * outside, sigma) / weight for c in range(3)], -1)

    def noise(self, cell: float | tuple[float, float], octaves: int = 1) -> Array:
        return noise(self.rng, self.shape, cell, octaves)

    def grained(self, colour: Array, strength: float, cell: float = 2.0) -> Array:
        """`colour` [3] or [h, w, 3] as a rough material, uneven at a scale of `cell` line
        widths."""
        grain = self.noise(cell * self.unit, 2) + self.rng.normal(0, 0.35, self.shape)
        return np.maximum(colour * (1 + strength * grain[..., None]), 0).astype(np.float32)

    def around(self, spread: float) -> Point:
        """A random point (y, x) near the centre; `spread` in radii."""
        dy, dx = self.rng.normal(0, spread, 2) * self.radius
        return self.centre[0] + float(dy), self.centre[1] + float(dx)

    def axes(self, heading: float) -> tuple[Array, Array]:
        """Pixels along and across a line through the centre, both [h, w]."""
        y, x = grid(self.shape, self.centre)
        cos, sin = np.float32(np.cos(heading)), np.float32(np.sin(heading))
        return x * cos + y * sin, y * cos - x * sin

    def blob(
        self, centre: Point, radius: float, wobble: float, stretch: float = 1.0, waves: int = 7
    ) -> Array:
        """Pixels inside (positive) or outside (negative) an irregular closed outline, [h, w].

        radius: of the disc of the same area. wobble: 0 is an ellipse. stretch: long side over
        short.
        """
        rng = self.rng
        y, x = grid(self.shape, centre)
        angle = rng.uniform(0, np.pi)
        root = np.sqrt(stretch)
        u = (x * np.cos(angle) + y * np.sin(angle)) / np.float32(root)
        v = (y * np.cos(angle) - x * np.sin(angle)) * np.float32(root)
        theta = np.arctan2(v, u)
        outline = np.ones(self.shape, np.float32)
        for k in range(2, 2 + waves):
            height = np.float32(wobble * rng.normal() / k)
            outline += height * np.cos(k * theta + np.float32(rng.uniform(0, 2 * np.pi)))
        depth: Array = np.float32(radius) * np.maximum(outline, 0.25) - np.hypot(u, v)
        return depth

    def patch_of_noise(self, radius: float, stretch: float, wobble: float, rough: float) -> Array:
        """`blob` around the centre in units of `radius`, its outline frayed by noise."""
        shape = self.blob(self.centre, radius, wobble, stretch) / np.float32(radius)
        return shape + np.float32(rough) * self.noise(radius / 2, 4)


@dataclass(frozen=True)
class Surface:
    """What a damage does to the surface of a site; what is None stays as it was.

    weight: [h, w] in 0..1, where it acts.
    height: [h, w] pixels out of the photo.
    gain: [h, w] or [h, w, 3] factor.
    cover, material: [h, w] in 0..1 and [h, w, 3] linear light: another material.
    glint: [h, w] added light, in units of `Site.level`.
    warp: (dy, dx), each [h, w] pixels: where the print is taken from.
    """

    weight: Array
    height: Array | None = None
    gain: Array | None = None
    cover: Array | None = None
    material: Array | None = None
    glint: Array | None = None
    warp: tuple[Array, Array] | None = None


def shade(height: Array, light: tuple[float, float, float]) -> Array:
    """Factor [h, w] by which a relief [h, w] is brighter than the flat surface (Lambert)."""
    dy, dx = np.gradient(height)
    facing = (light[2] - light[0] * dx - light[1] * dy) / np.sqrt(1 + dx * dx + dy * dy)
    lit = _AMBIENT + (1 - _AMBIENT) * np.maximum(facing, 0)
    factor: Array = lit / np.float32(_AMBIENT + (1 - _AMBIENT) * light[2])
    return factor.astype(np.float32, copy=False)


def resurface(site: Site, surface: Surface) -> tuple[Array, Array]:
    """The window after the damage, linear [h, w, 3], and the blend [h, w] in 0..1 (0 =
    untouched)."""
    out = site.patch
    if surface.warp is not None:
        rows, columns = np.indices(site.shape, dtype=np.float32)
        where = np.stack([rows + surface.warp[0], columns + surface.warp[1]])
        moved = [
            ndimage.map_coordinates(out[..., c], where, order=1, mode="nearest") for c in range(3)
        ]
        out = np.stack(moved, -1)
    if surface.cover is not None and surface.material is not None:
        out = out + surface.cover[..., None] * (surface.material - out)
    if surface.gain is not None:
        out = out * (surface.gain if surface.gain.ndim == 3 else surface.gain[..., None])
    if surface.height is not None:
        out = out * shade(surface.height, site.light)[..., None]
    if surface.glint is not None:
        out = out + np.float32(site.level) * surface.glint[..., None]
    weight = np.clip(surface.weight, 0, 1) * site.inside
    weight = np.where(weight < _FAINTEST, np.float32(0), weight).astype(np.float32)
    brightest = max(1.0, float(site.patch.max()))
    out = site.patch + weight[..., None] * (np.clip(out, 0, brightest) - site.patch)
    return out.astype(np.float32), weight


# Damage that runs along lines.


def _crack_lines(site: Site) -> list[Stroke]:
    """Arms that leave the point of impact, fork and thin out; sometimes joined by rings (glass)."""
    rng, unit = site.rng, site.unit
    # Pixels of line that fill the wanted area, some of them off the product.
    budget = np.pi * site.radius**2 / (4.0 * unit)
    web = rng.random() < 0.45
    arms = int(rng.integers(5, 10)) if web else int(rng.integers(1, 4))
    first = rng.uniform(0, 2 * np.pi)
    length = budget / arms * (0.6 if web else 0.55)
    thickness = unit * rng.uniform(1.0, 2.2)
    pending = []
    for k in range(arms):
        heading = first + 2 * np.pi * (k + rng.uniform(-0.3, 0.3)) / arms
        start = (site.centre[1], site.centre[0])
        pending.append((start, heading, length * rng.uniform(0.6, 1.2), thickness, 0))
    lines: list[Stroke] = []
    spent, paths = 0.0, []
    while pending and spent < budget:
        origin, heading, reach, wide, depth = pending.pop(0)
        walk = Walk(unit * rng.uniform(2.5, 5.0), wander=0.16 if web else 0.30)
        path = walk.points(rng, origin, heading, reach)
        widths = wide * np.linspace(1, 0.35, len(path)) * rng.uniform(0.7, 1.3, len(path))
        lines += tapered(path, widths)
        spent += reach
        if depth == 0:
            paths.append(path)
        if depth == 3:
            continue
        for _ in range(int(rng.integers(1, 3 if web else 4))):
            x, y = path[int(rng.integers(len(path) // 5, len(path)))]
            angle = heading + rng.choice([-1, 1]) * rng.uniform(0.35, 1.1)
            pending.append(((x, y), angle, reach * rng.uniform(0.3, 0.65), wide * 0.65, depth + 1))
    if web:
        for share in np.cumsum(rng.uniform(0.12, 0.3, 3)):
            knots = [path[min(int(share * len(path)), len(path) - 1)] for path in paths]
            for a, b in zip(knots, [*knots[1:], knots[0]], strict=True):
                if rng.random() < 0.7 and np.hypot(*(a - b)) < site.radius * 1.5:
                    middle = (a + b) / 2 + rng.normal(0, unit * 2, 2)
                    lines += tapered(np.stack([a, middle, b]), np.full(2, thickness * 0.6))
    return lines


def cracked(site: Site) -> Surface:
    """Branching cracks: a dark core, one bevelled side bright, sometimes a glassy glint."""
    rng, unit = site.rng, site.unit
    core = strokes(site.shape, _crack_lines(site))
    soft = blur(core, 0.9 * unit)
    along = 1 + 0.5 * site.noise(14 * unit)
    glassy = rng.random() < 0.35
    glint = 0.55 * core * np.maximum(site.noise(9 * unit), 0) if glassy else None
    return Surface(
        weight=smoothstep(0.01, 0.16, blur(core, 1.4 * unit)),
        height=-rng.uniform(1.2, 2.6) * unit * soft * along,
        gain=np.exp(-rng.uniform(0.9, 2.4) * core * along),
        glint=glint,
    )


def scratched(site: Site) -> Surface:
    """Nearly parallel fine lines of uneven pressure: a paler layer shows, and glitters in the
    light."""
    rng, unit = site.rng, site.unit
    heading = rng.uniform(0, np.pi)
    budget = np.pi * site.radius**2 / (3.2 * unit)
    scuff = rng.random() < 0.4
    walk = Walk(5 * unit, wander=0.02, straighten=0.0)
    lines: list[Stroke] = []
    while budget > 0:
        reach = site.radius * (rng.uniform(0.5, 1.4) if scuff else rng.uniform(1.0, 3.2))
        bearing = heading + rng.normal(0, 0.09 if scuff else 0.22)
        offset = rng.normal(0, 0.6 if scuff else 0.5, 2) * site.radius
        x = site.centre[1] + offset[0] - np.cos(bearing) * reach / 2
        y = site.centre[0] + offset[1] - np.sin(bearing) * reach / 2
        path = walk.points(rng, (x, y), bearing, reach)
        pressure = np.sin(np.linspace(0.15, np.pi - 0.1, len(path)))
        pressure = pressure * rng.uniform(0.5, 1.1, len(path))
        lines += tapered(path, unit * rng.uniform(0.5, 1.5) * np.maximum(pressure, 0.3))
        budget -= reach
    core = strokes(site.shape, lines) * np.clip(0.85 + 0.7 * site.noise(6 * unit), 0.1, 1)
    bare = 0.5 * site.tint() + np.float32(0.38 * site.level)
    across = abs(np.cos(heading) * site.light[1] - np.sin(heading) * site.light[0])
    return Surface(
        weight=smoothstep(0.01, 0.16, blur(core, 0.9 * unit)),
        height=-rng.uniform(0.5, 1.3) * unit * blur(core, 0.7 * unit),
        cover=core * rng.uniform(0.35, 0.85),
        material=site.grained(bare if rng.random() < 0.75 else 0.25 * bare, 0.15),
        glint=(0.1 + 0.5 * across) * core * np.maximum(site.noise(5 * unit), 0),
    )


def _fold(site: Site, heading: float, offset: float, reach: float) -> tuple[Array, Array]:
    """Signed pixels across a gently curved line, and how present it is along it (0..1), [h, w]."""
    rng = site.rng
    along, across = site.axes(heading)
    across = across - np.float32(offset)
    bend = np.float32(rng.normal(0, 0.10) / reach) * along * along
    kinks = np.float32(rng.uniform(0.4, 1.5) * site.unit) * site.noise(reach / 3, 2)
    shift = np.float32(rng.uniform(-0.3, 0.3) * reach)
    present = smoothstep(0.0, 0.45, 1 - np.abs(along - shift) / np.float32(reach))
    return across - bend - kinks, present


def creased(site: Site) -> Surface:
    """Folds: facets tilted to either side of a line, paired light and dark, the line worn pale."""
    rng, unit = site.rng, site.unit
    count = int(rng.integers(1, 6))
    swath = rng.uniform(3.5, 6.5) * unit
    fitting = np.pi * site.radius**2 / (count * 3.2 * swath)
    reach = float(np.clip(fitting, site.radius * 0.8, site.radius * 4))
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
        fold = smoothstep(0, 1, (2.2 * swath - distance) / np.float32(swath))
        weight = np.maximum(weight, present * fold)
    pale = np.float32(0.45) * site.tint() + np.float32(0.5 * site.level)
    wear = np.float32(rng.uniform(0.2, 0.9)) * np.clip(0.5 + site.noise(5 * unit, 2), 0, 1)
    return Surface(
        weight=weight,
        height=blur(height, 0.4 * unit),
        gain=np.exp(-np.float32(rng.uniform(0.3, 1.0)) * pinched),
        cover=worn * wear,
        material=site.grained(pale, 0.1),
    )


# Damage that fills an area.

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


def stained(site: Site) -> Surface:
    """A dried spill: it takes light out of the surface, most at its rim, with splashes around
    it."""
    rng, unit, radius = site.rng, site.unit, site.radius
    liquid = np.array(_LIQUIDS[str(rng.choice(list(_LIQUIDS)))], np.float32)
    absorb = liquid * np.float32(rng.uniform(0.7, 1.3))
    depth = site.blob(site.centre, radius * 0.92, wobble=0.28, stretch=rng.uniform(1, 1.8))
    depth += np.float32(0.16 * radius) * site.noise(radius / 2.5, 3)
    for _ in range(int(rng.integers(0, 9))):
        size = radius * rng.uniform(0.04, 0.17)
        depth = np.maximum(depth, site.blob(site.around(0.9), size, wobble=0.2, waves=3))
    edge = rng.uniform(0.6, 2.0) * unit
    wet = smoothstep(-edge, edge, depth)
    rim = np.exp(-np.abs(depth - 1.5 * unit) / (rng.uniform(1.5, 4.0) * unit)) * wet
    density = wet * np.clip(0.55 + 0.35 * site.noise(radius / 2, 3), 0.1, 1.2)
    density = density + rng.uniform(0.2, 0.8) * rim
    return Surface(weight=wet, gain=np.exp(-density[..., None] * absorb).astype(np.float32))


def dented(site: Site) -> Surface:
    """Smooth hollows with a raised lip that bend light and print, a highlight on the far slope."""
    rng, radius = site.rng, site.radius
    height, touched = np.zeros(site.shape, np.float32), np.zeros(site.shape, np.float32)
    count = int(rng.choice([1, 1, 1, 2, 3]))
    for k in range(count):
        size = radius / np.sqrt(count)
        centre = site.around(0.9) if k else site.centre
        f = site.blob(centre, size, wobble=0.18, stretch=rng.uniform(1, 2.4), waves=4)
        f = f / np.float32(size)
        if rng.random() < 0.6:
            hollow = smoothstep(0.0, rng.uniform(0.4, 0.9), f)
        else:
            hollow = np.clip(f, 0, 1) ** 1.3
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
    """A caved-in place: many sharp folds, the print displaced, dark in the valleys."""
    rng, radius, unit = site.rng, 1.2 * site.radius, site.unit
    f = site.blob(site.centre, radius, wobble=0.25, stretch=rng.uniform(1, 2)) / np.float32(radius)
    inside = smoothstep(0.0, 0.35, f)
    cell = radius * rng.uniform(0.45, 0.9)
    tall = cell * rng.uniform(0.55, 1.0)
    ridges = np.zeros(site.shape, np.float32)
    for share in (1.0, 0.5, 0.25):
        cells = (cell / share, cell * rng.uniform(0.6, 1.6) / share)
        ridges += np.abs(site.noise(cells)) * share
    height = inside * np.float32(tall) * (ridges - np.float32(0.6))
    push = radius * rng.uniform(0.15, 0.32)
    return Surface(
        weight=smoothstep(-0.02, 0.12, f),
        height=blur(height, 0.6 * unit),
        gain=(1 - inside * 0.7 * np.exp(-ridges / 0.12)).astype(np.float32),
        warp=(push * inside * site.noise(cell), push * inside * site.noise(cell)),
    )


def _mould(site: Site) -> Surface:
    rng = site.rng
    spots = np.zeros(site.shape, np.float32)
    for _ in range(int(rng.integers(12, 40))):
        centre = site.around(0.45)
        size = site.radius * float(np.exp(rng.uniform(np.log(0.08), np.log(0.42))))
        rows, columns = grid(site.shape, centre)
        spot = smoothstep(-0.6, 0.6, 1 - np.hypot(rows, columns) / np.float32(size))
        spots = np.maximum(spots, spot)
    furry = np.clip(spots * (0.9 + 0.6 * site.noise(3 * site.unit, 2)), 0, 1)
    colours = [(0.03, 0.05, 0.03), (0.02, 0.02, 0.025), (0.16, 0.22, 0.17)]
    colour = np.array(colours[rng.choice([0, 1, 2])], np.float32)
    material = site.grained(colour * np.float32(site.level), 0.5)
    weight, cover = smoothstep(0.05, 0.6, spots), (0.9 * furry).astype(np.float32)
    return Surface(weight=weight, cover=cover, material=material)


def _burn(site: Site) -> Surface:
    f = site.patch_of_noise(site.radius, site.rng.uniform(1, 1.6), wobble=0.2, rough=0.28)
    char, scorch = smoothstep(0.15, 0.55, f), smoothstep(-0.05, 0.4, f)
    density = scorch[..., None] * np.array([0.5, 1.0, 1.7], np.float32) + 2.2 * char[..., None]
    blisters = -0.6 * site.unit * char * site.noise(4 * site.unit, 2)
    gain = np.exp(-density).astype(np.float32)
    return Surface(weight=smoothstep(-0.08, 0.05, f), gain=gain, height=blisters)


def _rust(site: Site) -> Surface:
    f = site.patch_of_noise(site.radius, 1.0, wobble=0.3, rough=0.5)
    eaten = smoothstep(0.0, 0.25, f)
    tone = np.clip(0.5 + site.noise(5 * site.unit, 3), 0, 1)[..., None]
    dark, bright = (np.array(rgb, np.float32) for rgb in ((0.10, 0.03, 0.012), (0.45, 0.17, 0.05)))
    colour = (1 - tone) * dark + tone * bright
    return Surface(
        weight=smoothstep(-0.05, 0.1, f),
        cover=(0.85 * eaten).astype(np.float32),
        material=site.grained((colour * site.level).astype(np.float32), 0.25),
        height=-0.7 * site.unit * eaten * site.noise(3 * site.unit, 2),
    )


def _bleached(site: Site) -> Surface:
    rng = site.rng
    f = site.patch_of_noise(site.radius, rng.uniform(1, 2), wobble=0.25, rough=0.3)
    white = np.float32(0.62 * site.level) * np.array([1.0, 0.97, 0.9], np.float32)
    pale = np.broadcast_to(0.25 * site.tint() + white, (*site.shape, 3))
    cover = smoothstep(0.0, 0.4, f) * rng.uniform(0.5, 0.85)
    return Surface(weight=smoothstep(-0.05, 0.1, f), cover=cover, material=pale)


def other(site: Site) -> Surface:
    """Mould, a burn, rust or a bleached patch."""
    kinds = (_mould, _burn, _rust, _bleached)
    return kinds[int(site.rng.integers(len(kinds)))](site)


# Damage that opens the surface and shows what is under or behind it.

# Albedo of what shows under a torn or broken surface.
_INNER = np.array(
    [(0.42, 0.30, 0.18), (0.78, 0.76, 0.72), (0.55, 0.55, 0.56), (0.06, 0.055, 0.05)], np.float32
)


def _beneath(site: Site) -> Array:
    """What an opening shows: the background at the product's outline, an inner layer elsewhere."""
    if site.at_edge:
        return site.grained(site.background(), 0.05)
    albedo = _INNER[int(site.rng.integers(len(_INNER)))]
    return site.grained(
        albedo * np.float32(site.level * site.rng.uniform(0.6, 1.0)), 0.22, cell=4.0
    )


def _cast_shadow(site: Site, opening: Array, depth: float) -> Array:
    """Share of light [h, w] that the rim takes from the floor of an opening `depth` pixels deep."""
    dy, dx = (round(float(site.light[k] * depth)) for k in (1, 0))
    lid = np.roll(1 - opening, (-dy, -dx), (0, 1))
    return blur(lid, max(0.25 * depth, 0.7 * site.unit)) * opening


def _rim_relief(opening: Array, depth: float, width: float) -> Array:
    """Height [h, w] of a rim that bends into the opening over `width` pixels."""
    return -np.float32(depth) * blur(opening, width)


def torn(site: Site) -> Surface:
    """A rip: ragged lips, one with a fringe of pale fibres, the inside in shade between them."""
    rng, unit, radius = site.rng, site.unit, site.radius
    stretch = rng.uniform(1.4, 3.4)
    half, wide = radius * np.sqrt(stretch) * 1.1, radius / np.sqrt(stretch) * 0.85
    heading = rng.uniform(0, np.pi)
    along, across = site.axes(heading)
    across = across + np.float32(0.25 * radius) * site.noise(radius)
    taper = np.clip(1 - (along / np.float32(half)) ** 2, 0, 1) ** 0.7
    ragged = site.noise(9 * unit, 4) * np.float32(3.2 * unit)
    gap = np.float32(wide * rng.uniform(0.45, 0.7)) * taper - np.abs(across) + ragged * (taper > 0)
    fringe_side = smoothstep(-0.3, 0.3, across / np.float32(wide) * rng.choice([-1, 1]))
    fringe = np.float32(wide * 0.45) * taper * (0.35 + 0.65 * fringe_side)
    fringe = fringe * np.clip(0.6 + 0.8 * site.noise(7 * unit, 3), 0.1, 1.4)
    opening = smoothstep(-0.7 * unit, 0.7 * unit, gap) * (taper > 0)
    bare = smoothstep(-0.7 * unit, 0.7 * unit, gap + fringe) * (taper > 0)
    fibres = strokes(site.shape, _fibres(site, heading, half, wide)) * bare
    paper = rng.choice([(0.86, 0.84, 0.80), (0.62, 0.47, 0.31)])
    pale = np.float32(site.level) * np.array(paper, np.float32)
    shadow = _cast_shadow(site, opening, rng.uniform(2, 5) * unit)[..., None]
    inside = _beneath(site) * (1 - np.float32(rng.uniform(0.4, 0.8)) * shadow)
    lips = site.grained(pale, 0.12, cell=3.0)
    floor = np.clip(opening - 0.9 * fibres, 0, 1)[..., None]
    return Surface(
        weight=smoothstep(-3.0 * unit, 0.0, gap + fringe) * (taper > 0),
        cover=bare.astype(np.float32),
        material=(lips + floor * (inside - lips)).astype(np.float32),
        height=_rim_relief(opening, 1.6 * unit, 1.2 * unit) + _rim_relief(-bare, 1.1 * unit, unit),
    )


def _fibres(site: Site, heading: float, half: float, wide: float) -> list[Stroke]:
    """Short threads that reach across the opening from its lips."""
    rng, cos, sin = site.rng, np.cos(heading), np.sin(heading)
    lines: list[Stroke] = []
    for place in rng.uniform(-0.85, 0.85, int(half / site.unit)):
        side = rng.choice([-1, 1])
        root = wide * 0.6 * side * (1 - place**2) ** 0.7
        tip = root - side * rng.uniform(2, 7) * site.unit
        slant = place * half + rng.normal(0, 2.5) * site.unit
        x0, y0, x1, y1 = (
            coordinate
            for u, v in ((place * half, root), (slant, tip))
            for coordinate in (
                site.centre[1] + u * cos - v * sin,
                site.centre[0] + u * sin + v * cos,
            )
        )
        lines.append((x0, y0, x1, y1, 0.5 * site.unit))
    return lines


def holed(site: Site) -> Surface:
    """Holes right through: dark inside, deepest under the rim, which is frayed and slightly
    bent."""
    rng, unit, radius = site.rng, site.unit, site.radius
    count = int(rng.choice([1, 1, 2, 3, 5]))
    f = np.full(site.shape, -1e3, np.float32)
    for k in range(count):
        size = radius * 0.85 / np.sqrt(count) * (rng.uniform(0.7, 1.2) if k else 1.0)
        dy, dx = rng.normal(0, 1.0, 2) * radius * (k > 0)
        centre = (site.centre[0] + float(dy), site.centre[1] + float(dx))
        f = np.maximum(f, site.blob(centre, size, wobble=0.22, stretch=rng.uniform(1, 1.6)))
    f = f + np.float32(rng.uniform(0.5, 1.8) * unit) * site.noise(4 * unit, 3)
    opening = smoothstep(-0.6 * unit, 0.8 * unit, f)
    fray = smoothstep(-4.0 * unit, -0.5 * unit, f)
    depth = rng.uniform(0.25, 0.6) * radius / np.sqrt(count)
    shadow = _cast_shadow(site, opening, depth)[..., None]
    floor = (0.25 * site.tint() + 0.10 * _beneath(site)) * (1 - 0.8 * shadow)
    floor = floor * rng.uniform(0.25, 0.9)
    pale = 0.6 * site.tint() + np.float32(0.25 * site.level)
    fringe = fray * (1 - opening) * np.clip(0.4 + site.noise(3 * unit, 2), 0, 0.8)
    return Surface(
        weight=smoothstep(-4.5 * unit, -2.0 * unit, f),
        cover=np.maximum(opening, fringe).astype(np.float32),
        material=(pale + opening[..., None] * (floor - pale)).astype(np.float32),
        height=_rim_relief(opening, rng.uniform(1.5, 3.0) * unit, 1.4 * unit),
    )


def _polygon(site: Site, centre: Point, radius: float, sides: int) -> Array:
    """Pixels inside (positive) or outside an irregular convex polygon around `centre`, [h, w]."""
    rng = site.rng
    y, x = grid(site.shape, centre)
    f = np.full(site.shape, np.inf, np.float32)
    angles = (np.arange(sides) + rng.uniform(-0.45, 0.45, sides)) * 2 * np.pi / sides
    for angle in angles + rng.uniform(0, np.pi):
        far = np.float32(rng.uniform(0.55, 1.2) * radius)
        f = np.minimum(f, far - x * np.float32(np.cos(angle)) - y * np.float32(np.sin(angle)))
    return f


def _splits(site: Site) -> Array:
    """Coverage [h, w] of short cracks that run from the broken place into the surface."""
    rng = site.rng
    lines: list[Stroke] = []
    walk = Walk(4 * site.unit, wander=0.15)
    for _ in range(int(rng.integers(1, 6))):
        heading, reach = rng.uniform(0, 2 * np.pi), site.radius * rng.uniform(1.2, 2.0)
        path = walk.points(rng, (site.centre[1], site.centre[0]), heading, reach)
        lines += tapered(path, site.unit * rng.uniform(0.8, 1.5) * np.linspace(1, 0.4, len(path)))
    return strokes(site.shape, lines)


def broken(site: Site) -> Surface:
    """A missing chip: straight facets, a rough fracture face, cracks that start from it."""
    rng, unit, radius = site.rng, site.unit, site.radius
    ragged = np.float32(2.0 * unit) * site.noise(7 * unit, 3)
    outer = _polygon(site, site.centre, radius, int(rng.integers(4, 8))) + ragged
    gone = smoothstep(-0.6 * unit, 0.6 * unit, outer)
    # Behind the outline there is nothing; inside it the fracture slopes down to a floor, if any.
    floor_size = radius * (rng.uniform(0.75, 0.95) if site.at_edge else rng.uniform(0.0, 0.6))
    dy, dx = (float(rng.normal(0, 0.15)) * radius for _ in range(2))
    off_centre = (site.centre[0] + dy, site.centre[1] + dx)
    inner = _polygon(site, off_centre, floor_size, int(rng.integers(3, 6))) + ragged
    face = gone * (1 - smoothstep(-unit, unit, inner))
    depth = np.clip(outer, 0, None)
    downhill = depth / np.maximum(depth - np.minimum(inner, 0), 1.0)
    ripples = np.float32(0.8 * unit) * site.noise((5 * unit, 9 * unit), 2) * face
    pale = np.float32(0.35 * site.level * rng.uniform(0.1, 1.0))
    flesh = site.grained(0.65 * site.tint() + pale, 0.12, cell=3.0)
    shadow = _cast_shadow(site, gone, 0.3 * radius)[..., None]
    floor = _beneath(site) * (1 - np.float32(rng.uniform(0.3, 0.7)) * shadow)
    cracks = _splits(site) * (1 - gone)
    chip = smoothstep(-2.0 * unit, 0.0, outer)
    gain = np.exp(-1.4 * cracks - np.float32(rng.uniform(0.3, 1.0)) * downhill * face)
    slope = blur(-np.float32(rng.uniform(0.25, 0.5) * radius) * downhill, 0.6 * unit)
    return Surface(
        weight=np.maximum(chip, smoothstep(0.01, 0.16, blur(cracks, 1.2 * unit))),
        cover=gone,
        material=floor + face[..., None] * (flesh - floor),
        gain=gain,
        height=slope + ripples - blur(cracks, unit),
    )


TYPES: dict[str, Callable[[Site], Surface]] = {
    "cracked": cracked,
    "scratched": scratched,
    "stained": stained,
    "dented": dented,
    "torn": torn,
    "holed": holed,
    "creased": creased,
    "crushed": crushed,
    "broken": broken,
    "other": other,
}
"""How each damage type of the manifest is drawn."""
