"""The command that makes the package's own codecs learns from train photos only."""

import runpy
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from realdamage.data.manifest import write_manifest
from realdamage.synthesis.autoencoders import HOUSE_CODECS, load_house_codec

TOOL = runpy.run_path(str(Path(__file__).with_name("train_codec.py")))


@pytest.mark.slow
def test_a_codec_learns_from_train_photos_only(tmp_path, photo_factory):
    for seed in range(3):
        Image.fromarray(photo_factory(80, 90, seed)).save(tmp_path / f"{seed}.png")
    (tmp_path / "3.png").write_bytes(b"locked away: reading it fails")
    splits = ["train", "train", "train", "test"]
    rows = [{"file_name": f"{i}.png", "label": "real", "split": s} for i, s in enumerate(splits)]
    write_manifest(tmp_path, pd.DataFrame(rows))
    output = tmp_path / "codec.safetensors"
    arguments = ["house", "--output", str(output), "--photos", str(tmp_path), "--batch", "4"]
    assert TOOL["main"]([*arguments, "--steps", "2"]) == 0
    assert load_house_codec(output).spec == TOOL["SPECS"]["house"]
    assert {name: load_house_codec(name).spec for name in HOUSE_CODECS} == TOOL["SPECS"]
    write_manifest(tmp_path, pd.DataFrame(rows).assign(split="test"))
    assert TOOL["main"](arguments) == 3
