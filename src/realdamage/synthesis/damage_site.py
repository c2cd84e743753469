"""Where one damage goes and what it does to the surface there, in terms that every damage type shares.

A `Site` is a window of the photo around the damaged place; a damage type answers with a `Surface`, the physical change
(relief, tint, other material, displaced print, glint), and `resurface` lights that change, so that all types obey
the same light and no type has a drawing style of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from realdamage.synthesis.fields import Array, blur, luminance, noise

_AMBIENT = 0.45  # share of the light that comes from everywhere; the rest from one direction
_FAINTEST = (
    0.04  # a blend below this is dropped, so that pixels are either touched or exactly as before
)


@dataclass(frozen=True)
class Site:
    """A window of the photo, [h, w], in linear light, with everything a damage type needs to know.

    radius: of a disc with the wanted area, pixels. unit: the width of a fine line in this photo, pixels.
    light: unit vector towards the light, x right, y down, z out of the photo. level: luminance of a white surface here.
    inside: float32 [h, w], 1 on the product, 0 beside it. centre: (y, x) in the window.
    """

    patch: Array
    inside: Array
    centre: tuple[float, float]
    radius: float
    unit: float
    light: tuple[float, float, float]
    level: float
    rng: np.random.Generator

    @property
    def shape(self) -> tuple[int, int]:
        return self.patch.shape[0], self.patch.shape[1]

    @property
    def at_edge(self) -> bool:
        """Whether the damage sits on the product's outline, so that what lies behind it can show."""
        y, x = round(self.centre[0]), round(self.centre[1])
        reach = max(2, round(self.radius))
        around = self.inside[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        return float(around.mean()) < 0.8

    def tint(self) -> Array:
        """The surface's own colour around the centre, linear RGB [3]."""
        y, x = round(self.centre[0]), round(self.centre[1])
        reach = max(2, round(self.radius / 2))
        near = self.patch[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        tint: Array = near.reshape(-1, 3).mean(0, dtype=np.float32)
        return tint

    def background(self) -> Array:
        """What lies behind the product, continued from its outline inwards, [h, w, 3]."""
        beside = (1.0 - self.inside) + np.float32(1e-4)
        sigma = max(self.radius / 2, 2.0)
        weight = blur(beside, sigma)
        return np.stack([blur(self.patch[..., c] * beside, sigma) / weight for c in range(3)], -1)

    def grained(self, colour: Array, strength: float, cell: float = 2.0) -> Array:
        """`colour` [3] or [h, w, 3] as a rough material [h, w, 3]: uneven at the scale of `cell` line widths."""
        grain = noise(self.rng, self.shape, cell * self.unit, octaves=2) + self.rng.normal(
            0, 0.35, self.shape
        )
        return np.maximum(colour * (1 + strength * grain[..., None]), 0).astype(np.float32)


@dataclass(frozen=True)
class Surface:
    """What a damage does to the surface of a site; everything left out stays as it was.

    weight: [h, w] in 0..1, where it acts. height: [h, w] pixels out of the photo. gain: [h, w] or [h, w, 3] factor.
    cover, material: [h, w] in 0..1 and [h, w, 3] linear light: another material. glint: [h, w] added light, in units of
    `Site.level`. warp: (dy, dx), each [h, w] pixels: where the print is taken from.
    """

    weight: Array
    height: Array | None = None
    gain: Array | None = None
    cover: Array | None = None
    material: Array | None = None
    glint: Array | None = None
    warp: tuple[Array, Array] | None = None


def shade(height: Array, light: tuple[float, float, float]) -> Array:
    """Factor [h, w] by which a relief [h, w] (pixels) is brighter than the flat surface (Lambert and ambient light)."""
    dy, dx = np.gradient(height)
    facing = (light[2] - light[0] * dx - light[1] * dy) / np.sqrt(1 + dx * dx + dy * dy)
    lit = _AMBIENT + (1 - _AMBIENT) * np.maximum(facing, 0)
    factor: Array = lit / np.float32(_AMBIENT + (1 - _AMBIENT) * light[2])
    return factor.astype(np.float32, copy=False)


def resurface(site: Site, surface: Surface) -> tuple[Array, Array]:
    """The site's window after the damage, linear [h, w, 3], and the blend [h, w] in 0..1 (0 = untouched)."""
    out = site.patch
    if surface.warp is not None:
        rows, columns = np.indices(site.shape, dtype=np.float32)
        where = np.stack([rows + surface.warp[0], columns + surface.warp[1]])
        out = np.stack(
            [
                ndimage.map_coordinates(out[..., c], where, order=1, mode="nearest")
                for c in range(3)
            ],
            -1,
        )
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


def light_level(linear: Array) -> float:
    """Luminance that a white surface would have in a photo, linear [h, w, 3], guessed from its bright pixels."""
    step = max(1, min(linear.shape[:2]) // 48)
    return float(np.clip(np.quantile(luminance(linear[::step, ::step]), 0.95), 0.08, 1.0))
