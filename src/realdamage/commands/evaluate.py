"""`realdamage-evaluate checkpoint=out/train/best.ckpt data.root=FOLDER`: scores a manifest as a
service would and measures the results; `+robustness=…` also measures them after what photos go
through before a claim, such as compression and resizing.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from realdamage import configuration
from realdamage.commit import code_sha256, git_commit
from realdamage.core.detector import Detector
from realdamage.core.model_file import stored_policy_sha256
from realdamage.core.progress import track
from realdamage.data.manifest import Manifest
from realdamage.data.readers import read_dataset
from realdamage.errors import ConfigError
from realdamage.evaluation.fraudbench import fraudbench_figures
from realdamage.evaluation.perturbations import Perturbation, suite_from_config
from realdamage.evaluation.predictions import METRICS_NAME, clean, write_predictions
from realdamage.evaluation.robustness import (
    CODE,
    LIBRARIES,
    ModelFile,
    Suite,
    all_figures,
    draw_photos,
    shortcut_figures,
    trained_on_note,
)
from realdamage.files import write_atomically
from realdamage.rendering.html import write_report
from realdamage.rendering.report import build_report
from realdamage.rendering.terminal import evaluation_text
from realdamage.rendering.words import demo_note
from realdamage.schema import EvaluateConfig

SUMMARY_NAME = "summary.txt"
"""In the folder of an evaluation: what the terminal said."""

# Torch is imported where it is needed: a process that scores imports this file again when it was
# run as a script.


def load_checkpoint(config: EvaluateConfig) -> Detector:
    """A Detector from a .ckpt, judged by the same code as an .onnx. Raises ModelFileError."""
    import torch

    from realdamage.training.module import load_classifier, model_metadata
    from realdamage.training.network import TorchScorer

    if config.threads:
        torch.set_num_threads(config.threads)
    classifier = load_classifier(config.checkpoint)
    metadata = model_metadata(classifier)
    return Detector(TorchScorer(classifier.network), metadata, prior=config.prior, allow_demo=True)


def photos_to_score(config: EvaluateConfig) -> tuple[Manifest, Manifest]:
    """The chosen photos, and the whole set. Raises ManifestError and ConfigError."""
    whole = manifest = read_dataset(config.data.root, config.data.reader)
    if config.data.split is not None:
        if not (manifest.table["split"] != "").any():
            raise ConfigError(
                f"{manifest.root}: its photos have no split; score all of them with data.split=null"
            )
        manifest = manifest.select(split=config.data.split)
    if config.data.limit is not None:
        manifest = draw_photos(manifest, config.data.limit, config.seed)
    return manifest, whole


def run(composed: DictConfig) -> None:
    """Writes predictions, metrics.json and the report into the run's folder and prints the table,
    unless they are there and nothing has changed since."""
    config: Any = OmegaConf.to_object(composed)  # checks all values
    suite = suite_from_config(asdict(config.robustness))
    workers = config.workers
    folder = Path(config.paths.run)
    manifest, whole = photos_to_score(config)
    identity = ""
    if Path(config.checkpoint).is_file():
        identity = _identity(config, suite, manifest, whole)
        if not config.overwrite and _evaluated(folder, identity, config.format):
            print(
                f"{(folder / SUMMARY_NAME).read_text()}\n{folder} is up to date: model, photos, "
                "options and code are the same. overwrite=true evaluates again"
            )
            return
    load: Any = ModelFile(Path(config.checkpoint), config.prior)
    if Path(config.checkpoint).suffix == ".ckpt":
        if workers not in (None, 1):
            raise ConfigError(
                f"workers={workers}: a .ckpt is judged in one process; export it, or give workers=1"
            )
        detector, workers = load_checkpoint(config), 1
        load = lambda threads: detector  # noqa: E731
    else:
        detector = load(config.threads)
    notes = trained_on_note(whole, manifest, detector.metadata.training, config.data.split)
    scored = Suite(
        load, manifest, suite, folder, _digest(config), config.seed, config.data.on_error
    )
    scored.score(
        threads=config.threads, workers=workers, overwrite=config.overwrite, progress=track
    )
    predictions = scored.predictions
    write_predictions(folder / f"predictions.{config.format}", predictions)
    metrics = all_figures(scored, detector.metadata, seed=config.seed)
    if config.shortcuts:
        metrics["container_auroc"] = shortcut_figures(
            manifest, clean(predictions), seed=config.seed
        )
    if config.benchmark:
        metrics["benchmark"] = fraudbench_figures(predictions)
    metrics["run"] = {**_about(config, detector, whole.digest()), "identity_sha256": identity}
    # The summary goes last: without it the evaluation is not finished.
    (folder / SUMMARY_NAME).unlink(missing_ok=True)
    write_atomically(folder / METRICS_NAME, json.dumps(metrics, indent=2).encode())
    scored.discard()
    report = build_report(
        (predictions, metrics), detector, manifest=whole, notes=notes, progress=track
    )
    parts = (
        "\n".join([*demo_note(detector.metadata.demo), *notes]),
        evaluation_text(metrics, report.values["headlines"]),
        " ".join(report.values["first_lines"]),
        f"predictions and metrics: {folder}\nreport: {write_report(folder, report)}",
    )
    summary = "\n\n".join(filter(None, parts))
    write_atomically(folder / SUMMARY_NAME, f"{summary}\n".encode())
    print(summary)


def _identity(
    config: EvaluateConfig, suite: Sequence[Perturbation], manifest: Manifest, whole: Manifest
) -> str:
    """Digest of all that decides what an evaluation writes."""
    facts = (
        _digest(config),
        (str(config.checkpoint), str(config.data.root), config.data.split, config.data.limit),
        (whole.digest(), manifest.digest(), manifest.files_digest()),
        (config.seed, config.format, config.shortcuts, config.benchmark, config.data.on_error),
        tuple(suite),
        code_sha256((*CODE, "rendering/**/*"), LIBRARIES),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _evaluated(folder: Path, identity: str, file_format: str) -> bool:
    """Whether the folder holds this very evaluation, complete."""
    names = (METRICS_NAME, SUMMARY_NAME, f"predictions.{file_format}", "report.html")
    if not all((folder / name).is_file() for name in names):
        return False
    run = json.loads((folder / METRICS_NAME).read_text()).get("run") or {}
    return bool(run.get("identity_sha256") == identity)


def _digest(config: EvaluateConfig) -> str:
    """Of all that decides the model's verdicts: graph, policy, and how it is asked."""
    contents = hashlib.sha256(Path(config.checkpoint).read_bytes()).hexdigest()
    return f"{contents} prior={config.prior}"


def _about(config: EvaluateConfig, detector: Detector, digest: str) -> dict[str, Any]:
    checkpoint = Path(config.checkpoint)
    is_model = checkpoint.suffix != ".ckpt"
    return {
        "checkpoint": str(config.checkpoint),
        "graph_sha256": detector.graph_sha256,
        "policy_sha256": stored_policy_sha256(checkpoint.read_bytes()) if is_model else "",
        "model_version": detector.metadata.model_version,
        "demo": detector.metadata.demo,
        "data_root": str(config.data.root),
        "split": config.data.split,
        "limit": config.data.limit,
        "seed": config.seed,
        "manifest_sha256": digest,
        "git_commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["realdamage-evaluate", *HydraConfig.get().overrides.task]),
    }


def main() -> None:
    """Entry point of the command."""
    configuration.run("evaluate", run)


if __name__ == "__main__":
    main()
