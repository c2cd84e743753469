"""The rule that makes one declaration of several findings, as a table."""

from __future__ import annotations

from itertools import permutations

import pytest

from realdamage.core.verdict import Reason
from realdamage.errors import RealDamageError
from realdamage.provenance import CameraFacts, Finding, Provenance
from realdamage.provenance.precedence import Declared, conflicts, declared_by, in_order


def finding(form: str, declares: Declared, code: str = "") -> Finding:
    return Finding(form, declares, "XMP", {"digital_source_type": code} if code else {}, "")


CAPTURE = ("c2pa", "none", "digitalCapture")
TABLE: list[tuple[list[tuple[str, ...]], str, int]] = [
    ([], "none", 0),
    ([CAPTURE], "none", 0),
    ([("c2pa", "ai_edited"), ("iptc", "ai_generated")], "ai_edited", 1),
    (
        [("c2pa", "ai_generated"), ("tc260_xmp", "ai_generated"), ("iptc", "ai_generated")],
        "ai_generated",
        0,
    ),
    ([("tc260_png", "ai_generated"), ("iptc", "ai_edited")], "ai_generated", 1),
    ([("iptc", "ai_edited"), ("png_parameters", "ai_generated")], "ai_edited", 1),
    ([("iptc", "ai_edited"), ("generator_name", "ai_generated")], "ai_edited", 1),
    ([("comfyui", "ai_edited"), ("generator_name", "ai_generated")], "ai_edited", 1),
    ([("tc260_xmp", "ai_suspected"), ("png_parameters", "ai_generated")], "ai_generated", 0),
    ([("tc260_xmp", "ai_possible"), ("generator_name", "ai_edited")], "ai_edited", 0),
    ([("tc260_xmp", "ai_suspected"), ("tc260_exif", "ai_possible")], "ai_possible", 0),
    ([("tc260_xmp", "ai_suspected"), ("iptc", "ai_possible")], "ai_suspected", 0),
    ([("generator_name", "ai_possible"), ("platform_label", "ai_possible")], "ai_possible", 0),
    ([("c2pa", "none"), ("platform_label", "ai_possible")], "ai_possible", 0),
    ([CAPTURE, ("tc260_xmp", "ai_generated")], "ai_generated", 1),
    (
        [CAPTURE, ("iptc", "none", "digitalCapture"), ("tc260_xmp", "ai_generated")],
        "ai_generated",
        2,
    ),
    ([("c2pa", "none", "humanEdits"), ("tc260_xmp", "ai_generated")], "ai_generated", 0),
]


@pytest.mark.parametrize(("rows", "declared", "notes"), TABLE)
def test_the_rule(rows: list[tuple[str, Declared]], declared: str, notes: int) -> None:
    for order in permutations(rows):
        found = [finding(*row) for row in order]
        assert declared_by(found) == declared
        assert [reason.code for reason in conflicts(found)] == ["declarations_conflict"] * notes
        assert [f.declares for f in in_order(found)][:1] == ([declared] if found else [])


def test_json_round_trip() -> None:
    first = Finding("iptc", "ai_edited", "XMP", {"digital_source_type": "x"}, "é")
    camera = CameraFacts("Canon", "R5", "1.0", "2026-01-02T03:04:05", True, "matches")
    value = Provenance("ai_edited", (first,), camera, (Reason("a", "b"),), "ab" * 32)
    assert Provenance.from_dict(value.to_dict()) == value


@pytest.mark.parametrize(
    "change",
    [
        *[
            {"declared": "maybe"},
            {"findings": [{}]},
            {"camera": {"gps": 1}},
            {"camera": {"colour": ""}},
            {"notes": 3},
        ],
        *[{"photo_sha256": None}, {"camera": {"thumbnail": "x"}}],
    ],
)
def test_other_json_is_refused(change: dict[str, object]) -> None:
    value = Provenance("none", (), CameraFacts(), (), "")
    with pytest.raises(RealDamageError, match="not a provenance in JSON"):
        Provenance.from_dict(value.to_dict() | change)
