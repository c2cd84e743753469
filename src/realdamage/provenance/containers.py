"""Finds the blocks of metadata in a photo's bytes: linear in the file's size, without a decoder."""

from __future__ import annotations

import itertools
import re
import unicodedata
import zlib
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from realdamage.core.decode import HEIC_BRANDS
from realdamage.core.verdict import Reason
from realdamage.phrases import Phrase, phrase
from realdamage.provenance.exif import MAX_BLOCK, decode_text

MAX_TOTAL = 16 << 20
MAX_BLOCKS = 1000
MAX_CHUNKS = 100_000
"""Segments or chunks of one file; a PNG of 100 MB in the usual chunks of 8 KB has 12,800."""
MAX_NOTES = 20
MAX_FIELD = 300

_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_EXIF = b"Exif\x00\x00"
_PACKET_START, _PACKET_END = b"<x:xmpmeta", b"</x:xmpmeta>"
# TIFF headers with the first directory right behind, as in every camera's EXIF block.
_TIFF_STARTS = (b"II*\x00\x08\x00\x00\x00", b"MM\x00*\x00\x00\x00\x08")
_OTHER_STARTS = {
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
}
_SCANNED = 8
_FILL = re.compile(rb"\xff+")

Kind: TypeAlias = Literal["xmp", "exif", "text", "segment"]


@dataclass(frozen=True)
class Block:
    """A piece of metadata, and where it lies in the file. keyword: of a PNG text."""

    kind: Kind
    data: bytes
    where: str
    keyword: str = ""


@dataclass
class Blocks:
    """What was found in one file so far.

    container: JPEG, PNG, WebP, HEIC, AVIF, TIFF, GIF, JPEG 2000, BMP or "".
    total, inflated: bytes of the blocks, and decompressed bytes.
    """

    container: str = ""
    found: list[Block] = field(default_factory=list)
    notes: list[Reason] = field(default_factory=list)
    credentials: bool = False
    total: int = 0
    inflated: int = 0

    def add(self, kind: Kind, data: bytes, where: str, keyword: str = "") -> None:
        """Keep a block unless it is too large, one too many, or a repetition."""
        full = self.total + len(data) > MAX_TOTAL or len(self.found) >= MAX_BLOCKS
        if full or len(data) > MAX_BLOCK:
            self.limit(phrase("too_many_bytes", size=len(data)), where)
            return
        recent = [(block.data, block.keyword) for block in self.found[-8:]]
        if data and (data, keyword) not in recent:
            self.total += len(data)
            self.found.append(Block(kind, data, where, keyword))

    def inflate(self, data: bytes, where: str) -> bytes:
        """Decompress zlib data; empty, with a note, when it is broken or too large."""
        room = min(MAX_BLOCK, MAX_TOTAL - self.inflated)
        decompressor = zlib.decompressobj()
        try:
            text = decompressor.decompress(data, room) if room > 0 else b""
        except zlib.error:
            self.broken(phrase("text_damaged"), where)
            return b""
        self.inflated += len(text)
        if room <= 0 or (not decompressor.eof and decompressor.unconsumed_tail):
            self.limit(phrase("grows_too_large", size=max(room, 0)), where)
            return b""
        return text

    def limit(self, said: Phrase, where: str = "") -> None:
        """Note that something was left out for its size or number."""
        self.note("metadata_limit", *_about(where), said)

    def broken(self, said: Phrase, where: str = "") -> None:
        """Note that something could not be understood."""
        self.note("broken_metadata", *_about(where), said)

    def note(self, code: str, *phrases: Phrase) -> None:
        """Keep a note, each once, the first 20."""
        reason = Reason.of(code, *phrases)
        if reason not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(reason)


def _about(where: str) -> list[Phrase]:
    return [phrase("about", name=where)] if where else []


def clean(value: object, limit: int = MAX_FIELD) -> str:
    """Text that is safe to show: no control or direction characters, at most `limit` characters."""
    text = str(value)[: 4 * limit]
    shown = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def find_blocks(data: bytes) -> Blocks:
    """All blocks of metadata, and notes on what is broken or too large. Never raises."""
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
        # Of any size: its directories are read in place.
        blocks.found.append(Block("exif", data, "TIFF"))
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
        brand = data[8:12]
        return "AVIF" if brand in (b"avif", b"avis") else "HEIC" if brand in HEIC_BRANDS else ""
    return next((name for start, name in _OTHER_STARTS.items() if data.startswith(start)), "")


def _walk_jpeg(data: bytes, blocks: Blocks) -> None:
    position = 2
    for _ in range(MAX_CHUNKS):
        if fill := _FILL.match(data, position):
            position = fill.end() - 1
        if position + 4 > len(data) or data[position] != 0xFF:
            blocks.note("file_cut_off", phrase("jpeg_breaks_off", position=position))
            break
        marker = data[position + 1]
        if marker in (0xD9, 0xDA):  # the end, or the picture itself
            ends = data.rstrip(b"\x00").endswith(b"\xff\xd9")
            if not ends and data.rfind(b"\xff\xd9", position) < 0:
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
        _jpeg_segment(marker, segment, position, blocks)
        position += 2 + length
    else:
        blocks.limit(phrase("too_many_segments", count=MAX_CHUNKS))
    _scan_xmp(data, position, blocks)


def _jpeg_segment(marker: int, segment: bytes, position: int, blocks: Blocks) -> None:
    is_app = 0xE0 <= marker <= 0xEF
    where = f"{f'APP{marker - 0xE0}' if is_app else 'COM'} at byte {position}"
    if marker == 0xE1 and segment.startswith(_EXIF):
        blocks.add("exif", segment[len(_EXIF) :], f"EXIF, {where}")
    elif marker == 0xE1 and segment.startswith(_XMP):
        blocks.add("xmp", segment[len(_XMP) :], f"XMP, {where}")
    elif marker == 0xFE or (is_app and b"AIGC" in segment):
        blocks.add("segment", segment, where)


def _walk_png(data: bytes, blocks: Blocks) -> None:
    position, after = 8, ""
    for _ in range(MAX_CHUNKS):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        if len(kind) < 4 or position + 12 + length > len(data):
            blocks.note("file_cut_off", phrase("png_breaks_off", position=position))
            break
        chunk = data[position + 8 : position + 8 + length]
        if kind == b"IDAT":
            after = " (after IDAT)"
        elif kind == b"eXIf":
            where = f"EXIF, PNG eXIf at byte {position}{after}"
            blocks.add("exif", chunk.removeprefix(_EXIF), where)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            _png_text(kind.decode(), chunk, f"at byte {position}{after}", blocks)
        position += 12 + length
        if kind == b"IEND":
            break
    else:
        blocks.limit(phrase("too_many_chunks", count=MAX_CHUNKS))
    _scan_xmp(data, position, blocks)


def _png_text(kind: str, chunk: bytes, place: str, blocks: Blocks) -> None:
    name, _, rest = chunk.partition(b"\x00")
    keyword = decode_text(name[:79])
    where = f"PNG {kind} {keyword} {place}"
    compressed = kind == "zTXt" or (kind == "iTXt" and rest[:1] == b"\x01")
    if kind == "zTXt":
        rest = rest[1:]
    elif kind == "iTXt":
        rest = rest[2:].partition(b"\x00")[2].partition(b"\x00")[2]
    if compressed:
        rest = blocks.inflate(rest, where)
    if keyword == "XML:com.adobe.xmp":
        blocks.add("xmp", rest, where)
    else:
        blocks.add("text", rest, where, keyword)


def _walk_webp(data: bytes, blocks: Blocks) -> None:
    position = 12
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        blocks.note("file_cut_off", phrase("webp_too_short"))
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            break
        kind = data[position : position + 4]
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        where = f"WebP chunk at byte {position}"
        position += 8
        if kind == b"EXIF":
            chunk = data[position : position + length]
            blocks.add("exif", chunk.removeprefix(_EXIF), f"EXIF, {where}")
        elif kind == b"XMP ":
            blocks.add("xmp", data[position : position + length], f"XMP, {where}")
        position += length + length % 2
    else:
        blocks.limit(phrase("too_many_chunks", count=MAX_CHUNKS))


def _scan_xmp(data: bytes, position: int, blocks: Blocks) -> None:
    """XMP packets that no walk found: in containers that are not walked, and behind the picture."""
    for _ in range(_SCANNED):
        start = data.find(_PACKET_START, position)
        if start < 0:
            return
        end = data.find(_PACKET_END, start)
        position = end + len(_PACKET_END) if end >= 0 else len(data)
        blocks.add("xmp", data[start:position], f"XMP at byte {start}, found by its first word")


def _scan_exif(data: bytes, blocks: Blocks) -> None:
    found: list[int] = []
    for header in _TIFF_STARTS:
        starts = (match.start() for match in re.finditer(re.escape(header), data))
        found += itertools.islice(starts, _SCANNED)
    for position in sorted(found)[:_SCANNED]:
        block = data[position : position + MAX_BLOCK // 4]
        blocks.add("exif", block, f"EXIF at byte {position}, found by its header")
