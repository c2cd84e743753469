"""The figures by which models are compared: on all photos, per generator, per kind, and per patch.

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
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from realdamage.data.intervals import ResampledRoc, bootstrap_interval
from realdamage.data.vocabulary import KIND_LABELS
from realdamage.evaluation.predictions import PatchEvidence, check_predictions
from realdamage.inference.errors import RealDamageError

Scores = npt.NDArray[np.float64]

FALSE_POSITIVE_RATES = (0.005, 0.01, 0.05)
# `tpr_at_fpr_0.5`, `tpr_at_fpr_1`, `tpr_at_fpr_5`
_RATE_KEYS = tuple(f"tpr_at_fpr_{100 * fpr:g}" for fpr in FALSE_POSITIVE_RATES)
# Fewest photos of each class that a slice's AUROC is computed from.
MIN_PHOTOS = 5


def tpr_at_fpr(negatives: Scores, positives: Scores, fpr: float) -> float:
    """The largest true positive rate, in 0..1, of any threshold whose false positive rate is at most `fpr`.

    `negatives` [n], `positives` [m]: scores, higher is more synthetic; a score equal to the threshold counts as called.
    NaN when a class is empty.
    """
    if not len(negatives) or not len(positives):
        return float("nan")
    labels = np.repeat([0, 1], [len(negatives), len(positives)])
    rates, found, _ = roc_curve(labels, np.concatenate([negatives, positives]), drop_intermediate=False)
    # The tolerance forgives the last digit of k / n, far below one photo.
    return float(found[rates <= fpr + 1e-9].max())


def photo_metrics(
    predictions: pd.DataFrame,
    localisation: Sequence[PatchEvidence] | None = None,
    *,
    n_boot: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures of a predictions table; ready for JSON, None where a figure is undefined.

    - auroc, average_precision: synthetic against real photos.
    - tpr_at_fpr_0.5, _1, _5: share of synthetic photos found at that false positive rate (in %) over really damaged
      photos (kind `damaged`); the same with `_all_real` appended over all real ones.
    - intervals: (low, high) of 95% by bootstrap over groups, for auroc and every tpr_at_fpr.
    - per_generator: each generator's photos against all real ones. per_kind: each synthetic kind against all real
      photos, all synthetic photos against each real kind. Both with the shares of their photos that were called
      synthetic and real.
    - localisation: see `localisation_metrics`; None without evidence.
    - n, n_real, n_damaged, n_synthetic, n_groups, n_unscored; reasons: why a figure is None.

    Raises RealDamageError: a column is missing, a row has no label, or only one class was scored.
    """
    check_predictions(predictions)
    unlabelled = np.flatnonzero(predictions["label"] == "")
    if len(unlabelled):
        name = predictions["file_name"].iat[unlabelled[0]]
        raise RealDamageError(f"{name}: no label, so nothing can be measured. Label all {len(predictions)} photos.")
    scored = predictions[predictions["score"].notna()].reset_index(drop=True)
    scores = scored["score"].to_numpy(dtype=np.float64)
    synthetic = (scored["label"] == "synthetic").to_numpy()
    damaged = ~synthetic & (scored["kind"] == "damaged").to_numpy()
    if synthetic.all() or not synthetic.any():
        found = "no photo at all" if not len(scored) else f"only {scored['label'].iat[0]} photos ({len(scored)})"
        raise RealDamageError(
            f"The predictions hold {found} with a score; metrics need both classes. Evaluate a manifest or split with "
            "real and synthetic photos."
        )
    groups = scored["group"].where(scored["group"] != "", scored["file_name"])
    figures: dict[str, float | None] = {
        "auroc": float(roc_auc_score(synthetic, scores)),
        "average_precision": float(average_precision_score(synthetic, scores)),
    }
    reasons: dict[str, str] = {}
    for suffix, name, negative in (("", "really damaged photos", damaged), ("_all_real", "real photos", ~synthetic)):
        rates, missing = _rates(scores[negative], scores[synthetic], name)
        figures |= {key + suffix: rate for key, rate in rates.items()}
        reasons |= {key + suffix: reason for key, reason in missing.items()}
    intervals = _intervals(scores, synthetic, damaged, groups.to_numpy(), n_boot, seed)
    return {
        **figures,
        "n": len(scored),
        "n_real": int((~synthetic).sum()),
        "n_damaged": int(damaged.sum()),
        "n_synthetic": int(synthetic.sum()),
        "n_groups": int(groups.nunique()),
        "n_unscored": len(predictions) - len(scored),
        "intervals": {key: None if figures[key] is None else interval for key, interval in intervals.items()},
        "reasons": reasons,
        "per_generator": _per_generator(scored),
        "per_kind": _per_kind(scored),
        "localisation": localisation_metrics(localisation) if localisation else None,
    }


def localisation_metrics(evidence: Sequence[PatchEvidence]) -> dict[str, Any]:
    """How well the heat maps find the painted patches, pooled over all patches of all given photos.

    - pixel_ap: average precision; its baseline, of a map that is the same everywhere, is `prevalence`.
    - best_f1: the best F1 over all thresholds (of one threshold for all photos); baseline_f1 calls every patch painted.
    - n_photos, n_patches, prevalence (share of painted patches); reason: why the figures are None.
    """
    painted = np.concatenate([photo.painted.ravel() for photo in evidence] or [np.zeros(0, dtype=bool)])
    result: dict[str, Any] = {
        "n_photos": len(evidence),
        "n_patches": len(painted),
        "prevalence": float(painted.mean()) if len(painted) else None,
        "pixel_ap": None,
        "best_f1": None,
        "baseline_f1": None,
        "reason": None,
    }
    if painted.all() or not painted.any():
        found = "every patch is painted" if len(painted) and painted.all() else "no patch is painted"
        return {**result, "reason": f"{found} in {len(evidence)} photos; both sorts of patch are needed"}
    heat = np.concatenate([photo.heat.ravel() for photo in evidence])
    precision, recall, _ = precision_recall_curve(painted, heat)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    prevalence = result["prevalence"]
    return {
        **result,
        "pixel_ap": float(average_precision_score(painted, heat)),
        "best_f1": float(f1.max()),
        "baseline_f1": 2 * prevalence / (1 + prevalence),
    }


def _rates(negatives: Scores, positives: Scores, name: str) -> tuple[dict[str, float | None], dict[str, str]]:
    """The true positive rates by key, and why one is None; `name` is what the negatives are called."""
    rates: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for key, fpr in zip(_RATE_KEYS, FALSE_POSITIVE_RATES, strict=True):
        needed = math.ceil(1 / fpr)
        # With fewer, that rate would mean "no error at all among these few", which is another question.
        rates[key] = tpr_at_fpr(negatives, positives, fpr) if len(negatives) >= needed else None
        if rates[key] is None:
            reasons[key] = f"{len(negatives)} {name}; a rate of {100 * fpr:g}% takes at least {needed}"
    return rates, reasons


def _intervals(
    scores: Scores,
    synthetic: npt.NDArray[np.bool_],
    damaged: npt.NDArray[np.bool_],
    groups: npt.NDArray[Any],
    n_boot: int,
    seed: int,
) -> dict[str, list[float] | None]:
    overall = ResampledRoc(scores, synthetic)
    counted = damaged | synthetic
    against_damaged = ResampledRoc(scores[counted], synthetic[counted])

    def statistic(weights: npt.NDArray[np.int64]) -> Scores:
        auroc, *all_real = overall.figures(weights, FALSE_POSITIVE_RATES)
        return np.array([auroc, *against_damaged.figures(weights[counted], FALSE_POSITIVE_RATES)[1:], *all_real])

    low, high = bootstrap_interval(statistic, groups, n_boot=n_boot, seed=seed)
    keys = ("auroc", *_RATE_KEYS, *(f"{key}_all_real" for key in _RATE_KEYS))
    return {
        key: None if math.isnan(ends[0]) else ends
        for key, ends in zip(keys, np.stack([low, high], axis=1).tolist(), strict=True)
    }


def _per_generator(scored: pd.DataFrame) -> dict[str, dict[str, Any]]:
    real, synthetic = scored[scored["label"] == "real"], scored[scored["label"] == "synthetic"]
    names = synthetic["generator"].where(synthetic["generator"] != "", "(not named)")
    return {str(name): _slice(real, photos, photos) for name, photos in synthetic.groupby(names, sort=True)}


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
    negatives, positives = (photos["score"].to_numpy(dtype=np.float64) for photos in (real, synthetic))
    row: dict[str, Any] = {
        "n": len(own),
        "called_synthetic": float((own["outcome"] == "synthetic").mean()),
        "called_real": float((own["outcome"] == "real").mean()),
    }
    if min(len(negatives), len(positives)) < MIN_PHOTOS:
        keys = ("auroc", *_RATE_KEYS)
        reason = (
            f"{len(positives)} synthetic and {len(negatives)} real photos; at least {MIN_PHOTOS} of each are needed"
        )
        return {**row, **dict.fromkeys(keys), "reasons": dict.fromkeys(keys, reason)}
    rates, reasons = _rates(negatives, positives, "real photos")
    labels = np.repeat([0, 1], [len(negatives), len(positives)])
    auroc = float(roc_auc_score(labels, np.concatenate([negatives, positives])))
    return {**row, "auroc": auroc, **rates, "reasons": reasons}
