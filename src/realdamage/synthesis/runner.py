"""Runs a recipe: from real photos to a folder with a manifest, resumable, seeded, in parallel.

A recipe works group by group: a real photo and what is derived from it, saved in the same way. Each
group's photos depend on (seed, group number) alone and are recorded as one part file when they are
all written, so an interrupted run continues where it stopped and any number of workers gives the
same set.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image

from realdamage.core.decode import decode
from realdamage.core.progress import Track, available_processors, no_progress
from realdamage.core.tiles import PixelSpec, limit_side
from realdamage.data.manifest import EXCEPTIONS_NAME, METADATA_NAME, read_manifest, write_manifest
from realdamage.data.neutralise import DROPPED_NAME, NeutraliseSettings, neutralise
from realdamage.data.parts import Parts, for_each, keep_job, with_job
from realdamage.data.splits import assign_splits, with_split_table
from realdamage.data.writer import TablePool, save_mask, save_photo
from realdamage.errors import PhotoError, RealDamageError, SynthesisError, UsageError
from realdamage.files import write_atomically
from realdamage.synthesis.annotate import ANNOTATIONS, annotated
from realdamage.synthesis.engine import RGB, Mask, engine_class
from realdamage.synthesis.paint import Paint
from realdamage.synthesis.recipe import DERIVED, Base, Recipe, drawn_damages, recipe_bases

OWN_PART = "photos"
"""What the column `part` says of the photos that the recipe made itself, if others are included."""
VISIBLE = 2
"""Grey levels that paint must change a pixel by to count as painted: nobody could see less."""

OVERLAYS = tuple(kind for kind in ANNOTATIONS if kind != "tone")
"""What is put on edits. Not the tone: it changes every pixel, so the mask would be lost."""

Row = dict[str, str]


@dataclass(frozen=True)
class Summary:
    """What a run made: photos in all, and made now, in how many seconds."""

    root: Path
    photos: int
    made: int
    seconds: float

    @property
    def photos_per_second(self) -> float:
        return self.made / max(self.seconds, 1e-9)


def synthesize(
    recipe: Recipe,
    root: str | Path,
    prompts: Mapping[str, Any],
    *,
    overwrite: bool = False,
    runner: Literal["local", "ray"] = "local",
    progress: Track = no_progress,
) -> Summary:
    """Makes the set in `root` and writes its metadata.csv last, so that a folder with a manifest is
    a finished one.

    prompts: the configuration's `prompts`, for the engines that use them.
    overwrite: first removes what a recipe made in `root`, and nothing else.
    runner: "ray" makes the groups on the cluster in RAY_ADDRESS, else on one of this machine. All
        its machines must have `root` and the source photos under the same paths.
    Raises UsageError: the folder holds another recipe's photos, or anything else. SynthesisError: a
    source photo or a generator cannot be loaded. RealDamageError: a worker died, or the machines of
    a cluster do not share `root`. MissingExtraError: without ray.
    """
    if runner not in ("local", "ray"):
        raise UsageError(f"runner={runner!r} is unknown; use 'local' or 'ray'")
    root = Path(root)
    started = time.monotonic()
    recipe.check()
    bases = recipe_bases(recipe)
    if overwrite:
        clear(root)
    parts = _claim(root, recipe, prompts, bases, alone=not overwrite)
    todo = parts.todo(len(bases))
    if not todo and (root / METADATA_NAME).is_file():
        return Summary(root, len(read_manifest(root)), 0, time.monotonic() - started)
    fills_machine = any(engine_class(e.engine).fills_machine for e in recipe.loadable().values())
    if runner == "ray":
        from realdamage.scale.cluster import in_actors

        job = _Job(recipe, root, prompts, bases, threads=None if fills_machine else 1)
        make = partial(with_job, _make)
        done = in_actors(keep_job, (job,), make, todo, most=recipe.workers, gpu=fills_machine)
    else:
        workers = 1 if fills_machine else recipe.workers or available_processors()
        job = _Job(recipe, root, prompts, bases, threads=1 if workers > 1 else None)
        done = for_each(_make, job, todo, min(workers, len(todo)))
    try:
        made = sum(progress(done, len(todo), "groups"))
    except BaseException:
        # With no group finished there is nothing to keep, so another recipe may have the folder.
        # (A worker on Ray may still be writing.)
        if runner == "local" and len(parts.todo(len(bases))) == len(bases):
            clear(root)
        raise
    missing = len(parts.todo(len(bases)))
    if missing:
        raise RealDamageError(
            f"{root}: {missing} groups were made elsewhere. All machines of the Ray cluster must "
            "have this folder under the same path",
            code="folder_not_shared",
        )
    for unfinished in root.rglob(".*.tmp"):  # of a worker that was killed while it wrote
        unfinished.unlink(missing_ok=True)
    table = pd.DataFrame([row for index in range(len(bases)) for row in parts.read(index)])
    table = table.fillna("")
    if not (table["split"] != "").any():  # else the splits of the source photos hold
        table["split"] = assign_splits(table, recipe.fractions, recipe.seed)
    if recipe.included():
        own = table.assign(part=OWN_PART)
        table = pd.concat([own, *_included(recipe, root, table, progress)]).fillna("")
        exceptions = [
            {"part": name, "test": test, "reason": reason}
            for name, each in recipe.included().items()
            for test, reason in each.exceptions.items()
        ]
        write_atomically(root / EXCEPTIONS_NAME, json.dumps(exceptions, indent=2).encode())
    write_manifest(root, table)
    return Summary(root, len(table), made, time.monotonic() - started)


def clear(root: str | Path) -> None:
    """Removes what a recipe made in `root`, and nothing else. Raises UsageError if it holds
    something, but no recipe's set."""
    parts = _parts(Path(root))
    for name in (parts.mark() or {}).get("recipe", {}).get("include", {}):
        included = _included_parts(parts.root, name)
        if included.mark() is not None:
            included.clear((DROPPED_NAME, EXCEPTIONS_NAME))
        if included.root.is_dir() and not any(included.root.iterdir()):
            included.root.rmdir()
    parts.clear((EXCEPTIONS_NAME,))


def _parts(root: Path) -> Parts:
    return Parts(root, "synthesize", "overwrite=true")


def _included_parts(root: Path, name: str) -> Parts:
    return Parts(root / name, "neutralise", "overwrite=true")


def _claim(
    root: Path, recipe: Recipe, prompts: Mapping[str, Any], bases: Sequence[Base], *, alone: bool
) -> Parts:
    """Marks the folder as this recipe's over these source photos, so that two sets never mix in one
    folder."""
    parts = _parts(root)
    digest = hashlib.sha256(f"{recipe.digest(prompts)}\n{bases!r}".encode()).hexdigest()
    files = [name for index, base in enumerate(bases) for name in _group_files(base, index)]
    parts.claim(digest, {"name": recipe.name, "recipe": asdict(recipe)}, files, alone=alone)
    for name in recipe.included():
        _included_parts(root, name).refuse_others()  # now, not when all else has been made
    return parts


def _included(
    recipe: Recipe, root: Path, table: pd.DataFrame, progress: Track
) -> Iterator[pd.DataFrame]:
    """Saves each included set in a folder of its own, as the others are saved, in their sizes;
    yields its rows."""
    sizes: list[tuple[int, int]] = []
    for name in table.loc[table["pair"] == "", "file_name"]:
        with Image.open(root / name) as image:
            sizes.append(image.size)
    quality = recipe.writer.quality
    settings = NeutraliseSettings(
        quality=(quality[0], quality[1]) if quality else None, sizes=sizes, seed=recipe.seed
    )
    bases = recipe_bases(recipe)
    tables = None if quality else _tables(recipe, bases)
    used = {Path(base.path).resolve() for base in bases}
    for name, each in recipe.included().items():
        manifest = read_manifest(str(each.root))
        if each.splits:
            manifest = with_split_table(manifest, each.splits)
        kept = [manifest.path(file).resolve() not in used for file in manifest.table["file_name"]]
        manifest = manifest.subset(pd.Series(kept, manifest.table.index))
        found = manifest.table
        if not (found["split"] != "").any():
            splits = assign_splits(found, each.fractions, recipe.seed)
            manifest = replace(manifest, table=found.assign(split=splits))
        neutralise(
            manifest,
            root / name,
            settings,
            tables=tables,
            workers=recipe.workers,
            progress=progress,
        )
        rows = read_manifest(root / name).table
        # An edit outside of the crop leaves a photo that is its original to the last byte.
        real = rows.loc[rows["label"] == "real", "sha256"]
        rows = rows[~((rows["label"] == "synthetic") & rows["sha256"].isin(real))].copy()
        for column in ("file_name", "pair", "mask_file_name"):
            rows[column] = rows[column].where(rows[column] == "", f"{name}/" + rows[column])
        # Groups of two sets may have the same name without being the same.
        yield rows.assign(part=name, group=f"{name}/" + rows["group"])


@dataclass(frozen=True)
class _Job:
    """What a worker needs to make any group. threads: of torch; None: all."""

    recipe: Recipe
    root: Path
    prompts: Mapping[str, Any]
    bases: Sequence[Base]
    threads: int | None

    @cached_property
    def maker(self) -> GroupMaker:
        """Loaded once in each process."""
        if self.threads:  # groups run in parallel, so threads inside them would only compete
            import torch

            torch.set_num_threads(self.threads)
        return GroupMaker(self.recipe, self.prompts, self.bases)


def _tables(recipe: Recipe, bases: Sequence[Base]) -> TablePool:
    if recipe.writer.quality:
        return TablePool.of_qualities(*recipe.writer.quality)
    if pool := TablePool.of_photos([Path(base.path) for base in bases]):
        return pool
    raise SynthesisError(
        "recipe.writer.quality is null, but no source photo is a JPEG; give a range such as "
        "[75, 95]"
    )


def _make(job: _Job, index: int) -> int:
    parts = _parts(job.root)
    if parts.path(index).is_file():  # by a worker that was lost before it could say so
        return len(parts.read(index))
    rng = np.random.default_rng([job.recipe.seed, index])
    rows = job.maker.group(job.bases[index], index, job.root, rng)
    parts.write(index, rows)
    return len(rows)


@dataclass(frozen=True)
class _Photo:
    """A photo of a group before it is saved; `mask` is None if it stays real; `columns`: of the
    manifest."""

    kind: str
    rgb: RGB
    mask: Mask | None
    columns: Mapping[str, str]


class GroupMaker:
    """Makes groups. Loads the engines of the recipe."""

    def __init__(self, recipe: Recipe, prompts: Mapping[str, Any], bases: Sequence[Base]) -> None:
        self.recipe, self.pool = recipe, _tables(recipe, bases)
        self.engines = {
            name: engine_class(each.engine)(name, each, prompts)
            for name, each in recipe.loadable().items()
        }
        self.damages = drawn_damages(recipe, bases)
        self.paint = Paint(self.damages)

    def group(self, base: Base, index: int, root: Path, rng: np.random.Generator) -> list[Row]:
        """Makes and saves a group's photos and masks; returns their manifest rows, the base first.
        Raises SynthesisError: the source photo cannot be read."""
        rgb = self._base(base, rng)
        settings = self.pool.draw(rng)
        kind = "damaged" if base.condition == "damaged" else "original"
        made = dict.fromkeys((*DERIVED, kind), 0)
        rows: list[Row] = []
        for photo in self._photos(base, kind, rgb, rng):
            made[photo.kind] += 1
            stem = _stem(index, photo.kind, made[photo.kind])
            name, mask_name = f"photos/{stem}.jpg", ""
            data = save_photo(root / name, photo.rgb, settings)
            if photo.mask is not None:
                mask_name = f"masks/{stem}.png"
                save_mask(root / mask_name, photo.mask, settings)
            rows.append(
                {
                    "file_name": name,
                    "label": "synthetic" if photo.mask is not None else "real",
                    "kind": photo.kind,
                    "condition": base.condition,
                    "damage": "",
                    "generator": "",
                    "family": "",
                    "source": base.source,
                    "group": base.group or f"{base.source}/{index:06d}",
                    "pair": rows[0]["file_name"] if rows else "",
                    "mask_file_name": mask_name,
                    "split": base.split,
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "licence": base.licence,
                    **photo.columns,
                }
            )
        return rows

    def _base(self, base: Base, rng: np.random.Generator) -> RGB:
        """The real photo, uint8 [h, w, 3]."""
        source = self.recipe.source
        try:
            rgb = limit_side(decode(base.path), PixelSpec(max_side=source.max_side))
        except PhotoError as error:
            raise SynthesisError(
                f"a source photo cannot be read: {error}", code="unreadable_photo"
            ) from error
        if source.crop is None or max(rgb.shape[:2]) <= source.crop:
            return rgb
        y, x = (int(rng.integers(max(0, side - source.crop) + 1)) for side in rgb.shape[:2])
        return rgb[y : y + source.crop, x : x + source.crop]

    def _photos(
        self, base: Base, kind: str, rgb: RGB, rng: np.random.Generator
    ) -> Iterator[_Photo]:
        """The base itself, then the derived photos, as many of each kind as is drawn."""
        shown = {"damage": base.damage}
        yield _Photo(kind, rgb, None, shown)
        for derived in DERIVED:
            share = base.shares.get(derived, 0.0)
            # A whole number with the mean `share`: the two nearest ones only.
            for _ in range(int(share) + int(rng.random() < share % 1.0)):
                if derived == "annotated":
                    yield _Photo(derived, annotated(rgb, rng).rgb, None, shown)
                elif derived == "pasted":
                    yield from self._pasted(rgb, rng)
                else:
                    yield self._overlaid(self._edited(base, derived, rgb, rng), rng)

    def _pasted(self, rgb: RGB, rng: np.random.Generator) -> Iterator[_Photo]:
        """The painted photo, or nothing if nobody could see the paint."""
        edit = self.paint.apply(rgb, rng)
        visible = np.abs(edit.rgb.astype(np.int16) - rgb).max(axis=2) > VISIBLE
        if visible.any():
            columns = {"damage": edit.damage, "generator": "paint"}
            yield self._overlaid(_Photo("pasted", edit.rgb, visible, columns), rng)

    def _edited(self, base: Base, kind: str, rgb: RGB, rng: np.random.Generator) -> _Photo:
        able = [name for name, engine in self.engines.items() if kind in engine.kinds]
        name = able[int(rng.integers(len(able)))]
        damage = str(rng.choice(self.damages)) if rng.random() < base.paint_share else ""
        edit = self.engines[name].apply(rgb, kind, damage, rng)
        settings = self.recipe.loadable()[name]
        columns = {"damage": damage or base.damage, "generator": name, "family": settings.family}
        return _Photo(kind, edit.rgb, edit.mask, {**columns, **edit.details})

    def _overlaid(self, photo: _Photo, rng: np.random.Generator) -> _Photo:
        """The edit, perhaps with honest annotations on top, since these must not mean "real"."""
        if rng.random() >= self.recipe.overlay_share or photo.mask is None:
            return photo
        overlay = annotated(photo.rgb, rng, OVERLAYS)
        left = photo.mask & ~overlay.mask
        return replace(photo, rgb=overlay.rgb, mask=left) if left.any() else photo


def _group_files(base: Base, index: int) -> list[str]:
    """All photos and masks that a group may have, whatever is drawn, relative to the set's
    folder."""
    most = {"original": 1, "damaged": 1}
    most |= {kind: math.ceil(base.shares.get(kind, 0.0)) for kind in DERIVED}
    stems = [_stem(index, kind, made + 1) for kind, count in most.items() for made in range(count)]
    return [name for stem in stems for name in (f"photos/{stem}.jpg", f"masks/{stem}.png")]


def _stem(index: int, kind: str, made: int) -> str:
    return f"{index:06d}_{kind}" + (f"_{made}" if made > 1 else "")
