"""The architecture of taef2, the tiny autoencoder of FLUX.2 (Ollin Boer Bohan, MIT).

`diffusers.AutoencoderTiny` cannot load it: its blocks at the lowest resolution carry a pooling branch.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from realdamage.errors import SynthesisError

WIDTH, LATENT = 64, 32


class Taef2(nn.Module):
    """Autoencoder float32 [n, 3, h, w] in −1..1 → the same shape and range; h and w are multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        encoder: list[nn.Module] = [_conv(3, WIDTH), _Block(WIDTH)]
        for pooled in (False, False, True):
            encoder.append(nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False))
            encoder += [_Block(WIDTH, pooled) for _ in range(3)]
        self.encoder = nn.Sequential(*encoder, _conv(WIDTH, LATENT))
        decoder: list[nn.Module] = [_Clamp(), _conv(LATENT, WIDTH), nn.ReLU()]
        decoder += [_Block(WIDTH, pooled=True) for _ in range(3)]
        for blocks in (3, 3, 1):
            decoder += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            ]
            decoder += [_Block(WIDTH) for _ in range(blocks)]
        self.decoder = nn.Sequential(*decoder, _conv(WIDTH, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder((x + 1.0) / 2.0)) * 2.0 - 1.0  # type: ignore[no-any-return]


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3.0) * 3.0


class _Block(nn.Module):
    def __init__(self, width: int, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )
        self.pool: nn.Module | None = None
        if pooled:
            inner = 4 * width
            self.pool = nn.Sequential(
                nn.Conv2d(width, inner, 1, bias=False),
                nn.GroupNorm(4, inner),
                nn.ReLU(),
                nn.Conv2d(inner, width, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def load_taef2(path: str | Path) -> Taef2:
    """Reads taef2.safetensors. Raises SynthesisError: no such file, or other weights."""
    codec = Taef2()
    try:
        state = load_file(path)
        codec.load_state_dict({name: value.float() for name, value in state.items()})
    except Exception as error:
        raise SynthesisError(
            f"codec weights {path}: not taef2 ({type(error).__name__}: {' '.join(str(error).split())[:160]}). "
            "Give the taef2.safetensors of github.com/madebyollin/taesd."
        ) from error
    return codec.eval()
