"""What shops tell each other about repeats: keyed hashes, signed, with an expiry, and nothing else.

A consortium shares one key for the hashes, so nobody outside can try references out. Each shop
signs its export with a key of its own. A newer export replaces the earlier one: that is how a shop
takes a hash back. A match is a finding for a person, never a decision.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import delete, func, select

from realdamage.claims.database import Case, Database, Decision, ForeignHash, Photo, Setting
from realdamage.claims.log import canonical
from realdamage.claims.secret import Secret
from realdamage.errors import RealDamageError, UsageError
from realdamage.files import write_atomically

if TYPE_CHECKING:
    from realdamage.claims.index import Fingerprint

_VERSION = 1
_MOST_BYTES = 64 * 1024 * 1024
_DAY = 86400


class ExchangeKey(Secret):
    """The consortium's key: makes the same hash of the same thing in every shop."""

    _called, _code = "consortium's key", "short_key"

    @property
    def name(self) -> str:
        """Which key it is, without telling the key."""
        return self.sign("name", b"")[:16]

    def photo(self, sha256: bytes, coarse: int) -> dict[str, str]:
        """The hashes of a photo's bytes and of its look. coarse: its 64-bit perceptual hash as a
        signed number; one that differs in a single bit is not found."""
        look = coarse.to_bytes(8, "little", signed=True)
        return {"file": self.sign("file", sha256), "look": self.sign("look", look)}

    def find(self, database: Database, photos: Iterable[Fingerprint]) -> list[tuple[str, str]]:
        """(shop, kind) of what other shops share of these photos, each once."""
        hashes: list[str] = []
        for photo in photos:
            coarse = int(np.uint64(photo.seen.coarse).view(np.int64))
            hashes += self.photo(bytes.fromhex(photo.sha256), coarse).values()
        return find_hashes(database, hashes)


def find_hashes(database: Database, hashes: Sequence[str]) -> list[tuple[str, str]]:
    """(shop, kind) of the shared hashes among these that have not expired."""
    query = select(ForeignHash.shop, ForeignHash.kind).where(
        ForeignHash.hash.in_(hashes), ForeignHash.expires > time.time()
    )
    with database.reading() as session:
        return sorted({(shop, kind) for shop, kind in session.execute(query)})


def make_keys(folder: Path, shop: str) -> tuple[Path, Path]:
    """Write SHOP.key, to keep secret, and SHOP.pub, to give to the other shops."""
    secret, public = folder / f"{shop}.key", folder / f"{shop}.pub"
    if secret.exists():
        raise UsageError(f"{secret}: exists; a new key would end the trust of the other shops")
    key = Ed25519PrivateKey.generate()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    data = key.private_bytes(pem, pkcs8, serialization.NoEncryption())
    write_atomically(secret, data)
    secret.chmod(0o600)
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    write_atomically(public, key.public_key().public_bytes(pem, spki))
    return secret, public


def export_hashes(
    database: Database, key: ExchangeKey, signer: Path, *, shop: str, days: int
) -> bytes:
    """A signed file of the hashes of cases that a person refused, and of their photos. signer: the
    shop's SHOP.key. days: how far back, and after which the other shops forget them. Raises
    UsageError when a key cannot be used."""
    since = time.time() - days * _DAY
    refused = select(Decision.claim_id).where(
        Decision.action == "refuse", Decision.is_final, ~Decision.undone, Decision.at > since
    )
    found: set[tuple[str, str]] = set()
    with database.reading() as session:
        for buyer in session.scalars(select(Case.buyer_shared).where(Case.claim_id.in_(refused))):
            found |= {("buyer", buyer)} if buyer else set()
        for sha256, coarse in session.execute(
            select(Photo.sha256, Photo.coarse).where(Photo.claim_id.in_(refused))
        ):
            found |= set(key.photo(sha256, coarse).items())
    values = {
        "version": _VERSION,
        "shop": shop,
        "consortium": key.name,
        "serial": int(time.time() * 1000),
        "expires": int(time.time() + days * _DAY),
        "hashes": [[kind, one] for kind, one in sorted(found)],
    }
    try:
        private = serialization.load_pem_private_key(_read(signer), None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{signer}: not a private key: {error}", code="exchange_key") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise UsageError(f"{signer}: not an Ed25519 key; make one with `exchange keys`")
    signature = private.sign(canonical(values).encode()).hex()
    return json.dumps({**values, "signature": signature}, indent=1).encode() + b"\n"


def import_hashes(database: Database, key: ExchangeKey, path: Path, public: Path) -> int:
    """Replace what a shop shared before by its new file; returns how many hashes it has. public:
    that shop's SHOP.pub. Raises RealDamageError, and changes nothing, when the file is damaged, of
    another consortium, signed by somebody else, expired or older than the last one."""
    values = _open(path, public)
    shop, serial, expires = values["shop"], values["serial"], values["expires"]
    if values["consortium"] != key.name:
        raise _refused(path, f"is of another consortium ({values['consortium']})", "other_key")
    if expires <= time.time():
        raise _refused(path, "has expired; ask the shop for a new one", "expired")
    with database.transaction() as session:
        query = select(func.max(ForeignHash.serial)).where(ForeignHash.shop == shop)
        known = session.get(Setting, f"exchange:{shop}")  # stays when a file has no hashes
        if serial < max(session.scalar(query) or 0, known.value if known else 0):
            raise _refused(path, f"is older than what {shop!r} sent before", "older")
        session.execute(delete(ForeignHash).where(ForeignHash.shop == shop))
        session.merge(Setting(name=f"exchange:{shop}", value=float(serial)))
        about = {"shop": shop, "serial": serial, "expires": float(expires)}
        session.add_all(ForeignHash(kind=kind, hash=one, **about) for kind, one in values["hashes"])
        count = len(values["hashes"])
        event = {"event": "hashes_imported", "shop": shop, "serial": serial, "hashes": count}
        database.record(session, event)
    return count


def _open(path: Path, public: Path) -> dict[str, Any]:
    try:
        values = json.loads(_read(path))
        signature = bytes.fromhex(values.pop("signature"))
        hashes = [(str(kind), str(one)) for kind, one in values["hashes"]]
        is_whole = values["version"] == _VERSION and isinstance(values["shop"], str)
        is_whole &= isinstance(values["serial"], int) and isinstance(values["expires"], int)
        is_whole &= {kind for kind, _ in hashes} <= {"buyer", "file", "look"}
        text = canonical(values).encode()
    except (ValueError, KeyError, TypeError, AttributeError, UsageError, RecursionError) as error:
        raise _refused(path, "is not a file of `realdamage exchange export`", "damaged") from error
    if not is_whole:
        raise _refused(path, "is not a file of this version", "damaged")
    try:
        key = serialization.load_pem_public_key(_read(public))
    except ValueError as error:
        raise UsageError(f"{public}: not a public key: {error}", code="exchange_key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{public}: not an Ed25519 key", code="exchange_key")
    try:
        key.verify(signature, text)
    except InvalidSignature as error:
        raise _refused(path, f"is not signed with the key of {public}", "signature") from error
    found: dict[str, Any] = values
    return found | {"hashes": sorted(set(hashes))}


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path}: has more than {_MOST_BYTES} bytes", code="too_large")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error


def _refused(path: Path, why: str, code: str) -> RealDamageError:
    return RealDamageError(f"{path}: {why}. Nothing was imported.", code=f"exchange_{code}")
