"""What an evaluation left behind in its folder, and where the model and the photos behind it lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from realdamage.core.detector import Detector
from realdamage.data.manifest import Manifest
from realdamage.data.readers import read_dataset
from realdamage.errors import ModelFileError, RealDamageError, UsageError
from realdamage.evaluation.predictions import read_predictions

METRICS_NAME = "metrics.json"


def find_predictions(path: str | Path) -> Path:
    """The predictions file that a path names, or that lies in the evaluation folder it names. Raises UsageError."""
    given = Path(path)
    if given.is_dir():
        for ending in ("csv", "parquet"):
            if (given / f"predictions.{ending}").is_file():
                return given / f"predictions.{ending}"
        raise UsageError(
            f"{given}: no predictions.csv or predictions.parquet in this folder; run realdamage-evaluate"
        )
    if not given.exists():
        raise UsageError(
            f"{given}: no such file or folder; name a folder that realdamage-evaluate wrote"
        )
    return given


def read_evaluation(folder: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The predictions and metrics.json of an evaluation folder. Raises UsageError, RealDamageError."""
    if Path(folder).is_file():
        raise UsageError(f"{folder}: a file; name the folder that it lies in")
    predictions = read_predictions(find_predictions(folder))
    path = Path(folder) / METRICS_NAME
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RealDamageError(
            f"{path}: cannot be read ({error}). Run realdamage-evaluate again."
        ) from error
    if not isinstance(metrics, dict) or "auroc" not in metrics:
        raise RealDamageError(f"{path}: no figures of realdamage-evaluate in it. Run it again.")
    return predictions, metrics


def find_model(
    run: Mapping[str, Any], given: Path | None, threads: int | None = None
) -> tuple[Detector | None, str]:
    """The model that an evaluation judged with, and a note when it is not at hand. `run`: of metrics.json.

    Raises RealDamageError when the model `given` cannot be read or is another network than the one evaluated.
    """
    path = given or Path(str(run.get("checkpoint") or ""))
    judged_by = str(run.get("graph_sha256") or "")
    try:
        if not given and path.suffix != ".onnx":
            raise ModelFileError("its checkpoint was evaluated, not an .onnx file")
        detector = Detector.load(path, threads=threads)
    except ModelFileError as error:
        if given:
            raise
        return (
            None,
            f"No heat maps and no model card: the model is not at hand ({error}). Name it with --model.",
        )
    if judged_by and detector.graph_sha256 != judged_by:
        found = f"{path} is another network ({detector.graph_sha256[:12]}) than the one evaluated ({judged_by[:12]})"
        if given:
            raise RealDamageError(
                f"{found}. Name the model of this evaluation, or evaluate this one."
            )
        return None, f"No heat maps and no model card: {found}. Name it with --model."
    return detector, ""


def find_manifest(run: Mapping[str, Any], given: Path | None) -> tuple[Manifest | None, str]:
    """The photos of an evaluation, and a note when they are not at hand. Raises RealDamageError for those `given`."""
    path = given or Path(str(run.get("data_root") or ""))
    try:
        if not given and not run.get("data_root"):
            raise UsageError("metrics.json does not say where they lie")
        return read_dataset(path), ""
    except RealDamageError as error:
        if given:
            raise
        return (
            None,
            f"No pictures: the photos are not at hand ({error}). Name their folder with --manifest.",
        )
