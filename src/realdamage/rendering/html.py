"""The pages: an evaluation's report, a comparison of two models, an audit. Each is one file that
loads nothing."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from jinja2 import Environment
from PIL import Image

from realdamage.core.decode import decode
from realdamage.core.detector import Detector
from realdamage.core.overlay import draw_overlay
from realdamage.core.policy import Policy
from realdamage.core.progress import Track, no_progress
from realdamage.core.tiles import read_photo
from realdamage.data.audit import AuditReport
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
from realdamage.files import write_atomically
from realdamage.rendering import plots, terminal, words
from realdamage.rendering.words import GeneratorCount

HTML_NAME, JSON_NAME = "report.html", "report.json"
EXAMPLES = 9
"""Photos shown of the false alarms, and of the misses."""
_DAMAGED = 6  # at least this many of the false alarms are really damaged, if there are any
_EXAMPLE_SIDE, _THUMBNAIL_SIDE = 300, 128  # pixels of a picture's longer side
_OUTCOMES = ("false_alarms", "false_alarms_all_real", "missed", "review")
_BASELINES = {"pixel_ap": "prevalence", "f1": "baseline_f1", "best_f1": "baseline_f1"}


class Report(NamedTuple):
    """A report: its first lines (which generators are in the test), notes (what is missing, and
    why), and the rest.

    values: all that report.json holds. pictures: file name → data URLs of the photo and its heat
    map ("": none).
    """

    first_lines: Sequence[str]
    notes: Sequence[str]
    values: Mapping[str, Any]
    pictures: Mapping[str, tuple[str, str]]


def build_report(
    evaluation: str | Path | tuple[pd.DataFrame, Mapping[str, Any]],
    *,
    detector: Detector | None = None,
    manifest: Manifest | None = None,
    notes: Sequence[str] = (),
    progress: Track = no_progress,
) -> Report:
    """The report of an evaluation folder, or of its (predictions, metrics).

    detector: the model that was evaluated, for heat maps, policy, audit and card. manifest: its
    photos, for pictures and the families of generators. notes: why one of them is missing. Raises
    RealDamageError: no evaluation, a photo without label, or no photo with a score.
    """
    if isinstance(evaluation, str | Path):
        evaluation = read_evaluation(evaluation)
    predictions, metrics = evaluation
    photos = labelled_and_scored(clean(predictions))
    metadata = detector.metadata if detector else None
    policy, run = metadata.policy if metadata else None, metrics.get("run") or {}
    families = words.families_of(photos, *([manifest.table] if manifest else []))
    training = metadata.training if metadata else _trained_on(metrics)
    generators = words.generator_counts(photos, training, families)
    notes = (*notes, *_outdated(photos, policy))
    if metadata.demo if metadata else run.get("demo"):
        notes = (*words.lines("demo.txt.j2"), *notes)
    first_lines = words.lines("generators.txt.j2", generators=generators)
    pictures = _Pictures(manifest, detector)
    worst = pd.concat([worst_false_alarms(photos), worst_misses(photos)])
    examples = [
        pictures.example(row) for row in progress(worst.to_dict("records"), len(worst), "pictures")
    ]
    counts = ("n", "n_real", "n_damaged", "n_synthetic", "n_groups", "n_unscored")
    values = {
        "title": run.get("model_version") or (metadata.model_version if metadata else "a model"),
        "first_lines": first_lines,
        "notes": notes,
        "counts": {key: int(metrics[key]) for key in counts if key in metrics},
        "generators": [row._asdict() for row in generators],
        "headlines": headlines(metrics, photos),
        "parts": part_rows(photos, _parts(generators)),
        "roc": [vars(curve) for curve in roc_curves(photos)],
        "reliability": reliability(photos).to_dict("records"),
        "histograms": histograms(photos),
        "thresholds": [policy.t_real, policy.t_synthetic] if policy else [],
        "robustness": metrics.get("robustness") or [],
        "slices": _slices(metrics, generators),
        "false_alarms": [row for row in examples if row["label"] == "real"],
        "misses": [row for row in examples if row["label"] == "synthetic"],
        "policy": words.facts("policy.txt.j2", metadata=metadata),
        "audit": words.audit_facts(metadata),
        "container": (metrics.get("container_auroc") or {}).get("text") or "",
        "benchmark": metrics.get("benchmark"),
        "card": words.facts("card_facts.txt.j2", metadata=metadata, run=run),
    }
    return Report(first_lines, notes, _plain(values), pictures.made)


def write_report(folder: str | Path, report: Report) -> Path:
    """Writes report.html and report.json into the folder, each whole or not at all. Returns the
    page's path."""
    text = json.dumps(report.values, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(Path(folder) / JSON_NAME, text.encode())
    write_atomically(Path(folder) / HTML_NAME, report_page(report).encode())
    return Path(folder) / HTML_NAME


def report_page(report: Report) -> str:
    """The report as HTML."""
    values, rows = report.values, report.values["robustness"]
    curves = [pd.Series(curve) for curve in values["roc"]]
    bins, scores = pd.DataFrame(values["reliability"]), values["histograms"]
    title, edges, kinds = "Scores by kind of photo", scores["edges"], scores["kinds"]
    given, height = (edges, kinds, values["thresholds"]), 0.75 + 0.42 * len(kinds)
    drawings = {
        "roc": plots.svg(plots.roc, "ROC curve", curves) if curves else "",
        "reliability": plots.svg(plots.reliability, "Reliability", bins) if len(bins) else "",
        "scores": plots.svg(plots.scores, title, *given, height=height),
    }
    height, robustness = 0.75 + 0.185 * len(rows), []
    for key, title in _robustness_titles(values).items():
        if any(row.get(key) is not None for row in rows):
            label = f"{title} after each perturbation"
            robustness.append(plots.svg(plots.robustness, label, rows, key, title, height=height))
    return render(
        "report.html.j2",
        report=values,
        pictures=report.pictures,
        drawings=drawings,
        robustness_plots=robustness,
        robustness=words.perturbation_rows(rows),
        benchmark=terminal.benchmark_text(values["benchmark"]) if values["benchmark"] else "",
    )


def comparison_page(comparison: Comparison) -> str:
    """A comparison of two models as HTML."""
    ends = [abs(end) for row in comparison.figures for end in (row.low, row.high) if end]
    perturbed = [row for rows in comparison.perturbed.values() for row in rows]
    return render(
        "comparison.html.j2",
        comparison=comparison,
        summary=words.lines("comparison.txt.j2", comparison=comparison),
        standings={row.standing for row in comparison.figures},
        shown={row.figure for row in perturbed if row.difference is not None},
        width=max([*ends, 1e-9]),
    )


def write_comparison(
    comparison: Comparison, *, html: Path | None = None, json_file: Path | None = None
) -> None:
    """Writes the page and the same as JSON, where asked for. Raises RealDamageError: cannot
    write."""
    if html:
        write_atomically(html, comparison_page(comparison).encode())
    if json_file:
        text = json.dumps(comparison.to_dict(), indent=2, allow_nan=False) + "\n"
        write_atomically(json_file, text.encode())


def audit_page(report: AuditReport, manifest: Manifest) -> str:
    """An audit as HTML, with thumbnails of the worst offenders from the photos of `manifest`."""
    pictures, tables = _Pictures(manifest), terminal.audit_counts(report)
    return render(
        "audit.html.j2", report=report, limit=LIMIT, thumbnails=pictures.thumbnails, tables=tables
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
    """The figures of `words.TITLES`: key, title, value, low, high, baseline (what no skill gets),
    note."""
    found, localisation = headline_figures(metrics, photos), metrics.get("localisation") or {}
    baselines: dict[str, float | None] = {"auroc": 0.5, "balanced_accuracy": 0.5, "pairs": 0.5}
    baselines |= {key + end: rate for key, rate in RATES.items() for end in ("", "_all_real")}
    baselines |= {key: localisation.get(base) for key, base in _BASELINES.items()}
    rows = []
    for key, title in words.TITLES.items():
        figure, note = found[key], found[key].reason
        if figure.value is not None and key in _OUTCOMES:
            note = f"{round(figure.value * figure.n):,} of {figure.n:,}"
        elif figure.value is not None and figure.n:
            note = words.count(figure.n, "pair" if key == "pairs" else "photo")
        row = {"key": key, "title": title, "value": figure.value, "low": figure.low}
        baseline = None if figure.value is None else baselines.get(key)
        rows.append(row | {"high": figure.high, "baseline": baseline, "note": note})
    return rows


def worst_false_alarms(photos: pd.DataFrame) -> pd.DataFrame:
    """The real photos with the highest scores, one of each group, really damaged ones first."""
    real = photos[photos["label"] == "real"].sort_values("score", ascending=False, kind="stable")
    real = real[~group_ids(real).duplicated()]
    damaged = real["kind"] == "damaged"
    others = real[~damaged].head(EXAMPLES - min(_DAMAGED, int(damaged.sum())))
    return pd.concat([real[damaged].head(EXAMPLES - len(others)), others])


def worst_misses(photos: pd.DataFrame) -> pd.DataFrame:
    """The synthetic photos with the lowest scores, one of each group; those only pasted come
    last."""
    synthetic = photos[photos["label"] == "synthetic"].sort_values("score", kind="stable")
    pasted = synthetic["kind"] == "pasted"
    ordered = pd.concat([synthetic[~pasted], synthetic[pasted]])
    return ordered[~group_ids(ordered).duplicated()].head(EXAMPLES)


class _Pictures:
    """Pictures of a manifest's photos as data URLs. made: those of examples, by file name."""

    def __init__(self, manifest: Manifest | None, detector: Detector | None = None) -> None:
        self.manifest, self.detector = manifest, detector
        self.made: dict[str, tuple[str, str]] = {}

    def example(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        """A row of predictions for report.json; its note says why a picture is missing."""
        name, note = str(row["file_name"]), ""
        self.made[name] = ("", "")
        try:
            if self.manifest is not None:
                self.made[name] = self._photo_and_heat_map(self.manifest, row)
        except PhotoError:
            note = "the photo can no longer be read"
        except ManifestError as error:
            note = str(error)
        keys = ("file_name", "label", "kind", "generator", "damage", "source", "score")
        reasons = str(row["reasons"]).replace("_", " ")
        judged = {key: row[key] for key in (*keys, "probability", "outcome")}
        return judged | {"reasons": reasons, "note": note}

    def _photo_and_heat_map(self, manifest: Manifest, row: Mapping[Any, Any]) -> tuple[str, str]:
        # Only what the manifest names is opened: a predictions file could name anything.
        found = np.flatnonzero(manifest.table["file_name"] == row["file_name"])
        if not len(found):
            raise ManifestError("not in the manifest")
        index, path, heat = int(found[0]), manifest.path(str(row["file_name"])), ""
        if self.detector is None:
            rgb = decode(path)
            shape = (rgb.shape[0], rgb.shape[1])
        else:
            photo = read_photo(path, self.detector.pixel_spec, name=str(path))
            if row["photo_sha256"] and photo.sha256 != row["photo_sha256"]:
                raise ManifestError("the file has changed since it was judged")
            rgb, shape = photo.rgb, (photo.height, photo.width)
            small = np.asarray(plots.outlined(rgb, None, _EXAMPLE_SIDE))
            overlay = draw_overlay(small, self.detector.predict_photo(photo))
            heat = _data_url(overlay.crop((0, 0, small.shape[1], small.shape[0])))
        return _data_url(plots.outlined(rgb, _mask(manifest, index, shape), _EXAMPLE_SIDE)), heat

    def thumbnails(self, names: Sequence[str], masks: bool = False) -> Iterator[dict[str, str]]:
        """name, label and url of photos, and of their masks; files that cannot be read are left
        out."""
        assert self.manifest is not None
        rows = self.manifest.table.set_index("file_name")[["label", "mask_file_name"]]
        for name in names:
            label, mask = map(str, rows.loc[name] if name in rows.index else ("", ""))
            for each, what in (
                ((name, label), (mask, "mask")) if mask and masks else ((name, label),)
            ):
                try:
                    rgb = decode(self.manifest.path(each))
                except PhotoError:
                    continue
                picture = plots.outlined(rgb, None, _THUMBNAIL_SIDE)
                yield {"name": each, "label": what, "url": _data_url(picture)}


def _mask(manifest: Manifest, index: int, size: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    try:
        masked = bool(manifest.table["mask_file_name"].iat[index])
        return read_mask(manifest, index, size) if masked else None
    except ManifestError:
        return None


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=78)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _robustness_titles(values: Mapping[str, Any]) -> dict[str, str]:
    """Figures to draw, and on how many photos they are counted."""
    rows, counts = values["robustness"], values["counts"]
    if not rows:
        return {}
    real, damaged = (
        [int(row.get(n, counts.get(n, 0))) for row in rows] for n in ("n_real", "n_damaged")
    )
    on_all = f"on all {words.span(real)} real photos"
    on_damaged = f"on {words.span(damaged)} really damaged photos"
    return {
        "auroc": f"AUROC {on_all}",
        "tpr_at_fpr_1": f"TPR at 1% FPR {on_damaged if counted_on_damaged(damaged) else on_all}",
        "false_alarms": f"false alarms {on_damaged}",
        "false_alarms_all_real": f"false alarms {on_all}",
    }


def reliability(photos: pd.DataFrame) -> pd.DataFrame:
    """The diagram's bins of at least 20 photos; empty with fewer than three, or with one class
    only."""
    labels = photos.loc[photos["probability"].notna(), "label"]
    bins = min(10, len(labels) // 20)
    few = bins < 3 or labels.nunique() < 2
    return pd.DataFrame() if few else reliability_table(photos, bins=bins)


def histograms(photos: pd.DataFrame) -> dict[str, Any]:
    """Photos of each kind in equal steps of the score; scores beyond the outermost half percent
    count at the ends."""
    low, high = photos["score"].quantile([0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, 37)
    scores = photos["score"].clip(edges[0], edges[-1])
    kinds = photos["kind"].where(photos["kind"] != "", photos["label"])
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
    known = {name: row.get("trained_on") for name, row in rows.items()}
    if all(trained is None for trained in known.values()):
        return {}
    return {"generators": [name for name, trained in known.items() if trained]}


def _slices(
    metrics: Mapping[str, Any], generators: Sequence[GeneratorCount]
) -> dict[str, list[dict[str, Any]]]:
    """Tables of slices by name, rows with a figure first. An evaluation without them has kinds and
    generators only."""
    found = {str(name): list(rows) for name, rows in (metrics.get("slices") or {}).items()}
    for name in () if found else ("kind", "generator"):
        rows = metrics.get(f"per_{name}") or {}
        found[name] = [{name: value, "note": "", **row} for value, row in rows.items()]
    new = {row.name for row in generators if row.trained_on is False}
    marks = {True: "never trained on", False: ""}
    found["generator"] = [
        {**row, "mark": marks[row["generator"] in new]} for row in found.get("generator", [])
    ]
    return {
        name: sorted(rows, key=lambda row: row.get("auroc") is None)
        for name, rows in found.items()
        if rows
    }


def _outdated(photos: pd.DataFrame, policy: Policy | None) -> list[str]:
    """A note when the model's file has other thresholds now than those the photos were judged
    with."""
    if policy is None:
        return []
    plain = photos[photos["reasons"].isin(["", "between_thresholds", "demo_model", NOT_CALIBRATED])]
    changed = int((plain["score"].map(policy.outcome) != plain["outcome"]).sum())
    note = (
        f"{changed:,} of {len(photos):,} photos were judged with other thresholds than the model's "
        "file has now: "
        "evaluate again. The outcomes here are from the evaluation, the policy is from the file."
    )
    return [note] if changed else []


def _plain(value: Any) -> Any:
    """JSON values: None for numbers that JSON does not have, lists for tuples."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
