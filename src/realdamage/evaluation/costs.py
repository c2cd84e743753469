"""What claims cost a shop, and in which order a person should look at them.

The photos only lend their error rates to the shop's own fraud rate and amounts, in one currency.
`synthetic` means refused without a person looking, `real` paid. A claim is as likely to be fake as
its most suspicious photo: photos of one claim are too alike to multiply their probabilities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.data.bootstrap import Floats, GroupDraws, percentile_interval, ratio
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.calibration import MIN_DAMAGED
from realdamage.evaluation.figures import labelled_and_scored
from realdamage.evaluation.predictions import clean, group_ids, read_table

PAID, REVIEWED, REFUSED = 0, 1, 2
_OUTCOMES = {"real": PAID, "review": REVIEWED, "synthetic": REFUSED}
_FIGURES = ("cost", "reviewed", "stopped", "accused")


@dataclass(frozen=True)
class Costs:
    """A shop's own numbers. Raises UsageError: a number out of range.

    fraud_rate: share of fake claims, in 0..1 exclusive.
    claim_value: lost when a fake is paid.
    review_cost: of a person looking at one claim.
    accusation_cost: of refusing an honest buyer.
    """

    fraud_rate: float
    claim_value: float
    review_cost: float
    accusation_cost: float

    def __post_init__(self) -> None:
        if not 0 < self.fraud_rate < 1:
            raise UsageError(f"fraud_rate={self.fraud_rate} must be above 0 and below 1")
        for key in ("claim_value", "review_cost", "accusation_cost"):
            if not 0 <= getattr(self, key) < math.inf:
                raise UsageError(f"{key}={getattr(self, key)} must be an amount of at least 0")


@dataclass(frozen=True)
class CostFigures:
    """What one way of deciding does: the cost of a claim, and the shares of claims reviewed, fakes
    not paid and honest claims refused. intervals: (low, high) of 95% of each."""

    name: str
    cost: float
    reviewed: float
    stopped: float
    accused: float
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class CostReport:
    """The ways compared. negatives: the real photos that stand for honest claims, "damaged" or
    "real"."""

    costs: Costs
    ways: tuple[CostFigures, ...]
    negatives: str
    n_real: int
    n_synthetic: int


def cost_report(predictions: pd.DataFrame, costs: Costs) -> CostReport:
    """Costs of the unperturbed, scored photos: all synthetic ones, and the really damaged ones when
    there are at least 20, otherwise all real ones.

    Raises RealDamageError: a row without label, one class only, or photos of the split `train`.
    """
    scored = labelled_and_scored(clean(predictions))
    if (scored["split"] == "train").any():
        raise RealDamageError(
            f"{int((scored['split'] == 'train').sum())} of the photos were trained on (split "
            "train), where a network errs less than elsewhere. Evaluate val, policy or test.",
            code="training_photos",
        )
    synthetic, damaged = scored["label"] == "synthetic", scored["kind"] == "damaged"
    only_damaged = (damaged & ~synthetic).sum() >= MIN_DAMAGED
    used = scored[synthetic | damaged] if only_damaged else scored
    fake = (used["label"] == "synthetic").to_numpy()
    if fake.all() or not fake.any():
        raise RealDamageError(
            f"Costs need both classes; found {(~fake).sum()} real and {fake.sum()} synthetic "
            "photos with a score. Evaluate a set with both.",
            code="one_class",
        )
    ways = {
        "pay every claim": np.full(len(used), PAID),
        "review every claim": np.full(len(used), REVIEWED),
        "as judged": used["outcome"].map(_OUTCOMES).fillna(REVIEWED).to_numpy(dtype=np.int64),
    }
    draws = GroupDraws(group_ids(used).to_numpy())
    return CostReport(
        costs,
        tuple(_figures(name, outcomes, fake, costs, draws) for name, outcomes in ways.items()),
        negatives="damaged" if only_damaged else "real",
        n_real=int((~fake).sum()),
        n_synthetic=int(fake.sum()),
    )


def _figures(
    name: str,
    outcomes: npt.NDArray[np.int64],
    fake: npt.NDArray[np.bool_],
    costs: Costs,
    draws: GroupDraws,
) -> CostFigures:
    cells = (np.arange(6) == (3 * fake + outcomes)[:, None]).astype(np.float64)
    claims = np.array([1 - costs.fraud_rate, costs.fraud_rate])
    # [honest or fake, paid or reviewed or refused]
    per_claim = np.array(
        [[0, costs.review_cost, costs.accusation_cost], [costs.claim_value, costs.review_cost, 0]]
    )

    def statistic(weights: Floats) -> Floats:
        """[figures, b] under weights [b, photos]."""
        counts = (weights @ cells).reshape(-1, 2, 3)
        rates = ratio(counts, counts.sum(axis=-1, keepdims=True))
        cost = (rates * per_claim).sum(axis=-1) @ claims
        stopped = 1 - rates[:, 1, PAID]
        return np.stack([cost, rates[..., REVIEWED] @ claims, stopped, rates[:, 0, REFUSED]])

    drawn = draws.figures(statistic, np.arange(len(fake)))
    ends = np.stack(percentile_interval(drawn[:, 1:]), axis=1).tolist()
    intervals = {key: (low, high) for key, (low, high) in zip(_FIGURES, ends, strict=True)}
    cost, reviewed, stopped, accused = drawn[:, 0].tolist()
    return CostFigures(name, cost, reviewed, stopped, accused, intervals)


# --- The review queue ---

QUEUE_COLUMNS = (
    *("rank", "claim_id", "file_name", "photos", "probability", "claim_value", "expected_loss"),
    *("loss_per_photo", "outcome", "score", "photo_probability", "label", "group"),
)


@dataclass(frozen=True, eq=False)
class Queue:
    """The claims to look at, in order.

    photos: one row per photo under `QUEUE_COLUMNS`, those of one claim together, the most
    suspicious first; rank, probability and losses are the claim's.
    refused, paid: claims left out, because a photo was called synthetic, or all were called real.
    """

    photos: pd.DataFrame
    refused: int
    paid: int

    @property
    def claims(self) -> pd.DataFrame:
        """One row per claim: its most suspicious photo's."""
        return self.photos.drop_duplicates("claim_id").reset_index(drop=True)


def triage_order(
    predictions: pd.DataFrame,
    *,
    claims: pd.DataFrame | None = None,
    claim_value: float | None = None,
) -> Queue:
    """The review queue: claims with a photo between the thresholds, or unreadable, and none called
    synthetic.

    claims: see `read_claims`; a photo that it does not name is a claim of its own.
    claim_value: of claims without one; when no claim has one, the order is by probability.
    Raises UsageError: a value out of range; RealDamageError: no probabilities, claims that do not
    fit.
    """
    if claim_value is not None and not 0 <= claim_value < np.inf:
        raise UsageError(f"claim_value={claim_value} must be an amount of at least 0")
    photos = clean(predictions)
    missing = photos["score"].notna() & photos["probability"].isna()
    if missing.any() or photos.empty:
        raise RealDamageError(
            f"{int(missing.sum())} of {len(photos)} photos have no probability: the model was not "
            "calibrated when it judged them. Run realdamage calibrate, then evaluate again.",
            code="not_calibrated",
        )
    photos = photos.rename(columns={"probability": "photo_probability"})
    photos = _with_claims(photos, claims, claim_value)
    claim = photos["claim_id"]
    photos["photos"] = claim.groupby(claim).transform("size")
    photos["probability"] = photos["photo_probability"].groupby(claim).transform("max")
    photos["expected_loss"] = photos["probability"] * photos["claim_value"]
    photos["loss_per_photo"] = photos["expected_loss"] / photos["photos"]
    refused = photos["outcome"].eq("synthetic").groupby(claim).transform("any")
    paid = photos["outcome"].eq("real").groupby(claim).transform("all")
    order = ["loss_per_photo", "claim_id", "photo_probability", "file_name"]
    waiting = photos[~refused & ~paid].sort_values(order, ascending=[False, True, False, True])
    waiting["rank"] = pd.factorize(waiting["claim_id"])[0] + 1
    return Queue(
        waiting[list(QUEUE_COLUMNS)].reset_index(drop=True),
        refused=claim[refused].nunique(),
        paid=claim[paid].nunique(),
    )


def read_claims(path: str | Path) -> pd.DataFrame:
    """A CSV file with the columns claim_id, file_name and perhaps claim_value (NaN where empty).

    Raises UsageError: no such file; RealDamageError: a column is missing, a cell is empty or wrong,
    a photo occurs twice.
    """
    table = read_table(path, ("csv",))
    missing = {"claim_id", "file_name"} - set(table)
    if missing:
        raise RealDamageError(
            f"{path}: no column {', '.join(sorted(missing))}; found: {', '.join(table.columns)}.",
            code="missing_columns",
        )
    values = table.get("claim_value", pd.Series("", table.index))
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    not_a_number = (values != "") & ~numbers.between(0, np.inf, inclusive="left")
    for column, wrong, fault in (
        ("claim_id", table["claim_id"] == "", "is empty"),
        ("file_name", table["file_name"] == "", "is empty"),
        ("file_name", table.duplicated("file_name"), "occurs twice; a photo has one claim"),
        ("claim_value", not_a_number, "must be a number of at least 0, or empty"),
    ):
        rows = np.flatnonzero(wrong)
        if len(rows):
            found = table[column].iat[rows[0]]
            raise RealDamageError(
                f"{path}, row {rows[0] + 2}, column {column}: {found!r} {fault}.",
                code="wrong_value",
            )
    return table.assign(claim_value=numbers)


def _with_claims(
    photos: pd.DataFrame, claims: pd.DataFrame | None, claim_value: float | None
) -> pd.DataFrame:
    """The photos with claim_id and claim_value."""
    photos = photos.assign(claim_id=photos["file_name"], claim_value=np.nan)
    if claims is not None:
        unknown = set(claims["file_name"]) - set(photos["file_name"])
        if unknown:
            raise RealDamageError(
                f"{len(unknown)} photos of the claims are not in the predictions, such as "
                f"{min(unknown)!r}. Write them as in the predictions' column file_name.",
                code="unknown_photo",
            )
        named = claims.set_index("file_name")
        photos["claim_id"] = photos["file_name"].map(named["claim_id"]).fillna(photos["claim_id"])
        values = photos["file_name"].map(named["claim_value"]).groupby(photos["claim_id"])
        several = values.nunique()
        if (several > 1).any():
            raise RealDamageError(
                f"Claim {several.idxmax()!r} has {several.max()} values; a claim has one.",
                code="several_values",
            )
        photos["claim_value"] = values.transform("max")
    without = photos["claim_value"].isna()
    if claim_value is None and without.any() and not without.all():
        raise RealDamageError(
            f"{photos.loc[without, 'claim_id'].nunique()} claims have no value, such as "
            f"{photos.loc[without, 'claim_id'].iat[0]!r}, others have one. Fill them in, or give "
            "--claim-value.",
            code="no_value",
        )
    return photos.fillna({"claim_value": 1.0 if claim_value is None else claim_value})
