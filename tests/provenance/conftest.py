"""Files written byte by byte, so that a test says exactly what lies where, and the same photo
signed."""

import io
import struct
import zlib
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\x00"
SPACES = {
    "TC260": "http://www.tc260.org.cn/ns/AIGC/1.0/",
    "ai": "http://www.tc260.org.cn/ns/AIGC/1.0/",  # prefixes vary
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "dcterms": "http://purl.org/dc/terms/",
}


def picture(form, width=48, height=32):
    rgb = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, form)
    return data.getvalue()


PNG, JPEG, WEBP = picture("PNG"), picture("JPEG"), picture("WEBP")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks, late=False):
    """A PNG with chunks before its pixels, or behind them."""
    extra = b"".join(chunk(*each) for each in chunks)
    at = len(PNG) - 12 if late else PNG.index(b"IDAT") - 4
    return PNG[:at] + extra + PNG[at:]


def jpeg(*segments):
    """A JPEG with segments (marker, payload) right behind its start."""
    extra = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in segments
    )
    return JPEG[:2] + extra + JPEG[2:]


def webp(*chunks):
    body = WEBP[8:] + b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\x00" * (len(data) % 2)
        for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(fields, exif=None, order="<", small=b""):
    """A TIFF structure whose values are all bytes: directory, EXIF directory, and a thumbnail's
    directory."""
    head = b"II*\x00" if order == "<" else b"MM\x00*"
    data = bytearray(head + struct.pack(order + "I", 8))

    def directory(values, *pointers):
        """Append a directory; returns where each value is, under 0 the next one's offset."""
        entries = [(tag, 7, len(value), value) for tag, value in values.items()]
        entries += [(tag, 4, 1, bytes(4)) for tag in pointers]
        table, tail, places = struct.pack(order + "H", len(entries)), b"", {}
        behind = len(data) + 2 + 12 * len(entries) + 4
        for tag, form, number, value in sorted(entries):
            table += struct.pack(order + "HHI", tag, form, number)
            places[tag] = len(data) + len(table)
            if len(value) <= 4:
                table += value.ljust(4, b"\x00")
            else:
                table += struct.pack(order + "I", behind + len(tail))
                tail += value
        places[0] = len(data) + len(table)
        data.extend(table + bytes(4) + tail)
        return places

    def point(place, number):
        struct.pack_into(order + "I", data, place, number)

    first = directory(fields, *([0x8769] if exif else []))
    if exif:
        point(first[0x8769], len(data))
        directory(exif)
    if small:
        point(first[0], len(data))
        preview = directory({}, 0x0201, 0x0202)
        point(preview[0x0201], len(data))
        point(preview[0x0202], len(small))
        data.extend(small)
    return bytes(data)


def exif_jpeg(structure):
    return jpeg((0xE1, b"Exif\x00\x00" + structure))


def xmp(inside="", attributes=""):
    spaces = " ".join(f'xmlns:{name}="{space}"' for name, space in SPACES.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {spaces} {attributes}>{inside}'
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def xmp_jpeg(inside="", attributes=""):
    return jpeg((0xE1, XMP_HEADER + xmp(inside, attributes)))


@pytest.fixture(scope="session")
def sign(signing):
    """`sign("trainedAlgorithmicMedia", action="c2pa.created")`: a signed JPEG; `data` and `parent`
    are JPEG bytes."""
    return partial(signing.sign, data=JPEG)


@pytest.fixture(scope="session")
def files():
    """The writers above under one name, since tests cannot import a conftest."""
    writers = (picture, png, jpeg, webp, tiff, xmp, xmp_jpeg, exif_jpeg)
    plain = {"plain_jpeg": JPEG, "plain_png": PNG, "plain_webp": WEBP, "xmp_header": XMP_HEADER}
    return SimpleNamespace(**{writer.__name__: writer for writer in writers}, **plain)
