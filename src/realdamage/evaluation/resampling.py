"""One set of bootstrap draws for hundreds of slices: each of them by `bootstrap_interval` would take minutes, and two
slices could not be compared draw by draw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

Floats = npt.NDArray[np.float64]


class GroupDraws:
    """How often each row counts when whole groups are drawn with replacement (the draws of `bootstrap_interval`).

    `groups` [n]: the group of each row. Row 0 of all weights is the sample itself, where everything counts once; the
    `n_boot` rows after it are the draws.
    """

    def __init__(self, groups: npt.ArrayLike, *, n_boot: int, seed: int) -> None:
        names, self._codes = np.unique(np.asarray(groups), return_inverse=True)
        self._counts = np.ones((1 + n_boot, len(names)))
        if len(names):
            even = np.full(len(names), 1 / len(names))
            self._counts[1:] = np.random.default_rng(seed).multinomial(len(names), even, size=n_boot)

    def weights(self, rows: npt.NDArray[np.int64]) -> Floats:
        """[1 + n_boot, len(rows)]."""
        return self._counts[:, self._codes[rows]]

    def n_groups(self, rows: npt.NDArray[np.int64]) -> int:
        """How many groups the rows come from."""
        return len(np.unique(self._codes[rows]))


class WeightedNegatives:
    """Scores of real photos under many weights, sorted once, against which any number of slices is measured.

    `scores` [n]; `weights` [b, n]: how often each counts, one row per draw.
    """

    def __init__(self, scores: Floats, weights: Floats) -> None:
        order = np.argsort(scores, kind="stable")
        self._sorted = scores[order]
        below = np.cumsum(weights[:, order], axis=1)
        self._empty = below[:, -1] == 0 if len(scores) else np.ones(len(weights), dtype=bool)
        below = np.concatenate([np.zeros((len(weights), 1)), below], axis=1)
        # [b, n + 1]: the share of the negatives that the k lowest make up.
        self._share = below / np.where(self._empty, 1.0, below[:, -1])[:, None]

    def figures(self, scores: Floats, weights: Floats, fprs: Sequence[float] = ()) -> Floats:
        """[1 + len(fprs), b]: AUROC of the positives `scores` [m] with `weights` [b, m] against the negatives (share of
        pairs in the right order, ties half: Mann and Whitney 1947), then the largest true positive rate at a false
        positive rate of at most each of `fprs`. NaN where a class weighs nothing.
        """
        total = weights.sum(axis=1)
        defined = (total > 0) & ~self._empty
        below = self._share[:, np.searchsorted(self._sorted, scores, side="left")]
        up_to = self._share[:, np.searchsorted(self._sorted, scores, side="right")]
        # A photo is found at a rate when the negatives that score as high or higher are no larger a share. The
        # tolerance forgives the last digit of k / n, far below one photo.
        found = [np.where(1 - below <= fpr + 1e-9, weights, 0.0) for fpr in fprs]
        sums = np.stack([each.sum(axis=1) for each in (weights * (below + up_to) / 2, *found)])
        return np.where(defined, sums / np.where(total > 0, total, 1.0), np.nan)


def percentile_interval(draws: Floats, level: float = 0.95) -> tuple[float, float]:
    """(low, high) of the draws [b] of one figure (Efron & Tibshirani 1993, ch. 13); draws where it is undefined are
    left out, NaN when they are more than half."""
    if not len(draws) or np.isnan(draws).mean() > 0.5:
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def rate_interval(draws: Floats, n_groups: int) -> tuple[float, float]:
    """`percentile_interval` of the draws of a share, the first of them the share itself. Where nothing or everything
    was found, every draw says the same, which is no certainty: then that of Clopper and Pearson over `n_groups`."""
    low, high = percentile_interval(draws[1:])
    if low == high == draws[0] and draws[0] in (0.0, 1.0):
        return share_interval(n_groups if draws[0] else 0, n_groups)
    return low, high


def share_interval(count: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a share of `count` among `n` independent photos (Clopper & Pearson 1934); a
    count between whole numbers stands between theirs."""
    if not n:
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    # As scipy.stats.binomtest(...).proportion_ci, whose test beside it takes twenty times as long.
    low = float(betaincinv(count, n - count + 1, tail)) if count else 0.0
    return low, float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
