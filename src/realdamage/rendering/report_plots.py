"""Draws a report's curves as inline SVG whose colours are those of the page, so that they change with it from light to
dark, and whose letters are letters: they can be searched, copied and read aloud."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Literal

from realdamage.data.vocabulary import KIND_LABELS
from realdamage.rendering.report_figures import LOWEST_FPR, Bin, Curve, Histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that nothing else has; what they become is the page's affair.
_INK, _QUIET, _LINE, _CARD = "#010203", "#010204", "#010205", "#010206"
_REAL, _FAKE, _BAD, _GOOD = "#010207", "#010208", "#010209", "#01020a"
_VARIABLES = {
    **{_INK: "--ink", _QUIET: "--quiet", _LINE: "--line", _CARD: "--card"},
    **{_REAL: "--real", _FAKE: "--fake", _BAD: "--bad", _GOOD: "--good"},
}
_WIDTH = 3.9  # inches; at the width of a phone a letter is still 9 pixels high


def roc_plot(curves: Sequence[Curve]) -> str:
    """True positive rate over false positive rate, the latter on a log axis: only its left end matters."""
    figure, axes = _figure(3.0)
    for curve, colour, style in zip(curves, (_FAKE, _REAL), ("-", "--"), strict=False):
        axes.fill_between(
            curve.fpr, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0, step="post"
        )
        label = f"{curve.negatives} ({curve.n:,} photos)"
        axes.step(
            curve.fpr,
            curve.tpr,
            where="post",
            color=colour,
            linestyle=style,
            linewidth=1.6,
            label=label,
        )
    first = curves[0]
    if 1 / first.n > LOWEST_FPR:
        axes.axvspan(LOWEST_FPR, 1 / first.n, color=_QUIET, alpha=0.1, linewidth=0)
        told, height = f"less than 1 of\n{first.n:,} photos", 0.03 if first.tpr[0] > 0.2 else 0.45
        axes.text(LOWEST_FPR * 1.12, height, told, color=_QUIET, fontsize=7.5)
    for rate in (0.005, 0.01, 0.05):
        axes.axvline(rate, color=_LINE, linewidth=0.8, zorder=0)
    axes.plot(first.fpr, first.fpr, color=_QUIET, linewidth=0.8, linestyle=":", label="chance")
    axes.set_xscale("log")
    axes.set(xlim=(LOWEST_FPR, 1), ylim=(0, 1), ylabel="synthetic photos found")
    axes.set_xlabel("real photos falsely called synthetic")
    ticks = [0.001, 0.005, 0.01, 0.05, 0.1, 1]
    axes.set_xticks(ticks, [f"{100 * tick:g}%" for tick in ticks])
    axes.minorticks_off()
    _percent(axes, "y")
    _legend(axes, "lower right" if first.tpr[len(first.tpr) // 2] > 0.6 else "upper left")
    return _svg(figure, "roc", "ROC curve at low false positive rates")


def reliability_plot(bins: Sequence[Bin]) -> str:
    """The share that is synthetic over the stated probability; on the diagonal a probability means what it says."""
    figure, axes = _figure(3.0)
    axes.plot([0, 1], [0, 1], color=_QUIET, linewidth=0.8, linestyle=":")
    stated, observed = [each.stated for each in bins], [each.observed for each in bins]
    below = [max(0.0, each.observed - each.low) for each in bins]
    above = [max(0.0, each.high - each.observed) for each in bins]
    axes.errorbar(
        stated,
        observed,
        yerr=[below, above],
        color=_FAKE,
        linewidth=1.2,
        marker="o",
        markersize=4,
        capsize=2,
    )
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="stated probability of synthetic",
        ylabel="share that is synthetic",
    )
    _percent(axes, "x")
    _percent(axes, "y")
    axes.text(
        0.03,
        0.95,
        f"{len(bins)} bins of about {bins[0].n:,} photos",
        color=_QUIET,
        va="top",
        fontsize=8,
    )
    return _svg(figure, "reliability", "Reliability diagram")


def histogram_plot(
    edges: Sequence[float], rows: Sequence[Histogram], thresholds: Sequence[float]
) -> str:
    """Where each kind's scores lie, one above the other, with the two thresholds (t_real, t_synthetic) through all."""
    figure, axes = _figure(0.75 + 0.42 * len(rows))
    centres = [(left + right) / 2 for left, right in pairwise(edges)]
    for level, row in enumerate(reversed(rows)):
        most = max(row.counts) or 1
        colour = _FAKE if KIND_LABELS.get(row.kind, row.kind) == "synthetic" else _REAL
        heights = [level + 0.82 * count / most for count in row.counts]
        axes.fill_between(
            centres, level, heights, step="mid", color=colour, alpha=0.55, linewidth=0
        )
        axes.axhline(level, color=_LINE, linewidth=0.8)
    for threshold, text, side in zip(
        thresholds, ("real", "synthetic"), ("right", "left"), strict=False
    ):
        axes.axvline(threshold, color=_INK, linewidth=1, linestyle="--")
        nudge = 3 if side == "left" else -3
        axes.annotate(
            text,
            (threshold, len(rows)),
            (nudge, 2),
            textcoords="offset points",
            ha=side,
            color=_QUIET,
            fontsize=8,
        )
    axes.set_yticks(
        [level + 0.3 for level in range(len(rows))],
        [f"{row.kind} ({row.n:,})" for row in reversed(rows)],
    )
    axes.tick_params(axis="y", length=0)
    axes.set(
        xlim=(edges[0], edges[-1]), ylim=(0, len(rows)), xlabel="score (higher: more synthetic)"
    )
    axes.spines[["left", "top", "right"]].set_visible(False)
    return _svg(figure, "histogram", "Scores by kind of photo")


def robustness_plot(
    rows: Sequence[Mapping[str, Any]], key: str, title: str, *, limit: float | None = None
) -> str:
    """One line per perturbation, in the order of the suite: the figure `key` with its interval; perturbations of one
    family (`jpeg_95`, `jpeg_70`, …) are joined. `limit`: a line that none of them should cross."""
    figure, axes = _figure(0.75 + 0.185 * len(rows))
    places = range(len(rows))
    clean = next((row[key] for row in rows if row["perturbation"] == "clean"), None)
    if clean is not None:
        axes.axvline(clean, color=_GOOD, linewidth=1, linestyle="--", zorder=1)
    if limit is not None:
        axes.axvline(limit, color=_BAD, linewidth=1, linestyle=":", zorder=1)
    for _, same in groupby(places, key=lambda place: family_of(rows[place]["perturbation"])):
        known = [place for place in same if rows[place].get(key) is not None]
        values = [rows[place][key] for place in known]
        ends = [[rows[place].get(f"{key}{end}") for place in known] for end in ("_low", "_high")]
        axes.plot(values, known, color=_FAKE, linewidth=1, alpha=0.5, zorder=2)
        for place, value, low, high in zip(known, values, *ends, strict=True):
            if low is not None and high is not None:
                axes.plot(
                    [low, high], [place, place], color=_FAKE, linewidth=3.2, alpha=0.35, zorder=2
                )
            axes.plot([value], [place], "o", color=_FAKE, markersize=3.6, zorder=3)
    axes.set_yticks(list(places), [str(row["perturbation"]).replace("_", " ") for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(title)
    axes.grid(axis="x", color=_LINE, linewidth=0.7)
    axes.spines[["left", "top", "right"]].set_visible(False)
    if key != "auroc":
        _percent(axes, "x")
    return _svg(figure, f"robustness {key}", f"{title} after each perturbation")


def family_of(perturbation: str) -> str:
    """What a perturbation's name begins with, up to its first parameter: `chat` of `chat_50_60`."""
    return re.split(r"[_\d]", perturbation, maxsplit=1)[0]


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(_LINE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_QUIET, labelsize=8.5, width=0.8)
    axes.xaxis.label.set(color=_QUIET, fontsize=8.5)
    axes.yaxis.label.set(color=_QUIET, fontsize=8.5)
    return figure, axes


def _legend(axes: Axes, place: Literal["lower right", "upper left"]) -> None:
    legend = axes.legend(
        frameon=False, fontsize=8, loc=place, title="false alarms counted on", title_fontsize=8
    )
    for text in (legend.get_title(), *legend.get_texts()):
        text.set_color(_QUIET)


def _percent(axes: Axes, axis: str) -> None:
    getattr(axes, f"{axis}axis").set_major_formatter(lambda value, _: f"{100 * value:g}%")


def _svg(figure: Figure, name: str, title: str) -> str:
    """The drawing as an element for a page: no size of its own, its names unique on the page, the page's colours."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    # The salt makes the names of its parts differ from those of other drawings, and the same in every run.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            buffer,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    head, body = text.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    body = re.sub(
        r'<g id="\w+_\d+">', "<g>", body
    )  # figure_1, axes_1, …: the same in every drawing
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    box = view[0] if view else ""
    return f'<svg {box} xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{title}">{body}'
