"""Signers under the user's list of authorities are trusted, no others; a wrong list is an error, never no trust."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import c2pa
import pytest

from realdamage.errors import MissingExtraError, RealDamageError, UsageError
from realdamage.provenance import Provenance, TrustAnchors, read_provenance
from realdamage.provenance import trust as trust_module

Sign = Callable[..., bytes]
Anchors = Callable[..., TrustAnchors]
BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@pytest.fixture(scope="session")
def another_authority(signing: Any) -> str:
    """The certificate of an authority of the same name with another key."""
    authority: str = type(signing)().authority
    return authority


@pytest.fixture
def anchors(signing: Any, tmp_path: Path) -> Anchors:
    """`anchors(text)`: what is read from a file with this text; by default that of the throw-away authority."""

    def read(text: str | bytes = "") -> TrustAnchors:
        path = tmp_path / "anchors.pem"
        text = text or signing.authority
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return TrustAnchors.read(path)

    return read


@pytest.mark.parametrize("purpose", ["e-mail", "C2PA", "documents", "Microsoft"])
def test_a_signer_under_the_list_is_trusted(sign: Sign, anchors: Anchors, purpose: str) -> None:
    data = sign("digitalCapture", purpose=purpose)
    listed = anchors()
    found = read_provenance(data, trust_anchors=listed)
    (finding,) = found.findings
    assert finding.fields["validation"] == "trusted"
    assert "failures" not in finding.fields
    assert "c2pa_untrusted" not in [note.code for note in found.notes]
    assert "vouches for this name, not for what the photo shows" in finding.sentence
    assert "declare a capture by a camera" in finding.sentence
    assert found.trust_anchors_sha256 == listed.sha256
    assert Provenance.from_dict(found.to_dict()) == found
    before = read_provenance(data)
    assert before.findings[0].fields["validation"] == "untrusted"
    assert before.trust_anchors_sha256 == ""
    assert "none is configured" in next(
        note.sentence for note in before.notes if note.code == "c2pa_untrusted"
    )


def test_a_signer_under_another_authority_is_not(
    sign: Sign, another_authority: str, anchors: Anchors
) -> None:
    found = read_provenance(sign("digitalCapture"), trust_anchors=anchors(another_authority))
    assert found.findings[0].fields["validation"] == "untrusted"
    (note,) = [note for note in found.notes if note.code == "c2pa_untrusted"]
    assert (
        "no authority on your list vouches for the signer (signingCredential.untrusted)"
        in note.sentence
    )


def test_trust_does_not_mend_a_changed_photo(sign: Sign, anchors: Anchors) -> None:
    data = bytearray(sign("trainedAlgorithmicMedia"))
    data[-40] ^= 1
    found = read_provenance(bytes(data), trust_anchors=anchors())
    assert (found.declared, found.findings[0].fields["validation"]) == ("none", "invalid")
    assert "c2pa_invalid" in [note.code for note in found.notes]


def test_trust_takes_back_no_declaration(sign: Sign, anchors: Anchors) -> None:
    found = read_provenance(sign("trainedAlgorithmicMedia"), trust_anchors=anchors())
    assert (found.declared, found.findings[0].fields["validation"]) == ("ai_generated", "trusted")


def test_a_certificate_that_ran_out_needs_a_time_stamp(
    signing: Any, files: Any, anchors: Anchors
) -> None:
    found = read_provenance(signing.expired(files.plain_jpeg), trust_anchors=anchors())
    assert found.findings[0].fields["validation"] == "untrusted"
    (note,) = [note for note in found.notes if note.code == "c2pa_untrusted"]
    assert "has expired, and no time stamp by an authority on your list" in note.sentence


def test_the_list_as_it_is_read(
    signing: Any, sign: Sign, another_authority: str, anchors: Anchors
) -> None:
    text = f"# Subject: é\n{signing.authority}\r\nSubject\tCN=x\n{another_authority}{signing.authority}"
    read = anchors(text)
    assert (read.authorities, read.passed_over, read.pem.count(BEGIN)) == (2, 0, 2)
    assert read.sha256 == hashlib.sha256(text.encode()).hexdigest()
    photo = sign("digitalCapture")
    variants = [
        text,
        "\ufeff" + signing.authority,
        signing.authority.replace("\n", "\r\n"),
        signing.authority.replace("BEGIN C", "BEGIN X509 C").replace("END C", "END X509 C"),
        signing.chain + "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ]
    for variant in variants:
        found = read_provenance(photo, trust_anchors=anchors(variant))
        assert found.findings[0].fields["validation"] == "trusted", variant[:60]
    assert anchors(signing.chain).passed_over == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pem: b" \n", "the file of trust anchors is empty"),
        (lambda pem: b"hello", "no certificate in it: it begins with b'hello'"),
        (
            lambda pem: b"-----BEGIN PRIVATE KEY-----\nAAAA\n",
            r"no certificate in it: PEM of another kind \(PRIVATE KEY\)",
        ),
        (lambda pem: b"0\x82\x01\x0a\x02\x82", "openssl x509 -inform der"),
        (
            lambda pem: pem[:-40],
            r"certificate 1 of 1 cannot be read \(a certificate without its -----END CERT",
        ),
        (
            lambda pem: pem + pem[: len(pem) // 2],
            r"certificate 2 of 2 cannot be read \(a certificate without its",
        ),
        (lambda pem: pem[:200] + pem, r"certificate 1 of 2 cannot be read"),
        (lambda pem: pem.replace(b"MII", b"M%I", 1), r"certificate 1 of 1 cannot be read"),
        (lambda pem: pem.replace(b"MII", b"MIX", 1), r"certificate 1 of 1 cannot be read"),
        (
            lambda pem: pem + f"{BEGIN}\nAAAA\n{END}\n".encode(),
            r"certificate 2 of 2 cannot be read",
        ),
        (lambda pem: pem + f"{BEGIN}\n{END}\n".encode(), r"certificate 2 of 2 cannot be read"),
        (lambda pem: pem + b"#" * trust_module.MAX_BYTES, "more than 1048576 bytes"),
    ],
)
def test_a_wrong_list_is_an_error(
    signing: Any, anchors: Anchors, change: Callable[[bytes], bytes], said: str
) -> None:
    with pytest.raises(UsageError, match=rf"anchors\.pem: .*{said}"):
        anchors(change(signing.authority.encode()))


def test_a_list_of_signers_alone_is_an_error(signing: Any, anchors: Anchors) -> None:
    with pytest.raises(
        UsageError,
        match=r"1 certificate, none of an authority .*give the certificates of those who",
    ):
        anchors(signing.chain[: signing.chain.index(END) + len(END)])


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"absent\.pem: the trust anchors cannot be read: No such file"
    ):
        TrustAnchors.read(tmp_path / "absent.pem")
    with pytest.raises(UsageError, match="Is a directory"):
        TrustAnchors.read(tmp_path)


def test_without_the_package_a_list_is_an_error(
    anchors: Anchors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(MissingExtraError, match=r"trust anchors needs the extra \"claims\""):
        anchors()


def test_a_library_that_would_ignore_the_list_is_an_error(
    anchors: Anchors, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = SimpleNamespace(from_dict=lambda settings: None)
    monkeypatch.setattr(c2pa, "Settings", deaf)
    with pytest.raises(RealDamageError, match="it would trust nobody: pip install"):
        anchors()


def test_older_provenance_without_a_list_is_read(sign: Sign) -> None:
    values = read_provenance(sign("digitalCapture")).to_dict()
    del values["trust_anchors_sha256"]
    assert Provenance.from_dict(values).trust_anchors_sha256 == ""
    with pytest.raises(RealDamageError, match="not a provenance in JSON"):
        Provenance.from_dict(values | {"trust_anchors_sha256": 3})
