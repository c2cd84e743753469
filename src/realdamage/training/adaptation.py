"""Fine-tuning strategies: which parameters of the network learn, and how fast.

`full` trains everything with a layer-wise decay of the learning rate (Clark et al. 2020, as in BEiT); `lora` adds
low-rank adapters to the blocks' linear layers (Hu et al. 2021, through peft) and trains them and the heads; `head`
trains the heads alone. A strategy is applied to the network before the optimiser is built and merged before the export.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import peft
import torch
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]  # public, though not in an __all__
from torch import nn

from realdamage.errors import ConfigError
from realdamage.training.network import EvidenceViT

log = logging.getLogger(__name__)

HEADS = ("patch_head", "tile_head")


@dataclass(frozen=True)
class Adaptation:
    """How to fine-tune. `layer_decay`: factor of the learning rate from one block to the one below, in (0, 1], for
    `full`; `stem`: factor of the learning rate of a pretrained convolutional stem (`vit_lite`), for `full`: 0 freezes
    it; `rank`, `alpha`, `dropout`: of the adapters, for `lora`."""

    strategy: Literal["full", "lora", "head"] = "full"
    layer_decay: float = 1.0
    stem: float = 1.0
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.strategy not in ("full", "lora", "head"):
            raise ConfigError(f"adapt.strategy={self.strategy}: unknown; allowed: full, lora, head")
        if not 0.0 < self.layer_decay <= 1.0:
            raise ConfigError(f"adapt.layer_decay={self.layer_decay}: must be in (0, 1]")
        if not 0.0 <= self.stem <= 1.0:
            raise ConfigError(f"adapt.stem={self.stem}: must be in 0..1")
        if self.rank < 1:
            raise ConfigError(f"adapt.rank={self.rank}: must be at least 1")
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"adapt.alpha={self.alpha}: must be finite and above 0")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"adapt.dropout={self.dropout}: a probability, must be in [0, 1)")


def adapt_network(network: EvidenceViT, adaptation: Adaptation) -> None:
    """Prepares the network in place: freezes what must not learn, adds adapters for `lora`.

    What is frozen also stays in evaluation mode. With `head` that is the whole backbone, drop path included; with
    `lora` the layers that have state of their own, while drop path and the adapters' dropout go on.
    """
    if adaptation.strategy == "full":
        if adaptation.stem == 0.0:
            _stem(network).requires_grad_(False)
        return
    network.backbone.requires_grad_(False)
    if adaptation.strategy == "lora":
        targets = _block_linears(network)
        config = peft.LoraConfig(
            r=adaptation.rank,
            lora_alpha=adaptation.alpha,  # type: ignore[arg-type]
            lora_dropout=adaptation.dropout,
            target_modules=targets,
        )
        peft.inject_adapter_in_model(config, network.backbone)
    network.frozen = tuple(
        module
        for module in network.backbone.modules()
        if adaptation.strategy == "head" or _holds_frozen_state(module)
    )
    network.train(network.training)


def _stem(network: EvidenceViT) -> nn.Module:
    """The convolutional part of a hybrid ViT; an empty module for other ViTs."""
    embed: Any = network.backbone.patch_embed
    return getattr(embed, "backbone", None) or nn.Module()


def _holds_frozen_state(module: nn.Module) -> bool:
    """Whether the module itself, not one inside it, has parameters or buffers, and none that learn."""
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return bool(own) and not any(tensor.requires_grad for tensor in own)


def _block_linears(network: EvidenceViT) -> list[str]:
    """Full names of the linear layers inside the transformer blocks; heads and patch embedding stay as they are.

    Some of timm's attentions read a layer's weight without calling the layer (BEiT's and some EVAs' qkv). An adapter
    there would never learn, so such layers are left out, and said to be.
    """
    backbone = network.backbone
    names = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and re.match(r"blocks\.\d+\.", name)
    ]
    called = _called_layers(network, names)
    if not called:
        raise ConfigError(
            f"adapt=lora: {type(backbone).__name__} has no linear layers under `blocks`; use adapt=full or adapt=head"
        )
    if bypassed := [name for name in names if name not in called]:
        log.warning(
            "adapt=lora: no adapters on %s, whose weights are read directly", ", ".join(bypassed)
        )
    return [name for name in names if name in called]


def _called_layers(network: EvidenceViT, names: list[str]) -> set[str]:
    """Those of `names` that a forward pass of one empty tile calls."""
    called: set[str] = set()
    hooks = [
        network.backbone.get_submodule(name).register_forward_hook(
            lambda *_, name=name: called.add(name)
        )
        for name in names
    ]
    training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, network.tile, network.tile, 3, dtype=torch.uint8))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return called


def merge_adapters(network: EvidenceViT) -> None:
    """Folds every adapter into its layer, in place, so that the network is a plain timm ViT again."""
    for name, module in list(network.backbone.named_modules()):
        if isinstance(module, peft.tuners.lora.LoraLayer):
            module.merge()
            parent_name, _, child = name.rpartition(".")
            parent = (
                network.backbone.get_submodule(parent_name) if parent_name else network.backbone
            )
            setattr(parent, child, module.get_base_layer())


def parameter_groups(
    network: EvidenceViT, adaptation: Adaptation, lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for the optimiser: learning rate after layer-wise decay; no weight decay on biases, norms and tokens."""
    body: Any = network.backbone
    skipped = body.no_weight_decay() if hasattr(body, "no_weight_decay") else ()
    groups: list[dict[str, Any]] = []
    if any(parameter.requires_grad for parameter in network.backbone.parameters()):
        full = adaptation.strategy == "full"
        decay = adaptation.layer_decay if full else 1.0
        own_rate = full and adaptation.stem != 1.0
        stem = {id(parameter) for parameter in _stem(network).parameters()} if own_rate else set()
        for group in param_groups_layer_decay(
            network.backbone, weight_decay, skipped, layer_decay=decay
        ):
            for inside, factor in ((False, 1.0), (True, adaptation.stem)):
                groups.append(
                    {
                        "params": [p for p in group["params"] if (id(p) in stem) == inside],
                        "weight_decay": group["weight_decay"],
                        "lr": lr * group["lr_scale"] * factor,
                    }
                )
    heads = [parameter for head in HEADS for parameter in network.get_submodule(head).parameters()]
    groups.append(
        {"params": [p for p in heads if p.ndim > 1], "weight_decay": weight_decay, "lr": lr}
    )
    groups.append({"params": [p for p in heads if p.ndim <= 1], "weight_decay": 0.0, "lr": lr})
    return [group for group in groups if group["params"]]
