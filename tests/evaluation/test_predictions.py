"""A manifest is scored photo by photo through the wrapper, and the predictions survive the file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realdamage.core.detector import Detector
from realdamage.data.manifest import Manifest
from realdamage.errors import RealDamageError, UsageError
from realdamage.evaluation.predictions import (
    FURTHER_COLUMNS,
    PREDICTION_COLUMNS,
    clean,
    predictions_table,
    read_log,
    read_predictions,
    score_manifest,
    unscored_row,
    write_predictions,
)
from realdamage.files import FORMULA, csv_line, unescape_cell

WritePhotos = Callable[..., Manifest]
T = TypeVar("T")

EDIT = {
    "label": "synthetic",
    "kind": "ai_region",
    "generator": "g1",
    "pair": "a.png",
    "mask_file_name": "b_m.png",
}
WHOLE = {"label": "synthetic", "kind": "ai_whole", "generator": "g2", "mask_file_name": "c_m.png"}
ROWS = [
    {
        "file_name": "a.png",
        "label": "real",
        "kind": "damaged",
        "damage": "torn",
        "group": "shoe",
        "red": 40,
    },
    {"file_name": "b.png", **EDIT, "red": 250},
    {"file_name": "c.png", **WHOLE, "red": 200},
]


def test_a_manifest_is_scored_in_its_order(model_file: Path, write_photos: WritePhotos) -> None:
    seen: list[tuple[int, str]] = []

    def watch(steps: Iterable[T], total: int, description: str) -> Iterator[T]:
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


@pytest.fixture
def predictions(model_file: Path, write_photos: WritePhotos) -> pd.DataFrame:
    """Of two scored photos and an unreadable one."""
    manifest = write_photos(ROWS)
    scored, _ = score_manifest(Detector.load(model_file), manifest.subset(np.arange(3) < 2))
    rows = [*scored.fillna("").to_dict("records"), unscored_row(manifest, 2)]
    return predictions_table(rows)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_predictions_survive_a_file(predictions: pd.DataFrame, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"p.{ending}"
    write_predictions(path, predictions)
    pd.testing.assert_frame_equal(read_predictions(path), predictions)


ODD_NAMES = ["=cmd.png", "-1.png", "＝x.png", "'=q.png", "'plain.png", "a\nb.png", 'a"b,c.png']


@given(st.lists(st.text(), min_size=2, max_size=4), st.floats(allow_nan=False))
def test_a_csv_record_is_read_back_and_no_text_in_it_is_a_formula(
    texts: list[str], number: float
) -> None:
    (cells,) = csv.reader(io.StringIO(csv_line([*texts, number]), newline=""), strict=True)
    assert [unescape_cell(cell) for cell in cells[:-1]] == texts
    assert not [cell for cell in cells[:-1] if cell.startswith(FORMULA)]
    assert float(cells[-1]) == number  # a negative one too


def test_odd_names_come_back_and_are_those_of_the_manifest(
    model_file: Path, write_photos: WritePhotos, tmp_path: Path
) -> None:
    manifest = write_photos(
        [ROWS[0] | {"file_name": name, "group": name, "source": "-5"} for name in ODD_NAMES]
    )
    predictions, _ = score_manifest(Detector.load(model_file), manifest)
    path = tmp_path / "predictions.csv"
    write_predictions(path, predictions)
    read = read_predictions(path)
    for column in ("file_name", "group", "source"):
        assert read[column].tolist() == predictions[column].tolist()
    assert read_log(path)["file_name"].tolist() == ODD_NAMES
    with path.open(newline="", encoding="utf-8") as file:
        cells = next(csv.DictReader(file))
    assert (cells["file_name"], cells["source"]) == ("'=cmd.png", "'-5")
    assert float(cells["score"]) < 0  # a number as it is, without an apostrophe


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("other.csv", "file_name,score\na.jpg,1\n", "missing_columns"),
        ("p.xlsx", "", "unknown_format"),
        ("p.parquet", "no", "unreadable_table"),
    ],
)
def test_another_file_is_not_taken_for_predictions(
    tmp_path: Path, name: str, text: str, code: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RealDamageError, match=name) as error:
        read_predictions(tmp_path / name)
    assert error.value.code == code
    with pytest.raises(UsageError):
        read_predictions(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("column", "value"),
    [("label", "fake"), ("score", np.inf)],
)
def test_a_wrong_value_in_the_file_is_named(
    predictions: pd.DataFrame, tmp_path: Path, column: str, value: object
) -> None:
    table = predictions.astype({column: object})
    table.loc[1, column] = value
    table.to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(RealDamageError, match=rf"row 3, column {column}: .*{value}") as error:
        read_predictions(tmp_path / "p.csv")
    assert error.value.code == "wrong_value"


def test_a_photo_may_stand_there_once_for_each_perturbation(
    predictions: pd.DataFrame, tmp_path: Path
) -> None:
    both = pd.concat([predictions, predictions.assign(perturbation="jpeg_70")], ignore_index=True)
    write_predictions(tmp_path / "both.csv", both)
    assert (
        clean(read_predictions(tmp_path / "both.csv"))["file_name"].tolist()
        == predictions["file_name"].tolist()
    )
    with pytest.raises(RealDamageError, match=r"a\.png") as error:
        write_predictions(tmp_path / "twice.csv", pd.concat([predictions, predictions]))
    assert error.value.code == "repeated_photo"


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("log.csv", "a,b\n1,2\n", "no_log"),
        ("log.csv", "score,graph_sha256\n1,ab\nhigh,ab\n", "wrong_value"),
    ],
)
def test_files_that_are_no_log_are_refused(tmp_path: Path, name: str, text: str, code: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RealDamageError, match=name) as error:
        read_log(tmp_path / name)
    assert error.value.code == code
