"""Reads the few fields of IPTC-IIM, the binary block of older programs, that name what made a picture.

A JPEG keeps it in APP13, as one of Photoshop's resources. Some programs still write it alone, without XMP. Only what is
asked for is decoded; lengths are checked before anything is cut out.

https://iptc.org/std/IIM/4.2/specification/IIMV4.2.pdf, and Adobe's Photoshop File Formats Specification.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from realdamage.provenance.containers import decode_text

PHOTOSHOP = b"Photoshop 3.0\x00"
"""How the segments begin that hold Photoshop's resources."""
# What a resource begins with: Photoshop's own, and those of programs that came after it.
_SIGNATURES = (b"8BIM", b"AgHg", b"DCSR", b"MeSa", b"PHUT")
_IIM = 0x0404
_APPLICATION_RECORD = 2
_TEXTS = {
    40: "SpecialInstructions",
    65: "OriginatingProgram",
    70: "ProgramVersion",
    80: "By-line",
    110: "Credit",
    120: "Caption",
}
# Of either, far more than programs write, so that a made-up file costs no more than a large one.
_MAX_PARTS = 10_000
# Blocks that are read in one file, where one is usual, and values of one field, where a few by-lines are.
_MAX_BLOCKS = _MAX_VALUES = 8


@dataclass(frozen=True)
class Iim:
    """The fields of one block: texts by the name of the field, each value once, in their order.

    unread_from: byte from which on it could not be read, -1 when all of it was.
    """

    texts: dict[str, list[str]] = field(default_factory=dict)
    unread_from: int = -1


def find_iim(resources: bytes) -> tuple[list[bytes], int]:
    """The blocks of IPTC-IIM among Photoshop's resources, and the byte from which on these could not be read, or -1.
    Never raises.

    resources: what follows PHOTOSHOP in all segments, joined: a long resource goes on in the next one.
    """
    found: list[bytes] = []
    position, end = 0, len(resources.rstrip(b"\x00"))
    for _ in range(_MAX_PARTS):
        if position and resources[position - 1 : position + 3] in _SIGNATURES:
            position -= 1  # after an odd length some programs leave out the byte that makes it even
        if position >= end:
            return found, -1
        name_at = position + 6
        size_at = name_at + 2 + resources[name_at] // 2 * 2 if name_at < end else len(resources)
        start = size_at + 4
        size = int.from_bytes(resources[size_at:start], "big")
        if resources[position : position + 4] not in _SIGNATURES or start + size > len(resources):
            break
        if int.from_bytes(resources[position + 4 : name_at], "big") == _IIM:
            if len(found) == _MAX_BLOCKS:
                break
            found.append(resources[start : start + size])
        position = start + size + size % 2
    return found, position


def read_iim(data: bytes) -> Iim:
    """Read one block: datasets of a marker, record, number, length and value. Never raises."""
    texts: dict[str, list[str]] = {}
    position, end = 0, len(data.rstrip(b"\x00"))
    for _ in range(_MAX_PARTS):
        if position >= end:
            return Iim(texts)
        start = position + 5
        size = int.from_bytes(data[position + 3 : start], "big")
        if size & 0x8000:  # so many bytes of length follow
            width = size & 0x7FFF
            size = int.from_bytes(data[start : start + width], "big") if width <= 4 else len(data)
            start += width
        if data[position] != 0x1C or start + size > len(data):
            break
        name = _TEXTS.get(data[position + 2]) if data[position + 1] == _APPLICATION_RECORD else None
        if name is not None and len(texts.get(name, ())) < _MAX_VALUES:
            text = decode_text(data[start : start + size]).replace("\x00", " ").strip()
            if text and text not in texts.setdefault(name, []):
                texts[name].append(text)
        position = start + size
    return Iim(texts, position)
