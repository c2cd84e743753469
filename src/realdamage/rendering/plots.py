"""Draws where a model is right and where it fails, for notebooks: ROC, scores, slices, robustness, pairs, the worst
photos. The figures come from `report_figures`, `slices`, `robustness_table` and `pairs`; nothing is computed here."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import groupby, pairwise
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.patches import Rectangle
from pandas.io.formats.style import Styler
from PIL import Image

from realdamage.data.vocabulary import KIND_LABELS
from realdamage.evaluation.slices import CLEAN, json_records
from realdamage.rendering.plot_style import (
    CARD,
    GOOD,
    INK,
    LABEL_COLOURS,
    LINE,
    QUIET,
    Plot,
    bare,
    legend,
    new_plot,
    percent,
    say,
)
from realdamage.rendering.report_examples import Example
from realdamage.rendering.report_figures import LOWEST_FPR, Curve, Headline, Histogram
from realdamage.rendering.report_plots import family_of

_REAL, _SYNTHETIC = LABEL_COLOURS["real"], LABEL_COLOURS["synthetic"]
_HEAT = LinearSegmentedColormap.from_list("share", [CARD, "#9ccdb2", GOOD])
_LEFT: Any = {"selector": "th, td", "props": "text-align: left"}
_FIGURES = {
    "auroc": "AUROC",
    "tpr_at_fpr_1": "synthetic photos found at 1% false alarms",
    "false_alarms": "really damaged photos called synthetic",
    "false_alarms_all_real": "all real photos called synthetic",
    "called_synthetic": "photos called synthetic",
}
"""Columns of `slice_table` and `robustness_table` that can be drawn, and how people call them."""


def headline_table(headlines: Sequence[Headline]) -> Styler:
    """`report_figures.headlines` to read: figure, value, its 95% interval, and what else to know."""

    def told(value: float | None, share: bool) -> str:
        return "" if value is None else f"{value:.1%}" if share else f"{value:.3f}"

    rows = [
        {
            "figure": row.title,
            "value": told(row.value, row.share) or "–",
            "95% interval": ""
            if row.low is None
            else f"{told(row.low, row.share)} to {told(row.high, row.share)}",
            "note": row.note
            or (
                ""
                if row.baseline is None
                else f"without any skill: {told(row.baseline, row.share)}"
            ),
        }
        for row in headlines
    ]
    return pd.DataFrame(rows).style.hide(axis="index").set_table_styles([_LEFT])


def plot_roc(curves: Sequence[Curve]) -> Plot:
    """Synthetic photos found over honest photos accused; the latter on a log axis, for only its left end matters."""
    figure, (axes,) = new_plot(
        "How many synthetic photos are found, at how many false alarms", size=(10.5, 5.2)
    )
    for curve, colour, style in zip(curves, (_SYNTHETIC, _REAL), ("-", "--"), strict=False):
        text = f"false alarms among {curve.negatives} photos ({curve.n:,})"
        axes.fill_between(
            curve.fpr, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0, step="post"
        )
        axes.step(
            curve.fpr,
            curve.tpr,
            where="post",
            color=colour,
            linestyle=style,
            linewidth=2.2,
            label=text,
        )
    grid = np.geomspace(LOWEST_FPR, 1, 100)
    axes.plot(grid, grid, color=QUIET, linewidth=1, linestyle=":", label="chance")
    if curves and 1 / curves[0].n > LOWEST_FPR:
        axes.axvspan(LOWEST_FPR, min(1.0, 1 / curves[0].n), color=QUIET, alpha=0.1, linewidth=0)
        text = f"less than 1 of\n{curves[0].n:,} photos"
        axes.text(LOWEST_FPR * 1.08, 0.97, text, color=QUIET, va="top", fontsize=10)
    for rate in (0.005, 0.01, 0.05):
        axes.axvline(rate, color=LINE, linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.set(xlim=(LOWEST_FPR, 1), ylim=(0, 1.005), ylabel="synthetic photos found")
    axes.set_xlabel("honest photos falsely called synthetic (log axis)")
    ticks = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1]
    axes.set_xticks(ticks, [f"{100 * tick:g}%" for tick in ticks])
    axes.minorticks_off()
    percent(axes.yaxis)
    say(axes, "bands: 95%, by bootstrap over groups")
    legend(
        axes,
        "upper center"
        if not curves or np.interp(0.1, curves[0].fpr, curves[0].tpr) < 0.6
        else "lower right",
    )
    return figure


def plot_scores(
    edges: Sequence[float], rows: Sequence[Histogram], thresholds: Sequence[float] = ()
) -> Plot:
    """Where each kind's scores lie (`report_figures.histograms`). thresholds: (t_real, t_synthetic)."""
    figure, (axes,) = new_plot("Scores by kind of photo", size=(10.5, 1.6 + 0.62 * len(rows)))
    centres = [(left + right) / 2 for left, right in pairwise(edges)]
    for level, row in enumerate(reversed(rows)):
        heights = [level + 0.85 * count / max(1, *row.counts) for count in row.counts]
        colour = LABEL_COLOURS[KIND_LABELS.get(row.kind, row.kind)]
        axes.fill_between(centres, level, heights, step="mid", color=colour, alpha=0.6, linewidth=0)
        axes.axhline(level, color=LINE, linewidth=0.8)
    for threshold, text, side in zip(
        thresholds,
        ("called real", "called synthetic"),
        ("right", "left"),
        strict=len(thresholds) == 2,
    ):
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--")
        shift = 4 if side == "left" else -4
        place = (min(max(threshold, edges[0]), edges[-1]), len(rows))
        axes.annotate(
            text, place, (shift, 3), textcoords="offset points", ha=side, color=QUIET, fontsize=10.5
        )
    axes.set_yticks(
        [level + 0.35 for level in range(len(rows))],
        [f"{row.kind} ({row.n:,})" for row in reversed(rows)],
    )
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set(
        xlim=(edges[0], edges[-1]), ylim=(0, len(rows)), xlabel="score (higher: more synthetic)"
    )
    axes.spines["left"].set_visible(False)
    return figure


def plot_slice_map(table: pd.DataFrame, rows: str, columns: str, figure: str = "auroc") -> Plot:
    """A figure of a `slice_table` by two keys as a heat map. Cells with too few photos say so, and have no colour."""
    down, across = list(dict.fromkeys(table[rows])), _in_order(table, rows, columns)
    title = f"{_FIGURES[figure]}, by {rows.replace('_', ' ')} and {columns.replace('_', ' ')}"
    plot, (axes,) = new_plot(title, size=(10.5, 1.7 + 0.52 * len(down)))
    for record in json_records(table):
        x, y = across.index(record[columns]), down.index(record[rows])
        value, known = record[figure], record[figure] is not None
        skill = 0.0 if value is None else 2 * value - 1 if figure == "auroc" else value
        face = _HEAT(min(1.0, max(0.0, skill))) if known else CARD
        axes.add_patch(
            Rectangle(
                (x - 0.5, y - 0.5),
                1,
                1,
                facecolor=face,
                edgecolor=LINE,
                hatch="" if known else "//",
                linewidth=1,
            )
        )
        first = (f"{value:.2f}" if figure == "auroc" else f"{value:.0%}") if known else "too few"
        colour = CARD if skill > 0.8 else INK if known else QUIET
        axes.text(
            x,
            y - 0.02,
            first,
            ha="center",
            va="bottom",
            fontsize=12.5 if known else 10,
            color=colour,
        )
        axes.text(
            x, y + 0.08, f"n = {record['n']:,}", ha="center", va="top", fontsize=9, color=colour
        )
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    axes.set(xlim=(-0.5, len(across) - 0.5), ylim=(len(down) - 0.5, -0.5))
    axes.set(xlabel="share of the photo that was painted" if columns == "mask_area" else columns)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    say(axes, "darker: better told from photos of real damage; hatched: too few photos to tell")
    return plot


def plot_slices(table: pd.DataFrame, by: str, figure: str = "auroc") -> Plot:
    """A figure of a `slice_table` by one key, with 95% intervals."""
    known = table[table[figure].notna()].reset_index(drop=True)
    title = f"{_FIGURES[figure]}, by {by.replace('_', ' ')}"
    plot, (axes,) = new_plot(title, size=(10.5, 1.7 + 0.42 * max(1, len(known))))
    for place, row in enumerate(json_records(known)):
        colour = LABEL_COLOURS[KIND_LABELS.get(row[by], "synthetic")]
        _interval(axes, row, figure, place, colour)
    axes.set_yticks(
        range(len(known)),
        [f"{name} ({n:,})" for name, n in zip(known[by], known["n"], strict=True)],
    )
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set(ylim=(max(0.5, len(known) - 0.4), -0.6), xlabel=_FIGURES[figure])
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    if figure == "auroc":
        axes.axvline(0.5, color=QUIET, linewidth=1, linestyle=":")
    else:
        percent(axes.xaxis)
    if not len(known):
        axes.text(
            0.5,
            0.5,
            "too few photos in every row to tell",
            color=QUIET,
            ha="center",
            transform=axes.transAxes,
        )
    left_out = len(table) - len(known)
    more = f"; {left_out} with too few photos are left out" if left_out else ""
    say(axes, f"in brackets: photos{more}")
    return plot


def plot_robustness(rows: Sequence[Mapping[str, Any]]) -> Plot:
    """What each perturbation does: AUROC and false alarms, on really damaged and on all real photos (without any, what
    is found at 1% of them), with 95% intervals, beside the photos as they are (dashed). rows: those of metrics.json,
    with their titles; of one family (jpeg_95, jpeg_70, …) they are joined.
    Without rows, a sentence on how to get them."""
    title = "What is left after a photo's way to us"
    if not rows:
        return _nothing(
            title, "This evaluation has the photos as they are alone; robustness=twelve adds more."
        )
    alarms = ("false_alarms", "false_alarms_all_real")
    known = [
        key for key in ("auroc", "tpr_at_fpr_1", *alarms) if any(_told(row, key) for row in rows)
    ]
    keys = [key for key in known if key != "tpr_at_fpr_1" or not set(alarms) & set(known)]
    size = (10.5, 1.7 + 0.3 * len(rows))
    figure, panels = new_plot(title, columns=len(keys), size=size, sharey=True)
    for axes, key in zip(panels, keys, strict=True):
        for _, same in groupby(
            range(len(rows)), key=lambda place: family_of(rows[place]["perturbation"])
        ):
            places = [place for place in same if _told(rows[place], key)]
            joined = [rows[place][key] for place in places]
            axes.plot(joined, places, color=_SYNTHETIC, linewidth=1.4, alpha=0.5, zorder=2)
            for place in places:
                _interval(axes, rows[place], key, place, _SYNTHETIC)
                if rows[place]["perturbation"] == CLEAN:
                    axes.axvline(
                        rows[place][key], color=GOOD, linewidth=1.4, linestyle="--", zorder=1
                    )
        axes.set(xlabel=_FIGURES[key])
        axes.grid(axis="x", color=LINE, linewidth=0.8)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        if key != "auroc":
            percent(axes.xaxis)
    panels[0].set_yticks(
        range(len(rows)), [row.get("title") or row["perturbation"] for row in rows]
    )
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    say(panels[0], "dashed: the photos as they are; bars: 95%")
    return figure


def plot_pairs(differences: pd.DataFrame) -> Plot:
    """How much higher each edit scores than its own original (`pair_differences`): on the left of zero, the model finds
    the original more suspicious. Without pairs, a sentence."""
    title = "Each edit against its own original"
    if not len(differences):
        return _nothing(
            title,
            "No edit was scored beside its original: the manifest's column pair says which it is.",
        )
    figure, (axes,) = new_plot(title, size=(10.5, 4.2))
    values = differences["difference"].to_numpy(dtype=np.float64)
    reach = float(np.abs(values).max()) or 1.0
    edges = np.linspace(-reach, reach, 42).tolist()
    kinds = differences["kind"].to_numpy()
    names = sorted(set(kinds))
    axes.hist(
        [values[kinds == kind] for kind in names],
        edges,
        stacked=True,
        color=[to_rgba(_SYNTHETIC, 1 - 0.7 * place / len(names)) for place in range(len(names))],
        label=[f"{kind} ({(kinds == kind).sum():,})" for kind in names],
    )
    axes.axvline(0, color=INK, linewidth=1.2)
    axes.axvline(float(np.median(values)), color=QUIET, linewidth=1.2, linestyle="--")
    axes.set(
        xlabel="score of the edit − score of its original", ylabel="pairs", xlim=(-reach, reach)
    )
    higher = float(np.mean((np.sign(values) + 1) / 2))
    say(
        axes,
        f"{higher:.0%} of {len(values):,} edits score higher; dashed: the median, {np.median(values):+.2f}",
    )
    legend(axes, "upper left")
    return figure


def plot_examples(title: str, rows: Sequence[Example], columns: int = 4) -> Plot:
    """Photos of `report_examples.examples`, each above its heat map: where the model saw what is not there."""
    rows = rows[:columns]
    figure, panels = new_plot(title, rows=2, columns=max(1, len(rows)), size=(10.5, 6.2))
    for axes in panels:
        bare(axes)
    for column, row in enumerate(rows):
        for picture, axes in zip(
            (row.picture, row.heat_map), panels[column :: len(rows)], strict=True
        ):
            if picture:
                axes.imshow(Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))))
        what = ", ".join(text for text in (row.kind, row.damage) if text)
        lines = [
            what,
            row.generator or row.source,
            f"score {row.score:+.2f}, {row.outcome}",
            row.note,
        ]
        say(panels[column], "\n".join(shorten(line, 26, placeholder="…") for line in lines if line))
    return figure


def _nothing(title: str, why: str) -> Plot:
    figure, (axes,) = new_plot(title, size=(10.5, 1.3))
    bare(axes)
    axes.text(0, 0.5, why, color=QUIET, fontsize=12, va="center")
    return figure


def _interval(axes: Axes, row: Mapping[str, Any], key: str, place: int, colour: str) -> None:
    """A figure as a dot on its interval."""
    if _told(row, f"{key}_low"):
        ends = [row[f"{key}_low"], row[f"{key}_high"]]
        axes.plot(
            ends,
            [place, place],
            color=colour,
            linewidth=5,
            alpha=0.35,
            solid_capstyle="round",
            zorder=2,
        )
    axes.plot([row[key]], [place], "o", color=colour, markersize=7, zorder=3)


def _told(row: Mapping[str, Any], key: str) -> bool:
    return row.get(key) is not None and not math.isnan(row[key])


def _in_order(table: pd.DataFrame, rows: str, columns: str) -> list[str]:
    """The values of the second key in the order that they have inside each value of the first."""
    sorter: TopologicalSorter[str] = TopologicalSorter({str(name): () for name in table[columns]})
    for _, own in table.groupby(rows, sort=False)[columns]:
        for before, after in pairwise(own):
            sorter.add(after, before)
    return list(sorter.static_order())
