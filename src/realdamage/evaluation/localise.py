"""How well heat maps find the painted patches, always next to a map that calls everything painted:
where masks are large, that map has a respectable F1 too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import average_precision_score, precision_recall_curve

from realdamage.core.verdict import HOT
from realdamage.data.bootstrap import DRAWS, Floats, GroupDraws, percentile_interval, ratio
from realdamage.evaluation.predictions import PatchEvidence, group_ids

_FIGURES = ("pixel_ap", "f1", "iou", "best_f1")
# Recall steps of the intervals' curves: average precision comes out lower by a thousandth at most.
_STEPS = 512


def localisation_metrics(
    evidence: Sequence[PatchEvidence],
    predictions: pd.DataFrame | None = None,
    *,
    n_boot: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures pooled over all patches of the given photos; None where undefined, with the `reason`.

    pixel_ap: average precision; a constant map gets `prevalence`, the share of painted patches.
    f1, iou: of the patches at or above the shipped threshold (`HOT`). best_f1: the best over all
    thresholds. baseline_…: of a map that calls every patch painted. predictions: names the group of
    each photo; without it every photo is its own group.
    """
    names = [photo.file_name for photo in evidence]
    groups = np.array(names)
    if predictions is not None:
        known = predictions.drop_duplicates("file_name").set_index("file_name", drop=False)
        groups = group_ids(known).reindex(names).to_numpy(dtype=str)
    painted = np.concatenate([np.zeros(0, bool), *(photo.painted.ravel() for photo in evidence)])
    heat = np.concatenate([np.zeros(0), *(photo.heat.ravel() for photo in evidence)])
    result: dict[str, Any] = {
        "n_photos": len(evidence),
        "prevalence": float(painted.mean()) if len(painted) else None,
        **dict.fromkeys((*_FIGURES, "baseline_f1", "baseline_iou")),
        "intervals": dict.fromkeys(_FIGURES),
        "reason": None,
    }
    n_painted = int(painted.sum())
    if n_painted in (0, len(painted)):
        found = "every patch is painted" if n_painted else "no patch is painted"
        reason = f"{found} in {len(evidence)} photos; both kinds of patch are needed"
        return result | {"reason": reason}
    precision, recall, _ = precision_recall_curve(painted, heat)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    hits, called = int((painted & (heat >= HOT)).sum()), int((heat >= HOT).sum())
    prevalence = result["prevalence"]
    return result | {
        "pixel_ap": float(average_precision_score(painted, heat)),
        "f1": 2 * hits / (called + n_painted),
        "iou": hits / (called + n_painted - hits),
        "best_f1": float(f1.max()),
        "baseline_f1": 2 * prevalence / (1 + prevalence),
        "baseline_iou": prevalence,
        "intervals": _intervals(
            evidence, np.quantile(heat[painted], np.linspace(0, 1, _STEPS)), groups, n_boot, seed
        ),
    }


def _intervals(
    evidence: Sequence[PatchEvidence],
    quantiles: Floats,
    groups: npt.NDArray[Any],
    n_boot: int,
    seed: int,
) -> dict[str, list[float] | None]:
    """From each photo's counts above `quantiles` of the painted patches' heat.

    A draw is then a sum over photos; sorting all patches for every draw would take minutes.
    """
    lowest = min(float(photo.heat.min()) for photo in evidence)
    edges = np.unique([lowest, HOT, *quantiles])
    at_hot = len(edges) - 1 - int(np.searchsorted(edges, HOT))
    counts = np.zeros((2, len(evidence), len(edges)))
    for index, photo in enumerate(evidence):
        # Patches between two edges count at the lower one: heat >= edge.
        step = np.clip(np.searchsorted(edges, photo.heat.ravel(), side="right") - 1, 0, None)
        for sort in (False, True):
            own = step[photo.painted.ravel() == sort]
            counts[int(sort), index] = np.bincount(own, minlength=len(edges))
    not_painted, painted = np.cumsum(counts[..., ::-1], axis=-1)  # from the highest edge down

    def statistic(weights: Floats) -> Floats:
        false, true = weights @ not_painted, weights @ painted
        total = np.where((true[:, -1] > 0) & (false[:, -1] > 0), true[:, -1], np.nan)[:, None]
        f1 = 2 * true / (false + true + total)
        iou = true / (false + total)
        gained = np.diff(true, prepend=0.0) / total
        area = (gained * np.nan_to_num(ratio(true, false + true))).sum(axis=1)
        return np.stack([area, f1[:, at_hot], iou[:, at_hot], f1.max(axis=1)])

    draws = GroupDraws(groups, n_boot=n_boot, seed=seed).figures(
        statistic, np.arange(len(evidence))
    )
    ends = np.stack(percentile_interval(draws[:, 1:]), axis=1).tolist()
    return {
        key: None if np.isnan(pair[0]) else pair for key, pair in zip(_FIGURES, ends, strict=True)
    }
