"""Kept claims as cases: the queue, and what people decide about each. Every change is one
transaction together with its event in the chained log."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from realdamage.claims import Claim
from realdamage.claims.database import Case, Decision, Event, Link, Statement, now
from realdamage.claims.policy import RECOMMENDATIONS, Action, CaseRules
from realdamage.service.auth import LOCAL
from realdamage.service.schemas import ClaimForm, Refusal, Text
from realdamage.service.store import JUDGING, ClaimStore, not_stored
from realdamage.service.webhooks import Webhooks, values_of

State = Literal["open", "waiting_buyer", "waiting_merchant", "decided", "appealed", "closed"]
Order = Literal["deadline", "expected_loss", "created", "updated"]
_UNDECIDED = ("open", "waiting_buyer", "waiting_merchant", "appealed")
_HOUR, _DAY = 3600.0, 86400.0
_MOST_EVENTS = 500

Reason = Field(min_length=3, max_length=2000, description="why; it stays in the record")
Version = Field(ge=1, description="of the case, as it was read; 409 when it has changed since")


class DecisionRequest(BaseModel):
    """What a person decides about a claim."""

    model_config = ConfigDict(extra="forbid")

    action: Action = Field(description="refund, part, require_return, ask or refuse")
    reason: Text = Reason
    amount: str = Field("", pattern=r"^(\d{1,10}(\.\d{1,2})?)?$", description="for `part`")
    version: int = Version


class ChangeRequest(BaseModel):
    """A reason for a change of a case."""

    model_config = ConfigDict(extra="forbid")

    reason: Text = Reason
    version: int = Version


class AppealRequest(ChangeRequest):
    side: Literal["buyer", "merchant"] = Field(description="who does not accept the decision")


class CaseValues(BaseModel):
    """A case in the queue. Times are seconds since 1970, amounts decimal numbers as text."""

    claim_id: str
    state: State
    version: int
    created: float
    updated: float
    deadline: float
    order_id: str
    product: str
    merchant: str
    amount: str
    currency: str
    buyer: str = Field(description="short form of the keyed hash of the buyer's reference")
    recommendation: str
    probability: float | None
    expected_loss: float = Field(description="amount times the highest probability of synthetic")
    repeats: dict[str, int] = Field(description="facts, see `repeats`; never a decision")


class Queue(BaseModel):
    """A page of cases. total: how many there are. counts: of each state, without the filters."""

    cases: list[CaseValues]
    total: int
    counts: dict[str, int]


class CaseAnswer(BaseModel):
    """A case with all that happened to it."""

    case: CaseValues
    decisions: list[dict[str, Any]]
    statements: list[dict[str, Any]]
    links: list[dict[str, Any]]
    events: list[dict[str, Any]]
    rules: dict[str, Any]


class Cases:
    """The state of all cases. person: the name of the key of who acts, or LOCAL. is_local:
    everybody is LOCAL, so nobody can be the second person."""

    def __init__(
        self, store: ClaimStore, rules: CaseRules, webhooks: Webhooks, *, is_local: bool = False
    ) -> None:
        self._store, self.rules, self._webhooks = store, rules, webhooks
        self._is_local = is_local
        self._database = store.database

    def references(self, form: ClaimForm) -> dict[str, str]:
        """Keyed hashes of the buyer and device, as columns of a case; no more is stored of them."""
        secret, exchange = self._store.secret, self._store.exchange
        return {
            "buyer": secret.buyer(form.buyer),
            "buyer_shared": exchange.buyer(form.buyer) if exchange and form.buyer else "",
            "device": secret.device(form.device),
        }

    def about(self, form: ClaimForm, claim: Claim, references: dict[str, str]) -> dict[str, Any]:
        """The columns of a new case. references: of the form."""
        known = [one.verdict.probability for one in claim.photos if one.verdict is not None]
        calibrated = [one for one in known if one is not None]
        probability = max(calibrated, default=None)
        # Without calibration the rank of the recommendation must do.
        rank = RECOMMENDATIONS.index(claim.recommendation) / (len(RECOMMENDATIONS) - 1)
        amount = to_hundredths(form.amount)
        seen = {one.claim_id for photo in claim.photos for one in photo.duplicates if one.claim_id}
        return {
            "deadline": now() + self.rules.decide_hours * _HOUR,
            "order_id": form.order_id,
            "product": form.product,
            "merchant": form.merchant,
            "amount": amount,
            "currency": form.currency,
            **references,
            "recommendation": claim.recommendation,
            "probability": probability,
            "expected_loss": amount / 100 * (rank if probability is None else probability),
            "same_photos": json.dumps(sorted(seen)),
        }

    def kept(self, session: Session, case: Case) -> None:
        """A case was judged and stored, in this transaction."""
        self._webhooks.add(session, "claim.judged", case.claim_id, state=case.state)

    def search(
        self, *, text: str, where: dict[str, str], order: Order, limit: int, offset: int
    ) -> dict[str, Any]:
        """A page of the queue. text: in the ids, the product and the merchant. where: columns."""
        query = select(Case).where(Case.state != JUDGING)
        for name, value in where.items():
            query = query.where(getattr(Case, name) == value)
        if text.strip():
            query = query.where(self._contains(text.strip()))
        with self._database.reading() as session:
            total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
            column = getattr(Case, order)
            first = column if order == "deadline" else column.desc()
            page = query.order_by(first, Case.claim_id).limit(limit).offset(offset)
            states = select(Case.state, func.count()).where(Case.state != JUDGING)
            counts = {row[0]: row[1] for row in session.execute(states.group_by(Case.state))}
            cases = [self._values(session, case) for case in session.scalars(page)]
        return {"cases": cases, "total": total, "counts": counts}

    def show(self, claim_id: str) -> dict[str, Any]:
        """A case with all that happened to it. Raises Refusal 404."""
        with self._database.reading() as session:
            case = self._find(session, claim_id)
            of_case = {"claim_id": claim_id}
            statements = select(Statement).filter_by(**of_case).order_by(Statement.number)
            links = select(Link).filter_by(**of_case).order_by(Link.created)
            events = select(Event).filter_by(**of_case).order_by(Event.index.desc())
            about_link = ("side", "created", "expires", "used", "revoked")
            about_statement = ("number", "side", "received", "text", "folder")
            return {
                "case": self._values(session, case),
                "decisions": [_decision_values(one) for one in _decisions(session, claim_id)],
                "statements": [
                    values_of(one, about_statement) for one in session.scalars(statements)
                ],
                "links": [values_of(one, about_link) for one in session.scalars(links)],
                "events": [
                    {
                        **values_of(one, ("time", "event", "hash")),
                        "payload": json.loads(one.payload),
                    }
                    for one in session.scalars(events.limit(_MOST_EVENTS))
                ],
                "rules": {
                    "second_person": list(self.rules.second_person),
                    "is_local": self._is_local,
                },
            }

    def decide(self, claim_id: str, asked: DecisionRequest, person: str) -> None:
        """Decide a case. It is final after the policy's minutes, or waits for a second person.

        Raises Refusal 409 when it is decided already or was changed by somebody else, 403 when
        the person has decided what is appealed, 422 when `part` has no amount.
        """
        amount = to_hundredths(asked.amount)
        with self._changing(claim_id, asked.version, _UNDECIDED) as (session, case):
            if (asked.action == "part") != (amount > 0):
                message = "amount: `part` needs one above 0, and only `part` has one."
                raise Refusal(422, "invalid_field", message)
            if asked.action == "part" and case.amount and amount > case.amount:
                message = f"amount: {asked.amount} is more than the claim's {money(case.amount)}."
                raise Refusal(422, "invalid_field", message)
            earlier = _decisions(session, claim_id)
            open_ones = [one for one in earlier if one.final_at is None and not one.undone]
            if open_ones:
                message = "A decision waits for a second person. Confirm it or take it back."
                raise Refusal(409, "waits_for_second", message)
            if case.state == "appealed" and self.rules.appeal_needs_other_person:
                final = [one for one in earlier if not one.undone][-1]
                if person in (final.by, final.confirmed_by):
                    raise _same_person("who decided before does not decide the appeal", person)
            decision = Decision(
                claim_id=claim_id,
                number=len(earlier) + 1,
                action=asked.action,
                reason=asked.reason,
                amount=amount,
                by=person,
                at=now(),
                state_before=case.state,
            )
            session.add(decision)
            needs_second = asked.action in self.rules.second_person
            event = "decision_proposed" if needs_second else "decided"
            self._record(session, case, event, **_logged(decision))
            if not needs_second:
                self._take_effect(session, case, decision)

    def confirm(self, claim_id: str, number: int, asked: ChangeRequest, person: str) -> None:
        """As the second person, let a decision take effect. Raises Refusal 403, 404, 409."""
        with self._changing(claim_id, asked.version, _UNDECIDED) as (session, case):
            decision = _decision(session, claim_id, number)
            if decision.undone or decision.final_at is not None:
                raise Refusal(409, "not_waiting", "This decision does not wait for anybody.")
            if decision.by == person:
                raise _same_person("a second person must confirm this decision", person)
            decision.confirmed_by = person
            about = {"number": number, "by": person, "reason_sha256": _sha256(asked.reason)}
            self._record(session, case, "decision_confirmed", **about)
            self._take_effect(session, case, decision)

    def undo(self, claim_id: str, number: int, asked: ChangeRequest, person: str) -> None:
        """Take back a decision that is not final. Raises Refusal 404, 409."""
        states = (*_UNDECIDED, "decided")
        with self._changing(claim_id, asked.version, states) as (session, case):
            decision = _decision(session, claim_id, number)
            is_over = decision.final_at is not None and decision.final_at <= now()
            if decision.undone or decision.is_final or is_over:
                raise Refusal(409, "final", "This decision is final. An appeal can change it.")
            decision.undone = True
            case.state = decision.state_before
            about = {"number": number, "by": person, "reason_sha256": _sha256(asked.reason)}
            self._record(session, case, "decision_undone", **about)

    def appeal(self, claim_id: str, asked: AppealRequest, person: str) -> None:
        """Open a final decision again for the buyer or the merchant. Raises Refusal 409."""
        self.settle()
        with self._changing(claim_id, asked.version, ("decided",)) as (session, case):
            last = [one for one in _decisions(session, claim_id) if not one.undone][-1]
            if not last.is_final:
                raise Refusal(409, "not_final", "The decision is not final yet; take it back.")
            case.state = "appealed"
            case.deadline = now() + self.rules.decide_hours * _HOUR
            case.deadline_reported = False
            about = {"side": asked.side, "by": person, "reason_sha256": _sha256(asked.reason)}
            self._record(session, case, "appealed", **about)

    def close(self, claim_id: str, asked: ChangeRequest, person: str) -> None:
        """End a case whose decision is final. Raises Refusal 409."""
        self.settle()
        with self._changing(claim_id, asked.version, ("decided",)) as (session, case):
            if any(not (one.is_final or one.undone) for one in _decisions(session, claim_id)):
                raise Refusal(409, "not_final", "The decision is not final yet.")
            case.state = "closed"
            about = {"by": person, "reason_sha256": _sha256(asked.reason)}
            self._record(session, case, "closed", **about)

    def asked(self, session: Session, case: Case, side: str) -> None:
        """A link for a statement was made, in this transaction."""
        if case.state in _UNDECIDED and case.state != "appealed":
            case.state = f"waiting_{side}"

    def answered(self, session: Session, case: Case, side: str) -> None:
        """A statement was received, in this transaction: the case no longer waits for that side."""
        if case.state == f"waiting_{side}":
            case.state = "open"
        case.version += 1
        case.updated = now()
        self._webhooks.add(session, "statement.received", case.claim_id, side=side)

    def settle(self) -> None:
        """Make decisions final whose time has come, and report deadlines that are near."""
        moment = now()
        due = select(Decision).where(
            Decision.final_at <= moment, ~Decision.is_final, ~Decision.undone
        )
        near = select(Case).where(
            Case.state.in_(_UNDECIDED),
            Case.deadline <= moment + self.rules.near_hours * _HOUR,
            ~Case.deadline_reported,
        )
        with self._database.reading() as session:
            if session.scalars(due).first() is None and session.scalars(near).first() is None:
                return
        with self._database.transaction() as session:
            for decision in session.scalars(due):
                self._make_final(session, session.get_one(Case, decision.claim_id), decision)
            for case in session.scalars(near):
                case.deadline_reported = True
                self._webhooks.add(
                    session, "deadline.near", case.claim_id, deadline=int(case.deadline)
                )

    def repeats(self, session: Session, case: Case) -> dict[str, int]:
        """How many other claims of the last days have the same buyer, device or a same photo."""
        since = now() - self.rules.repeat_days * _DAY
        recent = (Case.created >= since, Case.claim_id != case.claim_id, Case.state != JUDGING)
        count = select(func.count()).select_from(Case).where(*recent)
        same = json.loads(case.same_photos or "[]")
        asked = {
            "same_buyer": count.where(Case.buyer == case.buyer) if case.buyer else None,
            "same_device": count.where(Case.device == case.device) if case.device else None,
            "same_photo": count.where(Case.claim_id.in_(same)) if same else None,
        }
        found = {"days": int(self.rules.repeat_days)}
        for name, query in asked.items():
            found[name] = 0 if query is None else session.scalar(query) or 0
        return found

    @contextmanager
    def _changing(
        self, claim_id: str, version: int, states: tuple[str, ...]
    ) -> Iterator[tuple[Session, Case]]:
        """The case in a transaction, if it is in one of the states and as the person saw it."""
        with self._database.transaction() as session:
            case = self._find(session, claim_id)
            if case.version != version:
                message = "Somebody else has changed this case. Read it again, then decide."
                raise Refusal(409, "changed_meanwhile", message)
            if case.state not in states:
                message = f"The case is {case.state}; this needs {' or '.join(states)}."
                raise Refusal(409, "wrong_state", message)
            yield session, case

    def _take_effect(self, session: Session, case: Case, decision: Decision) -> None:
        minutes = self.rules.undo_minutes
        decision.final_at = now() + 60 * minutes
        case.state = "waiting_buyer" if decision.action == "ask" else "decided"
        if not minutes:
            self._make_final(session, case, decision)

    def _make_final(self, session: Session, case: Case, decision: Decision) -> None:
        decision.is_final = True
        number, action = decision.number, decision.action
        final = {"event": "decision_final", "claim_id": case.claim_id}
        # The case's version stays: nothing that a person sees of it has changed.
        self._database.record(session, {**final, "number": number, "action": action})
        about = {"action": action, "state": case.state, "amount": money(decision.amount)}
        self._webhooks.add(session, "claim.decided", case.claim_id, **about)

    def _record(self, session: Session, case: Case, event: str, **about: Any) -> None:
        case.version += 1
        case.updated = now()
        self._database.record(session, {"event": event, "claim_id": case.claim_id, **about})

    def _find(self, session: Session, claim_id: str) -> Case:
        case = session.get(Case, claim_id)
        if case is None or case.state == JUDGING:
            raise not_stored(claim_id)
        return case

    def _contains(self, text: str) -> ColumnElement[bool]:
        columns = (Case.claim_id, Case.order_id, Case.product, Case.merchant)
        found = [column.icontains(text, autoescape=True) for column in columns]
        # A buyer is found by the reference that the shop knows, although it is not stored.
        return or_(*found, Case.buyer == self._store.secret.buyer(text))

    def _values(self, session: Session, case: Case) -> dict[str, Any]:
        found = {name: getattr(case, name, None) for name in CaseValues.model_fields}
        repeats = self.repeats(session, case)
        return {**found, "amount": money(case.amount), "buyer": case.buyer[:12], "repeats": repeats}


def to_hundredths(amount: str) -> int:
    """A decimal number with at most two decimals, as a number of hundredths."""
    whole, _, part = amount.partition(".")
    return int(whole or 0) * 100 + int(f"{part:0<2}"[:2])


def money(hundredths: int) -> str:
    """An amount as a decimal number."""
    return f"{hundredths // 100}.{hundredths % 100:02}"


def _decisions(session: Session, claim_id: str) -> list[Decision]:
    query = select(Decision).where(Decision.claim_id == claim_id).order_by(Decision.number)
    return list(session.scalars(query))


def _decision(session: Session, claim_id: str, number: int) -> Decision:
    found = session.get(Decision, (claim_id, number))
    if found is None:
        message = f"The case has no decision {number}."
        raise Refusal(404, "not_found", message)
    return found


def _decision_values(decision: Decision) -> dict[str, Any]:
    names = ("number", "action", "reason", "by", "at", "confirmed_by", "final_at")
    found = values_of(decision, (*names, "is_final", "undone"))
    waits = decision.final_at is None and not decision.undone
    can_undo = not (decision.undone or decision.is_final or (decision.final_at or 1e12) <= now())
    return {**found, "amount": money(decision.amount), "waits": waits, "can_undo": can_undo}


def _logged(decision: Decision) -> dict[str, Any]:
    """What the log holds: of the reason only its digest, so that it can be deleted."""
    about = {"number": decision.number, "action": decision.action, "by": decision.by}
    return {**about, "amount": decision.amount, "reason_sha256": _sha256(decision.reason)}


def _same_person(why: str, person: str) -> Refusal:
    message = f"Another person is needed: {why}."
    if person == LOCAL:
        message += (
            " This service has no keys, so it cannot tell people apart. Start it with --api-keys "
            "FILE and a key for each person, or change `cases:` in the claim policy."
        )
    return Refusal(403, "same_person", message)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
