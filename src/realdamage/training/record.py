"""What a training run writes down about itself: into the checkpoint, and from there into the exported file."""

from __future__ import annotations

import datetime
from importlib.metadata import version
from typing import Any

from realdamage.commit import git_commit
from realdamage.core.model_file import ModelMetadata
from realdamage.training.classifier import DamageClassifier


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
