"""The finished parts of a set or an evaluation: an interrupted run continues where it stopped.

Work is done part by part (some photos each), by any number of processes. A part is written whole or
not at all. A mark in the folder says which settings and photos the parts come from, so that two
runs never mix.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from realdamage.data.manifest import METADATA_NAME
from realdamage.errors import RealDamageError, UsageError
from realdamage.files import write_atomically

FOLDER = ".parts"

Identity = str | Mapping[str, str]
T = TypeVar("T")
Job = TypeVar("Job")


@dataclass(frozen=True)
class Parts:
    """The parts of what is made in `root`.

    maker: the command that makes it, such as "neutralise".
    again: how its user starts over.
    """

    root: Path
    maker: str
    again: str = "--overwrite"

    @property
    def folder(self) -> Path:
        return self.root / FOLDER

    def claim(
        self,
        identity: Identity,
        about: Mapping[str, Any] | None = None,
        files: Sequence[str] = (),
        *,
        alone: bool = True,
    ) -> None:
        """Marks the folder as this maker's.

        identity: a digest of settings and photos, or several digests, each under a name for people.
        about: plain values for people who read the mark.
        files: everything that may be written, relative to the root; `clear` removes these and no
        others.
        alone: whether the folder must hold nothing else.
        Raises UsageError: the folder holds another set (code other_set), or anything else
        (not_ours).
        """
        mark = self.mark()
        if mark is None and alone:
            try:
                self.refuse_others()
            except UsageError:
                # Another process of the same run may have claimed the folder in the meantime.
                mark = self.mark()
                if mark is None:
                    raise
        if mark is not None:
            self._refuse_another(mark["digest"], identity)
            return
        known = identity if isinstance(identity, str) else dict(identity)
        content = {"maker": self.maker, "digest": known, **(about or {}), "files": list(files)}
        text = json.dumps(content, indent=1, default=str)
        write_atomically(self.folder / "mark.json", text.encode())

    def _refuse_another(self, found: Identity, wanted: Identity) -> None:
        if found == wanted:
            return
        differs = "set of photos or settings"
        if isinstance(wanted, Mapping) and isinstance(found, Mapping):
            names = [name for name in wanted if found.get(name) != wanted[name]]
            differs = " and another ".join(names)
        raise UsageError(
            f"{self.root} holds unfinished or finished work of {self.maker} with another "
            f"{differs}. Choose another folder, or start over with {self.again}",
            code="other_set",
        )

    def path(self, index: int) -> Path:
        """Where the content of part number `index` lies."""
        return self.folder / f"{index:06d}.json"

    def todo(self, count: int) -> list[int]:
        """Those of `count` parts that are not finished."""
        return [index for index in range(count) if not self.path(index).is_file()]

    def write(
        self, index: int, content: Any, arrays: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> None:
        """Finishes a part; `content`, plain values, goes last, after all photos and arrays."""
        if arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
            write_atomically(self.path(index).with_suffix(".npz"), buffer.getvalue())
        write_atomically(self.path(index), json.dumps(content, default=float).encode())

    def read(self, index: int) -> Any:
        """The content of a finished part."""
        return json.loads(self.path(index).read_text())

    def arrays(self, index: int) -> dict[str, npt.NDArray[Any]]:
        """The arrays of a finished part; {} where it has none."""
        path = self.path(index).with_suffix(".npz")
        if not path.is_file():
            return {}
        with np.load(path) as arrays:
            return dict(arrays)

    def clear(self, others: Sequence[str] = ()) -> None:
        """Removes what the maker made here, and nothing else.

        others: files next to photos, masks and manifest.
        Raises UsageError: the folder holds something, but not of this maker (code not_ours).
        """
        mark = self.mark()
        if mark is None:
            self.refuse_others()
            return
        for name in (METADATA_NAME, *others, *mark["files"]):
            (self.root / name).unlink(missing_ok=True)
        self.discard()
        for folder in sorted({str(Path(name).parent) for name in mark["files"]}, reverse=True):
            path = self.root / folder
            if path != self.root and path.is_dir() and not any(path.iterdir()):
                path.rmdir()

    def discard(self) -> None:
        """Removes the parts, when all that they hold lies elsewhere."""
        if not self.folder.is_dir():
            return
        # The mark goes last, so that an interrupted removal can be run again.
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name == "mark.json"):
            path.unlink()
        self.folder.rmdir()

    def mark(self) -> dict[str, Any] | None:
        """What `claim` wrote; None when the folder holds no set of this maker."""
        path = self.folder / "mark.json"
        if not path.is_file():
            return None
        mark: dict[str, Any] = json.loads(path.read_text())
        return mark if mark.get("maker") == self.maker else None

    def refuse_others(self) -> None:
        """Raises UsageError when the folder holds anything that is not this maker's set."""
        if self.mark() is None and self.root.exists() and self._holds_something():
            raise UsageError(
                f"{self.root} contains something that {self.maker} did not make; nothing was "
                "changed. Give a new or an empty folder",
                code="not_ours",
            )

    def _holds_something(self) -> bool:
        """A folder of parts with neither mark nor part does not count: a claim was cut off."""
        if not self.root.is_dir():
            return True
        return any(path.name != FOLDER or any(path.glob("*.json")) for path in self.root.iterdir())


def in_processes(
    start: Callable[..., None],
    arguments: tuple[Any, ...],
    make: Callable[[int], T],
    todo: Iterable[int],
    workers: int,
    *,
    fresh: bool = False,
) -> Iterator[T]:
    """Yields `make(index)` for each index of `todo`, in order, from `workers` processes.

    start: `start(*arguments)` runs first in each process; with one worker everything runs in this
    one.
    fresh: start new interpreters, where this process has threads that a fork would hang on.
    Raises RealDamageError: as `make` does, or a process died (code worker_failed).
    """
    if workers <= 1:
        start(*arguments)
        for index in todo:
            yield make(index)
        return
    context = get_context("spawn") if fresh else None
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=start, initargs=arguments
    ) as pool:
        try:
            yield from pool.map(make, todo, chunksize=1)
        except BaseException as error:
            # Otherwise Ctrl-C would wait for everything that is still to be made.
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, RealDamageError) or not isinstance(error, Exception):
                raise
            raise RealDamageError(
                f"A worker failed ({type(error).__name__}: {error}). What was made is kept; run "
                "the same command to continue, with one worker if memory is short",
                code="worker_failed",
            ) from error


def for_each(
    make: Callable[[Job, int], T], job: Job, todo: Iterable[int], workers: int
) -> Iterator[T]:
    """`in_processes` for `make(job, index)`: the job is sent to each process once."""
    if workers <= 1:
        return (make(job, index) for index in todo)
    return in_processes(keep_job, (job,), partial(with_job, make), todo, workers)


_job: Any = None  # of this process, if it is a worker


def keep_job(job: Any) -> None:
    """Starts a worker: `with_job` uses this job from now on."""
    global _job
    _job = job


def with_job(make: Callable[[Any, int], T], index: int) -> T:
    """`make(job, index)` in a worker."""
    return make(_job, index)
