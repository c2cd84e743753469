"""How far the stated probabilities are from what happened: a 90% that comes true in 60% of the cases misleads whoever
multiplies it with money."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

N_BINS = 15


def equal_mass_bins(probability: npt.ArrayLike, n_bins: int = N_BINS) -> npt.NDArray[np.int64]:
    """The bin, from 0, of each of the probabilities [n]: edges at their quantiles, so that bins hold equally many.

    Equal probabilities share a bin, whatever the order of the rows, so some bins may be empty. The binning of
    `sklearn.calibration.calibration_curve(strategy="quantile")`.
    """
    values = np.asarray(probability, dtype=np.float64)
    edges = np.quantile(values, np.linspace(0, 1, n_bins + 1))
    return np.asarray(np.searchsorted(edges[1:-1], values), dtype=np.int64)


class ProbabilityError:
    """Brier score and expected calibration error of fixed probabilities under changing weights.

    `probability` [n] of synthetic, in 0..1; `synthetic` bool [n]. Bins are those of the photos themselves, for every
    draw of a bootstrap, so the error of a small draw is not mistaken for that of the model's binning.
    """

    def __init__(self, probability: npt.ArrayLike, synthetic: npt.ArrayLike) -> None:
        stated = np.asarray(probability, dtype=np.float64)
        self._excess = np.asarray(synthetic, dtype=np.float64) - stated
        self._bins = equal_mass_bins(stated) if len(stated) else np.zeros(0, dtype=np.int64)

    def figures(self, weights: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(Brier score, expected calibration error), both in 0..1, 0 best; `weights` [n]: how often a photo counts.

        Brier 1950. Expected calibration error (Naeini et al. 2015) over `equal_mass_bins`: the mean, weighted by their
        photos, of |share synthetic - mean probability|; it cannot be below 0, so a perfect model on few photos has some
        too, and its bootstrap draws lie rather above it: `calibration_interval`. NaN when nothing weighs anything.
        """
        weight = np.asarray(weights, dtype=np.float64)
        total = weight.sum()
        if not total:
            return np.full(2, np.nan)
        return np.array(
            [float(weight @ self._excess**2) / total, float(np.abs(self._missed(weight)).sum())]
        )

    def by_chance(self, weights: npt.ArrayLike) -> float:
        """The calibration error that the draw would have if these probabilities were right: what its bins differ by
        from those of the photos themselves (the consistency resampling of Bröcker & Smith 2007, for whole groups)."""
        weight = np.asarray(weights, dtype=np.float64)
        if not weight.sum():
            return float("nan")
        return float(np.abs(self._missed(weight) - self._missed(np.ones(len(weight)))).sum())

    def _missed(self, weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """[bins]: synthetic photos beyond the stated ones, as a share of all."""
        share: npt.NDArray[np.float64] = (
            np.bincount(self._bins, weight * self._excess) / weight.sum()
        )
        return share


def calibration_interval(
    error: float, low: float, high: float, chance: float
) -> tuple[float, float]:
    """The 95% interval of a calibration error, corrected for what drawing photos adds to it.

    A calibration error of few photos lies above that of the model, and its bootstrap draws above it by as much again,
    so their percentiles `low` and `high` may not even hold the figure. They are reflected about it: the basic interval
    (Davison & Hinkley 1997, 5.2), from 0 where right probabilities show as much (`chance`: the upper percentile of
    `ProbabilityError.by_chance`), and never without the figure itself. How often it holds the true error where that
    is known, and how seldom the percentiles do, a test simulates.
    """
    return 0.0 if error <= chance else max(0.0, 2 * error - high), max(error, 2 * error - low)
