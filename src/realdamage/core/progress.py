"""Progress of long work, reading ahead of it, and the number of processors for it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")
SECONDS_BETWEEN_LINES = 10.0


class Track(Protocol):
    """Yields the steps unchanged, and may report how many are done."""

    def __call__(self, steps: Iterable[T], total: int, description: str) -> Iterator[T]: ...


def no_progress(steps: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Reports nothing; the default of every function that takes a `Track`."""
    return iter(steps)


def track(steps: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Reports steps, steps a second and the remaining time on standard error: a rich bar on a
    terminal, else a line now and then."""
    return (_bar if sys.stderr.isatty() else _lines)(steps, total, description)


def _bar(steps: Iterable[T], total: int, description: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[rate]}"))
    # Standard output may go to a file, which the bar must leave alone.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
        task = bar.add_task(description, total=total, rate="")
        started = time.monotonic()
        for done, step in enumerate(steps, start=1):
            yield step
            bar.update(task, completed=done, rate=f"{done / (time.monotonic() - started):.1f}/s")


def _lines(steps: Iterable[T], total: int, description: str) -> Iterator[T]:
    started = last = time.monotonic()
    for done, step in enumerate(steps, start=1):
        yield step
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done < total:
            last = now
            rate = done / (now - started)
            left = f"{rate:.1f}/s, about {(total - done) / rate:.0f} s left"
            print(f"{description}: {done}/{total}, {left}", file=sys.stderr, flush=True)
    taken = time.monotonic() - started
    if taken >= SECONDS_BETWEEN_LINES:
        print(f"{description}: {total}/{total} in {taken:.0f} s", file=sys.stderr, flush=True)


def read_ahead(read: Callable[[T], R], sources: Iterable[T]) -> Iterator[R]:
    """`read` of each source, in a thread that is one source ahead; they may be endless."""
    following, end = iter(sources), object()

    def read_next() -> Any:
        source: Any = next(following, end)
        return end if source is end else read(source)

    thread = ThreadPoolExecutor(1)
    try:
        ahead = thread.submit(read_next)
        while (found := ahead.result()) is not end:
            ahead = thread.submit(read_next)
            yield found
    finally:
        # Without waiting: the garbage collector may end an abandoned generator while another
        # thread starts, and joining a thread then is a deadlock.
        thread.shutdown(wait=False, cancel_futures=True)


def available_processors() -> int:
    """The processors that this process may use; all of the machine on macOS and Windows."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
