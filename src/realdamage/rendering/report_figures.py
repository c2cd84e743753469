"""The numbers of a report: headline figures with their intervals, and the curves behind them. Nothing is drawn here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.data.bootstrap import GroupDraws, percentile_interval, share_interval
from realdamage.data.vocabulary import KINDS
from realdamage.evaluation.figures import MIN_PHOTOS, has_thresholds
from realdamage.evaluation.predictions import group_ids
from realdamage.evaluation.probability import N_BINS, reliability_table
from realdamage.rendering.figure_titles import SLICE_FIGURES

Interval = tuple[float | None, float | None]

LOWEST_FPR = 0.001
"""Where the curve begins: beyond it a test of any usual size has nothing to say."""
_BINS = 36
_PER_BIN = 20
# Fewer real photos make a staircase, not a curve.
_PER_CURVE = 20


@dataclass(frozen=True)
class Headline:
    """One figure as people should read it. value: None with the `note` that says why; low, high: its 95% interval.

    share: whether it is a share that reads best in percent. baseline: what a map or model without any skill gets.
    """

    key: str
    title: str
    value: float | None
    low: float | None = None
    high: float | None = None
    share: bool = False
    baseline: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """True positive rates [k] over false positive rates [k] and their 95% band. negatives: which photos false alarms
    are counted on; n: how many they are, so rates below 1/n mean "no false alarm at all"."""

    negatives: str
    n: int
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Bin:
    """Photos of similar probability: its mean, the share that is synthetic with its 95% interval, and how many."""

    stated: float
    observed: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Histogram:
    """Photos of one kind per stretch of the score; `edges` of the stretches are those of the whole report."""

    kind: str
    n: int
    counts: tuple[int, ...]


def headlines(metrics: Mapping[str, Any], photos: pd.DataFrame) -> tuple[Headline, ...]:
    """The figures in the order of their weight: what is found while hardly anyone with real damage is accused, what
    happens at the shipped thresholds, how far the probabilities hold, where the evidence lies. `photos`: scored rows
    without perturbation."""
    return (
        _measured(metrics, "tpr_at_fpr_1", "found at 1% false alarms on real damage", share=True),
        _measured(
            metrics, "tpr_at_fpr_0.5", "found at 0.5% false alarms on real damage", share=True
        ),
        _measured(metrics, "auroc", "AUROC, synthetic against real", baseline=0.5),
        *_outcomes(photos),
        _measured(
            metrics,
            "balanced_accuracy",
            "balanced accuracy at an even prior",
            share=True,
            baseline=0.5,
        ),
        _measured(metrics, "brier", "Brier score of the probabilities"),
        _measured(
            metrics,
            "ece",
            "calibration error (ECE)",
            note="few photos raise it: the model's own is rather lower",
        ),
        _pairs(metrics.get("pairs") or {}),
        *_localisation(metrics.get("localisation")),
    )


def parts_table(
    photos: pd.DataFrame, parts: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Any], ...]:
    """One row per part of the synthetic photos, in the columns of `slice_table`: AUROC against all real photos, and the
    rate found at 1% false alarms on really damaged ones. `parts`: what a part is called → its generators."""
    real, damaged = (photos["label"] == "real").to_numpy(), _damaged(photos)
    score = photos["score"].to_numpy(dtype=np.float64)
    draws = GroupDraws(group_ids(photos).to_numpy(), seed=0)
    rows = []
    for title, generators in parts.items():
        chosen = photos["generator"].isin(list(generators)) & (photos["kind"] != "pasted")
        own = np.flatnonzero(~real & chosen.to_numpy())
        row: dict[str, Any] = {"synthetic photos by": title, "n": len(own)}
        notes = []
        for index, (key, negative, least, sort) in enumerate(
            (
                ("auroc", real, MIN_PHOTOS, "real ones"),
                ("tpr_at_fpr_1", damaged, 100, "really damaged ones"),
            )
        ):
            negatives = np.flatnonzero(negative)
            if len(own) < MIN_PHOTOS or len(negatives) < least:
                counts = f"{len(own)} such photos and {len(negatives)} {sort}"
                notes.append(
                    f"no {SLICE_FIGURES[key]}: {counts}; it takes at least {MIN_PHOTOS} and {least}"
                )
                continue
            figures = draws.roc(score, own, negatives, (0.01,))[index]
            low, high = _or_none(*(float(end) for end in percentile_interval(figures[1:])))
            row |= {key: float(figures[0]), f"{key}_low": low, f"{key}_high": high}
        rows.append({**row, "note": "; ".join(notes)})
    return tuple(rows)


def roc_curves(photos: pd.DataFrame) -> tuple[Curve, ...]:
    """The curve over really damaged photos, then over all real ones; without those that have fewer than 20."""
    score = photos["score"].to_numpy(dtype=np.float64)
    real = (photos["label"] == "real").to_numpy()
    own = np.flatnonzero(~real)
    draws = GroupDraws(group_ids(photos).to_numpy(), seed=0)
    grid = np.geomspace(LOWEST_FPR, 1, 61)
    curves = []
    for name, negative in (("really damaged", _damaged(photos)), ("all real", real)):
        rows = np.flatnonzero(negative)
        if len(rows) < _PER_CURVE or len(own) < MIN_PHOTOS:
            continue
        found = draws.roc(score, own, rows, grid.tolist())[1:]
        low, high = np.transpose([percentile_interval(rate[1:]) for rate in found])
        curves.append(
            Curve(
                name,
                len(rows),
                *(tuple(values.tolist()) for values in (grid, found[:, 0], low, high)),
            )
        )
    return tuple(curves)


def reliability(photos: pd.DataFrame) -> tuple[Bin, ...]:
    """What happened beside what was said (`reliability_table`), in as many bins as hold 20 photos each; empty with too
    few of them, without probabilities or with one class only."""
    labels = photos.loc[photos["probability"].notna(), "label"]
    bins = min(N_BINS, len(labels) // _PER_BIN)
    if bins < 3 or labels.nunique() < 2:
        return ()
    columns = ["mean_probability", "observed", "observed_low", "observed_high", "n"]
    return tuple(
        Bin(*row) for row in reliability_table(photos, bins=bins)[columns].itertuples(index=False)
    )


def histograms(photos: pd.DataFrame) -> tuple[tuple[float, ...], tuple[Histogram, ...]]:
    """(edges, photos per stretch for each kind); scores beyond the outermost half percent count at the ends."""
    score = photos["score"].to_numpy(dtype=np.float64)
    if not len(score):
        return (), ()
    low, high = np.quantile(score, [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    kinds = photos["kind"].where(photos["kind"] != "", photos["label"])
    order = [*KINDS, *sorted(set(kinds) - set(KINDS))]
    rows = [
        Histogram(
            kind,
            int(own.sum()),
            tuple(np.histogram(np.clip(score[own], edges[0], edges[-1]), edges)[0].tolist()),
        )
        for kind in order
        if (own := (kinds == kind).to_numpy()).any()
    ]
    return tuple(edges.tolist()), tuple(rows)


def _measured(
    metrics: Mapping[str, Any],
    key: str,
    title: str,
    *,
    share: bool = False,
    baseline: float | None = None,
    note: str = "",
) -> Headline:
    low, high = (metrics.get("intervals") or {}).get(key) or (None, None)
    value = metrics.get(key)
    note = (
        note
        if value is not None
        else (metrics.get("reasons") or {}).get(key, "not in metrics.json; evaluate again")
    )
    return Headline(key, title, value, low, high, share, baseline, note)


def _outcomes(photos: pd.DataFrame) -> Iterator[Headline]:
    """The shares of wrong and of no outcomes at the shipped thresholds, with exact intervals."""
    synthetic = (photos["label"] == "synthetic").to_numpy()
    outcome = photos["outcome"].to_numpy()
    for key, title, own, called, sort in (
        (
            "false_alarms",
            "really damaged photos called synthetic",
            _damaged(photos),
            "synthetic",
            "really damaged",
        ),
        (
            "false_alarms_all_real",
            "all real photos called synthetic",
            ~synthetic,
            "synthetic",
            "real",
        ),
        ("missed", "synthetic photos called real", synthetic, "real", "synthetic"),
        ("review", "photos sent to review", np.ones(len(photos), dtype=bool), "review", "scored"),
    ):
        n, count = int(own.sum()), int((outcome[own] == called).sum())
        if not has_thresholds(photos).any():
            yield Headline(
                key,
                title,
                None,
                share=True,
                note="the model has no thresholds; run `realdamage calibrate`",
            )
        elif not n:
            yield Headline(key, title, None, share=True, note=f"no {sort} photo in this test")
        else:
            yield Headline(
                key,
                title,
                count / n,
                *share_interval(count, n),
                share=True,
                note=f"{count:,} of {n:,}",
            )


def _pairs(pairs: Mapping[str, Any]) -> Headline:
    note = (
        f"{pairs['n']:,} pairs"
        if pairs.get("n")
        else pairs.get("reason") or "no pairs in metrics.json"
    )
    title = "edits that score above their own original"
    return Headline(
        "pairs",
        title,
        pairs.get("edit_higher"),
        pairs.get("low"),
        pairs.get("high"),
        True,
        0.5,
        note,
    )


def _localisation(found: Mapping[str, Any] | None) -> Iterator[Headline]:
    for key, base, title in (
        ("pixel_ap", "prevalence", "localisation: pixel AP"),
        ("f1", "baseline_f1", "localisation: F1 at the shipped threshold"),
        ("best_f1", "baseline_f1", "localisation: best F1"),
    ):
        if not found or found.get("reason"):
            note = (found or {}).get("reason") or "no synthetic photo with a mask"
            yield Headline(key, title, None, note=note)
            return
        if found.get(key) is not None:
            low, high = (found.get("intervals") or {}).get(key) or (None, None)
            yield Headline(
                key,
                title,
                found[key],
                low,
                high,
                False,
                found.get(base),
                f"{found['n_photos']:,} photos",
            )


def _damaged(photos: pd.DataFrame) -> npt.NDArray[np.bool_]:
    return ((photos["label"] == "real") & (photos["kind"] == "damaged")).to_numpy()


def _or_none(low: float, high: float) -> Interval:
    return (None, None) if np.isnan(low) or np.isnan(high) else (low, high)
