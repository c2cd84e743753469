"""A second model looks at a share of the photos, so that a new one is known before it answers. It never does."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore

from realdamage.core.tiles import read_photo
from realdamage.core.verdict import Verdict
from realdamage.service.metrics import Metrics
from realdamage.service.models import ServedModel

_WAITING = 8
"""Photos kept for it; more are skipped and counted, for the answers come first."""


class Shadow:
    """share: of photos, in 0..1. max_pixels: as for the photos that are answered."""

    def __init__(self, model: ServedModel, share: float, max_pixels: int, metrics: Metrics) -> None:
        self._model, self._share, self._max_pixels, self._metrics = (
            model,
            share,
            max_pixels,
            metrics,
        )
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="realdamage-shadow")
        self._room = BoundedSemaphore(_WAITING)
        self._random = random.Random()

    def look(self, data: bytes, served: Verdict) -> None:
        """Maybe judge the photo, later, and count whether the outcome is that of `served`."""
        if self._random.random() >= self._share:
            return
        if not self._room.acquire(blocking=False):
            self._metrics.shadow_lost.labels("full").inc()
            return
        self._pool.submit(self._judge, data, served)

    def close(self) -> None:
        """Drop the photos that wait; do not wait for the one that is being judged."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._model.scorer.close()

    def _judge(self, data: bytes, served: Verdict) -> None:
        try:
            detector = self._model.detector(float("inf"))
            outcome = detector.predict_photo(
                read_photo(data, detector.pixel_spec, max_pixels=self._max_pixels)
            ).outcome
            self._metrics.shadow.inc()
            if outcome != served.outcome:
                self._metrics.disagreements.labels(served.outcome, outcome).inc()
        except Exception:  # whatever ails the second model is a figure, never an answer
            self._metrics.shadow_lost.labels("error").inc()
        finally:
            self._room.release()
