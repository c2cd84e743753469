"""The codec engine repaints what it is asked to and nothing else, with every sort of weights that
it takes."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from realdamage.core.decode import decode
from realdamage.errors import SynthesisError
from realdamage.synthesis import autoencoders
from realdamage.synthesis.autoencoders import (
    HOUSE_CODECS,
    HouseCodec,
    HouseCodecSpec,
    Taef2,
    load_house_codec,
    save_house_codec,
)
from realdamage.synthesis.codec import Codec
from realdamage.synthesis.engine import GeneratorSettings, random_region

SHARED = Path(__file__).parents[3] / "shared"
SAMPLE = Path(__file__).parents[2] / "data/sample"
RGB = np.random.default_rng(0).integers(0, 256, (90, 118, 3), dtype=np.uint8)


def codec(weights):
    return Codec("g", GeneratorSettings(str(weights)), {})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A codec with random weights; so small that its pictures are rubbish, which is easy to see."""
    path = tmp_path_factory.mktemp("codec") / "tiny.safetensors"
    save_house_codec(HouseCodec(HouseCodecSpec(stages=2, latent=2, width=4)), path)
    return codec(path)


def test_outside_of_the_blend_every_byte_stays(tiny):
    region = np.zeros((90, 118), np.bool_)
    region[30:50, 40:70] = True
    rgb, mask = tiny.regenerate(RGB, region, np.random.default_rng(0))
    assert mask[region].all()
    assert 600 < mask.sum() < 3000
    far = np.ones_like(region)
    far[:70, 20:95] = False
    assert np.array_equal(rgb[far], RGB[far])
    assert np.abs(rgb[region].astype(int) - RGB[region]).mean() > 5
    with pytest.raises(SynthesisError):
        tiny.regenerate(RGB, np.zeros_like(region), np.random.default_rng(0))


def test_it_paints_only_if_damage_is_asked_for(photo_factory):
    engine, rgb = codec("house"), photo_factory(128, 160, 0)
    plain, torn, region = (
        engine.apply(rgb, kind, damage, np.random.default_rng(0))
        for kind, damage in (("ai_whole", ""), ("ai_whole", "torn"), ("ai_region", "torn"))
    )
    assert (plain.damage, torn.damage) == ("", "torn")
    assert plain.mask.all()
    assert torn.mask.all()
    assert 0 < (np.abs(plain.rgb.astype(int) - torn.rgb).max(axis=2) > 8).mean() < 0.7
    assert 0 < region.mask.mean() < 1
    assert (region.rgb[~region.mask] == rgb[~region.mask]).mean() > 0.5
    error = np.abs(plain.rgb.astype(int) - rgb).mean()
    assert 0.5 < error < 12, f"mean difference of {error:.1f} grey levels"
    with pytest.raises(SynthesisError, match="steps"):
        Codec("g", GeneratorSettings("house", options={"steps": 3}), {})


def test_random_regions_are_never_empty_and_never_all():
    shares = [random_region((120, 160), np.random.default_rng(seed)).mean() for seed in range(100)]
    assert min(shares) > 0
    assert max(shares) < 0.4
    assert np.std(shares) > 0.01


def test_taef2_is_known_by_its_file_name_and_keys(tmp_path):
    torch.manual_seed(0)
    weights = Taef2().state_dict()
    assert len(weights) == 158
    assert sum(value.numel() for value in weights.values()) == pytest.approx(2.68e6, rel=0.01)
    assert weights["encoder.11.pool.3.weight"].shape == (64, 256, 1, 1)
    assert weights["decoder.1.weight"].shape == (64, 32, 3, 3)
    path = tmp_path / "taef2.safetensors"
    save_file({name: value.half() for name, value in weights.items()}, path)
    assert codec(path).reconstruct(RGB[:32, :48]).shape == (32, 48, 3)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the codecs beside the checkout in ../shared")
def test_taef2_gives_back_what_a_photo_shows():
    photo = decode(SAMPLE / "photos/000004_original.jpg")[:128, :128]
    repainted = codec(SHARED / "codecs/taef2/taef2.safetensors").reconstruct(photo)
    assert 0.5 < np.abs(repainted.astype(int) - photo).mean() < 12  # grey levels


SMALL = {
    "AutoencoderTiny": {f"{half}_block_out_channels": (8,) * 4 for half in ("encoder", "decoder")},
    "AutoencoderKL": {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
    },
}


@pytest.mark.parametrize("name", SMALL)
def test_folders_of_diffusers_weights(name, tmp_path):
    diffusers = pytest.importorskip("diffusers", reason='the extra "synth" is not installed')
    getattr(diffusers, name)(**SMALL[name]).save_pretrained(tmp_path / "weights")
    repainted, again = (codec(tmp_path / "weights").reconstruct(RGB) for _ in range(2))
    assert repainted.shape == RGB.shape
    assert np.array_equal(repainted, again)
    assert not np.array_equal(repainted, RGB)


def test_weights_that_cannot_be_used_are_named(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason='the extra "synth" is not installed')
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:1")  # nothing listens there
    assert not autoencoders.hub_answers()
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    wrong = tmp_path / "taef2.safetensors"
    save_file({"decoder.1.weight": torch.zeros(1)}, wrong)
    for weights, code, said in (
        (tmp_path / "none", "no_weights", str(tmp_path / "none")),
        (empty, "bad_weights", str(empty)),
        (wrong, "bad_weights", str(wrong)),
        ("m/m", "bad_weights", "hf download m/m"),
    ):
        with pytest.raises(SynthesisError, match=said) as caught:
            codec(weights)
        assert caught.value.code == code


def test_what_is_saved_comes_back(tmp_path):
    torch.manual_seed(0)
    spec = HouseCodecSpec(stages=3, latent=2, width=8)
    saved = HouseCodec(spec).eval()
    save_house_codec(saved, tmp_path / "codec.safetensors")
    loaded = load_house_codec(tmp_path / "codec.safetensors")
    assert loaded.spec == spec
    assert not loaded.training
    x = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        assert float((saved(x) - loaded(x)).abs().max()) < 5e-3
    assert [path.name for path in tmp_path.iterdir()] == ["codec.safetensors"]


@pytest.mark.parametrize("name", HOUSE_CODECS)
def test_the_shipped_files_are_small_and_lose_detail_but_not_the_photo(name):
    size = (files("realdamage.synthesis") / HOUSE_CODECS[name]).stat().st_size
    assert size < 1_000_000
    photo = decode(SAMPLE / "photos/000001_original.jpg")[:176, :176]
    repainted = codec(name).reconstruct(photo)
    assert np.abs(repainted.astype(int) - photo).mean() < 20
    detail = [np.abs(np.diff(rgb.astype(int), axis=1)).mean() for rgb in (photo, repainted)]
    assert detail[1] < 0.97 * detail[0]
