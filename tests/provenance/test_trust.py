"""Signers under the user's list of authorities are trusted, no others; a wrong list is an error,
never no trust."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realdamage.errors import MissingExtraError, UsageError
from realdamage.provenance import Provenance, TrustAnchors, read_provenance
from realdamage.provenance.c2pa import MAX_BYTES

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
    """`anchors(text)`: what is read from a file with this text; by default that of the throw-away
    authority."""

    def read(text: str | bytes | None = None) -> TrustAnchors:
        path = tmp_path / "anchors.pem"
        text = signing.authority if text is None else text
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return TrustAnchors.read(path)

    return read


def why_untrusted(found: Provenance) -> str:
    (note,) = [note for note in found.notes if note.code == "c2pa_untrusted"]
    return note.phrases[1].template


@pytest.mark.parametrize("purpose", ["e-mail", "C2PA"])
def test_a_signer_under_the_list_is_trusted(sign: Sign, anchors: Anchors, purpose: str) -> None:
    data = sign("digitalCapture", purpose=purpose)
    listed = anchors()
    found = read_provenance(data, trust_anchors=listed)
    (finding,) = found.findings
    assert finding.fields["validation"] == "trusted"
    assert "failures" not in finding.fields
    assert "c2pa_untrusted" not in [note.code for note in found.notes]
    assert {"c2pa_vouched", "c2pa_capture"} <= {one.template for one in finding.phrases}
    assert found.trust_anchors_sha256 == listed.sha256
    before = read_provenance(data)
    assert before.findings[0].fields["validation"] == "untrusted"
    assert before.trust_anchors_sha256 == ""
    assert why_untrusted(before) == "c2pa_without_list"


def test_a_signer_under_another_authority_is_not(
    sign: Sign, another_authority: str, anchors: Anchors
) -> None:
    found = read_provenance(sign("digitalCapture"), trust_anchors=anchors(another_authority))
    assert found.findings[0].fields["validation"] == "untrusted"
    assert why_untrusted(found) == "c2pa_not_listed"
    data = bytearray(sign("trainedAlgorithmicMedia"))
    data[-40] ^= 1
    changed = read_provenance(bytes(data), trust_anchors=anchors())
    assert (changed.declared, changed.findings[0].fields["validation"]) == ("none", "invalid")


@pytest.mark.slow  # waits until the certificate has expired
def test_a_certificate_that_ran_out_needs_a_time_stamp(
    signing: Any, files: Any, anchors: Anchors
) -> None:
    found = read_provenance(signing.expired(files.plain_jpeg), trust_anchors=anchors())
    assert found.findings[0].fields["validation"] == "untrusted"
    assert why_untrusted(found) == "c2pa_expired"


def test_the_list_as_it_is_read(signing: Any, another_authority: str, anchors: Anchors) -> None:
    first = f"# Subject: é\n{signing.authority}\r\nSubject\tCN=x\n"
    text = f"{first}{another_authority}{signing.authority}"
    read = anchors(text)
    assert (read.authorities, read.passed_over, read.pem.count(BEGIN)) == (2, 0, 2)
    assert read.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert anchors(signing.chain).passed_over == 1


def test_without_the_package_a_list_is_an_error(
    anchors: Anchors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(MissingExtraError, match="claims"):
        anchors()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda pem: b"", "broken_certificate"),
        (lambda pem: pem + pem[: len(pem) // 2], "broken_certificate"),
        (lambda pem: pem.replace(b"MII", b"MIX", 1), "broken_certificate"),
        (lambda pem: pem + b"#" * MAX_BYTES, "too_large"),
    ],
)
def test_a_wrong_list_is_an_error(
    signing: Any, anchors: Anchors, change: Callable[[bytes], bytes], code: str
) -> None:
    with pytest.raises(UsageError, match=r"anchors\.pem: ") as caught:
        anchors(change(signing.authority.encode()))
    assert caught.value.code == code


def test_other_lists_that_trust_nobody(signing: Any, anchors: Anchors, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        anchors(signing.chain[: signing.chain.index(END) + len(END)])
    assert caught.value.code == "no_authority"
    for path in (tmp_path / "absent.pem", tmp_path):
        with pytest.raises(UsageError, match=path.name):
            TrustAnchors.read(path)
