"""What is decided about a set before any of its photos is decoded: who hangs together with whom, how large each crop
is, and who is left out.

These draws concern the whole set: a size can only be independent of the class when all photos are looked at together.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from realdamage.core.decode import MIN_SIDE, decode
from realdamage.core.progress import Track
from realdamage.data.framing import Size, SizePool, common_sizes
from realdamage.data.manifest import Manifest
from realdamage.data.splits import components
from realdamage.data.writer import MAX_OFFSET, TablePool
from realdamage.errors import ConfigError, ManifestError, PhotoError

NO_JPEG_QUALITY = (85, 97)
"""JPEG qualities to draw from when no real photo is a JPEG whose tables could be taken."""

_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class NeutraliseSettings:
    """How a set is written anew.

    quality: range of JPEG qualities to draw from; None: the tables and sub-samplings of the set's real JPEG photos.
    sizes: "reals": those of the real photos as far as both classes can give them; a list of (width, height): these;
    with both, as many pixels as possible are kept, and photos that cannot give the smallest are left out. A SizePool:
    its sizes in its own shares, so that one set can be given the sizes of another; as few photos as possible are left
    out. None: each pair keeps its own size but for the crop offset, and the size may tell the class.
    history: one more JPEG save before the last one. seed: another seed, other draws. max_side: in pixels; longer sides
    are cut to it, not resized; None: no limit.
    """

    quality: tuple[int, int] | None = None
    sizes: str | Sequence[tuple[int, int]] | SizePool | None = "reals"
    history: bool = False
    seed: int = 0
    max_side: int | None = None

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise ConfigError(
                f"quality {self.quality[0]}-{self.quality[1]}: must rise and lie in 1..100"
            )
        if isinstance(self.sizes, str) and self.sizes != "reals":
            raise ConfigError(
                f"sizes {self.sizes!r}: give 'reals', a list of (width, height), a SizePool, or None"
            )
        self.pool()  # which checks the sizes
        if self.max_side is not None and self.max_side < MIN_SIDE:
            raise ConfigError(f"max_side {self.max_side}: must be at least {MIN_SIDE} pixels")

    def pool(self) -> SizePool | None:
        """The sizes that are given; None where they depend on the set."""
        if self.sizes is None or isinstance(self.sizes, SizePool | str):
            return self.sizes if isinstance(self.sizes, SizePool) else None
        return SizePool(tuple((height, width) for width, height in self.sizes))


@dataclass(frozen=True, eq=False)
class Plan:
    """All draws that concern more than one family, made before any photo is decoded.

    A family is what must be cropped alike: photos linked by a pair or by equal bytes; a component is one family or
    several of one group. component, family: int [n]; shapes: int [n, 2] (h, w) of the upright photos, 0 where
    unreadable; sizes: int [families, 2], (0, 0) where the family is left out; dropped: reason by row.
    """

    manifest: Manifest
    out: Path
    settings: NeutraliseSettings
    tables: TablePool
    skip: bool
    component: npt.NDArray[np.int64]
    family: npt.NDArray[np.int64]
    shapes: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    dropped: Mapping[int, str]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        out: Path,
        settings: NeutraliseSettings,
        tables: TablePool | None,
        skip: bool,
        progress: Track,
    ) -> Plan:
        headers = _headers(manifest, skip, progress)
        notes: list[str] = []
        if tables is None:
            tables = _tables(manifest, headers, settings, notes)
        table = manifest.table
        component, family = components(table), components(table.assign(group=""))
        shapes = np.array([header.shape for header in headers], dtype=np.int64)
        able = np.full((family.max() + 1, 2), np.iinfo(np.int64).max)
        np.minimum.at(
            able, family, np.minimum(shapes, settings.max_side or shapes.max()) - MAX_OFFSET
        )
        sizes, needed = _deal(table, component, family, able, settings, notes)
        dropped = _reasons(manifest, family, headers, sizes, needed)
        for label in table["label"].unique():
            if not (sizes[family[table["label"] == label], 0] > 0).any():
                first = min(row for row in dropped if table["label"].iat[row] == label)
                raise ManifestError(
                    f"{manifest.root}: no {label} photo would be left ({table['file_name'].iat[first]!r}: "
                    f"{dropped[first]}). Give smaller sizes, or larger photos"
                )
        return cls(
            manifest,
            out,
            settings,
            tables,
            skip,
            component,
            family,
            shapes,
            sizes,
            dropped,
            tuple(notes),
        )

    def digest(self) -> str:
        """SHA-256 of all that decides what is written: rows, photos (by size), settings, tables."""
        content = {
            "rows": self.manifest.digest(),
            "order": self.manifest.table["file_name"].tolist(),
            "bytes": [
                self.manifest.path(name).stat().st_size for name in self.manifest.table["file_name"]
            ],
            "settings": asdict(self.settings),
            "tables": self.tables.entries,
            "sizes": self.sizes.tolist(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def stem(self, row: int) -> str:
        """Of the new file name: the row's number, which makes it unique, and the old stem."""
        old = PurePosixPath(str(self.manifest.table["file_name"].iat[row])).stem
        plain = re.sub(r"[^\w.-]+", "_", old)[:40]
        return f"{row:06d}_{plain}"

    def families(self) -> list[int]:
        """Numbers of those that are written."""
        return [int(index) for index in np.flatnonzero(self.sizes[:, 0])]


class _Header(NamedTuple):
    """Of a photo: upright (h, w), whether it is a JPEG with tables to take, and why it cannot be read, or ""."""

    shape: Size
    jpeg: bool
    error: str


def _headers(manifest: Manifest, skip: bool, progress: Track) -> list[_Header]:
    names = manifest.table["file_name"]
    found: list[_Header] = []
    for name in progress(names, len(names), "sizes"):
        try:
            found.append(_header(manifest.path(name)))
        except PhotoError as error:
            if not skip:
                raise
            found.append(_Header((0, 0), False, str(error)))
    return found


def _header(path: Path) -> _Header:
    """Raises PhotoError: the file cannot be read."""
    try:
        with Image.open(path) as image:
            # Only where the orientation is known to be left to the reader; `decode` knows the others.
            if image.format in ("JPEG", "MPO", "PNG", "WEBP"):
                turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
                shape = (image.width, image.height) if turned else (image.height, image.width)
                return _Header(shape, image.format == "JPEG", "")
    except Exception:  # whatever is wrong with the header, `decode` words it
        pass
    height, width = decode(path).shape[:2]
    return _Header((height, width), False, "")


def _tables(
    manifest: Manifest, headers: Sequence[_Header], settings: NeutraliseSettings, notes: list[str]
) -> TablePool:
    if settings.quality is not None:
        return TablePool.of_qualities(*settings.quality)
    rows = zip(manifest.table["label"], manifest.table["file_name"], headers, strict=True)
    reals = [manifest.path(name) for label, name, header in rows if label == "real" and header.jpeg]
    fallback = TablePool.of_qualities(*NO_JPEG_QUALITY)
    pool = TablePool.of_photos(reals, fallback=fallback)
    if pool is fallback:
        notes.append(
            f"No real photo is a JPEG whose tables could be taken: qualities {NO_JPEG_QUALITY[0]}-{NO_JPEG_QUALITY[1]} "
            "are used instead; choose others with --quality."
        )
    return pool


def _deal(
    table: pd.DataFrame,
    component: npt.NDArray[np.int64],
    family: npt.NDArray[np.int64],
    able: npt.NDArray[np.int64],
    settings: NeutraliseSettings,
    notes: list[str],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The crop of each family, int [families, 2] (h, w), and the sizes, int [k, 2], of which a family must be able to
    give one; `able`: the largest that each can give."""
    if settings.sizes is None:
        notes.append(
            "Every pair keeps its own size: if the sizes of the classes differ, they still tell them apart."
        )
        return np.where(able.min(axis=1, keepdims=True) >= MIN_SIDE, able, 0), np.array(
            [[MIN_SIDE, MIN_SIDE]]
        )
    cell = pd.factorize(table["split"] + "\t" + table["label"])[0]
    counts = np.zeros((len(able), cell.max() + 1), dtype=np.int64)
    np.add.at(counts, (family, cell), 1)
    luck = np.random.default_rng([settings.seed, 1]).random(component.max() + 1)
    luck = luck[component[np.unique(family, return_index=True)[1]]]
    pool = settings.pool()
    if pool is None:
        readable = able[family].min(axis=1) > 0
        pool = common_sizes(
            able[family[readable]], (table["label"] == "synthetic").to_numpy()[readable]
        )
    if not isinstance(settings.sizes, SizePool):
        return pool.deal(able, counts, luck, keep=True), np.array([pool.smallest])
    # A size that a class cannot give at all would leave none of its photos the right shares.
    given = {
        size: all(
            (able[counts[:, column] > 0] >= size).all(axis=1).any()
            for column in range(counts.shape[1])
        )
        for size in dict.fromkeys(pool.sizes)
    }
    lost = [f"{width}x{height}" for (height, width), possible in given.items() if not possible]
    if lost:
        notes.append(
            f"Left out, as no photo of one class, or of one class of a split, can give it: {', '.join(lost)}."
        )
    pool = SizePool(tuple(size for size in pool.sizes if given[size]) or pool.sizes)
    return pool.deal(able, counts, luck, keep=False), np.array(pool.sizes)


def _reasons(
    manifest: Manifest,
    family: npt.NDArray[np.int64],
    headers: Sequence[_Header],
    sizes: npt.NDArray[np.int64],
    needed: npt.NDArray[np.int64],
) -> dict[int, str]:
    """Why rows are left out: their own fault, or that of a photo that they hang together with."""
    low = needed[np.argmin(needed.prod(axis=1))] + MAX_OFFSET
    reasons: dict[int, str] = {}
    culprits: dict[int, str] = {}
    rows = [int(row) for row in np.flatnonzero(sizes[family, 0] == 0)]
    for row in rows:
        (height, width), _, error = headers[row]
        if error:
            reasons[row] = error
        elif not (needed + MAX_OFFSET <= (height, width)).all(axis=1).any():
            reasons[row] = (
                f"too small: {width}x{height} pixels, {low[1]}x{low[0]} are needed with the offset"
            )
        if row in reasons:
            culprits.setdefault(int(family[row]), str(manifest.table["file_name"].iat[row]))
    for row in rows:
        if row not in reasons:
            culprit = culprits.get(int(family[row]))
            reasons[row] = (
                f"hangs together with {culprit!r}, which is left out"
                if culprit
                else "left out so that the sizes have their shares in both classes"
            )
    return reasons
