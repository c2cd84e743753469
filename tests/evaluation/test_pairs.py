"""An edit is compared with its own original, under the same perturbation, and with nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from realdamage.evaluation.pairs import pair_differences, pair_figures
from realdamage.evaluation.predictions import FURTHER_COLUMNS, PREDICTION_COLUMNS


def table_of(rows: list[tuple[str, str, str, str, float]]) -> pd.DataFrame:
    """(file_name, label, pair, perturbation, score)"""
    names = ["file_name", "label", "pair", "perturbation", "score"]
    empty = dict.fromkeys((*PREDICTION_COLUMNS, *FURTHER_COLUMNS), "")
    return pd.DataFrame([{**empty, **dict(zip(names, row, strict=True))} for row in rows])


PHOTOS = table_of(
    [
        ("a.jpg", "real", "", "", 0.0),
        ("a_edit.jpg", "synthetic", "a.jpg", "", 2.0),
        ("a_drawn.jpg", "real", "a.jpg", "", 9.0),  # an honest overlay, no edit
        ("b.jpg", "real", "", "", 1.0),
        ("b_edit.jpg", "synthetic", "b.jpg", "", 1.0),
        ("c_edit.jpg", "synthetic", "lost.jpg", "", 5.0),
        ("d_edit.jpg", "synthetic", "", "", 5.0),
        ("e.jpg", "real", "", "", np.nan),
        ("e_edit.jpg", "synthetic", "e.jpg", "", 5.0),
        ("a.jpg", "real", "", "blur", 3.0),
        ("a_edit.jpg", "synthetic", "a.jpg", "blur", 2.5),
    ]
)


def test_each_edit_meets_its_original_under_the_same_perturbation() -> None:
    pairs = pair_differences(PHOTOS)
    assert pairs[["file_name", "pair", "perturbation", "difference"]].to_numpy().tolist() == [
        ["a_edit.jpg", "a.jpg", "", 2.0],
        ["b_edit.jpg", "b.jpg", "", 0.0],
        ["a_edit.jpg", "a.jpg", "blur", -0.5],
    ]


def test_a_tie_counts_half() -> None:
    found = pair_figures(PHOTOS[PHOTOS["perturbation"] == ""], n_boot=20)
    assert (found["n"], found["edit_higher"], found["median_difference"], found["reason"]) == (
        2,
        0.75,
        1.0,
        None,
    )


def test_without_pairs_there_is_a_reason() -> None:
    for table in (
        PHOTOS.assign(pair=""),
        PHOTOS.drop(columns="pair"),
        PHOTOS[PHOTOS["label"] == "real"],
    ):
        found = pair_figures(table, n_boot=20)
        assert (found["n"], found["edit_higher"], found["low"], found["median_difference"]) == (
            0,
            None,
            None,
            None,
        )
        assert "column pair" in found["reason"]


def many(n: int, groups: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    effect = np.repeat(rng.normal(0.5, 1, groups), n // groups)
    rows = [(f"{i}.jpg", "real", "", "", 0.0) for i in range(n)]
    rows += [
        (f"{i}_edit.jpg", "synthetic", f"{i}.jpg", "", value) for i, value in enumerate(effect)
    ]
    group = [f"g{i // (n // groups)}" for i in range(n)]
    return table_of(rows).assign(group=group * 2)


def test_the_interval_knows_that_edits_of_one_product_are_alike() -> None:
    independent, alike = (pair_figures(many(400, groups), n_boot=200) for groups in (400, 20))
    for found in (independent, alike):
        assert found["low"] < found["edit_higher"] < found["high"]
    p = independent["edit_higher"]
    assert independent["high"] - independent["low"] == pytest.approx(
        2 * 1.96 * np.sqrt(p * (1 - p) / 400), rel=0.2
    )
    assert alike["high"] - alike["low"] > 3 * (independent["high"] - independent["low"])
