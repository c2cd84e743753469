"""Writes a set of photos anew so that their files no longer tell the classes apart: every photo of both classes passes
through one pipeline, and a photo is drawn its size, crop, quantisation tables and sub-sampling whatever its label.

Photos that hang together (`splits.components`) share their draws, and both halves of a pair are cropped alike, so an
edit differs from its original by the edit only. Photos are cropped, never resized: a resize destroys the traces.

Sizes. A crop limited by each photo's own size would leave the classes' sizes apart; see `framing.SizePool.deal` for
how the sizes are distributed alike in both classes, in the whole set and in each split, as far as the photos go. A
photo's own size still limits what it can give, so within a class the size may tell the source. Training on a part of
the set (one source, one family) needs an audit of that part.

What stays, and no second save can take away:
- The past. A photo that was a JPEG before carries two quantisations, one that was not carries one. `history=True` puts
  one more JPEG save, of tables from the same pool and on another grid, before the last one of every photo: then all
  have a compressed past, though some a longer one. A resize before the set was made shows as ever.
- The content. A crop may cut away the damage of a photo whose row says damaged, or the region of an edit without a
  mask; a mask's region is kept, because the crop is placed on it (on the original alike).
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from realdamage.core.decode import decode
from realdamage.core.progress import Track, available_processors, no_progress
from realdamage.data.framing import Frame, SizePool
from realdamage.data.manifest import METADATA_NAME, Manifest, read_mask, write_manifest
from realdamage.data.neutral_plan import NeutraliseSettings, Plan
from realdamage.data.parts import Parts, in_processes
from realdamage.data.writer import MAX_OFFSET, RGB, Mask, TablePool, save_mask, save_photo
from realdamage.errors import ConfigError, ManifestError, PhotoError, UsageError
from realdamage.files import write_atomically

__all__ = [
    "Dropped",
    "Frame",
    "Member",
    "NeutraliseSettings",
    "Saved",
    "SizePool",
    "Summary",
    "neutralise",
    "neutralise_group",
]

DROPPED_NAME = "dropped.csv"
EXCEPTIONS_NAME = "audit_exceptions.json"
_OUTPUTS = (("photos", "jpg"), ("masks", "png"))


class Dropped(NamedTuple):
    """A photo that is not in the new set, by its name in the old one, and why."""

    file_name: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """What a run made. photos: in the new set; labels: photos of each; sizes: photos of each (width, height); notes:
    what the reader should know, as sentences; seconds: of this run."""

    root: Path
    photos: int
    dropped: tuple[Dropped, ...]
    seconds: float
    labels: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[tuple[int, int], int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Member:
    """A photo of a group, uint8 [h, w, 3], its mask, bool [h, w], if it has one, and the stem of its new name."""

    stem: str
    rgb: RGB
    mask: Mask | None = None


class Saved(NamedTuple):
    """Where a photo and its mask ("" without) were written, relative to the root; sha256 of the photo's bytes."""

    file_name: str
    mask_file_name: str
    sha256: str


def neutralise_group(
    root: Path, members: Sequence[Member], frame: Frame, rng: np.random.Generator
) -> list[Saved | None]:
    """Writes photos that belong together, all cropped and saved as `frame` says; None for those that lost their mask.

    The frame is moved, for all of them, so that it keeps much of every mask (`Frame.holding`). A mask of which nothing
    is left drops its photo, which would be called edited without a single edited pixel. Raises ConfigError: a photo is
    smaller than the frame.
    """
    frame = frame.holding([member.mask for member in members if member.mask is not None], rng)
    saved: list[Saved | None] = []
    for member in members:
        mask_name = ""
        if member.mask is not None:
            mask = frame.crop(member.mask)
            if member.mask.any() and not frame.settings.crop(mask).any():
                saved.append(None)
                continue
            mask_name = f"masks/{member.stem}.png"
            save_mask(root / mask_name, mask, frame.settings)
        name = f"photos/{member.stem}.jpg"
        data = save_photo(root / name, frame.crop(member.rgb), frame.settings)
        saved.append(Saved(name, mask_name, hashlib.sha256(data).hexdigest()))
    return saved


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
    """Writes the photos of `manifest` anew into the folder `out`, with masks, manifest and audit exceptions.

    All columns are kept; file names, pairs, masks and digests follow, `original_file_name` is added (kept if there is
    one), and photos that hung together only by equal bytes get one group. An interrupted run goes on when started
    again; the same photos, settings and seed give the same bytes with any number of workers.

    tables: to draw from, instead of what `settings.quality` says. on_error: "raise" at an unreadable photo or mask
    (what was made is kept), or "skip" it and what hangs together with it. overwrite: removes what an earlier run made
    in `out`, and nothing else. workers: processes; None: one for each processor.

    Raises UsageError: `out` lies in the old set or holds anything else. PhotoError, ManifestError: a photo or mask
    cannot be read, or no photo of a class can give any of the sizes.
    """
    started = time.monotonic()
    settings, out = settings or NeutraliseSettings(), Path(out)
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error={on_error!r}: allowed are raise, skip")
    _check_place(manifest.root, out)
    plan = Plan.of(manifest, out, settings, tables, on_error == "skip", progress)
    parts = Parts(out, "neutralise")
    if overwrite:
        parts.clear((DROPPED_NAME, EXCEPTIONS_NAME))
    files = [
        f"{folder}/{plan.stem(row)}.{ending}"
        for row in range(len(manifest))
        for folder, ending in _OUTPUTS
    ]
    parts.claim(
        plan.digest(),
        {"from": manifest.root, "settings": asdict(settings)},
        files,
        alone=not overwrite,
    )
    todo = [index for index in plan.families() if not parts.path(index).is_file()]
    count = min(workers or available_processors(), max(1, len(todo)))
    for _ in progress(
        in_processes(_start_worker, (plan,), _make, todo, count), len(todo), "groups"
    ):
        pass
    return _finish(plan, parts, time.monotonic() - started, write=bool(todo))


class _Part(NamedTuple):
    """Of a family that was written: what was saved by row, and the reasons by row of what was not."""

    saved: dict[int, Saved]
    dropped: dict[int, str]


def _check_place(root: Path, out: Path) -> None:
    if out.resolve().is_relative_to(root.resolve()):
        raise UsageError(
            f"{out}: lies in the set that is read ({root}). Give a folder outside of it"
        )


_worker_plan: Plan | None = None


def _start_worker(plan: Plan) -> None:
    global _worker_plan
    _worker_plan = plan


def _make(index: int) -> int:
    """Writes one family; returns the number of its photos."""
    plan = _worker_plan
    assert plan is not None  # set by _start_worker in this very process
    rows = np.flatnonzero(plan.family == index)
    try:
        part = _family(plan, index, [int(row) for row in rows])
    except (PhotoError, ManifestError) as error:
        if not plan.skip:
            raise
        part = _Part(
            {},
            {
                int(row): f"it, or a photo it hangs together with, is unreadable: {error}"
                for row in rows
            },
        )
    Parts(plan.out, "neutralise").write(index, part._asdict())
    return len(part.saved)


def _family(plan: Plan, index: int, rows: Sequence[int]) -> _Part:
    members = [_member(plan, row) for row in rows]
    component = int(plan.component[rows[0]])
    size = (int(plan.sizes[index, 0]), int(plan.sizes[index, 1]))
    # What a component shares is drawn from its own number; the place on a mask, which it cannot share, from both.
    common = np.random.default_rng([plan.settings.seed, 2, component])
    frame = Frame.draw(common, size, plan.tables, earlier=plan.settings.history)
    saved = neutralise_group(
        plan.out, members, frame, np.random.default_rng([plan.settings.seed, 3, index])
    )
    lost = "its mask lies outside of the crop that it shares with the photos it hangs together with"
    return _Part(
        {row: photo for row, photo in zip(rows, saved, strict=True) if photo is not None},
        {row: lost for row, photo in zip(rows, saved, strict=True) if photo is None},
    )


def _member(plan: Plan, row: int) -> Member:
    table = plan.manifest.table
    path = plan.manifest.path(str(table["file_name"].iat[row]))
    rgb = decode(path)
    height, width = rgb.shape[:2]
    if (height, width) != tuple(plan.shapes[row]):
        raise PhotoError(
            f"{path}: {width}x{height} pixels when decoded, but its header says "
            f"{plan.shapes[row][1]}x{plan.shapes[row][0]}; save it again"
        )
    mask = (
        read_mask(plan.manifest, row, (height, width)) if table["mask_file_name"].iat[row] else None
    )
    return Member(plan.stem(row), rgb, mask)


def _finish(plan: Plan, parts: Parts, seconds: float, *, write: bool) -> Summary:
    """Gathers the parts; writes the manifest, the list of dropped photos and the exceptions, unless all is there."""
    old = plan.manifest.table
    saved: dict[int, Saved] = {}
    dropped = dict(plan.dropped)
    for index in plan.families():
        part = parts.read(index)
        saved.update({int(row): Saved(*photo) for row, photo in part["saved"].items()})
        dropped.update({int(row): reason for row, reason in part["dropped"].items()})
    if not saved:
        raise ManifestError(
            f"{plan.manifest.root}: no photo is left; {DROPPED_NAME} would name all {len(old)}"
        )
    rows = sorted(saved)
    names = {str(old["file_name"].iat[row]): saved[row].file_name for row in rows}
    # Copies hang together also after their bytes have changed.
    group = old["group"].groupby(plan.component).transform("first")
    table = old.assign(group=group).iloc[rows].reset_index(drop=True)
    if "original_file_name" not in table:
        table["original_file_name"] = table["file_name"]
    table["file_name"] = [saved[row].file_name for row in rows]
    table["mask_file_name"] = [saved[row].mask_file_name for row in rows]
    table["sha256"] = [saved[row].sha256 for row in rows]
    table["pair"] = table["pair"].map(names).fillna("")
    missing = tuple(
        Dropped(str(old["file_name"].iat[row]), dropped[row]) for row in sorted(dropped)
    )
    if write or not (plan.out / METADATA_NAME).is_file():
        if missing:
            listed = pd.DataFrame(missing).to_csv(index=False, lineterminator="\n")
            write_atomically(plan.out / DROPPED_NAME, listed.encode())
        exceptions = plan.manifest.root / EXCEPTIONS_NAME
        if exceptions.is_file():
            write_atomically(plan.out / EXCEPTIONS_NAME, exceptions.read_bytes())
        write_manifest(plan.out, table)
    kept = plan.sizes[plan.family[rows]]
    sizes = Counter((int(width), int(height)) for height, width in kept)
    unmarked = (
        table["kind"].isin(("ai_region", "pasted")) & (table["mask_file_name"] == "")
    ).to_numpy()
    cut = int(
        np.asarray(kept[unmarked] + MAX_OFFSET < plan.shapes[rows][unmarked]).any(axis=1).sum()
    )
    notes = plan.notes
    if cut:
        notes += (
            f"{cut} cropped region edits have no mask: their region may lie outside of the crop.",
        )
    labels = dict(sorted(Counter(table["label"]).items()))
    return Summary(plan.out, len(rows), missing, seconds, labels, dict(sizes.most_common()), notes)
