"""Ground and wall behind a studio product: perspective, lamp light, soft shadows and ambient occlusion.

Textures are warped by Pillow (a plane's perspective is one homography); light changes slowly and is computed on a
coarse grid, so that the whole frame costs a few milliseconds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from realdamage.synthesis.fields import Array, blur, dot, smoothstep, to_bytes, to_linear
from realdamage.synthesis.scenery.scene import Scene, View

_COARSE = 6  # pixels between light samples
_BLUR_AT = 2.5  # texels under one pixel at which a distant texture has faded to its mean


def _mirrored(albedo: Array) -> NDArray[np.uint8]:
    """A texture [m, m, 3] as sRGB bytes [3m, 3m, 3], mirrored so that it continues beyond its rim without a seam."""
    tile = to_bytes(albedo)
    row = np.concatenate([tile[:, ::-1], tile, tile[:, ::-1]], 1)
    return np.concatenate([row[::-1], row, row[::-1]])


def _warp(
    texture: NDArray[np.uint8], plane: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """The texture as the frame sees it; plane: homography [3, 3] from pixels (x, y, 1) to texels."""
    scaled = plane / (plane[2, 2] if abs(plane[2, 2]) > 1e-9 else 1e-9)
    fill = tuple(int(v) for v in texture[::8, ::8].reshape(-1, 3).mean(0))
    image = Image.fromarray(texture).transform(
        shape[::-1],
        Image.Transform.PERSPECTIVE,
        scaled.ravel()[:8].tolist(),
        Image.Resampling.BILINEAR,
        fillcolor=fill,
    )
    return np.asarray(image)


def _stretch(coarse: Array, shape: tuple[int, int]) -> Array:
    size = (coarse.shape[1] * _COARSE, coarse.shape[0] * _COARSE)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR))[
        : shape[0], : shape[1]
    ]


def _blocked(scene: Scene, points: Array, towards: Array) -> Array:
    """Share [n] of the directions `towards` [k, 3] in which the product hides the sky from points [3, n]."""
    n, k = points.shape[1], towards.shape[0]
    origins, rays = np.repeat(points, k, axis=1), np.tile(towards.T, (1, n))
    hidden = np.zeros(n * k, bool)
    for part in scene.product.parts:
        hidden |= np.isfinite(part.solid.reach(origins, rays))
    share: Array = hidden.reshape(n, k).mean(1, dtype=np.float32)
    return share


def _scattered(rng: np.random.Generator, middle: Array, spread: float, count: int) -> Array:
    """Unit vectors [count, 3] scattered around one, all pointing up."""
    rays: Array = (middle + spread * rng.standard_normal((count, 3))).astype(np.float32)
    rays[:, 2] = np.maximum(rays[:, 2], 0.12)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return rays


def _shadows(
    scene: Scene, points: Array, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Shares [*shape] of the lamp's and of the sky's light that the product keeps from ground points [3, n]."""
    near = np.hypot(points[0], points[1]) < 4 * scene.product.radius
    places = points[:, near] + np.array([[0], [0], [1e-3]], np.float32)
    maps = []
    for middle, spread, count, softness in (
        (scene.light, scene.softness, 6, 0.55),
        (np.array([0, 0, 0.6], np.float32), 0.6, 8, 0.8),
    ):
        field = np.zeros(points.shape[1], np.float32)
        field[near] = _blocked(scene, places, _scattered(rng, middle, spread, count))
        maps.append(blur(field.reshape(shape), softness))
    return maps[0], maps[1]


def _lit_ground(
    scene: Scene, view: View, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """On the coarse grid: light on the ground, how much of its texture can still be told apart, and sheen."""
    coarse = (-(-shape[0] // _COARSE), -(-shape[1] // _COARSE))
    rays = view.rays(
        shape,
        np.arange(coarse[0]) * _COARSE + (_COARSE - 1) / 2,
        np.arange(coarse[1]) * _COARSE + (_COARSE - 1) / 2,
    )
    eye, down = view.eye, np.minimum(rays[2], -0.02)
    t = -eye[2] / down
    points = eye[:, None] + t * rays
    points[2] = 0
    shadow, occlusion = _shadows(scene, points, coarse, rng)
    fade = 1 / (
        1
        + np.float32(scene.falloff)
        * ((points[0] - scene.light[0]) ** 2 + (points[1] - scene.light[1]) ** 2)
    )
    lamp = np.float32((1 - scene.ambient) * scene.light[2]) * (1 - shadow)
    light = fade.reshape(coarse) * (lamp + np.float32(scene.ambient) * (1 - 0.85 * occlusion))
    texel = scene.ground_scale / scene.ground.shape[0]
    footprint = t / (view.focal * np.abs(down) * texel)
    detail = 1 - smoothstep(0.4 * _BLUR_AT, 4 * _BLUR_AT, footprint)
    mirrored = rays * np.array([[1], [1], [-1]], np.float32)
    fresnel = 0.04 + 0.96 * (1 - np.clip(mirrored[2], 0, 1)) ** 5
    sheen = (
        np.float32(scene.ground_gloss)
        * fresnel
        * (0.5 + np.exp(14 * (dot(scene.light, mirrored) - 1)))
    )
    sheen = np.minimum(sheen.reshape(coarse), 0.5) * (1 - 0.7 * occlusion)
    return (
        light.astype(np.float32),
        detail.reshape(coarse).astype(np.float32),
        sheen.astype(np.float32),
    )


def _texels(texture: Array, scale: float, middle: float) -> NDArray[np.float64]:
    """From a plane's coordinates (units) to texels of its mirrored texture; `middle`: where 0 lies down the texture."""
    side = texture.shape[0]
    return np.array([[side / scale, 0, 1.5 * side], [0, side / scale, middle * side], [0, 0, 1]])


def _ground(scene: Scene, view: View, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Linear light [h, w, 3] of the ground, taken to reach up to the horizon."""
    eye, cos, sin = view.eye, np.cos(scene.ground_turn), np.sin(scene.ground_turn)
    # A ray meets the ground at eye - (eye_z / ray_z) ray; in homogeneous terms that is linear in the ray.
    meet = np.array([[-eye[2], 0, eye[0]], [0, -eye[2], eye[1]], [0, 0, 1]])
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    plane = _texels(scene.ground, scene.ground_scale, 1.5) @ turn @ meet @ view.frame(shape)
    out = to_linear(_warp(_mirrored(scene.ground), plane, shape))
    light, detail, sheen = _lit_ground(scene, view, shape, rng)
    if detail.min() < 0.99:
        mean = scene.ground[::8, ::8].reshape(-1, 3).mean(0)
        out = mean + _stretch(detail, shape)[..., None] * (out - mean)
    out *= _stretch(light, shape)[..., None]
    if scene.ground_gloss > 0.01:
        out += _stretch(sheen, shape)[..., None]
    return out


def surroundings(
    scene: Scene, view: View, shape: tuple[int, int], rng: np.random.Generator
) -> Array:
    """Linear light [h, w, 3] of the scene without its product but with the shadows it casts."""
    out = _ground(scene, view, shape, rng)
    eye, frame = view.eye.astype(np.float64), view.frame(shape)
    ahead = np.array([view.axes[0, 2], view.axes[1, 2], 0.0])
    ahead /= max(float(np.hypot(ahead[0], ahead[1])), 1e-3)
    gap = scene.wall_distance - float(ahead @ eye)
    foot = (
        eye[2] * (ahead @ frame) + gap * frame[2]
    )  # pixels (x, y, 1) -> above 0 where the wall hides the ground
    x0, y0, at = (foot / max(float(np.hypot(foot[0], foot[1])), 1e-9)).astype(np.float32)
    x, y = (
        np.arange(shape[1], dtype=np.float32)[None],
        np.arange(shape[0], dtype=np.float32)[:, None],
    )
    wall_share = np.clip(x0 * x + y0 * y + (at + np.float32(0.5)), 0, 1)
    rows = np.flatnonzero(wall_share.any(1))
    if rows.size:
        here = slice(int(rows[0]), int(rows[-1]) + 1)
        right = np.array([ahead[1], -ahead[0], 0.0])
        # A ray meets the wall at eye + (gap / ray·ahead) ray; its place there is (right·that, -z of that).
        meet = np.stack(
            [gap * right + (right @ eye) * ahead, np.array([0, 0, -gap]) - eye[2] * ahead, ahead]
        )
        plane = _texels(scene.wall, scene.wall_scale, 2.0) @ meet @ frame
        lamp = scene.ambient + (1 - scene.ambient) * max(-float(ahead @ scene.light), 0.1)
        wall = to_linear(_warp(_mirrored(scene.wall), plane, shape)[here]) * np.float32(lamp)
        out[here] += wall_share[here, :, None] * (wall - out[here])
    return out
