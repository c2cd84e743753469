"""`realdamage split` writes the splits into the manifest, so that training and evaluation mean the same photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from realdamage.commands.cli import main
from realdamage.data.manifest import read_manifest, write_manifest
from realdamage.data.splits import assign_splits, with_split_table
from realdamage.errors import ManifestError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = []
    for index in range(40):
        group = f"mug-{index // 2}"
        rows.append(
            {"file_name": f"{index}.jpg", "label": "real", "group": group, "claim": f"c{index}"}
        )
        rows.append(
            {
                "file_name": f"{index}_edit.jpg",
                "label": "synthetic",
                "kind": "ai_region",
                "pair": f"{index}.jpg",
            }
            | {"group": group, "claim": f"c{index}"}
        )
    for row in rows:
        (tmp_path / row["file_name"]).touch()
    write_manifest(tmp_path, pd.DataFrame(rows).fillna(""))
    return tmp_path


def test_splits_are_written_and_keep_groups_and_other_columns(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["split", str(folder), "--fractions", "train=0.5,val=0.25,policy=0.25"]) == 0
    table = read_manifest(folder).table
    assert table.groupby("group")["split"].nunique().max() == 1
    assert table["split"].value_counts().to_dict() == {"train": 40, "val": 20, "policy": 20}
    assert set(table["claim"]) == {f"c{index}" for index in range(40)}
    assert "40 train, 20 val, 20 policy" in capsys.readouterr().out


def test_the_default_leaves_photos_for_a_promise(
    write_set: Callable[..., Path],
    save_red_model: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, model = (
        write_set(tmp_path / "photos", groups=60, splits=False),
        save_red_model(tmp_path / "model.onnx"),
    )
    for name in read_manifest(root).table.query("label == 'synthetic'")[
        "file_name"
    ]:  # what the model looks for
        red = Image.open(root / name).point(
            [min(255, value + 60) for value in range(256)] + 2 * list(range(256))
        )
        red.save(root / name)
    assert main(["split", str(root)]) == 0
    out = capsys.readouterr().out
    table = read_manifest(root).table
    groups = table[table["kind"] == "damaged"].groupby("split")["group"].nunique()
    assert groups.to_dict() == {"policy": 6, "test": 5, "train": 16, "val": 3}
    smallest = out.splitlines()[-1].rpartition("--alpha ")[2]
    assert float(smallest) == pytest.approx(
        1 - 0.05 ** (1 / 6), abs=1e-4
    )  # Clopper-Pearson, no error among 6
    calibrate = ["calibrate", str(model), "--manifest", str(root), "--alpha"]
    assert main([*calibrate, smallest]) == 0
    assert main([*calibrate, str(float(smallest) - 0.001)]) == 3


def test_splits_that_are_there_stay_unless_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["split", str(folder)]) == 0
    before = (folder / "metadata.csv").read_bytes()
    assert main(["split", str(folder), "--seed", "1"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "metadata.csv").read_bytes() == before
    assert main(["split", str(folder), "--seed", "1", "--overwrite"]) == 0
    assert (folder / "metadata.csv").read_bytes() != before


@pytest.mark.parametrize(
    "given",
    ["train", "train=much", "train=0.5,tset=0.5", "train=0.5", "train=0.5,val=0.2,test=0.2"],
)
def test_wrong_fractions_change_nothing(
    folder: Path, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "metadata.csv").read_bytes()
    try:
        code = main(["split", str(folder), "--fractions", given])
    except SystemExit as stop:  # argparse's own way out
        code = int(stop.code or 0)
    assert code == 2
    told = capsys.readouterr().err
    assert "train" in told
    assert "{" not in told
    assert (folder / "metadata.csv").read_bytes() == before


def test_near_duplicates_stay_together(
    tmp_path: Path, photo_factory, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for index in range(12):
        image = Image.fromarray(photo_factory(96, 128, index // 2))
        image.save(tmp_path / f"{index}.jpg", quality=60 + index)
        rows.append({"file_name": f"{index}.jpg", "label": "real", "group": f"shot-{index}"})
    write_manifest(tmp_path, pd.DataFrame(rows))
    command = ["split", str(tmp_path), "--fractions", "train=0.5,test=0.5", "--near-duplicates"]
    assert main(command) == 0
    table = read_manifest(tmp_path).table
    assert "12 groups became 6" in capsys.readouterr().out
    for first in range(0, 12, 2):
        assert table["split"].iat[first] == table["split"].iat[first + 1]


def test_edits_beside_their_originals_are_no_find(
    tmp_path: Path, photo_factory, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for index in range(6):
        image = Image.fromarray(photo_factory(96, 128, index))
        for name, quality in ((f"{index}.jpg", 90), (f"{index}_edit.jpg", 70)):
            image.save(tmp_path / name, quality=quality)
        rows.append({"file_name": f"{index}.jpg", "label": "real", "pair": ""})
        rows.append(
            {"file_name": f"{index}_edit.jpg", "label": "synthetic", "pair": f"{index}.jpg"}
        )
    write_manifest(tmp_path, pd.DataFrame(rows))
    command = [
        "split",
        str(tmp_path),
        "--fractions",
        "train=0.5,test=0.5",
        "--near-duplicates",
        "--overwrite",
    ]
    assert main(command) == 0
    alike = "6 pairs of photos look alike, all within groups that were told already (such as an edit and its original)"
    assert f"{alike}: the 6 groups stay as they are\n" in capsys.readouterr().out
    image.save(tmp_path / "again.jpg", quality=80)
    write_manifest(
        tmp_path, pd.DataFrame([*rows, {"file_name": "again.jpg", "label": "real", "pair": ""}])
    )
    assert main(command) == 0
    assert "8 pairs of photos look alike, 6 of them within groups that were told" in (
        out := capsys.readouterr().out
    )
    assert ": 7 groups became 6\n" in out


def test_a_split_table_keeps_the_splits_of_photos_that_lie_elsewhere(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    table_file = tmp_path_factory.mktemp("splits") / "splits.csv"
    before = (folder / "metadata.csv").read_bytes()
    assert main(["split", str(folder), "--output", str(table_file)]) == 0
    assert (folder / "metadata.csv").read_bytes() == before
    manifest = with_split_table(read_manifest(folder), table_file)
    listed = pd.read_csv(table_file, dtype=str)
    assert list(manifest.table["split"]) == list(listed["split"])
    assert set(manifest.table["split"]) == {"train", "val", "test", "policy"}

    capsys.readouterr()
    assert main(["split", str(folder), "--output", str(table_file)]) == 2
    assert "--overwrite" in capsys.readouterr().err

    (folder / "3.jpg").write_bytes(b"another photo")
    with pytest.raises(
        ManifestError, match=r"3\.jpg: not the photo that .*splits\.csv was written for"
    ):
        with_split_table(read_manifest(folder), table_file)
    listed.drop(index=4).to_csv(table_file, index=False)
    with pytest.raises(
        ManifestError, match=rf"'{listed['file_name'][4]}' of .* is not in the split table \(1 such"
    ):
        with_split_table(read_manifest(folder), table_file)
    table_file.write_text("file_name,split\n")
    with pytest.raises(ManifestError, match="not a split table; its columns are file_name, split"):
        with_split_table(read_manifest(folder), table_file)


def test_really_damaged_photos_can_be_shared_out_otherwise() -> None:
    rows = [
        {
            "file_name": f"{i}.jpg",
            "label": "real",
            "kind": kind,
            "source": "a",
            "group": f"g{i}",
            "pair": "",
            "sha256": "",
        }
        for i, kind in enumerate(["damaged"] * 100 + ["original"] * 400)
    ]
    table = pd.DataFrame(rows)
    splits = assign_splits(
        table, {"train": 0.8, "test": 0.2}, 0, {"train": 0.3, "test": 0.4, "policy": 0.3}
    )
    counts = pd.crosstab(table["kind"], splits)
    assert counts.loc["damaged"].to_dict() == {"policy": 30, "test": 40, "train": 30}
    assert counts.loc["original"].to_dict() == {"policy": 0, "test": 80, "train": 320}
