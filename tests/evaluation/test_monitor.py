"""The shift alarm is silent while photos are drawn like the calibration photos, and only then."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from realdamage.commands.cli import main
from realdamage.core.model_file import read_model_file
from realdamage.core.policy import Bound, Guarantee, Policy
from realdamage.errors import RealDamageError
from realdamage.evaluation.monitor import Reference, monitor
from realdamage.evaluation.predictions import predictions_table, write_predictions

GRAPH = "ab" * 32


def draw(n, seed, *, synthetic=0.5, labels=False, chat=0.0):
    """`n` photos judged by a fair model; a share `chat` came through a chat app: smaller,
    recompressed, less sharp, and the score a little lower."""
    rng = np.random.default_rng(seed)
    fake, sent = rng.random(n) < synthetic, rng.random(n) < chat
    score = rng.normal(np.where(fake, 1.0, -1.0), 1.0) - 0.3 * sent
    short = np.where(sent, 0.5, 1.0) * rng.choice([1500, 2000, 3000], n)
    columns = {
        "file_name": [f"{seed}-{i}.jpg" for i in range(n)],
        "label": np.where(fake, "synthetic", "real") if labels else "",
        "score": score,
        "width": short * 1.5,
        "height": short,
        "compression": np.where(sent, 60, rng.choice([85, 90, 95, 100], n)),
        "hot_share": np.clip(rng.beta(1, 9, n) + 0.2 * fake, 0, 1),
        "fine_detail": rng.lognormal(-2.4, 0.5, n),
        "photo_sha256": [f"{seed}-{i}" for i in range(n)],
    }
    return pd.DataFrame({**columns, "graph_sha256": GRAPH, "group": "", "perturbation": ""})


REFERENCE = draw(600, seed=0, labels=True)


def alarms(report):
    return {shift.name for shift in report.shifts if shift.alarm}


def test_without_a_shift_at_most_one_draw_in_twenty_alarms():
    """A log with 2% synthetic photos is no shift either."""
    found = [
        monitor(draw(100, 2 * i + 2, synthetic=0.02), draw(100, 2 * i + 1, labels=True))
        for i in range(20)
    ]
    assert sum(report.alarm for report in found) <= 1  # 5% of 20


def test_chat_app_photos_are_a_shift():
    found = monitor(draw(300, 1, synthetic=0.02, chat=0.5), REFERENCE)
    assert {"compression", "shorter side", "longer side"} <= alarms(found)


def test_a_huge_log_does_not_alarm_over_a_trifle():
    report = monitor(draw(10_000, 1, chat=0.05), draw(10_000, 2, labels=True))
    assert not report.alarm
    assert min(shift.p_adjusted for shift in report.shifts) < 1e-6
    assert max(shift.effect for shift in report.shifts) < 0.1


def test_the_share_of_synthetic_photos_is_estimated():
    found = monitor(draw(2000, 1, synthetic=0.1), REFERENCE)
    assert found.prior == pytest.approx(0.1, abs=0.09)
    assert not found.alarm
    real = REFERENCE[REFERENCE["label"] == "real"]
    assert "score" in alarms(monitor(draw(1000, 3), real))  # no mixture of one class looks like it


def test_a_photo_that_was_judged_twice_counts_once():
    log = draw(100, 1)
    twice = monitor(
        pd.concat([log, log, log.assign(score=np.nan).head(3)], ignore_index=True), REFERENCE
    )
    assert (twice.photos, twice.repeated, twice.unscored) == (100, 100, 3)
    assert twice.shifts == monitor(log, REFERENCE).shifts


def test_too_few_photos_are_refused_and_few_see_only_large_shifts():
    real = REFERENCE[REFERENCE["label"] == "real"].head(14)
    one_class = pd.concat([REFERENCE[REFERENCE["label"] == "synthetic"], real])
    for log, reference, count in (
        (draw(49, 1), REFERENCE, "49"),
        (draw(100, 1), REFERENCE.head(20), "20"),
        (draw(100, 1), one_class, "14 real"),
    ):
        with pytest.raises(RealDamageError, match=count) as error:
            monitor(log, reference)
        assert error.value.code == "too_few_photos"
    assert monitor(draw(60, 1), REFERENCE).visible > 0.2


def test_the_distance_is_scipys_where_no_mixture_is_asked_for():
    one, other = draw(200, 1), draw(300, 2)
    shift = Reference(other).number("score", one["score"])
    expected = ks_2samp(one["score"], other["score"], method="asymp")
    assert shift.effect == pytest.approx(expected.statistic)
    assert shift.p == pytest.approx(expected.pvalue, rel=0.5)
    same = Reference(one).number("score", one["score"])
    assert (same.effect, same.p) == (0.0, 1.0)


def test_a_second_network_is_refused(model_file):
    log = draw(100, 1)
    for other, model in (
        (log.assign(graph_sha256=[GRAPH] * 50 + ["cd" * 32] * 50), None),
        (log, model_file),
    ):
        with pytest.raises(RealDamageError) as error:
            monitor(other, REFERENCE, model)
        assert error.value.code == "other_network"


def test_the_command_carries_the_model_s_guarantee(save_red_model, tmp_path):
    bound = Bound(share=0.05, photos=100, drawn_from=100, errors=0, allowed=1, upper=0.05)
    guarantee = Guarantee(0.05, bound, None, "policy", 0, "ef" * 32, statement="At most 5%.")
    policy = Policy(1.5, 0.5, 0.05, 0.05, "damaged", {"real": 300}, guarantee=guarantee)
    model = save_red_model(tmp_path / "red.onnx", policy=policy)
    graph = read_model_file(model)[2]
    log, reference, report = (tmp_path / name for name in ("log.csv", "ref.csv", "report.json"))
    shifted = draw(300, 1, synthetic=0.05, chat=0.6)
    for path, photos in ((log, shifted), (reference, REFERENCE)):
        write_predictions(path, predictions_table(photos.assign(graph_sha256=graph)))
    options = ["--reference", str(reference), "--model", str(model), "--json", str(report)]
    assert main(["monitor", str(log), *options]) == 1
    values = json.loads(report.read_text())
    assert (values["alarm"], values["shifts"][0]["alarm"]) == (True, True)
    assert values["guarantee"] == "At most 5%."
