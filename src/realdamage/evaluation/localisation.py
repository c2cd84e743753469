"""How well the heat maps find the painted patches, always beside a map that calls everything painted: where masks are
large, that map has an F1 to be proud of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import average_precision_score, precision_recall_curve

from realdamage.core.verdict import HOT
from realdamage.data.intervals import DRAWS, bootstrap_interval
from realdamage.evaluation.predictions import PatchEvidence, group_ids

Floats = npt.NDArray[np.float64]

_FIGURES = ("pixel_ap", "f1", "iou", "best_f1")
_BASELINES = ("baseline_f1", "baseline_iou")
# Steps of recall at which the intervals' curves are taken: average precision comes out lower by a thousandth at most.
_STEPS = 512


def localisation_metrics(
    evidence: Sequence[PatchEvidence],
    predictions: pd.DataFrame | None = None,
    *,
    n_boot: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures pooled over all patches of all given photos; None where undefined, with the reason.

    - pixel_ap: average precision; its baseline, of a map that is the same everywhere, is `prevalence`.
    - f1, iou: of the patches at or above the shipped threshold (`regions.HOT`). best_f1: the best F1 over all
      thresholds (of one for all photos). baseline_f1, baseline_iou: of a map that calls every patch painted.
    - mask_area: mean over photos of their share of painted patches. n_photos, n_patches, prevalence (share of painted
      patches); reason: why the figures are None.
    - intervals: (low, high) of 95% by bootstrap over groups; per_kind: the same figures for each kind of photo.

    `predictions` tells group and kind of the photos; without it every photo is a group of its own, and no kind is told.
    """
    groups, kinds = _groups_and_kinds(evidence, predictions)
    result = _pooled(evidence, groups, n_boot, seed)
    result["per_kind"] = {}
    for kind in dict.fromkeys(sorted(kinds)):
        if kind:
            chosen = [index for index, own in enumerate(kinds) if own == kind]
            own = [evidence[index] for index in chosen]
            result["per_kind"][kind] = _pooled(
                own, [groups[index] for index in chosen], n_boot, seed
            )
    return result


def _groups_and_kinds(
    evidence: Sequence[PatchEvidence], predictions: pd.DataFrame | None
) -> tuple[list[str], list[str]]:
    names = [photo.file_name for photo in evidence]
    if predictions is None:
        return names, [""] * len(names)
    table = predictions.drop_duplicates("file_name")
    group = dict(zip(table["file_name"], group_ids(table), strict=True))
    kind = dict(zip(table["file_name"], table["kind"], strict=True))
    return [group.get(name, name) for name in names], [kind.get(name, "") for name in names]


def _pooled(
    evidence: Sequence[PatchEvidence], groups: Sequence[str], n_boot: int, seed: int
) -> dict[str, Any]:
    painted = np.concatenate(
        [photo.painted.ravel() for photo in evidence] or [np.zeros(0, dtype=bool)]
    )
    prevalence = float(painted.mean()) if len(painted) else None
    result: dict[str, Any] = {
        "n_photos": len(evidence),
        "n_patches": len(painted),
        "prevalence": prevalence,
        "mask_area": float(np.mean([photo.painted.mean() for photo in evidence]))
        if len(painted)
        else None,
        **dict.fromkeys((*_FIGURES, *_BASELINES)),
        "intervals": dict.fromkeys(_FIGURES),
        "reason": None,
    }
    if prevalence is None or painted.all() or not painted.any():
        found = "every patch is painted" if prevalence == 1 else "no patch is painted"
        return {
            **result,
            "reason": f"{found} in {len(evidence)} photos; both sorts of patch are needed",
        }
    heat = np.concatenate([photo.heat.ravel() for photo in evidence])
    precision, recall, _ = precision_recall_curve(painted, heat)
    hits, called = int((painted & (heat >= HOT)).sum()), int((heat >= HOT).sum())
    either = called + int(painted.sum()) - hits
    return {
        **result,
        "pixel_ap": float(average_precision_score(painted, heat)),
        "f1": 2 * hits / (called + int(painted.sum())),
        "iou": hits / either,
        "best_f1": float(
            (2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)).max()
        ),
        "baseline_f1": 2 * prevalence / (1 + prevalence),
        "baseline_iou": prevalence,
        "intervals": _intervals(evidence, groups, heat, painted, n_boot, seed),
    }


def _intervals(
    evidence: Sequence[PatchEvidence],
    groups: Sequence[str],
    heat: npt.NDArray[np.float32],
    painted: npt.NDArray[np.bool_],
    n_boot: int,
    seed: int,
) -> dict[str, list[float] | None]:
    """From counts per photo above `_STEPS` thresholds, quantiles of the painted patches' heat: a draw is then a sum
    over photos, where sorting all patches anew would take minutes."""
    edges = np.unique(
        [float(heat.min()), HOT, *np.quantile(heat[painted], np.linspace(0, 1, _STEPS))]
    )
    hot = int(np.searchsorted(edges, HOT))
    counts = np.zeros((2, len(evidence), len(edges)))
    for index, photo in enumerate(evidence):
        # Patches between two edges count at the lower one: heat >= edge.
        step = np.clip(np.searchsorted(edges, photo.heat.ravel(), side="right") - 1, 0, None)
        for sort in (False, True):
            counts[int(sort), index] = np.bincount(
                step[photo.painted.ravel() == sort], minlength=len(edges)
            )
    at_or_above = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]

    def statistic(weights: npt.NDArray[np.int64]) -> Floats:
        false, true = weights @ at_or_above[0], weights @ at_or_above[1]
        if not true[0] or not false[0]:
            return np.full(len(_FIGURES), np.nan)
        f1 = 2 * true / (false + true + true[0])
        # Along falling thresholds, as in sklearn's average precision.
        precision = np.divide(true, false + true, out=np.zeros_like(true), where=false + true > 0)[
            ::-1
        ]
        area = float(np.diff(true[::-1], prepend=0.0) @ precision / true[0])
        return np.array([area, f1[hot], true[hot] / (false[hot] + true[0]), f1.max()])

    low, high = bootstrap_interval(statistic, np.asarray(groups), n_boot=n_boot, seed=seed)
    ends = zip(_FIGURES, np.stack([low, high], axis=1).tolist(), strict=True)
    return {key: None if np.isnan(pair[0]) else pair for key, pair in ends}
