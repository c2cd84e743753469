"""The figures are those of the libraries, hold the truth in their intervals, and are left out where
photos are too few.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from realdamage.errors import RealDamageError
from realdamage.evaluation.figures import (
    photo_metrics,
    roc_curves,
    tpr_at_fpr,
)
from realdamage.evaluation.predictions import PatchEvidence
from realdamage.evaluation.slices import part_rows, robustness_table, slice_table

Table = Callable[..., pd.DataFrame]


@pytest.fixture(scope="session")
def mixed(predictions_of: Table) -> Table:
    """`mixed(n_damaged, n_original, n_synthetic, seed)`:

    two photos to a group, classes two deviations apart.
    """

    def make(
        n_damaged: int = 250, n_original: int = 250, n_synthetic: int = 300, seed: int = 0
    ) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        n_real, n_first = n_damaged + n_original, n_synthetic * 2 // 3
        n_second = n_synthetic - n_first
        sizes = [n_damaged, n_original, n_first, n_second]
        score = np.concatenate([rng.normal(0, 1, n_real), rng.normal(2, 1, n_synthetic)])
        return predictions_of(
            label=np.repeat(["real", "synthetic"], [n_real, n_synthetic]),
            kind=np.repeat(["damaged", "original", "ai_region", "ai_whole"], sizes),
            generator=np.repeat(["", "", "first", "second"], sizes),
            group=[f"g{i // 2}" for i in range(n_real + n_synthetic)],
            score=score,
            probability=1 / (1 + np.exp(2 - 2 * score)),  # right for as many photos of each class
        )

    return make


def test_exactly_one_error_in_a_hundred_is_still_one_percent() -> None:
    negatives = np.concatenate([np.zeros(99), [5.0]])
    assert tpr_at_fpr(negatives, np.array([1.0, 4.0]), 0.01) == 1.0
    assert tpr_at_fpr(negatives, np.array([1.0, 6.0]), 0.005) == 0.5
    assert np.isnan(tpr_at_fpr(np.array([]), np.array([1.0]), 0.01))
    assert np.isnan(tpr_at_fpr(np.array([1.0]), np.array([]), 0.01))


def test_low_rates_are_over_really_damaged_photos_and_apart_over_all_real_ones(
    mixed: Table,
) -> None:
    table = mixed()
    # Damaged photos score high: at the same rate, far fewer synthetic ones are found.
    table.loc[table["kind"] == "damaged", "score"] += 2.0
    found = photo_metrics(table, n_boot=20)
    real, synthetic = (table.loc[table["label"] == own, "score"] for own in ("real", "synthetic"))
    damaged = table.loc[table["kind"] == "damaged", "score"]
    for fpr, key in ((0.005, "tpr_at_fpr_0.5"), (0.01, "tpr_at_fpr_1"), (0.05, "tpr_at_fpr_5")):
        assert found[key] == tpr_at_fpr(damaged, synthetic, fpr)
        assert found[f"{key}_all_real"] == tpr_at_fpr(real, synthetic, fpr)
    assert found["tpr_at_fpr_5"] < found["tpr_at_fpr_5_all_real"]


def test_figures_that_the_photos_cannot_support_are_none_with_the_reason(mixed: Table) -> None:
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
    counts = {key: found[key] for key in found if key == "n" or key.startswith("n_")}
    assert counts == {
        **{"n": 608, "n_real": 309, "n_damaged": 59, "n_synthetic": 299},
        **{"n_groups": 305, "n_unscored": 2},
    }
    some = mixed()
    some.loc[:2, "probability"] = np.nan
    reason = photo_metrics(some, n_boot=2)["reasons"]["ece"]
    assert reason.startswith("3 of 800 photos lack a probability")


def test_the_intervals_hold_the_figures_and_narrow_with_more_photos(mixed: Table) -> None:
    small, large = (photo_metrics(mixed(n, 0, n), n_boot=200) for n in (100, 1600))
    for found in (small, large):
        for key in ("auroc", "tpr_at_fpr_5", "average_precision", "brier"):
            low, high = found["intervals"][key]
            assert low < found[key] < high
    widths = [np.diff(found["intervals"]["auroc"])[0] for found in (small, large)]
    # Sixteen times the photos: a quarter of the width.
    assert widths[1] / widths[0] == pytest.approx(0.25, abs=0.08)


def test_a_figure_has_the_same_interval_in_every_table(mixed: Table) -> None:
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
    assert [curve["low"][at], curve["high"][at]] == pytest.approx(
        expected["tpr_at_fpr_1"], abs=1e-9
    )
    assert photo_metrics(table, seed=1)["intervals"] != expected


def test_each_generator_and_kind_has_its_row(mixed: Table) -> None:
    table = mixed()
    table.loc[table["generator"] == "second", "generator"] = ""
    found = photo_metrics(table, n_boot=20)
    assert list(found["per_generator"]) == ["(not named)", "first"]
    assert list(found["per_kind"]) == ["original", "damaged", "ai_region", "ai_whole"]
    real = table.loc[table["label"] == "real", "score"].to_numpy()
    for key, kind in (("first", "ai_region"), ("(not named)", "ai_whole")):
        own, row = table[table["kind"] == kind], found["per_generator"][key]
        # The probability that a photo of the generator scores higher than a real one.
        higher = own["score"].to_numpy()[:, None] > real
        assert row["auroc"] == pytest.approx(higher.mean())
        assert row["tpr_at_fpr_1"] == tpr_at_fpr(real, own["score"], 0.01)
        assert row["called_synthetic"] == pytest.approx((own["outcome"] == "synthetic").mean())
        assert row["n"] == len(own)
        assert row == found["per_kind"][kind]
    few = table.assign(generator=table["generator"].where(table.index != 799, "rare"))
    rare = photo_metrics(few, n_boot=2)["per_generator"]["rare"]
    assert (rare["n"], rare["auroc"], rare["tpr_at_fpr_5"]) == (1, None, None)
    assert "1 synthetic and 500 real photos" in rare["reasons"]["auroc"]


@pytest.mark.parametrize(
    "broken",
    [
        lambda table: table[table["label"] == "real"],
        lambda table: table.assign(score=np.nan),
        lambda table: table.assign(label=table["label"].where(table.index != 7, "")),
    ],
)
def test_tables_that_cannot_be_measured_are_refused(
    broken: Callable[[pd.DataFrame], pd.DataFrame], mixed: Table
) -> None:
    with pytest.raises(RealDamageError):
        photo_metrics(broken(mixed()))


def test_right_probabilities_have_hardly_any_calibration_error_and_exaggerated_ones_have(
    mixed: Table,
) -> None:
    table = mixed(n_damaged=1000, n_original=500, n_synthetic=1500)
    odds = table["probability"] / (1 - table["probability"])
    right = photo_metrics(table, n_boot=50)
    bold = photo_metrics(table.assign(probability=odds**4 / (1 + odds**4)), n_boot=50)
    assert right["ece"] < 0.025
    assert bold["ece"] > 0.08
    assert bold["brier"] > right["brier"] + 0.02
    low, high = bold["intervals"]["ece"]
    assert 0 < low < bold["ece"] <= high
    assert right["intervals"]["ece"][0] == 0
    assert right["ece"] <= right["intervals"]["ece"][1] < 0.03
    shuffled = table.sample(frac=1, random_state=0)
    assert photo_metrics(shuffled, n_boot=2)["ece"] == pytest.approx(right["ece"])


def test_a_rate_of_nought_or_one_is_no_certainty(mixed: Table) -> None:
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


def test_metrics_are_plain_json(mixed: Table) -> None:
    painted = np.arange(20).reshape(-1, 1) % 4 == 0
    heat = np.linspace(0, 1, 20, dtype=np.float32).reshape(-1, 1)
    evidence = [PatchEvidence(f"{index}.jpg", heat, painted) for index in (400, 401)]
    for table in (mixed(n_damaged=3, n_synthetic=30), mixed()):
        metrics = photo_metrics(table, evidence, threshold=0.5, n_boot=20)
        assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


@pytest.fixture
def edits(predictions_of: Table) -> pd.DataFrame:
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
    return predictions_of(**dict(zip(names, zip(*rows, strict=True), strict=True)))


def test_each_edit_meets_its_original_under_the_same_perturbation(edits: pd.DataFrame) -> None:
    blurred = edits[edits["perturbation"] == "blur"]
    assert photo_metrics(blurred, n_boot=20)["pairs"]["median_difference"] == -0.5
    clean = edits[edits["perturbation"] == ""]
    found = photo_metrics(clean, n_boot=20)["pairs"]
    # One edit is higher, and a tie counts half.
    assert (found["n"], found["edit_higher"], found["median_difference"]) == (2, 0.75, 1.0)
    found = photo_metrics(clean.assign(pair=""), n_boot=20)["pairs"]
    assert (found["n"], found["edit_higher"], found["median_difference"]) == (0, None, None)
    assert found["reason"]
