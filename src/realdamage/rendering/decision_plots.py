"""Draws what thresholds cost, what a probability means and what can be promised, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from realdamage.core.policy import Policy
from realdamage.evaluation.economics import CostFigures
from realdamage.evaluation.guarantee import photos_needed, smallest_share, upper_bound
from realdamage.evaluation.threshold_choice import NEVER, ThresholdChoice
from realdamage.rendering.plot_style import (
    BAD,
    CARD,
    GOOD,
    INK,
    LABEL_COLOURS,
    LINE,
    QUIET,
    Plot,
    legend,
    new_plot,
    percent,
    say,
)

_REAL, _SYNTHETIC = LABEL_COLOURS["real"], LABEL_COLOURS["synthetic"]


def restated(probability: float, prior: float, stated_at: float = 0.5) -> float:
    """A probability of synthetic that was stated at one share of fakes, at another one, `prior` (Elkan 2001)."""
    odds = probability / (1 - probability) * prior / (1 - prior) * (1 - stated_at) / stated_at
    return odds / (1 + odds)


def plot_ways(choice: ThresholdChoice) -> Plot:
    """What a claim costs by each way of deciding, with 95% intervals, and how many claims a person looks at."""
    held_out = [choice.cross_fitted] if choice.cross_fitted else []
    ways = [*choice.others, choice.figures, *held_out]
    figure, panels = new_plot(
        "What a claim costs, by the way of deciding",
        columns=3,
        size=(10.5, 1.8 + 0.42 * len(ways)),
        sharey=True,
    )
    for axes, key, text in zip(
        panels,
        ("cost", "reviewed", "accused"),
        ("cost per claim", "claims reviewed by a person", "honest claims refused"),
        strict=True,
    ):
        for place, way in enumerate(ways):
            chosen = way is choice.figures or way in held_out
            _bar(axes, way, key, place, GOOD if chosen else QUIET)
        axes.set(xlabel=text, xlim=(0, None))
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        if key != "cost":
            percent(axes.xaxis)
    panels[0].set_yticks(range(len(ways)), [way.name.strip() for way in ways])
    panels[0].set_ylim(len(ways) - 0.45, -0.55)
    sort = "really damaged" if choice.negatives == "damaged" else "real"
    say(
        panels[0],
        f"error rates of {choice.n_real:,} {sort} and {choice.n_synthetic:,} synthetic photos; lines: 95%",
    )
    return figure


def plot_cost_curve(
    curve: pd.DataFrame, choice: ThresholdChoice, policy: Policy | None = None
) -> Plot:
    """How the cost per claim moves with each threshold while the other stays (`cost_curve`)."""
    figure, panels = new_plot(
        "Where the cost per claim is least", columns=2, size=(10.5, 4.8), sharey=True
    )
    now = {} if policy is None else {"t_real": policy.t_real, "t_synthetic": policy.t_synthetic}
    texts = {
        "t_real": "score up to which a claim is paid unseen",
        "t_synthetic": "score from which a claim is refused unseen",
    }
    for axes, varied, colour in zip(panels, texts, (_REAL, _SYNTHETIC), strict=True):
        own = curve[curve["varied"] == varied]
        axes.plot(own["threshold"], own["cost"], color=colour, linewidth=2.2)
        chosen = getattr(choice, varied)
        ends = own["threshold"].min(), own["threshold"].max()
        if abs(chosen) < NEVER:
            axes.axvline(chosen, color=GOOD, linewidth=1.6, label=f"least cost: {chosen:+.2f}")
        else:
            axes.plot(
                [],
                [],
                color=GOOD,
                label=f"least cost: {'never' if _off(varied, chosen) else 'always'}",
            )
        if varied in now and ends[0] <= now[varied] <= ends[1]:
            axes.axvline(
                now[varied],
                color=QUIET,
                linewidth=1.4,
                linestyle="--",
                label=f"now: {now[varied]:+.2f}",
            )
        axes.set(xlabel=texts[varied])
        legend(axes, "upper right")
    panels[0].set(
        ylabel="cost per claim",
        ylim=(0, 1.15 * curve.loc[curve["varied"] == "t_real", "cost"].max()),
    )
    say(panels[0], "the other threshold stays at the chosen one")
    say(panels[1], "cut off where refusing too many costs more")
    return figure


def plot_cost_by_rate(table: pd.DataFrame, rate: float) -> Plot:
    """What a claim costs if the share of fakes were another (`cost_by_fraud_rate`); `rate`: the one chosen for."""
    figure, (axes,) = new_plot(
        "What if the share of fakes is another than thought", size=(10.5, 4.6)
    )
    lines = (
        ("pay_every_claim", "pay every claim", BAD, ":"),
        ("review_every_claim", "review every claim", QUIET, ":"),
        ("present", "thresholds now", INK, "--"),
        ("chosen", "the chosen thresholds", GOOD, "-"),
    )
    for column, text, colour, style in lines:
        axes.plot(table["fraud_rate"], table[column], style, color=colour, linewidth=2, label=text)
    axes.axvline(rate, color=LINE, linewidth=6, zorder=0)
    axes.set_xscale("log")
    axes.set(
        xlabel="share of claims that are fake (log axis)", ylabel="cost per claim", ylim=(0, None)
    )
    axes.minorticks_off()
    axes.set_xticks(table["fraud_rate"], [f"{100 * value:.2g}%" for value in table["fraud_rate"]])
    say(axes, f"grey: the share that the thresholds were chosen for, {rate:.2%}")
    legend(axes, "upper left")
    return figure


def plot_reliability(at_test: pd.DataFrame, at_prior: pd.DataFrame, prior: float) -> Plot:
    """The share that was synthetic over the stated probability (`reliability_table`): on the diagonal, a probability
    means what it says. at_prior: the same for another share of fakes, `prior`, on log axes, as most are small there."""
    figure, panels = new_plot("Does a probability mean what it says?", columns=2, size=(10.5, 5.2))
    for axes, table in zip(panels, (at_test, at_prior), strict=True):
        axes.plot([1e-6, 1], [1e-6, 1], color=QUIET, linewidth=1, linestyle=":")
        below = (table["observed"] - table["observed_low"]).clip(lower=0)
        above = (table["observed_high"] - table["observed"]).clip(lower=0)
        stated, observed = table["mean_probability"], table["observed"]
        axes.errorbar(
            stated,
            observed,
            yerr=[below, above],
            fmt="o",
            color=_SYNTHETIC,
            markersize=6,
            capsize=3,
        )
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="stated probability of synthetic")
    panels[0].set_ylabel("share that was synthetic")
    least = 0.7 * min(
        at_prior["mean_probability"].min(), at_prior["observed_low"].replace(0, 1).min()
    )
    panels[1].set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1.1))
    for axes in panels:
        percent(axes.xaxis)
        percent(axes.yaxis)
        axes.minorticks_off()
    say(
        panels[0],
        f"this test's photos: {len(at_test)} bins of about {at_test['n'].median():.0f}; bars: 95%",
    )
    say(panels[1], f"if {prior:.1%} of claims are fake (log axes)")
    return figure


def plot_prior(priors: Sequence[float], marked: float = 0.9) -> Plot:
    """What a probability stated for an even share of fakes (`restated`) is at other shares of fakes."""
    figure, (axes,) = new_plot(
        f"What {marked:.0%} means depends on how many claims are fake", size=(10.5, 4.8)
    )
    even = np.linspace(0.001, 0.999, 300)
    for prior, shade in zip(priors, np.linspace(1, 0.35, len(priors)), strict=True):
        axes.plot(
            even,
            [restated(float(value), prior) for value in even],
            color=_SYNTHETIC,
            alpha=shade,
            linewidth=2.2,
            label=f"{prior:.1%} of claims are fake",
        )
        found = restated(marked, prior)
        axes.plot(marked, found, "o", color=INK, markersize=6)
        axes.annotate(
            f"{found:.0%}",
            (marked, found),
            (-8, 6),
            textcoords="offset points",
            ha="right",
            fontsize=12,
            color=INK,
        )
    axes.axvline(marked, color=LINE, linewidth=1.2, zorder=0)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="probability if half of the claims were fake")
    axes.set_ylabel("probability among your claims")
    percent(axes.xaxis)
    percent(axes.yaxis)
    legend(axes, "upper left")
    return figure


def plot_promises(
    photos: int, delta: float = 0.05, shares: Sequence[float] = (0.05, 0.03, 0.01)
) -> Plot:
    """Which share of honest buyers accused can be promised with so many photos of real damage, none of which, or a few,
    score above the threshold. photos: those at hand, of independent groups."""
    figure, (axes,) = new_plot(
        "What can be promised grows with the photos of real damage", size=(10.5, 4.8)
    )
    counts = np.unique(np.geomspace(20, max(2000, 2 * photos), 160).astype(int))
    for errors, shade in ((0, 1.0), (1, 0.6), (5, 0.35)):
        bounds = [upper_bound(errors, int(n), delta) for n in counts]
        text = "no photo called synthetic" if not errors else f"{errors} called synthetic"
        axes.plot(counts, bounds, color=_REAL, alpha=shade, linewidth=2.2, label=text)
    for share in shares:
        needed = photos_needed(share, delta)
        axes.plot(needed, share, "o", color=INK, markersize=6)
        axes.annotate(
            f"{share:.0%}: {needed} photos", (needed, share), (9, 7), textcoords="offset points", color=INK,
            fontsize=11,
            bbox={"facecolor": CARD, "linewidth": 0, "pad": 1, "alpha": 0.85},
        )  # fmt: skip
    best = smallest_share(photos, delta)
    if best is not None:
        axes.axvline(photos, color=GOOD, linewidth=1.6)
        axes.annotate(
            f"yours: {photos} photos,\n{best:.2%} at best", (photos, 0.93), (6, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", va="top", color=GOOD, fontsize=11,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set(
        ylim=(0, 0.16),
        xlim=(counts[0], counts[-1]),
        xlabel="independent photos of real damage (log axis)",
    )
    axes.set_ylabel("share that can be promised")
    ticks = [n for n in (20, 50, 100, 200, 500, 1000, 2000, 5000) if counts[0] <= n <= counts[-1]]
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.minorticks_off()
    percent(axes.yaxis)
    say(
        axes,
        f"at most this share of honest buyers' photos is called synthetic, with {1 - delta:.0%} confidence",
    )
    legend(axes, "upper right")
    return figure


def plot_queue(early: pd.DataFrame) -> Plot:
    """Which share of the fakes that wait is found in the first part of the reviewing time (`found_early`)."""
    figure, (axes,) = new_plot("How soon the fakes in the review queue are found", size=(7.4, 5.0))
    reviewed = [0.0, *early["reviewed"], 1.0]
    low, high = [0.0, *early["low"], 1.0], [0.0, *early["high"], 1.0]
    axes.fill_between(reviewed, low, high, color=_SYNTHETIC, alpha=0.18, linewidth=0)
    axes.plot(
        reviewed,
        [0.0, *early["found"], 1.0],
        color=_SYNTHETIC,
        linewidth=2.2,
        marker="o",
        label="in this order",
    )
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1.2, linestyle=":", label="in any order")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="part of the reviewing time", ylabel="fakes found")
    percent(axes.xaxis)
    percent(axes.yaxis)
    say(axes, "band: 95%")
    legend(axes, "lower right")
    return figure


def _bar(axes: Axes, way: CostFigures, key: str, place: int, colour: str) -> None:
    value: float = getattr(way, key)
    interval: Any = way.intervals.get(key)
    axes.barh(place, value, height=0.62, color=colour, alpha=0.55)
    if interval:
        axes.plot(interval, [place, place], color=colour, linewidth=1.6)
    end = interval[1] if interval else value
    text = f"{value:.2f}" if key == "cost" else f"{value:.1%}"
    axes.annotate(
        text,
        (end, place),
        (5, 0),
        textcoords="offset points",
        va="center",
        fontsize=10.5,
        color=INK,
    )


def _off(varied: str, threshold: float) -> bool:
    """Whether a threshold that no score reaches means that nothing is decided unseen."""
    return threshold < 0 if varied == "t_real" else threshold > 0
