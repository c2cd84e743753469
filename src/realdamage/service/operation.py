"""What operators call: is it alive, is it ready, what did it count, which model answers, load it anew."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from realdamage.errors import RealDamageError
from realdamage.service import describe
from realdamage.service.keys import KeyRing
from realdamage.service.logs import tell
from realdamage.service.refusals import Refusal
from realdamage.service.state import Service


def router(service: Service) -> APIRouter:
    """The routes, bound to a service."""
    routes = APIRouter(tags=["operation"])

    # Load balancers ask with HEAD, and the server sends no body then; to the interface's description it adds nothing.
    @routes.head("/healthz", include_in_schema=False)
    @routes.get("/healthz", responses=describe.answers(describe.STATUS))
    async def health() -> dict[str, str]:
        """The process runs."""
        return {"status": "ok"}

    @routes.head("/readyz", include_in_schema=False)
    @routes.get("/readyz", responses=describe.answers(describe.STATUS, 503))
    async def ready() -> dict[str, str]:
        """A model is loaded and works, new requests are taken and get a worker, and claims can be kept where there is a
        store; 503 otherwise."""
        if service.draining:
            raise Refusal(
                503,
                "stopping",
                "the service is stopping and takes no new requests",
                {"Retry-After": "5"},
            )
        if not service.models.is_loaded:
            raise Refusal(503, "loading", "the model is still being loaded", {"Retry-After": "1"})
        if service.workload.is_stuck:
            raise Refusal(
                503,
                "workers_stuck",
                "every worker is still busy with a photo long after its deadline; restart the service",
                {"Retry-After": "30"},
            )
        model = service.models.get()
        if model.scorer.failed and not await asyncio.to_thread(model.works):
            raise Refusal(
                503,
                "model_fails",
                "the model fails; the service's log says why",
                {"Retry-After": "30"},
            )
        if service.store is not None:
            await asyncio.to_thread(service.store.check)
        return {"status": "ready"}

    @routes.get("/metrics", response_class=Response, responses=describe.METRICS_ANSWERS)
    async def metrics() -> Response:
        """Figures in Prometheus' text format; no content and no name of any photo."""
        return Response(
            service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    @routes.get("/v1/model", responses=describe.answers(describe.MODEL, 401, 503))
    async def model() -> JSONResponse:
        """The model that answers: version, digest, pixel contract, calibration, thresholds and their promise."""
        return JSONResponse(service.models.get().to_dict())

    @routes.post("/v1/model/reload", responses=describe.answers(describe.MODEL, 401, 403, 422, 503))
    async def reload(request: Request) -> JSONResponse:
        """Read the model file anew, with an admin key. A broken file changes nothing: the old model goes on."""
        if not request.scope["state"].get("is_admin", False):
            raise Refusal(
                403,
                "admin_only",
                "loading a model needs a key marked admin in the file of keys; or send SIGHUP instead",
            )
        return JSONResponse(await reload_model(service))

    return routes


def reload_keys(service: Service) -> None:
    """Read the file of keys anew; what cannot be read, or would leave no key, changes nothing and is logged."""
    try:
        service.keys = KeyRing.read(service.settings)
    except RealDamageError as error:
        tell("keys not read anew; the old ones go on", logging.ERROR, reason=str(error))
    else:
        tell("keys read", keys=len(service.keys.keys))


async def reload_model(service: Service) -> dict[str, Any]:
    """Load the model file anew, beside the requests under way. Raises Refusal 422, and logs, when it stays the old."""
    try:
        model = await asyncio.to_thread(service.models.load)
    except RealDamageError as error:
        tell("model not reloaded; the old one goes on", logging.ERROR, reason=str(error))
        raise Refusal(
            422, "model_kept", f"the model was not replaced, the old one goes on: {error}"
        ) from error
    tell(
        "model loaded", model_version=model.metadata.model_version, graph_sha256=model.graph_sha256
    )
    return model.to_dict()
