"""Turns a studio scene into linear light: where the camera's rays land, what lights that place, what it reflects.

One ray a pixel at capture resolution (the camera's lens blur smooths the edges); soft shadows and ambient occlusion are
traced on a coarse grid of the ground.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from realdamage.synthesis.fields import Array, blur, smoothstep
from realdamage.synthesis.materials import Material
from realdamage.synthesis.products import Product
from realdamage.synthesis.shapes import Touch

_COARSE = 5  # pixels between shadow samples


@dataclass(frozen=True)
class View:
    """Where the photographer stands: azimuth, elevation and roll in radians; `distance` to the product's middle in units;
    focal length in pixels; shift of the product from the middle of the frame in pixels (x, y)."""

    azimuth: float
    elevation: float
    roll: float
    distance: float
    focal: float
    shift: tuple[float, float]

    def axes(self) -> Array:
        """Columns: the frame's right, down and the viewing direction, in the world [3, 3]."""
        sin, cos = np.sin(self.azimuth), np.cos(self.azimuth)
        forward = np.array([sin * np.cos(self.elevation), cos * np.cos(self.elevation), -np.sin(self.elevation)])
        right = np.array([cos, -sin, 0.0])
        down = np.cross(forward, right)
        s, c = np.sin(self.roll), np.cos(self.roll)
        return np.stack([c * right + s * down, c * down - s * right, forward], 1).astype(np.float32)


@dataclass(frozen=True)
class Scene:
    """A product on a ground, before a wall, under a light.

    ground, wall: albedo [m, m, 3]; *_scale: units that one texture covers. gloss: of the ground. wall_distance: behind
    the product, units. light: unit vector towards the lamp. softness: radius of the lamp as seen from the product.
    ambient: share of the light that comes from everywhere. windows: directions [k, 3] of further bright areas that
    glossy things mirror. falloff: how fast the lamp's light fades across the scene.
    """

    product: Product
    ground: Array
    ground_scale: float
    ground_turn: float
    ground_gloss: float
    wall: Array
    wall_scale: float
    wall_distance: float
    light: Array
    softness: float
    ambient: float
    windows: Array
    falloff: float


def sample(texture: Array, u: Array, v: Array) -> Array:
    """Bilinear look-up [n, 3] in texture [rows, columns, 3] at u (right) and v (down); mirrored beyond 0..1."""
    rows, columns = texture.shape[:2]
    flat = texture.reshape(-1, 3)

    def split(at: Array, count: int) -> tuple[NDArray[np.int32], NDArray[np.int32], Array]:
        folded = np.abs(np.mod(at + 1, 2) - 1) * np.float32(count - 1)
        first = folded.astype(np.int32)
        return first, np.minimum(first + 1, count - 1), (folded - first)[:, None]

    x0, x1, fx = split(u, columns)
    y0, y1, fy = split(v, rows)
    y0, y1 = y0 * columns, y1 * columns
    top = flat.take(y0 + x0, 0)
    top += fx * (flat.take(y0 + x1, 0) - top)
    bottom = flat.take(y1 + x0, 0)
    bottom += fx * (flat.take(y1 + x1, 0) - bottom)
    return top + fy * (bottom - top)


def _first_hit(product: Product, origin: Array, rays: Array) -> tuple[Array, NDArray[np.int8]]:
    """Nearest distance [n] over the product's parts, and which part (-1: none)."""
    best = np.full(rays.shape[1], np.inf, np.float32)
    part = np.full(rays.shape[1], -1, np.int8)
    for k, piece in enumerate(product.parts):
        t = piece.solid.reach(origin, rays)
        nearer = t < best
        best[nearer] = t[nearer]
        part[nearer] = k
    return best, part


def _blocked(product: Product, points: Array, towards: Array) -> Array:
    """Share [n] of the directions `towards` [k, 3] in which the product hides the sky from points [3, n]."""
    n, k = points.shape[1], towards.shape[0]
    origins = np.repeat(points, k, axis=1)
    rays = np.tile(towards.T, (1, n))
    hidden = np.zeros(n * k, bool)
    for piece in product.parts:
        hidden |= np.isfinite(piece.solid.reach(origins, rays))
    return hidden.reshape(n, k).mean(1, dtype=np.float32)


def _directions(rng: np.random.Generator, middle: Array, spread: float, count: int) -> Array:
    """Unit vectors [count, 3] scattered around one, all pointing up."""
    rays = middle + spread * rng.standard_normal((count, 3))
    rays[:, 2] = np.maximum(rays[:, 2], 0.12)
    return (rays / np.linalg.norm(rays, axis=1, keepdims=True)).astype(np.float32)


def _reflected(scene: Scene, mirror: Array, roughness: float, ground: Array) -> Array:
    """Light [n, 3] that arrives from directions `mirror` [3, n]: sky, ground, lamp and windows."""
    sky = 0.25 + 0.55 * smoothstep(-0.15, 0.9, mirror[2])
    up = smoothstep(-0.2, 0.15, mirror[2])[:, None]
    out = up * sky[:, None] + (1 - up) * ground * np.float32(0.6)
    sharp = np.float32(2.5 / (roughness**2 + 0.01))
    for k, window in enumerate(np.concatenate([scene.light[None], scene.windows])):
        lobe = np.exp(sharp * (window @ mirror - 1))
        out = out + (np.float32((2.5 if k == 0 else 1.2) * (1.15 - roughness)) * lobe)[:, None]
    return out


def _surface(
    scene: Scene, material: Material, touch: Touch, which: NDArray[np.bool_], rays: Array, points: Array, behind: Array
) -> Array:
    """Light [n, 3] that leaves the product towards the camera at the touched points chosen by `which`."""
    normal, view, height = touch.normal[:, which], rays[:, which], points[2, which]
    facing = (normal * view).sum(0)
    normal = np.where(facing > 0, -normal, normal)
    inward = facing > 0
    facing = np.minimum(np.abs(facing), 1)
    albedo = sample(material.texture, touch.u[which], touch.v[which])
    ground = scene.ground[::16, ::16].mean((0, 1))
    lamp = (1 - scene.ambient) * np.maximum(scene.light @ normal, 0) * np.where(inward, 0.35, 1.0)
    sky = scene.ambient * (0.60 + 0.40 * normal[2]) * np.where(inward, 0.6, 1.0)
    bounce = 0.22 * np.clip(0.6 - normal[2], 0, 1)[:, None] * ground
    close = 0.55 + 0.45 * smoothstep(0.0, 0.22, height)
    light = (close * (lamp + sky))[:, None] + bounce
    body = albedo * light
    mirror = view + 2 * facing * normal
    fresnel = (0.04 + 0.96 * (1 - facing) ** 5)[:, None]
    shine = _reflected(scene, mirror, material.roughness, ground) * np.where(inward, 0.4, 1.0)[:, None]
    if material.metal:
        return (body * 0.35 + albedo * material.gloss * shine * close[:, None]).astype(np.float32)
    if material.clear:
        through = behind * (0.25 + 0.75 * albedo) * facing[:, None] ** 0.6
        body = material.clear * through + (1 - material.clear) * body
    return (body + material.gloss * fresnel * 3.0 * shine).astype(np.float32)


def render(
    scene: Scene, view: View, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_]]:
    """Linear light [h, w, 3] of the scene and the product's pixels, bool [h, w]. `rng` scatters the shadow rays."""
    h, w = shape
    axes = view.axes()
    eye = np.array([0, 0, scene.product.height], np.float32) - np.float32(view.distance) * axes[:, 2]
    y = (np.arange(h, dtype=np.float32) - h / 2 - np.float32(view.shift[1])) / np.float32(view.focal)
    x = (np.arange(w, dtype=np.float32) - w / 2 - np.float32(view.shift[0])) / np.float32(view.focal)
    frame = np.stack(
        [
            np.broadcast_to(x[None], shape).ravel(),
            np.broadcast_to(y[:, None], shape).ravel(),
            np.ones(h * w, np.float32),
        ]
    )
    rays = axes @ (frame / np.linalg.norm(frame, axis=0)).astype(np.float32)
    image = _surroundings(scene, axes, eye, rays, shape, rng)

    reach = view.focal * scene.product.radius / max(view.distance - scene.product.radius, 0.2) * 1.25
    cx, cy = w / 2 + view.shift[0], h / 2 + view.shift[1]
    rows = slice(max(0, int(cy - reach)), min(h, int(cy + reach) + 1))
    columns = slice(max(0, int(cx - reach)), min(w, int(cx + reach) + 1))
    near = np.arange(h * w).reshape(shape)[rows, columns].ravel()
    distance, part = _first_hit(scene.product, eye, rays[:, near])
    flat = image.reshape(-1, 3)
    for k, piece in enumerate(scene.product.parts):
        chosen = part == k
        if not chosen.any():
            continue
        index = near[chosen]
        seen = rays[:, index]
        points = eye[:, None] + distance[chosen] * seen
        touch = piece.solid.touch(points)
        for m, material in enumerate(piece.materials):
            last = m == len(piece.materials) - 1
            which = touch.face >= m if last else touch.face == m
            if which.any():
                flat[index[which]] = _surface(scene, material, touch, which, seen, points, flat[index[which]])
    mask = np.zeros(h * w, bool)
    mask[near] = part >= 0
    return image, mask.reshape(shape)


def _surroundings(
    scene: Scene, axes: Array, eye: Array, rays: Array, shape: tuple[int, int], rng: np.random.Generator
) -> Array:
    """Ground and wall with shadows, linear light [h, w, 3]."""
    h, w = shape
    away = np.array([axes[0, 2], axes[1, 2]], np.float32)
    away /= max(float(np.hypot(*away)), 1e-3)
    down = np.minimum(rays[2], -1e-3)
    t_ground = -eye[2] / down
    t_wall = (scene.wall_distance - away @ eye[:2]) / np.maximum(away @ rays[:2], 1e-4)
    is_wall = t_wall < t_ground
    t = np.minimum(np.minimum(t_ground, t_wall), 60)
    points = eye[:, None] + t * rays
    sin, cos = np.float32(np.sin(scene.ground_turn)), np.float32(np.cos(scene.ground_turn))
    gx = (points[0] * cos + points[1] * sin) / np.float32(scene.ground_scale)
    gy = (points[1] * cos - points[0] * sin) / np.float32(scene.ground_scale)
    albedo = sample(scene.ground, gx + 0.5, gy + 0.5)
    lamp = np.full(h * w, (1 - scene.ambient) * scene.light[2], np.float32)
    if is_wall.any():
        along = (points[0] * away[1] - points[1] * away[0])[is_wall] / np.float32(scene.wall_scale)
        albedo[is_wall] = sample(scene.wall, along + 0.5, 0.5 - points[2, is_wall] / np.float32(scene.wall_scale))
        lamp[is_wall] = (1 - scene.ambient) * max(float(-(away @ scene.light[:2])), 0.08)
    shadow, occlusion = _shadows(scene, points, is_wall, shape, rng)
    fade = 1 / (1 + np.float32(scene.falloff) * ((points[0] - scene.light[0]) ** 2 + (points[1] - scene.light[1]) ** 2))
    light = fade * (lamp * (1 - shadow)) + np.float32(scene.ambient) * (1 - 0.8 * occlusion)
    out = albedo * light[:, None]
    if scene.ground_gloss > 0.01:
        mirror = rays.copy()
        mirror[2] = np.abs(mirror[2])
        fresnel = 0.04 + 0.96 * (1 - mirror[2]) ** 5
        sheen = (
            (~is_wall)
            * scene.ground_gloss
            * fresnel
            * (0.5 + np.exp(14 * (scene.light @ mirror - 1)))
            * (1 - 0.7 * occlusion)
        )
        out += np.minimum(sheen, 0.5)[:, None]
    return out.reshape(h, w, 3).astype(np.float32)


def _shadows(
    scene: Scene, points: Array, is_wall: NDArray[np.bool_], shape: tuple[int, int], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Shares [h * w] of the lamp's and of the sky's light that the product keeps from each place."""
    h, w = shape
    places = points.reshape(3, h, w)[:, ::_COARSE, ::_COARSE]
    coarse = places.shape[1:]
    flat = places.reshape(3, -1)
    near = np.hypot(flat[0], flat[1]) < 4 * scene.product.radius
    near &= ~is_wall.reshape(h, w)[::_COARSE, ::_COARSE].ravel()
    maps = []
    for towards, softness in (
        (_directions(rng, scene.light, scene.softness, 5), 0.6),
        (_directions(rng, np.array([0, 0, 0.6], np.float32), 0.6, 8), 1.0),
    ):
        field = np.zeros(flat.shape[1], np.float32)
        field[near] = _blocked(scene.product, flat[:, near] + np.float32([[0], [0], [1e-3]]), towards)
        smooth = blur(field.reshape(coarse), softness)
        factors = (h / coarse[0], w / coarse[1])
        fine = ndimage.zoom(smooth, factors, order=1, grid_mode=True, mode="nearest")
        maps.append(np.resize(fine[:h, :w], (h, w)).ravel() if fine.shape != (h, w) else fine.ravel())
    return maps[0], maps[1]
