"""How the notebooks' figures look: one palette, that of the audit's page, and titles that say what was measured, so
that a figure can go on a slide as it is."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.typing import LegendLocType

INK, QUIET, LINE, CARD = "#1b2230", "#5d6778", "#dde2ea", "#ffffff"
GOOD, BAD = "#1a7f4b", "#c0312b"
LABEL_COLOURS = {"real": "#3b73c4", "synthetic": "#d9772b"}
OUTLINE = "#00c8ff"
"""Around a mask, on a photo: no product has this colour."""

_DPI = 144


class Plot(Figure):
    """A figure that a notebook shows by itself, whatever matplotlib's backend; `savefig` writes it to a file."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The picture, and the size at which it is shown: half of its pixels, so that it is sharp on any screen."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=_DPI)
        width, height = self.get_size_inches()
        return buffer.getvalue(), {
            "width": round(width * _DPI / 2),
            "height": round(height * _DPI / 2),
        }


def new_plot(
    title: str,
    *,
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] = (10.5, 5.0),
    **grid: Any,
) -> tuple[Plot, list[Axes]]:
    """A figure of `size` in inches under a title, and its axes, row by row. `grid`: see `Figure.subplots`."""
    figure = Plot(figsize=size, layout="constrained", facecolor=CARD)
    figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold", color=INK)
    found = figure.subplots(rows, columns, squeeze=False, **grid).ravel().tolist()
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(LINE)
        axes.tick_params(colors=QUIET, labelsize=11, width=0.8)
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set(color=QUIET, fontsize=11.5)
    return figure, found


def say(axes: Axes, text: str) -> None:
    """A panel's own line under the title: what is in it, and how many."""
    axes.set_title(text, loc="left", fontsize=11.5, color=QUIET)


def percent(axis: Axis) -> None:
    """Shares as percent, without more digits than they need."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:g}%")


def legend(axes: Axes, place: LegendLocType = "best") -> None:
    """Names of what is drawn, readable above what they cover."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc=place,
            fontsize=11,
            labelcolor=INK,
            facecolor=CARD,
            edgecolor="none",
            framealpha=0.85,
        )


def bare(axes: Axes) -> None:
    """For pictures: no axes."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
