"""The order in which a person should look at the claims that wait for review, so that the first hour of looking saves
the most; and how much sooner fakes are found that way than in any order.

A claim is worth looking at for the loss that its review avoids: the probability that it is fake times its value, per
minute that its photos take. A claim is as probably fake as its most suspicious photo says: the maximum, because one
painted photo makes a claim fake, and photos of one claim are too alike to multiply their probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.core.onnx_file import write_atomically
from realdamage.core.policy import Calibration, check_prior
from realdamage.data.bootstrap import DRAWS, bootstrap_interval
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.predictions import (
    check_predictions,
    clean,
    group_ids,
    read_table_csv,
    table_csv,
)

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Shares of the reviewing time at which `found_early` counts."""
QUEUE_COLUMNS = (
    *(
        "rank",
        "claim_id",
        "file_name",
        "photos",
        "probability",
        "claim_value",
        "expected_loss",
        "loss_per_minute",
    ),
    *("outcome", "score", "photo_probability", "label", "group"),
)


@dataclass(frozen=True, eq=False)
class Queue:
    """The claims to look at, in order.

    photos: one row per photo under `QUEUE_COLUMNS`, photos of one claim together, the most suspicious first; `rank` is
    the claim's, from 1. probability, expected_loss and loss_per_minute are the claim's, photo_probability the photo's.
    refused, paid: claims left out, because a photo was called synthetic, or all were called real. honest, fake: claims
    of the whole table by their labels, those left out included.
    """

    photos: pd.DataFrame
    refused: int
    paid: int
    honest: int
    fake: int

    @property
    def claims(self) -> pd.DataFrame:
        """One row per claim: its most suspicious photo's."""
        return self.photos.drop_duplicates("claim_id").reset_index(drop=True)


def triage_order(
    predictions: pd.DataFrame,
    *,
    claims: pd.DataFrame | None = None,
    calibration: Calibration | None = None,
    prior: float | None = None,
    claim_value: float | None = None,
    minutes_per_photo: float = 1.0,
    everything: bool = False,
) -> Queue:
    """The review queue of a predictions table: claims with a photo between the thresholds, or unreadable, and none
    called synthetic; every claim with `everything`.

    claims: columns claim_id, file_name and perhaps claim_value; a photo it does not name is a claim of its own, which
    every photo is without it. claim_value: of claims without one; 1 when no claim has one, which orders by probability.
    prior: share of fakes among the claims; needs the model's `calibration`, since a table does not tell which share its
    probabilities are for. Ties: sharper, then less compressed photos, which show a person more.
    Raises UsageError: a number out of range, a prior without calibration; RealDamageError: no probabilities in the
    table, claims that do not fit it.
    """
    check_predictions(predictions)
    if not (np.isfinite(minutes_per_photo) and minutes_per_photo > 0):
        raise UsageError(f"minutes_per_photo={minutes_per_photo} must be a finite number above 0")
    if claim_value is not None and not (np.isfinite(claim_value) and claim_value >= 0):
        raise UsageError(f"claim_value={claim_value} must be a finite amount, at least 0")
    photos = clean(predictions)
    photos = photos.assign(photo_probability=_probabilities(photos, calibration, prior))
    photos = _with_claims(photos, claims, claim_value)
    of_claim = photos.groupby("claim_id", sort=False)
    photos["photos"] = of_claim["file_name"].transform("size")
    photos["probability"] = of_claim["photo_probability"].transform("max")
    refused = photos["outcome"].eq("synthetic").groupby(photos["claim_id"]).transform("any")
    paid = photos["outcome"].eq("real").groupby(photos["claim_id"]).transform("all")
    left_out = {"refused": refused, "paid": paid}
    counts = {
        name: 0 if everything else photos.loc[rows, "claim_id"].nunique()
        for name, rows in left_out.items()
    }
    waiting = photos if everything else photos[~refused & ~paid]
    fake = photos["label"].eq("synthetic").groupby(photos["claim_id"]).any()
    return Queue(
        _ordered(waiting, minutes_per_photo),
        **counts,
        honest=int((~fake).sum()),
        fake=int(fake.sum()),
    )


def read_claims(path: str | Path) -> pd.DataFrame:
    """A CSV file with the columns claim_id, file_name and perhaps claim_value (a number or empty, NaN then).

    Raises UsageError: no such file; RealDamageError: a column is missing, a cell is empty or wrong, a photo is there
    twice.
    """
    try:
        table = read_table_csv(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Name a CSV file.") from error
    except (OSError, ValueError) as error:
        raise RealDamageError(f"{path}: not a readable CSV file ({error}).") from error
    missing = [column for column in ("claim_id", "file_name") if column not in table]
    if missing:
        raise RealDamageError(
            f"{path}: no column {', '.join(missing)}; found: {', '.join(table.columns)}. A table of claims has "
            "claim_id, file_name and perhaps claim_value."
        )
    for column in ("claim_id", "file_name"):
        empty = np.flatnonzero(table[column] == "")
        if len(empty):
            raise RealDamageError(
                f"{path}, row {empty[0] + 2}, column {column}: empty. Fill it in or remove the row."
            )
    twice = np.flatnonzero(table.duplicated("file_name"))
    if len(twice):
        raise RealDamageError(
            f"{path}, row {twice[0] + 2}: {table['file_name'].iat[twice[0]]} is there twice; a photo belongs to one "
            "claim. Remove a row."
        )
    if "claim_value" not in table:
        return table.assign(claim_value=np.nan)
    values = pd.to_numeric(table["claim_value"], errors="coerce")
    wrong = np.flatnonzero((table["claim_value"] != "") & ~(np.isfinite(values) & (values >= 0)))
    if len(wrong):
        raise RealDamageError(
            f"{path}, row {wrong[0] + 2}, column claim_value: found {table['claim_value'].iat[wrong[0]]!r}; allowed is "
            "a number of at least 0, or empty."
        )
    return table.assign(claim_value=values.astype("float64"))


def write_queue(path: str | Path, queue: Queue) -> None:
    """Writes the photos in order as CSV, whole or not at all. Raises RealDamageError: no room."""
    rounded = queue.photos.map(
        lambda value: float(f"{value:.6g}") if isinstance(value, float) else value
    )
    write_atomically(path, table_csv(rounded))


def found_early(
    queue: Queue, *, fraud_rate: float | None = None, n_boot: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Which share of the queue's fakes is found in the first share of its reviewing time: columns reviewed, found, low,
    high (95%, by bootstrap over groups) and random, what any other order finds in that time on average.

    fraud_rate: honest and fake claims are weighted to this share of fakes among all claims of the table, of which the
    queue is a part; None: as they are.
    Raises RealDamageError: a claim without label, or no fake or no honest claim waits.
    """
    photos = queue.photos
    if (photos["label"] == "").any():
        raise RealDamageError(
            "A claim in the queue has no label, so nobody knows which ones are fake."
        )
    claims = queue.claims
    fake = photos["label"].eq("synthetic").groupby(photos["claim_id"], sort=False).any().to_numpy()
    if fake.all() or not fake.any():
        raise RealDamageError(
            f"{int(fake.sum())} fake and {int((~fake).sum())} honest claims wait for review; both are needed to tell."
        )
    if fraud_rate is not None:
        check_prior(fraud_rate)
    minutes = claims["photos"].to_numpy(dtype=np.float64)

    def statistic(weights: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        weight = weights.astype(np.float64)
        if not weight[fake].any():
            return np.full(len(SHARES), np.nan)
        if fraud_rate is not None:
            weight = weight * np.where(
                fake, fraud_rate / queue.fake, (1 - fraud_rate) / queue.honest
            )
        spent, found = np.cumsum(weight * minutes), np.cumsum(weight * fake)
        shares: npt.NDArray[np.float64] = np.interp(
            SHARES, np.append(0, spent / spent[-1]), np.append(0, found / found[-1])
        )
        return shares

    low, high = bootstrap_interval(statistic, group_ids(claims), n_boot=n_boot, seed=seed)
    figures = statistic(np.ones(len(claims)))
    return pd.DataFrame(
        {"reviewed": SHARES, "found": figures, "low": low, "high": high, "random": SHARES}
    )


def try_order(queue: Queue, *, fraud_rate: float | None = None) -> tuple[pd.DataFrame | None, str]:
    """`found_early`, or None and why it cannot be told; a shop's own claims have no labels, and need none."""
    try:
        return found_early(queue, fraud_rate=fraud_rate), ""
    except UsageError:
        raise
    except RealDamageError as error:
        return None, str(error)


def format_queue(
    queue: Queue, early: pd.DataFrame | None, reason: str = "", first: int = 10
) -> str:
    """How many wait, the first claims, and what the order is worth, or the `reason` why that is not known."""
    claims = queue.claims
    lines = [
        f"{len(claims)} claims with {len(queue.photos)} photos wait for review; left out: {queue.refused} with a photo "
        f"called synthetic, {queue.paid} called real throughout (--all takes them in)"
    ]
    if len(claims):
        width = max(8, *(len(claim) for claim in claims["claim_id"].head(first)))
        lines += [
            "",
            f"rank  {'claim':<{width}}{'photos':>8}{'probability':>13}{'value':>10}{'loss a minute':>15}",
        ]
    for row in claims.head(first).to_dict("records"):
        known = not np.isnan(row["probability"])
        figures = f"{row['photos']:>8}" + (
            f"{row['probability']:>13.4f}" if known else f"{'unreadable':>13}"
        )
        worth = f"{row['claim_value']:>10g}" + (
            f"{row['loss_per_minute']:>15.4g}" if known else f"{'–':>15}"
        )
        lines.append(f"{row['rank']:>4}  {row['claim_id']:<{width}}{figures}{worth}")
    if early is not None:
        lines += [
            "",
            "of the fakes that wait, found in the first part of the reviewing time (any other order: that part)",
        ]
        lines += [
            f"  {row.reviewed:>4.0%}  {row.found:>6.1%}  (95%: {row.low:.1%} to {row.high:.1%})"
            for row in early.itertuples()
        ]
    elif reason and len(claims):
        lines += ["", f"What the order is worth is not known: {reason}"]
    return "\n".join(lines)


def _probabilities(
    photos: pd.DataFrame, calibration: Calibration | None, prior: float | None
) -> pd.Series:
    """Of each photo; NaN where it has no score."""
    if calibration is not None:
        scores = photos["score"].astype("float64")
        return scores.map(
            lambda score: np.nan if np.isnan(score) else calibration.probability(score, prior)
        )
    if prior is not None:
        raise UsageError(
            "a prior needs the model, which knows the share of fakes it was calibrated at: give --model"
        )
    lacking = photos["score"].notna() & photos["probability"].isna()
    if lacking.any() or not len(photos):
        raise RealDamageError(
            f"{int(lacking.sum())} of {len(photos)} photos have no probability: the model was not calibrated when it "
            "judged them. Run realdamage calibrate, then evaluate again or name the calibrated model with --model."
        )
    return photos["probability"].astype("float64")


def _with_claims(
    photos: pd.DataFrame, claims: pd.DataFrame | None, claim_value: float | None
) -> pd.DataFrame:
    """The photos with claim_id and claim_value."""
    photos = photos.assign(claim_id=photos["file_name"], claim_value=np.nan)
    if claims is not None:
        unknown = set(claims["file_name"]) - set(photos["file_name"])
        if unknown:
            raise RealDamageError(
                f"{len(unknown)} photos of the claims are not in the predictions, such as {min(unknown)!r}. Write them "
                "as the predictions' column file_name does."
            )
        named = claims.set_index("file_name")
        photos["claim_id"] = photos["file_name"].map(named["claim_id"]).fillna(photos["claim_id"])
        photos["claim_value"] = photos["file_name"].map(named["claim_value"])
        several = photos.groupby("claim_id")["claim_value"].nunique()
        if (several > 1).any():
            raise RealDamageError(
                f"Claim {several.idxmax()!r} has {several.max()} values; a claim has one."
            )
        photos["claim_value"] = photos.groupby("claim_id")["claim_value"].transform("max")
    without = photos["claim_value"].isna()
    if claim_value is None and without.any() and not without.all():
        raise RealDamageError(
            f"{photos.loc[without, 'claim_id'].nunique()} claims have no value, such as "
            f"{photos.loc[without, 'claim_id'].iat[0]!r}, others have one. Fill them in, or say --claim-value."
        )
    return photos.assign(
        claim_value=photos["claim_value"].fillna(1.0 if claim_value is None else claim_value)
    )


def _ordered(photos: pd.DataFrame, minutes_per_photo: float) -> pd.DataFrame:
    loss = photos["probability"] * photos["claim_value"]
    photos = photos.assign(
        expected_loss=loss, loss_per_minute=loss / (photos["photos"] * minutes_per_photo)
    )
    # A photo inside its claim; a claim by the quality of its best photo. What has no probability comes last.
    for column in ("sharpness", "compression"):
        photos[column] = photos.get(column, np.nan)
        photos[f"best_{column}"] = photos.groupby("claim_id")[column].transform("max")
    order = [
        "loss_per_minute",
        "best_sharpness",
        "best_compression",
        "claim_id",
        "photo_probability",
        "file_name",
    ]
    rising = [False, False, False, True, False, True]
    photos = photos.sort_values(
        order, ascending=rising, na_position="last", kind="stable"
    ).reset_index(drop=True)
    photos["rank"] = pd.factorize(photos["claim_id"])[0] + 1
    return photos[list(QUEUE_COLUMNS)]
