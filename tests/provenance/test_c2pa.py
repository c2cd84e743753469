"""Content credentials count only while signature and hash hold. Signers under the user's list of
authorities are trusted, no others; a wrong list is an error, never no trust."""

import hashlib
import sys

import pytest

from realdamage.errors import MissingExtraError, UsageError
from realdamage.provenance import TrustAnchors, read_provenance
from realdamage.provenance.c2pa import MAX_BYTES

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
GENERATED = "trainedAlgorithmicMedia"


@pytest.fixture(scope="module")
def another_authority(signing):
    """The certificate of an authority of the same name with another key."""
    return type(signing)().authority


@pytest.fixture
def anchors(signing, tmp_path):
    """`anchors(text)`: what is read from a file with this text; by default that of the throw-away
    authority."""

    def read(text=signing.authority):
        path = tmp_path / "anchors.pem"
        path.write_text(text, encoding="utf-8")
        return TrustAnchors.read(path)

    return read


def codes(found):
    return [note.code for note in found.notes]


def why_untrusted(found):
    """The name of the phrase that says it."""
    assert found.findings[0].fields["validation"] == "untrusted"
    (note,) = [note for note in found.notes if note.code == "c2pa_untrusted"]
    return note.phrases[1].template


@pytest.mark.parametrize(
    ("source_type", "declared"),
    [
        (GENERATED, "ai_generated"),
        ("compositeWithTrainedAlgorithmicMedia", "ai_edited"),
        ("digitalCapture", "none"),
    ],
)
def test_a_signed_photo(sign, source_type, declared):
    found = read_provenance(sign(source_type))
    (finding,) = found.findings
    assert (found.declared, finding.form, finding.declares) == (declared, "c2pa", declared)
    assert finding.fields["digital_source_type"] == source_type
    assert finding.fields["signer"] == "Throw-away maker"
    assert finding.fields["claim_generator"] == "test program"
    assert finding.fields["failures"] == "signingCredential.untrusted"
    assert why_untrusted(found) == "c2pa_without_list"
    assert ("absence_proves_nothing" in codes(found)) == (declared == "none")


def test_what_a_photo_was_made_from(sign):
    generated, captured = sign(GENERATED), sign("digitalCapture")
    opened = {"action": "c2pa.opened"}
    part = {"action": "c2pa.placed", "relationship": "componentOf"}
    for given, declared in (
        ({**opened, "data": generated, "parent": generated}, "ai_generated"),
        ({**part, "parent": generated}, "ai_edited"),
        ({**opened, "data": captured, "parent": captured}, "none"),
    ):
        assert read_provenance(sign(**given)).declared == declared


def test_what_cannot_be_read_is_a_note(sign, files, monkeypatch):
    remote = 'dcterms:provenance="https://example.org/manifest.c2pa"'
    assert codes(read_provenance(files.xmp_jpeg(attributes=remote)))[0] == "c2pa_remote"
    signed = sign(GENERATED)
    assert {"file_cut_off", "broken_metadata"} <= set(codes(read_provenance(signed[:2000])))
    monkeypatch.setitem(sys.modules, "c2pa", None)
    found = read_provenance(signed)
    assert (found.declared, found.findings) == ("none", ())
    assert codes(found) == ["c2pa_unavailable", "absence_proves_nothing"]
    assert codes(read_provenance(files.plain_jpeg)) == ["absence_proves_nothing"]


def test_credentials_that_do_not_hold_declare_nothing(sign, files, anchors):
    signed = sign(GENERATED)
    changed = bytearray(signed)
    changed[-40] ^= 1
    manifest = sign("negativeFilm").replace(b"negativeFilm", b"positiveFilm")
    start = end = signed.index(b"\xff\xeb")
    while signed[end : end + 2] == b"\xff\xeb":
        end += 2 + int.from_bytes(signed[end + 2 : end + 4], "big")
    other = files.picture("JPEG", 64, 64)
    moved = other[:2] + signed[start:end] + other[2:]
    for data in (bytes(changed), manifest, moved):
        for listed in (None, anchors()):
            found = read_provenance(data, trust_anchors=listed)
            assert (found.declared, found.findings[0].declares) == ("none", "none")
            assert found.findings[0].fields["validation"] == "invalid"
            assert "c2pa_invalid" in codes(found)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_other_containers(sign, files, form):
    mime = f"image/{form.lower()}"
    found = read_provenance(sign(GENERATED, data=files.picture(form), mime=mime))
    assert found.declared == "ai_generated"


def test_credentials_of_a_camera_and_a_label_are_a_conflict(sign, files):
    labelled = files.jpeg((0xFE, b'AIGC{"Label": "1"}'))
    both = read_provenance(sign("digitalCapture", data=labelled))
    assert [finding.form for finding in both.findings] == ["tc260_jpeg", "c2pa"]
    assert "declarations_conflict" in codes(both)


@pytest.mark.parametrize("purpose", ["e-mail", "C2PA"])
def test_a_signer_under_the_list_is_trusted(sign, anchors, another_authority, purpose):
    data, listed = sign("digitalCapture", purpose=purpose), anchors()
    found = read_provenance(data, trust_anchors=listed)
    (finding,) = found.findings
    assert finding.fields["validation"] == "trusted"
    assert "failures" not in finding.fields
    assert "c2pa_untrusted" not in codes(found)
    assert {"c2pa_vouched", "c2pa_capture"} <= {one.template for one in finding.phrases}
    assert found.trust_anchors_sha256 == listed.sha256
    other = read_provenance(data, trust_anchors=anchors(another_authority))
    assert why_untrusted(other) == "c2pa_not_listed"


@pytest.mark.slow  # waits until the certificate has expired
def test_a_certificate_that_ran_out_needs_a_time_stamp(signing, files, anchors):
    found = read_provenance(signing.expired(files.plain_jpeg), trust_anchors=anchors())
    assert why_untrusted(found) == "c2pa_expired"


def test_the_list_as_it_is_read(signing, another_authority, anchors, monkeypatch):
    first = f"# Subject: é\n{signing.authority}\r\nSubject\tCN=x\n"
    text = f"{first}{another_authority}{signing.authority}"
    read = anchors(text)
    assert (read.authorities, read.passed_over, read.pem.count(BEGIN)) == (2, 0, 2)
    assert read.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert anchors(signing.chain).passed_over == 1
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(MissingExtraError):
        anchors()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda signing: "", "broken_certificate"),
        (lambda signing: signing.authority + signing.authority[:300], "broken_certificate"),
        (lambda signing: signing.authority + "#" * MAX_BYTES, "too_large"),
        (lambda signing: signing.chain[: signing.chain.index(END) + len(END)], "no_authority"),
    ],
)
def test_a_wrong_list_is_an_error(signing, anchors, change, code):
    with pytest.raises(UsageError, match=r"anchors\.pem: ") as caught:
        anchors(change(signing))
    assert caught.value.code == code


def test_a_list_that_is_not_there_is_an_error(tmp_path):
    for path in (tmp_path / "absent.pem", tmp_path):
        with pytest.raises(UsageError, match=path.name):
            TrustAnchors.read(path)
