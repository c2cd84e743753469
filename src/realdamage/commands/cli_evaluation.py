"""The commands of `realdamage` that read what realdamage-evaluate wrote about a model: a page, a card, a comparison,
costs, the review queue. Heavy imports wait inside them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from realdamage.commands.cli_data import extra
from realdamage.commands.cli_model import PREDICTIONS_HELP, THREADS_HELP
from realdamage.core.progress import track
from realdamage.errors import UsageError
from realdamage.files import write_atomically


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the parsers; `commands`: what `add_subparsers` returned; `common`: the options that all commands have."""
    command = commands.add_parser(
        "report", parents=[common], help="an evaluation as one page", description=report.__doc__
    )
    command.add_argument(
        "folder", type=Path, metavar="FOLDER", help="what realdamage-evaluate wrote"
    )
    command.add_argument(
        "--model", type=Path, metavar="FILE", help="its .onnx file; default: where it was evaluated"
    )
    command.add_argument(
        "--manifest",
        type=Path,
        metavar="DIR",
        help="its photos; default: where they were evaluated",
    )
    command.add_argument("--threads", type=int, metavar="N", help=THREADS_HELP)
    command.set_defaults(run=report)

    command = commands.add_parser(
        "card", parents=[common], help="a model card in Markdown", description=card.__doc__
    )
    command.add_argument("model", type=Path, help="the .onnx file")
    command.add_argument(
        "--evaluation",
        action="append",
        required=True,
        metavar="[NAME=]DIR",
        help="what realdamage-evaluate wrote about this model; may be repeated",
    )
    command.add_argument("--folds", type=Path, metavar="CSV", help="folds.csv of realdamage-folds")
    command.add_argument(
        "--manifest",
        type=Path,
        metavar="DIR",
        help="its training set; default: an evaluation's, when that is the one",
    )
    command.add_argument(
        "--command",
        action="append",
        default=[],
        metavar="TEXT",
        help="that led to the model; repeat it, in order",
    )
    command.add_argument("--licence", default="", metavar="TEXT", help="of the model")
    command.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="- for the terminal; default: the model's name with .md",
    )
    command.set_defaults(run=card)

    command = commands.add_parser(
        "compare",
        parents=[common],
        help="two models on the same photos",
        description=compare.__doc__,
    )
    command.add_argument(
        "a", type=Path, metavar="A", help="evaluation folder or predictions file of the old model"
    )
    command.add_argument("b", type=Path, metavar="B", help="the same of the new model")
    command.add_argument("--html", type=Path, metavar="FILE", help="write a page there")
    command.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    command.add_argument(
        "--fail-if-worse", action="store_true", help="exit with 1 when B is worse in any figure"
    )
    command.add_argument("--seed", type=int, default=0, help="of the intervals (%(default)s)")
    command.set_defaults(run=compare)

    command = commands.add_parser(
        "costs",
        parents=[common],
        help="cost per claim, and the cheapest thresholds",
        description=costs.__doc__,
    )
    command.add_argument("predictions", type=Path, help=PREDICTIONS_HELP)
    command.add_argument(
        "--fraud-rate", type=float, required=True, metavar="P", help="share of fake claims, in 0..1"
    )
    command.add_argument(
        "--claim-value",
        type=float,
        required=True,
        metavar="X",
        help="refund lost if a fake is paid",
    )
    command.add_argument(
        "--review-cost",
        type=float,
        required=True,
        metavar="X",
        help="of a person judging one claim",
    )
    command.add_argument(
        "--accusation-cost",
        type=float,
        required=True,
        metavar="X",
        help="of refusing an honest buyer (lost trust)",
    )
    command.add_argument(
        "--detection",
        type=float,
        default=1.0,
        metavar="P",
        help="share of fakes that a reviewer finds (%(default)g)",
    )
    command.add_argument(
        "--wrong-refusal",
        type=float,
        default=0.0,
        metavar="P",
        help="honest claims a reviewer refuses (%(default)g)",
    )
    command.add_argument(
        "--photos-per-claim", type=int, default=1, metavar="N", help="(%(default)s)"
    )
    command.add_argument(
        "--model", type=Path, metavar="FILE", help="the .onnx file judged; its promise is then kept"
    )
    command.add_argument(
        "--write", action="store_true", help="write the thresholds into --model, in place"
    )
    command.add_argument(
        "--seed", type=int, default=0, help="of the intervals and folds (%(default)s)"
    )
    command.set_defaults(run=costs)

    command = commands.add_parser(
        "triage", parents=[common], help="the order of the review queue", description=triage.__doc__
    )
    command.add_argument("predictions", type=Path, help=PREDICTIONS_HELP)
    command.add_argument(
        "--output", type=Path, default=Path("queue.csv"), metavar="FILE", help="(%(default)s)"
    )
    command.add_argument(
        "--claims",
        type=Path,
        metavar="CSV",
        help="columns claim_id, file_name, perhaps claim_value",
    )
    command.add_argument(
        "--claim-value", type=float, metavar="X", help="of claims without a value of their own"
    )
    command.add_argument(
        "--prior", type=float, metavar="P", help="share of fake claims, in 0..1; needs --model"
    )
    command.add_argument(
        "--model", type=Path, metavar="FILE", help="the .onnx file that judged, for --prior"
    )
    command.add_argument(
        "--minutes", type=float, default=1.0, metavar="M", help="of review a photo (%(default)g)"
    )
    command.add_argument(
        "--all", action="store_true", help="also claims that are refused or paid without review"
    )
    command.set_defaults(run=triage)


def report(arguments: argparse.Namespace) -> int:
    """Write report.html and report.json into an evaluation folder: figures, curves, slices, worst photos, policy."""
    with extra("analysis", "realdamage report"):
        from realdamage.evaluation.folder import find_manifest, find_model, read_evaluation
        from realdamage.rendering.html import build_report, write_report
    predictions, metrics = read_evaluation(arguments.folder)
    run = metrics.get("run") or {}
    detector, without_model = find_model(run, arguments.model, arguments.threads)
    manifest, without_photos = find_manifest(run, arguments.manifest)
    notes = [note for note in (without_model, without_photos) if note]
    found = build_report(
        (predictions, metrics), detector=detector, manifest=manifest, notes=notes, progress=track
    )
    page = write_report(arguments.folder, found)
    print(
        "\n".join(
            [
                *found.first_lines,
                *found.notes,
                f"{page} and report.json: {page.stat().st_size / 1e6:.1f} MB",
            ]
        )
    )
    return 0


def card(arguments: argparse.Namespace) -> int:
    """Write a model card from the model's file and its evaluations: what it has seen, what it does and how surely, what
    its thresholds promise, what it cannot do, and how to make it again."""
    with extra("analysis", "realdamage card"):
        from realdamage.rendering.markdown import CardInputs, card_text, named_folders
    keys = ("model", "folds", "manifest", "licence")
    given = CardInputs(
        **{key: getattr(arguments, key) for key in keys},
        evaluations=named_folders(arguments.evaluation),
        commands=arguments.command,
    )
    to_terminal = str(arguments.output) == "-"
    page = arguments.output or arguments.model.with_suffix(".md")
    text = card_text(given)
    if to_terminal:
        print(text, end="")
    else:
        write_atomically(page, text.encode())
        print(f"{text.splitlines()[0].strip('*')}\n\nthe card: {page}")
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Say whether model B is better than model A: paired intervals on the photos that both have judged."""
    with extra("analysis", "realdamage compare"):
        from realdamage.evaluation.compare import compare_models, read_sides
        from realdamage.rendering.html import write_comparison
        from realdamage.rendering.terminal import format_comparison
    names = (str(arguments.a), str(arguments.b))
    comparison = compare_models(*read_sides(*names), names=names, seed=arguments.seed)
    write_comparison(comparison, html=arguments.html, json_file=arguments.json)
    print(format_comparison(comparison))
    return 1 if arguments.fail_if_worse and comparison.worse else 0


def costs(arguments: argparse.Namespace) -> int:
    """Say what a claim costs at your own share of fakes and your own costs: paying all, reviewing all, the thresholds
    as they are, and those of least cost, which --write puts into the model without loosening its promise."""
    with extra("analysis", "realdamage costs"):
        from realdamage.evaluation.economics import Costs, cost_sample
        from realdamage.evaluation.predictions import read_predictions
        from realdamage.evaluation.threshold_choice import (
            choose_thresholds,
            cost_by_fraud_rate,
            read_judge,
            write_thresholds,
        )
        from realdamage.rendering.terminal import format_costs
    if arguments.write and not arguments.model:
        raise UsageError("--write needs --model FILE, the model that the thresholds go into")
    given = (
        "fraud_rate",
        "claim_value",
        "review_cost",
        "accusation_cost",
        "detection",
        "wrong_refusal",
    )
    own = Costs(
        **{key: getattr(arguments, key) for key in given},
        photos_per_claim=arguments.photos_per_claim,
    )
    predictions = read_predictions(arguments.predictions)
    policy = read_judge(arguments.model, predictions)[2] if arguments.model else None
    sample = cost_sample(predictions)
    choice = choose_thresholds(sample, own, policy=policy, seed=arguments.seed)
    print(format_costs(choice, cost_by_fraud_rate(sample, choice, policy=policy)))
    if arguments.write:
        write_thresholds(arguments.model, choice, predictions)
        print(f"\nwritten into {arguments.model}; judge the photos again with it")
    return 0


def triage(arguments: argparse.Namespace) -> int:
    """Order the claims that wait for review by the loss that a minute of looking avoids, and write them to a CSV file,
    the photos of a claim together. A claim is as probably fake as its most suspicious photo."""
    with extra("analysis", "realdamage triage"):
        from realdamage.evaluation.predictions import read_predictions
        from realdamage.evaluation.threshold_choice import read_judge
        from realdamage.evaluation.triage import (
            read_claims,
            triage_order,
            try_order,
            write_queue,
        )
        from realdamage.rendering.terminal import queue_text
    predictions = read_predictions(arguments.predictions)
    queue = triage_order(
        predictions,
        claims=read_claims(arguments.claims) if arguments.claims else None,
        calibration=read_judge(arguments.model, predictions)[1].calibration
        if arguments.model
        else None,
        prior=arguments.prior,
        claim_value=arguments.claim_value,
        minutes_per_photo=arguments.minutes,
        everything=arguments.all,
    )
    write_queue(arguments.output, queue)
    print(queue_text(queue, *try_order(queue, fraud_rate=arguments.prior)))
    print(f"\nthe whole queue: {arguments.output}")
    return 0
