"""What people type: `realdamage predict`, `calibrate` and `info`, their output and exit codes."""

import contextlib
import csv
import io
import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import realdamage
from realdamage.core.model_file import read_model_file, write_model_file
from realdamage.core.verdict import Verdict

SOURCE = str(Path(realdamage.__file__).parents[1])


@pytest.fixture
def model(tmp_path, save_red_model):
    return save_red_model(tmp_path / "model" / "red.onnx")


@pytest.fixture
def photos(tmp_path):
    """real.png, below/painted.jpg (red quarter) and notes.txt."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    rgb = np.full((96, 128, 3), (80, 100, 144), np.uint8)
    Image.fromarray(rgb).save(folder / "real.png")
    rgb[:48, :64] = (200, 100, 40)
    Image.fromarray(rgb).save(folder / "below" / "painted.jpg", quality=95)
    (folder / "notes.txt").write_text("not a photo")
    return folder


@pytest.fixture
def predict(type_in, model):
    return lambda *words: type_in("predict", "--model", model, *words)


def test_a_folder_becomes_a_tidy_table(predict, photos):
    code, out, err = predict(photos)
    assert code == 0
    header, _, painted, real = out.splitlines()
    assert header.split() == ["file", "outcome", "score", "probability", "regions", "reasons"]
    assert painted.split()[:2] == [str(photos / "below" / "painted.jpg"), "synthetic"]
    assert real.split() == [str(photos / "real.png"), "real", "-4.00", "0.018", "0", "-"]
    assert err == "2 photos: 2 judged (1 real, 1 synthetic)\n"
    *_, real = predict(photos, "--prior", "0.9").out.splitlines()
    assert real.split()[3] == "0.142"  # sigmoid(-4 + log 9)
    assert predict(photos, "--prior", "1.5").code == 2


def test_reasons_are_explained_once_below_the_table(predict, model, photos):
    data, metadata, _ = read_model_file(model)
    write_model_file(model, data, replace(metadata, demo=True))
    done = predict(photos)
    assert [line.split()[1] for line in done.out.splitlines()[2:]] == ["review", "real"]
    assert done.err.count("demo_model: ") == 1
    assert "synthetic" in predict(photos, "--allow-demo").out


@pytest.mark.parametrize(("option", "name"), [("--output", "v.xlsx"), ("--sheet", "s.gif")])
def test_an_unknown_ending_is_refused_before_judging(predict, photos, tmp_path, option, name):
    path = tmp_path / "new" / name
    code, out, err = predict(photos, option, path)
    assert (code, out) == (2, "")
    assert str(path) in err
    assert not path.exists()
    if option == "--output":
        assert predict(photos, option, path, "--format", "csv").code == 0
        assert path.read_text().startswith("file_name,label")
        assert list(path.parent.iterdir()) == [path]


def test_parquet_is_a_predictions_file_as_csv_is(predict, photos, tmp_path, monkeypatch):
    pd = pytest.importorskip("pandas")
    predictions = pytest.importorskip("realdamage.evaluation.predictions")
    (photos / "empty.jpg").touch()
    tables = []
    for name in ("v.csv", "v.parquet"):
        assert predict(photos, "--output", tmp_path / name).code == 1
        tables.append(predictions.read_predictions(tmp_path / name).drop(columns="ms"))
    assert (tmp_path / "v.parquet").read_bytes()[:4] == b"PAR1"
    pd.testing.assert_frame_equal(*tables, check_like=True)
    assert tables[1]["outcome"].tolist() == ["synthetic", "", "real"]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = predict(photos, "--output", tmp_path / "again.parquet")
    assert code == 3
    assert 'pip install "realdamage[analysis]"' in err


def test_json_lines_hold_whole_verdicts_and_name_a_heat_map_for_each(predict, photos):
    Image.new("RGB", (64, 64), "blue").save(photos / "below" / "real.png")
    (photos / "empty.jpg").touch()
    heat = photos / "heat"
    done = predict(photos, "--heatmap", heat, "--format", "jsonl")
    assert done.code == 1
    names = ["painted.heatmap.png", "real-2.heatmap.png", "real.heatmap.png"]
    assert sorted(picture.name for picture in heat.iterdir()) == names
    painted, other, empty, real = map(json.loads, done.out.splitlines())
    assert painted.pop("file_name") == str(photos / "below/painted.jpg")
    assert painted.pop("ms") > 0
    drawn = [line.pop("heatmap_file") for line in (painted, real, other)]
    assert drawn[0] == str(heat / names[0])
    assert sorted(drawn) == [str(heat / name) for name in names]
    assert "heatmap_file" not in empty
    verdict = Verdict.from_json(json.dumps(painted))
    assert [region.box for region in verdict.regions] == [(0, 0, 64, 48)]
    assert "4 photos: " in predict(photos).err  # heat maps are no photos


def test_a_sheet_shows_every_photo_that_could_be_read(predict, photos, tmp_path):
    path = tmp_path / "s.JPEG"
    assert predict(photos / "real.png", "--sheet", path).code == 0
    with Image.open(path) as one:
        assert one.format == "JPEG"
        height = one.height
    (photos / "broken.jpg").write_bytes(b"not a photo")
    Image.new("RGB", (128, 96)).save(photos / "third.png")
    assert predict(photos, "--sheet", path).code == 1
    with Image.open(path) as three:  # two rows of two, with 8 pixels around each
        assert (three.width, three.height - 8) == (one.width, 2 * (height - 8))


def test_unreadable_and_missing_photos_are_named_and_the_others_judged(predict, photos, tmp_path):
    painted = photos / "below" / "painted.jpg"
    (photos / "cut.jpg").write_bytes(painted.read_bytes()[: painted.stat().st_size // 2])
    given = [photos / "real.png", photos / "nope.jpg", painted, photos / "*.tiff"]
    given += [photos / "cut.jpg", photos / "notes.txt"]
    code, out, err = predict(*given)
    assert code == 1
    lines = [line.split() for line in out.splitlines()[2:]]
    assert lines[4] == [str(photos / "cut.jpg"), "-", "-", "-", "-", "unreadable"]
    for path in (given[1], *given[3:]):
        assert f"realdamage: {path}: " in err
    assert err.endswith("6 photos: 2 judged (1 real, 1 synthetic), 4 unreadable\n")

    assert predict(*given, "--output", tmp_path / "v.csv").code == 1
    rows = list(csv.DictReader(io.StringIO((tmp_path / "v.csv").read_text())))
    assert [row["outcome"] for row in rows] == ["real", "", "synthetic", "", "", ""]
    filled = {key: value for key, value in rows[1].items() if value}
    assert filled == {"file_name": str(given[1]), "reasons": "unreadable"}

    assert predict(*given, "--output", tmp_path / "v.jsonl").code == 1
    line = json.loads((tmp_path / "v.jsonl").read_text().splitlines()[1])
    assert (line["file_name"], line["outcome"]) == (str(given[1]), None)
    assert line["error"]["code"] == "unreadable_photo"

    assert predict(photos / "notes.txt", __file__).code == 3  # nothing was judged


def test_names_are_printed_without_control_characters(predict, photos):
    red, wide = "\x1b[31mred\x1b[0m\n.png", "a\u202egnp.png"
    broken = os.fsdecode(b"bad\xff.png")
    for name in (red, wide, broken):
        (photos / name).write_bytes((photos / "real.png").read_bytes())
    (photos / "\x1b[2Jcut\r.jpg").write_bytes(b"\xff\xd8\xff")
    code, out, err = predict(photos)
    assert code == 1
    lines = out.splitlines()
    assert len(lines) == 2 + 6
    assert not [letter for letter in (out + err).replace("\n", "") if not letter.isprintable()]
    shown = {str(photos / name) for name in ("[31mred[0m.png", "agnp.png", "[2Jcut.jpg", "bad.png")}
    assert shown <= {line.split()[0] for line in lines}
    assert predict(photos / broken).code == 0  # a name that is not UTF-8 can be typed


@pytest.mark.parametrize(
    ("given", "named"), [("*.tiff", "*.tiff"), ("bare", "bare"), ("s3://a/b.jpg", "is a URL")]
)
def test_what_names_no_photo_is_a_usage_error(predict, photos, monkeypatch, given, named):
    monkeypatch.chdir(photos)
    Path("bare").mkdir()
    code, out, err = predict(given)
    assert (code, out) == (2, "")
    assert named in err


@pytest.mark.parametrize(
    ("raised", "code"), [(KeyboardInterrupt, 130), (BrokenPipeError, 0), (ZeroDivisionError, 3)]
)
def test_how_a_command_ends(predict, photos, monkeypatch, raised, code):
    """A bug shows its stack trace only with --debug."""

    def ends(*_, **__):
        raise raised("a bug")

    monkeypatch.setattr("realdamage.commands.predict.find_photos", ends)
    monkeypatch.setattr(os, "dup2", lambda *_: None)  # keeps the standard output of the tests
    done = predict(photos)
    assert (done.code, "Traceback" in done.err) == (code, False)
    assert ("ZeroDivisionError: a bug" in done.err) == bool(done.err) == (code == 3)
    if code == 3:
        for words in ((photos, "--debug"), ("--debug", photos)):
            with pytest.raises(ZeroDivisionError):
                predict(*words)


def test_info_prints_the_metadata(type_in, model, tmp_path):
    values = json.loads(type_in("info", model, "--json").out)
    assert values["graph_sha256"] == read_model_file(model)[2]
    assert values["bytes"] == model.stat().st_size
    assert values["pixel_spec"]["tile"] == 32
    assert values["policy"]["t_synthetic"] == 1.0
    lines = type_in("info", model).out.splitlines()
    assert len(lines) < 16
    assert any(line.split() == ["synthetic", "score", "+1.000", "or", "more"] for line in lines)
    wrong = model.with_name("rde.onnx")
    code, _, err = type_in("info", wrong)
    assert code == 2
    assert str(wrong) in err
    assert "red.onnx" in err  # the model that is there
    (tmp_path / "no.onnx").write_text("not a model")
    assert type_in("info", tmp_path / "no.onnx").code == 3


def test_no_command_prints_the_help_and_version_the_version(type_in):
    code, out, err = type_in()
    assert (code, out) == (2, "")
    commands = {line.split()[0] for line in err.partition("Commands:")[2].splitlines() if line}
    assert {"predict", "calibrate", "audit", "claim", "serve"} < commands
    assert type_in("--version") == (0, f"realdamage {realdamage.__version__}\n", "")


def test_python_dash_m_and_a_bar_that_leaves_standard_output_alone(model, photos):
    """On a terminal, the bar of `predict > FILE` must not swallow what goes into the file."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "realdamage", "predict", "real.png", "below/*.jpg", "--model"]
    done = subprocess.run(
        [*command, str(model)],
        cwd=photos,
        env=os.environ | {"PYTHONPATH": SOURCE, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        check=False,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123
        while part := terminal.read(4096):
            shown += part
    assert done.returncode == 0
    assert [line.split()[:2] for line in done.stdout.splitlines()[2:]] == [
        ["real.png", "real"],
        ["below/painted.jpg", "synthetic"],
    ]
    assert b"photos" in shown
    assert b"2 photos: 2 judged (1 real, 1 synthetic)" in shown
