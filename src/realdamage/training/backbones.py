"""`vit_micro`: the one backbone that trains from scratch on two CPU cores, registered with timm like any other.

Generator traces are a few grey levels deep and one or two pixels wide. A plain patch embedding must first learn filters
for them, which takes far more photos than a CPU can show it. `vit_micro` therefore starts with a convolutional stem
(Xiao et al. 2021, "Early Convolutions Help Transformers See Better") that sees two residuals instead of the photo (as
the noise-residual detectors since Fridrich & Kodovský 2012), and a short transformer above it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.hybrid_embed import HybridEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

FINE_GAIN, COARSE_GAIN = 8.0, 4.0
"""Bring the two residuals, some grey levels deep, to the scale of a photo before the first batch norm."""


class ResidualStem(nn.Module):
    """Convolutions from [n, 3, h, w] to [n, `channels[-1]`, h/16, w/16], over two bands of the photo: x minus its 3×3
    mean, where upsampling leaves its traces, and that mean minus its own 9×9 mean, which survives recompression.

    The bands hold no brightness or colour of a whole area, so what the photo shows is harder to learn by heart. The
    first convolution keeps the full resolution: un-shuffling the pixels first would lose none of them, but learns
    several times slower (data/results/LOG.md).
    """

    def __init__(self, channels: tuple[int, ...] = (16, 32, 64, 96, 192), in_chans: int = 3) -> None:
        super().__init__()
        self.num_features = channels[-1]
        self._mean_3, self._mean_9 = _LocalMean(3, in_chans), _LocalMean(9, in_chans)
        inputs = (2 * in_chans, *channels)
        steps = zip(inputs, channels, (1, 2, 2, 2, 2), strict=False)
        self.layers = nn.Sequential(*(layer for step in steps for layer in _convolution(*step)))

    def forward(self, x: Tensor) -> Tensor:
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


def _stem_embed(img_size: int, patch_size: int, in_chans: int, embed_dim: int, **options: Any) -> HybridEmbed:
    """timm's HybridEmbed over our stem; the patch of 16 px is the stem's own stride, so timm's patch is one cell."""
    stem = ResidualStem((16, 32, 64, 96, embed_dim), in_chans)
    return HybridEmbed(stem, img_size=img_size, patch_size=1, in_chans=in_chans, embed_dim=embed_dim, **options)


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
        }
    }
)


@register_model
def vit_micro(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """A 3-block, 192-wide ViT over `ResidualStem`: 1.2 million parameters, patches of 16 px. There are no pretrained
    weights.

    Layer scale starts at 0.1, so that in the first steps the evidence head reads the stem almost directly.
    """
    defaults = {"img_size": 128, "embed_dim": 192, "depth": 3, "num_heads": 3, "mlp_ratio": 2.0, "init_values": 0.1}
    return build_model_with_cfg(
        VisionTransformer,
        "vit_micro",
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        **{**defaults, "embed_layer": _stem_embed, **options},
    )
