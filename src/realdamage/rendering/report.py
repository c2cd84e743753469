"""An evaluation as one page that a fraud team can defend, and the same as JSON: what was tested, what it showed and how
surely, where the model fails, and what its thresholds promise."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from realdamage.core.detector import Detector
from realdamage.core.progress import Track, no_progress
from realdamage.data.manifest import Manifest
from realdamage.evaluation.figures import NOT_CALIBRATED, labelled_and_scored
from realdamage.evaluation.folder import read_evaluation
from realdamage.evaluation.predictions import clean
from realdamage.files import write_atomically
from realdamage.rendering import report_figures, report_words
from realdamage.rendering.report_examples import Example, examples, worst_false_alarms, worst_misses
from realdamage.rendering.report_figures import Bin, Curve, Headline, Histogram
from realdamage.rendering.report_page import report_page
from realdamage.rendering.report_words import Audit, Fact, GeneratorCount

HTML_NAME, JSON_NAME = "report.html", "report.json"


@dataclass(frozen=True)
class Report:
    """All that the page shows, in its order.

    first_lines: which deployed generators the test contains, and what else it is made of. notes: that the model is a
    demonstration, what is missing from the page, and why. counts: n, n_real, n_damaged, n_synthetic, n_groups,
    n_unscored. parts: rows of `parts_table`.
    thresholds: (t_real, t_synthetic), empty without a policy. robustness: rows of `robustness_table`. slices: rows of
    `slice_table` by name. container: what the files' facts alone tell. benchmark: of
    `benchmark_figures`. The rest: see the types.
    """

    title: str
    first_lines: tuple[str, ...]
    notes: tuple[str, ...]
    counts: Mapping[str, int]
    generators: tuple[GeneratorCount, ...]
    headlines: tuple[Headline, ...]
    parts: tuple[Mapping[str, Any], ...]
    roc: tuple[Curve, ...]
    reliability: tuple[Bin, ...]
    score_edges: tuple[float, ...]
    histograms: tuple[Histogram, ...]
    thresholds: tuple[float, ...]
    robustness: tuple[Mapping[str, Any], ...]
    slices: Mapping[str, Sequence[Mapping[str, Any]]]
    false_alarms: tuple[Example, ...]
    misses: tuple[Example, ...]
    policy: tuple[Fact, ...]
    audit: Audit
    container: str
    benchmark: Mapping[str, Any] | None
    card: tuple[Fact, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; None where a figure is undefined. Without the pictures, which only the page has."""
        values: dict[str, Any] = _plain(asdict(self))
        for example in (*values["false_alarms"], *values["misses"]):
            del example["picture"], example["heat_map"]
        return values


def build_report(
    evaluation: str | Path | tuple[pd.DataFrame, Mapping[str, Any]],
    *,
    detector: Detector | None = None,
    manifest: Manifest | None = None,
    notes: Sequence[str] = (),
    progress: Track = no_progress,
) -> Report:
    """The report of an evaluation folder, or of its (predictions, metrics).

    `detector`: the model that was evaluated, for heat maps, policy, audit and card. `manifest`: its photos, at best of
    all splits, for then the families of the generators it was trained on are known. What cannot be shown without them
    is left out; `notes` say why. `progress`: of the pictures.
    Raises RealDamageError: no evaluation, a photo without label, or no photo with a score.
    """
    predictions, metrics = (
        read_evaluation(evaluation) if isinstance(evaluation, str | Path) else evaluation
    )
    photos = labelled_and_scored(clean(predictions))
    metadata = detector.metadata if detector else None
    training = metadata.training if metadata else _trained_on(metrics)
    generators = report_words.generator_counts(photos, training, _families(photos, manifest))
    edges, histograms = report_figures.histograms(photos)
    policy = metadata.policy if metadata else None
    run = metrics.get("run") or {}
    demo = metadata.demo if metadata else bool(run.get("demo"))
    return Report(
        title=str(run.get("model_version") or (metadata.model_version if metadata else "a model")),
        first_lines=tuple(report_words.first_line(generators)),
        notes=(*report_words.demo_note(demo), *notes, *_stale(photos, policy)),
        counts={
            key: int(metrics[key])
            for key in ("n", "n_real", "n_damaged", "n_synthetic", "n_groups", "n_unscored")
            if key in metrics
        },
        generators=generators,
        headlines=report_figures.headlines(metrics, photos),
        parts=report_figures.parts_table(photos, _parts(generators)),
        roc=report_figures.roc_curves(photos),
        reliability=report_figures.reliability(photos),
        score_edges=edges,
        histograms=histograms,
        thresholds=(policy.t_real, policy.t_synthetic) if policy else (),
        robustness=tuple(metrics.get("robustness") or ()),
        slices=_slices(metrics),
        false_alarms=examples(worst_false_alarms(photos), manifest, detector, progress=progress),
        misses=examples(worst_misses(photos), manifest, detector, progress=progress),
        policy=tuple(report_words.policy_words(policy, metadata.calibration if metadata else None))
        if metadata
        else (("not known", "The file of the model was not given."),),
        audit=report_words.audit_words(metadata),
        container=str((metrics.get("container_auroc") or {}).get("text") or ""),
        benchmark=metrics.get("benchmark"),
        card=tuple(report_words.model_card(metadata, run)),
    )


def write_report(folder: str | Path, report: Report) -> Path:
    """Writes report.html and report.json into the folder, each whole or not at all; returns the page's path."""
    text = json.dumps(report.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(Path(folder) / JSON_NAME, text.encode())
    write_atomically(Path(folder) / HTML_NAME, report_page(report).encode())
    return Path(folder) / HTML_NAME


def _parts(generators: Sequence[GeneratorCount]) -> dict[str, list[str]]:
    """The parts of the test that have figures of their own: deployed generators, new ones among them, codecs."""
    deployed = [row for row in generators if row.sort == "deployed"]
    parts = {
        "deployed generators": deployed,
        "deployed, never trained on": [row for row in deployed if row.trained_on is False],
        "codecs": [row for row in generators if row.sort == "codec"],
    }
    return {title: [row.name for row in rows] for title, rows in parts.items() if rows}


def _families(photos: pd.DataFrame, manifest: Manifest | None) -> dict[str, str]:
    """The family of every generator that these photos and the manifest name."""
    families: dict[str, str] = {}
    for table in [photos] if manifest is None else [photos, manifest.table]:
        for name, family in zip(table["generator"], table["family"], strict=True):
            families[name] = families.get(name) or family
    return families


def _trained_on(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What metrics.json tells of the training where the model itself is not at hand."""
    told = {
        name: row.get("trained_on") for name, row in (metrics.get("per_generator") or {}).items()
    }
    if all(value is None for value in told.values()):
        return {}
    return {"generators": [name for name, value in told.items() if value]}


def _slices(metrics: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Slice tables by name; those of older evaluations, by kind and generator only, in the same columns."""
    if metrics.get("slices"):
        return {str(name): list(rows) for name, rows in metrics["slices"].items()}
    found = {}
    for name in ("kind", "generator"):
        rows = metrics.get(f"per_{name}") or {}
        found[name] = [
            {
                name: value,
                **row,
                "note": "; ".join(dict.fromkeys((row.get("reasons") or {}).values())),
            }
            for value, row in rows.items()
        ]
    return {name: rows for name, rows in found.items() if rows}


def _stale(photos: pd.DataFrame, policy: Any) -> list[str]:
    """A note when the model's file has other thresholds by now than those that the photos were judged with."""
    if policy is None:
        return []
    plain = photos[photos["reasons"].isin(["", "between_thresholds", "demo_model", NOT_CALIBRATED])]
    changed = int((plain["score"].map(policy.outcome) != plain["outcome"]).sum())
    if not changed:
        return []
    return [
        f"{changed:,} of {len(photos):,} photos were judged with other thresholds than the model's file now has: "
        "evaluate again. Outcomes on this page are those of the evaluation, the policy is that of the file."
    ]


def _plain(value: Any) -> Any:
    """With None for numbers that JSON does not have, and lists for tuples."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
