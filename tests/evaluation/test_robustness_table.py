"""Every perturbation has its row, the drop is between the same photos, and its interval is paired."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from realdamage.errors import RealDamageError
from realdamage.evaluation.metrics import photo_metrics
from realdamage.evaluation.predictions import FURTHER_COLUMNS, PREDICTION_COLUMNS
from realdamage.evaluation.robustness_table import COLUMNS, robustness_table
from realdamage.rendering.tables import format_robustness, robustness_lines


def suite(
    n_damaged: int = 150, n_original: int = 50, n_synthetic: int = 200, noise: float = 1.0
) -> pd.DataFrame:
    """Photos as they are, the same "worse" (noisier) and "shifted" (all scores higher)."""
    rng = np.random.default_rng(0)
    n = n_damaged + n_original + n_synthetic
    empty = dict.fromkeys((*PREDICTION_COLUMNS, *FURTHER_COLUMNS), "")
    label = np.repeat(["real", "synthetic"], [n_damaged + n_original, n_synthetic])
    clean = pd.DataFrame({**empty, "file_name": [f"{index}.jpg" for index in range(n)]}).assign(
        label=label,
        kind=np.repeat(["damaged", "original", "ai_region"], [n_damaged, n_original, n_synthetic]),
        group=[f"g{index // 2}" for index in range(n)],
        score=rng.normal(np.where(label == "synthetic", 1.5, 0), 1),
    )
    worse = clean.assign(perturbation="worse", score=clean["score"] + rng.normal(0, noise, n))
    shifted = clean.assign(perturbation="shifted", score=clean["score"] + 1)
    # Not in this order: the table puts the photos as they are first.
    table = pd.concat([worse, clean, shifted], ignore_index=True)
    called = np.where(
        table["score"] >= 2, "synthetic", np.where(table["score"] < 0, "real", "review")
    )
    return table.assign(outcome=called)


def test_each_row_has_the_figures_of_its_photos_and_clean_comes_first() -> None:
    table = suite()
    found = robustness_table(table, n_boot=50)
    assert found.columns.tolist() == list(COLUMNS)
    assert found["perturbation"].tolist() == ["clean", "worse", "shifted"]
    for row in found.to_dict(orient="records"):
        own = table[table["perturbation"] == row["perturbation"].replace("clean", "")]
        synthetic, damaged = own[own["label"] == "synthetic"], own[own["kind"] == "damaged"]
        headline = photo_metrics(own, n_boot=50)
        for key in ("auroc", "tpr_at_fpr_1"):
            assert row[key] == pytest.approx(headline[key])
        assert [row["auroc_low"], row["auroc_high"]] == pytest.approx(
            headline["intervals"]["auroc"]
        )
        accused = int((damaged["outcome"] == "synthetic").sum())
        exact = binomtest(accused, 150).proportion_ci(method="exact")
        assert row["false_alarms"] == accused / 150
        assert (row["false_alarms_low"], row["false_alarms_high"]) == pytest.approx(
            (exact.low, exact.high)
        )
        of_all = (own.loc[own["label"] == "real", "outcome"] == "synthetic").mean()
        assert row["false_alarms_all_real"] == pytest.approx(of_all)
        assert row["false_alarms_all_real_low"] <= of_all <= row["false_alarms_all_real_high"]
        assert row["called_synthetic"] == (synthetic["outcome"] == "synthetic").mean()
        assert row["called_real"] == (synthetic["outcome"] == "real").mean()
        assert row["review"] == (own["outcome"] == "review").mean()
        assert (row["n"], row["n_real"], row["n_damaged"], row["n_synthetic"], row["note"]) == (
            400,
            200,
            150,
            200,
            "",
        )


def test_the_drop_is_the_difference_and_its_interval_is_paired() -> None:
    clean, worse, shifted = robustness_table(suite(noise=0.3), n_boot=200).to_dict(orient="records")
    assert math.isnan(clean["auroc_drop"])
    assert worse["auroc_drop"] == pytest.approx(clean["auroc"] - worse["auroc"])
    assert worse["auroc_drop_low"] < worse["auroc_drop"] < worse["auroc_drop_high"]
    # Most of what moves one AUROC moves the other too.
    assert worse["auroc_drop_high"] - worse["auroc_drop_low"] < 0.6 * (
        worse["auroc_high"] - worse["auroc_low"]
    )
    # A shift of all scores leaves the order alone: no drop in any draw, though many more are accused.
    assert (shifted["auroc_drop"], shifted["auroc_drop_low"], shifted["auroc_drop_high"]) == (
        0.0,
        0.0,
        0.0,
    )
    assert shifted["false_alarms"] > 2 * clean["false_alarms"]


def test_the_drop_is_over_the_photos_that_were_scored_both_ways() -> None:
    table = suite()
    left_out = (table["perturbation"] == "worse") & table["file_name"].isin(
        [f"{index}.jpg" for index in range(0, 400, 7)]
    )
    table = table[~left_out]
    worse = robustness_table(table, n_boot=20).to_dict(orient="records")[1]
    own = table[table["perturbation"] == "worse"]
    same = table[(table["perturbation"] == "") & table["file_name"].isin(own["file_name"])]
    before, after = (
        roc_auc_score(photos["label"] == "synthetic", photos["score"]) for photos in (same, own)
    )
    assert worse["auroc_drop"] == pytest.approx(before - after)
    both = table[(table["perturbation"] != "") | (table.index % 2 == 0)]
    note = robustness_table(both, n_boot=20).to_dict(orient="records")[1]["note"]
    assert "the drop is over the 171 photos that were also scored as they are" in note


def test_without_the_photos_as_they_are_there_is_no_drop() -> None:
    table = suite()
    found = robustness_table(table[table["perturbation"] != ""], n_boot=20)
    assert found["perturbation"].tolist() == ["worse", "shifted"]
    assert found["auroc_drop"].isna().all()
    assert found["auroc"].notna().all()
    assert (
        found["note"].eq("too few of these photos were scored as they are to tell the drop").all()
    )


def test_the_rate_is_over_one_sort_of_negatives_in_all_rows() -> None:
    table = suite(n_damaged=110)
    few = table[
        (table["perturbation"] != "worse")
        | (table["kind"] != "damaged")
        | (table["file_name"] < "11")
    ]
    rows = robustness_table(few, n_boot=20).to_dict(orient="records")
    for row in (rows[0], rows[2]):
        own = few[few["perturbation"] == row["perturbation"].replace("clean", "")]
        assert row["tpr_at_fpr_1"] == pytest.approx(
            photo_metrics(own, n_boot=2)["tpr_at_fpr_1_all_real"]
        )
        assert row["note"] == "TPR over all real photos, for fewer than 100 are really damaged"
    assert math.isnan(rows[1]["tpr_at_fpr_1"])
    assert "real photos, too few for a rate of 1% (at least 100)" in rows[1]["note"]


def test_what_cannot_be_known_is_left_out_with_the_reason() -> None:
    table = suite(n_damaged=0, n_original=3)
    row = robustness_table(table, n_boot=20).to_dict(orient="records")[1]
    assert math.isnan(row["auroc"])
    assert math.isnan(row["false_alarms"])
    assert math.isnan(row["auroc_drop"])
    accused = (
        table.loc[(table["perturbation"] == "worse") & (table["label"] == "real"), "outcome"]
        == "synthetic"
    )
    assert row["false_alarms_all_real"] == pytest.approx(accused.mean())
    assert (
        "200 synthetic and 3 real photos, too few for a figure (at least 5 of each)" in row["note"]
    )
    assert "no really damaged photo, so no false alarms on real damage are told" in row["note"]
    [alone] = robustness_table(table.iloc[:1], n_boot=20).to_dict(orient="records")
    assert (alone["n"], math.isnan(alone["auroc"])) == (1, True)
    uncalibrated = robustness_table(
        suite().assign(outcome="review", reasons="not_calibrated"), n_boot=20
    )
    assert (
        uncalibrated[
            ["false_alarms", "false_alarms_all_real", "called_synthetic", "called_real", "review"]
        ]
        .isna()
        .all(axis=None)
    )
    assert uncalibrated["note"].eq("the model has no thresholds").all()


def accused_elsewhere() -> pd.DataFrame:
    """Of the real photos, 18 really damaged ones that are all spared and 150 others, of which one product's 48 are all
    called synthetic."""
    table = suite(n_damaged=18, n_original=150)
    real = table["label"] == "real"
    row = table["file_name"].str.removesuffix(".jpg").astype(int)
    product = real & row.between(18, 65)
    group = table["group"].mask(product, "one product")
    outcome = (
        table["outcome"]
        .mask(real, "review")
        .mask(product & (table["perturbation"] == "worse"), "synthetic")
    )
    return table.assign(group=group, outcome=outcome)


def test_a_few_spared_damaged_photos_hide_no_accused_others() -> None:
    clean, worse, _ = robustness_table(accused_elsewhere(), n_boot=300).to_dict(orient="records")
    assert (worse["false_alarms"], worse["n_damaged"]) == (0.0, 18)
    assert (worse["false_alarms_all_real"], worse["n_real"]) == (pytest.approx(48 / 168), 168)
    # One product's photos are one draw: their number makes nothing surer.
    naive = binomtest(48, 168).proportion_ci(method="exact")
    assert worse["false_alarms_all_real_low"] < naive.low
    assert worse["false_alarms_all_real_high"] > naive.high
    # Nobody accused is no certainty, and as sure as there are products.
    own = accused_elsewhere()
    groups = own[(own["perturbation"] == "") & (own["label"] == "real")]["group"].nunique()
    exact = binomtest(0, groups).proportion_ci(method="exact")
    assert (clean["false_alarms_all_real"], clean["false_alarms_all_real_low"]) == (0.0, 0.0)
    assert clean["false_alarms_all_real_high"] == pytest.approx(exact.high)


def test_rows_from_before_a_figure_was_measured_are_shown_without_it() -> None:
    found = robustness_table(accused_elsewhere(), n_boot=20)
    old = found.drop(columns=[name for name in found if name == "n_damaged" or "all_real" in name])
    lines = robustness_lines(old)
    assert "all real" not in lines[0]
    assert len(lines) == len(robustness_lines(found)) - 1


def test_nothing_scored_is_refused() -> None:
    with pytest.raises(RealDamageError, match="no photo at all with a score"):
        robustness_table(suite().assign(score=np.nan))


def test_lines_for_a_terminal_show_every_perturbation_with_its_drop() -> None:
    found = robustness_table(suite(n_damaged=60), n_boot=50)
    lines = robustness_lines(found)
    [worse] = [line for line in lines if line.startswith("worse ")]
    row = found.to_dict(orient="records")[1]
    assert (
        f"{row['auroc_drop']:.3f} ({row['auroc_drop_low']:.3f}–{row['auroc_drop_high']:.3f})"
        in worse
    )
    assert [line.split()[0] for line in lines[1:4]] == ["clean", "worse", "shifted"]
    # A note on all rows names none of them.
    assert lines[4:] == [
        "  – TPR over all real photos, for fewer than 100 are really damaged",
        "  – accused: called synthetic, of 60 really damaged and of all 110 real photos",
    ]
    assert f"{row['false_alarms_all_real']:.3f} ({row['false_alarms_all_real_low']:.3f}–" in worse
    assert format_robustness(found.to_dict(orient="records")).splitlines() == ["", *lines]
    assert format_robustness([]) == ""
