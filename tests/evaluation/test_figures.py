"""The figures are those of the libraries, hold the truth in their intervals, and are left out where
photos are too few.
"""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from realdamage.data.vocabulary import LABELS
from realdamage.errors import RealDamageError
from realdamage.evaluation.figures import photo_metrics, reliability_table, roc_curves, tpr_at_fpr
from realdamage.evaluation.slices import part_rows, robustness_table, slice_table


@pytest.fixture(scope="session")
def mixed(predictions_of):
    """`mixed(n_damaged, n_original, n_synthetic)`: two photos to a group, classes two deviations
    apart."""

    def make(n_damaged=250, n_original=250, n_synthetic=300):
        rng = np.random.default_rng(0)
        n_real = n_damaged + n_original
        score = np.concatenate([rng.normal(0, 1, n_real), rng.normal(2, 1, n_synthetic)])
        sizes = [n_damaged, n_original, n_synthetic]
        return predictions_of(
            label=np.repeat(["real", "synthetic"], [n_real, n_synthetic]),
            kind=np.repeat(["damaged", "original", "ai_region"], sizes),
            group=[f"g{i // 2}" for i in range(n_real + n_synthetic)],
            score=score,
            probability=1 / (1 + np.exp(2 - 2 * score)),  # right for as many photos of each class
        )

    return make


def test_exactly_one_error_in_a_hundred_is_still_one_percent():
    negatives = np.concatenate([np.zeros(99), [5.0]])
    assert tpr_at_fpr(negatives, np.array([1.0, 4.0]), 0.01) == 1.0
    assert tpr_at_fpr(negatives, np.array([1.0, 6.0]), 0.005) == 0.5
    assert np.isnan(tpr_at_fpr(np.array([]), np.array([1.0]), 0.01))
    assert np.isnan(tpr_at_fpr(np.array([1.0]), np.array([]), 0.01))


def test_figures_that_the_photos_cannot_support_are_none_with_the_reason(mixed):
    table = mixed(n_damaged=60).assign(probability=np.nan)
    table.loc[[0, 400], "score"] = np.nan
    found = photo_metrics(table, n_boot=20)
    missing = {"tpr_at_fpr_0.5", "tpr_at_fpr_1", "balanced_accuracy", "brier", "ece"}
    assert set(found["reasons"]) == missing
    for key in missing:
        assert (found[key], found["intervals"][key]) == (None, None)
    assert found["reasons"]["tpr_at_fpr_1"].startswith("59 really damaged photos")
    assert found["tpr_at_fpr_5"] is not None
    assert found["tpr_at_fpr_1_all_real"] is not None
    assert (found["n"], found["n_damaged"], found["n_unscored"]) == (608, 59, 2)
    some = mixed()
    some.loc[:2, "probability"] = np.nan
    reason = photo_metrics(some, n_boot=2)["reasons"]["ece"]
    assert reason.startswith("3 of 800 photos lack a probability")
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_figure_has_the_same_interval_in_every_table(mixed):
    table = mixed(200, 0, 200)
    table["generator"] = np.where(table["label"] == "synthetic", "x", "")
    expected = photo_metrics(table)["intervals"]
    [sliced] = slice_table(table, ["generator"]).to_dict(orient="records")
    [robust] = robustness_table(table).to_dict(orient="records")
    [part] = part_rows(table, {"maker": ["x"]})
    for row in (sliced, robust, part):
        for key in ("auroc", "tpr_at_fpr_1"):
            assert [row[f"{key}_low"], row[f"{key}_high"]] == pytest.approx(expected[key], abs=1e-9)
    curve = roc_curves(table)[0]
    at = curve["fpr"].index(pytest.approx(0.01))
    ends = [curve["low"][at], curve["high"][at]]
    assert ends == pytest.approx(expected["tpr_at_fpr_1"], abs=1e-9)
    negatives, positives = (table.loc[table["label"] == name, "score"] for name in LABELS)
    for fpr, found in zip(curve["fpr"], curve["tpr"], strict=True):
        assert found == pytest.approx(tpr_at_fpr(negatives, positives, fpr)), fpr
    assert photo_metrics(table, seed=1)["intervals"] != expected


def test_tables_that_cannot_be_measured_are_refused(mixed):
    table = mixed()
    for broken, code in (
        (table[table["label"] == "real"], "one_class"),
        (table.assign(label=table["label"].where(table.index != 7, "")), "no_label"),
    ):
        with pytest.raises(RealDamageError) as error:
            photo_metrics(broken)
        assert error.value.code == code


def test_right_probabilities_have_hardly_any_calibration_error_and_exaggerated_ones_have(mixed):
    table = mixed(n_damaged=1000, n_original=500, n_synthetic=1500)
    odds = table["probability"] / (1 - table["probability"])
    right = photo_metrics(table, n_boot=50)
    bold = photo_metrics(table.assign(probability=odds**4 / (1 + odds**4)), n_boot=50)
    assert right["ece"] < 0.025
    assert bold["ece"] > 0.08
    low, high = bold["intervals"]["ece"]
    assert 0 < low < bold["ece"] <= high
    assert right["intervals"]["ece"][0] == 0


def test_a_rate_of_nought_or_one_is_no_certainty(mixed):
    table = mixed(n_damaged=200, n_original=0, n_synthetic=60).assign(group="")
    synthetic = table["label"] == "synthetic"
    # 60 of 60, or none: by the exact interval, up to 1 - 0.025 ** (1 / 60) may differ.
    edge = 1 - 0.025 ** (1 / 60)
    for score, rate, ends in ((9.0, 1.0, [1 - edge, 1]), (-9.0, 0.0, [0, edge])):
        found = photo_metrics(
            table.assign(score=table["score"].where(~synthetic, score)), n_boot=20
        )
        assert found["tpr_at_fpr_1"] == rate
        assert found["intervals"]["tpr_at_fpr_1"] == pytest.approx(ends)


def test_each_edit_meets_its_original_under_the_same_perturbation(predictions_of):
    rows = [
        ("a.jpg", "real", "", "", 0.0),
        ("a_edit.jpg", "synthetic", "a.jpg", "", 2.0),
        ("a_drawn.jpg", "real", "a.jpg", "", 9.0),  # an honest overlay, no edit
        ("b.jpg", "real", "", "", 1.0),
        ("b_edit.jpg", "synthetic", "b.jpg", "", 1.0),
        ("c_edit.jpg", "synthetic", "lost.jpg", "", 5.0),
        ("d_edit.jpg", "synthetic", "", "", 5.0),
        ("e.jpg", "real", "", "", np.nan),
        ("e_edit.jpg", "synthetic", "e.jpg", "", 5.0),
        ("a.jpg", "real", "", "blur", 3.0),
        ("a_edit.jpg", "synthetic", "a.jpg", "blur", 2.5),
    ]
    names = ("file_name", "label", "pair", "perturbation", "score")
    edits = predictions_of(**dict(zip(names, zip(*rows, strict=True), strict=True)))
    clean = edits[edits["perturbation"] == ""]
    # One edit is higher than its original, and a tie counts half.
    for table, expected in (
        (edits[edits["perturbation"] == "blur"], (1, 0.0, -0.5)),
        (clean, (2, 0.75, 1.0)),
        (clean.assign(pair=""), (0, None, None)),
    ):
        found = photo_metrics(table, n_boot=20)["pairs"]
        assert (found["n"], found["edit_higher"], found["median_difference"]) == expected
        assert bool(found["reason"]) == (found["n"] == 0)


def test_each_group_counts_once_and_equal_probabilities_share_a_bin(predictions_of):
    def stated(probability, synthetic, group=""):
        label = np.where(synthetic, "synthetic", "real")
        return predictions_of(label=label, score=probability, probability=probability, group=group)

    groups = [f"g{i // 4}" for i in range(80)]
    together = stated(np.repeat([0.3, 0.6], 40), np.arange(80) // 4 % 2 == 0, groups)
    table = reliability_table(together, bins=2)
    assert (list(table["n_groups"]), list(table["observed"])) == ([10, 10], [0.5, 0.5])
    interval = binomtest(5, 10).proportion_ci(method="exact")
    ends = table[["observed_low", "observed_high"]].to_numpy()
    assert ends == pytest.approx(np.array([[interval.low, interval.high]] * 2))
    shared = stated(np.repeat([0.1, 0.9], [95, 5]), np.arange(100) >= 90)
    assert list(reliability_table(shared, bins=10)["n"]) == [95, 5]
