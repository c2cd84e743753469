"""`realdamage-evaluate checkpoint=out/train/best.ckpt data.root=FOLDER`: scores a manifest as a service would, and
measures."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig

from realdamage import configuration
from realdamage.data.manifest import read_manifest
from realdamage.data.shortcuts import container_auroc
from realdamage.evaluation.metrics import photo_metrics
from realdamage.evaluation.predictions import score_manifest, write_predictions
from realdamage.evaluation.tables import format_table
from realdamage.inference.detector import Detector
from realdamage.inference.onnx_file import write_atomically
from realdamage.inference.progress import track
from realdamage.schema import EvaluateConfig
from realdamage.training.classifier import load_classifier
from realdamage.training.record import git_commit, model_metadata
from realdamage.training.scorer import TorchScorer


def load_detector(config: EvaluateConfig) -> Detector:
    """A Detector from a .ckpt or .onnx; both are then judged by the same code. Raises ModelFileError."""
    options: dict[str, Any] = {"prior": config.prior, "allow_demo": config.allow_demo}
    if Path(config.checkpoint).suffix == ".ckpt":
        classifier = load_classifier(config.checkpoint)
        return Detector(TorchScorer(classifier.network), model_metadata(classifier), **options)
    return Detector.load(config.checkpoint, threads=config.threads, **options)


def run(config: EvaluateConfig) -> None:
    """Writes predictions and metrics.json into the run's folder and prints the table."""
    if config.threads:
        torch.set_num_threads(config.threads)
    detector = load_detector(config)
    manifest = read_manifest(config.data.root)
    if config.data.split is not None:
        manifest = manifest.select(split=config.data.split)
    folder = Path(config.paths.run)
    on_error: Any = config.data.on_error
    predictions, localisation = score_manifest(detector, manifest, progress=track, on_error=on_error)
    write_predictions(folder / f"predictions.{config.format}", predictions)
    metrics = photo_metrics(predictions, localisation, seed=config.seed)
    trained_on = detector.metadata.training.get("generators", [])
    for name, row in metrics["per_generator"].items():
        row["trained_on"] = name in trained_on
    if config.shortcuts:
        found = container_auroc(manifest, seed=config.seed)
        metrics["container_auroc"] = found._asdict()
    metrics["run"] = {
        "checkpoint": str(config.checkpoint),
        "graph_sha256": detector.graph_sha256,
        "model_version": detector.metadata.model_version,
        "data_root": str(config.data.root),
        "split": config.data.split,
        "manifest_sha256": manifest.digest(),
        "git_commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["realdamage-evaluate", *HydraConfig.get().overrides.task]),
    }
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=2).encode())
    print(format_table(metrics))
    if config.shortcuts:
        print(
            f"\nfrom the files' size, bytes and tables alone: AUROC {found.auroc:.3f} "
            f"(95%: {found.low:.3f} to {found.high:.3f})"
        )
    print(f"\npredictions and metrics: {folder}")


def main() -> None:
    """Entry point of the command."""
    configuration.run("evaluate", run)


if __name__ == "__main__":
    main()
