"""A model card in Markdown, written from artefacts alone: the model's file, the folders of its evaluations, and what
else is at hand. Nothing in it is typed in by hand, so it can be written anew whenever the model changes."""

from __future__ import annotations

import datetime
import hashlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from realdamage.core.detector import Detector
from realdamage.core.model_file import ModelMetadata, stored_policy_sha256
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.figures import labelled_and_scored
from realdamage.evaluation.folder import read_evaluation
from realdamage.evaluation.predictions import clean
from realdamage.evaluation.slices import FEW
from realdamage.rendering import card_limits, report_words
from realdamage.rendering.card_artefacts import Folds, benchmark_table, read_folds
from realdamage.rendering.card_figures import (
    Evaluated,
    commit_words,
    evaluation_text,
    false_alarms,
    outcomes,
)
from realdamage.rendering.card_markdown import (
    Markdown,
    bullets,
    code,
    code_block,
    escape,
    render,
    settings,
    table,
)
from realdamage.rendering.card_training import (
    excluded,
    find_training_photos,
    first_line,
    generators_table,
    licences,
    photos_table,
    seen,
    seen_in_training,
)
from realdamage.rendering.pages import figure, percent
from realdamage.rendering.report import build_report

# What the card tells elsewhere; whatever else a training run wrote down stands among the hyper-parameters.
_TOLD = {
    "audit",
    "created",
    "excluded",
    "generators",
    "git_commit",
    "manifest_sha256",
    "photos",
    "realdamage",
}


@dataclass(frozen=True)
class CardInputs:
    """What a card is written from. evaluations: folders of realdamage-evaluate by name. folds: CSV of realdamage-folds.
    manifest: folder of the training set. commands: those that led to the model, in order. data_card: what describes the
    training set. benchmark: JSON of pytest-benchmark. licence: of the model."""

    model: Path
    evaluations: Mapping[str, Path]
    folds: Path | None = None
    manifest: Path | None = None
    commands: Sequence[str] = ()
    data_card: Path | None = None
    benchmark: Path | None = None
    licence: str = ""


def named_folders(given: Sequence[str]) -> dict[str, Path]:
    """Folders from "NAME=FOLDER" or "FOLDER", whose last part is then the name. Raises UsageError: a name twice."""
    folders: dict[str, Path] = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not sign or Path(text).exists():
            name, path = Path(text).resolve().name, text
        if not name or not path:
            raise UsageError(
                f"--evaluation {text}: write NAME=FOLDER, such as test=out/x/test, or FOLDER alone"
            )
        if name in folders:
            raise UsageError(
                f"--evaluation {text}: {folders[name]} is called {name} already. Give them names: NAME={path}"
            )
        folders[name] = Path(path)
    return folders


def card_text(given: CardInputs, *, folder: Path | None = None) -> str:
    """The card. folder: where it will lie, from which it links to the data card; default: the working directory.

    Raises ModelFileError: no model file; RealDamageError: an evaluation of another model, a file that is not what it
    should be; UsageError: no evaluation, no such folder or file.
    """
    if not given.evaluations:
        raise UsageError(
            "a card without figures says nothing: name an evaluation with --evaluation FOLDER"
        )
    detector = Detector.load(given.model, threads=1)
    metadata, data = detector.metadata, given.model.read_bytes()
    policy_sha256 = stored_policy_sha256(data)
    read = {
        name: _read(folder, detector, given.model) for name, folder in given.evaluations.items()
    }
    runs = [metrics.get("run") or {} for _, metrics in read.values()]
    rows, unknown = find_training_photos(metadata.training, given.manifest, runs)
    families = _families(
        [*([] if rows is None else [rows]), *(photos for photos, _ in read.values())]
    )
    trained = seen_in_training(metadata.training, rows, families)
    evaluations = [
        _evaluated(name, *parts, detector, families, policy_sha256) for name, parts in read.items()
    ]
    tests = {evaluated.name: evaluated.seen for evaluated in evaluations}
    folds = read_folds(given.folds) if given.folds else None
    recipe = {key: value for key, value in metadata.training.items() if key not in _TOLD}
    policy, guarantee = metadata.policy, metadata.policy.guarantee if metadata.policy else None
    return render(
        "card.md.j2",
        first_line=first_line(trained, tests),
        metadata=metadata,
        false_alarms=false_alarms(evaluations),
        few=FEW,
        facts=table(("", ""), list(_facts(given, detector, data, policy_sha256))),
        photos=photos_table(metadata.training, rows),
        generators=generators_table(trained),
        named=trained is not None,
        unknown=unknown,
        excluded=bullets(excluded(metadata.training)),
        licences=licences(rows),
        manifest=str(metadata.training.get("manifest_sha256") or ""),
        audit=report_words.audit_words(metadata),
        audit_tests=_audit_tests(metadata),
        data_card=_link(given.data_card, folder),
        recipe=table(("setting", "value"), list(settings(recipe))),
        validation=table(
            (_validated_on(metadata.metrics), "value"), list(settings(metadata.metrics))
        ),
        commands=code_block(given.commands),
        evaluations=[evaluation_text(evaluated) for evaluated in evaluations],
        folds=folds,
        benchmark=benchmark_table(given.benchmark) if given.benchmark else "",
        policy=table(("", ""), report_words.policy_words(policy, metadata.calibration)),
        guarantee=guarantee,
        percent=percent,
        outcomes=outcomes(evaluations),
        weak=card_limits.weak_slices(evaluations),
        least=(card_limits.LEAST_AUROC, card_limits.LEAST_TPR),
        unmeasured=bullets(list(card_limits.unmeasured(evaluations))),
        limits=bullets(
            [
                *card_limits.accusations(evaluations, policy),
                *card_limits.sources(evaluations, rows),
                *card_limits.damage_types(evaluations),
            ]
        ),
        whole_photo=bool(policy and policy.whole_photo_share is not None),
        reproduce=code_block(_reproduce(given, runs, folds)),
    )


def _read(folder: Path, detector: Detector, model: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Scored rows of all perturbations, and metrics. Raises RealDamageError: another network was evaluated."""
    predictions, metrics = read_evaluation(folder)
    judged_by = str((metrics.get("run") or {}).get("graph_sha256") or "")
    networks = {judged_by, *(set(predictions["graph_sha256"]) - {""})}
    others = sorted(networks - {detector.graph_sha256})
    if others:
        found = (
            f"by another network ({others[0][:12]})"
            if others[0]
            else "with a checkpoint, or by an older version,"
        )
        raise RealDamageError(
            f"{folder}: its photos were judged {found} than {model} ({detector.graph_sha256[:12]}). Evaluate this "
            f"file: realdamage-evaluate checkpoint={model} …"
        )
    return predictions, metrics


def _evaluated(
    name: str,
    predictions: pd.DataFrame,
    metrics: Mapping[str, Any],
    detector: Detector,
    families: Mapping[str, str],
    policy_sha256: str,
) -> Evaluated:
    report = build_report((predictions, metrics), detector=detector)
    scored = labelled_and_scored(predictions)
    photos = clean(scored)
    notes = []
    judged_with = str((metrics.get("run") or {}).get("policy_sha256") or policy_sha256)
    if judged_with != policy_sha256:
        notes.append(
            f"the network is the same, but calibration, policy or other metadata were another version "
            f"({judged_with[:12]}) than the file's ({policy_sha256[:12]}); outcomes are those of the evaluation."
        )
    trained_on = int((photos["split"] == "train").sum())
    if trained_on:
        notes.append(
            f"{trained_on:,} of its photos are of a split “train”; where the model learned from them, they flatter it."
        )
    found = seen(photos, detector.metadata.training, families)
    return Evaluated(name, scored, metrics, report, found, tuple(notes))


def _families(tables: Sequence[pd.DataFrame]) -> dict[str, str]:
    """The family of every generator that is named somewhere, "" where it has none."""
    families: dict[str, str] = {}
    for rows in tables:
        for name, family in zip(rows["generator"], rows["family"], strict=True):
            families[name] = families.get(name) or family
    return families


def _validated_on(figures: Mapping[str, Any]) -> str:
    """Models of before `val/photos` was counted may have been validated on the first photos only, as they lay there."""
    return (
        "on the val split"
        if "val/photos" in figures
        else "on val photos (the first ones, perhaps of one source)"
    )


def _facts(
    given: CardInputs, detector: Detector, data: bytes, policy_sha256: str
) -> Iterator[tuple[str, object]]:
    metadata, spec = detector.metadata, detector.metadata.pixel_spec
    training = metadata.training
    yield "model", metadata.model_version
    yield "file", f"{given.model.name}, {len(data) / 1e6:.1f} MB"
    yield "sha256 of the file", code(hashlib.sha256(data).hexdigest())
    yield "graph_sha256 (network and weights)", code(detector.graph_sha256)
    yield "policy_sha256 (everything else)", code(policy_sha256)
    yield "backbone", metadata.backbone
    parameters = _parameters(data)
    if parameters:
        yield "parameters", f"{parameters:,}"
    yield (
        "pixels",
        f"tiles of {spec.tile}, overlap {spec.overlap}, patches of {spec.patch}; a longer side than {spec.max_side} is "
        f"resized ({spec.filter})",
    )
    yield "photo score", f"{metadata.pooling.name} over tiles and patches"
    for term, key in (("trained", "created"), ("with realdamage", "realdamage")):
        if training.get(key):
            yield term, str(training[key])[:10]
    if training.get("git_commit"):
        yield "at commit", commit_words(str(training["git_commit"]))
    yield "licence", given.licence or "not told (--licence)"
    today = datetime.datetime.now(datetime.UTC).date()
    yield "this card", f"written {today} by realdamage {version('realdamage')}"


def _parameters(data: bytes) -> int | None:
    """How many numbers the graph's weights are; None without the package that reads them."""
    try:
        import onnx
    except ImportError:
        return None
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)
    weights = (
        each for each in onnx.load_from_string(data).graph.initializer if each.data_type in floats
    )
    total = 0
    for each in weights:
        count = 1
        for length in each.dims:
            count *= length
        total += count
    return total


def _link(path: Path | None, folder: Path | None) -> Markdown:
    if path is None:
        return Markdown("")
    if not path.is_file():
        raise UsageError(
            f"--data-card {path}: no such file; name the text that describes the training set"
        )
    target = os.path.relpath(path, folder or Path.cwd()).replace(os.sep, "/")
    return Markdown(f"[{escape(path.name)}](<{target}>)")


def _audit_tests(metadata: ModelMetadata) -> Markdown:
    tests = report_words.audit_words(metadata).tests
    return table(
        ("what was given away by", "AUROC", "95% interval"),
        [
            (name, figure(auroc), f"{figure(low)} to {figure(high)}")
            for name, auroc, low, high in tests
        ],
    )


def _reproduce(
    given: CardInputs, runs: Sequence[Mapping[str, Any]], folds: Folds | None
) -> list[str]:
    """All commands that are known, in order."""
    evaluated = [str(run.get("command") or "") for run in runs]
    known = [*given.commands, *evaluated, *(folds.commands if folds else ()), _own_command(given)]
    return [command for command in dict.fromkeys(known) if command]


def _own_command(given: CardInputs) -> str:
    words = ["realdamage", "card", str(given.model)]
    for name, folder in given.evaluations.items():
        words += ["--evaluation", f"{name}={folder}"]
    for option in ("folds", "manifest", "data_card", "benchmark", "licence"):
        value = getattr(given, option)
        words += [f"--{option.replace('_', '-')}", str(value)] if value else []
    for command in given.commands:
        words += ["--command", command]
    return shlex.join(words)
