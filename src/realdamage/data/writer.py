"""Writes all photos of a group with the same crop, size, quantisation tables and sub-sampling.

A detector must not be able to tell an edit from its original by how the file was saved. So the
numbers are drawn once for a group, and the random crop offset moves the 8×8 grid of the old JPEG.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

from realdamage.errors import ConfigError
from realdamage.files import write_atomically

RGB = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Tables = tuple[tuple[int, ...], ...]
Pixel = TypeVar("Pixel", np.uint8, np.bool_)

MAX_OFFSET = 8
"""The crop offset is drawn below it, for each axis: a whole period of the JPEG grid."""


@dataclass(frozen=True)
class SaveSettings:
    """How the photos of one group are saved.

    offset: of the crop, (y, x) in pixels below `MAX_OFFSET`.
    subsampling: of the chroma; 0: 4:4:4, 1: 4:2:2, 2: 4:2:0.
    """

    offset: tuple[int, int]
    tables: Tables
    subsampling: int

    def crop(self, pixels: npt.NDArray[Pixel]) -> npt.NDArray[Pixel]:
        """Cuts `MAX_OFFSET` pixels off each axis: the offset at the start, the rest at the end."""
        height, width = pixels.shape[:2]
        y, x = self.offset
        return pixels[y : height - (MAX_OFFSET - y), x : width - (MAX_OFFSET - x)]


@dataclass(frozen=True)
class TablePool:
    """Quantisation tables to draw from, each with its sub-sampling."""

    entries: tuple[tuple[Tables, int], ...]

    @classmethod
    def of_qualities(cls, low: int, high: int) -> TablePool:
        """Tables of libjpeg's qualities low..high (1..100), each with 4:4:4 and 4:2:0."""
        if not 1 <= low <= high <= 100:
            raise ConfigError(f"JPEG qualities {low}-{high}: must rise and be in 1..100")
        return cls(tuple((_tables(quality), s) for quality in range(low, high + 1) for s in (0, 2)))

    @classmethod
    def of_photos(cls, paths: Sequence[Path]) -> TablePool | None:
        """Tables of the JPEG files among `paths`, of about 200 of them, evenly spaced; None: no
        JPEG."""
        entries: list[tuple[Tables, int]] = []
        for path in paths[:: max(1, len(paths) // 200)]:
            with Image.open(path) as image:
                tables = _tables_of(image)
                if image.format == "JPEG" and tables:
                    subsampling = JpegImagePlugin.get_sampling(image)
                    # Greyscale files have one table and no sub-sampling; ours are always RGB.
                    both = tables if len(tables) > 1 else tables * 2
                    entries.append((both, subsampling if subsampling in (0, 1, 2) else 2))
        return cls(tuple(entries)) if entries else None

    def draw(self, rng: np.random.Generator) -> SaveSettings:
        """Settings for one group."""
        tables, subsampling = self.entries[int(rng.integers(len(self.entries)))]
        y, x = (int(value) for value in rng.integers(0, MAX_OFFSET, 2))
        return SaveSettings((y, x), tables, subsampling)


def save_photo(path: Path, rgb: RGB, settings: SaveSettings) -> bytes:
    """Writes uint8 [h, w, 3] as JPEG, cropped; returns the bytes."""
    buffer = io.BytesIO()
    qtables = [list(table) for table in settings.tables]
    pixels = Image.fromarray(settings.crop(rgb))
    pixels.save(buffer, "JPEG", qtables=qtables, subsampling=settings.subsampling)
    write_atomically(path, buffer.getvalue())
    return buffer.getvalue()


def save_mask(path: Path, mask: Mask, settings: SaveSettings) -> None:
    """Writes bool [h, w] as a PNG of 0 and 255, cropped like its photo."""
    buffer = io.BytesIO()
    pixels = np.where(mask, 255, 0).astype(np.uint8)
    Image.fromarray(settings.crop(pixels)).save(buffer, "PNG", optimize=True)
    write_atomically(path, buffer.getvalue())


def _tables(quality: int) -> Tables:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return _tables_of(image)


def _tables_of(image: Image.Image) -> Tables:
    found: dict[int, list[int]] = getattr(image, "quantization", None) or {}
    return tuple(tuple(table) for _, table in sorted(found.items()))
