"""What an operator may choose, written once: options of the command and variables come from these fields."""

from __future__ import annotations

import ipaddress
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from realdamage.core.decode import MAX_PIXELS
from realdamage.errors import UsageError

PREFIX = "REALDAMAGE_"
MEBI = 1024 * 1024


def _say(metavar: str, text: str) -> dict[str, str]:
    return {"metavar": metavar, "help": text}


_AT_MOST = {
    **{"port": 65535, "max_pixels": MAX_PIXELS, "deadline": 86_400, "drain": 86_400},
    **dict.fromkeys(("retention_days", "review_days"), 36_500),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of one service; every field is an option of `realdamage serve` and a variable REALDAMAGE_…

    Raises UsageError when a value is out of range or two do not fit together.
    """

    model: Path | None = field(
        default=None, metadata=_say("FILE", "the .onnx file; default: the one in the package")
    )
    host: str = field(default="127.0.0.1", metadata=_say("ADDRESS", "address to listen on"))
    port: int = field(
        default=8000, metadata=_say("N", "port to listen on; 0 takes a free one and says which")
    )
    threads: int | None = field(
        default=None,
        metadata=_say("N", "threads of the network; default: the CPUs at hand, at most 4"),
    )
    allow_demo: bool = field(
        default=False, metadata=_say("", "let a demonstration model say synthetic")
    )
    api_keys: Path | None = field(
        default=None,
        metadata=_say("FILE", "keys that may call, a line each, as --hash-key prints them"),
    )
    api_key_hashes: str = field(
        default="", metadata=_say("LINES", "the same lines, separated by commas, instead of a file")
    )
    no_auth: bool = field(
        default=False,
        metadata=_say("", "listen on other addresses than this machine's own without any key"),
    )
    store: Path | None = field(
        default=None,
        metadata=_say("DIR", "folder for claims sent with keep=true; nothing is stored without it"),
    )
    retention_days: int = field(
        default=30, metadata=_say("N", "days after which a stored claim is removed")
    )
    review_days: int | None = field(
        default=None,
        metadata=_say(
            "N", "days after which a reviewer's decision is removed from the store; default: kept"
        ),
    )
    clock_confirmed: bool = field(
        default=False,
        metadata=_say(
            "", "for one start: the clock is right, so remove all that is past its days, at once"
        ),
    )
    claim_policy: Path | None = field(
        default=None,
        metadata=_say("FILE", "YAML with the rules for claims; default: the package's"),
    )
    trust_anchors: Path | None = field(
        default=None,
        metadata=_say(
            "FILE",
            "PEM of authorities whose signers of content credentials are trusted; default: nobody is",
        ),
    )
    shadow_model: Path | None = field(
        default=None,
        metadata=_say("FILE", "a second model, run beside on some photos; never answers"),
    )
    shadow_share: float = field(
        default=0.1,
        metadata=_say("SHARE", "share of photos that the second model looks at too, in 0..1"),
    )
    max_photos: int = field(
        default=32, metadata=_say("N", "photos (with listing photos) in a request")
    )
    max_photo_bytes: int = field(default=20 * MEBI, metadata=_say("N", "bytes of a photo"))
    max_body_bytes: int = field(default=64 * MEBI, metadata=_say("N", "bytes of a request"))
    max_pixels: int = field(
        default=50_000_000, metadata=_say("N", "pixels of a photo, from its header")
    )
    max_upload_bytes: int = field(
        default=256 * MEBI,
        metadata=_say("N", "bytes of all requests at hand together, for all lies in memory"),
    )
    max_queue: int = field(
        default=64, metadata=_say("N", "photos waiting or being judged; more are refused with 429")
    )
    workers: int = field(
        default=4, metadata=_say("N", "photos decoded side by side; each may need 10 bytes a pixel")
    )
    batch_tiles: int = field(
        default=64, metadata=_say("N", "tiles in a run of the network, from several photos")
    )
    deadline: float = field(
        default=30.0,
        metadata=_say("SECONDS", "from a request's first byte to its answer; then 504"),
    )
    drain: float = field(
        default=0.0,
        metadata=_say(
            "SECONDS", "at SIGTERM, go on listening that long with 503, for a load balancer to see"
        ),
    )

    def __post_init__(self) -> None:
        at_least = {
            **dict.fromkeys(
                (
                    "max_photos",
                    "max_photo_bytes",
                    "max_body_bytes",
                    "max_pixels",
                    "max_upload_bytes",
                ),
                1,
            ),
            **dict.fromkeys(
                ("retention_days", "review_days", "max_queue", "workers", "batch_tiles"), 1
            ),
            **{"deadline": 0.001, "drain": 0, "port": 0},
        }
        for name, least in at_least.items():
            if (value := getattr(self, name)) is not None and not value >= least:  # NaN too
                raise UsageError(f"{option_of(name)}={value} must be at least {least}")
        for name, most in _AT_MOST.items():
            if (value := getattr(self, name)) is not None and value > most:
                raise UsageError(f"{option_of(name)}={value} must be at most {most}")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"--threads={self.threads} must be at least 1")
        if not 0 <= self.shadow_share <= 1:
            raise UsageError(f"--shadow-share={self.shadow_share} must be in 0..1")
        if self.max_queue < self.max_photos:
            raise UsageError(
                f"--max-queue={self.max_queue} is below --max-photos={self.max_photos}, so a full request would always "
                "be refused; raise it, or lower --max-photos"
            )
        if self.max_upload_bytes < self.max_body_bytes:
            raise UsageError(
                f"--max-upload-bytes={self.max_upload_bytes} is below --max-body-bytes={self.max_body_bytes}, so "
                "a full request would always be refused; raise it, or lower --max-body-bytes"
            )
        if not (self.has_keys or self.no_auth or self.is_loopback):
            raise UsageError(
                f"--host {self.host} is reachable from other machines, and no key is configured, so anyone could send "
                "photos and read claims. Make a key (openssl rand -hex 32 | realdamage serve --hash-key) and give its "
                "line with --api-keys FILE; or say --no-auth where something in front checks who calls"
            )

    @property
    def has_keys(self) -> bool:
        """Whether callers must show a key."""
        return self.api_keys is not None or bool(self.api_key_hashes.strip())

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can call."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def read_settings(given: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Settings from options (None: not given) before variables REALDAMAGE_… before defaults.

    Raises UsageError on an unknown variable with our prefix, or on a value that is none; the message names it.
    """
    types = typing.get_type_hints(Settings)
    known = {f"{PREFIX}{item.name.upper()}": item.name for item in fields(Settings)}
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or _is_of_kubernetes(variable, text):
            continue
        if variable not in known:
            raise UsageError(f"{variable}: no such setting; known are {', '.join(sorted(known))}")
        values[known[variable]] = _from_text(text, types[known[variable]], variable)
    values.update({name: value for name, value in given.items() if value is not None})
    return Settings(**values)


def option_of(name: str) -> str:
    """A field as it is typed on the command line."""
    return "--" + name.replace("_", "-")


def plain_type(name: str) -> type:
    """The type of a field without None: str, int, float, bool or Path."""
    return _plain(typing.get_type_hints(Settings)[name])


def _plain(hint: Any) -> type:
    plain: type = next((kind for kind in typing.get_args(hint) if kind is not type(None)), hint)
    return plain


def _is_of_kubernetes(variable: str, text: str) -> bool:
    """It tells every container about a Service called realdamage in variables that look like ours."""
    return variable.startswith((f"{PREFIX}SERVICE_", f"{PREFIX}PORT_")) or (
        variable == f"{PREFIX}PORT" and text.startswith(("tcp://", "udp://"))
    )


def _from_text(text: str, hint: Any, variable: str) -> Any:
    kind = _plain(hint)
    if kind is bool:
        words = {
            "1": True,
            "true": True,
            "yes": True,
            "0": False,
            "false": False,
            "no": False,
            "": False,
        }
        if text.strip().lower() not in words:
            raise UsageError(f"{variable}={text!r}: write true or false")
        return words[text.strip().lower()]
    if not text and type(None) in typing.get_args(hint):
        return None
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{variable}={text!r}: expected a value of type {kind.__name__}") from None
