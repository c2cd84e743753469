"""The reliability diagram as a table: of the photos that were given 70%, how many were synthetic?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.core.policy import check_prior
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.predictions import check_predictions, clean, group_ids
from realdamage.evaluation.probabilities import N_BINS, equal_mass_bins
from realdamage.evaluation.resampling import share_interval

COLUMNS = (
    *(
        "bin",
        "n",
        "n_groups",
        "n_synthetic",
        "low_probability",
        "high_probability",
        "mean_probability",
    ),
    *("observed", "observed_low", "observed_high"),
)


def reliability_table(
    predictions: pd.DataFrame,
    *,
    bins: int = N_BINS,
    prior: float | None = None,
    calibration_prior: float | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """One row for each bin of equally many photos, by rising probability (Niculescu-Mizil & Caruana 2005): `COLUMNS`.

    mean_probability: what the model said, with the lowest and highest of the bin; observed: the share of synthetic
    photos among them; both in 0..1. observed_low, observed_high: its interval (Clopper & Pearson 1934), counting each
    group in the bin as one photo. Photos with equal probabilities share a bin, so there may be fewer bins.
    `prior`: the share of synthetic photos where the model is used; probabilities are re-weighted to it from
    `calibration_prior`, that of `Calibration.prior`, and the observed shares from the set's own share (Elkan 2001).
    Without it both stay as they are. Perturbed photos and those without a probability do not count.
    Raises RealDamageError: no probabilities (the model is not calibrated), or one class only; UsageError: a prior or
    `bins` is out of range, or `prior` comes without `calibration_prior`.
    """
    if bins < 1:
        raise UsageError(f"bins={bins} must be at least 1")
    check_predictions(predictions)
    photos = clean(predictions)
    photos = photos[photos["probability"].notna() & (photos["label"] != "")].reset_index(drop=True)
    synthetic = photos["label"].to_numpy() == "synthetic"
    stated = photos["probability"].to_numpy(dtype=np.float64)
    _check(synthetic, stated)
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
    rows = []
    for number, (_, chosen) in enumerate(frame.groupby(equal_mass_bins(stated, bins), sort=True)):
        groups, share = chosen["group"].nunique(), float(chosen["synthetic"].mean())
        figures = np.array([share, *share_interval(share * groups, groups, level)])
        values = (
            *(number, len(chosen), groups, int(chosen["synthetic"].sum())),
            *(chosen["stated"].min(), chosen["stated"].max(), chosen["stated"].mean()),
            *_reweighted(figures, odds),
        )
        rows.append(values)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _check(synthetic: npt.NDArray[np.bool_], stated: npt.NDArray[np.float64]) -> None:
    if not len(stated):
        raise RealDamageError(
            "no labelled photo has a probability: the model was not calibrated when it judged them. "
            "Run `realdamage calibrate` on it, then evaluate again."
        )
    if synthetic.all() or not synthetic.any():
        raise RealDamageError(
            f"A reliability diagram needs both classes; found {int(synthetic.sum())} synthetic and "
            f"{int((~synthetic).sum())} real photos with a probability."
        )
    wrong = stated[(stated < 0) | (stated > 1)]
    if len(wrong):
        raise RealDamageError(
            f"a probability of {wrong[0]} is not in 0..1; write the predictions again"
        )


def _reweighted(share: npt.NDArray[np.float64], odds: float) -> npt.NDArray[np.float64]:
    """Shares in 0..1 whose odds are multiplied by `odds`."""
    return share * odds / (share * odds + 1 - share)


def _odds(share: float) -> float:
    return share / (1 - share)
