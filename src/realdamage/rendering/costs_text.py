"""Costs and thresholds as lines for a terminal, in words that a fraud team uses; amounts without a currency."""

from __future__ import annotations

import pandas as pd

from realdamage.evaluation.economics import CostFigures, Costs
from realdamage.evaluation.threshold_choice import NEVER, ThresholdChoice


def format_costs(choice: ThresholdChoice, by_rate: pd.DataFrame) -> str:
    """What was counted, one row per way of deciding, the thresholds, and the cost at other shares of fakes
    (`cost_by_fraud_rate`)."""
    costs = choice.costs
    sort = "really damaged" if choice.negatives == "damaged" else "real"
    unscored = (
        f"; {choice.n_unscored} photos without a score do not count" if choice.n_unscored else ""
    )
    return "\n".join(
        [
            f"Rates of {choice.n_real} {sort} and {choice.n_synthetic} synthetic photos{unscored}.",
            *_assumptions(costs),
            "",
            *_ways(choice),
            *([f"  – {choice.reason}"] if choice.reason else []),
            "",
            *_thresholds(choice),
            "",
            *_by_rate(by_rate, costs),
        ]
    )


def _assumptions(costs: Costs) -> list[str]:
    photos = "1 photo" if costs.photos_per_claim == 1 else f"{costs.photos_per_claim} photos"
    lines = [
        f"Claims: {costs.fraud_rate:.3%} are fake, {photos} each. A fake that is paid costs {costs.claim_value:g}, a "
        f"review {costs.review_cost:g}, an honest buyer refused {costs.accusation_cost:g}.",
        f"Reviewers find {costs.detection:.0%} of the fakes and refuse {costs.wrong_refusal:.0%} of the honest claims "
        "they see. synthetic = refused unseen, real = paid unseen.",
    ]
    if costs.photos_per_claim > 1:
        lines.append(
            "A claim is refused for one photo called synthetic and paid when all are called real; a fake claim has one "
            "synthetic photo; photos of a claim are taken to err independently."
        )
    return lines


def _ways(choice: ThresholdChoice) -> list[str]:
    held_out = [choice.cross_fitted] if choice.cross_fitted else []
    ways = [*choice.others, choice.figures, *held_out]
    width = max(len("per claim"), *(len(way.name) for way in ways))
    titles = [
        f"{'':<{width + 32}}{'claims':>10}{'fakes':>9}{'honest':>9}{'fakes among':>14}{'fakes among':>14}",
        f"{'per claim':<{width}}{'cost':>10}  {'(95%)':<20}{'reviewed':>10}{'stopped':>9}{'refused':>9}"
        f"{'the refused':>14}{'the reviewed':>14}",
    ]
    return [*titles, *(_row(way, width) for way in ways)]


def _row(way: CostFigures, width: int) -> str:
    ends = way.intervals["cost"]
    interval = "" if ends is None or ends[0] == ends[1] else f"({ends[0]:.4g} to {ends[1]:.4g})"
    return (
        f"{way.name:<{width}}{way.cost:>10.4g}  {interval:<20}{way.reviewed:>10.2%}{way.stopped:>9.1%}"
        f"{way.accused:>9.2%}{_share(way.precision):>14}{_share(way.fakes_in_review):>14}"
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _thresholds(choice: ThresholdChoice) -> list[str]:
    refuse = "never" if choice.t_synthetic >= NEVER else f"score >= {choice.t_synthetic:+.3f}"
    pay = "never" if choice.t_real <= -NEVER else f"score <= {choice.t_real:+.3f}"
    if choice.t_real >= NEVER:
        pay = "always"
    elif choice.t_synthetic <= -NEVER:
        refuse = "always"
    lines = [f"synthetic     {refuse}", f"real          {pay}"]
    ways = {"t_synthetic": "refusing at lower scores", "t_real": "paying at higher scores"}
    lines += [
        f"The model's promise forbids {ways[name]}, which would cost less on these photos."
        for name in choice.bounded
    ]
    pay_all, review_all = choice.others[:2]
    held_out = choice.cross_fitted
    if choice.t_real >= NEVER:
        lines.append(
            "At these costs nothing beats paying every claim unseen: reviews cost more than the fakes they stop."
        )
    elif held_out and held_out.cost >= min(pay_all.cost, review_all.cost):
        cheaper = min((pay_all, review_all), key=lambda way: way.cost).name
        lines.append(
            f"On photos left out of the choice they cost no less than to {cheaper}: do not count on a saving."
        )
        if held_out.accused > choice.figures.accused:
            lines.append(
                "They refuse more honest claims there; realdamage calibrate --alpha promises a limit."
            )
    return lines


def _by_rate(by_rate: pd.DataFrame, costs: Costs) -> list[str]:
    rows = {
        "pay every claim": "pay_every_claim",
        "review every claim": "review_every_claim",
        "as now": "present",
        "these thresholds": "chosen",
        "chosen anew at that share": "chosen_anew",
    }
    heads = [
        f"{rate:.3%}" + ("*" if rate == costs.fraud_rate else "") for rate in by_rate["fraud_rate"]
    ]
    width = 2 + max(len(name) for name in rows)
    lines = [f"{'cost at fakes of':<{width}}" + "".join(f"{head:>11}" for head in heads)]
    for name, column in rows.items():
        lines.append(f"{name:<{width}}" + "".join(f"{cost:>11.4g}" for cost in by_rate[column]))
    return [*lines, "* as given"]
