"""Draws curves and intervals: as SVG for the report page, and on axes for notebooks."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageFilter

from realdamage.data.vocabulary import KIND_LABELS, KINDS, LABELS
from realdamage.evaluation.figures import LOWEST_FPR

INK, QUIET, LINE, CARD = "#1b2230", "#5d6778", "#dde2ea", "#ffffff"
GOOD, BAD, REAL, SYNTHETIC = "#1a7f4b", "#c0312b", "#3b73c4", "#d9772b"
LABEL_COLOURS = {"real": REAL, "synthetic": SYNTHETIC}
# On the page each of these becomes the variable, so that a drawing follows its light or dark
# colours.
_VARIABLES = {
    **{INK: "--ink", QUIET: "--quiet", LINE: "--line", CARD: "--card"},
    **{GOOD: "--good", BAD: "--bad", REAL: "--real", SYNTHETIC: "--fake"},
}
STYLE: Any = {
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": LINE},
    **{"axes.labelcolor": QUIET, "xtick.color": QUIET, "ytick.color": QUIET, "text.color": QUIET},
    **{"axes.titlecolor": QUIET, "axes.titlelocation": "left", "legend.frameon": False},
    **{"axes.facecolor": "none", "grid.color": LINE, "lines.linewidth": 1.8},
}
_PAGE_STYLE: Any = {
    **{"font.size": 8, "axes.labelsize": 8.5, "figure.facecolor": "none"},
    **{"savefig.facecolor": "none", "lines.linewidth": 1.6, "svg.fonttype": "none"},
}
_WIDTH = 3.9  # inches; at the width of a phone a letter is still 9 pixels high
_OUTLINE = (0, 200, 255)  # no product has this colour


def roc(axes: Axes, curves: Sequence[Mapping[str, Any]]) -> None:
    """Share found over share of false alarms, on a log axis: only the left end matters.

    curves: see `roc_curves`; the first one's photos say where the curve stops meaning anything.
    """
    if not curves:
        _too_few(axes)
        return
    for curve, colour, style in zip(curves, (SYNTHETIC, REAL), ("-", "--"), strict=False):
        band: Any = {"step": "post", "color": colour, "alpha": 0.16, "linewidth": 0}
        axes.fill_between(curve["fpr"], curve["low"], curve["high"], **band)
        label = f"{curve['negatives']} ({curve['n']:,} photos)"
        axes.step(
            curve["fpr"], curve["tpr"], where="post", color=colour, linestyle=style, label=label
        )
    grid = np.geomspace(LOWEST_FPR, 1, 60)
    axes.plot(grid, grid, color=QUIET, linewidth=0.8, linestyle=":", label="chance")
    axes.set_xscale("log")
    axes.set(xlim=(LOWEST_FPR, 1), ylim=(0, 1.005), ylabel="synthetic photos found")
    axes.set_xlabel("real photos falsely called synthetic")
    ticks = [0.001, 0.005, 0.01, 0.05, 0.1, 1]
    axes.set_xticks(ticks, [f"{100 * tick:g}%" for tick in ticks])
    axes.minorticks_off()
    percent_axis(axes.yaxis)
    axes.grid(axis="x", linewidth=0.8)
    nothing = 1 / curves[0]["n"]
    if nothing > LOWEST_FPR:
        grey: Any = {"color": QUIET, "alpha": 0.12, "linewidth": 0}
        label = f"less than 1 of {curves[0]['n']:,} photos"
        axes.axvspan(LOWEST_FPR, nothing, label=label, **grey)
    legend_below(axes, "false alarms counted on")


def reliability(axes: Axes, table: pd.DataFrame) -> None:
    """The share that is synthetic over the stated probability (`reliability_table`)."""
    if table.empty:
        _too_few(axes)
        return
    axes.axline((0, 0), slope=1, color=QUIET, linewidth=0.8, linestyle=":")
    below = (table["observed"] - table["observed_low"]).clip(lower=0)
    above = (table["observed_high"] - table["observed"]).clip(lower=0)
    stated, observed = table["mean_probability"], table["observed"]
    bars: Any = {"color": SYNTHETIC, "marker": "o", "markersize": 4, "capsize": 2, "linewidth": 1.2}
    axes.errorbar(stated, observed, yerr=[below, above], **bars)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="stated probability of synthetic")
    axes.set(ylabel="share that is synthetic")
    axes.set_title(
        f"{len(table)} bins of about {table['n'].median():.0f} photos", fontsize="medium"
    )
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)


def scores(axes: Axes, photos: pd.DataFrame, thresholds: Sequence[float] = ()) -> None:
    """A histogram of the scores for each kind, one above the other; the outermost half percent
    counts at the ends. thresholds: (t_real, t_synthetic) or ()."""
    low, high = photos["score"].quantile([0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, 37)
    clipped = photos["score"].clip(edges[0], edges[-1])
    kinds = photos["kind"].where(photos["kind"] != "", photos["label"])
    names = [kind for kind in (*KINDS, *LABELS) if (kinds == kind).any()][::-1]
    for level, kind in enumerate(names):
        counts = np.histogram(clipped[kinds == kind], edges)[0]
        heights = level + 0.82 * counts / max(1, counts.max())
        colour = LABEL_COLOURS[KIND_LABELS.get(kind, kind)]
        axes.stairs(heights, edges, baseline=level, fill=True, color=colour, alpha=0.55, lw=0)
        axes.axhline(level, color=LINE, linewidth=0.8)
    for threshold, outcome, side in zip(
        thresholds, ("real", "synthetic"), ("right", "left"), strict=False
    ):
        axes.axvline(threshold, color=INK, linewidth=1, linestyle="--")
        place = (min(max(threshold, edges[0]), edges[-1]), len(names))
        axes.annotate(f" {outcome} ", place, (0, 2), textcoords="offset points", ha=side)
    labels = [f"{kind} ({(kinds == kind).sum():,})" for kind in names]
    axes.set_yticks([level + 0.3 for level in range(len(names))], labels)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, len(names)))
    _rows(axes, "score (higher: more synthetic)")


def intervals(
    axes: Axes, rows: pd.DataFrame, title: str, colours: Sequence[str] | None = None
) -> None:
    """A dot on its 95% interval for each row. rows: label, value, low, high (NaN: not measured).

    colours: one for each row.
    """
    shades, places = colours or SYNTHETIC, range(len(rows))
    axes.hlines(places, rows["low"], rows["high"], colors=shades, linewidth=3.5, alpha=0.35)
    axes.scatter(rows["value"], places, s=16, c=shades, zorder=3)
    axes.set_yticks(places, rows["label"])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", linewidth=0.7)
    axes.set_axisbelow(True)
    _rows(axes, title)


def robustness(axes: Axes, rows: Sequence[Mapping[str, Any]], key: str, title: str) -> None:
    """The figure `key` after each perturbation, in the suite's order; dashed: the photos as they
    are."""
    if not rows:
        _too_few(axes)
        return
    columns = {"perturbation": "label", key: "value", f"{key}_low": "low", f"{key}_high": "high"}
    table = pd.DataFrame(list(rows)).reindex(columns=list(columns)).rename(columns=columns)
    table = table.astype(dict.fromkeys(("value", "low", "high"), float))
    table["label"] = table["label"].str.replace("_", " ")
    as_is = table.loc[table["label"] == "clean", "value"]
    if as_is.notna().any():
        axes.axvline(as_is.iloc[0], color=GOOD, linewidth=1, linestyle="--")
    intervals(axes, table, title)
    if key != "auroc":
        percent_axis(axes.xaxis)


def _too_few(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0, 0.5, "not drawn: too few photos")


def legend_below(axes: Axes, title: str = "") -> None:
    """The legend under the axes, where it hides no curve."""
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), title=title, alignment="left")


def percent_axis(axis: Axis) -> None:
    """Shares as percent."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:g}%")


def _rows(axes: Axes, title: str) -> None:
    axes.set_xlabel(title)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def svg(draw: Callable[..., None], title: str, *given: Any, height: float = 3.0) -> Markup:
    """What `draw(axes, *given)` draws, as an <svg> in the page's own colours, with no size and no
    ids of its own."""
    buffer = io.StringIO()
    # The salt keeps the ids of two drawings apart, and the same in every run.
    with rc_context({**STYLE, **_PAGE_STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure.add_subplot(), *given)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", buffer.getvalue(), flags=re.DOTALL)
    text = re.sub(r'<g id="\w+_\d+">', "<g>", text)  # figure_1, axes_1: the same in every drawing
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    head, body = text[text.index("<svg") :].split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    links = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    label = f'role="img" aria-label="{Markup.escape(title)}"'
    # matplotlib escapes the texts that it writes.
    return Markup(f"<svg {box[0] if box else ''} {links} {label}>{body}")


def outlined(
    rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_] | None, side: int
) -> Image.Image:
    """The photo, at most `side` pixels long, with a line around what its mask [h, w] marks."""
    small = Image.fromarray(rgb)
    small.thumbnail((side, side))
    if mask is None or mask.all():
        return small
    area = Image.fromarray(mask).convert("L").resize(small.size, Image.Resampling.BILINEAR)
    area = area.point([0] * 128 + [255] * 128)
    grown, shrunk = area.filter(ImageFilter.MaxFilter(3)), area.filter(ImageFilter.MinFilter(3))
    small.paste(_OUTLINE, (0, 0), ImageChops.difference(grown, shrunk))
    return small
