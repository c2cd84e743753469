"""Settings: each is an option of `realdamage serve` and a variable REALDAMAGE_…"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from realdamage.core.decode import MAX_PIXELS
from realdamage.errors import UsageError
from realdamage.files import is_url

PREFIX = "REALDAMAGE_"
_MEBI = 1024 * 1024
_DEFAULT_PORT = 8000


def _port(value: Any) -> Any:
    # Kubernetes sets REALDAMAGE_PORT=tcp://… where the namespace has a Service named realdamage.
    return _DEFAULT_PORT if str(value).startswith(("tcp://", "udp://")) else value


def _place(value: Any) -> Any:
    return Path(value) if isinstance(value, str) and not is_url(value) else value


Count = Annotated[int, Field(ge=1)]
Days = Annotated[int, Field(ge=1, le=36_500)]
Pixels = Annotated[int, Field(ge=1, le=MAX_PIXELS)]
Port = Annotated[int, Field(ge=0, le=65_535), BeforeValidator(_port)]
Place = Annotated[Path | str, BeforeValidator(_place)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
TENANT = "[a-z0-9][a-z0-9-]{0,31}"
Tenant = Annotated[str, Field(pattern=f"^{TENANT}$")]


class Settings(BaseSettings):
    """The settings of one service: what is given, then the environment, then the defaults."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    model: Path | None = None
    """the .onnx file; default: the one in the package"""
    host: str = "127.0.0.1"
    """address to listen on"""
    port: Port = _DEFAULT_PORT
    """port to listen on; 0 takes a free one and logs which"""
    threads: Count | None = None
    """threads of the network; default: the available CPUs, at most 4"""
    allow_demo: bool = False
    """let a demonstration model say synthetic"""
    api_keys: Path | None = None
    """file of API keys, one a line, as --hash-key prints them"""
    api_key_hashes: str = ""
    """the same lines, separated by commas, instead of a file"""
    tenants: Path | None = None
    """YAML file with quota, retention and rules of tenants; keys name theirs with tenant=NAME"""
    photos_per_day: Count | None = None
    """photos that the operator's keys, and tenants without a number of their own, may send a day"""
    no_auth: bool = False
    """listen on any address without a key"""
    store: Place | None = None
    """folder or s3://BUCKET/PREFIX for claims sent with keep=true; without it nothing is stored"""
    database: str = ""
    """postgresql+psycopg://USER@HOST/NAME for the store's tables; default: a file in the store"""
    secret: Path | None = None
    """file with your key for references and links; default: one made in the store"""
    keep_originals: bool = False
    """store the photos of kept claims too, with their metadata"""
    exchange_key: Path | None = None
    """file with the consortium's key, to find what other shops share"""
    webhooks: Path | None = None
    """file of targets, one a line: URL SECRET [EVENT,EVENT]"""
    seals: Path | None = None
    """log of `realdamage seal`, to find packing videos sealed earlier"""
    retention_days: Days = 30
    """days without a change after which a stored claim is removed"""
    review_days: Days | None = None
    """days after which a reviewer's decision is removed; default: never"""
    clock_confirmed: bool = False
    """for one start: the clock is right, so remove all expired claims immediately"""
    claim_policy: Path | None = None
    """YAML file with the rules for claims; default: the package's"""
    trust_anchors: Path | None = None
    """PEM file of certificate authorities whose signers are trusted; default: none"""
    traces: str = ""
    """OTLP/HTTP collector that gets a trace of each request: http://HOST:4318/v1/traces"""
    max_photos: Count = 32
    """photos in a request, listing photos included"""
    max_photo_bytes: Count = 20 * _MEBI
    """bytes of a photo"""
    max_video_bytes: Count = 50 * _MEBI
    """bytes of a video in a statement"""
    max_body_bytes: Count = 64 * _MEBI
    """bytes of a request"""
    max_batch_bytes: Count = 200 * _MEBI
    """bytes of a batch of claims, as it is sent and unpacked"""
    max_batch_photos: Count = 500
    """files in a batch of claims"""
    max_pixels: Pixels = 50_000_000
    """pixels of a photo, read from its header"""
    max_upload_bytes: Count = 256 * _MEBI
    """bytes of all current requests together; they are kept in memory"""
    max_queue: Count = 64
    """photos that wait or are being judged; more are refused with 429"""
    workers: Count = 4
    """photos decoded at the same time; each may need 10 bytes a pixel"""
    deadline: Annotated[Seconds, Field(gt=0)] = 30.0
    """seconds from a request's first byte to its answer; then 504"""
    job_deadline: Annotated[Seconds, Field(gt=0)] = 600.0
    """seconds for a claim sent with later=true"""

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        for most, full in (("max_queue", "max_photos"), ("max_upload_bytes", "max_body_bytes")):
            if getattr(self, most) < getattr(self, full):
                raise ValueError(
                    f"{option_of(most)}={getattr(self, most)} is below {option_of(full)}="
                    f"{getattr(self, full)}, so a full request would always be refused"
                )
        if not (self.has_keys or self.no_auth or self.is_loopback):
            raise ValueError(
                f"--host {self.host} is reachable from other machines, but no API key is set, so "
                "anyone could send photos and read claims. Make a key (openssl rand -hex 32 | "
                "realdamage serve --hash-key shop) and pass its line with --api-keys FILE. Use "
                "--no-auth only behind something that checks who calls"
            )
        if self.database and self.store is None:
            raise ValueError("--database holds the tables of a store; name its folder with --store")
        return self

    @property
    def has_keys(self) -> bool:
        """Whether callers need a key."""
        return self.api_keys is not None or bool(self.api_key_hashes.strip())

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can call."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def is_local(self) -> bool:
        """Whether whoever sits at this machine calls, without a key."""
        return self.is_loopback and not self.has_keys and not self.no_auth


class TenantSettings(BaseModel):
    """What differs for a tenant from the operator's settings of the same names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    photos_per_day: Count | None = None
    retention_days: Days | None = None
    review_days: Days | None = None
    claim_policy: Path | None = None
    webhooks: Path | None = None

    def over(self, settings: Settings) -> Settings:
        """The tenant's settings. The operator's webhooks and consortium are not the tenant's."""
        given = self.model_dump(exclude_none=True)
        return settings.model_copy(update={"webhooks": None, "exchange_key": None, **given})


def read_lines(path: Path, what: str, code: str) -> list[str]:
    """The lines of a file of `what`. Raises UsageError with this code."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot read the {what}: {why}", code=code) from error


def read_tenants(path: Path) -> dict[str, TenantSettings]:
    """The tenants of a YAML file: for each name its values. Raises UsageError."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TypeAdapter(dict[Tenant, TenantSettings]).validate_python(values or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot read the tenants: {error}", code="tenants") from error
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UsageError(f"{path}: {'; '.join(faults)}", code="tenants") from error


def read_settings(given: Mapping[str, Any]) -> Settings:
    """`Settings` from options; None: not given. Raises UsageError on a wrong value or an unknown
    variable REALDAMAGE_…"""
    known = sorted(f"{PREFIX}{name.upper()}" for name in Settings.model_fields)
    of_kubernetes = (f"{PREFIX}SERVICE_", f"{PREFIX}PORT_")
    for name in os.environ:
        if name.startswith(PREFIX) and name not in known and not name.startswith(of_kubernetes):
            raise UsageError(f"{name}: no such setting; there are {', '.join(known)}")
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise UsageError("; ".join(map(_sentence, error.errors()))) from error


def option_of(name: str) -> str:
    """The command-line option of a field."""
    return "--" + name.replace("_", "-")


def _sentence(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    return f"{option_of(name)} ({PREFIX}{name.upper()}): {message}, found {error['input']!r}"
