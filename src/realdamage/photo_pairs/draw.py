"""Draws a comparison: the listing photo next to the claim photo with what changed."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from realdamage.core.decode import Float32Array, UInt8Array
from realdamage.core.overlay import draw_boxes, fitting_font, with_caption
from realdamage.photo_pairs.decide import Comparison

PAIR_SIDE = 900
"""Longest side of either photo, in pixels."""
_GAP = 12
_STRENGTH = 0.6
_HEAT = np.array([255, 0, 60], np.float32)
_BOX, _OUTLINE = (0, 190, 255), (60, 160, 60)
_COLOURS = {"same_capture": (165, 20, 40), "same_object": (150, 95, 0), "unrelated": (70, 70, 70)}


def draw_comparison(
    claim_rgb: UInt8Array, listing_rgb: UInt8Array, comparison: Comparison
) -> Image.Image:
    """Left the listing photo with the outline of the claim photo, right the claim photo with its
    changes, one line of text below.

    claim_rgb, listing_rgb: uint8 [h, w, 3], upright; the listing photo at its own size.
    """
    claim, listing = (_small(rgb) for rgb in (claim_rgb, listing_rgb))
    if comparison.change_map is not None and comparison.outcome == "same_capture":
        claim = _blended(claim, comparison.change_map)
    scale = (claim.width / comparison.width, claim.height / comparison.height)
    boxes = [change.box for change in comparison.changes]
    draw_boxes(claim, boxes, scale, _BOX, max(2, max(claim.size) // 300))
    if comparison.homography is not None:
        _outline(listing, comparison, listing.width / listing_rgb.shape[1])
    height = max(claim.height, listing.height)
    caption = max(24, height // 20)
    picture = Image.new("RGB", (listing.width + _GAP + claim.width, height), (245, 245, 245))
    picture.paste(listing, (0, 0))
    picture.paste(claim, (listing.width + _GAP, 0))
    text = _caption(comparison)
    font = fitting_font(text, picture.width - 12, caption)
    return with_caption(picture, text, font, caption, _COLOURS[comparison.outcome])


def _caption(comparison: Comparison) -> str:
    parts = [comparison.outcome.replace("_", " ")]
    count = len(comparison.changes)
    if comparison.outcome == "same_capture" and count:
        parts.append(f"{comparison.changed:.1%} changed in {count} area{'s' * (count != 1)}")
    elif comparison.outcome == "same_capture":
        parts.append("unchanged")
    if comparison.outcome != "unrelated":
        parts.append(f"overlap {comparison.overlap:.0%}")
    return " | ".join([*parts, "left: listing photo, right: claim photo"])


def _small(rgb: UInt8Array) -> Image.Image:
    picture = Image.fromarray(rgb)
    picture.thumbnail((PAIR_SIDE, PAIR_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return picture


def _blended(claim: Image.Image, change_map: Float32Array) -> Image.Image:
    changed = np.asarray(Image.fromarray(change_map).resize(claim.size, Image.Resampling.BILINEAR))
    # Noise explains what is below 0.5, so it gets no colour.
    strength = _STRENGTH * np.clip(2 * changed - 1, 0, 1)[..., None]
    pixels = np.asarray(claim, np.float32)
    mixed = np.rint(pixels + strength * (_HEAT - pixels))
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def _outline(listing: Image.Image, comparison: Comparison, scale: float) -> None:
    """The frame of the claim photo, on the listing photo."""
    back = np.linalg.inv(np.array(comparison.homography))
    right, bottom = comparison.width - 1, comparison.height - 1
    frame = np.array([[0, right, right, 0], [0, 0, bottom, bottom], [1, 1, 1, 1]], np.float64)
    corners = back @ frame
    depths = corners[2]
    if np.abs(depths).min() < 1e-9 or not (np.sign(depths) == np.sign(depths[0])).all():
        return
    points = [(float(x), float(y)) for x, y in (scale * corners[:2] / depths).T]
    width = max(2, max(listing.size) // 300)
    ImageDraw.Draw(listing).line([*points, points[0]], fill=_OUTLINE, width=width)
