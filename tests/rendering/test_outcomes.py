"""The table of what happens to 1,000 photos counts every photo once, by what is known of the
generators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import beta

from realdamage.data.vocabulary import CODECS
from realdamage.rendering import words
from realdamage.rendering.outcomes import (
    COLUMNS,
    GeneratorCount,
    generator_counts,
    outcome_cells,
    outcomes,
)

RECIPES = Path(__file__).resolve().parents[2] / "configs" / "recipe"
FAMILIES = {"A": "f", "B": "f", "C": "g", "D": "h", "": ""}
TRAINED: Mapping[str, Any] = {"generators": ["A", "D"]}


@pytest.fixture(scope="module")
def photos(predictions: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    """40 really damaged and 60 other real photos; 30 fakes by A, 50 by B, 10 by a codec, 10 pasted.

    Called synthetic are one damaged photo, five other real ones, and half of A's and a tenth of B's
    fakes; called real is a fifth of B's; the rest goes to review.
    """
    counts = {"damaged": 40, "original": 60, "A": 30, "B": 50, "taesd": 10, "paint": 10}
    called = {"damaged": (0, 1), "original": (0, 5), "A": (0, 15), "B": (10, 5)}
    name = np.repeat(list(counts), list(counts.values()))
    real = np.isin(name, ("damaged", "original"))
    outcome = np.full(len(name), "review", dtype=object)
    for each, (passed, accused) in called.items():
        [rows] = np.nonzero(name == each)
        outcome[rows[:passed]], outcome[rows[passed : passed + accused]] = "real", "synthetic"
    return predictions(
        label=np.where(real, "real", "synthetic"),
        kind=np.where(real, name, np.where(name == "paint", "pasted", "ai_region")),
        generator=np.where(real, "", name),
        family=np.where(name == "taesd", "taesd", ""),
        outcome=outcome,
        score=0.0,
        reasons=np.where(outcome == "review", "between_thresholds", ""),
    )


def test_fakes_are_counted_by_what_the_model_was_trained_on(photos: pd.DataFrame) -> None:
    found = outcomes(photos, generator_counts(photos, TRAINED, FAMILIES))
    counts = [(row["n"], row["real"], row["review"], row["synthetic"]) for row in found.rows]
    assert counts == [
        (40, 0, 39, 1),
        (60, 0, 55, 5),
        (30, 0, 15, 15),
        (50, 10, 35, 5),
        (10, 0, 10, 0),
        (10, 0, 10, 0),
    ]
    assert sum(row["n"] for row in found.rows) == len(photos)
    low, high = beta.ppf(0.025, 6, 95), beta.ppf(0.975, 7, 94)
    first, second, third = found.sentences
    assert "25 in 100 are found at the shipped thresholds (20 of 80)" in first
    assert "10 in 100 (5 of 50)" in first
    assert "60 in 1,000 are accused (6 of 100 real photos; " in second
    assert f"{1000 * low:.0f} to {1000 * high:.0f} at 95%" in second
    assert "25 in 1,000 (1 of 40)" in second
    assert third.startswith("82 in 100 photos")
    assert "94 in 100 real ones, and 62 in 100 fakes" in third


def test_without_knowledge_of_the_training_fakes_are_counted_by_kind(photos: pd.DataFrame) -> None:
    found = outcomes(photos, generator_counts(photos, {}, {}))
    assert [row["n"] for row in found.rows] == [40, 60, 90, 10]
    assert "22 in 100 are found at the shipped thresholds (20 of 90)" in found.sentences[0]
    assert "never seen" not in found.sentences[0]


def test_few_photos_have_no_rate_and_missing_ones_a_row(photos: pd.DataFrame) -> None:
    few = photos[(photos["kind"] != "damaged") & (photos["generator"] != "B")]
    found = outcomes(few, generator_counts(few, TRAINED, FAMILIES))
    cells = outcome_cells(found.rows)
    assert all(len(row) == len(COLUMNS) for row in cells)
    assert cells[0][1:] == ("0", "– (0)", "– (0)", "– (0)")
    assert cells[2][1:] == ("30", "0 (0)", "500 (15)", "500 (15)")
    assert cells[-1][1:] == ("10", "– (0)", "– (10)", "– (0)")
    real = outcomes(photos[photos["label"] == "real"], ())
    assert real.sentences[0].startswith("This test has no fake")


def test_generators_are_sorted_by_a_rule_and_by_what_the_model_was_trained_on(
    predictions: Callable[..., pd.DataFrame],
) -> None:
    table = predictions(
        label=["synthetic"] * 6,
        kind=["ai_whole", "ai_whole", "ai_region", "ai_region", "pasted", "ai_whole"],
        generator=["A", "B", "C", "house_nearest", "paint", ""],
        family=["f", "f", "g", "", "", ""],
    )

    def counted(trained: Mapping[str, Any], families: dict[str, str]) -> dict[str, GeneratorCount]:
        return {row.name: row for row in generator_counts(table, trained, families)}

    counts = counted(TRAINED, FAMILIES)
    assert {name: row.sort for name, row in counts.items()} == {
        **dict.fromkeys("ABC", "deployed"),
        "house_nearest": "codec",
        "paint": "control",
        "(not named)": "not named",
    }
    known = {name: (counts[name].trained_on, counts[name].family_trained_on) for name in "ABC"}
    assert known == {"A": (True, True), "B": (False, True), "C": (False, False)}
    lines = words.lines("generators.txt.j2", generators=list(counts.values()))
    assert lines[1].startswith("2 of them by 2 generators")
    # The family of D, which it was trained on, is not known: C may be of the same.
    assert counted(TRAINED, {"A": "f"})["C"].family_trained_on is None
    left_out = {**TRAINED} | {"excluded": {"family": ["g"]}}
    assert counted(left_out, {"A": "f"})["C"].family_trained_on is False
    assert generator_counts(table, {}, {})[0].trained_on is None


def test_the_codecs_of_the_rule_are_those_of_the_recipes() -> None:
    for name in ("codecs", "reference"):
        recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["recipe"]["generators"]
        for generator, values in recipe.items():
            if values.get("engine", "codec") == "codec" and "family" in values:
                assert generator in CODECS[values["family"]]
