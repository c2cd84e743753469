"""One photo step by step, from its bytes to the outcome, and after what chat apps and screenshots do to it; drawn for
a notebook, with the very functions that the detector itself runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from textwrap import fill
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from realdamage.core.overlay import draw_overlay
from realdamage.core.policy import Calibration, Policy
from realdamage.core.tiles import Cover, Photo, PixelSpec, read_photo
from realdamage.core.verdict import Verdict
from realdamage.evaluation.perturbations import Perturbation
from realdamage.evaluation.predictions import PhotoDetector
from realdamage.evaluation.steps import Pixels
from realdamage.rendering.data_plots import outline
from realdamage.rendering.plot_style import (
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

RGB = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_OUTCOME_COLOURS = {
    "real": LABEL_COLOURS["real"],
    "review": QUIET,
    "synthetic": LABEL_COLOURS["synthetic"],
}
_HEAT = "YlOrRd"
_ON_PHOTO: dict[str, Any] = {"facecolor": INK, "alpha": 0.75, "linewidth": 0, "pad": 2}
_NUMBERED = 60  # tiles; of more, the numbers hide the photo


@dataclass(frozen=True, eq=False)
class Seen:
    """The photo after one way to us: title for people, name of the perturbation ("" for the photo as it is), rgb uint8
    [h, w, 3], and what the detector says of it."""

    title: str
    name: str
    rgb: RGB
    verdict: Verdict


def judged_after(
    detector: PhotoDetector, photo: Photo, perturbations: Sequence[Perturbation], *, seed: int = 0
) -> list[Seen]:
    """The photo as it is, then after each perturbation, judged as `robustness.score_suite` judges it. Raises PhotoError
    where one makes it too small."""
    whole = photo.rgb if photo.upright is None else photo.upright
    seen = [Seen("As it is", "", whole, detector.predict_photo(photo))]
    for each in perturbations:
        changed = each(Pixels(whole, None), seed=seed, key=photo.sha256).rgb
        again = replace(
            read_photo(changed, detector.pixel_spec, name=each.name), file_quality=each.file_quality
        )
        seen.append(Seen(each.title, each.name, changed, detector.predict_photo(again)))
    return seen


def seen_table(seen: Sequence[Seen], calibration: Calibration | None, prior: float) -> pd.DataFrame:
    """A row for each: score, probability at `prior`, outcome, the reasons' codes and the photo's quality."""
    rows = []
    for each in seen:
        verdict, quality = each.verdict, each.verdict.quality
        rows.append(
            {
                "the photo": each.title,
                "score": verdict.score,
                "probability": calibration.probability(verdict.score, prior)
                if calibration
                else np.nan,
                "outcome": verdict.outcome,
                "reasons": ", ".join(reason.code.replace("_", " ") for reason in verdict.reasons),
                "short side": quality.short_side if quality else np.nan,
                "sharpness": quality.sharpness if quality else np.nan,
                "fine detail": quality.fine_detail if quality else np.nan,
                "compression": quality.compression if quality else np.nan,
            }
        )
    return pd.DataFrame(rows).set_index("the photo")


def plot_tiles(photo: Photo, tiles: Cover, mask: npt.NDArray[np.bool_] | None = None) -> Plot:
    """The photo as it was decoded, and how it is cut: every pixel lies in a tile, tiles overlap. mask: of `outline`."""
    figure, panels = new_plot(
        "From bytes to tiles: nothing is skipped", columns=2, size=(10.5, 5.4)
    )
    for axes in panels:
        axes.imshow(photo.rgb)
        bare(axes)
    height, width = photo.rgb.shape[:2]
    if mask is not None:
        outline(panels[0], mask, (width, height))
    side = tiles.tiles.shape[1]
    for number, (top, left) in enumerate(tiles.origins.tolist()):
        tile = Rectangle((left, top), side, side, fill=False, edgecolor="white", linewidth=1)
        tile.set_path_effects(
            [withStroke(linewidth=2, foreground=INK)]
        )  # seen on white and on black
        panels[1].add_patch(tile)
        if len(tiles.tiles) <= _NUMBERED:
            panels[1].text(
                left + 6,
                top + 6,
                str(number),
                color="white",
                fontsize=8.5,
                va="top",
                bbox=_ON_PHOTO,
            )
    panels[1].set(xlim=(0, max(width, side)), ylim=(max(height, side), 0))
    limited = "" if photo.scale == 1 else f", shown to the network at {photo.scale:.0%} of it"
    known = ", outlined: what was painted" if mask is not None else ""
    say(panels[0], f"{photo.width} × {photo.height} pixels{limited}{known}")
    say(panels[1], f"{len(tiles.tiles)} tiles of {side} pixels")
    return figure


def plot_evidence(
    photo: Photo, heat: Floats, tile_logits: Floats, tiles: Cover, spec: PixelSpec
) -> Plot:
    """Both of the network's answers over the photo: a logit for every tile, evidence for every patch (here `heat`, the
    heat map in 0..1); the score is pooled over both."""
    figure, panels = new_plot("The network's two answers", columns=2, size=(10.5, 5.4))
    height, width = photo.rgb.shape[:2]
    for axes in panels:
        axes.imshow(np.asarray(Image.fromarray(photo.rgb).convert("L")), cmap="gray", alpha=0.55)
        bare(axes)
    reach = max(1.0, float(np.abs(tile_logits).max()))
    for (top, left), logit in zip(
        (tiles.origins + spec.tile // 2).tolist(), tile_logits.tolist(), strict=True
    ):
        colour = LABEL_COLOURS["synthetic" if logit > 0 else "real"]
        few = len(tile_logits) <= _NUMBERED
        size = (480 + 700 * abs(logit) / reach) * (1 if few else 0.1)
        panels[0].scatter(left, top, s=size, color=colour, alpha=0.75, edgecolor="white")
        if few:
            panels[0].text(
                left, top, f"{logit:+.1f}", color="white", ha="center", va="center", fontsize=9.5
            )
    extent = (0, heat.shape[1] * spec.patch, heat.shape[0] * spec.patch, 0)
    drawn = panels[1].imshow(
        heat, extent=extent, cmap=_HEAT, vmin=0, vmax=1, alpha=0.75, interpolation="nearest"
    )
    for axes in panels:
        axes.set(xlim=(0, width), ylim=(height, 0))
    bar = figure.colorbar(drawn, ax=panels[1], shrink=0.8, ticks=[0, 0.5, 1])
    bar.outline.set_visible(False)
    say(panels[0], f"{len(tile_logits)} tiles: logit (orange: synthetic)")
    say(panels[1], f"{heat.size} patches of {spec.patch} pixels: evidence in 0..1")
    return figure


def plot_probability(calibration: Calibration, policy: Policy, score: float, prior: float) -> Plot:
    """From this photo's score to its probability, at the calibration's share of fakes and at `prior`; and to its
    outcome, by the two thresholds."""
    figure, (axes,) = new_plot("From score to probability and outcome", size=(10.5, 4.8))
    marks = (score, policy.t_real, policy.t_synthetic)
    reach = max(1.0, max(marks) - min(marks))
    scores = np.linspace(min(marks) - 0.6 * reach, max(marks) + 0.6 * reach, 300)
    for left, right, outcome in (
        (scores[0], policy.t_real, "real"),
        (policy.t_real, policy.t_synthetic, "review"),
        (policy.t_synthetic, scores[-1], "synthetic"),
    ):
        axes.axvspan(left, right, color=_OUTCOME_COLOURS[outcome], alpha=0.1, linewidth=0)
        if right > left:
            axes.text(
                (left + right) / 2,
                1.03,
                outcome,
                color=_OUTCOME_COLOURS[outcome],
                ha="center",
                fontsize=12,
            )
    for share, style in ((calibration.prior, "--"), (prior, "-")):
        curve = [calibration.probability(float(value), share) for value in scores]
        axes.plot(
            scores,
            curve,
            style,
            color=INK,
            linewidth=2,
            label=f"if {100 * share:.2g}% of all photos are synthetic",
        )
        found = calibration.probability(score, share)
        axes.plot(score, found, "o", color=INK, markersize=8)
        axes.annotate(
            f"{found:.1%}",
            (score, found),
            (9, 5),
            textcoords="offset points",
            fontsize=12,
            color=INK,
        )
    axes.axvline(score, color=INK, linewidth=0.8)
    axes.set(
        xlim=(scores[0], scores[-1]), ylim=(0, 1.1), xlabel=f"score (this photo: {score:+.2f})"
    )
    axes.set_ylabel("probability of synthetic")
    percent(axes.yaxis)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    legend(axes, "center left")
    return figure


def plot_verdict(rgb: RGB, verdict: Verdict) -> Plot:
    """The photo, and the heat map over it with a box around each region."""
    figure, panels = new_plot(
        f"Where it looks synthetic: {len(verdict.regions)} regions", columns=2, size=(10.5, 5.2)
    )
    height, width = rgb.shape[:2]
    for axes, picture in zip(
        panels, (Image.fromarray(rgb), _without_caption(rgb, verdict)), strict=True
    ):
        axes.imshow(picture)
        bare(axes)
        axes.set(xlim=(0, width), ylim=(height, 0))
    for region in verdict.regions:
        left, top = region.box[0] * width / verdict.width, region.box[1] * height / verdict.height
        text = f"{region.probability:.0%}"
        panels[1].text(
            left + 3, top + 3, text, color="white", fontsize=11, va="top", bbox=_ON_PHOTO
        )
    say(panels[0], "the photo")
    say(panels[1], "heat map; boxes: regions, with their mean heat")
    return figure


def plot_seen(seen: Sequence[Seen], policy: Policy | None = None) -> Plot:
    """The score after each way to us, with the two thresholds: does the verdict hold?"""
    figure, (axes,) = new_plot(
        "What a photo's way to us does to its verdict", size=(10.5, 1.8 + 0.4 * len(seen))
    )
    first = seen[0].verdict.score
    axes.axvline(first, color=GOOD, linewidth=1.2, linestyle="--", label="score as it is")
    for place, each in enumerate(seen):
        score, colour = each.verdict.score, _OUTCOME_COLOURS[each.verdict.outcome]
        axes.plot([first, score], [place, place], color=LINE, linewidth=2, zorder=1)
        axes.plot(score, place, "o", color=colour, markersize=10, zorder=2)
        axes.annotate(
            each.verdict.outcome, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=11,
            color=colour,
        )  # fmt: skip
    if policy is not None:
        for threshold, text, side in (
            (policy.t_real, "called real up to", "right"),
            (policy.t_synthetic, "called synthetic from", "left"),
        ):
            axes.axvline(threshold, color=INK, linewidth=1)
            shift = (4 if side == "left" else -4, 0)
            axes.annotate(
                text,
                (threshold, -0.95),
                shift,
                textcoords="offset points",
                ha=side,
                fontsize=10,
                color=QUIET,
            )
    axes.set_yticks(range(len(seen)), [each.title for each in seen])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set(ylim=(len(seen) - 0.4, -1.2), xlabel="score (higher: more synthetic)")
    axes.margins(x=0.12)
    return figure


def plot_seen_photos(seen: Sequence[Seen], columns: int = 4) -> Plot:
    """What each way makes of the photo, under the heat map."""
    rows = -(-len(seen) // columns)
    figure, panels = new_plot(
        "The same photo, as it may arrive", rows=rows, columns=columns, size=(10.5, 3.1 * rows)
    )
    for axes in panels:
        bare(axes)
    for axes, each in zip(panels, seen, strict=False):
        axes.imshow(_without_caption(each.rgb, each.verdict))
        say(axes, f"{fill(each.title, 22)}\n{each.verdict.outcome}, {each.verdict.score:+.2f}")
    return figure


def _without_caption(rgb: RGB, verdict: Verdict) -> Image.Image:
    return draw_overlay(rgb, verdict).crop((0, 0, rgb.shape[1], rgb.shape[0]))
