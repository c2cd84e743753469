"""What every request passes first and every answer last: keys, draining, security headers, figures, the log."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
import traceback
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from realdamage.service.logs import tell
from realdamage.service.refusals import Refusal, too_large, too_slow
from realdamage.service.state import Service

OPEN_ROUTES = ("/", "/docs", "/openapi.json", "/healthz", "/readyz", "/favicon.ico")
"""No key needed: they show nothing but the software itself. All below /page/ too."""

UPLOADS = ("/v1/photos", "/v1/claims")
"""Routes whose bodies may be as large as the settings say."""

_WHILE_DRAINING = ("/healthz", "/readyz", "/metrics")
_MAX_HEADER_BYTES = 16 * 1024
_MAX_JSON_BYTES = 64 * 1024
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?")
_LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}
_SECURITY = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Front:
    """An ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        given_id = headers.get("x-request-id", "")
        request_id = given_id if _SAFE_ID.fullmatch(given_id) else secrets.token_hex(8)
        answer = _Answer(send, request_id)
        state = scope.setdefault("state", {})
        state.update(started=time.monotonic(), request_id=request_id, photos=0, bytes=0, caller="")
        self._service.active += 1
        gone = False
        try:
            self._check(scope, headers)
            body = _Body(
                receive, state, self._limit(scope["path"]), self._service.settings.deadline
            )
            body.check_promise(headers.get("content-length", ""))
            await self._app(scope, body, answer)
        except Refusal as refusal:
            await answer.refuse(refusal)
        except ClientDisconnect:
            gone = True
        except Exception as error:
            # The frames only: a message may hold the name of a photo.
            frames = "".join(traceback.format_tb(error.__traceback__))
            tell(
                "error",
                logging.ERROR,
                request_id=request_id,
                error=type(error).__name__,
                trace=frames,
            )
            await answer.refuse(
                Refusal(
                    500,
                    "internal",
                    "the service failed; its log has the details under this request_id",
                )
            )
        finally:
            self._service.active -= 1
            self._record(scope, 499 if gone else answer.status)

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        service, path = self._service, scope["path"]
        if service.draining and path not in _WHILE_DRAINING:
            raise Refusal(
                503,
                "stopping",
                "the service is stopping and takes no new requests",
                {"Retry-After": "5", "Connection": "close"},
            )
        if (
            found := sum(len(name) + len(value) for name, value in scope["headers"])
        ) > _MAX_HEADER_BYTES:
            raise Refusal(
                431,
                "headers_too_large",
                f"the headers have {found} bytes, at most {_MAX_HEADER_BYTES} are read",
            )
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy that believes the other one sees another end of the body: what follows would be a second request.
            raise Refusal(
                400,
                "malformed",
                "the request has both Content-Length and Transfer-Encoding; send one of them",
                {"Connection": "close"},
            )
        self._check_origin(scope["method"], headers)
        if not service.keys.keys or path in OPEN_ROUTES or path.startswith("/page/"):
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        if not key:
            raise Refusal(
                401,
                "no_key",
                "a key is needed: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
                _CHALLENGE,
            )
        entry = service.keys.find(key)
        if entry is None:
            raise Refusal(
                401,
                "wrong_key",
                "this key is not known here; ask who runs the service for one",
                _CHALLENGE,
            )
        scope["state"].update(caller=entry.name, is_admin=entry.admin)

    def _limit(self, path: str) -> int:
        return self._service.settings.max_body_bytes if path in UPLOADS else _MAX_JSON_BYTES

    def _check_origin(self, method: str, headers: dict[str, str]) -> None:
        """A page of somebody else, open in a browser on this machine, must not call a service without keys."""
        settings, host = self._service.settings, headers.get("host", "")
        found = _HOST.fullmatch(host)
        name = found[1].strip("[]").lower() if found else ""
        if (
            settings.is_loopback
            and not self._service.keys.keys
            and not settings.no_auth
            and name not in _LOCAL_NAMES
        ):
            raise Refusal(
                403,
                "wrong_host",
                f"the Host header says {host[:80]!r}, but without keys only localhost is answered; configure a key, or "
                "say --no-auth where something in front checks who calls",
            )
        origin = headers.get("origin")
        if (
            origin
            and method not in ("GET", "HEAD", "OPTIONS")
            and origin.partition("://")[2] != host
        ):
            raise Refusal(
                403,
                "other_origin",
                f"a page of {origin[:80]!r} may not send here; call from a server instead",
            )

    def _record(self, scope: Scope, status: int) -> None:
        state, route = scope["state"], scope.get("route")
        path = (
            getattr(route, "path", None) or "unmatched"
        )  # the template: no id of a claim, no endless labels
        seconds = time.monotonic() - state["started"]
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._service.metrics.requests.labels(path, method, str(status)).inc()
        self._service.metrics.seconds.labels(path).observe(seconds)
        values = {name: state[name] for name in ("request_id", "photos", "bytes", "caller")}
        tell(
            "request",
            route=path,
            method=method,
            status=status,
            ms=round(1000 * seconds, 1),
            **values,
        )


_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class _Body:
    """A request's body as it comes: counted, and only waited for until the deadline."""

    def __init__(self, receive: Receive, state: dict[str, Any], limit: int, seconds: float) -> None:
        self._receive, self._state, self._limit, self._seconds = receive, state, limit, seconds
        self._complete = False

    def check_promise(self, content_length: str) -> None:
        """Refuse early what says that it is too large; the bytes are counted all the same."""
        if (
            content_length.isascii()
            and content_length.isdigit()
            and int(content_length[:20]) > self._limit
        ):
            raise too_large(self._limit)

    async def __call__(self) -> Message:
        if self._complete:  # whoever asks now waits for the caller to go away
            return await self._receive()
        try:
            async with asyncio.timeout(
                max(0.0, self._state["started"] + self._seconds - time.monotonic())
            ):
                message = await self._receive()
        except TimeoutError:
            raise too_slow(self._seconds) from None
        if message["type"] == "http.request":
            self._state["bytes"] += len(message.get("body", b""))
            if self._state["bytes"] > self._limit:
                raise too_large(self._limit)
            self._complete = not message.get("more_body", False)
        return message


class _Answer:
    """Passes an answer on with our headers, and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id = send, request_id
        self.status, self._started = 500, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self._started = message["status"], True
            present = {name.lower() for name, _ in message["headers"]}
            ours = {**_SECURITY, "x-request-id": self._request_id}
            added = [(n.encode(), v.encode()) for n, v in ours.items() if n.encode() not in present]
            message = {**message, "headers": [*message["headers"], *added]}
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Send the refusal, unless an answer is under way."""
        if self._started:
            return
        body = refusal.to_json(self._request_id)
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **(refusal.headers or {}),
        }
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self(
            {"type": "http.response.start", "status": refusal.status_code, "headers": encoded}
        )
        await self({"type": "http.response.body", "body": body})
