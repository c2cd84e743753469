"""The model card: what a model has seen, how good it is, and what it cannot do.

It is written from artefacts alone, so it can be written again whenever the model changes: the
model's file, the folders of its evaluations, and folds.csv. Its words are in templates/card.md.j2.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from realdamage.core.detector import Detector
from realdamage.core.model_file import stored_policy_sha256
from realdamage.data.bootstrap import share_interval
from realdamage.data.manifest import Manifest
from realdamage.data.readers import read_dataset
from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import ManifestError, RealDamageError, UsageError
from realdamage.evaluation.figures import has_thresholds, labelled_and_scored
from realdamage.evaluation.guarantee import allowed_share
from realdamage.evaluation.predictions import clean, read_evaluation
from realdamage.evaluation.robustness import training_set
from realdamage.evaluation.slices import FEW, outcomes_by_source
from realdamage.rendering import markdown, outcomes, terminal, words
from realdamage.rendering.markdown import Markdown
from realdamage.rendering.outcomes import GeneratorCount
from realdamage.rendering.report import build_report
from realdamage.rendering.words import NOTHING, Row, interval, percent

LEAST_AUROC, LEAST_TPR = 0.7, 0.1
"""A slice below either is listed among what the model cannot do. Without any skill they are 0.5 and
0.01."""
_SLICES = ("kind", "generator", "family", "damage", "mask_area", "source", "condition")
# What the card says elsewhere; everything else that training wrote down is a setting.
_TOLD_ELSEWHERE = {
    *("audit", "created", "excluded", "generators", "git_commit", "manifest_sha256", "photos"),
    "realdamage",
}


@dataclass(frozen=True)
class CardInputs:
    """What a card is written from.

    evaluations: folders of realdamage-evaluate by name. folds: CSV of realdamage-folds. manifest:
    folder of the training set. commands: those that led to the model, in order. licence: of the
    model.
    """

    model: Path
    evaluations: Mapping[str, Path]
    folds: Path | None = None
    manifest: Path | None = None
    commands: Sequence[str] = ()
    licence: str = ""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation: photos as they are (scored), those judged with thresholds, and the report's
    values."""

    name: str
    photos: pd.DataFrame
    judged: pd.DataFrame  # under all perturbations
    values: Mapping[str, Any]
    run: Mapping[str, Any]
    generators: Sequence[GeneratorCount]

    @property
    def real(self) -> pd.DataFrame:
        """Real photos as they are, judged with thresholds."""
        return clean(self.judged[self.judged["label"] == "real"])

    def tables(self) -> Iterator[tuple[str, Sequence[Row]]]:
        """(column, rows) of the robustness suite and of all slices by one column."""
        yield "perturbation", words.perturbation_rows(self.values["robustness"])
        for key in _SLICES:
            yield key, self.values["slices"].get(key, [])


def named_folders(given: Sequence[str]) -> dict[str, Path]:
    """Folders by name from "NAME=FOLDER" or "FOLDER", whose last part is then the name. Raises
    UsageError."""
    folders: dict[str, Path] = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not sign or Path(text).exists():
            name, path = Path(text).resolve().name, text
        if not name or not path or name in folders:
            raise UsageError(
                f"--evaluation {text}: write NAME=FOLDER, such as test=out/x/test, and each name "
                "once"
            )
        folders[name] = Path(path)
    return folders


def card_text(given: CardInputs) -> str:
    """The card.

    Raises ModelFileError: no model file; RealDamageError: an evaluation of another model, a file
    that is not what it should be; UsageError: no evaluation, no such folder or file.
    """
    if not given.evaluations:
        raise UsageError("A card needs figures: name an evaluation with --evaluation FOLDER")
    detector = Detector.load(given.model, threads=1)
    metadata = detector.metadata
    read = {name: _read(path, given.model, detector) for name, path in given.evaluations.items()}
    runs = [metrics.get("run") or {} for _, metrics in read.values()]
    rows = find_training_photos(metadata.training, given.manifest, runs)
    evaluations = []
    for (name, (predictions, metrics)), run in zip(read.items(), runs, strict=True):
        scored = labelled_and_scored(predictions)
        photos, judged = clean(scored), scored[has_thresholds(scored)]
        generators = outcomes.generator_counts(photos, metadata.training)
        values = build_report((predictions, metrics), detector=detector).values
        evaluations.append(Evaluated(name, photos, judged, values, run, generators))
    folds = markdown.read_folds(given.folds) if given.folds else None
    policy, data = metadata.policy, given.model.read_bytes()
    allowed = allowed_share(policy) if policy else 1.0
    template = markdown.environment().get_template("card.md.j2")
    text = template.render(
        families=_families,
        painted=_painted,
        share=_share,
        slice=_slice,
        outcomes_by_source=outcomes_by_source,
        given=given,
        metadata=metadata,
        training=metadata.training,
        policy=policy,
        policy_sha256=stored_policy_sha256(data),
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        graph_sha256=detector.graph_sha256,
        facts=words.facts("model.txt.j2", metadata=metadata),
        today=datetime.datetime.now(datetime.UTC).date(),
        version=version("realdamage"),
        evaluations=evaluations,
        outcome_cells=outcomes.outcome_cells,
        outcome_columns=outcomes.COLUMNS,
        benchmark_text=terminal.benchmark_text,
        few=FEW,
        least=(LEAST_AUROC, LEAST_TPR),
        trained_rows=rows,
        trained=_generators_in_training(metadata.training, rows),
        folds=folds,
        audit=words.audit_facts(metadata),
        policy_facts=words.facts("policy.txt.j2", metadata=metadata),
        settings=[
            row for row in _flat(metadata.training) if row[0].split(".")[0] not in _TOLD_ELSEWHERE
        ],
        validation=list(_flat(metadata.metrics)),
        commands=_commands(given, evaluations, folds),
        weak=[row for each in evaluations for row in weak_slices(each)],
        allowed=allowed,
        accused=[row for each in evaluations for row in accused(each, allowed)],
        strange=[] if rows is None else list(strange_sources(evaluations, rows)),
        missing_damage=missing_damage(evaluations),
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _read(folder: Path, model: Path, detector: Detector) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Predictions and metrics. Raises RealDamageError: another network was evaluated."""
    predictions, metrics = read_evaluation(folder)
    judged_by = str((metrics.get("run") or {}).get("graph_sha256") or "")
    others = {judged_by, *predictions["graph_sha256"]} - {"", detector.graph_sha256}
    if others or not judged_by:
        found = f"by another network ({min(others)[:12]})" if others else "with a checkpoint"
        raise RealDamageError(
            f"{folder}: its photos were judged {found}, not by {model} "
            f"({detector.graph_sha256[:12]}). Evaluate this file: "
            f"realdamage-evaluate checkpoint={model} …",
            code="another_network",
        )
    return predictions, metrics


def find_training_photos(
    training: Mapping[str, Any], given: Path | None, runs: Sequence[Mapping[str, Any]]
) -> pd.DataFrame | None:
    """The rows that the model was trained on, from the folder `given`, or from where an evaluation
    has its photos.

    Raises RealDamageError: the set `given` cannot be read, or is another one.
    """
    if given is None:
        for place in filter(None, dict.fromkeys(str(run.get("data_root") or "") for run in runs)):
            with suppress(RealDamageError):
                rows = _trained_on(read_dataset(place), training)
                if rows is not None:
                    return rows
        return None
    rows = _trained_on(read_dataset(given), training)
    if rows is None:
        digest = str(training.get("manifest_sha256") or "none")[:12]
        raise ManifestError(
            f"{given}: not the set that this model was trained on (its file names manifest "
            f"{digest}). Name that one with --manifest, or leave the option out.",
            code="another_training_set",
        )
    return rows


def _trained_on(manifest: Manifest, training: Mapping[str, Any]) -> pd.DataFrame | None:
    """The rows that the model was trained on; None: it was trained on another manifest."""
    known = training_set(manifest, training)
    if known is None:
        return None
    return known.table[known.table["split"] == "train"].reset_index(drop=True)


def _generators_in_training(
    training: Mapping[str, Any], rows: pd.DataFrame | None
) -> Sequence[GeneratorCount] | None:
    """From the photos, or from the names in the model's file, which has no counts; None: it has no
    names."""
    if rows is None and "generators" not in training:
        return None
    if rows is None:
        names = pd.Series([str(name) for name in training["generators"]], dtype=str)
        rows = pd.DataFrame({"generator": names, "label": "synthetic", "family": ""})
        rows["kind"] = names.eq("paint").map({True: "pasted", False: ""})
    return outcomes.generator_counts(rows, {})


def _commands(
    given: CardInputs, evaluations: Sequence[Evaluated], folds: Mapping[str, Any] | None
) -> list[str]:
    """All commands that are known, in order."""
    own = ["realdamage", "card", str(given.model)]
    for name, folder in given.evaluations.items():
        own += ["--evaluation", f"{name}={folder}"]
    for option in ("folds", "manifest", "licence"):
        value = getattr(given, option)
        own += [f"--{option}", str(value)] if value else []
    for command in given.commands:
        own += ["--command", command]
    known = [*given.commands, *(each.run.get("command") for each in evaluations)]
    known += [*(folds["commands"] if folds else ()), shlex.join(own)]
    return list(filter(None, dict.fromkeys(known)))


def weak_slices(each: Evaluated) -> list[tuple[str, ...]]:
    """Slices below `LEAST_AUROC` or `LEAST_TPR`, the worst first. Equal photos share a row."""
    found: dict[tuple[Any, ...], tuple[list[str], Row]] = {}
    for key, row in ((key, row) for key, table in each.tables() for row in table):
        auroc, rate, value = row.get("auroc"), row.get("tpr_at_fpr_1"), str(row[key])
        # Nobody can act on photos of no named source or condition.
        nameless = value.startswith("(") and key not in ("generator", "perturbation")
        if auroc is None or nameless:
            continue
        if auroc < LEAST_AUROC or (rate is not None and rate < LEAST_TPR):
            same = (row["n"], auroc, rate, row.get("called_real"))
            names, _ = found.setdefault(same, ([], row))
            names.append(f"{key.replace('_', ' ')} {value}")
    rows = []
    for names, row in sorted(found.values(), key=lambda pair: float(pair[1]["auroc"])):
        cells = [words.cell(row, key) for key in ("n", "auroc", "tpr_at_fpr_1")]
        rows.append((each.name, " = ".join(names), *cells))
    return rows


def accused(each: Evaluated, most: float) -> list[dict[str, Any]]:
    """Where more honest photos than the share `most` were called synthetic: evaluation, after, n,
    of, sort, share."""
    rows = []
    titles = {row["perturbation"]: row.get("title") for row in each.values["robustness"]}
    real = each.judged[each.judged["label"] == "real"]
    for name, photos in real.groupby("perturbation", sort=False):
        damaged = photos[photos["kind"] == "damaged"]
        sorts = {"photos of real damage": damaged}
        sorts |= {"real photos of any kind": photos} if len(photos) > len(damaged) else {}
        where = {"evaluation": each.name, "after": titles.get(name) or name}
        for sort, own in sorts.items():
            n, of = int((own["outcome"] == "synthetic").sum()), len(own)
            if n > most * of:
                rows.append({**where, "sort": sort, "n": n, "of": of, "share": _share(n, of)})
    return rows


def strange_sources(evaluations: Sequence[Evaluated], training: pd.DataFrame) -> Iterator[str]:
    """Real photos of sources that the model was never trained on, and what they were called."""
    known = ["", *training.loc[training["label"] == "real", "source"]]
    for each in evaluations:
        real = each.photos[each.photos["label"] == "real"]
        for name, own in real[~real["source"].isin(known)].groupby("source"):
            called = _share(int((own["outcome"] == "synthetic").sum()), len(own))
            yield f"{name} in “{each.name}” ({len(own):,} photos, {called} called synthetic)"


def missing_damage(evaluations: Sequence[Evaluated]) -> list[str]:
    """The types of real damage that no test has."""
    photos = pd.concat([each.photos for each in evaluations])
    there = set(photos.loc[photos["kind"] == "damaged", "damage"]) | {"other"}
    return [name for name in DAMAGES if name not in there]


def _painted(photos: pd.DataFrame, generators: Sequence[GeneratorCount] | None) -> int:
    """How many photos by deployed generators show damage."""
    names = [row.name for row in generators or () if row.sort == "deployed"]
    by_deployed = photos["generator"].isin(names) & (photos["kind"] != "pasted")
    return int((by_deployed & (photos["label"] == "synthetic") & (photos["damage"] != "")).sum())


def _families(generators: Sequence[GeneratorCount]) -> str:
    """ "114 photos by deployed generators (sd1 58, flux1 56)", by family, the most first."""
    photos: Counter[str] = Counter()
    for row in generators:
        photos[row.family or row.name] += row.photos if row.sort == "deployed" else 0
    families = ", ".join(f"{name} {n:,}" for name, n in photos.most_common() if n)
    which = f" ({families})" if families else ""
    return f"{words.count(photos.total(), 'photo')} by deployed generators{which}"


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as rows of a table: (a.b, value)."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
            continue
        listed = value if isinstance(value, list) else [value]
        texts = [f"{each:.4g}" if isinstance(each, float) else str(each) for each in listed]
        yield f"{before}{key}", ", ".join(texts)


def _slice(key: str, rows: Sequence[Row], generators: Sequence[GeneratorCount] = ()) -> Markdown:
    """Rows with a figure; generators: for a column that says whether the model was trained on
    each."""
    rows = [row for row in rows if row.get("auroc") is not None]
    columns = words.measured(rows)
    known = {True: "trained on", False: "never trained on", None: "not known"}
    marks = {row.name: [f"{known[row.trained_on]} ({row.sort})"] for row in generators}
    cells = []
    for row in rows:
        mark = marks.get(row[key], [NOTHING]) if marks else []
        cells.append((row[key], *mark, *(words.cell(row, column) for column in columns)))
    return markdown.table((key, *(["in training"] if marks else []), *columns.values()), cells)


def _share(n: int, of: int) -> str:
    """A share with its exact interval (Clopper and Pearson)."""
    return f"{percent(n / of)} ({interval(share_interval(n, of), percent)})"
