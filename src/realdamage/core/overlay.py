"""Draws a verdict over its photo, for people."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from realdamage.core.decode import Float32Array, UInt8Array
from realdamage.core.verdict import Verdict
from realdamage.errors import RealDamageError, UsageError

_STRENGTH = 0.65  # opacity of full heat: the damage must stay visible
_COLD, _WARM = np.array([255, 221, 0], np.float32), np.array([220, 0, 40], np.float32)
_BOX = (0, 200, 255)
Colour: TypeAlias = tuple[int, int, int]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
_SHEET_BACKGROUND, _SHEET_GAP = (245, 245, 245), 8
_CAPTION_COLOURS = {"real": (20, 110, 60), "review": (150, 95, 0), "synthetic": (165, 20, 40)}


def draw_overlay(rgb: UInt8Array, verdict: Verdict, *, reasons: bool = True) -> Image.Image:
    """The photo with its heat map, boxes around the regions and one caption line below.

    rgb: uint8 [h, w, 3], the upright photo at any size. reasons: put their codes into the caption.
    Raises UsageError when the verdict has no heat map.
    """
    if verdict.heatmap is None:
        raise UsageError("the verdict has no heat map; write it with Verdict.to_json(heatmap=True)")
    height, width = rgb.shape[:2]
    heat = _stretch(verdict.heatmap, verdict.cell * width / verdict.width, (width, height))
    heat = heat[..., None]
    blended = rgb + _STRENGTH * heat * (_COLD + heat * (_WARM - _COLD) - rgb)
    picture = Image.fromarray(np.round(blended).astype(np.uint8))
    across, down = width / verdict.width, height / verdict.height
    boxes = [region.box for region in verdict.regions]
    draw_boxes(picture, boxes, (across, down), _BOX, max(2, width // 300))
    text = caption(verdict if reasons else replace(verdict, reasons=()))
    caption_height = max(18, width // 24)
    font = fitting_font(text, width - 8, caption_height)
    return with_caption(picture, text, font, caption_height, _CAPTION_COLOURS[verdict.outcome])


def draw_boxes(
    picture: Image.Image,
    boxes: Sequence[tuple[int, int, int, int]],
    scale: tuple[float, float],
    colour: Colour,
    line: int,
) -> None:
    """Outline boxes (left, top, right, bottom), right and bottom exclusive, times `scale`."""
    draw = ImageDraw.Draw(picture)
    for box in boxes:
        left, top, right, bottom = np.multiply(box, (*scale, *scale)).tolist()
        inside = (left, top, max(left, right - 1), max(top, bottom - 1))
        draw.rectangle(inside, outline=colour, width=line)


def with_caption(
    picture: Image.Image, text: str, font: Font, height: int, colour: Colour
) -> Image.Image:
    """The picture above a bar of `height` pixels with one line of white text."""
    found = Image.new("RGB", (picture.width, picture.height + height), colour)
    found.paste(picture)
    place = (4, picture.height + height / 2)
    ImageDraw.Draw(found).text(place, text, fill="white", font=font, anchor="lm")
    return found


def draw_pair(rgb: UInt8Array, verdict: Verdict, title: str, side: int = 240) -> Image.Image:
    """One cell of a contact sheet: the photo, the photo with its heat map, and `title` above both.

    side: longest side of either picture, in pixels. Raises UsageError as `draw_overlay` does.
    """
    small = Image.fromarray(rgb)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    marked = draw_overlay(np.asarray(small), verdict, reasons=False)
    title_height = max(16, side // 14)
    cell = Image.new("RGB", (2 * side, title_height + marked.height), _SHEET_BACKGROUND)
    font = fitting_font(title, 2 * side - 8, title_height)
    ImageDraw.Draw(cell).text((4, title_height / 2), title, fill="black", font=font, anchor="lm")
    cell.paste(small, (0, title_height))
    cell.paste(marked, (side, title_height))
    return cell


def contact_sheet(cells: Sequence[Image.Image], columns: int = 2) -> Image.Image:
    """Cells of one width in rows of `columns`, in reading order; at least one cell."""
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) + _SHEET_GAP for row in rows]
    width = cells[0].width + _SHEET_GAP
    size = (columns * width + _SHEET_GAP, sum(heights) + _SHEET_GAP)
    sheet = Image.new("RGB", size, _SHEET_BACKGROUND)
    top = _SHEET_GAP
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (_SHEET_GAP + column * width, top))
        top += height
    return sheet


def caption(verdict: Verdict) -> str:
    """One line: outcome, score, probability if calibrated, and the codes of the reasons."""
    parts = [verdict.outcome, f"score {verdict.score:+.2f}"]
    if verdict.probability is not None:
        parts.append(f"probability {verdict.probability:.3f}")
    return " | ".join(parts + [reason.code for reason in verdict.reasons])


def _stretch(heatmap: Float32Array, cell: float, size: tuple[int, int]) -> Float32Array:
    """The heat map at the size of the photo, smooth and cut at its edges."""
    rows, cols = heatmap.shape
    full = (max(size[0], round(cols * cell)), max(size[1], round(rows * cell)))
    smooth = Image.fromarray(heatmap).resize(full, Image.Resampling.BILINEAR)
    return np.asarray(smooth.crop((0, 0, *size)))


def fitting_font(text: str, width: int, height: int) -> Font:
    """A font in which a line of text fits into a bar, in pixels."""
    size = height * 0.6
    font = ImageFont.load_default(size)
    return ImageFont.load_default(max(6.0, min(size, size * width / font.getlength(text))))


def picture_bytes(picture: Image.Image, form: str) -> bytes:
    """The picture as a file's bytes. Raises RealDamageError when it is too large for the format."""
    data = io.BytesIO()
    try:
        picture.save(data, format=form, quality=92)  # of JPEG and WebP
    except (OSError, ValueError) as error:
        size = f"{picture.width}x{picture.height} pixels"
        raise RealDamageError(
            f"{form} cannot hold {size} ({error}); use a name that ends in .png",
            code="picture_too_large",
        ) from error
    return data.getvalue()
