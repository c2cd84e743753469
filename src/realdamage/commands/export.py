"""`realdamage-export checkpoint=out/train/best.ckpt`: one self-describing ONNX file, written only
if it agrees with torch, alone or in the model repository of a Triton server (`target=triton`)."""

from __future__ import annotations

from pathlib import Path

import torch

from realdamage import configuration
from realdamage.errors import UsageError
from realdamage.exporting.onnx import export_network
from realdamage.exporting.triton import model_path, write_repository
from realdamage.schema import ExportConfig
from realdamage.training.module import load_classifier, model_metadata


def run(config: ExportConfig) -> None:
    """Exports and prints size, opset and the largest difference from torch."""
    source, is_triton = Path(config.checkpoint), config.target == "triton"
    folder = source if source.is_dir() else source.parent
    repository = Path(config.output or folder / "models")
    output = model_path(repository) if is_triton else Path(config.output or folder / "model.onnx")
    if output.exists() and not config.overwrite:
        raise UsageError(
            f"{output} exists. Replace it, with its thresholds and any guarantee, by "
            "overwrite=true, or write another file with output=…"
        )
    is_model = source.suffix == ".onnx"
    if is_model and not is_triton:
        raise UsageError(f"{source} is exported already; target=triton takes it")
    if not is_model:
        _export(config, output)
    if is_triton:
        written = write_repository(source if is_model else output, repository)
        print(f"{written}: start the server with: tritonserver --model-repository {repository}")


def _export(config: ExportConfig, output: Path) -> None:
    if config.threads:
        torch.set_num_threads(config.threads)
    classifier = load_classifier(config.checkpoint, tile=config.tile, overlap=config.overlap)
    difference = export_network(
        classifier.network,
        model_metadata(classifier),
        output,
        opset=config.opset,
        tolerance=config.tolerance,
    )
    print(
        f"{output}: {output.stat().st_size / 2**20:.1f} MiB, opset {config.opset}; largest "
        f"difference from torch, from file bytes to verdict: {difference:.1e} (allowed "
        f"{config.tolerance:g})\nnext: realdamage calibrate {output} --manifest FOLDER"
    )


def main() -> None:
    """Entry point of the command."""
    configuration.run("export", run)


if __name__ == "__main__":
    main()
