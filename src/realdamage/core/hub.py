"""Models on the Hugging Face Hub, and folders laid out as there: model.onnx, README.md (the card)
and config.json. huggingface_hub is in the extra `hub`; reading a folder does without it.
"""

from __future__ import annotations

import importlib
import json
import math
import re
from pathlib import Path
from typing import Any

from realdamage.core.model_file import ModelMetadata, graph_sha256
from realdamage.errors import MissingExtraError, MissingModelError, ModelFileError, UsageError
from realdamage.files import write_atomically

MODEL, CARD, CONFIG = "model.onnx", "README.md", "config.json"
_TAGS = ("realdamage", "onnx", "image-forensics", "ai-generated-image-detection", "fraud")
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_SHORT_CARD = """# {version}

Tells photos of real damage from AI-synthesized damage.

```python
from realdamage import Detector

detector = Detector.from_pretrained("user/model")
detector("photo.jpg")
```
"""
# What the Hub calls a metric, and its title; others keep their name.
_METRICS = {
    "auroc": ("roc_auc", "AUROC"),
    "tpr_at_fpr_1": ("tpr_at_fpr_1", "Share of synthetic photos found at 1% false alarms"),
    "localisation_ap": ("localisation_ap", "Average precision of patches"),
}


def find_model(source: str | Path, revision: str | None = None) -> Path:
    """The model file of a folder, or of "user/model" on the Hub, downloaded if needed.

    Raises MissingModelError or ModelFileError with a code, MissingExtraError without the extra.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        if not (path / MODEL).exists():
            raise MissingModelError(
                f"{path}: a folder with a model has {MODEL}. Another file: Detector(path)",
                code="no_model_in_folder",
            )
        return path / MODEL
    if not _REPO.fullmatch(str(source)):
        raise MissingModelError(
            f'{source}: no such folder; on the Hugging Face Hub, models are named "user/model"',
            code="no_such_folder",
        )
    hub = _library("Detector.from_pretrained")
    try:
        return Path(hub.hf_hub_download(str(source), MODEL, revision=revision))
    except Exception as error:
        raise ModelFileError(
            f"{source} ({revision or 'main'}): cannot be downloaded: {error}",
            code="download_failed",
        ) from error


def write_folder(
    folder: Path, model: bytes, metadata: ModelMetadata, origin: Path, licence: str
) -> None:
    """Write the three files. model: the bytes of the file `origin`; a card next to it (with the
    ending .md) becomes the text of the card.

    Raises UsageError when the folder has a README.md or config.json of something else.
    """
    hub = _library("Detector.save_pretrained")
    for name, mark in ((CARD, "library_name: realdamage"), (CONFIG, '"graph_sha256"')):
        old = folder / name
        if old.exists() and mark not in old.read_text("utf-8", errors="replace"):
            raise UsageError(
                f"{old}: belongs to something else and would be lost; name another folder",
                code="other_files",
            )
    card = origin.with_suffix(".md")
    text = card.read_text("utf-8") if card.exists() else ""
    text = text or _SHORT_CARD.format(version=metadata.model_version)
    data = hub.ModelCardData(
        license=licence.lower() or None,
        library_name="realdamage",
        pipeline_tag="image-classification",
        tags=list(_TAGS),
        model_name=metadata.model_version,
        eval_results=_results(hub, metadata) or None,
    )
    config = {
        "about": f"For people: realdamage reads all of this from {MODEL}.",
        "graph_sha256": graph_sha256(model),
        **json.loads(metadata.to_json()),
    }
    write_atomically(folder / MODEL, model)
    write_atomically(folder / CARD, f"---\n{data.to_yaml()}\n---\n\n{text}".encode())
    write_atomically(folder / CONFIG, f"{json.dumps(config, indent=2)}\n".encode())


def push_folder(folder: Path, repo_id: str, private: bool | None) -> None:
    """Upload the three files to the Hub; makes the repository if needed."""
    hub = _library("push_to_hub")
    try:
        api = hub.HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=[MODEL, CARD, CONFIG],
            commit_message="Upload a realdamage model",
        )
    except Exception as error:
        raise ModelFileError(
            f"{repo_id}: the upload failed ({error}). The files are in {folder}. Log in with "
            "`hf auth login`, or check the name and the connection",
            code="upload_failed",
        ) from error


def _library(command: str) -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise MissingExtraError(command, "hub", error.name) from None


def _results(hub: Any, metadata: ModelMetadata) -> list[Any]:
    """The figures of the model file in the model-index form; what is not a number is left out."""
    results = []
    for key, value in metadata.metrics.items():
        part, _, name = key.rpartition("/")
        kind, title = _METRICS.get(name, (name, name))
        if isinstance(value, int | float) and math.isfinite(value):
            results.append(
                hub.EvalResult(
                    task_type="image-classification",
                    dataset_type="image-folder",
                    dataset_name=f"photos of {metadata.training.get('experiment', 'the training')}",
                    dataset_split={"val": "validation"}.get(part, part) or None,
                    metric_type=kind,
                    metric_name=title,
                    metric_value=value,
                )
            )
    return results
