"""Paints damage on a finished photo, as an image editor would, without any network.

On its own it makes the `pasted` control; with a generator's codec after it, it makes AI damage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from realdamage.data.vocabulary import DAMAGES
from realdamage.synthesis.damage import TYPES, Site, resurface
from realdamage.synthesis.engine import RGB, Edit, Mask
from realdamage.synthesis.fields import Array, blur, luminance, to_bytes, to_linear

_SEARCHED = 160  # long side at which the product is looked for, pixels
_PLAIN_RIM = 0.85  # share of the rim that must have one colour for the background to be plain
_UNLIKE = 32.0  # distance in sRGB levels at which a pixel no longer has the background's colour
_AT_EDGES = {"broken": 0.7, "torn": 0.5}  # how often these begin at the product's outline
_AREA = (0.016, 0.10)  # wanted share of the photo, log-uniform; the drawn area strays around it
_LARGEST_OF_REGION = 0.5
_REACH = {"cracked": 3.2, "scratched": 3.2, "creased": 3.2}  # half the window's side, in radii
_REACH_OF_AREAS = 2.3
_CELLS = 48  # places are chosen on a grid of about this many cells along the long side


def find_object(rgb: RGB) -> tuple[Array, Mask | None]:
    """Where the product probably is: (likelihood [h, w] in 0..1, its pixels bool [h, w] or None).

    The likelihood is higher in the middle and for pixels unlike the photo's rim. The outline is
    found only before a plain background. rgb: uint8 [h, w, 3].
    """
    h, w = rgb.shape[:2]
    scale = min(1.0, _SEARCHED / max(h, w))
    size = (max(2, round(w * scale)), max(2, round(h * scale)))
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX), np.float32)
    rim = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    background = np.median(rim, 0)
    unlike = np.sqrt(((small - background) ** 2).sum(-1))
    plain = float((np.sqrt(((rim - background) ** 2).sum(-1)) < _UNLIKE).mean()) > _PLAIN_RIM
    region = None
    if plain:
        found = ndimage.binary_fill_holes(ndimage.binary_opening(unlike > _UNLIKE, iterations=1))
        if 0.06 < found.mean() < 0.8:
            region = _resized(blur(found.astype(np.float32), 1.0), (w, h)) > 0.5
    blurred = blur(unlike, 0.03 * max(size))
    y = np.linspace(-1, 1, size[1], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, size[0], dtype=np.float32)[None, :]
    likely = (0.05 + blurred / max(float(blurred.max()), 1.0)) ** 2 * np.exp(-2.0 * (x * x + y * y))
    return np.clip(_resized(likely.astype(np.float32), (w, h)), 0, 1), region


def _resized(field: Array, size: tuple[int, int]) -> Array:
    return np.asarray(Image.fromarray(field).resize(size, Image.Resampling.BILINEAR), np.float32)


@dataclass(frozen=True)
class Paint:
    """Paints one damage of the types `damages` on a photo, where the product probably is."""

    damages: Sequence[str] = DAMAGES

    def apply(self, rgb: RGB, rng: np.random.Generator, damage: str = "") -> Edit:
        """Damages rgb: uint8 [h, w, 3]. Every pixel outside the mask keeps its bytes.

        damage: a type; "" draws one of `damages`.
        """
        damage = damage or str(rng.choice(list(self.damages)))
        likely, region = find_object(rgb)
        painted, alpha = draw_damage(to_linear(rgb), damage, rng, region, likely)
        mask = alpha > 0
        return Edit(np.where(mask[..., None], to_bytes(painted), rgb), mask, damage)


def draw_damage(
    linear: Array,
    damage: str,
    rng: np.random.Generator,
    region: Mask | None = None,
    likely: Array | None = None,
) -> tuple[Array, Array]:
    """Damages roughly 1-12% of a photo: (linear light [h, w, 3], blend [h, w] in 0..1), float32.

    linear: float32 [h, w, 3] in 0..1.
    damage: one of DAMAGES.
    region: bool [h, w], the product; nothing outside it is touched. None or empty: the whole photo.
    likely: float32 [h, w] >= 0, where the damage should rather be.
    """
    h, w = linear.shape[:2]
    inside = np.ones((h, w), np.float32)
    if region is not None and region.any():
        inside = region.astype(np.float32)
    edge = region is not None and rng.random() < _AT_EDGES.get(damage, 0.0)
    centre = _place(inside, likely, edge, rng)
    wanted = float(np.exp(rng.uniform(*np.log(_AREA)))) * h * w
    radius = float(np.sqrt(min(wanted, _LARGEST_OF_REGION * float(inside.sum())) / np.pi))
    radius = max(2.0, min(radius, 0.5 * min(h, w)))  # on a strip a disc of that area would not fit
    reach = int(np.ceil(_REACH.get(damage, _REACH_OF_AREAS) * radius)) + 8
    top, left = max(0, int(centre[0]) - reach), max(0, int(centre[1]) - reach)
    window = (slice(top, int(centre[0]) + reach + 1), slice(left, int(centre[1]) + reach + 1))
    site = Site(
        patch=linear[window],
        inside=inside[window],
        centre=(centre[0] - top, centre[1] - left),
        radius=radius,
        unit=max(0.5, min(h, w) / 300),
        light=_random_light(rng),
        level=_light_level(linear),
        rng=rng,
    )
    drawn, weight = resurface(site, TYPES[damage](site))
    out, alpha = linear.copy(), np.zeros((h, w), np.float32)
    out[window], alpha[window] = drawn, weight
    return out, alpha


def _place(
    inside: Array, likely: Array | None, at_edge: bool, rng: np.random.Generator
) -> tuple[float, float]:
    """A point (y, x): inside, rather in the middle, or on the outline of `inside` if `at_edge`."""
    step = max(1, max(inside.shape) // _CELLS)
    here = _cells(inside, step)
    y, x = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in here.shape)
    weight = np.exp(-1.5 * (x[None, :] ** 2 + y[:, None] ** 2))
    deep = blur(here, 2.0)
    weight = weight * (here * np.exp(-(((deep - 0.55) / 0.12) ** 2)) if at_edge else here * deep**4)
    if likely is not None:
        weight = weight * _cells(likely, step)
    weight = weight.ravel() + 1e-12
    row, column = divmod(int(rng.choice(len(weight), p=weight / weight.sum())), here.shape[1])
    spot = (np.array([row, column]) + rng.random(2)) * step
    last_row, last_column = inside.shape[0] - 1, inside.shape[1] - 1
    return float(min(spot[0], last_row)), float(min(spot[1], last_column))


def _cells(field: Array, step: int) -> Array:
    """Means of step × step blocks; a rest at the end is left out unless there is nothing else."""
    h, w = max(1, field.shape[0] // step), max(1, field.shape[1] // step)
    rows, columns = min(step, field.shape[0]), min(step, field.shape[1])
    blocks: Array = field[: h * rows, : w * columns].reshape(h, rows, w, columns).mean((1, 3))
    return blocks


def _random_light(rng: np.random.Generator) -> tuple[float, float, float]:
    """A unit vector towards a light somewhere above the photo's middle: x right, y down, z out."""
    around, up = rng.normal(-np.pi / 2, 1.1), rng.uniform(0.35, 1.3)
    return float(np.cos(around) * np.cos(up)), float(np.sin(around) * np.cos(up)), float(np.sin(up))


def _light_level(linear: NDArray[np.float32]) -> float:
    """Luminance of a white surface in a photo, linear [h, w, 3], guessed from its bright pixels."""
    step = max(1, min(linear.shape[:2]) // 48)
    return float(np.clip(np.quantile(luminance(linear[::step, ::step]), 0.95), 0.08, 1.0))
