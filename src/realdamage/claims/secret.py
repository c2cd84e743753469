"""The operator's key: references of buyers are stored only as its keyed hashes, and links are
signed with it."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Self

from realdamage.claims.paths import AnyPath
from realdamage.errors import RealDamageError, UsageError

_SHORTEST = 24  # bytes


class Secret:
    """A key for several purposes; the hash of one purpose says nothing about another's."""

    _called, _code = "secret", "short_secret"

    def __init__(self, key: bytes) -> None:
        if len(key) < _SHORTEST:
            raise UsageError(
                f"The {self._called} has {len(key)} bytes and needs at least {_SHORTEST}. Make one "
                "with: openssl rand -hex 32",
                code=self._code,
            )
        self._key = key

    @classmethod
    def read(cls, path: AnyPath, *, make: bool = False) -> Self:
        """The key in a file. make: write a new one, for its owner only, where there is none. In an
        object store only one caller may do so at a time."""
        try:
            if make and isinstance(path, Path):
                with contextlib.suppress(FileExistsError):
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                    with os.fdopen(os.open(path, flags, 0o600), "w") as file:
                        file.write(secrets.token_hex(32))
                        file.flush()
                        os.fsync(file.fileno())
            elif make and not path.is_file():
                path.write_bytes(secrets.token_hex(32).encode())
            return cls(path.read_bytes().strip())
        except OSError as error:
            raise RealDamageError(
                f"{path}: cannot use the {cls._called}: {error.strerror or error}", code="secret"
            ) from error

    def sign(self, purpose: str, value: str | bytes) -> str:
        """The keyed hash of a text or of bytes, 64 hex digits."""
        given = value.encode(errors="surrogatepass") if isinstance(value, str) else value
        return hmac.new(self._key, purpose.encode() + b"\0" + given, hashlib.sha256).hexdigest()

    def buyer(self, reference: str) -> str:
        """What is stored of a buyer's reference; "" for none."""
        return self.sign("buyer", reference.strip()) if reference.strip() else ""

    def device(self, hint: str) -> str:
        """What is stored of a hint at the buyer's device; "" for none."""
        return self.sign("device", hint.strip()) if hint.strip() else ""
