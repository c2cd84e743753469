"""What an evaluation left in its folder, and the model that made its predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from realdamage.core.model_file import ModelMetadata, read_model_file
from realdamage.core.policy import Policy
from realdamage.errors import RealDamageError, UsageError
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
