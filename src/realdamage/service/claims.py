"""POST /v1/claims: all photos of a claim judged together, beside the listing; kept only where the caller asks."""

from __future__ import annotations

import json
import re
import time
from functools import partial

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from realdamage.claims import Claim, ClaimIndex, ClaimPolicy, judge_claim, new_claim_id
from realdamage.claims.judge import MAX_TEXT
from realdamage.errors import PhotoError, UsageError
from realdamage.service import describe
from realdamage.service.batching import DeadlineError
from realdamage.service.fields import flag
from realdamage.service.models import ServedModel
from realdamage.service.refusals import Refusal
from realdamage.service.state import Service
from realdamage.service.storage import CLAIM_ID, DOCUMENTS, ClaimStore
from realdamage.service.uploads import Form, Upload

_FILES = frozenset({"photos", "listings"})
_FIELDS = frozenset({"text", "claim_id", "keep", "heatmaps"})
# The evidence brings its own styles and pictures, and no script may run in it.
_EVIDENCE_CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
)


def router(service: Service, policy: ClaimPolicy, store: ClaimStore | None) -> APIRouter:
    """The routes, bound to a service; without a store no claim is ever found."""
    routes = APIRouter(tags=["claims"])

    @routes.post(
        "/v1/claims", openapi_extra=describe.CLAIMS_BODY, responses=describe.CLAIMS_ANSWERS
    )
    async def judge(request: Request) -> Response:
        """Judge a claim: one recommendation with its reasons, from verdicts, what the files say of themselves, the
        listing's photos and earlier claims. A photo that cannot be read fails alone, with its `error`; 422 when none
        can. With keep=true send a claim_id of your own: then a request that is sent again after a lost answer is a 409,
        not a second claim with the photos of the first."""
        async with service.form(request, _FILES, _FIELDS) as form:
            claim_id, keep = _claim_id(form), flag(form.fields, "keep", False)
            heatmaps = flag(form.fields, "heatmaps", True)
            if keep and store is None:
                raise Refusal(
                    422,
                    "no_store",
                    "keep=true, but this service stores nothing; start it with --store DIR",
                )
            _check_bounds(form, policy)
            model, deadline = service.models.get(), service.deadline(request)
            count = len(form.files["photos"]) + len(form.files["listings"])
            request.scope["state"]["photos"] = count
            job = partial(
                _judge, service, model, policy, store, form, claim_id, keep, heatmaps, deadline
            )
            try:
                (body,) = await service.workload.run(
                    [job], [count], deadline, service.settings.deadline
                )
            except PhotoError as error:
                raise Refusal(422, "unreadable_photo", str(error)) from error
            except UsageError as error:
                raise Refusal(422, "invalid_field", str(error)) from error
        return Response(body, media_type="application/json")

    @routes.get("/v1/claims/{claim_id}", responses=describe.answers(describe.CLAIM, 401, 404))
    async def read(claim_id: str) -> Response:
        """The evidence of a stored claim, as JSON."""
        return await document(claim_id, "evidence.json")

    @routes.get(
        "/v1/claims/{claim_id}/evidence.html",
        response_class=Response,
        responses=describe.EVIDENCE_ANSWERS,
    )
    async def evidence(claim_id: str) -> Response:
        """The evidence of a stored claim, as one page to read and print."""
        return await document(claim_id, "evidence.html")

    @routes.delete(
        "/v1/claims/{claim_id}", responses=describe.answers(describe.DELETED, 401, 404, 409)
    )
    async def delete(request: Request, claim_id: str) -> JSONResponse:
        """Remove a stored claim with its evidence, the hashes of its photos and what reviewers said of them. Reviews of
        a claim that was never kept are removed too."""
        reviews, by = service.reviews.delete, request.scope["state"]["caller"]
        if store is not None:
            await run_in_threadpool(store.delete, claim_id, reviews=reviews, by=by)
        elif not await run_in_threadpool(reviews, claim_id):
            raise _no_store()
        return JSONResponse({"deleted": claim_id})

    async def document(claim_id: str, name: str) -> Response:
        if store is None:
            raise _no_store()
        content = await run_in_threadpool(store.read, claim_id, name)
        headers = {"Content-Security-Policy": _EVIDENCE_CSP} if name.endswith(".html") else None
        return Response(content, media_type=DOCUMENTS[name], headers=headers)

    return routes


def _judge(
    service: Service,
    model: ServedModel,
    policy: ClaimPolicy,
    store: ClaimStore | None,
    form: Form,
    claim_id: str,
    keep: bool,
    heatmaps: bool,
    deadline: float,
) -> bytes:
    """The answer's body."""
    photos, listings = (_pairs(form.files[name]) for name in ("photos", "listings"))

    def judged(index: ClaimIndex | None) -> Claim:
        return judge_claim(
            photos,
            detector=model.detector(deadline),
            listings=listings,
            text=form.fields.get("text", ""),
            claim_id=claim_id,
            policy=policy,
            index=index,
            max_pixels=service.settings.max_pixels,
            trust_anchors=service.trust_anchors,
        )

    if keep and store is not None:
        with store.new(claim_id):
            claim = judged(store.index)
            if time.monotonic() > deadline:
                raise DeadlineError
            store.keep(claim, photos, listings)
    else:
        claim = judged(store.look_only if store else None)
    _count(service, claim, form)
    values = claim.to_dict(heatmaps=heatmaps)
    if keep:
        values["evidence_url"] = f"/v1/claims/{claim_id}/evidence.html"
    return json.dumps(values, allow_nan=False).encode()


def _count(service: Service, claim: Claim, form: Form) -> None:
    service.metrics.claims.labels(claim.recommendation).inc()
    for photo, upload in zip(claim.photos, form.files["photos"], strict=True):
        service.metrics.photos.labels(
            photo.verdict.outcome if photo.verdict else "unreadable"
        ).inc()
        if photo.verdict:
            service.judged.add(photo.sha256)
            if service.shadow is not None:
                service.shadow.look(upload.data, photo.verdict)


def _check_bounds(form: Form, policy: ClaimPolicy) -> None:
    """What would be refused after the work is refused before it."""
    if not form.files["photos"]:
        raise Refusal(
            422, "missing_field", "no photo in the claim (with curl: -F photos=@photo.jpg)"
        )
    if (found := len(form.fields.get("text", ""))) > MAX_TEXT:
        raise Refusal(
            422,
            "invalid_field",
            f"text has {found} characters, at most {MAX_TEXT} are taken; shorten it",
        )
    for name, limit in (
        ("photos", policy.photos.at_most),
        ("listings", policy.photos.listings_at_most),
    ):
        if len(form.files[name]) > limit:
            raise Refusal(
                413,
                "too_many_photos",
                f"{len(form.files[name])} {name}, the claim policy takes at most {limit}",
            )


def _claim_id(form: Form) -> str:
    given = form.fields.get("claim_id")
    if given is not None and not re.fullmatch(CLAIM_ID, given):
        raise Refusal(
            422,
            "invalid_field",
            f"claim_id={given[:80]!r}: 1 to 64 letters, digits, dots, dashes or underscores",
        )
    return given or new_claim_id()


def _pairs(uploads: tuple[Upload, ...]) -> list[tuple[str, bytes]]:
    return [(upload.name, upload.data) for upload in uploads]


def _no_store() -> Refusal:
    return Refusal(
        404,
        "not_found",
        "this service stores no claims; start it with --store DIR and send keep=true",
    )
