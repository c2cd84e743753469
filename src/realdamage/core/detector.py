"""The detector: a photo in, a verdict out, from one ONNX file and without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from PIL import Image

from realdamage.core.decode import Float32Array, PhotoSource, UInt8Array
from realdamage.core.model_file import ModelMetadata, read_model_file, stored_policy_sha256
from realdamage.core.policy import Outcome, check_prior
from realdamage.core.pooling import pool
from realdamage.core.progress import read_ahead
from realdamage.core.quality import PhotoQuality
from realdamage.core.scorer import DescribedScorer, OnnxScorer, TileScorer
from realdamage.core.spans import span
from realdamage.core.tiles import Photo, PixelSpec, assemble, cover, read_photo
from realdamage.core.verdict import HOT, Reason, Verdict, find_regions
from realdamage.errors import ModelFileError, PhotoError, UsageError
from realdamage.phrases import phrase

PACKAGED_MODEL = Path(__file__).resolve().with_name("reference.onnx")
BATCH_TILES = 32
"""Tiles of one call of the network, which limits the memory."""


class Detector:
    """Judges photos with one network. Several threads may share it; it can be pickled.

    model: path of a model file, None for the model in the package, or a network.
    metadata: how to cut, pool and judge; only for a network, since a model file has its own, and so
        has a network on a server (`TritonScorer`).
    device: "cpu" or "cuda". threads: see OnnxScorer.
    prior: share of synthetic photos among yours, in 0..1 exclusive; changes `probability` only.
    allow_demo: let a demo model say synthetic.
    graph_sha256, policy_sha256: digests of the network and the metadata; only for a network.

    Raises ModelFileError, naming the file; UsageError on a wrong option, or a prior without
    calibration.
    """

    def __init__(
        self,
        model: str | Path | TileScorer | None = None,
        metadata: ModelMetadata | None = None,
        *,
        device: str = "cpu",
        threads: int | None = None,
        prior: float | None = None,
        allow_demo: bool = False,
        graph_sha256: str = "",
        policy_sha256: str = "",
    ) -> None:
        self.path: Path | None = None
        """The model file; None for a network."""
        if model is None or isinstance(model, str | Path):
            self.path = Path(model or PACKAGED_MODEL)
            data, metadata, graph_sha256 = read_model_file(self.path)
            policy_sha256 = stored_policy_sha256(data)
            try:
                model = OnnxScorer(data, threads=threads, device=device)
            except ModelFileError as error:
                raise ModelFileError(f"{self.path}: {error}", code=error.code) from error
        elif metadata is None and isinstance(model, DescribedScorer):
            metadata = model.metadata
            graph_sha256, policy_sha256 = model.graph_sha256, model.policy_sha256
        if metadata is None:
            raise UsageError("a network without a model file needs its metadata")
        if prior is not None:
            check_prior(prior)
            if metadata.calibration is None:
                raise UsageError(
                    "a prior needs a calibrated model; run `realdamage calibrate` on it first"
                )
        self.metadata = metadata
        self.graph_sha256 = graph_sha256
        self.policy_sha256 = policy_sha256
        self.prior = prior
        self._scorer: TileScorer = model
        self._allow_demo = allow_demo

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        device: str = "cpu",
        threads: int | None = None,
        prior: float | None = None,
        allow_demo: bool = False,
    ) -> Detector:
        """Load a model file; without a path, the model in the package. The same as `Detector`."""
        return cls(path, device=device, threads=threads, prior=prior, allow_demo=allow_demo)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        prior: float | None = None,
        allow_demo: bool = False,
    ) -> Detector:
        """Load a model of the Hugging Face Hub ("user/model"), or of a folder.

        revision: branch, tag or commit on the Hub. The other options are those of `Detector`.

        Raises ModelFileError when the model is not there or the Hub cannot be reached;
        MissingExtraError without huggingface_hub.
        """
        from realdamage.core.hub import find_model

        path = find_model(source, revision)
        return cls(path, device=device, threads=threads, prior=prior, allow_demo=allow_demo)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        licence: str = "",
        push_to_hub: bool = False,
        repo_id: str | None = None,
        private: bool | None = None,
    ) -> Path:
        """Write model.onnx, its card as README.md and config.json into a folder, and return it.

        licence: of the model, as the Hub names it ("apache-2.0").
        push_to_hub: also upload the three files to `repo_id` ("user/model"), which is made if it
            does not exist; private or not.

        Raises UsageError for a detector without a model file; MissingExtraError without
        huggingface_hub; ModelFileError when the upload fails.
        """
        from realdamage.core.hub import push_folder, write_folder

        if push_to_hub and not repo_id:
            raise UsageError('push_to_hub=True needs repo_id="user/model"')
        if self.path is None or not isinstance(self._scorer, OnnxScorer):
            raise UsageError("this detector has no model file; load one with Detector(path)")
        write_folder(Path(folder), self._scorer.data, self.metadata, self.path, licence)
        if push_to_hub and repo_id:
            push_folder(Path(folder), repo_id, private)
        return Path(folder)

    def __repr__(self) -> str:
        calibrated = "calibrated" if self.metadata.calibration else "not calibrated"
        version, digest = self.metadata.model_version, self.graph_sha256[:12]
        return f"Detector({version!r}, graph {digest}, {calibrated})"

    @property
    def pixel_spec(self) -> PixelSpec:
        """How photos are cut into tiles."""
        return self.metadata.pixel_spec

    @overload
    def predict(  # type: ignore[overload-overlap]  # text and bytes are iterable too
        self, source: PhotoSource, *, on_error: Literal["raise"] = "raise"
    ) -> Verdict: ...
    @overload
    def predict(self, source: PhotoSource, *, on_error: str) -> Verdict | PhotoError: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, source: Iterable[Any], *, on_error: str = "raise") -> list[Any]: ...
    def predict(self, source: Any, *, on_error: str = "raise") -> Verdict | PhotoError | list[Any]:
        """Judge a photo: bytes, a path, an open file, a PIL image, uint8 [h, w, 3] RGB; or several.

        An unreadable photo raises PhotoError; with `on_error="return"` the error is returned
        instead of its verdict. For very many photos, see `predict_each`.
        """
        _check_on_error(on_error)
        if _is_several(source):
            return list(self.predict_each(source, on_error=on_error))
        try:
            return self.predict_photo(read_photo(source, self.pixel_spec))
        except PhotoError as error:
            if on_error == "raise":
                raise
            return error

    __call__ = predict

    def predict_each(
        self, sources: Iterable[Any], *, on_error: str = "raise"
    ) -> Iterator[Verdict | PhotoError]:
        """Judge photos as their verdicts are asked for: the sources may be endless.

        One photo is read ahead while the network judges another, so at most two are in memory.
        """
        _check_on_error(on_error)

        def read(numbered: tuple[int, Any]) -> Photo | PhotoError:
            index, source = numbered
            name = str(source) if isinstance(source, str | Path) else f"photo {index} of the list"
            try:
                photo = read_photo(source, self.pixel_spec, name=name)
            except PhotoError as error:
                if on_error == "raise":
                    raise
                return error
            _ = photo.quality  # measured here, in parallel with the network
            return photo

        for photo in read_ahead(read, enumerate(sources)):
            yield photo if isinstance(photo, PhotoError) else self.predict_photo(photo)

    def predict_photo(self, photo: Photo) -> Verdict:
        """Judge a photo that `read_photo` has read with this detector's `pixel_spec`.

        Raises ModelFileError when the network returns other shapes than its metadata says, or NaN.
        """
        spec = self.pixel_spec
        tiles = cover(photo.rgb, spec)
        with ThreadPoolExecutor(1) as thread:
            measured = thread.submit(lambda: photo.quality)  # while the network runs
            with span("score"):
                logit, evidence = self._score(tiles.tiles)
            quality = measured.result()
        score = float(
            pool(logit.astype(np.float64), evidence.astype(np.float64), self.metadata.pooling)
        )
        rows, cols = (-(-side // spec.patch) for side in photo.rgb.shape[:2])
        heatmap = _sigmoid(assemble(evidence, tiles, spec)[:rows, :cols])
        cell = spec.patch / photo.scale
        hot_share = float(np.mean(heatmap >= HOT))
        outcome, reasons = self._decide(score, hot_share, quality, photo.scale)
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
            quality=quality,
            hot_share=hot_share,
            path=photo.path,
        )

    def _score(self, tiles: UInt8Array) -> tuple[Float32Array, Float32Array]:
        batches = [
            self._scorer(tiles[start : start + BATCH_TILES])
            for start in range(0, len(tiles), BATCH_TILES)
        ]
        logit, evidence = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        side = self.pixel_spec.tile // self.pixel_spec.patch
        if logit.shape != (len(tiles),) or evidence.shape != (len(tiles), side, side):
            raise ModelFileError(
                f"for {len(tiles)} tiles the model returned logit {list(logit.shape)} and evidence "
                f"{list(evidence.shape)}, but its metadata says {side}x{side} patches a tile; "
                "export it again"
            )
        if not (np.isfinite(logit).all() and np.isfinite(evidence).all()):
            raise ModelFileError(
                "the model returned values that are not finite numbers; export it again in float32"
            )
        return logit, evidence

    def _decide(
        self, score: float, hot_share: float, quality: PhotoQuality, scale: float
    ) -> tuple[Outcome, tuple[Reason, ...]]:
        policy = self.metadata.policy
        found = []
        if policy is None or self.metadata.calibration is None:
            outcome: Outcome = "review"
            found.append(phrase("not_calibrated"))
        else:
            outcome = policy.outcome(score)
            if outcome == "review":
                found.append(phrase("between_thresholds"))
            if policy.whole_photo_share is not None and hot_share >= policy.whole_photo_share:
                outcome = "review"
                found.append(phrase("whole_photo_processed"))
            is_shrunk = policy.min_scale is not None and scale < policy.min_scale
            if is_shrunk and outcome == "synthetic":
                outcome = "review"
                found.append(phrase("shrunk", scale=f"{scale:.0%}"))
            if policy.gate is not None and (faults := policy.gate.faults(quality)):
                outcome = "review"  # also instead of real: a photo without detail proves nothing
                found += faults
        if self.metadata.demo and not self._allow_demo:
            outcome = "review" if outcome == "synthetic" else outcome
            found.append(phrase("demo_model"))
        return outcome, tuple(Reason.of(one.template, one) for one in found)


def _check_on_error(on_error: str) -> None:
    if on_error not in ("raise", "return"):
        raise UsageError(f"on_error={on_error!r} must be 'raise' or 'return'")


def _is_several(source: Any) -> bool:
    single = (bytes, bytearray, memoryview, str, Path, Image.Image, np.ndarray)
    return (
        isinstance(source, Iterable)
        and not isinstance(source, single)
        and not hasattr(source, "read")
    )


def _sigmoid(x: Float32Array) -> Float32Array:
    return np.float32(0.5) * (np.tanh(x / 2) + np.float32(1))
