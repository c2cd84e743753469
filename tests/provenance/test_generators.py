"""The table of generators: each of its words is found as a word, and what editors and cameras write
is not."""

import pytest

from realdamage.provenance import read_provenance
from realdamage.provenance.generators import find_generator

EDITORS = (
    *("Adobe Photoshop 26.0 (Windows)", "Snapseed 2.0", "Google", "Canon EOS R5", "17.4.1"),
    *("f.lux", "Fluxus", "imagen", "Grokking", "Krear", "Geminiani", ""),
)
COMMON = ("Gemini", "Flux Studios", "Sora", "Firefly", "Sophie Dalle", "豆包")


def test_words_are_found_as_words():
    for word in ("Midjourney", "stable diffusion", "gpt-image-2", "DALL·E", "即梦", "Sora 2"):
        for text in (word, word.upper(), f"made in {word}, v6", f"({word})"):
            assert find_generator(text) is not None, text
        if word.isascii():
            assert find_generator(f"x{word}x") is None
    assert [text for text in EDITORS if find_generator(text)] == []


@pytest.mark.parametrize("software", ["Gemini", "Firefly 8SE v1.2", "Imagen 2"])
def test_software_of_a_name_that_others_bear_may_be_a_generator_no_more(files, software):
    found = read_provenance(named(0x0131, software)(files))
    assert found.declared == "ai_possible"
    assert found.findings[0].phrases[0].template == "generator_maybe"
    assert find_generator(software, author=True) is None


def named(tag, text):
    return lambda f: f.exif_jpeg(f.tiff({tag: text.encode() + b"\x00"}))


def credited(text):
    return lambda f: f.xmp_jpeg(f"<photoshop:Credit>{text}</photoshop:Credit>")


TOOL = 'xmp:CreatorTool="Adobe Firefly"'
CREATOR = "<dc:creator><rdf:Seq><rdf:li>Midjourney</rdf:li></rdf:Seq></dc:creator>"


@pytest.mark.parametrize(
    ("build", "field", "declares"),
    [
        (named(0x0131, "Midjourney v7"), "Software", "ai_generated"),
        (named(0x013B, "即梦"), "Artist", "ai_generated"),
        (lambda f: f.png((b"tEXt", b"Software\x00NovelAI")), "Software", "ai_generated"),
        (lambda f: f.xmp_jpeg(attributes=TOOL), "CreatorTool", "ai_generated"),
        (credited("Made with Google AI"), "Credit", "ai_generated"),
        (credited("Edited with Google AI"), "Credit", "ai_edited"),
        (lambda f: f.xmp_jpeg(CREATOR), "creator", "ai_generated"),
    ],
)
def test_names_in_files(files, build, field, declares):
    (found,) = read_provenance(build(files)).findings
    assert (found.form, found.declares) == ("generator_name", declares)
    assert found.fields["field"] == field


def test_handwriting(files):
    job = "a red cup --v 7 Job ID: 01234567-89ab-cdef-0123-456789abcdef"
    signature, artist = b"Signature: " + b"Ab3+" * 40, b"01234567-89ab-cdef-0123-456789abcdef\x00"
    signed, named = (
        files.exif_jpeg(files.tiff({0x010E: signature, 0x013B: by})) for by in (artist, b"Ann\0\0")
    )
    for data, generators in (
        (files.png((b"tEXt", b"Description\x00" + job.encode())), ["Midjourney"]),
        (signed, ["Grok"]),
        (named, []),
    ):
        found = read_provenance(data).findings
        assert [one.fields["generator"] for one in found] == generators


def test_common_words_name_no_person_and_no_phone():
    assert [text for text in COMMON if find_generator(text, author=True)] == []
    for text in ("Google Gemini", "Gemini, Google Imagen", "grok-imagine-image"):
        found = find_generator(text)
        assert found is not None
        assert found.declares == "ai_generated"
