"""Fits the curve from score to probability, Platt's or an isotonic one, and says which of the two is nearer the truth
on groups that it was not fitted on.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from realdamage.core.policy import Calibration
from realdamage.errors import RealDamageError, UsageError

Method: TypeAlias = Literal["platt", "isotonic", "auto"]
FOLDS = 5


def fit_calibration(
    method: Method,
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    seed: int = 0,
) -> tuple[Calibration, dict[str, float] | None]:
    """The calibration by `method`, and for "auto" the Brier scores of both that it chose by, else None.

    "auto" takes isotonic when its Brier score on held-out groups is lower in the four digits that are told, else Platt.
    Arguments and errors: see `fit_platt`; UsageError: unknown method.
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
    """Platt scaling (Platt 1999): logistic regression of the label on the score, with his smoothed targets, so that
    scores which separate the classes entirely still give a finite slope.

    `scores` [n]; `labels` [n], 1 = synthetic; `groups` [n]: the photos of one class in one group weigh one photo
    together, so a product that was photographed often does not decide alone. The prior is the synthetic share of that
    weight. Raises RealDamageError: one class only, or scores that do not rise with the label.
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
            f"The scores do not rise with the label (slope {slope:.3g} on {len(score)} photos): this model does not "
            "tell the classes of this manifest apart. Check the labels, or train on photos like these."
        )
    prior = float(n_synthetic / (n_synthetic + n_real))
    return Calibration(
        slope=slope, intercept=float(model.intercept_[0]) - slope * centre, prior=prior
    )


def fit_isotonic(
    scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike
) -> Calibration:
    """Isotonic regression of the label on the score (Zadrozny & Elkan 2002), stored as its knots.

    Needs no assumption about the curve's form, but some hundred photos; scores within a step get one probability.
    Clipped to Platt's smoothed targets, because a hundred photos never show that a probability is 0 or 1.
    Arguments, weights, prior and errors: see `fit_platt`, which judges whether the scores rise at all.
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
    """The Brier score (in 0..1, 0 best) of both methods on folds of whole groups that they were not fitted on; photos
    weigh as in `fit_platt`. Raises RealDamageError: too few groups of a class, or the scores of a fold do not rise."""
    score, synthetic, weight = _weighted(scores, labels, groups)
    group = np.asarray(groups)
    folds = min(FOLDS, *(len(np.unique(group[chosen])) for chosen in (synthetic, ~synthetic)))
    if folds < 2:
        raise RealDamageError(
            "calibration=auto compares on held-out groups and needs two groups of each class; name platt or isotonic."
        )
    squared = {"platt": np.zeros(len(score)), "isotonic": np.zeros(len(score))}
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(
        score, synthetic, group
    ):
        for method, fit in (("platt", fit_platt), ("isotonic", fit_isotonic)):
            try:
                fitted = fit(score[train], synthetic[train], group[train])
            except RealDamageError as error:
                raise RealDamageError(
                    f"calibration=auto cannot compare on held-out groups; name platt or isotonic. {error}"
                ) from error
            stated = np.array([fitted.probability(value) for value in score[test]])
            squared[method][test] = (stated - synthetic[test]) ** 2
    return {method: float(np.average(errors, weights=weight)) for method, errors in squared.items()}


def _weighted(
    scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Scores, whether synthetic, and weights: one for the photos of one class in one group together."""
    score, synthetic = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if synthetic.all() or not synthetic.any():
        raise RealDamageError(
            f"Calibration needs scores of both classes; found {int(synthetic.sum())} synthetic and "
            f"{int((~synthetic).sum())} real ones."
        )
    frame = pd.DataFrame({"synthetic": synthetic, "group": np.asarray(groups)})
    return (
        score,
        synthetic,
        1 / frame.groupby(["synthetic", "group"])["group"].transform("size").to_numpy(np.float64),
    )
