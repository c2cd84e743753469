"""Intervals that respect groups: photos of one product rise and fall together, so whole groups are resampled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt


def bootstrap_interval(
    statistic: Callable[[npt.NDArray[np.int64]], npt.ArrayLike],
    groups: npt.ArrayLike,
    *,
    n_boot: int = 500,
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
    draws = [np.asarray(statistic(rng.multinomial(len(names), even)[codes]), dtype=np.float64) for _ in range(n_boot)]
    figures = np.stack(draws)
    undefined = np.isnan(figures).mean(axis=0) > 0.5
    tail = (1 - level) / 2
    # Columns without any value would make nanquantile warn; their content does not matter.
    low, high = np.nanquantile(np.where(undefined, 0.0, figures), [tail, 1 - tail], axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
