"""Derives the quality gate: which photos are too small, too blurred or too compressed for this
model to judge; and writes it into the model file.

The limits are measured: each is the point below which this very model, at its own threshold, stops
finding synthetic photos or starts accusing honest buyers. Only the limit on fine detail does not
depend on the model's answers: see `blur_limit`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

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
from realdamage.evaluation.folder import read_judge
from realdamage.evaluation.predictions import clean, group_ids

QUALITIES = ("short_side", "sharpness", "compression")
ENHANCED = ("sharpened", "denoised", "upscaled", "enhanced", "enhanced_upscaled")
"""Perturbations that represent what an honest phone does (configs/robustness/enhanced.yaml)."""

_WORSE = 0.85  # a photo is worse in a number that fell below this share of its clean value
_MOST_BINS = 20
_ENOUGH_OF_SOURCE = 20  # clean honest photos; a share of fewer says little
_ENOUGH_DAMAGED = 10  # times min_photos; with fewer, all real photos stand in
_SHARES = tuple(round(share, 2) for share in np.arange(1.0, 0.49, -0.05))


@dataclass(frozen=True)
class GateOptions:
    """How the limits are derived; shares are at least 0 and below 1.

    tpr_floor: share of synthetic photos that must be found; None: half of what is found among clean
    ones. max_gated: largest share of clean honest photos that the gate may send to review.
    blur_share: see `blur_limit`. min_photos: of each class in each bin of a curve.
    Raises UsageError: a number out of range.
    """

    tpr_floor: float | None = None
    max_gated: float = 0.05
    blur_share: float = 0.02
    min_photos: int = 30

    def __post_init__(self) -> None:
        for name in ("tpr_floor", "max_gated", "blur_share"):
            share = getattr(self, name)
            if share is not None and not 0 <= share < 1:
                raise UsageError(f"{name}={share} must be at least 0 and below 1")
        if self.min_photos < 1:
            raise UsageError(f"min_photos={self.min_photos} must be at least 1")


class WholePhotoShare(NamedTuple):
    """The whole-photo rule: `Policy.whole_photo_share` and why; then shares of photos called
    synthetic, with and without the rule: of honest photos, clean and phone-enhanced, and of kind
    `ai_whole`; None where there are no such photos."""

    share: float | None
    reason: str
    honest: tuple[float, float] | None = None
    ai_whole: tuple[float, float] | None = None


class BlurLimit(NamedTuple):
    """The limit on `fine_detail`, None for none, and why; then shares of honest photos below it: of
    clean ones by source, and of perturbed ones by perturbation."""

    limit: float | None
    reason: str
    clean: dict[str, float]
    perturbed: dict[str, float]


@dataclass(frozen=True)
class QualityCurve:
    """One quality number, `column`, against what the model does.

    limit: the least value from which on the model is trusted; None: everywhere. reason: why.
    bins: one row each, worst photos first: `low` and `high` (values), `real`, `synthetic` (photos),
    `false_alarms`, `tpr` (at the shipped threshold), `tpr_fit` (never falling), `trusted`.
    others: photos left out, because a perturbation made them worse in another number, or in none.
    """

    column: str
    limit: float | None
    reason: str
    bins: pd.DataFrame
    others: int


@dataclass(frozen=True)
class GateSummary:
    """What `derive_gate` found.

    tpr_floor, allowed: least share found and largest share accused where photos are trusted.
    negatives: the honest photos that `allowed` is a share of, "damaged" or "real". gated: share of
    the clean honest and of the clean synthetic photos that the gate sends to review.
    per_perturbation: share gated of all photos of each perturbation ("" is clean).
    """

    gate: Gate
    whole_photo: WholePhotoShare
    curves: tuple[QualityCurve, ...]
    blur: BlurLimit
    tpr_floor: float
    allowed: float
    negatives: str
    gated: tuple[float, float]
    per_perturbation: dict[str, float]


def gate_model(
    path: str | Path,
    predictions: pd.DataFrame,
    options: GateOptions,
    output: str | Path | None = None,
) -> GateSummary:
    """`derive_gate` for a model file, written into it (or `output`), all or nothing.

    Raises what `derive_gate` and `read_judge` do.
    """
    onnx_bytes, metadata, policy = read_judge(path, predictions)
    summary = derive_gate(predictions, policy, options)
    gated = replace(policy, gate=summary.gate, whole_photo_share=summary.whole_photo.share)
    write_model_file(output or path, onnx_bytes, replace(metadata, policy=gated))
    return summary


def derive_gate(predictions: pd.DataFrame, policy: Policy, options: GateOptions) -> GateSummary:
    """The limits of a model with this policy, from photos under several perturbations.

    False alarms are allowed up to the guaranteed share, or `policy.fpr`. Photos of kind `pasted`
    are a control and count for nothing.
    Raises RealDamageError: no perturbations, no quality numbers, too few photos, a model that is
    not trusted on good photos either, or a gate that would stop more than `max_gated`.
    """
    photos, negatives = _prepared(predictions, policy, options.min_photos)
    alpha = policy.guarantee.alpha if policy.guarantee else None
    allowed = policy.fpr if alpha is None else alpha
    tpr_floor = options.tpr_floor
    if tpr_floor is None:
        found = clean(photos[photos["is_positive"]])["found"]
        tpr_floor = float(found.mean()) / 2 if len(found) else 0.0
    whole_photo = whole_photo_share(photos, policy, allowed)
    if whole_photo.share is not None:
        # What the whole-photo rule sends to review is not accused, and no reason for a gate.
        photos["accused"] &= ~(photos["hot_share"] >= whole_photo.share)
    curves = tuple(
        quality_curve(photos, column, tpr_floor, allowed, options.min_photos)
        for column in QUALITIES
    )
    side, sharpness, compression = (curve.limit for curve in curves)
    blur = blur_limit(photos, options.blur_share)
    gate = Gate(None if side is None else round(side), sharpness, compression, blur.limit)
    measured = photos[[*QUALITIES, "fine_detail"]]
    limits = pd.Series([gate.min_side, sharpness, compression, blur.limit], measured.columns)
    # A photo without a number passes, as does any photo without a limit.
    stopped = (measured < limits.astype("float64").fillna(-math.inf)).any(axis=1)
    untouched = photos["perturbation"] == ""
    honest, synthetic = (
        stopped[untouched & (photos["label"] == label)] for label in ("real", "synthetic")
    )
    if honest.mean() > options.max_gated:
        shown = ", ".join(f"{name} {limit:.4g}" for name, limit in limits.dropna().items())
        raise RealDamageError(
            f"The gate would send {honest.mean():.1%} of the {len(honest)} clean honest photos to "
            f"review, more than max_gated allows ({options.max_gated:.1%}). Its limits: {shown}. "
            "Nothing was written. Train on photos degraded like these, lower --tpr-floor or "
            "--blur-share, or allow it with --max-gated.",
            code="too_many_gated",
        )
    shares = stopped.groupby(photos["perturbation"]).mean()
    return GateSummary(
        gate=gate,
        whole_photo=whole_photo,
        curves=curves,
        blur=blur,
        tpr_floor=tpr_floor,
        allowed=allowed,
        negatives=negatives,
        gated=(_mean(honest), _mean(synthetic)),
        per_perturbation={str(name): float(share) for name, share in shares.items()},
    )


def whole_photo_share(photos: pd.DataFrame, policy: Policy, allowed: float) -> WholePhotoShare:
    """The largest share of hot patches from which on a photo must go to review, so that at most a
    share `allowed` of honest photos, clean and phone-enhanced, is called synthetic; the policy's
    own where nothing can be learned.

    photos: scored rows with `hot_share`. A smaller share spares more honest photos and sends more
    of kind `ai_whole` to review.
    """
    kept = policy.whole_photo_share
    enhanced = photos["perturbation"].isin(ENHANCED)
    if not enhanced.any():
        return WholePhotoShare(
            kept, f"unchanged: no phone-enhanced photos ({', '.join(ENHANCED)}) among these"
        )
    if photos["hot_share"].isna().any():
        return WholePhotoShare(
            kept, "unchanged: the column hot_share is empty; score the photos again"
        )
    called, hot = photos["score"] >= policy.t_synthetic, photos["hot_share"]
    untouched = photos["perturbation"] == ""
    honest = (photos["label"] == "real") & (untouched | enhanced)
    whole = (photos["kind"] == "ai_whole") & untouched
    enough = [share for share in _SHARES if (called & (hot < share))[honest].mean() <= allowed]
    share, reason = kept, f"unchanged: no share from {_SHARES[-1]} on spares enough honest photos"
    if not honest.any() or called[honest].mean() <= allowed:
        reason = "unchanged: honest photos are spared without it"
    elif enough:
        share, reason = (
            enough[0],
            "the largest at which clean and enhanced honest photos are spared",
        )
    with_rule = called if share is None else called & (hot < share)
    rates = (
        (float(with_rule[rows].mean()), float(called[rows].mean())) if rows.any() else None
        for rows in (honest, whole)
    )
    return WholePhotoShare(share, reason, *rates)


def quality_curve(
    photos: pd.DataFrame, column: str, tpr_floor: float, allowed: float, min_photos: int
) -> QualityCurve:
    """The curve of one quality number over all perturbations, and the limit that it gives.

    Photos are cut into at most 20 bins of `column` with at least `min_photos` of each class. To
    keep apart what several degradations do, only clean photos count and those that a perturbation
    made worse in this number alone. A bin is trusted when the share of positives found, fitted so
    that it never falls with quality (isotonic regression, Barlow et al. 1972), reaches `tpr_floor`,
    and the share of negatives accused is not above `allowed` with 95% confidence over all bins
    (Clopper & Pearson 1934, one group counted once, Bonferroni). The limit is the lower end of the
    lowest bin from which on all are trusted.

    photos: scored rows with bool columns `is_negative`, `is_positive`, `found` and `accused`.
    Raises RealDamageError: too few photos for two bins, or not even the best photos are trusted.
    """
    inside = photos[_worse_in(photos, column)]
    bins = pd.DataFrame([_bin(part, column) for part in _cut(inside, column, min_photos)])
    weights = np.maximum(bins["synthetic"].to_numpy(dtype=np.float64), 1e-9)
    bins["tpr_fit"] = isotonic_regression(bins["tpr"].to_numpy(), weights=weights).x
    groups, alarms = bins.pop("groups"), bins.pop("alarms")
    # The lower confidence bound of the share accused; 0 without an alarm.
    accused = np.nan_to_num(beta.ppf(0.05 / len(bins), alarms, groups - alarms + 1))
    bins["trusted"] = (bins["tpr_fit"] >= tpr_floor - 1e-9) & (accused <= allowed)
    others = len(photos) - len(inside)
    untrusted = np.flatnonzero(~bins["trusted"])
    if not len(untrusted):
        reason = f"trusted down to {bins['low'].iat[0]:.4g}, the least seen"
        return QualityCurve(column, None, reason, bins, others)
    last = int(untrusted[-1])
    failed = bins.iloc[last]
    causes = []
    if failed["tpr_fit"] < tpr_floor - 1e-9:
        causes.append(f"finds {failed['tpr']:.1%}, floor {tpr_floor:.1%}")
    if accused[last] > allowed:
        causes.append(f"accuses {failed['false_alarms']:.1%}, allowed {allowed:.1%}")
    if last == len(bins) - 1:
        raise RealDamageError(
            f"{column}: the model is not trusted on the best photos either ({column} "
            f"{failed['low']:.4g} to {failed['high']:.4g}: {'; '.join(causes)}). A gate cannot fix "
            "that: calibrate again on photos like these, or lower --tpr-floor.",
            code="never_trusted",
        )
    limit = float(bins["low"].to_numpy(dtype=np.float64)[last + 1])
    return QualityCurve(column, limit, "below it: " + "; ".join(causes), bins, others)


def blur_limit(photos: pd.DataFrame, share: float) -> BlurLimit:
    """The largest limit on fine detail that stops at most this share (0: no limit) of the clean
    honest photos of each source with at least 20 of them.

    It has no `quality_curve`, because what takes fine detail away takes sharpness too.
    """
    honest = photos[(photos["label"] == "real") & photos["fine_detail"].notna()]
    sources = {
        str(name): np.sort(found.to_numpy(dtype=np.float64))
        for name, found in clean(honest).groupby("source")["fine_detail"]
        if len(found) >= _ENOUGH_OF_SOURCE
    }
    if not share:
        return BlurLimit(None, "switched off", {}, {})
    if not sources:
        return BlurLimit(None, f"no source has {_ENOUGH_OF_SOURCE} clean honest photos", {}, {})
    limits = {name: float(found[int(share * len(found) + 1e-9)]) for name, found in sources.items()}
    softest = min(limits, key=lambda name: limits[name])
    limit = limits[softest]
    below = (honest["fine_detail"] < limit).groupby(honest["perturbation"]).mean()
    return BlurLimit(
        limit if limit > 0 else None,  # a limit of 0 stops no photo
        f"stops at most {share:.1%} of the clean honest photos of each source; the softest: "
        f"{softest or 'unnamed'}",
        {name: float((found < limit).mean()) for name, found in sources.items()},
        {str(name): float(stopped) for name, stopped in below.items() if name},
    )


def _mean(stopped: pd.Series) -> float:
    return float(stopped.mean()) if len(stopped) else 0.0


def _prepared(
    predictions: pd.DataFrame, policy: Policy, min_photos: int
) -> tuple[pd.DataFrame, str]:
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
    for column in ("sharpness", "compression", "fine_detail", "width", "height"):
        if photos[column].isna().all():
            raise RealDamageError(
                f"The predictions have no values in the column {column}: they were made by an "
                "older version. Evaluate again.",
                code="no_quality",
            )
    real = photos["label"] == "real"
    damaged = real & (photos["kind"] == "damaged")
    only_damaged = policy.negatives == "damaged" and damaged.sum() >= _ENOUGH_DAMAGED * min_photos
    called = photos["score"] >= policy.t_synthetic
    prepared = photos.assign(
        found=called,
        accused=called,
        short_side=photos[["width", "height"]].min(axis=1),
        is_negative=damaged if only_damaged else real,
        is_positive=(photos["label"] == "synthetic") & (photos["kind"] != "pasted"),
    )
    return prepared, "damaged" if only_damaged else "real"


def _worse_in(photos: pd.DataFrame, column: str) -> npt.NDArray[np.bool_]:
    """bool [n]: clean photos, and those that are worse than when clean in this number alone."""
    untouched = clean(photos).drop_duplicates("file_name").set_index("file_name")
    before = untouched[list(QUALITIES)].reindex(photos["file_name"]).to_numpy(dtype=np.float64)
    worse = photos[list(QUALITIES)].to_numpy(dtype=np.float64) < _WORSE * before
    alone = worse[:, QUALITIES.index(column)] & (worse.sum(axis=1) == 1)
    inside: npt.NDArray[np.bool_] = (photos["perturbation"] == "").to_numpy(dtype=bool) | alone
    return inside & photos[column].notna().to_numpy(dtype=bool)


def _cut(photos: pd.DataFrame, column: str, min_photos: int) -> list[pd.DataFrame]:
    """Consecutive ranges of values with enough photos of both classes; equal values stay
    together."""
    classes = ["is_negative", "is_positive"]
    counts = photos[classes].sum()
    if counts.min() < 2 * min_photos:
        raise RealDamageError(
            f"{column}: a curve needs at least {2 * min_photos} honest and {2 * min_photos} "
            f"synthetic photos over all perturbations; found {counts.iat[0]} and {counts.iat[1]}. "
            "Score more photos or perturbations, or lower --min-photos.",
            code="too_few_photos",
        )
    least = np.maximum(min_photos, np.ceil(counts.to_numpy() / _MOST_BINS))
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
