"""realdamage-evaluate: a checkpoint and its exported file say the same; the files it writes hold what they should."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realdamage.data.manifest import read_manifest
from realdamage.evaluation.predictions import PREDICTION_COLUMNS, read_predictions
from realdamage.inference.metadata import read_model_file, write_model_file
from realdamage.inference.policy import Calibration, Policy

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def calibrated(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_onnx` with a steep calibration, so that a difference of the score shows in the probability."""
    data, metadata, _ = read_model_file(tiny_onnx)
    policy = Policy(t_synthetic=0.5, t_real=-0.5, fpr=0.1, miss=0.1, negatives="damaged", photos={"real": 4})
    path = tmp_path_factory.mktemp("calibrated") / "model.onnx"
    write_model_file(
        path, data, replace(metadata, calibration=Calibration(slope=3.0, intercept=0.1, prior=0.5), policy=policy)
    )
    return path


def test_checkpoint_and_onnx_give_the_same_predictions(
    run_command: Callable[..., Any], tiny_run: Path, calibrated: Path, tiny_manifest: Path, tmp_path: Path
) -> None:
    found = {}
    for checkpoint in (tiny_run / "best.ckpt", calibrated):
        done = run_command(
            "evaluate", f"checkpoint={checkpoint}", f"data.root={tiny_manifest}", f"name={checkpoint.stem}"
        )
        assert done.code == 0, done.err
        found[checkpoint.suffix] = read_predictions(tmp_path / f"out/{checkpoint.stem}/predictions.csv")
    torch_side, onnx_side = found[".ckpt"], found[".onnx"]
    assert tuple(torch_side.columns) == tuple(onnx_side.columns) == PREDICTION_COLUMNS
    same = ["file_name", "label", "kind", "generator", "group", "photo_sha256", "width", "height"]
    assert torch_side[same].equals(onnx_side[same])
    assert (
        torch_side["file_name"].tolist()
        == read_manifest(tiny_manifest).select(split="test").table["file_name"].tolist()
    )
    _, metadata, graph_sha256 = read_model_file(calibrated)
    probability = [metadata.calibration.probability(score) for score in torch_side["score"]]
    difference = np.abs(onnx_side["probability"] - probability).max()
    print(f"largest difference of a probability {difference:.1e} (allowed {TOLERANCE:g})")
    assert difference < TOLERANCE
    assert torch_side["probability"].isna().all()  # a checkpoint has no calibration
    assert set(torch_side["outcome"]) == {"review"}
    assert set(onnx_side["graph_sha256"]) == {graph_sha256}


def test_split_format_and_what_the_run_writes_about_itself(
    run_command: Callable[..., Any], calibrated: Path, tiny_manifest: Path, tmp_path: Path
) -> None:
    done = run_command(
        "evaluate",
        f"checkpoint={calibrated}",
        f"data.root={tiny_manifest}",
        "data.split=val",
        "format=parquet",
        "prior=0.1",
    )
    assert done.code == 0, done.err
    folder = tmp_path / "out/evaluate"
    predictions = read_predictions(folder / "predictions.parquet")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert len(predictions) == 11
    assert metrics["run"]["split"] == "val"
    assert metrics["run"]["manifest_sha256"] == read_manifest(tiny_manifest).digest()
    assert {name: row["trained_on"] for name, row in metrics["per_generator"].items() if name in ("even", "odd")} == {
        "even": True,
        "odd": True,
    }
    _, metadata, _ = read_model_file(calibrated)
    expected = [metadata.calibration.probability(score, 0.1) for score in predictions["score"]]
    assert predictions["probability"].tolist() == pytest.approx(expected)


def test_an_unreadable_photo_is_fatal_or_left_empty_as_one_says(
    run_command: Callable[..., Any], calibrated: Path, write_set: Callable[..., Path], tmp_path: Path
) -> None:
    root = write_set(tmp_path / "set")
    name = "photos/12_original.png"
    (root / name).write_bytes(b"")
    done = run_command("evaluate", f"checkpoint={calibrated}", f"data.root={root}", "shortcuts=false")
    assert done.code == 3
    assert name in done.err
    assert "Traceback" not in done.err
    done = run_command(
        "evaluate", f"checkpoint={calibrated}", f"data.root={root}", "shortcuts=false", "data.on_error=skip"
    )
    assert done.code == 0, done.err
    predictions = read_predictions(tmp_path / "out/evaluate/predictions.csv").set_index("file_name")
    assert predictions.loc[name, "reasons"] == "unreadable"
    assert predictions["score"].isna().sum() == 1


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["checkpoint=gone.onnx"], 3, "gone.onnx"),
        (["checkpoint=gone.ckpt"], 3, "gone.ckpt: no such file"),
        (["data.split=tset"], 3, "tset"),
        (["data.on_error=ignore"], 2, "data.on_error=ignore"),
        (["data.root=nowhere"], 3, "nowhere"),
        (["prior=2"], 2, "2"),
    ],
)
def test_what_is_off_is_named(
    run_command: Callable[..., Any], tiny_onnx: Path, calibrated: Path, tiny_manifest: Path, arguments, code, told
) -> None:
    done = run_command("evaluate", f"checkpoint={calibrated}", f"data.root={tiny_manifest}", *arguments)
    assert done.code == code
    assert told in done.err
    assert "Traceback" not in done.err
