"""The list of authorities that a user trusts to say who signed content credentials, read and checked once.

The C2PA library passes over a certificate that it cannot read, and with none left trusts nobody without a word. So
OpenSSL reads every certificate first, and the library gets only what was read. Nothing is fetched.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from realdamage.errors import MissingExtraError, RealDamageError, UsageError

# The C2PA trust list with that of time stamps has 27 KB; the library reads the whole list anew for each signed photo.
MAX_BYTES = 1 << 20
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_BLOCK = re.compile(
    rb"-----BEGIN ((?:[A-Z0-9]{1,10} )?CERTIFICATE)-----(.*?)-----END \1-----", re.DOTALL
)
_EXPECTED = "expected certificates of authorities in PEM (-----BEGIN CERTIFICATE-----), as C2PA publishes its trust list"


@dataclass(frozen=True)
class TrustAnchors:
    """A list of authorities. A signer whose certificate chains to one of them counts as trusted: its name is what the
    authority says it is. That is no word about the photo.

    pem: the authorities' certificates and nothing else. sha256: hex digest of the file as it was given. authorities:
    how many, each once. passed_over: how many other certificates were in the file; they vouch for nobody.
    """

    pem: str
    sha256: str
    authorities: int
    passed_over: int = 0

    @classmethod
    def read(cls, path: str | Path) -> TrustAnchors:
        """Read a PEM bundle; text between the certificates is ignored.

        Raises UsageError naming the file, what was found and what to do: no such file, empty, above 1 MiB, not PEM, a
        certificate that cannot be read, no authority among them. MissingExtraError without c2pa-python, without which
        no signature is read; RealDamageError when the installed one does not take such a list.
        """
        data = _contents(Path(path))
        store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        certificates = _certificates(data, path)
        for number, der in enumerate(certificates, start=1):
            try:
                store.load_verify_locations(cadata=der)
            except (ssl.SSLError, ValueError) as error:
                raise _broken(
                    path, number, len(certificates), getattr(error, "reason", "") or str(error)
                ) from error
        authorities = sorted(store.get_ca_certs(binary_form=True))
        others = store.cert_store_stats()["x509"] - len(authorities)
        if not authorities:
            raise UsageError(
                f"{path}: {others} certificate{'s' * (others != 1)}, none of an authority (all are signers' own): give "
                "the certificates of those who issued them, so that their signers can be trusted"
            )
        pem = "".join(ssl.DER_cert_to_PEM_cert(der) for der in authorities)
        _check_library(path, pem)
        return cls(pem, hashlib.sha256(data).hexdigest(), len(authorities), others)


def _contents(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: the trust anchors cannot be read: {why}; {_EXPECTED}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(
            f"{path}: more than {MAX_BYTES} bytes, too many for a list of authorities; {_EXPECTED}"
        )
    if not data.strip():
        raise UsageError(f"{path}: the file of trust anchors is empty; {_EXPECTED}")
    return data


def _certificates(data: bytes, path: str | Path) -> list[bytes]:
    """The certificates in DER, in the order of the file."""
    kinds = [found.decode() for found in _BEGIN.findall(data)]
    begun = sum(kind.endswith("CERTIFICATE") for kind in kinds)
    if not begun:
        found = (
            f"PEM of another kind ({', '.join(sorted(set(kinds)))})"
            if kinds
            else f"it begins with {data[:16]!r}"
        )
        hint = "; a certificate in DER becomes PEM with: openssl x509 -inform der -in FILE -out anchors.pem"
        raise UsageError(
            f"{path}: no certificate in it: {found}; {_EXPECTED}{hint * data.startswith(b'0')}"
        )
    blocks = [body for _, body in _BLOCK.findall(data)]
    decoded = []
    for number, body in enumerate(blocks, start=1):
        try:
            decoded.append(base64.b64decode(b"".join(body.split()), validate=True))
        except binascii.Error as error:
            raise _broken(path, number, begun, str(error)) from error
    if len(blocks) < begun:
        raise _broken(
            path, len(blocks) + 1, begun, "a certificate without its -----END CERTIFICATE-----"
        )
    return decoded


def _broken(path: str | Path, number: int, count: int, why: str) -> UsageError:
    return UsageError(
        f"{path}: certificate {number} of {count} cannot be read ({why}): the file is damaged or was cut off; get it "
        "anew, or take this certificate out"
    )


def _check_library(path: str | Path, pem: str) -> None:
    """Raises unless the installed c2pa-python takes this list, and would refuse a wrong one."""
    try:
        c2pa = importlib.import_module("c2pa")
    except (ImportError, OSError):
        raise MissingExtraError("a list of trust anchors", "claims", "c2pa-python") from None
    try:
        c2pa.Settings.from_dict({"trust": {"trust_anchors": pem}})
    except c2pa.C2paError as error:
        raise UsageError(f"{path}: c2pa-python refuses these certificates: {error}") from error
    try:
        c2pa.Settings.from_dict({"trust": {"trust_anchors": "no certificate"}})
    except c2pa.C2paError:
        return
    raise RealDamageError(
        f"{path}: the installed c2pa-python no longer takes trust anchors as this realdamage gives them, so it would "
        'trust nobody: pip install "c2pa-python==0.38.1"'
    )
