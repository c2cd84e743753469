"""No bytes raise, and no file makes the reader work or keep more than its bounds allow."""

import json
import random
import struct
import time
import tracemalloc
import zlib

import pytest

from realdamage.errors import PhotoError
from realdamage.provenance import read_provenance
from realdamage.provenance.containers import MAX_FIELD, MAX_NOTES, clean
from realdamage.provenance.exif import MAX_BLOCK
from realdamage.provenance.xmp import BrokenXmpError, read_xmp

XMP_TEXT = b"XML:com.adobe.xmp\0\0\0\0\0"
LABEL = json.dumps({"AIGC": {"Label": "1", "ContentProducer": "maker"}})


def codes(data):
    return [note.code for note in read_provenance(data).notes]


def samples(files):
    comment = {0x9286: b"UNICODE\x00" + LABEL.encode("utf-16-le")}
    exif = files.tiff(
        {0x010E: LABEL.encode(), 0x0131: b"Midjourney\x00"}, comment, small=files.plain_jpeg
    )
    packet = files.xmp(f"<TC260:AIGC>{LABEL}</TC260:AIGC>")
    return [
        files.jpeg(
            (0xE1, b"Exif\x00\x00" + exif),
            (0xE1, files.xmp_header + packet),
            (0xFE, b"AIGC" + LABEL.encode()),
        ),
        files.png(
            (b"eXIf", exif), (b"zTXt", b"AIGC\x00\x00" + zlib.compress(LABEL.encode())), late=True
        ),
        files.webp((b"EXIF", exif), (b"XMP ", packet)),
        exif,
        b"\x00\x00\x00\x18ftypheic" + exif + packet,
    ]


def test_hundreds_of_broken_files_never_raise(files):
    rng, whole = random.Random(7), samples(files)
    assert all(read_provenance(data).declared == "ai_generated" for data in whole)
    for _ in range(200):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.randint(1, 12)):
            at = rng.randrange(len(data))
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        if rng.random() < 0.5:
            del data[rng.randrange(1, len(data)) :]
        found = read_provenance(bytes(data))
        assert len(found.notes) <= MAX_NOTES + 5
        json.dumps(found.to_dict())


def test_findings_are_limited(files):
    labels = [b'AIGC{"Label": "1", "ProduceID": "%d"}' % number for number in range(60)]
    found = read_provenance(files.jpeg(*((0xFE, label) for label in labels)))
    assert len(found.findings) == 50
    assert "metadata_limit" in [note.code for note in found.notes]


def test_nothing_to_read(tmp_path):
    for source in (b"", tmp_path / "none.jpg", 3):
        with pytest.raises(PhotoError):
            read_provenance(source)


LAUGHS = b"""<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>"""


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (LAUGHS + b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>&b;</x:xmpmeta>", "document type"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x:xmpmeta>&e;</x:xmpmeta>', "document type"),
        (b"<a>" * 5000 + b"</a>" * 5000, "100 nested"),
        (b"<a xmlns:n='u'>" + b"<n:b>1</n:b>" * 20_100 + b"</a>", "20000"),
        (b"<?xml version='1.0' encoding='nonsense'?><a/>", "not well-formed"),
    ],
)
def test_packets_with_entities_or_beyond_the_limits(files, packet, said):
    with pytest.raises(BrokenXmpError, match=said):
        read_xmp(packet)
    (note, _) = read_provenance(files.png((b"iTXt", XMP_TEXT + packet))).notes
    assert note.code == "broken_metadata"


def test_bombs_are_not_inflated_and_a_block_is_read_once(files):
    bomb = zlib.compress(b"{" * (8 * MAX_BLOCK), 9)
    inflating = files.png(
        *[(b"zTXt", b"AIGC\x00\x00" + bomb)] * 8, (b"iTXt", b"a\x00\x01\x00\x00\x00" + bomb)
    )
    # Entries that all point to the whole block.
    count = 5000
    entries = b"".join(struct.pack("<HHII", 0x9286 + index, 7, 60_000, 8) for index in range(count))
    structure = b"II*\x00" + struct.pack("<IH", 8, count) + entries + b"\x00" * 4
    pointing = b"\x00\x00\x00\x18ftypheic" + structure
    for data, code, limit in (
        (inflating, "metadata_limit", 6 * MAX_BLOCK),
        (pointing, "broken_metadata", 4_000_000),
    ):
        tracemalloc.start()
        assert code in codes(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit


def test_deep_json_and_many_chunks_take_linear_time(files):
    start = time.process_time()
    for text in ('{"a":' * 100_000, "AIGC{" * 50_000, '"\\"' * 50_000):
        for keyword in (b"AIGC", b"workflow", b"parameters"):
            read_provenance(files.png((b"tEXt", keyword + b"\x00" + text.encode())))
    for data in (
        b"\xff\xd8" + b"\xff\xe5\x00\x02" * 200_000,
        files.png(*[(b"tEXt", b"a\x00%d" % number) for number in range(1100)]),
        b"RIFF\x00\x00\x00\x00WEBP" + b"abcd\x00\x00\x00\x00" * 110_000,
    ):
        assert "metadata_limit" in codes(data)
    read_provenance(b"\xff\xd8\xff" + b"\xff" * 3_000_000)
    read_provenance(b"GIF89a" + b"<x:xmpmeta" * 200_000)
    assert time.process_time() - start < 10


def test_what_was_read_is_fit_to_be_shown(files):
    text = json.dumps(
        {
            "Label": "1",
            "ContentProducer": "\x1b]0;title\x07\u202e" + "x" * 5000,
            "ProduceID": "\ud800",
        }
    )
    (found,) = read_provenance(files.png((b"tEXt", b"AIGC\x00" + text.encode()))).findings
    assert all(value.isprintable() for value in found.fields.values())
    assert len(found.fields["ContentProducer"]) == MAX_FIELD
    assert found.sentence.isprintable()
    assert clean("a\nb\x00c", 3) == "a …"


def test_what_is_cut_off_or_points_nowhere_is_a_note(files):
    for data in (files.plain_jpeg, files.plain_png, files.plain_webp):
        for cut in (len(data) - 3, len(data) // 2):
            assert {"file_cut_off", "not_a_photo"} & set(codes(data[:cut]))
    itself = struct.pack("<4sIHHHII", b"II*\x00", 8, 1, 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    assert read_provenance(files.exif_jpeg(itself)).declared == "none"
