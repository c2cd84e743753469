"""What the notebooks' figures are drawn from, and what they say when there is nothing to draw."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.core.policy import Calibration
from realdamage.data.duplicates import Grouping
from realdamage.data.manifest import Manifest, read_manifest
from realdamage.rendering.data_plots import (
    contact_sheet,
    file_table,
    look_alikes,
    plot_counts,
    plot_files,
)
from realdamage.rendering.decision_plots import plot_promises, restated
from realdamage.rendering.plot_style import LABEL_COLOURS, Plot
from realdamage.rendering.plots import (
    headline_table,
    plot_pairs,
    plot_robustness,
    plot_slice_map,
    plot_slices,
)
from realdamage.rendering.report_figures import Headline

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample"


@pytest.fixture(scope="module")
def sample() -> Manifest:
    return read_manifest(SAMPLE)


def texts(figure: Plot) -> list[str]:
    """All that stands in a figure outside of its axes' labels."""
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def slices(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({"n": 10, "auroc": 0.8, "auroc_low": 0.7, "auroc_high": 0.9} | columns)


def test_a_figure_shows_itself_as_a_picture_at_half_its_pixels(sample: Manifest) -> None:
    figure = plot_counts(sample.table)
    png, shown_at = figure._repr_png_()
    width, height = Image.open(io.BytesIO(png)).size
    assert shown_at == {
        "width": pytest.approx(width / 2, abs=1),
        "height": pytest.approx(height / 2, abs=1),
    }


def test_counts_are_those_of_the_manifest(sample: Manifest) -> None:
    kinds, damages, splits = plot_counts(sample.table).axes
    counts = sample.table["kind"].value_counts()
    assert {int(text.get_text()) for text in kinds.texts} == set(counts)
    assert sum(int(text.get_text()) for text in damages.texts) == len(sample.table)
    names = {label.get_text() for label in splits.get_yticklabels()}
    assert names == {"train", "val", "test", "policy"}
    (only,) = plot_counts(sample.table.assign(split=""), ["split"]).axes
    assert [label.get_text() for label in only.get_yticklabels()] == ["synthetic", "real"]


def test_a_contact_sheet_has_a_row_for_each_kind_and_outlines_regions_alone(
    sample: Manifest,
) -> None:
    figure = contact_sheet(sample, photos=3)
    rows = np.reshape(np.array(figure.axes, dtype=object), (-1, 3))
    outlined = {row[0].get_ylabel().split("\n")[0]: len(row[0].collections) for row in rows}
    assert outlined == {
        "original": 0,
        "damaged": 0,
        "annotated": 0,
        "ai_region": 1,
        "pasted": 1,
        "ai_whole": 0,
    }
    assert rows[0][0].yaxis.label.get_color() == LABEL_COLOURS["real"]


def test_files_tell_size_quality_and_weight(sample: Manifest) -> None:
    files = file_table(sample)
    first = files.iloc[0]
    path = SAMPLE / first["file_name"]
    with Image.open(path) as image:
        assert first["size"] == f"{image.width}×{image.height}"
        assert first["bits_per_pixel"] == pytest.approx(
            8 * path.stat().st_size / (image.width * image.height)
        )
    assert set(files["saved"]) == {f"JPEG {quality}" for quality in range(85, 93)}
    assert len(plot_files(files).axes) == 3


def test_look_alikes_tell_pairs_that_the_manifest_does_not_know(sample: Manifest) -> None:
    count = len(sample.table)
    table = sample.table.assign(group=[str(row) for row in range(count)], pair="", split="train")
    table.loc[0, "split"] = "test"
    found = Grouping(np.zeros(count, np.int64), np.array([[0, 1], [2, 3]]), np.array([9, 4]), ())
    pairs = look_alikes(replace(sample, table=table), found)
    assert pairs["bits"].tolist() == [4, 9]
    assert not pairs["same_group"].any()
    assert pairs["across"].tolist() == ["", "test and train"]
    assert look_alikes(sample, found)["same_group"].all()


def test_a_slice_map_keeps_the_order_of_both_keys_and_prints_no_figure_from_too_few() -> None:
    table = slices(
        damage=["torn", "torn", "holed", "holed"], mask_area=["1–5%", "over 50%", "up to 1%", "1–5%"],
        auroc=[0.91, np.nan, 0.62, 0.5],
    )  # fmt: skip
    figure = plot_slice_map(table, "damage", "mask_area")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "up to 1%",
        "1–5%",
        "over 50%",
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["torn", "holed"]
    cells = [text for text in texts(figure) if not text.startswith("n = ")]
    assert cells == ["0.91", "too few", "0.62", "0.50"]


def test_slices_without_any_figure_say_so() -> None:
    nothing = slices(kind=["damaged"], auroc=[np.nan])
    assert texts(plot_slices(nothing, "kind")) == ["too few photos in every row to tell"]
    assert texts(plot_slices(slices(kind=["damaged"]), "kind")) == []


def test_robustness_and_pairs_say_what_is_missing() -> None:
    assert "robustness=twelve" in texts(plot_robustness([]))[0]
    none = pd.DataFrame(columns=["kind", "difference"])
    assert "column pair" in texts(plot_pairs(none))[0]


def test_robustness_is_drawn_beside_the_photos_as_they_are() -> None:
    rows = [
        {
            "perturbation": "clean",
            "title": "As it is",
            "auroc": 0.9,
            "auroc_low": 0.8,
            "auroc_high": 1.0,
        },
        {
            "perturbation": "jpeg_50",
            "title": "JPEG 50",
            "auroc": 0.7,
            "auroc_low": 0.6,
            "auroc_high": 0.8,
        },
        {
            "perturbation": "jpeg_30",
            "title": "JPEG 30",
            "auroc": None,
            "auroc_low": None,
            "auroc_high": None,
        },
    ]
    (axes,) = plot_robustness(rows).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "As it is",
        "JPEG 50",
        "JPEG 30",
    ]
    dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert dots == [0.9, 0.7]


def test_pairs_tell_how_many_edits_score_higher() -> None:
    pairs = pd.DataFrame({"kind": "ai_region", "difference": [1.0, 2.0, -1.0, 3.0]})
    assert plot_pairs(pairs).axes[0].get_title(loc="left").startswith("75% of 4 edits score higher")


def test_headlines_read_as_percent_or_figure_with_their_interval() -> None:
    rows = (
        Headline("tpr", "found", 0.366, 0.227, 0.432, share=True),
        Headline("auroc", "AUROC", 0.7154, 0.686, 0.743, baseline=0.5),
        Headline("ece", "ECE", None, note="not calibrated"),
    )
    table = headline_table(rows).data
    assert table["value"].tolist() == ["36.6%", "0.715", "–"]
    assert table["95% interval"].tolist() == ["22.7% to 43.2%", "0.686 to 0.743", ""]
    assert table["note"].tolist() == ["", "without any skill: 0.500", "not calibrated"]


def test_a_probability_is_restated_as_the_model_itself_would() -> None:
    assert restated(0.9, 0.01) == pytest.approx(1 / 12)
    calibration = Calibration(prior=0.3, slope=2.0, intercept=0.1)
    stated = calibration.probability(0.7)
    assert restated(stated, 0.05, stated_at=0.3) == pytest.approx(
        calibration.probability(0.7, prior=0.05)
    )


def test_promises_mark_the_photos_that_they_take() -> None:
    found = texts(plot_promises(110))
    assert found == [
        "5%: 59 photos",
        "3%: 99 photos",
        "1%: 299 photos",
        "yours: 110 photos,\n2.69% at best",
    ]
    assert texts(plot_promises(0)) == found[:3]
