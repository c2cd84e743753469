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


@pytest.fixture(scope="module")
def another_authority(signing: Any) -> str:
    """The certificate of an authority of the same name with another key."""
    authority: str = type(signing)().authority
    return authority


@pytest.fixture
def anchors(signing: Any, tmp_path: Path) -> Anchors:
    """`anchors(text)`: what is read from a file with this text; by default that of the throw-away
    authority."""

    def read(text: str = signing.authority) -> TrustAnchors:
        path = tmp_path / "anchors.pem"
        path.write_text(text, encoding="utf-8")
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


def test_the_list_as_it_is_read(
    signing: Any, another_authority: str, anchors: Anchors, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        (lambda signing: signing.authority.replace("MII", "MIX", 1), "broken_certificate"),
        (lambda signing: signing.authority + "#" * MAX_BYTES, "too_large"),
        (lambda signing: signing.chain[: signing.chain.index(END) + len(END)], "no_authority"),
    ],
)
def test_a_wrong_list_is_an_error(
    signing: Any, anchors: Anchors, change: Callable[[Any], str], code: str
) -> None:
    with pytest.raises(UsageError, match=r"anchors\.pem: ") as caught:
        anchors(change(signing))
    assert caught.value.code == code


def test_a_list_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pem", tmp_path):
        with pytest.raises(UsageError, match=path.name):
            TrustAnchors.read(path)
