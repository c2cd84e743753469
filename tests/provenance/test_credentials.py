"""Content credentials count only while signature and hash hold; no signer is trusted without a
list."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from realdamage.provenance import read_provenance

Sign = Callable[..., bytes]


@pytest.mark.parametrize(
    ("source_type", "declared"),
    [
        ("trainedAlgorithmicMedia", "ai_generated"),
        ("compositeWithTrainedAlgorithmicMedia", "ai_edited"),
        ("digitalCapture", "none"),
    ],
)
def test_a_signed_photo(sign: Sign, source_type: str, declared: str) -> None:
    found = read_provenance(sign(source_type))
    (finding,) = found.findings
    assert (found.declared, finding.form, finding.declares) == (declared, "c2pa", declared)
    assert finding.fields["digital_source_type"] == source_type
    assert finding.fields["signer"] == "Throw-away maker"
    assert finding.fields["claim_generator"] == "test program"
    assert finding.fields["validation"] == "untrusted"
    assert finding.fields["failures"] == "signingCredential.untrusted"
    codes = [note.code for note in found.notes]
    assert "c2pa_untrusted" in codes
    assert ("absence_proves_nothing" in codes) == (declared == "none")


def test_what_a_photo_was_made_from(sign: Sign) -> None:
    generated, captured = sign("trainedAlgorithmicMedia"), sign("digitalCapture")
    opened = {"action": "c2pa.opened"}
    part = {"action": "c2pa.placed", "relationship": "componentOf"}
    for given, declared in (
        ({**opened, "data": generated, "parent": generated}, "ai_generated"),
        ({**part, "parent": generated}, "ai_edited"),
        ({**opened, "data": captured, "parent": captured}, "none"),
    ):
        assert read_provenance(sign(**given)).declared == declared


def test_what_cannot_be_read_is_a_note(
    sign: Sign, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = 'dcterms:provenance="https://example.org/manifest.c2pa"'
    notes = read_provenance(files.xmp_jpeg(attributes=remote)).notes
    assert [note.code for note in notes] == ["c2pa_remote", "absence_proves_nothing"]
    signed = sign("trainedAlgorithmicMedia")
    monkeypatch.setitem(sys.modules, "c2pa", None)
    found = read_provenance(signed)
    assert (found.declared, found.findings) == ("none", ())
    assert [note.code for note in found.notes] == ["c2pa_unavailable", "absence_proves_nothing"]
    notes = read_provenance(files.plain_jpeg).notes
    assert [note.code for note in notes] == ["absence_proves_nothing"]


def test_credentials_that_do_not_hold_declare_nothing(sign: Sign, files: Any) -> None:
    signed = sign("trainedAlgorithmicMedia")
    changed = bytearray(signed)
    changed[-40] ^= 1
    manifest = sign("negativeFilm").replace(b"negativeFilm", b"positiveFilm")
    start = end = signed.index(b"\xff\xeb")
    while signed[end : end + 2] == b"\xff\xeb":
        end += 2 + int.from_bytes(signed[end + 2 : end + 4], "big")
    other = files.picture("JPEG", 64, 64)
    moved = other[:2] + signed[start:end] + other[2:]
    for data in (bytes(changed), manifest, moved):
        found = read_provenance(data)
        assert (found.declared, found.findings[0].declares) == ("none", "none")
        assert found.findings[0].fields["validation"] == "invalid"
        assert "c2pa_invalid" in [note.code for note in found.notes]
    cut_off = {note.code for note in read_provenance(signed[:2000]).notes}
    assert {"file_cut_off", "broken_metadata"} <= cut_off


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_other_containers(sign: Sign, files: Any, form: str) -> None:
    mime = f"image/{form.lower()}"
    found = read_provenance(sign("trainedAlgorithmicMedia", data=files.picture(form), mime=mime))
    assert found.declared == "ai_generated"


def test_credentials_of_a_camera_and_a_label_are_a_conflict(sign: Sign, files: Any) -> None:
    labelled = files.jpeg((0xFE, b'AIGC{"Label": "1"}'))
    both = read_provenance(sign("digitalCapture", data=labelled))
    assert [finding.form for finding in both.findings] == ["tc260_jpeg", "c2pa"]
    assert "declarations_conflict" in [note.code for note in both.notes]
