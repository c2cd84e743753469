"""What a buyer does to the merchant's photo before handing it in as his own: crop, resize, turn, save, cover.

Each transformation moves a mask of painted pixels along, so that the trial can tell where the damage went.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

RGB: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.bool_]
Laundering: TypeAlias = Callable[
    [Image.Image, Image.Image, np.random.Generator], tuple[Image.Image, Image.Image]
]

_SCALES = (0.35, 2.0)
_LOWEST_QUALITY = 40


def launder(
    rgb: RGB, mask: Mask, transformation: str, rng: np.random.Generator
) -> tuple[bytes, Mask]:
    """(the file that is handed in, the mask moved with the pixels). rgb: uint8 [h, w, 3]. mask: bool [h, w].

    transformation: a name of `TRANSFORMATIONS`. The file is a JPEG of quality 75 to 92, of 40 after "recompressed".
    """
    painted = Image.fromarray(mask.astype(np.uint8) * 255)
    picture, painted = TRANSFORMATIONS[transformation](Image.fromarray(rgb), painted, rng)
    quality = _LOWEST_QUALITY if transformation == "recompressed" else int(rng.integers(75, 93))
    return jpeg(picture, quality), np.asarray(painted) > 127


def jpeg(picture: Image.Image, quality: int) -> bytes:
    """The bytes of a JPEG file with colours at half resolution, as phones and chat apps write it."""
    data = io.BytesIO()
    picture.save(data, format="JPEG", quality=quality, subsampling="4:2:0")
    return data.getvalue()


def _saved(
    picture: Image.Image, mask: Image.Image, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    return picture, mask


def _cropped(
    picture: Image.Image, mask: Image.Image, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    keep = rng.uniform(0.6, 0.9)
    width, height = round(picture.width * keep), round(picture.height * keep)
    left = int(rng.integers(0, picture.width - width + 1))
    top = int(rng.integers(0, picture.height - height + 1))
    box = (left, top, left + width, top + height)
    return picture.crop(box), mask.crop(box)


def _resized(scale: float) -> Laundering:
    def resize(
        picture: Image.Image, mask: Image.Image, rng: np.random.Generator
    ) -> tuple[Image.Image, Image.Image]:
        size = round(picture.width * scale), round(picture.height * scale)
        return picture.resize(size, Image.Resampling.BICUBIC), mask.resize(
            size, Image.Resampling.BILINEAR
        )

    return resize


def _turned(
    picture: Image.Image, mask: Image.Image, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    angle = float(rng.uniform(-180, 180))
    turned = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=(255, 255, 255))
    return turned, mask.rotate(angle, Image.Resampling.BILINEAR, expand=True)


def _with_logo(
    picture: Image.Image, mask: Image.Image, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    side = min(picture.size)
    font = ImageFont.load_default(side * 0.09)
    place = (
        float(rng.uniform(0, 0.5) * picture.width),
        float(rng.uniform(0, 0.8) * picture.height),
    )
    draw.text(
        place,
        "best-shop.example",
        fill=(255, 255, 255, 160),
        font=font,
        stroke_width=1,
        stroke_fill=(0, 0, 0, 90),
    )
    draw.ellipse((side * 0.04, side * 0.04, side * 0.16, side * 0.16), fill=(200, 30, 40, 230))
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB"), mask


def _brighter(
    picture: Image.Image, mask: Image.Image, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    lit = ImageEnhance.Brightness(picture).enhance(float(rng.uniform(0.75, 1.25)))
    lit = ImageEnhance.Contrast(lit).enhance(float(rng.uniform(0.8, 1.25)))
    return ImageEnhance.Color(lit).enhance(float(rng.uniform(0.7, 1.3))), mask


def _mirrored(
    picture: Image.Image, mask: Image.Image, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mask.transpose(
        Image.Transpose.FLIP_LEFT_RIGHT
    )


def _mixed(
    picture: Image.Image, mask: Image.Image, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    chain = [_mirrored] if rng.random() < 0.5 else []
    for step in (*chain, _cropped, _brighter, _resized(float(rng.uniform(0.6, 1.4)))):
        picture, mask = step(picture, mask, rng)
    return picture, mask


TRANSFORMATIONS: Mapping[str, Laundering] = {
    "saved": _saved,
    "cropped": _cropped,
    "smaller": _resized(_SCALES[0]),
    "larger": _resized(_SCALES[1]),
    "turned": _turned,
    "recompressed": _saved,
    "logo": _with_logo,
    "brighter": _brighter,
    "mirrored": _mirrored,
    "mixed": _mixed,
}
"""The names that the trial's table goes by."""
