"""Makes an 8-bit variant of a model, and writes it only when it passes the recall check: it must
find as many synthetic photos and painted patches as the model itself, and be faster.

Convolutions and heads stay in float32. Generator traces are a few grey levels deep, and 255 steps
over the range of a residual are coarser than that (measured in data/results/LOG.md); the sums of
the heads decide. Weights use 7 of their 8 bits, because x86 processors with AVX2 but without VNNI
add two products in saturating 16 bits: 2 · 255 · 127 does not fit, 2 · 255 · 63 does.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pandas as pd
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from realdamage.core.detector import Detector
from realdamage.core.model_file import read_model_file, write_model_file
from realdamage.core.progress import Track, no_progress
from realdamage.core.scorer import OnnxScorer
from realdamage.core.tiles import PixelSpec, cover, read_photo
from realdamage.data.manifest import Manifest
from realdamage.errors import ManifestError, ModelFileError, UsageError
from realdamage.evaluation.figures import tpr_at_fpr
from realdamage.evaluation.localise import localisation_metrics
from realdamage.evaluation.predictions import score_manifest
from realdamage.evaluation.robustness import draw_photos

MIN_PHOTOS = 20
MAX_DROP = 0.01
"""Allowed loss of TPR and of localisation AP."""
ENOUGH_NEGATIVES = 100
"""With this many photos, one false alarm is at most 1%."""
_CALIBRATION_PHOTOS, _TILES_PER_PHOTO, _BATCH = 64, 4, 4  # variety matters more than all tiles


@dataclass(frozen=True)
class Recall:
    """A model's figures: tpr at 1% false positives; ap of the patches, None without masks; ms:
    median per photo, from its file to the verdict; mb: size of its graph."""

    tpr: float
    ap: float | None
    ms: float
    mb: float


@dataclass(frozen=True)
class Quantization:
    """The recall check. about: the photos that decided. faults: why nothing was written. output:
    what was written."""

    model: Recall
    variant: Recall
    about: str
    faults: tuple[str, ...]
    output: str | None


def quantize_model(
    path: str | Path,
    manifest: Manifest,
    output: str | Path | None = None,
    *,
    split: str = "val",
    limit: int = 300,
    threads: int = 2,
    progress: Track = no_progress,
) -> Quantization:
    """Makes the variant, checks it, and writes it to `output`, by default MODEL.int8.onnx, without
    calibration and policy, because the scores have moved.

    split, limit: the photos that decide.
    Raises UsageError: `output` is the model, or photos that cannot decide; ManifestError: a split
    or a class is missing; ModelFileError: a demonstration model, or one that cannot be quantized.
    """
    target = Path(output or Path(path).with_suffix(".int8.onnx"))
    if target.resolve() == Path(path).resolve():
        raise UsageError(f"output={output} is the model itself; name another file")
    if split == "train" or limit < MIN_PHOTOS:
        raise UsageError(
            f"split={split}, limit={limit}: needs at least {MIN_PHOTOS} photos that the model was "
            "not trained on"
        )
    data, metadata, digest = read_model_file(path)
    if metadata.demo:
        raise ModelFileError(f"{path}: is a demonstration model, so its figures mean nothing")
    photos = draw_photos(manifest.select(split=split), limit)
    if photos.table["label"].nunique() < 2:
        raise ManifestError(
            f"{manifest.root}: split {split!r} has photos of one class only; the recall "
            "check needs real and synthetic ones.",
            code="one_class",
        )
    train = draw_photos(manifest.select(split="train"), _CALIBRATION_PHOTOS)
    graph = to_int8(data, _tiles(train, metadata.pixel_spec))
    bare = replace(metadata, calibration=None, policy=None)
    model, variant = (
        _recall(Detector(OnnxScorer(each, threads=threads), bare), photos, len(each), progress)
        for each in (data, graph)
    )
    faults = check_recall(model, variant)
    if not faults:
        origin = {"variant": "int8", "float_graph_sha256": digest}
        training = {**bare.training, "quantized": origin}
        write_model_file(target, graph, replace(bare, training=training))
    negative = negatives(photos.table)
    kind = "really damaged" if (negative["kind"] == "damaged").all() else "real"
    synthetic = int((photos.table["label"] == "synthetic").sum())
    about = f"{len(negative)} {kind} and {synthetic} synthetic photos"
    return Quantization(model, variant, about, faults, None if faults else str(target))


def summary_text(found: Quantization) -> str:
    """The recall check as lines for a terminal."""
    names = {"tpr": "TPR at 1% FPR", "ap": "localisation AP", "mb": "MB", "ms": "ms a photo"}
    rows = pd.DataFrame([asdict(found.model), asdict(found.variant)], index=["model", "int8"])
    table = rows[list(names)].rename(columns=names).round(3).to_string(na_rep="–")
    end = f"Nothing was written: {'; '.join(found.faults)}."
    if found.output:
        end = f"Written to {found.output}. Its scores have moved: run realdamage calibrate on it."
    return f"on {found.about}:\n{table}\n{end}"


def negatives(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that false positives are counted on: really damaged photos, or all real ones where
    those are fewer than `ENOUGH_NEGATIVES`."""
    real = table[table["label"] == "real"]
    damaged = real[real["kind"] == "damaged"]
    return damaged if len(damaged) >= ENOUGH_NEGATIVES else real


def _recall(detector: Detector, photos: Manifest, size: int, progress: Track) -> Recall:
    table, evidence = score_manifest(detector, photos, progress=progress)
    synthetic = table.loc[table["label"] == "synthetic", "score"]
    return Recall(
        tpr=tpr_at_fpr(negatives(table)["score"], synthetic, 0.01),
        ap=localisation_metrics(evidence)["pixel_ap"] if evidence else None,
        ms=float(table["ms"].median()),
        mb=size / 1e6,
    )


def check_recall(model: Recall, variant: Recall) -> tuple[str, ...]:
    """Why the variant must not be written."""
    lost = {"TPR": model.tpr - variant.tpr}
    lost["localisation AP"] = (model.ap or 0) - (variant.ap or 0)
    faults = [
        f"{name} drops by {drop:.3f}, more than {MAX_DROP:g}"
        for name, drop in lost.items()
        if drop > MAX_DROP + 1e-9  # the last digit of a difference of k / n
    ]
    if model.tpr == 0:
        faults.append("nothing to lose: the model itself finds none of the synthetic photos")
    if variant.ms >= model.ms:
        faults.append("not faster")
    return tuple(faults)


def to_int8(data: bytes, tiles: npt.NDArray[np.uint8]) -> bytes:
    """The model with its inner matrix products in integers; their ranges are measured on `tiles`,
    uint8 [n, tile, tile, 3]. Raises ModelFileError: quantized already, or no inner product."""
    with tempfile.TemporaryDirectory() as folder:
        given, ready, made = (Path(folder) / f"{name}.onnx" for name in ("given", "ready", "made"))
        given.write_bytes(data)
        # Only the number of tiles is unknown: symbolic inference, which takes sympy, adds nothing.
        quant_pre_process(given, ready, skip_symbolic_shape=True)
        model = onnx.load_model(ready)
        for index, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{index}"
        onnx.save_model(model, ready)
        with contextlib.redirect_stdout(io.StringIO()):  # it reports every batch
            quantize_static(
                ready,
                made,
                _Batches(tiles),
                nodes_to_quantize=inner_products(model),
                per_channel=True,
                reduce_range=True,
                calibrate_method=CalibrationMethod.Percentile,
                # One odd tile must not stretch a range; batch by batch, to save memory.
                extra_options={"CalibPercentile": 99.999, "CalibStridedMinMax": 1},
            )
        return made.read_bytes()


def inner_products(model: onnx.ModelProto) -> list[str]:
    """Names of the matrix products with weights, except the heads, which have one output.

    Raises ModelFileError: there is none, or the weights are not in float32.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    found = [
        (node.name, weights[node.input[1]])
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights
    ]
    inner = [name for name, weight in found if 1 not in weight.dims]
    integers = any("Quantize" in node.op_type for node in model.graph.node)
    if not inner or integers or any(weight.data_type != 1 for _, weight in found):
        raise ModelFileError(
            "nothing to quantize: the network needs matrix products with float32 weights before "
            "its heads. Name the model that realdamage-export wrote.",
            code="nothing_to_quantize",
        )
    return inner


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Batches of tiles under the name of the network's input."""

    def __init__(self, tiles: npt.NDArray[np.uint8]) -> None:
        self._batches = [tiles[start : start + _BATCH] for start in range(0, len(tiles), _BATCH)]
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._left, None)
        return None if batch is None else {"tiles": batch}


def _tiles(photos: Manifest, spec: PixelSpec) -> npt.NDArray[np.uint8]:
    """uint8 [n, tile, tile, 3]: a few of each photo, drawn at random."""
    rng = np.random.default_rng(0)
    drawn = []
    for file_name in photos.table["file_name"]:
        tiles = cover(read_photo(photos.path(file_name), spec).rgb, spec).tiles
        drawn.append(tiles[rng.permutation(len(tiles))[:_TILES_PER_PHOTO]])
    return np.concatenate(drawn)
