"""One set of bootstrap draws for hundreds of slices: each of them by `bootstrap_interval` would take minutes, and two
slices could not be compared draw by draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from realdamage.data.intervals import DRAWS

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_CHUNK = 2**19
"""Weights that are held at once, 4 MiB: those of all draws of 50,000 photos together would take 200 MiB."""


class GroupDraws:
    """Figures of the sample and of all draws of whole groups with replacement (the draws of `bootstrap_interval`).

    `groups` [n]: the group of each row. Of every figure, value 0 is that of the sample itself, where every row counts
    once; the `n_boot` values after it are those of the draws.
    """

    def __init__(self, groups: npt.ArrayLike, *, n_boot: int = DRAWS, seed: int) -> None:
        names, self._codes = np.unique(np.asarray(groups), return_inverse=True)
        self._counts = np.ones((1 + n_boot, len(names)), dtype=np.min_scalar_type(len(names)))
        rng, even = np.random.default_rng(seed), np.full(len(names), 1 / max(len(names), 1))
        for drawn in self._counts[1:] if len(names) else ():
            drawn[:] = rng.multinomial(len(names), even)

    def chunks(self, rows: Rows) -> Iterator[Floats]:
        """The weights of these rows [draws, len(rows)], some consecutive draws at a time."""
        step = max(1, _CHUNK // max(1, len(rows)))
        for start in range(0, len(self._counts), step):
            yield self._counts[start : start + step, self._codes[rows]].astype(np.float64)

    def roc(
        self, scores: Floats, positives: Rows, negatives: Rows, fprs: Sequence[float] = ()
    ) -> Floats:
        """[1 + len(fprs), 1 + n_boot]: AUROC of these rows, then their true positive rate at each of `fprs`; `scores`
        [n] of all rows. See `WeightedNegatives.figures`."""
        n = len(negatives)
        figures = [
            WeightedNegatives(scores[negatives], weights[:, :n]).figures(
                scores[positives], weights[:, n:], fprs
            )
            for weights in self.chunks(np.concatenate([negatives, positives]))
        ]
        return np.concatenate(figures, axis=1)

    def share(self, values: npt.ArrayLike, rows: Rows) -> Floats:
        """[1 + n_boot]: the mean of `values`, one for each of the rows; NaN where no row was drawn."""
        counted = np.asarray(values, dtype=np.float64)
        sums = [(weights @ counted, weights.sum(axis=1)) for weights in self.chunks(rows)]
        found, total = np.concatenate(sums, axis=1)
        means: Floats = np.divide(found, total, out=np.full(len(total), np.nan), where=total > 0)
        return means

    def n_groups(self, rows: Rows) -> int:
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
        found = [np.where(1 - below <= fpr + 1e-9, weights, 0.0).sum(axis=1) for fpr in fprs]
        sums = np.stack([(weights * (below + up_to) / 2).sum(axis=1), *found])
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
