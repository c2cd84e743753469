"""Saves a set of photos again so that their files no longer give the classes away.

All photos get one size, and the writer draws crop offset, quantisation tables and sub-sampling
whatever the label. Photos linked by a pair or by equal bytes (a family) share their draws, so an
edit differs from its original by the edit only. Photos are cropped, never resized: a resize
destroys the traces. A crop may cut away what a row says is there, but not the region of a mask.

What a second save cannot remove: a photo that was a JPEG before has two quantisations, another has
one, and an earlier resize still shows.
"""

from __future__ import annotations

import hashlib
import json
import re
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
from realdamage.data.writer import MAX_OFFSET, Mask, Pixel, TablePool, save_mask, save_photo
from realdamage.errors import ConfigError, ManifestError, UsageError
from realdamage.files import write_atomically

DROPPED_NAME = "dropped.csv"
NO_JPEG_QUALITY = (85, 97)
"""JPEG qualities to draw from when no real photo is a JPEG whose tables could be used."""

_NEARLY_ALL = 0.95  # share of each label's photos that can give a size
_HEIGHTS = 256  # this many heights are tried for the common size
_TRIES = 48  # places for a crop around the masks
_ENOUGH = 0.5  # share of what a crop could hold of a mask
_OUTSIDE = "its mask is outside of the crop that it shares with the photos linked to it"
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NeutraliseSettings:
    """How a set is saved again.

    quality: range of JPEG qualities to draw from. None: the tables and sub-samplings of the set's
        real JPEG photos.
    sizes: (width, height) to crop to: each family draws one of those that nearly all photos of both
        labels can give, or that most can. Photos that can give none are dropped. Empty: the largest
        size that nearly all photos of both labels can give.
    """

    quality: tuple[int, int] | None = None
    sizes: Sequence[tuple[int, int]] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for width, height in self.sizes:
            if min(width, height) < MIN_SIDE:
                raise ConfigError(
                    f"size {width}x{height}: each side must have at least {MIN_SIDE} pixels"
                )


class Summary(NamedTuple):
    """The new set, and what to tell the user.

    dropped: why a photo is not in the new set, by its old name. sizes: photos of each (width,
    height).
    """

    manifest: Manifest
    dropped: Mapping[str, str]
    sizes: Mapping[tuple[int, int], int]
    notes: Sequence[str]


def neutralise(
    manifest: Manifest,
    out: str | Path,
    settings: NeutraliseSettings = NeutraliseSettings(),
    *,
    tables: TablePool | None = None,
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
    overwrite: removes what an earlier run made in `out`, and nothing else.
    Raises UsageError: `out` is inside the old set or has other files. PhotoError, ManifestError: a
    photo or mask cannot be read, or no photo of a label can give any of the sizes.
    """
    out = Path(out)
    if out.resolve().is_relative_to(manifest.root.resolve()):
        raise UsageError(
            f"{out}: is inside the set that is read ({manifest.root}). Give a folder outside of it",
            code="inside_source",
        )
    plan = _planned(manifest, settings, progress)
    notes: list[str] = []
    if tables is None:
        tables = _tables(manifest, plan, settings, notes)
    job = _Job(manifest, out, settings, tables, plan)
    parts = Parts(out, "neutralise")
    if overwrite:
        parts.clear((DROPPED_NAME, EXCEPTIONS_NAME))
    files = [name for row in range(len(plan)) for name in job.names(row)]
    about = {"from": manifest.root, "settings": asdict(settings)}
    parts.claim(job.digest(), about, files, alone=not overwrite)
    families = sorted(set(plan["family"][plan["reason"] == ""].tolist()))
    todo = [index for index in families if not parts.path(index).is_file()]
    count = min(workers or available_processors(), max(1, len(todo)))
    for _ in progress(for_each(_make, job, todo, count), len(todo), "groups"):
        pass
    saved = {int(r): files for part in map(parts.read, families) for r, files in part.items()}
    if not saved:
        raise ManifestError(f"{manifest.root}: all {len(plan)} photos would be dropped")
    table = _new_table(manifest.table, dict(sorted(saved.items())))
    plan.loc[(plan["reason"] == "") & ~plan.index.isin(list(saved)), "reason"] = _OUTSIDE
    dropped = manifest.table[["file_name"]].assign(reason=plan["reason"])
    dropped = dropped[dropped["reason"] != ""]
    if todo or not (out / METADATA_NAME).is_file():
        if len(dropped):
            listed = dropped.to_csv(index=False, lineterminator="\n")
            write_atomically(out / DROPPED_NAME, listed.encode())
        exceptions = manifest.root / EXCEPTIONS_NAME
        if exceptions.is_file():
            write_atomically(out / EXCEPTIONS_NAME, exceptions.read_bytes())
        write_manifest(out, table)
    crops = plan.loc[list(saved), ["crop_width", "crop_height"]].itertuples(index=False, name=None)
    sizes = Counter((int(width), int(height)) for width, height in crops)
    reasons = dict(dropped.itertuples(index=False, name=None))
    return Summary(Manifest(out, table), reasons, dict(sizes.most_common()), notes)


# --- The plan: what concerns the whole set, decided before any photo is decoded ---


def _planned(manifest: Manifest, settings: NeutraliseSettings, progress: Track) -> pd.DataFrame:
    """For each row: width, height (of the upright photo), format, family (a number, equal for
    photos linked by a pair or by equal bytes), crop_height, crop_width, reason ("": it is kept)."""
    table = manifest.table
    names = progress(table["file_name"], len(table), "sizes")
    headers = [container_facts(manifest.path(name)) for name in names]
    plan = pd.DataFrame([facts["upright"] for facts in headers], columns=["width", "height"])
    plan = plan.assign(format=[facts["format"] for facts in headers], reason="")
    plan["family"] = components(table.assign(group=""))
    # A photo can give no more than those that it is linked to.
    able = plan.groupby("family")[["height", "width"]].transform("min").to_numpy() - MAX_OFFSET
    crop = _sizes(able, plan["family"].to_numpy(), table["label"], settings)
    plan[["crop_height", "crop_width"]] = crop
    shape = plan[["height", "width"]].to_numpy()
    for row in np.flatnonzero(np.any(shape < crop + MAX_OFFSET, axis=1)):
        found, needed = (f"{x}x{y}" for y, x in (shape[row], crop[row] + MAX_OFFSET))
        plan.loc[row, "reason"] = f"too small: {found} pixels, {needed} are needed with the offset"
    too_small = table["file_name"].where(plan["reason"] != "")
    culprit = too_small.groupby(plan["family"]).transform("first")
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
    if pool := TablePool.of_photos(paths):
        return pool
    notes.append(
        f"No real photo is a JPEG whose tables could be used: qualities {NO_JPEG_QUALITY[0]}-"
        f"{NO_JPEG_QUALITY[1]} are used instead; choose others with --quality."
    )
    return TablePool.of_qualities(*NO_JPEG_QUALITY)


def _sizes(
    able: Integers, family: Integers, label: pd.Series, settings: NeutraliseSettings
) -> Integers:
    """The size of each photo's crop, int [n, 2] (h, w).

    able: int [n, 2], the largest crop that a photo and those linked to it can give.
    """
    labels = label.to_numpy(dtype=str)
    classes = [able[labels == each] for each in np.unique(labels)]
    wanted = [(height, width) for width, height in settings.sizes]
    pool = np.array(wanted or [_common_size(classes)])
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
    heights = np.concatenate([able[:, 0] for able in classes])
    for height in np.unique(np.quantile(heights, np.linspace(0, 1, _HEIGHTS), method="lower")):
        # Photos that are too low can give no width at this height.
        widths = [np.where(able[:, 0] >= height, able[:, 1], 0) for able in classes]
        ends = [np.quantile(each, 1 - _NEARLY_ALL, method="lower") for each in widths]
        width = min(ends)
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


@dataclass(frozen=True, eq=False)
class _Job:
    """What a worker needs to make any family."""

    manifest: Manifest
    out: Path
    settings: NeutraliseSettings
    tables: TablePool
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


def _make(job: _Job, family: int) -> None:
    """Writes one family: what was saved, by row; the crop is at the same place in all photos.

    A mask that is cut away completely drops its photo: it would be called edited without a single
    edited pixel.
    """
    table = job.manifest.table
    rows = np.flatnonzero(job.plan["family"] == family).tolist()
    photos = {row: decode(job.manifest.path(str(table["file_name"].iat[row]))) for row in rows}
    masks = {
        row: read_mask(job.manifest, row, rgb.shape[:2])
        for row, rgb in photos.items()
        if table["mask_file_name"].iat[row]
    }
    rng = np.random.default_rng([job.settings.seed, 2, family])
    save = job.tables.draw(rng)
    height, width = job.plan[["crop_height", "crop_width"]].to_numpy(dtype=int)[rows[0]].tolist()
    crop = _Crop.holding([mask for mask in masks.values() if mask.any()], (height, width), rng)
    saved: dict[int, tuple[str, str, str]] = {}
    for row, rgb in photos.items():
        name, mask_name = job.names(row)
        mask = masks.get(row)
        if mask is None:
            mask_name = ""
        elif mask.any() and not save.crop(crop(mask)).any():
            continue
        else:
            save_mask(job.out / mask_name, crop(mask), save)
        data = save_photo(job.out / name, crop(rgb), save)
        saved[row] = (name, mask_name, hashlib.sha256(data).hexdigest())
    Parts(job.out, "neutralise").write(family, saved)


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


def _new_table(old: pd.DataFrame, saved: Mapping[int, Sequence[str]]) -> pd.DataFrame:
    """The rows that were saved, with their new names; copies get one group.

    saved: file_name, mask_file_name and sha256 by row.
    """
    names = {str(old["file_name"].iat[row]): new for row, (new, *_) in saved.items()}
    group = old["group"].groupby(components(old)).transform("first")
    table = old.assign(group=group).iloc[list(saved)].reset_index(drop=True)
    if "original_file_name" not in table:
        table["original_file_name"] = table["file_name"]
    table[["file_name", "mask_file_name", "sha256"]] = list(saved.values())
    table["pair"] = table["pair"].map(names).fillna("")
    return table
