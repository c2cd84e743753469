"""Reads the few fields of EXIF and IPTC-IIM that say where a picture comes from.

Not with Pillow, which reads every entry: here entries that all point to the whole block cost
nothing. https://iptc.org/std/IIM/4.2/specification/IIMV4.2.pdf, Adobe's Photoshop File Formats.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Literal

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

PHOTOSHOP = b"Photoshop 3.0\x00"
"""The JPEG segments that hold Photoshop's resources begin with this."""
# What a resource begins with: Photoshop's own, and those of later programs.
_SIGNATURES = (b"8BIM", b"AgHg", b"DCSR", b"MeSa", b"PHUT")
_IIM_RESOURCE, _APPLICATION_RECORD = 0x0404, 2
_DATASETS = {
    40: "SpecialInstructions",
    65: "OriginatingProgram",
    70: "ProgramVersion",
    80: "By-line",
    110: "Credit",
    120: "Caption",
}
_MAX_PARTS = 10_000  # resources, or datasets: far more than programs write
_MAX_BLOCKS = _MAX_VALUES = 8  # IIM blocks of a file (usually one), values of a field


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


def find_iim(resources: bytes) -> tuple[list[bytes], int]:
    """The IPTC-IIM blocks among Photoshop's resources, and the first unreadable byte, or -1.

    resources: what follows PHOTOSHOP in all segments, joined. Never raises.
    """
    found: list[bytes] = []
    position, end = 0, len(resources.rstrip(b"\x00"))
    for _ in range(_MAX_PARTS):
        if position and resources[position - 1 : position + 3] in _SIGNATURES:
            position -= 1  # some programs leave out the padding byte after an odd length
        if position >= end:
            return found, -1
        name_at = position + 6
        size_at = name_at + 2 + resources[name_at] // 2 * 2 if name_at < end else len(resources)
        start = size_at + 4
        size = int.from_bytes(resources[size_at:start], "big")
        if resources[position : position + 4] not in _SIGNATURES or start + size > len(resources):
            break
        if int.from_bytes(resources[position + 4 : name_at], "big") == _IIM_RESOURCE:
            if len(found) == _MAX_BLOCKS:
                break
            found.append(resources[start : start + size])
        position = start + size + size % 2
    return found, position


def read_iim(data: bytes) -> tuple[dict[str, list[str]], int]:
    """The distinct texts of one block by field name, and the first unreadable byte, or -1.

    A block is a list of datasets: marker, record, number, length and value. Never raises.
    """
    texts: dict[str, list[str]] = {}
    position, end = 0, len(data.rstrip(b"\x00"))
    for _ in range(_MAX_PARTS):
        if position >= end:
            return texts, -1
        start = position + 5
        size = int.from_bytes(data[position + 3 : start], "big")
        if size & 0x8000:  # the length itself has this many bytes
            width = size & 0x7FFF
            size = int.from_bytes(data[start : start + width], "big") if width <= 4 else len(data)
            start += width
        if data[position] != 0x1C or start + size > len(data):
            break
        is_ours = data[position + 1] == _APPLICATION_RECORD
        name = _DATASETS.get(data[position + 2]) if is_ours else None
        if name is not None and len(texts.get(name, ())) < _MAX_VALUES:
            text = decode_text(data[start : start + size]).replace("\x00", " ").strip()
            if text and text not in texts.setdefault(name, []):
                texts[name].append(text)
        position = start + size
    return texts, position
