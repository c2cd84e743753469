"""realdamage-evaluate: a checkpoint and its exported file agree, and its output files are right."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from realdamage.core.model_file import read_model_file, split_metadata, write_model_file
from realdamage.core.policy import Calibration, Policy
from realdamage.data.manifest import read_manifest
from realdamage.evaluation.predictions import FURTHER_COLUMNS, PREDICTION_COLUMNS, read_predictions
from realdamage.evaluation.robustness import Suite

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def calibrated(tiny_onnx, tmp_path_factory):
    """`tiny_onnx` with a steep calibration, so that a difference of the score shows in the
    probability."""
    data, metadata, _ = read_model_file(tiny_onnx)
    policy = Policy(
        t_synthetic=0.5, t_real=-0.5, fpr=0.1, miss=0.1, negatives="damaged", photos={"real": 4}
    )
    path = tmp_path_factory.mktemp("calibrated") / "model.onnx"
    write_model_file(
        path,
        data,
        replace(
            metadata, calibration=Calibration(slope=3.0, intercept=0.1, prior=0.5), policy=policy
        ),
    )
    return path


def test_checkpoint_and_onnx_give_the_same_predictions(
    run_command, tiny_run, calibrated, tiny_manifest, tmp_path
):
    found = {}
    for checkpoint in (tiny_run / "best.ckpt", calibrated):
        about = (f"checkpoint={checkpoint}", f"data.root={tiny_manifest}", "shortcuts=false")
        done = run_command("evaluate", *about, f"name={checkpoint.stem}")
        assert done.code == 0, done.err
        path = tmp_path / f"out/{checkpoint.stem}/predictions.csv"
        found[checkpoint.suffix] = read_predictions(path)
    torch_side, onnx_side = found[".ckpt"], found[".onnx"]
    columns = (*PREDICTION_COLUMNS, *FURTHER_COLUMNS)
    assert tuple(torch_side.columns) == tuple(onnx_side.columns) == columns
    same = ["file_name", "label", "kind", "generator", "group", "photo_sha256", "width", "height"]
    assert torch_side[same].equals(onnx_side[same])
    test = read_manifest(tiny_manifest).select(split="test").table
    assert torch_side["file_name"].tolist() == test["file_name"].tolist()
    _, metadata, graph_sha256 = read_model_file(calibrated)
    probability = [metadata.calibration.probability(score) for score in torch_side["score"]]
    difference = np.abs(onnx_side["probability"] - probability).max()
    print(f"largest difference of a probability {difference:.1e} (allowed {TOLERANCE:g})")
    assert difference < TOLERANCE
    assert torch_side["probability"].isna().all()  # a checkpoint has no calibration
    assert set(torch_side["outcome"]) == {"review"}
    assert set(onnx_side["graph_sha256"]) == {graph_sha256}


def test_split_format_and_what_the_run_writes_about_itself(
    run_command, calibrated, tiny_manifest, tmp_path
):
    options = ("data.split=val", "format=parquet", "prior=0.1")
    done = run_command(
        "evaluate", f"checkpoint={calibrated}", f"data.root={tiny_manifest}", *options
    )
    assert done.code == 0, done.err
    folder = tmp_path / "out/evaluate"
    predictions = read_predictions(folder / "predictions.parquet")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert len(predictions) == 11
    assert metrics["run"]["split"] == "val"
    assert metrics["run"]["manifest_sha256"] == read_manifest(tiny_manifest).digest()
    assert all(metrics["per_generator"][name]["trained_on"] for name in ("even", "odd"))
    data, metadata, _ = read_model_file(calibrated)
    stored = json.loads(split_metadata(data)[1]["realdamage"])
    assert metrics["run"]["policy_sha256"] == stored["policy_sha256"]
    expected = [metadata.calibration.probability(score, 0.1) for score in predictions["score"]]
    assert predictions["probability"].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["robustness=standart"], 2, "did you mean robustness=standard?"),
        (["checkpoint=gone.onnx"], 2, "gone.onnx"),
        (["format=xlsx"], 2, "format=xlsx: allowed are csv, parquet"),
        (["data.split=null"], 2, "the model was trained on"),
    ],
)
def test_what_is_wrong_is_named(run_command, calibrated, tiny_manifest, arguments, code, told):
    about = (f"checkpoint={calibrated}", f"data.root={tiny_manifest}")
    done = run_command("evaluate", *about, *arguments)
    assert (done.code, told in done.err, "Traceback" in done.err) == (code, True, False)


def test_a_suite_is_scored_and_measured(run_command, calibrated, with_table, tmp_path):
    """Two perturbations of four, and a drawn part of the photos of a set without splits."""
    photos = with_table(lambda table: table.assign(split=""))
    left_out = [
        f"robustness.perturbations.chat_{name}=null" for name in ("twice", "50_50", "75_70")
    ]
    about = (f"checkpoint={calibrated}", f"data.root={photos}", "robustness=chat", *left_out)
    options = ("data.split=null", "data.limit=12", "shortcuts=false", "workers=1")
    done = run_command("evaluate", *about, *options)
    assert done.code == 0, done.err
    folder = tmp_path / "out/evaluate"
    predictions = read_predictions(folder / "predictions.csv")
    assert predictions["perturbation"].value_counts().to_dict() == {
        "": 12,
        "chat_full_75": 12,
        "chat_50_60": 12,
    }
    assert set(predictions.query("perturbation == 'chat_50_60'")["compression"]) == {60.0}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["n"] == metrics["run"]["limit"] == 12
    rows = {row["perturbation"]: row for row in metrics["robustness"]}
    assert {name: row["n"] for name, row in rows.items()} == {
        **{"clean": 12, "chat_full_75": 12, "chat_50_60": 12}
    }
    assert rows["clean"]["auroc"] == pytest.approx(metrics["auroc"])
    assert "Chat app, 0.5, JPEG 60" in done.out
    assert not (folder / ".parts").exists()


def test_an_evaluation_is_made_again_only_when_something_has_changed(
    run_command, calibrated, tiny_manifest, tmp_path, monkeypatch
):
    photos, model = tmp_path / "photos", tmp_path / "model.onnx"
    shutil.copytree(tiny_manifest, photos)
    shutil.copy(calibrated, model)
    scored = []
    score = Suite.score

    def counted(suite, **how):
        scored.append(len(suite.manifest))
        score(suite, **how)

    monkeypatch.setattr(Suite, "score", counted)
    arguments = ("evaluate", f"checkpoint={model}", f"data.root={photos}", "shortcuts=false")
    metrics = tmp_path / "out/evaluate/metrics.json"

    def again(*options):
        """How many photos were scored, and what was printed."""
        scored.clear()
        done = run_command(*arguments, "workers=1", *options)
        assert done.code == 0, done.err
        return sum(scored), done.out

    first = again()
    assert first[0] == 11
    written = metrics.read_bytes()
    nothing, printed = again("threads=1")
    assert (nothing, printed.startswith(first[1])) == (0, True)
    assert metrics.read_bytes() == written
    (metrics.parent / "report.html").unlink()
    assert again()[0] == 11
    # A photo, and the model.
    name = read_manifest(photos).select(split="test").table["file_name"][0]
    with Image.open(photos / name) as image:
        image.rotate(180).save(photos / name)
    assert again()[0] == 11
    data, metadata, _ = read_model_file(model)
    write_model_file(model, data, replace(metadata, policy=None))
    assert again()[0] == 11
