"""Costs agree with arithmetic on paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.economics import Costs, cost_report

COSTS = Costs(fraud_rate=0.01, claim_value=40, review_cost=3, accusation_cost=100)
Table = Callable[..., pd.DataFrame]


@pytest.fixture
def hundred(predictions_of: Table) -> pd.DataFrame:
    """100 damaged photos: 90 at -2, 8 at 0, 2 at 3; 50 synthetic: 10 at -2, 15 at 0, 25 at 3."""
    return predictions_of(
        label=["real"] * 100 + ["synthetic"] * 50,
        score=np.repeat([-2.0, 0.0, 3.0] * 2, [90, 8, 2, 10, 15, 25]),
    )


def test_every_way_costs_what_it_does_on_paper(hundred: pd.DataFrame) -> None:
    pay, review, judged = cost_report(hundred, COSTS).ways
    # Fakes: 20% paid at 40, 30% reviewed at 3, 50% refused.
    # Honest: 8% reviewed at 3, 2% refused at 100.
    expected = 0.01 * (0.2 * 40 + 0.3 * 3) + 0.99 * (0.08 * 3 + 0.02 * 100)
    assert judged.cost == pytest.approx(expected)
    assert judged.reviewed == pytest.approx(0.01 * 0.3 + 0.99 * 0.08)
    assert (judged.stopped, judged.accused) == pytest.approx((0.8, 0.02))
    assert judged.intervals["cost"][0] < judged.cost < judged.intervals["cost"][1]
    assert (pay.cost, pay.reviewed, pay.stopped) == pytest.approx((0.01 * 40, 0, 0))
    assert (review.cost, review.reviewed, review.accused) == pytest.approx((3, 1, 0))
    assert review.intervals["cost"] == pytest.approx((3, 3))


def test_which_photos_stand_for_honest_claims(hundred: pd.DataFrame) -> None:
    hundred.loc[:79, "kind"] = "original"
    damaged = cost_report(hundred, COSTS)
    assert (damaged.negatives, damaged.n_real) == ("damaged", 20)
    hundred.loc[80, "kind"] = "original"
    blurred = hundred.assign(perturbation="blur", score=-9.0)
    hundred.loc[0, ["score", "reasons"]] = [np.nan, "unreadable"]
    both = cost_report(pd.concat([hundred, blurred], ignore_index=True), COSTS)
    assert (both.negatives, both.n_real, both.n_synthetic) == ("real", 99, 50)


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
