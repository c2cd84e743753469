"""realdamage-folds as it is typed, from photos to the table, in small; started again; and with what is off."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from realdamage.core.metadata import read_model_file
from realdamage.data.manifest import read_manifest, write_manifest

EXPERIMENT = """# @package _global_
data: {batch_units: 7, tiles_per_photo: 1, audit: warn} # without one generator, the source tells the label
model: {backbone: test_vit, pretrained: false, tile: 64, overlap: 16}
trainer: {max_epochs: 1, limit_train_batches: 1}
"""


@pytest.fixture
def typed(
    run_command: Callable[..., Any], tiny_manifest: Path, tmp_path: Path
) -> Callable[..., Any]:
    """Runs the command on 16 groups, with an experiment of the user's own in two stages."""
    (tmp_path / "mine/experiment").mkdir(parents=True)
    for name in ("first", "second"):
        (tmp_path / f"mine/experiment/{name}.yaml").write_text(EXPERIMENT)

    def run(*arguments: str) -> Any:
        shared = (f"data.root={tiny_manifest}", "column=generator", "stages=[first,second]")
        return run_command("folds", "--config-dir", "mine", *shared, *arguments)

    return run


def test_photos_in_table_out_and_again(
    typed: Callable[..., Any], write_set: Callable[..., Path], tmp_path: Path
) -> None:
    write_set(tmp_path / "photos", groups=32)
    arguments = (
        "data.root=photos",
        "stage_overrides={second: ['seed=1']}",
        "folds={nothing_even: [even]}",
        "+robustness.perturbations.soft={steps: [{step: blur, sigma: 2}]}",
    )
    done = typed(*arguments)
    assert done.code == 0, done.out + done.err
    root = tmp_path / "out/folds"
    fold = root / "nothing_even"
    for stage in ("first", "second"):
        assert (fold / stage / "best.ckpt").is_file()
        assert f"nothing_even, {stage}: epoch 1 of 1" in done.out
    _, metadata, _ = read_model_file(fold / "model.onnx")
    assert metadata.training["excluded"] == {"generator": ["even"]}
    assert metadata.training["generators"] == ["odd"]
    log = (fold / "log.txt").read_text()
    assert log.count("$ realdamage-train +experiment=") == 2
    assert "model.weights='out/folds/nothing_even/first/best.ckpt'" in log

    table = pd.read_csv(root / "folds.csv")
    own = table[table["fold"] == "nothing_even"]
    assert list(zip(own["left_out"], own["perturbation"], strict=True)) == [
        (part, name) for part in ("all", "even") for name in ("none", "soft")
    ]
    photos = read_manifest(tmp_path / "photos").table
    test = photos[photos["split"] == "test"]
    assert set(own["n_real"]) == {(test["label"] == "real").sum()}
    assert set(own["n_synthetic"]) == {(test["generator"] == "even").sum()}
    assert own["auroc"].between(0, 1).all()
    assert own["edit_higher"].between(0, 1).all()
    assert set(own["n_localised"]) == {
        ((test["generator"] == "even") & (test["kind"] == "ai_region")).sum()
    }
    assert (own["best_f1"] >= own["baseline_f1"] - 1e-9).all()
    assert table.loc[0, "command"].startswith("realdamage-folds data.root=")
    assert yaml.safe_load((fold / "second/config.yaml").read_text())["seed"] == 1
    assert (root / "folds.md").read_text() in done.out

    again = typed(*arguments)
    assert again.code == 0, again.err
    assert (fold / "log.txt").read_text() == log, "a finished fold was worked on again"
    changed = typed(*arguments, "overrides=['model.lr=0.5']")
    assert changed.code == 2
    assert "was trained with other settings: model.lr was 0.001, now 0.5" in changed.err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["colum=family"], 2, "did you mean column?"),
        (["column=famly"], 2, "has no such column"),
        (["folds={f: [evn]}"], 2, "has no generator 'evn'. Did you mean 'even'?"),
        (
            ["folds=[even,odd]"],
            2,
            "folds=['even', 'odd']: write a list under each name, as in folds={NAME:",
        ),
        (["folds={f: even}"], 2, "folds={'f': 'even'}: write a list under each name"),
        (
            ["stage_overrides={frst: []}"],
            2,
            "stage_overrides.frst: not one of the stages first, second",
        ),
        (["stages=[frst]"], 2, "did you mean experiment=first?"),
        (["jobs=0"], 2, "jobs=0: at least 1"),
        (["limit=1"], 2, "limit=1: at least 2"),
        (["column=family"], 2, "has 1 family of synthetic photos; at least 2"),
        (["robustness=twelv"], 2, "did you mean robustness=twelve?"),
        (["data.root=gone"], 2, "gone: no such file or folder"),
        (["overrides=[model.lr]"], 2, "model.lr"),
    ],
)
def test_what_is_off_is_named_before_anything_is_trained(
    arguments: list[str], code: int, told: str, typed: Callable[..., Any], tmp_path: Path
) -> None:
    done = typed(*arguments)
    assert done.code == code
    assert told in done.err
    assert "Traceback" not in done.err
    assert not list((tmp_path / "out").rglob("log.txt"))


def test_a_fold_that_fails_is_named_with_exit_code_1(
    typed: Callable[..., Any], tiny_manifest: Path, tmp_path: Path
) -> None:
    """Where `even` is in the test only, nothing is left to train on without `odd`."""
    photos = shutil.copytree(tiny_manifest, tmp_path / "photos")
    table = read_manifest(photos).table
    write_manifest(
        photos,
        table[
            (table["label"] == "real") | (table["split"] == "test") | (table["generator"] == "odd")
        ],
    )
    done = typed(f"data.root={photos}", "folds={f: [odd]}", "stages=[first]")
    assert done.code == 1
    assert "error: f: first ended with exit code 3" in done.err
    assert "f, first: error: " in done.out
    assert "both labels" in (tmp_path / "out/folds/f/log.txt").read_text()
