"""Runs a recipe: from source photos to a folder with a manifest, resumable, seeded, in parallel.

A recipe works group by group (one product, one scene). Each group's photos depend on (seed, group number) alone and are
recorded as one part file when they are all written, so an interrupted run goes on where it stopped and any number of
workers gives the same set.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from realdamage.core.progress import Track, available_processors, no_progress
from realdamage.data.manifest import read_manifest, write_manifest
from realdamage.data.neutralise import (
    DROPPED_NAME,
    EXCEPTIONS_NAME,
    NeutraliseSettings,
    SizePool,
    neutralise,
)
from realdamage.data.parts import FOLDER, Parts, in_processes
from realdamage.data.splits import assign_splits, with_split_table
from realdamage.data.writer import TablePool
from realdamage.files import write_atomically
from realdamage.synthesis.bases import drawn_damages, recipe_bases
from realdamage.synthesis.diffusion import rank_and_world
from realdamage.synthesis.generators import load_generators
from realdamage.synthesis.group import DERIVED, Base, GroupMaker, group_files, group_photos
from realdamage.synthesis.settings import Recipe

log = logging.getLogger(__name__)

MAKER = "synthesize"
OWN_PART = "photos"
"""What the column `part` says of the photos that the recipe made itself, where others are included."""


@dataclass(frozen=True)
class Summary:
    """What a run made: counts of photos in all and made now, and the speed in photos a second."""

    root: Path
    photos: int
    made: int
    seconds: float

    @property
    def photos_per_second(self) -> float:
        return self.made / max(self.seconds, 1e-9)


def synthesize(
    recipe: Recipe, root: str | Path, *, overwrite: bool = False, progress: Track = no_progress
) -> Summary:
    """Makes the set in `root` and writes its metadata.csv last, so that a folder with a manifest is a finished one.

    overwrite: removes what a recipe made in `root` first, and nothing else. Under `torchrun` each process makes its
    share of the groups, and the last one to finish writes the manifest. Raises UsageError: the folder holds another
    recipe's photos, or anything else. SynthesisError: a source photo or a generator cannot be loaded. RealDamageError:
    a worker died.
    """
    root = Path(root)
    started = time.monotonic()
    bases = recipe_bases(recipe)
    if overwrite:
        clear(root)
    parts = _claim(root, recipe, bases, alone=not overwrite)
    rank, world = rank_and_world()
    todo = [index for index in parts.todo(len(bases)) if index % world == rank]
    workers = 1 if world > 1 else recipe.workers or available_processors()
    if any(each.engine != "codec" for each in recipe.generators):
        workers = 1  # a diffusion model fills the machine, or its GPU, by itself
    job = _Job(recipe, root, bases, threads=1 if workers > 1 else None)
    done = in_processes(_start_worker, (job,), _make, todo, min(workers, len(todo)))
    try:
        made = sum(progress(done, len(todo), "groups"))
    except BaseException:
        if world == 1 and len(parts.todo(len(bases))) == len(bases):
            clear(
                root
            )  # no group was finished, so there is nothing to keep that another recipe must not mix with
        raise
    if missing := len(parts.todo(len(bases))):
        log.info(
            "%s groups are still being made by other processes; the last one writes the manifest",
            missing,
        )
        return Summary(root, 0, made, time.monotonic() - started)
    rows: list[dict[str, str]] = []
    for index in range(len(bases)):
        rows.extend(parts.read(index))
    table = pd.DataFrame(rows).fillna("")
    if not (
        table["split"] != ""
    ).any():  # else the source's own splits hold, for what is made of its photos too
        table["split"] = assign_splits(table, recipe.fractions, recipe.seed)
    if recipe.include:
        table = pd.concat(
            [table.assign(part=OWN_PART), *_included(recipe, root, table, progress)]
        ).fillna("")
        exceptions = [
            {"part": each.name, "test": test, "reason": reason}
            for each in recipe.include
            for test, reason in each.exceptions.items()
        ]
        write_atomically(root / EXCEPTIONS_NAME, json.dumps(exceptions, indent=2).encode())
    write_manifest(root, table)
    return Summary(root, len(table), made, time.monotonic() - started)


def _included(
    recipe: Recipe, root: Path, table: pd.DataFrame, progress: Track
) -> Iterator[pd.DataFrame]:
    """Brings each included set into a folder of its own, saved as the others are, in their sizes; yields its rows."""
    sizes: list[tuple[int, int]] = []
    for name in table.loc[table["pair"] == "", "file_name"]:
        with Image.open(root / name) as image:
            sizes.append((image.height, image.width))
    used = {Path(base.path).resolve() for base in recipe_bases(recipe) if base.path}
    for each in recipe.include:
        manifest = read_manifest(str(each.root))
        if each.splits:
            manifest = with_split_table(manifest, each.splits)
        kept = [manifest.path(name).resolve() not in used for name in manifest.table["file_name"]]
        manifest = manifest.subset(pd.Series(kept, manifest.table.index))
        found = manifest.table
        if not (found["split"] != "").any():
            manifest = replace(
                manifest,
                table=found.assign(split=assign_splits(found, each.fractions, recipe.seed)),
            )
        settings = NeutraliseSettings(
            quality=recipe.writer.quality, sizes=SizePool(tuple(sizes)), seed=recipe.seed
        )
        tables = None if recipe.writer.quality else _tables(recipe)
        neutralise(
            manifest,
            root / each.name,
            settings,
            tables=tables,
            workers=recipe.workers,
            progress=progress,
        )
        rows = read_manifest(root / each.name).table
        # An edit outside of the crop leaves a photo that is its original to the last byte.
        unedited = (rows["label"] == "synthetic") & rows["sha256"].isin(
            rows.loc[rows["label"] == "real", "sha256"]
        )
        rows = rows[~unedited].copy()
        for column in ("file_name", "pair", "mask_file_name"):
            rows[column] = rows[column].where(rows[column] == "", each.name + "/" + rows[column])
        # Groups of two sets may bear the same name, and are not the same.
        yield rows.assign(part=each.name, group=each.name + "/" + rows["group"])


@dataclass(frozen=True)
class _Job:
    """What a worker needs to make any group; `bases` holds the source photos of each; `threads`: of torch."""

    recipe: Recipe
    root: Path
    bases: Sequence[Base]
    threads: int | None


_worker_job: _Job | None = None


def _start_worker(job: _Job) -> None:
    global _worker_job
    import torch

    if job.threads:
        torch.set_num_threads(
            job.threads
        )  # groups run side by side; threads inside them would get in each other's way
    _worker_job = job
    _maker.cache_clear()


@cache
def _maker() -> GroupMaker:
    assert _worker_job is not None  # set by _start_worker in this very process
    recipe = _worker_job.recipe
    return GroupMaker(
        load_generators(recipe.generators, recipe.prompts),
        _tables(recipe) if recipe.writer.quality else _tables(recipe, _worker_job.bases),
        drawn_damages(recipe, _worker_job.bases),
        overlay_share=recipe.overlay_share,
        max_side=recipe.source.max_side,
        crop=recipe.source.crop,
    )


def _tables(recipe: Recipe, bases: Sequence[Base] = ()) -> TablePool:
    if recipe.writer.quality:
        return TablePool.of_qualities(*recipe.writer.quality)
    return TablePool.of_photos(
        [Path(base.path) for base in bases or recipe_bases(recipe) if base.path]
    )


def _make(index: int) -> int:
    job = _worker_job
    assert job is not None  # set by _start_worker in this very process
    rng = np.random.default_rng([job.recipe.seed, index])
    rows = group_photos(_maker(), job.bases[index], index, job.root, rng)
    _parts(job.root).write(index, rows)
    return len(rows)


def _parts(root: Path) -> Parts:
    return Parts(root, MAKER, "overwrite=true")


def _included_parts(root: Path, name: str) -> Parts:
    return Parts(root / name, "neutralise", "overwrite=true")


def _claim(root: Path, recipe: Recipe, bases: Sequence[Base], *, alone: bool) -> Parts:
    """Marks the folder as this recipe's over these source photos, so that two sets never mix in one folder."""
    parts = _parts(root)
    digest = hashlib.sha256(f"{recipe.digest()}\n{bases!r}".encode()).hexdigest()
    files = [name for index, base in enumerate(bases) for name in group_files(base, index)]
    earlier = _earlier_mark(parts)
    if earlier is not None:
        parts.compare(earlier["digest"], digest)
    about = {"name": recipe.name, "recipe": asdict(recipe)}
    parts.claim(digest, about, files, alone=alone and earlier is None)
    for each in recipe.include:
        _included_parts(root, each.name).refuse_others()  # now, not when all else has been made
    return parts


def clear(root: str | Path) -> None:
    """Removes what a recipe made in `root`, and nothing else. Raises UsageError when it holds something, but no
    recipe's set."""
    root = Path(root)
    parts = _parts(root)
    if (earlier := _earlier_mark(parts)) is not None:
        _adopt(parts, earlier)
    recipe = (parts.mark() or {}).get("recipe", {})
    for name in [each["name"] for each in recipe.get("include") or ()]:
        included = _included_parts(root, name)
        if included.mark() is not None:
            included.clear((DROPPED_NAME, EXCEPTIONS_NAME))
        if included.root.is_dir() and not any(included.root.iterdir()):
            included.root.rmdir()
    parts.clear((EXCEPTIONS_NAME,))


def _earlier_mark(parts: Parts) -> dict[str, Any] | None:
    """The mark of a set that was begun before marks listed the files; None where there is none, or a newer one."""
    path = parts.root / FOLDER / "recipe.json"
    if parts.mark() is not None or not path.is_file():
        return None
    mark: dict[str, Any] = json.loads(path.read_text())
    return mark


_MADE = re.compile(rf"\d{{6,}}_(original|damaged|{'|'.join(DERIVED)})(_\d+)?\.(jpg|png)")


def _adopt(parts: Parts, earlier: Mapping[str, Any]) -> None:
    """Gives an earlier set a mark of today: its files are those that bear the names that a recipe gives."""
    found = [
        path for folder in ("photos", "masks") for path in sorted((parts.root / folder).glob("*"))
    ]
    files = [
        path.relative_to(parts.root).as_posix() for path in found if _MADE.fullmatch(path.name)
    ]
    parts.claim(
        earlier["digest"],
        {"name": earlier["name"], "recipe": earlier["recipe"]},
        files,
        alone=False,
    )
