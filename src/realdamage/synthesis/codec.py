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
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from realdamage.errors import MissingExtraError, SynthesisError
from realdamage.synthesis.diffusion import hub_answers, loading, weights_folder
from realdamage.synthesis.engine import Edit
from realdamage.synthesis.house_codec import HOUSE_CODECS, load_house_codec
from realdamage.synthesis.taef2 import load_taef2

RGB = npt.NDArray[np.uint8]
Soft = npt.NDArray[np.float32]

CONTEXT = 16
"""Pixels around a region that the codec sees too, so that it doesn't paint against an empty border."""
STRIDE = 16
"""Crops are padded to a multiple of it; a multiple of the stride of every codec in use (8 for SD, 16 for some KL
codecs), but for those that pad further themselves."""
IMAGE_CODECS = (
    "AutoencoderKL", "AutoencoderTiny", "AsymmetricAutoencoderKL", "AutoencoderDC", "AutoencoderKLFlux2", "VQModel"
)  # fmt: skip
VIDEO_CODECS = ("AutoencoderKLQwenImage", "AutoencoderKLWan")
"""Classes of diffusers that write a photo anew by encoding and decoding it."""
PIPELINE_PARTS = ("vae", "movq", "vqvae")
"""Where a whole pipeline keeps its autoencoder."""


class Reconstruct(Protocol):
    """float32 [1, 3, h, w] in −1..1, h and w multiples of 16 → the same shape: through the latent and back."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Codec:
    """Regenerates pixels through a generator's codec.

    `weights`: a name of HOUSE_CODECS for a codec inside the package, a .safetensors of `train_codec`, the
    taef2.safetensors of FLUX.2's tiny autoencoder, a folder of `diffusers` weights, or a hub id; `generator`, `family`:
    names for the manifest. Raises SynthesisError when the weights cannot be loaded and MissingExtraError when
    `diffusers` is needed and not there.
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
        rows, cols = (
            np.flatnonzero(soft.max(axis=1) > 1e-3),
            np.flatnonzero(soft.max(axis=0) > 1e-3),
        )
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
    if Path(weights).name == "taef2.safetensors":
        return load_taef2(weights).__call__
    if weights in HOUSE_CODECS or weights.endswith(".safetensors"):
        house = load_house_codec(weights)
        return house.__call__
    return _load_diffusers(weights)


def _load_diffusers(weights: str) -> Reconstruct:
    try:
        import diffusers
    except ImportError as error:
        raise MissingExtraError(f"the codec {weights}", "synth", "diffusers") from error
    folder = weights_folder(weights, "codec weights")
    with loading("codec weights", weights):
        offline = folder is None and not hub_answers()
        config = _autoencoder_config(weights, folder, offline)
        name = str(json.loads(config.read_text())["_class_name"])
        if name not in (*IMAGE_CODECS, *VIDEO_CODECS):
            known = ", ".join((*IMAGE_CODECS, *VIDEO_CODECS))
            raise SynthesisError(f"codec weights {weights}: a {name}; known are {known}")
        part = config.parent.name if config.parent.name in PIPELINE_PARTS else ""
        kind = getattr(diffusers, name)
        options = {"subfolder": part or None, "dtype": torch.float32, "local_files_only": offline}
        model: Any = kind.from_pretrained(weights, **options).eval()
    frames = name in VIDEO_CODECS  # these take a film; a photo is one of a single frame
    stride = int(getattr(model, "spatial_compression_ratio", 1))

    def reconstruct(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % stride, 0, -height % stride), mode="replicate")
        encoded = model.encode(x[:, :, None] if frames else x)
        decoded: Tensor = model.decode(_latents(encoded)).sample
        return (decoded[:, :, 0] if frames else decoded)[..., :height, :width]

    return reconstruct


def _latents(encoded: Any) -> Tensor:
    """The latents in what an autoencoder's `encode` answers: the mode of a distribution, or the latents themselves."""
    if hasattr(encoded, "latent_dist"):
        latents: Tensor = encoded.latent_dist.mode()
    else:
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent
    return latents


def _autoencoder_config(weights: str, folder: Path | None, offline: bool = False) -> Path:
    """The config.json of an autoencoder, or of the one inside a whole pipeline; where `folder` is None from the hub, or
    when `offline` from its cache only."""
    files = ["config.json", *(f"{part}/config.json" for part in PIPELINE_PARTS)]
    if folder is not None:
        found = [folder / file for file in files if (folder / file).is_file()]
        if not found:
            raise SynthesisError(
                f"codec weights {weights}: no {' or '.join(files)} in there; see save_pretrained()"
            )
        return found[0]
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in files:
        if isinstance(cached := try_to_load_from_cache(weights, file), str):
            return Path(cached)
    if offline:
        raise LocalEntryNotFoundError("no answer from the hub")
    for file in files:
        try:
            return Path(hf_hub_download(weights, file))
        except LocalEntryNotFoundError:  # no network: the next file would not come either
            raise
        except EntryNotFoundError:
            continue
    raise SynthesisError(f"codec weights {weights}: the hub has no {' or '.join(files)} there")
