"""What a model calls synthetic, source by source, at the threshold that the sources it knows set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from realdamage.evaluation.false_alarms import OTHERS, called_synthetic, compare, main, threshold_at
from realdamage.evaluation.predictions import PREDICTION_COLUMNS
from realdamage.inference.errors import UsageError


def write(path: Path, rows: list[tuple[str, str, float]]) -> Path:
    """A predictions file of (label, source, score)."""
    table = pd.DataFrame(rows, columns=["label", "source", "score"])
    table["file_name"] = [f"{path.parent.name}_{i}.jpg" for i in range(len(table))]
    path.parent.mkdir(parents=True, exist_ok=True)
    table.reindex(columns=list(PREDICTION_COLUMNS)).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(("fpr", "called"), [(0.05, 5), (0.01, 1), (0.001, 0), (0.5, 50)])
def test_the_threshold_keeps_the_rate_and_no_lower_one_does(fpr: float, called: int) -> None:
    scores = np.random.default_rng(0).permutation(100).astype(float)
    threshold = threshold_at(scores.tolist(), fpr)
    assert (scores >= threshold).sum() == called
    assert (scores >= threshold - 1.5).sum() > called


def test_equal_scores_are_never_called_beyond_the_rate() -> None:
    assert (np.ones(40) >= threshold_at([1.0] * 40, 0.05)).sum() == 0


def test_shares_and_exact_intervals_by_source_and_small_sources_together() -> None:
    rows = [("real", "shop", float(i)) for i in range(40)] + [("real", f"tiny{i}", 100.0) for i in range(3)]
    found = called_synthetic(pd.DataFrame(rows, columns=["label", "source", "score"]), 38.0)
    by_source = found.set_index("source")
    assert by_source.loc["shop", ["n", "called"]].tolist() == [40, 2]
    assert by_source.loc["shop", "low"] == pytest.approx(0.00611, abs=1e-4)  # Clopper–Pearson of 2 of 40
    assert by_source.loc["shop", "high"] == pytest.approx(0.16920, abs=1e-4)
    assert by_source.loc[OTHERS, ["n", "called"]].tolist() == [3, 3]


def test_the_command_compares_models_at_their_own_thresholds(tmp_path: Path, capsys) -> None:
    known = [("real", "shop", float(i)) for i in range(100)]
    a = write(tmp_path / "a" / "predictions.csv", [*known, *[("real", "new", 50.0)] * 30])
    b = write(tmp_path / "b" / "predictions.csv", [*known, *[("real", "new", 99.5)] * 30])
    more = write(tmp_path / "more" / "predictions.csv", [("synthetic", "new", 97.0)] * 25)
    out = tmp_path / "rates.csv"
    command = [f"A={a}", f"B={b}", f"B={more}", "--trained-on", "shop", "--fpr", "0.05", "--csv", str(out)]
    assert main(command) == 0
    table = pd.read_csv(out).set_index(["model", "file", "source"])
    assert table.loc[("A", "a", "shop"), "called"] == table.loc[("B", "b", "shop"), "called"] == 5
    assert table.loc[("A", "a", "new"), "called"] == 0
    assert table.loc[("B", "b", "new"), "called"] == 30
    assert table.loc[("B", "more", "new"), "called"] == 25  # at the threshold of B's first file
    assert "new" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--trained-on", "shopp"], "no real photo of these sources"),
        (["--trained-on", "shop", "--fpr", "2"], "--fpr 2.0: must lie between 0 and 1"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, capsys, change: list[str], message: str) -> None:
    path = write(tmp_path / "a" / "predictions.csv", [("real", "shop", 1.0)])
    assert main([f"A={path}", *change]) == 2
    assert message in capsys.readouterr().err
    assert main([str(path), "--trained-on", "shop"]) == 2
    with pytest.raises(UsageError):
        compare([("A", path)], ["nothing"], 0.05)
