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
from realdamage.service.routes import Shared, Store, count_photos
from realdamage.service.schemas import FORM_ERRORS, Refusal, StatementForm, errors
from realdamage.service.statements import LinkAnswer, LinkRequest, StatementPage
from realdamage.service.store import not_stored

claims = APIRouter(prefix="/v1/claims", tags=["cases"])
router = APIRouter(responses=errors())
_CHANGES = errors(404, 409, 422)
_STATEMENT = r"statements/[0-9a-f]{8}-(buyer|merchant)"
_FILE = re.compile(rf"(pictures|{_STATEMENT})/[a-z]+-\d\d\.jpg|{_STATEMENT}/statement\.json")


def _cases(service: Shared, _: Store) -> Cases:
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
Admin = Annotated[None, Depends(_admin)]


@claims.get("", responses=errors(404, 422))
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


@claims.get("/{claim_id}/case", responses=errors(404))
def read_case(claim_id: str, cases: OfCases) -> CaseAnswer:
    """A kept claim with its decisions, statements and events."""
    return CaseAnswer(**cases.show(claim_id))


@claims.post("/{claim_id}/decisions", responses=_CHANGES)
def decide(claim_id: str, asked: DecisionRequest, cases: OfCases, person: Person) -> CaseAnswer:
    """Decide a claim, as a person, with a reason. Some decisions wait for a second person."""
    cases.decide(claim_id, asked, person)
    return CaseAnswer(**cases.show(claim_id))


@claims.post("/{claim_id}/decisions/{number}/confirm", responses=_CHANGES)
def confirm(
    claim_id: str, number: int, asked: ChangeRequest, cases: OfCases, person: Person
) -> CaseAnswer:
    """As the second person, let a decision take effect."""
    cases.confirm(claim_id, number, asked, person)
    return CaseAnswer(**cases.show(claim_id))


@claims.post("/{claim_id}/decisions/{number}/undo", responses=_CHANGES)
def undo(
    claim_id: str, number: int, asked: ChangeRequest, cases: OfCases, person: Person
) -> CaseAnswer:
    """Take back a decision that is not final yet."""
    cases.undo(claim_id, number, asked, person)
    return CaseAnswer(**cases.show(claim_id))


@claims.post("/{claim_id}/appeal", responses=_CHANGES)
def appeal(claim_id: str, asked: AppealRequest, cases: OfCases, caller: Caller) -> CaseAnswer:
    """Open a final decision again for the buyer or the merchant."""
    cases.appeal(claim_id, asked, caller)
    return CaseAnswer(**cases.show(claim_id))


@claims.post("/{claim_id}/close", responses=_CHANGES)
def close(claim_id: str, asked: ChangeRequest, cases: OfCases, person: Person) -> CaseAnswer:
    """End a case whose decision is final."""
    cases.close(claim_id, asked, person)
    return CaseAnswer(**cases.show(claim_id))


@claims.get("/{claim_id}/files/{path:path}", response_class=Response, responses=errors(404))
def read_file(claim_id: str, path: str, store: Store) -> Response:
    """A small picture of a kept claim (pictures/photo-01.jpg) or a statement of either side."""
    if not _FILE.fullmatch(path):
        raise not_stored(claim_id)
    kind = "image/jpeg" if path.endswith(".jpg") else "application/json"
    return Response(store.read(claim_id, path), media_type=kind)


router.include_router(claims)


@router.get("/v1/log", tags=["cases"], response_class=Response, responses=errors(404))
def read_log(_: Admin, store: Store) -> Response:
    """The chained log over all claims, for admins: one entry a line. `realdamage verify --log`
    checks it."""
    return Response(store.database.log_text(), media_type="application/x-ndjson")


@router.get("/v1/claims/{claim_id}/proof", tags=["cases"], responses=errors(404))
def read_proof(claim_id: str, store: Store) -> dict[str, Any]:
    """The log's entries about a claim, also a deleted one, and the hashes that lead to the log's
    root (RFC 6962). `realdamage log-proof --check` checks it; other claims are not in it."""
    database = store.database
    with database.reading() as session:
        is_known = session.scalar(select(Event.index).filter_by(claim_id=claim_id).limit(1))
    if is_known is None:
        raise not_stored(claim_id)
    return database.prove(claim_id)


# Statements


@router.post(
    "/v1/claims/{claim_id}/links", tags=["statements"], status_code=201, responses=_CHANGES
)
def make_link(
    claim_id: str, asked: LinkRequest, service: Shared, caller: Caller, _: Store
) -> LinkAnswer:
    """A one-time link for the buyer's or the merchant's statement; an earlier one ends."""
    return service.statements.make_link(claim_id, asked.side, caller)


@router.get("/v1/statements/{token}", tags=["statements"], responses=errors(404, 410))
def read_link(token: str, service: Shared, _: Store) -> StatementPage:
    """What the page of a link shows. The link is the key."""
    return service.statements.page(token)


@router.post(
    "/v1/statements/{token}",
    tags=["statements"],
    status_code=201,
    openapi_extra=StatementForm.openapi(),
    responses=errors(*FORM_ERRORS, 404, 409, 410),
)
async def send_statement(token: str, request: Request, service: Shared, _: Store) -> dict[str, Any]:
    """The statement of one side: text, photos, frames of the camera, videos. Works once."""
    await run_in_threadpool(service.statements.page, token)  # before a large body is read
    form = await read_form(request, StatementForm, service.settings)
    photos = len(form.photos) + len(form.frames) + len(form.videos)
    most = service.policy.photos.at_most
    if photos > most:
        message = f"{photos} photos, frames and videos, but the claim policy takes at most {most}."
        raise Refusal(413, "too_many_photos", message)
    await count_photos(request, service, photos)
    # The link works once, so the sender may wait longer than callers that can try again.
    deadline = time.monotonic() + service.settings.job_deadline
    detector = service.loaded_model().detector(deadline)
    job = partial(service.statements.receive, token, form, detector, deadline)
    (answer,) = await service.queue.run([job], deadline, photos=max(1, photos))
    return answer


# Webhooks


@router.get("/v1/webhooks", tags=["operation"], responses=errors(422))
def list_deliveries(
    service: Shared,
    _: Admin,
    status: Annotated[str, Query(pattern="^(dead|waiting|delivered)$")] = "dead",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Deliveries to webhook targets, for admins: those that were given up, unless asked else."""
    return service.webhooks.listing(status, limit)


@router.post("/v1/webhooks/{number}/retry", tags=["operation"], responses=errors(404, 422))
def retry(number: int, service: Shared, _: Admin) -> dict[str, int]:
    """Send a delivery again that was given up, with an admin key."""
    if not service.webhooks.retry(number):
        raise Refusal(404, "not_found", f"No dead delivery {number}.")
    return {"retried": number}
