"""Probabilities: how they are fitted to scores, and how far they are from what happened.

A 90% that is right in 60% of the cases misleads anyone who multiplies it by an amount of money.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression

from realdamage.core.policy import Calibration
from realdamage.data.bootstrap import Floats, ratio, share_interval
from realdamage.errors import RealDamageError
from realdamage.evaluation.predictions import clean, group_ids

N_BINS = 15


def fit_platt(scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike) -> Calibration:
    """Logistic regression of the label [n] on the score [n], with the smoothed targets of Platt
    (1999), which give a finite slope even when the scores separate the classes completely.

    groups [n]: the photos of one class in one group together weigh as much as one photo. The prior
    is the synthetic share of the weight.
    Raises RealDamageError: one class only, or scores that do not rise with the label.
    """
    score, synthetic = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if synthetic.all() or not synthetic.any():
        raise RealDamageError(
            f"Calibration needs scores of both classes; found {int(synthetic.sum())} synthetic and "
            f"{int((~synthetic).sum())} real ones.",
            code="one_class",
        )
    frame = pd.DataFrame({"synthetic": synthetic, "group": np.asarray(groups)})
    sizes = frame.groupby(["synthetic", "group"])["group"].transform("size")
    weight = 1 / sizes.to_numpy(np.float64)
    n_synthetic, n_real = weight[synthetic].sum(), weight[~synthetic].sum()
    target = np.where(synthetic, (n_synthetic + 1) / (n_synthetic + 2), 1 / (n_real + 2))
    # A soft target is a photo seen twice: as synthetic with weight t, as real with 1 - t.
    centre, scale = score.mean(), score.std() or 1.0
    model = LogisticRegression(C=1e6, max_iter=1000).fit(
        np.tile((score - centre) / scale, 2)[:, None],
        np.repeat([1, 0], len(score)),
        sample_weight=np.concatenate([weight * target, weight * (1 - target)]),
    )
    slope = float(model.coef_[0, 0]) / scale
    if slope <= 0:
        raise RealDamageError(
            f"The scores do not rise with the label (slope {slope:.3g} on {len(score)} photos): "
            "this model does not separate the classes of this manifest. Check the labels, or train "
            "on photos like these.",
            code="scores_do_not_rise",
        )
    prior = float(n_synthetic / (n_synthetic + n_real))
    intercept = float(model.intercept_[0]) - slope * centre
    return Calibration(slope=slope, intercept=intercept, prior=prior)


def equal_mass_bins(probability: npt.ArrayLike, n_bins: int = N_BINS) -> npt.NDArray[np.int64]:
    """The bin, from 0, of each probability [n]: those of scikit-learn's `calibration_curve` with
    strategy="quantile". Equal probabilities share a bin, so some bins may be empty."""
    values = np.asarray(probability, dtype=np.float64)
    # As scikit-learn writes it: np.quantile differs in the last digit, and so bins ties elsewhere.
    edges = np.percentile(values, np.linspace(0, 1, n_bins + 1) * 100)
    return np.asarray(np.searchsorted(edges[1:-1], values), dtype=np.int64)


def calibration_errors(
    probability: npt.ArrayLike, synthetic: npt.ArrayLike
) -> Callable[[Floats], Floats]:
    """The expected calibration error (Naeini et al. 2015) as a function of weights [b, n]: [2, b].

    First the error: over `equal_mass_bins`, the mean of |share synthetic - mean probability|,
    weighted by the photos of the bins. Then the error that a draw would have if the probabilities
    were right: what its bins differ by from those of the photos themselves (consistency resampling,
    Bröcker & Smith 2007, for whole groups).
    """
    stated = np.asarray(probability, dtype=np.float64)
    # [n, bins]: each photo's excess in its own bin; bins are the same in every draw.
    excess = np.zeros((len(stated), N_BINS))
    own_bin = equal_mass_bins(stated)
    excess[np.arange(len(stated)), own_bin] = np.asarray(synthetic, dtype=np.float64) - stated
    own = excess.mean(axis=0)

    def errors(weights: Floats) -> Floats:
        missed = ratio(weights @ excess, weights.sum(axis=1, keepdims=True))
        return np.stack([np.abs(missed).sum(axis=1), np.abs(missed - own).sum(axis=1)])

    return errors


def reliability_table(predictions: pd.DataFrame, *, bins: int = N_BINS) -> pd.DataFrame:
    """The reliability diagram: of photos given 70%, how many were synthetic? One row per bin of
    equally many photos, by rising probability.

    observed: the share of synthetic photos, with the interval of Clopper and Pearson that counts
    each group as one photo.
    """
    photos = clean(predictions)
    photos = photos[photos["probability"].notna() & (photos["label"] != "")]
    synthetic, stated = photos["label"] == "synthetic", photos["probability"].astype(float)
    frame = pd.DataFrame({"stated": stated, "synthetic": synthetic, "group": group_ids(photos)})
    table = frame.groupby(equal_mass_bins(stated, bins)).agg(
        n=("stated", "size"),
        n_groups=("group", "nunique"),
        mean_probability=("stated", "mean"),
        observed=("synthetic", "mean"),
    )
    table[["observed_low", "observed_high"]] = [
        share_interval(share * n, n)
        for share, n in zip(table["observed"], table["n_groups"], strict=True)
    ]
    return table.reset_index(drop=True)
