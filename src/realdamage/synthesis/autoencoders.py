"""The autoencoders behind the `codec` engine: the package's own codecs, taef2, and those of
`diffusers`.

Like the latent codec of a diffusion model, the package's own codecs squeeze a photo through a few
latent channels: fine texture and sensor noise are lost, and the up-sampler leaves its own regular
trace. Each kind of up-sampler, stride and bottleneck is a separate generator family.
`tests/trials/train_codec.py` makes the weights that ship.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from realdamage.errors import MissingExtraError, SynthesisError
from realdamage.files import write_atomically
from realdamage.synthesis.engine import hub_answers, loading, short, weights_folder

HOUSE_CODECS = {
    "house": "house_codec.safetensors",
    "house_nearest": "house_nearest.safetensors",
    "house_bilinear": "house_bilinear.safetensors",
    "house_transposed": "house_transposed.safetensors",
    "house_shuffle": "house_shuffle.safetensors",
}
"""The codecs inside the package by name."""
_LEVELS = 9  # of a quantised latent: the whole numbers from −4 to 4
_COLOUR_GAIN = 2.0  # of the shortcut: colours from −1 to 1 use most of a latent's range


def load_autoencoder(weights: str) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A function from float32 [h, w, 3] in −1..1, sides multiples of 16, to the same shape and
    range.

    weights: a name of HOUSE_CODECS, a .safetensors of `train_codec`, the taef2.safetensors of
        FLUX.2's tiny autoencoder, a folder of an autoencoder of `diffusers`, or a hub id.
    Raises SynthesisError: the weights cannot be loaded. MissingExtraError: `diffusers` is needed
    and not installed.
    """
    network: Callable[[Tensor], Tensor]
    if Path(weights).name == "taef2.safetensors":
        network = load_taef2(weights)
    elif weights in HOUSE_CODECS or weights.endswith(".safetensors"):
        network = load_house_codec(weights)
    else:
        network = _load_diffusers(weights)

    def autoencode(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            output = network(torch.from_numpy(rgb).permute(2, 0, 1)[None])
            pixels: NDArray[np.float32] = output[0].permute(1, 2, 0).clamp(-1.0, 1.0).numpy()
        return pixels

    return autoencode


@dataclass(frozen=True)
class HouseCodecSpec:
    """Architecture of one of the package's own codecs.

    stages: halvings of the side.
    latent: channels at the bottleneck.
    width: channels inside.
    upsample: "nearest", "bilinear", "transposed" or "pixel_shuffle".
    bottleneck: "bounded", "noisy" or "quantised".
    shortcut: the first three latent channels start from the mean colours, which a short training
    needs at large strides.
    """

    stages: int = 2
    latent: int = 4
    width: int = 32
    upsample: str = "nearest"
    bottleneck: str = "bounded"
    shortcut: bool = False


class HouseCodec(nn.Module):
    """Autoencoder float32 [n, 3, h, w] in −1..1; h and w are multiples of `stride`."""

    def __init__(self, spec: HouseCodecSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stride = int(2**spec.stages)
        width = spec.width
        encoder: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), _Residual(width)]
        for _ in range(spec.stages):
            encoder += [nn.Conv2d(width, width, 3, stride=2, padding=1), _Residual(width)]
        encoder.append(nn.Conv2d(width, spec.latent, 3, padding=1))
        decoder: list[nn.Module] = [nn.Conv2d(spec.latent, width, 3, padding=1)]
        decoder += [_Residual(width), _Residual(width)]
        for _ in range(spec.stages):
            decoder += [*_doubled(width, spec.upsample), _Residual(width)]
        decoder.append(nn.Conv2d(width, 3, 3, padding=1))
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)

    def forward(self, x: Tensor) -> Tensor:
        latent: Tensor = self.encoder(x)
        if not self.spec.shortcut:
            return self.decoder(self._squeezed(latent))  # type: ignore[no-any-return]
        colours = latent[:, :3] + _COLOUR_GAIN * F.avg_pool2d(x, self.stride)
        latent = self._squeezed(torch.cat([colours, latent[:, 3:]], dim=1))
        colours = latent[:, :3] / _COLOUR_GAIN
        large = F.interpolate(colours, scale_factor=float(self.stride), mode="bilinear")
        return self.decoder(latent) + large  # type: ignore[no-any-return]

    def _squeezed(self, latent: Tensor) -> Tensor:
        # Bounded, as generators' latents are, so that the photo can't pass through unchanged.
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
    align = False if upsample == "bilinear" else None
    larger = nn.Upsample(scale_factor=2, mode=upsample, align_corners=align)
    return [larger, nn.Conv2d(width, width, 3, padding=1)]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width, width, 3, padding=1) for _ in range(2)]
        self.layers = nn.Sequential(nn.ReLU(), convolutions[0], nn.ReLU(), convolutions[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


def save_house_codec(codec: HouseCodec, path: str | Path) -> None:
    """Writes weights in half precision and the architecture into one safetensors file, whole or not
    at all."""
    state = {name: value.half().contiguous() for name, value in codec.state_dict().items()}
    write_atomically(Path(path), save(state, metadata={"spec": json.dumps(asdict(codec.spec))}))


def load_house_codec(name_or_path: str | Path = "house") -> HouseCodec:
    """Reads a name of HOUSE_CODECS or a file of `save_house_codec`. Raises SynthesisError."""
    if name_or_path in HOUSE_CODECS:
        with as_file(files("realdamage.synthesis") / HOUSE_CODECS[str(name_or_path)]) as shipped:
            return load_house_codec(shipped)
    try:
        with safe_open(str(name_or_path), framework="pt") as archive:
            spec = HouseCodecSpec(**json.loads((archive.metadata() or {})["spec"]))
            state = {name: archive.get_tensor(name).float() for name in archive.keys()}  # noqa: SIM118
        codec = HouseCodec(spec)
        codec.load_state_dict(state)
    except Exception as error:
        raise SynthesisError(
            f"{name_or_path}: not a file of the package's own codecs ({short(error)}). Make one "
            "with python tests/trials/train_codec.py CODEC --output FILE.",
            code="bad_weights",
        ) from error
    return codec.eval()


class Taef2(nn.Module):
    """taef2, the tiny autoencoder of FLUX.2 (Ollin Boer Bohan, MIT): float32 [n, 3, h, w] in −1..1,
    sides multiples of 8.

    `diffusers.AutoencoderTiny` cannot load it: its blocks at the lowest resolution carry a pooling
    branch.
    """

    WIDTH, LATENT = 64, 32

    def __init__(self) -> None:
        super().__init__()
        width = self.WIDTH
        encoder: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), _TaefBlock(width)]
        for pooled in (False, False, True):
            encoder.append(nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False))
            encoder += [_TaefBlock(width, pooled) for _ in range(3)]
        encoder.append(nn.Conv2d(width, self.LATENT, 3, padding=1))
        decoder: list[nn.Module] = [
            _Clamp(),
            nn.Conv2d(self.LATENT, width, 3, padding=1),
            nn.ReLU(),
        ]
        decoder += [_TaefBlock(width, pooled=True) for _ in range(3)]
        for blocks in (3, 3, 1):
            decoder.append(nn.Upsample(scale_factor=2))
            decoder.append(nn.Conv2d(width, width, 3, padding=1, bias=False))
            decoder += [_TaefBlock(width) for _ in range(blocks)]
        decoder.append(nn.Conv2d(width, 3, 3, padding=1))
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder((x + 1.0) / 2.0)) * 2.0 - 1.0  # type: ignore[no-any-return]


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3.0) * 3.0


class _TaefBlock(nn.Module):
    def __init__(self, width: int, pooled: bool = False) -> None:
        super().__init__()
        first, second, third = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        self.pool: nn.Module | None = None
        if pooled:
            widen = nn.Conv2d(width, 4 * width, 1, bias=False)
            narrow = nn.Conv2d(4 * width, width, 1, bias=False)
            self.pool = nn.Sequential(widen, nn.GroupNorm(4, 4 * width), nn.ReLU(), narrow)

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


def load_taef2(path: str | Path) -> Taef2:
    """Reads taef2.safetensors. Raises SynthesisError: no such file, or other weights."""
    codec = Taef2()
    try:
        state = load_file(path)
        codec.load_state_dict({name: value.float() for name, value in state.items()})
    except Exception as error:
        raise SynthesisError(
            f"codec weights {path}: not taef2 ({short(error)}). "
            "Give the taef2.safetensors of github.com/madebyollin/taesd.",
            code="bad_weights",
        ) from error
    return codec.eval()


def _load_diffusers(weights: str) -> Callable[[Tensor], Tensor]:
    try:
        import diffusers
    except ImportError as error:
        raise MissingExtraError(f"the codec {weights}", "synth", "diffusers") from error
    folder = weights_folder(weights, "codec weights")
    with loading("codec weights", weights):
        offline = folder is None and not hub_answers()
        model: Any = diffusers.AutoModel.from_pretrained(  # type: ignore[no-untyped-call]
            weights, dtype=torch.float32, local_files_only=offline
        )
        if not hasattr(model, "encode"):
            name = type(model).__name__
            raise SynthesisError(f"codec weights {weights}: {name} is no autoencoder of diffusers")
        model.eval()
    stride = int(getattr(model, "spatial_compression_ratio", 1))

    def network(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % stride, 0, -height % stride), mode="replicate")
        encoded = model.encode(x)
        if hasattr(encoded, "latent_dist"):
            latents = encoded.latent_dist.mode()
        else:
            latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent
        decoded: Tensor = model.decode(latents).sample
        return decoded[..., :height, :width]

    return network
