"""All that a report says of an evaluation, as one table of values: the page, the model card and the
notebooks take it from here."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from realdamage.core.decode import decode
from realdamage.core.detector import Detector
from realdamage.core.overlay import draw_overlay
from realdamage.core.progress import Track, no_progress
from realdamage.core.tiles import read_photo
from realdamage.data.manifest import Manifest, read_mask
from realdamage.errors import ManifestError, PhotoError
from realdamage.evaluation.figures import (
    RATES,
    ScoredPhotos,
    labelled_and_scored,
    measure,
    reliability_table,
    roc_curves,
)
from realdamage.evaluation.localise import localisation_metrics
from realdamage.evaluation.predictions import clean, group_ids
from realdamage.evaluation.slices import part_rows
from realdamage.rendering import plots, words
from realdamage.rendering.outcomes import GeneratorCount, generator_counts, outcomes

EXAMPLES = 9
"""Photos shown of the false alarms, and of the misses."""
_DAMAGED = 6  # at least this many of the false alarms are really damaged, if there are any
_EXAMPLE_SIDE = 300  # pixels of a picture's longer side
_COUNTS = ("n", "n_real", "n_damaged", "n_synthetic", "n_groups", "n_unscored")
_BASELINES = {"pixel_ap": "prevalence", "f1": "baseline_f1", "best_f1": "baseline_f1"}


class Report(NamedTuple):
    """values: all that the page says. pictures: file name → data URLs of the photo and of its heat
    map ("": none)."""

    values: Mapping[str, Any]
    pictures: Mapping[str, tuple[str, str]]


def build_report(
    evaluation: tuple[pd.DataFrame, Mapping[str, Any]],
    detector: Detector,
    *,
    manifest: Manifest | None = None,
    notes: Sequence[str] = (),
    progress: Track = no_progress,
) -> Report:
    """The report of an evaluation's (predictions, metrics) by this detector.

    manifest: its photos, for pictures. notes: what to say first.
    Raises RealDamageError: a photo without label, or no photo with a score.
    """
    predictions, metrics = evaluation
    photos = labelled_and_scored(clean(predictions))
    metadata = detector.metadata
    policy = metadata.policy
    generators = generator_counts(photos, metadata.training)
    pictures: dict[str, tuple[str, str]] = {}
    worst = pd.concat([worst_false_alarms(photos), worst_misses(photos)]).to_dict("records")
    examples = []
    for row in progress(worst, len(worst), "pictures"):
        pictures[row["file_name"]], note = _photo_and_heat_map(row, manifest, detector)
        examples.append(_example(row, note))
    values = {
        "title": metadata.model_version or "a model",
        "outcomes": outcomes(photos, generators)._asdict(),
        "first_lines": words.lines("generators.txt.j2", generators=generators),
        "notes": [*words.demo_note(metadata.demo), *notes],
        "counts": {key: int(metrics[key]) for key in _COUNTS},
        "generators": [row._asdict() for row in generators],
        "headlines": headlines(metrics, photos),
        "parts": part_rows(photos, _parts(generators)),
        "roc": roc_curves(photos),
        "reliability": reliability(photos),
        "photos": photos,
        "thresholds": [policy.t_real, policy.t_synthetic] if policy else [],
        "robustness": metrics.get("robustness") or [],
        "slices": {
            name: sorted(rows, key=lambda row: row.get("auroc") is None)
            for name, rows in (metrics.get("slices") or {}).items()
        },
        "false_alarms": [row for row in examples if row["label"] == "real"],
        "misses": [row for row in examples if row["label"] == "synthetic"],
        "policy": words.facts("policy.txt.j2", metadata=metadata),
        "audit": words.audit_facts(metadata),
        "container": (metrics.get("container_auroc") or {}).get("text") or "",
        "benchmark": metrics.get("benchmark"),
        "card": words.facts("card_facts.txt.j2", metadata=metadata, run=metrics.get("run") or {}),
    }
    return Report(values, pictures)


def headlines(metrics: Mapping[str, Any], photos: pd.DataFrame) -> list[dict[str, Any]]:
    """The figures of `words.TITLES`: key, title, sentence, value, low, high, baseline (what no
    skill gets), note. photos: the unperturbed rows."""
    found: dict[str, tuple[Any, ...]] = {
        key: (metrics[key], *(ends or (None, None)), metrics["reasons"].get(key, ""))
        for key, ends in metrics["intervals"].items()
    }
    table = ScoredPhotos(photos, n_boot=0)
    for key, mask, outcome in (
        ("false_alarms", table.damaged, "called_synthetic"),
        ("false_alarms_all_real", table.real, "called_synthetic"),
        ("missed", table.synthetic, "called_real"),
        ("review", table.everything, "review"),
    ):
        [figure] = measure(table, mask, mask, (outcome,))
        counted = f"{round((figure.value or 0) * figure.n):,} of {figure.n:,}"
        found[key] = (figure.value, figure.low, figure.high, figure.reason or counted)
    pairs, localised = metrics["pairs"], metrics["localisation"] or localisation_metrics([])
    note = pairs["reason"] or words.count(pairs["n"], "pair")
    found["pairs"] = (pairs["edit_higher"], pairs["low"], pairs["high"], note)
    note = localised["reason"] or words.count(localised["n_photos"], "photo")
    for key in _BASELINES:
        found[key] = (localised[key], *(localised["intervals"][key] or (None, None)), note)
    baselines: dict[str, float | None] = {"auroc": 0.5, "balanced_accuracy": 0.5, "pairs": 0.5}
    baselines |= {key + end: rate for key, rate in RATES.items() for end in ("", "_all_real")}
    baselines |= {key: localised[base] for key, base in _BASELINES.items()}
    rows = []
    for key, title in words.TITLES.items():
        row: dict[str, Any] = {"key": key, "title": title, "sentence": words.SENTENCES[key]}
        row |= dict(zip(("value", "low", "high", "note"), found[key], strict=True))
        rows.append(row | {"baseline": None if row["value"] is None else baselines.get(key)})
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


def reliability(photos: pd.DataFrame) -> pd.DataFrame:
    """The diagram's bins of at least 20 photos; empty with fewer than three, or with one class
    only."""
    labels = photos.loc[photos["probability"].notna(), "label"]
    bins = min(10, len(labels) // 20)
    few = bins < 3 or labels.nunique() < 2
    return pd.DataFrame() if few else reliability_table(photos, bins=bins)


def thumbnails(
    manifest: Manifest, names: Sequence[str], side: int, masks: bool = False
) -> Iterator[dict[str, str]]:
    """name, label and url of photos, and of their masks; files that cannot be read are left out."""
    rows = manifest.table.set_index("file_name")[["label", "mask_file_name"]]
    for name in names:
        # Only what the manifest names is opened: a predictions file could name anything.
        if name not in rows.index:
            continue
        label, mask = map(str, rows.loc[name])
        files = {name: label} | ({mask: "mask"} if mask and masks else {})
        for each, what in files.items():
            try:
                rgb = decode(manifest.path(each))
            except PhotoError:
                continue
            yield {"name": each, "label": what, "url": _data_url(plots.outlined(rgb, None, side))}


def _photo_and_heat_map(
    row: Mapping[Any, Any], manifest: Manifest | None, detector: Detector
) -> tuple[tuple[str, str], str]:
    """Data URLs of a photo with its mask outlined, and of its heat map; why they are missing."""
    if manifest is None:
        return ("", ""), ""
    found = np.flatnonzero(manifest.table["file_name"] == row["file_name"])
    if not len(found):
        return ("", ""), "not in the manifest"
    try:
        photo = read_photo(manifest.path(str(row["file_name"])), detector.pixel_spec)
    except PhotoError:
        return ("", ""), "the photo can no longer be read"
    if row["photo_sha256"] and photo.sha256 != row["photo_sha256"]:
        return ("", ""), "the file has changed since it was judged"
    small = np.asarray(plots.outlined(photo.rgb, None, _EXAMPLE_SIDE))
    overlay = draw_overlay(small, detector.predict_photo(photo))
    heat = overlay.crop((0, 0, small.shape[1], small.shape[0]))
    try:
        masked = bool(manifest.table["mask_file_name"].iat[found[0]])
        size = (photo.height, photo.width)
        mask = read_mask(manifest, int(found[0]), size) if masked else None
    except ManifestError:  # the photo without an outline is better than none
        mask = None
    outlined = plots.outlined(photo.rgb, mask, _EXAMPLE_SIDE)
    return (_data_url(outlined), _data_url(heat)), ""


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=78)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _example(row: Mapping[Any, Any], note: str) -> dict[str, Any]:
    """A row of predictions; its note says why a picture is missing."""
    keys = ("file_name", "label", "kind", "generator", "damage", "source", "score", "outcome")
    judged = {key: row[key] for key in keys}
    probability = None if pd.isna(row["probability"]) else row["probability"]
    reasons = str(row["reasons"]).replace("_", " ")
    return judged | {"probability": probability, "reasons": reasons, "note": note}


def _parts(generators: Sequence[GeneratorCount]) -> dict[str, list[str]]:
    """The parts of the test that have figures of their own."""
    deployed = [row for row in generators if row.sort == "deployed"]
    parts = {
        "deployed generators": deployed,
        "deployed, never trained on": [row for row in deployed if row.trained_on is False],
        "codecs": [row for row in generators if row.sort == "codec"],
    }
    return {title: [row.name for row in rows] for title, rows in parts.items() if rows}
