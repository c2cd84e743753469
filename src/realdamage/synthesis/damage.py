"""Draws physically plausible damage into linear light: the one drawing style of really and of falsely damaged photos.

The studio draws it on the product before the camera sees it, Paint draws it on the finished photo. Because both use
`draw_damage`, the style of the drawing tells nothing about the label.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import SynthesisError
from realdamage.synthesis.damage_areas import crushed, dented, other, stained
from realdamage.synthesis.damage_lines import cracked, creased, scratched
from realdamage.synthesis.damage_openings import broken, holed, torn
from realdamage.synthesis.damage_site import Site, Surface, light_level, resurface
from realdamage.synthesis.fields import Array, blur

_DRAW: dict[str, Callable[[Site], Surface]] = {
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
_AT_EDGES = {"broken": 0.7, "torn": 0.5}  # how often these begin at the product's outline
_AREA = (0.016, 0.10)  # wanted share of the photo, log-uniform; the drawn area strays around it
_LARGEST_OF_REGION = 0.5
_REACH = {
    "cracked": 3.2,
    "scratched": 3.2,
    "creased": 3.2,
}  # half the window's side, in radii: lines run far
_REACH_OF_AREAS = 2.3
_GRID = 48  # places are chosen on a grid of about this many cells along the long side


def check_damage(damage: str) -> None:
    """Raises SynthesisError, naming the near match, unless `damage` is one of DAMAGES."""
    if damage not in _DRAW:
        near = difflib.get_close_matches(damage, DAMAGES, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise SynthesisError(
            f'Unknown damage type "{damage}".{hint} Known types: {", ".join(DAMAGES)}.'
        )


def _cells(field: Array, step: int) -> Array:
    """Means of step × step blocks; what does not fill a block is left out unless nothing else is there."""
    h, w = max(1, field.shape[0] // step), max(1, field.shape[1] // step)
    rows, columns = min(step, field.shape[0]), min(step, field.shape[1])
    blocks: Array = field[: h * rows, : w * columns].reshape(h, rows, w, columns).mean((1, 3))
    return blocks


def _place(
    inside: Array, likely: Array | None, at_edge: bool, rng: np.random.Generator
) -> tuple[float, float]:
    """A point (y, x): inside, rather in the middle, or on the outline of `inside` when `at_edge`."""
    step = max(1, max(inside.shape) // _GRID)
    here = _cells(inside, step)
    y = np.linspace(-1, 1, here.shape[0])[:, None] if here.shape[0] > 1 else np.zeros((1, 1))
    x = np.linspace(-1, 1, here.shape[1])[None, :] if here.shape[1] > 1 else np.zeros((1, 1))
    weight = np.exp(-1.5 * (x**2 + y**2))
    deep = blur(here, 2.0)
    weight = weight * (here * np.exp(-(((deep - 0.55) / 0.12) ** 2)) if at_edge else here * deep**4)
    if likely is not None:
        weight = weight * _cells(likely, step)
    weight = weight.ravel() + 1e-12
    row, column = divmod(int(rng.choice(len(weight), p=weight / weight.sum())), here.shape[1])
    limits = (inside.shape[0] - 1, inside.shape[1] - 1)
    spot = (np.array([row, column]) + rng.random(2)) * step
    return float(min(spot[0], limits[0])), float(min(spot[1], limits[1]))


def random_light(rng: np.random.Generator) -> tuple[float, float, float]:
    """A unit vector towards a light somewhere above the photo's middle: x right, y down, z out of the photo."""
    around, up = rng.normal(-np.pi / 2, 1.1), rng.uniform(0.35, 1.3)
    return float(np.cos(around) * np.cos(up)), float(np.sin(around) * np.cos(up)), float(np.sin(up))


def draw_damage(
    linear: Array,
    damage: str,
    rng: np.random.Generator,
    *,
    region: NDArray[np.bool_] | None = None,
    light: tuple[float, float, float] | None = None,
    likely: Array | None = None,
) -> tuple[Array, Array]:
    """Damages a photo and says where: (linear light [h, w, 3], blend [h, w] in 0..1, both float32).

    linear: float32 [h, w, 3] linear light in 0..1 (highlights may exceed it). damage: one of DAMAGES.
    region: bool [h, w], the product; nothing outside it is touched. None (or an empty one) means the whole photo.
    light: unit vector towards the light (x right, y down, z out of the photo); drawn at random when None.
    likely: float32 [h, w] >= 0, where the damage should rather be.
    Where the blend is 0, the photo is exactly as before.
    The damage covers roughly 1-12% of the photo, less on a small product.

    Raises SynthesisError for an unknown damage type.
    """
    check_damage(damage)
    h, w = linear.shape[:2]
    inside = (
        np.ones((h, w), np.float32)
        if region is None or not region.any()
        else region.astype(np.float32)
    )
    edge = region is not None and rng.random() < _AT_EDGES.get(damage, 0.0)
    centre = _place(inside, likely, edge, rng)
    wanted = float(np.exp(rng.uniform(*np.log(_AREA)))) * h * w
    radius = float(np.sqrt(min(wanted, _LARGEST_OF_REGION * float(inside.sum())) / np.pi))
    # On a strip a disc of that area would not fit.
    radius = max(2.0, min(radius, 0.5 * min(h, w)))
    reach = int(np.ceil(_REACH.get(damage, _REACH_OF_AREAS) * radius)) + 8
    top, left = max(0, int(centre[0]) - reach), max(0, int(centre[1]) - reach)
    window = (slice(top, int(centre[0]) + reach + 1), slice(left, int(centre[1]) + reach + 1))
    site = Site(
        patch=linear[window],
        inside=inside[window],
        centre=(centre[0] - top, centre[1] - left),
        radius=radius,
        unit=max(0.5, min(h, w) / 300),
        light=light if light is not None else random_light(rng),
        level=light_level(linear),
        rng=rng,
    )
    drawn, weight = resurface(site, _DRAW[damage](site))
    out, alpha = linear.copy(), np.zeros((h, w), np.float32)
    out[window], alpha[window] = drawn, weight
    return out, alpha
