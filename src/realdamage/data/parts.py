"""The part files of a set that is being made, so that an interrupted run goes on where it stopped.

A set is made part by part (a group of photos each), by any number of processes. A part's rows are written when all of
its photos are, and the manifest last of all; a mark in the folder says which settings and which photos it is made of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from realdamage.data.manifest import METADATA_NAME
from realdamage.errors import RealDamageError, UsageError
from realdamage.files import write_atomically

FOLDER = ".parts"

T = TypeVar("T")


@dataclass(frozen=True)
class Parts:
    """The parts of the set in `root`; `maker`: the command that makes it, such as "neutralise"; `again`: what its user
    says to start over."""

    root: Path
    maker: str
    again: str = "--overwrite"

    def claim(
        self, digest: str, about: Mapping[str, Any], files: Sequence[str], *, alone: bool = True
    ) -> None:
        """Marks the folder as this maker's set of that digest, so that two sets never mix in one folder.

        about: plain values for the reader of the mark. files: all photos and masks that may be written, relative to
        the root; `clear` removes these and no others. alone: whether the folder may hold nothing else; after `clear`,
        it may hold what `clear` left. Raises UsageError: the folder holds another set, or anything else.
        """
        mark = self.mark()
        if mark is None and alone:
            try:
                self.refuse_others()
            except UsageError:
                mark = (
                    self.mark()
                )  # another process of the same run may have claimed the folder meanwhile
                if mark is None:
                    raise
        if mark is not None:
            self.compare(mark["digest"], digest)
            return
        content = {"maker": self.maker, "digest": digest, **about, "files": list(files)}
        write_atomically(
            self.root / FOLDER / "mark.json", json.dumps(content, indent=1, default=str).encode()
        )

    def compare(self, found: str, digest: str) -> None:
        """Raises UsageError when the digest that a mark tells is not that of the set to be made."""
        if found != digest:
            raise UsageError(
                f"{self.root} holds another set made by {self.maker}, or one with other settings or of other photos. "
                f"Give another folder, or start over with {self.again}"
            )

    def path(self, index: int) -> Path:
        """Of the rows of part number `index`."""
        return self.root / FOLDER / f"{index:06d}.json"

    def todo(self, count: int) -> list[int]:
        """Those of `count` parts that are not finished."""
        return [index for index in range(count) if not self.path(index).is_file()]

    def write(self, index: int, content: Any) -> None:
        """Finishes a part: plain values, written after all of its photos."""
        write_atomically(self.path(index), json.dumps(content).encode())

    def read(self, index: int) -> Any:
        return json.loads(self.path(index).read_text())

    def clear(self, others: Sequence[str] = ()) -> None:
        """Removes what the maker made here (`others`: beside photos, masks and manifest), and nothing else.

        Raises UsageError: the folder holds something, but not of this maker.
        """
        mark = self.mark()
        if mark is None:
            self.refuse_others()
            return
        # The mark goes last: an interrupted removal can then be run again.
        for name in (METADATA_NAME, *others, *mark["files"]):
            (self.root / name).unlink(missing_ok=True)
        for path in (self.root / FOLDER).iterdir():
            if path.name != "mark.json":
                path.unlink()
        (self.root / FOLDER / "mark.json").unlink()
        for folder in sorted(
            {FOLDER, *(str(Path(name).parent) for name in mark["files"])}, reverse=True
        ):
            path = self.root / folder
            if path != self.root and path.is_dir() and not any(path.iterdir()):
                path.rmdir()

    def mark(self) -> dict[str, Any] | None:
        """What `claim` wrote; None when the folder holds no set of this maker."""
        path = self.root / FOLDER / "mark.json"
        if not path.is_file():
            return None
        mark: dict[str, Any] = json.loads(path.read_text())
        return mark if mark.get("maker") == self.maker else None

    def refuse_others(self) -> None:
        """Raises UsageError when the folder holds anything that is not this maker's set."""
        if self.mark() is None and self.root.exists() and self._holds_something():
            raise UsageError(
                f"{self.root} holds something that {self.maker} did not make; it is left as it is. "
                "Give a new or an empty folder"
            )

    def _holds_something(self) -> bool:
        """A folder of parts with neither mark nor part in it does not count: a claim is being made, or was cut off."""
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
    """Yields `make(index)` for each index of `todo`, in their order, in so many processes.

    `start(*arguments)` runs first in each of them; with one worker all runs in this process. fresh: start them as new
    interpreters, where this process has threads that a copy of it would hang on. Raises RealDamageError: as `make`
    does, or a process died.
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
            # Else Ctrl-C would wait for all that is still to be made.
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, RealDamageError) or not isinstance(error, Exception):
                raise
            raise RealDamageError(
                f"a worker failed ({type(error).__name__}: {error}). What was made is kept; run the same command to go "
                "on, with one worker if memory is short"
            ) from error
