"""What the walkers of containers hand on: blocks of metadata, each with its place, within bounds for every file."""

from __future__ import annotations

import unicodedata
import zlib
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from realdamage.core.verdict import Reason
from realdamage.phrases import Phrase, phrase

# A packet of XMP, an EXIF block or a text, after decompression; the largest that real files hold are workflows of 1 MB.
MAX_BLOCK = 4 << 20
MAX_TOTAL = 16 << 20
MAX_BLOCKS = 1000
# Segments or chunks walked over in one file; a PNG of 100 MB in the usual chunks of 8 KB has 12,800.
MAX_CHUNKS = 100_000
MAX_NOTES = 20
MAX_FIELD = 300

Kind: TypeAlias = Literal["xmp", "exif", "iim", "text", "segment"]


@dataclass(frozen=True)
class Block:
    """A piece of metadata: an XMP packet, a TIFF structure (EXIF), an IPTC-IIM block, a text with its keyword, or a
    segment of a JPEG."""

    kind: Kind
    data: bytes
    where: str
    keyword: str = ""


@dataclass
class Blocks:
    """What was found in one file so far. container: JPEG, PNG, WebP, HEIC, AVIF, TIFF, GIF, JPEG 2000, BMP or ""."""

    container: str = ""
    found: list[Block] = field(default_factory=list)
    notes: list[Reason] = field(default_factory=list)
    credentials: bool = False
    total: int = 0
    inflated: int = 0

    def add(self, kind: Kind, data: bytes, where: str, keyword: str = "") -> None:
        """Keep a block unless it is too large, one too many, or the same as one that is there."""
        if (
            len(data) > MAX_BLOCK
            or self.total + len(data) > MAX_TOTAL
            or len(self.found) >= MAX_BLOCKS
        ):
            self.limit(phrase("about", name=where), phrase("too_many_bytes", size=len(data)))
            return
        if data and not any(
            data == block.data and keyword == block.keyword for block in self.found[-8:]
        ):
            self.total += len(data)
            self.found.append(Block(kind, data, where, keyword))

    def inflate(self, data: bytes, where: str) -> bytes:
        """Decompress zlib data; empty, with a note, when it is broken or grows beyond the limits: of one block, and of
        all that one file makes us decompress."""
        room = min(MAX_BLOCK, MAX_TOTAL - self.inflated)
        decompressor = zlib.decompressobj()
        try:
            text = decompressor.decompress(data, room) if room > 0 else b""
        except zlib.error:
            self.broken(phrase("about", name=where), phrase("text_damaged"))
            return b""
        self.inflated += len(text)
        if room <= 0 or (not decompressor.eof and decompressor.unconsumed_tail):
            self.limit(phrase("about", name=where), phrase("grows_too_large", size=max(room, 0)))
            return b""
        return text

    def limit(self, *phrases: Phrase | str) -> None:
        """Note that something was left out for its size or number."""
        self.note("metadata_limit", *phrases)

    def broken(self, *phrases: Phrase | str) -> None:
        """Note that something could not be understood."""
        self.note("broken_metadata", *phrases)

    def note(self, code: str, *phrases: Phrase | str) -> None:
        """Keep a note, each once, the first 20."""
        said = (one if isinstance(one, Phrase) else phrase("verbatim", text=one) for one in phrases)
        reason = Reason.of(code, *said)
        if reason not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(reason)


def clean(value: object, limit: int = MAX_FIELD) -> str:
    """Text fit for a terminal and a page: no control or direction characters, at most `limit` characters."""
    text = str(value)[: 4 * limit]
    shown = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def decode_text(data: bytes) -> str:
    """UTF-8 where it is, else Latin-1, as PNG has it."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
