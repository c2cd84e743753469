"""POST /v1/photos: each photo of a request judged by itself; one that cannot be read fails alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from realdamage.core.detector import Detector
from realdamage.core.tiles import read_photo
from realdamage.errors import PhotoError, UsageError
from realdamage.provenance import read_provenance
from realdamage.service import describe
from realdamage.service.fields import flag, prior_of
from realdamage.service.refusals import Refusal
from realdamage.service.state import Service
from realdamage.service.uploads import Upload


def router(service: Service) -> APIRouter:
    """The route, bound to a service."""
    routes = APIRouter(tags=["photos"])

    @routes.post(
        "/v1/photos", openapi_extra=describe.PHOTOS_BODY, responses=describe.PHOTOS_ANSWERS
    )
    async def judge_photos(request: Request) -> JSONResponse:
        """Judge photos: outcome, score, probability, heat map, regions and reasons of each, in the order sent. The
        status is that of the request: a photo that cannot be read has an `error` in place of its `verdict`, and 200 it
        is even when none can."""
        async with service.form(
            request, frozenset({"photos"}), frozenset({"heatmaps", "prior"})
        ) as form:
            photos = form.files["photos"]
            if not photos:
                raise Refusal(
                    422,
                    "missing_field",
                    "no photo in the request (with curl: -F photos=@photo.jpg)",
                )
            request.scope["state"]["photos"] = len(photos)
            heatmaps, prior = flag(form.fields, "heatmaps", True), prior_of(form.fields)
            model, deadline = service.models.get(), service.deadline(request)
            try:
                detector = model.detector(deadline, prior)
            except UsageError as error:
                raise Refusal(422, "invalid_field", str(error)) from error
            jobs: list[Callable[[], dict[str, Any]]] = [
                partial(_judge, service, detector, upload, heatmaps) for upload in photos
            ]
            results = await service.workload.run(
                jobs, [1] * len(jobs), deadline, service.settings.deadline
            )
        return JSONResponse(
            {
                "results": results,
                "model_version": model.metadata.model_version,
                "graph_sha256": model.graph_sha256,
                "request_id": request.scope["state"]["request_id"],
            }
        )

    return routes


def _judge(service: Service, detector: Detector, upload: Upload, heatmaps: bool) -> dict[str, Any]:
    """The entry of one photo in the answer."""
    try:
        photo = read_photo(
            upload.data,
            detector.pixel_spec,
            name=upload.name,
            max_pixels=service.settings.max_pixels,
        )
        verdict = detector.predict_photo(photo)
    except PhotoError as error:
        service.metrics.photos.labels("unreadable").inc()
        return {"name": upload.name, "error": error.to_dict()}
    service.metrics.photos.labels(verdict.outcome).inc()
    service.judged.add(verdict.photo_sha256)
    if service.shadow is not None:
        service.shadow.look(upload.data, verdict)
    provenance = read_provenance(
        upload.data,
        name=upload.name,
        trust_anchors=service.trust_anchors,
        max_pixels=service.settings.max_pixels,
    )
    return {
        "name": upload.name,
        "verdict": json.loads(verdict.to_json(heatmap=heatmaps)),
        "provenance": provenance.to_dict(),
    }
