"""Photos and files as strangers send them: noise in every format, broken, cut, and a bomb."""

from __future__ import annotations

import io
import random
import zlib

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP")


def photo(form: str, draw: random.Random, side: int = 160) -> bytes:
    """A photo of noise in this format."""
    rgb = np.random.default_rng(draw.randrange(2**32)).integers(
        0, 256, (side, side + 32, 3), dtype=np.uint8
    )
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, form)
    return data.getvalue()


def mutate(data: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, taken out, doubled or cut off."""
    found = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        if not found:
            break
        at = draw.randrange(len(found))
        kind = draw.randrange(5)
        if kind == 0:
            found[at] = draw.randrange(256)
        elif kind == 1:
            found[at : at + 4] = draw.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0")
            )
        elif kind == 2:
            del found[at : at + draw.randint(1, 64)]
        elif kind == 3:
            found[at:at] = found[at : at + draw.randint(1, 64)]
        else:
            del found[max(1, at) :]
    return bytes(found)


def bomb() -> bytes:
    """A small file whose header says 400 million pixels."""
    small = io.BytesIO()
    Image.new("1", (64, 64)).save(small, "PNG")
    data = bytearray(small.getvalue())
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    crc = zlib.crc32(bytes(data[12:29]))
    data[29:33] = crc.to_bytes(4, "big")
    return bytes(data)
