"""Product snapshots without any file: a random product in a random scene, photographed by a simulated phone.

Real damage is drawn on the product in linear light, before the lens blurs it and the sensor samples it, so that it
carries the camera's traces like everything else in the photo.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from realdamage.errors import SynthesisError
from realdamage.synthesis.camera import random_camera
from realdamage.synthesis.damage import check_damage, draw_damage
from realdamage.synthesis.fields import Array, luminance
from realdamage.synthesis.scenery import materials
from realdamage.synthesis.scenery.lying import LYING
from realdamage.synthesis.scenery.render import render
from realdamage.synthesis.scenery.scene import Product, Scene, View
from realdamage.synthesis.scenery.standing import STANDING

_PRODUCTS = (*STANDING, *LYING)
_SCENE, _DAMAGE, _CAMERA = 0, 1, 2  # streams of random numbers, so that one never shifts another


@dataclass(frozen=True)
class Capture:
    """A photo from the studio.

    rgb: uint8 [h, w, 3]. object_mask: bool [h, w], the product before it was damaged. damage_mask: bool [h, w], the
    pixels that the damage touched, all False without damage.
    """

    rgb: NDArray[np.uint8]
    object_mask: NDArray[np.bool_]
    damage_mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Studio:
    """Photographs random products; long_side: smallest and largest long side of a photo, pixels.

    Raises SynthesisError when long_side is not (low, high) with 32 <= low <= high.
    """

    long_side: tuple[int, int] = (320, 416)

    def __post_init__(self) -> None:
        if len(self.long_side) != 2 or not 32 <= self.long_side[0] <= self.long_side[1]:
            raise SynthesisError(
                f"Studio: long_side must be (low, high) with 32 <= low <= high, found {self.long_side}."
            )

    def render(self, scene_seed: int, camera_seed: int, damage: str = "") -> Capture:
        """A photo of scene `scene_seed`, taken with camera and hand shake `camera_seed`; both >= 0.

        damage: "" or a type of `vocabulary.DAMAGES`, really on the product: the same scene can be photographed with and
        without. The photo's size belongs to the scene. Raises SynthesisError for an unknown type or a negative seed.
        """
        if min(scene_seed, camera_seed) < 0:
            raise SynthesisError(
                f"Studio: scene_seed and camera_seed must be >= 0, found {scene_seed} and {camera_seed}."
            )
        if damage:
            check_damage(damage)
        rng = np.random.default_rng([scene_seed, _SCENE])
        shape = self._shape(rng)
        scene = random_scene(rng)
        view = _random_view(rng, scene.product, shape)
        shot = np.random.default_rng([camera_seed, _CAMERA])
        view = _shaken(view, shot)
        light, object_mask = render(
            scene, view, shape, np.random.default_rng([scene_seed, _SCENE, 1])
        )
        light *= np.float32(0.25 / max(float(luminance(light[::4, ::4]).mean()), 1e-3))
        damage_mask = np.zeros(shape, bool)
        if damage:
            lamp = _lamp_in_photo(scene, view)
            light, alpha = draw_damage(
                light,
                damage,
                np.random.default_rng([scene_seed, _DAMAGE]),
                region=object_mask,
                light=lamp,
            )
            damage_mask = alpha > 0
        return Capture(random_camera(shot).photograph(light, shot), object_mask, damage_mask)

    def _shape(self, rng: np.random.Generator) -> tuple[int, int]:
        long = int(rng.integers(self.long_side[0], self.long_side[1] + 1))
        short = max(32, round(long * float(rng.choice([3 / 4, 3 / 4, 9 / 16, 2 / 3, 1.0]))))
        return (short, long) if rng.random() < 0.4 else (long, short)


def _lamp_in_photo(scene: Scene, view: View) -> tuple[float, float, float]:
    """Unit vector towards the lamp as the photo shows it: x right, y down, z out of the photo (never from behind)."""
    x, y, z = (view.axes.T @ scene.light).tolist()
    out = max(-z, 0.35)
    length = float(np.sqrt(x * x + y * y + out * out))
    return x / length, y / length, out / length


def _unit(rng: np.random.Generator, azimuth: float, elevation: float) -> Array:
    return np.array(
        [
            np.sin(azimuth) * np.cos(elevation),
            np.cos(azimuth) * np.cos(elevation),
            np.sin(elevation),
        ],
        np.float32,
    )


def random_scene(rng: np.random.Generator) -> Scene:
    """A product, what it stands on and before, and the light."""
    product = _PRODUCTS[int(rng.integers(len(_PRODUCTS)))](rng)
    ground, gloss = materials.random_ground(rng)
    return Scene(
        product=product,
        ground=ground,
        ground_scale=float(rng.uniform(1.6, 3.0)),
        ground_turn=float(rng.uniform(0, 2 * np.pi)),
        ground_gloss=gloss * float(rng.uniform(0, 1.2)),
        wall=materials.room(rng),
        wall_scale=float(rng.uniform(2.0, 4.0)),
        wall_distance=float(rng.uniform(1.0, 4.0)),
        light=_unit(rng, float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.55, 1.35))),
        softness=float(rng.uniform(0.03, 0.3)),
        ambient=float(rng.uniform(0.15, 0.45)),
        windows=np.stack(
            [_unit(rng, float(rng.uniform(0, 6.3)), float(rng.uniform(0.1, 1.2))) for _ in range(2)]
        ),
        falloff=float(rng.uniform(0, 0.12)),
    )


def _random_view(rng: np.random.Generator, product: Product, shape: tuple[int, int]) -> View:
    h, w = shape
    focal = 0.5 * max(h, w) / np.tan(0.5 * rng.uniform(0.75, 1.2))
    fill = rng.uniform(0.8, 1.3)
    return View(
        azimuth=float(rng.uniform(-0.6, 0.6)),
        elevation=float(rng.uniform(*product.elevation)),
        roll=float(rng.normal(0, 0.05)),
        distance=float(product.radius * np.hypot(1, 2 * focal / (fill * min(h, w)))),
        height=product.height,
        focal=float(focal),
        shift=(float(rng.normal(0, 0.04) * w), float(rng.normal(0, 0.04) * h)),
    )


def _shaken(view: View, rng: np.random.Generator) -> View:
    """The same view from a hand that has moved a little."""
    turn = rng.normal(0, 0.02, 3)
    moved = rng.normal(0, 0.008 * view.focal, 2)
    return replace(
        view,
        azimuth=view.azimuth + float(turn[0]),
        elevation=float(np.clip(view.elevation + turn[1], 0.08, 1.53)),
        roll=view.roll + float(turn[2]),
        distance=view.distance * float(np.exp(rng.normal(0, 0.02))),
        shift=(view.shift[0] + float(moved[0]), view.shift[1] + float(moved[1])),
    )
