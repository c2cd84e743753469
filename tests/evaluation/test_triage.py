"""The queue's order is the one worked out on paper, claims stay together, and its worth is counted
rightly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from realdamage.core.policy import Calibration
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.predictions import PREDICTION_COLUMNS
from realdamage.evaluation.triage import (
    Queue,
    found_early,
    read_claims,
    triage_order,
    try_order,
    write_queue,
)


def table_of(probability: list[float], **columns: object) -> pd.DataFrame:
    """Photos a.jpg, b.jpg, … in review, with these probabilities; score = log odds."""
    names = [f"{chr(97 + index)}.jpg" for index in range(len(probability))]
    table = pd.DataFrame({**dict.fromkeys(PREDICTION_COLUMNS, ""), "file_name": names})
    share = np.array(probability)
    table = table.assign(probability=share, score=np.log(share / (1 - share)), outcome="review")
    return table.assign(**columns)


def claims_of(*rows: tuple[str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["claim_id", "file_name", "claim_value"])


def order(queue: Queue) -> list[str]:
    return queue.claims["claim_id"].tolist()


def test_without_values_the_more_probable_comes_first() -> None:
    queue = triage_order(table_of([0.2, 0.9, 0.5]))
    assert order(queue) == ["b.jpg", "c.jpg", "a.jpg"]
    assert queue.photos["rank"].tolist() == [1, 2, 3]
    assert queue.photos["expected_loss"].tolist() == pytest.approx([0.9, 0.5, 0.2])


def test_an_expensive_claim_goes_before_a_more_probable_cheap_one() -> None:
    claims = claims_of(("A", "a.jpg", 100.0), ("B", "b.jpg", 10.0))
    queue = triage_order(table_of([0.2, 0.9]), claims=claims)
    assert order(queue) == ["A", "B"]
    assert queue.photos["expected_loss"].tolist() == pytest.approx([20, 9])


def test_the_photos_of_a_claim_stay_together_and_the_most_suspicious_decides(
    tmp_path: Path,
) -> None:
    # Claim A: 0.6 at most, worth 30, two photos; claim B: 0.5, worth 30, one photo.
    claims = claims_of(("A", "a.jpg", 30.0), ("B", "b.jpg", 30.0), ("A", "c.jpg", 30.0))
    queue = triage_order(table_of([0.1, 0.5, 0.6]), claims=claims, minutes_per_photo=2)
    assert queue.photos["file_name"].tolist() == ["b.jpg", "c.jpg", "a.jpg"]
    assert queue.photos["rank"].tolist() == [1, 2, 2]
    assert queue.photos["probability"].tolist() == pytest.approx([0.5, 0.6, 0.6])
    assert queue.photos["loss_per_minute"].tolist() == pytest.approx([7.5, 4.5, 4.5])
    write_queue(tmp_path / "queue.csv", queue)
    written = pd.read_csv(tmp_path / "queue.csv")
    assert written["claim_id"].tolist() == ["B", "A", "A"]
    assert written["loss_per_minute"].tolist() == pytest.approx([7.5, 4.5, 4.5])


def test_only_claims_that_wait_are_queued_and_the_others_counted() -> None:
    photos = [f"{letter}.jpg" for letter in "abcdef"]
    claims = claims_of(
        *((claim, photo, 1.0) for claim, photo in zip("AABCDD", photos, strict=True))
    )
    outcomes = ["review", "synthetic", "real", "real", "real", "review"]
    table = table_of([0.5, 0.9, 0.1, 0.1, 0.2, 0.4], outcome=outcomes)
    queue = triage_order(table, claims=claims)
    # A has a refused photo, B and C are paid, D has one photo in review.
    assert (order(queue), queue.refused, queue.paid) == (["D"], 1, 2)
    everything = triage_order(table, claims=claims, everything=True)
    assert order(everything) == ["A", "D", "B", "C"]
    assert (everything.refused, everything.paid) == (0, 0)


def test_equal_claims_are_ordered_by_what_a_person_can_see_and_unreadable_ones_come_last() -> None:
    quality = {"sharpness": [0.3, 0.7, np.nan, 0.7], "compression": [90.0, 50.0, 100.0, 80.0]}
    assert order(triage_order(table_of([0.5] * 4, **quality))) == [
        *("d.jpg", "b.jpg", "a.jpg", "c.jpg")
    ]
    table = table_of([0.5, 0.5, 0.01], outcome=["", "review", "review"])
    table.loc[0, ["score", "probability"]] = np.nan
    assert order(triage_order(table)) == ["b.jpg", "c.jpg", "a.jpg"]


def test_a_prior_reweights_the_probabilities_with_the_model_s_calibration() -> None:
    calibration = Calibration(slope=1.0, intercept=0.0, prior=0.5)
    table = table_of([0.5, 0.9]).assign(probability=np.nan)
    queue = triage_order(table, calibration=calibration, prior=0.01)
    assert queue.photos["probability"].tolist() == pytest.approx([0.09 / (0.09 + 0.99), 0.01])
    with pytest.raises(UsageError) as error:
        triage_order(table_of([0.5]), prior=0.01)
    assert error.value.code == "no_model"
    with pytest.raises(RealDamageError, match="1 of 2") as refused:
        triage_order(table_of([0.2, 0.9]).assign(probability=[0.2, np.nan]))
    assert refused.value.code == "not_calibrated"


def test_the_worth_of_the_order_is_the_one_on_paper() -> None:
    # Of ten claims of equal length the two fakes are first and fifth.
    label = np.where(np.isin(np.arange(10), [0, 4]), "synthetic", "real")
    queue = triage_order(table_of(list(np.linspace(0.9, 0.1, 10)), label=label))
    found = found_early(queue).set_index("reviewed")
    assert found["found"].to_dict() == pytest.approx(
        {0.01: 0.05, 0.05: 0.25, 0.1: 0.5, 0.2: 0.5, 0.5: 1.0}
    )
    assert found["found"].between(found["low"], found["high"]).all()
    assert found["random"].tolist() == found.index.tolist()
    # With one fake among a hundred claims: fake 0.005 each, honest 0.99 / 8 each, in total 1. The
    # first fake is done after 0.5% of the time, the second after 0.005 + 3 * 0.12375 = 0.376.
    rare = found_early(queue, fraud_rate=0.01).set_index("reviewed")["found"]
    assert (rare[0.01], rare[0.2], rare[0.5]) == pytest.approx((0.5, 0.5, 1.0))


def test_a_shop_s_own_claims_need_no_labels() -> None:
    found, reason = try_order(triage_order(table_of([0.2, 0.9])))
    assert (found, "label" in reason) == (None, True)
    found, reason = try_order(triage_order(table_of([0.2, 0.9], label="real")))
    assert (found, "0 fake and 2 honest" in reason) == (None, True)


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        (claims_of(("A", "z.jpg", 1.0)), "unknown_photo"),
        (claims_of(("A", "a.jpg", 1.0), ("A", "b.jpg", 2.0)), "several_values"),
        (claims_of(("A", "a.jpg", 1.0)), "no_value"),
    ],
)
def test_claims_that_do_not_fit_are_refused(claims: pd.DataFrame, code: str) -> None:
    with pytest.raises(RealDamageError) as error:
        triage_order(table_of([0.2, 0.9]), claims=claims)
    assert error.value.code == code


def test_claims_without_a_value_take_the_given_one() -> None:
    claims = claims_of(("A", "a.jpg", 10.0))
    queue = triage_order(table_of([0.2, 0.1]), claims=claims, claim_value=50)
    values = dict(zip(queue.claims["claim_id"], queue.claims["claim_value"], strict=True))
    assert values == {"A": 10, "b.jpg": 50}
    assert order(queue) == ["b.jpg", "A"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("minutes_per_photo", 0.0), ("claim_value", -1.0), ("claim_value", float("nan"))],
)
def test_a_number_out_of_range_is_named(key: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{key}={value}"):
        triage_order(table_of([0.5]), **{key: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("claim,photo\nA,a.jpg\n", "claim_id, file_name"),
        ("claim_id,file_name\nA,a.jpg\nB,a.jpg\n", "row 3, column file_name"),
        ("claim_id,file_name\n,a.jpg\n", "row 2, column claim_id"),
        ("claim_id,file_name,claim_value\nA,a.jpg,cheap\n", "row 2, column claim_value: 'cheap'"),
        ("claim_id,file_name,claim_value\nA,a.jpg,-3\n", "'-3'"),
    ],
)
def test_a_wrong_file_of_claims_is_named_with_its_row(
    tmp_path: Path, text: str, where: str
) -> None:
    path = tmp_path / "claims.csv"
    path.write_text(text)
    with pytest.raises(RealDamageError, match=where):
        read_claims(path)
    with pytest.raises(UsageError):
        read_claims(tmp_path / "gone.csv")


def test_a_file_of_claims_is_read(tmp_path: Path) -> None:
    path = tmp_path / "claims.csv"
    path.write_text("claim_id,file_name,claim_value\nA,a.jpg,20\nB,b.jpg,\n")
    claims = read_claims(path)
    assert claims["claim_value"].tolist() == pytest.approx([20, np.nan], nan_ok=True)
    path.write_text("claim_id,file_name\nA,a.jpg\n")
    assert read_claims(path)["claim_value"].isna().all()
