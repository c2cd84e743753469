"""Probabilities: how they are fitted to scores, and how far they are from what happened.

A 90% that is right in 60% of the cases misleads anyone who multiplies it by an amount of money.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from realdamage.core.policy import Calibration, check_prior
from realdamage.data.bootstrap import Floats, share_interval
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.predictions import check_predictions, clean, group_ids

Method: TypeAlias = Literal["platt", "isotonic", "auto"]
FOLDS = 5
N_BINS = 15


def fit_calibration(
    method: Method,
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    seed: int = 0,
) -> tuple[Calibration, dict[str, float] | None]:
    """The calibration by `method`, and for "auto" the Brier scores that it chose by, else None.

    "auto" takes isotonic when its Brier score on held-out groups is lower in the four digits shown,
    else Platt. Arguments and errors as in `fit_platt`; UsageError: unknown method.
    """
    check_method(method)
    fitted = fit_platt(scores, labels, groups)
    brier = held_out_brier(scores, labels, groups, seed=seed) if method == "auto" else None
    if method == "isotonic" or (brier and round(brier["isotonic"], 4) < round(brier["platt"], 4)):
        fitted = fit_isotonic(scores, labels, groups)
    return fitted, brier


def check_method(method: str) -> None:
    """Raises UsageError: no method of that name."""
    if method not in get_args(Method):
        raise UsageError(
            f"calibration={method!r} is unknown; choose one of {', '.join(get_args(Method))}"
        )


def fit_platt(scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike) -> Calibration:
    """Logistic regression of the label on the score, with smoothed targets (Platt 1999).

    Smoothed targets give a finite slope even when the scores separate the classes completely.

    scores [n].
    labels [n]: 1 = synthetic.
    groups [n]: the photos of one class in one group weigh one photo together, so a product
    photographed often does not decide alone. The prior is the synthetic share of that weight.
    Raises RealDamageError: one class only, or scores that do not rise with the label.
    """
    score, synthetic, weight = _weighted(scores, labels, groups)
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
            "this model does not "
            "separate the classes of this manifest. Check the labels, or train on photos like "
            "these."
        )
    prior = float(n_synthetic / (n_synthetic + n_real))
    return Calibration(
        slope=slope, intercept=float(model.intercept_[0]) - slope * centre, prior=prior
    )


def fit_isotonic(
    scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike
) -> Calibration:
    """Isotonic regression of the label on the score (Zadrozny & Elkan 2002), stored as its knots.

    Assumes no shape, but needs a few hundred photos. Clipped to Platt's smoothed targets, because a
    hundred photos never show that a probability is 0 or 1. Arguments, weights, prior and errors as
    in `fit_platt`.
    """
    prior = fit_platt(scores, labels, groups).prior
    score, synthetic, weight = _weighted(scores, labels, groups)
    n_synthetic, n_real = weight[synthetic].sum(), weight[~synthetic].sum()
    model = IsotonicRegression(y_min=1 / (n_real + 2), y_max=(n_synthetic + 1) / (n_synthetic + 2))
    model.fit(score, synthetic.astype(np.float64), sample_weight=weight)
    knots = zip(model.X_thresholds_.tolist(), model.y_thresholds_.tolist(), strict=True)
    return Calibration(method="isotonic", knots=tuple(knots), prior=prior)


def held_out_brier(
    scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike, *, seed: int = 0
) -> dict[str, float]:
    """The Brier score (0..1, 0 is best) of both methods on whole groups held out.

    Raises RealDamageError: too few groups of a class, or the scores of a fold do not rise.
    """
    score, synthetic, weight = _weighted(scores, labels, groups)
    group = np.asarray(groups)
    folds = min(FOLDS, *(len(np.unique(group[chosen])) for chosen in (synthetic, ~synthetic)))
    if folds < 2:
        raise RealDamageError(
            "calibration=auto compares on held-out groups and needs two groups of each class; name "
            "platt or isotonic."
        )
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    squared = {"platt": np.zeros(len(score)), "isotonic": np.zeros(len(score))}
    for train, test in splits.split(score, synthetic, group):
        for method, fit in (("platt", fit_platt), ("isotonic", fit_isotonic)):
            try:
                fitted = fit(score[train], synthetic[train], group[train])
            except RealDamageError as error:
                raise RealDamageError(
                    "calibration=auto cannot compare on held-out groups; name platt or isotonic. "
                    f"{error}"
                ) from error
            stated = np.array([fitted.probability(value) for value in score[test]])
            squared[method][test] = (stated - synthetic[test]) ** 2
    return {method: float(np.average(errors, weights=weight)) for method, errors in squared.items()}


def _weighted(
    scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike
) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
    """Scores, whether synthetic, and weights: 1 for all photos of one class in one group."""
    score, synthetic = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if synthetic.all() or not synthetic.any():
        raise RealDamageError(
            f"Calibration needs scores of both classes; found {int(synthetic.sum())} synthetic and "
            f"{int((~synthetic).sum())} real ones."
        )
    frame = pd.DataFrame({"synthetic": synthetic, "group": np.asarray(groups)})
    sizes = frame.groupby(["synthetic", "group"])["group"].transform("size")
    return score, synthetic, 1 / sizes.to_numpy(np.float64)


def equal_mass_bins(probability: npt.ArrayLike, n_bins: int = N_BINS) -> npt.NDArray[np.int64]:
    """The bin, from 0, of each probability [n]; edges at quantiles, so that bins hold equally many.

    Equal probabilities share a bin, so some bins may be empty. Same bins as
    `sklearn.calibration.calibration_curve(strategy="quantile")`.
    """
    values = np.asarray(probability, dtype=np.float64)
    # As scikit-learn writes it: np.quantile differs in the last digit, and so bins ties elsewhere.
    edges = np.percentile(values, np.linspace(0, 1, n_bins + 1) * 100)
    return np.asarray(np.searchsorted(edges[1:-1], values), dtype=np.int64)


def calibration_errors(
    probability: npt.ArrayLike, synthetic: npt.ArrayLike
) -> Callable[[Floats], Floats]:
    """The expected calibration error (Naeini et al. 2015) as a function of weights [b, n].

    Returns [2, b], in 0..1. The first is, over `equal_mass_bins`, the mean over bins, weighted by
    their photos, of |share synthetic - mean probability|. It cannot be below 0, so even a perfect
    model has some on few photos, and its bootstrap draws lie above it: see `calibration_interval`.
    The second is the error that a draw would have if the probabilities were right: what its bins
    differ by from those of the photos themselves (consistency resampling, Bröcker & Smith 2007, for
    whole groups). Bins are the same in every draw, so a small draw is not blamed for its binning.
    """
    stated = np.asarray(probability, dtype=np.float64)
    bins = equal_mass_bins(stated)
    # [n, bins]: each photo's excess in its own bin.
    excess = np.zeros((len(stated), N_BINS))
    excess[np.arange(len(stated)), bins] = np.asarray(synthetic, dtype=np.float64) - stated
    own = excess.mean(axis=0)

    def errors(weights: Floats) -> Floats:
        total = weights.sum(axis=1, keepdims=True)
        missed = (weights @ excess) / np.where(total > 0, total, np.nan)
        return np.stack([np.abs(missed).sum(axis=1), np.abs(missed - own).sum(axis=1)])

    return errors


def calibration_interval(
    error: float, low: float, high: float, chance: float
) -> tuple[float, float]:
    """The 95% interval of a calibration error, corrected for what drawing photos adds to it.

    The error of few photos lies above that of the model, and its draws above it by as much again,
    so their percentiles `low` and `high` may miss the figure itself. They are reflected about it
    (basic interval, Davison & Hinkley 1997, 5.2), start at 0 where right probabilities would show
    as much (`chance`: the upper percentile of the error by chance), and always include the figure.
    A test simulates the coverage.
    """
    return 0.0 if error <= chance else max(0.0, 2 * error - high), max(error, 2 * error - low)


def reliability_table(
    predictions: pd.DataFrame,
    *,
    bins: int = N_BINS,
    prior: float | None = None,
    calibration_prior: float | None = None,
) -> pd.DataFrame:
    """The reliability diagram as a table: of photos given 70%, how many were synthetic?

    One row per bin of equally many photos, by rising probability (Niculescu-Mizil & Caruana 2005):
    bin, n, n_groups, n_synthetic, low_, high_ and mean_probability; observed: the share of
    synthetic photos, with the interval of Clopper and Pearson that counts each group in the bin as
    one photo.

    bins: how many; there are fewer where photos share a probability.
    prior: the share of synthetic photos where the model is used. Probabilities are re-weighted to
    it from `calibration_prior` (`Calibration.prior`), observed shares from the set's own share
    (Elkan 2001).
    Raises RealDamageError: no probabilities, or one class only; UsageError: a prior is out of
    range.
    """
    check_predictions(predictions)
    photos = clean(predictions)
    photos = photos[photos["probability"].notna() & (photos["label"] != "")].reset_index(drop=True)
    synthetic, stated = photos["label"] == "synthetic", photos["probability"].astype(float)
    if synthetic.all() or not synthetic.any():
        raise RealDamageError(
            f"A reliability diagram needs both classes; found {int(synthetic.sum())} synthetic and "
            f"{int((~synthetic).sum())} real photos with a probability. If there are none, run "
            "`realdamage calibrate` "
            "on the model, then evaluate again."
        )
    odds = 1.0
    if prior is not None:
        if calibration_prior is None:
            raise UsageError(
                "prior needs calibration_prior, the prior that the probabilities were stated at"
            )
        for given in (prior, calibration_prior):
            check_prior(given)
        stated = _reweighted(stated, _odds(prior) / _odds(calibration_prior))
        odds = _odds(prior) / _odds(float(synthetic.mean()))
    frame = pd.DataFrame({"stated": stated, "synthetic": synthetic, "group": group_ids(photos)})
    table = frame.groupby(equal_mass_bins(stated, bins)).agg(
        n=("stated", "size"),
        n_groups=("group", "nunique"),
        n_synthetic=("synthetic", "sum"),
        low_probability=("stated", "min"),
        high_probability=("stated", "max"),
        mean_probability=("stated", "mean"),
        observed=("synthetic", "mean"),
    )
    ends = [
        share_interval(x * n, n) for x, n in zip(table["observed"], table["n_groups"], strict=True)
    ]
    table[["observed_low", "observed_high"]] = ends
    observed = ["observed", "observed_low", "observed_high"]
    table[observed] = _reweighted(table[observed], odds)
    return table.reset_index(drop=True).rename_axis("bin").reset_index()


def _reweighted(share: Any, odds: float) -> Any:
    """Shares in 0..1, an array or a table, whose odds are multiplied by `odds`."""
    return share * odds / (share * odds + 1 - share)


def _odds(share: float) -> float:
    return share / (1 - share)
