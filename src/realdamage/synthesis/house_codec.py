"""Small image autoencoders that this repository trains itself, so that AI damage can be made without any download.

Like the latent codec of a diffusion model they squeeze a photo through a few latent channels and paint it anew from
them: fine texture and sensor noise are lost, and the up-sampler leaves its own regular trace. Each kind of up-sampler,
stride and bottleneck is a generator family of its own, so that a test on a family never trained on means something.
`train_codec.py` beside this file makes the weights that ship.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from realdamage.errors import SynthesisError
from realdamage.files import write_atomically

HOUSE_CODECS = {
    "house": "house_codec.safetensors",
    "house_nearest": "house_nearest.safetensors",
    "house_bilinear": "house_bilinear.safetensors",
    "house_transposed": "house_transposed.safetensors",
    "house_shuffle": "house_shuffle.safetensors",
}
"""The codecs inside the package by name: "house" learned from rendered photos, the others from real ones."""
UPSAMPLERS = ("nearest", "bilinear", "transposed", "pixel_shuffle")
BOTTLENECKS = ("bounded", "noisy", "quantised")
_LEVELS = 9  # of a quantised latent: the whole numbers from −4 to 4
_COLOUR_GAIN = 2.0  # of the shortcut: colours from −1 to 1 use most of a latent's range


@dataclass(frozen=True)
class HouseCodecSpec:
    """Architecture: `stages` halvings of the side (stride 2^stages), `latent` channels at the bottleneck, `width`
    channels inside; `upsample`: one of UPSAMPLERS; `bottleneck`: one of BOTTLENECKS; `shortcut`: the first three latent
    channels start from the mean colours, and the decoder from their bilinear enlargement, which a short training needs
    at large strides.

    Raises SynthesisError: an unknown up-sampler or bottleneck, or a size below 1.
    """

    stages: int = 2
    latent: int = 4
    width: int = 32
    upsample: str = "nearest"
    bottleneck: str = "bounded"
    shortcut: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("upsample", UPSAMPLERS), ("bottleneck", BOTTLENECKS)):
            if getattr(self, name) not in allowed:
                raise SynthesisError(
                    f"{name}={getattr(self, name)!r}: allowed are {', '.join(allowed)}"
                )
        for name, least in (("stages", 1), ("latent", 3 if self.shortcut else 1), ("width", 1)):
            if getattr(self, name) < least:
                raise SynthesisError(f"{name}={getattr(self, name)}: must be at least {least}")


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
        decoder: list[nn.Module] = [
            nn.Conv2d(spec.latent, width, 3, padding=1),
            _Residual(width),
            _Residual(width),
        ]
        for _ in range(spec.stages):
            decoder += [*_doubled(width, spec.upsample), _Residual(width)]
        decoder.append(nn.Conv2d(width, 3, 3, padding=1))
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)

    @property
    def stride(self) -> int:
        return int(2**self.spec.stages)

    def forward(self, x: Tensor) -> Tensor:
        latent: Tensor = self.encoder(x)
        if not self.spec.shortcut:
            return self.decoder(self._squeezed(latent))  # type: ignore[no-any-return]
        colours = _COLOUR_GAIN * F.avg_pool2d(x, self.stride)
        latent = self._squeezed(torch.cat([latent[:, :3] + colours, latent[:, 3:]], dim=1))
        large = F.interpolate(
            latent[:, :3] / _COLOUR_GAIN, scale_factor=float(self.stride), mode="bilinear"
        )
        return self.decoder(latent) + large  # type: ignore[no-any-return]

    def _squeezed(self, latent: Tensor) -> Tensor:
        # The latent is bounded, as generators' latents are, so that it can't smuggle the photo through as it is.
        if self.spec.bottleneck == "quantised":  # finite scalar quantisation, Mentzer et al. 2023
            reach = (_LEVELS - 1) / 2
            bounded = torch.tanh(latent / reach) * reach
            return bounded + (bounded.round() - bounded).detach()
        bounded = torch.tanh(latent / 3.0) * 3.0
        if self.spec.bottleneck == "noisy" and self.training:
            return bounded + 0.3 * torch.randn_like(bounded)
        return bounded


def _doubled(width: int, upsample: str) -> list[nn.Module]:
    """Layers that double the side of `width` channels."""
    if upsample == "transposed":
        return [nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)]
    if upsample == "pixel_shuffle":
        return [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2)]
    align = (
        {"mode": "bilinear", "align_corners": False}
        if upsample == "bilinear"
        else {"mode": "nearest"}
    )
    return [nn.Upsample(scale_factor=2, **align), nn.Conv2d(width, width, 3, padding=1)]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


def save_house_codec(codec: HouseCodec, path: str | Path) -> None:
    """Writes weights in half precision and the architecture into one safetensors file, whole or not at all."""
    state = {name: value.half().contiguous() for name, value in codec.state_dict().items()}
    write_atomically(Path(path), save(state, metadata={"spec": json.dumps(asdict(codec.spec))}))


def load_house_codec(name_or_path: str | Path = "house") -> HouseCodec:
    """Reads a codec of the package (a name of HOUSE_CODECS) or a file of `save_house_codec`. Raises SynthesisError."""
    if name_or_path in HOUSE_CODECS:
        with as_file(files("realdamage.synthesis") / HOUSE_CODECS[str(name_or_path)]) as shipped:
            return load_house_codec(shipped)
    path = name_or_path
    try:
        with safe_open(str(path), framework="pt") as archive:
            spec = HouseCodecSpec(**json.loads((archive.metadata() or {})["spec"]))
            state = {name: archive.get_tensor(name).float() for name in archive.keys()}  # noqa: SIM118
        codec = HouseCodec(spec)
        codec.load_state_dict(state)
    except Exception as error:
        raise SynthesisError(
            f"{path}: not a house codec ({type(error).__name__}: {' '.join(str(error).split())[:160]}). Make one with "
            "python -m realdamage.synthesis.train_codec CODEC --output FILE."
        ) from error
    return codec.eval()
