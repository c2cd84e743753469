"""Bootstrap over groups: photos of one product rise and fall together, so whole groups are drawn.

One set of draws serves hundreds of slices and both sides of a comparison: figures are then compared
draw by draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

DRAWS = 500
"""Behind every interval, so that one figure has one interval wherever it is shown."""

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

# Weights held at once, 4 MiB: all draws of 50,000 photos together would take 200 MiB.
_CHUNK = 2**19
# Forgives the last digit of k / n in a false positive rate; far below one photo.
_ROUNDING = 1e-9


class GroupDraws:
    """Draws of whole groups with replacement; in draw 0, the sample itself, every row counts once.

    groups [n]: the group of each row.
    n_boot: number of draws after the sample.
    """

    def __init__(self, groups: npt.ArrayLike, *, n_boot: int = DRAWS, seed: int = 0) -> None:
        names, self._codes = np.unique(np.asarray(groups), return_inverse=True)
        self._counts = np.ones((1 + n_boot, len(names)), dtype=np.min_scalar_type(len(names)))
        rng, even = np.random.default_rng(seed), np.full(len(names), 1 / max(len(names), 1))
        for drawn in self._counts[1:] if len(names) else ():
            drawn[:] = rng.multinomial(len(names), even)

    def chunks(self, rows: Rows) -> Iterator[Floats]:
        """The weights of these rows, float64 [draws, len(rows)], a few draws at a time."""
        step = max(1, _CHUNK // max(1, len(rows)))
        for start in range(0, len(self._counts), step):
            yield self._counts[start : start + step, self._codes[rows]].astype(np.float64)

    def figures(self, statistic: Callable[[Floats], Floats], rows: Rows) -> Floats:
        """`statistic(weights [b, len(rows)]) -> [..., b]` over all draws: [..., 1 + n_boot]."""
        return np.concatenate([statistic(weights) for weights in self.chunks(rows)], axis=-1)

    def roc(
        self, scores: Floats, positives: Rows, negatives: Rows, fprs: Sequence[float] = ()
    ) -> Floats:
        """AUROC, then the true positive rate at each of `fprs`: [1 + len(fprs), 1 + n_boot].

        scores [n]: of all rows.
        """
        rows = np.concatenate([negatives, positives])
        curve = WeightedRoc(scores[rows], np.arange(len(rows)) >= len(negatives))
        return self.figures(lambda weights: curve.figures(weights, fprs), rows)

    def share(self, values: npt.ArrayLike, rows: Rows) -> Floats:
        """[1 + n_boot]: the mean of `values` [len(rows)]; NaN where no row was drawn."""
        counted = np.asarray(values, dtype=np.float64)
        return self.figures(lambda weights: ratio(weights @ counted, weights.sum(axis=1)), rows)

    def n_groups(self, rows: Rows) -> int:
        """How many groups the rows come from."""
        return len(np.unique(self._codes[rows]))


class WeightedRoc:
    """The ROC curve of fixed scores under many weights, sorted once.

    scores [n]: higher is more positive.
    positive: bool [n].
    """

    def __init__(self, scores: npt.ArrayLike, positive: npt.ArrayLike) -> None:
        score = np.asarray(scores, dtype=np.float64)
        self._order = np.argsort(-score, kind="stable")
        self._positive = np.asarray(positive, dtype=np.float64)[self._order]
        falling = score[self._order]
        # The curve has a point only where the score changes: equal scores are called together.
        self._points = np.flatnonzero(
            np.append(falling[1:] != falling[:-1], np.ones(min(len(falling), 1), dtype=bool))
        )

    def figures(self, weights: npt.ArrayLike, fprs: Sequence[float] = ()) -> Floats:
        """AUROC, then the largest true positive rate at each false positive rate of `fprs`.

        weights [..., n]: how often each score counts. Returns [1 + len(fprs), ...]; NaN where a
        class weighs nothing.
        """
        false, true = self._called(weights)
        defined = (false[..., -1] > 0) & (true[..., -1] > 0)
        false, true = ratio(false, false[..., -1:]), ratio(true, true[..., -1:])
        area = (np.diff(false) * (true[..., 1:] + true[..., :-1])).sum(axis=-1) / 2
        rates = [np.where(false <= fpr + _ROUNDING, true, 0.0).max(axis=-1) for fpr in fprs]
        return np.where(defined, np.stack([area, *rates]), np.nan)

    def average_precision(self, weights: npt.ArrayLike) -> Floats:
        """[...]: as scikit-learn's; NaN where a class weighs nothing."""
        false, true = self._called(weights)
        # Before the first call there is no recall either, so any precision will do.
        called = np.maximum(false[..., 1:] + true[..., 1:], np.finfo(np.float64).tiny)
        area = (np.diff(true) * true[..., 1:] / called).sum(axis=-1)
        return np.where(false[..., -1] > 0, ratio(area, true[..., -1]), np.nan)

    def _called(self, weights: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Weight of the negatives and positives called at each point: [..., 1 + points] each."""
        weight = np.asarray(weights, dtype=np.float64)[..., self._order]
        none = np.zeros((*weight.shape[:-1], 1))
        false, true = (
            np.append(none, np.cumsum(weight * own, axis=-1)[..., self._points], axis=-1)
            for own in (1 - self._positive, self._positive)
        )
        return false, true


def ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where whole is 0."""
    shape = np.broadcast_shapes(part.shape, whole.shape)
    shares: Floats = np.divide(part, whole, out=np.full(shape, np.nan), where=whole != 0)
    return shares


def percentile_interval(draws: Floats) -> tuple[Floats, Floats]:
    """The 95% interval (low, high) of the draws [..., b] of each figure.

    Efron & Tibshirani 1993, ch. 13. Undefined draws are left out; both ends are NaN where they are
    more than half, or where there is no draw.
    """
    if not draws.shape[-1]:
        nothing = np.full(draws.shape[:-1], np.nan)
        return nothing, nothing
    undefined = np.isnan(draws).mean(axis=-1, keepdims=True) > 0.5
    # Figures without any value would make nanquantile warn; their content does not matter.
    ends = np.nanquantile(np.where(undefined, 0.0, draws), [0.025, 0.975], axis=-1)
    low, high = np.where(undefined[..., 0], np.nan, ends)
    return low, high


def rate_interval(draws: Floats, n_groups: int) -> tuple[float, float]:
    """`percentile_interval` of a share; `draws[0]` is the share itself.

    Where nothing or everything was found, every draw agrees, which is no certainty: then the
    interval of Clopper and Pearson over `n_groups`.
    """
    low, high = percentile_interval(draws[1:])
    if low == high == draws[0] and draws[0] in (0.0, 1.0):
        return share_interval(n_groups if draws[0] else 0, n_groups)
    return float(low), float(high)


def share_interval(count: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share of `count` among `n` independent photos; NaN where n is 0.

    Clopper & Pearson 1934. The interval of a fractional count lies between its neighbours'.
    """
    if not n:
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    # As scipy.stats.binomtest(...).proportion_ci, which also runs a test: twenty times as long.
    low = float(betaincinv(count, n - count + 1, tail)) if count else 0.0
    return low, float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
