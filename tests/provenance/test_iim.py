"""IPTC-IIM in the APP13 segments of a JPEG, written byte by byte: names count where they name a
program or an author, and nothing that is broken costs more than a note."""

from __future__ import annotations

import io
import json
import struct
import time
from typing import Any

import pytest
from PIL import Image, IptcImagePlugin

from realdamage.provenance import Provenance, read_provenance
from realdamage.provenance.exif_iim import find_iim, read_iim

PHOTOSHOP = b"Photoshop 3.0\x00"
PROGRAM, VERSION, INSTRUCTIONS, BY_LINE, CREDIT, CAPTION = 65, 70, 40, 80, 110, 120
LABEL = json.dumps({"AIGC": {"Label": "1", "ContentProducer": "maker"}})


def dataset(number: int, text: str | bytes, record: int = 2) -> bytes:
    value = text.encode() if isinstance(text, str) else text
    return struct.pack(">BBBH", 0x1C, record, number, len(value)) + value


def resource(identifier: int, data: bytes, name: bytes = b"", pad: bool = True) -> bytes:
    named = bytes([len(name)]) + name + b"\x00" * ((len(name) + 1) % 2)
    head = b"8BIM" + struct.pack(">H", identifier) + named + struct.pack(">I", len(data))
    return head + data + b"\x00" * (len(data) % 2 * pad)


def app13(*resources: bytes) -> tuple[int, bytes]:
    return 0xED, PHOTOSHOP + b"".join(resources)


def read(files: Any, *datasets: bytes) -> Provenance:
    """The provenance of a JPEG with these datasets, between two other resources."""
    others = resource(0x03ED, b"\x00\x48" * 8), resource(0x0425, b"x" * 15)
    return read_provenance(
        files.jpeg(app13(others[0], resource(0x0404, b"".join(datasets)), others[1]))
    )


@pytest.mark.parametrize(
    ("number", "text", "declares", "generator"),
    [
        (PROGRAM, "Adobe Firefly", "ai_generated", "Adobe Firefly"),
        (PROGRAM, "Midjourney v6", "ai_generated", "Midjourney"),
        (PROGRAM, "豆包", "ai_generated", "Doubao"),
        (PROGRAM, "Firefly", "ai_possible", "Adobe Firefly"),
        (PROGRAM, "Adobe Photoshop", "none", ""),
        (PROGRAM, "FotoStation", "none", ""),
        (VERSION, "ComfyUI 0.3", "ai_generated", "ComfyUI"),
        (CREDIT, "Made with Google AI", "ai_generated", "Google AI"),
        (CREDIT, "Edited with Google AI", "ai_edited", "Google AI (edited)"),
        (BY_LINE, "DALL·E", "ai_generated", "DALL·E"),
        (BY_LINE, "Marie Dalle", "none", ""),
        (BY_LINE, "Firefly Studios", "none", ""),
        (CAPTION, "A poster made with Midjourney hangs on the wall", "none", ""),
        (INSTRUCTIONS, "Do not crop; no Midjourney, please", "none", ""),
    ],
)
def test_names_of_generators(
    files: Any, number: int, text: str, declares: str, generator: str
) -> None:
    found = read(files, dataset(number, text))
    assert found.declared == declares
    assert [finding.fields["generator"] for finding in found.findings] == [generator] * bool(
        generator
    )
    assert all(finding.form == "generator_name" for finding in found.findings)
    assert "broken_metadata" not in [note.code for note in found.notes]


def test_resources_over_several_segments(files: Any) -> None:
    block = resource(
        0x0404, dataset(CAPTION, "x" * 300) + dataset(PROGRAM, "Midjourney"), name=b"odd"
    )
    parts = [block[:100], block[100:310], block[310:]]
    found = read_provenance(files.jpeg(*((0xED, PHOTOSHOP + part) for part in parts)))
    assert found.declared == "ai_generated"
    two = (
        app13(resource(0x0404, dataset(CREDIT, "me"))),
        app13(resource(0x0404, dataset(PROGRAM, "Midjourney"))),
    )
    assert read_provenance(files.jpeg(*two)).declared == "ai_generated"


def test_a_resource_without_its_padding() -> None:
    data = resource(0x03ED, b"odd", pad=False) + resource(0x0404, b"here")
    assert find_iim(data) == ([b"here"], -1)
    assert find_iim(resource(0x0404, b"odd", pad=False)) == ([b"odd"], -1)
    assert find_iim(resource(0x0404, b"end", name=b"even") + b"\x00\x00\x00") == ([b"end"], -1)
    assert find_iim(b"") == ([], -1)


def unread_from(found: Provenance) -> str:
    (note,) = [note for note in found.notes if note.code == "broken_metadata"]
    return note.phrases[1].values["position"]


def test_a_file_full_of_it_is_read_within_bounds(files: Any) -> None:
    """14 MB of the smallest parts, and of texts at which every pattern is tried."""

    def texts(number: int) -> bytes:
        fields = [dataset(PROGRAM, f"{number} {each} " + "flux-" * 390) for each in range(32)]
        return PHOTOSHOP + resource(0x0404, b"".join(fields))

    tiny = PHOTOSHOP + resource(0x0404, b"") * 5400
    empty = PHOTOSHOP + resource(0x0404, dataset(PROGRAM, "") * 12_000)
    for segments in ([tiny] * 230, [empty] * 230, [texts(number) for number in range(230)]):
        data = files.jpeg(*((0xED, segment) for segment in segments))
        assert len(data) > 13_000_000
        started = time.process_time()
        found = read_provenance(data)
        assert time.process_time() - started < 3
        assert len(found.findings) <= 50
        assert "broken_metadata" in [note.code for note in found.notes]


def test_datasets(files: Any) -> None:
    datasets = dataset(PROGRAM, "Midjourney") + dataset(CREDIT, "me")
    with Image.open(io.BytesIO(files.jpeg(app13(resource(0x0404, datasets))))) as image:
        known = IptcImagePlugin.getiptcinfo(image)
    assert known == {(2, PROGRAM): b"Midjourney", (2, CREDIT): b"me"}
    assert read_iim(datasets) == ({"OriginatingProgram": ["Midjourney"], "Credit": ["me"]}, -1)
    values = [dataset(BY_LINE, text) for text in ("A", "B", "A", "", "Zoë".encode("latin-1"))]
    assert read_iim(b"".join(values) + b"\x00\x00") == ({"By-line": ["A", "B", "Zoë"]}, -1)
    many = b"".join(dataset(BY_LINE, str(number)) for number in range(100))
    assert len(read_iim(many)[0]["By-line"]) == 8
    long = struct.pack(">BBBHI", 0x1C, 2, PROGRAM, 0x8004, 10) + b"Midjourney"
    assert read_iim(long) == ({"OriginatingProgram": ["Midjourney"]}, -1)
    for width in (0x8000 | 5, 0xFFFF):
        wrong = struct.pack(">BBBH", 0x1C, 2, PROGRAM, width) + b"\x00" * 9 + b"x"
        assert read_iim(dataset(CREDIT, "me") + wrong) == ({"Credit": ["me"]}, 7)
    for rest in (b"\x1c\x02", dataset(CAPTION, "x" * 40)[:-3], b"nonsense"):
        found = read(files, dataset(PROGRAM, "Midjourney"), rest)
        assert (found.declared, unread_from(found)) == ("ai_generated", "15")
        assert found.findings[0].where == "OriginatingProgram, IPTC-IIM, APP13 at byte 2"


def test_other_records_and_segments_are_not_read(files: Any) -> None:
    others = [dataset(PROGRAM, "Midjourney", record=3), dataset(25, "Midjourney")]
    found = read(files, *others, dataset(90, b"\x1b%G", 1))
    assert [note.code for note in found.notes] == ["absence_proves_nothing"]
    segments = (0xED, b"Adobe_CM\x00" + b"\x01" * 20), (0xED, b"Photoshop 2.5\x00\x01")
    assert not read_provenance(files.jpeg(*segments)).findings
    # Sora 2 is a generator's name; a program Sora in version 2 may be another's.
    assert read(files, dataset(PROGRAM, "Sora"), dataset(VERSION, "2")).declared == "ai_possible"
