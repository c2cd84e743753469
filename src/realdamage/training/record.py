"""What a training run writes down about itself: into the checkpoint, and from there into the exported file."""

from __future__ import annotations

import datetime
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from realdamage.inference.metadata import ModelMetadata
from realdamage.training.classifier import DamageClassifier


def git_commit() -> str:
    """Commit of the repository that this code runs from, with "+changes" when files differ from it; "" outside a
    repository."""
    folder = Path(__file__).resolve().parent
    try:
        options: Any = {"cwd": folder, "capture_output": True, "text": True, "check": True, "timeout": 10}
        commit = str(subprocess.run(["git", "rev-parse", "HEAD"], **options).stdout).strip()
        changes = str(subprocess.run(["git", "status", "--porcelain", "-uno"], **options).stdout).strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+changes" if changes else "")


def training_record(name: str, *, demo: bool, seed: int) -> dict[str, Any]:
    """Plain values for the checkpoint's hyper-parameters; the data module adds the manifest's digest and the audit's
    verdict when it has read it."""
    return {
        "experiment": name,
        "demo": demo,
        "seed": seed,
        "git_commit": git_commit(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "realdamage": version("realdamage"),
        "audit": "not run",
    }


def model_metadata(classifier: DamageClassifier) -> ModelMetadata:
    """The metadata of a trained classifier, uncalibrated, as the exported file will carry it."""
    record = dict(classifier.hparams.get("record") or {})
    demo = bool(record.pop("demo", False))
    return ModelMetadata(
        pixel_spec=classifier.pixel_spec,
        pooling=classifier.pooling,
        calibration=None,
        policy=None,
        backbone=str(classifier.hparams["backbone"]),
        demo=demo,
        model_version=f"{record.get('experiment', 'model')}-{record.get('created', '')[:10]}",
        training={**record, **classifier.trained_on},
        metrics=dict(classifier.validation_figures),
    )
