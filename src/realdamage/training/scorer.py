"""The torch network behind the wrapper's interface: what is evaluated is what is deployed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn


class TorchScorer:
    """`realdamage.core.scorer.TileScorer` over an EvidenceViT, on the CPU."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval()

    def __call__(
        self, tiles: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """uint8 [n, tile, tile, 3] → logit float32 [n], evidence float32 [n, h, w]."""
        with torch.inference_mode():
            logit, evidence = self.network(torch.from_numpy(np.ascontiguousarray(tiles)))
        return logit.numpy(), evidence.numpy()
