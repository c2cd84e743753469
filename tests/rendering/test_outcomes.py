"""The table of what happens to 1,000 photos counts every photo once, by what is known of the
generators."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import beta

from realdamage.data.vocabulary import CODECS
from realdamage.rendering.outcomes import COLUMNS, generator_counts, outcome_cells, outcomes

RECIPES = Path(__file__).resolve().parents[2] / "configs" / "recipe"
TRAINED = {"generators": ["A", "D"]}


@pytest.fixture(scope="module")
def photos(predictions):
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


def test_fakes_are_counted_by_what_the_model_was_trained_on(photos):
    found = outcomes(photos, generator_counts(photos, TRAINED))
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
    assert "(20 of 80)" in found.sentences[0]
    assert "(6 of 100 real photos; " in found.sentences[1]
    low, high = beta.ppf(0.025, 6, 95), beta.ppf(0.975, 7, 94)
    assert f"{1000 * low:.0f} to {1000 * high:.0f} at 95%" in found.sentences[1]
    by_kind = outcomes(photos, generator_counts(photos, {}))
    assert [row["n"] for row in by_kind.rows] == [40, 60, 90, 10]


def test_few_photos_have_no_rate_and_missing_ones_a_row(photos):
    few = photos[(photos["kind"] != "damaged") & (photos["generator"] != "B")]
    found = outcomes(few, generator_counts(few, TRAINED))
    cells = outcome_cells(found.rows)
    assert all(len(row) == len(COLUMNS) for row in cells)
    assert cells[0][1:] == ("0", "– (0)", "– (0)", "– (0)")
    assert cells[2][1:] == ("30", "0 (0)", "500 (15)", "500 (15)")


def test_generators_are_sorted_by_a_rule_and_by_what_the_model_was_trained_on(predictions):
    table = predictions(
        label=["synthetic"] * 6,
        kind=["ai_whole", "ai_whole", "ai_region", "ai_region", "pasted", "ai_whole"],
        generator=["A", "B", "C", "house_nearest", "paint", ""],
        family=["f", "f", "g", "", "", ""],
    )

    counts = {row.name: row for row in generator_counts(table, TRAINED)}
    assert {name: row.sort for name, row in counts.items()} == {
        **dict.fromkeys("ABC", "deployed"),
        "house_nearest": "codec",
        "paint": "control",
        "(not named)": "not named",
    }
    assert [counts[name].trained_on for name in "ABC"] == [True, False, False]
    assert generator_counts(table, {})[0].trained_on is None


def test_the_codecs_of_the_rule_are_those_of_the_recipes():
    for name in ("codecs", "reference"):
        recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["recipe"]["generators"]
        for generator, values in recipe.items():
            if values.get("engine", "codec") == "codec" and "family" in values:
                assert generator in CODECS[values["family"]]
