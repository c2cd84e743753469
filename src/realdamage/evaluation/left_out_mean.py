"""How sure the mean over folds is. Folds share their real photos, so their errors go up and down together: intervals of
the single folds cannot be put together afterwards, the same groups must be drawn for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.evaluation.pairs import pair_differences
from realdamage.evaluation.predictions import group_ids
from realdamage.evaluation.resampling import Floats, GroupDraws, rate_interval
from realdamage.evaluation.slices import FPR

DRAWN = ("auroc", "tpr_at_fpr_1", "edit_higher")
"""Figures that can be computed anew for each draw; heat maps are not kept, so localisation cannot."""


class MeanOverFolds:
    """The scored photos of all folds under draws of groups that they share. It tells how the mean would vary over other
    photos, not over other choices of what is left out: those are as they are.

    `photos`: by fold, its labelled and scored rows, those of one group under the same name in all folds.
    """

    def __init__(self, photos: Mapping[str, pd.DataFrame], *, seed: int) -> None:
        self.photos = photos
        groups = pd.concat([group_ids(own) for own in photos.values()], ignore_index=True)
        self.draws = GroupDraws(groups.to_numpy(), seed=seed)
        self.scores = np.concatenate(
            [own["score"].to_numpy(dtype=np.float64) for own in photos.values()]
        )
        ends = np.cumsum([len(own) for own in photos.values()])
        self.starts = {
            fold: int(end) - len(photos[fold]) for fold, end in zip(photos, ends, strict=True)
        }
        self.row_of_group = {str(group): row for row, group in enumerate(groups)}

    def interval(self, key: str, folds: Sequence[str], perturbation: str) -> tuple[float, float]:
        """(low, high), the 95% interval of the mean of `key`, one of `DRAWN`, over the folds named, on photos under
        `perturbation` ("": as they are); NaN where it cannot be told."""
        drawn = [self._draws(key, fold, perturbation) for fold in folds]
        figures = np.mean([figure for figure, _ in drawn], axis=0)
        return rate_interval(
            figures, len(np.unique(np.concatenate([groups for _, groups in drawn])))
        )

    def _draws(
        self, key: str, fold: str, perturbation: str
    ) -> tuple[Floats, npt.NDArray[np.object_]]:
        """The figure in all draws [1 + n_boot], the first is the sample itself, and the groups of what was found."""
        own = self.photos[fold]
        under = (own["perturbation"] == perturbation).to_numpy()
        synthetic = (own["label"] == "synthetic").to_numpy()
        if key == "edit_higher":
            pairs = pair_differences(own[under])
            rows = np.array([self.row_of_group[group] for group in pairs["group"]], np.int64)
            higher = (np.sign(pairs["difference"].to_numpy(dtype=np.float64)) + 1) / 2
            return self.draws.share(higher, rows), pairs["group"].to_numpy(dtype=object)
        honest = ~synthetic & ((own["kind"] == "damaged").to_numpy() | (key == "auroc"))
        positives, negatives = np.flatnonzero(under & synthetic), np.flatnonzero(under & honest)
        start = self.starts[fold]
        figures = self.draws.roc(self.scores, start + positives, start + negatives, (FPR,))
        return figures[DRAWN.index(key)], group_ids(own).to_numpy(dtype=object)[positives]
