"""Every figure by which models are judged: one table of scored photos, one function that measures, one kind of result.

The figure that matters is the share of synthetic photos found while hardly any photo of real damage is accused. So true
positive rates are given at false positive rates of 0.5, 1 and 5% over the *really damaged* photos, with intervals. A
figure that the photos cannot support is None and comes with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.core.metadata import ModelMetadata
from realdamage.data.bootstrap import (
    DRAWS,
    Floats,
    GroupDraws,
    Rows,
    WeightedRoc,
    percentile_interval,
    rate_interval,
    share_interval,
)
from realdamage.data.manifest import Manifest
from realdamage.data.shortcuts import container_auroc
from realdamage.data.vocabulary import KIND_LABELS
from realdamage.errors import ManifestError, RealDamageError
from realdamage.evaluation.localise import localisation_metrics
from realdamage.evaluation.predictions import PatchEvidence, check_predictions, group_ids
from realdamage.evaluation.probability import calibration_errors, calibration_interval

Flags = npt.NDArray[np.bool_]

RATES: Mapping[str, float] = {
    "tpr_at_fpr_0.5": 0.005,
    "tpr_at_fpr_1": 0.01,
    "tpr_at_fpr_5": 0.05,
}
"""True positive rates by key, and the false positive rate of each."""
RANKING = ("auroc", *RATES)
OUTCOMES = ("called_synthetic", "called_real", "missed", "false_alarms", "review")
KEYS = (
    *RANKING,
    "average_precision",
    *OUTCOMES,
    "false_alarms_by_group",
    "balanced_at_thresholds",
    "balanced_accuracy",
    "brier",
    "ece",
    "edit_higher",
)
"""All that `measure` knows; see there."""
MIN_PHOTOS = 5
"""Fewest photos of each class for the figures of a slice."""
NOT_CALIBRATED = "not_calibrated"
"""The reason in a verdict of a model without thresholds."""
NO_THRESHOLDS = "the model has no thresholds; run `realdamage calibrate`"


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    value: None where it is undefined; `reason` then says why.
    low, high: the ends of its 95% interval, None where there is none.
    n: how many photos it is about.
    """

    key: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str = ""


class ScoredPhotos:
    """The scored rows of a predictions table as arrays, and the draws that all their figures share.

    threshold: a score fixed on other photos, for the key `balanced_accuracy`.
    n_boot: number of bootstrap draws; 0 gives figures without intervals.
    Raises RealDamageError: not a predictions table, or a photo without label.
    """

    def __init__(
        self,
        predictions: pd.DataFrame,
        *,
        threshold: float | None = None,
        n_boot: int = DRAWS,
        seed: int = 0,
    ) -> None:
        photos = self.frame = labelled_and_scored(predictions)
        self.threshold = threshold
        self.score = photos["score"].to_numpy(dtype=np.float64)
        self.probability = photos["probability"].replace("", np.nan).to_numpy(dtype=np.float64)
        self.outcome = photos["outcome"].to_numpy(dtype=object)
        self.synthetic: Flags = (photos["label"] == "synthetic").to_numpy()
        self.damaged: Flags = ~self.synthetic & (photos["kind"] == "damaged").to_numpy()
        self.judged = has_thresholds(photos)
        self.everything = np.ones(len(photos), dtype=bool)
        self.draws = GroupDraws(group_ids(photos).to_numpy(), n_boot=n_boot, seed=seed)
        self.original = _positions_of_originals(photos)
        # Tables ask for the same photos again and again: one AUROC, then its drop, then a rate.
        self._roc = lru_cache(maxsize=16)(self._measure_roc)

    @property
    def real(self) -> Flags:
        return ~self.synthetic

    def draw(self, key: str, mask: Flags, against: Flags) -> Floats:
        """[1 + n_boot]: the figure itself, then in each draw; NaN where undefined. See `measure`."""
        both, called = mask | against, self.outcome == "synthetic"
        if key in RANKING:
            return self._roc(mask.tobytes(), against.tobytes())[RANKING.index(key)]
        if key == "average_precision":
            rows = np.flatnonzero(both)
            curve = WeightedRoc(self.score[rows], mask[rows])
            return self.draws.figures(curve.average_precision, rows)
        if key == "called_synthetic":
            return self._share(called, mask)
        if key in ("called_real", "missed"):
            return self._share(self.outcome == "real", mask)
        if key in ("false_alarms", "false_alarms_by_group"):
            return self._share(called, against)
        if key == "review":
            return self._share(self.outcome == "review", both)
        if key == "balanced_accuracy":
            called = self.score >= (math.nan if self.threshold is None else self.threshold)
        if key in ("balanced_accuracy", "balanced_at_thresholds"):
            return (self._share(called, mask) + self._share(~called, against)) / 2
        if key == "brier":
            return self._share((self.probability - self.synthetic) ** 2, both)
        if key == "ece":
            return self._calibration_errors(both)[0]
        if key == "edit_higher":
            above = (np.sign(self.score - self.score[self.original]) + 1) / 2  # ties count half
            return self._share(above, mask & (self.original >= 0))
        raise KeyError(key)

    def interval(self, key: str, mask: Flags, against: Flags, draws: Floats) -> tuple[float, float]:
        """The 95% interval of a figure from its draws; NaN where there is none."""
        nothing = (math.nan, math.nan)
        if len(draws) < 2:
            return nothing
        if key in OUTCOMES:
            own = {"false_alarms": against, "review": mask | against}.get(key, mask)
            n = int(own.sum())
            return share_interval(round(draws[0] * n), n)
        positives, negatives = (self.draws.n_groups(np.flatnonzero(own)) for own in (mask, against))
        if key in (*RANKING, "average_precision") and min(positives, negatives) < 2:
            return nothing
        if key == "ece":
            low, high = percentile_interval(draws[1:])
            chance = percentile_interval(self._calibration_errors(mask | against)[1][1:])[1]
            return calibration_interval(float(draws[0]), float(low), float(high), float(chance))
        if key == "false_alarms_by_group":
            return rate_interval(draws, negatives)
        if key == "edit_higher":
            pairs = np.flatnonzero(mask & (self.original >= 0))
            return rate_interval(draws, self.draws.n_groups(pairs))
        if key in RATES:
            return rate_interval(draws, positives)
        low, high = percentile_interval(draws[1:])
        return float(low), float(high)

    def missing(self, key: str, mask: Flags, against: Flags, least: int = 1) -> str:
        """Why a figure cannot be measured on these photos, "" where it can."""
        n_mask, n_against = int(mask.sum()), int(against.sum())
        if key in RANKING or key in ("average_precision", "balanced_accuracy"):
            if min(n_mask, n_against) < least:
                return (
                    f"{n_mask} synthetic and {n_against} real photos, too few for a figure "
                    f"(at least {least} of each)"
                )
        if key in RATES and n_against < (needed := math.ceil(1 / RATES[key])):
            # With fewer, that rate would mean "no error at all among these few", which is another question.
            name = "really damaged photos" if self.damaged[against].all() else "real photos"
            return (
                f"{n_against} {name}, too few for a rate of {100 * RATES[key]:g}% "
                f"(at least {needed})"
            )
        if key == "balanced_accuracy" and self.threshold is None:
            return "no threshold was fixed on other photos; run `realdamage calibrate`"
        if key in OUTCOMES or key in ("false_alarms_by_group", "balanced_at_thresholds"):
            return self._no_outcome(key, mask, against)
        if key in ("brier", "ece"):
            of = self.probability[mask | against]
            without = int(np.isnan(of).sum())
            found = "no photo has" if without == len(of) else f"{without} of {len(of)} photos lack"
            return f"{found} a probability; run `realdamage calibrate`" if without else ""
        if key == "edit_higher" and (n := int((mask & (self.original >= 0)).sum())) < least:
            return f"{n or 'no'} edits with a scored original (column pair)"
        return ""

    def _no_outcome(self, key: str, mask: Flags, against: Flags) -> str:
        own = {"false_alarms": against, "false_alarms_by_group": against}.get(key, mask)
        own = mask | against if key in ("review", "balanced_at_thresholds") else own
        if not own.any():
            return "no such photo"
        return "" if self.judged[own].any() else NO_THRESHOLDS

    def _share(self, values: npt.NDArray[Any], of: Flags) -> Floats:
        return self.draws.share(values[of], np.flatnonzero(of))

    def _calibration_errors(self, of: Flags) -> Floats:
        rows = np.flatnonzero(of)
        errors = calibration_errors(self.probability[rows], self.synthetic[rows])
        return self.draws.figures(errors, rows)

    def _measure_roc(self, mask: bytes, against: bytes) -> Floats:
        positives, negatives = (np.flatnonzero(np.frombuffer(own, bool)) for own in (mask, against))
        return self.draws.roc(self.score, positives, negatives, tuple(RATES.values()))


def measure(
    table: ScoredPhotos,
    mask: Flags,
    against: Flags,
    keys: Sequence[str] = RANKING,
    least: int = MIN_PHOTOS,
) -> list[Figure]:
    """The figures named by `keys` (of `KEYS`), in their order.

    mask: bool [n], the photos a figure is about; for all keys that need two classes, the synthetic ones.
    against: bool [n], the real photos that they are compared with, and on which false alarms are counted.
    least: fewest photos of each class, for keys that rank photos.

    - auroc, average_precision, tpr_at_fpr_0.5, _1, _5: `mask` against `against`.
    - called_synthetic, called_real (or missed): outcomes of `mask`; false_alarms: the share of `against` called
      synthetic; review: of both. Intervals of Clopper and Pearson over photos.
    - false_alarms_by_group: as false_alarms, with a bootstrap interval over groups.
    - balanced_at_thresholds: of outcomes; balanced_accuracy: at `table.threshold`.
    - brier, ece: of the probabilities of both.
    - edit_higher: the share of the edits of `mask` that score above their own original, ties counted half.
    """
    figures = []
    for key in keys:
        reason = table.missing(key, mask, against, least)
        n = int((against if key.startswith("false_alarms") else mask).sum())
        if reason:
            figures.append(Figure(key, None, n=n, reason=reason))
            continue
        draws = table.draw(key, mask, against)
        low, high = table.interval(key, mask, against, draws)
        ends = (None, None) if math.isnan(low) else (low, high)
        figures.append(Figure(key, float(draws[0]), *ends, n=n))
    return figures
