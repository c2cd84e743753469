"""Puts the service together: `create_app(settings)` is the ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import re
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from realdamage import __version__
from realdamage.core.spans import span, trace_with
from realdamage.errors import MissingExtraError, RealDamageError
from realdamage.service.auth import check_origin, is_open
from realdamage.service.case_routes import router as case_router
from realdamage.service.inference_routes import router as inference_router
from realdamage.service.limits import BoundedBody
from realdamage.service.metrics import log_event
from realdamage.service.reviews import ReviewRequest
from realdamage.service.routes import Service, router, store_of
from realdamage.service.schemas import Refusal, not_valid
from realdamage.service.settings import Settings
from realdamage.service.store import purge

_PURGE_EVERY_S = 3600
_SETTLE_EVERY_S = 5
_UPLOADS = ("/v1/photos", "/v1/claims", "/v1/batches")
_UPLOADS_BELOW = ("/v1/statements/", "/v2/models/")
_LONG_UPLOADS = ("/v1/batches", "/v1/statements/")  # a video from a phone takes minutes
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_MAX_HEADER_BYTES = 16 * 1024
_MAX_JSON_BYTES = 64 * 1024
_CLOSE = ("malformed",)  # nothing more is read from this connection
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CODES = {404: "not_found", 405: "method_not_allowed"}
_SECURITY = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def create_app(settings: Settings) -> FastAPI:
    """The application; its routes share `app.state.service`. The model is loaded when it starts.

    Raises UsageError on settings that cannot be used and, at the start, ModelFileError.
    """
    service = Service(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop_traces = start_traces(settings.traces) if settings.traces else None
        await asyncio.to_thread(service.load)
        await asyncio.to_thread(_import_all)
        model = service.loaded_model()
        version = model.metadata.model_version
        log_event("ready", model_version=version, graph_sha256=model.graph_sha256)
        chores = [] if service.store is None else [purge_regularly, settle_regularly]
        tasks = [asyncio.create_task(chore(service)) for chore in chores]
        for one in service.each():
            one.webhooks.start()
        yield
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(service.close)
        if stop_traces is not None:
            await asyncio.to_thread(stop_traces)

    app = FastAPI(
        title="realdamage",
        version=__version__,
        description="Distinguishes real damage from AI-made damage. Scores are not proof.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    for routes in (case_router, inference_router, router):
        app.include_router(routes)
    for kind in (HTTPException, RequestValidationError, RealDamageError):
        app.add_exception_handler(kind, _refuse)
    app.add_middleware(Front, service=service)
    return app


def start_traces(url: str, exporter: Any = None) -> Callable[[], None]:
    """Trace from now on; returns what ends it. url: of the collector (OTLP over HTTP). exporter:
    takes the spans instead. Raises MissingExtraError without the extra "otel"."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise MissingExtraError("--traces", "otel", error.name) from error

    about = {"service.name": "realdamage", "service.version": __version__}
    provider = TracerProvider(resource=Resource.create(about))
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(url)))
    trace_with(provider.get_tracer("realdamage", __version__))

    def stop() -> None:
        trace_with(None)
        provider.shutdown()

    return stop


def _import_all() -> None:
    """What claims import when first judged takes a while; no request should wait for it."""
    for name in ("realdamage.photo_pairs", "realdamage.claims", "cv2", "c2pa", "imagehash"):
        importlib.import_module(name)
    marks = importlib.import_module("realdamage.claims.marks")
    if marks.has_ocr():
        marks.load_recogniser()


async def purge_regularly(service: Service) -> None:
    """Remove what has expired, every hour. No error ends this: the retention would stop unseen."""
    confirmed = service.settings.clock_confirmed
    while True:
        for one in service.each():
            with _logged("purge failed"):
                await _purge_once(one, confirmed)
        confirmed = False  # the operator has looked at the clock now, not for later
        await asyncio.sleep(_PURGE_EVERY_S)


async def _purge_once(service: Service, confirmed: bool) -> None:
    days, forgotten = service.settings.review_days, 0
    gone = await asyncio.to_thread(purge, store_of(service), clock_confirmed=confirmed)
    if days is not None and not gone.clock_in_doubt:
        forgotten = await asyncio.to_thread(service.reviews.purge, days)
    await asyncio.to_thread(service.webhooks.purge)
    log_event("purged", claims=len(gone.claims), reviews=forgotten)
    for problem in gone.problems:
        log_event("purge failed", logging.ERROR, reason=problem)


async def settle_regularly(service: Service) -> None:
    """Make decisions final, report deadlines, and take over the jobs of processes that died."""
    while True:
        for one in service.each():
            with _logged("not settled"):
                await asyncio.to_thread(one.settle)
                await one.jobs.resume()
        await asyncio.sleep(_SETTLE_EVERY_S)


@contextlib.contextmanager
def _logged(event: str) -> Iterator[None]:
    """An error is logged and stops no other tenant."""
    try:
        yield
    except Exception as error:
        log_event(event, logging.ERROR, error=type(error).__name__, reason=str(error))


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, Refusal):
        refusal = error
    elif isinstance(error, HTTPException):
        message = f"{error.detail}: {request.method} {request.url.path[:80]}; see /docs."
        code = _CODES.get(error.status_code, "refused")
        refusal = Refusal(error.status_code, code, message)
        refusal.headers = error.headers
    elif isinstance(error, RequestValidationError):
        refusal = not_valid(error.errors(), ReviewRequest.model_fields)
    else:  # a model that fails on real tiles, a store that cannot be written
        # The message names files of this machine: for the log, not for the caller.
        _log_error("not answered", request.scope, error, reason=str(error))
        message = "The service cannot answer now; its log has the details under this request_id."
        refusal = Refusal(503, "unavailable", message, retry_after=30)
    return refusal.response(request.state.request_id, request.url.path)


def _log_error(event: str, scope: Scope, error: Exception, **fields: str) -> None:
    about = {"request_id": scope["state"]["request_id"], "error": type(error).__name__}
    log_event(event, logging.ERROR, **about, **fields)


class Front:
    """Around the whole app: request ids, keys, limits, security headers, figures, the log."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with span("request", Headers(scope=scope)) as traced:
            status = await self._answer(scope, receive, send)
            if traced is not None:
                traced.update_name(f"{scope['method']} {_route(scope)}")
                traced.set_attribute("http.response.status_code", status)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Answer a request; returns the status."""
        headers, settings, started = Headers(scope=scope), self._service.settings, time.monotonic()
        is_upload = scope["path"] in _UPLOADS or scope["path"].startswith(_UPLOADS_BELOW)
        is_long = scope["path"].startswith(_LONG_UPLOADS)
        deadline = started + (settings.job_deadline if is_long else settings.deadline)
        given_id = headers.get("x-request-id", "")
        request_id = given_id if _SAFE_ID.fullmatch(given_id) else secrets.token_hex(8)
        about = {"caller": "", "roles": frozenset(), "tenant": "", "photos": 0}
        scope.setdefault("state", {}).update(request_id=request_id, deadline=deadline, **about)
        limit = settings.max_body_bytes if is_upload else _MAX_JSON_BYTES
        if scope["path"] == "/v1/batches":
            limit = min(settings.max_batch_bytes + _MAX_JSON_BYTES, settings.max_upload_bytes)
        body = BoundedBody(receive, limit, deadline, self._service.uploads if is_upload else None)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = MutableHeaders(scope=message)
                for name, value in _SECURITY.items():
                    sent.setdefault(name, value)
                sent["x-request-id"] = request_id
            await send(message)

        async def refuse(refusal: Refusal) -> None:
            if refusal.code in _CLOSE:
                refusal.headers = {**(refusal.headers or {}), "Connection": "close"}
            if not status:  # otherwise an answer is under way
                await refusal.response(request_id, scope["path"])(scope, receive, answer)

        try:
            self._check(scope, headers)
            body.check_length(headers.get("content-length", ""))
            await self._app(scope, body, answer)
        except Refusal as refusal:
            await refuse(refusal)
        except ClientDisconnect:
            status = 499
        except Exception as error:
            # The frames only: a message may hold the name of a photo.
            trace = "".join(traceback.format_tb(error.__traceback__))
            _log_error("error", scope, error, trace=trace)
            message = "The service failed; its log has the details under this request_id."
            await refuse(Refusal(500, "internal", message))
        finally:
            body.close()
            self._record(scope, status, body.bytes, time.monotonic() - started)
        return status

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raises Refusal."""
        service, path = self._service, scope["path"]
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size > _MAX_HEADER_BYTES:
            message = f"The headers have {size} bytes, at most {_MAX_HEADER_BYTES} are read."
            raise Refusal(431, "headers_too_large", message)
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy that believes the other one would see a second request after the body.
            message = "The request has both Content-Length and Transfer-Encoding; send one of them."
            raise Refusal(400, "malformed", message)
        if "\0" in path:  # no database keeps it, so nothing has such a name
            raise Refusal(404, "not_found", "The path has a null character.")
        if b"%00" in scope.get("query_string", b""):
            raise Refusal(422, "invalid_field", "The query has a null character; remove it.")
        check_origin(scope["method"], headers, service.settings)
        if service.keys.keys and not is_open(path):
            entry = service.keys.check(headers)
            state = scope["state"]
            state.update(caller=entry.name, roles=entry.roles, tenant=entry.tenant)

    def _record(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        metrics, state = self._service.metrics, scope["state"]
        route = _route(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        metrics.requests.labels(route, method, str(status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        fields: Any = {name: state[name] for name in ("request_id", "photos", "caller")}
        fields |= {"route": route, "method": method, "status": status, "bytes": size}
        log_event("request", **fields, ms=round(1000 * seconds, 1))


def _route(scope: Scope) -> str:
    """The template of the path: no claim's id, no link's token, and no endless labels."""
    return str(getattr(scope.get("route"), "path", "unmatched"))
