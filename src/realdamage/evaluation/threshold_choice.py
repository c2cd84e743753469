"""Which two thresholds cost least per claim, without loosening what a model file promises; and how much of that is
only luck of the photos they were chosen on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from realdamage.core.metadata import ModelMetadata, read_model_file, write_model_file
from realdamage.core.policy import Policy
from realdamage.data.bootstrap import DRAWS
from realdamage.errors import RealDamageError
from realdamage.evaluation.economics import (
    PAID,
    REFUSED,
    REVIEWED,
    CostFigures,
    Costs,
    CostSample,
    Floats,
    cost_of_rates,
    cost_sample,
    expected_cost,
    figures_of,
    other_ways,
)
from realdamage.evaluation.predictions import clean

NEVER = 1e6
"""A threshold that no score, a logit, reaches: t_synthetic = NEVER refuses no claim, t_real = -NEVER pays none."""
# Pairs of thresholds are tried out, so their number grows with the square.
_MOST_CUTS = 800


@dataclass(frozen=True)
class ThresholdChoice:
    """The pair of least cost, and what it is compared with.

    figures: of the pair, on the photos it was chosen on, which flatters it. cross_fitted: of pairs chosen on four
    fifths of the groups and counted on the last; None where the groups are too few, `reason` says so.
    others: paying every claim, reviewing every claim, the present policy. bounded: which thresholds the model's promise
    kept from moving further. negatives, n_real, n_synthetic, n_unscored: the photos used.
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


def choose_thresholds(
    predictions: pd.DataFrame | CostSample,
    costs: Costs,
    *,
    policy: Policy | None = None,
    folds: int = 5,
    n_boot: int = DRAWS,
    seed: int = 0,
) -> ThresholdChoice:
    """The thresholds of least cost per claim on these photos; of equal ones, those that accuse and pay least unseen.

    policy: of the model that made the predictions. Its promise is kept: where it has one on honest photos accused,
    t_synthetic is at least the policy's; where it has one on synthetic photos passed, t_real is at most the policy's.
    Raises RealDamageError: see `cost_sample`.
    """
    sample = predictions if isinstance(predictions, CostSample) else cost_sample(predictions)
    t_real, t_synthetic = _least_cost(sample, costs, policy)
    held_out, reason = _cross_fitted(sample, costs, policy, folds, n_boot, seed)
    free = _least_cost(sample, costs, None)
    return ThresholdChoice(
        t_real=t_real,
        t_synthetic=t_synthetic,
        costs=costs,
        figures=expected_cost(
            sample,
            t_real,
            t_synthetic,
            costs,
            name="thresholds of least cost",
            n_boot=n_boot,
            seed=seed,
        ),
        cross_fitted=held_out,
        reason=reason,
        others=tuple(other_ways(sample, costs, policy, n_boot=n_boot, seed=seed)),
        bounded=tuple(
            name
            for name, moved in (
                ("t_real", t_real < free[0]),
                ("t_synthetic", t_synthetic > free[1]),
            )
            if policy and policy.guarantee and moved
        ),
        negatives=sample.negatives,
        n_real=int((~sample.synthetic).sum()),
        n_synthetic=int(sample.synthetic.sum()),
        n_unscored=sample.n_unscored,
    )


def cost_curve(
    predictions: pd.DataFrame | CostSample, choice: ThresholdChoice, points: int = 200
) -> pd.DataFrame:
    """How the figures move with one threshold while the other stays: columns varied ("t_real" or "t_synthetic"),
    threshold, cost, reviewed, stopped, accused, precision; thresholds from the lowest to the highest score."""
    sample = predictions if isinstance(predictions, CostSample) else cost_sample(predictions)
    cuts = np.unique(np.quantile(sample.score, np.linspace(0, 1, points), method="nearest"))
    rows = []
    for varied in ("t_real", "t_synthetic"):
        for cut in cuts.tolist():
            pair = (
                (cut, max(cut, choice.t_synthetic))
                if varied == "t_real"
                else (min(cut, choice.t_real), cut)
            )
            found = figures_of(sample, sample.outcomes(*pair), choice.costs, name=varied, n_boot=1)
            keys = ("cost", "reviewed", "stopped", "accused", "precision")
            rows.append(
                {"varied": varied, "threshold": cut, **{key: getattr(found, key) for key in keys}}
            )
    return pd.DataFrame(rows).astype({"precision": "float64"})


def cost_by_fraud_rate(
    predictions: pd.DataFrame | CostSample,
    choice: ThresholdChoice,
    *,
    rates: Sequence[float] | None = None,
    policy: Policy | None = None,
) -> pd.DataFrame:
    """Cost per claim if the share of fakes were another: columns fraud_rate, pay_every_claim, review_every_claim,
    present (policy), chosen (the thresholds stay), chosen_anew (thresholds of least cost at that rate). Without
    `rates`: the rate itself, a tenth, a third, three and ten times of it, below a half."""
    sample = predictions if isinstance(predictions, CostSample) else cost_sample(predictions)
    own = choice.costs.fraud_rate
    rates = rates or [
        rate for rate in (own / 10, own / 3, own, 3 * own, 10 * own) if rate < 0.5 or rate == own
    ]
    rows = []
    for rate in rates:
        costs = replace(choice.costs, fraud_rate=rate)
        pairs = [(choice.t_real, choice.t_synthetic), _least_cost(sample, costs, policy)]
        kept, anew = (
            figures_of(sample, sample.outcomes(*pair), costs, name="", n_boot=1).cost
            for pair in pairs
        )
        pay, review, present = (way.cost for way in other_ways(sample, costs, policy, n_boot=1))
        names = (
            "fraud_rate",
            "pay_every_claim",
            "review_every_claim",
            "present",
            "chosen",
            "chosen_anew",
        )
        rows.append(dict(zip(names, (rate, pay, review, present, kept, anew), strict=True)))
    return pd.DataFrame(rows)


def read_judge(path: str | Path, predictions: pd.DataFrame) -> tuple[bytes, ModelMetadata, Policy]:
    """The calibrated model file that these predictions are of: its bytes, its metadata, its policy.

    Raises ModelFileError; RealDamageError: not calibrated, or another model made the predictions.
    """
    onnx_bytes, metadata, digest = read_model_file(path)
    if metadata.policy is None or metadata.calibration is None:
        raise RealDamageError(
            f"{path}: not calibrated, so it has no thresholds. Run realdamage calibrate {path} first."
        )
    others = sorted(set(predictions["graph_sha256"]) - {digest, ""})
    if others:
        raise RealDamageError(
            f"{path} is another network (graph {digest[:12]}…) than the one of the predictions ({others[0][:12]}…). "
            "Name the model that was evaluated."
        )
    return onnx_bytes, metadata, metadata.policy


def write_thresholds(
    path: str | Path, choice: ThresholdChoice, predictions: pd.DataFrame
) -> Policy:
    """Puts the chosen thresholds into the model file; its promise, calibration and rules stay, its worst
    source, counted at the old thresholds, goes. Returns the new policy.

    Raises RealDamageError: see `read_judge`; the choice pays every claim unseen, or would loosen the file's promise.
    """
    onnx_bytes, metadata, policy = read_judge(path, predictions)
    least, most = _promised(policy)
    if choice.t_synthetic < least or choice.t_real > most:
        raise RealDamageError(
            f"{path}: these thresholds would break its promise; choose them with its policy."
        )
    if choice.t_real >= NEVER:
        raise RealDamageError(
            "At these costs it is cheapest to pay every claim unseen, for which no model is needed; nothing is written."
        )
    sample = cost_sample(predictions)
    outcomes = sample.outcomes(choice.t_real, choice.t_synthetic)
    scored = clean(predictions).dropna(subset="score")
    real = scored["label"] == "real"
    chosen = replace(
        policy,
        t_synthetic=choice.t_synthetic,
        t_real=choice.t_real,
        fpr=float((outcomes[~sample.synthetic] == REFUSED).mean()),
        miss=float((outcomes[sample.synthetic] == PAID).mean()),
        negatives=sample.negatives,
        worst_source=None,  # it was counted at the thresholds before
        photos={
            "real": int(real.sum()),
            "damaged": int((real & (scored["kind"] == "damaged")).sum()),
            "synthetic": choice.n_synthetic,
        },
    )
    write_model_file(path, onnx_bytes, replace(metadata, policy=chosen))
    return chosen


def _promised(policy: Policy | None) -> tuple[float, float]:
    """The least t_synthetic and the most t_real that keep the promise."""
    guarantee = policy.guarantee if policy else None
    if policy is None or guarantee is None:
        return -NEVER, NEVER
    return (
        policy.t_synthetic if guarantee.accused else -NEVER,
        policy.t_real if guarantee.passed else NEVER,
    )


def _least_cost(sample: CostSample, costs: Costs, policy: Policy | None) -> tuple[float, float]:
    least, most = _promised(policy)
    cuts = _cuts(sample)
    low = np.unique(np.append(cuts[cuts <= most], min(most, NEVER)))
    high = np.unique(np.append(cuts[cuts >= least], max(least, -NEVER)))
    rates = np.empty((len(low), len(high), 2, 3))
    for label in (0, 1):
        scores = np.sort(sample.score[(sample.synthetic == label) & ~sample.held])
        total = int((sample.synthetic == label).sum())
        below = np.searchsorted(scores, high, side="left")
        # A score at both thresholds is synthetic.
        rates[..., label, PAID] = (
            np.minimum(np.searchsorted(scores, low, side="right")[:, None], below) / total
        )
        rates[..., label, REFUSED] = (len(scores) - below) / total
    rates[..., REVIEWED] = 1 - rates[..., PAID] - rates[..., REFUSED]
    cost = np.where(low[:, None] <= high, cost_of_rates(rates, costs), np.inf)
    # Of equal costs the highest t_synthetic, then the lowest t_real.
    ties = np.argwhere(cost <= cost.min() + 1e-12)
    row, column = ties[np.lexsort((ties[:, 0], -ties[:, 1]))[0]]
    return float(low[row]), float(high[column])


def _cuts(sample: CostSample) -> Floats:
    """Thresholds worth trying: half-way between a real photo's score and a synthetic one's above it (elsewhere a step
    in one direction never costs more), and the two that no score reaches."""
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
    sample: CostSample, costs: Costs, policy: Policy | None, folds: int, n_boot: int, seed: int
) -> tuple[CostFigures | None, str | None]:
    groups = [len(np.unique(sample.group[sample.synthetic == label])) for label in (False, True)]
    parts = min(folds, *groups)
    if parts < 2:
        return (
            None,
            f"{groups[0]} groups of real and {groups[1]} of synthetic photos; at least 2 of each are needed",
        )
    outcomes = np.full(len(sample.score), REVIEWED)
    names, of_group = np.unique(sample.group, return_inverse=True)
    has_fake = np.bincount(of_group, weights=sample.synthetic) > 0
    sort = has_fake if min(has_fake.sum(), (~has_fake).sum()) >= parts else np.zeros(len(names))
    for _, left_out in StratifiedKFold(parts, shuffle=True, random_state=seed).split(names, sort):
        part = np.isin(of_group, left_out)
        rest = ~part
        if len(np.unique(sample.synthetic[rest])) < 2:
            return (
                None,
                "the photos of one class lie in so few groups that none are left to choose thresholds on",
            )
        pair = _least_cost(sample.part(rest), costs, policy)
        outcomes[part] = sample.part(part).outcomes(*pair)
    name = "  on photos left out of the choice"
    return figures_of(sample, outcomes, costs, name=name, n_boot=n_boot, seed=seed), None
