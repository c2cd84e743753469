"""What people type: `realdamage predict`, `calibrate` and `info`, their output and their exit codes."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import realdamage
from realdamage import files
from realdamage.commands.cli import main
from realdamage.core.model_file import read_model_file, write_model_file
from realdamage.core.verdict import MEASURED_COLUMNS, PREDICTION_COLUMNS, Verdict


@pytest.fixture
def model(tmp_path: Path, save_red_model: Callable[[Path], Path]) -> Path:
    return save_red_model(tmp_path / "model" / "red.onnx")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """real.png, below/painted.jpg (red quarter) and notes.txt."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    rgb = np.full((96, 128, 3), (80, 100, 144), np.uint8)
    Image.fromarray(rgb).save(folder / "real.png")
    rgb[:48, :64] = (200, 100, 40)
    Image.fromarray(rgb).save(folder / "below" / "painted.jpg", quality=95)
    (folder / "notes.txt").write_text("not a photo")
    return folder


def test_a_folder_becomes_a_tidy_table(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(photos), "--model", str(model)]) == 0
    out, err = capsys.readouterr()
    header, rule, painted, real = out.splitlines()
    assert header.split() == ["file", "outcome", "score", "probability", "regions", "reasons"]
    assert set(rule) == {"-"}
    assert painted.split()[:2] == [str(photos / "below" / "painted.jpg"), "synthetic"]
    assert real.split() == [str(photos / "real.png"), "real", "-4.00", "0.018", "0", "-"]
    for title in ("outcome", "reasons"):
        assert painted[header.index(title) - 1] == real[header.index(title) - 1] == " "
    assert header.index("outcome") == real.index(" real ") + 1
    assert err == "2 photos: 2 judged (1 real, 1 synthetic)\n"


def test_reasons_are_explained_once_below_the_table(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, metadata, _ = read_model_file(model)
    write_model_file(model, data, replace(metadata, demo=True))
    assert main(["predict", str(photos), "--model", str(model)]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[1] for line in out.splitlines()[2:]] == ["review", "real"]
    assert err.count("demo_model: This is a demonstration model") == 1
    assert main(["predict", str(photos), "--model", str(model), "--allow-demo"]) == 0
    assert "synthetic" in capsys.readouterr().out


def test_csv_has_the_columns_of_a_predictions_file(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(photos), "--model", str(model), "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert tuple(rows[0]) == (*PREDICTION_COLUMNS, *MEASURED_COLUMNS)
    assert [row["outcome"] for row in rows] == ["synthetic", "real"]
    assert float(rows[1]["score"]) == pytest.approx(-4)
    assert rows[1]["graph_sha256"] == read_model_file(model)[2]
    assert err == "2 photos: 2 judged (1 real, 1 synthetic)\n"


def test_json_lines_hold_whole_verdicts(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(photos), "--model", str(model), "--format", "jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.pop("file_name") for line in lines] == [
        str(photos / "below" / "painted.jpg"),
        str(photos / "real.png"),
    ]
    assert all(line.pop("ms") > 0 for line in lines)
    verdicts = [Verdict.from_json(json.dumps(line)) for line in lines]
    assert [region.box for region in verdicts[0].regions] == [(0, 0, 64, 48)]


@pytest.mark.parametrize(
    ("name", "first"),
    [("p.csv", "file_name,label"), ("p.jsonl", '{"file_name"'), ("p.txt", "file ")],
)
def test_output_goes_to_a_file_in_the_format_of_its_ending(
    model: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    first: str,
) -> None:
    path = tmp_path / "new" / name
    assert main(["predict", str(photos), "--model", str(model), "--output", str(path)]) == 0
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0]) == ("", f"verdicts: {path}")
    assert path.read_text().startswith(first)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("option", "name", "told"),
    [
        (
            "--output",
            "v.xlsx",
            "end its name in .csv, .jsonl, .ndjson, .parquet, .txt, or say --format; found '.xlsx'",
        ),
        (
            "--output",
            "v",
            "end its name in .csv, .jsonl, .ndjson, .parquet, .txt, or say --format; found none",
        ),
        ("--sheet", "sheet.gif", "end its name in .png, .jpg, .jpeg, .webp; found '.gif'"),
    ],
)
def test_an_ending_that_stands_for_nothing_is_refused_before_judging(
    model: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    name: str,
    told: str,
) -> None:
    path = tmp_path / name
    assert main(["predict", str(photos), "--model", str(model), option, str(path)]) == 2
    assert f"realdamage: {option} {path}: {told}\n" == capsys.readouterr().err
    assert not path.exists()
    if option == "--output":
        assert (
            main(
                [
                    "predict",
                    str(photos),
                    "--model",
                    str(model),
                    option,
                    str(path),
                    "--format",
                    "csv",
                ]
            )
            == 0
        )
        assert path.read_text().startswith("file_name,label")


def test_parquet_is_a_predictions_file_as_csv_is(model: Path, photos: Path, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    predictions = pytest.importorskip("realdamage.evaluation.predictions")
    (photos / "empty.jpg").touch()
    tables = []
    for name in ("v.csv", "v.parquet"):
        assert (
            main(["predict", str(photos), "--model", str(model), "--output", str(tmp_path / name)])
            == 1
        )
        tables.append(predictions.read_predictions(tmp_path / name).drop(columns="ms"))
    assert (tmp_path / "v.parquet").read_bytes()[:4] == b"PAR1"
    pd.testing.assert_frame_equal(*tables, check_like=True)
    assert tables[1]["outcome"].tolist() == ["synthetic", "", "real"]


def test_parquet_without_its_extra_says_what_to_install(
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert (
        main(
            ["predict", str(photos), "--model", str(model), "--output", str(tmp_path / "v.parquet")]
        )
        == 3
    )
    assert 'pip install "realdamage[analysis]"' in capsys.readouterr().err


def test_heat_map_pictures_are_no_photos(model: Path, photos: Path) -> None:
    before = files.find_photos([str(photos)])
    assert (
        main(["predict", str(photos), "--model", str(model), "--heatmap", str(photos / "heat")])
        == 0
    )
    assert files.find_photos([str(photos)]) == before


def test_one_heat_map_picture_per_photo(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 64), "blue").save(photos / "below" / "real.png")
    folder = tmp_path / "heat"
    assert main(["predict", str(photos), "--model", str(model), "--heatmap", str(folder)]) == 0
    assert f"heat maps: {folder}/*.heatmap.png (3 pictures)\n" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == [
        "painted.heatmap.png",
        "real-2.heatmap.png",
        "real.heatmap.png",
    ]
    with Image.open(folder / "painted.heatmap.png") as picture:
        assert picture.width == 128
        assert picture.height > 96


def test_a_sheet_shows_every_photo_that_could_be_read(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "broken.jpg").write_bytes(b"not a photo")
    Image.new("RGB", (128, 96)).save(photos / "third.png")
    sheets = {count: tmp_path / f"{count}.png" for count in (1, 3)}
    assert (
        main(
            ["predict", str(photos / "real.png"), "--model", str(model), "--sheet", str(sheets[1])]
        )
        == 0
    )
    assert main(["predict", str(photos), "--model", str(model), "--sheet", str(sheets[3])]) == 1
    with Image.open(sheets[1]) as one, Image.open(sheets[3]) as three:
        assert one.width == three.width
        assert three.height - 8 == 2 * (
            one.height - 8
        )  # two in a row, below them the third; 8 pixels of edge


@pytest.mark.parametrize(
    ("name", "form"), [("s.png", "PNG"), ("s.jpg", "JPEG"), ("s.JPEG", "JPEG"), ("s.webp", "WEBP")]
)
def test_a_sheet_is_what_its_ending_says(
    model: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    form: str,
) -> None:
    assert (
        main(["predict", str(photos), "--model", str(model), "--sheet", str(tmp_path / name)]) == 0
    )
    assert f"sheet: {tmp_path / name}\n" in capsys.readouterr().err
    with Image.open(tmp_path / name) as sheet:
        assert sheet.format == form


def test_a_sheet_too_high_for_its_format_keeps_the_verdicts(
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "realdamage.core.overlay.contact_sheet", lambda _: Image.new("RGB", (8, 17000))
    )
    options = ["--sheet", str(tmp_path / "s.webp"), "--output", str(tmp_path / "v.csv")]
    assert main(["predict", str(photos), "--model", str(model), *options]) == 3
    assert "8x17000 pixels do not fit into WEBP" in capsys.readouterr().err
    assert len((tmp_path / "v.csv").read_text().splitlines()) == 3


def test_unreadable_photos_are_named_and_the_others_judged(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "empty.jpg").touch()
    painted = photos / "below" / "painted.jpg"
    (photos / "cut.jpg").write_bytes(painted.read_bytes()[: painted.stat().st_size // 2])
    assert main(["predict", str(photos), "--model", str(model)]) == 1
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()[2:]]
    assert lines[1] == [str(photos / "cut.jpg"), "-", "-", "-", "-", "unreadable"]
    assert [line[-1] for line in lines] == ["-", "unreadable", "unreadable", "-"]
    assert f"realdamage: {photos / 'empty.jpg'}: the file is empty" in err
    assert f"realdamage: {photos / 'cut.jpg'}: the file is damaged or cut off" in err
    assert err.endswith("4 photos: 2 judged (1 real, 1 synthetic), 2 unreadable\n")


def test_a_missing_photo_is_one_that_cannot_be_read(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        photos / "real.png",
        photos / "nope.jpg",
        photos / "below" / "painted.jpg",
        photos / "*.tiff",
    ]
    path = tmp_path / "v.csv"
    assert main(["predict", *map(str, given), "--model", str(model), "--output", str(path)]) == 1
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [row["file_name"] for row in rows] == [str(name) for name in given]
    assert [row["outcome"] for row in rows] == ["real", "", "synthetic", ""]
    assert [(row["score"], row["reasons"]) for row in rows[1::2]] == [("", "unreadable")] * 2
    err = capsys.readouterr().err
    assert f"realdamage: {given[1]}: no such file\n" in err
    assert err.endswith("4 photos: 2 judged (1 real, 1 synthetic), 2 unreadable\n")


def test_names_are_printed_without_control_characters(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    red, wide = "\x1b[31mred\x1b[0m\n.png", "a\u202egnp.png"
    for name in (red, wide):
        (photos / name).write_bytes((photos / "real.png").read_bytes())
    (photos / "\x1b[2Jcut\r.jpg").write_bytes(b"\xff\xd8\xff")
    (photos / os.fsdecode(b"bad\xff.png")).write_bytes((photos / "real.png").read_bytes())
    assert main(["predict", str(photos), "--model", str(model)]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 2 + 6
    assert not [letter for letter in (out + err).replace("\n", "") if not letter.isprintable()]
    assert {
        str(photos / name) for name in ("[31mred[0m.png", "agnp.png", "[2Jcut.jpg", "bad.png")
    } <= {line.split()[0] for line in lines}
    start = lines[0].index("outcome")
    assert {line[start - 2 :].split()[0] for line in lines[2:]} == {"real", "synthetic", "-"}


@pytest.mark.parametrize(
    "name", ["=cmd.png", "-1.png", "＠a.png", "a\nb.png", "a\rb.png", "'=q.png"]
)
def test_a_name_in_csv_is_no_formula_and_comes_back(
    model: Path, photos: Path, tmp_path: Path, name: str
) -> None:
    predictions = pytest.importorskip("realdamage.evaluation.predictions")
    (photos / name).write_bytes((photos / "real.png").read_bytes())
    path = tmp_path / "v.csv"
    with contextlib.chdir(photos):
        assert (
            main(["predict", "--model", str(model), "--output", str(path), "--", name, "real.png"])
            == 0
        )
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert not rows[0]["file_name"].startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠"))
    assert [row["score"] for row in rows] == ["-4.0", "-4.0"]
    assert predictions.read_predictions(path)["file_name"].tolist() == [name, "real.png"]


def test_unreadable_photos_have_their_rows_in_files(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "empty.jpg").touch()
    files = [tmp_path / "v.csv", tmp_path / "v.jsonl"]
    for path in files:
        assert main(["predict", str(photos), "--model", str(model), "--output", str(path)]) == 1
        assert capsys.readouterr().err.endswith(
            "3 photos: 2 judged (1 real, 1 synthetic), 1 unreadable\n"
        )
    row = list(csv.DictReader(io.StringIO(files[0].read_text())))[1]
    assert {key: value for key, value in row.items() if value} == {
        "file_name": str(photos / "empty.jpg"),
        "reasons": "unreadable",
    }
    line = json.loads(files[1].read_text().splitlines()[1])
    assert (line["file_name"], line["outcome"]) == (str(photos / "empty.jpg"), None)
    assert line["error"]["code"] == "unreadable_photo"
    assert "the file is empty" in line["error"]["message"]


def test_when_no_photo_could_be_read_nothing_was_done(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(photos / "notes.txt"), "--model", str(model)]) == 3
    assert capsys.readouterr().err.endswith(
        "1 photo: 0 judged, 1 unreadable\nrealdamage: no photo was judged\n"
    )
    assert main(["predict", str(photos / "notes.txt"), __file__, "--model", str(model)]) == 3
    assert "none of the 2 photos could be read" in capsys.readouterr().err


def test_paths_folders_and_globs_name_each_photo_once(photos: Path) -> None:
    painted, real = photos / "below" / "painted.jpg", photos / "real.png"
    assert files.find_photos([str(real), str(photos)]) == [real, painted]
    assert files.find_photos([str(photos / "**" / "*.jpg")]) == [painted]
    (photos / "odd[1].png").write_bytes(real.read_bytes())
    assert files.find_photos([str(photos / "odd[1].png")]) == [photos / "odd[1].png"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere.jpg", "no such photo or folder"),
        ("*.tiff", "no such photo or folder"),
        ("bare", "no photo in this folder"),
    ],
)
def test_what_names_no_photo_is_a_usage_error(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str], given: str, message: str
) -> None:
    (photos / "bare").mkdir()
    assert main(["predict", str(photos / given), "--model", str(model)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"realdamage: {photos / given}: {message}")


def test_a_file_that_is_no_model_could_not_run(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(photos), "--model", str(photos / "notes.txt")]) == 3
    assert capsys.readouterr().err.startswith(
        f"realdamage: {photos / 'notes.txt'}: not an ONNX file"
    )


def test_a_full_disk_is_told_and_leaves_nothing(
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    folder = tmp_path / "heat"
    assert main(["predict", str(photos), "--model", str(model), "--heatmap", str(folder)]) == 3
    assert "painted.heatmap.png: cannot be written: No space left" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("prior", ["0", "1.5"])
def test_a_wrong_prior_is_a_usage_error(model: Path, photos: Path, prior: str) -> None:
    assert main(["predict", str(photos), "--model", str(model), "--prior", prior]) == 2


def test_a_prior_changes_the_probability(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(photos / "real.png"), "--model", str(model), "--prior", "0.9"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[3] == "0.142"  # sigmoid(-4 + log 9)


def test_a_bug_shows_its_trace_only_with_debug(
    model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of our own making")

    monkeypatch.setattr(files, "find_photos", broken)
    assert main(["predict", str(photos), "--model", str(model)]) == 3
    assert "ZeroDivisionError: of our own making. This is a bug" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        main(["predict", str(photos), "--model", str(model), "--debug"])


def test_info_prints_the_metadata(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model)]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["graph_sha256"] == read_model_file(model)[2]
    assert values["bytes"] == model.stat().st_size
    assert values["pixel_spec"]["tile"] == 32
    assert values["policy"]["t_synthetic"] == 1.0


def manifest(folder: Path, photo: Callable[[int, str], np.ndarray]) -> None:
    folder.mkdir()
    rows = ["file_name,label,kind,group,split"]
    for index in range(30):
        for label, kind in (("real", "damaged"), ("synthetic", "ai_region")):
            name = f"{label}-{index}.png"
            Image.fromarray(photo(index, label)).save(folder / name)
            rows.append(f"{name},{label},{kind},{index},val")
    (folder / "metadata.csv").write_text("\n".join(rows))


@pytest.fixture
def uncalibrated(model: Path, tmp_path: Path) -> Path:
    """The model without thresholds, beside `data`: 30 products, each with a damaged and a redder, synthetic photo."""
    pytest.importorskip("realdamage.evaluation.calibration")
    rng = np.random.default_rng(0)

    def photo(index: int, label: str) -> np.ndarray:
        red = 100 + index + (60 if label == "synthetic" else 0) + int(rng.integers(0, 9))
        return np.full((32, 32, 3), (red, 100, 130), np.uint8)

    manifest(tmp_path / "data", photo)
    data, metadata, _ = read_model_file(model)
    write_model_file(model, data, replace(metadata, calibration=None, policy=None))
    return model


def test_calibrate_writes_thresholds_into_the_model(
    uncalibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = read_model_file(uncalibrated)[2]
    assert (
        main(["calibrate", str(uncalibrated), "--manifest", str(tmp_path / "data"), "--fpr", "0.1"])
        == 0
    )
    _, calibrated, digest_again = read_model_file(uncalibrated)
    assert digest_again == digest
    assert calibrated.calibration is not None
    assert calibrated.policy is not None
    assert (calibrated.policy.fpr, calibrated.policy.negatives) == (0.1, "damaged")
    assert calibrated.policy.guarantee is None
    out = capsys.readouterr().out
    assert f"synthetic     score >= {calibrated.policy.t_synthetic:+.3f}: " in out
    assert "of these damaged photos (allowed 10.0%)" in out
    assert "no promise about others" in out


def test_calibrate_promises_what_the_photos_can_keep(
    uncalibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "calibrate",
        str(uncalibrated),
        "--manifest",
        str(tmp_path / "data"),
        "--split",
        "val",
    ]
    assert (
        main(
            [
                *command,
                "--alpha",
                "0.1",
                "--beta",
                "0.2",
                "--delta",
                "0.05",
                "--calibration",
                "auto",
            ]
        )
        == 0
    )
    policy = read_model_file(uncalibrated)[1].policy
    assert policy is not None
    assert policy.guarantee is not None
    assert (policy.guarantee.alpha, policy.guarantee.beta, policy.guarantee.delta) == (
        0.1,
        0.2,
        0.05,
    )
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "With 95% confidence, at most 10% of photos with real damage are called synthetic." in out
    )
    assert "in a claim with 3 of them, up to 30% of claims have one that is" in out
    assert "0.0% of these damaged photos (promised at most 10% of all)" in out
    assert "Brier score on held-out groups: platt 0." in out


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (
            ["--alpha", "0.05", "--split", "val"],
            3,
            "it takes 59 even without a single error. The smallest that 30 can",
        ),
        (["--alpha", "0.1"], 3, "no split 'policy'"),
        (["--alpha", "0.1", "--fpr", "0.01"], 2, "fpr and alpha set the same threshold"),
        (["--delta", "0.1"], 2, "delta is the risk of a promise; give alpha or beta with it"),
        (["--alpha", "10", "--split", "val"], 2, "alpha=10.0 must be above 0 and below 1"),
    ],
)
def test_calibrate_refuses_a_promise_and_leaves_the_model_alone(
    uncalibrated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    told: str,
) -> None:
    before = uncalibrated.read_bytes()
    assert (
        main(["calibrate", str(uncalibrated), "--manifest", str(tmp_path / "data"), *options])
        == code
    )
    assert told in capsys.readouterr().err
    assert uncalibrated.read_bytes() == before


def test_calibrate_without_its_extra_says_what_to_install(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [
        name
        for name in sys.modules
        if name.startswith(("realdamage.data", "realdamage.evaluation"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert main(["calibrate", str(model), "--manifest", str(tmp_path)]) == 3
    assert 'pip install "realdamage[analysis]"' in capsys.readouterr().err


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "predict" in capsys.readouterr().err


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "photo.jpg", "--modle", "m.onnx"])
    assert "--modle" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"realdamage {realdamage.__version__}\n"


@pytest.mark.parametrize("module", ["realdamage", "realdamage.commands.cli"])
def test_python_dash_m(model: Path, photos: Path, module: str) -> None:
    source = str(Path(realdamage.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", module, "predict", "real.png", "below/*.jpg", "--model", str(model)],
        cwd=photos,
        env=os.environ | {"PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "2 photos: 2 judged (1 real, 1 synthetic)\n")
    assert [line.split()[:2] for line in done.stdout.splitlines()[2:]] == [
        ["real.png", "real"],
        ["below/painted.jpg", "synthetic"],
    ]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (
            ["predict", "--shet", "a.png", "b.jpg"],
            "unrecognized arguments: --shet (--shet: did you mean --sheet?)",
        ),
        (["predct", "b.jpg"], "(predct: did you mean predict?)"),
        (["predict", "b.jpg", "--format", "cvs"], "(cvs: did you mean csv?)"),
        (["calibrate", "--manifset=photos", "a.onnx"], "(--manifset: did you mean --manifest?)"),
        (["--verson"], "(--verson: did you mean --version?)"),
        (["predict", "--sheet", "a.png", "--zzz", "b.jpg"], "unrecognized arguments: --zzz\n"),
        (["predict", "b.jpg", "--prior", "high"], "invalid float value: 'high'\n"),
    ],
)
def test_a_misspelt_word_has_its_near_match(
    typed: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(typed)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.count("did you mean") == told.count("did you mean")


def test_a_model_that_is_not_there_names_those_that_are(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = model.with_name("rde.onnx")
    assert main(["info", str(wrong)]) == 2
    told = f"{wrong}: the model cannot be read: No such file or directory; name one of those in {model.parent}: red.onnx"
    assert told in capsys.readouterr().err
    for place, code in ((tmp_path / "empty/red.onnx", 2), (tmp_path, 3)):
        assert main(["info", str(place)]) == code
        assert (
            "; name the .onnx file that realdamage-export has written\n" in capsys.readouterr().err
        )
