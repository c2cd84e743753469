"""`realdamage-export checkpoint=out/train/best.ckpt`: one self-describing ONNX file, written only
if it agrees with torch."""

from __future__ import annotations

from pathlib import Path

import torch

from realdamage import configuration
from realdamage.errors import UsageError
from realdamage.exporting.onnx import export_network
from realdamage.schema import ExportConfig
from realdamage.training.module import load_classifier, model_metadata


def run(config: ExportConfig) -> None:
    """Exports and prints size, opset and the largest difference from torch."""
    source = Path(config.checkpoint)
    folder = source if source.is_dir() else source.parent
    output = Path(config.output or folder / "model.onnx")
    if output.exists() and not config.overwrite:
        raise UsageError(
            f"{output} exists. Replace it, with its thresholds and any guarantee, by "
            "overwrite=true, or write another file with output=…"
        )
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
