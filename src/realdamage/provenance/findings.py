"""Turns what stands in a block of metadata into findings: which reader understood it, and what that declares."""

from __future__ import annotations

from collections.abc import Iterable

from realdamage.phrases import phrase
from realdamage.provenance.containers import Blocks, clean
from realdamage.provenance.exif_iim import Exif, Iim
from realdamage.provenance.generators import Generator, find_generator, find_handwriting
from realdamage.provenance.labels import (
    FIELDS,
    find_label,
    find_platform_label,
    find_recipe,
    judge_label,
    judge_platform_label,
)
from realdamage.provenance.precedence import (
    CAPTURES,
    Declared,
    Finding,
    declared_by_source_type,
    source_type_code,
)
from realdamage.provenance.xmp import IPTC, TC260, XmpProperty

# XMP properties that name the software, or whom to credit: by the local name, since prefixes and namespaces vary.
_XMP_SOFTWARE = ("CreatorTool", "Software", "softwareAgent", "AISystemUsed")
_XMP_AUTHOR = ("Credit", "Source", "Make", "Model", "Artist", "creator")
_IIM_SOFTWARE, _IIM_AUTHOR = ("OriginatingProgram", "ProgramVersion"), ("By-line", "Credit")
_TEXT_SOFTWARE = ("software", "generator", "creator tool", "creatortool")
_TEXT_AUTHOR = ("source", "author", "artist", "make", "model")
_IPTC_AI = ("AISystemUsed", "AISystemVersionUsed", "AIPromptInformation", "AIPromptWriterName")
_SOURCE_TYPES: dict[Declared, str] = {
    "ai_generated": "iptc_generated",
    "ai_edited": "iptc_edited",
    "ai_possible": "iptc_possible",
}


def xmp_findings(properties: Iterable[XmpProperty], where: str, blocks: Blocks) -> list[Finding]:
    """What the properties of one XMP packet say; notes go to `blocks`."""
    found = _iptc(properties := list(properties), where)
    pieces: dict[str, str] = {}
    for item in properties:
        if item.namespace == TC260:
            if item.name in FIELDS:
                pieces.setdefault(item.name, clean(item.value))
            elif fields := find_label(item.value):
                found.append(_label("tc260_xmp", fields, where, blocks))
            elif item.value:
                blocks.note("label_unclear", phrase("about", name=where), phrase("label_broken"))
        elif item.name in _XMP_SOFTWARE or item.name in _XMP_AUTHOR:
            found += _named(item.value, item.name, where, author=item.name in _XMP_AUTHOR)
        elif item.name in ("description", "UserComment", "ImageDescription", "parameters"):
            found += _from_text(item.value, "", where, "tc260_xmp", blocks)
            found += _by_hand({"Description": item.value}, where)
        elif (
            item.name == "provenance"
            and item.value.startswith(("http://", "https://"))
            and not blocks.credentials
        ):
            blocks.note("c2pa_remote", phrase("c2pa_address"))
    if pieces:
        found.append(_label("tc260_xmp", pieces, where, blocks))
    return found


def exif_findings(exif: Exif, where: str, blocks: Blocks) -> list[Finding]:
    """What the texts of one EXIF block say."""
    found: list[Finding] = []
    for name, text in exif.texts.items():
        form = "tc260_description" if name == "ImageDescription" else "tc260_exif"
        place = f"{name}, {where}"
        found += _from_text(text, "", place, form, blocks)
        if name in ("Software", "Artist", "Make", "Model"):
            found += _named(text, name, place, author=name != "Software")
    return found + _by_hand(exif.texts, where)


def iim_findings(iim: Iim, where: str, blocks: Blocks) -> list[Finding]:
    """What the texts of one IPTC-IIM block say: a caption is no place for a generator's name, as in EXIF."""
    found: list[Finding] = []
    for name, texts in iim.texts.items():
        for text in texts:
            found += _from_text(text, "", f"{name}, {where}", "tc260_jpeg", blocks)
            if name in _IIM_SOFTWARE or name in _IIM_AUTHOR:
                found += _named(text, name, f"{name}, {where}", author=name in _IIM_AUTHOR)
    captions, authors = (iim.texts.get(name, [""]) for name in ("Caption", "By-line"))
    return found + _by_hand({"Description": captions[0], "Artist": authors[0]}, where)


def text_findings(text: str, keyword: str, where: str, blocks: Blocks) -> list[Finding]:
    """What a text of a PNG says."""
    found = _from_text(text, keyword, where, "tc260_png", blocks)
    if keyword == "AIGC" and not found:
        blocks.note("label_unclear", phrase("about", name=where), phrase("label_broken"))
    if keyword.lower() in _TEXT_SOFTWARE or keyword.lower() in _TEXT_AUTHOR:
        found += _named(text, keyword, where, author=keyword.lower() in _TEXT_AUTHOR)
    return found + _by_hand({keyword: text}, where)


def segment_findings(text: str, where: str, blocks: Blocks) -> list[Finding]:
    """What a comment or an unknown segment of a JPEG says."""
    return _from_text(text, "", where, "tc260_jpeg", blocks)


def _from_text(text: str, keyword: str, where: str, form: str, blocks: Blocks) -> list[Finding]:
    """A label, a platform's label, or a recipe in a text that may hold anything."""
    found = []
    if fields := find_label(text):
        found.append(_label(form, fields, where, blocks))
    if fields := find_platform_label(text):
        declares, said = judge_platform_label(fields)
        found.append(Finding.of("platform_label", declares, where, fields, [said]))
    if recipe := find_recipe(text, keyword):
        kind, declares, fields, said = recipe
        found.append(Finding.of(kind, declares, where, fields, [said]))
    return found


def _label(form: str, fields: dict[str, str], where: str, blocks: Blocks) -> Finding:
    declares, said, clear = judge_label(fields)
    if not clear:
        blocks.note("label_unclear", phrase("about", name=where), *said)
    return Finding.of(form, declares, where, fields, said)


def _iptc(properties: Iterable[XmpProperty], where: str) -> list[Finding]:
    found = []
    system = {
        item.name: clean(item.value)
        for item in properties
        if item.namespace == IPTC and item.name in _IPTC_AI
    }
    for item in properties:
        if (
            item.name.lower() == "digitalsourcetype"
        ):  # also in the namespace of IPTC Core, by mistake
            code = clean(source_type_code(item.value))
            declares = declared_by_source_type(code)
            name = _SOURCE_TYPES.get(declares, "iptc_capture" if code in CAPTURES else "iptc_none")
            fields = {"digital_source_type": code, **system}
            found.append(Finding.of("iptc", declares, where, fields, [phrase(name, code=code)]))
    if system.get("AISystemUsed") and not any(finding.declares != "none" for finding in found):
        said = phrase("iptc_system", system=system["AISystemUsed"])
        found.append(Finding.of("iptc", "ai_generated", where, system, [said]))
    return found


def _named(text: str, name: str, where: str, *, author: bool) -> list[Finding]:
    generator = find_generator(text, author=author)
    return [_generator(generator, name, clean(text), where)] if generator else []


def _by_hand(texts: dict[str, str], where: str) -> list[Finding]:
    name = find_handwriting(texts)
    if not name:
        return []
    fields = {"generator": name, "field": "several fields", "text": "as this generator fills them"}
    said = [phrase("generator_by_fields", generator=name)]
    return [Finding.of("generator_name", "ai_generated", where, fields, said)]


def _generator(generator: Generator, name: str, text: str, where: str) -> Finding:
    fields = {"generator": generator.name, "field": clean(name), "text": text}
    said = "generator_maybe" if generator.declares == "ai_possible" else "generator_named"
    return Finding.of("generator_name", generator.declares, where, fields, [phrase(said, **fields)])
