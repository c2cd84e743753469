"""Slices are compared with the right photos, perturbations with the same photos as they are.
Outcomes by source are in the card's tests."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from realdamage.data.bootstrap import share_interval
from realdamage.evaluation.figures import photo_metrics, tpr_at_fpr
from realdamage.evaluation.predictions import predictions_table
from realdamage.evaluation.slices import OTHERS, robustness_table, slice_table, strictest_source


def photos(n, label, mean=0.0, **columns):
    score = np.random.default_rng(n + len(label)).normal(mean, 1, n)
    synthetic = label == "synthetic"
    own = {"label": label, "kind": "ai_region" if synthetic else "damaged", "score": score}
    own["outcome"] = np.select([score >= 2, score < 0], ["synthetic", "real"], "review")
    own["mask_area"] = math.nan if synthetic else 0.0
    return predictions_table(pd.DataFrame(own | columns))


def together(*parts):
    table = pd.concat(parts, ignore_index=True)
    return table.assign(file_name=[f"{index}.jpg" for index in range(len(table))])


def row_of(table, **values):
    chosen = np.logical_and.reduce([table[key] == value for key, value in values.items()])
    [row] = table[chosen].to_dict(orient="records")
    return row


def auroc_of(real, synthetic):
    photos = pd.concat([real, synthetic])
    return float(roc_auc_score(photos["label"] == "synthetic", photos["score"]))


def test_a_generator_is_compared_with_all_real_photos():
    table = together(
        photos(150, "real", source="shop"),
        photos(60, "real", kind="original", source="other"),
        photos(40, "synthetic", 2, generator="flux"),
        photos(30, "synthetic", 1, generator="sd3"),
        photos(3, "synthetic", 1, generator="rare"),
        photos(6, "synthetic", 1),
    )
    found = slice_table(table, ["generator"])
    assert found["generator"].tolist() == ["flux", "rare", "sd3", "(not named)"]
    real, flux = table[table["label"] == "real"], table[table["generator"] == "flux"]
    row = row_of(found, generator="flux")
    assert (row["n"], row["n_real"], row["n_synthetic"], row["n_groups"]) == (40, 210, 40, 40)
    assert row["auroc"] == pytest.approx(auroc_of(real, flux))
    assert row["tpr_at_fpr_1"] == tpr_at_fpr(
        real["score"].to_numpy(), flux["score"].to_numpy(), 0.01
    )
    assert row["auroc_low"] < row["auroc"] < row["auroc_high"]
    assert (row["called_of"], row["note"]) == ("synthetic", "")
    assert row["called_synthetic"] == (flux["outcome"] == "synthetic").mean()
    assert row["called_real"] == (flux["outcome"] == "real").mean()
    assert row_of(found, generator="rare")["note"].startswith("3 synthetic and 210 real photos")


def test_a_source_is_compared_with_its_own_real_photos_and_counts_false_alarms():
    own = photos(120, "real", 1, source="shop")
    table = together(
        own,
        photos(50, "real", 0, source="other"),
        photos(3, "real", 0, source="few"),
        photos(40, "synthetic", 2, source="shop"),
        photos(20, "synthetic", 2, source="few"),
        photos(20, "synthetic", 2, source="web"),
    )
    found = slice_table(table, ["source"])
    row = row_of(found, source="shop")
    assert (row["n"], row["n_real"], row["n_synthetic"], row["called_of"]) == (160, 120, 40, "real")
    assert row["auroc"] == pytest.approx(
        auroc_of(own, table[table["source"].eq("shop") & table["label"].eq("synthetic")])
    )
    accused = int((own["outcome"] == "synthetic").sum())
    exact = binomtest(accused, 120).proportion_ci(method="exact")
    assert row["called_synthetic"] == accused / 120 > 0
    assert (row["called_synthetic_low"], row["called_synthetic_high"]) == pytest.approx(
        (exact.low, exact.high)
    )
    assert row_of(found, source="web")["n_real"] == 173  # too few of its own


def test_a_damage_is_compared_with_real_damage_of_its_sort_when_there_is_enough():
    table = together(
        photos(100, "real", 0, damage="torn"),
        photos(30, "real", 1, damage="cracked"),
        photos(40, "real", 2, kind="annotated", damage="cracked"),
        photos(50, "real", 0, kind="original"),
        photos(20, "synthetic", 2, damage="torn"),
        photos(20, "synthetic", 2, damage="cracked"),
        photos(20, "synthetic", 2),
    )
    found = slice_table(table, ["damage"])
    assert found["damage"].tolist() == ["cracked", "torn", "(none)"]
    damaged = table["kind"] == "damaged"
    for damage, real in (
        ("torn", damaged & (table["damage"] == "torn")),
        ("cracked", damaged),  # only 30 of this damage
        ("(none)", table["label"] == "real"),
    ):
        row = row_of(found, damage=damage)
        own = (table["label"] == "synthetic") & (table["damage"] == damage.replace("(none)", ""))
        assert row["auroc"] == pytest.approx(auroc_of(table[real], table[own]))
        assert (row["n_real"], row["note"]) == (real.sum(), "")


def suite(n_damaged=150, noise=1.0):
    """So many really damaged photos, 50 others and 200 edits as they are, the same "worse"
    (noisier) and "shifted" (all scores higher)."""
    rng = np.random.default_rng(0)
    sizes = [n_damaged, 50, 200]
    n, label = sum(sizes), np.repeat(["real", "real", "synthetic"], sizes)
    columns = {
        "file_name": [f"{index}.jpg" for index in range(n)],
        "label": label,
        "kind": np.repeat(["damaged", "original", "ai_region"], sizes),
        "generator": np.repeat(["", "", "flux"], sizes),
        "group": [f"g{index // 2}" for index in range(n)],
        "score": rng.normal(np.where(label == "synthetic", 1.5, 0), 1),
    }
    clean = predictions_table(pd.DataFrame(columns))
    worse = clean.assign(perturbation="worse", score=clean["score"] + rng.normal(0, noise, n))
    shifted = clean.assign(perturbation="shifted", score=clean["score"] + 1)
    # Not in this order: the table puts the photos as they are first.
    table = pd.concat([worse, clean, shifted], ignore_index=True)
    called = [table["score"] >= 2, table["score"] < 0]
    return table.assign(outcome=np.select(called, ["synthetic", "real"], "review"))


def test_each_row_counts_the_outcomes_of_its_photos_and_clean_comes_first():
    """Its AUROC and rate are compared in test_metric_agreement."""
    table = suite()
    found = robustness_table(table, n_boot=2)
    assert found["perturbation"].tolist() == ["clean", "worse", "shifted"]
    for row in found.to_dict(orient="records"):
        own = table[table["perturbation"] == row["perturbation"].replace("clean", "")]
        called = pd.crosstab(own["kind"], own["outcome"], normalize="index")
        # 75 groups of two photos: each group counts as one.
        accused = called.loc["damaged", "synthetic"]
        exact = share_interval(75 * accused, 75)
        assert row["false_alarms"] == pytest.approx(accused)
        assert (row["false_alarms_low"], row["false_alarms_high"]) == pytest.approx(exact)
        of_all = (own.loc[own["label"] == "real", "outcome"] == "synthetic").mean()
        assert row["false_alarms_all_real"] == pytest.approx(of_all)
        for outcome in ("synthetic", "real"):
            expected = called.loc["ai_region", outcome]
            assert row[f"called_{outcome}"] == pytest.approx(expected)
        assert row["review"] == pytest.approx((own["outcome"] == "review").mean())
        counts = [row[key] for key in ("n", "n_real", "n_damaged", "n_synthetic", "note")]
        assert counts == [400, 200, 150, 200, ""]
    # Slices by perturbation agree, alone and crossed.
    for by in (["perturbation"], ["generator", "perturbation"]):
        sliced = slice_table(table, by, n_boot=2)
        assert sliced["perturbation"].tolist() == found["perturbation"].tolist()
        assert sliced["auroc"].tolist() == found["auroc"].tolist()
        assert sliced["n_real"].tolist() == [200, 200, 200]


def test_the_drop_is_the_difference_and_its_interval_is_paired():
    clean, worse, shifted = robustness_table(suite(noise=0.3), n_boot=200).to_dict(orient="records")
    assert math.isnan(clean["auroc_drop"])
    assert worse["auroc_drop"] == pytest.approx(clean["auroc"] - worse["auroc"])
    assert worse["auroc_drop_low"] < worse["auroc_drop"] < worse["auroc_drop_high"]
    # Most of what moves one AUROC moves the other too.
    assert worse["auroc_drop_high"] - worse["auroc_drop_low"] < 0.6 * (
        worse["auroc_high"] - worse["auroc_low"]
    )
    # A shift of all scores leaves the order alone: no drop in any draw, though many more are
    # accused.
    assert [shifted["auroc_drop" + end] for end in ("", "_low", "_high")] == [0.0, 0.0, 0.0]
    assert shifted["false_alarms"] > 2 * clean["false_alarms"]


def test_the_rate_is_over_one_sort_of_negatives_in_all_rows():
    table = suite(n_damaged=110)
    few = table.query("perturbation != 'worse' or kind != 'damaged' or file_name < '11'")
    rows = robustness_table(few, n_boot=20).to_dict(orient="records")
    for row in (rows[0], rows[2]):
        own = few[few["perturbation"] == row["perturbation"].replace("clean", "")]
        assert row["tpr_at_fpr_1"] == pytest.approx(
            photo_metrics(own, n_boot=2)["tpr_at_fpr_1_all_real"]
        )
        assert "TPR over all real photos" in row["note"]
    assert math.isnan(rows[1]["tpr_at_fpr_1"])
    assert "real photos, too few for a rate of 1% (at least 100)" in rows[1]["note"]


def real_photos(counts, lowest):
    """So many photos of each source, with scores that rise by 1 from its lowest."""
    rows = [(source, lowest.get(source, 0.0) + i) for source, n in counts.items() for i in range(n)]
    return pd.DataFrame(rows, columns=["source", "score"])


@pytest.mark.parametrize(
    ("counts", "lowest", "share", "expected"),
    [
        # One of twenty phones may score as high, and five of a hundred of the shop.
        ({"shop": 100, "phones": 20}, {"phones": 90.0}, 0.05, (108.0, "phones")),
        # 3% of 21 photos is none at all, so the small sources count together.
        (
            {"shop": 100, "phones": 21, "boards": 20},
            {"phones": 90.0, "boards": 80.0},
            0.03,
            (109.0, OTHERS),
        ),
        ({"shop": 100}, {}, 0.05, None),
        ({"a": 9, "b": 9}, {}, 0.05, None),
    ],
)
def test_the_strictest_source_sets_the_threshold(counts, lowest, share, expected):
    """Scores of each source rise by 1 from its lowest."""
    rows = [(source, lowest.get(source, 0.0) + i) for source, n in counts.items() for i in range(n)]
    if expected:
        expected = np.nextafter(expected[0], np.inf), expected[1]
    assert strictest_source(pd.DataFrame(rows, columns=["source", "score"]), share) == expected
