"""The commands of `realdamage` that measure a model and put thresholds into it; heavy imports wait inside them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from realdamage.cli_data import extra
from realdamage.inference.progress import track

THREADS_HELP = "CPU threads; default: those available, at most 4"


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the parsers; `commands`: what `add_subparsers` returned; `common`: the options that all commands have."""
    command = commands.add_parser(
        "calibrate", parents=[common], help="write thresholds into a model", description=calibrate.__doc__
    )
    command.add_argument("model", type=Path, help="the .onnx file; changed in place without --output")
    command.add_argument("--manifest", type=Path, required=True, metavar="DIR", help="folder of labelled photos")
    command.add_argument("--split", help="which photos of the manifest; default: policy, else val, else all unsplit")
    command.add_argument(
        "--fpr", type=float, default=0.01, help="share of honest photos that may be called synthetic (%(default)s)"
    )
    command.add_argument(
        "--miss", type=float, default=0.05, help="share of synthetic photos that may be called real (%(default)s)"
    )
    command.add_argument("--output", type=Path, metavar="FILE", help="write the calibrated model there instead")
    command.add_argument("--threads", type=int, metavar="N", help=THREADS_HELP)
    command.set_defaults(run=calibrate)


def calibrate(arguments: argparse.Namespace) -> int:
    """Fit the calibration, choose the two thresholds and write both into the model file."""
    with extra("analysis", "realdamage calibrate"):
        from realdamage.data.readers import read_dataset
        from realdamage.evaluation.calibration import calibrate_model
    summary = calibrate_model(
        arguments.model,
        read_dataset(arguments.manifest),
        split=arguments.split,
        fpr=arguments.fpr,
        miss=arguments.miss,
        output=arguments.output,
        threads=arguments.threads,
        progress=track,
    )
    policy, scaling = summary.policy, summary.calibration
    photos = ", ".join(f"{count} {sort}" for sort, count in policy.photos.items())
    print(f"{summary.output}: calibrated on {summary.split} ({photos})")
    print(f"probability   sigmoid({scaling.slope:.4g} * score {scaling.intercept:+.4g}), prior {scaling.prior:.3f}")
    print(
        f"synthetic     score >= {policy.t_synthetic:+.3f}: {summary.called_synthetic:.1%} of these {policy.negatives} "
        f"photos (allowed {policy.fpr:.1%})"
    )
    print(
        f"real          score <= {policy.t_real:+.3f}: {summary.called_real:.1%} of these synthetic photos "
        f"(allowed {policy.miss:.1%})"
    )
    print(
        f"review        between: {summary.review:.1%} of all. The rates hold for these photos; no promise about others"
    )
    return 0
