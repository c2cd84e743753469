"""Photos in, verdict out, through the commands as a user types them: the README's line from end to
end, in small."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from realdamage import Detector
from realdamage.commands import cli
from realdamage.core.model_file import read_model_file
from realdamage.data.manifest import read_manifest
from realdamage.evaluation.predictions import FURTHER_COLUMNS, PREDICTION_COLUMNS, read_predictions

NETWORK = (
    "model.backbone=test_vit",
    "model.pretrained=false",
    "model.tile=64",
    "model.overlap=16",
)


@pytest.fixture
def command(run_command: Callable[..., Any]) -> Callable[..., str]:
    """Runs a command that must end well; gives what it printed."""

    def run(name: str, *arguments: str) -> str:
        done = run_command(name, *arguments)
        assert done.code == 0, done.err
        return str(done.out)

    return run


@pytest.mark.slow
def test_photos_in_verdict_out(
    command: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = ("recipe.source.per_source=5", "recipe.source.crop=128", "recipe.workers=1")
    assert "photos/s" in command("synthesize", "+recipe=quickstart", "out=data", *small)
    table = read_manifest(tmp_path / "data").table
    assert set(table["split"]) == {"train", "val", "test", "policy"}

    run = ("name=tiny", "data.root=data", "demo=true", "trainer.max_epochs=1", *NETWORK)
    out = command("train", *run)
    assert "next: realdamage-export checkpoint=" in out
    assert {"best.ckpt", "last.ckpt", "config.yaml", "logs"} <= {
        path.name for path in (tmp_path / "out/tiny").iterdir()
    }

    assert "largest difference from torch" in command("export", "checkpoint=out/tiny/best.ckpt")
    model = tmp_path / "out/tiny/model.onnx"
    assert not list(model.parent.glob("*.data")), "an external data file is next to the model"

    # An untrained network may rank the few photos of val upside down, which `calibrate` refuses;
    # then the gate worked.
    code = cli.main(
        ["calibrate", str(model), "--manifest", "data", "--fpr", "0.1", "--miss", "0.1"]
    )
    _, metadata, _ = read_model_file(model)
    assert code == (3 if metadata.calibration is None else 0)
    assert metadata.demo
    assert "house" in metadata.training["generators"]
    assert metadata.training["manifest_sha256"]

    scores = {}
    for checkpoint in ("best.ckpt", "model.onnx"):
        arguments = (
            f"checkpoint=out/tiny/{checkpoint}",
            "data.root=data",
            f"name=eval-{checkpoint[:4]}",
        )
        printed = command("evaluate", *arguments)
        assert "AUROC" in printed
        assert "from the files' size, bytes and tables alone" in printed
        folder = tmp_path / f"out/eval-{checkpoint[:4]}"
        predictions = read_predictions(folder / "predictions.csv")
        assert tuple(predictions.columns) == (*PREDICTION_COLUMNS, *FURTHER_COLUMNS)
        assert len(predictions) == (table["split"] == "test").sum()
        assert json.loads((folder / "metrics.json").read_text())["run"]["split"] == "test"
        scores[checkpoint] = predictions["score"]
    worst = (scores["best.ckpt"] - scores["model.onnx"]).abs().max()
    assert worst < 1e-3, f"torch and ONNX scores differ by {worst:.1e}"

    photos = [f"data/{name}" for name in table.loc[table["split"] == "test", "file_name"][:2]]
    capfd.readouterr()
    assert (
        cli.main(
            ["predict", *photos, "--model", str(model), "--heatmap", "maps", "--format", "csv"]
        )
        == 0
    )
    rows = list(csv.DictReader(capfd.readouterr().out.splitlines()))
    assert [row["file_name"] for row in rows] == photos
    assert {row["outcome"] for row in rows} <= {"real", "review"}, (
        "a demo model said synthetic unasked"
    )
    assert len(list((tmp_path / "maps").glob("*.png"))) == 2
    verdict = Detector.load(model).predict((tmp_path / photos[0]).read_bytes())
    expected = pd.Series(
        scores["model.onnx"].to_numpy(), index=table.loc[table["split"] == "test", "file_name"]
    )
    assert verdict.score == pytest.approx(expected[photos[0].removeprefix("data/")], abs=1e-5)
