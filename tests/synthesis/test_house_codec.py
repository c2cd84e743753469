"""The codec that ships: small, whole when read back, and lossy as a generator's codec is."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from realdamage.core.decode import decode
from realdamage.data.manifest import write_manifest
from realdamage.errors import SynthesisError
from realdamage.synthesis import train_codec
from realdamage.synthesis.house_codec import (
    BOTTLENECKS,
    HOUSE_CODECS,
    UPSAMPLERS,
    HouseCodec,
    HouseCodecSpec,
    load_house_codec,
    save_house_codec,
)

SPEC = HouseCodecSpec(stages=3, latent=2, width=8)

SAMPLE = Path(__file__).parents[2] / "data/sample"


def tiny() -> HouseCodec:
    torch.manual_seed(0)
    return HouseCodec(SPEC).eval()


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    codec = tiny()
    save_house_codec(codec, tmp_path / "codec.safetensors")
    loaded = load_house_codec(tmp_path / "codec.safetensors")
    assert loaded.spec == SPEC
    assert not loaded.training
    x = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        difference = float((codec(x) - loaded(x)).abs().max())
    print(f"largest difference after half precision {difference:.1e}")
    assert difference < 5e-3
    assert [path.name for path in tmp_path.iterdir()] == ["codec.safetensors"]


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_it_squeezes_by_its_stride_and_gives_the_size_back(stages: int) -> None:
    codec = HouseCodec(HouseCodecSpec(stages=stages, latent=3, width=4))
    x = torch.zeros(2, 3, 32, 48)
    assert codec.stride == 2**stages
    assert codec.encoder(x).shape == (2, 3, 32 // codec.stride, 48 // codec.stride)
    assert codec(x).shape == x.shape


@pytest.mark.parametrize("upsample", UPSAMPLERS)
@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
@pytest.mark.parametrize("shortcut", [False, True])
def test_every_architecture_keeps_the_size_and_learns(
    upsample: str, bottleneck: str, shortcut: bool
) -> None:
    codec = HouseCodec(HouseCodecSpec(2, 4, 4, upsample, bottleneck, shortcut))
    x = torch.zeros(1, 3, 16, 32)
    assert codec(x).shape == x.shape
    codec(x).square().mean().backward()
    assert all(parameter.grad is not None for parameter in codec.parameters())


def test_a_quantised_latent_has_few_values() -> None:
    codec = HouseCodec(HouseCodecSpec(2, 4, 4, bottleneck="quantised"))
    latent = codec._squeezed(torch.randn(1, 4, 8, 8) * 10)
    assert set(latent.unique().tolist()) <= set(range(-4, 5))


def test_wrong_architectures_are_named() -> None:
    with pytest.raises(SynthesisError, match="upsample='cubic': allowed are nearest"):
        HouseCodecSpec(upsample="cubic")
    with pytest.raises(SynthesisError, match="latent=2: must be at least 3"):
        HouseCodecSpec(latent=2, shortcut=True)


def test_the_house_has_four_families_more_that_share_no_architecture() -> None:
    specs = [load_house_codec(name).spec for name in HOUSE_CODECS if name != "house"]
    assert {spec.upsample for spec in specs} == set(UPSAMPLERS)
    assert {2**spec.stages for spec in specs} == {4, 8, 16}
    assert {spec.bottleneck for spec in specs} == set(BOTTLENECKS)
    assert specs == [train_codec.SPECS[name] for name in HOUSE_CODECS if name != "house"]


@pytest.mark.parametrize("name", HOUSE_CODECS)
def test_the_shipped_files_are_small_and_lose_detail_but_not_the_photo(name: str) -> None:
    assert (files("realdamage.synthesis") / HOUSE_CODECS[name]).stat().st_size < 1_000_000  # type: ignore[attr-defined]
    codec = load_house_codec(name)
    rgb = decode(SAMPLE / "photos/000001_original.jpg")[:176, :176].copy()
    photo = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        repainted = codec(photo)
    error = float((repainted - photo).abs().mean())
    detail = [float(x.diff(dim=3).abs().mean()) for x in (photo, repainted)]
    assert error < 0.1
    assert detail[1] < 0.9 * detail[0]  # the noise is gone


@pytest.mark.parametrize("content", ["nothing", "no spec", "another spec"])
def test_what_is_no_house_codec_says_how_to_make_one(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    if content == "no spec":
        save_file({"a": torch.zeros(1)}, path)
    elif content == "another spec":
        save_file(
            tiny().state_dict(), path, metadata={"spec": '{"stages": 1, "latent": 2, "width": 8}'}
        )
    with pytest.raises(
        SynthesisError, match=r"x\.safetensors: not a house codec.*train_codec CODEC --output"
    ):
        load_house_codec(path)


def test_the_command_trains_one_and_the_loss_falls(
    tmp_path: Path,
    photo_factory: Callable[..., np.ndarray],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny_spec = HouseCodecSpec(1, 3, 4)
    monkeypatch.setitem(train_codec.SPECS, "house", tiny_spec)
    for seed in range(4):
        Image.fromarray(photo_factory(80, 90, seed)).save(tmp_path / f"{seed}.png")
    splits = ["train", "train", "train", "test"]
    rows = [
        {"file_name": f"{i}.png", "label": "real", "split": split} for i, split in enumerate(splits)
    ]
    write_manifest(tmp_path, pd.DataFrame(rows))
    (tmp_path / "3.png").write_bytes(b"locked away: whoever reads it fails")
    output = tmp_path / "codec.safetensors"
    arguments = [
        "house",
        "--output",
        str(output),
        "--photos",
        str(tmp_path),
        "--steps",
        "20",
        "--batch",
        "4",
    ]
    assert train_codec.main(arguments) == 0
    printed = capsys.readouterr().out
    losses = [
        float(line.split("loss ")[1].split()[0]) for line in printed.splitlines() if "loss" in line
    ]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    assert load_house_codec(output).spec == tiny_spec


def test_the_command_takes_no_locked_photo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (80, 80)).save(tmp_path / "a.png")
    write_manifest(
        tmp_path, pd.DataFrame([{"file_name": "a.png", "label": "real", "split": "test"}])
    )
    assert (
        train_codec.main(["house", "--output", str(tmp_path / "x"), "--photos", str(tmp_path)]) == 3
    )
    assert "no real photo of the train split" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
