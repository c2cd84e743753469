"""What a model calls synthetic, source by source, at the threshold that the sources it knows set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from realdamage.errors import UsageError
from realdamage.evaluation.false_alarms import (
    OTHERS,
    called_synthetic,
    compare,
    main,
    outcomes_by_source,
    strictest_source,
    threshold_at,
)
from realdamage.evaluation.predictions import PREDICTION_COLUMNS


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
    rows = [("real", "shop", float(i)) for i in range(40)] + [
        ("real", f"tiny{i}", 100.0) for i in range(3)
    ]
    found = called_synthetic(pd.DataFrame(rows, columns=["label", "source", "score"]), 38.0)
    by_source = found.set_index("source")
    assert by_source.loc["shop", ["n", "called"]].tolist() == [40, 2]
    assert by_source.loc["shop", "low"] == pytest.approx(
        0.00611, abs=1e-4
    )  # Clopper–Pearson of 2 of 40
    assert by_source.loc["shop", "high"] == pytest.approx(0.16920, abs=1e-4)
    assert by_source.loc[OTHERS, ["n", "called"]].tolist() == [3, 3]


def real_photos(counts: dict[str, int], lowest: dict[str, float]) -> pd.DataFrame:
    """So many photos of each source, with scores that rise by 1 from its lowest."""
    rows = [(source, lowest.get(source, 0.0) + i) for source, n in counts.items() for i in range(n)]
    return pd.DataFrame(rows, columns=["source", "score"])


def test_the_strictest_source_sets_the_threshold() -> None:
    photos = real_photos({"shop": 100, "phones": 20}, {"phones": 90.0})
    found = strictest_source(photos, 0.05)
    # One of twenty phones may score as high, and five of a hundred of the shop.
    assert found == (np.nextafter(108.0, np.inf), "phones")
    for _, own in photos.groupby("source"):
        assert (own["score"] >= found.threshold).mean() <= 0.05


def test_small_sources_count_as_one_and_have_no_say_when_they_are_too_few_together() -> None:
    shop, tiny = {"shop": 100}, {f"tiny{i}": 5 for i in range(4)}
    high = dict.fromkeys(tiny, 200.0)
    assert strictest_source(real_photos(shop | tiny, high), 0.05) == (
        np.nextafter(204.0, np.inf),
        OTHERS,
    )
    assert strictest_source(real_photos(shop | tiny | {"tiny3": 4}, high), 0.05) == (
        np.nextafter(94.0, np.inf),
        "shop",
    )


@pytest.mark.parametrize("counts", [{"shop": 100}, {"": 100}, {"a": 9, "b": 9}, {}])
def test_one_source_or_too_few_photos_of_any_set_no_threshold(counts: dict[str, int]) -> None:
    assert strictest_source(real_photos(counts, {}), 0.05) is None


def test_the_worst_source_comes_first() -> None:
    photos = real_photos({"calm": 40, "": 25, "phones": 20, "tiny": 3}, {})
    photos["outcome"] = "real"
    photos.loc[photos.groupby("source").head(2).index, "outcome"] = "synthetic"
    photos.loc[photos["source"].eq("tiny"), "outcome"] = "review"
    photos.loc[photos["source"].eq("calm") & photos["score"].ge(30), "outcome"] = "review"
    found = outcomes_by_source(photos)
    assert list(found.itertuples(name=None)) == [
        ("phones", 20, 2, 0),
        ("(not named)", 25, 2, 0),
        ("calm", 40, 2, 10),
        (OTHERS, 3, 0, 3),
    ]
    assert outcomes_by_source(photos[:0]).empty


def test_the_command_compares_models_at_their_own_thresholds(tmp_path: Path, capsys) -> None:
    known = [("real", "shop", float(i)) for i in range(100)]
    a = write(tmp_path / "a" / "predictions.csv", [*known, *[("real", "new", 50.0)] * 30])
    b = write(tmp_path / "b" / "predictions.csv", [*known, *[("real", "new", 99.5)] * 30])
    more = write(tmp_path / "more" / "predictions.csv", [("synthetic", "new", 97.0)] * 25)
    out = tmp_path / "rates.csv"
    command = [
        f"A={a}",
        f"B={b}",
        f"B={more}",
        "--trained-on",
        "shop",
        "--fpr",
        "0.05",
        "--csv",
        str(out),
    ]
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
