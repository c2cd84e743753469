"""The shift alarm stays silent while photos are drawn like the calibration photos, and speaks when they are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from realdamage.commands.cli import main
from realdamage.core.model_file import read_model_file, write_model_file
from realdamage.core.policy import Bound, Calibration, Guarantee, Policy
from realdamage.core.verdict import MEASURED_COLUMNS
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.monitor import MonitorReport, monitor, report_text
from realdamage.evaluation.prediction_log import read_log
from realdamage.evaluation.predictions import FURTHER_COLUMNS, PREDICTION_COLUMNS, write_predictions
from realdamage.evaluation.shift import Reference, holm, photos_needed, visible_shift

GRAPH = "ab" * 32


def draw(
    n: int, seed: int, *, synthetic: float = 0.5, labels: bool = False, chat: float = 0.0
) -> pd.DataFrame:
    """`n` photos judged by a fair model, a share `synthetic` of them synthetic; a share `chat` came through a chat app:
    smaller, recompressed, less sharp, and the score a little lower."""
    rng = np.random.default_rng(seed)
    fake, sent = rng.random(n) < synthetic, rng.random(n) < chat
    score = rng.normal(np.where(fake, 1.0, -1.0), 1.0) - 0.3 * sent
    table = pd.DataFrame(
        {**dict.fromkeys((*PREDICTION_COLUMNS, *FURTHER_COLUMNS), "")}, index=range(n)
    )
    short = np.where(sent, 0.5, 1.0) * rng.choice([1500, 2000, 3000], n)
    return table.assign(
        file_name=[f"{seed}-{i}.jpg" for i in range(n)],
        label=np.where(fake, "synthetic", "real") if labels else "",
        score=score,
        outcome=np.where(score >= 1.5, "synthetic", np.where(score <= 0.5, "real", "review")),
        reasons=np.where((score < 1.5) & (score > 0.5), "between_thresholds", ""),
        width=short * 1.5,
        height=short,
        sharpness=np.clip(rng.normal(0.46, 0.04, n) - 0.06 * sent - 0.02 * fake, 0, 1),
        compression=np.where(sent, 60, rng.choice([85, 90, 95, 100], n)),
        hot_share=np.clip(rng.beta(1, 9, n) + 0.2 * fake, 0, 1),
        fine_detail=rng.lognormal(-2.4, 0.5, n),
        photo_sha256=[f"{seed}-{i}" for i in range(n)],
        graph_sha256=GRAPH,
    )


REFERENCE = draw(600, seed=0, labels=True)


def alarms(report: MonitorReport) -> set[str]:
    return {shift.name for shift in report.shifts if shift.alarm}


@pytest.mark.parametrize(("synthetic", "n"), [(0.5, 600), (0.02, 300)])
def test_without_a_shift_at_most_one_draw_in_twenty_alarms(synthetic: float, n: int) -> None:
    """Both calibration photos and log are drawn anew; a log with 2% synthetic photos is no shift either."""
    found = [
        monitor(draw(n, 2 * i + 2, synthetic=synthetic), draw(400, 2 * i + 1, labels=True)).alarm
        for i in range(40)
    ]
    assert sum(found) <= 2  # 5% of 40


def test_without_a_shift_a_test_without_effect_size_alarms_no_more_often() -> None:
    """The level holds by itself, without the least effect to lean on."""
    found = [
        monitor(
            draw(300, 2 * i + 2, synthetic=0.1),
            draw(400, 2 * i + 1, labels=True),
            least_effect=1e-9,
        ).alarm
        for i in range(40)
    ]
    assert sum(found) <= 2


def test_chat_app_photos_are_a_shift() -> None:
    found = [monitor(draw(300, i, synthetic=0.02, chat=0.5), REFERENCE) for i in range(1, 11)]
    assert all(report.alarm for report in found)
    assert all({"compression", "shorter side", "longer side"} <= alarms(report) for report in found)
    assert "ALARM: these photos are not like the calibration photos any more" in report_text(
        found[0]
    )


def test_a_huge_log_does_not_alarm_over_a_trifle() -> None:
    report = monitor(draw(20_000, 1, chat=0.05), draw(20_000, 2, labels=True))
    assert not report.alarm
    assert min(shift.p_adjusted for shift in report.shifts) < 1e-6
    assert max(shift.effect for shift in report.shifts) < 0.1


def test_the_share_of_synthetic_photos_is_estimated_and_can_be_fixed() -> None:
    log = draw(2000, 1, synthetic=0.1)
    found = monitor(log, REFERENCE)
    assert found.prior == pytest.approx(0.1, abs=0.09)
    assert not found.alarm
    fixed = monitor(log, REFERENCE, prior=0.6)
    assert (fixed.prior, fixed.alarm) == (0.6, True)
    assert "score" in alarms(fixed)
    for end in (0.0, 1.0):
        own = monitor(draw(1000, 3, synthetic=end), REFERENCE, prior=end)
        assert (own.prior, own.alarm) == (end, False)


def test_a_reference_without_labels_is_compared_as_it_is() -> None:
    assert not monitor(draw(500, 1), REFERENCE.assign(label="")).alarm
    assert "score" in alarms(monitor(draw(500, 1, synthetic=0.02), REFERENCE.assign(label="")))


def test_only_clean_rows_of_the_reference_count() -> None:
    perturbed = draw(600, 5, labels=True, chat=1.0).assign(
        perturbation="chat", file_name=REFERENCE["file_name"]
    )
    both = pd.concat([REFERENCE, perturbed], ignore_index=True)
    log = draw(500, 1)
    assert monitor(log, both) == monitor(log, REFERENCE)


def test_a_photo_that_was_judged_twice_counts_once() -> None:
    log = draw(100, 1)
    twice = monitor(
        pd.concat([log, log, log.assign(score=np.nan).head(3)], ignore_index=True), REFERENCE
    )
    assert (twice.photos, twice.repeated, twice.unscored) == (100, 100, 3)
    assert twice.shifts == monitor(log, REFERENCE).shifts
    assert "(left out: 3 without a score, 100 seen before)" in report_text(twice)


def test_photos_of_one_product_are_one_witness() -> None:
    """100 products, 12 photos of each that are alike; the same products' photos are no draw of 1,200."""

    def products(seed: int) -> pd.DataFrame:
        table = draw(100, seed, labels=True)
        copies = [
            table.assign(file_name=table["file_name"] + f"/{i}", group=table["file_name"])
            for i in range(12)
        ]
        return pd.concat(copies, ignore_index=True)

    found = [monitor(draw(600, 100 + i), products(i), least_effect=1e-9) for i in range(12)]
    assert sum(report.alarm for report in found) <= 1
    assert (
        sum(
            monitor(draw(600, 100 + i), products(i).assign(group=""), least_effect=1e-9).alarm
            for i in range(12)
        )
        > 4
    )


def test_too_few_photos_say_how_many_it_takes() -> None:
    with pytest.raises(
        RealDamageError, match="The log has 49 scored photos; at least 50 are needed"
    ):
        monitor(draw(49, 1), REFERENCE)
    with pytest.raises(RealDamageError, match="The reference has 20 scored photos"):
        monitor(draw(100, 1), REFERENCE.head(20))
    one_class = pd.concat(
        [
            REFERENCE[REFERENCE["label"] == "synthetic"],
            REFERENCE[REFERENCE["label"] == "real"].head(14),
        ]
    )
    with pytest.raises(
        RealDamageError, match=r"The reference has 14 real and 2\d\d synthetic photos; at least 25"
    ):
        monitor(draw(100, 1), one_class)
    few = monitor(draw(80, 1), REFERENCE)
    assert few.needed is not None
    assert few.visible > 0.2
    assert f"too few photos to see one of 0.10: that takes {few.needed} in the log" in report_text(
        few
    )
    enough = monitor(draw(few.needed, 1), REFERENCE)
    assert enough.visible == pytest.approx(0.1, abs=1e-3)
    assert "too few" not in report_text(enough)
    small = monitor(draw(500, 1), REFERENCE.head(100))
    assert small.needed is None
    assert "that takes more calibration photos" in report_text(small)


def test_the_photos_needed_are_those_that_make_the_shift_visible() -> None:
    n = photos_needed(0.1, 800, 9, 0.05)
    assert n is not None
    assert visible_shift(n, 800, 9, 0.05) <= 0.1 < visible_shift(n - 1, 800, 9, 0.05)


def test_an_uncalibrated_side_leaves_outcomes_out() -> None:
    before = REFERENCE.assign(outcome="review", reasons="not_calibrated")
    report = monitor(draw(300, 1), before)
    assert not report.alarm
    assert report.skipped == (
        "outcomes and reasons (the reference judged before the model was calibrated)",
    )
    assert {shift.test for shift in report.shifts} == {"ks"}


def test_columns_of_older_versions_are_left_out_and_named() -> None:
    report = monitor(
        draw(300, 1), REFERENCE.assign(sharpness=np.nan, compression=np.nan, fine_detail=np.nan)
    )
    assert [reason.split(" (")[0] for reason in report.skipped] == [
        "sharpness",
        "compression",
        "fine detail",
    ]
    assert "sharpness" not in {shift.name for shift in report.shifts}


def test_a_new_reason_is_a_shift() -> None:
    log = draw(300, 1)
    log.loc[:59, ["reasons", "outcome"]] = ["too_blurred", "review"]
    assert alarms(monitor(log, REFERENCE)) == {"reason too_blurred"}


def test_the_distance_is_scipys_where_no_mixture_is_asked_for() -> None:
    one, other = draw(200, 1), draw(300, 2)
    shift = Reference(other).number("score", one["score"], "score")
    expected = ks_2samp(one["score"], other["score"], method="asymp")
    assert shift.effect == pytest.approx(expected.statistic)
    assert shift.p == pytest.approx(expected.pvalue, rel=0.5)
    assert Reference(one).number("score", one["score"], "score")[2:5] == (
        0.0,
        pytest.approx(0),
        1.0,
    )


def test_the_stability_index_by_hand() -> None:
    here = pd.Series(["a"] * 60 + ["b"] * 40)
    before = REFERENCE.head(100).assign(label="", outcome=["a"] * 40 + ["b"] * 60)
    shift = Reference(before).shares("outcome", here, lambda table: table["outcome"])
    one, other = 60.5 / 101, 40.5 / 101
    assert shift.psi == pytest.approx(2 * (one - other) * np.log(one / other))
    assert shift.effect == pytest.approx(0.2)
    assert (shift.here, shift.before) == ("a 60.0%", "a 40.0%")


def test_holm_by_hand() -> None:
    assert holm(np.array([0.04, 0.01, 0.03])) == pytest.approx([0.06, 0.03, 0.06])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"graph_sha256": "cd" * 32},
            "Not one network made all of this: the log cdcdcdcdcdcd…, the reference abab",
        ),
        ({"score": np.nan}, "The log has 0 scored photos"),
    ],
)
def test_logs_that_cannot_be_compared_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(RealDamageError, match=message):
        monitor(draw(100, 1).assign(**change), REFERENCE)


def test_a_log_of_two_networks_is_refused() -> None:
    log = draw(100, 1)
    log.loc[50:, "graph_sha256"] = "cd" * 32
    with pytest.raises(RealDamageError, match="the log holds verdicts of 2 networks"):
        monitor(log, REFERENCE)


@pytest.mark.parametrize("options", [{"prior": 1.5}, {"level": 0.0}, {"least_effect": 1.0}])
def test_numbers_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(
        UsageError, match=f"{next(iter(options))}={next(iter(options.values()))} must be"
    ):
        monitor(draw(100, 1), REFERENCE, **options)


@pytest.fixture
def files(tmp_path: Path, model_file: Path) -> dict[str, Path]:
    """A calibrated model with a promise, its reference, and two logs."""
    data, metadata, graph = read_model_file(model_file)
    bound = Bound(share=0.05, photos=100, drawn_from=100, errors=0, allowed=1, upper=0.05)
    guarantee = Guarantee(
        0.05, bound, None, "policy", 0, "ef" * 32, statement="At most 5% are accused."
    )
    policy = Policy(1.5, 0.5, 0.05, 0.05, "damaged", {"real": 300}, guarantee=guarantee)
    calibration = Calibration(slope=1.0, intercept=0.0, prior=0.5)
    write_model_file(model_file, data, replace(metadata, calibration=calibration, policy=policy))
    found = {"model": model_file, "reference": tmp_path / "reference.csv"}
    write_predictions(found["reference"], REFERENCE.assign(graph_sha256=graph))
    for name, chat in (("same", 0.0), ("chat", 0.6)):
        found[name] = tmp_path / f"{name}.csv"
        draw(300, 1, synthetic=0.05, chat=chat).assign(graph_sha256=graph).to_csv(
            found[name], index=False
        )
    return found


def test_the_command_tells_whether_the_promise_still_stands(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--reference", str(files["reference"]), "--model", str(files["model"])]
    assert main(["monitor", str(files["same"]), *options]) == 0
    assert "the promise stands as far as this can tell" in capsys.readouterr().out
    report = tmp_path / "out" / "report.json"
    assert main(["monitor", str(files["chat"]), *options, "--json", str(report)]) == 1
    out = capsys.readouterr().out
    assert "The model's promise no longer applies to them: At most 5% are accused." in out
    values = json.loads(report.read_text())
    assert values["alarm"] is True
    assert values["shifts"][0]["alarm"] is True
    assert values["promise"] == "At most 5% are accused."
    assert main(["monitor", str(files["chat"]), *options[:2]]) == 1
    assert "and any promise, no longer apply to them" in capsys.readouterr().out


def test_what_predict_writes_can_be_monitored(
    model_file: Path, tmp_path: Path, photo_factory: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """CSV and JSON lines alike."""
    from PIL import Image

    assert callable(photo_factory)
    (tmp_path / "photos").mkdir()
    for i in range(60):
        Image.fromarray(photo_factory(64, 80, i)).save(tmp_path / "photos" / f"{i}.png")
    (tmp_path / "photos" / "broken.jpg").touch()
    logs = [tmp_path / "log.csv", tmp_path / "log.jsonl"]
    for path in logs:
        assert (
            main(
                [
                    "predict",
                    str(tmp_path / "photos"),
                    "--model",
                    str(model_file),
                    "--output",
                    str(path),
                ]
            )
            == 1
        )
    one, other = (read_log(path) for path in logs)
    pd.testing.assert_frame_equal(one, other, check_dtype=False, rtol=1e-6)
    judged = one[one["reasons"] != "unreadable"]
    assert len(judged) == len(one) - 1 == 60
    assert judged[[*MEASURED_COLUMNS, "width"]].notna().all(axis=None)
    capsys.readouterr()
    assert main(["monitor", str(logs[1]), "--reference", str(logs[0])]) == 0
    out = capsys.readouterr().out
    assert "60 photos against 60 of the calibration (left out: 1 without a score)" in out
    assert "not compared: outcomes and reasons" in out


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("log.txt", "", "a log ends in .csv, .parquet, .jsonl, .ndjson; found '.txt'"),
        ("log.csv", "", "is empty"),
        ("log.csv", "score,outcome,graph_sha256\n", "holds no verdict"),
        ("log.jsonl", "\n\n", "holds no verdict"),
        ("log.csv", "a,b\n1,2\n", r"no column score, outcome, graph_sha256 \(found: a, b\)"),
        (
            "log.csv",
            "score,outcome,graph_sha256\n1,real,ab\nhigh,real,ab\n",
            "row 3, column score: found 'high'",
        ),
        (
            "log.csv",
            "score,outcome,graph_sha256\ninf,real,ab\n",
            "row 2, column score: found 'inf', not a finite",
        ),
        ("log.jsonl", "{\n", "line 1: not a verdict in JSON"),
        ("log.jsonl", "[1]\n", "line 1: not a verdict in JSON"),
        ("log.jsonl", '{"score": 1}\n', "line 1: not a verdict in JSON"),
        ("log.parquet", "no", "not a readable table"),
    ],
)
def test_files_that_are_no_log_are_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RealDamageError, match=message):
        read_log(tmp_path / name)


def test_a_missing_log_and_a_wrong_reference_are_named(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["monitor", "nowhere.csv", "--reference", str(files["reference"])]) == 2
    assert "nowhere.csv: cannot be read (No such file or directory)" in capsys.readouterr().err
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert main(["monitor", str(files["same"]), "--reference", str(tmp_path / "other.csv")]) == 3
    assert "not a predictions file" in capsys.readouterr().err
