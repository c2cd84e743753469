"""Reads an XMP packet into a flat list of properties, with a parser that no packet can send elsewhere or blow up.

Document types are refused, and with them all entities but XML's own five; elements and their depth are bounded.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from xml.parsers import expat

IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
TC260 = "http://www.tc260.org.cn/ns/AIGC/1.0/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_MAX_DEPTH = 100
_MAX_PROPERTIES = 20_000
_SOURCE_TYPE = re.compile(
    r"DigitalSourceType\W{1,40}?(?:https?://[\w.]{1,60}/[\w/]{0,80}/)?([A-Za-z]{4,60})"
)


@dataclass(frozen=True)
class XmpProperty:
    """A value, and the namespace and name of the property that it belongs to (of a list: the list's property)."""

    namespace: str
    name: str
    value: str


class BrokenXmpError(ValueError):
    """The packet cannot be read as XML, or goes beyond the limits; the message says why."""


def read_xmp(packet: bytes) -> list[XmpProperty]:
    """All properties of a packet, in order: elements, attributes and rdf:resource alike.

    Raises BrokenXmpError when it is not well-formed, declares a document type, or is too deep or too long.
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
    """What can still be made out in a packet that is no XML: source types of IPTC, and the label of GB 45438."""
    text = html.unescape(packet.decode("utf-8", errors="replace"))
    properties = [
        XmpProperty(IPTC, "DigitalSourceType", code) for code in _SOURCE_TYPE.findall(text)[:8]
    ]
    if (start := text.find(TC260)) >= 0 and (label := text.find("AIGC", start + len(TC260))) >= 0:
        properties.append(XmpProperty(TC260, "AIGC", text[label + 4 : label + 20_000]))
    return properties


@dataclass
class _Element:
    owner: tuple[str, str]
    texts: list[str] = field(default_factory=list)


@dataclass
class _Found:
    properties: list[XmpProperty] = field(default_factory=list)
    open: list[_Element] = field(default_factory=list)

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self.open) >= _MAX_DEPTH:
            raise BrokenXmpError(f"elements lie more than {_MAX_DEPTH} deep")
        namespace, _, name = tag.rpartition(" ")
        owner = (namespace, name)
        if namespace == RDF and self.open:  # a list item belongs to the property around it
            owner = self.open[-1].owner
        self.open.append(_Element(owner))
        for key, value in attributes.items():
            space, _, attribute = key.rpartition(" ")
            if space == RDF and attribute == "resource":
                self._keep(*owner, value)
            elif space not in (RDF, "http://www.w3.org/XML/1998/namespace", ""):
                self._keep(space, attribute, value)

    def end(self, _: str) -> None:
        element = self.open.pop()
        if text := "".join(element.texts).strip():
            self._keep(*element.owner, text)

    def text(self, text: str) -> None:
        if self.open:
            self.open[-1].texts.append(text)

    def refuse(self, *_: object) -> None:
        raise BrokenXmpError(
            "it declares a document type or entities, which XMP has no use for; not read"
        )

    def _keep(self, namespace: str, name: str, value: str) -> None:
        if len(self.properties) >= _MAX_PROPERTIES:
            raise BrokenXmpError(f"more than {_MAX_PROPERTIES} properties")
        self.properties.append(XmpProperty(namespace, name, value))
