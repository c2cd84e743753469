"""Costs agree with arithmetic on paper, the cheapest thresholds with trying all, and a guarantee
holds."""

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

from realdamage.core.model_file import read_model_file, write_model_file
from realdamage.core.policy import Bound, Calibration, Guarantee, Policy, WorstSource
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.economics import (
    NEVER,
    CostFigures,
    Costs,
    choose_thresholds,
    cost_by_fraud_rate,
    cost_curve,
    cost_figures,
    cost_sample,
    other_ways,
    write_thresholds,
)
from realdamage.evaluation.folder import read_judge
from realdamage.evaluation.predictions import PREDICTION_COLUMNS

COSTS = Costs(fraud_rate=0.01, claim_value=40, review_cost=3, accusation_cost=100)


def table_of(real: list[float], synthetic: list[float], **columns: object) -> pd.DataFrame:
    n = len(real) + len(synthetic)
    table = pd.DataFrame(
        {**dict.fromkeys(PREDICTION_COLUMNS, ""), "file_name": [f"{i}.jpg" for i in range(n)]}
    )
    table = table.assign(
        label=["real"] * len(real) + ["synthetic"] * len(synthetic),
        kind=["damaged"] * len(real) + ["ai_region"] * len(synthetic),
        score=np.array([*real, *synthetic], dtype=np.float64),
        outcome="review",
        split="test",
    )
    return table.assign(**columns)


def hundred() -> pd.DataFrame:
    """100 damaged photos: 90 at -2, 8 at 0, 2 at 3; 50 synthetic: 10 at -2, 15 at 0, 25 at 3."""
    return table_of([-2.0] * 90 + [0.0] * 8 + [3.0] * 2, [-2.0] * 10 + [0.0] * 15 + [3.0] * 25)


SAMPLE = cost_sample(hundred())


def at(t_real: float, t_synthetic: float, costs: Costs = COSTS) -> CostFigures:
    return cost_figures(SAMPLE, SAMPLE.outcomes(t_real, t_synthetic), costs, "pair")


def test_the_cost_of_two_thresholds_is_the_one_on_paper() -> None:
    found = at(-1.0, 1.0)
    # Fakes: 20% paid at 40, 30% reviewed at 3, 50% refused.
    # Honest: 8% reviewed at 3, 2% refused at 100.
    assert found.cost == pytest.approx(0.01 * (0.2 * 40 + 0.3 * 3) + 0.99 * (0.08 * 3 + 0.02 * 100))
    assert found.reviewed == pytest.approx(0.01 * 0.3 + 0.99 * 0.08)
    assert (found.stopped, found.accused) == pytest.approx((0.8, 0.02))
    assert found.precision == pytest.approx(0.01 * 0.5 / (0.01 * 0.5 + 0.99 * 0.02))
    assert found.fakes_in_review == pytest.approx(0.003 / (0.003 + 0.0792))
    low, high = found.intervals["cost"] or (0, 0)
    assert low < found.cost < high


def test_reviewers_who_err_cost_missed_fakes_and_lost_trust() -> None:
    found = at(-1.0, 1.0, replace(COSTS, detection=0.7, wrong_refusal=0.1))
    fake = 0.2 * 40 + 0.3 * (3 + 0.3 * 40)
    honest = 0.08 * (3 + 0.1 * 100) + 0.02 * 100
    assert found.cost == pytest.approx(0.01 * fake + 0.99 * honest)
    assert (found.stopped, found.accused) == pytest.approx((0.5 + 0.7 * 0.3, 0.02 + 0.1 * 0.08))


def test_a_claim_of_several_photos_is_refused_for_one_and_paid_for_all() -> None:
    found = at(-1.0, 1.0, replace(COSTS, photos_per_claim=3))
    fake_refused, fake_paid = 1 - 0.5 * 0.98**2, 0.2 * 0.9**2
    honest_reviewed = 1 - 0.9**3 - (1 - 0.98**3)
    assert (found.accused, found.stopped) == pytest.approx((1 - 0.98**3, 1 - fake_paid))
    expected = 0.01 * (1 - fake_paid - fake_refused) + 0.99 * honest_reviewed
    assert found.reviewed == pytest.approx(expected)


def test_paying_all_and_reviewing_all_cost_what_anyone_knows() -> None:
    costs = replace(COSTS, detection=0.9, wrong_refusal=0.01)
    called = np.where(hundred()["score"] > 1, "synthetic", "real")
    sample = cost_sample(hundred().assign(outcome=called))
    ways = [
        cost_figures(sample, outcomes, costs, name) for name, outcomes in other_ways(sample).items()
    ]
    pay, review, judged = ways
    assert pay.cost == pytest.approx(0.01 * 40)
    assert (pay.reviewed, pay.stopped, pay.precision) == (0, 0, None)
    assert review.cost == pytest.approx(3 + 0.01 * 0.1 * 40 + 0.99 * 0.01 * 100)
    assert review.intervals["cost"] == pytest.approx((review.cost, review.cost))
    assert judged.cost == pytest.approx(0.01 * 0.5 * 40 + 0.99 * 0.02 * 100)


def test_photos_that_a_rule_sends_to_review_stay_there_at_any_threshold() -> None:
    table = hundred()
    table.loc[table["score"] == 3, "reasons"] = "between_thresholds whole_photo_processed"
    held = cost_sample(table)
    found = cost_figures(held, held.outcomes(-1.0, 1.0), COSTS, "")
    assert (found.accused, found.precision) == (0, None)
    assert found.reviewed == pytest.approx(0.01 * 0.8 + 0.99 * 0.1)
    free = cost_sample(hundred().assign(reasons="not_calibrated demo_model"))
    np.testing.assert_array_equal(free.outcomes(-1.0, 1.0), SAMPLE.outcomes(-1.0, 1.0))


def test_which_photos_stand_for_honest_claims() -> None:
    table = hundred()
    table.loc[:79, "kind"] = "original"
    damaged = cost_sample(table)
    assert (damaged.negatives, int((~damaged.synthetic).sum())) == ("damaged", 20)
    table.loc[80, "kind"] = "original"
    real = cost_sample(table)
    assert (real.negatives, int((~real.synthetic).sum())) == ("real", 100)
    blurred = table.assign(perturbation="blur", score=-9.0)
    table.loc[0, ["score", "reasons"]] = [np.nan, "unreadable"]
    both = cost_sample(pd.concat([table, blurred], ignore_index=True))
    assert (len(both.score), both.n_unscored) == (149, 1)


scores = st.lists(st.integers(-2, 2).map(float), min_size=2, max_size=10)
amounts = st.sampled_from([0.0, 1.0, 5.0, 40.0])


@settings(max_examples=25, deadline=None)
@given(scores, scores, amounts, amounts, amounts, st.sampled_from([0.5, 1.0]))
def test_no_pair_of_thresholds_costs_less(
    real: list[float],
    synthetic: list[float],
    value: float,
    review: float,
    trust: float,
    detection: float,
) -> None:
    def by_hand(low: float, high: float) -> float:
        def mean(values: list[float], refused: float, reviewed: float, paid: float) -> float:
            of = [refused if x >= high else paid if x <= low else reviewed for x in values]
            return sum(of) / len(values)

        honest = mean(real, trust, review + 0.1 * trust, 0)
        return 0.8 * honest + 0.2 * mean(synthetic, 0, review + (1 - detection) * value, value)

    sample = cost_sample(table_of(real, synthetic))
    choice = choose_thresholds(sample, Costs(0.2, value, review, trust, detection, 0.1))
    grid = np.arange(-2.5, 3.0).tolist()
    tried = [by_hand(low, high) for low, high in product(grid, grid) if low <= high]
    assert choice.figures.cost == pytest.approx(min(tried))
    assert choice.figures.cost == pytest.approx(by_hand(choice.t_real, choice.t_synthetic))
    assert choice.t_real <= choice.t_synthetic


def test_the_thresholds_of_a_known_set() -> None:
    choice = choose_thresholds(SAMPLE, COSTS)
    # Odds at 3: 0.01*0.5 against 0.99*0.02; refusing costs 1.98, reviewing 0.074, paying 0.2.
    # At 0: 0.01*0.3 against 0.99*0.08; reviewing costs 0.247, paying 0.12.
    # So all but the highest are paid, and those reviewed.
    assert (choice.t_real, choice.t_synthetic) == (1.5, NEVER)
    assert choice.figures.cost == pytest.approx(0.01 * 0.5 * 40 + 0.01 * 0.5 * 3 + 0.99 * 0.02 * 3)
    assert (choice.n_real, choice.n_synthetic, choice.negatives) == (100, 50, "damaged")


def test_cross_fitting_shows_that_a_saving_is_only_luck() -> None:
    rng = np.random.default_rng(3)
    costs = replace(COSTS, fraud_rate=0.3)
    flattered, honest = [], []
    for _ in range(8):
        # Scores that say nothing at all.
        table = table_of(list(rng.normal(size=40)), list(rng.normal(size=40)))
        choice = choose_thresholds(cost_sample(table), costs)
        assert choice.cross_fitted is not None
        flattered.append(choice.figures.cost)
        honest.append(choice.cross_fitted.cost)
    best = min(0.3 * 40, 3.0)
    assert np.mean(flattered) < best - 0.01
    assert np.mean(honest) > best


def test_photos_of_one_group_are_left_out_together() -> None:
    # Each group has a score of its own: thresholds learned on half of it would fit the other half.
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
    together, apart = (
        choose_thresholds(cost_sample(table), costs).cross_fitted
        for table in (grouped, grouped.assign(group=""))
    )
    assert together is not None
    assert apart is not None
    assert apart.cost < together.cost
    one = choose_thresholds(cost_sample(hundred().assign(group="one")), COSTS)
    assert (one.cross_fitted, bool(one.reason)) == (None, True)


def guaranteed(accused: bool = True, passed: bool = False) -> Policy:
    bound = Bound(share=0.05, photos=100, drawn_from=100, errors=1, allowed=1, upper=0.047)
    guarantee = Guarantee(
        delta=0.05,
        accused=bound if accused else None,
        passed=bound if passed else None,
        split="policy",
        seed=0,
        manifest_sha256="",
        statement="",
    )
    return Policy(4.0, -1.0, 0.05, 0.05, "damaged", photos={}, guarantee=guarantee)


def test_a_guarantee_keeps_its_threshold_from_moving() -> None:
    cheap_trust = replace(COSTS, accusation_cost=0.0)
    free = choose_thresholds(SAMPLE, cheap_trust)
    assert (free.t_synthetic < 4, free.bounded) == (True, ())
    bound = choose_thresholds(SAMPLE, cheap_trust, policy=guaranteed())
    assert (bound.t_synthetic >= 4, bound.bounded) == (True, ("t_synthetic",))
    assert bound.figures.cost > free.figures.cost
    # It may rise further.
    assert choose_thresholds(SAMPLE, COSTS, policy=guaranteed()).t_synthetic == NEVER

    policy = guaranteed(accused=False, passed=True)
    choice = choose_thresholds(SAMPLE, COSTS, policy=policy)
    assert (choice.t_real <= -1.0, "t_real" in choice.bounded) == (True, True)
    assert choose_thresholds(SAMPLE, COSTS, policy=replace(policy, guarantee=None)).t_real == 1.5


def test_other_fraud_rates_are_tried_with_the_same_and_with_new_thresholds() -> None:
    choice = choose_thresholds(SAMPLE, COSTS)
    table = cost_by_fraud_rate(SAMPLE, choice)
    assert table["fraud_rate"].tolist() == pytest.approx([0.001, 0.01 / 3, 0.01, 0.03, 0.1])
    np.testing.assert_allclose(table["pay_every_claim"], 40 * table["fraud_rate"])
    cheapest = table[["pay_every_claim", "review_every_claim", "chosen"]].min(axis=1)
    assert (table["chosen_anew"] <= cheapest + 1e-12).all()
    own = table.loc[2]
    assert own["chosen"] == own["chosen_anew"] == pytest.approx(choice.figures.cost)


def test_the_curve_passes_through_costs_of_pairs() -> None:
    choice = choose_thresholds(SAMPLE, COSTS)
    curve = cost_curve(SAMPLE, choice)
    assert set(curve["varied"]) == {"t_real", "t_synthetic"}
    for row in curve.to_dict("records"):
        pair = {"t_real": choice.t_real, "t_synthetic": choice.t_synthetic}
        pair[row["varied"]] = row["threshold"]
        assert row["cost"] == pytest.approx(at(**pair).cost)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("fraud_rate", 0.0), ("fraud_rate", float("nan")), ("claim_value", -1.0)),
        *(("review_cost", float("inf")), ("accusation_cost", float("nan"))),
        *(("detection", 1.1), ("wrong_refusal", -0.1), ("photos_per_claim", 0)),
    ],
)
def test_a_cost_out_of_range_is_named(key: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{key}={value}"):
        replace(COSTS, **{key: value})


@pytest.mark.parametrize(
    ("table", "code"),
    [
        (table_of([1.0, 2.0], []), "one_class"),
        (table_of([1.0], [np.nan]), "one_class"),
        (table_of([1.0], [2.0], label=["real", ""]), "no_label"),
        (table_of([1.0], [2.0], split=["train", "test"]), "training_photos"),
    ],
)
def test_a_table_that_cannot_give_costs_is_refused(table: pd.DataFrame, code: str) -> None:
    with pytest.raises(RealDamageError) as error:
        cost_sample(table)
    assert error.value.code == code


@pytest.fixture
def judged(model_file: Path) -> Callable[[Policy], pd.DataFrame]:
    """`judged(policy)` puts a policy into `model_file` and returns that model's predictions."""

    def make(policy: Policy) -> pd.DataFrame:
        data, metadata, digest = read_model_file(model_file)
        calibration = Calibration(slope=1.0, intercept=0.0, prior=0.5)
        after = replace(metadata, calibration=calibration, policy=policy)
        write_model_file(model_file, data, after)
        return hundred().assign(graph_sha256=digest)

    return make


def test_the_thresholds_are_written_and_the_rest_stays(
    judged: Callable[[Policy], pd.DataFrame], model_file: Path
) -> None:
    worst = WorstSource("shop", 20, called_synthetic=1, to_review=3, statement="")
    predictions = judged(replace(guaranteed(), worst_source=worst))
    before = read_model_file(model_file)
    choice = choose_thresholds(SAMPLE, replace(COSTS, fraud_rate=0.1), policy=guaranteed())
    policy = write_thresholds(model_file, choice, predictions)
    after = read_model_file(model_file)
    assert after[1].policy == policy
    assert (policy.t_real, policy.t_synthetic) == (choice.t_real, choice.t_synthetic)
    assert (policy.guarantee, policy.worst_source) == (guaranteed().guarantee, None)
    assert (policy.fpr, policy.negatives) == (0.0, "damaged")
    assert policy.photos == {"real": 100, "damaged": 100, "synthetic": 50}
    assert (after[1].calibration, after[2]) == (before[1].calibration, before[2])


def test_thresholds_that_break_the_guarantee_or_pay_all_are_not_written(
    judged: Callable[[Policy], pd.DataFrame], model_file: Path
) -> None:
    predictions = judged(guaranteed())
    loose = choose_thresholds(SAMPLE, replace(COSTS, accusation_cost=0.0))
    paying = choose_thresholds(SAMPLE, replace(COSTS, claim_value=0.1), policy=guaranteed())
    for choice, code in ((loose, "breaks_guarantee"), (paying, "pays_every_claim")):
        with pytest.raises(RealDamageError) as error:
            write_thresholds(model_file, choice, predictions)
        assert error.value.code == code
    assert read_model_file(model_file)[1].policy == guaranteed()


def test_another_model_or_an_uncalibrated_one_is_refused(
    judged: Callable[[Policy], pd.DataFrame], model_file: Path
) -> None:
    with pytest.raises(RealDamageError) as error:
        read_judge(model_file, hundred())
    assert error.value.code == "not_calibrated"
    predictions = judged(guaranteed())
    assert read_judge(model_file, predictions)[2] == guaranteed()
    with pytest.raises(RealDamageError) as error:
        read_judge(model_file, predictions.assign(graph_sha256="f" * 64))
    assert error.value.code == "other_network"
