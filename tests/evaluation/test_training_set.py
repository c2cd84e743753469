"""Photos that a model was trained on are told apart from others, and nobody measures on them without knowing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from realdamage.data.manifest import Manifest, with_known_columns
from realdamage.errors import ConfigError
from realdamage.evaluation.training_set import is_training_set, trained_on_note


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    rows = [
        {"file_name": f"{row}.png", "label": "real", "split": split, "source": "abc"[row % 3]}
        for row, split in enumerate(splits)
    ]
    return Manifest(tmp_path, with_known_columns(pd.DataFrame(rows)))


def test_the_set_is_known_by_its_digest_less_what_was_left_out(manifest: Manifest) -> None:
    training = {"manifest_sha256": manifest.digest()}
    assert is_training_set(manifest, training)
    assert not is_training_set(manifest.select(split="test"), training)
    assert not is_training_set(manifest, {})
    left_out = (manifest.table["source"] == "a") & (manifest.table["split"] != "test")
    training = {
        "manifest_sha256": manifest.subset(~left_out).digest(),
        "excluded": {"source": ["a"]},
    }
    assert is_training_set(manifest, training)
    with pytest.raises(ConfigError, match="the model was trained on 4 of these 10 photos"):
        trained_on_note(manifest, manifest, training, None)
    never_seen = manifest.subset(left_out & (manifest.table["split"] == "train"))
    assert trained_on_note(manifest, never_seen, training, None) == ()


def test_training_photos_are_scored_only_when_asked_for(manifest: Manifest) -> None:
    training = {"manifest_sha256": manifest.digest()}
    with pytest.raises(
        ConfigError,
        match=r"data\.split=null: .* 6 of these 10 photos .*data\.split=test, data\.split=val;",
    ):
        trained_on_note(manifest, manifest, training, None)
    (note,) = trained_on_note(manifest, manifest.select(split="train"), training, "train")
    assert note.startswith("The model was trained on 6 of these 6 photos")
    for split in ("val", "test"):
        assert trained_on_note(manifest, manifest.select(split=split), training, split) == ()
    # Another set, such as other photos with splits of their own: nothing is known, nothing is refused.
    assert trained_on_note(manifest, manifest, {"manifest_sha256": "other"}, None) == ()


def test_it_is_said_first(
    run_command: Callable[..., Any], tiny_onnx: Path, tiny_manifest: Path, tmp_path: Path
) -> None:
    arguments = [
        f"checkpoint={tiny_onnx}",
        f"data.root={tiny_manifest}",
        "shortcuts=false",
        "workers=1",
    ]
    done = run_command("evaluate", *arguments, "data.split=train")
    assert done.code == 0, done.err
    assert done.out.startswith("The model was trained on ")
    assert "The model was trained on" in (tmp_path / "out/evaluate/report.html").read_text()
