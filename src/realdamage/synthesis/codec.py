"""The `codec` engine: passes a region, or the whole photo, through the latent codec of an image generator.

Whatever a latent diffusion model paints, its decoder writes the pixels; so decoding the photo's own latents leaves the
generator's trace without the cost of generating. The engine encodes only the crop that it needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from realdamage.inference.errors import MissingExtraError, SynthesisError
from realdamage.synthesis.engine import Edit
from realdamage.synthesis.house_codec import load_house_codec

RGB = npt.NDArray[np.uint8]
Soft = npt.NDArray[np.float32]

CONTEXT = 16
"""Pixels around a region that the codec sees too, so that it doesn't paint against an empty border."""
STRIDE = 16
"""Crops are padded to a multiple of it; a multiple of the stride of every codec in use (8 for SD, 16 for some KL
codecs)."""


class Reconstruct(Protocol):
    """float32 [1, 3, h, w] in −1..1, h and w multiples of 16 → the same shape: through the latent and back."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Codec:
    """Regenerates pixels through a generator's codec.

    `weights`: "house" for the codec inside the package, a folder of `diffusers` weights or a .safetensors of ours, or
    a hub id;
    `generator`, `family`: names for the manifest. Raises SynthesisError when the weights cannot be loaded and
    MissingExtraError when `diffusers` is needed and not there.
    """

    def __init__(self, weights: str, generator: str, family: str) -> None:
        self.weights, self.generator, self.family = weights, generator, family
        self._reconstruct = load_codec(weights)

    def apply(self, rgb: RGB, rng: np.random.Generator) -> Edit:
        """Regenerates the whole photo; the mask is all True."""
        del rng  # the codec itself draws nothing
        return Edit(self.reconstruct(rgb), np.ones(rgb.shape[:2], np.bool_))

    def regenerate(self, rgb: RGB, region: npt.NDArray[np.bool_], rng: np.random.Generator) -> Edit:
        """Regenerates `region` bool [h, w], grown and feathered by a few pixels, and blends it back; the mask is where
        the blend is above one half."""
        if not region.any():
            raise SynthesisError("nothing to regenerate: the region is empty")
        grown = ndimage.binary_dilation(region, iterations=int(rng.integers(2, 9)))
        soft = ndimage.gaussian_filter(grown.astype(np.float32), float(rng.uniform(0.5, 4.0)))
        rows, cols = np.flatnonzero(soft.max(axis=1) > 1e-3), np.flatnonzero(soft.max(axis=0) > 1e-3)
        # A random margin: the codec's grid must not always start at the edge of the damage.
        margin = CONTEXT + rng.integers(0, STRIDE, 4)
        top, bottom = max(0, rows[0] - margin[0]), min(rgb.shape[0], rows[-1] + 1 + margin[1])
        left, right = max(0, cols[0] - margin[2]), min(rgb.shape[1], cols[-1] + 1 + margin[3])
        crop = rgb[top:bottom, left:right]
        blend = soft[top:bottom, left:right, None]
        mixed = blend * self.reconstruct(crop) + (1.0 - blend) * crop
        out = rgb.copy()
        out[top:bottom, left:right] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
        return Edit(out, soft > 0.5)

    def reconstruct(self, rgb: RGB) -> RGB:
        """uint8 [h, w, 3] → the same size, every pixel painted anew by the codec."""
        height, width = rgb.shape[:2]
        pad = [(0, -height % STRIDE), (0, -width % STRIDE), (0, 0)]
        padded = np.pad(rgb, pad, mode="symmetric")
        x = torch.from_numpy(padded.astype(np.float32) / 127.5 - 1.0).permute(2, 0, 1)[None]
        with torch.inference_mode():
            y = self._reconstruct(x)[0].permute(1, 2, 0).clamp(-1.0, 1.0).numpy()
        return np.rint((y[:height, :width] + 1.0) * 127.5).astype(np.uint8)


def load_codec(weights: str) -> Reconstruct:
    """Loads a codec by name, path or hub id; see `Codec`."""
    if weights == "house" or weights.endswith(".safetensors"):
        house = load_house_codec(None if weights == "house" else weights)
        return house.__call__
    return _load_diffusers(weights)


def _load_diffusers(weights: str) -> Reconstruct:
    try:
        import diffusers
    except ImportError as error:
        raise MissingExtraError(f"the codec {weights}", "synth", "diffusers") from error
    folder = Path(weights).expanduser()
    looks_like_path = folder.is_absolute() or weights.startswith((".", "~")) or len(folder.parts) > 2
    if looks_like_path and not folder.is_dir():
        raise SynthesisError(
            f"codec weights {weights}: no such folder. Give a folder of a diffusers autoencoder, or a hub id."
        )
    try:
        name = "AutoencoderTiny"
        if folder.is_dir():
            name = json.loads((folder / "config.json").read_text())["_class_name"]
        elif "taesd" not in weights:
            name = "AutoencoderKL"
        if name not in ("AutoencoderTiny", "AutoencoderKL"):
            raise SynthesisError(f"codec weights {weights}: a {name}; known are AutoencoderTiny and AutoencoderKL")
        model: Any = getattr(diffusers, name).from_pretrained(weights, torch_dtype=torch.float32).eval()
    except SynthesisError:
        raise
    except Exception as error:
        raise SynthesisError(
            f"codec weights {weights} could not be loaded "
            f"({type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}). "
            "Without a network, give a local folder with config.json and weights."
        ) from error

    def reconstruct(x: Tensor) -> Tensor:
        latents = model.encode(x).latents if name == "AutoencoderTiny" else model.encode(x).latent_dist.mode()
        decoded: Tensor = model.decode(latents).sample
        return decoded

    return reconstruct
