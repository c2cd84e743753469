"""Losses by their name in a configuration (`model.loss`, `model.patch_loss`).

Each takes `logit`, `label` and `weight` of one shape and gives a scalar. A label lies in 0..1, or
is NaN where it is unknown and counts for nothing. Without any known label the loss is 0 and still
part of the graph, so that the processes of a distributed run stay together.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def bce(logit: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the binary cross-entropies."""
    target, weight = _known(logit, label, weight)
    loss = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    return (loss * weight).sum() / weight.sum().clamp_min(1e-6)


def focal(logit: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the focal losses with γ = 2 and without α (Lin et al. 2017)."""
    target, weight = _known(logit, label, weight)
    loss: Tensor = sigmoid_focal_loss(logit, target, alpha=-1, gamma=2.0)
    return (loss * weight).sum() / weight.sum().clamp_min(1e-6)


def dice(logit: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Soft Dice loss over all entries together (Milletari et al. 2016)."""
    target, weight = _known(logit, label, weight)
    share = logit.sigmoid()
    overlap = (share * target * weight).sum()
    total = ((share + target) * weight).sum()
    return 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)


def _known(logit: Tensor, label: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    known = ~torch.isnan(label)
    target = torch.where(known, label, torch.zeros_like(label)).to(logit.dtype)
    return target, weight.to(logit.dtype) * known


LOSSES: dict[str, Loss] = {"bce": bce, "focal": focal, "dice": dice}
