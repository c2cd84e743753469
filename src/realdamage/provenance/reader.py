"""From a file's bytes to its provenance: each block of metadata goes to every reader that may
understand it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from realdamage.core.decode import MAX_PIXELS, contents_of, name_of
from realdamage.core.verdict import Reason
from realdamage.errors import PhotoError
from realdamage.phrases import ENGLISH, Phrase, phrase
from realdamage.provenance.c2pa import TrustAnchors, read_credentials
from realdamage.provenance.containers import Block, Blocks, clean, find_blocks
from realdamage.provenance.exif import Exif, compare_thumbnail, decode_text, read_exif
from realdamage.provenance.generators import find_generator, find_handwriting
from realdamage.provenance.labels import FIELDS, find_label, find_recipe, judge_label
from realdamage.provenance.precedence import (
    CAPTURES,
    DECLARING,
    CameraFacts,
    Declared,
    Finding,
    Provenance,
    conflicts,
    in_order,
    source_type_code,
)
from realdamage.provenance.xmp import (
    IPTC,
    TC260,
    BrokenXmpError,
    XmpProperty,
    read_broken_xmp,
    read_xmp,
)

ABSENCE = ENGLISH["absence"]
_MAX_FINDINGS = 50
# Fields that name the software, or whom to credit, in any kind of block; in lower case. Of XMP the
# local name, since prefixes vary.
_SOFTWARE = frozenset(
    {"software", "generator", "creator tool", "creatortool", "softwareagent", "aisystemused"}
)
_AUTHOR = frozenset({"artist", "author", "creator", "credit", "make", "model", "source"})
_XMP_TEXT = ("description", "UserComment", "ImageDescription", "parameters")
_IPTC_AI = ("AISystemUsed", "AISystemVersionUsed", "AIPromptInformation", "AIPromptWriterName")
_SOURCE_TYPES: dict[Declared, str] = {
    "ai_generated": "iptc_generated",
    "ai_edited": "iptc_edited",
    "ai_possible": "iptc_possible",
}


def read_provenance(
    source: bytes | str | Path,
    *,
    name: str | None = None,
    trust_anchors: TrustAnchors | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Provenance:
    """Read what a photo's file says about its origin; errors call the photo `name`.

    trust_anchors: authorities that you trust to say who signed; by default none.
    max_pixels: a larger photo is not compared with its thumbnail.
    Raises PhotoError only for a missing or empty file. Whatever is broken becomes a note.
    """
    data = contents_of(source)
    name = name or name_of(source)
    if not isinstance(data, bytes):
        raise PhotoError(f"{name}: provenance is read from a file; give its bytes or its path")
    if not data:
        raise PhotoError(f"{name}: the file is empty (0 bytes)", code="empty_file")
    reader = _Reader(find_blocks(data))
    blocks = reader.blocks
    for block in list(blocks.found):
        reader.read(block)
    if blocks.credentials:
        reader.found += read_credentials(data, blocks, trust_anchors)
    facts = _camera_facts(data, reader.camera, blocks, max_pixels)
    ordered = _distinct(reader.found)
    if len(ordered) > _MAX_FINDINGS:
        blocks.limit(phrase("too_many_findings", count=len(ordered), kept=_MAX_FINDINGS))
        ordered = ordered[:_MAX_FINDINGS]
    declared = ordered[0].declares if ordered else "none"
    notes = [*conflicts(ordered), *blocks.notes]
    if declared == "none":
        said = (phrase("absence_proves_nothing"), phrase("absence"))
        notes.append(Reason.of("absence_proves_nothing", *said))
    trusted = trust_anchors.sha256 if trust_anchors else ""
    digest = hashlib.sha256(data).hexdigest()
    return Provenance(declared, ordered, facts, tuple(notes), digest, trusted)


def _camera_facts(data: bytes, camera: list[Exif], blocks: Blocks, max_pixels: int) -> CameraFacts:
    """Each fact from the first EXIF block that has it; XMP is not used."""

    def first(name: str) -> str:
        found = next((clean(exif.texts[name], 100) for exif in camera if name in exif.texts), "")
        # ComfyUI keeps its graphs in Make and Model of a WebP.
        return "" if found.lower().startswith(("prompt:", "workflow:")) else found

    small = next((exif.thumbnail for exif in camera if exif.thumbnail), b"")
    state = compare_thumbnail(data, small, max_pixels) if small else "none"
    if state == "differs":
        blocks.note("thumbnail_differs", phrase("thumbnail_differs"))
    taken = next((exif.taken for exif in camera if exif.taken), "")
    gps = any(exif.gps for exif in camera)
    return CameraFacts(first("Make"), first("Model"), first("Software"), taken, gps, state)


def _distinct(findings: list[Finding]) -> tuple[Finding, ...]:
    """In order of precedence, each once: some programs write one label into several blocks."""
    seen: dict[str, Finding] = {}
    for one in in_order(findings):
        seen.setdefault(repr((one.form, one.declares, sorted(one.fields.items()))), one)
    return tuple(seen.values())


class _Reader:
    """Collects the findings of a file; what cannot be understood becomes a note of `blocks`."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.found: list[Finding] = []
        self.camera: list[Exif] = []

    def read(self, block: Block) -> None:
        where = block.where
        if block.kind == "xmp":
            self._packet(block.data, where)
        elif block.kind == "exif":
            self._exif(block.data, where)
        elif block.kind == "segment":
            self._text(decode_text(block.data), where, "tc260_jpeg")
        else:
            self._png_text(block, where)

    def _png_text(self, block: Block, where: str) -> None:
        text, keyword = decode_text(block.data), block.keyword
        if keyword == "AIGC" and text.lstrip().startswith("<"):
            self._packet(block.data, where)
            return
        before = len(self.found)
        self._text(text, where, "tc260_png", keyword)
        if keyword == "AIGC" and len(self.found) == before:
            self._unclear(where, phrase("label_broken"))
        self._named(text, keyword, where)
        self._by_hand({keyword: text}, where)

    def _exif(self, data: bytes, where: str) -> None:
        exif = read_exif(data)
        for problem in exif.problems:
            self.blocks.broken(phrase("exif_damaged", detail=problem), where)
        self.camera.append(exif)
        self.blocks.credentials = self.blocks.credentials or exif.credentials
        for name, text in exif.texts.items():
            place = f"{name}, {where}"
            is_description = name == "ImageDescription"
            self._text(text, place, "tc260_description" if is_description else "tc260_exif")
            self._named(text, name, place)
        self._by_hand(exif.texts, where)
        if exif.xmp:
            self._packet(exif.xmp, f"XMP, {where}")

    def _packet(self, packet: bytes, where: str) -> None:
        try:
            properties = read_xmp(packet)
        except BrokenXmpError as error:
            self.blocks.broken(phrase("xmp_damaged", detail=clean(error)), where)
            properties, where = read_broken_xmp(packet), f"{where} (damaged)"
        self._iptc(properties, where)
        pieces: dict[str, str] = {}
        for item in properties:
            is_address = item.value.startswith(("http://", "https://"))
            if item.namespace == TC260 and item.name in FIELDS:
                pieces.setdefault(item.name, clean(item.value))
            elif item.namespace == TC260:
                if fields := find_label(item.value):
                    self._label("tc260_xmp", fields, where)
                elif item.value:
                    self._unclear(where, phrase("label_broken"))
            elif item.name in _XMP_TEXT:
                self._text(item.value, where, "tc260_xmp")
                self._by_hand({"Description": item.value}, where)
            elif item.name == "provenance" and is_address and not self.blocks.credentials:
                self.blocks.note("c2pa_remote", phrase("c2pa_address"))
            else:
                self._named(item.value, item.name, where)
        if pieces:
            self._label("tc260_xmp", pieces, where)

    def _iptc(self, properties: Iterable[XmpProperty], where: str) -> None:
        system = {
            item.name: clean(item.value)
            for item in properties
            if item.namespace == IPTC and item.name in _IPTC_AI
        }
        declared = False
        for item in properties:
            # Some programs write it in the namespace of IPTC Core.
            if item.name.lower() == "digitalsourcetype":
                code = clean(source_type_code(item.value))
                declares = DECLARING.get(code, "none")
                declared = declared or declares != "none"
                other = "iptc_capture" if code in CAPTURES else "iptc_none"
                said = phrase(_SOURCE_TYPES.get(declares, other), code=code)
                self._add("iptc", declares, where, {"digital_source_type": code, **system}, said)
        if system.get("AISystemUsed") and not declared:
            said = phrase("iptc_system", system=system["AISystemUsed"])
            self._add("iptc", "ai_generated", where, system, said)

    def _text(self, text: str, where: str, form: str, keyword: str = "") -> None:
        """A label or a recipe in a text that may contain anything."""
        if fields := find_label(text):
            self._label(form, fields, where)
        if recipe := find_recipe(text, where, keyword):
            self.found.append(recipe)

    def _label(self, form: str, fields: dict[str, str], where: str) -> None:
        declares, said, clear = judge_label(fields)
        if not clear:
            self._unclear(where, *said)
        self._add(form, declares, where, fields, *said)

    def _unclear(self, where: str, *said: Phrase) -> None:
        self.blocks.note("label_unclear", phrase("about", name=where), *said)

    def _named(self, text: str, name: str, where: str) -> None:
        """A generator that the field `name` names."""
        if name.lower() not in _SOFTWARE | _AUTHOR:
            return
        if generator := find_generator(text, author=name.lower() in _AUTHOR):
            fields = {"generator": generator.name, "field": clean(name), "text": clean(text)}
            maybe = generator.declares == "ai_possible"
            said = phrase("generator_maybe" if maybe else "generator_named", **fields)
            self._add("generator_name", generator.declares, where, fields, said)

    def _by_hand(self, texts: dict[str, str], where: str) -> None:
        if generator := find_handwriting(texts):
            said = phrase("generator_by_fields", generator=generator)
            how = {"field": "several fields", "text": "as this generator fills them"}
            fields = {"generator": generator, **how}
            self._add("generator_name", "ai_generated", where, fields, said)

    def _add(
        self, form: str, declares: Declared, where: str, fields: dict[str, str], *said: Phrase
    ) -> None:
        self.found.append(Finding.of(form, declares, where, fields, said))
