"""Costs and the order of the review queue are those worked out on paper, and the photos of a claim
stay together."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from realdamage.commands.cli import main
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.costs import Costs, cost_report, read_claims, triage_order
from realdamage.evaluation.predictions import predictions_table, write_predictions

COSTS = Costs(fraud_rate=0.01, claim_value=40, review_cost=3, accusation_cost=100)


@pytest.fixture
def hundred(predictions_of):
    """100 damaged photos: 90 at -2, 8 at 0, 2 at 3; 50 synthetic: 10 at -2, 15 at 0, 25 at 3."""
    return predictions_of(
        label=["real"] * 100 + ["synthetic"] * 50,
        score=np.repeat([-2.0, 0.0, 3.0] * 2, [90, 8, 2, 10, 15, 25]),
    )


def test_every_way_costs_what_it_does_on_paper(hundred):
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


@pytest.mark.parametrize(
    ("columns", "code"), [({"label": "real"}, "one_class"), ({"split": "train"}, "training_photos")]
)
def test_a_table_that_cannot_give_costs_is_refused(hundred, columns, code):
    with pytest.raises(RealDamageError) as error:
        cost_report(hundred.assign(**columns), COSTS)
    assert error.value.code == code


def table_of(probability, **columns):
    """Photos a.jpg, b.jpg, … in review, with these probabilities; score = log odds."""
    names = [f"{chr(97 + index)}.jpg" for index in range(len(probability))]
    share = np.array(probability)
    own = {"file_name": names, "probability": share, "score": np.log(share / (1 - share))}
    return predictions_table(pd.DataFrame({**own, "outcome": "review", **columns}))


def claims_of(*rows):
    return pd.DataFrame(rows, columns=["claim_id", "file_name", "claim_value"])


def order(queue):
    return queue.claims["claim_id"].tolist()


def test_the_larger_expected_loss_comes_first_without_values_the_more_probable():
    queue = triage_order(table_of([0.2, 0.9, 0.5]))
    assert order(queue) == ["b.jpg", "c.jpg", "a.jpg"]
    assert queue.photos["rank"].tolist() == [1, 2, 3]
    assert queue.photos["expected_loss"].tolist() == pytest.approx([0.9, 0.5, 0.2])
    claims = claims_of(("A", "a.jpg", 100.0), ("B", "b.jpg", 10.0))
    queue = triage_order(table_of([0.2, 0.9]), claims=claims)
    assert order(queue) == ["A", "B"]
    assert queue.photos["expected_loss"].tolist() == pytest.approx([20, 9])


def test_only_claims_that_wait_are_queued_and_the_others_counted():
    photos = [f"{letter}.jpg" for letter in "abcdef"]
    claims = claims_of(
        *((claim, photo, 1.0) for claim, photo in zip("AABCDD", photos, strict=True))
    )
    outcomes = ["review", "synthetic", "real", "real", "real", "review"]
    table = table_of([0.5, 0.9, 0.1, 0.1, 0.2, 0.4], outcome=outcomes)
    queue = triage_order(table, claims=claims)
    # A has a refused photo, B and C are paid, D has one photo in review.
    assert (order(queue), queue.refused, queue.paid) == (["D"], 1, 2)


def test_a_queue_needs_probabilities_and_a_value_of_at_least_nought():
    with pytest.raises(RealDamageError) as refused:
        triage_order(table_of([0.5, 0.9]).assign(probability=np.nan))
    assert refused.value.code == "not_calibrated"
    with pytest.raises(UsageError, match="claim_value=-1"):
        triage_order(table_of([0.5]), claim_value=-1.0)
    with pytest.raises(UsageError, match="fraud_rate=0"):
        replace(COSTS, fraud_rate=0.0)


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        (claims_of(("A", "z.jpg", 1.0)), "unknown_photo"),
        (claims_of(("A", "a.jpg", 1.0), ("A", "b.jpg", 2.0)), "several_values"),
        (claims_of(("A", "a.jpg", 1.0)), "no_value"),
    ],
)
def test_claims_that_do_not_fit_are_refused(claims, code):
    with pytest.raises(RealDamageError) as error:
        triage_order(table_of([0.2, 0.9]), claims=claims)
    assert error.value.code == code


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("claim_id,file_name\nA,a.jpg\nB,a.jpg\n", "row 3, column file_name"),
        ("claim_id,file_name,claim_value\nA,a.jpg,-3\n", "'-3'"),
    ],
)
def test_a_file_of_claims_is_read_or_a_wrong_row_named(tmp_path, text, where):
    path = tmp_path / "claims.csv"
    path.write_text("claim_id,file_name,claim_value\nA,a.jpg,20\nB,b.jpg,\n")
    values = read_claims(path)["claim_value"].tolist()
    assert values == pytest.approx([20, np.nan], nan_ok=True)
    path.write_text(text)
    with pytest.raises(RealDamageError, match=where):
        read_claims(path)


def test_the_photos_of_a_claim_stay_together_and_the_most_suspicious_decides(tmp_path):
    # Claim A: 0.6 at most, worth 30, two photos; claim B: 0.5, worth 30, one photo.
    write_predictions(tmp_path / "p.csv", table_of([0.1, 0.5, 0.6]))
    (tmp_path / "c.csv").write_text(
        "claim_id,file_name,claim_value\nA,a.jpg,30\nA,c.jpg,\nB,b.jpg,30\n"
    )
    target = tmp_path / "queue.csv"
    command = ["triage", str(tmp_path / "p.csv"), "--claims", str(tmp_path / "c.csv")]
    assert main([*command, "--output", str(target)]) == 0
    written = pd.read_csv(target)
    assert written["claim_id"].tolist() == ["B", "A", "A"]
    assert written["file_name"].tolist() == ["b.jpg", "c.jpg", "a.jpg"]
    assert written["rank"].tolist() == [1, 2, 2]
    assert written["probability"].tolist() == pytest.approx([0.5, 0.6, 0.6])
    assert written["loss_per_photo"].tolist() == pytest.approx([15, 9, 9])
