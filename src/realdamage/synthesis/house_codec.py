"""A small image autoencoder that this repository trains itself, so that AI damage can be made without any download.

Like the latent codec of a diffusion model it squeezes a photo through a few latent channels and paints it anew from
them: fine texture and sensor noise are lost, and the up-sampler leaves its own regular trace. `train_codec.py` beside
this file makes the weights that ship.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from realdamage.inference.errors import SynthesisError
from realdamage.inference.onnx_file import write_atomically

SHIPPED = "house_codec.safetensors"


@dataclass(frozen=True)
class HouseCodecSpec:
    """Architecture: `stages` halvings of the side (stride 2^stages), `latent` channels at the bottleneck, `width`
    channels inside."""

    stages: int = 2
    latent: int = 4
    width: int = 32


class HouseCodec(nn.Module):
    """Autoencoder float32 [n, 3, h, w] in −1..1 → the same shape and range; h and w are multiples of `stride`."""

    def __init__(self, spec: HouseCodecSpec) -> None:
        super().__init__()
        self.spec = spec
        width = spec.width
        encoder: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), _Residual(width)]
        for _ in range(spec.stages):
            encoder += [nn.Conv2d(width, width, 3, stride=2, padding=1), _Residual(width)]
        encoder.append(nn.Conv2d(width, spec.latent, 3, padding=1))
        decoder: list[nn.Module] = [nn.Conv2d(spec.latent, width, 3, padding=1), _Residual(width), _Residual(width)]
        for _ in range(spec.stages):
            decoder += [
                nn.Upsample(scale_factor=2, mode="nearest"),
                nn.Conv2d(width, width, 3, padding=1),
                _Residual(width),
            ]
        decoder.append(nn.Conv2d(width, 3, 3, padding=1))
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)

    @property
    def stride(self) -> int:
        return int(2**self.spec.stages)

    def forward(self, x: Tensor) -> Tensor:
        # The latent is bounded, as generators' latents are, so that it can't smuggle the photo through as it is.
        return self.decoder(torch.tanh(self.encoder(x) / 3.0) * 3.0)  # type: ignore[no-any-return]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


def save_house_codec(codec: HouseCodec, path: str | Path) -> None:
    """Writes weights in half precision and the architecture into one safetensors file, whole or not at all."""
    state = {name: value.half().contiguous() for name, value in codec.state_dict().items()}
    write_atomically(Path(path), save(state, metadata={"spec": json.dumps(asdict(codec.spec))}))


def load_house_codec(path: str | Path | None = None) -> HouseCodec:
    """Reads what `save_house_codec` wrote; None: the codec inside the package. Raises SynthesisError."""
    if path is None:
        with as_file(files("realdamage.synthesis") / SHIPPED) as shipped:
            return load_house_codec(shipped)
    try:
        with safe_open(str(path), framework="pt") as archive:
            spec = HouseCodecSpec(**json.loads((archive.metadata() or {})["spec"]))
            state = {name: archive.get_tensor(name).float() for name in archive.keys()}  # noqa: SIM118
        codec = HouseCodec(spec)
        codec.load_state_dict(state)
    except Exception as error:
        raise SynthesisError(
            f"{path}: not a house codec ({type(error).__name__}: {' '.join(str(error).split())[:160]}). Make one with "
            "python -m realdamage.synthesis.train_codec --output FILE."
        ) from error
    return codec.eval()
