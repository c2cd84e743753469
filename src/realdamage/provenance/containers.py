"""Finds the blocks of metadata in a photo's bytes, whatever the container; every walk is linear in the file's size.

No pixels are decoded and no decoder is asked: a block is found even where the picture is broken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from realdamage.phrases import phrase
from realdamage.provenance.containers import (
    MAX_BLOCK,
    MAX_CHUNKS,
    MAX_TOTAL,
    Block,
    Blocks,
    decode_text,
)
from realdamage.provenance.exif_iim import PHOTOSHOP, find_iim

_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\x00"
_EXIF = b"Exif\x00\x00"
_PACKET_START, _PACKET_END = b"<x:xmpmeta", b"</x:xmpmeta>"
# TIFF headers whose first directory follows at once, as in every EXIF block of a camera.
_TIFF_STARTS = (b"II*\x00\x08\x00\x00\x00", b"MM\x00*\x00\x00\x00\x08")
_SCANNED = 8
_FILL = re.compile(rb"\xff+")
_AVIF, _HEIC = (
    {b"avif", b"avis"},
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"},
)


def find_blocks(data: bytes) -> Blocks:
    """All blocks of metadata in the file, and notes on what is broken or beyond the limits. Never raises."""
    blocks = Blocks()
    if data.startswith(b"\xff\xd8\xff"):
        blocks.container = "JPEG"
        _walk_jpeg(data, blocks)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        blocks.container = "PNG"
        _walk_png(data, blocks)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        blocks.container = "WebP"
        _walk_webp(data, blocks)
    elif data[:4] in (b"II*\x00", b"MM\x00*"):
        blocks.container = "TIFF"
        blocks.found.append(
            Block("exif", data, "TIFF")
        )  # of any size: its directories are read in place
    else:
        blocks.container = _other_container(data)
        if not blocks.container:
            blocks.note("not_a_photo", phrase("not_a_photo", start=repr(data[:12])))
        _scan_exif(data, blocks)
        _scan_xmp(data, 0, blocks)
    blocks.credentials = blocks.credentials or (b"jumb" in data and b"c2pa" in data)
    return blocks


def _other_container(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "AVIF" if data[8:12] in _AVIF else "HEIC" if data[8:12] in _HEIC else ""
    starts = {
        b"GIF87a": "GIF",
        b"GIF89a": "GIF",
        b"BM": "BMP",
        b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    }
    return next((name for start, name in starts.items() if data.startswith(start)), "")


@dataclass
class _Parts:
    """What a JPEG spreads over several segments. xmp: extended XMP, by its digest and the offset. photoshop: resources
    in their order, which begin at byte `photoshop_at`."""

    xmp: dict[bytes, dict[int, bytes]] = field(default_factory=dict)
    photoshop: list[bytes] = field(default_factory=list)
    photoshop_at: int = 0


def _walk_jpeg(data: bytes, blocks: Blocks) -> None:
    position = 2
    parts = _Parts()
    for _ in range(MAX_CHUNKS):
        if fill := _FILL.match(data, position):
            position = fill.end() - 1
        if position + 4 > len(data) or data[position] != 0xFF:
            blocks.note("file_cut_off", phrase("jpeg_breaks_off", position=position))
            break
        marker = data[position + 1]
        if marker in (0xD9, 0xDA):  # the end, or the picture itself
            if (
                not data.rstrip(b"\x00").endswith(b"\xff\xd9")
                and data.rfind(b"\xff\xd9", position) < 0
            ):
                blocks.note("file_cut_off", phrase("jpeg_without_end"))
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position + 4 : position + 2 + length]
        if length < 2 or len(segment) < length - 2:
            blocks.note("file_cut_off", phrase("jpeg_breaks_off", position=position))
            break
        _jpeg_segment(marker, segment, position, parts, blocks)
        position += 2 + length
    else:
        blocks.limit(phrase("too_many_segments", count=MAX_CHUNKS))
    _assemble_xmp(parts.xmp, blocks)
    _assemble_photoshop(parts, blocks)
    _scan_xmp(data, position, blocks)


def _jpeg_segment(
    marker: int, segment: bytes, position: int, parts: _Parts, blocks: Blocks
) -> None:
    name = f"APP{marker - 0xE0}" if 0xE0 <= marker <= 0xEF else "COM"
    where = f"{name} at byte {position}"
    if marker == 0xE1 and segment.startswith(_EXIF):
        blocks.add("exif", segment[len(_EXIF) :], f"EXIF, {where}")
    elif marker == 0xE1 and segment.startswith(_XMP):
        blocks.add("xmp", segment[len(_XMP) :], f"XMP, {where}")
    elif (
        marker == 0xE1
        and segment.startswith(_EXTENDED_XMP)
        and len(segment) >= len(_EXTENDED_XMP) + 40
    ):
        at = len(_EXTENDED_XMP)
        offset = int.from_bytes(segment[at + 36 : at + 40], "big")
        parts.xmp.setdefault(segment[at : at + 36], {})[offset] = segment[at + 40 :]
    elif marker == 0xFE or (0xE0 <= marker <= 0xEF and b"AIGC" in segment):
        blocks.add("segment", segment, where)
    if marker == 0xED and segment.startswith(PHOTOSHOP):
        parts.photoshop_at = parts.photoshop_at or position
        parts.photoshop.append(segment[len(PHOTOSHOP) :])


def _assemble_xmp(parts: dict[bytes, dict[int, bytes]], blocks: Blocks) -> None:
    """Extended XMP: parts of at most 64 KB with their offsets, whole only when they meet without a gap."""
    for key, pieces in parts.items():
        total = int.from_bytes(key[32:], "big")
        where = f"extended XMP in {len(pieces)} APP1 segments"
        if total > MAX_BLOCK:
            blocks.limit(phrase("about", name=where), phrase("too_many_bytes", size=total))
            continue
        packet = bytearray()
        for offset, piece in sorted(pieces.items()):
            if offset != len(packet):
                break
            packet += piece
        if len(packet) == total:
            blocks.add("xmp", bytes(packet), where)
        else:
            blocks.broken(
                phrase("about", name=where), phrase("bytes_missing", there=len(packet), size=total)
            )


def _assemble_photoshop(parts: _Parts, blocks: Blocks) -> None:
    """IPTC-IIM among Photoshop's resources."""
    where = f"IPTC-IIM, APP13 at byte {parts.photoshop_at}"
    if (total := sum(map(len, parts.photoshop))) > MAX_TOTAL:
        blocks.limit(phrase("about", name=where), phrase("too_many_bytes", size=total))
        return
    found, unread_from = find_iim(b"".join(parts.photoshop))
    for block in found:
        blocks.add("iim", block, where)
    if unread_from >= 0:
        blocks.broken(phrase("about", name=where), phrase("unread_from", position=unread_from))


def _walk_png(data: bytes, blocks: Blocks) -> None:
    position, after = 8, ""
    for _ in range(MAX_CHUNKS):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        if len(kind) < 4 or position + 12 + length > len(data):
            blocks.note("file_cut_off", phrase("png_breaks_off", position=position))
            break
        if kind == b"IDAT":
            after = " (after IDAT)"
        elif kind in (b"tEXt", b"zTXt", b"iTXt", b"eXIf"):
            _png_chunk(
                kind.decode(), data[position + 8 : position + 8 + length], position, after, blocks
            )
        position += 12 + length
        if kind == b"IEND":
            break
    else:
        blocks.limit(phrase("too_many_chunks", count=MAX_CHUNKS))
    _scan_xmp(data, position, blocks)


def _png_chunk(kind: str, chunk: bytes, position: int, after: str, blocks: Blocks) -> None:
    if kind == "eXIf":
        blocks.add("exif", chunk.removeprefix(_EXIF), f"EXIF, PNG eXIf at byte {position}{after}")
        return
    name, _, rest = chunk.partition(b"\x00")
    keyword = decode_text(name[:79])
    where = f"PNG {kind} {keyword} at byte {position}{after}"
    compressed = kind == "zTXt"
    if kind == "zTXt":
        rest = rest[1:]
    elif kind == "iTXt":
        compressed = rest[:1] == b"\x01"
        rest = rest[2:].partition(b"\x00")[2].partition(b"\x00")[2]
    if compressed:
        rest = blocks.inflate(rest, where)
    if keyword == "XML:com.adobe.xmp":
        blocks.add("xmp", rest, where)
    elif keyword.startswith("Raw profile type "):
        _raw_profile(keyword.removeprefix("Raw profile type "), rest, where, blocks)
    else:
        blocks.add("text", rest, where, keyword)


def _raw_profile(name: str, text: bytes, where: str, blocks: Blocks) -> None:
    """EXIF or XMP as ImageMagick writes it into a text: its name, its length, and the bytes in hexadecimal."""
    if name.lower() not in ("exif", "app1", "xmp"):
        return
    try:
        profile = bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
    except ValueError:
        blocks.broken(phrase("about", name=where), phrase("not_hexadecimal"))
        return
    if profile.startswith(_XMP):
        blocks.add("xmp", profile[len(_XMP) :], where)
    elif name.lower() == "xmp":
        blocks.add("xmp", profile, where)
    else:
        blocks.add("exif", profile.removeprefix(_EXIF), f"EXIF, {where}")


def _walk_webp(data: bytes, blocks: Blocks) -> None:
    position = 12
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        blocks.note("file_cut_off", phrase("webp_too_short"))
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            break
        kind, length = (
            data[position : position + 4],
            int.from_bytes(data[position + 4 : position + 8], "little"),
        )
        chunk = data[position + 8 : position + 8 + length] if kind in (b"EXIF", b"XMP ") else b""
        if kind == b"EXIF":
            blocks.add("exif", chunk.removeprefix(_EXIF), f"EXIF, WebP chunk at byte {position}")
        elif kind == b"XMP ":
            blocks.add("xmp", chunk, f"XMP, WebP chunk at byte {position}")
        position += 8 + length + length % 2
    else:
        blocks.limit(phrase("too_many_chunks", count=MAX_CHUNKS))


def _scan_xmp(data: bytes, position: int, blocks: Blocks) -> None:
    """XMP packets that no walk led to: in containers that are not walked, and behind the picture of the others."""
    for _ in range(_SCANNED):
        start = data.find(_PACKET_START, position)
        if start < 0:
            return
        end = data.find(_PACKET_END, start)
        position = end + len(_PACKET_END) if end >= 0 else len(data)
        blocks.add("xmp", data[start:position], f"XMP at byte {start}, found by its first word")


def _scan_exif(data: bytes, blocks: Blocks) -> None:
    found = []
    for header in _TIFF_STARTS:
        position = -1
        for _ in range(_SCANNED):
            position = data.find(header, position + 1)
            if position < 0:
                break
            found.append(position)
    for position in sorted(found)[:_SCANNED]:
        blocks.add(
            "exif",
            data[position : position + MAX_BLOCK // 4],
            f"EXIF at byte {position}, found by its header",
        )
