"""What a pair of thresholds costs a shop per claim, at its own fraud rate and costs, and which pair
costs least. The photos only lend their error rates: no set of photos has a shop's fraud rate.

A fake that is paid costs the claim's value, a review its minutes, an honest buyer who is refused
the trust. `synthetic` means refused without a person looking, `real` paid. What an honest claim is
owed is paid in any case and does not count. Amounts are in any one currency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from realdamage.core.model_file import write_model_file
from realdamage.core.policy import Policy
from realdamage.data.bootstrap import GroupDraws, percentile_interval
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.calibration import MIN_DAMAGED
from realdamage.evaluation.figures import NOT_CALIBRATED
from realdamage.evaluation.folder import read_judge
from realdamage.evaluation.predictions import check_predictions, clean, group_ids

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

NEVER = 1e6
"""No score reaches it: t_synthetic = NEVER refuses no claim, t_real = -NEVER pays none."""
PAID, REVIEWED, REFUSED = 0, 1, 2

_OUTCOMES = {"real": PAID, "review": REVIEWED, "synthetic": REFUSED}
# A photo with any other reason is reviewed at any score.
_THRESHOLD_REASONS = {"between_thresholds", NOT_CALIBRATED, "demo_model"}
_FIGURES = ("cost", "reviewed", "stopped", "accused", "precision", "fakes_in_review")
_MOST_CUTS = 800  # pairs of thresholds are tried, so their number grows with the square


@dataclass(frozen=True)
class Costs:
    """A shop's own numbers. Raises UsageError: a number out of range.

    fraud_rate: share of fake claims. claim_value: lost when a fake is paid. review_cost: of a
    person looking at one claim. accusation_cost: of refusing an honest buyer. detection: share of
    fakes that a reviewer finds. wrong_refusal: share of honest claims that a reviewer refuses.
    photos_per_claim: a claim is refused when one photo is called synthetic and paid when all are
    called real; a fake claim is assumed to have one synthetic photo, and photos to err
    independently.
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
            raise UsageError(f"fraud_rate={self.fraud_rate} must be above 0 and below 1")
        for key in ("claim_value", "review_cost", "accusation_cost"):
            if not 0 <= getattr(self, key) < math.inf:
                raise UsageError(f"{key}={getattr(self, key)} must be an amount of at least 0")
        for key in ("detection", "wrong_refusal"):
            if not 0 <= getattr(self, key) <= 1:
                raise UsageError(f"{key}={getattr(self, key)} must be in 0..1, a share of claims")
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
    """What one way of deciding does.

    cost: per claim. reviewed: share of claims that a person looks at. stopped: share of fakes not
    paid. accused: share of honest claims refused. precision, fakes_in_review: share of fakes among
    the claims refused unseen, and among those reviewed. intervals: 95%, by bootstrap over groups.
    None where undefined.
    """

    name: str
    cost: float
    reviewed: float
    stopped: float
    accused: float
    precision: float | None
    fakes_in_review: float | None
    intervals: dict[str, tuple[float, float] | None]


@dataclass(frozen=True, eq=False)
class CostSample:
    """The photos that lend their error rates, as arrays of one length.

    held: reviewed at any threshold, by a rule of the policy. judged: the outcome in the table.
    negatives: which real photos represent honest claims, "damaged" or "real".
    """

    score: Floats
    synthetic: npt.NDArray[np.bool_]
    held: npt.NDArray[np.bool_]
    judged: Codes
    group: npt.NDArray[Any]
    negatives: str
    n_unscored: int

    def part(self, rows: npt.NDArray[np.bool_]) -> CostSample:
        """These rows only."""
        arrays = ("score", "synthetic", "held", "judged", "group")
        return replace(self, **{name: getattr(self, name)[rows] for name in arrays})

    def outcomes(self, t_real: float, t_synthetic: float) -> Codes:
        """What thresholds do to each photo."""
        called = np.where(self.score <= t_real, PAID, REVIEWED)
        called = np.where(self.score >= t_synthetic, REFUSED, called)
        return np.where(self.held, REVIEWED, called)


@dataclass(frozen=True)
class ThresholdChoice:
    """The cheapest pair of thresholds, and what it is compared with.

    figures: on the photos the pair was chosen on, which flatters it. cross_fitted: of pairs chosen
    on four fifths of the groups and counted on the rest; None for `reason`. others: paying every
    claim, reviewing every claim, the present policy. bounded: thresholds that the model's guarantee
    kept from moving further.
    """

    t_real: float
    t_synthetic: float
    costs: Costs
    figures: CostFigures
    cross_fitted: CostFigures | None
    reason: str | None
    others: tuple[CostFigures, ...]
    bounded: tuple[str, ...]
    negatives: str
    n_real: int
    n_synthetic: int
    n_unscored: int


def cost_sample(predictions: pd.DataFrame) -> CostSample:
    """The scored photos without perturbation: all synthetic ones, and the really damaged ones when
    there are at least 20, otherwise all real ones.

    Raises RealDamageError: a row without label, one class only, or photos of the split `train`.
    """
    check_predictions(predictions)
    photos = clean(predictions)
    unlabelled = photos.loc[photos["label"] == "", "file_name"]
    if len(unlabelled):
        raise RealDamageError(
            f"{unlabelled.iat[0]}: no label. Label all {len(photos)} photos.", code="no_label"
        )
    if "split" in photos and (photos["split"] == "train").any():
        raise RealDamageError(
            f"{int((photos['split'] == 'train').sum())} of the photos were trained on (split "
            "train), where a network errs less than elsewhere. Evaluate val, policy or test.",
            code="training_photos",
        )
    scored = photos[photos["score"].notna()]
    synthetic, damaged = scored["label"] == "synthetic", scored["kind"] == "damaged"
    only_damaged = (damaged & ~synthetic).sum() >= MIN_DAMAGED
    used = scored[synthetic | damaged] if only_damaged else scored
    is_synthetic = (used["label"] == "synthetic").to_numpy()
    if is_synthetic.all() or not is_synthetic.any():
        raise RealDamageError(
            f"Costs need both classes; found {(~is_synthetic).sum()} real and {is_synthetic.sum()} "
            "synthetic photos with a score. Evaluate a set with both.",
            code="one_class",
        )
    reasons = used["reasons"].str.split()
    return CostSample(
        score=used["score"].to_numpy(dtype=np.float64),
        synthetic=is_synthetic,
        held=np.array([bool(set(codes) - _THRESHOLD_REASONS) for codes in reasons]),
        judged=np.asarray(used["outcome"].map(_OUTCOMES).fillna(REVIEWED), dtype=np.int64),
        group=group_ids(used).to_numpy(),
        negatives="damaged" if only_damaged else "real",
        n_unscored=len(photos) - len(scored),
    )


def choose_thresholds(
    sample: CostSample, costs: Costs, *, policy: Policy | None = None, seed: int = 0
) -> ThresholdChoice:
    """The thresholds with the least cost per claim on these photos; of equal ones, those that
    accuse and pay the fewest unseen.

    policy: of the model that made the predictions. Its guarantee is kept: one on honest photos
    keeps t_synthetic from falling, one on synthetic photos keeps t_real from rising.
    """
    pair, free = _least_cost(sample, costs, policy), _least_cost(sample, costs, None)
    moved = {"t_real": pair[0] < free[0], "t_synthetic": pair[1] > free[1]}
    held_out, reason = _cross_fitted(sample, costs, policy, seed)
    chosen = sample.outcomes(*pair)
    return ThresholdChoice(
        *pair,
        costs=costs,
        figures=cost_figures(sample, chosen, costs, "thresholds of least cost", seed),
        cross_fitted=held_out,
        reason=reason,
        others=tuple(
            cost_figures(sample, outcomes, costs, name, seed)
            for name, outcomes in other_ways(sample, policy).items()
        ),
        bounded=tuple(name for name in moved if policy and policy.guarantee and moved[name]),
        negatives=sample.negatives,
        n_real=int((~sample.synthetic).sum()),
        n_synthetic=int(sample.synthetic.sum()),
        n_unscored=sample.n_unscored,
    )


def other_ways(sample: CostSample, policy: Policy | None = None) -> dict[str, Codes]:
    """Outcomes of the ways that thresholds are compared with, by name."""
    present = ("as judged", sample.judged)
    if policy:
        now = sample.outcomes(policy.t_real, policy.t_synthetic)
        present = ("the model's thresholds now", now)
    return {
        "pay every claim": np.full_like(sample.judged, PAID),
        "review every claim": np.full_like(sample.judged, REVIEWED),
        present[0]: present[1],
    }


def cost_figures(
    sample: CostSample, outcomes: Codes, costs: Costs, name: str, seed: int = 0
) -> CostFigures:
    """What these outcomes, one for each photo of the sample, cost."""
    rows = np.arange(len(sample.score))
    draws = GroupDraws(sample.group, seed=seed).figures(
        lambda weights: _figures(sample, outcomes, costs, weights), rows
    )
    ends = zip(*(each.tolist() for each in percentile_interval(draws[:, 1:])), strict=True)
    values = [None if math.isnan(value) else value for value in draws[:, 0].tolist()]
    return CostFigures(
        name,
        **dict(zip(_FIGURES, values, strict=True)),  # type: ignore[arg-type]
        intervals={
            key: None if value is None or math.isnan(pair[0]) else pair
            for key, value, pair in zip(_FIGURES, values, ends, strict=True)
        },
    )


def cost_curve(sample: CostSample, choice: ThresholdChoice, points: int = 200) -> pd.DataFrame:
    """How the figures move with one threshold while the other stays: columns varied ("t_real" or
    "t_synthetic"), threshold (from the lowest to the highest score), then the figures."""
    cuts = np.unique(np.quantile(sample.score, np.linspace(0, 1, points), method="nearest"))
    rows = []
    for cut in cuts.tolist():
        for varied, low, high in (
            ("t_real", cut, max(cut, choice.t_synthetic)),
            ("t_synthetic", min(cut, choice.t_real), cut),
        ):
            figures = _figures(sample, sample.outcomes(low, high), choice.costs)
            rows.append((varied, cut, *figures))
    table = pd.DataFrame(rows, columns=["varied", "threshold", *_FIGURES])
    return table.sort_values("varied", kind="stable", ignore_index=True)


def cost_by_fraud_rate(
    sample: CostSample, choice: ThresholdChoice, *, policy: Policy | None = None
) -> pd.DataFrame:
    """Cost per claim at a tenth, a third, three and ten times of the fraud rate (below a half):
    columns fraud_rate, pay_every_claim, review_every_claim, present (policy), chosen (the
    thresholds stay), chosen_anew (the cheapest at that rate)."""
    own = choice.costs.fraud_rate
    rows = []
    for rate in (own / 10, own / 3, own, 3 * own, 10 * own):
        if rate >= 0.5 and rate != own:
            continue
        costs = replace(choice.costs, fraud_rate=rate)
        pairs = (choice.t_real, choice.t_synthetic), _least_cost(sample, costs, policy)
        outcomes = [*other_ways(sample, policy).values()] + [sample.outcomes(*one) for one in pairs]
        rows.append((rate, *(_figures(sample, each, costs)[0] for each in outcomes)))
    ways = ["pay_every_claim", "review_every_claim", "present", "chosen", "chosen_anew"]
    return pd.DataFrame(rows, columns=["fraud_rate", *ways])


def write_thresholds(
    path: str | Path, choice: ThresholdChoice, predictions: pd.DataFrame
) -> Policy:
    """Writes the chosen thresholds into the model file and returns the new policy. Guarantee,
    calibration and rules stay; the worst source, counted at the old thresholds, goes.

    Raises RealDamageError: see `read_judge`; the choice pays every claim unseen, or would break the
    file's guarantee.
    """
    onnx_bytes, metadata, policy = read_judge(path, predictions)
    least, most = _guaranteed(policy)
    if choice.t_synthetic < least or choice.t_real > most:
        raise RealDamageError(
            f"{path}: these thresholds would break its guarantee; choose them with its policy.",
            code="breaks_guarantee",
        )
    if choice.t_real >= NEVER:
        raise RealDamageError(
            "At these costs it is cheapest to pay every claim unseen. Nothing was written.",
            code="pays_every_claim",
        )
    sample = cost_sample(predictions)
    outcomes = sample.outcomes(choice.t_real, choice.t_synthetic)
    real = clean(predictions).dropna(subset="score").query("label == 'real'")
    chosen = replace(
        policy,
        t_synthetic=choice.t_synthetic,
        t_real=choice.t_real,
        fpr=float((outcomes[~sample.synthetic] == REFUSED).mean()),
        miss=float((outcomes[sample.synthetic] == PAID).mean()),
        negatives=sample.negatives,
        worst_source=None,
        photos={
            "real": len(real),
            "damaged": int((real["kind"] == "damaged").sum()),
            "synthetic": choice.n_synthetic,
        },
    )
    write_model_file(path, onnx_bytes, replace(metadata, policy=chosen))
    return chosen


def _figures(
    sample: CostSample, outcomes: Codes, costs: Costs, weights: Floats | None = None
) -> Floats:
    """The values of `_FIGURES`, [figures] or [figures, b] under `weights` [b, photos]; NaN where
    undefined."""
    cells = np.arange(6) == (3 * sample.synthetic.astype(np.int64) + outcomes)[:, None]
    counts = cells.sum(axis=0) if weights is None else weights @ cells
    counts = counts.reshape(*counts.shape[:-1], 2, 3).astype(np.float64)
    with np.errstate(invalid="ignore"):
        rates = counts / counts.sum(axis=-1, keepdims=True)
        claim_rates = np.moveaxis(_claim_rates(rates, costs.photos_per_claim), (-2, -1), (0, 1))
        honest, fake = claim_rates
        claims = (1 - costs.fraud_rate) * honest + costs.fraud_rate * fake
        fakes = np.where(claims > 1e-12, costs.fraud_rate * fake / claims, np.nan)
    return np.stack(
        [
            _cost(rates, costs),
            claims[REVIEWED],
            fake[REFUSED] + costs.detection * fake[REVIEWED],
            honest[REFUSED] + costs.wrong_refusal * honest[REVIEWED],
            fakes[REFUSED],
            fakes[REVIEWED],
        ]
    )


def _cost(photo_rates: Floats, costs: Costs) -> Floats:
    """Cost per claim from shares of photos [..., label, paid or reviewed or refused]."""
    claims = _claim_rates(photo_rates, costs.photos_per_claim)
    shares = np.array([1 - costs.fraud_rate, costs.fraud_rate])
    cost: Floats = (claims * costs.per_claim).sum(axis=-1) @ shares
    return cost


def _claim_rates(photo_rates: Floats, photos: int) -> Floats:
    """Shares of claims from shares of photos; all but one photo of a fake claim are real."""
    paid, refused = photo_rates[..., PAID], photo_rates[..., REFUSED]
    paid = paid * paid[..., :1] ** (photos - 1)
    refused = 1 - (1 - refused) * (1 - refused[..., :1]) ** (photos - 1)
    return np.stack([paid, 1 - paid - refused, refused], axis=-1)


def _guaranteed(policy: Policy | None) -> tuple[float, float]:
    """The least t_synthetic and the most t_real that keep the policy's guarantee."""
    if policy is None or policy.guarantee is None:
        return -NEVER, NEVER
    accused, passed = policy.guarantee.accused, policy.guarantee.passed
    return policy.t_synthetic if accused else -NEVER, policy.t_real if passed else NEVER


def _least_cost(sample: CostSample, costs: Costs, policy: Policy | None) -> tuple[float, float]:
    least, most = _guaranteed(policy)
    cuts = _cuts(sample)
    low = np.unique(np.append(cuts[cuts <= most], min(most, NEVER)))
    high = np.unique(np.append(cuts[cuts >= least], max(least, -NEVER)))
    rates = np.empty((len(low), len(high), 2, 3))
    for label in (0, 1):
        scores = np.sort(sample.score[(sample.synthetic == label) & ~sample.held])
        total = int((sample.synthetic == label).sum())
        below = np.searchsorted(scores, high, side="left")
        up_to = np.searchsorted(scores, low, side="right")[:, None]
        # A score at both thresholds is synthetic.
        rates[..., label, PAID] = np.minimum(up_to, below) / total
        rates[..., label, REFUSED] = (len(scores) - below) / total
    rates[..., REVIEWED] = 1 - rates[..., PAID] - rates[..., REFUSED]
    cost = np.where(low[:, None] <= high, _cost(rates, costs), np.inf)
    # Of equal costs the highest t_synthetic, then the lowest t_real.
    ties = np.argwhere(cost <= cost.min() + 1e-12)
    row, column = ties[np.lexsort((ties[:, 0], -ties[:, 1]))[0]]
    return float(low[row]), float(high[column])


def _cuts(sample: CostSample) -> Floats:
    """Thresholds worth trying: half-way between a real photo's score and a synthetic one's above it
    (elsewhere a step in one direction never costs more), and the two that no score reaches."""
    free = ~sample.held
    scores, codes = np.unique(sample.score[free], return_inverse=True)
    counts = np.zeros((len(scores), 2))
    np.add.at(counts, (codes, sample.synthetic[free].astype(int)), 1)
    corner = (counts[:-1, 0] > 0) & (counts[1:, 1] > 0)
    between = ((scores[:-1] + scores[1:]) / 2)[corner]
    if len(between) > _MOST_CUTS:
        between = between[np.linspace(0, len(between) - 1, _MOST_CUTS).round().astype(int)]
    return np.concatenate([[-NEVER], between, [NEVER]])


def _cross_fitted(
    sample: CostSample, costs: Costs, policy: Policy | None, seed: int
) -> tuple[CostFigures | None, str | None]:
    """What thresholds cost on groups that they were not chosen on, or why that is not known."""
    real, fake = (len(np.unique(sample.group[sample.synthetic == label])) for label in (0, 1))
    folds = min(5, real, fake)
    if folds < 2:
        return None, f"{real} groups of real and {fake} of synthetic photos; each needs at least 2"
    outcomes = np.full(len(sample.score), REVIEWED)
    names, of_group = np.unique(sample.group, return_inverse=True)
    has_fake = np.bincount(of_group, weights=sample.synthetic) > 0
    stratum = has_fake if min(has_fake.sum(), (~has_fake).sum()) >= folds else np.zeros(len(names))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for _, left_out in splitter.split(names, stratum):
        part = np.isin(of_group, left_out)
        rest = sample.part(~part)
        if len(np.unique(rest.synthetic)) < 2:
            return None, "one class is in so few groups that none are left to choose thresholds on"
        outcomes[part] = sample.part(part).outcomes(*_least_cost(rest, costs, policy))
    name = "  on photos left out of the choice"
    return cost_figures(sample, outcomes, costs, name, seed), None
