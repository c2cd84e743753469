"""Phrases: every sentence of a reason is made of known templates, in both languages."""

import json
import re
from pathlib import Path
from string import Formatter

import pytest

import realdamage
from realdamage.core.verdict import Reason
from realdamage.phrases import (
    ENGLISH,
    Phrase,
    in_english,
    page_json,
    phrase,
    phrases_in,
    printable,
    read_phrases,
    said_of,
)

ROOMS = ("core", "provenance", "photo_pairs", "claims")
SOURCE = "".join(
    path.read_text(encoding="utf-8")
    for room in ROOMS
    for path in (Path(realdamage.__file__).parent / room).glob("*.py")
)


def test_phrases_make_a_sentence():
    label = [phrase("label"), phrase("label_producer", producer="{value}"), phrase("full_stop")]
    text = in_english(label)
    assert text == f"{ENGLISH['label']}{ENGLISH['label_producer'][:-10]}{{value}}."
    assert in_english([phrase("about", name="a.jpg"), phrase("mirrored")]).startswith("a.jpg: ")
    assert in_english([]) == ""
    assert printable("a\u202e\nb\ud800", keep="\n") == "a\nb"


def values_in(template):
    return {name for _, name, _, _ in Formatter().parse(template) if name}


def test_both_languages_have_the_same_phrases_with_the_same_values():
    chinese = phrases_in("zh")
    assert json.loads(page_json("zh")) == chinese
    assert set(ENGLISH) - set(chinese) == {"verbatim"}
    assert set(chinese) <= set(ENGLISH)
    assert [
        name for name, text in chinese.items() if values_in(text) != values_in(ENGLISH[name])
    ] == []


def test_every_template_is_used_and_every_used_one_exists():
    words = set(re.findall(r'"(\w+)"', SOURCE))
    built = re.findall(r'f"(\w*\{[\w.]+\}\w*)"', SOURCE)
    patterns = {re.sub(r"\{.*?\}", r"\\w+", text) for text in built} - {r"\w+"}
    unused = set(ENGLISH) - words
    assert {name for name in unused if not any(re.fullmatch(p, name) for p in patterns)} == set()
    assert set(re.findall(r'\bphrase\(\s*"(\w+)"', SOURCE)) - set(ENGLISH) == set()


def test_reasons_come_back_from_json_and_nothing_else_is_read():
    said = (phrase("about", name="a.jpg"), phrase("too_small", side=300, limit=400))
    reason = Reason.of("too_small", *said)
    assert Reason.from_dict(reason.to_dict()) == reason
    assert reason.to_dict()["phrases"][1]["values"] == {"side": "300", "limit": "400"}
    plain = Reason.from_dict({"code": "a", "sentence": "It is so."})
    assert in_english(said_of(plain)) == "It is so."
    assert len({reason, plain}) == 2
    newer = [{"template": "of another version", "values": {"x": "y"}}]
    assert read_phrases(newer) == (Phrase("of another version", {"x": "y"}),)
    for other in (3, ["a"], [{"template": "a", "values": {"b": 1}}]):
        with pytest.raises((TypeError, KeyError, AttributeError)):
            read_phrases(other)
