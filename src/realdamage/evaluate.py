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
from realdamage.data.manifest import Manifest
from realdamage.data.readers import read_dataset, reader_from_mapping
from realdamage.data.shortcuts import container_auroc
from realdamage.evaluation.metrics import photo_metrics
from realdamage.evaluation.predictions import score_manifest, write_predictions
from realdamage.evaluation.tables import format_table
from realdamage.inference.detector import Detector
from realdamage.inference.errors import ConfigError, ManifestError
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


def shortcut_auroc(manifest: Manifest, seed: int) -> dict[str, Any]:
    """AUROC of a classifier that sees the files' own facts alone, and its 95% interval; None with a reason where the
    photos are too few to say."""
    try:
        found = container_auroc(manifest, seed=seed)
    except ManifestError as error:
        return {"auroc": None, "low": None, "high": None, "text": str(error)}
    text = f"AUROC {found.auroc:.3f} (95%: {found.low:.3f} to {found.high:.3f})"
    return {**found._asdict(), "text": text}


def run(config: EvaluateConfig) -> None:
    """Writes predictions and metrics.json into the run's folder and prints the table."""
    if config.threads:
        torch.set_num_threads(config.threads)
    detector = load_detector(config)
    reader: Any = config.data.reader
    manifest = read_dataset(config.data.root, reader_from_mapping(reader))
    digest = manifest.digest()  # of the whole set, not of one split
    if config.data.split is not None:
        if not (manifest.table["split"] != "").any():
            raise ConfigError(f"{manifest.root}: its photos have no split; score all of them with data.split=null")
        manifest = manifest.select(split=config.data.split)
    folder = Path(config.paths.run)
    on_error: Any = config.data.on_error
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"data.on_error={on_error}: allowed are raise, skip")
    predictions, localisation = score_manifest(detector, manifest, progress=track, on_error=on_error)
    write_predictions(folder / f"predictions.{config.format}", predictions)
    metrics = photo_metrics(predictions, localisation, seed=config.seed)
    trained_on = detector.metadata.training.get("generators")
    named = set(manifest.table["generator"])
    for name, row in metrics["per_generator"].items():
        row["trained_on"] = name in trained_on if trained_on is not None and name in named else None
    if config.shortcuts:
        metrics["container_auroc"] = shortcut_auroc(manifest.subset(predictions["score"].notna()), config.seed)
    metrics["run"] = {
        "checkpoint": str(config.checkpoint),
        "graph_sha256": detector.graph_sha256,
        "model_version": detector.metadata.model_version,
        "data_root": str(config.data.root),
        "split": config.data.split,
        "manifest_sha256": digest,
        "git_commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["realdamage-evaluate", *HydraConfig.get().overrides.task]),
    }
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=2).encode())
    print(format_table(metrics))
    print(
        f"\nfrom the files' size, bytes and tables alone: {metrics['container_auroc']['text']}"
        if config.shortcuts
        else ""
    )
    print(f"\npredictions and metrics: {folder}")


def main() -> None:
    """Entry point of the command."""
    configuration.run("evaluate", run)


if __name__ == "__main__":
    main()
