"""Intervals that respect groups: photos of one product rise and fall together, so whole groups are resampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

DRAWS = 500
"""Bootstrap draws behind every interval, so that one figure has one interval wherever it is shown."""


def bootstrap_interval(
    statistic: Callable[[npt.NDArray[np.int64]], npt.ArrayLike],
    groups: npt.ArrayLike,
    *,
    n_boot: int = DRAWS,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Percentile bootstrap over groups (Efron & Tibshirani 1993, ch. 13): (low, high), each shaped like the statistic.

    `statistic(weights)` gets int [n], how often each row was drawn, and returns one figure or several; NaN where a draw
    leaves it undefined (one class only). Such draws are left out; a figure with fewer than half of them left is NaN.
    `groups` [n]: the group of each row.
    """
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    rng = np.random.default_rng(seed)
    even = np.full(len(names), 1 / len(names))
    draws = [
        np.asarray(statistic(rng.multinomial(len(names), even)[codes]), dtype=np.float64)
        for _ in range(n_boot)
    ]
    figures = np.stack(draws)
    undefined = np.isnan(figures).mean(axis=0) > 0.5
    tail = (1 - level) / 2
    # Columns without any value would make nanquantile warn; their content does not matter.
    low, high = np.nanquantile(np.where(undefined, 0.0, figures), [tail, 1 - tail], axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


class ResampledRoc:
    """The ROC curve of fixed scores under changing weights, sorted once for all draws of a bootstrap.

    `sklearn.metrics.roc_curve`, with which it agrees, sorts and validates anew each time: seconds instead of a blink.
    `scores` [n], higher is more positive; `positive` bool [n].
    """

    def __init__(self, scores: npt.ArrayLike, positive: npt.ArrayLike) -> None:
        score = np.asarray(scores, dtype=np.float64)
        self._order = np.argsort(-score, kind="stable")
        self._positive = np.asarray(positive, dtype=bool)[self._order]
        falling = score[self._order]
        # The curve has a point only where the score changes: equal scores are called together.
        self._points = np.flatnonzero(
            np.append(falling[1:] != falling[:-1], np.ones(min(len(falling), 1), dtype=bool))
        )

    def figures(
        self, weights: npt.ArrayLike, fprs: Sequence[float] = ()
    ) -> npt.NDArray[np.float64]:
        """AUROC, then the largest true positive rate at a false positive rate of at most each of `fprs`.

        `weights` [n]: how often each score counts. All NaN when a class weighs nothing.
        """
        called = self._called(weights)
        if not called[0][-1] or not called[1][-1]:
            return np.full(1 + len(fprs), np.nan)
        false, true = (counts / counts[-1] for counts in called)
        area = float(np.sum(np.diff(false) * (true[1:] + true[:-1])) / 2)
        # Both rise along the curve; the tolerance forgives the last digit of k / n, far below one photo.
        reached = true[np.searchsorted(false, np.asarray(fprs) + 1e-9, side="right") - 1]
        return np.append(area, reached)

    def average_precision(self, weights: npt.ArrayLike) -> float:
        """The mean precision over the steps of recall, as `sklearn.metrics.average_precision_score`; NaN when a class
        weighs nothing."""
        false, true = self._called(weights)
        if not false[-1] or not true[-1]:
            return float("nan")
        # Before the first call there is no precision, and no recall either, so whatever stands there counts nothing.
        precision = true[1:] / np.maximum(false[1:] + true[1:], np.finfo(np.float64).tiny)
        return float(np.diff(true) @ precision / true[-1])

    def _called(self, weights: npt.ArrayLike) -> list[npt.NDArray[np.float64]]:
        """Weight of the negatives and of the positives called at each point of the curve, from none to all."""
        weight = np.asarray(weights, dtype=np.float64)[self._order]
        return [
            np.append(0.0, np.cumsum(np.where(chosen, weight, 0.0))[self._points])
            for chosen in (~self._positive, self._positive)
        ]
