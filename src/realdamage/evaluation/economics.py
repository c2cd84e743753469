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
from realdamage.evaluation.figures import NOT_CALIBRATED, labelled_and_scored
from realdamage.evaluation.predictions import clean, group_ids

NEVER = 1e6
"""No score reaches it: t_synthetic = NEVER refuses no claim, t_real = -NEVER pays none."""
PAID, REVIEWED, REFUSED = 0, 1, 2

_OUTCOMES = {"real": PAID, "review": REVIEWED, "synthetic": REFUSED}
# A photo with any other reason is reviewed at any score.
_THRESHOLD_REASONS = {"between_thresholds", NOT_CALIBRATED, "demo_model"}
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

    @property
    def per_claim(self) -> Floats:
        """Cost of a claim, [honest or fake, paid or reviewed or refused]."""
        return np.array(
            [
                [0.0, self.review_cost, self.accusation_cost],
                [self.claim_value, self.review_cost, 0.0],
            ]
        )


@dataclass(frozen=True)
class CostFigures:
    """What one way of deciding does.

    cost: per claim. reviewed: share of claims that a person looks at. stopped: share of fakes not
    paid. accused: share of honest claims refused. intervals: (low, high) of 95%, by bootstrap over
    groups.
    """

    name: str
    cost: float
    reviewed: float
    stopped: float
    accused: float
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class CostReport:
    """The ways of deciding compared: paying every claim, reviewing every claim, the outcomes in the
    table, and the thresholds of least cost on these photos, which flatter themselves a little.

    fpr, miss: the rates of these thresholds, as `realdamage calibrate` takes them.
    negatives: which real photos stand for honest claims, "damaged" or "real".
    """

    costs: Costs
    ways: tuple[CostFigures, ...]
    t_real: float
    t_synthetic: float
    fpr: float
    miss: float
    negatives: str
    n_real: int
    n_synthetic: int
    n_unscored: int


def cost_report(predictions: pd.DataFrame, costs: Costs, *, seed: int = 0) -> CostReport:
    """Costs of the unperturbed, scored photos: all synthetic ones, and the really damaged ones when
    there are at least 20, otherwise all real ones.

    Raises RealDamageError: a row without label, one class only, or photos of the split `train`.
    """
    photos = clean(predictions)
    scored = labelled_and_scored(photos)
    if (photos["split"] == "train").any():
        raise RealDamageError(
            f"{int((photos['split'] == 'train').sum())} of the photos were trained on (split "
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
    score = used["score"].to_numpy(dtype=np.float64)
    held = np.array([bool(set(each.split()) - _THRESHOLD_REASONS) for each in used["reasons"]])
    # [n, 3]: what each photo adds to the cost per claim, by outcome.
    share = np.where(fake, costs.fraud_rate / fake.sum(), (1 - costs.fraud_rate) / (~fake).sum())
    t_real, t_synthetic = _cheapest(
        score[~held], (share[:, None] * costs.per_claim[fake.astype(int)])[~held]
    )
    chosen = np.select([score >= t_synthetic, score <= t_real], [REFUSED, PAID], REVIEWED)
    chosen = np.where(held, REVIEWED, chosen)
    ways = {
        "pay every claim": np.full(len(used), PAID),
        "review every claim": np.full(len(used), REVIEWED),
        "as judged": used["outcome"].map(_OUTCOMES).fillna(REVIEWED).to_numpy(dtype=np.int64),
        "thresholds of least cost": chosen,
    }
    draws = GroupDraws(group_ids(used).to_numpy(), seed=seed)
    return CostReport(
        costs,
        tuple(_figures(name, outcomes, fake, costs, draws) for name, outcomes in ways.items()),
        t_real=t_real,
        t_synthetic=t_synthetic,
        fpr=float((score[~fake] >= t_synthetic).mean()),
        miss=float((score[fake] <= t_real).mean()),
        negatives="damaged" if only_damaged else "real",
        n_real=int((~fake).sum()),
        n_synthetic=int(fake.sum()),
        n_unscored=len(photos) - len(scored),
    )


def _cheapest(score: Floats, cost: Floats) -> tuple[float, float]:
    """(t_real, t_synthetic) of least total cost.

    score [n]. cost [n, 3]: of each photo when paid, reviewed, refused.
    """
    scores, codes = np.unique(score, return_inverse=True)
    of_score = np.zeros((len(scores), 3))
    np.add.at(of_score, codes, cost)
    # [scores + 1, 3]: cost of all photos below each cut between two scores.
    below = np.concatenate([np.zeros((1, 3)), np.cumsum(of_score, axis=0)])
    cuts = np.concatenate([[-NEVER], (scores[:-1] + scores[1:]) / 2, [NEVER]])[: len(below)]
    # Photos below the lower cut are paid, above the upper one refused: for each upper cut the best
    # lower one.
    gain = below[:, PAID] - below[:, REVIEWED]
    refused = below[-1, REFUSED] - below[:, REFUSED]
    total = np.minimum.accumulate(gain) + below[:, REVIEWED] + refused
    high = len(cuts) - 1 - int(np.argmin(total[::-1]))  # of equal costs the highest t_synthetic
    low = int(np.argmin(gain[: high + 1]))
    return float(cuts[low]), float(cuts[high])


def _figures(
    name: str,
    outcomes: npt.NDArray[np.int64],
    fake: npt.NDArray[np.bool_],
    costs: Costs,
    draws: GroupDraws,
) -> CostFigures:
    cells = (np.arange(6) == (3 * fake + outcomes)[:, None]).astype(np.float64)
    claims = np.array([1 - costs.fraud_rate, costs.fraud_rate])

    def statistic(weights: Floats) -> Floats:
        """[figures, b] under weights [b, photos]."""
        counts = (weights @ cells).reshape(-1, 2, 3)
        rates = ratio(counts, counts.sum(axis=-1, keepdims=True))
        cost = (rates * costs.per_claim).sum(axis=-1) @ claims
        stopped = 1 - rates[:, 1, PAID]
        return np.stack([cost, rates[..., REVIEWED] @ claims, stopped, rates[:, 0, REFUSED]])

    drawn = draws.figures(statistic, np.arange(len(fake)))
    ends = np.stack(percentile_interval(drawn[:, 1:]), axis=1).tolist()
    values = dict(zip(_FIGURES, drawn[:, 0].tolist(), strict=True))
    intervals = {key: (low, high) for key, (low, high) in zip(_FIGURES, ends, strict=True)}
    return CostFigures(name, **values, intervals=intervals)
