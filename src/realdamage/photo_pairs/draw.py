"""Draws a comparison, for people: the listing photo beside the claim photo with what changed."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from realdamage.core.decode import Float32Array, UInt8Array
from realdamage.photo_pairs.decide import Comparison

_SIDE = 900  # longest side of either photo, in pixels
_GAP = 12
_STRENGTH = 0.6
_SMALLEST_FONT = 9.0
_HEAT = np.array([255, 0, 60], np.float32)
_BOX, _OUTLINE = (0, 190, 255), (60, 160, 60)
_COLOURS = {"same_capture": (165, 20, 40), "same_object": (150, 95, 0), "unrelated": (70, 70, 70)}


def draw_comparison(
    claim_rgb: UInt8Array, listing_rgb: UInt8Array, comparison: Comparison
) -> Image.Image:
    """Side by side: the listing photo, with the outline of what the claim photo shows of it, and the claim photo with
    its changes boxed and the change map blended in; one line of text below.

    claim_rgb, listing_rgb: uint8 [h, w, 3], both upright; the claim photo at any size, the listing photo at its own.
    """
    claim, listing = (_small(rgb) for rgb in (claim_rgb, listing_rgb))
    if comparison.change_map is not None and comparison.outcome == "same_capture":
        claim = _blended(claim, comparison.change_map)
    draw = ImageDraw.Draw(claim)
    across, down = claim.width / comparison.width, claim.height / comparison.height
    line = max(2, max(claim.size) // 300)
    for change in comparison.changes:
        left, top, right, bottom = np.multiply(change.box, (across, down, across, down)).tolist()
        draw.rectangle(
            (left, top, max(left, right - 1), max(top, bottom - 1)), outline=_BOX, width=line
        )
    if comparison.homography is not None:
        _outline(listing, comparison, listing.width / listing_rgb.shape[1])
    height = max(claim.height, listing.height)
    caption = max(24, height // 20)
    picture = Image.new(
        "RGB", (listing.width + _GAP + claim.width, height + caption), (245, 245, 245)
    )
    picture.paste(listing, (0, 0))
    picture.paste(claim, (listing.width + _GAP, 0))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, height, picture.width, height + caption), fill=_COLOURS[comparison.outcome])
    text, font = _fitting(_caption(comparison), picture.width - 12, 0.6 * caption)
    draw.text((6, height + caption / 2), text, fill="white", font=font, anchor="lm")
    return picture


def _caption(comparison: Comparison) -> list[str]:
    """What is said below, the most needed first."""
    parts = [comparison.outcome.replace("_", " ")]
    if comparison.outcome == "same_capture":
        count = len(comparison.changes)
        parts.append(
            f"{comparison.changed:.1%} changed in {count} area{'s' * (count != 1)}"
            if count
            else "unchanged"
        )
    if comparison.outcome != "unrelated":
        parts.append(f"overlap {comparison.overlap:.0%}")
    return [*parts, "left: listing photo, right: claim photo"]


def _fitting(
    parts: list[str], width: int, size: float
) -> tuple[str, ImageFont.FreeTypeFont | ImageFont.ImageFont]:
    """As many of the parts as fit into `width` pixels, in a font of at most `size`, at least `_SMALLEST_FONT`."""
    for count in range(len(parts), 0, -1):
        text, tried = " | ".join(parts[:count]), size
        while tried >= _SMALLEST_FONT:
            font = ImageFont.load_default(tried)
            if font.getlength(text) <= width:
                return text, font
            tried *= 0.94
    return parts[0], ImageFont.load_default(_SMALLEST_FONT)


def _small(rgb: UInt8Array) -> Image.Image:
    picture = Image.fromarray(rgb)
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return picture


def _blended(claim: Image.Image, change_map: Float32Array) -> Image.Image:
    changed = np.asarray(Image.fromarray(change_map).resize(claim.size, Image.Resampling.BILINEAR))
    # Below 0.5 is what noise explains: it must not colour the photo.
    strength = _STRENGTH * np.clip(2 * changed - 1, 0, 1)[..., None]
    pixels = np.asarray(claim, np.float32)
    return Image.fromarray(
        np.clip(np.rint(pixels + strength * (_HEAT - pixels)), 0, 255).astype(np.uint8)
    )


def _outline(listing: Image.Image, comparison: Comparison, scale: float) -> None:
    """The frame of the claim photo, on the listing photo."""
    back = np.linalg.inv(np.array(comparison.homography))
    width, height = comparison.width - 1, comparison.height - 1
    corners = back @ np.array(
        [[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]], np.float64
    )
    if (np.abs(corners[2]) < 1e-9).any() or not (
        np.sign(corners[2]) == np.sign(corners[2, 0])
    ).all():
        return
    points = [(float(x), float(y)) for x, y in (scale * corners[:2] / corners[2]).T]
    ImageDraw.Draw(listing).line(
        [*points, points[0]], fill=_OUTLINE, width=max(2, max(listing.size) // 300)
    )
