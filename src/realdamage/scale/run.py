"""Judges all photos of a source into a folder of Parquet parts, on one of two runners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from realdamage.core.progress import Track, no_progress, read_ahead
from realdamage.errors import UsageError
from realdamage.scale.photo import Judge, ReadPhoto, Row, judge_photo, read
from realdamage.scale.places import Parts, find_sources

Engine = Literal["local", "ray"]
"""Where the work is done."""
Todo: TypeAlias = "Sequence[tuple[int, int, str]]"
"""(part, place in the part, name) of each photo."""
Runner: TypeAlias = "Callable[[Judge, Todo], Iterator[tuple[int, int, Row]]]"
"""Yields (part, place, row) of every photo once, in any order."""


@dataclass(frozen=True)
class Summary:
    """What a run did. photos: of the source. judged: now; outcomes: of these, "" for unreadable."""

    photos: int
    judged: int
    outcomes: Counter[str]


def score(
    source: str | Path | Iterable[str],
    output: str | Path,
    *,
    engine: Engine = "local",
    judge: Judge | None = None,
    part_size: int = 1000,
    progress: Track = no_progress,
) -> Summary:
    """Judge photos into `output`/part-….parquet: rows of `verdict_row`, and `error`, the code why a
    photo could not be read.

    source: see `find_sources`; output: a folder, also a URL of object storage. Parts that are
    there are not computed again. engine "ray": on the cluster in RAY_ADDRESS, else on one of this
    machine.

    Raises UsageError on a wrong source or a folder of another run, ModelFileError,
    MissingExtraError without ray, RealDamageError when a part cannot be written.
    """
    if part_size < 1:
        raise UsageError(f"part_size={part_size} must be at least 1")
    chosen = judge or Judge()
    names = find_sources(source)
    digest = chosen.contents[2]
    run = {"graph_sha256": digest, "prior": chosen.prior, "allow_demo": chosen.allow_demo}
    parts = Parts(output, names, {**run, "part_size": part_size})
    todo = [
        (part, place, name)
        for part in parts.pending
        for place, name in enumerate(parts.photos(part))
    ]
    outcomes: Counter[str] = Counter()
    waiting: dict[int, dict[int, Row]] = {}
    rows = _runner(engine)(chosen, todo) if todo else iter(())
    for part, place, row in progress(rows, len(todo), "photos"):
        outcomes[row["outcome"]] += 1
        found = waiting.setdefault(part, {})
        found[place] = row
        if len(found) == len(parts.photos(part)):
            parts.write(part, [found[index] for index in range(len(found))])
            del waiting[part]
    return Summary(len(names), outcomes.total(), outcomes)


def _runner(engine: str) -> Runner:
    if engine == "local":
        return run_local
    if engine == "ray":
        from realdamage.scale.ray_runner import run_on_ray

        return run_on_ray
    raise UsageError(f"engine={engine!r} is unknown; use 'local' or 'ray'")


def run_local(chosen: Judge, todo: Todo) -> Iterator[tuple[int, int, Row]]:
    """In this process: the next photo is read while the network judges one."""
    detector = chosen.detector()

    def read_one(item: tuple[int, int, str]) -> tuple[int, int, ReadPhoto]:
        part, place, name = item
        return part, place, read(name, detector.pixel_spec)

    for part, place, photo in read_ahead(read_one, todo):
        yield part, place, judge_photo(photo, detector)
