"""The command that makes the package's own codecs learns from train photos only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from realdamage.data.manifest import write_manifest
from realdamage.synthesis.autoencoders import HOUSE_CODECS, HouseCodecSpec, load_house_codec


def test_the_shipped_codecs_are_those_that_the_command_makes(train_codec: ModuleType) -> None:
    assert {name: load_house_codec(name).spec for name in HOUSE_CODECS} == train_codec.SPECS


@pytest.mark.slow
def test_the_command_trains_one_from_train_photos_and_the_loss_falls(
    train_codec: ModuleType,
    tmp_path: Path,
    photo_factory: Callable[..., np.ndarray],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = HouseCodecSpec(1, 3, 4)
    monkeypatch.setitem(train_codec.SPECS, "house", spec)
    for seed in range(4):
        Image.fromarray(photo_factory(80, 90, seed)).save(tmp_path / f"{seed}.png")
    splits = ["train", "train", "train", "test"]
    rows = [{"file_name": f"{i}.png", "label": "real", "split": s} for i, s in enumerate(splits)]
    write_manifest(tmp_path, pd.DataFrame(rows))
    (tmp_path / "3.png").write_bytes(b"locked away: reading it fails")
    output = tmp_path / "codec.safetensors"
    arguments = ["house", "--output", str(output), "--photos", str(tmp_path)]
    assert train_codec.main([*arguments, "--steps", "20", "--batch", "4"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "loss" in line]
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    assert load_house_codec(output).spec == spec
    write_manifest(tmp_path, pd.DataFrame(rows).assign(split="test"))
    assert train_codec.main(arguments) == 3
