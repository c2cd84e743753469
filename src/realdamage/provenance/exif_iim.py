"""Reads the few EXIF fields that tell where a picture comes from, straight from the TIFF structure.

Without opening the picture, and with what is broken told in a sentence: Pillow prints a warning for every broken entry,
thousands for one made-up block. Here a directory has at most 1000 entries, and only known ones are followed, so entries
that all point to the whole block cost nothing.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from realdamage.provenance.containers import MAX_BLOCK, decode_text

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
_ORIENTATION, _XMP, _EXIF_DIRECTORY, _GPS_DIRECTORY = 0x0112, 0x02BC, 0x8769, 0x8825
_THUMBNAIL, _THUMBNAIL_LENGTH, _CREDENTIALS = 0x0201, 0x0202, 0xCD41
_LATITUDE, _LONGITUDE = 2, 4
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_MAX_ENTRIES = 1000
_TIME = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_OFFSET = re.compile(r"[+-]\d\d:\d\d|Z")


@dataclass(frozen=True)
class Exif:
    """The fields of one EXIF block.

    texts: by the name of the field, as decoded, without a limit on their length but that of a block.
    thumbnail: bytes of the small JPEG, b"" without. turned: whether the two say different orientations.
    xmp: the packet that TIFF files hold here. problems: sentences on what is broken.
    """

    texts: dict[str, str] = field(default_factory=dict)
    gps: bool = False
    thumbnail: bytes = b""
    xmp: bytes = b""
    credentials: bool = False
    problems: tuple[str, ...] = ()

    @property
    def taken(self) -> str:
        """When it was taken, as 2026-01-31T12:30:00 with the offset that the file states, or ""."""
        for name in ("DateTimeOriginal", "DateTimeDigitized"):
            if found := _TIME.match(self.texts.get(name, "").strip()):
                year, month, day, hour, minute, second = found.groups()
                offset = _OFFSET.match(self.texts.get("OffsetTimeOriginal", "").strip())
                return f"{year}-{month}-{day}T{hour}:{minute}:{second}{offset[0] if offset else ''}"
        return ""


def read_exif(data: bytes) -> Exif:
    """Read a TIFF structure (EXIF without its "Exif" header, or a TIFF file). Never raises."""
    if data[:4] not in (b"II*\x00", b"MM\x00*"):
        return Exif(problems=("it does not begin as a TIFF structure",))
    return _Reader(data).read()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data[:1] == b"I" else ">"
        self.problems: list[str] = []

    def read(self) -> Exif:
        first, following = self._directory(self._integer(4, "I"), "the first directory")
        texts = self._texts(first)
        camera, _ = self._pointed(first, _EXIF_DIRECTORY, "the EXIF directory")
        texts.update(self._texts(camera))
        position, _ = self._pointed(first, _GPS_DIRECTORY, "the GPS directory")
        gps = any(position.get(_LATITUDE, b"").strip(b"\x00")) and any(
            position.get(_LONGITUDE, b"").strip(b"\x00")
        )
        small, _ = self._directory(following, "the thumbnail's directory") if following else ({}, 0)
        return Exif(
            texts,
            gps,
            self._thumbnail(small),
            first.get(_XMP, b""),
            _CREDENTIALS in first,
            tuple(self.problems),
        )

    def _directory(self, offset: int | None, name: str) -> tuple[dict[int, bytes], int]:
        """The known entries' bytes by tag, and the offset of the next directory."""
        count = self._integer(offset, "H") if offset else None
        if offset is None or count is None:
            self.problems.append(f"{name} lies beyond the end")
            return {}, 0
        if count > _MAX_ENTRIES:
            self.problems.append(f"{name} has {count} entries, of which {_MAX_ENTRIES} were read")
        values: dict[int, bytes] = {}
        known = {
            *_TEXTS,
            _ORIENTATION,
            _XMP,
            _EXIF_DIRECTORY,
            _GPS_DIRECTORY,
            _THUMBNAIL,
            _THUMBNAIL_LENGTH,
        }
        known |= {_CREDENTIALS, _LATITUDE, _LONGITUDE}
        for index in range(min(count, _MAX_ENTRIES)):
            at = offset + 2 + 12 * index
            if at + 12 > len(self.data):
                self.problems.append(f"{name} is cut off")
                return values, 0
            tag, form, number = struct.unpack_from(self.order + "HHI", self.data, at)
            if tag not in known or tag in values:
                continue
            size = _SIZES.get(form, 0) * number
            start = at + 8 if size <= 4 else self._integer(at + 8, "I")
            if not size or size > MAX_BLOCK or start is None or start + size > len(self.data):
                if number and tag != _CREDENTIALS:
                    self.problems.append(
                        f"the field {_TEXTS.get(tag, hex(tag))} points beyond the end"
                    )
                continue
            values[tag] = self.data[start : start + size]
        return values, self._integer(offset + 2 + 12 * count, "I") or 0

    def _pointed(
        self, values: dict[int, bytes], tag: int, name: str
    ) -> tuple[dict[int, bytes], int]:
        value = values.get(tag, b"")
        return self._directory(self._number(value), name) if value else ({}, 0)

    def _thumbnail(self, values: dict[int, bytes]) -> bytes:
        start, length = (
            self._number(values.get(tag, b"")) for tag in (_THUMBNAIL, _THUMBNAIL_LENGTH)
        )
        return self.data[start : start + length] if start and 0 < length <= MAX_BLOCK else b""

    def _number(self, value: bytes) -> int:
        """An unsigned SHORT or LONG; 0 for anything else."""
        return (
            int.from_bytes(value, "little" if self.order == "<" else "big")
            if len(value) in (2, 4)
            else 0
        )

    def _integer(self, offset: int | None, form: str) -> int | None:
        if offset is None or offset + struct.calcsize(form) > len(self.data):
            return None
        value: int = struct.unpack_from(self.order + form, self.data, offset)[0]
        return value

    def _texts(self, values: dict[int, bytes]) -> dict[str, str]:
        texts = {}
        for tag, value in values.items():
            if tag in _TEXTS:
                if tag == 0x9286:
                    text = decode_user_comment(value, self.order)
                elif tag >= 0x9C9B:
                    text = value.decode("utf-16-le", errors="replace")
                else:
                    text = decode_text(value)
                if text := text.replace("\x00", " ").strip():
                    texts[_TEXTS[tag]] = text
        return texts


def decode_user_comment(value: bytes, order: str = ">") -> str:
    """The text after the eight bytes that name its code. order: "<" or ">", of the TIFF structure.

    UNICODE is UTF-16 in the structure's order, but many write the other one, or UTF-8: what reads as more ASCII wins.
    """
    code, text = value[:8], value[8:]
    if code.startswith(b"UNICODE"):
        orders = ("utf-16-le", "utf-16-be") if order == "<" else ("utf-16-be", "utf-16-le")
        return max(
            (text.decode(form, errors="replace") for form in (*orders, "utf-8")), key=_readable
        )
    if code.startswith(b"JIS"):
        forms = ("iso2022_jp", "shift_jis", "utf-8")
        return max((text.decode(form, errors="replace") for form in forms), key=_readable)
    if code.startswith(b"ASCII") or not any(code):
        return decode_text(text)
    return decode_text(value)


def _readable(text: str) -> float:
    """Share of characters that are printable ASCII, in 0..1; of the first 2000."""
    start = text[:2000]
    return sum(" " <= c <= "~" for c in start) / len(start) if start else 0.0
