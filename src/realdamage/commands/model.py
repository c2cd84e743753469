"""The commands of `realdamage` that change, check or describe a model file and its evaluation."""

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from realdamage.commands import app
from realdamage.core.progress import track
from realdamage.errors import UsageError, did_you_mean
from realdamage.files import write_atomically

Model = Annotated[Path, app.arg("The .onnx file")]
ChangedModel = Annotated[Path, app.arg("The .onnx file; changed in place without --output")]
ModelOutput = Annotated[Path | None, app.opt("Write the changed model there instead")]
Predictions = Annotated[Path, app.arg(app.PREDICTIONS)]
_CALIBRATED = "The .onnx file; changed in place without --output; `packaged`: that of the package"
_SPLIT = "Photos to use; default: policy, else val, else all if unsplit"
_FPR = "Share of these honest photos called synthetic; default: 0.01"
_AGAIN = "Calibrate again though nothing has changed"
_MISS = "Share of these synthetic photos called real; default: 0.05"
_KIND = "Kind of synthetic photo that --miss or --beta is about; may be repeated; default: all"
_TPR_FLOOR = "Share of synthetic photos to find; default: half of that on clean photos"
_MAX_GATED = "Largest share of clean honest photos that may go to review"
_TRAINING_SET = "Its training set; default: an evaluation's, if it is that one"
_PHOTOS = "Their photos, for thumbnails; default: where they were then"
_REFERENCE = "Predictions of the calibration photos by the same model (data.split=policy)"


@app.command("analysis")
def calibrate(
    model: Annotated[Path, app.arg(_CALIBRATED)],
    manifest: app.Manifest,
    split: Annotated[str | None, app.opt(_SPLIT)] = None,
    fpr: Annotated[float | None, app.opt(_FPR)] = None,
    miss: Annotated[float | None, app.opt(_MISS)] = None,
    alpha: Annotated[float | None, app.opt("Guaranteed instead of --fpr")] = None,
    beta: Annotated[float | None, app.opt("Guaranteed instead of --miss")] = None,
    delta: Annotated[float, app.opt("Risk that a guarantee fails")] = 0.05,
    kind: Annotated[list[str] | None, app.opt(_KIND)] = None,
    output: ModelOutput = None,
    overwrite: Annotated[bool, app.opt(_AGAIN, "--overwrite")] = False,
    threads: app.Threads = None,
) -> int:
    """Write probabilities and thresholds into a model file.

    --fpr and --miss are rates on these photos; --alpha and --beta are guarantees about future ones.
    With confidence 1 - delta, at most a share alpha of really damaged photos is called synthetic,
    and at most a share beta of synthetic photos real.
    """
    from realdamage.core.detector import PACKAGED_MODEL
    from realdamage.data.readers import read_dataset
    from realdamage.evaluation.calibration import calibrate_model, is_calibrated
    from realdamage.evaluation.guarantee import Targets
    from realdamage.rendering.terminal import calibration_text

    if model == Path("packaged"):
        if output is None:
            message = "packaged: the model of the package stays as it is; name a file with --output"
            raise UsageError(message, code="packaged")
        model = PACKAGED_MODEL
    elif not model.exists() and (hint := did_you_mean(str(model), ["packaged"])):
        raise UsageError(f"{model}: no such file.{hint}")
    options: dict[str, Any] = {"split": split, "output": output}
    targets = Targets(fpr, miss, alpha, beta, delta, kinds=tuple(kind or ()))
    photos = read_dataset(manifest)
    if not overwrite and is_calibrated(model, photos, targets, **options):
        print(
            f"{output or model} is up to date: calibrated on these photos with these options "
            "already. --overwrite calibrates again"
        )
        return 0
    found = calibrate_model(model, photos, targets, threads=threads, progress=track, **options)
    print(calibration_text(found))
    return 0


@app.command("analysis")
def gate(
    model: ChangedModel,
    predictions: Annotated[Path, app.opt(f"{app.PREDICTIONS} with a robustness suite")],
    tpr_floor: Annotated[float | None, app.opt(_TPR_FLOOR)] = None,
    max_gated: Annotated[float, app.opt(_MAX_GATED)] = 0.05,
    output: ModelOutput = None,
) -> int:
    """Send photos that are too poor to judge to review.

    Finds in predictions on perturbed photos which are too small, too soft or too compressed for
    this model, and writes those limits into the model file.
    """
    from realdamage.evaluation.gate import gate_model
    from realdamage.evaluation.predictions import read_predictions
    from realdamage.rendering.terminal import render

    table = read_predictions(predictions)
    summary = gate_model(model, table, tpr_floor=tpr_floor, max_gated=max_gated, output=output)
    print(f"{output or model}: gated\n{render('gate', summary=summary)}")
    return 0


@app.command("train")
def quantize(
    model: Model,
    manifest: app.Manifest,
    split: Annotated[str, app.opt("Photos that decide")] = "val",
    limit: Annotated[int, app.opt("Largest number of photos that decide")] = 300,
    threads: Annotated[int, app.opt("CPU threads of each model")] = 2,
    output: Annotated[Path | None, app.opt("Default: MODEL.int8.onnx")] = None,
) -> int:
    """Write a faster variant of a model that is as good.

    Compares a variant with 8-bit integers with the model on the same photos. Exit code 1, and no
    file, if it is not as good or not faster.
    """
    from realdamage.data.readers import read_dataset
    from realdamage.exporting.quantize import quantize_model, summary_text

    photos = read_dataset(manifest)
    summary = quantize_model(
        model, photos, output, split=split, limit=limit, threads=threads, progress=track
    )
    print(summary_text(summary))
    return 0 if summary.output else 1


@app.command("analysis")
def card(
    model: Model,
    evaluation: Annotated[list[str], app.opt("Its evaluations; repeatable", metavar="[NAME=]DIR")],
    folds: Annotated[Path | None, app.opt("folds.csv of realdamage-folds")] = None,
    manifest: Annotated[Path | None, app.opt(_TRAINING_SET)] = None,
    command: Annotated[list[str] | None, app.opt("That led to the model; repeat in order")] = None,
    licence: Annotated[str, app.opt("Licence of the model")] = "",
    output: Annotated[Path | None, app.opt("-: the terminal; default: the model's .md")] = None,
) -> int:
    """Write a model card in Markdown.

    From the model file and its evaluations: what the model has seen, how good it is, what its
    thresholds guarantee, what it cannot do, and how to make it again.
    """
    from realdamage.rendering.card import CardInputs, card_text, named_folders

    page = output or model.with_suffix(".md")
    text = card_text(
        CardInputs(model, named_folders(evaluation), folds, manifest, command or (), licence)
    )
    if str(output) == "-":
        print(text, end="")
    else:
        write_atomically(page, text.encode())
        print(f"{text.splitlines()[0].strip('*')}\n\nthe card: {page}")
    return 0


@app.command("analysis")
def compare(
    a: Annotated[Path, app.arg("Evaluation folder or predictions file of the old model")],
    b: Annotated[Path, app.arg("The same of the new model")],
    html: app.Html = None,
    manifest: Annotated[Path | None, app.opt(_PHOTOS)] = None,
    fail_if_worse: Annotated[bool, app.opt("Exit with 1 if B is worse", "--fail-if-worse")] = False,
) -> int:
    """Compare two models on the same photos.

    Says whether B is better than A, with paired intervals on the photos that both have judged.
    """
    from realdamage.evaluation.compare import compare_models
    from realdamage.evaluation.predictions import find_predictions, read_predictions
    from realdamage.rendering.html import comparison_page, photos_of
    from realdamage.rendering.terminal import comparison_text

    sides = read_predictions(find_predictions(a)), read_predictions(find_predictions(b))
    comparison = compare_models(*sides, names=(str(a), str(b)))
    if html:
        page = comparison_page(comparison, sides, photos_of((a, b), manifest))
        write_atomically(html, page.encode())
    print(comparison_text(comparison))
    worse = any(figure.standing == "worse" for figure in comparison.figures)
    return 1 if fail_if_worse and worse else 0


@app.command("analysis")
def costs(
    predictions: Predictions,
    fraud_rate: Annotated[float, app.opt("Share of fake claims, 0 to 1")],
    claim_value: Annotated[float, app.opt("Refund lost when a fake is paid")],
    review_cost: Annotated[float, app.opt("Of a person judging one claim")],
    accusation_cost: Annotated[float, app.opt("Of refusing an honest buyer: lost trust")],
) -> int:
    """Say what a claim costs at your own numbers.

    When all claims are paid, when all are reviewed, and with the model's outcomes. Calibrate with
    other rates and judge again to compare thresholds.
    """
    from realdamage.evaluation.costs import Costs, cost_report
    from realdamage.evaluation.predictions import read_predictions
    from realdamage.rendering.terminal import render

    own = Costs(fraud_rate, claim_value, review_cost, accusation_cost)
    print(render("costs", report=cost_report(read_predictions(predictions), own)))
    return 0


@app.command("analysis")
def triage(
    predictions: Predictions,
    output: Annotated[Path, app.opt("CSV file for the whole queue")] = Path("queue.csv"),
    claims: Annotated[Path | None, app.opt("CSV: claim_id, file_name, maybe claim_value")] = None,
    claim_value: Annotated[float | None, app.opt("Of claims without one of their own")] = None,
) -> int:
    """Order the review queue.

    The claim where looking at a photo avoids the largest loss comes first, its photos together. A
    claim is as likely to be fake as its most suspicious photo.
    """
    from realdamage.evaluation.costs import read_claims, triage_order
    from realdamage.evaluation.predictions import read_predictions, table_csv
    from realdamage.rendering.terminal import render

    listed = read_claims(claims) if claims else None
    queue = triage_order(read_predictions(predictions), claims=listed, claim_value=claim_value)
    write_atomically(output, table_csv(queue.photos.round(6)))
    print(f"{render('queue', queue=queue)}\n\nthe whole queue: {output}")
    return 0


@app.command("analysis")
def monitor(
    log: Annotated[Path, app.arg(".csv or .parquet of realdamage predict")],
    reference: Annotated[Path, app.opt(_REFERENCE)],
    model: app.JudgedBy = None,
    json_file: app.Json = None,
) -> int:
    """Check whether photos are still like the calibration photos.

    Needs no labels: compares scores, sizes, compression and fine detail. Exit code 1 if they
    differ, so that no guarantee holds.
    """
    from realdamage.evaluation.monitor import monitor as compare_log
    from realdamage.evaluation.predictions import read_log, read_predictions
    from realdamage.rendering.terminal import render

    found = compare_log(read_log(log), read_predictions(reference), model)
    if json_file:
        text = json.dumps({"alarm": found.alarm, **asdict(found)}, indent=2, allow_nan=False)
        write_atomically(json_file, f"{text}\n".encode())
    print(render("monitor", report=found))
    return 1 if found.alarm else 0


@app.command()
def info(
    model: Annotated[Path | None, app.arg("The .onnx file; default: the packaged model")] = None,
    as_json: Annotated[bool, app.opt("Print all metadata as JSON", "--json")] = False,
) -> int:
    """Check a model file and say what it is.

    Prints the model's training, thresholds and guarantee; with --json, all of its metadata.
    """
    from realdamage.core.detector import PACKAGED_MODEL
    from realdamage.core.model_file import read_model_file

    path = model or PACKAGED_MODEL
    data, metadata, graph_sha256 = read_model_file(path)
    values = {"file": str(path), "bytes": len(data), "graph_sha256": graph_sha256}
    values |= json.loads(metadata.to_json())
    print(json.dumps(values, indent=2) if as_json else "\n".join(info_lines(values)))
    return 0


def info_lines(values: dict[str, Any]) -> list[str]:
    """The metadata of a model file, as --json prints it, in about ten lines."""
    training, spec = values["training"], values["pixel_spec"]
    policy, calibration = values["policy"], values["calibration"]
    photos = " and ".join(f"{n:,} {label}" for label, n in training.get("photos", {}).items())
    generators = f", {len(training['generators'])} generators" if "generators" in training else ""
    audit = training.get("audit")
    guarantee = (policy or {}).get("guarantee")
    day = str(training.get("created", ""))[:10]
    lines = {
        "file": f"{values['file']}, {values['bytes'] / 1e6:.1f} MB",
        "network": f"{values['backbone']}, graph {values['graph_sha256'][:12]}",
        "model": values["model_version"] + (" (a demonstration)" if values["demo"] else ""),
        "trained": f"{day} on {photos or 'unknown'} photos{generators}",
        "audit": str(audit.get("verdict") if isinstance(audit, dict) else audit or "not known"),
        "pixels": f"tiles of {spec['tile']}; photos are resized above {spec['max_side']}",
        "probability": f"where {calibration['prior']:.1%} of photos are synthetic"
        if calibration
        else "none; run `realdamage calibrate`",
        "synthetic": f"score {policy['t_synthetic']:+.3f} or more" if policy else "never",
        "real": f"score {policy['t_real']:+.3f} or less" if policy else "never",
        "review": "everything else; a person looks at it",
        "guarantee": guarantee["statement"] if guarantee else "none",
    }
    texts = [
        textwrap.fill(text, 100, initial_indent=f"{term:<13}", subsequent_indent=" " * 13)
        for term, text in lines.items()
    ]
    return [*texts, "\n--json prints all metadata"]
