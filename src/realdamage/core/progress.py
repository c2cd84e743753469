"""Progress of long work, and the number of processors for it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


class Track(Protocol):
    """Yields the steps unchanged, and may report how many are done."""

    def __call__(self, steps: Iterable[T], total: int, description: str) -> Iterator[T]: ...


def no_progress(steps: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Reports nothing; the default of every function that takes a `Track`."""
    return iter(steps)


def track(steps: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Reports steps and remaining time on standard error: a rich bar on a terminal if rich is
    installed, else lines."""
    if sys.stderr.isatty():
        try:
            from rich.console import Console
            from rich.progress import track as rich_track
        except ImportError:
            pass
        else:
            yield from rich_track(steps, description, total=total, console=Console(stderr=True))
            return
    yield from _lines(steps, total, description)


def _lines(steps: Iterable[T], total: int, description: str) -> Iterator[T]:
    started = last = time.monotonic()
    for done, step in enumerate(steps, start=1):
        yield step
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done < total:
            last = now
            rest = (now - started) / done * (total - done)
            line = f"{description}: {done}/{total}, about {rest:.0f} s left"
            print(line, file=sys.stderr, flush=True)
    taken = time.monotonic() - started
    if taken >= SECONDS_BETWEEN_LINES:
        print(f"{description}: {total}/{total} in {taken:.0f} s", file=sys.stderr, flush=True)


def available_processors() -> int:
    """The processors that this process may use; all of the machine where the system cannot say
    (macOS, Windows)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
