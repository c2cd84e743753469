"""Who may call: API keys, of which the service knows SHA-256 digests only."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from realdamage.errors import UsageError
from realdamage.service.logs import tell
from realdamage.service.settings import Settings

SHORTEST_KEY = 24
"""Characters. A digest without salt is safe only for keys that nobody can guess."""

_NAME = re.compile(r"[\w.-]{1,64}")
_FORM = "NAME SHA256 or NAME SHA256 admin, as `realdamage serve --hash-key` prints it"


@dataclass(frozen=True)
class ApiKey:
    """name: for the log. digest: SHA-256 of the key, hex. admin: may load a model anew."""

    name: str
    digest: str
    admin: bool


class KeyRing:
    """The keys of a service. No key at all: everyone may call, nobody is an admin."""

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self.keys = keys

    @classmethod
    def read(cls, settings: Settings) -> KeyRing:
        """From the file and the variable of the settings. Raises UsageError naming file and line."""
        lines: list[tuple[str, str]] = []
        if settings.api_keys is not None:
            lines += [
                (f"{settings.api_keys}:{n}", line)
                for n, line in enumerate(_lines(settings.api_keys), 1)
            ]
        lines += [
            ("REALDAMAGE_API_KEY_HASHES", line)
            for line in re.split(r"[,\n]", settings.api_key_hashes)
        ]
        keys = tuple(_key(where, line) for where, line in lines if line.partition("#")[0].strip())
        if settings.has_keys and not keys:
            raise UsageError(
                f"{settings.api_keys or 'REALDAMAGE_API_KEY_HASHES'}: no key in it; expected lines {_FORM}"
            )
        return cls(keys)

    def find(self, key: str) -> ApiKey | None:
        """The entry of a key, compared in a time that does not tell how much of it was right."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for entry in self.keys:
            if hmac.compare_digest(entry.digest, digest):
                found = entry
        return found


def hash_key(key: str, name: str) -> str:
    """The line to store for a key. name: one word, for the log. Raises UsageError when it is none, or when the key is
    short enough to be guessed."""
    key = key.strip()
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"the name {name[:80]!r} of a key: 1 to 64 letters, digits, dots, dashes or underscores"
        )
    if len(key) < SHORTEST_KEY:
        raise UsageError(
            f"the key has {len(key)} characters, at least {SHORTEST_KEY} are needed; make one: openssl rand -hex 32"
        )
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()}"


def _lines(path: Path) -> list[str]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if os.name == "posix" and mode & stat.S_IROTH:
            tell(
                "every user can read the keys",
                logging.WARNING,
                file=path,
                mode=f"{mode:o}",
                fix=f"chmod o= {path}",
            )
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: the keys cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error


def _key(where: str, line: str) -> ApiKey:
    words = line.partition("#")[0].split()
    if (
        len(words) not in (2, 3)
        or not _NAME.fullmatch(words[0])
        or not re.fullmatch(r"[0-9a-f]{64}", words[1])
        or words[2:] not in ([], ["admin"])
    ):
        # The line itself stays out of the message: somebody may have put the key there.
        raise UsageError(f"{where}: not a key; expected {_FORM}")
    return ApiKey(words[0], words[1], bool(words[2:]))
