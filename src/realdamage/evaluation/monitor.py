"""The shift alarm: a guarantee holds for photos drawn like the calibration photos, so somebody must
watch whether they still are.

Nobody knows how many photos of a log are synthetic. So a log is unshifted when *some* mixture of
the reference's real and synthetic photos looks like it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import kstwobign

from realdamage.core.model_file import ModelMetadata, read_model_file
from realdamage.data.bootstrap import Floats
from realdamage.data.vocabulary import LABELS
from realdamage.errors import RealDamageError
from realdamage.evaluation.predictions import clean, group_ids

MIN_PHOTOS, MIN_OF_CLASS = 50, 25
"""Fewer photos, in the log or in the reference, or of a class of the reference, are not
compared."""
LEVEL = 0.05
"""Risk of an alarm without a shift, over all columns."""
LEAST_EFFECT = 0.1
"""Share of the photos that must have changed, so that a huge log does not alarm over a trifle."""
_NUMBERS = {
    "score": "score",
    "short_side": "shorter side",
    "long_side": "longer side",
    "compression": "compression",
    "fine_detail": "fine detail",
    "hot_share": "share of hot patches",
}


@dataclass(frozen=True)
class Shift:
    """What changed in one column.

    effect: Kolmogorov-Smirnov distance, in 0..1.
    p: of a difference as large by chance; p_adjusted: among all columns tested (Holm 1979).
    prior: share of synthetic photos at which the reference looks most like the log.
    here, before: medians, in words.
    """

    name: str
    effect: float
    p: float
    prior: float | None
    here: str
    before: str
    p_adjusted: float = 1.0
    alarm: bool = False


@dataclass(frozen=True)
class MonitorReport:
    """How many photos were compared or left out, the shifts (alarms first), and what was skipped.

    prior: share of synthetic photos that explains the log's scores best; None without labels.
    visible: the smallest shift that so few photos could show. guarantee: the model's, in words.
    """

    photos: int
    reference_photos: int
    unscored: int
    repeated: int
    prior: float | None
    shifts: tuple[Shift, ...]
    skipped: tuple[str, ...]
    visible: float
    guarantee: str | None

    @property
    def alarm(self) -> bool:
        """Whether something shifted."""
        return any(shift.alarm for shift in self.shifts)


def monitor(
    log: pd.DataFrame, reference: pd.DataFrame, model: str | Path | None = None
) -> MonitorReport:
    """Compares a log (`read_log`) with the predictions of the calibration photos.

    A column alarms when a difference as large would be rare by chance (`LEVEL`) *and* large
    (`LEAST_EFFECT`). model: its file, whose network must have made both.
    Raises RealDamageError: too few photos, another network.
    """
    metadata = _same_network(log, reference, model)
    scored = log[log["score"].notna()]
    repeated = (scored["photo_sha256"] != "") & scored.duplicated("photo_sha256")
    here, before = scored[~repeated], clean(reference[reference["score"].notna()])
    _check_enough(here, before)
    here, before = _with_sides(here), _with_sides(before)
    against = Reference(before)
    shifts: list[Shift] = []
    skipped: list[str] = []
    for column, name in _NUMBERS.items():
        counts = [part[column].notna().sum() for part in (here, *against.parts)]
        if min(counts) < MIN_OF_CLASS:
            where = "the log" if counts[0] < MIN_OF_CLASS else "the reference"
            skipped.append(f"{name} (hardly any values in {where})")
        else:
            shifts.append(against.number(name, here[column]))
    adjusted = holm(np.array([shift.p for shift in shifts]))
    shifts = [
        replace(shift, p_adjusted=float(p), alarm=bool(p < LEVEL and shift.effect >= LEAST_EFFECT))
        for shift, p in zip(shifts, adjusted, strict=True)
    ]
    # The smallest Kolmogorov-Smirnov distance at which the first of these tests can alarm.
    first = kstwobign.isf(LEVEL / len(shifts)) / _root(len(here), against.worth(0.5, "score"))
    policy = metadata.policy if metadata else None
    return MonitorReport(
        photos=len(here),
        reference_photos=len(before),
        unscored=len(log) - len(scored),
        repeated=int(repeated.sum()),
        prior=shifts[0].prior,
        shifts=tuple(sorted(shifts, key=lambda shift: (not shift.alarm, -shift.effect))),
        skipped=tuple(skipped),
        visible=max(LEAST_EFFECT, float(first)),
        guarantee=policy.guarantee.statement if policy and policy.guarantee else None,
    )


class Reference:
    """The calibration photos, by class. A group counts once: photos of one product are similar.

    predictions: clean, scored rows. Without labels there is one class.
    """

    def __init__(self, predictions: pd.DataFrame) -> None:
        parts = [predictions[predictions["label"] == name] for name in LABELS]
        self.mixed = (predictions["label"] != "").all() and all(len(part) for part in parts)
        self.parts = parts if self.mixed else [predictions]

    def number(self, name: str, log: pd.Series) -> Shift:
        """Compares a column of numbers; both sides need values."""
        columns = [log, *(part[log.name] for part in self.parts)]
        values = [np.sort(one.dropna().to_numpy(dtype=np.float64)) for one in columns]
        points = np.unique(np.concatenate(values))
        cumulated: list[Floats] = [
            (np.searchsorted(one, points, side="right") / len(one)).astype(np.float64)
            for one in values
        ]
        ours, *theirs = cumulated

        def mixture(share: float) -> Floats:
            return (1 - share) * theirs[0] + share * theirs[-1]

        def distance(share: float) -> float:
            return float(np.abs(ours - mixture(share)).max())

        prior = 0.0
        if self.mixed:  # the distance is convex in the share
            found = minimize_scalar(
                distance, bounds=(0, 1), method="bounded", options={"xatol": 1e-3}
            )
            prior = min((0.0, float(found.x), 1.0), key=distance)
        effect = distance(prior)
        # Two-sample Kolmogorov-Smirnov test by Stephens's approximation (1970).
        root = _root(len(values[0]), self.worth(prior, str(log.name)))
        middle = points[np.searchsorted(mixture(prior), 0.5 - 1e-12)]
        return Shift(
            name,
            effect,
            float(kstwobign.sf((root + 0.12 + 0.11 / root) * effect)),
            prior if self.mixed else None,
            f"median {np.median(values[0]):.4g}",
            f"median {middle:.4g}",
        )

    def worth(self, prior: float, column: str) -> float:
        """How many independent photos with a value in `column` would be as informative as this
        mixture of the classes."""
        known = [part[part[column].notna()] for part in self.parts]
        groups = [group_ids(part).nunique() for part in known]
        if not self.mixed:
            return float(groups[0])
        return 1 / ((1 - prior) ** 2 / groups[0] + prior**2 / groups[1])


def holm(p: Floats) -> Floats:
    """p-values adjusted so that among all tests together a false alarm is as rare as `p` says."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1.0)


def _root(photos: float, others: float) -> float:
    """Of the number of photos that two samples together are worth."""
    return float(np.sqrt(photos * others / (photos + others)))


def _with_sides(photos: pd.DataFrame) -> pd.DataFrame:
    sides = photos[["width", "height"]]
    return photos.assign(short_side=sides.min(axis=1), long_side=sides.max(axis=1))


def _same_network(
    log: pd.DataFrame, reference: pd.DataFrame, model: str | Path | None
) -> ModelMetadata | None:
    """The model's metadata, if one was named. Raises where several networks are involved."""
    found = {"the log": set(log["graph_sha256"]), "the reference": set(reference["graph_sha256"])}
    metadata = None
    if model is not None:
        _, metadata, digest = read_model_file(model)
        found[str(model)] = {digest}
    if len(set().union(*found.values()) - {""}) > 1:
        networks = "; ".join(
            f"{name}: {', '.join(sorted(digest[:12] for digest in digests if digest))}"
            for name, digests in found.items()
        )
        raise RealDamageError(
            f"Scores of different networks cannot be compared ({networks}). Score the calibration "
            "photos with the network that made the log; split a log of several by graph_sha256.",
            code="other_network",
        )
    return metadata


def _check_enough(here: pd.DataFrame, before: pd.DataFrame) -> None:
    for name, photos in (("log", here), ("reference", before)):
        if len(photos) < MIN_PHOTOS:
            raise RealDamageError(
                f"The {name} has {len(photos)} scored photos; at least {MIN_PHOTOS} are needed to "
                "compare anything, and several hundred to see a shift of a tenth of the photos.",
                code="too_few_photos",
            )
    real, synthetic = (int((before["label"] == label).sum()) for label in ("real", "synthetic"))
    too_few = real < MIN_OF_CLASS or 0 < synthetic < MIN_OF_CLASS
    if too_few and (before["label"] != "").all():
        raise RealDamageError(
            f"The reference has {real} real and {synthetic} synthetic photos; it needs at least "
            f"{MIN_OF_CLASS} real ones, and no synthetic one or at least {MIN_OF_CLASS}.",
            code="too_few_photos",
        )
