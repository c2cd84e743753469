"""Costs per claim agree with arithmetic on paper, thresholds of least cost with trying out all, and a promise holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realdamage.commands.cli import main
from realdamage.core.model_file import read_model_file, write_model_file
from realdamage.core.policy import Bound, Calibration, Guarantee, Policy, WorstSource
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.economics import Costs, cost_sample, expected_cost, other_ways
from realdamage.evaluation.predictions import (
    PREDICTION_COLUMNS,
    read_predictions,
    write_predictions,
)
from realdamage.evaluation.threshold_choice import (
    NEVER,
    choose_thresholds,
    cost_by_fraud_rate,
    cost_curve,
    write_thresholds,
)

COSTS = Costs(fraud_rate=0.01, claim_value=40, review_cost=3, accusation_cost=100)


def table_of(
    real: list[float], synthetic: list[float], kind: str = "damaged", **columns: object
) -> pd.DataFrame:
    n = len(real) + len(synthetic)
    table = pd.DataFrame(
        {**dict.fromkeys(PREDICTION_COLUMNS, ""), "file_name": [f"{i}.jpg" for i in range(n)]}
    )
    table = table.assign(
        label=["real"] * len(real) + ["synthetic"] * len(synthetic),
        kind=[kind] * len(real) + ["ai_region"] * len(synthetic),
        score=np.array([*real, *synthetic], dtype=np.float64),
        outcome="review",
        split="test",
    )
    return table.assign(**columns)


def hundred() -> pd.DataFrame:
    """100 damaged photos: 90 at -2, 8 at 0, 2 at 3; 50 synthetic: 10 at -2, 15 at 0, 25 at 3."""
    return table_of([-2.0] * 90 + [0.0] * 8 + [3.0] * 2, [-2.0] * 10 + [0.0] * 15 + [3.0] * 25)


def test_the_cost_of_two_thresholds_is_the_one_on_paper() -> None:
    found = expected_cost(hundred(), -1.0, 1.0, COSTS, n_boot=50)
    # Fakes: 20% paid at 40, 30% reviewed at 3, 50% refused. Honest: 8% reviewed at 3, 2% refused at 100.
    assert found.cost == pytest.approx(0.01 * (0.2 * 40 + 0.3 * 3) + 0.99 * (0.08 * 3 + 0.02 * 100))
    assert found.reviewed == pytest.approx(0.01 * 0.3 + 0.99 * 0.08)
    assert found.stopped == pytest.approx(0.8)
    assert found.accused == pytest.approx(0.02)
    assert found.precision == pytest.approx(0.01 * 0.5 / (0.01 * 0.5 + 0.99 * 0.02))
    assert found.fakes_in_review == pytest.approx(0.003 / (0.003 + 0.0792))
    low, high = found.intervals["cost"]
    assert low < found.cost < high


def test_reviewers_who_err_cost_missed_fakes_and_lost_trust() -> None:
    costs = replace(COSTS, detection=0.7, wrong_refusal=0.1)
    found = expected_cost(hundred(), -1.0, 1.0, costs, n_boot=1)
    fake = 0.2 * 40 + 0.3 * (3 + 0.3 * 40)
    honest = 0.08 * (3 + 0.1 * 100) + 0.02 * 100
    assert found.cost == pytest.approx(0.01 * fake + 0.99 * honest)
    assert found.stopped == pytest.approx(0.5 + 0.7 * 0.3)
    assert found.accused == pytest.approx(0.02 + 0.1 * 0.08)


def test_a_claim_of_several_photos_is_refused_for_one_and_paid_for_all() -> None:
    found = expected_cost(hundred(), -1.0, 1.0, replace(COSTS, photos_per_claim=3), n_boot=1)
    assert found.accused == pytest.approx(1 - 0.98**3)
    fake_refused, fake_paid = 1 - 0.5 * 0.98**2, 0.2 * 0.9**2
    assert found.stopped == pytest.approx(1 - fake_paid)
    honest_reviewed = 1 - 0.9**3 - (1 - 0.98**3)
    assert found.reviewed == pytest.approx(
        0.01 * (1 - fake_paid - fake_refused) + 0.99 * honest_reviewed
    )


def test_paying_all_and_reviewing_all_cost_what_anyone_knows() -> None:
    costs = replace(COSTS, detection=0.9, wrong_refusal=0.01)
    table = hundred().assign(
        outcome=lambda t: np.where(t["score"] > 1, "synthetic", "real"), reasons=""
    )
    pay, review, judged = other_ways(cost_sample(table), costs, n_boot=5)
    assert pay.cost == pytest.approx(0.01 * 40)
    assert (pay.reviewed, pay.stopped, pay.precision) == (0, 0, None)
    assert review.cost == pytest.approx(3 + 0.01 * 0.1 * 40 + 0.99 * 0.01 * 100)
    assert review.intervals["cost"] == pytest.approx((review.cost, review.cost))
    assert judged.cost == pytest.approx(0.01 * 0.5 * 40 + 0.99 * 0.02 * 100)
    assert judged.name == "as judged"


def test_photos_that_a_rule_sends_to_review_stay_there_at_any_threshold() -> None:
    table = hundred()
    table.loc[table["score"] == 3, "reasons"] = "between_thresholds whole_photo_processed"
    found = expected_cost(table, -1.0, 1.0, COSTS, n_boot=1)
    assert (found.accused, found.precision) == (0, None)
    assert found.reviewed == pytest.approx(0.01 * 0.8 + 0.99 * 0.1)
    table["reasons"] = "not_calibrated demo_model"
    assert expected_cost(table, -1.0, 1.0, COSTS, n_boot=1).accused == pytest.approx(0.02)


def test_damaged_photos_stand_for_honest_claims_from_twenty_on_and_perturbed_ones_do_not_count() -> (
    None
):
    table = hundred()
    table.loc[:79, "kind"] = "original"
    assert cost_sample(table).negatives == "damaged"
    assert int((~cost_sample(table).synthetic).sum()) == 20
    table.loc[80, "kind"] = "original"
    assert cost_sample(table).negatives == "real"
    assert int((~cost_sample(table).synthetic).sum()) == 100
    blurred = table.assign(perturbation="blur", score=-9.0)
    both = pd.concat([table, blurred], ignore_index=True)
    assert np.array_equal(cost_sample(both).score, cost_sample(table).score)


scores = st.lists(st.integers(-2, 2).map(float), min_size=2, max_size=10)
amounts = st.sampled_from([0.0, 1.0, 5.0, 40.0])


@settings(max_examples=40, deadline=None)
@given(scores, scores, amounts, amounts, amounts, st.sampled_from([0.5, 1.0]))
def test_no_pair_of_thresholds_costs_less(
    real: list[float],
    synthetic: list[float],
    value: float,
    review: float,
    trust: float,
    detection: float,
) -> None:
    costs = Costs(0.2, value, review, trust, detection, 0.1)

    def by_hand(low: float, high: float) -> float:
        def mean(values: list[float], refused: float, reviewed: float, paid: float) -> float:
            return sum(
                refused if x >= high else paid if x <= low else reviewed for x in values
            ) / len(values)

        honest = mean(real, trust, review + 0.1 * trust, 0)
        return 0.8 * honest + 0.2 * mean(synthetic, 0, review + (1 - detection) * value, value)

    choice = choose_thresholds(table_of(real, synthetic), costs, folds=2, n_boot=1)
    grid = np.arange(-2.5, 3.0).tolist()
    tried = [by_hand(low, high) for low, high in product(grid, grid) if low <= high]
    assert choice.figures.cost == pytest.approx(min(tried))
    assert choice.figures.cost == pytest.approx(by_hand(choice.t_real, choice.t_synthetic))
    assert choice.t_real <= choice.t_synthetic


def test_the_thresholds_of_a_known_set() -> None:
    choice = choose_thresholds(hundred(), COSTS, n_boot=5)
    # At 3: posterior 0.01*0.5 against 0.99*0.02; refusing costs 1.98, reviewing 0.074, paying 0.2. At 0: 0.01*0.3
    # against 0.99*0.08; reviewing costs 0.247, paying 0.12. So all but the highest are paid, and those reviewed.
    assert (choice.t_real, choice.t_synthetic) == (1.5, NEVER)
    assert choice.figures.cost == pytest.approx(0.01 * 0.5 * 40 + 0.01 * 0.5 * 3 + 0.99 * 0.02 * 3)
    assert (choice.n_real, choice.n_synthetic, choice.negatives) == (100, 50, "damaged")


def test_what_the_choice_costs_is_also_told_on_photos_it_did_not_see() -> None:
    rng = np.random.default_rng(3)
    costs = replace(COSTS, fraud_rate=0.3)
    flattered, honest = [], []
    for _ in range(8):
        # Scores that say nothing at all: any saving is luck.
        choice = choose_thresholds(
            table_of(list(rng.normal(size=40)), list(rng.normal(size=40))), costs, n_boot=1
        )
        flattered.append(choice.figures.cost)
        honest.append(choice.cross_fitted.cost)
    best = min(0.3 * 40, 3.0)
    assert np.mean(flattered) < best - 0.01
    assert np.mean(honest) > best


def test_photos_of_one_group_are_left_out_together() -> None:
    # Each group has a score of its own, so a threshold learnt on half of a group would fit the other half.
    rng = np.random.default_rng(0)
    place = np.repeat(rng.permutation(40), 5).astype(float)
    fake = np.repeat(rng.random(40) < 0.5, 5)
    grouped = table_of([0.0] * 200, []).assign(
        score=place,
        label=np.where(fake, "synthetic", "real"),
        kind=np.where(fake, "ai_region", "damaged"),
        group=[f"g{number}" for number in np.repeat(np.arange(40), 5)],
    )
    costs = replace(COSTS, fraud_rate=0.3, accusation_cost=5)
    together = choose_thresholds(grouped, costs, n_boot=1).cross_fitted.cost
    apart = choose_thresholds(grouped.assign(group=""), costs, n_boot=1).cross_fitted.cost
    assert apart < together


def guaranteed(accused: bool = True, passed: bool = False) -> Policy:
    bound = Bound(share=0.05, photos=100, drawn_from=100, errors=1, allowed=1, upper=0.047)
    promise = Guarantee(
        delta=0.05,
        accused=bound if accused else None,
        passed=bound if passed else None,
        split="policy",
        seed=0,
        manifest_sha256="",
        statement="",
    )
    return Policy(
        t_synthetic=4.0,
        t_real=-1.0,
        fpr=0.05,
        miss=0.05,
        negatives="damaged",
        photos={},
        guarantee=promise,
    )


def test_a_promise_on_honest_photos_keeps_t_synthetic_from_falling() -> None:
    cheap_trust = replace(COSTS, accusation_cost=0.0)
    free = choose_thresholds(hundred(), cheap_trust, n_boot=1)
    assert free.t_synthetic < 4
    assert free.bounded == ()
    bound = choose_thresholds(hundred(), cheap_trust, policy=guaranteed(), n_boot=1)
    assert bound.t_synthetic >= 4
    assert bound.bounded == ("t_synthetic",)
    assert bound.figures.cost > free.figures.cost
    # It may rise further.
    assert choose_thresholds(hundred(), COSTS, policy=guaranteed(), n_boot=1).t_synthetic == NEVER


def test_a_promise_on_synthetic_photos_keeps_t_real_from_rising() -> None:
    policy = guaranteed(accused=False, passed=True)
    choice = choose_thresholds(hundred(), COSTS, policy=policy, n_boot=1)
    assert choice.t_real <= -1.0
    assert "t_real" in choice.bounded
    no_promise = replace(policy, guarantee=None)
    assert choose_thresholds(hundred(), COSTS, policy=no_promise, n_boot=1).t_real == 1.5


def test_other_shares_of_fakes_are_tried_with_the_same_and_with_new_thresholds() -> None:
    choice = choose_thresholds(hundred(), COSTS, n_boot=1)
    table = cost_by_fraud_rate(hundred(), choice)
    assert table["fraud_rate"].tolist() == pytest.approx([0.001, 0.01 / 3, 0.01, 0.03, 0.1])
    assert table["pay_every_claim"].tolist() == pytest.approx(
        [40 * rate for rate in table["fraud_rate"]]
    )
    assert (table["chosen_anew"] <= table["chosen"] + 1e-12).all()
    assert (
        table["chosen_anew"] <= table[["pay_every_claim", "review_every_claim"]].min(axis=1) + 1e-12
    ).all()
    own = table.loc[2]
    assert own["chosen"] == own["chosen_anew"] == pytest.approx(choice.figures.cost)


def test_the_curve_passes_through_costs_that_expected_cost_gives() -> None:
    choice = choose_thresholds(hundred(), COSTS, n_boot=1)
    curve = cost_curve(hundred(), choice)
    assert set(curve["varied"]) == {"t_real", "t_synthetic"}
    for row in curve.to_dict("records"):
        pair = (
            (row["threshold"], choice.t_synthetic)
            if row["varied"] == "t_real"
            else (choice.t_real, row["threshold"])
        )
        assert row["cost"] == pytest.approx(expected_cost(hundred(), *pair, COSTS, n_boot=1).cost)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"fraud_rate": 0.0}, "fraud_rate=0.0 must be above 0"),
        ({"fraud_rate": float("nan")}, "fraud_rate=nan"),
        ({"claim_value": -1.0}, "claim_value=-1.0 must be a finite amount"),
        ({"review_cost": float("inf")}, "review_cost=inf"),
        ({"accusation_cost": float("nan")}, "accusation_cost=nan"),
        ({"detection": 1.1}, "detection=1.1 must be in 0..1"),
        ({"wrong_refusal": -0.1}, "wrong_refusal=-0.1"),
        ({"photos_per_claim": 0}, "photos_per_claim=0 must be at least 1"),
    ],
)
def test_a_cost_out_of_range_is_named(wrong: dict[str, float], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        replace(COSTS, **wrong)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (table_of([1.0, 2.0], []), "found 2 real and 0 synthetic"),
        (table_of([1.0], [np.nan]), "found 1 real and 0 synthetic"),
        (table_of([1.0], [2.0], label=["real", ""]), "1.jpg: no label"),
        (table_of([1.0], [2.0], split=["train", "test"]), "1 of the photos were trained on"),
        (table_of([1.0], [np.inf]), "must be finite"),
    ],
)
def test_a_table_that_cannot_tell_costs_is_refused(table: pd.DataFrame, told: str) -> None:
    with pytest.raises(RealDamageError, match=told):
        choose_thresholds(table, COSTS)


def test_photos_without_a_score_are_left_out_and_counted() -> None:
    table = hundred()
    table.loc[0, ["score", "reasons"]] = [np.nan, "unreadable"]
    choice = choose_thresholds(table, COSTS, n_boot=1)
    assert (choice.n_real, choice.n_unscored) == (99, 1)


def test_one_group_is_too_few_to_leave_any_out() -> None:
    choice = choose_thresholds(hundred().assign(group="one"), COSTS, n_boot=1)
    assert choice.cross_fitted is None
    assert "1 groups of real and 1 of synthetic" in choice.reason


def test_a_threshold_that_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError, match="t_synthetic=nan"):
        expected_cost(hundred(), 0.0, float("nan"), COSTS)


# --- the command ---

ASKED = (
    "--fraud-rate",
    "0.1",
    "--claim-value",
    "40",
    "--review-cost",
    "3",
    "--accusation-cost",
    "100",
)


@pytest.fixture
def judged(model_file: Path, tmp_path: Path) -> Callable[[Policy], Path]:
    """`judged(policy)` puts a policy into `model_file` and returns a predictions file of that model."""

    def make(policy: Policy) -> Path:
        data, metadata, digest = read_model_file(model_file)
        calibration = Calibration(slope=1.0, intercept=0.0, prior=0.5)
        write_model_file(
            model_file, data, replace(metadata, calibration=calibration, policy=policy)
        )
        path = tmp_path / "predictions.csv"
        write_predictions(path, hundred().assign(graph_sha256=digest))
        return path

    return make


def test_the_command_prints_the_ways_and_writes_the_thresholds(
    judged: Callable[[Policy], Path], model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worst = WorstSource(
        "shop", 20, called_synthetic=1, to_review=3, statement="At the old thresholds."
    )
    predictions = judged(replace(guaranteed(), worst_source=worst))
    before = read_model_file(model_file)
    assert main(["costs", str(predictions), *ASKED, "--model", str(model_file), "--write"]) == 0
    out = capsys.readouterr().out
    choice = choose_thresholds(
        read_predictions(predictions), replace(COSTS, fraud_rate=0.1), policy=guaranteed()
    )
    for way in (
        "pay every claim",
        "review every claim",
        "the model's thresholds now",
        "thresholds of least cost",
    ):
        assert way in out
    assert "Rates of 100 really damaged and 50 synthetic photos." in out
    assert f"{choice.figures.cost:.4g}" in out
    after = read_model_file(model_file)
    policy = after[1].policy
    assert (policy.t_real, policy.t_synthetic) == (choice.t_real, choice.t_synthetic)
    assert policy.guarantee == guaranteed().guarantee
    assert policy.worst_source is None
    assert policy.fpr == 0.0
    assert policy.photos == {"real": 100, "damaged": 100, "synthetic": 50}
    assert after[1].calibration == before[1].calibration
    assert after[2] == before[2]


def test_without_write_the_model_stays_as_it_is(
    judged: Callable[[Policy], Path], model_file: Path
) -> None:
    predictions = judged(guaranteed())
    before = model_file.read_bytes()
    assert main(["costs", str(predictions), *ASKED, "--model", str(model_file)]) == 0
    assert model_file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((*ASKED, "--write"), 2, "--write needs --model"),
        ((*ASKED[:1], "1.5", *ASKED[2:]), 2, "fraud_rate=1.5"),
        ((*ASKED, "--detection", "2"), 2, "detection=2.0"),
        ((*ASKED, "--model", "gone.onnx"), 2, "gone.onnx"),
    ],
)
def test_what_is_off_is_named(
    judged: Callable[[Policy], Path],
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    assert main(["costs", str(judged(guaranteed())), *arguments]) == code
    assert told in capsys.readouterr().err


def test_another_model_or_an_uncalibrated_one_is_refused(
    judged: Callable[[Policy], Path],
    model_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uncalibrated = tmp_path / "bare.onnx"
    uncalibrated.write_bytes(model_file.read_bytes())
    predictions = judged(guaranteed())
    assert main(["costs", str(predictions), *ASKED, "--model", str(uncalibrated)]) == 3
    assert "not calibrated" in capsys.readouterr().err
    write_predictions(predictions, hundred().assign(graph_sha256="f" * 64))
    assert main(["costs", str(predictions), *ASKED, "--model", str(model_file)]) == 3
    assert "is another network" in capsys.readouterr().err


def test_thresholds_that_break_the_promise_or_pay_all_are_not_written(
    judged: Callable[[Policy], Path], model_file: Path
) -> None:
    table = read_predictions(judged(guaranteed()))
    cheap_trust = replace(COSTS, accusation_cost=0.0)
    with pytest.raises(RealDamageError, match="would break its promise"):
        write_thresholds(model_file, choose_thresholds(table, cheap_trust, n_boot=1), table)
    paying = choose_thresholds(
        table, replace(COSTS, claim_value=0.1), policy=guaranteed(), n_boot=1
    )
    assert paying.t_real == NEVER
    with pytest.raises(RealDamageError, match="cheapest to pay every claim unseen"):
        write_thresholds(model_file, paying, table)
    assert read_model_file(model_file)[1].policy == guaranteed()
