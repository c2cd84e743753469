"""The network: a timm ViT whose patch tokens become an evidence map and whose class token helps to judge the tile.

The pixel contract ends here: the network takes uint8 tiles and normalises them itself, with the backbone's own mean and
standard deviation, so that the exported file, a checkpoint and a training step can't disagree on it.
"""

from __future__ import annotations

import difflib
import math
import sys
from pathlib import Path
from typing import Any, Self

import timm
import torch
from timm.models import load_checkpoint
from torch import Tensor, nn

from realdamage.errors import ConfigError, ModelFileError, RealDamageError
from realdamage.training import backbones  # noqa: F401  registers ours with timm

EVIDENCE_SHARPNESS = 2.0
"""Of the pooling from a tile's patches to its logit; part of the network, so it travels inside the graph."""


class EvidenceViT(nn.Module):
    """A ViT with one evidence logit a patch and one logit a tile.

    `forward(tiles)`: uint8 [n, tile, tile, 3] (RGB) → logit float32 [n], evidence float32 [n, tile/patch, tile/patch];
    positive means synthetic. The tile logit is the log-mean-exp of the evidence plus a linear reading of the class
    token, or of the mean of the patches where there is none.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, tile: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen: tuple[
            nn.Module, ...
        ] = ()  # parts of the backbone that stay as they are while others learn
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
        """As ever, but `frozen` parts stay in evaluation: in training a batch norm changes with every forward pass."""
        super().train(mode)
        for module in self.frozen:
            module.training = False
        return self

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        pixels = (tiles.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std
        tokens = self.backbone.forward_features(pixels)  # type: ignore[operator]
        with torch.autocast(
            tokens.device.type, enabled=False
        ):  # eight bits of a logit are too few to rank photos
            tokens = tokens.float()
            patches = tokens[:, self.prefix_tokens :]
            evidence = self.patch_head(patches).squeeze(-1)
            summary = tokens[:, 0] if self.class_token else patches.mean(dim=1)
            top = torch.logsumexp(evidence * EVIDENCE_SHARPNESS, dim=1)
            pooled = (top - math.log(self.grid**2)) / EVIDENCE_SHARPNESS
            logit = pooled + self.tile_head(summary).squeeze(-1)
        return logit, evidence.reshape(-1, self.grid, self.grid)


def build_network(
    backbone: str,
    *,
    tile: int,
    pretrained: bool,
    weights: str | None = None,
    drop_path: float = 0.0,
) -> EvidenceViT:
    """Makes the network around a timm backbone.

    `backbone`: a timm name (with its tag for pretrained weights); `tile`: side in pixels, a multiple of the backbone's
    patch; `weights`: a file of weights for a warm start, used instead of a download: of the backbone, or a .ckpt of
    realdamage-train, which brings the heads too; either may be of another tile.

    Raises ConfigError: unknown backbone, or a tile that is no multiple of the patch; ModelFileError: weights that
    cannot be downloaded or read.
    """
    if not timm.is_model(backbone.split(".")[0]):
        near = difflib.get_close_matches(
            backbone, timm.list_models("*vit*") + timm.list_pretrained("*vit*"), n=3
        )
        raise ConfigError(
            f"model.backbone={backbone}: timm {timm.__version__} has no such model; near: {', '.join(near) or 'none'}"
        )
    options: dict[str, Any] = {"img_size": tile, "num_classes": 0, "drop_path_rate": drop_path}
    try:
        body = timm.create_model(backbone, pretrained=pretrained and not weights, **options)
    except RealDamageError:
        raise
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"model.backbone={backbone} with model.tile={tile}: {error}") from error
    except Exception as error:
        raise ModelFileError(
            f"The pretrained weights of {backbone} could not be downloaded "
            f"({type(error).__name__}: {first_line(error)}). Without a network, give a local file with "
            "model.weights=PATH, or train from scratch with model.pretrained=false."
        ) from error
    ours = _our_checkpoint(weights)
    if weights and ours is None:
        _load_weights(body, backbone, Path(weights))
    if not hasattr(body, "patch_embed") or not hasattr(body, "num_prefix_tokens"):
        raise ConfigError(
            f"model.backbone={backbone}: not a vision transformer with patch tokens ({type(body).__name__})"
        )
    patch = _patch_side(body)
    if tile % patch:
        raise ConfigError(
            f"model.tile={tile} is no multiple of the patch of {backbone}, {patch} px; "
            f"near: {max(1, tile // patch) * patch}"
        )
    network = EvidenceViT(body, tile)
    if weights and ours is not None:
        _load_checkpoint(network, backbone, weights, ours)
    return network


def _patch_side(backbone: nn.Module) -> int:
    patch_embed: Any = backbone.patch_embed
    return int(patch_embed.feat_ratio(as_scalar=True))


def _load_weights(body: nn.Module, backbone: str, path: Path) -> None:
    """Warm start from a file: every tensor of the backbone must be in it; a head for classes may be there too."""
    if not path.is_file():
        raise ModelFileError(
            f"model.weights={path}: no such file. Give the path of a timm state dict, or null."
        )
    try:
        missing, unexpected = load_checkpoint(
            body, str(path), strict=False, filter_fn=_fitting(body), weights_only=True
        )
        if wrong := [*missing, *(name for name in unexpected if name.startswith("blocks."))]:
            raise ValueError(
                f"{len(missing)} tensors are missing, {len(unexpected)} too many, the first: {wrong[0]}"
            )
    except Exception as error:
        raise ModelFileError(
            f"model.weights={path}: these weights do not fit {backbone} ({type(error).__name__}: {first_line(error)}). "
            "Use the state dict of the same backbone, or model.weights=null."
        ) from error


def _our_checkpoint(weights: str | None) -> dict[str, Tensor] | None:
    """The network's tensors in a .ckpt that realdamage-train wrote; None for any other file, and for none."""
    if not weights or Path(weights).suffix != ".ckpt" or not Path(weights).is_file():
        return None
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
        tensors = {
            name.removeprefix("network."): value
            for name, value in state.items()
            if name.startswith("network.")
        }
    except Exception:
        return None  # timm may know the format, and says so if it does not
    return tensors or None


def _load_checkpoint(
    network: EvidenceViT, backbone: str, weights: str, tensors: dict[str, Tensor]
) -> None:
    """Warm start from one of our own runs."""
    body, fit = network.backbone, _fitting(network.backbone)
    inner = {
        name.removeprefix("backbone."): value
        for name, value in tensors.items()
        if name.startswith("backbone.")
    }
    fitted = fit(inner, body) if fit else inner
    outer = {name: value for name, value in tensors.items() if not name.startswith("backbone.")}
    try:
        network.load_state_dict(
            {**outer, **{f"backbone.{name}": value for name, value in fitted.items()}}
        )
    except RuntimeError as error:
        raise ModelFileError(
            f"model.weights={weights}: these weights do not fit {backbone} ({' '.join(str(error).split())[:200]}). "
            "Use a run of the same backbone with adapt=full or head, or model.weights=null."
        ) from error


def _fitting(body: nn.Module) -> Any:
    """timm keeps beside each architecture what fits weights to another tile."""
    return getattr(sys.modules[type(body).__module__], "checkpoint_filter_fn", None)


def first_line(error: Exception) -> str:
    """Of the error's message, at most 200 characters: enough for a sentence of ours."""
    return (str(error).strip().splitlines() or ["no details"])[0][:200]
