"""The commands of `realdamage` that change a model file, or watch whether what it says still holds; heavy imports wait
inside them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from realdamage.commands.cli_data import extra
from realdamage.core.progress import track
from realdamage.files import write_atomically

THREADS_HELP = "CPU threads; default: those available, at most 4"
PREDICTIONS_HELP = "predictions.csv or .parquet of realdamage-evaluate"


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the parsers; `commands`: what `add_subparsers` returned; `common`: the options that all commands have."""
    command = commands.add_parser(
        "calibrate",
        parents=[common],
        help="write thresholds into a model",
        description=calibrate.__doc__,
    )
    command.add_argument(
        "model", type=Path, help="the .onnx file; changed in place without --output"
    )
    command.add_argument(
        "--manifest", type=Path, required=True, metavar="DIR", help="folder of labelled photos"
    )
    command.add_argument(
        "--split", help="which photos of the manifest; default: policy, else val, else all unsplit"
    )
    command.add_argument(
        "--fpr", type=float, help="share of these honest photos that may be called synthetic (0.01)"
    )
    command.add_argument(
        "--miss", type=float, help="share of these synthetic photos that may be called real (0.05)"
    )
    command.add_argument(
        "--alpha",
        type=float,
        help="instead of --fpr, a promise: of really damaged photos to come, at most this share is called synthetic",
    )
    command.add_argument(
        "--beta",
        type=float,
        help="instead of --miss, a promise: of synthetic photos to come, at most this share is called real",
    )
    command.add_argument(
        "--delta", type=float, help="risk that a promise does not hold, 1 - confidence (0.05)"
    )
    command.add_argument(
        "--calibration",
        choices=("platt", "isotonic", "auto"),
        default="platt",
        help="curve from score to probability; auto: the better on held-out groups (%(default)s)",
    )
    command.add_argument(
        "--seed", type=int, default=0, help="of the draw of one photo a group (%(default)s)"
    )
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="write the calibrated model there instead"
    )
    command.add_argument("--threads", type=int, metavar="N", help=THREADS_HELP)
    command.set_defaults(run=calibrate)

    command = commands.add_parser(
        "gate",
        parents=[common],
        help="which photos are too poor for a model",
        description=gate.__doc__,
    )
    command.add_argument(
        "model", type=Path, help="the calibrated .onnx file; changed in place without --output"
    )
    command.add_argument(
        "--predictions",
        type=Path,
        required=True,
        metavar="FILE",
        help=f"{PREDICTIONS_HELP} with a robustness suite, by this model",
    )
    command.add_argument(
        "--tpr-floor",
        type=float,
        metavar="P",
        help="share of synthetic photos that must be found; default: half of what is found among clean photos",
    )
    command.add_argument(
        "--max-gated",
        type=float,
        default=0.05,
        metavar="P",
        help="most of the clean honest photos that may go to review (%(default)s)",
    )
    command.add_argument(
        "--blur-share",
        type=float,
        default=0.02,
        metavar="P",
        help="most clean honest photos of any source that the limit on fine detail may stop; 0: no limit (%(default)s)",
    )
    command.add_argument(
        "--min-photos",
        type=int,
        default=30,
        metavar="N",
        help="of each class, for a point of a curve (%(default)s)",
    )
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="write the gated model there instead"
    )
    command.set_defaults(run=gate)

    command = commands.add_parser(
        "quantize",
        parents=[common],
        help="a faster variant that is as good",
        description=quantize.__doc__,
    )
    command.add_argument("model", type=Path, help="the .onnx file, in float32")
    command.add_argument(
        "--manifest", type=Path, required=True, metavar="DIR", help="folder of labelled photos"
    )
    command.add_argument("--split", default="val", help="whose photos decide (%(default)s)")
    command.add_argument(
        "--limit", type=int, default=300, metavar="N", help="most photos that decide (%(default)s)"
    )
    command.add_argument(
        "--calibration-photos",
        type=int,
        default=64,
        metavar="N",
        help="of the split train, for the ranges of integers (%(default)s)",
    )
    command.add_argument(
        "--variants", default="int8,fp16", metavar="LIST", help="to try (%(default)s)"
    )
    command.add_argument(
        "--max-tpr-drop",
        type=float,
        default=0.01,
        metavar="P",
        help="most that the true positive rate at 1%% FPR may lose (%(default)s)",
    )
    command.add_argument(
        "--max-ap-drop",
        type=float,
        default=0.01,
        metavar="P",
        help="most that the average precision of the heat maps may lose (%(default)s)",
    )
    command.add_argument(
        "--threads",
        type=int,
        default=2,
        metavar="N",
        help="CPU threads of each model (%(default)s)",
    )
    command.add_argument("--seed", type=int, default=0, help="of the draws of photos (%(default)s)")
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="default: MODEL.int8.onnx or MODEL.fp16.onnx"
    )
    command.add_argument(
        "--json", type=Path, metavar="FILE", help="write everything there, also when no variant is"
    )
    command.set_defaults(run=quantize)

    command = commands.add_parser(
        "monitor",
        parents=[common],
        help="are photos still like the calibration photos?",
        description=monitor.__doc__,
    )
    command.add_argument(
        "log",
        type=Path,
        metavar="LOG",
        help="what realdamage predict wrote: .csv, .jsonl, .parquet",
    )
    command.add_argument(
        "--reference",
        type=Path,
        required=True,
        metavar="FILE",
        help="predictions of the calibration photos by the same model (realdamage-evaluate with data.split=policy)",
    )
    command.add_argument(
        "--model", type=Path, metavar="FILE", help="the .onnx file that judged, for its promise"
    )
    command.add_argument(
        "--prior",
        type=float,
        metavar="P",
        help="share of synthetic photos in the log; default: what explains it best",
    )
    command.add_argument(
        "--level",
        type=float,
        default=0.05,
        metavar="P",
        help="risk of an alarm without a shift (%(default)s)",
    )
    command.add_argument(
        "--least-effect",
        type=float,
        default=0.1,
        metavar="P",
        help="share of photos that must differ (%(default)s)",
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    command.set_defaults(run=monitor)


def calibrate(arguments: argparse.Namespace) -> int:
    """Fit the calibration, choose the two thresholds and write both into the model file."""
    with extra("analysis", "realdamage calibrate"):
        from realdamage.data.readers import read_dataset
        from realdamage.evaluation.calibration import calibrate_model
        from realdamage.rendering.terminal import calibration_text
    summary = calibrate_model(
        arguments.model,
        read_dataset(arguments.manifest),
        split=arguments.split,
        fpr=arguments.fpr,
        miss=arguments.miss,
        calibration=arguments.calibration,
        alpha=arguments.alpha,
        beta=arguments.beta,
        delta=arguments.delta,
        seed=arguments.seed,
        output=arguments.output,
        threads=arguments.threads,
        progress=track,
    )
    print(calibration_text(summary))
    return 0


def gate(arguments: argparse.Namespace) -> int:
    """Find out from photos under many perturbations which ones are too small, too blurred or too compressed for this
    model, and write those limits into the model file: such photos go to review."""
    with extra("analysis", "realdamage gate"):
        from realdamage.evaluation.gate import gate_model
        from realdamage.evaluation.predictions import read_predictions
        from realdamage.rendering.terminal import gate_text
    summary = gate_model(
        arguments.model,
        read_predictions(arguments.predictions),
        tpr_floor=arguments.tpr_floor,
        max_gated=arguments.max_gated,
        blur_share=arguments.blur_share,
        min_photos=arguments.min_photos,
        output=arguments.output,
    )
    print(f"{arguments.output or arguments.model}: gated\n{gate_text(summary)}")
    return 0


def quantize(arguments: argparse.Namespace) -> int:
    """Make variants with 8-bit integers and with half-precision numbers, measure each beside the model on the same
    photos, and write the fastest that is as good. Exit code 1, and no file, when none is."""
    with extra("train", "realdamage quantize"):
        from realdamage.data.readers import read_dataset
        from realdamage.exporting.quantize import quantize_model, summary_text
    summary = quantize_model(
        arguments.model,
        read_dataset(arguments.manifest),
        split=arguments.split,
        limit=arguments.limit,
        calibration_photos=arguments.calibration_photos,
        variants=[name.strip() for name in arguments.variants.split(",") if name.strip()],
        max_tpr_drop=arguments.max_tpr_drop,
        max_ap_drop=arguments.max_ap_drop,
        threads=arguments.threads,
        seed=arguments.seed,
        output=arguments.output,
        progress=track,
    )
    if arguments.json:
        write_atomically(
            arguments.json,
            (json.dumps(summary.to_dict(), indent=2, allow_nan=False) + "\n").encode(),
        )
    print(summary_text(summary))
    return 0 if summary.output else 1


def monitor(arguments: argparse.Namespace) -> int:
    """Compare a log of verdicts, which needs no labels, with those on the calibration photos: scores, outcomes,
    reasons, sizes, sharpness, compression, fine detail. Exit code 1 when they are no longer alike, so that no promise
    holds."""
    with extra("analysis", "realdamage monitor"):
        from realdamage.evaluation.monitor import monitor as compare_log
        from realdamage.evaluation.prediction_log import read_log
        from realdamage.evaluation.predictions import read_predictions
        from realdamage.rendering.terminal import monitor_text
    found = compare_log(
        read_log(arguments.log),
        read_predictions(arguments.reference),
        arguments.model,
        prior=arguments.prior,
        level=arguments.level,
        least_effect=arguments.least_effect,
    )
    if arguments.json:
        write_atomically(arguments.json, found.to_json().encode())
    print(monitor_text(found))
    return 1 if found.alarm else 0
