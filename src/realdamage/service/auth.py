"""Who may call: API keys, kept as SHA-256 digests only, and pages of which origin."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

from starlette.datastructures import Headers

from realdamage.errors import UsageError
from realdamage.service.schemas import Refusal
from realdamage.service.settings import TENANT, Settings, read_lines

SHORTEST_KEY = 24
"""Characters. A digest without salt is safe only for keys that nobody can guess."""

OPEN_ROUTES = ("/", "/docs", "/openapi.json", "/healthz", "/readyz")
"""Need no key, because they show only the software itself. So does everything below /page/, /s/ and
/v2/health/; below /v1/statements/ the signed link is the key."""
_OPEN_BELOW = ("/page/", "/s/", "/v2/health/", "/v1/statements/")

LOCAL = "local"
"""Who decides claims where only this machine can call and no keys are set."""

_NAME = re.compile(r"[\w.-]{1,64}")
_FORM = (
    "NAME SHA256 [admin] [reviewer] [tenant=NAME]; `realdamage serve --hash-key` prints NAME SHA256"
)
_HOST = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?")
_LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class ApiKey:
    """name: for the log. digest: SHA-256 of the key, hex. roles: admin, reviewer. tenant: whose
    claims it sees; "" for the operator's own."""

    name: str
    digest: str
    roles: frozenset[str]
    tenant: str = ""


class KeyRing:
    """The keys of a service. Raises UsageError with the file and line of a wrong key."""

    def __init__(self, settings: Settings) -> None:
        lines = re.split(r"[,\n]", settings.api_key_hashes)
        places = [("REALDAMAGE_API_KEY_HASHES", line) for line in lines]
        if (path := settings.api_keys) is not None:
            lines = read_lines(path, "keys", "unreadable_keys")
            places += [(f"{path}:{number}", line) for number, line in enumerate(lines, 1)]
        given = [(where, line.partition("#")[0]) for where, line in places]
        self.keys = [_parse(where, line) for where, line in given if line.strip()]
        if settings.has_keys and not self.keys:
            source = settings.api_keys or "REALDAMAGE_API_KEY_HASHES"
            raise UsageError(f"{source}: holds no key; expected lines {_FORM}", code="no_keys")

    def check(self, headers: Headers) -> ApiKey:
        """The entry of the key in a request's headers. Raises Refusal 401."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else ""
        key = headers.get("x-api-key") or bearer
        if not key:
            ways = "`Authorization: Bearer KEY` or `X-API-Key: KEY`"
            raise Refusal(401, "no_key", f"A key is needed. Send it as {ways}.")
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        # All are compared: the time does not depend on how much of one is right.
        found = [entry for entry in self.keys if hmac.compare_digest(entry.digest, digest)]
        if not found:
            raise Refusal(401, "wrong_key", "Unknown API key. Ask the operator for one.")
        return found[0]


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in OPEN_ROUTES or path.startswith(_OPEN_BELOW)


def check_origin(method: str, headers: Headers, settings: Settings) -> None:
    """Keep a foreign page in a browser here from calling without keys. Raises Refusal 403."""
    host, origin = headers.get("host", ""), headers.get("origin")
    found = _HOST.fullmatch(host)
    name = found[1].strip("[]").lower() if found else ""
    if settings.is_local and name not in _LOCAL_NAMES:
        message = f"Host is {host[:80]!r}; without a key or --no-auth only localhost is answered."
        raise Refusal(403, "wrong_host", message)
    reads = method in ("GET", "HEAD", "OPTIONS")
    if origin and not reads and origin.partition("://")[2] != host:
        message = f"Pages of {origin[:80]!r} cannot send requests here. Call from a server."
        raise Refusal(403, "other_origin", message)


def hash_key(key: str, name: str) -> str:
    """The line to store for a key. Raises UsageError on a short key or an unusable name."""
    key = key.strip()
    if not _NAME.fullmatch(name):
        allowed = "1 to 64 letters, digits, dots, dashes or underscores"
        raise UsageError(f"{name[:80]!r} cannot name a key; use {allowed}", code="key_name")
    if len(key) < SHORTEST_KEY:
        raise UsageError(
            f"The key has {len(key)} characters and needs at least {SHORTEST_KEY}. Make one with: "
            "openssl rand -hex 32",
            code="short_key",
        )
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()}"


def _parse(where: str, line: str) -> ApiKey:
    name, digest, *words = (*line.split(), "", "")
    tenants = [word.removeprefix("tenant=") for word in words if word.startswith("tenant=")]
    found = frozenset(word for word in words if word and not word.startswith("tenant="))
    is_tenant = all(re.fullmatch(TENANT, one) for one in tenants) and len(tenants) < 2
    is_key = is_tenant and _NAME.fullmatch(name) and re.fullmatch(r"[0-9a-f]{64}", digest)
    if not is_key or found - {"admin", "reviewer"}:
        # The message leaves the line out: somebody may have put the key itself there.
        raise UsageError(f"{where}: not a key; expected {_FORM}", code="not_a_key")
    return ApiKey(name, digest, found, *tenants)
