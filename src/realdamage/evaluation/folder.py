"""What an evaluation left in its folder, and where the model and the photos behind it are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from realdamage.core.detector import Detector
from realdamage.core.model_file import ModelMetadata, read_model_file
from realdamage.core.policy import Policy
from realdamage.data.manifest import Manifest
from realdamage.data.readers import read_dataset
from realdamage.errors import ModelFileError, RealDamageError, UsageError
from realdamage.evaluation.predictions import FORMATS, read_predictions

METRICS_NAME = "metrics.json"


def find_predictions(path: str | Path) -> Path:
    """The predictions file at this path, or in this evaluation folder. Raises UsageError."""
    given = Path(path)
    for candidate in (given, *(given / f"predictions.{ending}" for ending in FORMATS)):
        if candidate.is_file():
            return candidate
    raise UsageError(
        f"{given}: no predictions.csv or predictions.parquet there; name a folder that "
        "realdamage-evaluate wrote"
    )


def read_evaluation(folder: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The predictions and metrics.json of an evaluation folder. Raises RealDamageError."""
    if Path(folder).is_file():
        raise UsageError(f"{folder}: a file; name the folder that it is in")
    predictions = read_predictions(find_predictions(folder))
    path = Path(folder) / METRICS_NAME
    try:
        metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        metrics["auroc"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RealDamageError(
            f"{path}: not a file of realdamage-evaluate ({error}). Run it again.",
            code="no_evaluation",
        ) from error
    return predictions, metrics


def find_model(
    run: Mapping[str, Any], given: Path | None, threads: int | None = None
) -> tuple[Detector | None, str]:
    """The model that an evaluation used, or None and a note why it was not found.

    run: of metrics.json. given: the user's path; None looks where the run says.
    Raises ModelFileError: the given model cannot be read, or is not the one that was evaluated.
    """
    path = given or Path(str(run.get("checkpoint") or ""))
    expected = str(run.get("graph_sha256") or "")
    try:
        if not given and path.suffix != ".onnx":
            raise ModelFileError("a checkpoint was evaluated, not an .onnx file")
        detector = Detector.load(path, threads=threads)
        if expected and detector.graph_sha256 != expected:
            raise ModelFileError(
                f"{path} is another network ({detector.graph_sha256[:12]}) than the one evaluated "
                f"({expected[:12]})"
            )
    except ModelFileError as error:
        if given:
            raise
        return None, f"No heat maps and no model card: {error}. Name the model with --model."
    return detector, ""


def find_manifest(run: Mapping[str, Any], given: Path | None) -> tuple[Manifest | None, str]:
    """The photos of an evaluation, or None and a note why they were not found; see `find_model`."""
    try:
        if not given and not run.get("data_root"):
            raise UsageError("metrics.json does not say where the photos are")
        return read_dataset(given or Path(str(run["data_root"]))), ""
    except RealDamageError as error:
        if given:
            raise
        return None, f"No pictures: {error}. Name the photos' folder with --manifest."


def read_judge(path: str | Path, predictions: pd.DataFrame) -> tuple[bytes, ModelMetadata, Policy]:
    """The calibrated model file that made these predictions: its bytes, metadata and policy.

    Raises ModelFileError; RealDamageError: not calibrated, or another network.
    """
    onnx_bytes, metadata, digest = read_model_file(path)
    if metadata.policy is None or metadata.calibration is None:
        raise RealDamageError(
            f"{path}: not calibrated, so it has no thresholds. Run realdamage calibrate first.",
            code="not_calibrated",
        )
    others = sorted(set(predictions["graph_sha256"]) - {digest, ""})
    if others:
        raise RealDamageError(
            f"{path} is another network (graph {digest[:12]}…) than the one of the predictions "
            f"({others[0][:12]}…). Name the model that made them.",
            code="other_network",
        )
    return onnx_bytes, metadata, metadata.policy
