"""What the notebooks call: where the files are, and plots that can go on a slide as they are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler
from PIL import Image

from realdamage.core.decoding import decode
from realdamage.core.overlay import draw_overlay
from realdamage.core.photo import Cover, Photo, read_photo
from realdamage.core.policy import Calibration, Policy
from realdamage.core.quality import file_jpeg_quality
from realdamage.core.verdict import Verdict
from realdamage.data.audit_report import AuditReport
from realdamage.data.duplicates import Grouping
from realdamage.data.manifest import Manifest, read_mask
from realdamage.data.shortcuts import LIMIT, container_facts
from realdamage.data.splits import components
from realdamage.data.vocabulary import KINDS, LABELS
from realdamage.errors import RealDamageError
from realdamage.evaluation.guarantee import photos_needed, upper_bound
from realdamage.evaluation.perturbations import Perturbation
from realdamage.evaluation.predictions import PhotoDetector
from realdamage.evaluation.steps import Pixels
from realdamage.evaluation.threshold_choice import ThresholdChoice
from realdamage.rendering import plots
from realdamage.rendering.plots import BAD, GOOD, INK, LABEL_COLOURS, QUIET, percent_axis

_DPI = 144
_VALUES = 9  # bars of a column; rarer values are counted together
_SIDE = 320  # pixels of a picture's longer side


class NotThereError(RealDamageError):
    """A notebook shows the message alone: a reader wants to know what to run, not where it failed."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def repository(start: str | Path | None = None) -> Path:
    """The nearest folder at or above `start` with a pyproject.toml, else `start` (None: the working folder)."""
    here = Path(start or Path.cwd()).resolve()
    return next((up for up in (here, *here.parents) if (up / "pyproject.toml").is_file()), here)


def existing(path: str | Path, name: str, made_by: str = "make quickstart") -> Path:
    """The file or folder at `path`, relative to the repository. Raises NotThereError with what to run (`made_by`)."""
    found = repository() / path
    if not found.exists():
        advice = "Name another file"
        if made_by:
            advice = f"Run `{made_by}` in the repository's folder, or name your own files"
        raise NotThereError(
            f"{name} = {str(path)!r}: not found. {advice} in the parameters cell, then run all cells again."
        )
    return found


class Plot(Figure):
    """A figure that a notebook shows by itself; `savefig` writes it to a file."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=_DPI / 2)
        return buffer.getvalue()


def new_plot(
    title: str, *, columns: int = 1, rows: int = 1, height: float = 4.8, **grid: Any
) -> tuple[Plot, list[Axes]]:
    """A figure under a title, and its axes row by row. height: inches. grid: see `Figure.subplots`."""
    rcParams.update(plots.STYLE)
    figure = Plot(figsize=(10.5, height), layout="constrained")
    figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold", color=INK)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **grid).flat)


def drawn(title: str, draw: Any, *given: Any, height: float = 4.8) -> Plot:
    """One of the report's drawings (`plots`) as a figure: `drawn("ROC", plots.roc, curves)`."""
    figure, (axes,) = new_plot(title, height=height)
    draw(axes, *given)
    return figure


def plot_counts(
    table: pd.DataFrame, columns: Sequence[str] = ("kind", "damage", "split"), share: bool = False
) -> Plot:
    """Photos of each label per value of some columns, or shares of the label's photos."""
    shown = [column for column in columns if (table[column] != "").any()] or ["label"]
    figure, panels = new_plot("Real and synthetic photos", columns=len(shown))
    for axes, column in zip(panels, shown, strict=True):
        counts = pd.crosstab(table[column].replace("", "(none)"), table["label"])
        counts = counts.reindex(columns=list(LABELS), fill_value=0)
        counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
        if len(counts) > _VALUES:
            rest = counts.iloc[_VALUES - 1 :].sum().to_frame(f"{len(counts) - _VALUES + 1} others")
            counts = pd.concat([counts.iloc[: _VALUES - 1], rest.T])
        if share:
            counts = counts / counts.sum().clip(lower=1)
        counts[::-1].plot.barh(ax=axes, color=LABEL_COLOURS, width=0.75, legend=column == shown[0])
        for bars in axes.containers:
            axes.bar_label(bars, fmt="{:.0%}" if share else "{:,.0f}", padding=3, fontsize=8)  # type: ignore[arg-type]
        axes.set(title=column, xlabel="share of the label's photos" if share else "photos")
        axes.margins(x=0.15)
        axes.set_ylabel("")
    return figure


def plot_values(table: pd.DataFrame, value: str, by: str, title: str) -> Plot:
    """Stacked histogram of a column, split by the values of another."""
    figure, (axes,) = new_plot(title, height=3.6)
    if table.empty:
        axes.text(0.5, 0.5, "nothing to draw", ha="center", transform=axes.transAxes)
        return figure
    wide = table.reset_index().pivot(columns=by, values=value).astype(float)
    wide.plot.hist(ax=axes, bins=40, stacked=True, alpha=0.8, xlabel=value.replace("_", " "))
    return figure


def plot_pictures(
    title: str, pictures: Sequence[tuple[Any, str]], columns: int = 4, height: float = 3.0
) -> Plot:
    """Pictures, each under its caption. height: of a row, in inches."""
    rows = max(1, -(-len(pictures) // columns))
    figure, panels = new_plot(title, columns=columns, rows=rows, height=0.6 + height * rows)
    for axes in panels:
        axes.set_axis_off()
    for axes, (picture, text) in zip(panels, pictures, strict=False):
        axes.imshow(picture)
        axes.set_title(text, fontsize=9)
    return figure


def photo_of(manifest: Manifest, index: int) -> Image.Image:
    """The photo at position `index`, with a line around its mask. Raises PhotoError, ManifestError."""
    rgb = decode(manifest.path(str(manifest.table["file_name"].iat[index])))
    masked = bool(manifest.table["mask_file_name"].iat[index])
    return plots.outlined(rgb, read_mask(manifest, index, rgb.shape[:2]) if masked else None, _SIDE)


def contact_sheet(manifest: Manifest, *, photos: int = 5, seed: int = 0) -> Plot:
    """Some photos of each kind, drawn at random, one kind a row."""
    kinds, rng = manifest.table["kind"], np.random.default_rng(seed)
    blank = Image.new("RGB", (1, 1), "white")
    pictures: list[tuple[Image.Image, str]] = []
    for kind in [kind for kind in (*KINDS, "") if (kinds == kind).any()]:
        chosen = rng.permutation(np.flatnonzero(kinds == kind))[:photos].tolist()
        pictures += [(photo_of(manifest, index), kind or "(none)") for index in chosen]
        pictures += [(blank, "")] * (photos - len(chosen))
    return plot_pictures("Photos by kind; outlined: what was painted", pictures, photos, 1.7)


def file_table(manifest: Manifest) -> pd.DataFrame:
    """What the files say without a look at the photo: file_name, label, size, saved as, bits_per_pixel."""
    rows = []
    for name, label in zip(manifest.table["file_name"], manifest.table["label"], strict=True):
        contents = manifest.path(name).read_bytes()
        facts = container_facts(io.BytesIO(contents), name=manifest.path(name), size=len(contents))
        quality = file_jpeg_quality(contents)
        saved = facts["format"] if quality is None else f"JPEG {quality:.0f}"
        bits = 8 * len(contents) / (facts["width"] * facts["height"])
        rows.append((name, label, f"{facts['width']}×{facts['height']}", saved, bits))
    return pd.DataFrame(rows, columns=["file_name", "label", "size", "saved", "bits_per_pixel"])


def plot_audit(report: AuditReport) -> Plot:
    """How well each shortcut tells the labels apart; a test fails when its whole interval lies above the limit."""
    keys = ["label", "value", "low", "high"]
    rows = [(test.title, test.auroc, test.low, test.high) for test in report.tests]
    colours = [BAD if test.failed else INK if test.blocking else QUIET for test in report.tests]
    figure, (axes,) = new_plot(report.summary.capitalize(), height=1.6 + 0.46 * len(rows))
    axes.axvspan(LIMIT, 1, color=BAD, alpha=0.06, linewidth=0)
    axes.axvline(0.5, color=QUIET, linewidth=1, linestyle=":")
    title = "AUROC of a classifier that sees these facts alone"
    plots.intervals(axes, pd.DataFrame(rows, columns=keys), title, colours=colours)
    axes.set_xlim(0, 1)
    return figure


def look_alikes(manifest: Manifest, found: Grouping) -> pd.DataFrame:
    """Pairs of photos found alike, the nearest first: a, b (file names), bits that differ, same_group, across (splits)."""
    table, (a, b) = manifest.table, found.pairs.T
    kept, split, name = components(table), table["split"].to_numpy(), table["file_name"].to_numpy()
    apart = (split[a] != split[b]) & (split[a] != "") & (split[b] != "")
    across = np.where(apart, split[a].astype(object) + " and " + split[b].astype(object), "")
    pairs = {"a": name[a], "b": name[b], "bits": found.distances}
    rows = pd.DataFrame(pairs | {"same_group": kept[a] == kept[b], "across": across})
    return rows.sort_values("bits", kind="stable", ignore_index=True)


def plot_look_alikes(manifest: Manifest, pairs: pd.DataFrame, most: int = 5) -> Plot:
    """The first pairs of `look_alikes`, one above the other."""
    place = {name: index for index, name in enumerate(manifest.table["file_name"])}
    first = list(pairs.head(most).itertuples())
    groups = [
        f"{pair.bits} bits, {'one group' if pair.same_group else 'two groups'}" for pair in first
    ]
    upper = [
        (photo_of(manifest, place[str(pair.a)]), text)
        for pair, text in zip(first, groups, strict=True)
    ]
    lower = [(photo_of(manifest, place[str(pair.b)]), "") for pair in first]
    return plot_pictures("Do they show the same?", upper + lower, max(1, len(first)), 2.4)


def slice_map(table: pd.DataFrame, rows: str, columns: str, figure: str = "auroc") -> Styler:
    """A figure of a `slice_table` by two keys, as a table with colours; empty cells hold too few photos."""
    wide = table.pivot(index=rows, columns=columns, values=figure)
    wide = wide.reindex(index=table[rows].unique(), columns=table[columns].unique())
    return wide.style.background_gradient(cmap="Greens", vmin=0.5, vmax=1).format(
        "{:.2f}", na_rep=""
    )


def plot_slices(table: pd.DataFrame, by: str, figure: str = "auroc") -> Plot:
    """A figure of a `slice_table` by one key, without the slices that hold too few photos."""
    known = table[table[figure].notna()]
    label = [f"{name} ({n:,})" for name, n in zip(known[by], known["n"], strict=True)]
    keys = {figure: "value", f"{figure}_low": "low", f"{figure}_high": "high"}
    rows = known.rename(columns=keys)[[*keys.values()]].assign(label=label)
    title = f"{figure}, by {by}; {len(table) - len(known)} values with too few photos left out"
    return drawn(title, plots.intervals, rows, figure, height=1.7 + 0.3 * len(rows))


def restated(probability: float, prior: float, stated_at: float = 0.5) -> float:
    """A probability stated at one share of fakes, at another one, `prior` (Elkan 2001)."""
    odds = probability / (1 - probability) * prior / (1 - prior) * (1 - stated_at) / stated_at
    return odds / (1 + odds)


def plot_lines(table: pd.DataFrame, title: str, *, x: str, y: str, log: bool = False) -> Plot:
    """The columns of a table over its index."""
    figure, (axes,) = new_plot(title)
    table.plot(ax=axes, logx=log, xlabel=x, ylabel=y)
    axes.set_ylim(bottom=0)
    return figure


def plot_ways(choice: ThresholdChoice) -> Plot:
    """What a claim costs by each way of deciding, with 95% intervals, and how many claims a person looks at."""
    ways = [*choice.others, choice.figures, *filter(None, [choice.cross_fitted])][::-1]
    figure, panels = new_plot("What a claim costs", columns=3, height=3.6, sharey=True)
    for axes, key in zip(panels, ("cost", "reviewed", "accused"), strict=True):
        values = pd.Series([getattr(way, key) for way in ways], [way.name.strip() for way in ways])
        ends = [
            way.intervals.get(key) or (value, value)
            for way, value in zip(ways, values, strict=True)
        ]
        errors = np.abs(np.transpose(ends) - values.to_numpy())
        values.plot.barh(ax=axes, xerr=errors, color=GOOD, alpha=0.6, title=key)
    for axes in panels[1:]:
        percent_axis(axes.xaxis)
    return figure


def guaranteed(photos: int, delta: float = 0.05, errors: Sequence[int] = (0, 1, 5)) -> pd.DataFrame:
    """The share of honest buyers accused that can be guaranteed, over the number of photos of real damage."""
    counts = np.unique(
        np.geomspace(20, max(2000, 2 * photos, photos_needed(0.01, delta)), 160).astype(int)
    )
    return pd.DataFrame(
        {f"{k} called synthetic": [upper_bound(k, int(n), delta) for n in counts] for k in errors},
        counts,
    )


class Seen(NamedTuple):
    """A photo after one perturbation (name "": as it is): rgb uint8 [h, w, 3], and the detector's verdict."""

    title: str
    name: str
    rgb: npt.NDArray[np.uint8]
    verdict: Verdict


def judged_after(
    detector: PhotoDetector, photo: Photo, perturbations: Sequence[Perturbation], *, seed: int = 0
) -> list[Seen]:
    """The photo as it is, then after each perturbation, judged as the robustness suite judges it."""
    whole = photo.rgb if photo.upright is None else photo.upright
    seen = [Seen("As it is", "", whole, detector.predict_photo(photo))]
    for each in perturbations:
        changed = each(Pixels(whole, None), seed=seed, key=photo.sha256).rgb
        again = read_photo(changed, detector.pixel_spec, name=each.name)
        again = replace(again, file_quality=each.file_quality)
        seen.append(Seen(each.title, each.name, changed, detector.predict_photo(again)))
    return seen


def seen_table(seen: Sequence[Seen], calibration: Calibration | None, prior: float) -> pd.DataFrame:
    """A row for each: score, probability at `prior`, outcome, codes of the reasons, and the photo's quality."""
    rows = []
    for each in seen:
        score, quality = each.verdict.score, each.verdict.quality
        row: dict[str, Any] = {"photo": each.title, "score": score}
        row["probability"] = calibration.probability(score, prior) if calibration else np.nan
        row["outcome"] = each.verdict.outcome
        row["reasons"] = ", ".join(reason.code for reason in each.verdict.reasons)
        for key in ("short_side", "sharpness", "fine_detail", "compression"):
            row[key] = getattr(quality, key) if quality else np.nan
        rows.append(row)
    return pd.DataFrame(rows).set_index("photo")


def plot_seen(seen: Sequence[Seen], policy: Policy | None = None) -> Plot:
    """The score after each perturbation, with the two thresholds: does the verdict hold?"""
    figure, (axes,) = new_plot("Does the verdict hold?", height=1.6 + 0.4 * len(seen))
    colours = [LABEL_COLOURS.get(each.verdict.outcome, QUIET) for each in seen]
    rows = pd.DataFrame({"label": [f"{each.title}: {each.verdict.outcome}" for each in seen]})
    rows = rows.assign(value=[each.verdict.score for each in seen], low=np.nan, high=np.nan)
    plots.intervals(axes, rows, "score (higher: more synthetic)", colours=colours)
    for threshold in (policy.t_real, policy.t_synthetic) if policy else ():
        axes.axvline(threshold, color=INK, linewidth=1, linestyle="--")
    return figure


def overlay(rgb: npt.NDArray[np.uint8], verdict: Verdict) -> Image.Image:
    """The photo under its heat map, without a caption."""
    return draw_overlay(rgb, verdict).crop((0, 0, rgb.shape[1], rgb.shape[0]))


def plot_tiles(photo: Photo, tiles: Cover, logits: npt.NDArray[np.float32]) -> Plot:
    """How the photo is cut into overlapping tiles, and the network's logit for each."""
    figure, (axes,) = new_plot(
        f"{len(logits)} tiles and their logits (orange: synthetic)", height=6
    )
    axes.imshow(photo.rgb)
    axes.set_axis_off()
    half = tiles.tiles.shape[1] // 2
    for (top, left), logit in zip((tiles.origins + half).tolist(), logits.tolist(), strict=True):
        colour = LABEL_COLOURS["synthetic" if logit > 0 else "real"]
        box = {"facecolor": colour, "alpha": 0.8, "linewidth": 0, "pad": 3}
        axes.text(left, top, f"{logit:+.1f}", color="white", ha="center", va="center", bbox=box)
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]) * half
        axes.plot(left + corners[:, 0], top + corners[:, 1], color="white", linewidth=0.8)
    return figure
