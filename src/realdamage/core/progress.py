"""Progress of long work: a rich bar under a terminal where rich is installed, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


class Track(Protocol):
    """Yields the steps as they are, and may tell somebody how far it is."""

    def __call__(self, steps: Iterable[T], total: int, description: str) -> Iterator[T]: ...


def no_progress(steps: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Tells nobody; the default of every function that takes a `Track`."""
    return iter(steps)


def track(steps: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Yields the steps and shows on standard error how many of `total` are done and how long the rest will take."""
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
    started = told = time.monotonic()
    for done, step in enumerate(steps, start=1):
        yield step
        now = time.monotonic()
        if now - told >= SECONDS_BETWEEN_LINES and done < total:
            told = now
            rest = (now - started) / done * (total - done)
            print(
                f"{description}: {done}/{total}, about {rest:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
    if time.monotonic() - started >= SECONDS_BETWEEN_LINES:
        print(
            f"{description}: {total}/{total} in {time.monotonic() - started:.0f} s",
            file=sys.stderr,
            flush=True,
        )
