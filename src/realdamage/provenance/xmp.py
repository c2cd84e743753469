"""Reads an XMP packet into a flat list of properties.

No packet can make the parser fetch a file or blow up: document types, and with them entities, are
refused; elements and depth are bounded.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.parsers import expat

IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
TC260 = "http://www.tc260.org.cn/ns/AIGC/1.0/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XML = "http://www.w3.org/XML/1998/namespace"
_MAX_DEPTH = 100
_MAX_PROPERTIES = 20_000
_SOURCE_TYPE = re.compile(
    r"DigitalSourceType\W{1,40}?(?:https?://[\w.]{1,60}/[\w/]{0,80}/)?([A-Za-z]{4,60})"
)


class XmpProperty(NamedTuple):
    """A value with its property's namespace and name (for a list item: the list's property)."""

    namespace: str
    name: str
    value: str


class BrokenXmpError(ValueError):
    """The packet is not well-formed XML or exceeds the limits; the message says why."""


def read_xmp(packet: bytes) -> list[XmpProperty]:
    """All properties of a packet, in order: elements, attributes and rdf:resource alike.

    Raises BrokenXmpError when it is not well-formed, declares a document type, or is too large.
    """
    found = _Found()
    try:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler = found.start
        parser.EndElementHandler = found.end
        parser.CharacterDataHandler = found.text
        parser.StartDoctypeDeclHandler = found.refuse
        parser.EntityDeclHandler = found.refuse
        parser.Parse(packet.strip(b"\x00\t\r\n "), True)
    except BrokenXmpError:
        raise
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise BrokenXmpError(f"not well-formed ({error})") from error
    return found.properties


def read_broken_xmp(packet: bytes) -> list[XmpProperty]:
    """What a packet that is not XML still shows: IPTC source types and the label of GB 45438."""
    text = html.unescape(packet.decode("utf-8", errors="replace"))
    codes = _SOURCE_TYPE.findall(text)[:8]
    properties = [XmpProperty(IPTC, "DigitalSourceType", code) for code in codes]
    if (start := text.find(TC260)) >= 0 and (label := text.find("AIGC", start + len(TC260))) >= 0:
        properties.append(XmpProperty(TC260, "AIGC", text[label + 4 : label + 20_000]))
    return properties


@dataclass
class _Found:
    """open: (namespace, name, texts) of each open element; a list item has its list's name."""

    properties: list[XmpProperty] = field(default_factory=list)
    open: list[tuple[str, str, list[str]]] = field(default_factory=list)

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self.open) >= _MAX_DEPTH:
            raise BrokenXmpError(f"more than {_MAX_DEPTH} nested elements")
        namespace, _, name = tag.rpartition(" ")
        if namespace == RDF and self.open:  # a list item belongs to the property around it
            namespace, name, _ = self.open[-1]
        self.open.append((namespace, name, []))
        for key, value in attributes.items():
            space, _, attribute = key.rpartition(" ")
            if space == RDF and attribute == "resource":
                self._keep(namespace, name, value)
            elif space not in (RDF, _XML, ""):
                self._keep(space, attribute, value)

    def end(self, _: str) -> None:
        namespace, name, texts = self.open.pop()
        if text := "".join(texts).strip():
            self._keep(namespace, name, text)

    def text(self, text: str) -> None:
        if self.open:
            self.open[-1][2].append(text)

    def refuse(self, *_: object) -> None:
        raise BrokenXmpError("it declares a document type or entities, which XMP does not need")

    def _keep(self, namespace: str, name: str, value: str) -> None:
        if len(self.properties) >= _MAX_PROPERTIES:
            raise BrokenXmpError(f"more than {_MAX_PROPERTIES} properties")
        self.properties.append(XmpProperty(namespace, name, value))
