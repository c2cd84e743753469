"""A verdict travels as JSON and comes back the same."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from realdamage.core.quality import PhotoQuality
from realdamage.core.verdict import MEASURED_COLUMNS, PREDICTION_COLUMNS, Reason, Region, Verdict
from realdamage.errors import RealDamageError

VERDICT = Verdict(
    outcome="review",
    score=-0.123456789,
    probability=0.25,
    heatmap=np.random.default_rng(0).random((5, 9), dtype=np.float32),
    cell=16.5,
    regions=(Region((0, 16, 48, 64), 0.75), Region((100, 0, 116, 16), 0.5)),
    reasons=(Reason("demo_model", "Nur ein Beispiel – nicht verläßlich."),),
    photo_sha256="ab" * 32,
    graph_sha256="cd" * 32,
    model_version="1.2",
    width=140,
    height=75,
    hot_share=0.5,
)


def same_but_heatmap(one: Verdict, other: Verdict) -> bool:
    return all(
        getattr(one, f.name) == getattr(other, f.name)
        for f in fields(Verdict)
        if f.name != "heatmap"
    )


def test_json_round_trip() -> None:
    again = Verdict.from_json(VERDICT.to_json())
    assert same_but_heatmap(again, VERDICT)
    assert again.heatmap is not None
    assert again.heatmap.dtype == np.float32
    assert np.abs(again.heatmap - VERDICT.heatmap).max() <= 1 / 510 + 1e-6
    assert Verdict.from_json(again.to_json()).to_json() == again.to_json()


def test_json_without_the_heat_map_is_one_short_line() -> None:
    text = VERDICT.to_json(heatmap=False)
    again = Verdict.from_json(text)
    assert "\n" not in text
    assert json.loads(text)["heatmap"] is None
    assert again.heatmap is None
    assert same_but_heatmap(again, VERDICT)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"outcome": "real"}', VERDICT.to_json()[:-20]])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(RealDamageError, match="not a verdict in JSON"):
        Verdict.from_json(text)


def test_a_row_has_the_columns_of_a_predictions_file() -> None:
    row = replace(VERDICT, probability=None, reasons=VERDICT.reasons * 2).to_row(
        "a/b.jpg", ms=12.345
    )
    assert tuple(row) == (*PREDICTION_COLUMNS, *MEASURED_COLUMNS)
    assert row["file_name"] == "a/b.jpg"
    assert row["reasons"] == "demo_model demo_model"
    assert (row["probability"], row["label"]) == ("", "")
    assert (row["score"], row["ms"], row["width"], row["height"]) == (VERDICT.score, 12.3, 140, 75)


def test_quality_travels_and_the_json_of_older_versions_still_reads() -> None:
    full = replace(VERDICT, quality=PhotoQuality(75, 0.25, 62.0, 0.0625), hot_share=0.125)
    again = Verdict.from_json(full.to_json())
    assert same_but_heatmap(again, full)
    row = full.to_row("a.jpg", ms=1)
    assert [row[column] for column in MEASURED_COLUMNS] == [0.125, 0.25, 62.0, 0.0625]
    older = {
        key: value
        for key, value in json.loads(full.to_json()).items()
        if key not in ("quality", "hot_share")
    }
    read = Verdict.from_json(json.dumps(older))
    assert read.quality is None
    assert np.isnan(read.hot_share)
    assert [read.to_row("a.jpg", ms=1)[column] for column in MEASURED_COLUMNS] == [""] * 4
    assert "NaN" not in read.to_json()
    values = json.loads(full.to_json())
    del values["quality"]["fine_detail"]
    read = Verdict.from_json(json.dumps(values))
    assert read.quality == PhotoQuality(75, 0.25, 62.0, None)
    assert read.to_row("a.jpg", ms=1)["fine_detail"] == ""
    assert Verdict.from_json(read.to_json()).quality == read.quality
