"""Saves a set of photos again so that their files no longer give the classes away.

All photos get one size, and the writer draws crop offset, quantisation tables and sub-sampling
whatever the label. Photos linked by a pair or by equal bytes (a family) share their draws, so an
edit differs from its original by the edit only. Photos are cropped, never resized: a resize
destroys the traces.

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
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.core.decode import MIN_SIDE, decode
from realdamage.core.progress import Track, available_processors, no_progress
from realdamage.data.manifest import (
    EXCEPTIONS_NAME,
    METADATA_NAME,
    Manifest,
    read_mask,
    write_manifest,
)
from realdamage.data.parts import Parts, for_each
from realdamage.data.shortcuts import container_facts
from realdamage.data.splits import components
from realdamage.data.writer import (
    MAX_OFFSET,
    RGB,
    Mask,
    Pixel,
    TablePool,
    save_mask,
    save_photo,
)
from realdamage.errors import ConfigError, ManifestError, PhotoError, UsageError
from realdamage.files import write_atomically

DROPPED_NAME = "dropped.csv"
NO_JPEG_QUALITY = (85, 97)
"""JPEG qualities to draw from when no real photo is a JPEG whose tables could be used."""

_NEARLY_ALL = 0.95  # share of each label's photos that can give a size
_HEIGHTS = 256  # this many heights are tried for the common size
_TRIES = 48  # places for a crop around the masks
_ENOUGH = 0.5  # share of what a crop could hold of a mask
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NeutraliseSettings:
    """How a set is saved again.

    quality: range of JPEG qualities to draw from. None: the tables and sub-samplings of the set's
        real JPEG photos.
    sizes: "common": the largest size that nearly all photos of both labels can give. A list of
        (width, height): each family draws one of those that nearly all photos of both labels can
        give, or that most can. Photos that can give none are dropped. None: each family keeps its
        own size but for the crop offset, and the size may show the class.
    history: one more JPEG save before the last one.
    """

    quality: tuple[int, int] | None = None
    sizes: str | Sequence[tuple[int, int]] | None = "common"
    history: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sizes is None or self.sizes == "common":
            return
        if isinstance(self.sizes, str) or not self.sizes:
            raise ConfigError(f"sizes {self.sizes!r}: give 'common', a list of sizes, or None")
        for width, height in self.sizes:
            if min(width, height) < MIN_SIDE:
                raise ConfigError(
                    f"size {width}x{height}: each side must have at least {MIN_SIDE} pixels"
                )


class Dropped(NamedTuple):
    """A photo that is not in the new set, by its old name, and why."""

    file_name: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """What a run made.

    photos: in the new set; labels: photos of each label; sizes: photos of each (width, height).
    seconds: of this run.
    notes: sentences that the user should read.
    """

    root: Path
    photos: int
    dropped: tuple[Dropped, ...]
    seconds: float
    labels: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int]
    notes: tuple[str, ...]


def neutralise(
    manifest: Manifest,
    out: str | Path,
    settings: NeutraliseSettings = NeutraliseSettings(),
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
    photo or mask cannot be read, or no photo of a label can give any of the sizes.
    """
    started = time.monotonic()
    out = Path(out)
    if out.resolve().is_relative_to(manifest.root.resolve()):
        raise UsageError(
            f"{out}: is inside the set that is read ({manifest.root}). Give a folder outside of it",
            code="inside_source",
        )
    skip = on_error == "skip"
    plan = _planned(manifest, settings, skip, progress)
    notes: list[str] = []
    if tables is None:
        tables = _tables(manifest, plan, settings, notes)
    job = _Job(manifest, out, settings, tables, skip, plan)
    parts = Parts(out, "neutralise")
    if overwrite:
        parts.clear((DROPPED_NAME, EXCEPTIONS_NAME))
    files = [name for row in range(len(plan)) for name in job.names(row)]
    about = {"from": manifest.root, "settings": asdict(settings)}
    parts.claim(job.digest(), about, files, alone=not overwrite)
    families = sorted(set(plan["family"][plan["reason"] == ""].tolist()))
    todo = [index for index in families if not parts.path(index).is_file()]
    count = min(workers or available_processors(), max(1, len(todo)))
    made = for_each(_make, job, todo, count)
    for _ in progress(made, len(todo), "groups"):
        pass
    saved: dict[int, _Saved] = {}
    reasons = {row: why for row, why in enumerate(plan["reason"].tolist()) if why}
    for part in map(parts.read, families):
        saved.update({int(row): _Saved(*photo) for row, photo in part["saved"].items()})
        reasons.update({int(row): reason for row, reason in part["dropped"].items()})
    if not saved:
        raise ManifestError(f"{manifest.root}: all {len(plan)} photos would be dropped")
    table = _new_table(manifest.table, dict(sorted(saved.items())))
    names = manifest.table["file_name"].tolist()
    dropped = [Dropped(names[row], reasons[row]) for row in sorted(reasons)]
    if todo or not (out / METADATA_NAME).is_file():
        if dropped:
            listed = pd.DataFrame(dropped).to_csv(index=False, lineterminator="\n")
            write_atomically(out / DROPPED_NAME, listed.encode())
        exceptions = manifest.root / EXCEPTIONS_NAME
        if exceptions.is_file():
            write_atomically(out / EXCEPTIONS_NAME, exceptions.read_bytes())
        write_manifest(out, table)
    region = table["kind"].isin(("ai_region", "pasted")) & (table["mask_file_name"] == "")
    if region.any():
        notes.append(
            f"{region.sum()} region edits have no mask: the crop may not show their region."
        )
    kept = plan.loc[sorted(saved)]
    sizes = Counter(zip(kept["crop_width"].tolist(), kept["crop_height"].tolist(), strict=True))
    return Summary(
        root=out,
        photos=len(table),
        dropped=tuple(dropped),
        seconds=time.monotonic() - started,
        labels=dict(sorted(Counter(table["label"].tolist()).items())),
        sizes=dict(sizes.most_common()),
        notes=tuple(notes),
    )


# --- The plan: what concerns the whole set, decided before any photo is decoded ---


def _planned(
    manifest: Manifest, settings: NeutraliseSettings, skip: bool, progress: Track
) -> pd.DataFrame:
    """For each row: width, height (of the upright photo), format, family (a number, equal for
    photos linked by a pair or by equal bytes), crop_height, crop_width, reason ("": it is kept)."""
    table = manifest.table
    headers: list[tuple[int, int, str, str]] = []
    for name in progress(table["file_name"], len(table), "sizes"):
        try:
            facts = container_facts(manifest.path(name))
            width, height = facts["upright"]
            headers.append((width, height, facts["format"], ""))
        except PhotoError as error:
            if not skip:
                raise
            headers.append((0, 0, "", str(error)))
    plan = pd.DataFrame(headers, columns=["width", "height", "format", "reason"])
    plan["family"] = components(table.assign(group=""))
    # A photo can give no more than those that it is linked to.
    able = plan.groupby("family")[["height", "width"]].transform("min").to_numpy() - MAX_OFFSET
    crop = _sizes(able, plan["family"].to_numpy(), table["label"], settings)
    plan[["crop_height", "crop_width"]] = crop
    shape = plan[["height", "width"]].to_numpy()
    readable = (plan["reason"] == "").to_numpy()
    small = np.any(shape < crop + MAX_OFFSET, axis=1) & readable
    for row in np.flatnonzero(small):
        found, needed = (f"{x}x{y}" for y, x in (shape[row], crop[row] + MAX_OFFSET))
        plan.loc[row, "reason"] = f"too small: {found} pixels, {needed} are needed with the offset"
    names = table["file_name"].where(plan["reason"] != "")
    culprit = names.groupby(plan["family"]).transform("first")
    linked = "linked to " + culprit.map(repr) + ", which is dropped"
    plan["reason"] = plan["reason"].mask((plan["reason"] == "") & culprit.notna(), linked)
    left = set(table["label"][plan["reason"] == ""])
    for label in sorted(set(table["label"]) - left):
        first = int(np.argmax(table["label"] == label))
        raise ManifestError(
            f"{manifest.root}: no {label} photo would be left "
            f"({table['file_name'][first]!r}: {plan['reason'][first]}). "
            "Give smaller sizes, or larger photos"
        )
    return plan


def _tables(
    manifest: Manifest, plan: pd.DataFrame, settings: NeutraliseSettings, notes: list[str]
) -> TablePool:
    if settings.quality is not None:
        return TablePool.of_qualities(*settings.quality)
    jpegs = (plan["format"] == "JPEG") & (manifest.table["label"] == "real")
    paths = [manifest.path(name) for name in manifest.table["file_name"][jpegs]]
    fallback = TablePool.of_qualities(*NO_JPEG_QUALITY)
    pool = TablePool.of_photos(paths, fallback=fallback)
    if pool is fallback:
        notes.append(
            f"No real photo is a JPEG whose tables could be used: qualities {NO_JPEG_QUALITY[0]}-"
            f"{NO_JPEG_QUALITY[1]} are used instead; choose others with --quality."
        )
    return pool


def _sizes(
    able: Integers, family: Integers, label: pd.Series, settings: NeutraliseSettings
) -> Integers:
    """The size of each photo's crop, int [n, 2] (h, w).

    able: int [n, 2], the largest crop that a photo and those linked to it can give.
    """
    if settings.sizes is None:
        return np.maximum(able, MIN_SIDE)
    readable = np.all(able > 0, axis=1)
    labels = label.to_numpy(dtype=str)
    classes = [able[readable & (labels == each)] for each in np.unique(labels[readable])]
    if isinstance(settings.sizes, str):
        return np.tile(_common_size(classes), (len(able), 1))
    pool = np.array([(height, width) for width, height in settings.sizes])
    shares = np.array([[(each >= size).all(axis=1).mean() for each in classes] for size in pool])
    fewest = shares.min(axis=1, initial=1.0)
    # Any other size would show which photos are large, and so perhaps their label.
    pool = pool[fewest >= min(_NEARLY_ALL, fewest.max())]
    rng = np.random.default_rng([settings.seed, 1])
    _, first = np.unique(family, return_index=True)
    drawn = np.tile(pool[0], (len(first), 1))
    for index, largest in enumerate(able[first]):
        fitting = pool[(pool <= largest).all(axis=1)]
        if len(fitting):
            drawn[index] = fitting[rng.integers(len(fitting))]
    return np.asarray(drawn[family])


def _common_size(classes: Sequence[Integers]) -> tuple[int, int]:
    """The largest size (h, w) that nearly all photos of each class can give.

    classes: int [k, 2] each, the largest crop (h, w) of each photo.
    Raises ManifestError: the photos are too small.
    """
    best = (0, 0)
    no_photo = np.zeros(1, dtype=np.int64)
    heights = np.concatenate([able[:, 0] for able in classes] or [no_photo])
    for height in np.unique(np.quantile(heights, np.linspace(0, 1, _HEIGHTS), method="lower")):
        # Photos that are too low can give no width at this height.
        widths = [np.where(able[:, 0] >= height, able[:, 1], 0) for able in classes]
        ends = [np.quantile(each, 1 - _NEARLY_ALL, method="lower") for each in widths]
        width = min(ends, default=0)
        if height * width > best[0] * best[1]:
            best = (int(height), int(width))
    if min(best) < MIN_SIDE:
        raise ManifestError(
            f"More than {1 - _NEARLY_ALL:.0%} of the photos of one label are too small for a crop "
            f"of {MIN_SIDE}x{MIN_SIDE} pixels, after {MAX_OFFSET} are cut off each axis. "
            "Remove those photos, or name sizes"
        )
    return best


# --- The photos, family by family ---


class _Saved(NamedTuple):
    """Where a photo and its mask ("": none) were written, and the SHA-256 of the photo's bytes."""

    file_name: str
    mask_file_name: str
    sha256: str


@dataclass(frozen=True, eq=False)
class _Job:
    """What a worker needs to make any family. skip: leave out what cannot be read."""

    manifest: Manifest
    out: Path
    settings: NeutraliseSettings
    tables: TablePool
    skip: bool
    plan: pd.DataFrame

    def names(self, row: int) -> tuple[str, str]:
        """New names of a photo and its mask: the row's number, for uniqueness, and the old stem."""
        old = PurePosixPath(str(self.manifest.table["file_name"].iat[row])).stem
        stem = f"{row:06d}_" + re.sub(r"[^\w.-]+", "_", old)[:40]
        return f"photos/{stem}.jpg", f"masks/{stem}.png"

    def digest(self) -> str:
        """SHA-256 of all that decides the bytes: rows, photos (by size), settings, tables."""
        names = self.manifest.table["file_name"].tolist()
        content = {
            "rows": self.manifest.digest(),
            "order": names,
            "bytes": [self.manifest.path(name).stat().st_size for name in names],
            "settings": asdict(self.settings),
            "tables": self.tables.entries,
            "sizes": self.plan[["crop_height", "crop_width"]].to_numpy().tolist(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def read(self, row: int) -> tuple[RGB, Mask | None]:
        """A photo and its mask, if it has one. Raises PhotoError, ManifestError."""
        table = self.manifest.table
        path = self.manifest.path(str(table["file_name"].iat[row]))
        rgb = decode(path)
        height, width = rgb.shape[:2]
        header = self.plan[["width", "height"]].to_numpy()[row].tolist()
        if header != [width, height]:
            raise PhotoError(
                f"{path}: {width}x{height} pixels when decoded, but its header says "
                f"{header[0]}x{header[1]}; save it again"
            )
        has_mask = table["mask_file_name"].iat[row] != ""
        return rgb, read_mask(self.manifest, row, (height, width)) if has_mask else None


def _make(job: _Job, family: int) -> int:
    """Writes one family; returns the number of its photos."""
    rows = np.flatnonzero(job.plan["family"] == family).tolist()
    try:
        saved = _save_family(job, family, rows)
        reason = "its mask is outside of the crop that it shares with the photos linked to it"
    except (PhotoError, ManifestError) as error:
        if not job.skip:
            raise
        saved, reason = {}, f"it, or a photo linked to it, is unreadable: {error}"
    dropped = {row: reason for row in rows if row not in saved}
    Parts(job.out, "neutralise").write(family, {"saved": saved, "dropped": dropped})
    return len(saved)


def _save_family(job: _Job, family: int, rows: Sequence[int]) -> dict[int, _Saved]:
    """What was saved, by row; the crop is at the same place in all photos.

    A mask that is cut away completely drops its photo: it would be called edited without a single
    edited pixel.
    """
    photos = {row: job.read(row) for row in rows}
    rng = np.random.default_rng([job.settings.seed, 2, family])
    save = job.tables.draw(rng, earlier=job.settings.history)
    height, width = job.plan[["crop_height", "crop_width"]].to_numpy(dtype=int)[rows[0]].tolist()
    masks = [mask for _, mask in photos.values() if mask is not None and mask.any()]
    crop = _Crop.holding(masks, (height, width), rng)
    saved: dict[int, _Saved] = {}
    for row, (rgb, mask) in photos.items():
        name, mask_name = job.names(row)
        if mask is None:
            mask_name = ""
        elif mask.any() and not save.crop(crop(mask)).any():
            continue
        else:
            save_mask(job.out / mask_name, crop(mask), save)
        data = save_photo(job.out / name, crop(rgb), save)
        saved[row] = _Saved(name, mask_name, hashlib.sha256(data).hexdigest())
    return saved


class _Crop(NamedTuple):
    """What is kept of the photos of a family.

    size: (h, w) in pixels.
    place: (y, x) in 0..1, of the crop within its room. Every crop begins at a multiple of 8 pixels
        plus the writer's offset, so the old JPEG grids of photos of different sizes move alike too.
    """

    size: tuple[int, int]
    place: npt.NDArray[np.float64]

    def __call__(self, pixels: npt.NDArray[Pixel]) -> npt.NDArray[Pixel]:
        """The part [h + 8, w + 8, …] that `save_photo` and `save_mask` expect."""
        height, width = (side + MAX_OFFSET for side in self.size)
        steps = np.subtract(pixels.shape[:2], (height, width)) // MAX_OFFSET
        y, x = MAX_OFFSET * np.minimum((self.place * (steps + 1)).astype(int), steps)
        return pixels[y : y + height, x : x + width]

    @classmethod
    def holding(
        cls, masks: Sequence[Mask], size: tuple[int, int], rng: np.random.Generator
    ) -> _Crop:
        """A random crop. If it does not hold half of what it can hold of each mask, places around
        random pixels of the masks are tried; the best one is taken."""
        best, most = cls(size, rng.random(2)), -1.0
        for attempt in range(_TRIES):
            crop = best
            if attempt:
                mask = masks[int(rng.integers(len(masks)))]
                pixel = np.divmod(rng.choice(np.flatnonzero(mask)), mask.shape[1])
                begin = pixel - rng.random(2) * size - MAX_OFFSET / 2
                room = np.maximum(np.subtract(mask.shape, size) - MAX_OFFSET, 1)
                crop = best._replace(place=np.clip(begin / room, 0, 1))
            shares = [crop(mask).sum() / min(mask.sum(), size[0] * size[1]) for mask in masks]
            held = sum(min(share, _ENOUGH) for share in shares)
            if held > most:
                best, most = crop, held
            if most >= _ENOUGH * len(masks):
                break
        return best


def _new_table(old: pd.DataFrame, saved: Mapping[int, _Saved]) -> pd.DataFrame:
    """The rows that were saved, with their new names; copies get one group."""
    names = {str(old["file_name"].iat[row]): photo.file_name for row, photo in saved.items()}
    group = old["group"].groupby(components(old)).transform("first")
    table = old.assign(group=group).iloc[list(saved)].reset_index(drop=True)
    if "original_file_name" not in table:
        table["original_file_name"] = table["file_name"]
    for column in _Saved._fields:
        table[column] = [getattr(photo, column) for photo in saved.values()]
    table["pair"] = table["pair"].map(names).fillna("")
    return table
