"""The network that answers, shared by all threads."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from realdamage.core.decode import Float32Array, UInt8Array
from realdamage.core.detector import PACKAGED_MODEL, Detector
from realdamage.core.model_file import ModelMetadata, read_model_file, stored_policy_sha256
from realdamage.core.scorer import OnnxScorer, TileScorer
from realdamage.errors import ModelFileError
from realdamage.service.limits import DeadlineError
from realdamage.service.settings import Settings

_PATIENCE_S = 5.0  # for the network's turn, of a probe


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
    def load(cls, settings: Settings) -> ServedModel:
        """Read the model file and try it on a tile. Raises ModelFileError with the file's name."""
        path = settings.model or PACKAGED_MODEL
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


def _grey_tile(metadata: ModelMetadata) -> UInt8Array:
    side = metadata.pixel_spec.tile
    return np.full((1, side, side, 3), 128, np.uint8)
