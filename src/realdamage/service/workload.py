"""Bounds the work at hand: photos queue for a few threads, a full queue says so, and what is late is dropped."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from realdamage.service.batching import DeadlineError
from realdamage.service.refusals import Refusal, too_late

T = TypeVar("T")
_STUCK_AFTER_S = 10.0
"""So long after its deadline a job that still runs counts as stuck."""
_CLOSE_S = 5.0


class Workload:
    """workers: threads that decode and wait for the network. max_photos: waiting or being judged, all requests
    together. observe: told that number whenever it changes."""

    def __init__(self, workers: int, max_photos: int, observe: Callable[[int], object]) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="realdamage-photo")
        self._workers, self._max_photos, self._observe = workers, max_photos, observe
        self._photos = 0
        self._seconds_a_photo = 0.2  # of one worker; follows what is measured
        self._running: dict[int, float] = {}  # deadlines of the jobs that run, by thread
        self._lock = threading.Condition()

    @property
    def is_stuck(self) -> bool:
        """Whether every worker has been busy with one job until long after its deadline."""
        late = time.monotonic() - _STUCK_AFTER_S
        with self._lock:
            return sum(deadline < late for deadline in self._running.values()) >= self._workers

    async def run(
        self,
        jobs: Sequence[Callable[[], T]],
        photos: Sequence[int],
        deadline: float,
        seconds: float,
    ) -> list[T]:
        """Run the jobs on the threads and return what they return, in order.

        photos: how many photos each job stands for. deadline: in time.monotonic; seconds: what its refusal names.
        Raises Refusal 429 when the queue has no room for all of them, 504 at the deadline (jobs not begun never run),
        and the first error of a job.
        """
        self._admit(sum(photos))
        futures = [
            self._submit(job, count, deadline) for job, count in zip(jobs, photos, strict=True)
        ]
        gathered = asyncio.gather(*(asyncio.wrap_future(future) for future in futures))
        try:
            return await asyncio.wait_for(gathered, max(0.0, deadline - time.monotonic()))
        except (TimeoutError, DeadlineError):
            raise too_late(seconds) from None
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Drop the jobs that have not begun, and wait at most 5 s for the others: one may never end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._lock.wait_for(lambda: not self._running, _CLOSE_S)

    def _submit(self, job: Callable[[], T], photos: int, deadline: float) -> Future[T]:
        future = self._pool.submit(self._timed, job, photos, deadline)
        future.add_done_callback(lambda _: self._release(photos))
        return future

    def _timed(self, job: Callable[[], T], photos: int, deadline: float) -> T:
        start = time.monotonic()
        if start > deadline:
            raise DeadlineError
        with self._lock:
            self._running[threading.get_ident()] = deadline
        try:
            return job()
        finally:
            took = (time.monotonic() - start) / max(1, photos)
            with self._lock:
                self._seconds_a_photo += 0.1 * (took - self._seconds_a_photo)
                del self._running[threading.get_ident()]
                self._lock.notify_all()

    def _admit(self, photos: int) -> None:
        with self._lock:
            if self._photos + photos > self._max_photos:
                wait = min(
                    60, max(1, math.ceil(self._photos * self._seconds_a_photo / self._workers))
                )
                raise Refusal(
                    429,
                    "busy",
                    f"{self._photos} photos wait or are being judged and {photos} more do not fit, at most "
                    f"{self._max_photos}; try again in {wait} s",
                    {"Retry-After": str(wait)},
                )
            self._photos += photos
            self._observe(self._photos)

    def _release(self, photos: int) -> None:
        with self._lock:
            self._photos -= photos
            self._observe(self._photos)
