"""What the notebooks' plots are drawn from."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from realdamage.data.manifest import Manifest, read_manifest
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
