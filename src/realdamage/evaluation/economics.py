"""What a pair of thresholds costs a shop per claim, at its own share of fakes and its own costs, and which pair costs
least; the table's photos only lend their error rates, because no set of photos has a shop's share of fakes.

A fake that is paid costs the claim's value, a review its minutes, an honest buyer who is refused the trust. `synthetic`
counts as refused without a person looking, `real` as paid. What an honest claim is owed is paid in any case and counts
nowhere. Amounts are in any one currency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from realdamage.core.policy import Policy
from realdamage.data.bootstrap import DRAWS, bootstrap_interval
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.calibration import MIN_DAMAGED
from realdamage.evaluation.figures import NOT_CALIBRATED
from realdamage.evaluation.predictions import check_predictions, clean, group_ids

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

# Outcomes as columns of the rates below.
PAID, REVIEWED, REFUSED = 0, 1, 2
_OUTCOMES = {"real": PAID, "review": REVIEWED, "synthetic": REFUSED}
# Reasons that the thresholds decide about, or the lack of them; a photo with any other one is reviewed at any score.
_OF_THE_SCORE = {"between_thresholds", NOT_CALIBRATED, "demo_model"}
_FIGURES = ("cost", "reviewed", "stopped", "accused", "precision", "fakes_in_review")


@dataclass(frozen=True)
class Costs:
    """A shop's own numbers.

    fraud_rate: share of fake claims among all, above 0 and below 1. claim_value: refund lost when a fake is paid.
    review_cost: of a person looking at one claim. accusation_cost: of refusing an honest buyer.
    detection: share of fakes that a reviewer finds; wrong_refusal: share of honest claims that a reviewer refuses.
    photos_per_claim: a claim is refused when one of its photos is called synthetic and paid when all are called real.
    With several, a fake claim is taken to have one synthetic photo, and photos of one claim to err independently.

    Raises UsageError on a number out of range.
    """

    fraud_rate: float
    claim_value: float
    review_cost: float
    accusation_cost: float
    detection: float = 1.0
    wrong_refusal: float = 0.0
    photos_per_claim: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.fraud_rate < 1:
            raise UsageError(
                f"fraud_rate={self.fraud_rate} must be above 0 and below 1: the share of fake claims"
            )
        for key in ("claim_value", "review_cost", "accusation_cost"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{key}={value} must be a finite amount, at least 0")
        for key in ("detection", "wrong_refusal"):
            if not 0 <= getattr(self, key) <= 1:
                raise UsageError(
                    f"{key}={getattr(self, key)} must be in 0..1: a share of the claims reviewed"
                )
        if self.photos_per_claim < 1:
            raise UsageError(f"photos_per_claim={self.photos_per_claim} must be at least 1")

    @property
    def per_claim(self) -> Floats:
        """Cost of a claim, [honest or fake, paid or reviewed or refused]."""
        missed = self.review_cost + (1 - self.detection) * self.claim_value
        wronged = self.review_cost + self.wrong_refusal * self.accusation_cost
        return np.array([[0.0, wronged, self.accusation_cost], [self.claim_value, missed, 0.0]])


@dataclass(frozen=True)
class CostFigures:
    """What one way of deciding does, at the costs it was asked for.

    cost: per claim. reviewed: share of all claims that a person looks at. stopped: share of fakes not paid. accused:
    share of honest claims refused. precision: share of fakes among the claims refused unseen; fakes_in_review: among
    those reviewed; both None when there is no such claim. intervals: (low, high) of 95% of each of these figures, by
    bootstrap over groups; None where undefined. They tell of the photos' number, not of how like a shop's own they are.
    t_real, t_synthetic: None when the way of deciding has no thresholds.
    """

    name: str
    cost: float
    reviewed: float
    stopped: float
    accused: float
    precision: float | None
    fakes_in_review: float | None
    intervals: dict[str, tuple[float, float] | None]
    t_real: float | None = None
    t_synthetic: float | None = None


@dataclass(frozen=True, eq=False)
class CostSample:
    """The photos that lend their error rates: arrays of one length, in the table's order.

    score; synthetic: bool; held: bool, reviewed whatever the thresholds (a rule of the policy says so); judged: outcome
    in the table as code; group. negatives: which real photos stand for honest claims, "damaged" or "real".
    """

    score: Floats
    synthetic: npt.NDArray[np.bool_]
    held: npt.NDArray[np.bool_]
    judged: Codes
    group: npt.NDArray[Any]
    negatives: str
    calibrated: bool
    n_unscored: int

    def part(self, rows: npt.NDArray[Any]) -> CostSample:
        """These rows of it."""
        arrays = {
            key: getattr(self, key)[rows]
            for key in ("score", "synthetic", "held", "judged", "group")
        }
        return replace(self, **arrays)

    def outcomes(self, t_real: float, t_synthetic: float) -> Codes:
        """What thresholds do to each photo."""
        called = np.where(self.score <= t_real, PAID, REVIEWED)
        called = np.where(self.score >= t_synthetic, REFUSED, called)
        return np.where(self.held, REVIEWED, called)


def cost_sample(predictions: pd.DataFrame) -> CostSample:
    """The photos without perturbation that have a score: all synthetic ones, and the really damaged ones when there are
    at least 20, else all real ones.

    Raises RealDamageError: a row without label, one class only, or photos of the split `train`.
    """
    check_predictions(predictions)
    photos = clean(predictions)
    unlabelled = np.flatnonzero(photos["label"] == "")
    if len(unlabelled):
        raise RealDamageError(
            f"{photos['file_name'].iat[unlabelled[0]]}: no label, so no error can be counted. Label all "
            f"{len(photos)} photos."
        )
    if "split" in photos and (photos["split"] == "train").any():
        raise RealDamageError(
            f"{int((photos['split'] == 'train').sum())} of the photos were trained on (split train), where a network "
            "errs less than elsewhere. Evaluate split val, policy or test."
        )
    scored = photos[photos["score"].notna()]
    damaged = (scored["label"] == "real") & (scored["kind"] == "damaged")
    negatives = "damaged" if damaged.sum() >= MIN_DAMAGED else "real"
    synthetic = scored["label"] == "synthetic"
    used = scored[(damaged if negatives == "damaged" else ~synthetic) | synthetic].reset_index(
        drop=True
    )
    is_synthetic = (used["label"] == "synthetic").to_numpy()
    if is_synthetic.all() or not is_synthetic.any():
        raise RealDamageError(
            f"Costs need both classes; found {int((~is_synthetic).sum())} real and {int(is_synthetic.sum())} synthetic "
            "photos with a score. Evaluate a manifest or split with both."
        )
    reasons = used["reasons"].str.split()
    return CostSample(
        score=used["score"].to_numpy(dtype=np.float64),
        synthetic=is_synthetic,
        held=reasons.map(lambda codes: bool(set(codes) - _OF_THE_SCORE)).to_numpy(dtype=bool),
        judged=np.asarray(used["outcome"].map(_OUTCOMES).fillna(REVIEWED), dtype=np.int64),
        group=group_ids(used).to_numpy(),
        negatives=negatives,
        calibrated=not reasons.map(lambda codes: NOT_CALIBRATED in codes).any(),
        n_unscored=len(photos) - len(scored),
    )


def expected_cost(
    predictions: pd.DataFrame | CostSample,
    t_real: float,
    t_synthetic: float,
    costs: Costs,
    *,
    name: str = "these thresholds",
    n_boot: int = DRAWS,
    seed: int = 0,
) -> CostFigures:
    """What two thresholds cost. A t_real above t_synthetic counts as equal to it, as in `Policy`. Raises UsageError: a
    threshold is no number; RealDamageError: see `cost_sample`."""
    for key, value in (("t_real", t_real), ("t_synthetic", t_synthetic)):
        if not math.isfinite(value):
            raise UsageError(f"{key}={value} must be a finite number: a threshold on the score")
    sample = predictions if isinstance(predictions, CostSample) else cost_sample(predictions)
    figures = figures_of(
        sample, sample.outcomes(t_real, t_synthetic), costs, name=name, n_boot=n_boot, seed=seed
    )
    return replace(figures, t_real=min(t_real, t_synthetic), t_synthetic=t_synthetic)


def other_ways(
    sample: CostSample,
    costs: Costs,
    policy: Policy | None = None,
    *,
    n_boot: int = DRAWS,
    seed: int = 0,
) -> list[CostFigures]:
    """What thresholds are compared with: paying every claim, reviewing every claim, and the present policy: `policy`
    where given, else the outcomes in the table."""
    ways = [("pay every claim", np.full_like(sample.judged, PAID))]
    ways += [("review every claim", np.full_like(sample.judged, REVIEWED))]
    if policy is None:
        ways += [
            ("as judged" if sample.calibrated else "as judged (not calibrated)", sample.judged)
        ]
    found = [
        figures_of(sample, outcomes, costs, name=name, n_boot=n_boot, seed=seed)
        for name, outcomes in ways
    ]
    if policy is not None:
        name = "the model's thresholds now"
        found += [
            expected_cost(
                sample,
                policy.t_real,
                policy.t_synthetic,
                costs,
                name=name,
                n_boot=n_boot,
                seed=seed,
            )
        ]
    return found


def figures_of(
    sample: CostSample,
    outcomes: Codes,
    costs: Costs,
    *,
    name: str,
    n_boot: int = DRAWS,
    seed: int = 0,
) -> CostFigures:
    """What these outcomes, one for each photo of the sample, cost."""
    cell = 3 * sample.synthetic.astype(np.int64) + outcomes

    def statistic(weights: npt.NDArray[Any]) -> Floats:
        counts = np.bincount(cell, weights=weights.astype(np.float64), minlength=6).astype(
            np.float64
        )
        return _figures(_shares(counts.reshape(2, 3)), costs)

    values: list[Any] = [
        None if math.isnan(value) else value for value in statistic(np.ones(len(cell))).tolist()
    ]
    low, high = bootstrap_interval(statistic, sample.group, n_boot=n_boot, seed=seed)
    intervals = {
        key: None if value is None or math.isnan(ends[0]) else (ends[0], ends[1])
        for key, value, ends in zip(
            _FIGURES, values, np.stack([low, high], axis=1).tolist(), strict=True
        )
    }
    return CostFigures(name, **dict(zip(_FIGURES, values, strict=True)), intervals=intervals)


def cost_of_rates(photo_rates: Floats, costs: Costs) -> Floats:
    """Cost per claim from shares of photos [..., real or synthetic, paid or reviewed or refused]."""
    claims = _claim_rates(photo_rates, costs.photos_per_claim)
    per_class = (claims * costs.per_claim).sum(axis=-1)
    cost: Floats = (1 - costs.fraud_rate) * per_class[..., 0] + costs.fraud_rate * per_class[..., 1]
    return cost


def _shares(counts: Floats) -> Floats:
    totals = counts.sum(axis=-1, keepdims=True)
    shares: Floats = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    return shares


def _claim_rates(photo_rates: Floats, photos: int) -> Floats:
    """Shares of claims from those of photos; a fake claim has one synthetic photo beside real ones."""
    if photos == 1:
        return photo_rates
    paid, refused = photo_rates[..., PAID], photo_rates[..., REFUSED]
    others_paid = paid[..., 0] ** (photos - 1)
    others_pass = (1 - refused[..., 0]) ** (photos - 1)
    claims = np.empty_like(photo_rates)
    for label in (0, 1):
        claims[..., label, PAID] = paid[..., label] * others_paid
        claims[..., label, REFUSED] = 1 - (1 - refused[..., label]) * others_pass
    claims[..., REVIEWED] = 1 - claims[..., PAID] - claims[..., REFUSED]
    return claims


def _figures(photo_rates: Floats, costs: Costs) -> Floats:
    """The values of `_FIGURES`; NaN where undefined."""
    honest, fake = _claim_rates(photo_rates, costs.photos_per_claim)
    of_honest, of_fake = (1 - costs.fraud_rate) * honest, costs.fraud_rate * fake
    all_claims = of_honest + of_fake
    with np.errstate(invalid="ignore"):
        fakes = np.where(all_claims > 1e-12, of_fake / all_claims, np.nan)
    return np.array(
        [
            cost_of_rates(photo_rates, costs),
            all_claims[REVIEWED],
            fake[REFUSED] + costs.detection * fake[REVIEWED],
            honest[REFUSED] + costs.wrong_refusal * honest[REVIEWED],
            fakes[REFUSED],
            fakes[REVIEWED],
        ]
    )
