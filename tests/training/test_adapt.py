"""What learns and how fast: every adapter gets a gradient, merging changes nothing, lower blocks
learn slower."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import nn

from realdamage.errors import ConfigError
from realdamage.schema import AdaptConfig, ModelConfig
from realdamage.training.adapt import adapt_network, merge_adapters, parameter_groups
from realdamage.training.network import EvidenceViT, build_network

BACKBONES = (
    "test_vit",
    "vit_lite",
    "vit_pe_spatial_tiny_patch16_512.fb",
)  # the last is one of timm's Eva models
MERGE_TOLERANCE = 1e-5


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., EvidenceViT]:
    """`shallow(name)`: the network around a timm backbone of two blocks."""
    create = timm.create_model

    def make(backbone: str, **options: Any) -> EvidenceViT:
        monkeypatch.setattr(
            timm,
            "create_model",
            lambda name, **given: create(name, **{**given, "depth": 2, **options}),
        )
        torch.manual_seed(0)
        return build_network(ModelConfig(backbone, 64, False))

    return make


def tiles(count: int = 4) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def loss(network: EvidenceViT) -> torch.Tensor:
    logit, evidence = network(tiles())
    return (logit - 3.0).square().mean() + (evidence + 2.0).square().mean()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_adapter_gets_a_gradient(backbone: str, shallow) -> None:
    network = shallow(backbone)
    adapt_network(network, AdaptConfig("lora", rank=2))
    adapters = {name: p for name, p in network.backbone.named_parameters() if "lora_" in name}
    assert len(adapters) == 2 * 2 * 4  # A and B, two blocks, qkv, proj, fc1 and fc2
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(2):  # B starts at zero, so A gets its first gradient in the second step
        optimizer.zero_grad()
        loss(network).backward()
        optimizer.step()
    silent = [name for name, p in adapters.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    frozen = [p for name, p in network.backbone.named_parameters() if "lora_" not in name]
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    assert all(
        p.grad is not None
        for head in (network.patch_head, network.tile_head)
        for p in head.parameters()
    )


@pytest.mark.parametrize("backbone", BACKBONES)
def test_merging_leaves_a_plain_network_with_the_same_outputs(backbone: str, shallow) -> None:
    network = shallow(backbone)
    plain = [name for name, _ in network.named_parameters()]
    adapt_network(network, AdaptConfig("lora", rank=2))
    before = [output.detach() for output in network.eval()(tiles())]
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    adapted = [output.detach() for output in network(tiles())]
    assert (
        max(float((a - b).abs().max()) for a, b in zip(before, adapted, strict=True))
        > 100 * MERGE_TOLERANCE
    )
    merge_adapters(network)
    merged = [output.detach() for output in network(tiles())]
    difference = max(float((a - b).abs().max()) for a, b in zip(adapted, merged, strict=True))
    print(
        f"{backbone}: largest difference after merging {difference:.1e} (allowed "
        f"{MERGE_TOLERANCE:g})"
    )
    assert difference < MERGE_TOLERANCE
    assert [name for name, _ in network.named_parameters()] == plain
    assert not [
        name
        for name, module in network.named_modules()
        if type(module).__module__.startswith("peft")
    ]


@pytest.mark.parametrize("strategy", ["head", "lora"])
@pytest.mark.parametrize("backbone", ["test_vit", "vit_lite"])
def test_a_step_changes_nothing_but_heads_and_adapters(
    strategy: Any, backbone: str, shallow
) -> None:
    """Statistics of batch norms included, which change in a forward pass; also after a validation
    in between."""
    network = shallow(backbone)
    adaptation = AdaptConfig(strategy, rank=2, dropout=0.5)
    adapt_network(network, adaptation)
    network.eval()
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW(parameter_groups(network, adaptation, 1e-2, 0.05))
    for _ in range(2):  # B starts at zero, so A changes in the second step
        optimizer.zero_grad()
        loss(network).backward()
        optimizer.step()
    changed = {
        name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {
        name
        for name in before
        if "lora_" in name or name.split(".")[0] in ("patch_head", "tile_head")
    }
    dropouts = [
        m
        for name, m in network.named_modules()
        if "lora_dropout" in name and isinstance(m, nn.Dropout)
    ]
    assert len(dropouts) == (8 if strategy == "lora" else 0)
    assert all(module.training for module in dropouts)


def test_drop_path_is_off_where_the_backbone_is_frozen(shallow) -> None:
    for strategy, still in (("head", True), ("lora", False), ("full", False)):
        network = shallow("test_vit", drop_path_rate=0.5)
        adapt_network(network, AdaptConfig(strategy, rank=2))
        torch.manual_seed(0)
        assert torch.equal(network(tiles(32))[0], network(tiles(32))[0]) == still


@pytest.mark.parametrize("backbone", BACKBONES)
def test_lower_blocks_learn_slower(backbone: str, shallow) -> None:
    network = shallow(backbone)
    groups = parameter_groups(
        network, AdaptConfig("full", layer_decay=0.5), lr=1.0, weight_decay=0.1
    )
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    names = {
        name: rate[id(p)] for name, p in network.named_parameters()
    }  # every parameter is in some group
    assert len(rate) == sum(len(group["params"]) for group in groups)  # and in one only
    embed, first, second = (
        {value for name, value in names.items() if name.startswith(f"backbone.{part}.")}
        for part in ("patch_embed", "blocks.0", "blocks.1")
    )
    heads = {value for name, value in names.items() if not name.startswith("backbone.")}
    assert [len(rates) for rates in (embed, first, second, heads)] == [1, 1, 1, 1]
    assert embed.pop() < first.copy().pop() < second.pop() <= heads.pop() == 1.0
    assert first.pop() == pytest.approx(0.5)


def test_without_decay_all_learn_alike_and_biases_and_norms_do_not_decay(shallow) -> None:
    network = shallow("test_vit")
    groups = parameter_groups(network, AdaptConfig("full"), lr=0.1, weight_decay=0.05)
    assert {group["lr"] for group in groups} == {0.1}
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in network.named_parameters():
        expected = parameter.ndim > 1 and name not in ("backbone.cls_token", "backbone.pos_embed")
        assert (id(parameter) in decayed) == expected, name


def test_adapters_all_learn_at_the_full_rate(shallow) -> None:
    network = shallow("test_vit")
    adapt = AdaptConfig("lora", rank=2, layer_decay=0.5)
    adapt_network(network, adapt)
    groups = parameter_groups(network, adapt, lr=0.1, weight_decay=0.05)
    grouped = {id(p) for group in groups for p in group["params"]}
    assert grouped == {id(p) for p in network.parameters() if p.requires_grad}
    assert {group["lr"] for group in groups} == {0.1}


def test_adapters_need_blocks(shallow) -> None:
    network = shallow("test_vit")
    network.backbone.blocks = nn.Sequential()
    with pytest.raises(ConfigError, match="blocks"):
        adapt_network(network, AdaptConfig("lora"))


@pytest.mark.parametrize("factor", [0.0, 0.03, 1.0])
def test_the_stem_learns_at_its_own_rate(factor: float) -> None:
    network = build_network(ModelConfig("vit_lite", 64, False))
    adaptation = AdaptConfig(stem=factor)
    adapt_network(network, adaptation)
    rates = {
        id(p): g["lr"]
        for g in parameter_groups(network, adaptation, 1e-3, 0.05)
        for p in g["params"]
    }
    stem = list(network.backbone.patch_embed.backbone.parameters())
    found = {round(rates.get(id(parameter), -1.0), 9) for parameter in stem}
    assert found == {-1.0 if factor == 0.0 else round(1e-3 * factor, 9)}
    assert rates[id(network.backbone.patch_embed.proj.weight)] == pytest.approx(1e-3)
    learning = [p for p in network.parameters() if p.requires_grad]
    assert len(rates) == len(learning)  # each parameter that learns is in one group
