"""Measures variants of a model beside it: what each loses of the figures that models are compared by, and how much time
it saves on the same photos.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.core.progress import Track, no_progress
from realdamage.data.bootstrap import DRAWS, WeightedRoc, bootstrap_interval
from realdamage.data.manifest import Manifest
from realdamage.errors import RealDamageError
from realdamage.evaluation.compare import MIN_GROUPS
from realdamage.evaluation.predictions import (
    PatchEvidence,
    PhotoDetector,
    group_ids,
    score_manifest,
)

FPR = 0.01
# With so many negatives, one false alarm is at most the rate.
ENOUGH_NEGATIVES = math.ceil(1 / FPR)

Floats = npt.NDArray[np.float64]
Scored = tuple[pd.DataFrame, list[PatchEvidence]]


@dataclass(frozen=True)
class Drop:
    """One figure of both models, in 0..1, and how much of it the variant loses (base - variant).

    low, high: 95% interval of that, by paired bootstrap over groups; None from fewer than `MIN_GROUPS` groups.
    limit: the largest that is let through.
    """

    base: float
    variant: float
    low: float | None
    high: float | None
    limit: float

    @property
    def drop(self) -> float:
        """base - variant."""
        return self.base - self.variant

    @property
    def passed(self) -> bool:
        """Whether the drop, as measured on these photos, is at most the limit."""
        return self.drop <= self.limit + 1e-9  # the last digit of a difference of k / n


@dataclass(frozen=True)
class Variant:
    """What became of one variant. ms: medians per photo, from the file to the verdict; ratio: the median over photos of
    the variant's time over the model's, with its 95% interval over photos. ap: None without masks to measure it on."""

    name: str
    mb: float
    tpr: Drop
    ap: Drop | None
    base_ms: float
    ms: float
    ratio: float
    ratio_low: float
    ratio_high: float

    @property
    def faults(self) -> tuple[str, ...]:
        """Why it is not shipped; empty when it may be."""
        found = []
        for name, drop in (("TPR", self.tpr), ("localisation AP", self.ap)):
            if drop and not drop.passed:
                found.append(f"{name} drops by {drop.drop:.3f}, more than {drop.limit:g}")
        if self.ratio_high >= 1:
            found.append("slower" if self.ratio_low > 1 else "not faster")
        return tuple(found)


@dataclass(frozen=True)
class Limits:
    """The largest drop of each figure that is let through, in 0..1."""

    tpr: float
    ap: float


def negatives(table: pd.DataFrame) -> tuple[str, npt.NDArray[np.bool_]]:
    """What the real photos that the false positive rate is over are called, and which rows of a manifest's table they
    are: the really damaged ones, or all where those are too few for one false alarm to be 1%."""
    real = (table["label"] == "real").to_numpy()
    damaged = real & (table["kind"] == "damaged").to_numpy()
    return ("really damaged", damaged) if damaged.sum() >= ENOUGH_NEGATIVES else ("real", real)


def measure_variants(
    base: PhotoDetector,
    variants: Mapping[str, tuple[PhotoDetector, float]],
    photos: Manifest,
    limits: Limits,
    *,
    n_boot: int = DRAWS,
    seed: int = 0,
    progress: Track = no_progress,
) -> tuple[Variant, ...]:
    """variants: detector and size in MB by name. photos: of both classes.

    Every photo is judged by all in turn, the first one another each time, so that a busy machine slows all of them.
    Raises RealDamageError: `base` finds no synthetic photo at 1% false positives, or no painted patch better than
    chance, so that a variant has nothing to lose; PhotoError and ManifestError as `score_manifest`.
    """
    scored = _in_turn([base, *(detector for detector, _ in variants.values())], photos, progress)
    figures = _Figures(scored, negatives(photos.table)[1])
    found = figures(np.ones(len(photos), dtype=np.int64))
    figures.check_base(found)
    groups = group_ids(scored[0][0]).to_numpy()
    low, high = bootstrap_interval(
        lambda weights: (drawn := figures(weights))[:, :1] - drawn[:, 1:],
        groups,
        n_boot=n_boot,
        seed=seed,
    )
    told = len(np.unique(groups)) >= MIN_GROUPS
    ms = np.stack([table["ms"].to_numpy(dtype=np.float64) for table, _ in scored])
    measured = []
    for index, (name, (_, size)) in enumerate(variants.items()):
        drops = [
            Drop(
                base=float(found[row, 0]),
                variant=float(found[row, 1 + index]),
                low=float(low[row, index]) if told else None,
                high=float(high[row, index]) if told else None,
                limit=limit,
            )
            for row, limit in enumerate((limits.tpr, limits.ap))
        ]
        ratio = ms[1 + index] / ms[0]
        ends = bootstrap_interval(partial(_median, ratio), np.arange(len(ratio)), n_boot=n_boot)
        measured.append(
            Variant(
                name=name,
                mb=size,
                tpr=drops[0],
                ap=drops[1] if figures.localised else None,
                base_ms=float(np.median(ms[0])),
                ms=float(np.median(ms[1 + index])),
                ratio=float(np.median(ratio)),
                ratio_low=float(ends[0]),
                ratio_high=float(ends[1]),
            )
        )
    return tuple(measured)


def _in_turn(detectors: Sequence[PhotoDetector], photos: Manifest, progress: Track) -> list[Scored]:
    """Predictions and heat maps of all photos by each detector."""
    tables: list[list[pd.DataFrame]] = [[] for _ in detectors]
    evidence: list[list[PatchEvidence]] = [[] for _ in detectors]
    rows = np.arange(len(photos))
    for index in progress(range(len(photos)), len(photos), "photos"):
        photo = photos.subset(rows == index)
        for turn in range(len(detectors)):
            which = (index + turn) % len(detectors)
            table, heat = score_manifest(detectors[which], photo)
            tables[which].append(table)
            evidence[which] += heat
    return [
        (pd.concat(own, ignore_index=True), heat)
        for own, heat in zip(tables, evidence, strict=True)
    ]


class _Figures:
    """TPR at 1% false positives and average precision of the patches, of several models under the same weights."""

    def __init__(self, scored: Sequence[Scored], negative: npt.NDArray[np.bool_]) -> None:
        table, evidence = scored[0]
        synthetic = (table["label"] == "synthetic").to_numpy()
        self._counted = synthetic | negative
        self._photos = [
            WeightedRoc(
                own["score"].to_numpy(dtype=np.float64)[self._counted], synthetic[self._counted]
            )
            for own, _ in scored
        ]
        painted = np.concatenate(
            [photo.painted.ravel() for photo in evidence] or [np.zeros(0, dtype=bool)]
        )
        self.localised = bool(painted.any() and not painted.all())
        self._prevalence = float(painted.mean()) if len(painted) else 0.0
        row = {name: index for index, name in enumerate(table["file_name"])}
        self._patch_photo = np.repeat(
            np.array([row[photo.file_name] for photo in evidence], dtype=np.int64),
            [photo.painted.size for photo in evidence],
        )
        self._patches = [
            WeightedRoc(np.concatenate([photo.heat.ravel() for photo in own]), painted) for _, own in scored
        ] if self.localised else []  # fmt: skip

    def __call__(self, weights: npt.NDArray[np.int64]) -> Floats:
        """[2, models] when each photo counts so often; NaN where a figure is undefined."""
        found = [roc.figures(weights[self._counted], (FPR,))[1] for roc in self._photos]
        of_patches = weights[self._patch_photo]
        precision = [float(roc.average_precision(of_patches)) for roc in self._patches] or [
            math.nan
        ] * len(found)
        return np.array([found, precision])

    def check_base(self, figures: Floats) -> None:
        """Raises RealDamageError: the first model has nothing to lose."""
        tpr, precision = figures[:, 0]
        if tpr == 0:
            raise RealDamageError(
                f"The model itself finds none of the synthetic photos at {FPR:.0%} false positives, so a variant has "
                "nothing to lose and nothing is proven. Name photos that it can judge, or train it further."
            )
        if self.localised and precision <= self._prevalence:
            raise RealDamageError(
                f"The model's own heat maps find painted patches no better than chance (average precision "
                f"{precision:.3f}, {self._prevalence:.3f} of the patches are painted), so a variant has nothing to "
                "lose and nothing is proven. Train it further."
            )


def _median(values: Floats, weights: npt.NDArray[np.int64]) -> float:
    """Of a draw: `weights` [n] says how often each of `values` [n] is in it."""
    return float(np.median(np.repeat(values, weights)))
