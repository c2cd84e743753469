"""The network: a timm ViT whose patch tokens become an evidence map and whose class token helps to
judge the tile.

The pixel contract ends here: the network takes uint8 tiles and normalises them itself, with the
backbone's own mean and standard deviation, so that the exported file, a checkpoint and a training
step cannot disagree on it.
"""

from __future__ import annotations

import difflib
import json
import math
import sys
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from timm.models import load_checkpoint
from torch import Tensor, nn

from realdamage.errors import ConfigError, ModelFileError, RealDamageError
from realdamage.schema import ModelConfig
from realdamage.training import backbones  # noqa: F401  registers vit_lite with timm

WEIGHTS = "model.safetensors"
"""In a folder of `DamageClassifier.save_pretrained`; holds the settings too."""

EVIDENCE_SHARPNESS = 2.0
"""Of the pooling from a tile's patches to its logit; part of the network, so it travels inside the
graph."""


class EvidenceViT(nn.Module):
    """A ViT with one evidence logit per patch and one logit per tile; positive means synthetic.

    `forward(tiles)`: uint8 [n, tile, tile, 3] (RGB) → logit float32 [n], evidence float32 [n,
    tile/patch, tile/patch]. The tile logit is the log-mean-exp of the evidence plus a linear
    reading of the class token, or of the mean of the patches where there is none.

    frozen: parts of the backbone that stay in evaluation mode while others learn.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, tile: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen: tuple[nn.Module, ...] = ()
        self.tile = tile
        self.patch = _patch_side(backbone)
        self.grid = tile // self.patch
        self.prefix_tokens = int(backbone.num_prefix_tokens)  # type: ignore[arg-type]
        # Without a class token the first prefix token is a register, which summarises nothing.
        self.class_token = getattr(backbone, "cls_token", None) is not None
        width = int(backbone.num_features)  # type: ignore[arg-type]
        self.patch_head = nn.Linear(width, 1)
        self.tile_head = nn.Linear(width, 1)
        for head in (self.patch_head, self.tile_head):
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        config: dict[str, Any] = backbone.pretrained_cfg  # type: ignore[assignment]
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1) * 255.0)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1) * 255.0)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of all but the `frozen` parts: in training a batch norm changes with every
        forward pass."""
        super().train(mode)
        for module in self.frozen:
            module.training = False
        return self

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        pixels = (tiles.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std
        tokens = self.backbone.forward_features(pixels)  # type: ignore[operator]
        # The eight bits of a bfloat16 logit are too few to rank photos.
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.float()
            patches = tokens[:, self.prefix_tokens :]
            evidence = self.patch_head(patches).squeeze(-1)
            summary = tokens[:, 0] if self.class_token else patches.mean(dim=1)
            top = torch.logsumexp(evidence * EVIDENCE_SHARPNESS, dim=1)
            pooled = (top - math.log(self.grid**2)) / EVIDENCE_SHARPNESS
            logit = pooled + self.tile_head(summary).squeeze(-1)
        return logit, evidence.reshape(-1, self.grid, self.grid)


class TorchScorer:
    """`realdamage.core.scorer.TileScorer` over an EvidenceViT: what is evaluated is what is
    deployed."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval()

    def __call__(
        self, tiles: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """uint8 [n, tile, tile, 3] → logit float32 [n], evidence float32 [n, h, w]."""
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(tiles)).to(device)
            logit, evidence = self.network(pixels)
        return logit.cpu().numpy(), evidence.cpu().numpy()


def build_network(model: ModelConfig) -> EvidenceViT:
    """Makes the network around a timm backbone.

    Raises ConfigError: unknown backbone, or a tile that is no multiple of the patch;
    ModelFileError: weights that cannot be downloaded or read.
    """
    backbone, tile = model.backbone, model.tile
    if not timm.is_model(backbone.split(".")[0]):
        names = timm.list_models("*vit*") + timm.list_pretrained("*vit*")
        near = ", ".join(difflib.get_close_matches(backbone, names, n=3)) or "none"
        raise ConfigError(
            f"model.backbone={backbone}: timm {timm.__version__} has no such model; near: {near}"
        )
    pretrained = model.pretrained and not model.weights
    options: dict[str, Any] = {"num_classes": 0, "drop_path_rate": model.drop_path}
    try:
        body = timm.create_model(backbone, pretrained=pretrained, img_size=tile, **options)
    except RealDamageError:
        raise
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"model.backbone={backbone} with model.tile={tile}: {error}") from error
    except Exception as error:
        raise ModelFileError(
            f"The pretrained weights of {backbone} could not be downloaded "
            f"({type(error).__name__}: {first_line(error)}). Without a network, give a local file "
            "with model.weights=PATH, or train from scratch with model.pretrained=false.",
            code="download_failed",
        ) from error
    if not hasattr(body, "patch_embed") or not hasattr(body, "num_prefix_tokens"):
        raise ConfigError(f"model.backbone={backbone}: not a vision transformer with patch tokens")
    patch = _patch_side(body)
    if tile % patch:
        raise ConfigError(
            f"model.tile={tile} is no multiple of the patch of {backbone}, {patch} px; near: "
            f"{max(1, tile // patch) * patch}"
        )
    network = EvidenceViT(body, tile)
    if model.weights:
        _load_weights(network, Path(model.weights))
    return network


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A .ckpt of realdamage-train, or a folder of `DamageClassifier.save_pretrained`, as plain
    values and tensors. Raises ModelFileError: no such file, or another kind of file."""
    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise ModelFileError(
            f"checkpoint={file}: no such file. Give a .ckpt that realdamage-train wrote, or a "
            f"folder with {WEIGHTS}.",
            code="no_such_file",
        )
    try:
        if path.is_dir():
            with safe_open(file, framework="pt") as opened:
                checkpoint: dict[str, Any] = json.loads(opened.metadata()["realdamage"])
            checkpoint["state_dict"] = load_file(file)
        else:
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        checkpoint["hyper_parameters"]["backbone"], checkpoint["state_dict"]
    except Exception as error:
        raise ModelFileError(
            f"{file} is not a checkpoint of realdamage ({type(error).__name__}: "
            f"{first_line(error)}). Give a .ckpt that realdamage-train wrote.",
            code="no_checkpoint",
        ) from error
    return checkpoint


def of_a_run(weights: str | Path | None) -> bool:
    """Whether `model.weights` names a run, with its heads, not the weights of a backbone."""
    return bool(weights) and (Path(str(weights)).suffix == ".ckpt" or Path(str(weights)).is_dir())


def _load_weights(network: EvidenceViT, path: Path) -> None:
    """Warm start from a run of realdamage-train, which brings the heads too, or from the
    backbone's state dict, which may come from another tile and have a head for classes."""
    if not path.exists():
        raise ModelFileError(
            f"model.weights={path}: no such file. Give the path of a timm state dict or a .ckpt.",
            code="no_such_file",
        )
    body = network.backbone
    # timm keeps next to each architecture what fits weights to another tile.
    fit: Any = getattr(sys.modules[type(body).__module__], "checkpoint_filter_fn", None)
    try:
        if of_a_run(path):
            state = read_checkpoint(path)["state_dict"]
            network.load_state_dict(
                {
                    name.removeprefix("network."): value
                    for name, value in state.items()
                    if name.startswith("network.")
                }
            )
            return
        missing, unexpected = load_checkpoint(
            body, str(path), strict=False, filter_fn=fit, weights_only=True
        )
        wrong = [*missing, *(name for name in unexpected if name.startswith("blocks."))]
        if wrong:
            raise ValueError(
                f"{len(missing)} missing, {len(unexpected)} unexpected, such as {wrong[0]}"
            )
    except ModelFileError:
        raise
    except Exception as error:
        raise ModelFileError(
            f"model.weights={path}: these weights do not fit ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}). Use weights of the same backbone (a .ckpt: "
            "of a run without adapt=lora), or model.weights=null.",
            code="weights_do_not_fit",
        ) from error


def _patch_side(backbone: nn.Module) -> int:
    patch_embed: Any = backbone.patch_embed
    return int(patch_embed.feat_ratio(as_scalar=True))


def first_line(error: Exception) -> str:
    """First line of the error's message, at most 200 characters."""
    return (str(error).strip().splitlines() or ["no details"])[0][:200]
