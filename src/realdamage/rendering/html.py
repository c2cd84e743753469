"""The pages: an evaluation's report, a comparison of two models, an audit. Each is one file that loads nothing."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment
from PIL import Image

from realdamage.core.decoding import decode
from realdamage.core.detector import Detector
from realdamage.core.onnx_file import write_atomically
from realdamage.core.overlay import draw_overlay
from realdamage.core.photo import read_photo
from realdamage.core.policy import Policy
from realdamage.core.progress import Track, no_progress
from realdamage.data.audit_report import AuditReport, Problem, ShortcutTest
from realdamage.data.manifest import Manifest, read_mask
from realdamage.data.shortcuts import LIMIT
from realdamage.data.vocabulary import KINDS, LABELS
from realdamage.errors import ManifestError, PhotoError
from realdamage.evaluation.compare import Comparison
from realdamage.evaluation.figures import (
    NOT_CALIBRATED,
    RATES,
    headline_figures,
    labelled_and_scored,
    roc_curves,
)
from realdamage.evaluation.folder import read_evaluation
from realdamage.evaluation.predictions import clean, group_ids
from realdamage.evaluation.probability import reliability_table
from realdamage.evaluation.slices import counted_on_damaged, part_rows
from realdamage.rendering import plots, terminal, words
from realdamage.rendering.words import GeneratorCount, Row

HTML_NAME, JSON_NAME = "report.html", "report.json"
EXAMPLES = 9
"""Photos shown of the false alarms, and of the misses."""
_DAMAGED = 6  # of the false alarms: at least so many are really damaged, where there are any
_BINS, _PER_BIN = 36, 20
_EXAMPLE_SIDE, _THUMBNAIL_SIDE = 300, 128  # pixels of a picture's longer side
_SLICE_COLUMNS = ("auroc", "tpr_at_fpr_0.5", "tpr_at_fpr_1", "tpr_at_fpr_5", "called_synthetic")
# What a table of slices has besides the columns that it is sliced by.
_MEASURED = {column + end for column in _SLICE_COLUMNS for end in ("", "_low", "_high")} | {
    *("n", "n_real", "n_synthetic", "n_groups", "called_real", "called_of"),
    *("note", "reasons", "trained_on"),
}


@dataclass(frozen=True)
class Report:
    """values: what report.json holds. pictures: file name → data URLs of the photo and its heat map ("": none)."""

    values: Mapping[str, Any]
    pictures: Mapping[str, tuple[str, str]]

    @property
    def first_lines(self) -> Sequence[str]:
        """Which deployed generators are in the test, and what else it is made of."""
        lines: Sequence[str] = self.values["first_lines"]
        return lines

    @property
    def notes(self) -> Sequence[str]:
        """That the model is a demonstration, what is missing from the page, and why."""
        notes: Sequence[str] = self.values["notes"]
        return notes


def build_report(
    evaluation: str | Path | tuple[pd.DataFrame, Mapping[str, Any]],
    *,
    detector: Detector | None = None,
    manifest: Manifest | None = None,
    notes: Sequence[str] = (),
    progress: Track = no_progress,
) -> Report:
    """The report of an evaluation folder, or of its (predictions, metrics).

    detector: the model that was evaluated, for heat maps, policy, audit and card. manifest: its photos, for pictures
    and the families of generators. notes: why one of them is missing.
    Raises RealDamageError: no evaluation, a photo without label, or no photo with a score.
    """
    if isinstance(evaluation, str | Path):
        evaluation = read_evaluation(evaluation)
    predictions, metrics = evaluation
    photos = labelled_and_scored(clean(predictions))
    metadata = detector.metadata if detector else None
    policy = metadata.policy if metadata else None
    run = metrics.get("run") or {}
    families = words.families_of(photos, *([manifest.table] if manifest else []))
    training = metadata.training if metadata else _trained_on(metrics)
    generators = words.generator_counts(photos, training, families)
    demo = metadata.demo if metadata else bool(run.get("demo"))
    examples = {"false_alarms": worst_false_alarms(photos), "misses": worst_misses(photos)}
    rows = [row for table in examples.values() for row in table.to_dict("records")]
    pictures: dict[str, tuple[str, str]] = {}
    problems: dict[str, str] = {}
    for row in progress(rows, len(rows), "pictures"):
        name = str(row["file_name"])
        pictures[name], problems[name] = _pictures(row, manifest, detector)
    counts = ("n", "n_real", "n_damaged", "n_synthetic", "n_groups", "n_unscored")
    values = {
        "title": str(
            run.get("model_version") or (metadata.model_version if metadata else "a model")
        ),
        "first_lines": words.lines("generators.txt.j2", generators=generators),
        "notes": [*words.demo_note(demo), *notes, *_outdated(photos, policy)],
        "counts": {key: int(metrics[key]) for key in counts if key in metrics},
        "generators": [row._asdict() for row in generators],
        "headlines": headlines(metrics, photos),
        "parts": part_rows(photos, _parts(generators)),
        "roc": [vars(curve) for curve in roc_curves(photos)],
        "reliability": _reliability(photos).to_dict("records"),
        "histograms": _histograms(photos),
        "thresholds": [policy.t_real, policy.t_synthetic] if policy else [],
        "robustness": metrics.get("robustness") or [],
        "slices": _slices(metrics, generators),
        **{key: list(_examples(table, problems)) for key, table in examples.items()},
        "policy": words.facts("policy.txt.j2", metadata=metadata),
        "audit": words.audit_facts(metadata),
        "container": str((metrics.get("container_auroc") or {}).get("text") or ""),
        "benchmark": metrics.get("benchmark"),
        "card": words.facts("card_facts.txt.j2", metadata=metadata, run=run),
    }
    return Report(_plain(values), pictures)


def write_report(folder: str | Path, report: Report) -> Path:
    """Writes report.html and report.json into the folder, each whole or not at all. Returns the page's path."""
    text = json.dumps(report.values, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(Path(folder) / JSON_NAME, text.encode())
    write_atomically(Path(folder) / HTML_NAME, report_page(report).encode())
    return Path(folder) / HTML_NAME


def report_page(report: Report) -> str:
    """The report as HTML."""
    values = report.values
    benchmark = terminal.benchmark_text(values["benchmark"]) if values["benchmark"] else ""
    slices = {
        name: ([column for column in rows[0] if column not in _MEASURED | {"mark"}], rows)
        for name, rows in values["slices"].items()
    }
    return render(
        "report.html.j2",
        report=values,
        pictures=report.pictures,
        plots=list(_curves(values)),
        robustness_plots=list(_robustness_plots(values)),
        robustness=words.perturbation_rows(values["robustness"]),
        slices=slices,
        benchmark=benchmark,
    )


def comparison_page(comparison: Comparison) -> str:
    """A comparison of two models as HTML."""
    ends = [
        abs(end) for row in comparison.figures for end in (row.low, row.high) if end is not None
    ]
    perturbed = [row for rows in comparison.perturbed.values() for row in rows]
    return render(
        "comparison.html.j2",
        comparison=comparison,
        standings={row.standing for row in comparison.figures},
        **terminal.comparison_words(comparison),
        shown={row.figure for row in perturbed if row.difference is not None},
        width=max([*ends, 1e-9]),
    )


def write_comparison(
    comparison: Comparison, *, html: Path | None = None, json_file: Path | None = None
) -> None:
    """Writes the page and the same as JSON, where asked for. Raises RealDamageError: cannot write."""
    if html:
        write_atomically(html, comparison_page(comparison).encode())
    if json_file:
        text = json.dumps(comparison.to_dict(), indent=2, allow_nan=False) + "\n"
        write_atomically(json_file, text.encode())


def audit_page(report: AuditReport, manifest: Manifest) -> str:
    """An audit as HTML, with thumbnails of the worst offenders from the photos of `manifest`."""
    thumbnails = _Thumbnails(manifest)
    return render(
        "audit.html.j2",
        report=report,
        limit=LIMIT,
        tests=[(test, _test_state(test), thumbnails.of_test(test)) for test in report.tests],
        problems=[(problem, *thumbnails.of_problem(problem)) for problem in report.problems],
        tables=terminal.audit_counts(report),
    )


def render(template: str, **values: Any) -> str:
    """A page. Every name and message comes from a user's files, so all of them are escaped."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = words.environment(autoescape=True)
    environment.globals["test_outcome"] = terminal.test_outcome
    return environment


def headlines(metrics: Mapping[str, Any], photos: pd.DataFrame) -> list[dict[str, Any]]:
    """The figures of `words.TITLES` that were asked for: key, title, value, low, high, baseline (no skill), note."""
    found = headline_figures(metrics, photos)
    localisation = metrics.get("localisation") or {}
    baselines = dict.fromkeys(("auroc", "balanced_accuracy", "pairs"), 0.5)
    for key, rate in RATES.items():
        baselines |= {key: rate, f"{key}_all_real": rate}
    for key, base in (
        ("pixel_ap", "prevalence"),
        ("f1", "baseline_f1"),
        ("best_f1", "baseline_f1"),
    ):
        baselines[key] = localisation.get(base)
    rows = []
    for key, title in words.TITLES.items():
        figure = found.get(key)
        if figure is None:
            continue
        note = figure.reason
        if figure.value is None:
            baselines[key] = None
        elif key in ("false_alarms", "false_alarms_all_real", "missed", "review"):
            note = f"{round(figure.value * figure.n):,} of {figure.n:,}"
        elif key == "pairs":
            note = f"{figure.n:,} pairs"
        row = {"key": key, "title": title, "value": figure.value, "note": note}
        rows.append(row | {"low": figure.low, "high": figure.high, "baseline": baselines.get(key)})
    return rows


def worst_false_alarms(photos: pd.DataFrame) -> pd.DataFrame:
    """The real photos with the highest scores, one of each group, really damaged ones first."""
    real = photos[photos["label"] == "real"].sort_values("score", ascending=False, kind="stable")
    real = real[~group_ids(real).duplicated()]
    damaged = real["kind"] == "damaged"
    others = real[~damaged].head(EXAMPLES - min(_DAMAGED, int(damaged.sum())))
    return pd.concat([real[damaged].head(EXAMPLES - len(others)), others])


def worst_misses(photos: pd.DataFrame) -> pd.DataFrame:
    """The synthetic photos with the lowest scores, one of each group; those only pasted come last."""
    synthetic = photos[photos["label"] == "synthetic"].sort_values("score", kind="stable")
    pasted = synthetic["kind"] == "pasted"
    ordered = pd.concat([synthetic[~pasted], synthetic[pasted]])
    return ordered[~group_ids(ordered).duplicated()].head(EXAMPLES)


def _examples(table: pd.DataFrame, problems: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    kept = ["file_name", "label", "kind", "generator", "damage", "source", "score", "probability"]
    for row in table[[*kept, "outcome", "reasons"]].to_dict("records"):
        reasons = str(row["reasons"]).replace("_", " ")
        yield {**row, "reasons": reasons, "note": problems[row["file_name"]]}


def _pictures(
    row: Mapping[Any, Any], manifest: Manifest | None, detector: Detector | None
) -> tuple[tuple[str, str], str]:
    """((photo, heat map) as data URLs, why they are missing)."""
    if manifest is None:
        return ("", ""), ""
    # Only what the manifest names is opened: a predictions file could name anything.
    found = np.flatnonzero(manifest.table["file_name"] == row["file_name"])
    if not len(found):
        return ("", ""), "not in the manifest"
    index, path, heat = int(found[0]), manifest.path(str(row["file_name"])), ""
    try:
        if detector is None:
            rgb = decode(path)
            shape = rgb.shape[:2]
        else:
            photo = read_photo(path, detector.pixel_spec, name=str(path))
            if row["photo_sha256"] and photo.sha256 != row["photo_sha256"]:
                return ("", ""), "the file has changed since it was judged"
            rgb, shape = photo.rgb, (photo.height, photo.width)
            small = np.asarray(plots.outlined(rgb, None, _EXAMPLE_SIDE))
            overlay = draw_overlay(small, detector.predict_photo(photo))
            heat = _data_url(overlay.crop((0, 0, small.shape[1], small.shape[0])))
    except PhotoError:
        return ("", ""), "the photo can no longer be read"
    return (_data_url(plots.outlined(rgb, _mask(manifest, index, shape), _EXAMPLE_SIDE)), heat), ""


def _mask(manifest: Manifest, index: int, size: tuple[int, ...]) -> Any:
    try:
        masked = bool(manifest.table["mask_file_name"].iat[index])
        return read_mask(manifest, index, (size[0], size[1])) if masked else None
    except ManifestError:
        return None


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=78)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


class _Thumbnails:
    """Small pictures of a manifest's photos and masks as {name, label, url}; files that cannot be read are left out."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.rows = manifest.table.set_index("file_name")[["label", "mask_file_name"]]

    def of_test(self, test: ShortcutTest) -> list[dict[str, str]]:
        return self._of(test.examples[:8]) if test.failed else []

    def of_problem(self, problem: Problem) -> tuple[list[Any], list[Any]]:
        """(cases with pictures, further cases)."""
        masks = problem.kind.startswith("mask_")
        pictured = ("near_duplicate", "crossing", "label_conflict", "duplicate")
        cases = problem.items[:6] if masks or problem.kind in pictured else ()
        shown = [(item, self._of(item.files[:2], masks)) for item in cases]
        return shown, list(problem.items[len(cases) : 50])

    def _of(self, names: Sequence[str], masks: bool = False) -> list[dict[str, str]]:
        found = []
        for name in names:
            label, mask = self.rows.loc[name] if name in self.rows.index else ("", "")
            for each, what in ((name, label), (mask if masks else "", "mask")):
                if each and (url := self._url(each)):
                    found.append({"name": each, "label": what, "url": url})
        return found

    @cache  # noqa: B019 (lives as long as the page is made)
    def _url(self, name: str) -> str:
        try:
            rgb = decode(self.manifest.path(name))
        except PhotoError:
            return ""
        return _data_url(plots.outlined(rgb, None, _THUMBNAIL_SIDE))


def _test_state(test: ShortcutTest) -> str:
    if not test.measured:
        return "unmeasured"
    if test.failed:
        return "failed"
    if test.exception or test.examples:
        return "allowed"
    return "passed" if test.blocking else "reported"


def _curves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """(title, drawing, what it shows)."""
    curves = [pd.Series(curve) for curve in values["roc"]]
    if curves:
        drawing = plots.svg(lambda axes: plots.roc(axes, curves), "ROC curve at low FPR")
        yield (
            "Found, at which price",
            drawing,
            "How many synthetic photos are found while so many honest ones are accused. Bands: 95%.",
        )
    table = pd.DataFrame(values["reliability"])
    if len(table):
        yield (
            "Does 90% mean 90%?",
            plots.svg(lambda axes: plots.reliability(axes, table), "Reliability diagram"),
            "On the diagonal a probability means what it says. Bars: 95%. It holds where as many photos are synthetic "
            "as in the calibration set; --prior re-weights it.",
        )
    edges, kinds = values["histograms"]["edges"], values["histograms"]["kinds"]
    dashed = "Dashed: the thresholds. " if values["thresholds"] else ""
    yield (
        "Where the scores lie",
        plots.svg(
            lambda axes: plots.scores(axes, edges, kinds, values["thresholds"]),
            "Scores by kind of photo",
            0.75 + 0.42 * len(kinds),
        ),
        f"{dashed}Each kind has its own height. Blue: real; orange: synthetic.",
    )


def _robustness_plots(values: Mapping[str, Any]) -> Iterator[Any]:
    rows = values["robustness"]
    if not rows:
        return
    real, damaged = (
        [int(row.get(n, values["counts"].get(n, 0))) for row in rows]
        for n in ("n_real", "n_damaged")
    )
    on_all = f"on all {words.span(real)} real photos"
    on_damaged = f"on {words.span(damaged)} really damaged photos"
    titles = {
        "auroc": f"AUROC {on_all}",
        "tpr_at_fpr_1": f"TPR at 1% FPR {on_damaged if counted_on_damaged(damaged) else on_all}",
        "false_alarms": f"false alarms {on_damaged}",
        "false_alarms_all_real": f"false alarms {on_all}",
    }
    for key, title in titles.items():
        if any(row.get(key) is not None for row in rows):
            height = 0.75 + 0.185 * len(rows)

            def draw(axes: Any, key: str = key, title: str = title) -> None:
                plots.robustness(axes, rows, key, title)

            yield plots.svg(draw, f"{title} after each perturbation", height)


def _reliability(photos: pd.DataFrame) -> pd.DataFrame:
    """The diagram's bins of at least 20 photos; empty with fewer than three, or with one class only."""
    labels = photos.loc[photos["probability"].notna(), "label"]
    bins = min(10, len(labels) // _PER_BIN)
    if bins < 3 or labels.nunique() < 2:
        return pd.DataFrame()
    return reliability_table(photos, bins=bins)


def _histograms(photos: pd.DataFrame) -> dict[str, Any]:
    """Photos of each kind in equal steps of the score; scores beyond the outermost half percent count at the ends."""
    low, high = photos["score"].quantile([0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    kinds = photos["kind"].where(photos["kind"] != "", photos["label"])
    scores = photos["score"].clip(edges[0], edges[-1])
    counts = {
        kind: np.histogram(scores[kinds == kind], edges)[0].tolist()
        for kind in (*KINDS, *LABELS)
        if (kinds == kind).any()
    }
    return {"edges": edges.tolist(), "kinds": counts}


def _parts(generators: Sequence[GeneratorCount]) -> dict[str, list[str]]:
    """The parts of the test that have figures of their own."""
    deployed = [row for row in generators if row.sort == "deployed"]
    parts = {
        "deployed generators": deployed,
        "deployed, never trained on": [row for row in deployed if row.trained_on is False],
        "codecs": [row for row in generators if row.sort == "codec"],
    }
    return {title: [row.name for row in rows] for title, rows in parts.items() if rows}


def _trained_on(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What metrics.json says about the training, where the model itself is missing."""
    rows = metrics.get("per_generator") or {}
    known = {
        name: row["trained_on"] for name, row in rows.items() if row.get("trained_on") is not None
    }
    return {"generators": [name for name, trained in known.items() if trained]} if known else {}


def _slices(
    metrics: Mapping[str, Any], generators: Sequence[GeneratorCount]
) -> dict[str, list[dict[str, Any]]]:
    """Tables of slices by name, rows with a figure first. An evaluation without them has kinds and generators only."""
    found = {str(name): list(rows) for name, rows in (metrics.get("slices") or {}).items()}
    if not found:
        for name in ("kind", "generator"):
            rows = metrics.get(f"per_{name}") or {}
            found[name] = [{name: value, "note": "", **row} for value, row in rows.items()]
    new = {row.name for row in generators if row.trained_on is False}
    found["generator"] = [
        {**row, "mark": "never trained on" if row["generator"] in new else ""}
        for row in found.get("generator", [])
    ]
    return {
        name: sorted(rows, key=lambda row: row.get("auroc") is None)
        for name, rows in found.items()
        if rows
    }


def _outdated(photos: pd.DataFrame, policy: Policy | None) -> list[str]:
    """A note when the model's file has other thresholds now than those the photos were judged with."""
    if policy is None:
        return []
    plain = photos[photos["reasons"].isin(["", "between_thresholds", "demo_model", NOT_CALIBRATED])]
    changed = int((plain["score"].map(policy.outcome) != plain["outcome"]).sum())
    if not changed:
        return []
    return [
        f"{changed:,} of {len(photos):,} photos were judged with other thresholds than the model's file has now: "
        "evaluate again. The outcomes on this page are from the evaluation, the policy is from the file."
    ]


def _plain(value: Any) -> Any:
    """JSON values: None for numbers that JSON does not have, lists for tuples."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
