"""Makes one group: a real photo and what is derived from it, saved alike.

The six kinds of the manifest come from here: the base is `original` or `damaged`; from it `annotated`, `ai_region`,
`ai_whole` and `pasted` are derived, each naming the base as its pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from realdamage.data.writer import SaveSettings, TablePool, save_mask, save_photo
from realdamage.inference.errors import PhotoError, SynthesisError
from realdamage.inference.photo import PixelSpec, decode, limit_side
from realdamage.synthesis.annotate import Annotate
from realdamage.synthesis.engine import Edit
from realdamage.synthesis.paint import Paint
from realdamage.synthesis.studio import Studio

VISIBLE = 2
"""Grey levels that paint must change a pixel by to count as painted: nobody could see less."""

if TYPE_CHECKING:
    from realdamage.synthesis.codec import Codec

RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Row = dict[str, str]


@dataclass(frozen=True)
class Base:
    """A real photo to start from: a scene of the studio (`studio_seed`) or a file (`path`). `damage` and `condition`
    are those of the product in the photo; `group`, `source`, `split` and `licence` go to the manifest."""

    studio_seed: int | None = None
    path: str = ""
    damage: str = ""
    condition: str = "unknown"
    source: str = "studio"
    group: str = ""
    split: str = ""
    licence: str = "CC0-1.0"


@dataclass(frozen=True)
class _Derived:
    """A photo that was made of the base, before it is saved; `mask` is None where the photo stays real."""

    kind: str
    rgb: RGB
    mask: Mask | None
    damage: str
    generator: str = ""
    family: str = ""


class GroupMaker:
    """The engines of a recipe, loaded once for each worker. `codecs`: (weights, generator, family) of each; `shares`:
    chance of each derived kind; `paint_share`: of the region edits that paint damage first."""

    def __init__(
        self,
        codecs: Sequence[tuple[str, str, str]],
        pool: TablePool,
        shares: Mapping[str, float],
        paint_share: float,
        damages: Sequence[str],
        max_side: int = 2048,
    ) -> None:
        from realdamage.synthesis.codec import Codec  # the one engine that needs torch

        self.codecs = [Codec(weights, generator, family) for weights, generator, family in codecs]
        self.pool, self.shares, self.paint_share, self.max_side = pool, shares, paint_share, max_side
        self.paint, self.annotate, self.studio = Paint(damages), Annotate(), Studio()

    def base(self, base: Base) -> tuple[RGB, Mask | None]:
        """The real photo, uint8 [h, w, 3], and where its product is, bool [h, w], where that is known."""
        if base.studio_seed is not None:
            capture = self.studio.render(base.studio_seed, base.studio_seed + 1, base.damage)
            return capture.rgb, capture.object_mask
        try:
            return limit_side(decode(base.path), PixelSpec(max_side=self.max_side)), None
        except PhotoError as error:
            raise SynthesisError(f"a source photo cannot be read: {error}") from error

    def derive(self, base: Base, rgb: RGB, product: Mask | None, rng: np.random.Generator) -> list[_Derived]:
        wanted = {
            kind: rng.random() < self.shares.get(kind, 0.0) for kind in ("annotated", "ai_region", "ai_whole", "pasted")
        }
        derived: list[_Derived] = []
        if wanted["annotated"]:
            edit = self.annotate.apply(rgb, rng)
            derived.append(_Derived("annotated", edit.rgb, None, base.damage))
        if wanted["pasted"]:
            edit = self.paint.apply(rgb, rng, region=product)
            visible = np.abs(edit.rgb.astype(np.int16) - rgb).max(axis=2) > VISIBLE
            if visible.any():
                names = (edit.damage, self.paint.generator, self.paint.family)
                derived.append(_Derived("pasted", edit.rgb, visible, *names))
        if wanted["ai_region"]:
            derived.append(self._region(base, rgb, product, rng))
        if wanted["ai_whole"]:
            derived.append(self._whole(base, rgb, product, rng))
        return derived

    def _codec(self, rng: np.random.Generator) -> Codec:
        return self.codecs[int(rng.integers(len(self.codecs)))]

    def _region(self, base: Base, rgb: RGB, product: Mask | None, rng: np.random.Generator) -> _Derived:
        codec = self._codec(rng)
        painted = self._painted(rgb, product, rng)
        damage = painted.damage if painted else base.damage
        region = painted.mask if painted else random_region(rgb.shape[:2], rng)
        edit = codec.regenerate(painted.rgb if painted else rgb, region, rng)
        # What the codec regenerated holds all of the paint but its faint rim.
        return _Derived("ai_region", edit.rgb, edit.mask, damage, codec.generator, codec.family)

    def _whole(self, base: Base, rgb: RGB, product: Mask | None, rng: np.random.Generator) -> _Derived:
        codec = self._codec(rng)
        painted = self._painted(rgb, product, rng)
        edit = codec.apply(painted.rgb if painted else rgb, rng)
        return _Derived(
            "ai_whole", edit.rgb, edit.mask, painted.damage if painted else base.damage, codec.generator, codec.family
        )

    def _painted(self, rgb: RGB, product: Mask | None, rng: np.random.Generator) -> Edit | None:
        return self.paint.apply(rgb, rng, region=product) if rng.random() < self.paint_share else None


def random_region(shape: tuple[int, ...], rng: np.random.Generator) -> Mask:
    """A random blob, bool [h, w]: a union of 1–3 ellipses of 8–30% of the photo's short side, not shaped like any
    object."""
    height, width = shape[:2]
    y, x = np.ogrid[:height, :width]
    region = np.zeros((height, width), np.bool_)
    short = min(height, width)
    cy, cx = rng.uniform(0.2, 0.8) * height, rng.uniform(0.2, 0.8) * width
    for _ in range(int(rng.integers(1, 4))):
        ry, rx = rng.uniform(0.08, 0.3, 2) * short / 2
        angle = rng.uniform(0, np.pi)
        dy, dx = y - cy, x - cx
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        region |= (u / rx) ** 2 + (v / ry) ** 2 <= 1.0
        cy, cx = cy + rng.normal(0, ry), cx + rng.normal(0, rx)
    region[min(height - 1, max(0, int(cy))), min(width - 1, max(0, int(cx)))] = True  # never empty
    return region


def group_photos(maker: GroupMaker, base: Base, index: int, root: Path, rng: np.random.Generator) -> list[Row]:
    """Makes and saves a group's photos and masks; returns their manifest rows, the base first."""
    rgb, product = maker.base(base)
    settings = maker.pool.draw(rng)
    stem = f"{index:06d}"
    group = base.group or f"{base.source}/{stem}"
    kind = "damaged" if base.condition == "damaged" else "original"
    first = _Derived(kind, rgb, None, base.damage)
    rows: list[Row] = []
    for photo in (first, *maker.derive(base, rgb, product, rng)):
        name = f"photos/{stem}_{photo.kind}.jpg"
        rows.append(_save(photo, name, root, settings, base, group, "" if photo is first else rows[0]["file_name"]))
    return rows


def _save(photo: _Derived, name: str, root: Path, settings: SaveSettings, base: Base, group: str, pair: str) -> Row:
    data = save_photo(root / name, photo.rgb, settings)
    mask_name = ""
    if photo.mask is not None:
        mask_name = f"masks/{Path(name).stem}.png"
        save_mask(root / mask_name, photo.mask, settings)
    return {
        "file_name": name,
        "label": "synthetic" if photo.mask is not None else "real",
        "kind": photo.kind,
        "condition": base.condition,
        "damage": photo.damage,
        "generator": photo.generator,
        "family": photo.family,
        "source": base.source,
        "group": group,
        "pair": pair,
        "mask_file_name": mask_name,
        "split": base.split,
        "sha256": hashlib.sha256(data).hexdigest(),
        "licence": base.licence,
    }
