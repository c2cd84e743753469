"""Content credentials count only while signature and hash hold; who signed is told, never trusted without a list."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from realdamage.provenance import read_provenance
from realdamage.provenance.c2pa import judge_store
from realdamage.provenance.containers import Blocks

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


@pytest.mark.parametrize(
    ("form", "mime"), [("png", "image/png"), ("webp", "image/webp"), ("tiff", "image/tiff")]
)
def test_other_containers(sign: Sign, files: Any, form: str, mime: str) -> None:
    found = read_provenance(sign("trainedAlgorithmicMedia", data=files.picture(form), mime=mime))
    assert found.declared == "ai_generated"


def test_a_photo_changed_after_it_was_signed_declares_nothing(sign: Sign) -> None:
    data = bytearray(sign("trainedAlgorithmicMedia"))
    data[-40] ^= 1
    found = read_provenance(bytes(data))
    (finding,) = found.findings
    assert (found.declared, finding.declares, finding.fields["validation"]) == (
        "none",
        "none",
        "invalid",
    )
    (note,) = [note for note in found.notes if note.code == "c2pa_invalid"]
    assert "assertion.dataHash.mismatch" in note.sentence


def test_a_changed_manifest_declares_nothing(sign: Sign) -> None:
    data = sign("digitalCapture")
    found = read_provenance(data.replace(b"digitalCapture", b"digitalCaptura"))
    assert found.findings[0].fields["validation"] == "invalid"
    found = read_provenance(sign("negativeFilm").replace(b"negativeFilm", b"positiveFilm"))
    assert found.findings[0].fields["validation"] == "invalid"
    assert "c2pa_invalid" in [note.code for note in found.notes]


def test_what_a_photo_was_made_from(sign: Sign) -> None:
    generated = sign("trainedAlgorithmicMedia")
    opened = read_provenance(sign(action="c2pa.opened", data=generated, parent=generated))
    assert opened.declared == "ai_generated"
    part = read_provenance(sign(action="c2pa.placed", parent=generated, relationship="componentOf"))
    assert part.declared == "ai_edited"
    captured = sign("digitalCapture")
    assert (
        read_provenance(sign(action="c2pa.opened", data=captured, parent=captured)).declared
        == "none"
    )


def test_a_capture_beside_a_label_is_a_conflict(sign: Sign, files: Any) -> None:
    label = json.dumps({"Label": "1"})
    found = read_provenance(
        sign("digitalCapture", data=files.jpeg((0xFE, b"AIGC" + label.encode())))
    )
    assert found.declared == "ai_generated"
    assert [finding.form for finding in found.findings] == ["tc260_jpeg", "c2pa"]
    assert "declarations_conflict" in [note.code for note in found.notes]


def test_without_the_package_there_is_a_note(
    sign: Sign, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    found = read_provenance(sign("trainedAlgorithmicMedia"))
    assert (found.declared, found.findings) == ("none", ())
    assert [note.code for note in found.notes] == ["c2pa_unavailable", "absence_proves_nothing"]
    assert [note.code for note in read_provenance(files.plain_jpeg).notes] == [
        "absence_proves_nothing"
    ]


def test_credentials_cut_off_are_a_note(sign: Sign) -> None:
    data = sign("trainedAlgorithmicMedia")
    codes = [note.code for note in read_provenance(data[:2000]).notes]
    assert {"file_cut_off", "broken_metadata"} <= set(codes)


def test_the_credentials_of_another_photo_do_not_hold(sign: Sign, files: Any) -> None:
    signed = sign("trainedAlgorithmicMedia")
    start = signed.index(b"\xff\xeb")
    out = io.BytesIO()
    Image.new("RGB", (48, 32), "red").save(out, "JPEG")
    other = out.getvalue()
    end = start
    while signed[end : end + 2] == b"\xff\xeb":
        end += 2 + int.from_bytes(signed[end + 2 : end + 4], "big")
    found = read_provenance(other[:2] + signed[start:end] + other[2:])
    assert found.declared == "none"
    assert found.findings[0].fields["validation"] == "invalid"


def test_a_remote_manifest_is_not_fetched(files: Any) -> None:
    found = read_provenance(
        files.xmp_jpeg(attributes='dcterms:provenance="https://example.org/manifest.c2pa"')
    )
    assert [note.code for note in found.notes] == ["c2pa_remote", "absence_proves_nothing"]


@pytest.mark.parametrize(
    "store", [None, [], {}, {"manifests": 3}, {"manifests": {"a": 1}, "active_manifest": "a"}]
)
def test_a_store_of_another_shape_is_a_note(store: Any) -> None:
    blocks = Blocks()
    assert judge_store(store, blocks) is None
    assert [note.code for note in blocks.notes] == ["broken_metadata"]


def test_a_trusted_signer_is_told_without_a_note() -> None:
    codes = ("signingCredential.trusted", "claimSignature.validated", "assertion.dataHash.match")
    store = {
        "active_manifest": "a",
        "manifests": {
            "a": {"signature_info": {"issuer": "Maker"}, "assertions": [{"label": 1, "data": 2}, 3]}
        },
        "validation_results": {"activeManifest": {"success": [{"code": code} for code in codes]}},
    }
    blocks = Blocks()
    finding = judge_store(store, blocks)
    assert finding is not None
    assert (finding.declares, finding.fields["validation"], blocks.notes) == ("none", "trusted", [])
