"""Every figure by which models are judged: one table, one function, one kind of result.

What matters is the share of synthetic photos found while hardly any photo of real damage is
accused, so rates are given at 0.5, 1 and 5% false alarms over the *really damaged* photos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.data.bootstrap import (
    DRAWS,
    Floats,
    GroupDraws,
    WeightedRoc,
    percentile_interval,
    rate_interval,
    ratio,
    share_interval,
)
from realdamage.data.vocabulary import KIND_LABELS
from realdamage.errors import RealDamageError
from realdamage.evaluation.localise import localisation_metrics
from realdamage.evaluation.predictions import PatchEvidence, clean, group_ids

Flags = npt.NDArray[np.bool_]

RATES: Mapping[str, float] = {"tpr_at_fpr_0.5": 0.005, "tpr_at_fpr_1": 0.01, "tpr_at_fpr_5": 0.05}
"""True positive rates by key, and the false positive rate of each."""
RANKING = ("auroc", *RATES)
OUTCOMES = {"called_synthetic": "synthetic", "called_real": "real", "review": "review"}
OF_BOTH = ("average_precision", "balanced_accuracy", "balanced_at_thresholds", "brier", "ece")
"""These count the photos of both classes."""
KEYS = (*RANKING, *OF_BOTH, *OUTCOMES, "edit_higher")
"""All that `measure` knows; see there."""
MIN_PHOTOS = 5
"""Fewest photos of each class for the figures of a slice."""
NOT_CALIBRATED = "not_calibrated"
"""The reason in a verdict of a model without thresholds."""
NO_THRESHOLDS = "the model has no thresholds; run `realdamage calibrate`"
N_BINS = 15
"""Of the calibration error and the reliability diagram."""
LOWEST_FPR = 0.001
"""Where a ROC curve starts: below it a test of the usual size says nothing."""


@dataclass(frozen=True)
class Figure:
    """A figure, None where it is undefined (`reason` says why); its 95% interval, None where there
    is none; n: how many photos it counts."""

    key: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str = ""


class ScoredPhotos:
    """The scored rows of a predictions table as arrays, and the draws that all their figures share.

    threshold: a score fixed on other photos, for the key `balanced_accuracy`.
    Raises RealDamageError: a photo without label.
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
        self.real: Flags = ~self.synthetic
        self.everything: Flags = np.ones(len(photos), dtype=bool)
        self.damaged: Flags = self.real & (photos["kind"] == "damaged").to_numpy()
        self.judged = has_thresholds(photos) & (photos["outcome"] != "").to_numpy()
        self.groups = group_ids(photos).to_numpy(dtype=object)
        self.draws = GroupDraws(self.groups.astype(str), n_boot=n_boot, seed=seed)
        self.original = _originals(photos)
        # Tables ask for the same photos again and again: their AUROC, a drop from it, a rate.
        self._roc = lru_cache(maxsize=16)(self._measure_roc)

    def counted(self, key: str, mask: Flags, against: Flags) -> Flags:
        """The photos that a figure counts."""
        if key in OF_BOTH:
            return mask | against
        return mask & (self.original >= 0) if key == "edit_higher" else mask

    def draw(self, key: str, mask: Flags, against: Flags) -> Floats:
        """[1 + n_boot]: the figure itself, then in each draw; NaN where undefined."""
        own = self.counted(key, mask, against)
        rows = np.flatnonzero(own)
        if key in RANKING:
            ranked: Floats = self._roc(mask.tobytes(), against.tobytes())[RANKING.index(key)]
            return ranked
        if key == "average_precision":
            return self.draws.figures(
                WeightedRoc(self.score[rows], mask[rows]).average_precision, rows
            )
        if key == "ece":
            errors: Floats = self._calibration_errors(own)[0]
            return errors
        if key in ("balanced_accuracy", "balanced_at_thresholds"):
            called = self.outcome == "synthetic"
            if key == "balanced_accuracy":
                called = self.score >= (math.nan if self.threshold is None else self.threshold)
            return (self._share(called, mask) + self._share(~called, against)) / 2
        if key == "brier":
            return self._share((self.probability - self.synthetic) ** 2, own)
        if key == "edit_higher":
            return self._share((np.sign(self.score - self.score[self.original]) + 1) / 2, own)
        return self._share(self.outcome == OUTCOMES[key], own)

    def interval(self, key: str, mask: Flags, against: Flags, draws: Floats) -> tuple[float, float]:
        """The 95% interval of a figure from its draws; NaN where there is none."""
        own = self.counted(key, mask, against)
        n_groups, n_against = (self.draws.n_groups(np.flatnonzero(of)) for of in (own, against))
        if key in OUTCOMES:
            return share_interval(draws[0] * n_groups, n_groups)
        if key in RANKING and min(n_groups, n_against) < 2:
            return math.nan, math.nan
        if key in RATES or key == "edit_higher":
            return rate_interval(draws, n_groups)
        low, high = (float(end) for end in percentile_interval(draws[1:]))
        if key == "ece":
            # The draws of an error lie above it, as it lies above that of the model: reflect them
            # about it (basic interval, Davison & Hinkley 1997, 5.2), and start at 0 where right
            # probabilities would have as much.
            error = float(draws[0])
            chance = percentile_interval(self._calibration_errors(own)[1, 1:])[1]
            least = 0.0 if error <= chance else max(0.0, 2 * error - high)
            return least, max(error, 2 * error - low)
        return low, high

    def missing(self, key: str, mask: Flags, against: Flags, least: int = 1) -> str:
        """Why a figure cannot be measured on these photos, "" where it can."""
        n_mask, n_against = int(mask.sum()), int(against.sum())
        own = self.counted(key, mask, against)
        if key in RATES and n_against < (needed := math.ceil(1 / RATES[key])):
            # With fewer, the rate would mean "no error at all among these few".
            name = "really damaged photos" if self.damaged[against].all() else "real photos"
            rate = f"{100 * RATES[key]:g}%"
            return f"{n_against} {name}, too few for a rate of {rate} (at least {needed})"
        if key in (*RANKING, "average_precision") and min(n_mask, n_against) < least:
            counts = f"{n_mask} synthetic and {n_against} real photos"
            return f"{counts}, too few for a figure (at least {least} of each)"
        if key == "balanced_accuracy" and self.threshold is None:
            return "no threshold was fixed on other photos; run `realdamage calibrate`"
        if key in (*OUTCOMES, "balanced_at_thresholds"):
            if not own.any():
                return "no such photo"
            return "" if self.judged[own].all() else NO_THRESHOLDS
        if key in ("brier", "ece") and (without := int(np.isnan(self.probability[own]).sum())):
            return f"{without} of {own.sum()} photos lack a probability; run `realdamage calibrate`"
        if key == "edit_higher" and (n := int(own.sum())) < least:
            pairs = f"{n or 'no'} edits with a scored original (column pair)"
            return f"{pairs}, too few for a share (at least {least})"
        return ""

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

    mask: bool [n], the photos that the figures are about; the synthetic ones, where two classes are
    needed.
    against: bool [n], the real photos that they are compared with, and on which false alarms are
    counted.
    least: fewest photos of each class for a ranking, fewest edits for `edit_higher`.

    - auroc, average_precision, tpr_at_fpr_0.5, _1, _5: `mask` against `against`.
    - called_synthetic, called_real, review: shares of the outcomes of `mask`. The interval counts
      each group as one photo (Clopper and Pearson): photos of one product are accused together.
    - balanced_at_thresholds: of the outcomes; balanced_accuracy: at `table.threshold`.
    - brier, ece: of the probabilities of both.
    - edit_higher: share of the edits in `mask` that score above their own original; ties count
      half.
    """
    figures = []
    for key in keys:
        n = int(table.counted(key, mask, against).sum())
        if reason := table.missing(key, mask, against, least):
            figures.append(Figure(key, None, n=n, reason=reason))
            continue
        draws = table.draw(key, mask, against)
        low, high = table.interval(key, mask, against, draws)
        figure = Figure(key, float(draws[0]), n=n)
        figures.append(figure if math.isnan(low) else replace(figure, low=low, high=high))
    return figures


def photo_metrics(
    predictions: pd.DataFrame,
    localisation: Sequence[PatchEvidence] | None = None,
    *,
    threshold: float | None = None,
    n_boot: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures of a predictions table, as metrics.json holds them; None where undefined.

    True positive rates are over really damaged photos, with `_all_real` appended over all real
    ones; the others compare with all real ones. threshold: a score fixed on other photos.
    predictions: unperturbed rows. Raises RealDamageError: a row without label, one class only.
    """
    table = ScoredPhotos(predictions, threshold=threshold, n_boot=n_boot, seed=seed)
    photos, synthetic = table.frame, table.synthetic
    if synthetic.all() or not synthetic.any():
        raise RealDamageError(
            f"Metrics need both classes; found {synthetic.sum()} synthetic and "
            f"{table.real.sum()} real photos with a score. Evaluate a manifest or split with both.",
            code="one_class",
        )
    keys = ("auroc", "average_precision", *RATES, "balanced_accuracy", "brier", "ece")
    overall = {each.key: each for each in measure(table, synthetic, table.real, keys, least=1)}
    figures = {key: overall[key] for key in keys if key not in RATES}
    for figure in measure(table, synthetic, table.damaged, tuple(RATES), least=1):
        figures[figure.key] = figure
        figures[f"{figure.key}_all_real"] = overall[figure.key]
    [pairs] = measure(table, synthetic, table.real, ("edit_higher",), least=1)
    higher = (table.score - table.score[table.original])[table.original >= 0]
    return {
        **{key: figure.value for key, figure in figures.items()},
        "balanced_accuracy_threshold": threshold,
        "pairs": {
            "n": pairs.n,
            "edit_higher": pairs.value,
            "low": pairs.low,
            "high": pairs.high,
            "median_difference": float(np.median(higher)) if pairs.n else None,
            "reason": pairs.reason or None,
        },
        "n": len(photos),
        "n_real": int(table.real.sum()),
        "n_damaged": int(table.damaged.sum()),
        "n_synthetic": int(synthetic.sum()),
        "n_groups": len(set(table.groups)),
        "n_unscored": len(predictions) - len(photos),
        "intervals": {
            key: None if figure.low is None else [figure.low, figure.high]
            for key, figure in figures.items()
        },
        "reasons": {key: figure.reason for key, figure in figures.items() if figure.reason},
        **_per_value(predictions),
        "localisation": localisation_metrics(localisation, photos, n_boot=n_boot, seed=seed)
        if localisation
        else None,
    }


def _per_value(predictions: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """per_generator and per_kind; their intervals are in the tables of slices."""
    table = ScoredPhotos(predictions, n_boot=0)
    kind, generator = (table.frame[column].to_numpy(object) for column in ("kind", "generator"))
    generator = np.where(generator == "", "(not named)", generator)
    generators = sorted(set(generator[table.synthetic]))
    kinds = [name for name in KIND_LABELS if (kind == name).any()]
    return {
        "per_generator": {
            name: _row(table, table.synthetic & (generator == name)) for name in generators
        },
        "per_kind": {name: _row(table, kind == name) for name in kinds},
    }


def _row(table: ScoredPhotos, own: Flags) -> dict[str, Any]:
    """The figures of a generator's or a kind's photos, against all of the other class."""
    called = measure(table, own, own, ("called_synthetic", "called_real"))
    synthetic = bool(table.synthetic[own].any())
    ranked = measure(table, *((own, table.real) if synthetic else (table.synthetic, own)))
    return {
        "n": int(own.sum()),
        **{figure.key: figure.value for figure in (*called, *ranked)},
        "reasons": {figure.key: figure.reason for figure in ranked if figure.reason},
    }


def roc_curves(photos: pd.DataFrame) -> list[dict[str, Any]]:
    """The ROC curve over really damaged photos, and over all real ones; from 20 of them on.

    negatives: which of them; n: how many; fpr, tpr, low and high (of the 95% band): [k] each.
    """
    table = ScoredPhotos(photos)
    grid = np.geomspace(LOWEST_FPR, 1, 61)
    positives = np.flatnonzero(table.synthetic)
    curves = []
    for name, negative in (("really damaged", table.damaged), ("all real", table.real)):
        negatives = np.flatnonzero(negative)
        if len(negatives) < 20 or len(positives) < MIN_PHOTOS:
            continue
        rates = table.draws.roc(table.score, positives, negatives, grid.tolist())[1:]
        low, high = percentile_interval(rates[:, 1:])
        points = {"fpr": grid, "tpr": rates[:, 0], "low": low, "high": high}
        about = {"negatives": name, "n": len(negatives)}
        curves.append(about | {key: values.tolist() for key, values in points.items()})
    return curves


def equal_mass_bins(probability: npt.ArrayLike, n_bins: int = N_BINS) -> npt.NDArray[np.int64]:
    """The bin, from 0, of each probability [n]: those of scikit-learn's `calibration_curve` with
    strategy="quantile". Equal probabilities share a bin, so some bins may be empty."""
    values = np.asarray(probability, dtype=np.float64)
    # As scikit-learn writes it: np.quantile differs in the last digit, and so bins ties elsewhere.
    edges = np.percentile(values, np.linspace(0, 1, n_bins + 1) * 100)
    return np.asarray(np.searchsorted(edges[1:-1], values), dtype=np.int64)


def calibration_errors(
    probability: npt.ArrayLike, synthetic: npt.ArrayLike
) -> Callable[[Floats], Floats]:
    """The expected calibration error (Naeini et al. 2015) as a function of weights [b, n]: [2, b].

    First the error: over `equal_mass_bins`, the mean of |share synthetic - mean probability|,
    weighted by the photos of the bins. Then the error that a draw would have if the probabilities
    were right: what its bins differ by from those of the photos themselves (consistency resampling,
    Bröcker & Smith 2007, for whole groups).
    """
    stated = np.asarray(probability, dtype=np.float64)
    # [n, bins]: each photo's excess in its own bin; bins are the same in every draw.
    excess = np.zeros((len(stated), N_BINS))
    own_bin = equal_mass_bins(stated)
    excess[np.arange(len(stated)), own_bin] = np.asarray(synthetic, dtype=np.float64) - stated
    own = excess.mean(axis=0)

    def errors(weights: Floats) -> Floats:
        missed = ratio(weights @ excess, weights.sum(axis=1, keepdims=True))
        return np.stack([np.abs(missed).sum(axis=1), np.abs(missed - own).sum(axis=1)])

    return errors


def reliability_table(predictions: pd.DataFrame, *, bins: int = N_BINS) -> pd.DataFrame:
    """The reliability diagram: of photos given 70%, how many were synthetic? One row per bin of
    equally many photos, by rising probability.

    observed: the share of synthetic photos, with the interval of Clopper and Pearson that counts
    each group as one photo.
    """
    photos = clean(predictions)
    photos = photos[photos["probability"].notna() & (photos["label"] != "")]
    synthetic, stated = photos["label"] == "synthetic", photos["probability"].astype(float)
    frame = pd.DataFrame({"stated": stated, "synthetic": synthetic, "group": group_ids(photos)})
    table = frame.groupby(equal_mass_bins(stated, bins)).agg(
        n=("stated", "size"),
        n_groups=("group", "nunique"),
        mean_probability=("stated", "mean"),
        observed=("synthetic", "mean"),
    )
    table[["observed_low", "observed_high"]] = [
        share_interval(share * n, n)
        for share, n in zip(table["observed"], table["n_groups"], strict=True)
    ]
    return table.reset_index(drop=True)


def tpr_at_fpr(negatives: npt.ArrayLike, positives: npt.ArrayLike, fpr: float) -> float:
    """The largest true positive rate of any threshold whose false positive rate is at most `fpr`.

    negatives [n], positives [m]: scores; one equal to the threshold counts as called. NaN when a
    class is empty.
    """
    score = np.concatenate([np.asarray(negatives, float), np.asarray(positives, float)])
    curve = WeightedRoc(score, np.arange(len(score)) >= np.size(negatives))
    return float(curve.figures(np.ones((1, len(score))), (fpr,))[1, 0])


def labelled_and_scored(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows with a score. Raises RealDamageError: a photo without label."""
    unlabelled = predictions.loc[predictions["label"] == "", "file_name"]
    if len(unlabelled):
        raise RealDamageError(
            f"{unlabelled.iat[0]}: no label, so nothing can be measured. Label all "
            f"{len(predictions)} photos.",
            code="no_label",
        )
    return predictions[predictions["score"].notna()].reset_index(drop=True)


def has_thresholds(photos: pd.DataFrame) -> Flags:
    """bool [n]: whether the model had thresholds; without, every photo goes to review."""
    return ~photos["reasons"].str.contains(NOT_CALIBRATED, regex=False).to_numpy(dtype=bool)


def _originals(photos: pd.DataFrame) -> npt.NDArray[np.int64]:
    """[n]: the row of each edit's original under the same perturbation, -1 where there is none."""
    names = zip(photos["file_name"], photos["perturbation"], strict=True)
    rows = {key: row for row, key in enumerate(names)}
    pair = photos["pair"].where(photos["label"] == "synthetic", "")
    originals = zip(pair, photos["perturbation"], strict=True)
    return np.array([rows.get(key, -1) for key in originals], dtype=np.int64)
