"""`realdamage split` writes the splits into the manifest, so that training and evaluation mean the same photos."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from realdamage.cli import main
from realdamage.data.manifest import read_manifest, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = []
    for index in range(40):
        group = f"mug-{index // 2}"
        rows.append({"file_name": f"{index}.jpg", "label": "real", "group": group, "claim": f"c{index}"})
        rows.append(
            {"file_name": f"{index}_edit.jpg", "label": "synthetic", "kind": "ai_region", "pair": f"{index}.jpg"}
            | {"group": group, "claim": f"c{index}"}
        )
    for row in rows:
        (tmp_path / row["file_name"]).touch()
    write_manifest(tmp_path, pd.DataFrame(rows).fillna(""))
    return tmp_path


def test_splits_are_written_and_keep_groups_and_other_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", str(folder), "--fractions", "train=0.5,val=0.25,policy=0.25"]) == 0
    table = read_manifest(folder).table
    assert table.groupby("group")["split"].nunique().max() == 1
    assert table["split"].value_counts().to_dict() == {"train": 40, "val": 20, "policy": 20}
    assert set(table["claim"]) == {f"c{index}" for index in range(40)}
    assert "40 train, 20 val, 20 policy" in capsys.readouterr().out


def test_splits_that_are_there_stay_unless_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", str(folder)]) == 0
    before = (folder / "metadata.csv").read_bytes()
    assert main(["split", str(folder), "--seed", "1"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "metadata.csv").read_bytes() == before
    assert main(["split", str(folder), "--seed", "1", "--overwrite"]) == 0
    assert (folder / "metadata.csv").read_bytes() != before


@pytest.mark.parametrize("given", ["train", "train=much", "train=0.5,tset=0.5", "train=0.5"])
def test_wrong_fractions_change_nothing(folder: Path, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "metadata.csv").read_bytes()
    try:
        code = main(["split", str(folder), "--fractions", given])
    except SystemExit as stop:  # argparse's own way out
        code = int(stop.code or 0)
    assert code in (2, 3)
    assert "train" in capsys.readouterr().err
    assert (folder / "metadata.csv").read_bytes() == before
