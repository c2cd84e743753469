"""From a file's bytes to its provenance: every block to every reader that may understand it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from realdamage.core.decode import MAX_PIXELS, contents_of, name_of
from realdamage.core.verdict import Reason
from realdamage.errors import PhotoError
from realdamage.phrases import ENGLISH, phrase
from realdamage.provenance.c2pa import TrustAnchors, read_credentials
from realdamage.provenance.containers import Block, Blocks, clean, decode_text, find_blocks
from realdamage.provenance.exif_iim import Exif, read_exif, read_iim
from realdamage.provenance.precedence import (
    CameraFacts,
    Finding,
    Provenance,
    conflicts,
    declared_by,
    in_order,
)
from realdamage.provenance.reader import (
    compare_thumbnail,
    exif_findings,
    iim_findings,
    segment_findings,
    text_findings,
    xmp_findings,
)
from realdamage.provenance.xmp import BrokenXmpError, XmpProperty, read_broken_xmp, read_xmp

ABSENCE = ENGLISH["absence"]
_MAX_FINDINGS = 50


def read_provenance(
    source: bytes | str | Path,
    *,
    name: str | None = None,
    trust_anchors: TrustAnchors | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Provenance:
    """Read what a photo's file says of itself; `name` is what errors call it.

    trust_anchors: authorities that the user trusts to say who signed content credentials; without, nobody is trusted.
    max_pixels: the photo is not compared with its thumbnail when one of them has more.

    Raises PhotoError only where there are no bytes to read: a missing or empty file. Whatever is broken becomes a note.
    """
    data = contents_of(source)
    if not isinstance(data, bytes):
        raise PhotoError(
            f"{name or 'photo'}: provenance is read from a file; give its bytes or its path"
        )
    if not data:
        raise PhotoError(f"{name or name_of(source)}: the file is empty (0 bytes)")
    blocks = find_blocks(data)
    findings: list[Finding] = []
    camera: list[Exif] = []
    for block in list(blocks.found):
        findings += _read_block(block, blocks, camera)
    if blocks.credentials:
        findings += read_credentials(data, blocks, trust_anchors)
    facts = _camera_facts(data, camera, blocks, max_pixels)
    ordered = _distinct(findings)
    if len(ordered) > _MAX_FINDINGS:
        blocks.limit(phrase("too_many_findings", count=len(ordered), kept=_MAX_FINDINGS))
        ordered = ordered[:_MAX_FINDINGS]
    declared = declared_by(ordered)
    notes = [*conflicts(ordered), *blocks.notes]
    if declared == "none":
        notes.append(
            Reason.of("absence_proves_nothing", phrase("absence_proves_nothing"), phrase("absence"))
        )
    trusted = trust_anchors.sha256 if trust_anchors else ""
    return Provenance(
        declared, ordered, facts, tuple(notes), hashlib.sha256(data).hexdigest(), trusted
    )


def _read_block(block: Block, blocks: Blocks, camera: list[Exif]) -> list[Finding]:
    if block.kind == "xmp":
        return _read_xmp(block.data, block.where, blocks)
    if block.kind == "exif":
        exif = read_exif(block.data)
        for problem in exif.problems:
            blocks.broken(phrase("about", name=block.where), phrase("exif_damaged", detail=problem))
        camera.append(exif)
        blocks.credentials = blocks.credentials or exif.credentials
        found = exif_findings(exif, block.where, blocks)
        return found + (_read_xmp(exif.xmp, f"XMP, {block.where}", blocks) if exif.xmp else [])
    if block.kind == "iim":
        iim = read_iim(block.data)
        if iim.unread_from >= 0:
            blocks.broken(
                phrase("about", name=block.where), phrase("unread_from", position=iim.unread_from)
            )
        return iim_findings(iim, block.where, blocks)
    text = decode_text(block.data)
    if block.kind == "segment":
        return segment_findings(text, block.where, blocks)
    if block.keyword == "AIGC" and text.lstrip().startswith("<"):
        return _read_xmp(block.data, block.where, blocks)
    return text_findings(text, block.keyword, block.where, blocks)


def _read_xmp(packet: bytes, where: str, blocks: Blocks) -> list[Finding]:
    properties: list[XmpProperty]
    try:
        properties = read_xmp(packet)
    except BrokenXmpError as error:
        blocks.broken(phrase("about", name=where), phrase("xmp_damaged", detail=clean(error)))
        properties, where = read_broken_xmp(packet), f"{where} (damaged)"
    return xmp_findings(properties, where, blocks)


def _camera_facts(data: bytes, camera: list[Exif], blocks: Blocks, max_pixels: int) -> CameraFacts:
    """Of the first EXIF block that knows a thing; XMP is not asked."""

    def first(name: str) -> str:
        found = next((clean(exif.texts[name], 100) for exif in camera if name in exif.texts), "")
        # ComfyUI keeps its graphs in these two fields of a WebP.
        return "" if found.lower().startswith(("prompt:", "workflow:")) else found

    small = next((exif.thumbnail for exif in camera if exif.thumbnail), b"")
    state = compare_thumbnail(data, small, max_pixels) if small else "none"
    if state == "differs":
        blocks.note("thumbnail_differs", phrase("thumbnail_differs"))
    taken = next((exif.taken for exif in camera if exif.taken), "")
    gps = any(exif.gps for exif in camera)
    return CameraFacts(first("Make"), first("Model"), first("Software"), taken, gps, state)


def _distinct(findings: list[Finding]) -> tuple[Finding, ...]:
    """In the order of the rule, each once: some programs write one label into several blocks of one kind."""
    seen: dict[str, Finding] = {}
    for finding in in_order(findings):
        seen.setdefault(
            repr((finding.form, finding.declares, sorted(finding.fields.items()))), finding
        )
    return tuple(seen.values())
