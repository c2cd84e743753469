"""The figures agree with torchmetrics, and those that the photos cannot carry are left out with the reason."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_roc,
)

from realdamage.data.intervals import bootstrap_interval
from realdamage.errors import RealDamageError
from realdamage.evaluation.metrics import photo_metrics, tpr_at_fpr
from realdamage.evaluation.predictions import PREDICTION_COLUMNS, PatchEvidence
from realdamage.evaluation.probabilities import (
    ProbabilityError,
    calibration_interval,
    equal_mass_bins,
)
from realdamage.rendering.tables import format_table

# Few distinct values, so that ties are the rule.
scores = hnp.arrays(
    np.float64, st.integers(1, 60), elements=st.integers(-5, 5).map(lambda value: value / 2)
)


def predictions_of(**columns: object) -> pd.DataFrame:
    n = len(columns["label"])  # type: ignore[arg-type]
    table = pd.DataFrame(
        {**dict.fromkeys(PREDICTION_COLUMNS, ""), "file_name": [f"{i}.jpg" for i in range(n)]}
    )
    return table.assign(**{"kind": "", "generator": "", "outcome": "review", **columns})


def mixed(
    n_damaged: int = 250, n_original: int = 250, n_synthetic: int = 300, seed: int = 0
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n_real = n_damaged + n_original
    n_first = n_synthetic * 2 // 3
    return predictions_of(
        label=["real"] * n_real + ["synthetic"] * n_synthetic,
        kind=["damaged"] * n_damaged
        + ["original"] * n_original
        + ["ai_region"] * n_first
        + ["ai_whole"] * (n_synthetic - n_first),
        generator=[""] * n_real + ["first"] * n_first + ["second"] * (n_synthetic - n_first),
        group=[f"g{i // 2}" for i in range(n_real + n_synthetic)],
        score=np.concatenate([rng.normal(0, 1, n_real), rng.normal(2, 1, n_synthetic)]),
    )


@settings(max_examples=50, deadline=None)
@given(scores, scores, st.sampled_from([0.0, 0.005, 0.01, 0.05, 0.2, 0.5, 1.0]))
def test_tpr_at_fpr_is_the_best_point_of_the_roc_curve(
    negatives: np.ndarray, positives: np.ndarray, fpr: float
) -> None:
    labels = torch.tensor([0] * len(negatives) + [1] * len(positives))
    # torchmetrics passes values outside 0..1 through a sigmoid, which keeps their order.
    rates, found, _ = binary_roc(
        torch.sigmoid(torch.tensor(np.concatenate([negatives, positives]))), labels
    )
    expected = found[rates <= fpr + 1e-6].max().item()
    assert tpr_at_fpr(negatives, positives, fpr) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(scores, scores, st.sampled_from([0.0, 0.01, 0.05, 0.5]))
def test_tpr_at_fpr_is_what_the_best_threshold_reaches(
    negatives: np.ndarray, positives: np.ndarray, fpr: float
) -> None:
    thresholds = [*np.unique([*negatives, *positives]), np.inf]
    reached = [(positives >= t).mean() for t in thresholds if (negatives >= t).mean() <= fpr]
    assert tpr_at_fpr(negatives, positives, fpr) == pytest.approx(max(reached))


def test_exactly_one_error_in_a_hundred_is_still_one_percent() -> None:
    negatives = np.concatenate([np.zeros(99), [5.0]])
    assert tpr_at_fpr(negatives, np.array([1.0, 4.0]), 0.01) == 1.0
    assert tpr_at_fpr(negatives, np.array([1.0, 6.0]), 0.005) == 0.5


def test_an_empty_class_has_no_rate() -> None:
    assert np.isnan(tpr_at_fpr(np.array([]), np.array([1.0]), 0.01))
    assert np.isnan(tpr_at_fpr(np.array([1.0]), np.array([]), 0.01))


def test_overall_figures_agree_with_torchmetrics() -> None:
    table = mixed()
    found = photo_metrics(table, n_boot=20)
    score = torch.sigmoid(torch.tensor(table["score"].to_numpy()))
    label = torch.tensor((table["label"] == "synthetic").to_numpy().astype(int))
    assert found["auroc"] == pytest.approx(binary_auroc(score, label).item(), abs=1e-6)
    assert found["average_precision"] == pytest.approx(
        binary_average_precision(score, label).item(), abs=1e-6
    )


def test_low_rates_are_over_really_damaged_photos_and_apart_over_all_real_ones() -> None:
    table = mixed()
    # Damaged photos score high: at the same rate, far fewer synthetic ones are found.
    table.loc[table["kind"] == "damaged", "score"] += 2.0
    found = photo_metrics(table, n_boot=20)
    real, damaged, synthetic = (
        table.loc[chosen, "score"].to_numpy()
        for chosen in (
            table["label"] == "real",
            table["kind"] == "damaged",
            table["label"] == "synthetic",
        )
    )
    for fpr, key in ((0.005, "tpr_at_fpr_0.5"), (0.01, "tpr_at_fpr_1"), (0.05, "tpr_at_fpr_5")):
        assert found[key] == tpr_at_fpr(damaged, synthetic, fpr)
        assert found[f"{key}_all_real"] == tpr_at_fpr(real, synthetic, fpr)
    assert found["tpr_at_fpr_5"] < found["tpr_at_fpr_5_all_real"]


def test_too_few_damaged_photos_for_a_rate_give_none_and_the_reason() -> None:
    found = photo_metrics(mixed(n_damaged=60), n_boot=20)
    assert found["tpr_at_fpr_1"] is None
    assert found["intervals"]["tpr_at_fpr_1"] is None
    assert (
        found["reasons"]["tpr_at_fpr_1"]
        == "60 really damaged photos; a rate of 1% takes at least 100"
    )
    assert found["tpr_at_fpr_5"] is not None
    assert found["tpr_at_fpr_1_all_real"] is not None
    assert set(found["reasons"]) == {
        "tpr_at_fpr_0.5",
        "tpr_at_fpr_1",
        "balanced_accuracy",
        "brier",
        "ece",
    }


def test_photos_are_counted_and_unscored_ones_left_out() -> None:
    table = mixed(n_damaged=20, n_original=30, n_synthetic=40)
    table.loc[[0, 60], "score"] = np.nan
    found = photo_metrics(table, n_boot=20)
    assert {key: value for key, value in found.items() if key == "n" or key.startswith("n_")} == {
        "n": 88,
        "n_real": 49,
        "n_damaged": 19,
        "n_synthetic": 39,
        "n_groups": 45,
        "n_unscored": 2,
    }


def test_the_intervals_hold_the_figures_and_narrow_with_more_photos() -> None:
    small, large = (
        photo_metrics(mixed(100, 0, 100), n_boot=200),
        photo_metrics(mixed(1600, 0, 1600), n_boot=200),
    )
    for found in (small, large):
        for key in ("auroc", "tpr_at_fpr_5"):
            low, high = found["intervals"][key]
            assert low < found[key] < high
    widths = [np.diff(found["intervals"]["auroc"])[0] for found in (small, large)]
    # Sixteen times the photos: a quarter of the width.
    assert widths[1] / widths[0] == pytest.approx(0.25, abs=0.08)


def test_the_auroc_interval_covers_the_truth() -> None:
    truth = 0.9214  # of two normal distributions two standard deviations apart: Phi(2 / sqrt 2)
    covered = 0
    for seed in range(40):
        low, high = photo_metrics(mixed(60, 0, 60, seed=seed), n_boot=60)["intervals"]["auroc"]
        covered += low <= truth <= high
    assert covered >= 34


def test_the_seed_decides_the_intervals() -> None:
    first, again, other = (
        photo_metrics(mixed(), n_boot=20, seed=seed)["intervals"] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_each_generator_and_kind_has_its_row() -> None:
    table = mixed()
    table["outcome"] = np.where(
        table["score"] >= 1.5, "synthetic", np.where(table["score"] <= 0, "real", "review")
    )
    table.loc[table["generator"] == "second", "generator"] = ""
    found = photo_metrics(table, n_boot=20)
    assert list(found["per_generator"]) == ["(not named)", "first"]
    assert list(found["per_kind"]) == ["original", "damaged", "ai_region", "ai_whole"]
    real = table[table["label"] == "real"]["score"]
    for key, kind in (("first", "ai_region"), ("(not named)", "ai_whole")):
        own = table[table["kind"] == kind]
        row = found["per_generator"][key]
        # The probability that a photo of the generator scores higher than a real one.
        assert row["auroc"] == pytest.approx(
            (own["score"].to_numpy()[:, None] > real.to_numpy()).mean()
        )
        assert row["tpr_at_fpr_1"] == tpr_at_fpr(real.to_numpy(), own["score"].to_numpy(), 0.01)
        assert row["called_synthetic"] == (own["outcome"] == "synthetic").mean()
        assert row["n"] == len(own)
        assert row == found["per_kind"][kind]
    damaged = found["per_kind"]["damaged"]
    negatives = table[table["kind"] == "damaged"]
    synthetic = table[table["label"] == "synthetic"]["score"].to_numpy()
    assert damaged["auroc"] == pytest.approx(
        (synthetic[:, None] > negatives["score"].to_numpy()).mean()
    )
    assert damaged["called_real"] == (negatives["outcome"] == "real").mean()


def test_a_slice_of_few_photos_has_no_figure_but_a_reason() -> None:
    table = mixed(n_damaged=20, n_original=20, n_synthetic=40)
    table.loc[40:42, "generator"] = "rare"
    row = photo_metrics(table, n_boot=20)["per_generator"]["rare"]
    assert (row["n"], row["auroc"], row["tpr_at_fpr_5"]) == (3, None, None)
    assert (
        row["reasons"]["auroc"] == "3 synthetic and 40 real photos; at least 5 of each are needed"
    )


def test_one_class_only_is_refused() -> None:
    table = mixed()
    with pytest.raises(
        RealDamageError,
        match=r"hold only real photos \(500\) with a score; metrics need both classes",
    ):
        photo_metrics(table[table["label"] == "real"])
    with pytest.raises(RealDamageError, match="hold no photo at all with a score"):
        photo_metrics(table.assign(score=np.nan))


def test_unlabelled_or_foreign_tables_are_refused() -> None:
    with pytest.raises(RealDamageError, match=r"7\.jpg: no label"):
        photo_metrics(mixed().assign(label=["real"] * 7 + [""] + ["synthetic"] * 792))
    with pytest.raises(RealDamageError, match="missing columns: score"):
        photo_metrics(mixed().drop(columns="score"))


def evidence_of(painted: np.ndarray, heat: np.ndarray) -> list[PatchEvidence]:
    return [
        PatchEvidence(f"{i}.jpg", h.astype(np.float32).reshape(-1, 1), p.reshape(-1, 1))
        for i, (h, p) in enumerate(
            zip(np.array_split(heat, 2), np.array_split(painted, 2), strict=True), start=400
        )
    ]


def calibrated(**sizes: int) -> pd.DataFrame:
    """Photos whose probabilities are right: classes two standard deviations apart, as many of each."""
    table = mixed(**sizes)
    return table.assign(probability=1 / (1 + np.exp(2 - 2 * table["score"])))


def test_balanced_accuracy_is_at_the_given_threshold_and_no_other() -> None:
    table = mixed()
    found = photo_metrics(table, threshold=1.2, n_boot=50)
    called = table["score"] >= 1.2
    synthetic = table["label"] == "synthetic"
    assert found["balanced_accuracy"] == pytest.approx(
        (called[synthetic].mean() + (~called[~synthetic]).mean()) / 2
    )
    assert found["balanced_accuracy_threshold"] == 1.2
    low, high = found["intervals"]["balanced_accuracy"]
    assert low < found["balanced_accuracy"] < high
    # A score equal to the threshold is called synthetic.
    tied = table.assign(score=np.where(synthetic, 1.2, 1.1))
    assert photo_metrics(tied, threshold=1.2, n_boot=2)["balanced_accuracy"] == 1.0
    without = photo_metrics(table, n_boot=2)
    assert (without["balanced_accuracy"], without["balanced_accuracy_threshold"]) == (None, None)
    assert "realdamage calibrate" in without["reasons"]["balanced_accuracy"]


def test_right_probabilities_have_hardly_any_calibration_error_and_exaggerated_ones_have() -> None:
    table = calibrated(n_damaged=1000, n_original=500, n_synthetic=1500)
    right = photo_metrics(table, n_boot=50)
    assert right["ece"] < 0.025
    odds = table["probability"] / (1 - table["probability"])
    bold = photo_metrics(table.assign(probability=odds**4 / (1 + odds**4)), n_boot=50)
    assert bold["ece"] > 0.08
    assert bold["brier"] > right["brier"] + 0.02
    for found in (right, bold):
        low, high = found["intervals"]["brier"]
        assert low < found["brier"] < high
    low, high = bold["intervals"]["ece"]
    assert 0 < low < bold["ece"] <= high
    assert right["intervals"]["ece"][0] == 0
    assert right["ece"] <= right["intervals"]["ece"][1] < 0.03


@pytest.mark.parametrize(("boldness", "at_least"), [(1.0, 0.88), (1.25, 0.8), (1.9, 0.8)])
def test_the_interval_of_the_calibration_error_holds_the_true_one(
    boldness: float, at_least: float
) -> None:
    """Models whose log-odds are so many times too large, each on 60 tests of 300 photos in pairs."""
    rng = np.random.default_rng(0)
    n, held, percentiles_held = 300, 0, 0
    for _ in range(60):
        log_odds = rng.normal(0, 1.5, n)
        truth, stated = 1 / (1 + np.exp(-log_odds)), 1 / (1 + np.exp(-boldness * log_odds))
        excess = np.bincount(equal_mass_bins(stated), truth - stated)
        true_error = np.abs(excess).sum() / n
        error = ProbabilityError(stated, rng.random(n) < truth)
        found = error.figures(np.ones(n))[1]
        low, high = bootstrap_interval(
            lambda weights, error=error: [error.figures(weights)[1], error.by_chance(weights)],  # type: ignore[misc]
            np.arange(n) // 2,
            n_boot=100,
        )
        ends = calibration_interval(found, low[0], high[0], high[1])
        assert ends[0] <= found <= ends[1]
        held += ends[0] <= true_error <= ends[1]
        percentiles_held += low[0] <= true_error <= high[0]
    assert held / 60 >= at_least
    assert percentiles_held < held


def test_the_order_of_the_rows_does_not_decide_the_calibration_error() -> None:
    table = mixed().assign(probability=np.tile([0.3, 0.7, 0.7, 0.8], 200))
    shuffled = table.sample(frac=1, random_state=0)
    assert photo_metrics(shuffled, n_boot=2)["ece"] == pytest.approx(
        photo_metrics(table, n_boot=2)["ece"]
    )


def test_probabilities_that_some_photos_lack_are_not_measured() -> None:
    table = calibrated()
    table.loc[:2, "probability"] = np.nan
    found = photo_metrics(table, n_boot=2)
    assert (found["brier"], found["ece"], found["intervals"]["ece"]) == (None, None, None)
    assert (
        found["reasons"]["ece"] == "3 of 800 photos lack a probability; run `realdamage calibrate`"
    )
    assert photo_metrics(mixed(), n_boot=2)["reasons"]["brier"].startswith(
        "no photo has a probability"
    )


def test_each_edit_is_compared_with_its_own_original() -> None:
    table = mixed().assign(pair="")
    table.loc[500:599, "pair"] = [f"{i}.jpg" for i in range(100)]
    found = photo_metrics(table, n_boot=50)["pairs"]
    difference = table["score"].to_numpy()[500:600] - table["score"].to_numpy()[:100]
    assert (found["n"], found["edit_higher"]) == (100, (difference > 0).mean())
    assert found["median_difference"] == pytest.approx(np.median(difference))


def test_a_rate_of_nought_or_one_is_no_certainty() -> None:
    table = mixed(n_damaged=200, n_original=0, n_synthetic=60).assign(group="")
    synthetic = table["label"] == "synthetic"
    for score, rate in ((9.0, 1.0), (-9.0, 0.0)):
        found = photo_metrics(
            table.assign(score=table["score"].where(~synthetic, score)), n_boot=20
        )
        assert found["tpr_at_fpr_1"] == rate
        # 60 of 60, or none: by the exact interval, up to 1 - 0.025 ** (1 / 60) may differ.
        edge = 1 - 0.025 ** (1 / 60)
        assert found["intervals"]["tpr_at_fpr_1"] == pytest.approx(
            [1 - edge, 1] if rate else [0, edge]
        )


def test_a_model_without_thresholds_has_called_nobody_anything() -> None:
    found = photo_metrics(mixed().assign(reasons="not_calibrated"), n_boot=2)
    assert {row["called_synthetic"] for row in found["per_kind"].values()} == {None}
    assert photo_metrics(mixed(), n_boot=2)["per_kind"]["damaged"]["called_synthetic"] == 0.0


def test_several_perturbations_at_once_are_refused() -> None:
    table = pd.concat([mixed(), mixed().assign(perturbation="blur")], ignore_index=True)
    with pytest.raises(
        RealDamageError, match="under 2 perturbations; one figure over all of them says nothing"
    ):
        photo_metrics(table)
    assert photo_metrics(table[table["perturbation"] == "blur"], n_boot=2)["n"] == 800


def test_scores_are_sorted_once_for_all_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    sorts: Counter[int] = Counter()
    argsort = np.argsort

    def counted(values: np.ndarray, *arguments: Any, **options: Any) -> np.ndarray:
        sorts[draws] += 1
        return argsort(values, *arguments, **options)

    monkeypatch.setattr(np, "argsort", counted)
    for draws in (2, 40):
        photo_metrics(calibrated().assign(pair=""), threshold=1.0, n_boot=draws)
    assert sorts[2] == sorts[40] > 0


def test_metrics_are_plain_json() -> None:
    painted = np.arange(40) % 4 == 0
    evidence = evidence_of(painted, np.linspace(0, 1, 40))
    for table in (mixed(n_damaged=3, n_synthetic=30), calibrated()):
        found = photo_metrics(table, evidence, threshold=0.5, n_boot=20)
        assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_table_shows_figures_intervals_and_reasons() -> None:
    painted = np.arange(40) % 4 == 0
    table = mixed(n_damaged=60).assign(pair="")
    table.loc[400:449, "pair"] = [f"{i}.jpg" for i in range(50)]
    found = photo_metrics(
        table, evidence_of(painted, np.linspace(0, 1, 40)), threshold=1.0, n_boot=20
    )
    lines = format_table(found).splitlines()
    assert lines[0] == "610 photos in 305 groups: 310 real (60 really damaged), 300 synthetic"
    low, high = found["intervals"]["auroc"]
    assert f"AUROC {found['auroc']:>35.3f}   95%: {low:.3f} to {high:.3f}" in lines
    assert any(
        line.startswith("TPR at 1% FPR, really damaged") and "takes at least 100" in line
        for line in lines
    )
    assert any(
        line.startswith(f"balanced accuracy at score 1 {found['balanced_accuracy']:>12.3f}")
        for line in lines
    )
    assert any(
        line.startswith("Brier score") and "– " in line and "calibrate" in line for line in lines
    )
    pairs = found["pairs"]
    [told] = [line for line in lines if line.startswith("edit scores above its original")]
    assert f"{pairs['edit_higher']:.3f}" in told
    assert f"50 pairs, median {pairs['median_difference']:+.3f}" in told
    first = next(line.split() for line in lines if line.startswith("first "))
    assert first[:3] == ["first", "200", f"{found['per_generator']['first']['auroc']:.3f}"]
    located = found["localisation"]
    keys = (
        "mask_area",
        "pixel_ap",
        "f1",
        "iou",
        "best_f1",
        "prevalence",
        "baseline_f1",
        "baseline_iou",
    )
    row = next(line.split() for line in lines if line.startswith("all photos"))
    assert row[2:] == ["2", *(f"{located[key]:.3f}" for key in keys)]
    assert "not scored" not in lines[0]


def test_kinds_have_their_own_line_of_localisation_where_there_are_several() -> None:
    painted = np.arange(40) % 4 == 0
    table = mixed()
    evidence = evidence_of(painted, np.linspace(0, 1, 40))
    assert [photo.file_name for photo in evidence] == ["400.jpg", "401.jpg"]
    table.loc[[400, 401], ["label", "kind"]] = [["synthetic", "ai_region"], ["synthetic", "pasted"]]
    lines = format_table(photo_metrics(table, evidence, n_boot=20)).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("localisation"))
    assert [line.split()[0] for line in lines[start : start + 4]] == [
        "localisation",
        "all",
        "ai_region",
        "pasted",
    ]
    none = format_table(
        photo_metrics(table, [evidence[0]._replace(painted=evidence[0].painted & False)], n_boot=20)
    )
    assert none.splitlines()[-1].startswith("localisation: no patch is painted in 1 photos")


def test_the_table_of_a_rare_generator_gives_the_reason_once() -> None:
    table = mixed(n_damaged=20, n_original=20, n_synthetic=40)
    table.loc[40:41, "generator"] = (
        "a generator with a name that goes on and on, longer than any column"
    )
    table.loc[0, "score"] = np.nan
    text = format_table(photo_metrics(table, n_boot=20))
    assert text.count("2 synthetic and 39 real photos; at least 5 of each are needed") == 1
    assert "a generator with a name that goes on an…" in text
    assert ", 1 not scored" in text
