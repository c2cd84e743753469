"""The table of generators: each of its words is found as a word, and what editors and cameras write
is not."""

from __future__ import annotations

from typing import Any

import pytest

from realdamage.provenance import read_provenance
from realdamage.provenance.generators import _patterns, find_generator

WORDS = [
    (generator, word)
    for which in ("words", "shared")
    for generator, _ in _patterns(which)
    for word in getattr(generator, which)
]
EDITORS = (
    *("Adobe Photoshop 26.0 (Windows)", "Adobe Photoshop Lightroom Classic 14.0", "Snapseed 2.0"),
    *("PicsArt", "GIMP 2.10", "Google", "Pixel 9 Pro", "HDR+ 1.0.540104767zd", "Canon EOS R5"),
    *("iPhone 15 Pro", "17.4.1", "Capture One", "Meitu", "Picasa", "Luminar Neo", "f.lux"),
    *("Fluxus", "imagen", "Editor de imagen", "Grokking", "Sorabji", "Geminiani", "Runways"),
    *("Krear", "Canva", "Windows Photo Editor 10.0", "darktable 4.6", "Paint.NET", ""),
)
COMMON = ("Gemini", "Flux Studios", "Grok", "Sora", "Runway", "Firefly", "Sophie Dalle", "豆包")


@pytest.mark.parametrize(("generator", "word"), WORDS, ids=[word for _, word in WORDS])
def test_every_word_of_the_table_is_found(generator: Any, word: str) -> None:
    for text in (word, word.upper(), f"made in {word}, v6", f"({word})"):
        found = find_generator(text)
        assert found is not None
        assert found.name == generator.name or found.declares == generator.declares
    assert (find_generator(word, author=True) is not None) >= (
        generator.anywhere and word in generator.words
    )
    if word.isascii():
        assert find_generator(f"x{word}x") is None


@pytest.mark.parametrize("text", EDITORS)
def test_editors_and_cameras_are_none(text: str) -> None:
    assert find_generator(text) is None


@pytest.mark.parametrize(
    "software",
    ["Gemini", "Firefly 8SE v1.2", "Grok", "Sora 1.0", "Imagen 2", "Runway", "Kling", "MiniMax"],
)
def test_software_of_a_name_that_others_bear_may_be_a_generator_no_more(
    files: Any, software: str
) -> None:
    found = read_provenance(files.exif_jpeg(files.tiff({0x0131: software.encode() + b"\x00"})))
    assert found.declared == "ai_possible"
    assert found.findings[0].phrases[0].template == "generator_maybe"
    assert find_generator(software, author=True) is None


def named(tag: int, text: str) -> Any:
    return lambda f: f.exif_jpeg(f.tiff({tag: text.encode() + b"\x00"}))


def credited(text: str) -> Any:
    return lambda f: f.xmp_jpeg(f"<photoshop:Credit>{text}</photoshop:Credit>")


CREATOR = "<dc:creator><rdf:Seq><rdf:li>Midjourney</rdf:li></rdf:Seq></dc:creator>"


@pytest.mark.parametrize(
    ("build", "field", "declares"),
    [
        (named(0x0131, "Midjourney v7"), "Software", "ai_generated"),
        (named(0x010F, "Ideogram AI"), "Make", "ai_generated"),
        (named(0x013B, "即梦"), "Artist", "ai_generated"),
        (lambda f: f.png((b"tEXt", b"Software\x00NovelAI")), "Software", "ai_generated"),
        (lambda f: f.png((b"tEXt", b"Source\x00Stable Diffusion XL")), "Source", "ai_generated"),
        (
            lambda f: f.xmp_jpeg("", 'xmp:CreatorTool="Adobe Firefly"'),
            "CreatorTool",
            "ai_generated",
        ),
        (credited("Made with Google AI"), "Credit", "ai_generated"),
        (credited("Edited with Google AI"), "Credit", "ai_edited"),
        (lambda f: f.xmp_jpeg(CREATOR), "creator", "ai_generated"),
    ],
)
def test_names_in_files(files: Any, build: Any, field: str, declares: str) -> None:
    (found,) = read_provenance(build(files)).findings
    assert (found.form, found.declares, found.fields["field"]) == (
        "generator_name",
        declares,
        field,
    )


def test_handwriting(files: Any) -> None:
    job = "a red cup --v 7 Job ID: 01234567-89ab-cdef-0123-456789abcdef"
    (found,) = read_provenance(files.png((b"tEXt", b"Description\x00" + job.encode()))).findings
    assert found.fields["generator"] == "Midjourney"
    signature, artist = b"Signature: " + b"Ab3+" * 40, b"01234567-89ab-cdef-0123-456789abcdef\x00"
    (found,) = read_provenance(
        files.exif_jpeg(files.tiff({0x010E: signature, 0x013B: artist}))
    ).findings
    assert found.fields["generator"] == "Grok"
    assert (
        read_provenance(
            files.exif_jpeg(files.tiff({0x010E: signature, 0x013B: b"Ann\x00\x00"}))
        ).findings
        == ()
    )


def test_common_words_name_no_person_and_no_phone() -> None:
    assert [text for text in COMMON if find_generator(text, author=True)] == []
    for text in ("Google Gemini", "Gemini, Google Imagen", "grok-imagine-image"):
        found = find_generator(text)
        assert found is not None
        assert found.declares == "ai_generated"
