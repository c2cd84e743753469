"""`realdamage-export checkpoint=out/train/best.ckpt`: one self-describing ONNX file, written only
if it agrees with torch, alone or in the model repository of a Triton server (`target=triton`), and
only if checkpoint, options or code have changed since."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from realdamage import configuration
from realdamage.commit import code_sha256
from realdamage.core.model_file import ModelMetadata, read_model_file
from realdamage.errors import ModelFileError, UsageError
from realdamage.exporting.triton import model_path, write_repository
from realdamage.schema import ExportConfig

_CODE = ("core/*.py", "exporting/*.py", "training/*.py")
_LIBRARIES = ("numpy", "onnx", "onnxscript", "onnxruntime", "pillow", "timm", "torch")


def run(composed: DictConfig) -> None:
    """Exports and prints size, opset and the largest difference from torch."""
    config: Any = OmegaConf.to_object(composed)  # checks all values
    source, is_triton = Path(config.checkpoint), config.target == "triton"
    folder = source if source.is_dir() else source.parent
    is_model = source.suffix == ".onnx"
    if is_model and not is_triton:
        raise UsageError(f"{source} is exported already; target=triton takes it")
    repository = Path(config.output or folder / "models")
    output = model_path(repository) if is_triton else Path(config.output or folder / "model.onnx")
    if not is_model:
        _export(config, source, output)
    elif output.exists() and not config.overwrite:
        raise UsageError(f"{output} exists. Replace it by overwrite=true")
    if is_triton:
        written = write_repository(source if is_model else output, repository)
        print(f"{written}: start the server with: tritonserver --model-repository {repository}")


def _export(config: ExportConfig, source: Path, output: Path) -> None:
    made_from = _origin(config, source)
    next_line = f"next: realdamage calibrate {output} --manifest FOLDER"
    if output.exists() and not config.overwrite:
        existing = _existing(output)
        if existing and existing.training.get("export") == made_from:
            print(
                f"{output} is up to date: checkpoint, options and code are the same. "
                f"overwrite=true exports again\n{next_line}"
            )
            return
        # A demonstration model guarantees nothing, so nothing is lost with it.
        if not existing or not existing.demo:
            raise UsageError(
                f"{output} exists, and was not made from this checkpoint with these options and "
                "this code. Replace it, with its thresholds and any guarantee, by overwrite=true, "
                "or write another file with output=…"
            )
    # Torch takes seconds to import.
    import torch

    from realdamage.exporting.onnx import OPSET, export_network
    from realdamage.training.module import load_classifier, model_metadata

    if config.threads:
        torch.set_num_threads(config.threads)
    classifier = load_classifier(config.checkpoint)
    metadata = model_metadata(classifier)
    difference = export_network(
        classifier.network,
        replace(metadata, training={**metadata.training, "export": made_from}),
        output,
        tolerance=config.tolerance,
    )
    print(
        f"{output}: {output.stat().st_size / 2**20:.1f} MiB, opset {OPSET}; largest "
        f"difference from torch, from file bytes to verdict: {difference:.1e} (allowed "
        f"{config.tolerance:g})\n{next_line}"
    )


def _origin(config: ExportConfig, source: Path) -> dict[str, Any]:
    """All that decides the exported file, as its metadata keep it; {} without a checkpoint."""
    weights = source / "model.safetensors" if source.is_dir() else source
    if not weights.is_file():
        return {}
    return {
        "checkpoint_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "code_sha256": code_sha256(_CODE, _LIBRARIES),
        "tolerance": config.tolerance,
        "target": config.target,
    }


def _existing(path: Path) -> ModelMetadata | None:
    """The metadata of a model file that is there already; None for any other file."""
    try:
        return read_model_file(path)[1]
    except ModelFileError:
        return None


def main() -> None:
    """Entry point of the command."""
    configuration.run("export", run)


if __name__ == "__main__":
    main()
