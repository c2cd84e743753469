"""Puts the service together: `create_app(settings)` is the ASGI application, of which a process may have several."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import shutil
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from realdamage import __version__
from realdamage.claims import ClaimPolicy
from realdamage.errors import RealDamageError
from realdamage.provenance import TrustAnchors
from realdamage.service import claims, operation, pages, photos, reviews
from realdamage.service.fields import invalid
from realdamage.service.front import Front
from realdamage.service.keys import KeyRing
from realdamage.service.logs import tell
from realdamage.service.metrics import Metrics
from realdamage.service.models import ModelSlot, load_model
from realdamage.service.refusals import Refusal
from realdamage.service.retention import purge
from realdamage.service.review_store import ReviewStore
from realdamage.service.settings import Settings
from realdamage.service.shadow import Shadow
from realdamage.service.state import Service
from realdamage.service.storage import ClaimStore
from realdamage.service.uploads import UploadBudget
from realdamage.service.workload import Workload

_PURGE_EVERY_S = 3600
_CODES = {404: "not_found", 405: "method_not_allowed"}


def create_app(settings: Settings) -> FastAPI:
    """The application; `app.state.service` is what its routes share. The model is loaded when it starts.

    Raises UsageError on keys or trust anchors that cannot be read, ModelFileError when the model or the shadow model
    cannot be used.
    """
    store = ClaimStore(settings.store, settings.retention_days) if settings.store else None
    metrics = Metrics()
    service = Service(
        settings=settings,
        keys=KeyRing.read(settings),
        metrics=metrics,
        models=ModelSlot(settings, metrics),
        workload=Workload(settings.workers, settings.max_queue, metrics.queue.set),
        uploads=UploadBudget(settings.max_upload_bytes, metrics.uploads.set),
        reviews=ReviewStore(settings.store / "reviews.sqlite" if settings.store else None),
        store=store,
        trust_anchors=TrustAnchors.read(settings.trust_anchors) if settings.trust_anchors else None,
    )

    if store is not None:
        metrics.watch_store(lambda: shutil.disk_usage(store.folder).free)
    policy = (
        ClaimPolicy.from_yaml(settings.claim_policy)
        if settings.claim_policy
        else ClaimPolicy.default()
    )

    def was_judged(sha256: str) -> bool:
        return sha256 in service.judged or (store is not None and store.index.has_photo(sha256))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if not service.models.is_loaded:
            await asyncio.to_thread(service.models.load)
        await asyncio.to_thread(_import_all)
        model = service.models.get()
        await asyncio.to_thread(load_shadow, service)
        if anchors := service.trust_anchors:
            tell(
                "trust anchors",
                authorities=anchors.authorities,
                passed_over=anchors.passed_over,
                sha256=anchors.sha256,
            )
        tell("ready", model_version=model.metadata.model_version, graph_sha256=model.graph_sha256)
        purging = asyncio.create_task(_purge(store, service)) if store else None
        yield
        service.draining = True
        if purging is not None:
            purging.cancel()
        await asyncio.to_thread(_close, service)
        if store is not None:
            store.close()

    app = FastAPI(
        title="realdamage",
        version=__version__,
        description="Tells photographs of real damage from AI-synthesized damage. Scores are evidence, not proof.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    app.include_router(photos.router(service))
    app.include_router(claims.router(service, policy, store))
    app.include_router(reviews.router(service.reviews, was_judged))
    app.include_router(operation.router(service))
    app.include_router(pages.router(app))
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(RealDamageError, _refuse)
    app.add_middleware(Front, service=service)
    return app


def load_shadow(service: Service) -> None:
    """The second model, where the settings name one and it is not there yet. Raises ModelFileError."""
    settings = service.settings
    if settings.shadow_model is not None and service.shadow is None:
        model = load_model(settings.shadow_model, settings)
        service.shadow = Shadow(model, settings.shadow_share, settings.max_pixels, service.metrics)


def _import_all() -> None:
    """What claims import when first judged takes a while; no request should wait for it."""
    for name in ("realdamage.photo_pairs", "realdamage.claims", "cv2", "c2pa", "imagehash"):
        importlib.import_module(name)


async def _purge(store: ClaimStore, service: Service) -> None:
    days = service.settings.review_days
    confirmed = service.settings.clock_confirmed
    while True:
        try:
            gone = await asyncio.to_thread(purge, store, clock_confirmed=confirmed)
            confirmed = (
                False  # the operator has looked at the clock once, not at what it does later
            )
            forgotten = 0
            if days is not None and not gone.clock_in_doubt:
                forgotten = await asyncio.to_thread(service.reviews.purge, days)
            tell("purged", claims=len(gone.claims), waiting=gone.waiting, reviews=forgotten)
            for problem in gone.problems:
                tell("purge failed", logging.ERROR, reason=problem)
        except Exception as error:  # an error that ended this task would end the retention, unseen
            tell("purge failed", logging.ERROR, error=type(error).__name__, reason=str(error))
        await asyncio.sleep(_PURGE_EVERY_S)


def _close(service: Service) -> None:
    service.workload.close()
    if service.shadow is not None:
        service.shadow.close()
    service.models.close()
    service.reviews.close()


async def _refuse(request: Request, error: Exception) -> Response:
    request_id = request.scope["state"]["request_id"]
    if isinstance(error, Refusal):
        refusal = error
    elif isinstance(error, HTTPException):
        message = f"{error.detail}: {request.method} {request.url.path[:80]}; the interface is described at /docs"
        refusal = Refusal(
            error.status_code, _CODES.get(error.status_code, "refused"), message, error.headers
        )
    elif isinstance(error, RequestValidationError):
        refusal = invalid(error.errors(), request.scope.get("route"))
    else:  # a model that fails on real tiles, a store that cannot be written
        # Its words name files of this machine: for the log, not for whoever calls.
        tell(
            "not answered",
            logging.ERROR,
            request_id=request_id,
            error=type(error).__name__,
            reason=str(error),
        )
        message = "the service cannot answer now; its log has the details under this request_id"
        refusal = Refusal(503, "unavailable", message, {"Retry-After": "30"})
    headers = {**(refusal.headers or {}), "content-type": "application/json"}
    return Response(refusal.to_json(request_id), refusal.status_code, headers)
