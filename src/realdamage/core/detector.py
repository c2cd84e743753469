"""The wrapper: a photo in, a verdict out, from one ONNX file and without torch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from realdamage.core.decoding import Float32Array, PhotoSource, UInt8Array
from realdamage.core.metadata import ModelMetadata, read_model_file, stored_policy_sha256
from realdamage.core.photo import Photo, PixelSpec, assemble, cover, read_photo
from realdamage.core.policy import Outcome, check_prior
from realdamage.core.pooling import pool
from realdamage.core.quality import PhotoQuality
from realdamage.core.regions import HOT, find_regions
from realdamage.core.scorer import OnnxScorer, TileScorer
from realdamage.core.verdict import Reason, Verdict
from realdamage.errors import ModelFileError, PhotoError, UsageError
from realdamage.phrases.sentences import phrase

__all__ = ["PACKAGED_MODEL", "Detector", "OnnxScorer", "TileScorer"]

PACKAGED_MODEL = Path(__file__).resolve().with_name("reference.onnx")

_NOT_CALIBRATED, _BETWEEN_THRESHOLDS, _DEMO_MODEL, _WHOLE_PHOTO_PROCESSED = (
    Reason.of(code, phrase(code))
    for code in ("not_calibrated", "between_thresholds", "demo_model", "whole_photo_processed")
)


class Detector:
    """Judges photos with one network; safe to call from several threads when the scorer is.

    scorer: the network. metadata: how to cut, pool and judge. graph_sha256: the network's digest, copied into verdicts.
    policy_sha256: the digest of the metadata that the model file holds, copied into claims; "" without a file.
    prior: share of synthetic photos among yours, above 0 and below 1; re-weights `probability`, never the outcome.
    allow_demo: let a demo model say synthetic. batch_tiles: tiles per call of the scorer, which bounds the memory.

    Raises UsageError on a prior out of range, or on any prior when the model is not calibrated.
    """

    def __init__(
        self,
        scorer: TileScorer,
        metadata: ModelMetadata,
        *,
        graph_sha256: str = "",
        policy_sha256: str = "",
        prior: float | None = None,
        allow_demo: bool = False,
        batch_tiles: int = 32,
    ) -> None:
        if prior is not None:
            check_prior(prior)
            if metadata.calibration is None:
                raise UsageError(
                    "a prior needs a calibrated model; run `realdamage calibrate` on it first"
                )
        if batch_tiles < 1:
            raise UsageError(f"batch_tiles={batch_tiles} must be at least 1")
        self.metadata = metadata
        self.graph_sha256 = graph_sha256
        self.policy_sha256 = policy_sha256
        self._scorer = scorer
        self.prior = prior
        self._allow_demo = allow_demo
        self._batch_tiles = batch_tiles

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        prior: float | None = None,
        allow_demo: bool = False,
    ) -> Detector:
        """Load a model file; without a path, the reference model inside the package.

        threads, providers: see OnnxScorer. prior, allow_demo: see Detector. Raises ModelFileError naming the file.
        """
        if path is None:
            if not PACKAGED_MODEL.exists():
                raise ModelFileError(
                    "this release carries no reference model; name one with --model or Detector.load(path). "
                    "To make one: realdamage-train +experiment=quickstart, then realdamage-export checkpoint=…"
                )
            path = PACKAGED_MODEL
        data, metadata, graph_sha256 = read_model_file(path)
        try:
            scorer = OnnxScorer(data, threads=threads, providers=providers)
        except ModelFileError as error:
            raise ModelFileError(f"{path}: {error}") from error
        return cls(
            scorer,
            metadata,
            graph_sha256=graph_sha256,
            policy_sha256=stored_policy_sha256(data),
            prior=prior,
            allow_demo=allow_demo,
        )

    @property
    def pixel_spec(self) -> PixelSpec:
        """How photos are cut into tiles."""
        return self.metadata.pixel_spec

    @overload
    def predict(self, source: PhotoSource, *, on_error: Literal["raise"] = "raise") -> Verdict: ...

    @overload
    def predict(
        self, source: list[Any] | tuple[Any, ...], *, on_error: Literal["raise"] = "raise"
    ) -> list[Verdict]: ...

    @overload
    def predict(
        self, source: PhotoSource, *, on_error: Literal["return"]
    ) -> Verdict | PhotoError: ...

    @overload
    def predict(
        self, source: list[Any] | tuple[Any, ...], *, on_error: Literal["return"]
    ) -> list[Verdict | PhotoError]: ...

    def predict(
        self,
        source: PhotoSource | list[Any] | tuple[Any, ...],
        *,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Verdict | PhotoError | Sequence[Verdict | PhotoError]:
        """Judge a photo: bytes, a path, a PIL image or a uint8 [h, w, 3] RGB array; or a list of them.

        Of a list, the next photo is read while the network judges the one before: two are in memory at a time.
        A photo that cannot be read raises PhotoError, naming it; with `on_error="return"` that error stands in the
        place of its verdict, and the others of a list are still judged.
        Raises UsageError on another `on_error`.
        """
        if on_error not in ("raise", "return"):
            raise UsageError(f"on_error={on_error!r} must be 'raise' or 'return'")
        if isinstance(source, list | tuple):
            return self._predict_each(source, on_error)
        try:
            return self.predict_photo(read_photo(source, self.pixel_spec))
        except PhotoError as error:
            if on_error == "raise":
                raise
            return error

    def predict_photo(self, photo: Photo) -> Verdict:
        """Judge a photo that `read_photo` has read with this detector's `pixel_spec`.

        The score is pooled over all tiles; the heat map is the sigmoid of their evidence, cut to the photo.
        Raises ModelFileError when the network returns other shapes than its metadata says, or no finite numbers.
        """
        spec = self.pixel_spec
        tiles = cover(photo.rgb, spec)
        logit, evidence = self._score(tiles.tiles)
        score = float(
            pool(logit.astype(np.float64), evidence.astype(np.float64), self.metadata.pooling)
        )
        rows, cols = (-(-side // spec.patch) for side in photo.rgb.shape[:2])
        heatmap = _sigmoid(assemble(evidence, tiles, spec)[:rows, :cols])
        cell = spec.patch / photo.scale
        hot_share = float(np.mean(heatmap >= HOT))
        outcome, reasons = self._decide(score, hot_share, photo.quality)
        calibration = self.metadata.calibration
        return Verdict(
            outcome=outcome,
            score=score,
            probability=calibration.probability(score, self.prior) if calibration else None,
            heatmap=heatmap,
            cell=cell,
            regions=find_regions(heatmap, cell, (photo.width, photo.height)),
            reasons=reasons,
            photo_sha256=photo.sha256,
            graph_sha256=self.graph_sha256,
            model_version=self.metadata.model_version,
            width=photo.width,
            height=photo.height,
            quality=photo.quality,
            hot_share=hot_share,
        )

    def _predict_each(
        self, sources: Sequence[PhotoSource], on_error: Literal["raise", "return"]
    ) -> list[Verdict | PhotoError]:
        def read(index: int) -> Photo | PhotoError | None:
            if index >= len(sources):
                return None
            name = _name_in_list(sources[index], index)
            try:
                photo = read_photo(sources[index], self.pixel_spec, name=name)
            except PhotoError as error:
                if on_error == "raise":
                    raise
                return error
            _ = photo.quality  # measured here, beside the network
            return photo

        found: list[Verdict | PhotoError] = []
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(read, 0)
            while (photo := ahead.result()) is not None:
                ahead = reader.submit(read, len(found) + 1)
                found.append(photo if isinstance(photo, PhotoError) else self.predict_photo(photo))
        return found

    def _score(self, tiles: UInt8Array) -> tuple[Float32Array, Float32Array]:
        batches = [
            self._scorer(tiles[start : start + self._batch_tiles])
            for start in range(0, len(tiles), self._batch_tiles)
        ]
        logit, evidence = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        side = self.pixel_spec.tile // self.pixel_spec.patch
        if logit.shape != (len(tiles),) or evidence.shape != (len(tiles), side, side):
            raise ModelFileError(
                f"for {len(tiles)} tiles the model returned logit {list(logit.shape)} and evidence "
                f"{list(evidence.shape)}, but its metadata says {side}x{side} patches a tile; export it again"
            )
        if not (np.isfinite(logit).all() and np.isfinite(evidence).all()):
            raise ModelFileError(
                "the model returned values that are not finite numbers; export it again in float32"
            )
        return logit, evidence

    def _decide(
        self, score: float, hot_share: float, quality: PhotoQuality
    ) -> tuple[Outcome, tuple[Reason, ...]]:
        policy = self.metadata.policy
        reasons = []
        if policy is None or self.metadata.calibration is None:
            outcome: Outcome = "review"
            reasons.append(_NOT_CALIBRATED)
        else:
            outcome = policy.outcome(score)
            if outcome == "review":
                reasons.append(_BETWEEN_THRESHOLDS)
            if policy.whole_photo_share is not None and hot_share >= policy.whole_photo_share:
                outcome = "review"
                reasons.append(_WHOLE_PHOTO_PROCESSED)
            if policy.gate is not None and (faults := policy.gate.faults(quality)):
                outcome = (
                    "review"  # also instead of real: a photo that shows nothing proves nothing
                )
                reasons += [Reason.of(fault.template, fault) for fault in faults]
        if self.metadata.demo and not self._allow_demo:
            outcome = "review" if outcome == "synthetic" else outcome
            reasons.append(_DEMO_MODEL)
        return outcome, tuple(reasons)


def _name_in_list(source: Any, index: int) -> str | None:
    return None if isinstance(source, str | Path) else f"photo {index} of the list"


def _sigmoid(x: Float32Array) -> Float32Array:
    return np.float32(0.5) * (np.tanh(x / 2) + np.float32(1))
