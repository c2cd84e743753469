"""The queue's order is the one worked out on paper, claims stay together, and its worth is counted rightly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from realdamage.commands.cli import main
from realdamage.core.model_file import read_model_file, write_model_file
from realdamage.core.policy import Calibration, Policy
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.predictions import PREDICTION_COLUMNS, write_predictions
from realdamage.evaluation.triage import Queue, found_early, read_claims, triage_order, try_order


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


def test_a_dear_claim_goes_before_a_more_probable_cheap_one() -> None:
    claims = claims_of(("A", "a.jpg", 100.0), ("B", "b.jpg", 10.0))
    queue = triage_order(table_of([0.2, 0.9]), claims=claims)
    assert order(queue) == ["A", "B"]
    assert queue.photos["expected_loss"].tolist() == pytest.approx([20, 9])


def test_the_photos_of_a_claim_stay_together_and_the_most_suspicious_decides() -> None:
    # Claim A: 0.6 at most, worth 30, two photos; claim B: 0.5, worth 30, one photo.
    claims = claims_of(("A", "a.jpg", 30.0), ("B", "b.jpg", 30.0), ("A", "c.jpg", 30.0))
    queue = triage_order(table_of([0.1, 0.5, 0.6]), claims=claims, minutes_per_photo=2)
    assert queue.photos["file_name"].tolist() == ["b.jpg", "c.jpg", "a.jpg"]
    assert queue.photos["rank"].tolist() == [1, 2, 2]
    assert queue.photos["probability"].tolist() == pytest.approx([0.5, 0.6, 0.6])
    assert queue.photos["loss_per_minute"].tolist() == pytest.approx(
        [30 * 0.5 / 2, 30 * 0.6 / 4, 30 * 0.6 / 4]
    )


def test_only_claims_that_wait_are_queued_and_the_others_counted() -> None:
    outcomes = ["review", "synthetic", "real", "real", "real", "review"]
    claims = claims_of(
        ("A", "a.jpg", 1.0), ("A", "b.jpg", 1.0), ("B", "c.jpg", 1.0), ("C", "d.jpg", 1.0)
    )
    claims = pd.concat([claims, claims_of(("D", "e.jpg", 1.0), ("D", "f.jpg", 1.0))])
    table = table_of([0.5, 0.9, 0.1, 0.1, 0.2, 0.4], outcome=outcomes)
    queue = triage_order(table, claims=claims)
    # A has a refused photo, B and C are paid, D has one photo in review.
    assert order(queue) == ["D"]
    assert (queue.refused, queue.paid) == (1, 2)
    everything = triage_order(table, claims=claims, everything=True)
    assert order(everything) == ["A", "D", "B", "C"]
    assert (everything.refused, everything.paid) == (0, 0)


def test_equal_claims_are_ordered_by_what_a_person_can_see_of_them() -> None:
    table = table_of(
        [0.5] * 4, sharpness=[0.3, 0.7, np.nan, 0.7], compression=[90.0, 50.0, 100.0, 80.0]
    )
    assert order(triage_order(table)) == ["d.jpg", "b.jpg", "a.jpg", "c.jpg"]


def test_an_unreadable_photo_waits_at_the_end() -> None:
    table = table_of([0.5, 0.5, 0.01], outcome=["", "review", "review"])
    table.loc[0, ["score", "probability"]] = np.nan
    assert order(triage_order(table)) == ["b.jpg", "c.jpg", "a.jpg"]


def test_a_prior_reweights_the_probabilities_with_the_model_s_calibration() -> None:
    calibration = Calibration(slope=1.0, intercept=0.0, prior=0.5)
    table = table_of([0.5, 0.9]).assign(probability=np.nan)
    queue = triage_order(table, calibration=calibration, prior=0.01)
    assert queue.photos["probability"].tolist() == pytest.approx([0.09 / (0.09 + 0.99), 0.01])
    with pytest.raises(UsageError, match="give --model"):
        triage_order(table_of([0.5]), prior=0.01)


def test_the_worth_of_the_order_is_the_one_on_paper() -> None:
    # Of ten claims of equal length the two fakes are first and fifth.
    label = np.array(
        ["synthetic", "real", "real", "real", "synthetic", "real", "real", "real", "real", "real"]
    )
    queue = triage_order(table_of(list(np.linspace(0.9, 0.1, 10)), label=label))
    found = found_early(queue, n_boot=50).set_index("reviewed")
    assert found["found"].to_dict() == pytest.approx(
        {0.01: 0.05, 0.05: 0.25, 0.1: 0.5, 0.2: 0.5, 0.5: 1.0}
    )
    assert (found["low"] <= found["found"]).all()
    assert (found["found"] <= found["high"]).all()
    assert found["random"].tolist() == found.index.tolist()
    # With one fake among a hundred claims, nearly all the time goes to honest ones.
    rare = found_early(queue, fraud_rate=0.01, n_boot=10).set_index("reviewed")["found"]
    # fake: 0.005 each, honest: 0.99 / 8 each; total 1. The fake at the head is done after 0.5% of the time.
    assert rare[0.01] == pytest.approx(0.5)
    # The second one comes after 0.005 + 3 * 0.12375 = 0.376.
    assert rare[0.2] == pytest.approx(0.5)
    assert rare[0.5] == pytest.approx(1.0)


def test_a_shop_s_own_claims_need_no_labels() -> None:
    found, reason = try_order(triage_order(table_of([0.2, 0.9])))
    assert found is None
    assert "no label" in reason
    found, reason = try_order(triage_order(table_of([0.2, 0.9], label="real")))
    assert found is None
    assert "0 fake and 2 honest" in reason


@pytest.mark.parametrize(
    ("claims", "value", "told"),
    [
        (
            claims_of(("A", "z.jpg", 1.0)),
            None,
            "1 photos of the claims are not in the predictions, such as 'z.jpg'",
        ),
        (claims_of(("A", "a.jpg", 1.0), ("A", "b.jpg", 2.0)), None, "Claim 'A' has 2 values"),
        (claims_of(("A", "a.jpg", 1.0)), None, "1 claims have no value, such as 'b.jpg'"),
    ],
)
def test_claims_that_do_not_fit_are_refused(
    claims: pd.DataFrame, value: float | None, told: str
) -> None:
    with pytest.raises(RealDamageError, match=told):
        triage_order(table_of([0.2, 0.9]), claims=claims, claim_value=value)


def test_claims_without_a_value_take_the_given_one() -> None:
    claims = claims_of(("A", "a.jpg", 10.0))
    queue = triage_order(table_of([0.2, 0.1]), claims=claims, claim_value=50)
    assert dict(zip(queue.claims["claim_id"], queue.claims["claim_value"], strict=True)) == {
        "A": 10,
        "b.jpg": 50,
    }
    assert order(queue) == ["b.jpg", "A"]


def test_photos_judged_without_calibration_have_no_order() -> None:
    with pytest.raises(RealDamageError, match="1 of 2 photos have no probability"):
        triage_order(table_of([0.2, 0.9]).assign(probability=[0.2, np.nan]))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"minutes_per_photo": 0.0}, "minutes_per_photo=0.0"),
        ({"claim_value": -1.0}, "claim_value=-1.0"),
        ({"claim_value": float("nan")}, "claim_value=nan"),
    ],
)
def test_a_number_out_of_range_is_named(options: dict[str, float], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        triage_order(table_of([0.5]), **options)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("claim,photo\nA,a.jpg\n", "no column claim_id, file_name; found: claim, photo"),
        ("claim_id,file_name\nA,a.jpg\nB,a.jpg\n", "row 3: a.jpg is there twice"),
        ("claim_id,file_name\n,a.jpg\n", "row 2, column claim_id: empty"),
        (
            "claim_id,file_name,claim_value\nA,a.jpg,cheap\n",
            "row 2, column claim_value: found 'cheap'",
        ),
        ("claim_id,file_name,claim_value\nA,a.jpg,-3\n", "found '-3'"),
    ],
)
def test_a_file_of_claims_that_is_off_is_told_where(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "claims.csv"
    path.write_text(text)
    with pytest.raises(RealDamageError, match=told):
        read_claims(path)


# --- the command ---


def test_the_command_writes_the_queue_and_says_what_it_is_worth(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, metadata, digest = read_model_file(model_file)
    policy = Policy(t_synthetic=9.0, t_real=-9.0, fpr=0.1, miss=0.1, negatives="real", photos={})
    calibration = Calibration(slope=1.0, intercept=0.0, prior=0.5)
    write_model_file(model_file, data, replace(metadata, calibration=calibration, policy=policy))
    predictions, claims, out = (
        tmp_path / name for name in ("predictions.csv", "claims.csv", "queue.csv")
    )
    label = ["real", "synthetic", "real", "synthetic"]
    write_predictions(predictions, table_of([0.1, 0.6, 0.5, 0.9], label=label, graph_sha256=digest))
    claims.write_text(
        "claim_id,file_name,claim_value\nA,a.jpg,20\nA,b.jpg,20\nB,c.jpg,30\nC,d.jpg,5\n"
    )
    asked = ["triage", str(predictions), "--claims", str(claims), "--output", str(out)]
    assert main([*asked, "--prior", "0.05", "--model", str(model_file)]) == 0
    printed = capsys.readouterr().out
    assert (
        "3 claims with 4 photos wait for review; left out: 0 with a photo called synthetic, 0"
        in printed
    )
    assert f"the whole queue: {out}" in printed
    written = pd.read_csv(out)
    odds = 0.05 / 0.95
    expected = {
        "A": 20 * 1.5 * odds / (1 + 1.5 * odds) / 2,
        "B": 30 * odds / (1 + odds),
        "C": 5 * 9 * odds / (1 + 9 * odds),
    }
    assert written.drop_duplicates("claim_id")["claim_id"].tolist() == sorted(
        expected, key=expected.get, reverse=True
    )
    for claim, worth in expected.items():
        assert written.loc[
            written["claim_id"] == claim, "loss_per_minute"
        ].tolist() == pytest.approx([worth] * (2 if claim == "A" else 1), rel=1e-4)


def test_the_command_names_what_is_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = tmp_path / "predictions.csv"
    write_predictions(predictions, table_of([0.5]).assign(probability=np.nan))
    assert main(["triage", str(predictions)]) == 3
    assert "have no probability" in capsys.readouterr().err
    assert main(["triage", str(predictions), "--prior", "0.1"]) == 2
    assert "give --model" in capsys.readouterr().err
    assert main(["triage", str(predictions), "--claims", str(tmp_path / "gone.csv")]) == 2
    assert "gone.csv: cannot be read (No such file or directory)" in capsys.readouterr().err
