"""A manifest is scored photo by photo through the wrapper, and the predictions survive the file."""

import csv
import io
from typing import TypeVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realdamage.core.detector import Detector
from realdamage.errors import RealDamageError
from realdamage.evaluation.predictions import (
    FURTHER_COLUMNS,
    PREDICTION_COLUMNS,
    clean,
    read_log,
    read_predictions,
    score_manifest,
    write_predictions,
)
from realdamage.files import FORMULA, csv_line, unescape_cell

T = TypeVar("T")

REAL = {"label": "real", "kind": "damaged", "damage": "torn", "group": "shoe", "red": 40}
EDIT = {"label": "synthetic", "kind": "ai_region", "generator": "g1", "red": 250}
WHOLE = {"label": "synthetic", "kind": "ai_whole", "generator": "g2", "red": 200}
ROWS = [
    {"file_name": "a.png", **REAL},
    {"file_name": "b.png", "mask_file_name": "b_m.png", "pair": "a.png", **EDIT},
    {"file_name": "c.png", "mask_file_name": "c_m.png", **WHOLE},
]


def test_a_manifest_is_scored_in_its_order(model_file, write_photos):
    seen = []

    def watch(steps, total, description):
        for step in steps:
            yield step
            seen.append((total, description))

    detector = Detector.load(model_file)
    manifest = write_photos(ROWS)
    predictions, localisation = score_manifest(detector, manifest, progress=watch)
    assert tuple(predictions.columns) == (*PREDICTION_COLUMNS, *FURTHER_COLUMNS)
    assert predictions["file_name"].tolist() == ["a.png", "b.png", "c.png"]
    assert predictions["group"].tolist() == ["shoe", "shoe", "c.png"]
    assert predictions["generator"].tolist() == ["", "g1", "g2"]
    assert predictions["score"][0] == pytest.approx((40 - 128) / 16)
    assert predictions["reasons"].str.contains("not_calibrated").all()
    assert predictions["mask_area"].tolist() == [0.0, 0.5, 0.5]
    assert predictions[["width", "height"]].to_numpy().tolist() == [[80, 64]] * 3
    assert predictions["graph_sha256"].unique().tolist() == [detector.graph_sha256]
    assert seen == [(3, "photos")] * 3
    # c.png is kind ai_whole: every pixel is synthetic, whatever its mask says.
    assert [photo.file_name for photo in localisation] == ["b.png"]


ODD_NAMES = ["=cmd.png", "-1.png", "＝x.png", "'=q.png", "'plain.png", "a\nb.png", 'a"b,c.png']


@pytest.fixture
def table(predictions_of):
    """Photos with odd names, the last of them unreadable."""
    score = [*np.linspace(-2, 3, len(ODD_NAMES) - 1), np.nan]
    return predictions_of(file_name=ODD_NAMES, label="real", source="-5", score=score)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_predictions_survive_a_file(table, tmp_path, ending):
    path = tmp_path / f"p.{ending}"
    write_predictions(path, table)
    pd.testing.assert_frame_equal(read_predictions(path), table)
    assert read_log(path)["file_name"].tolist() == ODD_NAMES
    if ending == "csv":
        with path.open(newline="", encoding="utf-8") as file:
            cells = next(csv.DictReader(file))
        assert (cells["file_name"], cells["source"]) == ("'=cmd.png", "'-5")
        assert cells["score"] == "-2.0"  # a number as it is, without an apostrophe


@settings(max_examples=40)
@given(st.lists(st.text(), min_size=2, max_size=4), st.floats(allow_nan=False))
def test_a_csv_record_is_read_back_and_no_text_in_it_is_a_formula(texts, number):
    (cells,) = csv.reader(io.StringIO(csv_line([*texts, number]), newline=""), strict=True)
    assert [unescape_cell(cell) for cell in cells[:-1]] == texts
    assert not [cell for cell in cells[:-1] if cell.startswith(FORMULA)]
    assert float(cells[-1]) == number  # a negative one too


@pytest.mark.parametrize(
    ("read", "name", "text", "code"),
    [
        (read_predictions, "other.csv", "file_name,score\na.jpg,1\n", "missing_columns"),
        (read_predictions, "p.xlsx", "", "unknown_format"),
        (read_predictions, "p.parquet", "no", "unreadable_table"),
        (read_predictions, "nowhere.csv", None, "missing_file"),
        (read_log, "log.csv", "a,b\n1,2\n", "no_log"),
        (read_log, "log.csv", "score,graph_sha256\n1,ab\nhigh,ab\n", "wrong_value"),
    ],
)
def test_another_file_is_refused(tmp_path, read, name, text, code):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(RealDamageError, match=name) as error:
        read(tmp_path / name)
    assert error.value.code == code


@pytest.mark.parametrize(("column", "value"), [("label", "fake"), ("score", np.inf)])
def test_a_wrong_value_in_the_file_is_named(table, tmp_path, column, value):
    table = table.astype({column: object})
    table.loc[1, column] = value
    table.to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(RealDamageError, match=rf"row 3, column {column}: .*{value}") as error:
        read_predictions(tmp_path / "p.csv")
    assert error.value.code == "wrong_value"


def test_a_photo_may_be_there_once_for_each_perturbation(table, tmp_path):
    both = pd.concat([table, table.assign(perturbation="jpeg_70")], ignore_index=True)
    write_predictions(tmp_path / "both.csv", both)
    assert clean(read_predictions(tmp_path / "both.csv"))["file_name"].tolist() == ODD_NAMES
    with pytest.raises(RealDamageError, match=r"=cmd\.png") as error:
        write_predictions(tmp_path / "twice.csv", pd.concat([table, table]))
    assert error.value.code == "repeated_photo"
