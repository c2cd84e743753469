"""Where the truth is known, the promise holds as often as it says, and its look-alikes do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from realdamage.errors import UsageError
from realdamage.evaluation.guarantee_simulation import COLUMNS, POPULATIONS, main, run, simulate

INDEPENDENT, IN_STEPS, IN_GROUPS = POPULATIONS


def rows_of(population: object, groups: int, alpha: float, delta: float) -> pd.DataFrame:
    rows = simulate(population, groups, alpha, delta, repetitions=3000, seed=1)  # type: ignore[arg-type]
    return pd.DataFrame(rows).set_index("method")


@pytest.mark.parametrize(
    ("groups", "alpha", "delta"), [(59, 0.05, 0.05), (93, 0.05, 0.05), (60, 0.1, 0.2)]
)
def test_the_promise_holds_as_often_as_it_says(groups: int, alpha: float, delta: float) -> None:
    rows = rows_of(INDEPENDENT, groups, alpha, delta)
    shipped = rows.loc["one photo a group"]
    assert shipped["theory"] >= 1 - delta
    # Three standard errors of 3,000 draws at 0.95.
    assert shipped["held"] == pytest.approx(
        shipped["theory"], abs=0.012 if delta == 0.05 else 0.022
    )
    assert shipped["verdict"] == "holds"
    # The rate on the calibration photos themselves is exceeded by others about every second time.
    empirical = rows.loc["empirical rate, one photo a group"]
    assert empirical["verdict"] == "broken"
    assert empirical["held"] == pytest.approx(empirical["theory"], abs=0.03)
    assert empirical["held"] < 0.7


def test_ties_only_make_it_safer() -> None:
    smooth = rows_of(INDEPENDENT, 93, 0.05, 0.05).loc["one photo a group"]
    stepped = rows_of(IN_STEPS, 93, 0.05, 0.05).loc["one photo a group"]
    assert stepped["held_low"] > smooth["held_high"]
    assert stepped["mean_share"] < smooth["mean_share"]


def test_photos_of_one_product_count_once_or_the_promise_breaks() -> None:
    rows = rows_of(IN_GROUPS, 93, 0.05, 0.05)
    shipped, naive = rows.loc["one photo a group"], rows.loc["all photos as if independent"]
    assert shipped["verdict"] == "holds"
    assert shipped["held"] == pytest.approx(shipped["theory"], abs=0.012)
    assert shipped["bad_share"] == pytest.approx(0.05, abs=0.004)
    assert (naive["photos"], naive["verdict"]) == (411, "broken")
    assert naive["held_high"] < 0.85
    assert naive["bad_share"] > 0.06


def test_the_populations_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    every, one = IN_GROUPS.draw(16, 4000, rng)
    assert (every.shape, one.shape) == ((4000, 72), (4000, 16))
    # The second group has two photos, the second and the third.
    assert np.corrcoef(every[:, 1], every[:, 2])[0, 1] == pytest.approx(0.9, abs=0.02)
    assert np.corrcoef(every[:, 0], every[:, 1])[0, 1] == pytest.approx(0.0, abs=0.06)
    assert (np.isclose(one[:, 1], every[:, 1]) | np.isclose(one[:, 1], every[:, 2])).all()
    for population in POPULATIONS:
        scores = population.draw(16, 4000, rng)[0]
        for threshold in (-0.3, 0.5, np.nextafter(1.0, np.inf), 1.7):
            share = float(population.share_above(np.array(threshold)))
            assert (scores >= threshold).mean() == pytest.approx(share, abs=0.012)
    assert float(INDEPENDENT.share_above(np.array(1.645))) == pytest.approx(norm.sf(1.645))


def test_the_command_writes_every_row_with_commit_and_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--repetitions", "20", "--csv", str(tmp_path / "guarantee.csv")]) == 0
    table = pd.read_csv(tmp_path / "guarantee.csv")
    assert list(table.columns) == list(COLUMNS)
    assert table["date"].str.fullmatch(r"\d{4}-\d\d-\d\d").all()
    assert len(table) == len(run(20)) == 49
    assert "all photos as if independent" in capsys.readouterr().out
    assert main(["--repetitions", "0"]) == 2
    assert "--repetitions 0 must be at least 1" in capsys.readouterr().err


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(UsageError, match=r"58 groups cannot promise alpha=0.05"):
        list(simulate(INDEPENDENT, 58, 0.05, 0.05, repetitions=10))


def test_the_figures_in_the_repository_say_what_the_promise_says() -> None:
    table = pd.read_csv(Path(__file__).parents[2] / "data" / "results" / "guarantee.csv")
    assert table["repetitions"].min() >= 2000
    shipped = table["method"] == "one photo a group"
    assert (table[shipped]["verdict"] == "holds").all()
    assert (table[table["method"] == "all photos as if independent"]["verdict"] == "broken").all()
    assert (table[shipped]["held_high"] >= table[shipped]["claimed"]).all()
