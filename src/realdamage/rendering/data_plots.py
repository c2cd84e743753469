"""Draws what a set of photos holds and by what its labels could be guessed; for notebooks."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from PIL import Image

from realdamage.core.decoding import decode
from realdamage.core.quality import file_jpeg_quality
from realdamage.data.audit import AuditReport
from realdamage.data.duplicates import Grouping, Nearness
from realdamage.data.manifest import Manifest, read_mask
from realdamage.data.shortcuts import LIMIT, container_facts
from realdamage.data.splits import components
from realdamage.data.vocabulary import KIND_LABELS, KINDS, LABELS
from realdamage.rendering.plot_style import (
    BAD,
    CARD,
    INK,
    LABEL_COLOURS,
    LINE,
    OUTLINE,
    QUIET,
    Plot,
    bare,
    legend,
    new_plot,
    percent,
    say,
)

_VALUES = 9  # of a column; the rarer ones are one
_SIDE = 320  # pixels of a picture's longer side
_RADIUS = Nearness().radius


def plot_counts(table: pd.DataFrame, columns: Sequence[str] = ("kind", "damage", "split")) -> Plot:
    """Photos of each label per value of some columns of a manifest; columns without any value are left out."""
    told = [column for column in columns if (table[column] != "").any()] or ["label"]
    counts = [_counts(table, column) for column in told]
    height = 1.4 + 0.42 * max(len(rows) for rows in counts)
    figure, panels = new_plot(
        f"{len(table):,} photos: what they show", columns=len(told), size=(10.5, height)
    )
    for axes, column, rows in zip(panels, told, counts, strict=True):
        _paired_bars(axes, rows, [f"{value:,}" for value in rows.to_numpy().ravel()])
        axes.set(xlabel="photos")
        say(axes, column)
    legend(panels[0], "lower right")
    return figure


def contact_sheet(manifest: Manifest, *, photos: int = 5, seed: int = 0) -> Plot:
    """Some photos of each kind, drawn at random; a line goes around what their mask calls synthetic."""
    table, rng = manifest.table, np.random.default_rng(seed)
    kinds = [kind for kind in (*KINDS, "") if (table["kind"] == kind).any()]
    title = "Photos by kind; outlined: what was painted or regenerated"
    figure, panels = new_plot(
        title, rows=len(kinds), columns=photos, size=(10.5, 0.6 + 1.62 * len(kinds))
    )
    for axes in panels:
        bare(axes)
    for row, kind in enumerate(kinds):
        own = np.flatnonzero(table["kind"] == kind)
        for axes, index in zip(
            panels[row * photos :], rng.permutation(own)[:photos].tolist(), strict=False
        ):
            show_photo(axes, manifest, index)
        first = panels[row * photos]
        label = KIND_LABELS.get(kind, str(table["label"].iat[own[0]]))
        first.set_ylabel(
            f"{kind or label}\n{len(own):,}",
            color=LABEL_COLOURS[label],
            fontsize=12,
            fontweight="bold",
        )
    return figure


def show_photo(axes: Axes, manifest: Manifest, index: int) -> None:
    """The photo at position `index`, with a line around its mask. Raises PhotoError, ManifestError."""
    rgb = decode(manifest.path(str(manifest.table["file_name"].iat[index])))
    picture = Image.fromarray(rgb)
    picture.thumbnail((_SIDE, _SIDE))
    axes.imshow(picture)
    bare(axes)
    if manifest.table["mask_file_name"].iat[index]:
        outline(axes, read_mask(manifest, index, rgb.shape[:2]), picture.size)


def outline(axes: Axes, mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> None:
    """A line around the mask [h, w], drawn at `size` (width, height); none around a whole photo."""
    small = np.asarray(
        Image.fromarray(mask).convert("L").resize(size, Image.Resampling.BILINEAR), dtype=np.float64
    )
    if small.min() < 128 <= small.max():
        axes.contour(small, levels=[127.5], colors=OUTLINE, linewidths=1.3)


def file_table(manifest: Manifest) -> pd.DataFrame:
    """What the files tell without a look at the photo, one row each: file_name, label, size ("504×376"), saved ("JPEG
    90": the quality nearest to its tables; the format of other files), bits_per_pixel. Raises PhotoError."""
    rows = []
    for name, label in zip(manifest.table["file_name"], manifest.table["label"], strict=True):
        contents = manifest.path(name).read_bytes()
        facts = container_facts(io.BytesIO(contents), name=manifest.path(name), size=len(contents))
        quality = file_jpeg_quality(contents)
        saved = facts["format"] if quality is None else f"JPEG {quality:.0f}"
        bits = 8 * len(contents) / (facts["width"] * facts["height"])
        rows.append((name, label, f"{facts['width']}×{facts['height']}", saved, bits))
    return pd.DataFrame(rows, columns=["file_name", "label", "size", "saved", "bits_per_pixel"])


def plot_files(files: pd.DataFrame) -> Plot:
    """Sizes, qualities and bits per pixel (`file_table`), each label's photos as shares: where blue and orange differ,
    a network need not look at the damage."""
    figure, panels = new_plot(
        "What the files alone tell: any difference between the labels is a shortcut",
        columns=3,
        size=(10.5, 4.6),
    )
    for axes, column, text in zip(
        panels, ("size", "saved"), ("size in pixels", "saved as"), strict=False
    ):
        counts = _counts(files, column)
        shares = counts / counts.sum().clip(lower=1)
        _paired_bars(axes, shares, [f"{value:.0%}" for value in shares.to_numpy().ravel()])
        axes.set(xlabel="share of the label's photos")
        percent(axes.xaxis)
        say(axes, text)
    bits = files["bits_per_pixel"]
    edges = np.linspace(bits.min(), bits.max(), 25).tolist()
    for label in LABELS:
        own = bits[files["label"] == label].to_numpy()
        weights = np.full(len(own), 1 / max(1, len(own)))
        panels[2].hist(
            own,
            edges,
            weights=weights,
            histtype="stepfilled",
            alpha=0.45,
            color=LABEL_COLOURS[label],
            label=label,
        )
    panels[2].set(xlabel="bits per pixel", ylabel="share of the label's photos")
    percent(panels[2].yaxis)
    say(panels[2], "weight of the file")
    legend(panels[2])
    return figure


def plot_audit(report: AuditReport) -> Plot:
    """How well each shortcut tells the labels apart, with its interval; a test fails when all of it lies beyond the
    limit."""
    tests = report.tests
    verdict = "FAILED" if report.failed else "passed" if report.measured else "without a result"
    figure, (axes,) = new_plot(
        f"Audit {verdict}: how well the labels are told without looking at the damage",
        size=(10.5, 1.6 + 0.46 * len(tests)),
    )
    axes.axvspan(LIMIT, 1, color=BAD, alpha=0.06, linewidth=0)
    axes.axvline(LIMIT, color=BAD, linewidth=1, linestyle="--")
    axes.axvline(0.5, color=LINE, linewidth=1)
    for place, test in enumerate(tests):
        if not test.measured:
            axes.text(
                0.02,
                place,
                f"not measured: {test.note.partition(';')[0]}",
                color=QUIET,
                fontsize=10,
                va="center",
            )
            continue
        colour = BAD if test.failed else INK if test.blocking else QUIET
        axes.plot(
            [test.low, test.high],
            [place, place],
            color=colour,
            linewidth=5,
            alpha=0.3,
            solid_capstyle="round",
        )
        axes.plot(test.auroc, place, "o", color=colour, markersize=7, clip_on=False)
        side = -1 if test.auroc > 0.8 else 1
        text = f"{test.auroc:.2f}" + ("" if test.blocking else "  (told, not judged)")
        end = test.low if side < 0 else test.high
        axes.annotate(
            text, (end, place), (8 * side, 0), textcoords="offset points", va="center", color=colour, fontsize=11,
            ha="left" if side > 0 else "right", bbox={"facecolor": CARD, "linewidth": 0, "pad": 1, "alpha": 0.8},
        )  # fmt: skip
    axes.set_yticks(range(len(tests)), [test.title for test in tests])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set(
        xlim=(0, 1),
        ylim=(len(tests) - 0.5, -0.5),
        xlabel="AUROC of a classifier that sees these facts alone",
    )
    say(axes, f"0.5: tells nothing; fails when the whole 95% interval lies above {LIMIT}")
    return figure


def look_alikes(manifest: Manifest, found: Grouping) -> pd.DataFrame:
    """The pairs of photos found alike, the nearest first: a, b (file names), bits (of 256 that differ), same_group
    (whether the manifest already keeps them together) and across (the two splits that they lie in, "" when one)."""
    table, (a, b) = manifest.table, found.pairs.T
    kept, split, name = components(table), table["split"].to_numpy(), table["file_name"].to_numpy()
    apart = (split[a] != split[b]) & (split[a] != "") & (split[b] != "")
    across = np.where(apart, split[a].astype(object) + " and " + split[b].astype(object), "")
    pairs = pd.DataFrame(
        {
            "a": name[a],
            "b": name[b],
            "bits": found.distances,
            "same_group": kept[a] == kept[b],
            "across": across,
        }
    )
    return pairs.sort_values("bits", kind="stable", ignore_index=True)


def plot_look_alikes(pairs: pd.DataFrame) -> Plot:
    """How near the pairs of `look_alikes` are: those that the manifest knows of, and those that it does not."""
    figure, (axes,) = new_plot(
        "Photos that look alike: does the manifest keep them together?", size=(10.5, 3.6)
    )
    edges = list(range(0, _RADIUS + 12, 4))
    for same, colour, text in (
        (True, LABEL_COLOURS["real"], "of one group"),
        (False, BAD, "of different groups"),
    ):
        own = pairs.loc[pairs["same_group"] == same, "bits"]
        axes.hist(own, edges, color=colour, alpha=0.6, label=f"{text}: {len(own):,} pairs")
    axes.axvline(_RADIUS, color=QUIET, linewidth=1, linestyle="--")
    axes.annotate(
        "not alike", (_RADIUS, 0), (4, 4), textcoords="offset points", color=QUIET, fontsize=10
    )
    axes.set(
        xlim=(0, edges[-1]),
        xlabel="bits of 256 in which their hashes differ",
        ylabel="pairs of photos",
    )
    legend(axes, "upper center")
    return figure


def plot_look_alike_photos(manifest: Manifest, pairs: pd.DataFrame) -> Plot:
    """The photos of some rows of `look_alikes`, one above the other."""
    figure, panels = new_plot(
        "Do they show the same?", rows=2, columns=max(1, len(pairs)), size=(10.5, 5.4)
    )
    place = {name: index for index, name in enumerate(manifest.table["file_name"])}
    for axes in panels:
        bare(axes)
    for column, pair in enumerate(pairs.to_dict("records")):
        for name, axes in zip((pair["a"], pair["b"]), panels[column :: len(pairs)], strict=True):
            show_photo(axes, manifest, place[name])
        groups = "one group" if pair["same_group"] else "two groups"
        where = f", in {pair['across']}" if pair["across"] else ""
        say(panels[column], f"{pair['bits']} bits apart,\n{groups}{where}")
    return figure


def _counts(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Photos per value and label, the most frequent first."""
    counts = pd.crosstab(table[column].replace("", "(none)"), table["label"]).reindex(
        columns=LABELS, fill_value=0
    )
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    if len(counts) > _VALUES:
        rest = counts.iloc[_VALUES - 1 :]
        counts = pd.concat(
            [counts.iloc[: _VALUES - 1], rest.sum().to_frame(f"{len(rest)} others").T]
        )
    return counts


def _paired_bars(axes: Axes, rows: pd.DataFrame, texts: Sequence[str]) -> None:
    """A bar for each label of each row; `texts`: what stands at their ends, row by row."""
    places = np.arange(len(rows))
    alone = ((rows > 0).sum(axis=1) <= 1).all()  # the value says the label, as a kind does
    for number, label in enumerate(rows.columns):
        shift = 0 if alone else 0.36 * (number - 0.5)
        axes.barh(
            places + shift,
            rows[label],
            height=0.34,
            color=LABEL_COLOURS[str(label)],
            label=str(label),
        )
        for place, value in enumerate(rows[label]):
            if value:
                text = texts[place * len(rows.columns) + number]
                axes.annotate(
                    text, (value, place + shift), (4, 0), textcoords="offset points", va="center", fontsize=9.5,
                    color=QUIET,
                )  # fmt: skip
    axes.set_yticks(places, [str(value) for value in rows.index])
    axes.set(xlim=(0, 1.2 * rows.to_numpy().max()), ylim=(len(rows) - 0.5, -0.5))
    axes.tick_params(axis="y", length=0, labelcolor=INK)
