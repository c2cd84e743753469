"""What the notebooks' plots are drawn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.data.duplicates import Grouping
from realdamage.data.manifest import Manifest, read_manifest
from realdamage.errors import RealDamageError
from realdamage.rendering import notebook, plots

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sample() -> Manifest:
    manifest = read_manifest(ROOT / "data" / "sample")
    return manifest.subset(np.arange(len(manifest)) < 24)


def test_counts_are_those_of_the_manifest(sample: Manifest) -> None:
    notebook.plot_counts(sample.table, ["kind", "split"])
    for axes, column in zip(plt.gcf().axes, ("kind", "split"), strict=True):
        counts = pd.crosstab(sample.table[column].replace("", "(none)"), sample.table["label"])
        drawn = [bar.get_width() for bars in axes.containers for bar in bars]
        assert sum(drawn) == counts.to_numpy().sum() == len(sample)


def test_files_tell_size_quality_and_weight(sample: Manifest) -> None:
    first = notebook.file_table(sample).iloc[0]
    path = sample.path(first["file_name"])
    with Image.open(path) as image:
        assert first["size"] == f"{image.width}×{image.height}"
        bits = 8 * path.stat().st_size / (image.width * image.height)
    assert first["bits_per_pixel"] == pytest.approx(bits)
    assert first["saved"].startswith("JPEG ")


def test_look_alikes_that_the_manifest_does_not_keep_together_are_found(sample: Manifest) -> None:
    table = sample.table.assign(group=[str(row) for row in range(24)], pair="", split="train")
    table.loc[0, "split"] = "test"
    found = Grouping(np.zeros(24, np.int64), np.array([[0, 1], [2, 3]]), np.array([9, 4]), ())
    pairs = notebook.look_alikes(replace(sample, table=table), found)
    assert pairs["bits"].tolist() == [4, 9]
    assert not pairs["same_group"].any()
    assert pairs["across"].tolist() == ["", "test and train"]


def test_slices_with_too_few_photos_are_empty_cells_and_no_rows() -> None:
    table = pd.DataFrame(
        {"damage": ["torn", "torn", "holed"], "mask_area": ["1–5%", "over", "1–5%"]}
    )
    table = table.assign(n=10, auroc=[0.91, np.nan, 0.62], auroc_low=0.5, auroc_high=0.95)
    shown = notebook.slice_map(table, "damage", "mask_area").data
    assert shown.loc["torn"].tolist() == pytest.approx([0.91, np.nan], nan_ok=True)
    notebook.plot_slices(table.iloc[:2], "damage")
    labels = [label.get_text() for label in plt.gcf().axes[0].get_yticklabels()]
    assert labels == ["torn (10)"]


def test_robustness_marks_the_photos_as_they_are_and_skips_what_was_not_measured() -> None:
    rows = [
        {"perturbation": name, "auroc": value, "auroc_low": value, "auroc_high": value}
        for name, value in (("clean", 0.9), ("jpeg_50", 0.7), ("jpeg_30", None))
    ]
    (axes,) = notebook.axes("Robustness")
    plots.robustness(axes, rows, "auroc", "AUROC")
    dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert dots == pytest.approx([0.9, 0.7, np.nan], nan_ok=True)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["clean", "jpeg 50", "jpeg 30"]


def test_a_mask_is_outlined_and_a_whole_photo_is_not() -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[:, :32] = True
    assert np.asarray(plots.outlined(rgb, mask, 64)).any()
    assert not np.asarray(plots.outlined(rgb, ~mask | mask, 64)).any()
    assert plots.outlined(rgb, None, 16).size == (16, 16)


def test_paths_are_relative_to_the_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert notebook.repository(ROOT / "notebooks") == ROOT
    assert notebook.repository(tmp_path) == tmp_path
    monkeypatch.chdir(ROOT / "notebooks")
    assert notebook.existing("data/sample", "photos") == ROOT / "data" / "sample"
    with pytest.raises(RealDamageError, match="make quickstart"):
        notebook.existing("out/nowhere", "evaluation")
