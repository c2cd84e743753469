"""Fine-tuning strategies: which parameters of the network learn, and how fast.

`full` trains everything, with a layer-wise decay of the learning rate (Clark et al. 2020, as in
BEiT); `lora` adds low-rank adapters to the blocks' linear layers (Hu et al. 2021, through peft) and
trains these and the heads; `head` trains the heads alone. A strategy is applied before the
optimiser is built and merged before the export.
"""

from __future__ import annotations

import re
from typing import Any

from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]  # public, though not in an __all__
from torch import nn

from realdamage.errors import ConfigError
from realdamage.schema import AdaptConfig
from realdamage.training.network import EvidenceViT


def adapt_network(network: EvidenceViT, adapt: AdaptConfig) -> None:
    """Prepares the network in place: freezes what must not learn, adds adapters for `lora`.

    What is frozen stays in evaluation mode. With `head` that is the whole backbone, drop path
    included; with `lora` it is the layers that have state of their own, while drop path and the
    adapters' dropout stay active.
    """
    if adapt.strategy == "full":
        if adapt.stem == 0.0:
            _stem(network).requires_grad_(False)
        return
    network.backbone.requires_grad_(False)
    if adapt.strategy == "lora":
        import peft  # a second of start-up, for those who use it

        config = peft.LoraConfig(
            r=adapt.rank,
            lora_alpha=adapt.alpha,  # type: ignore[arg-type]
            lora_dropout=adapt.dropout,
            target_modules=_block_linears(network),
        )
        peft.inject_adapter_in_model(config, network.backbone)
    network.frozen = tuple(
        module
        for module in network.backbone.modules()
        if adapt.strategy == "head" or _holds_frozen_state(module)
    )
    network.train(network.training)


def _stem(network: EvidenceViT) -> nn.Module:
    """The convolutional part of a hybrid ViT; an empty module for other ViTs."""
    embed: Any = network.backbone.patch_embed
    return getattr(embed, "backbone", None) or nn.Module()


def _holds_frozen_state(module: nn.Module) -> bool:
    """Whether the module itself, not one inside it, has parameters or buffers, and none of them
    learn."""
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return bool(own) and not any(tensor.requires_grad for tensor in own)


def _block_linears(network: EvidenceViT) -> list[str]:
    """Full names of the linear layers inside the transformer blocks, without heads and patch
    embedding."""
    names = [
        name
        for name, module in network.backbone.named_modules()
        if isinstance(module, nn.Linear) and re.match(r"blocks\.\d+\.", name)
    ]
    if not names:
        backbone = type(network.backbone).__name__
        raise ConfigError(f"adapt=lora: {backbone} has no linear layers under `blocks`")
    return names


def merge_adapters(network: EvidenceViT) -> None:
    """Folds every adapter into its layer, in place, so that the network is a plain timm ViT
    again."""
    modules: list[tuple[str, Any]] = list(network.backbone.named_modules())
    for name, module in modules:
        if hasattr(module, "get_base_layer"):  # one of peft's
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(network.backbone.get_submodule(parent), child, module.get_base_layer())


def parameter_groups(
    network: EvidenceViT, adapt: AdaptConfig, lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for the optimiser: learning rates after layer-wise decay; no weight decay on biases,
    norms and tokens."""
    groups: list[dict[str, Any]] = []

    def add(parameters: list[nn.Parameter], rate: float, decay: float) -> None:
        if parameters:
            groups.append({"params": parameters, "weight_decay": decay, "lr": rate})

    if any(parameter.requires_grad for parameter in network.backbone.parameters()):
        body: Any = network.backbone
        skipped = body.no_weight_decay() if hasattr(body, "no_weight_decay") else ()
        full = adapt.strategy == "full"
        layer_decay = adapt.layer_decay if full else 1.0
        own_rate = full and adapt.stem != 1.0
        stem = {id(parameter) for parameter in _stem(network).parameters()} if own_rate else set()
        for group in param_groups_layer_decay(body, weight_decay, skipped, layer_decay=layer_decay):
            rate, decay = lr * group["lr_scale"], group["weight_decay"]
            add([p for p in group["params"] if id(p) not in stem], rate, decay)
            add([p for p in group["params"] if id(p) in stem], rate * adapt.stem, decay)
    heads = [*network.patch_head.parameters(), *network.tile_head.parameters()]
    add([p for p in heads if p.ndim > 1], lr, weight_decay)
    add([p for p in heads if p.ndim <= 1], lr, 0.0)
    return groups
