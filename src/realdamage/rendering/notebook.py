"""What the notebooks call: where the files are, and plots that can go on a slide as they are."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from PIL import Image

from realdamage.core.decode import decode
from realdamage.core.detector import Detector
from realdamage.core.overlay import draw_overlay
from realdamage.core.quality import file_jpeg_quality
from realdamage.core.tiles import Photo
from realdamage.core.verdict import Verdict
from realdamage.data.audit import AuditReport
from realdamage.data.manifest import Manifest, read_mask
from realdamage.data.shortcuts import LIMIT, container_facts
from realdamage.data.vocabulary import KINDS, LABELS
from realdamage.errors import RealDamageError
from realdamage.evaluation.perturbations import Perturbation, Pixels
from realdamage.evaluation.predictions import score_manifest
from realdamage.evaluation.robustness import handed_in, unresized
from realdamage.rendering import plots, words
from realdamage.rendering.plots import BAD, INK, LABEL_COLOURS, QUIET
from realdamage.rendering.report import Report

_VALUES = 9  # bars of a column; rarer values are counted together
_OF_KIND = 5  # photos of each kind in a contact sheet
_SIDE = 320  # pixels of a picture's longer side
_BLANK = Image.new("RGB", (1, 1), "white")


class NotThereError(RealDamageError):
    """A notebook shows the message alone: a reader wants to know what to run, not where it
    failed."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def repository() -> Path:
    """The nearest folder at or above the working folder with a pyproject.toml."""
    here = Path.cwd()
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


def plot_counts(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Photos of each label per value of some columns."""
    shown = [column for column in columns if (table[column] != "").any()] or ["label"]
    for panel, column in zip(axes("Real and synthetic photos", len(shown)), shown, strict=True):
        values = table[column].replace("", "(none)")
        rare = values.value_counts().index[_VALUES:]
        values = values.mask(values.isin(rare), f"{len(rare)} others")
        counts = pd.crosstab(values, table["label"]).reindex(columns=list(LABELS), fill_value=0)
        counts = counts.loc[counts.sum(axis=1).sort_values(kind="stable").index]
        colours: Any = list(LABEL_COLOURS.values())
        legend = column == shown[0]
        counts.plot.barh(ax=panel, color=colours, width=0.75, title=column, legend=legend)
        panel.set_ylabel("")
        for bars in panel.containers:
            panel.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)  # type: ignore[arg-type]
        panel.margins(x=0.15)


def contact_sheet(manifest: Manifest) -> None:
    """Some photos of each kind, drawn at random, one kind a row, with a line around their masks."""
    kinds, rng = manifest.table["kind"], np.random.default_rng(0)
    pictures: list[tuple[Image.Image, str]] = []
    for kind in (kind for kind in (*KINDS, "") if (kinds == kind).any()):
        chosen = rng.permutation(np.flatnonzero(kinds == kind))[:_OF_KIND].tolist()
        for index in chosen:
            row = manifest.table.iloc[index]
            rgb = decode(manifest.path(row["file_name"]))
            mask = read_mask(manifest, index, rgb.shape[:2]) if row["mask_file_name"] else None
            pictures.append((plots.outlined(rgb, mask, _SIDE), kind or "(none)"))
        pictures += [(_BLANK, "")] * (_OF_KIND - len(chosen))
    plot_pictures("Photos by kind; outlined: what was painted or regenerated", pictures, _OF_KIND)


def file_table(manifest: Manifest) -> pd.DataFrame:
    """What is known of the files without decoding the photos: label, size, saved (as),
    bits_per_pixel."""
    paths = [manifest.path(name) for name in manifest.table["file_name"]]
    found = pd.DataFrame([container_facts(path) for path in paths])
    quality = pd.Series([file_jpeg_quality(path.read_bytes()) for path in paths], dtype=float)
    saved = found["format"] + quality.map(" {:.0f}".format, na_action="ignore").fillna("")
    size = found["width"].astype(str) + "×" + found["height"].astype(str)
    bits = 8 * found["bytes"] / (found["width"] * found["height"])
    columns = {"label": manifest.table["label"], "size": size, "saved": saved}
    return pd.DataFrame({**columns, "bits_per_pixel": bits})


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


def plot_worst(report: Report, examples: str, title: str) -> None:
    """The first four of a report's "false_alarms" or "misses", each above its heat map."""
    rows = report.values[examples][:4]
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


def clear_example(detector: Detector, manifest: Manifest) -> Path:
    """The edit whose painted area stands out most in its heat map, of the first 24 that the model
    was not trained on. Raises NotThereError: there is none."""
    table = manifest.table
    edits = (table["kind"] == "ai_region") & (table["split"] != "train")
    edits &= table["mask_file_name"] != ""
    contrasts = {
        photo.file_name: photo.heat[photo.painted].mean() - photo.heat[~photo.painted].mean()
        for photo in score_manifest(detector, manifest.subset(edits & (edits.cumsum() <= 24)))[1]
        if 0 < photo.painted.mean() < 1
    }
    if not contrasts:
        raise NotThereError("photos: no edit with a mask outside the training part. Name a photo.")
    return manifest.path(max(contrasts, key=contrasts.__getitem__))


class Seen(NamedTuple):
    """A photo after a perturbation, and what the detector says of it."""

    title: str
    rgb: npt.NDArray[np.uint8]
    verdict: Verdict


def judged_after(
    detector: Detector, photo: Photo, perturbations: Sequence[Perturbation]
) -> list[Seen]:
    """The photo unchanged, then after each perturbation, judged as the robustness suite judges
    it."""
    whole = Pixels(unresized(photo), None)
    seen = [Seen("As it is", whole.rgb, detector.predict_photo(photo))]
    for each in perturbations:
        changed = each(whole, seed=0, key=photo.sha256)
        verdict = detector.predict_photo(handed_in(changed, each, detector.pixel_spec))
        seen.append(Seen(each.title, changed.rgb, verdict))
    return seen


def overlay(rgb: npt.NDArray[np.uint8], verdict: Verdict) -> Image.Image:
    """The photo under its heat map, without a caption."""
    return draw_overlay(rgb, verdict).crop((0, 0, rgb.shape[1], rgb.shape[0]))
