"""The codec engine repaints what it is told to and nothing else, with every sort of weights that it takes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from realdamage.core.decode import decode
from realdamage.errors import MissingExtraError, SynthesisError
from realdamage.synthesis import codec as codecs
from realdamage.synthesis.codec import Codec, _autoencoder_config
from realdamage.synthesis.house_codec import (
    HouseCodec,
    HouseCodecSpec,
    load_house_codec,
    save_house_codec,
)
from realdamage.synthesis.taef2 import Taef2

SHARED = Path(__file__).parents[3] / "shared"
RGB = np.random.default_rng(0).integers(0, 256, (90, 118, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec of ours with random weights; so small that its pictures are rubbish, which is easy to see."""
    path = tmp_path_factory.mktemp("codec") / "tiny.safetensors"
    save_house_codec(HouseCodec(HouseCodecSpec(stages=2, latent=2, width=4)), path)
    return path


def test_outside_of_the_blend_every_byte_stays(tiny_weights: Path) -> None:
    region = np.zeros((90, 118), np.bool_)
    region[30:50, 40:70] = True
    edit = Codec(str(tiny_weights), "tiny", "tiny").regenerate(
        RGB, region, np.random.default_rng(0)
    )
    assert edit.mask[region].all()
    assert 600 < edit.mask.sum() < 3000
    far = np.ones_like(region)
    far[:70, 20:95] = False
    assert np.array_equal(edit.rgb[far], RGB[far])
    assert np.abs(edit.rgb[region].astype(int) - RGB[region]).mean() > 5


def test_the_whole_photo_keeps_its_size_and_is_all_mask(tiny_weights: Path) -> None:
    edit = Codec(str(tiny_weights), "tiny", "tiny").apply(RGB, np.random.default_rng(0))
    assert edit.rgb.shape == RGB.shape
    assert edit.rgb.dtype == np.uint8
    assert edit.mask.all()


def test_taef2_is_known_by_its_file_name_and_keys(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = Taef2().state_dict()
    assert len(weights) == 158
    assert sum(value.numel() for value in weights.values()) == pytest.approx(2.68e6, rel=0.01)
    assert weights["encoder.11.pool.3.weight"].shape == (64, 256, 1, 1)
    assert weights["decoder.1.weight"].shape == (64, 32, 3, 3)
    save_file(
        {name: value.half() for name, value in weights.items()}, tmp_path / "taef2.safetensors"
    )
    found = Codec(str(tmp_path / "taef2.safetensors"), "taef2", "taef2").reconstruct(RGB[:32, :48])
    assert found.shape == (32, 48, 3)
    save_file({"decoder.1.weight": torch.zeros(1)}, tmp_path / "taef2.safetensors")
    with pytest.raises(SynthesisError, match=r"taef2\.safetensors"):
        Codec(str(tmp_path / "taef2.safetensors"), "taef2", "taef2")


@pytest.mark.shared
@pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the codecs that lie beside the checkout in ../shared"
)
def test_taef2_gives_back_what_a_photo_shows() -> None:
    codec = Codec(str(SHARED / "codecs/taef2/taef2.safetensors"), "taef2", "taef2")
    photo = decode(next((SHARED / "photos/trashnet").glob("*.jpg")))[:128, :128]
    changed = np.abs(codec.reconstruct(photo).astype(int) - photo)
    assert 0.5 < changed.mean() < 12  # grey levels


def test_an_empty_region_is_refused(tiny_weights: Path) -> None:
    with pytest.raises(SynthesisError, match="region is empty"):
        Codec(str(tiny_weights), "t", "t").regenerate(
            RGB, np.zeros((90, 118), np.bool_), np.random.default_rng(0)
        )


def tiny_autoencoder(name: str) -> Any:
    diffusers = pytest.importorskip("diffusers", reason='the extra "synth" is not installed')
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    small: dict[str, dict[str, Any]] = {
        "AutoencoderTiny": dict.fromkeys(("encoder_block_out_channels", "decoder_block_out_channels"), (8,) * 4),
        "AutoencoderKL": {"block_out_channels": (8, 8), "norm_num_groups": 4, **blocks},
        "AsymmetricAutoencoderKL": {
            "down_block_out_channels": (8, 8), "up_block_out_channels": (8, 8), "norm_num_groups": 4, **blocks
        },
        "VQModel": {"block_out_channels": (8, 8), "norm_num_groups": 4, "num_vq_embeddings": 16, **blocks},
        "AutoencoderDC": {  # the latent of an SD codec is 8 times smaller, that of this one 32 times
            "latent_channels": 4,
            **dict.fromkeys(("encoder_block_types", "decoder_block_types"), ("ResBlock",) * 6),
            **dict.fromkeys(("encoder_block_out_channels", "decoder_block_out_channels"), (8,) * 6),
            **dict.fromkeys(("encoder_layers_per_block", "decoder_layers_per_block"), (1,) * 6),
            **dict.fromkeys(("encoder_qkv_multiscales", "decoder_qkv_multiscales"), ((),) * 6),
        },
        "AutoencoderKLQwenImage": {
            "base_dim": 8, "z_dim": 2, "dim_mult": [1] * 4, "num_res_blocks": 1, "latents_mean": [0.0] * 2,
            "latents_std": [1.0] * 2,
        },
    }  # fmt: skip
    return getattr(diffusers, name)(**small[name])


@pytest.mark.parametrize(
    "name",
    [
        "AutoencoderTiny",
        "AutoencoderKL",
        "AsymmetricAutoencoderKL",
        "VQModel",
        "AutoencoderDC",
        "AutoencoderKLQwenImage",
    ],
)
def test_folders_of_diffusers_weights(name: str, tmp_path: Path) -> None:
    tiny_autoencoder(name).save_pretrained(tmp_path / "weights")
    codec = Codec(str(tmp_path / "weights"), "g", "f")
    again = Codec(str(tmp_path / "weights"), "g", "f")
    repainted = codec.reconstruct(RGB)
    assert repainted.shape == RGB.shape
    assert np.array_equal(repainted, again.reconstruct(RGB))
    assert not np.array_equal(repainted, RGB)


def test_the_autoencoder_inside_a_whole_pipeline(inpainting_model: str, tmp_path: Path) -> None:
    whole = Codec(inpainting_model, "g", "f").reconstruct(RGB)
    assert np.array_equal(whole, Codec(f"{inpainting_model}/vae", "g", "f").reconstruct(RGB))
    with pytest.raises(SynthesisError, match=r"no config\.json or vae/config\.json"):
        Codec(str(tmp_path), "g", "f")


def test_the_hub_is_asked_for_the_autoencoder_of_a_pipeline(
    inpainting_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip(
        "huggingface_hub", reason='the extra "synth" is not installed'
    )
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    asked: list[str] = []

    def download(model: str, file: str) -> str:
        asked.append(file)
        if file == "config.json":
            raise EntryNotFoundError("404")
        return f"{inpainting_model}/{file}"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert _autoencoder_config("m/m", None) == Path(inpainting_model) / "vae" / "config.json"
    assert asked == ["config.json", "vae/config.json"]

    def blocked(model: str, file: str) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", blocked)
    monkeypatch.setattr(codecs, "hub_answers", lambda: True)
    with pytest.raises(
        SynthesisError, match=r"codec weights m/m could not be loaded.*hf download m/m"
    ):
        Codec("m/m", "g", "f")


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub = pytest.importorskip(
        "huggingface_hub", reason='the extra "synth" is not installed'
    )
    asked: list[Any] = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *file: asked.append(file))
    monkeypatch.setattr(
        huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1"
    )  # nothing listens there
    with pytest.raises(
        SynthesisError, match=r"codec weights m/m could not be loaded.*hf download m/m"
    ):
        Codec("m/m", "g", "f")
    assert asked == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such folder"),
        ("{}", "could not be loaded"),
        ('{"_class_name": "UNet2DModel"}', "a UNet2DModel"),
    ],
)
def test_weights_that_are_none_are_named(tmp_path: Path, content: str | None, message: str) -> None:
    pytest.importorskip("diffusers", reason='the extra "synth" is not installed')
    folder = tmp_path / "weights"
    if content is not None:
        folder.mkdir()
        (folder / "config.json").write_text(content)
    with pytest.raises(SynthesisError, match=message):
        Codec(str(folder), "g", "f")


def test_without_diffusers_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r"realdamage\[synth\]"):
        Codec(str(tmp_path), "g", "f")


def test_a_file_that_is_no_codec_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"not safetensors")
    with pytest.raises(SynthesisError, match="not a house codec"):
        load_house_codec(path)


def test_the_shipped_codec_paints_a_photo_that_still_looks_like_it(photo_factory: object) -> None:
    codec = load_house_codec()
    size = sum(p.numel() for p in codec.parameters()) * 2
    assert size < 1_000_000
    rgb = photo_factory(96, 128, 0)  # type: ignore[operator]
    repainted = Codec("house", "house", "house").reconstruct(rgb)
    error = np.abs(repainted.astype(int) - rgb).mean()
    assert 0.5 < error < 12, f"mean difference of {error:.1f} grey levels"
