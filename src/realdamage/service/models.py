"""The model that answers, and how another takes its place while requests are under way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from realdamage.core.decode import UInt8Array
from realdamage.core.detector import PACKAGED_MODEL, Detector
from realdamage.core.model_file import ModelMetadata, read_model_file, stored_policy_sha256
from realdamage.core.scorer import OnnxScorer, TileScorer
from realdamage.errors import ModelFileError, RealDamageError
from realdamage.service.batching import BatchingScorer
from realdamage.service.metrics import Metrics
from realdamage.service.settings import Settings


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A network with its metadata, ready for many requests at once."""

    scorer: BatchingScorer
    metadata: ModelMetadata
    graph_sha256: str
    policy_sha256: str
    allow_demo: bool

    def detector(self, deadline: float, prior: float | None = None) -> Detector:
        """For one request, with its own prior; tiles are dropped at its deadline. Raises UsageError on the prior."""
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
            self.scorer(_grey_tile(self.metadata))
        except Exception:  # whatever a network raises
            return False
        return True

    def to_dict(self) -> dict[str, Any]:
        """What GET /v1/model says."""
        policy, calibration = self.metadata.policy, self.metadata.calibration
        return {
            "model_version": self.metadata.model_version,
            "graph_sha256": self.graph_sha256,
            "backbone": self.metadata.backbone,
            "demo": self.metadata.demo,
            "allow_demo": self.allow_demo,
            "labels": list(self.metadata.labels),
            "pixel_spec": self.metadata.pixel_spec.to_dict(),
            "calibration": calibration.to_dict() if calibration else None,
            "policy": policy.to_dict() if policy else None,
        }


class ModelSlot:
    """Holds the model that answers. `load` may be called again at any time; whoever has the old one keeps it."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._loading = threading.Lock()
        self._model: ServedModel | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether requests can be answered."""
        return self._model is not None

    def get(self) -> ServedModel:
        """The model that answers now. Raises RealDamageError before the first `load`."""
        if self._model is None:
            raise RealDamageError("no model is loaded yet")
        return self._model

    def load(self) -> ServedModel:
        """Read the file of the settings, try it on a tile, and let it answer. Raises ModelFileError; the model that was
        there then stays."""
        with self._loading:
            before = self._model
            try:
                model = load_model(
                    self._settings.model, self._settings, observe=self._metrics.observe_batch
                )
            except Exception:
                self._metrics.reloads.labels("kept_old" if before else "failed").inc()
                raise
            self._model = model
            self._metrics.reloads.labels("loaded").inc()
            self._metrics.show_model(model.metadata.model_version, model.graph_sha256)
        if before is not None:
            before.scorer.close()
        return model

    def close(self) -> None:
        """Stop the thread of the model, when all requests are done."""
        if self._model is not None:
            self._model.scorer.close()


def load_model(
    path: Path | None, settings: Settings, *, observe: Callable[[int, int], None] | None = None
) -> ServedModel:
    """A model file, tried on one tile. Raises ModelFileError naming the file."""
    path = path or PACKAGED_MODEL
    data, metadata, digest = read_model_file(path)
    patches = metadata.pixel_spec.tile // metadata.pixel_spec.patch
    try:
        scorer: TileScorer = OnnxScorer(data, threads=settings.threads)
        logit, evidence = scorer(_grey_tile(metadata))
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    if (
        logit.shape != (1,)
        or evidence.shape != (1, patches, patches)
        or not np.isfinite(evidence).all()
    ):
        raise ModelFileError(
            f"{path}: for a grey tile the model returned logit {list(logit.shape)}, evidence {list(evidence.shape)}, "
            f"but its metadata says {patches}x{patches} finite values; export it again"
        )
    batching = BatchingScorer(scorer, batch_tiles=settings.batch_tiles, observe=observe)
    return ServedModel(batching, metadata, digest, stored_policy_sha256(data), settings.allow_demo)


def _grey_tile(metadata: ModelMetadata) -> UInt8Array:
    side = metadata.pixel_spec.tile
    return np.full((1, side, side, 3), 128, np.uint8)
