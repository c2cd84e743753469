"""Runs a recipe: from source photos to a folder with a manifest, resumable, seeded, in parallel.

A recipe works group by group (one product, one scene). Each group's photos depend on (seed, group number) alone and are
recorded as one part file when they are all written, so an interrupted run goes on where it stopped and any number of
workers gives the same set.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realdamage.data.manifest import DAMAGES, Manifest, read_manifest, write_manifest
from realdamage.data.splits import assign_splits, components
from realdamage.data.writer import TablePool
from realdamage.inference.errors import SynthesisError
from realdamage.inference.onnx_file import write_atomically
from realdamage.inference.progress import Track, no_progress
from realdamage.synthesis.group import Base, GroupMaker, group_photos

PARTS = ".parts"


@dataclass(frozen=True)
class SourceSettings:
    """Where the real photos come from. `kind`: "studio" (rendered, needs no files) or "manifest" (the real photos of
    `root`); `groups`: how many scenes the studio renders; `damaged_share`: of the studio's scenes, in 0..1;
    `per_source`: at most so many photos of each source of the manifest (None: all), drawn at random, with
    `damaged_first` the really damaged ones before the others; `max_side`: larger photos are resized to it, in
    pixels."""

    kind: str = "studio"
    root: str | None = None
    groups: int = 200
    damaged_share: float = 0.5
    per_source: int | None = None
    damaged_first: bool = False
    max_side: int = 2048


@dataclass(frozen=True)
class CodecSettings:
    """A generator's codec: `weights` as `Codec` takes them, and the names it goes by in the manifest."""

    generator: str
    weights: str
    family: str


@dataclass(frozen=True)
class WriterSettings:
    """`quality`: range of JPEG qualities to draw from; None: the quantisation tables of the source photos."""

    quality: tuple[int, int] | None = (90, 97)


@dataclass(frozen=True)
class Recipe:
    """What to make. `shares`: for each derived kind, the chance in 0..1 that a photo gets one of it; `paint_share`: of
    the region edits that paint damage first (the rest regenerate a region without painting), in 0..1."""

    name: str = "custom"
    seed: int = 0
    source: SourceSettings = field(default_factory=SourceSettings)
    shares: Mapping[str, float] = field(
        default_factory=lambda: {"annotated": 0.25, "ai_region": 1.0, "ai_whole": 0.25, "pasted": 0.25}
    )
    paint_share: float = 0.75
    damages: Sequence[str] = DAMAGES
    codecs: Sequence[CodecSettings] = (CodecSettings("house", "house", "house"),)
    writer: WriterSettings = field(default_factory=WriterSettings)
    fractions: Mapping[str, float] = field(default_factory=lambda: {"train": 0.6, "val": 0.2, "test": 0.2})
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.source.kind not in ("studio", "manifest"):
            raise SynthesisError(f"recipe.source.kind={self.source.kind}: allowed are studio, manifest")
        if self.source.kind == "manifest" and not self.source.root:
            raise SynthesisError("recipe.source.root is empty: give the folder of the real photos (with metadata.csv)")
        derived = ("annotated", "ai_region", "ai_whole", "pasted")
        for kind, share in self.shares.items():
            if kind not in derived or not 0.0 <= share <= 1.0:
                raise SynthesisError(
                    f"recipe.shares.{kind}={share}: kinds are {', '.join(derived)}, shares lie in 0..1"
                )
        unknown = sorted(set(self.damages) - set(DAMAGES))
        if unknown or not self.damages:
            raise SynthesisError(f"recipe.damages={list(self.damages)}: allowed are {', '.join(DAMAGES)}")
        if not self.codecs and (self.shares.get("ai_region") or self.shares.get("ai_whole")):
            raise SynthesisError("recipe.codecs is empty, but ai_region or ai_whole photos are asked for")

    def digest(self) -> str:
        """SHA-256 of all that decides what is made; the number of workers does not."""
        content = {**asdict(self), "workers": None}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()


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


def synthesize(recipe: Recipe, root: str | Path, *, progress: Track = no_progress) -> Summary:
    """Makes the set in `root` and writes its metadata.csv last, so that a folder with a manifest is a finished one.

    Raises SynthesisError: the folder holds another recipe's photos, a source photo or a codec cannot be loaded, or a
    worker died.
    """
    root = Path(root)
    started = time.monotonic()
    bases = _bases(recipe)
    parts = _claim(root, recipe, bases)
    todo = [index for index in range(len(bases)) if not _part(parts, index).is_file()]
    workers = recipe.workers or len(os.sched_getaffinity(0))
    job = _Job(recipe, root, bases)
    made = sum(progress(_run(job, todo, workers), len(todo), "groups"))
    rows: list[dict[str, str]] = []
    for index in range(len(bases)):
        rows.extend(json.loads(_part(parts, index).read_text()))
    table = pd.DataFrame(rows).fillna("")
    if not (table["split"] != "").any():  # else the source's own splits hold, for what is made of its photos too
        table["split"] = assign_splits(table, recipe.fractions, recipe.seed)
    write_manifest(root, table)
    return Summary(root, len(table), made, time.monotonic() - started)


@dataclass(frozen=True)
class _Job:
    """What a worker needs to make any group; `bases` holds the source photos of each."""

    recipe: Recipe
    root: Path
    bases: Sequence[Base]


def _run(job: _Job, todo: Sequence[int], workers: int) -> Iterator[int]:
    """Makes the groups `todo`; yields the number of photos of each as it is done."""
    if workers <= 1 or len(todo) <= 1:
        _start_worker(job)
        for index in todo:
            yield _make(index)
        return
    with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(job,)) as pool:
        try:
            yield from pool.map(_make, todo, chunksize=1)
        except SynthesisError:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        except Exception as error:
            pool.shutdown(wait=False, cancel_futures=True)
            raise SynthesisError(
                f"a worker failed ({type(error).__name__}: {error}). What was made is kept; run the same command "
                "to go on, with recipe.workers=1 if memory is short."
            ) from error


_worker_job: _Job | None = None


def _start_worker(job: _Job) -> None:
    global _worker_job
    import torch

    if (job.recipe.workers or 2) > 1:
        torch.set_num_threads(1)  # the groups run side by side; threads inside them would only get in each other's way
    _worker_job = job
    _maker.cache_clear()


@cache
def _maker() -> GroupMaker:
    assert _worker_job is not None  # set by _start_worker in this very process
    recipe = _worker_job.recipe
    codecs = [(codec.weights, codec.generator, codec.family) for codec in recipe.codecs]
    if recipe.writer.quality is None:
        pool = TablePool.of_photos([Path(base.path) for base in _worker_job.bases if base.path])
    else:
        pool = TablePool.of_qualities(*recipe.writer.quality)
    return GroupMaker(
        codecs, pool, dict(recipe.shares), recipe.paint_share, tuple(recipe.damages), recipe.source.max_side
    )


def _make(index: int) -> int:
    job = _worker_job
    assert job is not None  # set by _start_worker in this very process
    rng = np.random.default_rng([job.recipe.seed, index])
    rows = group_photos(_maker(), job.bases[index], index, job.root, rng)
    write_atomically(_part(job.root / PARTS, index), json.dumps(rows).encode())
    return len(rows)


def _part(parts: Path, index: int) -> Path:
    return parts / f"{index:06d}.json"


def _claim(root: Path, recipe: Recipe, bases: Sequence[Base]) -> Path:
    """Marks the folder as this recipe's over these source photos, so that two sets never mix in one folder."""
    parts = root / PARTS
    digest = hashlib.sha256(f"{recipe.digest()}\n{bases!r}".encode()).hexdigest()
    mark = parts / "recipe.json"
    if mark.is_file():
        found = json.loads(mark.read_text())
        if found.get("digest") != digest:
            raise SynthesisError(
                f"{root} holds photos of another recipe ({found.get('name')}, or the same with other settings "
                "or other source photos). "
                "Give another folder with out=…, or start over with overwrite=true."
            )
        return parts
    if (root / "metadata.csv").exists():
        raise SynthesisError(
            f"{root} already holds a manifest that no recipe of ours made. Give another folder with out=…."
        )
    content = {"name": recipe.name, "digest": digest, "recipe": asdict(recipe)}
    write_atomically(mark, json.dumps(content, indent=2, default=list).encode())
    return parts


def clear(root: str | Path) -> None:
    """Removes what a recipe made in `root`, and nothing else. Raises SynthesisError when no recipe made the folder."""
    root = Path(root)
    if not root.exists():
        return
    if not (root / PARTS / "recipe.json").is_file():
        raise SynthesisError(
            f"overwrite=true: {root} was not made by a recipe of ours; it is left as it is. Remove it by hand."
        )
    for name in ("photos", "masks", PARTS):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "metadata.csv").unlink(missing_ok=True)


def _bases(recipe: Recipe) -> list[Base]:
    if recipe.source.kind == "studio":
        rng = np.random.default_rng([recipe.seed, 2**31])
        damaged = rng.random(recipe.source.groups) < recipe.source.damaged_share
        damages = rng.choice(list(recipe.damages), recipe.source.groups)
        return [
            Base(
                studio_seed=recipe.seed * 1_000_003 + index,
                damage=str(damage) if hit else "",
                condition="damaged" if hit else "intact",
            )
            for index, (hit, damage) in enumerate(zip(damaged, damages, strict=True))
        ]
    manifest = read_manifest(Path(str(recipe.source.root)))
    return _manifest_bases(manifest, recipe)


def _manifest_bases(manifest: Manifest, recipe: Recipe) -> list[Base]:
    table = manifest.table
    rows = table[(table["label"] == "real") & table["kind"].isin(("original", "damaged"))]
    if rows.empty:
        raise SynthesisError(f"{manifest.root}: no real photo of kind original or damaged to start from")
    if recipe.source.per_source is not None:
        rows = rows.sample(frac=1.0, random_state=recipe.seed)
        if recipe.source.damaged_first:
            rows = rows.sort_values("kind", kind="stable")  # "damaged" before "original"
        rows = rows.groupby("source").head(recipe.source.per_source).sort_index()
    # Copies and pairs among the source photos hang together also after their bytes have changed.
    group = rows["group"].groupby(components(table)[rows.index]).transform("first")
    records: list[dict[str, Any]] = rows.assign(group=group).to_dict("records")  # type: ignore[assignment]
    return [
        Base(
            path=str(manifest.path(row["file_name"])),
            damage=row["damage"],
            condition="damaged" if row["kind"] == "damaged" else row["condition"] or "unknown",
            source=row["source"],
            group=row["group"],
            split=row["split"],
            licence=row["licence"],
        )
        for row in records
    ]


def recipe_from_config(config: Any) -> Recipe:
    """A Recipe from the `recipe` section of a composed configuration (`schema.RecipeConfig`). Raises SynthesisError."""
    quality = config.writer.quality
    return Recipe(
        name=config.name,
        seed=config.seed,
        source=SourceSettings(**config.source),
        shares=dict(config.shares),
        paint_share=config.paint_share,
        damages=tuple(config.damages or DAMAGES),
        codecs=tuple(CodecSettings(**codec) for codec in config.codecs.values()),
        writer=WriterSettings(None if quality is None else (quality[0], quality[1])),
        fractions=dict(config.fractions),
        workers=config.workers,
    )
