"""Where the truth is known, the guarantee holds as often as it says, and its look-alikes do not."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from realdamage.errors import UsageError


def test_the_guarantee_holds_as_often_as_it_says(guarantee_simulation: ModuleType) -> None:
    independent, stepped, grouped = (
        pd.DataFrame(
            guarantee_simulation.simulate(population, 93, 0.05, 0.05, repetitions=3000, seed=1)
        ).set_index("method")
        for population in guarantee_simulation.POPULATIONS
    )
    shipped, empirical = "one photo a group", "empirical rate, one photo a group"
    # Three standard errors of 3,000 draws at 0.95.
    for rows in (independent, grouped):
        assert rows.loc[shipped, "verdict"] == "holds"
        theory = independent.loc[shipped, "theory"]
        assert rows.loc[shipped, "held"] == pytest.approx(theory, abs=0.012)
    assert theory >= 0.95
    # The rate on the calibration photos themselves is exceeded by others every second time.
    assert independent.loc[empirical, "verdict"] == "broken"
    assert independent.loc[empirical, "held"] < 0.7
    # Ties only make it safer; photos of one product count once, or the guarantee breaks.
    assert stepped.loc[shipped, "held_low"] > independent.loc[shipped, "held_high"]
    naive = grouped.loc["all photos as if independent"]
    assert (naive["photos"], naive["verdict"]) == (411, "broken")
    assert naive["held_high"] < 0.85


def test_the_populations_are_what_they_say(guarantee_simulation: ModuleType) -> None:
    rng = np.random.default_rng(0)
    *_, grouped = guarantee_simulation.POPULATIONS
    every, one = grouped.draw(16, 4000, rng)
    assert (every.shape, one.shape) == ((4000, 72), (4000, 16))
    # The second group has two photos, the second and the third.
    assert np.corrcoef(every[:, 1], every[:, 2])[0, 1] == pytest.approx(0.9, abs=0.02)
    for population in guarantee_simulation.POPULATIONS:
        scores = population.draw(16, 4000, rng)[0]
        for threshold in (-0.3, 0.5, np.nextafter(1.0, np.inf), 1.7):
            share = float(population.share_above(np.array(threshold)))
            assert (scores >= threshold).mean() == pytest.approx(share, abs=0.012)


def test_the_command_writes_every_row(guarantee_simulation: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "guarantee.csv"
    assert guarantee_simulation.main(["--repetitions", "20", "--csv", str(target)]) == 0
    table = pd.read_csv(target)
    assert tuple(table.columns) == guarantee_simulation.COLUMNS
    assert len(table) == 49
    assert guarantee_simulation.main(["--repetitions", "0"]) == 2
    population = guarantee_simulation.POPULATIONS[0]
    with pytest.raises(UsageError, match="58 groups"):
        list(guarantee_simulation.simulate(population, 58, 0.05, 0.05, repetitions=10))


def test_the_figures_in_the_repository_say_what_the_guarantee_says() -> None:
    table = pd.read_csv(Path(__file__).parents[2] / "data" / "results" / "guarantee.csv")
    assert table["repetitions"].min() >= 2000
    shipped = table["method"] == "one photo a group"
    assert (table[shipped]["verdict"] == "holds").all()
    assert (table[table["method"] == "all photos as if independent"]["verdict"] == "broken").all()
    assert (table[shipped]["held_high"] >= table[shipped]["claimed"]).all()
