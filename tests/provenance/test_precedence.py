"""The rule that makes one declaration of several findings, as a table."""

from itertools import permutations

import pytest

from realdamage.provenance import Finding
from realdamage.provenance.precedence import conflicts, in_order


def finding(form, declares, code=""):
    return Finding(form, declares, "XMP", {"digital_source_type": code} if code else {}, "")


CAPTURE = "c2pa:none:digitalCapture"
TABLE = [
    ("", "none", 0),
    (CAPTURE, "none", 0),
    ("c2pa:ai_edited iptc:ai_generated", "ai_edited", 1),
    ("c2pa:ai_generated tc260_xmp:ai_generated iptc:ai_generated", "ai_generated", 0),
    ("tc260_png:ai_generated iptc:ai_edited", "ai_generated", 1),
    ("iptc:ai_edited png_parameters:ai_generated", "ai_edited", 1),
    ("iptc:ai_edited generator_name:ai_generated", "ai_edited", 1),
    ("comfyui:ai_edited generator_name:ai_generated", "ai_edited", 1),
    ("tc260_xmp:ai_suspected png_parameters:ai_generated", "ai_generated", 0),
    ("tc260_xmp:ai_possible generator_name:ai_edited", "ai_edited", 0),
    ("tc260_xmp:ai_suspected tc260_exif:ai_possible", "ai_possible", 0),
    ("tc260_xmp:ai_suspected iptc:ai_possible", "ai_suspected", 0),
    ("c2pa:none generator_name:ai_possible", "ai_possible", 0),
    (f"{CAPTURE} tc260_xmp:ai_generated", "ai_generated", 1),
    (f"{CAPTURE} iptc:none:digitalCapture tc260_xmp:ai_generated", "ai_generated", 2),
    ("c2pa:none:humanEdits tc260_xmp:ai_generated", "ai_generated", 0),
]


@pytest.mark.parametrize(("findings", "declared", "notes"), TABLE)
def test_the_rule(findings, declared, notes):
    for order in permutations(findings.split()):
        found = in_order([finding(*one.split(":")) for one in order])
        assert [one.declares for one in found][:1] == ([declared] if found else [])
        assert [reason.code for reason in conflicts(found)] == ["declarations_conflict"] * notes
