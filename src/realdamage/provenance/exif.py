"""Reads the few EXIF fields that say where a picture comes from, and compares the photo with the
preview in its EXIF block, which edits often leave unchanged.

Not with Pillow, which reads every entry: here entries that all point to the whole block cost
nothing.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL import Image

from realdamage.core.decode import open_photo
from realdamage.provenance.precedence import ThumbnailState

MAX_BLOCK = 4 << 20
"""Bytes of an EXIF block, an XMP packet or a text; the largest real ones are workflows of 1 MB."""
_TEXTS = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x013B: "Artist",
    0x8298: "Copyright",
    0x9003: "DateTimeOriginal",
    0x9004: "DateTimeDigitized",
    0x9011: "OffsetTimeOriginal",
    0x9286: "UserComment",
    0x9C9B: "XPTitle",
    0x9C9C: "XPComment",
    0x9C9D: "XPAuthor",
}
_XMP, _EXIF_DIRECTORY, _GPS_DIRECTORY, _USER_COMMENT, _XP = 0x02BC, 0x8769, 0x8825, 0x9286, 0x9C9B
_THUMBNAIL, _THUMBNAIL_LENGTH, _CREDENTIALS = 0x0201, 0x0202, 0xCD41
_LATITUDE, _LONGITUDE = 2, 4
_POINTERS = {_XMP, _EXIF_DIRECTORY, _GPS_DIRECTORY, _THUMBNAIL, _THUMBNAIL_LENGTH, _CREDENTIALS}
_KNOWN = {*_TEXTS, *_POINTERS, _LATITUDE, _LONGITUDE}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_MAX_ENTRIES = 1000
_TIME = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d:\d\d:\d\d)")
_OFFSET = re.compile(r"[+-]\d\d:\d\d|Z")


@dataclass(frozen=True)
class Exif:
    """The fields of one EXIF block. texts: by field name. thumbnail: bytes of the preview, or b"".

    xmp: the packet that TIFF files have here. problems: what is broken.
    """

    texts: dict[str, str] = field(default_factory=dict)
    gps: bool = False
    thumbnail: bytes = b""
    xmp: bytes = b""
    credentials: bool = False
    problems: tuple[str, ...] = ()

    @property
    def taken(self) -> str:
        """When it was taken, as 2026-01-31T12:30:00 with the offset in the file, or ""."""
        for name in ("DateTimeOriginal", "DateTimeDigitized"):
            if found := _TIME.match(self.texts.get(name, "").strip()):
                year, month, day, time = found.groups()
                offset = _OFFSET.match(self.texts.get("OffsetTimeOriginal", "").strip())
                return f"{year}-{month}-{day}T{time}{offset[0] if offset else ''}"
        return ""


def read_exif(data: bytes) -> Exif:
    """Read a TIFF structure (EXIF without its "Exif" header, or a TIFF file). Never raises."""
    if data[:4] not in (b"II*\x00", b"MM\x00*"):
        return Exif(problems=("it does not begin as a TIFF structure",))
    return _ExifReader(data).read()


class _ExifReader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data[:1] == b"I" else ">"
        self.problems: list[str] = []

    def read(self) -> Exif:
        first, following = self._directory(self._integer(4, "I"), "the first directory")
        texts = self._texts(first)
        texts.update(self._texts(self._pointed(first, _EXIF_DIRECTORY, "the EXIF directory")))
        position = self._pointed(first, _GPS_DIRECTORY, "the GPS directory")
        gps = all(any(position.get(tag, b"").strip(b"\x00")) for tag in (_LATITUDE, _LONGITUDE))
        thumbnail = b""
        if following:
            small, _ = self._directory(following, "the thumbnail's directory")
            start, length = (self._number(small, tag) for tag in (_THUMBNAIL, _THUMBNAIL_LENGTH))
            if start and 0 < length <= MAX_BLOCK:
                thumbnail = self.data[start : start + length]
        credentials = _CREDENTIALS in first
        xmp = first.get(_XMP, b"")
        return Exif(texts, gps, thumbnail, xmp, credentials, tuple(self.problems))

    def _directory(self, offset: int | None, name: str) -> tuple[dict[int, bytes], int]:
        """The known entries' bytes by tag, and the offset of the next directory."""
        count = self._integer(offset, "H") if offset else None
        if offset is None or count is None:
            self.problems.append(f"{name} lies beyond the end")
            return {}, 0
        if count > _MAX_ENTRIES:
            self.problems.append(f"{name} has {count} entries, of which {_MAX_ENTRIES} were read")
        values: dict[int, bytes] = {}
        for at in range(offset + 2, offset + 2 + 12 * min(count, _MAX_ENTRIES), 12):
            if at + 12 > len(self.data):
                self.problems.append(f"{name} is cut off")
                return values, 0
            tag, form, number = struct.unpack_from(self.order + "HHI", self.data, at)
            if tag not in _KNOWN or tag in values:
                continue
            size = _SIZES.get(form, 0) * number
            start = at + 8 if size <= 4 else self._integer(at + 8, "I")
            if 0 < size <= MAX_BLOCK and start is not None and start + size <= len(self.data):
                values[tag] = self.data[start : start + size]
            elif number and tag != _CREDENTIALS:
                field_name = _TEXTS.get(tag, hex(tag))
                self.problems.append(f"the field {field_name} points beyond the end")
        return values, self._integer(offset + 2 + 12 * count, "I") or 0

    def _pointed(self, values: dict[int, bytes], tag: int, name: str) -> dict[int, bytes]:
        return self._directory(self._number(values, tag), name)[0] if tag in values else {}

    def _number(self, values: dict[int, bytes], tag: int) -> int:
        """An unsigned SHORT or LONG; 0 for anything else."""
        value = values.get(tag, b"")
        byte_order: Literal["little", "big"] = "little" if self.order == "<" else "big"
        return int.from_bytes(value, byte_order) if len(value) in (2, 4) else 0

    def _integer(self, offset: int | None, form: str) -> int | None:
        if offset is None or offset + struct.calcsize(form) > len(self.data):
            return None
        value: int = struct.unpack_from(self.order + form, self.data, offset)[0]
        return value

    def _texts(self, values: dict[int, bytes]) -> dict[str, str]:
        texts = {}
        for tag, value in values.items():
            if tag not in _TEXTS:
                continue
            if tag == _USER_COMMENT:
                text = decode_user_comment(value, self.order)
            elif tag >= _XP:
                text = value.decode("utf-16-le", errors="replace")
            else:
                text = decode_text(value)
            if text := text.replace("\x00", " ").strip():
                texts[_TEXTS[tag]] = text
        return texts


def decode_text(data: bytes) -> str:
    """UTF-8 if it is valid, else Latin-1, as in PNG."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def decode_user_comment(value: bytes, order: str = ">") -> str:
    """The text after the eight bytes that name its code. order: "<" or ">", of the TIFF structure.

    Many programs write UTF-16 in the other order, or UTF-8: the reading with the most ASCII wins.
    """
    code, text = value[:8], value[8:]
    forms: tuple[str, ...] = ()
    if code.startswith(b"UNICODE"):
        forms = ("utf-16-le", "utf-16-be") if order == "<" else ("utf-16-be", "utf-16-le")
    elif code.startswith(b"JIS"):
        forms = ("iso2022_jp", "shift_jis")
    if forms:
        readings = (text.decode(form, errors="replace") for form in (*forms, "utf-8"))
        return max(readings, key=_readable)
    return decode_text(text if code.startswith(b"ASCII") or not any(code) else value)


def _readable(text: str) -> float:
    """Share of printable ASCII among the first 2000 characters, in 0..1."""
    start = text[:2000]
    return sum(" " <= c <= "~" for c in start) / len(start) if start else 0.0


# Side of the grey versions that are compared, and of the blocks whose means are.
_SIDE, _BLOCK = 48, 3
TOLERANCE = 32.0
"""Largest difference of a block's mean, of 255, from a camera's own scaling and sharpening
(tested)."""
_DARK = 24  # a band at the edge that is darker than this is the bar of a letterbox
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF")
_MAX_PIXELS, _MAX_SIDE = 1_000_000, 2048  # of a thumbnail, which usually has 160x120


def compare_thumbnail(photo: bytes, thumbnail: bytes, max_pixels: int) -> ThumbnailState:
    """ "matches" or "differs"; "none" when either cannot be decoded or is too large, or when the
    thumbnail is not a JPEG (EXIF allows no other compression).

    All four rotations of the thumbnail are tried, since some programs turn only one of the two;
    with another shape, without bars and as the photo's middle. Brightness and contrast may differ;
    then no block of 1/16 of the side may differ by more than TOLERANCE.
    """
    if not thumbnail.startswith(b"\xff\xd8\xff"):
        return "none"
    try:
        small = open_photo(thumbnail, "thumbnail", min(max_pixels, _MAX_PIXELS))
        if max(small.size) > _MAX_SIDE:
            return "none"
        whole = open_photo(photo, "photo", max_pixels)
        if whole.format not in _FORMATS:
            return "none"
        whole.draft("L", (4 * _SIDE, 4 * _SIDE))  # a JPEG is decoded at about that size
        grey, preview = whole.convert("L"), small.convert("L")
        turned = [preview.rotate(angle, expand=True) for angle in (0, 90, 180, 270)]
        best = min(_difference(*pair) for angle in turned for pair in _aligned(grey, angle))
        return "matches" if best <= TOLERANCE else "differs"
    except Exception:  # decoders raise all kinds of errors on a broken file
        return "none"


def _aligned(whole: Image.Image, small: Image.Image) -> list[tuple[Image.Image, Image.Image]]:
    """Pairs that may show the same: unchanged, without bars, and the photo's middle."""
    shape, wanted = whole.width / whole.height, small.width / small.height
    if abs(shape / wanted - 1) < 0.02:
        return [(whole, small)]
    pairs = [(whole.crop(_middle(whole, wanted)), small)]
    middle = _middle(small, shape)
    if _has_bars(small, middle):
        pairs.append((whole, small.crop(middle)))
    return pairs


def _middle(image: Image.Image, shape: float) -> tuple[int, int, int, int]:
    """The largest box of `shape` (width / height) in the middle of an image."""
    width, height = image.size
    across, down = min(width, round(height * shape)), min(height, round(width / shape))
    across, down = max(1, across), max(1, down)
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def _has_bars(image: Image.Image, inside: tuple[int, int, int, int]) -> bool:
    grey = np.asarray(image, np.float64)
    left, top, right, bottom = inside
    outside = np.ones(grey.shape, np.bool_)
    outside[top:bottom, left:right] = False
    return bool(outside.any()) and float(grey[outside].mean()) < _DARK


def _difference(one: Image.Image, other: Image.Image) -> float:
    """The largest difference of a block's mean, of 255, after one linear fit of all grey values."""
    size, box = (_SIDE, _SIDE), Image.Resampling.BOX
    first, second = (np.asarray(image.resize(size, box), np.float64) for image in (one, other))
    spread = first.std()
    plain = (spread < 1, second.std() < 1)
    if all(plain):
        return float(abs(first.mean() - second.mean()))
    first, second = first - first.mean(), second - second.mean()
    gain = float((first * second).mean() / spread**2) if not any(plain) else 0.0
    if gain <= 0:
        return 255.0
    blocks = (second / max(gain, 0.25) - first).reshape(_SIDE // _BLOCK, _BLOCK, -1, _BLOCK)
    return float(np.abs(blocks.mean(axis=(1, 3))).max())
