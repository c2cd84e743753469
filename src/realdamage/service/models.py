"""The network that answers, shared by all threads, and a shadow model that never does."""

from __future__ import annotations

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from realdamage.core.decode import Float32Array, UInt8Array
from realdamage.core.detector import PACKAGED_MODEL, Detector
from realdamage.core.model_file import ModelMetadata, read_model_file, stored_policy_sha256
from realdamage.core.scorer import OnnxScorer, TileScorer
from realdamage.core.tiles import read_photo
from realdamage.core.verdict import Verdict
from realdamage.errors import ModelFileError
from realdamage.service.limits import DeadlineError
from realdamage.service.metrics import Metrics
from realdamage.service.settings import Settings

_PATIENCE_S = 5.0  # for the network's turn, of a probe
_SHADOW_WAITING = 8
"""Photos kept for the shadow model; more are skipped and counted."""


class SharedScorer:
    """One network for many threads, one run at a time: a run uses all the network's threads."""

    def __init__(self, scorer: TileScorer) -> None:
        self._scorer = scorer
        self._turn = threading.Semaphore(1)
        self.failed = False  # whether the last run raised

    def until(self, deadline: float) -> TileScorer:
        """A TileScorer that raises DeadlineError unless its turn comes by `deadline`."""

        def score(tiles: UInt8Array) -> tuple[Float32Array, Float32Array]:
            left = min(deadline - time.monotonic(), threading.TIMEOUT_MAX)
            if left <= 0 or not self._turn.acquire(timeout=left):
                raise DeadlineError
            try:
                scores = self._scorer(tiles)
            except Exception:
                self.failed = True
                raise
            finally:
                self._turn.release()
            self.failed = False
            return scores

        return score


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A network with its metadata, ready for many concurrent requests."""

    scorer: SharedScorer
    metadata: ModelMetadata
    graph_sha256: str
    policy_sha256: str
    allow_demo: bool

    @classmethod
    def load(cls, path: Path | None, settings: Settings) -> ServedModel:
        """Read a model file and try it on a tile. Raises ModelFileError with the file's name."""
        path = path or PACKAGED_MODEL
        data, metadata, digest = read_model_file(path)
        try:
            scorer = OnnxScorer(data, threads=settings.threads)
            scorer(_grey_tile(metadata))
        except ModelFileError as error:
            raise ModelFileError(f"{path}: {error}") from error
        policy = stored_policy_sha256(data)
        return cls(SharedScorer(scorer), metadata, digest, policy, settings.allow_demo)

    def detector(self, deadline: float, prior: float | None = None) -> Detector:
        """For one request. Raises UsageError when the model cannot use a prior."""
        return Detector(
            self.scorer.until(deadline),
            self.metadata,
            graph_sha256=self.graph_sha256,
            policy_sha256=self.policy_sha256,
            prior=prior,
            allow_demo=self.allow_demo,
        )

    def works(self) -> bool:
        """Try it on a grey tile."""
        try:
            self.scorer.until(time.monotonic() + _PATIENCE_S)(_grey_tile(self.metadata))
        except Exception:  # whatever a network raises
            return False
        return True

    def to_dict(self) -> dict[str, Any]:
        """What `schemas.ModelAnswer` picks from."""
        served = {"graph_sha256": self.graph_sha256, "allow_demo": self.allow_demo}
        return {**json.loads(self.metadata.to_json()), **served}


class Shadow:
    """A second model that scores some photos and never answers. Raises ModelFileError."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._model = ServedModel.load(settings.shadow_model, settings)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="realdamage-shadow")
        self._room = threading.BoundedSemaphore(_SHADOW_WAITING)

    def look(self, data: bytes, served: Verdict) -> None:
        """Maybe judge the photo, later, and count whether the outcome is that of `served`."""
        if random.random() >= self._settings.shadow_share:
            return
        if not self._room.acquire(blocking=False):
            self._metrics.shadow_lost.labels("full").inc()
            return
        self._pool.submit(self._judge, data, served)

    def close(self) -> None:
        """Drop the photos that wait. Does not wait for the one that is being judged."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _judge(self, data: bytes, served: Verdict) -> None:
        try:
            detector = self._model.detector(float("inf"))
            photo = read_photo(data, detector.pixel_spec, max_pixels=self._settings.max_pixels)
            outcome = detector.predict_photo(photo).outcome
            self._metrics.shadow.inc()
            if outcome != served.outcome:
                self._metrics.disagreements.labels(served.outcome, outcome).inc()
        except Exception:  # whatever is wrong with the second model is counted, never answered
            self._metrics.shadow_lost.labels("error").inc()
        finally:
            self._room.release()


def _grey_tile(metadata: ModelMetadata) -> UInt8Array:
    side = metadata.pixel_spec.tile
    return np.full((1, side, side, 3), 128, np.uint8)
