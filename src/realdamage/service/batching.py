"""Tiles of several photos in one run of the network: requests that come together should not wait for each other's
half-empty runs. Nobody waits for a batch to fill: while one run is under way, what comes meanwhile makes the next."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from realdamage.core.decode import Float32Array, UInt8Array
from realdamage.core.scorer import TileScorer

Scores = tuple[Float32Array, Float32Array]
_CLOSE_S = 5.0


class DeadlineError(Exception):
    """The tiles were not begun before their deadline, and never will be."""


@dataclass(eq=False)
class _Waiting:
    """The tiles of one call, of which the first `taken` are in runs already."""

    tiles: UInt8Array
    deadline: float
    taken: int = 0
    parts: list[Scores] = field(default_factory=list)
    done: Future[Scores] = field(default_factory=Future)


class BatchingScorer:
    """A TileScorer for many threads at once in front of one that runs on a thread of its own.

    scorer: the network. batch_tiles: at most that many tiles a run; a call with more is cut. observe: told the number
    of tiles and of calls of each run.
    """

    def __init__(
        self,
        scorer: TileScorer,
        *,
        batch_tiles: int = 64,
        observe: Callable[[int, int], None] | None = None,
    ) -> None:
        self._scorer = scorer
        self._batch_tiles = batch_tiles
        self._observe = observe or (lambda tiles, calls: None)
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.failed = False
        """Whether the last run raised; the next that does not takes it back."""
        self._thread = threading.Thread(target=self._work, name="realdamage-tiles", daemon=True)
        self._thread.start()

    def __call__(self, tiles: UInt8Array) -> Scores:
        """See TileScorer; the order of answers is that of `tiles`."""
        return self.score(tiles, float("inf"))

    def until(self, deadline: float) -> TileScorer:
        """A TileScorer whose tiles are dropped with DeadlineError unless begun before `deadline` (time.monotonic)."""
        return lambda tiles: self.score(tiles, deadline)

    def score(self, tiles: UInt8Array, deadline: float) -> Scores:
        """Scores of uint8 [n, tile, tile, 3], n at least 1. Raises DeadlineError, and whatever the network raises."""
        waiting = _Waiting(tiles, deadline)
        with self._changed:
            if not self._closed:
                self._queue.append(waiting)
                self._changed.notify()
                closed = False
            else:
                closed = True
        if closed:  # a request that took this model just before another replaced it
            return self._scorer(tiles)
        return waiting.done.result()

    def close(self) -> None:
        """Finish what waits, then stop the thread; return after 5 s at the latest, as a run may never end. Later calls
        run at once on their own thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_CLOSE_S)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if not self._queue:
                    return
                run = self._next_run()
            if run:
                self._run(run)

    def _next_run(self) -> list[tuple[_Waiting, int, int]]:
        """First come, first served: (call, first tile, end) until the run is full."""
        run: list[tuple[_Waiting, int, int]] = []
        room = self._batch_tiles
        while self._queue and room:
            first = self._queue[0]
            if first.done.done() or time.monotonic() > first.deadline:
                self._queue.popleft()
                if not first.done.done():
                    first.done.set_exception(DeadlineError())
                continue
            end = min(first.taken + room, len(first.tiles))
            run.append((first, first.taken, end))
            room -= end - first.taken
            first.taken = end
            if end == len(first.tiles):
                self._queue.popleft()
        return run

    def _run(self, run: list[tuple[_Waiting, int, int]]) -> None:
        try:
            tiles = np.concatenate([call.tiles[start:end] for call, start, end in run])
            self._observe(len(tiles), len(run))
            logit, evidence = self._scorer(tiles)
            if len(logit) != len(tiles) or len(evidence) != len(tiles):
                raise ValueError(f"the network answered {len(logit)} logits for {len(tiles)} tiles")
            self.failed = False
        except Exception as error:  # belongs to those who wait, not to this thread
            self.failed = True
            for call, _, _ in run:
                if not call.done.done():
                    call.done.set_exception(error)
            return
        position = 0
        for call, start, end in run:
            count = end - start
            call.parts.append(
                (logit[position : position + count], evidence[position : position + count])
            )
            position += count
            if end == len(call.tiles) and not call.done.done():
                logits, evidences = zip(*call.parts, strict=True)
                call.done.set_result((np.concatenate(logits), np.concatenate(evidences)))
