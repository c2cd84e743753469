"""Saves a set of photos again so that their files no longer give the classes away.

Size, crop, quantisation tables and sub-sampling are drawn whatever the label. Linked photos
(`splits.components`) share their draws, so an edit differs from its original by the edit only.
Photos are cropped, never resized: a resize destroys the traces. Sizes are distributed alike in both
classes (`framing.SizePool.deal`); within a class, the size may still show the source, so training
on a part of the set needs an audit of that part.

What a second save cannot remove:
- The past. A photo that was a JPEG before has two quantisations, another has one. `history=True`
  puts one more JPEG save before the last one of every photo. An earlier resize still shows.
- The content. A crop may cut away the damage of a photo whose row says damaged, or the region of an
  edit without a mask. The region of a mask is kept.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from realdamage.core.decode import MIN_SIDE, decode
from realdamage.core.progress import Track, available_processors, no_progress
from realdamage.data.framing import Frame, Size, SizePool, common_sizes
from realdamage.data.manifest import (
    EXCEPTIONS_NAME,
    METADATA_NAME,
    Manifest,
    read_mask,
    write_manifest,
)
from realdamage.data.parts import Parts, in_processes
from realdamage.data.splits import components
from realdamage.data.writer import MAX_OFFSET, RGB, Mask, TablePool, save_mask, save_photo
from realdamage.errors import ConfigError, ManifestError, PhotoError, UsageError
from realdamage.files import write_atomically

__all__ = [
    "DROPPED_NAME",
    "EXCEPTIONS_NAME",
    "Dropped",
    "NeutraliseSettings",
    "SizePool",
    "Summary",
    "neutralise",
]

DROPPED_NAME = "dropped.csv"
NO_JPEG_QUALITY = (85, 97)
"""JPEG qualities to draw from when no real photo is a JPEG whose tables could be used."""

_EXIF_ORIENTATION = 0x0112
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NeutraliseSettings:
    """How a set is saved again.

    quality: range of JPEG qualities to draw from. None: the tables and sub-samplings of the set's
        real JPEG photos.
    sizes: "reals": those of the real photos as far as both classes can give them. A list of
        (width, height). With both, as many pixels as possible are kept, and photos that cannot give
        the smallest size are dropped. A SizePool: its sizes in its own shares, so that one set can
        get the sizes of another; as few photos as possible are dropped. None: each pair keeps its
        own size but for the crop offset, and the size may show the class.
    history: one more JPEG save before the last one.
    max_side: in pixels; longer sides are cropped to it. None: no limit.
    """

    quality: tuple[int, int] | None = None
    sizes: str | Sequence[tuple[int, int]] | SizePool | None = "reals"
    history: bool = False
    seed: int = 0
    max_side: int | None = None

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise ConfigError(
                f"quality {self.quality[0]}-{self.quality[1]}: must rise and be in 1..100"
            )
        if isinstance(self.sizes, str) and self.sizes != "reals":
            raise ConfigError(
                f"sizes {self.sizes!r}: must be 'reals', a list of (width, height), a SizePool, "
                "or None"
            )
        self.pool()  # checks the sizes
        if self.max_side is not None and self.max_side < MIN_SIDE:
            raise ConfigError(f"max_side {self.max_side}: must be at least {MIN_SIDE} pixels")

    def pool(self) -> SizePool | None:
        """The given sizes; None where they depend on the set."""
        if self.sizes is None or isinstance(self.sizes, str):
            return None
        if isinstance(self.sizes, SizePool):
            return self.sizes
        return SizePool(tuple((height, width) for width, height in self.sizes))


class Dropped(NamedTuple):
    """A photo that is not in the new set, by its old name, and why."""

    file_name: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """What a run made.

    photos: in the new set; labels: photos of each label; sizes: photos of each (width, height).
    notes: sentences that the user should read.
    seconds: of this run.
    """

    root: Path
    photos: int
    dropped: tuple[Dropped, ...]
    seconds: float
    labels: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[tuple[int, int], int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def neutralise(
    manifest: Manifest,
    out: str | Path,
    settings: NeutraliseSettings | None = None,
    *,
    tables: TablePool | None = None,
    on_error: str = "raise",
    overwrite: bool = False,
    workers: int | None = None,
    progress: Track = no_progress,
) -> Summary:
    """Saves the photos of `manifest` into the folder `out`, with masks, manifest and exceptions.

    All columns are kept; file names, pairs, masks and digests are updated, `original_file_name` is
    added (kept if there is one), and photos linked only by equal bytes get one group. An
    interrupted run continues when started again. The same photos, settings and seed give the same
    bytes with any number of workers.

    tables: to draw from, instead of those of `settings.quality`.
    on_error: at an unreadable photo or mask: "raise", or "skip" it and the photos linked to it.
    overwrite: removes what an earlier run made in `out`, and nothing else.
    Raises UsageError: `out` is inside the old set or has other files. PhotoError, ManifestError: a
    photo or mask cannot be read, or no photo of a class can give any of the sizes.
    """
    started = time.monotonic()
    settings, out = settings or NeutraliseSettings(), Path(out)
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error={on_error!r}: allowed are raise, skip")
    if out.resolve().is_relative_to(manifest.root.resolve()):
        raise UsageError(
            f"{out}: is inside the set that is read ({manifest.root}). Give a folder outside of it",
            code="inside_source",
        )
    plan = _make_plan(manifest, out, settings, tables, on_error == "skip", progress)
    parts = Parts(out, "neutralise")
    if overwrite:
        parts.clear((DROPPED_NAME, EXCEPTIONS_NAME))
    stems = [plan.stem(row) for row in range(len(manifest))]
    files = [name for stem in stems for name in (f"photos/{stem}.jpg", f"masks/{stem}.png")]
    about = {"from": manifest.root, "settings": asdict(settings)}
    parts.claim(plan.digest(), about, files, alone=not overwrite)
    todo = [index for index in plan.families() if not parts.path(index).is_file()]
    count = min(workers or available_processors(), max(1, len(todo)))
    made = in_processes(_start_worker, (plan,), _make, todo, count)
    for _ in progress(made, len(todo), "groups"):
        pass
    return _finish(plan, parts, time.monotonic() - started, write=bool(todo))


# --- The plan: what concerns the whole set, drawn before any photo is decoded ---


@dataclass(frozen=True, eq=False)
class _Plan:
    """All draws that concern more than one family.

    A family must be cropped in the same way: photos linked by a pair or by equal bytes. A component
    is one family, or several of one group.

    component, family: int [n].
    shapes: int [n, 2] (h, w) of the upright photos, 0 where unreadable.
    sizes: int [families, 2] (h, w), (0, 0) where the family is dropped.
    dropped: reason by row.
    """

    manifest: Manifest
    out: Path
    settings: NeutraliseSettings
    tables: TablePool
    skip: bool
    component: Integers
    family: Integers
    shapes: Integers
    sizes: Integers
    dropped: Mapping[int, str]
    notes: tuple[str, ...]

    def digest(self) -> str:
        """SHA-256 of all that decides the bytes: rows, photos (by size), settings, tables."""
        names = self.manifest.table["file_name"].tolist()
        content = {
            "rows": self.manifest.digest(),
            "order": names,
            "bytes": [self.manifest.path(name).stat().st_size for name in names],
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
        """Numbers of the families that are kept."""
        return [int(index) for index in np.flatnonzero(self.sizes[:, 0])]


class _Header(NamedTuple):
    """Of a photo: upright (h, w), whether it is a JPEG, and why it cannot be read, or ""."""

    shape: Size
    jpeg: bool
    error: str


def _make_plan(
    manifest: Manifest,
    out: Path,
    settings: NeutraliseSettings,
    tables: TablePool | None,
    skip: bool,
    progress: Track,
) -> _Plan:
    table = manifest.table
    headers: list[_Header] = []
    for name in progress(table["file_name"], len(table), "sizes"):
        try:
            headers.append(_header(manifest.path(name)))
        except PhotoError as error:
            if not skip:
                raise
            headers.append(_Header((0, 0), False, str(error)))
    notes: list[str] = []
    if tables is None:
        tables = _tables(manifest, headers, settings, notes)
    component, family = components(table), components(table.assign(group=""))
    shapes = np.array([header.shape for header in headers], dtype=np.int64)
    able = np.full((family.max() + 1, 2), np.iinfo(np.int64).max)
    limited = np.minimum(shapes, settings.max_side or shapes.max())
    np.minimum.at(able, family, limited - MAX_OFFSET)
    sizes, needed = _deal(table, component, family, able, settings, notes)
    dropped = _reasons(manifest, family, headers, sizes, needed)
    for label in table["label"].unique():
        if not (sizes[family[table["label"] == label], 0] > 0).any():
            first = min(row for row in dropped if table["label"].iat[row] == label)
            raise ManifestError(
                f"{manifest.root}: no {label} photo would be left "
                f"({table['file_name'].iat[first]!r}: {dropped[first]}). "
                "Give smaller sizes, or larger photos"
            )
    draws = (component, family, shapes, sizes)
    return _Plan(manifest, out, settings, tables, skip, *draws, dropped, tuple(notes))


def _header(path: Path) -> _Header:
    """Raises PhotoError: the file cannot be read."""
    try:
        with Image.open(path) as image:
            # Pillow applies the orientation of other formats itself; `decode` knows them.
            if image.format in ("JPEG", "MPO", "PNG", "WEBP"):
                turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
                shape = (image.width, image.height) if turned else (image.height, image.width)
                return _Header(shape, image.format == "JPEG", "")
    except Exception:  # `decode` reports what is wrong with the header
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
            f"No real photo is a JPEG whose tables could be used: qualities {NO_JPEG_QUALITY[0]}-"
            f"{NO_JPEG_QUALITY[1]} are used instead; choose others with --quality."
        )
    return pool


def _deal(
    table: pd.DataFrame,
    component: Integers,
    family: Integers,
    able: Integers,
    settings: NeutraliseSettings,
    notes: list[str],
) -> tuple[Integers, Integers]:
    """The crop of each family, int [families, 2] (h, w), and the sizes, int [k, 2], of which a
    family must be able to give one.

    able: int [families, 2], the largest crop of each.
    """
    if settings.sizes is None:
        notes.append("Every pair keeps its own size: sizes that differ by class still show it.")
        given = np.where(able.min(axis=1, keepdims=True) >= MIN_SIDE, able, 0)
        return given, np.array([[MIN_SIDE, MIN_SIDE]])
    cell = pd.factorize(table["split"] + "\t" + table["label"])[0]
    counts = np.zeros((len(able), cell.max() + 1), dtype=np.int64)
    np.add.at(counts, (family, cell), 1)
    luck = np.random.default_rng([settings.seed, 1]).random(component.max() + 1)
    luck = luck[component[np.unique(family, return_index=True)[1]]]
    pool = settings.pool()
    if pool is None:
        readable = able[family].min(axis=1) > 0
        synthetic = (table["label"] == "synthetic").to_numpy()
        pool = common_sizes(able[family[readable]], synthetic[readable])
    if not isinstance(settings.sizes, SizePool):
        return pool.deal(able, counts, luck, keep=True), np.array([pool.smallest])
    # With a size that one class cannot give, none of the shares could be kept.
    fitting = {size: (able >= size).all(axis=1) for size in dict.fromkeys(pool.sizes)}
    lost = [size for size, fits in fitting.items() if not (counts[fits] > 0).any(axis=0).all()]
    if lost:
        listed = ", ".join(f"{width}x{height}" for height, width in lost)
        notes.append(f"Sizes that no photo of one class, or of one split, can give: {listed}.")
    pool = SizePool(tuple(size for size in pool.sizes if size not in lost) or pool.sizes)
    return pool.deal(able, counts, luck, keep=False), np.array(pool.sizes)


def _reasons(
    manifest: Manifest,
    family: Integers,
    headers: Sequence[_Header],
    sizes: Integers,
    needed: Integers,
) -> dict[int, str]:
    """Why rows are dropped: their own fault, or that of a photo that they are linked to."""
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
        culprit = culprits.get(int(family[row]))
        linked = f"linked to {culprit!r}, which is dropped"
        for_shares = "dropped so that the sizes have their shares in both classes"
        reasons.setdefault(row, linked if culprit else for_shares)
    return reasons


# --- The photos, family by family ---


class _Saved(NamedTuple):
    """Where a photo and its mask ("": none) were written, and the SHA-256 of the photo's bytes."""

    file_name: str
    mask_file_name: str
    sha256: str


_worker_plan: _Plan | None = None


def _start_worker(plan: _Plan) -> None:
    global _worker_plan
    _worker_plan = plan


def _make(index: int) -> int:
    """Writes one family; returns the number of its photos."""
    plan = _worker_plan
    assert plan is not None  # set by _start_worker in this process
    rows = np.flatnonzero(plan.family == index).tolist()
    try:
        saved = _save_family(plan, index, rows)
        reason = "its mask is outside of the crop that it shares with the photos linked to it"
    except (PhotoError, ManifestError) as error:
        if not plan.skip:
            raise
        saved, reason = {}, f"it, or a photo linked to it, is unreadable: {error}"
    dropped = {row: reason for row in rows if row not in saved}
    Parts(plan.out, "neutralise").write(index, {"saved": saved, "dropped": dropped})
    return len(saved)


def _save_family(plan: _Plan, index: int, rows: Sequence[int]) -> dict[int, _Saved]:
    """What was saved, by row. The frame is moved onto the masks, the same for all photos.

    A mask that is cut away completely drops its photo: it would be called edited without a single
    edited pixel.
    """
    photos = {row: _read(plan, row) for row in rows}
    height, width = plan.sizes[index].tolist()
    # What a component shares is drawn from its own number; the place on a mask from the family's.
    seed = plan.settings.seed
    shared = np.random.default_rng([seed, 2, int(plan.component[rows[0]])])
    frame = Frame.draw(shared, (height, width), plan.tables, earlier=plan.settings.history)
    masks = [mask for _, mask in photos.values() if mask is not None]
    frame = frame.holding(masks, np.random.default_rng([seed, 3, index]))
    saved: dict[int, _Saved] = {}
    for row, (rgb, mask) in photos.items():
        mask_name = ""
        if mask is not None:
            cropped = frame.crop(mask)
            if mask.any() and not frame.settings.crop(cropped).any():
                continue
            mask_name = f"masks/{plan.stem(row)}.png"
            save_mask(plan.out / mask_name, cropped, frame.settings)
        name = f"photos/{plan.stem(row)}.jpg"
        data = save_photo(plan.out / name, frame.crop(rgb), frame.settings)
        saved[row] = _Saved(name, mask_name, hashlib.sha256(data).hexdigest())
    return saved


def _read(plan: _Plan, row: int) -> tuple[RGB, Mask | None]:
    """A photo and its mask, if it has one."""
    table = plan.manifest.table
    path = plan.manifest.path(str(table["file_name"].iat[row]))
    rgb = decode(path)
    height, width = rgb.shape[:2]
    if (height, width) != tuple(plan.shapes[row]):
        raise PhotoError(
            f"{path}: {width}x{height} pixels when decoded, but its header says "
            f"{plan.shapes[row][1]}x{plan.shapes[row][0]}; save it again"
        )
    has_mask = table["mask_file_name"].iat[row] != ""
    return rgb, read_mask(plan.manifest, row, (height, width)) if has_mask else None


# --- The new set ---


def _finish(plan: _Plan, parts: Parts, seconds: float, *, write: bool) -> Summary:
    """Gathers the parts and writes the manifest, the dropped photos and the exceptions.

    write: False: only if the manifest is missing.
    """
    old = plan.manifest.table
    saved: dict[int, _Saved] = {}
    reasons = dict(plan.dropped)
    for index in plan.families():
        part = parts.read(index)
        saved.update({int(row): _Saved(*photo) for row, photo in part["saved"].items()})
        reasons.update({int(row): reason for row, reason in part["dropped"].items()})
    if not saved:
        raise ManifestError(f"{plan.manifest.root}: all {len(old)} photos would be dropped")
    rows = sorted(saved)
    table = _new_table(plan, {row: saved[row] for row in rows})
    dropped = [Dropped(str(old["file_name"].iat[row]), reasons[row]) for row in sorted(reasons)]
    if write or not (plan.out / METADATA_NAME).is_file():
        if dropped:
            listed = pd.DataFrame(dropped).to_csv(index=False, lineterminator="\n")
            write_atomically(plan.out / DROPPED_NAME, listed.encode())
        exceptions = plan.manifest.root / EXCEPTIONS_NAME
        if exceptions.is_file():
            write_atomically(plan.out / EXCEPTIONS_NAME, exceptions.read_bytes())
        write_manifest(plan.out, table)
    kept = plan.sizes[plan.family[rows]]
    sizes = Counter((int(width), int(height)) for height, width in kept)
    region = table["kind"].isin(("ai_region", "pasted")) & (table["mask_file_name"] == "")
    smaller = (kept + MAX_OFFSET < plan.shapes[rows]).any(axis=1)
    notes = plan.notes
    if cut := int((region.to_numpy() & smaller).sum()):
        notes += (f"{cut} cropped region edits have no mask: the crop may not show their region.",)
    labels = dict(sorted(Counter(table["label"]).items()))
    sizes_by_count = dict(sizes.most_common())
    return Summary(plan.out, len(rows), tuple(dropped), seconds, labels, sizes_by_count, notes)


def _new_table(plan: _Plan, saved: Mapping[int, _Saved]) -> pd.DataFrame:
    """The rows that were saved, with their new names; copies get one group."""
    old = plan.manifest.table
    names = {str(old["file_name"].iat[row]): photo.file_name for row, photo in saved.items()}
    group = old["group"].groupby(plan.component).transform("first")
    table = old.assign(group=group).iloc[list(saved)].reset_index(drop=True)
    if "original_file_name" not in table:
        table["original_file_name"] = table["file_name"]
    for column in _Saved._fields:
        table[column] = [getattr(photo, column) for photo in saved.values()]
    table["pair"] = table["pair"].map(names).fillna("")
    return table
