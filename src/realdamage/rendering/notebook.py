"""What the notebooks call: where the files are, and plots that can go on a slide as they are."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from realdamage.core.decode import decode
from realdamage.core.overlay import draw_overlay
from realdamage.core.policy import Calibration, Policy
from realdamage.core.quality import file_jpeg_quality
from realdamage.core.tiles import Cover, Photo, read_photo
from realdamage.core.verdict import Verdict
from realdamage.data.audit import AuditReport
from realdamage.data.manifest import Manifest, read_mask
from realdamage.data.shortcuts import LIMIT, container_facts
from realdamage.data.vocabulary import KINDS, LABELS
from realdamage.errors import RealDamageError
from realdamage.evaluation.costs import CostReport
from realdamage.evaluation.perturbations import Perturbation, Pixels
from realdamage.evaluation.predictions import PhotoDetector
from realdamage.rendering import plots, words
from realdamage.rendering.plots import BAD, GOOD, INK, LABEL_COLOURS, QUIET
from realdamage.rendering.report import Report, reliability

_VALUES = 9  # bars of a column; rarer values are counted together
_SIDE = 320  # pixels of a picture's longer side
_BLANK = Image.new("RGB", (1, 1), "white")


class NotThereError(RealDamageError):
    """A notebook shows the message alone: a reader wants to know what to run, not where it
    failed."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def repository(start: str | Path | None = None) -> Path:
    """The nearest folder at or above `start` (None: the working folder) with a pyproject.toml, else
    `start`."""
    here = Path(start or Path.cwd()).resolve()
    return next((up for up in (here, *here.parents) if (up / "pyproject.toml").is_file()), here)


def existing(path: str | Path, name: str, made_by: str = "make quickstart") -> Path:
    """The file or folder at `path`, relative to the repository. Raises NotThereError with what to
    run, `made_by`."""
    found = repository() / path
    if not found.exists():
        advice = f"Run `{made_by}` in the repository's folder, or name" if made_by else "Name"
        raise NotThereError(
            f"{name} = {str(path)!r}: not found. {advice} another in the cell of parameters, then "
            "run all cells again."
        )
    return found


def axes(title: str, columns: int = 1, rows: int = 1, height: float = 4.8) -> list[Axes]:
    """The axes of a new figure in the report's style, row by row. height: of the figure, in
    inches."""
    plt.style.use(plots.STYLE | {"font.size": 10})
    size = (10.5, height)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold", color=INK)
    return list(grid.flat)


def plot_lines(table: pd.DataFrame, title: str, **options: Any) -> Axes:
    """A line for each column over the index, with the legend below, where it hides none.

    options: of `DataFrame.plot`.
    """
    (panel,) = axes(title)
    table.plot(ax=panel, **options)
    plots.legend_below(panel)
    return panel


def plot_pictures(title: str, pictures: Sequence[tuple[Any, str]], columns: int = 4) -> None:
    """Pictures, each under its caption."""
    rows = max(1, -(-len(pictures) // columns))
    panels = axes(title, columns, rows, 0.6 + rows * 11 / columns)
    for panel in panels:
        panel.set_axis_off()
    for panel, (picture, text) in zip(panels, pictures, strict=False):
        panel.imshow(picture)
        panel.set_title(text, fontsize=9)


def plot_counts(table: pd.DataFrame, columns: Sequence[str], share: bool = False) -> None:
    """Photos of each label per value of some columns; share: of the label's photos."""
    shown = [column for column in columns if (table[column] != "").any()] or ["label"]
    for panel, column in zip(axes("Real and synthetic photos", len(shown)), shown, strict=True):
        values = table[column].replace("", "(none)")
        rare = values.value_counts().index[_VALUES:]
        values = values.mask(values.isin(rare), f"{len(rare)} others")
        counts = pd.crosstab(values, table["label"]).reindex(columns=list(LABELS), fill_value=0)
        counts = counts.loc[counts.sum(axis=1).sort_values(kind="stable").index]
        if share:
            counts = counts / counts.sum().clip(lower=1)
        colours: Any = list(LABEL_COLOURS.values())
        legend = column == shown[0]
        counts.plot.barh(ax=panel, color=colours, width=0.75, title=column, legend=legend)
        panel.set_ylabel("")
        for bars in panel.containers:
            panel.bar_label(bars, fmt="{:.0%}" if share else "{:,.0f}", padding=3, fontsize=8)  # type: ignore[arg-type]
        panel.margins(x=0.15)
        if share:
            plots.percent_axis(panel.xaxis)


def photo_of(manifest: Manifest, index: int) -> Image.Image:
    """The photo at position `index`, with a line around its mask. Raises PhotoError,
    ManifestError."""
    rgb = decode(manifest.path(str(manifest.table["file_name"].iat[index])))
    masked = bool(manifest.table["mask_file_name"].iat[index])
    return plots.outlined(rgb, read_mask(manifest, index, rgb.shape[:2]) if masked else None, _SIDE)


def contact_sheet(manifest: Manifest, *, photos: int = 5, seed: int = 0) -> None:
    """Some photos of each kind, drawn at random, one kind a row."""
    kinds, rng = manifest.table["kind"], np.random.default_rng(seed)
    pictures: list[tuple[Image.Image, str]] = []
    for kind in (kind for kind in (*KINDS, "") if (kinds == kind).any()):
        chosen = rng.permutation(np.flatnonzero(kinds == kind))[:photos].tolist()
        pictures += [(photo_of(manifest, index), kind or "(none)") for index in chosen]
        pictures += [(_BLANK, "")] * (photos - len(chosen))
    plot_pictures("Photos by kind; outlined: what was painted or regenerated", pictures, photos)


def file_table(manifest: Manifest) -> pd.DataFrame:
    """What is known of the files without decoding the photos: file_name, label, size, saved (as),
    bits_per_pixel."""
    rows = []
    for name, label in zip(manifest.table["file_name"], manifest.table["label"], strict=True):
        contents = manifest.path(name).read_bytes()
        facts = container_facts(io.BytesIO(contents), name=manifest.path(name))
        quality = file_jpeg_quality(contents)
        saved = facts["format"] if quality is None else f"JPEG {quality:.0f}"
        bits = 8 * len(contents) / (facts["width"] * facts["height"])
        rows.append((name, label, f"{facts['width']}×{facts['height']}", saved, bits))
    return pd.DataFrame(rows, columns=["file_name", "label", "size", "saved", "bits_per_pixel"])


def plot_audit(report: AuditReport) -> None:
    """How well each shortcut separates the labels; a test fails when its whole interval lies above
    the limit."""
    rows = [(test.title, test.auroc, test.low, test.high) for test in report.tests]
    colours = [BAD if test.failed else INK if test.blocking else QUIET for test in report.tests]
    (panel,) = axes(report.summary.capitalize(), height=1.6 + 0.46 * len(rows))
    panel.axvspan(LIMIT, 1, color=BAD, alpha=0.06, linewidth=0)
    table = pd.DataFrame(rows, columns=["label", "value", "low", "high"])
    plots.intervals(panel, table, "AUROC of a classifier that sees these facts alone", colours)
    panel.set_xlim(0, 1.02)


def plot_worst(report: Report, examples: str, title: str, most: int = 4) -> None:
    """The first of a report's "false_alarms" or "misses", each above its heat map."""
    rows = report.values[examples][:most]
    pictures: list[tuple[Any, str]] = []
    for side in (0, 1):
        for row in rows:
            data = base64.b64decode(report.pictures[row["file_name"]][side].partition(",")[2])
            text = f"{row['kind']} {row['damage']}\n{row['score']:+.2f}, {row['outcome']}"
            picture = Image.open(io.BytesIO(data)) if data else _BLANK
            pictures.append((picture, row["note"] if side else text))
    plot_pictures(title, pictures, max(1, len(rows)))


def plot_slices(table: pd.DataFrame, by: str) -> None:
    """AUROC of a `slice_table` by one key, without the slices that hold too few photos; says so
    where that leaves none."""
    known = table[table["auroc"].notna()]
    left_out = words.count(len(table) - len(known), "value")
    if known.empty:
        print(f"Not drawn: {left_out} of {by}, each with too few photos for a figure.")
        return
    keys = {"auroc": "value", "auroc_low": "low", "auroc_high": "high"}
    rows = known.rename(columns=keys).assign(label=known[by] + known["n"].map(" ({})".format))
    (panel,) = axes(f"AUROC by {by.replace('_', ' ')}", height=1.7 + 0.3 * len(rows))
    plots.intervals(panel, rows, f"AUROC; {left_out} with too few photos left out")


def plot_roc(report: Report) -> None:
    """Fakes found over buyers accused; says so where there are too few photos."""
    if not report.values["roc"]:
        print(f"Not drawn. {report.values['missing']['roc']}")
        return
    (panel,) = axes("How many synthetic photos are found, at how many false alarms")
    plots.roc(panel, [pd.Series(curve) for curve in report.values["roc"]])


def plot_reliability(predictions: pd.DataFrame) -> None:
    """How many photos of each stated probability are synthetic; says so where there are too few."""
    bins = reliability(predictions)
    if bins.empty:
        print("Not drawn: too few photos have a probability.")
        return
    (panel,) = axes("Does a probability mean what it says?")
    plots.reliability(panel, bins)


def plot_robustness(report: Report) -> None:
    """AUROC and false alarms after each perturbation; says so where none was evaluated."""
    rows = report.values["robustness"]
    if not rows:
        print(f"Not drawn. {report.values['missing']['robustness']}")
        return
    titles = plots.robustness_titles(rows, report.values["counts"])
    panels = axes("Before and after a chat app", columns=2, height=1.7 + 0.3 * len(rows))
    for panel, key in zip(panels, ("auroc", "false_alarms_all_real"), strict=True):
        plots.robustness(panel, rows, key, titles[key])


def plot_ways(report: CostReport) -> None:
    """What a claim costs by each way of deciding, with 95% intervals, how many claims a person
    looks at, and how many honest buyers are refused."""
    titles = {"cost": "cost of a claim", "reviewed": "claims reviewed"}
    titles["accused"] = "honest buyers refused unseen"
    ways = report.ways[::-1]
    panels = axes("What a claim costs, by the way of deciding", 3, height=3.6)
    for panel, (key, title) in zip(panels, titles.items(), strict=True):
        values = np.array([getattr(way, key) for way in ways])
        ends = [way.intervals[key] for way in ways]
        errors = np.abs(np.transpose(ends) - values)
        bars = panel.barh(range(len(ways)), values, xerr=errors, color=GOOD, alpha=0.6)
        panel.bar_label(bars, fmt="{:.2f}" if key == "cost" else "{:.1%}", padding=4)
        panel.set_yticks(range(len(ways)), [way.name.strip() for way in ways])
        panel.set(title=title, xlim=(0, 1.35 * max(float(np.max(ends)), 0.01)))
    for panel in panels[1:]:
        panel.set_yticklabels([])
        plots.percent_axis(panel.xaxis)


def what_probability_means(calibration: Calibration, score: float, prior: float) -> str:
    """Why a photo that is called synthetic may have a small probability."""
    here, even = (100 * calibration.probability(score, share) for share in (prior, 0.5))
    return (
        f"Where {prior:.1%} of all photos are synthetic (the prior), {here:.0f} of 100 photos with "
        f"this score are; where half of all photos are, {even:.0f} of 100. The thresholds act on "
        "the score, not on the probability: the rarer fakes are, the more of the photos called "
        "synthetic are real, so a person has to look."
    )


def clear_example(detector: PhotoDetector, manifest: Manifest, most: int = 24) -> Path:
    """Of the first edits that the model was not trained on, the one whose painted area stands out
    most in its heat map. Raises NotThereError: there is none."""
    table = manifest.table
    edits = (table["kind"] == "ai_region") & (table["split"] != "train")
    contrasts: dict[Path, float] = {}
    for index in np.flatnonzero(edits & (table["mask_file_name"] != ""))[:most].tolist():
        path = manifest.path(str(table["file_name"].iat[index]))
        photo = read_photo(path, detector.pixel_spec)
        heat = detector.predict_photo(photo).heatmap
        assert heat is not None  # a detector always makes one
        mask = Image.fromarray(read_mask(manifest, index, (photo.height, photo.width)))
        painted = np.asarray(mask.resize(heat.shape[::-1]))
        if painted.any() and not painted.all():
            contrasts[path] = float(heat[painted].mean() - heat[~painted].mean())
    if not contrasts:
        raise NotThereError("photos: no edit with a mask outside the training part. Name a photo.")
    return max(contrasts, key=contrasts.__getitem__)


class Seen(NamedTuple):
    """A photo after a perturbation: rgb uint8 [h, w, 3], and what the detector says of it."""

    title: str
    rgb: npt.NDArray[np.uint8]
    verdict: Verdict


def judged_after(
    detector: PhotoDetector, photo: Photo, perturbations: Sequence[Perturbation], *, seed: int = 0
) -> list[Seen]:
    """The photo unchanged, then after each perturbation, judged as the robustness suite judges
    it."""
    whole = photo.rgb if photo.upright is None else photo.upright
    seen = [Seen("As it is", whole, detector.predict_photo(photo))]
    for each in perturbations:
        changed = each(Pixels(whole, None), seed=seed, key=photo.sha256).rgb
        again = read_photo(changed, detector.pixel_spec, name=each.name)
        verdict = detector.predict_photo(replace(again, file_quality=each.file_quality))
        seen.append(Seen(each.title, changed, verdict))
    return seen


def plot_seen(seen: Sequence[Seen], policy: Policy) -> None:
    """The score after each perturbation, with the two thresholds: does the verdict hold?"""
    labels = [f"{title}: {verdict.outcome}" for title, _, verdict in seen]
    rows = pd.DataFrame({"label": labels, "value": [each.verdict.score for each in seen]})
    colours = [LABEL_COLOURS.get(each.verdict.outcome, QUIET) for each in seen]
    (panel,) = axes("Does the verdict hold?", height=1.6 + 0.4 * len(seen))
    plots.intervals(panel, rows.assign(low=np.nan, high=np.nan), "score", colours)
    for threshold in (policy.t_real, policy.t_synthetic):
        panel.axvline(threshold, color=INK, linewidth=1, linestyle="--")


def overlay(rgb: npt.NDArray[np.uint8], verdict: Verdict) -> Image.Image:
    """The photo under its heat map, without a caption."""
    return draw_overlay(rgb, verdict).crop((0, 0, rgb.shape[1], rgb.shape[0]))


def plot_tiles(photo: Photo, tiles: Cover, logits: npt.NDArray[np.float32]) -> None:
    """How the photo is cut into tiles, and the network's logit for each."""
    (panel,) = axes(f"{len(logits)} tiles and their logits (orange: synthetic)", height=6)
    panel.imshow(photo.rgb)
    panel.set_axis_off()
    side = tiles.tiles.shape[1]
    for (top, left), logit in zip(tiles.origins.tolist(), logits.tolist(), strict=True):
        panel.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor="white"))
        colour = LABEL_COLOURS["synthetic" if logit > 0 else "real"]
        box = {"facecolor": colour, "alpha": 0.8, "linewidth": 0, "pad": 3}
        place = (left + side / 2, top + side / 2)
        panel.annotate(f"{logit:+.1f}", place, color="white", ha="center", va="center", bbox=box)
