"""Has what arrives changed? Compares unlabelled photos with a reference whose share of synthetic photos is another one.

Nobody knows how many photos of a log are synthetic, and a calibration set has far more of them than a shop sees. So a
log counts as alike when *some* mixture of the reference's real and synthetic photos looks like it; only what no mixture
explains is a shift.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import chi2_contingency, kstwobign

from realdamage.evaluation.predictions import group_ids

Numbers = npt.NDArray[np.floating[Any]]
_PSI_BINS = 10


class Shift(NamedTuple):
    """What became of one column. test: "ks" for numbers, "shares" for categories.

    effect: for numbers the Kolmogorov-Smirnov distance, for categories the total variation distance; both in 0..1, the
    largest difference of a share. psi: population stability index (0.1 is small, 0.25 is large by the trade's rule).
    p: of a difference as large by chance; p_adjusted: among all columns that were tested (Holm 1979). prior: the share
    of synthetic photos at which the reference looks most like the log. here, before: medians, or the share that
    differs most, in words.
    """

    name: str
    test: str
    effect: float
    psi: float
    p: float
    prior: float | None
    here: str
    before: str
    p_adjusted: float = 1.0
    alarm: bool = False


class Reference:
    """The calibration photos, by class. groups of them count once: photos of one product are one witness.

    predictions: clean rows with a score. prior: share of synthetic photos that is expected in the log, in 0..1; None
    lets every column choose the share that suits it best. Without labels there is one class and no share to choose.
    """

    def __init__(self, predictions: pd.DataFrame, prior: float | None = None) -> None:
        parts = [predictions[predictions["label"] == label] for label in ("real", "synthetic")]
        if prior is not None:
            parts = [
                part for part, share in zip(parts, (1 - prior, prior), strict=True) if share > 0
            ]
        labelled = (predictions["label"] != "").all() and all(len(part) for part in parts)
        self.parts = parts if labelled else [predictions]
        self._codes = [np.unique(group_ids(part), return_inverse=True)[1] for part in self.parts]
        self.mixed = len(self.parts) == 2
        self.prior = prior if self.mixed else None

    def photos(self, column: str | None = None) -> float:
        """How many independent photos it is worth, at an even mixture or the given one."""
        return _worth(0.5 if self.prior is None else self.prior, self._groups(column))

    def number(self, name: str, log: pd.Series, column: str) -> Shift:
        """Compares a column of numbers; both sides must have some that are not NaN."""
        here = np.sort(log.dropna().to_numpy(dtype=np.float64))
        values = [np.sort(part[column].dropna().to_numpy(dtype=np.float64)) for part in self.parts]
        points = np.unique(np.concatenate([here, *values]))
        ours, *theirs = (
            np.searchsorted(one, points, side="right") / len(one) for one in (here, *values)
        )

        def distance(prior: float) -> float:
            return float(np.abs(ours - _mix(theirs, prior)).max())

        prior = self._best(distance)
        mixed, effect = _mix(theirs, prior), distance(prior)
        worth = _worth(prior, self._groups(column))
        return Shift(
            name,
            "ks",
            effect,
            _psi(*_binned(ours, mixed), len(here), worth),
            _ks_p(effect, len(here), worth),
            prior if self.mixed else None,
            f"median {np.median(here):.4g}",
            f"median {points[np.searchsorted(mixed, 0.5 - 1e-12)]:.4g}",
        )

    def shares(self, name: str, log: pd.Series, of: Callable[[pd.DataFrame], pd.Series]) -> Shift:
        """Compares the shares of categories: of the log's column, and of what `of` makes of the reference."""
        columns = [of(part) for part in self.parts]
        known = sorted({*log, *(value for column in columns for value in column)})
        ours, *theirs = (
            column.value_counts(normalize=True)
            .reindex(known, fill_value=0.0)
            .to_numpy(dtype=np.float64)
            for column in (log, *columns)
        )

        def distance(prior: float) -> float:
            return float(np.abs(ours - _mix(theirs, prior)).sum() / 2)

        prior = self._best(distance)
        mixed = _mix(theirs, prior)
        worth = _worth(prior, self._groups())
        most = int(np.argmax(np.abs(ours - mixed)))
        return Shift(
            name,
            "shares",
            distance(prior),
            _psi(ours, mixed, len(log), worth),
            _shares_p(ours * len(log), mixed * worth),
            prior if self.mixed else None,
            f"{known[most]} {ours[most]:.1%}",
            f"{known[most]} {mixed[most]:.1%}",
        )

    def _best(self, distance: Callable[[float], float]) -> float:
        """The share of synthetic photos at which the distance is smallest; it is convex in it."""
        if not self.mixed:
            return 0.0
        if self.prior is not None:
            return self.prior
        inner = float(
            minimize_scalar(distance, bounds=(0, 1), method="bounded", options={"xatol": 1e-3}).x
        )
        return min((0.0, inner, 1.0), key=distance)

    def _groups(self, column: str | None = None) -> list[int]:
        """How many groups of each class have a value in that column."""
        known = [
            slice(None) if column is None else part[column].notna().to_numpy()
            for part in self.parts
        ]
        return [len(np.unique(codes[rows])) for codes, rows in zip(self._codes, known, strict=True)]


def holm(p: Numbers) -> Numbers:
    """p-values adjusted so that among all tests together a false alarm is as rare as `p` says (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def visible_shift(photos: float, reference: float, tests: int, level: float) -> float:
    """The smallest Kolmogorov-Smirnov distance at which the first of so many tests can alarm."""
    return float(kstwobign.isf(level / tests) / np.sqrt(_harmonic(photos, reference)))


def photos_needed(effect: float, reference: float, tests: int, level: float) -> int | None:
    """How many photos a log needs so that such a distance can alarm; None: the reference is too small for it."""
    both = (kstwobign.isf(level / tests) / effect) ** 2
    return None if reference <= both else int(np.ceil(both * reference / (reference - both)))


def _mix(theirs: Sequence[Numbers], prior: float) -> Numbers:
    return theirs[0] if len(theirs) == 1 else (1 - prior) * theirs[0] + prior * theirs[1]


def _worth(prior: float, groups: list[int]) -> float:
    """How many photos of one kind would give shares as sure as this mixture's."""
    if len(groups) == 1:
        return float(groups[0])
    return 1 / ((1 - prior) ** 2 / groups[0] + prior**2 / groups[1])


def _harmonic(one: float, other: float) -> float:
    return one * other / (one + other)


def _ks_p(distance: float, one: float, other: float) -> float:
    """Of the two-sample Kolmogorov-Smirnov test, by Stephens's approximation (1970); too large with equal values."""
    root = np.sqrt(_harmonic(one, other))
    return float(kstwobign.sf((root + 0.12 + 0.11 / root) * distance))


def _shares_p(one: Numbers, other: Numbers) -> float:
    table = np.stack([one, other])[:, (one + other) > 0]
    return float(chi2_contingency(table, correction=False).pvalue) if table.shape[1] > 1 else 1.0


def _binned(ours: Numbers, mixed: Numbers) -> tuple[Numbers, Numbers]:
    """Shares of both in up to 10 bins that hold equal shares of the reference, from the two distribution functions."""
    cuts = np.unique(np.searchsorted(mixed, np.arange(1, _PSI_BINS) / _PSI_BINS - 1e-12))
    ends = np.append(cuts[cuts < len(mixed) - 1], len(mixed) - 1)
    return np.diff(ours[ends], prepend=0.0), np.diff(mixed[ends], prepend=0.0)


def _psi(ours: Numbers, theirs: Numbers, photos: float, reference: float) -> float:
    """Population stability index; half a photo is added to each bin, so that an empty one does not make it infinite."""
    one, other = (
        (shares * count + 0.5) / (count + 0.5 * len(shares))
        for shares, count in ((ours, photos), (theirs, reference))
    )
    return float(np.sum((one - other) * np.log(one / other)))
