"""The codec that ships: small, whole when read back, and lossy as a generator's codec is."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from realdamage.inference.errors import SynthesisError
from realdamage.synthesis import train_codec
from realdamage.synthesis.house_codec import SHIPPED, HouseCodec, HouseCodecSpec, load_house_codec, save_house_codec

SPEC = HouseCodecSpec(stages=3, latent=2, width=8)


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


def test_the_shipped_file_is_small_and_loses_detail_but_not_the_photo(photo_factory: Callable[..., np.ndarray]) -> None:
    assert (files("realdamage.synthesis") / SHIPPED).stat().st_size < 1_000_000  # type: ignore[attr-defined]
    codec = load_house_codec()
    photo = torch.from_numpy(photo_factory(96, 128, 3)).permute(2, 0, 1)[None].float() / 127.5 - 1
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
        save_file(tiny().state_dict(), path, metadata={"spec": '{"stages": 1, "latent": 2, "width": 8}'})
    with pytest.raises(SynthesisError, match=r"x\.safetensors: not a house codec.*train_codec --output"):
        load_house_codec(path)


def test_the_command_trains_one_and_the_loss_falls(
    tmp_path: Path, photo_factory: Callable[..., np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for seed in range(3):
        Image.fromarray(photo_factory(80, 90, seed)).save(tmp_path / f"photos/{seed}.png")
    output = tmp_path / "codec.safetensors"
    arguments = ["--output", str(output), "--photos", str(tmp_path / "photos"), "--steps", "20"]
    small = ["--stages", "1", "--latent", "3", "--width", "4"]
    assert train_codec.main([*arguments, *small]) == 0
    printed = capsys.readouterr().out
    losses = [float(line.split("loss ")[1].split()[0]) for line in printed.splitlines() if "loss" in line]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    assert load_house_codec(output).spec == HouseCodecSpec(1, 3, 4)


def test_the_command_names_a_folder_without_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert train_codec.main(["--output", str(tmp_path / "x"), "--photos", str(tmp_path / "empty")]) == 3
    assert "no JPEG, PNG or WebP" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
