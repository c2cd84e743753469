"""Makes one group: a real photo and what is derived from it, saved alike.

The six kinds of the manifest come from here: the base is `original` or `damaged`; from it `annotated`, `ai_region`,
`ai_whole` and `pasted` are derived, each naming the base as its pair.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from realdamage.core.decode import decode
from realdamage.core.tiles import PixelSpec, limit_side
from realdamage.data.writer import SaveSettings, TablePool, save_mask, save_photo
from realdamage.errors import PhotoError, SynthesisError
from realdamage.synthesis.annotate import ANNOTATIONS, Annotate
from realdamage.synthesis.generators import Generator
from realdamage.synthesis.paint import Paint
from realdamage.synthesis.studio import Studio

DERIVED = ("annotated", "ai_region", "ai_whole", "pasted")
VISIBLE = 2
"""Grey levels that paint must change a pixel by to count as painted: nobody could see less."""

RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Row = dict[str, str]


@dataclass(frozen=True)
class Base:
    """A real photo to start from: a scene of the studio (`studio_seed`) or a file (`path`). `damage` and `condition`
    are those of the product in the photo; `group`, `source`, `split` and `licence` go to the manifest.

    `shares`: how many photos of each derived kind it gets on average; `paint_share`: of its AI edits that add damage,
    in 0..1 (the others regenerate what is there)."""

    studio_seed: int | None = None
    path: str = ""
    damage: str = ""
    condition: str = "unknown"
    source: str = "studio"
    group: str = ""
    split: str = ""
    licence: str = "CC0-1.0"
    shares: Mapping[str, float] = field(default_factory=dict)
    paint_share: float = 0.0


@dataclass(frozen=True)
class _Photo:
    """A photo of a group before it is saved; `mask` is None where the photo stays real; `columns`: of the manifest."""

    kind: str
    rgb: RGB
    mask: Mask | None
    columns: Mapping[str, str]


class GroupMaker:
    """The engines of a recipe, loaded once for each worker. `damages`: what AI edits and paint draw from, repeats
    weigh; `overlay_share`: of the edits that get honest annotations on top, since these must not mean "real"."""

    def __init__(
        self,
        generators: Sequence[Generator],
        pool: TablePool,
        damages: Sequence[str],
        *,
        overlay_share: float = 0.0,
        max_side: int = 2048,
        crop: int | None = None,
    ) -> None:
        self.generators, self.pool, self.damages = generators, pool, tuple(damages)
        self.overlay_share, self.max_side, self.crop = overlay_share, max_side, crop
        self.paint, self.annotate, self.studio = Paint(self.damages), Annotate(), Studio()
        # Not the tone: it would change every pixel of an edit, and which of them are synthetic would be lost.
        self.overlay = Annotate(tuple(kind for kind in ANNOTATIONS if kind != "tone"))

    def base(self, base: Base, rng: np.random.Generator) -> tuple[RGB, Mask | None]:
        """The real photo, uint8 [h, w, 3], and where its product is, bool [h, w], where that is known."""
        if base.studio_seed is not None:
            capture = self.studio.render(base.studio_seed, base.studio_seed + 1, base.damage)
            return capture.rgb, capture.object_mask
        try:
            rgb = limit_side(decode(base.path), PixelSpec(max_side=self.max_side))
        except PhotoError as error:
            raise SynthesisError(f"a source photo cannot be read: {error}") from error
        if self.crop is None or max(rgb.shape[:2]) <= self.crop:
            return rgb, None
        tops = [max(0, side - self.crop) for side in rgb.shape[:2]]
        y, x = (int(rng.integers(top + 1)) for top in tops)
        return rgb[y : y + self.crop, x : x + self.crop], None

    def derive(
        self, base: Base, rgb: RGB, product: Mask | None, rng: np.random.Generator
    ) -> Iterator[_Photo]:
        """The derived photos, as many of each kind as is drawn."""
        for kind in DERIVED:
            for _ in range(_count(base.shares.get(kind, 0.0), rng)):
                if kind == "annotated":
                    yield _Photo(
                        kind, self.annotate.apply(rgb, rng).rgb, None, {"damage": base.damage}
                    )
                elif kind == "pasted":
                    yield from self._pasted(rgb, product, rng)
                else:
                    yield self._overlaid(self._ai(base, kind, rgb, product, rng), rng)

    def _pasted(self, rgb: RGB, product: Mask | None, rng: np.random.Generator) -> Iterator[_Photo]:
        """The painted photo, or nothing where nobody could see the paint."""
        edit = self.paint.apply(rgb, rng, region=product)
        visible = np.abs(edit.rgb.astype(np.int16) - rgb).max(axis=2) > VISIBLE
        if visible.any():
            names = {
                "damage": edit.damage,
                "generator": self.paint.generator,
                "family": self.paint.family,
            }
            yield self._overlaid(_Photo("pasted", edit.rgb, visible, names), rng)

    def _ai(
        self, base: Base, kind: str, rgb: RGB, product: Mask | None, rng: np.random.Generator
    ) -> _Photo:
        able = [
            each
            for each in self.generators
            if (each.regions if kind == "ai_region" else each.wholes)
        ]
        generator = able[int(rng.integers(len(able)))]
        damage = str(rng.choice(self.damages)) if rng.random() < base.paint_share else ""
        edit = (generator.region if kind == "ai_region" else generator.whole)(
            rgb, product, damage, rng
        )
        names = {
            "damage": damage or base.damage,
            "generator": generator.name,
            "family": generator.family,
        }
        return _Photo(kind, edit.rgb, edit.mask, {**names, **edit.details})

    def _overlaid(self, photo: _Photo, rng: np.random.Generator) -> _Photo:
        if rng.random() >= self.overlay_share or photo.mask is None:
            return photo
        overlay = self.overlay.apply(photo.rgb, rng)
        left = photo.mask & ~overlay.mask
        return _Photo(photo.kind, overlay.rgb, left, photo.columns) if left.any() else photo


def group_files(base: Base, index: int) -> list[str]:
    """All photos and masks that `group_photos` may write, relative to its root, whatever it draws."""
    most = {
        "original": 1,
        "damaged": 1,
        **{kind: math.ceil(base.shares.get(kind, 0.0)) for kind in DERIVED},
    }
    stems = [
        _stem(index, kind, made) for kind, count in most.items() for made in range(1, count + 1)
    ]
    return [name for stem in stems for name in (f"photos/{stem}.jpg", f"masks/{stem}.png")]


def group_photos(
    maker: GroupMaker, base: Base, index: int, root: Path, rng: np.random.Generator
) -> list[Row]:
    """Makes and saves a group's photos and masks; returns their manifest rows, the base first."""
    rgb, product = maker.base(base, rng)
    settings = maker.pool.draw(rng)
    group = base.group or f"{base.source}/{index:06d}"
    kind = "damaged" if base.condition == "damaged" else "original"
    rows = [
        _save(
            _Photo(kind, rgb, None, {"damage": base.damage}),
            _stem(index, kind),
            root,
            settings,
            base,
            group,
            "",
        )
    ]
    made = dict.fromkeys(DERIVED, 0)
    for photo in maker.derive(base, rgb, product, rng):
        made[photo.kind] += 1
        name = _stem(index, photo.kind, made[photo.kind])
        rows.append(_save(photo, name, root, settings, base, group, rows[0]["file_name"]))
    return rows


def _stem(index: int, kind: str, made: int = 1) -> str:
    return f"{index:06d}_{kind}" + (f"_{made}" if made > 1 else "")


def _count(share: float, rng: np.random.Generator) -> int:
    """A whole number with the mean `share`: the two nearest ones only."""
    return int(share) + int(rng.random() < share % 1.0)


def _save(
    photo: _Photo, stem: str, root: Path, settings: SaveSettings, base: Base, group: str, pair: str
) -> Row:
    name = f"photos/{stem}.jpg"
    data = save_photo(root / name, photo.rgb, settings)
    mask_name = ""
    if photo.mask is not None:
        mask_name = f"masks/{stem}.png"
        save_mask(root / mask_name, photo.mask, settings)
    return {
        "file_name": name,
        "label": "synthetic" if photo.mask is not None else "real",
        "kind": photo.kind,
        "condition": base.condition,
        "damage": "",
        "generator": "",
        "family": "",
        "source": base.source,
        "group": group,
        "pair": pair,
        "mask_file_name": mask_name,
        "split": base.split,
        "sha256": hashlib.sha256(data).hexdigest(),
        "licence": base.licence,
        **photo.columns,
    }
