"""What people do with kept claims: the queue, decisions, links for statements, webhooks."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from realdamage.claims.database import Event
from realdamage.service.auth import LOCAL
from realdamage.service.cases import (
    AppealRequest,
    CaseAnswer,
    Cases,
    ChangeRequest,
    DecisionRequest,
    Order,
    Queue,
    State,
)
from realdamage.service.limits import read_form
from realdamage.service.routes import Shared, store_of
from realdamage.service.schemas import FORM_ERRORS, Refusal, StatementForm, errors
from realdamage.service.statements import LinkAnswer, LinkRequest, Look, StatementPage
from realdamage.service.store import not_stored

router = APIRouter(responses=errors())
_PICTURE = re.compile(r"(pictures|statements/[0-9a-f]{8}-(buyer|merchant))/[a-z]+-\d\d\.jpg")
_STATEMENT = re.compile(r"statements/[0-9a-f]{8}-(buyer|merchant)/statement\.json")


def _cases(service: Shared) -> Cases:
    store_of(service)
    return service.cases


def _caller(request: Request, service: Shared) -> str:
    """The name of the caller's key, or LOCAL."""
    return LOCAL if service.settings.is_local else str(request.state.caller)


def _person(request: Request, service: Shared) -> str:
    """The name of the person's key, or LOCAL. Raises Refusal 403 for keys of systems, and with
    --no-auth."""
    if not service.settings.is_local and "reviewer" not in request.state.roles:
        message = (
            "Only a person decides: send a key whose line in --api-keys FILE ends with the word "
            "reviewer. `realdamage serve --hash-key NAME` makes the line."
        )
        raise Refusal(403, "reviewer_only", message)
    return _caller(request, service)


def _admin(request: Request) -> None:
    if "admin" not in request.state.roles:
        raise Refusal(403, "admin_only", "This needs a key marked admin.")


OfCases = Annotated[Cases, Depends(_cases)]
Caller = Annotated[str, Depends(_caller)]
Person = Annotated[str, Depends(_person)]


@router.get("/v1/claims", tags=["cases"], responses=errors(404, 422))
def list_cases(
    cases: OfCases,
    q: Annotated[str, Query(max_length=200)] = "",
    state: State | None = None,
    recommendation: Annotated[str, Query(max_length=20)] = "",
    merchant: Annotated[str, Query(max_length=100)] = "",
    order: Order = "deadline",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Queue:
    """The queue of kept claims. q: part of an id, order, product or merchant, or the whole
    reference of a buyer. order: the nearest deadline first, everything else the largest first."""
    given = {"state": state or "", "recommendation": recommendation, "merchant": merchant}
    where = {name: value for name, value in given.items() if value}
    return Queue(**cases.search(text=q, where=where, order=order, limit=limit, offset=offset))


@router.get("/v1/claims/{claim_id}/case", tags=["cases"], responses=errors(404))
def read_case(claim_id: str, cases: OfCases) -> CaseAnswer:
    """A kept claim with its decisions, statements and events."""
    return CaseAnswer(**cases.show(claim_id))


@router.post("/v1/claims/{claim_id}/decisions", tags=["cases"], responses=errors(404, 409, 422))
def decide(claim_id: str, asked: DecisionRequest, cases: OfCases, person: Person) -> CaseAnswer:
    """Decide a claim, as a person, with a reason. Some decisions wait for a second person."""
    cases.decide(claim_id, asked, person)
    return CaseAnswer(**cases.show(claim_id))


@router.post(
    "/v1/claims/{claim_id}/decisions/{number}/confirm",
    tags=["cases"],
    responses=errors(404, 409, 422),
)
def confirm(
    claim_id: str, number: int, asked: ChangeRequest, cases: OfCases, person: Person
) -> CaseAnswer:
    """As the second person, let a decision take effect."""
    cases.confirm(claim_id, number, asked, person)
    return CaseAnswer(**cases.show(claim_id))


@router.post(
    "/v1/claims/{claim_id}/decisions/{number}/undo",
    tags=["cases"],
    responses=errors(404, 409, 422),
)
def undo(
    claim_id: str, number: int, asked: ChangeRequest, cases: OfCases, person: Person
) -> CaseAnswer:
    """Take back a decision that is not final yet."""
    cases.undo(claim_id, number, asked, person)
    return CaseAnswer(**cases.show(claim_id))


@router.post("/v1/claims/{claim_id}/appeal", tags=["cases"], responses=errors(404, 409, 422))
def appeal(claim_id: str, asked: AppealRequest, cases: OfCases, caller: Caller) -> CaseAnswer:
    """Open a final decision again for the buyer or the merchant."""
    cases.appeal(claim_id, asked, caller)
    return CaseAnswer(**cases.show(claim_id))


@router.post("/v1/claims/{claim_id}/close", tags=["cases"], responses=errors(404, 409, 422))
def close(claim_id: str, asked: ChangeRequest, cases: OfCases, person: Person) -> CaseAnswer:
    """End a case whose decision is final."""
    cases.close(claim_id, asked, person)
    return CaseAnswer(**cases.show(claim_id))


@router.get(
    "/v1/claims/{claim_id}/files/{path:path}",
    tags=["cases"],
    response_class=Response,
    responses=errors(404),
)
def read_file(claim_id: str, path: str, service: Shared) -> Response:
    """A small picture of a kept claim (pictures/photo-01.jpg) or a statement of either side."""
    is_picture = _PICTURE.fullmatch(path) is not None
    if not is_picture and not _STATEMENT.fullmatch(path):
        raise not_stored(claim_id)
    content = store_of(service).read(claim_id, path)
    return Response(content, media_type="image/jpeg" if is_picture else "application/json")


@router.get("/v1/log", tags=["cases"], response_class=Response, responses=errors(404))
def read_log(service: Shared, request: Request) -> Response:
    """The chained log over all claims, for admins: one entry a line. `realdamage verify --log`
    checks it."""
    _admin(request)
    lines = store_of(service).database.log_lines()
    content = b"".join(line + b"\n" for line in lines)
    return Response(content, media_type="application/x-ndjson")


@router.get("/v1/claims/{claim_id}/proof", tags=["cases"], responses=errors(404))
def read_proof(claim_id: str, service: Shared) -> dict[str, Any]:
    """The log's entries about a claim, also a deleted one, and the hashes that lead to the log's
    root (RFC 6962). `realdamage log-proof --check` checks it; other claims are not in it."""
    database = store_of(service).database
    with database.reading() as session:
        is_known = session.scalar(select(Event.index).filter_by(claim_id=claim_id).limit(1))
    if is_known is None:
        raise not_stored(claim_id)
    return database.prove(claim_id)


# Statements


@router.post(
    "/v1/claims/{claim_id}/links",
    tags=["statements"],
    status_code=201,
    responses=errors(404, 409, 422),
)
def make_link(
    claim_id: str, asked: LinkRequest, service: Shared, cases: OfCases, caller: Caller
) -> LinkAnswer:
    """A one-time link for the buyer's or the merchant's statement; an earlier one ends."""
    return service.statements.make_link(claim_id, asked.side, caller)


@router.get("/v1/statements/{token}", tags=["statements"], responses=errors(404, 410))
def read_link(token: str, service: Shared, cases: OfCases) -> StatementPage:
    """What the page of a link shows. The link is the key."""
    return service.statements.page(token)


@router.post(
    "/v1/statements/{token}",
    tags=["statements"],
    status_code=201,
    openapi_extra=StatementForm.openapi(),
    responses=errors(*FORM_ERRORS, 404, 409, 410),
)
async def send_statement(
    token: str, request: Request, service: Shared, cases: OfCases
) -> dict[str, Any]:
    """The statement of one side: text, photos, frames of the camera, videos. Works once."""
    await run_in_threadpool(service.statements.page, token)  # before a large body is read
    form = await read_form(request, StatementForm, service.settings)
    photos = len(form.photos) + len(form.frames) + len(form.videos)
    request.state.photos = photos
    most = service.policy.photos.at_most
    if photos > most:
        message = f"{photos} photos, frames and videos, but the claim policy takes at most {most}."
        raise Refusal(413, "too_many_photos", message)
    await run_in_threadpool(service.count_photos, photos)
    # The link works once, so the sender may wait longer than callers that can try again.
    deadline = time.monotonic() + service.settings.job_deadline
    look = Look(
        service.loaded_model().detector(deadline),
        service.policy,
        store_of(service),
        service.settings.max_pixels,
        service.trust_anchors,
        deadline,
        service.settings.seals,
    )
    job = partial(service.statements.receive, token, form, look)
    (answer,) = await service.queue.run([job], deadline, photos=max(1, photos))
    return answer


# Webhooks


@router.get("/v1/webhooks", tags=["operation"], responses=errors(422))
def list_deliveries(
    service: Shared,
    request: Request,
    status: Annotated[str, Query(pattern="^(dead|waiting|delivered)$")] = "dead",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Deliveries to webhook targets, for admins: those that were given up, unless asked else."""
    _admin(request)
    return service.webhooks.listing(status, limit)


@router.post("/v1/webhooks/{number}/retry", tags=["operation"], responses=errors(404, 422))
def retry(number: int, service: Shared, request: Request) -> dict[str, int]:
    """Send a delivery again that was given up, with an admin key."""
    _admin(request)
    if not service.webhooks.retry(number):
        raise Refusal(404, "not_found", f"No dead delivery {number}.")
    return {"retried": number}
