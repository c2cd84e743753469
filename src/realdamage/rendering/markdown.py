"""Markdown: the model card, and the table of folds.

The card is written from artefacts alone, so it can be written again whenever the model changes: the model's file, the
folders of its evaluations, and folds.csv. Its words are in templates/card.md.j2.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment

from realdamage.core.detector import Detector
from realdamage.core.metadata import stored_policy_sha256
from realdamage.core.policy import Policy
from realdamage.data.bootstrap import share_interval
from realdamage.data.manifest import Manifest
from realdamage.data.readers import read_dataset
from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import ManifestError, RealDamageError, UsageError
from realdamage.evaluation.figures import has_thresholds, labelled_and_scored
from realdamage.evaluation.folder import read_evaluation
from realdamage.evaluation.left_out import ALL, AS_IT_IS, MEAN, WORST
from realdamage.evaluation.left_out import COLUMNS as FOLD_COLUMNS
from realdamage.evaluation.predictions import clean
from realdamage.evaluation.slices import FEW, outcomes_by_source
from realdamage.rendering import terminal, words
from realdamage.rendering.html import build_report
from realdamage.rendering.words import NOTHING, GeneratorCount, Row, interval, number, percent

# Underscores between letters, as in house_nearest, mean nothing.
_SPECIAL = re.compile(r"([\\`*~\[\]<>|&]|(?<!\w)_|_(?!\w))")
LEAST_AUROC, LEAST_TPR = 0.7, 0.1
"""A slice below either is listed among what the model cannot do. Without any skill they are 0.5 and 0.01."""
_SLICES = ("kind", "generator", "family", "damage", "mask_area", "source", "condition")
# What the card says elsewhere; everything else that training wrote down is a setting.
_NOT_SETTINGS = {
    *("audit", "created", "excluded", "generators", "git_commit", "manifest_sha256", "photos"),
    "realdamage",
}


class Markdown(str):
    """Text that is Markdown already, and so is not escaped."""

    __slots__ = ()


def escape(value: object) -> Markdown:
    """`value` on one line, with nothing that Markdown gives a meaning to."""
    if isinstance(value, Markdown):
        return value
    return Markdown(_SPECIAL.sub(r"\\\1", " ".join(str(value).split())))


def code(text: str) -> Markdown:
    """`text` within a line, letter by letter."""
    fence = "`" * (_longest_run(text) + 1)
    space = " " if "`" in text else ""
    # A table ends its cell at every |, even within code.
    return Markdown(f"{fence}{space}{' '.join(text.split())}{space}{fence}".replace("|", r"\|"))


def code_block(lines: Sequence[str]) -> Markdown:
    """Lines of code, letter by letter; "" without any."""
    text = "\n".join(lines)
    fence = "`" * max(3, _longest_run(text) + 1)
    return Markdown(f"{fence}\n{text}\n{fence}" if lines else "")


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def table(
    titles: Sequence[object], rows: Sequence[Sequence[object]], pad: bool = False
) -> Markdown:
    """A table; "" without rows. pad: its columns line up in a terminal too."""
    cells = [[escape(cell) for cell in row] for row in (titles, ["---"] * len(titles), *rows)]
    widths = [max(map(len, column)) if pad else 0 for column in zip(*cells, strict=True)]
    lines = [" | ".join(map(str.ljust, row, widths)) for row in cells]
    return Markdown("\n".join(f"| {line} |" for line in lines) if rows else "")


@cache
def _environment() -> Environment:
    environment = words.environment(finalize=escape)
    for function in (table, code, code_block, _by_deployed, _share, _slice, outcomes_by_source):
        environment.globals[function.__name__.strip("_")] = function
    environment.globals |= {"benchmark_text": terminal.benchmark_text, "few": FEW}
    environment.globals["least"] = (LEAST_AUROC, LEAST_TPR)
    return environment


def to_markdown(rows: pd.DataFrame, column: str, unfinished: Sequence[str] = ()) -> str:
    """The table of folds (`left_out_table`, with git_commit, command and date). column: whose values were left out.

    Photos as they are: each fold, its values, mean and worst. Under perturbations: mean and worst over the folds.
    """
    records = [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
    as_is = [row for row in records if row["perturbation"] == AS_IT_IS]
    changed = [row for row in records if row not in as_is and row["fold"] in (MEAN, WORST)]
    titles = ("AUROC (95%)", "TPR at 1% FPR (95%)", "edit above original (95%)", "best F1 (all)")
    notes: dict[str, list[str]] = {}
    for row in as_is:
        for note in filter(None, row["note"].split("; ") if row["fold"] != WORST else []):
            notes.setdefault(note, []).append(_fold(row).removeprefix("· "))
    whole = [(_fold(row), *_counts(row), *_fold_figures(row)) for row in as_is]
    perturbed = [(row["perturbation"], row["fold"], *_fold_figures(row)) for row in changed]
    return (
        _environment()
        .get_template("folds.md.j2")
        .render(
            folds=table((column, "real", "synthetic", *titles), whole, pad=True),
            perturbed=table(("perturbation", "over folds", *titles), perturbed, pad=True),
            worst=[row["note"] for row in as_is if row["fold"] == WORST and row["note"]],
            notes=notes,
            unfinished=unfinished,
            origin=records[0],
        )
        .strip()
    )


def _fold(row: Row) -> str:
    return str(row["fold"]) if row["left_out"] == ALL else f"· {row['left_out']}"


def _counts(row: Row) -> list[str]:
    return ["" if pd.isna(row[key]) else str(int(row[key])) for key in ("n_real", "n_synthetic")]


def _fold_figures(row: Row) -> list[str]:
    texts = []
    for key in ("auroc", "tpr_at_fpr_1", "edit_higher"):
        ends = interval((row[f"{key}_low"], row[f"{key}_high"]))
        texts.append(f"{number(row[key])} ({ends})" if ends else number(row[key]))
    best = number(row["best_f1"], 2)
    return [*texts, best if best == NOTHING else f"{best} ({number(row['baseline_f1'], 2)})"]


def read_folds(path: Path) -> dict[str, Any]:
    """models: how many; mean, worst: rows over all folds; table: of all of them; commands: those that made them.

    Raises UsageError: no such file; RealDamageError: not a table of folds, or one without mean and worst.
    """
    numbers = [
        key
        for key in FOLD_COLUMNS
        if key.startswith(("n_", "auroc", "tpr", "edit", "best", "base"))
    ]
    try:
        rows = pd.read_csv(path, keep_default_na=False, na_values={key: [""] for key in numbers})
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Name folds.csv.") from error
    except ValueError as error:
        raise _no_folds(path, str(error)) from error
    missing = [key for key in (*FOLD_COLUMNS, "git_commit", "command", "date") if key not in rows]
    if missing:
        raise _no_folds(path, f"no columns {', '.join(missing)}")
    for key in numbers:
        if not pd.api.types.is_numeric_dtype(rows[key]):
            raise _no_folds(path, f"column {key} holds something other than numbers")
    whole = rows[(rows["perturbation"] == AS_IT_IS) & (rows["left_out"] == ALL)].set_index("fold")
    if not {MEAN, WORST} <= set(whole.index):
        raise _no_folds(path, f"no rows of fold {MEAN} and {WORST}")
    return {
        "models": len(whole) - 2,
        "mean": whole.loc[MEAN].to_dict(),
        "worst": whole.loc[WORST].to_dict(),
        "table": Markdown(to_markdown(rows, "left out")),
        "commands": list(dict.fromkeys(rows["command"])),
    }


def _no_folds(path: Path, why: str) -> RealDamageError:
    again = "Write it again with realdamage-folds when its folds are finished."
    return RealDamageError(f"{path}: not a table of folds: {why}. {again}", code="not_folds")


@dataclass(frozen=True)
class CardInputs:
    """What a card is written from.

    evaluations: folders of realdamage-evaluate by name. folds: CSV of realdamage-folds. manifest: folder of the
    training set. commands: those that led to the model, in order. licence: of the model.
    """

    model: Path
    evaluations: Mapping[str, Path]
    folds: Path | None = None
    manifest: Path | None = None
    commands: Sequence[str] = ()
    licence: str = ""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation. judged: rows with a score from a model with thresholds, under all perturbations.

    photos: scored rows of the photos as they are. values: those of the report. run: of metrics.json.
    """

    name: str
    photos: pd.DataFrame
    judged: pd.DataFrame
    values: Mapping[str, Any]
    run: Mapping[str, Any]
    generators: Sequence[GeneratorCount]
    notes: Sequence[str]

    @property
    def real(self) -> pd.DataFrame:
        """Real photos as they are, of a model with thresholds."""
        return clean(self.judged[self.judged["label"] == "real"])

    @property
    def deployed(self) -> list[GeneratorCount]:
        return [row for row in self.generators if row.sort == "deployed"]

    def tables(self) -> Iterator[tuple[str, Sequence[Row]]]:
        """(column, rows) of the robustness suite and of all slices by one column."""
        yield "perturbation", words.perturbation_rows(self.values["robustness"])
        for key in _SLICES:
            yield key, self.values["slices"].get(key, [])


def named_folders(given: Sequence[str]) -> dict[str, Path]:
    """Folders by name from "NAME=FOLDER" or "FOLDER", whose last part is then the name. Raises UsageError."""
    folders: dict[str, Path] = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not sign or Path(text).exists():
            name, path = Path(text).resolve().name, text
        if not name or not path:
            raise UsageError(f"--evaluation {text}: write NAME=FOLDER, such as test=out/x/test")
        if name in folders:
            raise UsageError(
                f"--evaluation {text}: {folders[name]} already has the name {name}. Use NAME={path}."
            )
        folders[name] = Path(path)
    return folders


def card_text(given: CardInputs) -> str:
    """The card.

    Raises ModelFileError: no model file; RealDamageError: an evaluation of another model, a file that is not what it
    should be; UsageError: no evaluation, no such folder or file.
    """
    if not given.evaluations:
        raise UsageError("A card needs figures: name an evaluation with --evaluation FOLDER")
    detector, data = Detector.load(given.model, threads=1), given.model.read_bytes()
    metadata, training = detector.metadata, detector.metadata.training
    read = {name: _read(path, detector, given.model) for name, path in given.evaluations.items()}
    runs = [metrics.get("run") or {} for _, metrics in read.values()]
    trained_rows = find_training_photos(training, given.manifest, runs)
    tables = [photos for photos, _ in read.values()]
    families = words.families_of(*tables, *([] if trained_rows is None else [trained_rows]))
    policy_sha256 = stored_policy_sha256(data)
    evaluations = []
    for name, (predictions, metrics) in read.items():
        scored = labelled_and_scored(predictions)
        run, photos = metrics.get("run") or {}, clean(scored)
        evaluations.append(
            Evaluated(
                name,
                photos=photos,
                judged=scored[has_thresholds(scored)],
                values=build_report((predictions, metrics), detector=detector).values,
                run=run,
                generators=words.generator_counts(photos, training, families),
                notes=list(_notes(run, photos, policy_sha256)),
            )
        )
    folds = read_folds(given.folds) if given.folds else None
    commands = [*given.commands, *(str(run.get("command") or "") for run in runs)]
    commands += [*(folds["commands"] if folds else ()), _own_command(given)]
    settings = {key: value for key, value in training.items() if key not in _NOT_SETTINGS}
    trained = _generators_in_training(training, trained_rows, families)
    sets = [(trained_rows, trained), *((each.photos, each.generators) for each in evaluations)]
    policy = metadata.policy
    values = {
        "given": given,
        "metadata": metadata,
        "training": training,
        "trained": trained,
        "trained_rows": trained_rows,
        "painted": [None if rows is None else _showing_damage(rows, own) for rows, own in sets],
        "digests": {
            "sha256 of the file": hashlib.sha256(data).hexdigest(),
            "graph_sha256 (network and weights)": detector.graph_sha256,
            "policy_sha256 (everything else)": policy_sha256,
        },
        "megabytes": len(data) / 1e6,
        "parameters": _parameters(data),
        "facts": words.facts("model.txt.j2", metadata=metadata),
        "written": f"{datetime.datetime.now(datetime.UTC).date()} by realdamage {version('realdamage')}",
        "audit": words.audit_facts(metadata),
        "settings": list(_flat(settings)),
        "validation": list(_flat(metadata.metrics)),
        "evaluations": evaluations,
        "folds": folds,
        "policy": words.facts("policy.txt.j2", metadata=metadata),
        "guarantee": policy.guarantee if policy else None,
        "outcomes": _outcomes(evaluations),
        "weak": _weak_slices(evaluations),
        "accused": list(_accused(evaluations, policy)) if policy else [],
        "allowed": _allowed(policy) if policy else None,
        "strange": list(_strange_sources(evaluations, trained_rows)),
        "missing": _missing_damage(evaluations),
        "commands": [command for command in dict.fromkeys(commands) if command],
    }
    text = _environment().get_template("card.md.j2").render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _read(folder: Path, detector: Detector, model: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Predictions and metrics. Raises RealDamageError: another network was evaluated."""
    predictions, metrics = read_evaluation(folder)
    judged_by = str((metrics.get("run") or {}).get("graph_sha256") or "")
    others = {judged_by, *predictions["graph_sha256"]} - {"", detector.graph_sha256}
    if others or not judged_by:
        found = f"by another network ({min(others)[:12]})" if others else "with a checkpoint"
        raise RealDamageError(
            f"{folder}: its photos were judged {found}, not by {model} ({detector.graph_sha256[:12]}). Evaluate this "
            f"file: realdamage-evaluate checkpoint={model} …",
            code="another_network",
        )
    return predictions, metrics


def _notes(run: Mapping[str, Any], photos: pd.DataFrame, policy_sha256: str) -> Iterator[str]:
    judged_with = str(run.get("policy_sha256") or policy_sha256)
    if judged_with != policy_sha256:
        yield (
            "the network is the same, but calibration, policy or other metadata have changed since "
            f"({judged_with[:12]}, now {policy_sha256[:12]}); the outcomes are those of the evaluation."
        )
    n = int((photos["split"] == "train").sum())
    if n:
        yield f"{n:,} of its photos are of a split “train”: the model may have learned from them."


def find_training_photos(
    training: Mapping[str, Any], given: Path | None, runs: Sequence[Mapping[str, Any]]
) -> pd.DataFrame | None:
    """The rows that the model was trained on, from the folder `given`, or from where an evaluation has its photos.

    Raises RealDamageError: the set `given` cannot be read, or is another one.
    """
    if given is not None:
        rows = training_photos(read_dataset(given), training)
        if rows is None:
            digest = str(training.get("manifest_sha256") or "none")[:12]
            raise ManifestError(
                f"{given}: not the set that this model was trained on (its file names manifest {digest}). Name that "
                "one with --manifest, or leave the option out.",
                code="another_training_set",
            )
        return rows
    for place in filter(None, dict.fromkeys(str(run.get("data_root") or "") for run in runs)):
        try:
            rows = training_photos(read_dataset(place), training)
        except RealDamageError:
            continue
        if rows is not None:
            return rows
    return None


def training_photos(manifest: Manifest, training: Mapping[str, Any]) -> pd.DataFrame | None:
    """The rows of the train split without those excluded; None: the model was trained on another manifest."""
    rows = manifest.table
    left_out = pd.Series(False, rows.index)
    for column, values in (training.get("excluded") or {}).items():
        if column in rows.columns:
            left_out |= rows[column].isin(values)
    kept = manifest.subset(~(left_out & rows["split"].isin(("train", "val"))))
    if kept.digest() != training.get("manifest_sha256"):
        return None
    return kept.table[kept.table["split"] == "train"].reset_index(drop=True)


def _generators_in_training(
    training: Mapping[str, Any], rows: pd.DataFrame | None, families: Mapping[str, str]
) -> Sequence[GeneratorCount] | None:
    """From the photos, or from the names in the model's file, which has no counts; None: it has no names."""
    if rows is None and "generators" not in training:
        return None
    if rows is None:
        names = pd.Series([str(name) for name in training["generators"]], dtype=str)
        control = names.eq("paint").map({True: "pasted", False: ""})
        family = names.map(families).fillna("")
        named = {"label": "synthetic", "generator": names, "family": family, "kind": control}
        rows = pd.DataFrame(named)
    return words.generator_counts(rows, {}, families)


def _by_deployed(generators: Sequence[GeneratorCount]) -> str:
    """ "114 photos by deployed generators (sd1 58, flux1 56)", by family, the most first."""
    photos: Counter[str] = Counter()
    for row in generators:
        photos[row.family or row.name] += row.photos if row.sort == "deployed" else 0
    families = ", ".join(f"{name} {n:,}" for name, n in photos.most_common() if n)
    which = f" ({families})" if families else ""
    return f"{words.count(photos.total(), 'photo')} by deployed generators{which}"


def _showing_damage(photos: pd.DataFrame, generators: Sequence[GeneratorCount] | None) -> int:
    """How many photos by deployed generators show damage."""
    own = photos["generator"].isin([row.name for row in generators or () if row.sort == "deployed"])
    own &= (photos["label"] == "synthetic") & (photos["kind"] != "pasted")
    return int((own & (photos["damage"] != "")).sum())


def _parameters(data: bytes) -> str:
    """How many numbers the graph's weights are; "" without the package that reads them."""
    try:
        import onnx
    except ImportError:
        return ""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)
    weights = onnx.load_from_string(data).graph.initializer
    return f"{sum(math.prod(each.dims) for each in weights if each.data_type in kinds):,}"


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as rows of a table: (a.b, value)."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
            continue
        texts = [f"{each:.4g}" if isinstance(each, float) else str(each) for each in _listed(value)]
        yield f"{before}{key}", ", ".join(texts)


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _own_command(given: CardInputs) -> str:
    command = ["realdamage", "card", str(given.model)]
    for name, folder in given.evaluations.items():
        command += ["--evaluation", f"{name}={folder}"]
    for option in ("folds", "manifest", "licence"):
        value = getattr(given, option)
        command += [f"--{option}", str(value)] if value else []
    for each in given.commands:
        command += ["--command", each]
    return shlex.join(command)


def _slice(key: str, rows: Sequence[Row], generators: Sequence[GeneratorCount] = ()) -> Markdown:
    """Rows with a figure; generators: for a column that says whether the model was trained on each."""
    rows = [row for row in rows if row.get("auroc") is not None]
    columns = words.measured(rows)
    titles, cells = [key, *columns.values()], []
    known = {True: "trained on", False: "never trained on", None: "not known"}
    marks = {row.name: f"{known[row.trained_on]} ({row.sort})" for row in generators}
    if marks:
        titles.insert(1, "in training")
    for row in rows:
        mark = [marks.get(row[key], NOTHING)] if marks else []
        cells.append((row[key], *mark, *(words.cell(row, column) for column in columns)))
    return table(titles, cells)


def _share(n: int, of: int) -> str:
    """A share with its exact interval (Clopper and Pearson)."""
    return f"{percent(n / of)} ({interval(share_interval(n, of), percent)})"


def _outcomes(evaluations: Sequence[Evaluated]) -> Markdown:
    """What photos were called at the shipped thresholds, by what a wrong outcome means to somebody."""
    rows = []
    for each in evaluations:
        photos = clean(each.judged)
        synthetic, damaged = photos["label"] == "synthetic", photos["kind"] == "damaged"
        by_deployed = photos["generator"].isin([row.name for row in each.deployed])
        by_deployed &= photos["kind"] != "pasted"
        sorts = {
            "really damaged": ~synthetic & damaged,
            "other real": ~synthetic & ~damaged,
            "synthetic, by deployed generators": synthetic & by_deployed,
            "other synthetic": synthetic & ~by_deployed,
        }
        for title, own in sorts.items():
            called, n = photos.loc[own, "outcome"].value_counts(), int(own.sum())
            if n:
                shares = [
                    _share(int(called.get(key, 0)), n) for key in ("synthetic", "review", "real")
                ]
                rows.append((each.name, title, f"{n:,}", *shares))
    outcomes = ("called synthetic", "called review", "called real")
    return table(("evaluation", "photos", "n", *outcomes), rows)


def _weak_slices(evaluations: Sequence[Evaluated]) -> Markdown:
    """Slices below `LEAST_AUROC` or `LEAST_TPR`, the worst of each evaluation first. Equal photos share a row."""
    rows = []
    for each in evaluations:
        found: dict[tuple[Any, ...], tuple[list[str], Row]] = {}
        for key, own in each.tables():
            for row in own:
                auroc, rate, value = row.get("auroc"), row.get("tpr_at_fpr_1"), str(row[key])
                # Nobody can act on photos of no named source or condition.
                nameless = value.startswith("(") and key not in ("generator", "perturbation")
                weak = auroc is not None and (
                    auroc < LEAST_AUROC or (rate is not None and rate < LEAST_TPR)
                )
                if nameless or not weak:
                    continue
                names, _ = found.setdefault(
                    (row["n"], auroc, rate, row.get("called_real")), ([], row)
                )
                names.append(f"{key.replace('_', ' ')} {value}")
        for names, row in sorted(found.values(), key=lambda pair: float(pair[1]["auroc"])):
            cells = [words.cell(row, key) for key in ("n", "auroc", "tpr_at_fpr_1")]
            rows.append((each.name, " = ".join(names), *cells))
    return table(("evaluation", "slice", "photos", "AUROC", "TPR at 1% FPR"), rows)


def _allowed(policy: Policy) -> float:
    """The share of honest photos that may be called synthetic."""
    alpha = policy.guarantee.alpha if policy.guarantee else None
    return policy.fpr if alpha is None else alpha


def _accused(evaluations: Sequence[Evaluated], policy: Policy) -> Iterator[dict[str, Any]]:
    """Where more honest photos than that were called synthetic: evaluation, after, n, of, sort, share."""
    for each in evaluations:
        titles = {row["perturbation"]: row.get("title") for row in each.values["robustness"]}
        real = each.judged[each.judged["label"] == "real"]
        for name, photos in real.groupby("perturbation", sort=False):
            damaged = photos[photos["kind"] == "damaged"]
            others = photos if len(photos) > len(damaged) else photos.head(0)
            for sort, own in (
                ("photos of real damage", damaged),
                ("real photos of any kind", others),
            ):
                n = int((own["outcome"] == "synthetic").sum())
                if n > _allowed(policy) * len(own):
                    where = {"evaluation": each.name, "after": titles.get(name) or name}
                    yield {
                        **where,
                        "n": n,
                        "of": len(own),
                        "sort": sort,
                        "share": _share(n, len(own)),
                    }


def _strange_sources(
    evaluations: Sequence[Evaluated], training: pd.DataFrame | None
) -> Iterator[str]:
    """Real photos of sources that the model was never trained on, and what they were called."""
    if training is None:
        return
    known = ["", *training.loc[training["label"] == "real", "source"]]
    for each in evaluations:
        real = each.photos[each.photos["label"] == "real"]
        for name, own in real[~real["source"].isin(known)].groupby("source"):
            called = _share(int((own["outcome"] == "synthetic").sum()), len(own))
            yield f"{name} in “{each.name}” ({len(own):,} photos, {called} called synthetic)"


def _missing_damage(evaluations: Sequence[Evaluated]) -> list[str]:
    """The types of real damage that no test has."""
    photos = pd.concat([each.photos for each in evaluations])
    there = set(photos.loc[photos["kind"] == "damaged", "damage"])
    return [name for name in DAMAGES if name not in there and name != "other"]
