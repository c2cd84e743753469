"""The figures by which models are compared: on all photos, per generator and per kind.

The figure that matters is the share of synthetic photos found while hardly any photo of real damage is accused, so true
positive rates are given at false positive rates of 0.5, 1 and 5% over the *really damaged* photos, with intervals. A
figure that the photos cannot carry is None, and the reason stands beside it; nothing is estimated from too little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    roc_auc_score,
    roc_curve,
)

from realdamage.data.intervals import DRAWS, ResampledRoc, bootstrap_interval
from realdamage.data.vocabulary import KIND_LABELS
from realdamage.errors import RealDamageError
from realdamage.evaluation.localisation import localisation_metrics
from realdamage.evaluation.pairs import pair_figures
from realdamage.evaluation.predictions import PatchEvidence, check_predictions, group_ids
from realdamage.evaluation.probabilities import ProbabilityError, calibration_interval
from realdamage.evaluation.resampling import share_interval

Scores = npt.NDArray[np.float64]

FALSE_POSITIVE_RATES = (0.005, 0.01, 0.05)
# `tpr_at_fpr_0.5`, `tpr_at_fpr_1`, `tpr_at_fpr_5`
_RATE_KEYS = tuple(f"tpr_at_fpr_{100 * fpr:g}" for fpr in FALSE_POSITIVE_RATES)
# Fewest photos of each class that a slice's AUROC is computed from.
MIN_PHOTOS = 5
# The reason in a verdict of a model without thresholds.
NOT_CALIBRATED = "not_calibrated"


def tpr_at_fpr(negatives: Scores, positives: Scores, fpr: float) -> float:
    """The largest true positive rate, in 0..1, of any threshold whose false positive rate is at most `fpr`.

    `negatives` [n], `positives` [m]: scores, higher is more synthetic; a score equal to the threshold counts as called.
    NaN when a class is empty.
    """
    if not len(negatives) or not len(positives):
        return float("nan")
    labels = np.repeat([0, 1], [len(negatives), len(positives)])
    rates, found, _ = roc_curve(
        labels, np.concatenate([negatives, positives]), drop_intermediate=False
    )
    # The tolerance forgives the last digit of k / n, far below one photo.
    return float(found[rates <= fpr + 1e-9].max())


def photo_metrics(
    predictions: pd.DataFrame,
    localisation: Sequence[PatchEvidence] | None = None,
    *,
    threshold: float | None = None,
    n_boot: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures of a predictions table; ready for JSON, None where a figure is undefined.

    - auroc, average_precision: synthetic against real photos.
    - tpr_at_fpr_0.5, _1, _5: share of synthetic photos found at that false positive rate (in %) over really damaged
      photos (kind `damaged`); the same with `_all_real` appended over all real ones.
    - balanced_accuracy: mean of the shares of each class on the right side of `balanced_accuracy_threshold`, which is
      `threshold`: a score fixed on other photos, those of the calibration; a photo with that score is called synthetic.
    - brier, ece: of `probability`, at the prior it was given for; see `ProbabilityError`.
    - intervals: (low, high) of 95% by bootstrap over groups, for each of these; for a rate of 0 or 1, of which every
      draw says the same, that of Clopper and Pearson over the groups of synthetic photos; of ece, see
      `calibration_interval`.
    - pairs: each edit against its own original, see `pair_figures`.
    - per_generator: each generator's photos against all real ones. per_kind: each synthetic kind against all real
      photos, all synthetic photos against each real kind. Both with the shares of their photos that were called
      synthetic and real; None when the model has no thresholds.
    - localisation: see `localisation_metrics`; None without evidence.
    - n, n_real, n_damaged, n_synthetic, n_groups, n_unscored; reasons: why a figure is None.

    Raises RealDamageError: a column is missing, a row has no label, photos under several perturbations, or only one
    class was scored.
    """
    scored = labelled_and_scored(predictions)
    if scored["perturbation"].nunique() > 1:
        raise RealDamageError(
            f"The predictions hold photos under {scored['perturbation'].nunique()} perturbations; one figure over all "
            "of them says nothing. Take those of the photos as they are (clean), or see robustness_table."
        )
    synthetic = (scored["label"] == "synthetic").to_numpy()
    if synthetic.all() or not synthetic.any():
        found = (
            "no photo at all"
            if not len(scored)
            else f"only {scored['label'].iat[0]} photos ({len(scored)})"
        )
        raise RealDamageError(
            f"The predictions hold {found} with a score; metrics need both classes. Evaluate a manifest or split with "
            "real and synthetic photos."
        )
    headline = _Headline(scored, threshold)
    figures, reasons = headline.figures()
    groups = group_ids(scored)
    low, high = bootstrap_interval(headline.resampled, groups.to_numpy(), n_boot=n_boot, seed=seed)
    *ends, (_, chance) = np.stack([low, high], axis=1).tolist()
    intervals = dict(zip(headline.keys, ends, strict=True))
    if figures["ece"] is not None:
        lowest, highest = intervals["ece"]
        intervals["ece"] = list(calibration_interval(figures["ece"], lowest, highest, chance))
    n_found = int(groups[synthetic].nunique())
    for key in (name for name in headline.keys if name.startswith("tpr_at_fpr")):
        if figures[key] in (0.0, 1.0) and intervals[key] == [figures[key]] * 2:
            # Every draw finds none, or all; that is no certainty.
            intervals[key] = list(share_interval(n_found if figures[key] else 0, n_found))
    return {
        **figures,
        "balanced_accuracy_threshold": threshold,
        "pairs": pair_figures(scored, n_boot=n_boot, seed=seed),
        "n": len(scored),
        "n_real": int((~synthetic).sum()),
        "n_damaged": int(headline.damaged.sum()),
        "n_synthetic": int(synthetic.sum()),
        "n_groups": int(groups.nunique()),
        "n_unscored": len(predictions) - len(scored),
        "intervals": {
            key: None if figures[key] is None or math.isnan(ends[0]) else ends
            for key, ends in intervals.items()
        },
        "reasons": reasons,
        "per_generator": _per_generator(scored),
        "per_kind": _per_kind(scored),
        "localisation": localisation_metrics(localisation, scored, n_boot=n_boot, seed=seed)
        if localisation
        else None,
    }


def labelled_and_scored(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows with a score, renumbered. Raises RealDamageError: no predictions table, or a photo without label."""
    check_predictions(predictions)
    unlabelled = np.flatnonzero(predictions["label"] == "")
    if len(unlabelled):
        name = predictions["file_name"].iat[unlabelled[0]]
        raise RealDamageError(
            f"{name}: no label, so nothing can be measured. Label all {len(predictions)} photos."
        )
    return predictions[predictions["score"].notna()].reset_index(drop=True)


def has_thresholds(photos: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """bool [n]: whether the model that judged each photo had thresholds. Without, all are `review`: nobody was called
    synthetic, but nobody was spared either."""
    return ~photos["reasons"].str.contains(NOT_CALIBRATED, regex=False).to_numpy(dtype=bool)


class _Headline:
    """The figures over all photos: from the library once, and under the changing weights of a bootstrap."""

    keys = (
        *("auroc", "average_precision", *_RATE_KEYS, *(f"{key}_all_real" for key in _RATE_KEYS)),
        *("balanced_accuracy", "brier", "ece"),
    )

    def __init__(self, scored: pd.DataFrame, threshold: float | None) -> None:
        self.scores = scored["score"].to_numpy(dtype=np.float64)
        self.probability = scored["probability"].replace("", np.nan).to_numpy(dtype=np.float64)
        self.synthetic = (scored["label"] == "synthetic").to_numpy()
        self.damaged = ~self.synthetic & (scored["kind"] == "damaged").to_numpy()
        self.threshold = threshold
        self._counted = self.damaged | self.synthetic
        self._overall = ResampledRoc(self.scores, self.synthetic)
        self._against_damaged = ResampledRoc(
            self.scores[self._counted], self.synthetic[self._counted]
        )
        self._right = (
            self.scores >= (math.nan if threshold is None else threshold)
        ) == self.synthetic
        self._errors = ProbabilityError(self.probability, self.synthetic)

    def figures(self) -> tuple[dict[str, float | None], dict[str, str]]:
        """By key, and why one is None."""
        scores, synthetic = self.scores, self.synthetic
        figures: dict[str, float | None] = {
            "auroc": float(roc_auc_score(synthetic, scores)),
            "average_precision": float(average_precision_score(synthetic, scores)),
        }
        reasons: dict[str, str] = {}
        for suffix, name, negative in (
            ("", "really damaged photos", self.damaged),
            ("_all_real", "real photos", ~synthetic),
        ):
            rates, missing = _rates(scores[negative], scores[synthetic], name)
            figures |= {key + suffix: rate for key, rate in rates.items()}
            reasons |= {key + suffix: reason for key, reason in missing.items()}
        figures |= dict.fromkeys(("balanced_accuracy", "brier", "ece"))
        if self.threshold is None:
            reasons["balanced_accuracy"] = (
                "no threshold was fixed on other photos; run `realdamage calibrate`"
            )
        else:
            figures["balanced_accuracy"] = float(
                balanced_accuracy_score(synthetic, scores >= self.threshold)
            )
        without = int(np.isnan(self.probability).sum())
        if without:
            found = (
                "no photo has"
                if without == len(scores)
                else f"{without} of {len(scores)} photos lack"
            )
            reasons |= dict.fromkeys(
                ("brier", "ece"), f"{found} a probability; run `realdamage calibrate`"
            )
        else:
            brier, ece = self._errors.figures(np.ones(len(scores)))
            figures |= {"brier": float(brier), "ece": float(ece)}
        return figures, reasons

    def resampled(self, weights: npt.NDArray[np.int64]) -> Scores:
        """The figures in the order of `keys` when each photo counts so often, then the calibration error that chance
        alone would make; NaN where one is undefined."""
        auroc, *all_real = self._overall.figures(weights, FALSE_POSITIVE_RATES)
        damaged = self._against_damaged.figures(weights[self._counted], FALSE_POSITIVE_RATES)[1:]
        average = self._overall.average_precision(weights)
        balanced = math.nan if self.threshold is None else self._balanced_accuracy(weights)
        errors = (*self._errors.figures(weights), self._errors.by_chance(weights))
        return np.array([auroc, average, *damaged, *all_real, balanced, *errors])

    def _balanced_accuracy(self, weights: npt.NDArray[np.int64]) -> float:
        shares = []
        for own in (self.synthetic, ~self.synthetic):
            total = weights[own].sum()
            shares.append(weights[own & self._right].sum() / total if total else math.nan)
        return float(np.mean(shares))


def _rates(
    negatives: Scores, positives: Scores, name: str
) -> tuple[dict[str, float | None], dict[str, str]]:
    """The true positive rates by key, and why one is None; `name` is what the negatives are called."""
    rates: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for key, fpr in zip(_RATE_KEYS, FALSE_POSITIVE_RATES, strict=True):
        needed = math.ceil(1 / fpr)
        # With fewer, that rate would mean "no error at all among these few", which is another question.
        rates[key] = tpr_at_fpr(negatives, positives, fpr) if len(negatives) >= needed else None
        if rates[key] is None:
            reasons[key] = (
                f"{len(negatives)} {name}; a rate of {100 * fpr:g}% takes at least {needed}"
            )
    return rates, reasons


def _per_generator(scored: pd.DataFrame) -> dict[str, dict[str, Any]]:
    real, synthetic = scored[scored["label"] == "real"], scored[scored["label"] == "synthetic"]
    names = synthetic["generator"].where(synthetic["generator"] != "", "(not named)")
    return {
        str(name): _slice(real, photos, photos)
        for name, photos in synthetic.groupby(names, sort=True)
    }


def _per_kind(scored: pd.DataFrame) -> dict[str, dict[str, Any]]:
    real, synthetic = scored[scored["label"] == "real"], scored[scored["label"] == "synthetic"]
    rows = {}
    for kind, label in KIND_LABELS.items():
        photos = scored[scored["kind"] == kind]
        if len(photos):
            pair = (real, photos) if label == "synthetic" else (photos, synthetic)
            rows[kind] = _slice(*pair, photos)
    return rows


def _slice(real: pd.DataFrame, synthetic: pd.DataFrame, own: pd.DataFrame) -> dict[str, Any]:
    """Figures of `synthetic` against `real`, of which `own` are the photos that the row is about."""
    negatives, positives = (
        photos["score"].to_numpy(dtype=np.float64) for photos in (real, synthetic)
    )
    judged = has_thresholds(own).any()
    row: dict[str, Any] = {
        "n": len(own),
        "called_synthetic": float((own["outcome"] == "synthetic").mean()) if judged else None,
        "called_real": float((own["outcome"] == "real").mean()) if judged else None,
    }
    if min(len(negatives), len(positives)) < MIN_PHOTOS:
        keys = ("auroc", *_RATE_KEYS)
        reason = f"{len(positives)} synthetic and {len(negatives)} real photos; at least {MIN_PHOTOS} of each are needed"
        return {**row, **dict.fromkeys(keys), "reasons": dict.fromkeys(keys, reason)}
    rates, reasons = _rates(negatives, positives, "real photos")
    labels = np.repeat([0, 1], [len(negatives), len(positives)])
    auroc = float(roc_auc_score(labels, np.concatenate([negatives, positives])))
    return {**row, "auroc": auroc, **rates, "reasons": reasons}
