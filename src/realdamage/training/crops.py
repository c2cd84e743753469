"""Crops of photos with their masks: the same place, the same degradation and the same turn in both halves of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from realdamage.core.photo import PixelSpec, limit_side, pad_to_patches, read_photo
from realdamage.data.degradations import Chain
from realdamage.data.manifest import Manifest, read_mask
from realdamage.data.manifest import patch_share

RGB = npt.NDArray[np.uint8]
Share = npt.NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """One photo of the manifest, decoded: `rgb` uint8 [h, w, 3] padded to whole patches and at least one tile; `mask`
    float32 [h, w] in 0..1, share of each pixel that is synthetic (read-only where it is the same everywhere), or None
    where nobody knows which pixels are."""

    row: int
    rgb: RGB
    mask: Share | None
    label: int


@dataclass(frozen=True)
class Crop:
    """One tile: `tile` uint8 [tile, tile, 3]; `share` float32 [tile/patch, tile/patch], synthetic share of each patch
    (NaN: unknown)."""

    tile: RGB
    share: Share


def read_view(manifest: Manifest, row: int, spec: PixelSpec) -> View:
    """Reads a photo and its mask; of a photo of kind `ai_whole` without one, every pixel is synthetic.

    Raises PhotoError or ManifestError naming the file.
    """
    record = manifest.table.iloc[row]
    photo = read_photo(manifest.path(record["file_name"]), spec)
    label = int(record["label"] == "synthetic")
    rgb = pad_to_patches(photo.rgb, spec)
    if not label or (record["kind"] == "ai_whole" and not record["mask_file_name"]):
        return View(row, rgb, np.broadcast_to(np.float32(label), rgb.shape[:2]), label)
    mask: Share | None = None
    if record["mask_file_name"]:
        painted = read_mask(manifest, row, (photo.height, photo.width))
        # The mask goes through the resize of the photo itself, so that it stays on its pixels.
        pixels = np.repeat(painted[..., None].astype(np.uint8) * 255, 3, axis=2)
        mask = limit_side(pixels, spec)[..., 0].astype(np.float32) / 255.0
        mask = np.pad(
            mask,
            [(0, full - side) for full, side in zip(rgb.shape[:2], mask.shape, strict=True)],
            mode="reflect",
        )
    return View(row, rgb, mask, label)


def tile_label(share: Share) -> float:
    """Label of a tile from its patches: 1 when some patch is mostly synthetic, 0 when none is touched, else NaN (too
    little to call it either way, or unknown)."""
    if np.isnan(share).any():
        return float("nan")
    return 1.0 if share.max() >= 0.5 else 0.0 if share.max() == 0.0 else float("nan")


def crops_label(view: View, share: Share) -> float:
    """Label of a photo's crops taken together: that of the photo, unless its mask says that the crops missed the
    edit."""
    if not view.label:
        return 0.0
    return 1.0 if np.isnan(share).any() else tile_label(share)


def cut_alike(
    views: Sequence[View],
    spec: PixelSpec,
    chain: Chain,
    focus: float,
    rng: np.random.Generator,
) -> list[Crop]:
    """One crop of each view of a unit, with the same numbers for all; `focus`: chance that it is placed on the mask of
    the last view, if that is an edit."""
    flip, turn = bool(rng.integers(2)), int(rng.integers(4))
    window = _window_side(spec.tile, chain)
    source = views[-1]
    corner = _place(source, window, focus, rng)
    inner = rng.random(2)
    alike = len({view.rgb.shape for view in views}) == 1
    crops = []
    for view in views:
        # An original of another size (re-synthesised frames) is cropped at the same relative place.
        at = corner if alike else _relative(corner, source.rgb.shape, view.rgb.shape, window)
        tile, mask = (
            _turned(array, flip, turn) for array in _cut(view, at, window, spec.tile, chain, inner)
        )
        crops.append(Crop(np.ascontiguousarray(tile), patch_share(mask, mask.shape, spec.patch)))
    return crops


def _place(view: View, window: int, focus: float, rng: np.random.Generator) -> tuple[int, int]:
    """Upper left corner (y, x) of a window; on a painted pixel for a share `focus` of the crops of an edit."""
    chance, y_share, x_share, pick, dy, dx = rng.random(6)
    height, width = view.rgb.shape[:2]
    top, left = max(0, height - window), max(0, width - window)
    if view.label and view.mask is not None and chance < focus:
        painted = np.flatnonzero(view.mask > 0.5)
        if len(painted):
            y, x = divmod(int(painted[int(pick * len(painted))]), width)
            return min(max(0, y - int(dy * window)), top), min(max(0, x - int(dx * window)), left)
    return int(y_share * (top + 1)), int(x_share * (left + 1))


def _cut(
    view: View,
    corner: tuple[int, int],
    window: int,
    tile: int,
    chain: Chain,
    inner: npt.NDArray[np.float64],
) -> tuple[RGB, Share]:
    """The window through the chain, and its mask: a tile of each, at the relative place `inner` of what the chain left
    of the window."""
    y, x = corner
    rgb = view.rgb[y : y + window, x : x + window]
    mask = (
        np.full(rgb.shape[:2], np.nan, np.float32)
        if view.mask is None
        else view.mask[y : y + window, x : x + window]
    )
    degraded = chain(rgb)
    if degraded.shape[:2] != mask.shape:
        mask = _resize_mask(mask, degraded.shape[:2])
    degraded, mask = _at_least(degraded, tile), _at_least(mask, tile)
    top, left = (
        int(u * (side - tile + 1)) for u, side in zip(inner, degraded.shape[:2], strict=True)
    )
    box = (slice(top, top + tile), slice(left, left + tile))
    return degraded[box], mask[box]


def _turned(pixels: npt.NDArray[Any], flip: bool, turn: int) -> npt.NDArray[Any]:
    return np.rot90(pixels[:, ::-1] if flip else pixels, turn)


def _window_side(tile: int, chain: Chain) -> int:
    """Room for the tile after the chain's resizes, and for an offset inside it, so that the grid of the chain's own
    JPEG falls anywhere."""
    return int(np.ceil((tile + 8) / chain.scale))


def _at_least(pixels: npt.NDArray[Any], tile: int) -> npt.NDArray[Any]:
    """Reflect-pads [h, w, …] at the right and below to a tile, as `pad_to_patches` does for photos that are smaller."""
    pads = [(0, max(0, tile - side)) for side in pixels.shape[:2]]
    return (
        np.pad(pixels, [*pads, *[(0, 0)] * (pixels.ndim - 2)], mode="reflect")
        if max(pads)[1]
        else pixels
    )


def _relative(
    corner: tuple[int, int], source: tuple[int, ...], target: tuple[int, ...], window: int
) -> tuple[int, int]:
    """The same place in a photo of another size, moved inwards where the window would stick out: padding that only one
    half of a pair gets would tell its label."""
    y, x = (
        min(int(at * to / of), max(0, to - window))
        for at, of, to in zip(corner, source, target, strict=False)
    )
    return y, x


def _resize_mask(mask: Share, shape: tuple[int, ...]) -> Share:
    """Nearest-neighbour, which is exact enough for shares of patches and keeps NaN."""
    rows = np.minimum(
        (np.arange(shape[0]) + 0.5) * mask.shape[0] / shape[0], mask.shape[0] - 1
    ).astype(int)
    cols = np.minimum(
        (np.arange(shape[1]) + 0.5) * mask.shape[1] / shape[1], mask.shape[1] - 1
    ).astype(int)
    resized: Share = mask[rows][:, cols]
    return resized
