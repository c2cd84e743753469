"""Derives the quality gate: which photos are too small, too soft or too compressed for this
model to judge; and writes it into the model file.

Each limit is the point below which this very model, at its own threshold, stops finding synthetic
photos or starts accusing honest buyers; but see `blur_limit`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import isotonic_regression
from scipy.stats import beta

from realdamage.core.model_file import write_model_file
from realdamage.core.policy import Policy
from realdamage.core.quality import Gate
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.figures import labelled_and_scored
from realdamage.evaluation.guarantee import allowed_share
from realdamage.evaluation.predictions import clean, group_ids, outcomes_by, read_judge
from realdamage.evaluation.slices import FEW

QUALITIES = ("short_side", "compression")
MAX_GATED = 0.05
"""Largest share of clean honest photos that the gate may send to review, by default."""
BLUR_SHARE = 0.02
"""Largest share of the clean honest photos of a source that the limit on fine detail may stop."""
MIN_PHOTOS = 30
"""Photos of each class in each bin of a curve."""
_WORSE = 0.85  # a photo is worse in a number that fell below this share of its clean value
_MOST_BINS = 20
_ENOUGH_DAMAGED = 10 * MIN_PHOTOS  # with fewer, all real photos stand in


@dataclass(frozen=True)
class QualityCurve:
    """The limit on one quality number, None for none, why, and what it was derived from.

    bins: one row each, worst photos first: `low` and `high` (values), `real`, `synthetic` (photos),
    `false_alarms`, `tpr` (at the shipped threshold), `tpr_fit` (never falling), `trusted`.
    """

    column: str
    limit: float | None
    reason: str
    bins: pd.DataFrame


@dataclass(frozen=True)
class GateSummary:
    """What `derive_gate` found. blur: the limit on fine detail and why.

    tpr_floor, allowed: least share found and largest share accused where photos are trusted.
    negatives: the honest photos that `allowed` is a share of, "damaged" or "real".
    gated: share of the clean honest and of the clean synthetic photos sent to review.
    per_perturbation: share gated of all photos of each perturbation ("" is clean).
    """

    gate: Gate
    curves: tuple[QualityCurve, ...]
    blur: tuple[float | None, str]
    tpr_floor: float
    allowed: float
    negatives: str
    gated: tuple[float, float]
    per_perturbation: dict[str, float]


def gate_model(
    path: str | Path,
    predictions: pd.DataFrame,
    *,
    tpr_floor: float | None = None,
    max_gated: float = MAX_GATED,
    output: str | Path | None = None,
) -> GateSummary:
    """`derive_gate` for a model file, written into it (or `output`), all or nothing.

    Raises what `derive_gate` and `read_judge` do.
    """
    onnx_bytes, metadata, policy = read_judge(path, predictions)
    summary = derive_gate(predictions, policy, tpr_floor=tpr_floor, max_gated=max_gated)
    gated = replace(policy, gate=summary.gate)
    write_model_file(output or path, onnx_bytes, replace(metadata, policy=gated))
    return summary


def derive_gate(
    predictions: pd.DataFrame,
    policy: Policy,
    *,
    tpr_floor: float | None = None,
    max_gated: float = MAX_GATED,
) -> GateSummary:
    """The limits of a model with this policy, from photos under several perturbations.

    False alarms are allowed up to `allowed_share`. Photos of kind `pasted` are a control and do not
    count; nor are photos accused that the policy's whole-photo rule sends to review.

    tpr_floor: share of synthetic photos to find; None: half of what is found among clean ones.
    Raises UsageError: a share out of range; RealDamageError: no perturbations, no quality numbers,
    too few photos, a model that is not trusted on good photos either, or more than `max_gated`
    stopped.
    """
    for name, share in (("tpr_floor", tpr_floor), ("max_gated", max_gated)):
        if share is not None and not 0 <= share < 1:
            raise UsageError(f"{name}={share} must be at least 0 and below 1")
    photos, negatives = _prepared(predictions, policy)
    untouched = photos["perturbation"] == ""
    allowed = allowed_share(policy)
    if tpr_floor is None:
        found = photos.loc[untouched & photos["is_positive"], "found"]
        tpr_floor = _mean(found) / 2
    curves = tuple(quality_curve(photos, column, tpr_floor, allowed) for column in QUALITIES)
    side, compression = (curve.limit for curve in curves)
    fine_detail, why = blur_limit(photos)
    gate = Gate(None if side is None else round(side), compression, fine_detail)
    measured = photos[[*QUALITIES, "fine_detail"]]
    limits = pd.Series([gate.min_side, compression, fine_detail], measured.columns)
    # A photo without a number passes, as does any photo without a limit.
    stopped = (measured < limits.astype("float64").fillna(-math.inf)).any(axis=1)
    honest, synthetic = (
        stopped[untouched & (photos["label"] == label)] for label in ("real", "synthetic")
    )
    if honest.mean() > max_gated:
        shown = ", ".join(f"{name} {limit:.4g}" for name, limit in limits.dropna().items())
        raise RealDamageError(
            f"The gate would send {honest.mean():.1%} of the {len(honest)} clean honest photos to "
            f"review, more than max_gated allows ({max_gated:.1%}). Its limits: {shown}. "
            "Nothing was written. Train on photos degraded like these, lower --tpr-floor, or allow "
            "it with --max-gated.",
            code="too_many_gated",
        )
    shares = stopped.groupby(photos["perturbation"]).mean()
    return GateSummary(
        gate=gate,
        curves=curves,
        blur=(fine_detail, why),
        tpr_floor=tpr_floor,
        allowed=allowed,
        negatives=negatives,
        gated=(_mean(honest), _mean(synthetic)),
        per_perturbation={str(name): float(share) for name, share in shares.items()},
    )


def quality_curve(
    photos: pd.DataFrame, column: str, tpr_floor: float, allowed: float
) -> QualityCurve:
    """The curve of one quality number over all perturbations, and the limit that it gives: the
    lower end of the lowest bin from which on all are trusted.

    Only clean photos count and those that a perturbation made worse in this number alone. A bin is
    trusted when the share of positives found, fitted by isotonic regression so that it never falls,
    reaches `tpr_floor`, and the share of negatives accused is not above `allowed` with 95%
    confidence over all bins (Clopper and Pearson, one group counted once, Bonferroni).

    photos: see `_prepared`. Raises RealDamageError: too few photos for two bins, or not even the
    best photos are trusted.
    """
    inside = photos[_worse_in(photos, column)]
    bins = pd.DataFrame([_bin(part, column) for part in _cut(inside, column)])
    weights = np.maximum(bins["synthetic"].to_numpy(dtype=np.float64), 1e-9)
    bins["tpr_fit"] = isotonic_regression(bins["tpr"].to_numpy(), weights=weights).x
    groups, alarms = bins.pop("groups"), bins.pop("alarms")
    # The lower confidence bound of the share accused; 0 without an alarm.
    accused = np.nan_to_num(beta.ppf(0.05 / len(bins), alarms, groups - alarms + 1))
    finds = bins["tpr_fit"] >= tpr_floor - 1e-9
    bins["trusted"] = finds & (accused <= allowed)
    untrusted = np.flatnonzero(~bins["trusted"])
    if not len(untrusted):
        reason = f"trusted down to {bins['low'].iat[0]:.4g}, the least seen"
        return QualityCurve(column, None, reason, bins)
    last = int(untrusted[-1])
    failed = bins.iloc[last]
    cause = f"accuses {failed['false_alarms']:.1%}, allowed {allowed:.1%}"
    if not finds[last]:
        cause = f"finds {failed['tpr']:.1%}, floor {tpr_floor:.1%}"
    if last == len(bins) - 1:
        raise RealDamageError(
            f"{column}: the model is not trusted on the best photos either ({column} "
            f"{failed['low']:.4g} to {failed['high']:.4g}: {cause}). A gate cannot fix that: "
            "calibrate again on photos like these, or lower --tpr-floor.",
            code="never_trusted",
        )
    return QualityCurve(column, float(bins["low"].iloc[last + 1]), f"below it: {cause}", bins)


def blur_limit(photos: pd.DataFrame) -> tuple[float | None, str]:
    """The largest limit on fine detail that stops at most `BLUR_SHARE` of the clean honest photos
    of each source with at least 20 of them, and why.

    It has no `quality_curve`: blur takes the traces themselves away.
    """
    honest = clean(photos[(photos["label"] == "real") & photos["fine_detail"].notna()])
    limits = {
        str(name): float(np.sort(found)[int(BLUR_SHARE * len(found) + 1e-9)])
        for name, found in honest.groupby("source")["fine_detail"]
        if len(found) >= FEW
    }
    if not limits:
        return None, f"no source has {FEW} clean honest photos"
    softest = min(limits, key=limits.__getitem__)
    of_each = f"stops at most {BLUR_SHARE:.1%} of the clean honest photos of each source"
    # A limit of 0 stops no photo.
    return limits[softest] or None, f"{of_each}; the softest: {softest or 'unnamed'}"


def _mean(flags: pd.Series) -> float:
    return float(flags.mean()) if len(flags) else 0.0


def _prepared(predictions: pd.DataFrame, policy: Policy) -> tuple[pd.DataFrame, str]:
    """The scored rows with `short_side` and what `quality_curve` needs, and which honest photos may
    not be accused."""
    photos = labelled_and_scored(predictions)
    untouched = photos["perturbation"] == ""
    if untouched.all() or not untouched.any():
        raise RealDamageError(
            "The predictions need clean and perturbed photos to compare. Evaluate with a "
            "robustness suite: realdamage-evaluate … robustness=standard",
            code="no_perturbations",
        )
    for column in ("compression", "fine_detail", "width", "height"):
        if photos[column].isna().all():
            raise RealDamageError(
                f"The predictions have no values in the column {column}. Evaluate again.",
                code="no_quality",
            )
    real = photos["label"] == "real"
    damaged = real & (photos["kind"] == "damaged")
    only_damaged = policy.negatives == "damaged" and damaged.sum() >= _ENOUGH_DAMAGED
    prepared = photos.assign(
        found=photos["score"] >= policy.t_synthetic,
        accused=outcomes_by(policy, photos) == "synthetic",
        short_side=photos[["width", "height"]].min(axis=1),
        is_negative=damaged if only_damaged else real,
        is_positive=(photos["label"] == "synthetic") & (photos["kind"] != "pasted"),
    )
    return prepared, "damaged" if only_damaged else "real"


def _worse_in(photos: pd.DataFrame, column: str) -> npt.NDArray[np.bool_]:
    """bool [n]: clean photos, and those that are worse than when clean in this number alone."""
    untouched = clean(photos).set_index("file_name")
    before = untouched[list(QUALITIES)].reindex(photos["file_name"]).to_numpy(dtype=np.float64)
    worse = photos[list(QUALITIES)].to_numpy(dtype=np.float64) < _WORSE * before
    alone = worse[:, QUALITIES.index(column)] & (worse.sum(axis=1) == 1)
    inside: npt.NDArray[np.bool_] = (photos["perturbation"] == "").to_numpy(dtype=bool) | alone
    return inside & photos[column].notna().to_numpy(dtype=bool)


def _cut(photos: pd.DataFrame, column: str) -> list[pd.DataFrame]:
    """Consecutive ranges of values with enough photos of both classes; equal values stay
    together."""
    classes = ["is_negative", "is_positive"]
    counts = photos[classes].sum()
    if counts.min() < 2 * MIN_PHOTOS:
        raise RealDamageError(
            f"{column}: a curve needs at least {2 * MIN_PHOTOS} honest and {2 * MIN_PHOTOS} "
            f"synthetic photos over all perturbations; found {counts.iat[0]} and {counts.iat[1]}. "
            "Score more photos or perturbations.",
            code="too_few_photos",
        )
    least = np.maximum(MIN_PHOTOS, np.ceil(counts.to_numpy() / _MOST_BINS))
    by_value = photos.groupby(column)[classes].sum().sort_index()
    codes, code, inside = [], 0, np.zeros(2)
    for new in by_value.to_numpy():
        codes.append(code)
        inside = inside + new
        if (inside >= least).all():
            code, inside = code + 1, np.zeros(2)
    # What is left over at the upper end is too little for a bin of its own.
    codes = [min(value, max(code - 1, 0)) for value in codes]
    of_value = dict(zip(by_value.index, codes, strict=True))
    return [part for _, part in photos.groupby(photos[column].map(of_value), sort=True)]


def _bin(part: pd.DataFrame, column: str) -> dict[str, float]:
    negative, positive = part[part["is_negative"]], part[part["is_positive"]]
    false_alarms = float(negative["accused"].mean())
    groups = int(group_ids(negative).nunique())
    return {
        "low": float(part[column].min()),
        "high": float(part[column].max()),
        "real": len(negative),
        "synthetic": len(positive),
        "false_alarms": false_alarms,
        "tpr": float(positive["found"].mean()),
        # Several perturbations of one product are not independent.
        "alarms": false_alarms * groups,
        "groups": groups,
    }
