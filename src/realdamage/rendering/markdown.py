"""Markdown: the model card, and the table of folds.

The card is written from artefacts alone, so it can be written again whenever the model changes: the model's file, the
folders of its evaluations, and what other commands left behind.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

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
from realdamage.rendering.html import Report, build_report
from realdamage.rendering.words import NOTHING, GeneratorCount, Row, number, percent

# Underscores between letters, as in house_nearest, mean nothing.
_SPECIAL = re.compile(r"([\\`*~\[\]<>|&]|(?<!\w)_|_(?!\w))")
LEAST_AUROC, LEAST_TPR = 0.7, 0.1
"""A slice below either is listed among what the model cannot do. Without any skill they are 0.5 and 0.01."""
_SLICES = ("perturbation", "kind", "generator", "family", "damage", "mask_area", "source", "condition")
_FEW_PHOTOS = 5  # real photos in training; sources of fewer are counted together
# What the card says elsewhere; everything else that training wrote down is a setting.
_NOT_SETTINGS = {"audit", "created", "excluded", "generators", "git_commit"} | {
    *("manifest_sha256", "photos", "realdamage")
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


def table(titles: Sequence[object], rows: Sequence[Sequence[object]], pad: bool = False) -> Markdown:
    """A table; "" without rows. pad: its columns line up in a terminal too."""
    if not rows:
        return Markdown("")
    cells = [[escape(cell) for cell in row] for row in (titles, *rows)]
    widths = [max(len(row[column]) if pad else 3 for row in cells) for column in range(len(titles))]
    cells.insert(1, [Markdown("-" * width) for width in widths])
    lines = [" | ".join(f"{c:<{width if pad else 0}}" for c, width in zip(row, widths, strict=True)) for row in cells]
    return Markdown("\n".join(f"| {line} |" for line in lines))


def bullets(sentences: Sequence[object]) -> Markdown:
    """A list with one sentence a line."""
    return Markdown("\n".join(f"- {escape(sentence)}" for sentence in sentences))


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("realdamage.rendering"),
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"table": table, "bullets": bullets, "code_block": code_block}
    environment.filters["percent"] = percent
    return environment


# Folds


def to_markdown(rows: pd.DataFrame, column: str, unfinished: Sequence[str] = ()) -> str:
    """The table of folds (`left_out_table`, with git_commit, command and date). column: whose values were left out.

    Photos as they are: each fold, its values, mean and worst. Under perturbations: mean and worst over the folds.
    """
    titles = ("AUROC (95%)", "TPR at 1% FPR (95%)", "edit above original (95%)", "best F1 (all)")
    records = [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
    clean_rows = [row for row in records if row["perturbation"] == AS_IT_IS]
    counts = [["" if pd.isna(row[n]) else int(row[n]) for n in ("n_real", "n_synthetic")] for row in clean_rows]
    cells = [(_fold(row), *n, *_fold_figures(row)) for row, n in zip(clean_rows, counts, strict=True)]
    parts = [table((column, "real", "synthetic", *titles), cells, pad=True)]
    changed = [row for row in records if row["perturbation"] != AS_IT_IS and row["fold"] in (MEAN, WORST)]
    cells = [(row["perturbation"], row["fold"], *_fold_figures(row)) for row in changed]
    parts += [table(("perturbation", "over folds", *titles), cells, pad=True)] if changed else []
    lines = [
        "Each fold was trained without the values named, and scored on test photos that have them. False alarms are",
        "counted on really damaged photos; “all”: F1 of a map that calls every patch painted. The interval of a mean",
        "is over other photos with the same values left out; that of a worst is its fold's.",
    ]
    lines += [f"Worst: {row['note']}." for row in clean_rows if row["fold"] == WORST and row["note"]]
    notes: dict[str, list[str]] = {}
    for row in clean_rows:
        for note in filter(None, row["note"].split("; ") if row["fold"] != WORST else []):
            notes.setdefault(note, []).append(_fold(row).removeprefix("· "))
    lines += [f"– {', '.join(names)}: {note}" for note, names in notes.items()]
    lines += [f"Not finished, and so not counted: {', '.join(unfinished)}."] if unfinished else []
    origin = records[0]
    command = f"`{origin['command']}` at {origin['git_commit'][:8]}, {origin['date'][:10]}."
    return "\n\n".join([*parts, "\n".join(lines), command])


def _fold(row: Row) -> str:
    return str(row["fold"]) if row["left_out"] == ALL else f"· {row['left_out']}"


def _fold_figures(row: Row) -> list[str]:
    cells = []
    for key in ("auroc", "tpr_at_fpr_1", "edit_higher"):
        low, high = number(row[f"{key}_low"]), number(row[f"{key}_high"])
        cells.append(number(row[key]) + (f" ({low}–{high})" if low != NOTHING else ""))
    best = number(row["best_f1"], 2)
    return [*cells, best if best == NOTHING else f"{best} ({number(row['baseline_f1'], 2)})"]


def read_folds(path: Path) -> dict[str, Any]:
    """sentence: mean and worst over the folds; table: of all folds; commands: those that made them.

    Raises UsageError: no such file; RealDamageError: not a table of folds, or one without mean and worst.
    """
    again = "Write it again with realdamage-folds when its folds are finished."
    try:
        rows = pd.read_csv(path, keep_default_na=False, na_values={key: [""] for key in FOLD_COLUMNS[3:-3]})
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Name folds.csv of realdamage-folds.") from error
    except ValueError as error:
        raise RealDamageError(f"{path}: not a table of folds ({error}). {again}") from error
    columns = (*FOLD_COLUMNS, "git_commit", "command", "date")
    wrong = [key for key in columns if key not in rows]
    wrong = wrong or [key for key in FOLD_COLUMNS[3:-3] if not pd.api.types.is_numeric_dtype(rows[key])]
    if wrong:
        raise RealDamageError(f"{path}: missing columns, or not numbers: {', '.join(wrong)}. {again}")
    whole = rows[(rows["perturbation"] == AS_IT_IS) & (rows["left_out"] == ALL)].set_index("fold")
    if not {MEAN, WORST} <= set(whole.index):
        raise RealDamageError(f"{path}: no rows of fold {MEAN} and {WORST}. {again}")
    parts = []
    for key, title in (("auroc", "AUROC"), ("tpr_at_fpr_1", "TPR at 1% FPR on really damaged photos")):
        if pd.notna(whole.loc[MEAN, key]):
            mean, worst = (words.cell(whole.loc[fold].to_dict(), key) for fold in (MEAN, WORST))
            parts.append(f"{title} {mean} on average, {worst} in the worst")
    models = words.count(len(whole) - 2, "model")
    return {
        "sentence": f"{models}, each trained without what it was then tested on: {'; '.join(parts)}.",
        "table": Markdown(to_markdown(rows, "left out")),
        "commands": list(dict.fromkeys(rows["command"])),
    }


# The card


@dataclass(frozen=True)
class CardInputs:
    """What a card is written from.

    evaluations: folders of realdamage-evaluate by name. folds: CSV of realdamage-folds. manifest: folder of the
    training set. commands: those that led to the model, in order. data_card: text about the training set.
    benchmark: JSON of pytest-benchmark. licence: of the model.
    """

    model: Path
    evaluations: Mapping[str, Path]
    folds: Path | None = None
    manifest: Path | None = None
    commands: Sequence[str] = ()
    data_card: Path | None = None
    benchmark: Path | None = None
    licence: str = ""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation. scored: rows with a score, under all perturbations; photos: those of the photos as they are."""

    name: str
    scored: pd.DataFrame
    metrics: Mapping[str, Any]
    report: Report
    generators: Sequence[GeneratorCount]
    notes: Sequence[str] = ()
    photos: pd.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "photos", clean(self.scored))

    @property
    def run(self) -> Mapping[str, Any]:
        return self.metrics.get("run") or {}

    @property
    def judged(self) -> pd.DataFrame:
        """The scored rows whose model had thresholds."""
        return self.scored[has_thresholds(self.scored)]

    def rows(self, name: str) -> Sequence[Row]:
        """A table of slices or the robustness suite."""
        if name == "perturbation":
            return [{**row, "perturbation": row["name"]} for row in words.perturbation_rows(self.report.values["robustness"])]
        found: Sequence[Row] = self.report.values["slices"].get(name, ())
        return found


def named_folders(given: Sequence[str]) -> dict[str, Path]:
    """Folders by name from "NAME=FOLDER" or "FOLDER", whose last part is then the name. Raises UsageError."""
    folders: dict[str, Path] = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not sign or Path(text).exists():
            name, path = Path(text).resolve().name, text
        if not name or not path:
            raise UsageError(f"--evaluation {text}: write NAME=FOLDER, such as test=out/x/test, or only FOLDER")
        if name in folders:
            raise UsageError(f"--evaluation {text}: {folders[name]} already has the name {name}. Use NAME={path}.")
        folders[name] = Path(path)
    return folders


def card_text(given: CardInputs, *, folder: Path | None = None) -> str:
    """The card. folder: where it will be saved, for its link to the data card; default: the working directory.

    Raises ModelFileError: no model file; RealDamageError: an evaluation of another model, a file that is not what it
    should be; UsageError: no evaluation, no such folder or file.
    """
    if not given.evaluations:
        raise UsageError("A card needs figures: name an evaluation with --evaluation FOLDER")
    detector = Detector.load(given.model, threads=1)
    metadata, training = detector.metadata, detector.metadata.training
    read = {name: _read(path, detector, given.model) for name, path in given.evaluations.items()}
    runs = [metrics.get("run") or {} for _, metrics in read.values()]
    trained_rows = find_training_photos(training, given.manifest, runs)
    tables = [photos for photos, _ in read.values()]
    families = words.families_of(*tables, *([] if trained_rows is None else [trained_rows]))
    evaluations = [_evaluated(name, *parts, given.model, detector, families) for name, parts in read.items()]
    trained = _generators_in_training(training, trained_rows, families)
    folds = read_folds(given.folds) if given.folds else None
    commands = [*given.commands, *(str(run.get("command") or "") for run in runs)]
    commands += [*(folds["commands"] if folds else ()), _own_command(given)]
    settings = {key: value for key, value in training.items() if key not in _NOT_SETTINGS}
    text = _environment().get_template("card.md.j2").render(
        metadata=metadata,
        training=training,
        first_line=_first_line(trained, trained_rows, evaluations),
        facts=[fact for fact in _facts(given, detector) if fact[1]],
        photos=_photos_trained_on(training, trained_rows),
        generators=_families_table(trained, trained_rows),
        excluded=[f"{key}: {', '.join(map(str, v))}" for key, v in (training.get("excluded") or {}).items() if v],
        licences=_counts(trained_rows["licence"]) if trained_rows is not None else "",
        unknown=trained_rows is None,
        audit=words.audit_facts(metadata),
        data_card=_link(given.data_card, folder),
        settings=list(_flat(settings)),
        validation=list(_flat(metadata.metrics)),
        commands=given.commands,
        false_alarms=_false_alarms(evaluations),
        few=FEW,
        evaluations=[_evaluation(evaluated) for evaluated in evaluations],
        folds=folds,
        benchmark=_benchmark(given.benchmark) if given.benchmark else "",
        policy=words.policy_facts(metadata.policy, metadata.calibration),
        guarantee=metadata.policy.guarantee if metadata.policy else None,
        outcomes=_outcomes(evaluations),
        weak=_weak_slices(evaluations),
        least=(LEAST_AUROC, LEAST_TPR),
        unmeasured=list(_unmeasured(evaluations)),
        limits=[
            *_accusations(evaluations, metadata.policy),
            *_sources(evaluations, trained_rows),
            *_damage_types(evaluations),
        ],
        whole_photo=bool(metadata.policy and metadata.policy.whole_photo_share is not None),
        reproduce=[command for command in dict.fromkeys(commands) if command],
    )
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


def _evaluated(
    name: str,
    predictions: pd.DataFrame,
    metrics: Mapping[str, Any],
    model: Path,
    detector: Detector,
    families: Mapping[str, str],
) -> Evaluated:
    notes = []
    own = stored_policy_sha256(model.read_bytes())
    judged_with = str((metrics.get("run") or {}).get("policy_sha256") or own)
    if judged_with != own:
        notes.append(
            "the network is the same, but calibration, policy or other metadata have changed since "
            f"({judged_with[:12]}, now {own[:12]}); the outcomes are those of the evaluation."
        )
    scored = labelled_and_scored(predictions)
    n = int((clean(scored)["split"] == "train").sum())
    if n:
        notes.append(f"{n:,} of its photos are of a split “train”: if the model learned from them, they flatter it.")
    generators = words.generator_counts(clean(scored), detector.metadata.training, families)
    report = build_report((predictions, metrics), detector=detector)
    return Evaluated(name, scored, metrics, report, generators, notes)


def find_training_photos(
    training: Mapping[str, Any], given: Path | None, runs: Sequence[Mapping[str, Any]]
) -> pd.DataFrame | None:
    """The rows that the model was trained on, from the folder `given`, or from where an evaluation says its set is.

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
    """The rows of the train split without those that were excluded; None: the model was trained on another manifest."""
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
    """From the training photos, or from the names in the model's file, which has no counts; None: it has no names."""
    if rows is None:
        if "generators" not in training:
            return None
        names = [str(name) for name in training["generators"]]
        rows = pd.DataFrame({"generator": names, "label": "synthetic"})
        rows["family"] = [families.get(name, "") for name in names]
        rows["kind"] = ["pasted" if name == "paint" else "" for name in names]
    return words.generator_counts(rows, {}, families)


def _first_line(
    trained: Sequence[GeneratorCount] | None, rows: pd.DataFrame | None, tests: Sequence[Evaluated]
) -> str:
    """Which deployed generators the model was trained on and tested on, and whether they painted any damage.

    It comes before every figure: a figure on generators that nobody uses says nothing about those of fraudsters.
    """
    if trained is None:
        parts = ["The model's file does not say which generators it was trained on"]
    elif rows is None:
        names = [row.name for row in _deployed(trained)]
        which = f" ({', '.join(names)}; how many photos of each is not known)" if names else ""
        parts = [f"This model was trained on photos by {words.count(len(names), 'deployed generator')}{which}"]
    else:
        parts = [f"This model was trained on {_by_family(trained)}"]
    for test in tests:
        new = sum(row.photos for row in _deployed(test.generators) if row.trained_on is False)
        known = any(row.trained_on is not None for row in _deployed(test.generators))
        of_new = f", {new:,} of them by generators it was never trained on" if known else ""
        parts.append(f"tested in “{test.name}” on {_by_family(test.generators)}{of_new}")
    shown = [_showing_damage(test.photos, test.generators) for test in tests]
    in_training = "an unknown number" if rows is None else f"{_showing_damage(rows, trained or ()):,}"
    end = "" if sum(shown) else " No figure below says how well it finds that."
    return f"{'; '.join(parts)}. AI-painted damage: {in_training} in training, {sum(shown):,} in the tests.{end}"


def _deployed(generators: Sequence[GeneratorCount]) -> list[GeneratorCount]:
    return [row for row in generators if row.sort == "deployed"]


def _by_family(generators: Sequence[GeneratorCount]) -> str:
    photos: Counter[str] = Counter()
    for row in _deployed(generators):
        photos[row.family or row.name] += row.photos
    families = ", ".join(f"{name} {n:,}" for name, n in photos.most_common())
    which = f" ({families})" if families else ""
    return f"{words.count(photos.total(), 'photo')} by deployed generators{which}"


def _showing_damage(photos: pd.DataFrame, generators: Sequence[GeneratorCount]) -> int:
    own = photos["generator"].isin([row.name for row in _deployed(generators)])
    own &= (photos["label"] == "synthetic") & (photos["kind"] != "pasted")
    return int((own & (photos["damage"] != "")).sum())


def _photos_trained_on(training: Mapping[str, Any], rows: pd.DataFrame | None) -> Markdown:
    if rows is None:
        counts = [(label, f"{n:,}") for label, n in (training.get("photos") or {}).items()]
        return table(("label", "photos trained on"), counts)
    sizes = rows.groupby(["label", "kind"]).size()
    cells = [(*key, f"{n:,}") for key, n in zip(sizes.index, sizes, strict=True)]
    return table(("label", "kind", "photos trained on"), cells)


def _families_table(trained: Sequence[GeneratorCount] | None, rows: pd.DataFrame | None) -> Markdown:
    """Generators by sort and family, with their photos where these are counted."""
    families: dict[tuple[str, str], list[GeneratorCount]] = {}
    for row in trained or ():
        families.setdefault((row.sort, row.family or "(not named)"), []).append(row)
    cells = [
        (*key, NOTHING if rows is None else f"{sum(row.photos for row in own):,}", ", ".join(row.name for row in own))
        for key, own in families.items()
    ]
    return table(("sort", "family", "photos trained on", "generators"), cells)


def _counts(values: pd.Series, least: int = 1) -> str:
    """ "MIT 2, CC0 1", the most frequent first; values of fewer than `least` rows together."""
    found = values[values != ""].value_counts()
    rest = int((found < least).sum())
    text = ", ".join(f"{name} {n:,}" for name, n in found.items() if n >= least)
    return f"{text} and {rest:,} more of under {least} photos" if rest else text


def _facts(given: CardInputs, detector: Detector) -> Iterator[tuple[str, object]]:
    data = given.model.read_bytes()
    yield "file", f"{given.model.name}, {len(data) / 1e6:.1f} MB"
    yield "sha256 of the file", code(hashlib.sha256(data).hexdigest())
    yield "graph_sha256 (network and weights)", code(detector.graph_sha256)
    yield "policy_sha256 (everything else)", code(stored_policy_sha256(data))
    yield "parameters", _parameters(data)
    yield from words.model_facts(detector.metadata)
    yield "licence", given.licence or "not given (--licence)"
    today = datetime.datetime.now(datetime.UTC).date()
    yield "this card", f"written {today} by realdamage {version('realdamage')}"


def _parameters(data: bytes) -> str:
    """How many numbers the graph's weights are; "" without the package that reads them."""
    try:
        import onnx
    except ImportError:
        return ""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)
    weights = onnx.load_from_string(data).graph.initializer
    return f"{sum(math.prod(each.dims) for each in weights if each.data_type in kinds):,}"


def _link(path: Path | None, folder: Path | None) -> Markdown:
    if path is None:
        return Markdown("")
    if not path.is_file():
        raise UsageError(f"--data-card {path}: no such file; name the text that describes the training set")
    target = os.path.relpath(path, folder or Path.cwd()).replace(os.sep, "/")
    return Markdown(f"[{escape(path.name)}](<{target}>)")


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as rows of a table: (a.b, value)."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        elif isinstance(value, float):
            yield f"{before}{key}", f"{value:.4g}"
        else:
            yield f"{before}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _own_command(given: CardInputs) -> str:
    command = ["realdamage", "card", str(given.model)]
    for name, folder in given.evaluations.items():
        command += ["--evaluation", f"{name}={folder}"]
    for option in ("folds", "manifest", "data_card", "benchmark", "licence"):
        value = getattr(given, option)
        command += [f"--{option.replace('_', '-')}", str(value)] if value else []
    for each in given.commands:
        command += ["--command", each]
    return shlex.join(command)


def _benchmark(path: Path) -> Markdown:
    """Median times of pytest-benchmark's JSON, and what else it noted. Raises UsageError, RealDamageError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        rows = []
        for each in values["benchmarks"]:
            extra = "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in _flat(each.get("extra_info") or {}))
            rows.append((each["name"], f"{1000 * each['stats']['median']:,.1f}", extra))
        cpu = (values.get("machine_info") or {}).get("cpu") or {}
        machine = ", ".join(str(cpu[key]) for key in ("brand_raw", "count") if cpu.get(key))
        date = str(values.get("datetime") or "")[:10]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RealDamageError(
            f"{path}: not the JSON of pytest-benchmark ({type(error).__name__}: {error}). Write it with: make bench "
            f'PYTEST_ARGS="--benchmark-json {path}"',
            code="not_a_benchmark",
        ) from error
    origin = escape(f"Processor and cores: {machine or 'not known'}; {date}.")
    return Markdown(f"{table(('measured', 'median, ms', 'also'), rows)}\n\n{origin}")


# Figures of the evaluations


def _evaluation(evaluated: Evaluated) -> dict[str, Any]:
    values, run = evaluated.report.values, evaluated.run
    headlines = []
    for row in values["headlines"]:
        tell = words.teller(row["key"])
        baseline = "" if row["baseline"] is None else tell(row["baseline"])
        ends = words.interval(row["low"], row["high"], tell)
        headlines.append((row["title"], tell(row["value"]), ends, baseline, row["note"]))
    marks = {row.name: _mark(row) for row in evaluated.generators}
    slices = [_slice("synthetic photos by", values["parts"]), _slice("kind", evaluated.rows("kind"))]
    slices += [_slice(key, evaluated.rows(key), marks) for key in ("generator", "family")]
    origin = [code(run["command"]) if run.get("command") else "", words.commit(run.get("git_commit") or "")]
    return {
        "name": evaluated.name,
        "counts": values["counts"],
        "about": [*values["first_lines"], *(f"Note: {note}" for note in (*evaluated.notes, *values["notes"]))],
        "headlines": table(("figure", "value", "95% interval", "without skill", "note"), headlines),
        "slices": slices,
        "robustness": _slice("perturbation", evaluated.rows("perturbation"))[1],
        "benchmark": code_block(terminal.benchmark_text(values["benchmark"]).splitlines() if values["benchmark"] else []),
        "container": values["container"],
        "origin": Markdown(" · ".join(escape(each) for each in (*origin, str(run.get("date") or "")[:10]) if each)),
    }


def _mark(row: GeneratorCount) -> str:
    known = {True: "trained on", False: "never trained on", None: "not known"}[row.trained_on]
    return known if row.sort == "deployed" else f"{known} ({row.sort})"


def _slice(key: str, rows: Sequence[Row], marks: Mapping[str, str] | None = None) -> tuple[str, Markdown, str]:
    """(title, table, values with too few photos for a figure)."""
    known = [row for row in rows if row.get("auroc") is not None]
    columns = words.measured(known)
    marked = key == "generator"
    cells = [
        (row[key], *([(marks or {}).get(row[key], NOTHING)] if marked else []), *(words.cell(row, c) for c in columns))
        for row in known
    ]
    few = ", ".join(f"{row[key]} {row['n']:,}" for row in rows if row.get("auroc") is None)
    return key, table((key, *(["in training"] if marked else []), *columns.values()), cells), few


def _share(n: int, of: int) -> str:
    """A share with its exact interval (Clopper and Pearson)."""
    return f"{percent(n / of)} ({words.interval(*share_interval(n, of), percent)})"


def _outcomes(evaluations: Sequence[Evaluated]) -> Markdown:
    """What photos were called at the shipped thresholds, by what a wrong outcome means to somebody."""
    rows = []
    for evaluated in evaluations:
        photos = clean(evaluated.judged)
        synthetic, damaged = photos["label"] == "synthetic", photos["kind"] == "damaged"
        by_deployed = photos["generator"].isin([row.name for row in _deployed(evaluated.generators)])
        by_deployed &= photos["kind"] != "pasted"
        sorts = {
            "really damaged": ~synthetic & damaged,
            "other real": ~synthetic & ~damaged,
            "synthetic, by deployed generators": synthetic & by_deployed,
            "other synthetic": synthetic & ~by_deployed,
        }
        for title, own in sorts.items():
            n, outcome = int(own.sum()), photos.loc[own, "outcome"]
            if n:
                shares = [_share(int((outcome == each).sum()), n) for each in ("synthetic", "review", "real")]
                rows.append((evaluated.name, title, f"{n:,}", *shares))
    return table(("evaluation", "photos", "n", "called synthetic", "called review", "called real"), rows)


def _false_alarms(evaluations: Sequence[Evaluated]) -> Markdown:
    """What the real photos of each source were called at the shipped thresholds, the worst source first."""
    rows = []
    for evaluated in evaluations:
        real = clean(evaluated.judged[evaluated.judged["label"] == "real"])
        for source, n, called, review in outcomes_by_source(real).itertuples():
            rows.append((evaluated.name, source, f"{n:,}", _share(called, n), _share(review, n)))
    return table(("evaluation", "source", "real photos", "called synthetic", "sent to review"), rows)


def _weak_slices(evaluations: Sequence[Evaluated]) -> Markdown:
    """Slices below `LEAST_AUROC` or `LEAST_TPR`, the worst of each evaluation first. Equal photos share a row."""
    rows = []
    for evaluated in evaluations:
        found: dict[tuple[Any, ...], tuple[list[str], Row]] = {}
        for key in _SLICES:
            for row in evaluated.rows(key):
                auroc, rate, value = row.get("auroc"), row.get("tpr_at_fpr_1"), str(row[key])
                # Nobody can act on photos of no named source or condition.
                nameless = value.startswith("(") and key not in ("generator", "perturbation")
                if auroc is None or nameless or (auroc >= LEAST_AUROC and (rate is None or rate >= LEAST_TPR)):
                    continue
                same = (row["n"], auroc, rate, row.get("called_real"))
                found.setdefault(same, ([], row))[0].append(f"{key.replace('_', ' ')} {value}")
        for names, row in sorted(found.values(), key=lambda each: float(each[1]["auroc"])):
            cells = [words.cell(row, key) for key in ("n", "auroc", "tpr_at_fpr_1")]
            rows.append((evaluated.name, " = ".join(names), *cells))
    return table(("evaluation", "slice", "photos", "AUROC", "TPR at 1% FPR"), rows)


def _unmeasured(evaluations: Sequence[Evaluated]) -> Iterator[str]:
    for evaluated in evaluations:
        parts = []
        for key in _SLICES:
            rows = evaluated.rows(key)
            few = sum(row.get("auroc") is None for row in rows)
            parts += [f"{few:,} of {len(rows):,} values of {key.replace('_', ' ')}"] if few else []
        if parts:
            yield f"“{evaluated.name}” has too few photos for a figure of {', '.join(parts)}: they may be as weak."


def _accusations(evaluations: Sequence[Evaluated], policy: Policy | None) -> Iterator[str]:
    """Where honest photos were called synthetic more often than the policy allows."""
    if policy is None:
        yield "The model has no thresholds, so it is not known how often it would accuse an honest buyer."
        return
    alpha = policy.guarantee.alpha if policy.guarantee else None
    allowed = policy.fpr if alpha is None else alpha
    most = f"the {100 * allowed:g}% that the {'thresholds were chosen at' if alpha is None else 'guarantee allows'}"
    found = False
    for evaluated in evaluations:
        titles = {row["perturbation"]: row["title"] for row in evaluated.report.values["robustness"]}
        real = evaluated.judged[evaluated.judged["label"] == "real"]
        for name, photos in real.groupby("perturbation", sort=False):
            where = f"In “{evaluated.name}”" + (f", after “{titles.get(name, name)}”" if name else "")
            damaged = photos[photos["kind"] == "damaged"]
            sorts = {"photos of real damage": damaged, "real photos of any kind": photos}
            for sort, own in sorts.items():
                n = int((own["outcome"] == "synthetic").sum())
                if n > allowed * len(own) and not (sort != "photos of real damage" and len(own) == len(damaged)):
                    found = True
                    yield f"{where}, {n:,} of {len(own):,} {sort} were called synthetic, {_share(n, len(own))}: more than {most}."
    if not any(evaluated.report.values["robustness"] for evaluated in evaluations):
        yield (
            "No test changed its photos as a chat app, a screenshot or another save would. What that does to honest "
            "buyers and to the share found is not known (realdamage-evaluate … robustness=twelve)."
        )
    elif not found:
        yield f"In no test and after no perturbation were more honest photos called synthetic than {most}."


def _sources(evaluations: Sequence[Evaluated], training: pd.DataFrame | None) -> Iterator[str]:
    """Which sources of real photos the model knows, and what it did on real photos of others."""
    if training is None:
        yield "The sources of its real photos are not known here; expect more errors on any other source."
        return
    known = training.loc[training["label"] == "real", "source"].replace("", "(not named)")
    yield (
        f"Its real photos came from {_counts(known, _FEW_PHOTOS)}. Expect other figures on your own shop's photos and "
        "your buyers' phones until you have measured them."
    )
    strange = []
    for evaluated in evaluations:
        photos = evaluated.photos[evaluated.photos["label"] == "real"]
        for name, own in photos[~photos["source"].isin([*known, ""])].groupby("source"):
            called = _share(int((own["outcome"] == "synthetic").sum()), len(own))
            strange.append(f"{name} in “{evaluated.name}” ({len(own):,} photos, {called} called synthetic)")
    if strange:
        yield f"Real photos of sources never trained on: {'; '.join(strange)}."
    else:
        yield "No test has a real photo of a source never trained on: false alarms on another shop's photos are not known."


def _damage_types(evaluations: Sequence[Evaluated]) -> Iterator[str]:
    photos = pd.concat([evaluated.photos for evaluated in evaluations])
    there = set(photos.loc[photos["kind"] == "damaged", "damage"])
    missing = [name for name in DAMAGES if name not in there and name != "other"]
    if missing:
        yield f"No test has a photo of a product that is really {', '.join(missing)}: false alarms on those are unknown."
