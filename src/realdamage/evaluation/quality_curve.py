"""How well a model does by how good the photo is: the curve from which a gate's limit is read; and the limit on fine
detail, which is read from clean photos alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import isotonic_regression
from scipy.stats import beta

from realdamage.errors import RealDamageError
from realdamage.evaluation.predictions import clean, group_ids

QUALITIES = ("short_side", "sharpness", "compression")
# A photo is worse than it was in a quality number that fell below this share of its own when clean.
_WORSE = 0.85
_MOST_BINS = 20
# Clean honest photos of a source, below which a share of them says little.
_ENOUGH_OF_SOURCE = 20


class BlurLimit(NamedTuple):
    """The limit on `fine_detail`: `limit`, None for none, and the reason for it. Then shares of honest photos below it:
    of clean ones by source, and of perturbed ones by perturbation."""

    limit: float | None
    reason: str
    clean: dict[str, float]
    perturbed: dict[str, float]


@dataclass(frozen=True)
class QualityCurve:
    """One quality number against what the model does.

    column: `short_side`, `sharpness` or `compression`. limit: the least value from which on it can be trusted; None:
    all of the range that was seen. reason: why there is a limit, or none. bins: one row each, worst photos first, with
    `low` and `high` (the values in it), `real`, `synthetic` (photos), `false_alarms`, `tpr` (at the shipped threshold;
    NaN without photos), `tpr_fit` (never falling with quality), `trusted`. others: photos left out,
    because a perturbation made them worse in another number, or in none.
    """

    column: str
    limit: float | None
    reason: str
    bins: pd.DataFrame
    others: int


def quality_curve(
    photos: pd.DataFrame, column: str, *, tpr_floor: float, allowed: float, min_photos: int
) -> QualityCurve:
    """The curve of one quality number over all perturbations, and the limit that it gives.

    Photos are sorted by `column` and cut into at most 20 bins with at least `min_photos` of each class. To keep apart
    what several degradations do, only clean photos count and those that a perturbation made worse in this number alone.
    A bin is trusted when the share of positives found, fitted so that it never falls with
    quality (isotonic regression, Barlow et al. 1972), reaches `tpr_floor`, and the share of negatives accused is not
    above `allowed` with 95% confidence over all bins (Clopper & Pearson 1934, one group counted once, Bonferroni). The
    limit is the lower end of the lowest bin from which on all are trusted.

    photos: scored rows with bool columns `is_negative`, `is_positive`, `found` and `accused`.
    Raises RealDamageError: too few photos for two bins, or not even the best photos are trusted.
    """
    inside = photos[_about(photos, column)]
    bins = pd.DataFrame([_bin(part, column) for part in _cut(inside, column, min_photos)])
    weight = np.maximum(bins["synthetic"].to_numpy(dtype=np.float64), 1e-9)
    bins["tpr_fit"] = isotonic_regression(bins["tpr"].to_numpy(), weights=weight).x
    alarms, groups = bins["alarms"].to_numpy(), bins["groups"].to_numpy()
    sure = np.array(
        [_at_least(k, n, 0.05 / len(bins)) for k, n in zip(alarms, groups, strict=True)]
    )
    bins["trusted"] = (bins["tpr_fit"] >= tpr_floor - 1e-9) & (sure <= allowed)
    untrusted = np.flatnonzero(~bins["trusted"])
    first = int(untrusted[-1]) + 1 if len(untrusted) else 0
    bins = bins.drop(columns=["alarms", "groups"])
    others = len(photos) - len(inside)
    if first == len(bins):
        worst = bins.iloc[-1]
        raise RealDamageError(
            f"{column}: the model is not trusted on the best photos either ({column} {worst['low']:.4g} to "
            f"{worst['high']:.4g}: finds {worst['tpr']:.1%} of the synthetic photos, floor {tpr_floor:.1%}; accuses "
            f"{worst['false_alarms']:.1%} of the honest ones, allowed {allowed:.1%}). No gate mends that: calibrate "
            "again on photos like these, or lower --tpr-floor."
        )
    if first == 0:
        return QualityCurve(
            column, None, f"trusted down to {bins['low'].iat[0]:.4g}, the least seen", bins, others
        )
    failed = bins.iloc[first - 1]
    causes = [
        *(
            [f"finds {failed['tpr']:.1%}, floor {tpr_floor:.1%}"]
            if failed["tpr_fit"] < tpr_floor - 1e-9
            else []
        ),
        *(
            [f"accuses {failed['false_alarms']:.1%}, allowed {allowed:.1%}"]
            if sure[first - 1] > allowed
            else []
        ),
    ]
    limit = float(bins["low"].to_numpy(dtype=np.float64)[first])
    return QualityCurve(column, limit, "below it: " + "; ".join(causes), bins, others)


def blur_limit(photos: pd.DataFrame, share: float) -> BlurLimit:
    """The largest limit that stops at most this share of the clean honest photos of each source with at least 20 of
    them. share: in 0..1; 0: no limit.

    There is no `quality_curve` for it: what takes fine detail away takes sharpness too, and a curve counts only photos
    that are worse in one number.
    """
    honest = photos[(photos["label"] == "real") & photos["fine_detail"].notna()]
    sources = {
        str(name): np.sort(found.to_numpy(dtype=np.float64))
        for name, found in clean(honest).groupby("source")["fine_detail"]
        if len(found) >= _ENOUGH_OF_SOURCE
    }
    if not share or not sources:
        reason = (
            f"no source has {_ENOUGH_OF_SOURCE} clean honest photos" if share else "switched off"
        )
        return BlurLimit(None, reason, {}, {})
    limits = {name: float(found[int(share * len(found) + 1e-9)]) for name, found in sources.items()}
    softest = min(limits, key=lambda name: limits[name])
    limit = limits[softest]
    reason = f"stops at most {share:.1%} of the clean honest photos of each source; the softest: {softest or 'unnamed'}"
    below = (honest["fine_detail"] < limit).groupby(honest["perturbation"]).mean()
    return BlurLimit(
        limit if limit > 0 else None,  # 0: flat photos, which no limit tells from others
        reason,
        {name: float((found < limit).mean()) for name, found in sources.items()},
        {str(name): float(stopped) for name, stopped in below.items() if name},
    )


def _about(photos: pd.DataFrame, column: str) -> npt.NDArray[np.bool_]:
    """bool [n]: clean photos, and those that are worse than they were when clean in this quality number alone."""
    untouched = clean(photos).drop_duplicates("file_name").set_index("file_name")
    worse = {
        name: photos[name].to_numpy(dtype=np.float64)
        < _WORSE * untouched[name].reindex(photos["file_name"]).to_numpy(dtype=np.float64)
        for name in QUALITIES
    }
    others = np.any([worse[name] for name in QUALITIES if name != column], axis=0)
    is_clean = (photos["perturbation"] == "").to_numpy(dtype=bool)
    about: npt.NDArray[np.bool_] = is_clean | (worse[column] & ~others)
    return about & photos[column].notna().to_numpy(dtype=bool)


def _cut(photos: pd.DataFrame, column: str, min_photos: int) -> list[pd.DataFrame]:
    """Consecutive ranges of the values, each with enough photos of both classes; equal values stay together."""
    counts = [int(photos[name].sum()) for name in ("is_negative", "is_positive")]
    if min(counts) < 2 * min_photos:
        raise RealDamageError(
            f"{column}: a curve needs at least {2 * min_photos} honest and {2 * min_photos} synthetic photos over all "
            f"perturbations; found {counts[0]} and {counts[1]}. Score more photos or perturbations, or lower "
            "--min-photos."
        )
    least = [max(min_photos, math.ceil(count / _MOST_BINS)) for count in counts]
    by_value = photos.groupby(column)[["is_negative", "is_positive"]].sum().sort_index()
    codes, code, negatives, positives = [], 0, 0, 0
    for new_negatives, new_positives in by_value.to_numpy():
        codes.append(code)
        negatives, positives = negatives + new_negatives, positives + new_positives
        if negatives >= least[0] and positives >= least[1]:
            code, negatives, positives = code + 1, 0, 0
    if code:  # what is left over at the upper end is too little for a bin of its own
        codes = [min(value, code - 1) for value in codes]
    of_value = dict(zip(by_value.index, codes, strict=True))
    return [part for _, part in photos.groupby(photos[column].map(of_value), sort=True)]


def _bin(part: pd.DataFrame, column: str) -> dict[str, float]:
    negative, positive = (
        part[name].to_numpy(dtype=bool) for name in ("is_negative", "is_positive")
    )
    false_alarms = float(part["accused"].to_numpy(dtype=bool)[negative].mean())
    groups = int(group_ids(part)[negative].nunique())
    return {
        "low": float(part[column].min()),
        "high": float(part[column].max()),
        "real": int(negative.sum()),
        "synthetic": int(positive.sum()),
        "false_alarms": false_alarms,
        "tpr": float(part["found"].to_numpy(dtype=bool)[positive].mean()),
        # Several perturbations of one product are one witness.
        "alarms": false_alarms * groups,
        "groups": groups,
    }


def _at_least(alarms: float, groups: int, risk: float) -> float:
    """The lower confidence bound of a share; `alarms` need not be whole."""
    return float(beta.ppf(risk, alarms, groups - alarms + 1)) if alarms > 0 else 0.0
