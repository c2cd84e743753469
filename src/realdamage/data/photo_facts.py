"""One read of each file for all that the audit asks of it, in parallel: header, digest, pixels, mask."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from realdamage.core.decode import MAX_PIXELS, contents_of, decode_contents
from realdamage.core.progress import Track, available_processors, no_progress
from realdamage.data.duplicates import PhotoHash, perceptual_hash
from realdamage.data.manifest import Manifest, read_mask
from realdamage.data.shortcuts import container_facts
from realdamage.errors import ManifestError, PhotoError, RealDamageError

MASK_FAULTS = ("missing", "on_real", "unusable", "size", "empty", "absent", "partial")
"""What can be wrong with a mask; the last two are no errors."""


class PhotoFacts(NamedTuple):
    """`error`: why the photo cannot be read, "" when it can; `container`: see `container_facts`, empty when it cannot;
    `mask_faults`: (one of MASK_FAULTS, details). With pixels only: `sha256` of the file, `colour`: mean red, green and
    blue in 0..255, `look`: its perceptual hash."""

    error: str
    container: dict[str, Any]
    mask_faults: tuple[tuple[str, str], ...] = ()
    sha256: str = ""
    colour: tuple[float, float, float] | None = None
    look: PhotoHash | None = None


class _Task(NamedTuple):
    """A row of the manifest, without the cost of asking pandas for each cell."""

    row: int
    file_name: str
    label: str
    kind: str
    mask_file_name: str


def read_facts(
    manifest: Manifest, *, pixels: bool, workers: int | None = None, progress: Track = no_progress
) -> list[PhotoFacts]:
    """The facts of every row. Without `pixels` only headers are read, in this process; with them, `workers` processes
    (default: the CPUs at hand) read and decode every file. A photo that cannot be read is a fact, no error."""
    columns = [manifest.table[column] for column in _Task._fields[1:]]
    tasks = [_Task(*values) for values in zip(range(len(manifest)), *columns, strict=True)]
    workers = min(workers or available_processors(), len(tasks) // 16)
    if not pixels or workers <= 1:
        facts = (_facts(manifest, task, pixels) for task in tasks)
        return list(progress(facts, len(tasks), "reading photos" if pixels else "reading headers"))
    return list(progress(_in_parallel(manifest, tasks, workers), len(tasks), "reading photos"))


def _in_parallel(manifest: Manifest, tasks: Sequence[_Task], workers: int) -> Iterator[PhotoFacts]:
    with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(manifest,)) as pool:
        try:
            yield from pool.map(_facts_in_worker, tasks, chunksize=8)
        except BrokenProcessPool as error:
            raise RealDamageError(
                f"{manifest.root}: a process that read photos was ended, perhaps for want of memory. "
                "Run it again with --workers 1."
            ) from error


_worker_manifest: Manifest | None = None


def _start_worker(manifest: Manifest) -> None:
    global _worker_manifest
    _worker_manifest = manifest


def _facts_in_worker(task: _Task) -> PhotoFacts:
    assert _worker_manifest is not None  # set by _start_worker in this very process
    return _facts(_worker_manifest, task, pixels=True)


def _facts(manifest: Manifest, task: _Task, pixels: bool) -> PhotoFacts:
    path = manifest.path(task.file_name)
    try:
        if not pixels:
            container = container_facts(path)
            return PhotoFacts(
                "", container, _mask_faults(manifest, task, container["upright"], pixels)
            )
        data = contents_of(path)
        assert isinstance(data, bytes)  # of a path
        container = container_facts(io.BytesIO(data), name=path, size=len(data))
        rgb = decode_contents(data, str(path), MAX_PIXELS)
    except PhotoError as error:
        return PhotoFacts(str(error), {})
    red, green, blue = (float(mean) for mean in rgb.mean(axis=(0, 1)))
    return PhotoFacts(
        "",
        container,
        _mask_faults(manifest, task, (rgb.shape[1], rgb.shape[0]), pixels),
        hashlib.sha256(data).hexdigest(),
        (red, green, blue),
        perceptual_hash(Image.fromarray(rgb)),
    )


def _mask_faults(
    manifest: Manifest, task: _Task, size: tuple[int, int], pixels: bool
) -> tuple[tuple[str, str], ...]:
    """`size` (width, height): of the upright photo."""
    name = task.mask_file_name
    if not name:
        return (("absent", f"kind {task.kind}"),) if task.kind in ("ai_region", "pasted") else ()
    faults = [("on_real", name)] if task.label == "real" else []
    found = _mask_size(manifest.path(name))
    if isinstance(found, str):
        return (*faults, ("unusable" if found else "missing", f"{name} {found}".strip()))
    if found != size:
        return (
            *faults,
            ("size", f"{name} is {found[0]}×{found[1]}, the photo {size[0]}×{size[1]}"),
        )
    if not pixels:
        return tuple(faults)
    try:
        mask = read_mask(manifest, task.row, (size[1], size[0]))
    except ManifestError as error:
        return (*faults, ("unusable", str(error)))
    share = float(np.mean(mask))
    if not share:
        faults.append(("empty", name))
    elif (
        task.kind == "ai_whole" and share < 0.5
    ):  # an honest arrow on top of the edit takes less away
        faults.append(("partial", f"{name} covers {share:.1%}"))
    return tuple(faults)


def _mask_size(path: Path) -> tuple[int, int] | str:
    """Width and height; or what is wrong with the file, "" when there is none."""
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        return ""
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        return f"cannot be read ({error})"
