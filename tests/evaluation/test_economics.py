"""Costs agree with arithmetic on paper, and the cheapest thresholds with trying all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.economics import NEVER, CostFigures, CostReport, Costs, cost_report

COSTS = Costs(fraud_rate=0.01, claim_value=40, review_cost=3, accusation_cost=100)
Table = Callable[..., pd.DataFrame]


@pytest.fixture
def hundred(predictions_of: Table) -> pd.DataFrame:
    """100 damaged photos: 90 at -2, 8 at 0, 2 at 3; 50 synthetic: 10 at -2, 15 at 0, 25 at 3."""
    return predictions_of(
        label=["real"] * 100 + ["synthetic"] * 50,
        score=np.repeat([-2.0, 0.0, 3.0] * 2, [90, 8, 2, 10, 15, 25]),
    )


def ways(report: CostReport) -> dict[str, CostFigures]:
    return {way.name: way for way in report.ways}


def test_every_way_costs_what_it_does_on_paper(hundred: pd.DataFrame) -> None:
    found = ways(cost_report(hundred, COSTS))
    judged = found["as judged"]
    # Fakes: 20% paid at 40, 30% reviewed at 3, 50% refused.
    # Honest: 8% reviewed at 3, 2% refused at 100.
    expected = 0.01 * (0.2 * 40 + 0.3 * 3) + 0.99 * (0.08 * 3 + 0.02 * 100)
    assert judged.cost == pytest.approx(expected)
    assert judged.reviewed == pytest.approx(0.01 * 0.3 + 0.99 * 0.08)
    assert (judged.stopped, judged.accused) == pytest.approx((0.8, 0.02))
    assert judged.intervals["cost"][0] < judged.cost < judged.intervals["cost"][1]
    pay, review = found["pay every claim"], found["review every claim"]
    assert (pay.cost, pay.reviewed, pay.stopped) == pytest.approx((0.01 * 40, 0, 0))
    assert (review.cost, review.reviewed, review.accused) == pytest.approx((3, 1, 0))
    assert review.intervals["cost"] == pytest.approx((3, 3))


def test_the_thresholds_of_least_cost_of_a_known_set(hundred: pd.DataFrame) -> None:
    # At 3, refusing costs 1.98, reviewing 0.074, paying 0.2; at 0, reviewing 0.247, paying 0.12.
    report = cost_report(hundred, COSTS)
    assert (report.t_real, report.t_synthetic) == (1.5, NEVER)
    assert (report.fpr, report.miss) == (0, 0.5)
    assert (report.n_real, report.n_synthetic, report.negatives) == (100, 50, "damaged")
    expected = 0.01 * 0.5 * 40 + 0.01 * 0.5 * 3 + 0.99 * 0.02 * 3
    assert ways(report)["thresholds of least cost"].cost == pytest.approx(expected)


scores = st.lists(st.integers(-2, 2).map(float), min_size=2, max_size=10)
amounts = st.sampled_from([0.0, 1.0, 5.0, 40.0])


@settings(max_examples=25, deadline=None)
@given(real=scores, synthetic=scores, value=amounts, review=amounts, trust=amounts)
def test_no_pair_of_thresholds_costs_less(
    predictions_of: Table,
    real: list[float],
    synthetic: list[float],
    value: float,
    review: float,
    trust: float,
) -> None:
    def by_hand(low: float, high: float) -> float:
        def mean(values: list[float], refused: float, paid: float) -> float:
            of = [refused if x >= high else paid if x <= low else review for x in values]
            return sum(of) / len(of)

        return 0.8 * mean(real, trust, 0) + 0.2 * mean(synthetic, 0, value)

    label = ["real"] * len(real) + ["synthetic"] * len(synthetic)
    table = predictions_of(label=label, score=[*real, *synthetic])
    report = cost_report(table, Costs(0.2, value, review, trust))
    grid = np.arange(-2.5, 3.0).tolist()
    tried = [by_hand(low, high) for low, high in product(grid, grid) if low <= high]
    assert report.ways[-1].cost == pytest.approx(min(tried))
    assert report.ways[-1].cost == pytest.approx(by_hand(report.t_real, report.t_synthetic))
    assert report.t_real <= report.t_synthetic


def test_photos_that_a_rule_sends_to_review_stay_there_at_any_threshold(
    hundred: pd.DataFrame,
) -> None:
    trusting = replace(COSTS, accusation_cost=0.0)
    free = cost_report(hundred.assign(reasons="not_calibrated demo_model"), trusting)
    assert (free.ways[-1].stopped, free.ways[-1].reviewed) == (1, 0)
    hundred.loc[hundred["score"] == 3, "reasons"] = "between_thresholds whole_photo_processed"
    held = cost_report(hundred, trusting).ways[-1]
    assert held.reviewed == pytest.approx(0.01 * 0.5 + 0.99 * 0.02)


def test_which_photos_stand_for_honest_claims(hundred: pd.DataFrame) -> None:
    hundred.loc[:79, "kind"] = "original"
    damaged = cost_report(hundred, COSTS)
    assert (damaged.negatives, damaged.n_real) == ("damaged", 20)
    hundred.loc[80, "kind"] = "original"
    blurred = hundred.assign(perturbation="blur", score=-9.0)
    hundred.loc[0, ["score", "reasons"]] = [np.nan, "unreadable"]
    both = cost_report(pd.concat([hundred, blurred], ignore_index=True), COSTS)
    assert (both.negatives, both.n_real, both.n_unscored) == ("real", 99, 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("fraud_rate", 0.0), ("fraud_rate", float("nan")), ("claim_value", -1.0)),
        *(("review_cost", float("inf")), ("accusation_cost", float("nan"))),
    ],
)
def test_a_cost_out_of_range_is_named(key: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{key}={value}"):
        replace(COSTS, **{key: value})


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"label": "real"}, "one_class"),
        ({"label": ""}, "no_label"),
        ({"split": "train"}, "training_photos"),
    ],
)
def test_a_table_that_cannot_give_costs_is_refused(
    hundred: pd.DataFrame, columns: dict[str, str], code: str
) -> None:
    with pytest.raises(RealDamageError) as error:
        cost_report(hundred.assign(**columns), COSTS)
    assert error.value.code == code
