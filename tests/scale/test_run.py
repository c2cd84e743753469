"""Very many photos: both runners write the same Parquet parts, whole or not at all, and each photo
once, also when a machine of the cluster is lost."""

import errno
import json
import os
from pathlib import Path
from typing import TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from realdamage.commands import cli
from realdamage.core.detector import Detector
from realdamage.errors import RealDamageError
from realdamage.evaluation.predictions import read_predictions
from realdamage.scale import score

T = TypeVar("T")


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_parts_hold_the_verdicts_of_the_wrapper_in_order_and_bad_photos_as_rows(
    model, photos, rows, tmp_path
):
    good, out = photos(4), tmp_path / "out.parquet"
    Path(good[3]).write_bytes(b"")
    names = [*good, str(tmp_path / "none.jpg")]
    done = score(names, out, judge=model, part_size=2)
    assert (done.photos, done.judged) == (5, 5)
    assert files(out) == ["_run.json", *(f"part-{n:06d}.parquet" for n in range(3))]
    table = read_predictions(out)
    assert table["file_name"].tolist() == names
    expected = [Detector(model.model).predict(name) for name in good[:3]]
    assert table["score"].tolist()[:3] == [one.score for one in expected]
    assert table["outcome"].tolist()[:3] == [one.outcome for one in expected]
    assert table["fine_detail"].tolist()[:3] == [one.quality.fine_detail for one in expected]
    assert len(set(table["score"][:3])) == 3
    assert table["score"][3:].isna().all()
    assert rows(out)["error"].tolist() == ["", "", "", "empty_file", "no_such_photo"]
    assert table["reasons"].tolist()[3:] == ["unreadable"] * 2


def test_parts_that_are_there_are_not_computed_again(model, photos, rows, tmp_path):
    names, out = photos(6), tmp_path / "out"
    score(names, out, judge=model, part_size=2)
    whole = {path: path.read_bytes() for path in out.glob("part-*")}
    (out / "part-000001.parquet").unlink()
    (out / ".part-000001.parquet.0000.tmp").write_bytes(b"PAR1 half")
    asked = []

    def counted(steps, total, description):
        asked.append(total)
        return iter(steps)

    again = score(names, out, judge=model, part_size=2, progress=counted)
    assert (again.judged, asked) == (2, [2])
    kept = {path: path.read_bytes() for path in whole if "000001" not in path.name}
    assert kept.items() <= whole.items()
    assert rows(out)["file_name"].tolist() == names
    assert score(names, out, judge=model, part_size=2).judged == 0


def test_a_full_disk_leaves_no_half_part(model, photos, tmp_path, monkeypatch):
    names, out = photos(4), tmp_path / "out"
    flushed, flush = [], os.fsync

    def full(file):
        flushed.append(file)
        if len(flushed) == 3:  # the record, the first part, the second
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RealDamageError) as caught:
        score(names, out, judge=model, part_size=2)
    assert caught.value.code == "cannot_write"
    assert files(out) == ["_run.json", "part-000000.parquet"]
    assert score(names, out, judge=model, part_size=2).judged == 2


def test_a_folder_of_another_run_is_refused(model, photos, rows, save_red_model, tmp_path):
    names, out = photos(3), tmp_path / "out"
    score(names, out, judge=model)
    before = rows(out)
    for changed in ({"source": names[:2]}, {"part_size": 2}):
        given = {"source": names, "judge": model, **changed}
        with pytest.raises(RealDamageError) as caught:
            score(given.pop("source"), out, **given)
        assert caught.value.code == "other_run"
    with pytest.raises(RealDamageError) as caught:
        score(names, tmp_path / "photos", judge=model)
    assert caught.value.code == "folder_in_use"
    pd.testing.assert_frame_equal(rows(out), before)
    with pytest.raises(RealDamageError) as caught:
        score(names, names[0], judge=model)
    assert caught.value.code == "cannot_list"


def test_photos_come_from_tables_folders_and_globs(model, photos, rows, tmp_path):
    names = photos(3)
    relative = [f"photos/{Path(name).name}" for name in names]
    (tmp_path / "a.csv").write_text("id,file_name\n1," + "\n2,".join(relative) + "\n")
    pa.parquet.write_table(pa.table({"path": names[::-1]}), tmp_path / "b.parquet")
    for number, source in enumerate(
        ["a.csv", "b.parquet", "photos", "photos/*.png", "file://photos"]
    ):
        given = str(tmp_path / source)
        if source.startswith("file://"):
            given = f"file://{tmp_path}/photos"
        score([given, given], tmp_path / f"{number}", judge=model)
        found = [Path(name).name for name in rows(tmp_path / f"{number}")["file_name"]]
        assert found == [Path(name).name for name in names[:: -1 if source == "b.parquet" else 1]]
    (tmp_path / "c.csv").write_text("photo\nx.jpg\n")
    pa.parquet.write_table(pa.table({"path": [[1]]}), tmp_path / "e.parquet")
    wrong = {"c.csv": "missing_columns", "d.parquet": "unreadable_table"}
    for source, code in {**wrong, "e.parquet": "unreadable_table"}.items():
        with pytest.raises(RealDamageError) as caught:
            score(tmp_path / source, tmp_path / "none", judge=model)
        assert caught.value.code == code
    with pytest.raises(RealDamageError) as caught:
        score("ftp://host/photos", tmp_path / "none", judge=model)
    assert caught.value.code == "unknown_url"
    assert not (tmp_path / "none").exists()


def test_names_may_hold_anything(model, photos, rows, tmp_path):
    """In a URL what is no plain letter is quoted; Parquet holds no name that is no UTF-8."""
    folder = Path(photos(2)[0]).parent
    (folder / "000.png").rename(folder / "a é#?%20.png")
    (tmp_path / "list.csv").write_text("path\na é#?%20.png\n")
    (tmp_path / "list.csv").rename(folder / "list.csv")
    for number, source in enumerate([f"file://{folder}", f"file://{folder}/list.csv"]):
        score(source, tmp_path / f"{number}", judge=model)
        found = rows(tmp_path / f"{number}")
        assert found["error"].tolist() == [""] * (2 - number)
        assert found["file_name"].iloc[-1].endswith("a%20%C3%A9%23%3F%2520.png")
    odd = os.fsdecode(os.fsencode(folder) + b"/\xff.png")
    Path(folder / "001.png").rename(odd)
    score(odd, tmp_path / "odd", judge=model)
    assert rows(tmp_path / "odd")["file_name"].item() == f"{folder}/\\udcff.png"


def test_the_command(model, photos, rows, tmp_path, capsys):
    names, out = photos(2), tmp_path / "out.parquet"
    Path(names[1]).write_bytes(b"rubbish")
    arguments = ["predict", *names, "--model", str(model.model), "--engine", "local"]
    assert cli.main([*arguments, "--output", f"{out}/"]) == 1
    assert len(rows(out)) == 2
    assert json.loads((out / "_run.json").read_text())["photos"] == 2
    assert cli.main(arguments) == 2, "without a folder"
    assert cli.main([*arguments, "--output", str(out), "--format", "csv"]) == 2


def test_without_a_cluster_it_says_so(model, photos, tmp_path, monkeypatch):
    import ray

    def refuse(**given):
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(RealDamageError) as caught:
        score(photos(1), tmp_path / "out", engine="ray", judge=model)
    assert caught.value.code == "no_cluster"
