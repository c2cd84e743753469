"""What a claim costs a shop at its own fraud rate, by the way of deciding. The photos only lend
their error rates: no set of photos has a shop's fraud rate.

A fake that is paid costs the claim's value, a review its minutes, an honest buyer who is refused
the trust. `synthetic` means refused without a person looking, `real` paid. What an honest claim is
owed is paid in any case and does not count. A claim has one photo. Amounts are in any one currency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.data.bootstrap import Floats, GroupDraws, percentile_interval, ratio
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.calibration import MIN_DAMAGED
from realdamage.evaluation.figures import labelled_and_scored
from realdamage.evaluation.predictions import clean, group_ids

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
    """What one way of deciding does.

    cost: per claim. reviewed: share of claims that a person looks at. stopped: share of fakes not
    paid. accused: share of honest claims refused. intervals: (low, high) of 95% of each.
    """

    name: str
    cost: float
    reviewed: float
    stopped: float
    accused: float
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class CostReport:
    """Paying every claim, reviewing every claim, and the outcomes in the table, compared.

    negatives: which real photos stand for honest claims, "damaged" or "real".
    """

    costs: Costs
    ways: tuple[CostFigures, ...]
    negatives: str
    n_real: int
    n_synthetic: int


def cost_report(predictions: pd.DataFrame, costs: Costs, *, seed: int = 0) -> CostReport:
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
    draws = GroupDraws(group_ids(used).to_numpy(), seed=seed)
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
