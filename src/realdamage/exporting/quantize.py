"""Ships a smaller, faster variant of a model only when it judges photos as well as the model itself: what rounding
costs is measured, never assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from realdamage.core.decoding import UInt8Array
from realdamage.core.detector import Detector
from realdamage.core.metadata import ModelMetadata, read_model_file, write_model_file
from realdamage.core.photo import PixelSpec, cover, read_photo
from realdamage.core.progress import Track, no_progress
from realdamage.core.scorer import OnnxScorer
from realdamage.data.manifest import Manifest
from realdamage.errors import ManifestError, MissingExtraError, ModelFileError, UsageError
from realdamage.evaluation.sampling import draw_photos
from realdamage.exporting.quantized_gate import (
    ENOUGH_NEGATIVES,
    Drop,
    Limits,
    Variant,
    measure_variants,
    negatives,
)
from realdamage.rendering.words import signed

VARIANTS = ("int8", "fp16")
MIN_PHOTOS = 20
# The ranges of integers need variety more than all tiles of a photo.
_TILES_PER_PHOTO = 4
_NAME = 20  # width of a column


@dataclass(frozen=True)
class Quantization:
    """All variants that were measured and the one that was written, None when none may be.

    negatives: which real photos the false positive rate is over; n_negatives, n_synthetic: how many. mb: size of
    the model.
    """

    model: Path
    graph_sha256: str
    mb: float
    split: str
    negatives: str
    n_negatives: int
    n_synthetic: int
    threads: int
    variants: tuple[Variant, ...]
    chosen: str | None
    output: Path | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; each variant carries its faults."""
        variants = [{**asdict(each), "faults": list(each.faults)} for each in self.variants]
        paths = {"model": str(self.model), "output": str(self.output) if self.output else None}
        return {**asdict(self), **paths, "variants": variants}


def quantize_model(
    path: str | Path,
    manifest: Manifest,
    *,
    split: str = "val",
    limit: int = 300,
    calibration_photos: int = 64,
    variants: Sequence[str] = VARIANTS,
    max_tpr_drop: float = 0.01,
    max_ap_drop: float = 0.01,
    threads: int = 2,
    seed: int = 0,
    output: str | Path | None = None,
    progress: Track = no_progress,
) -> Quantization:
    """Makes the variants, measures them beside the model on the same photos, and writes the fastest that is as good.

    split, limit: the photos that decide, whole groups of them. calibration_photos: of the split `train`, for the ranges
    of integers. variants: of `VARIANTS`; when int8 everywhere fails, int8 in the convolutions only and in the
    MatMuls only are tried too. max_tpr_drop: of the true positive rate at 1% false positives over really damaged
    photos, over all real ones where those are fewer than 100; max_ap_drop: of the patches' average precision.
    output: by default `MODEL.int8.onnx` or `MODEL.fp16.onnx` beside the model. What is written has neither calibration
    nor policy: scores have moved.

    Raises UsageError: an option out of range, the split `train`, `output` is the model; ManifestError: a split or a
    class is missing; ModelFileError: no model of ours, a demonstration model, one that is quantized already;
    RealDamageError: the model itself finds nothing, so that nothing could be lost; MissingExtraError: no `onnx`.
    """
    path = Path(path)
    _check_options(split, limit, calibration_photos, variants, (max_tpr_drop, max_ap_drop), threads)
    if output is not None and Path(output).resolve() == path.resolve():
        raise UsageError(
            f"output={output} is the model itself, which the variant is measured against; name another"
        )
    data, metadata, digest = read_model_file(path)
    if metadata.demo:
        raise ModelFileError(
            f"{path}: a demonstration model, whose figures mean nothing; quantize one that judges"
        )
    photos = draw_photos(manifest.select(split=split), limit, seed)
    counts = photos.table["label"].value_counts()
    if len(counts) < 2:
        raise ManifestError(
            f"{manifest.root}: split {split!r} has only {counts.index[0]} photos ({len(photos)}); figures need both "
            "classes. Add photos of the other class, or name another split."
        )
    train = draw_photos(manifest.select(split="train"), calibration_photos, seed)
    makers = _makers(path, data, partial(_calibration_tiles, train, metadata.pixel_spec, seed))
    bare = replace(metadata, calibration=None, policy=None)

    def measure(made: dict[str, bytes]) -> tuple[Variant, ...]:
        base = _detector(data, bare, threads)
        detectors = {
            name: (_detector(graph, bare, threads), len(graph) / 1e6)
            for name, graph in made.items()
        }
        limits = Limits(max_tpr_drop, max_ap_drop)
        return measure_variants(base, detectors, photos, limits, seed=seed, progress=progress)

    made = {name: makers[name]() for name in variants}
    measured = measure(made)
    if any(each.name == "int8" and each.faults for each in measured):
        parts = {name: make() for name, make in makers.items() if name not in VARIANTS}
        if parts:
            made |= parts
            measured += measure(parts)
    best = min(
        (each for each in measured if not each.faults), key=lambda each: each.ratio, default=None
    )
    target = None
    if best is not None:
        target = Path(output or path.with_suffix(f".{best.name.split()[0]}.onnx"))
        origin = {"variant": best.name, "float_graph_sha256": digest, "time_ratio": best.ratio}
        write_model_file(
            target, made[best.name], replace(bare, training={**bare.training, "quantized": origin})
        )
    negatives_name, negative = negatives(photos.table)
    return Quantization(
        model=path,
        graph_sha256=digest,
        mb=len(data) / 1e6,
        split=split,
        negatives=negatives_name,
        n_negatives=int(negative.sum()),
        n_synthetic=int(counts["synthetic"]),
        threads=threads,
        variants=measured,
        chosen=best.name if best else None,
        output=target,
    )


def summary_text(summary: Quantization) -> str:
    """The table of all variants as lines for a terminal, and what was written."""
    few = summary.n_negatives < ENOUGH_NEGATIVES
    lines = [
        f"{summary.n_negatives} {summary.negatives} and {summary.n_synthetic} synthetic photos of split "
        f"{summary.split!r}, {summary.threads} threads; drop = model - variant, with its 95% interval",
        *(
            ["1% false positives of so few photos means none at all; more photos: --limit"]
            if few
            else []
        ),
        "",
        f"{'':<{_NAME}}{'TPR at 1% FPR':>14}{'drop':>8} {'':<20}{'AP':>7}{'drop':>8} {'':<20}{'MB':>6}{'ms':>8}"
        f"{'time':>7}",
        _base_line(summary),
        *(_line(each) for each in summary.variants),
        "",
    ]
    if summary.output is None:
        return "\n".join([*lines, "No variant is as good and faster: nothing was written."])
    return "\n".join(
        [
            *lines,
            f"{summary.chosen}: written to {summary.output}. Its scores have moved, so it has no thresholds yet: run "
            f"realdamage calibrate on it.",
        ]
    )


def _base_line(summary: Quantization) -> str:
    first = summary.variants[0]
    ap = f"{first.ap.base:.3f}" if first.ap else "–"
    return f"{'the model':<{_NAME}}{first.tpr.base:>14.3f}{'':<29}{ap:>7}{'':<29}{summary.mb:>6.1f}{first.base_ms:>8.1f}"


def _line(each: Variant) -> str:
    ap = _drop(each.ap) if each.ap else f"{'–':>7}{'–':>8} {'':<20}"
    speed = f"{each.mb:>6.1f}{each.ms:>8.1f}{each.ratio:>6.2f}×"
    return f"{each.name:<{_NAME}}{_drop(each.tpr, 14)}{ap}{speed}  {'; '.join(each.faults) or 'as good, and faster'}"


def _drop(drop: Drop, width: int = 7) -> str:
    interval = (
        ""
        if drop.low is None or drop.high is None
        else f"({signed(drop.low)} to {signed(drop.high)})"
    )
    return f"{drop.variant:>{width}.3f}{signed(drop.drop):>8} {interval:<20}"


def _detector(graph: bytes, metadata: ModelMetadata, threads: int) -> Detector:
    return Detector(OnnxScorer(graph, threads=threads), metadata)


def _makers(
    path: Path, data: bytes, tiles: Callable[[], UInt8Array]
) -> dict[str, Callable[[], bytes]]:
    """What makes each variant, by name; `tiles` is asked once, when integers are. Raises ModelFileError, naming the
    file."""
    try:
        from realdamage.exporting import quantized_graph
    except ModuleNotFoundError as error:
        raise MissingExtraError("realdamage quantize", "train", error.name) from None
    try:
        model = quantized_graph.prepared(data)
        layers = quantized_graph.find_layers(model)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    once = cache(tiles)
    nodes = {"int8": layers.convolutions + layers.products}
    if layers.convolutions and layers.products:
        nodes |= {"int8 convolutions": layers.convolutions, "int8 MatMuls": layers.products}

    def integers(names: tuple[str, ...]) -> bytes:
        return quantized_graph.to_int8(model, names, once())

    half = partial(quantized_graph.to_fp16, model, layers.front + layers.heads)
    return {"fp16": half, **{name: partial(integers, own) for name, own in nodes.items()}}


def _calibration_tiles(photos: Manifest, spec: PixelSpec, seed: int) -> UInt8Array:
    """uint8 [n, tile, tile, 3]: a few of each photo, drawn at random."""
    rng = np.random.default_rng(seed)
    drawn = []
    for file_name in photos.table["file_name"]:
        tiles = cover(read_photo(photos.path(file_name), spec).rgb, spec).tiles
        drawn.append(tiles[rng.permutation(len(tiles))[:_TILES_PER_PHOTO]])
    return np.concatenate(drawn)


def _check_options(
    split: str,
    limit: int,
    calibration_photos: int,
    variants: Sequence[str],
    drops: tuple[float, float],
    threads: int,
) -> None:
    if split == "train":
        raise UsageError(
            "split=train: on photos it was trained on a model loses nothing; take val or test"
        )
    for name, number in (("limit", limit), ("calibration_photos", calibration_photos)):
        if number < MIN_PHOTOS:
            raise UsageError(
                f"{name}={number} must be at least {MIN_PHOTOS}: fewer photos tell nothing"
            )
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown or not variants:
        raise UsageError(
            f"variants: found {unknown[0] if unknown else 'none'!r}, there are {', '.join(VARIANTS)}"
        )
    for name, drop in zip(("max_tpr_drop", "max_ap_drop"), drops, strict=True):
        if not 0 <= drop < 1:
            raise UsageError(
                f"{name}={drop} must be at least 0 and below 1: it is a difference of shares"
            )
    if threads < 1:
        raise UsageError(f"threads={threads} must be at least 1")
