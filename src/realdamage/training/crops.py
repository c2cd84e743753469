"""Crops of photos with their masks: same place, same degradation and same turn in both halves of a
pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from realdamage.core.tiles import PixelSpec, limit_side, pad_to_patches, read_photo
from realdamage.data.degradations import Degradation
from realdamage.data.manifest import Manifest, patch_share, read_mask

RGB = npt.NDArray[np.uint8]
Share = npt.NDArray[np.float32]
Place = tuple[int, int]


@dataclass(frozen=True)
class View:
    """One photo of the manifest, decoded.

    rgb: uint8 [h, w, 3], padded to whole patches and at least one tile.
    mask: float32 [h, w] in 0..1, the synthetic share of each pixel (read-only where it is the same
        everywhere); None where nobody knows which pixels are synthetic.
    """

    row: int
    rgb: RGB
    mask: Share | None
    label: int

    @property
    def nbytes(self) -> int:
        """Memory in bytes; a read-only mask is one number, however large it looks."""
        own_mask = self.mask is not None and self.mask.flags.writeable
        return self.rgb.nbytes + (self.mask.nbytes if self.mask is not None and own_mask else 0)


@dataclass(frozen=True)
class Crop:
    """One tile.

    tile: uint8 [tile, tile, 3].
    share: float32 [tile/patch, tile/patch], the synthetic share of each patch (NaN: unknown).
    """

    tile: RGB
    share: Share


def read_view(manifest: Manifest, row: int, spec: PixelSpec) -> View:
    """Reads a photo and its mask. Without one, every pixel of an `ai_whole` photo is synthetic.

    Raises PhotoError or ManifestError naming the file.
    """
    table = manifest.table
    name, kind, mask_name = (
        str(table[column].iat[row]) for column in ("file_name", "kind", "mask_file_name")
    )
    photo = read_photo(manifest.photo(row), spec, name=str(manifest.path(name)))
    label = int(str(table["label"].iat[row]) == "synthetic")
    rgb = pad_to_patches(photo.rgb, spec)
    if not label or (kind == "ai_whole" and not mask_name):
        return View(row, rgb, np.broadcast_to(np.float32(label), rgb.shape[:2]), label)
    if not mask_name:
        return View(row, rgb, None, label)
    painted = read_mask(manifest, row, (photo.height, photo.width))
    # The mask goes through the resize of the photo itself, so that it stays on its pixels.
    pixels = np.repeat(painted[..., None].astype(np.uint8) * 255, 3, axis=2)
    mask = limit_side(pixels, spec)[..., 0].astype(np.float32) / 255.0
    pads = [(0, full - side) for full, side in zip(rgb.shape[:2], mask.shape, strict=True)]
    return View(row, rgb, np.pad(mask, pads, mode="reflect"), label)


def tile_label(share: Share) -> float:
    """Label of a tile: 1 when some patch is mostly synthetic, 0 when none is touched, NaN when that
    is unknown or too little to call it either way."""
    if np.isnan(share).any():
        return float("nan")
    return 1.0 if share.max() >= 0.5 else 0.0 if share.max() == 0.0 else float("nan")


def crops_label(view: View, share: Share) -> float:
    """Label of a photo's crops together: that of the photo, unless its mask says that the crops
    missed the edit."""
    if not view.label:
        return 0.0
    return 1.0 if np.isnan(share).any() else tile_label(share)


def cut_alike(
    views: Sequence[View],
    spec: PixelSpec,
    degradation: Degradation,
    focus: float,
    rng: np.random.Generator,
) -> list[Crop]:
    """One crop of each view of a unit, with the same random numbers for all.

    focus: chance that it is placed on the mask of the last view, if that is an edit.
    """
    flip, turn = bool(rng.integers(2)), int(rng.integers(4))
    # Room for the tile after the resizes, and for an offset, so that a JPEG grid may fall anywhere.
    window = int(np.ceil((spec.tile + 8) / degradation.scale))
    source = views[-1]
    corner = _place(source, window, focus, rng)
    inner = rng.random(2)
    alike = len({view.rgb.shape for view in views}) == 1
    crops = []
    for view in views:
        # An original of another size (re-synthesised frames) is cropped at the same relative place.
        at = corner if alike else _relative(corner, source.rgb.shape, view.rgb.shape, window)
        rgb, mask = _window(view, at, window, degradation)
        tile, share = (_turned(_tile(each, spec.tile, inner), flip, turn) for each in (rgb, mask))
        crops.append(Crop(np.ascontiguousarray(tile), patch_share(share, share.shape, spec.patch)))
    return crops


def _place(view: View, window: int, focus: float, rng: np.random.Generator) -> Place:
    """Upper left corner (y, x) of a window; on a painted pixel for a share `focus` of the crops of
    an edit."""
    chance, y_share, x_share, pick, dy, dx = rng.random(6)
    height, width = view.rgb.shape[:2]
    top, left = max(0, height - window), max(0, width - window)
    if view.label and view.mask is not None and chance < focus:
        painted = np.flatnonzero(view.mask > 0.5)
        if len(painted):
            y, x = divmod(int(painted[int(pick * len(painted))]), width)
            return min(max(0, y - int(dy * window)), top), min(max(0, x - int(dx * window)), left)
    return int(y_share * (top + 1)), int(x_share * (left + 1))


def _relative(
    corner: Place, source: tuple[int, ...], target: tuple[int, ...], window: int
) -> Place:
    """The same place in a photo of another size, moved inwards where the window would stick out:
    padding that only one half of a pair gets would give its label away."""
    y, x = (
        min(int(at * to / of), max(0, to - window))
        for at, of, to in zip(corner, source, target, strict=False)
    )
    return y, x


def _window(view: View, corner: Place, window: int, degradation: Degradation) -> tuple[RGB, Share]:
    """The window after the degradation, and its mask, resized with it."""
    y, x = corner
    rgb = view.rgb[y : y + window, x : x + window]
    mask = np.full(rgb.shape[:2], np.nan, np.float32)
    if view.mask is not None:
        mask = view.mask[y : y + window, x : x + window]
    degraded = degradation(rgb)
    if degraded.shape[:2] == mask.shape:
        return degraded, mask
    # Nearest neighbour is exact enough for shares of patches and keeps NaN.
    sides: Any = zip(degraded.shape[:2], mask.shape, strict=True)
    rows, cols = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(int) for new, old in sides
    )
    return degraded, mask[rows][:, cols]


def _tile(pixels: npt.NDArray[Any], tile: int, inner: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """A tile of [h, w, …] at the relative place `inner`, reflect-padded at the right and below
    where that is smaller."""
    pads = [(0, max(0, tile - side)) for side in pixels.shape[:2]]
    if max(pads)[1]:
        pixels = np.pad(pixels, [*pads, *[(0, 0)] * (pixels.ndim - 2)], mode="reflect")
    top, left = (
        int(share * (side - tile + 1)) for share, side in zip(inner, pixels.shape[:2], strict=True)
    )
    return pixels[top : top + tile, left : left + tile]


def _turned(pixels: npt.NDArray[Any], flip: bool, turn: int) -> npt.NDArray[Any]:
    return np.rot90(pixels[:, ::-1] if flip else pixels, turn)
