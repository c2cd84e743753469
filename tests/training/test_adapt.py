"""What learns and how fast: every adapter gets a gradient, merging changes nothing, lower blocks
learn slower."""

import pytest
import timm
import torch
from torch import nn

from realdamage.schema import AdaptConfig, ModelConfig
from realdamage.training.adapt import adapt_network, merge_adapters, parameter_groups
from realdamage.training.network import build_network

# The last is one of timm's Eva models.
BACKBONES = ("test_vit", "vit_lite", "vit_pe_spatial_tiny_patch16_512.fb")
MERGE_TOLERANCE = 1e-5


@pytest.fixture
def shallow(monkeypatch):
    """`shallow(name)`: the network around a timm backbone of two blocks."""
    create = timm.create_model

    def make(backbone, **options):
        def stub(name, **given):
            return create(name, **{**given, "depth": 2, **options})

        monkeypatch.setattr(timm, "create_model", stub)
        torch.manual_seed(0)
        return build_network(ModelConfig(backbone, 64, False))

    return make


def tiles(count=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=generator)


def train(network, optimizer):
    """Two steps: an adapter's B starts at zero, so that A gets its first gradient in the second."""
    for _ in range(2):
        optimizer.zero_grad()
        logit, evidence = network(tiles())
        ((logit - 3.0).square().mean() + (evidence + 2.0).square().mean()).backward()
        optimizer.step()


def largest_difference(first, second):
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_adapter_gets_a_gradient_and_merging_changes_no_output(backbone, shallow):
    network = shallow(backbone)
    plain = [name for name, _ in network.named_parameters()]
    with torch.no_grad():
        before = network.eval()(tiles())
    adapt_network(network, AdaptConfig("lora", rank=2))
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    train(network, torch.optim.SGD(learning, lr=1e-3))
    parameters = dict(network.backbone.named_parameters())
    adapters = {name: p for name, p in parameters.items() if "lora_" in name}
    assert len(adapters) == 2 * 2 * 4  # A and B, two blocks, qkv, proj, fc1 and fc2
    assert [name for name, p in adapters.items() if p.grad is None or not p.grad.any()] == []
    frozen = [p for name, p in parameters.items() if name not in adapters]
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
        adapted = network(tiles())
        merge_adapters(network)
        merged = network(tiles())
    assert largest_difference(before, adapted) > 100 * MERGE_TOLERANCE
    assert largest_difference(adapted, merged) < MERGE_TOLERANCE
    assert [name for name, _ in network.named_parameters()] == plain
    assert not any(type(module).__module__.startswith("peft") for module in network.modules())


@pytest.mark.parametrize("strategy", ["head", "lora"])
def test_a_step_changes_nothing_but_heads_and_adapters(strategy, shallow):
    """Statistics of batch norms included, which change in a forward pass; also after a validation
    in between."""
    network = shallow("vit_lite")
    adapt = AdaptConfig(strategy, rank=2, dropout=0.5)
    adapt_network(network, adapt)
    network.eval()
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train(network, torch.optim.AdamW(parameter_groups(network, adapt, 1e-2, 0.05)))
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    heads = ("patch_head.", "tile_head.")
    assert changed == {name for name in before if "lora_" in name or name.startswith(heads)}
    modules = dict(network.named_modules())
    dropouts = [m for n, m in modules.items() if "lora_dropout" in n and isinstance(m, nn.Dropout)]
    assert len(dropouts) == (8 if strategy == "lora" else 0)
    assert all(module.training for module in dropouts)


def test_drop_path_is_off_where_the_backbone_is_frozen(shallow):
    for strategy, still in (("head", True), ("lora", False), ("full", False)):
        network = shallow("test_vit", drop_path_rate=0.5)
        adapt_network(network, AdaptConfig(strategy, rank=2))
        torch.manual_seed(0)
        assert torch.equal(network(tiles(32))[0], network(tiles(32))[0]) == still


@pytest.mark.parametrize("backbone", BACKBONES)
def test_lower_blocks_learn_slower(backbone, shallow):
    network = shallow(backbone)
    groups = parameter_groups(network, AdaptConfig("full", layer_decay=0.5), 1.0, 0.1)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rate) == sum(len(group["params"]) for group in groups)  # each is in one group only
    names = {name: rate[id(p)] for name, p in network.named_parameters()}
    parts = ("backbone.patch_embed.", "backbone.blocks.0.", "backbone.blocks.1.", "patch_head.")
    rates = [{value for name, value in names.items() if name.startswith(part)} for part in parts]
    assert [len(own) for own in rates] == [1, 1, 1, 1]
    embed, first, second, heads = (own.pop() for own in rates)
    assert embed < first == pytest.approx(0.5)
    assert first < second <= heads == 1.0


def test_without_decay_all_learn_alike_and_biases_and_norms_do_not_decay(shallow):
    network = shallow("test_vit")
    groups = parameter_groups(network, AdaptConfig("full"), 0.1, 0.05)
    assert {group["lr"] for group in groups} == {0.1}
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in network.named_parameters():
        expected = parameter.ndim > 1 and name not in ("backbone.cls_token", "backbone.pos_embed")
        assert (id(parameter) in decayed) == expected, name


@pytest.mark.parametrize("factor", [0.0, 0.03])
def test_the_stem_learns_at_its_own_rate(factor):
    network = build_network(ModelConfig("vit_lite", 64, False))
    adapt = AdaptConfig(stem=factor)
    adapt_network(network, adapt)
    groups = parameter_groups(network, adapt, 1e-3, 0.05)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    stem = network.backbone.patch_embed
    found = {rates.get(id(parameter), 0.0) for parameter in stem.backbone.parameters()}
    assert [*found] == pytest.approx([1e-3 * factor])
    assert rates[id(stem.proj.weight)] == pytest.approx(1e-3)
    assert len(rates) == sum(p.requires_grad for p in network.parameters())
