"""Turns a studio scene into linear light: where the camera's rays meet the product, what lights it, what it mirrors.

One ray a pixel at capture resolution; the camera's lens blur smooths the edges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from realdamage.synthesis.fields import Array, dot, smoothstep
from realdamage.synthesis.scenery.materials import Material
from realdamage.synthesis.scenery.scene import Product, Scene, View
from realdamage.synthesis.scenery.surroundings import surroundings

_STEP = 0.04  # units of depth between neighbouring pixels that make an outline
_TENT = [(dy, dx, (2 - abs(dy)) * (2 - abs(dx)) / 16) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


def render(
    scene: Scene, view: View, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_]]:
    """Linear light [h, w, 3] of the scene and the product's pixels, bool [h, w]. `rng` scatters the shadow rays."""
    h, w = shape
    image = surroundings(scene, view, shape, rng)
    rows, columns = _window(scene.product, view, shape)
    rays = view.rays(shape, rows, columns)
    distance, part = _first_hit(scene.product, view.eye, rays)
    near = (rows[:, None] * w + columns[None, :]).ravel()
    flat = image.reshape(-1, 3)
    for k, piece in enumerate(scene.product.parts):
        chosen = np.flatnonzero(part == k)
        seen, index = rays.take(chosen, 1), near[chosen]
        points = view.eye[:, None] + distance[chosen] * seen
        touch = piece.solid.touch(points)
        for m, material in enumerate(piece.materials):
            last = m == len(piece.materials) - 1
            which = np.flatnonzero(touch.face >= m if last else touch.face == m)
            albedo = sample(material.texture, touch.u[which], touch.v[which])
            here = index[which]
            flat[here] = _leaving_light(
                scene,
                material,
                albedo,
                touch.normal.take(which, 1),
                seen.take(which, 1),
                points[2, which],
                flat[here],
            )
    _soften_edges(image, rows, columns, distance.reshape(len(rows), len(columns)))
    mask = np.zeros(h * w, bool)
    mask[near] = part >= 0
    return image, mask.reshape(shape)


def _soften_edges(
    image: Array, rows: NDArray[np.int64], columns: NDArray[np.int64], distance: Array
) -> None:
    """Averages, in place, the pixels on either side of an outline: one ray a pixel would leave steps there."""
    depth = np.minimum(distance, 1e3)
    edge = np.zeros(depth.shape, bool)
    down, across = (np.abs(np.diff(depth, axis=axis)) > _STEP for axis in (0, 1))
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    y, x = np.nonzero(edge)
    y, x = rows[y], columns[x]
    h, w = image.shape[:2]
    total = np.zeros((len(y), 3), np.float32)
    for dy, dx, weight in _TENT:
        total += np.float32(weight) * image[np.clip(y + dy, 0, h - 1), np.clip(x + dx, 0, w - 1)]
    image[y, x] = total


def _window(
    product: Product, view: View, shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the frame in which the product can lie."""
    reach = 1.25 * view.focal * product.radius / max(view.distance - product.radius, 0.2)
    x, y = shape[1] / 2 + view.shift[0], shape[0] / 2 + view.shift[1]
    rows = np.arange(max(0, int(y - reach)), min(shape[0], int(y + reach) + 1))
    return rows, np.arange(max(0, int(x - reach)), min(shape[1], int(x + reach) + 1))


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


def sample(texture: Array, u: Array, v: Array) -> Array:
    """Bilinear look-up [n, 3] in a texture [rows, columns, 3] at u (to the right) and v (down), both in 0..1."""
    rows, columns = texture.shape[:2]
    flat = texture.reshape(-1, 3)
    x, y = (
        np.clip(u, 0, 1) * np.float32(columns - 1.001),
        np.clip(v, 0, 1) * np.float32(rows - 1.001),
    )
    x0, y0 = x.astype(np.int32), y.astype(np.int32)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    corner = y0 * columns + x0
    top: Array = flat.take(corner, 0)
    bottom: Array = flat.take(corner + columns, 0)
    top += fx * (flat.take(corner + 1, 0) - top)
    bottom += fx * (flat.take(corner + columns + 1, 0) - bottom)
    top += fy * (bottom - top)
    return top


def _mirrored(scene: Scene, direction: Array, roughness: float, ground: Array) -> Array:
    """Light [n, 3] that arrives from directions [3, n]: sky, ground, lamp and windows."""
    sky = 0.25 + 0.55 * smoothstep(-0.15, 0.9, direction[2])
    up = smoothstep(-0.2, 0.15, direction[2])[:, None]
    out: Array = up * sky[:, None] + (1 - up) * ground * np.float32(0.6)
    sharp = np.float32(2.5 / (roughness**2 + 0.01))
    for window, strength in ((scene.light, 2.5), *((w, 1.2) for w in scene.windows)):
        out += (
            np.float32(strength * (1.15 - roughness))
            * np.exp(sharp * (dot(window, direction) - 1))[:, None]
        )
    return out


def _leaving_light(
    scene: Scene,
    material: Material,
    albedo: Array,
    normal: Array,
    view: Array,
    height: Array,
    behind: Array,
) -> Array:
    """Light [n, 3] that leaves the product towards the camera.

    albedo, behind (what the pixel showed before): [n, 3]. normal, view (the camera's rays): [3, n]. height: [n], units.
    """
    facing = (normal * view).sum(0)
    normal = np.where(facing > 0, -normal, normal)
    inside = np.where(facing > 0, np.float32(1), np.float32(0))  # of an open body
    facing = np.minimum(np.abs(facing), 1)
    ground = scene.ground[::16, ::16].mean((0, 1))
    lamp = (
        np.float32(1 - scene.ambient)
        * np.maximum(dot(scene.light, normal), 0)
        * (1 - 0.65 * inside)
    )
    sky = np.float32(scene.ambient) * (0.60 + 0.40 * normal[2]) * (1 - 0.4 * inside)
    close = 0.55 + 0.45 * smoothstep(0.0, 0.22, height)
    bounce = 0.22 * np.clip(0.6 - normal[2], 0, 1)[:, None] * ground
    body: Array = albedo * ((close * (lamp + sky))[:, None] + bounce)
    if material.gloss > 0.01:
        shine = _mirrored(scene, view + 2 * facing * normal, material.roughness, ground)
        shine *= (material.gloss * (1 - 0.6 * inside))[:, None]
        if material.metal:
            return np.asarray(0.35 * body + close[:, None] * albedo * shine, np.float32)
        if material.clear:
            through = behind * (0.25 + 0.75 * albedo) * facing[:, None] ** 0.6
            body = material.clear * through + (1 - material.clear) * body
        body = body + (0.06 + 2.9 * (1 - facing) ** 5)[:, None] * shine
    return body
