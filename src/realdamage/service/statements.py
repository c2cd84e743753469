"""What the buyer and the merchant say: one-time links to a small page, and what they send back.

A link is signed and expires. The buyer's page takes frames from the live camera. Their order and
the product are checked; a virtual camera passes, and so does a photo of a screen.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import secrets
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from realdamage.claims import Claim, EvidenceLog, judge_claim
from realdamage.claims.database import Case, Link, Statement, now
from realdamage.claims.evidence import (
    HTML_NAME,
    PICTURES,
    STATEMENT,
    add_statement,
    append_entry,
    originals_of,
    page_with_statements,
    replaced_page,
    small_pictures,
)
from realdamage.claims.paths import files_named
from realdamage.claims.policy import ClaimPolicy
from realdamage.claims.videos import SEALED, read_video
from realdamage.core.detector import Detector
from realdamage.errors import PhotoError
from realdamage.provenance import TrustAnchors
from realdamage.service.cases import Cases
from realdamage.service.limits import DeadlineError
from realdamage.service.schemas import Refusal, StatementForm, Upload
from realdamage.service.settings import Settings
from realdamage.service.store import ClaimStore

Side = Literal["buyer", "merchant"]
FRAMES = 6
"""Frames that the buyer's page takes from the camera."""
_LONGEST_BURST_S = 120.0
_TOKEN = re.compile(r"(?:[a-z0-9-]+~)?([A-Za-z0-9_-]{22})\.(\d{1,12})\.([0-9a-f]{32})")
_HOUR = 3600.0


class LinkRequest(BaseModel):
    """Who is asked for a statement."""

    model_config = ConfigDict(extra="forbid")

    side: Side = Field(description="buyer or merchant")


class LinkAnswer(BaseModel):
    """A one-time link. path: of the page, below the address of this service."""

    path: str
    side: Side
    expires: float


class StatementPage(BaseModel):
    """What the page of a link shows."""

    side: Side
    product: str
    order_id: str
    nonce: str
    expires: float
    frames: int
    takes_videos: bool
    repeats: dict[str, int] | None = Field(description="facts that the buyer may answer")


class Statements:
    """Links, and the statements that come back through them."""

    def __init__(
        self,
        store: ClaimStore,
        cases: Cases,
        policy: ClaimPolicy,
        settings: Settings,
        trust_anchors: TrustAnchors | None,
    ) -> None:
        self._store, self._cases, self._policy = store, cases, policy
        self._settings, self._trust_anchors = settings, trust_anchors

    def make_link(self, claim_id: str, side: Side, person: str) -> LinkAnswer:
        """A new link for one side; earlier ones of that side no longer work. Raises Refusal."""
        moment = now()
        expires = moment + self._policy.cases.statement_hours * _HOUR
        random = secrets.token_urlsafe(16)
        token = f"{random}.{int(expires)}.{self._sign(random, int(expires))}"
        if self._store.tenant:
            token = f"{self._store.tenant}~{token}"  # the link is the key, so it names the tenant
        with self._store.database.transaction() as session:
            case = self._open_case(session, claim_id)
            for old in session.scalars(select(Link).filter_by(claim_id=claim_id, side=side)):
                old.revoked = True
            session.add(
                Link(
                    token=_digest(token),
                    claim_id=claim_id,
                    side=side,
                    nonce=f"{secrets.randbelow(10_000):04}",
                    created=moment,
                    expires=expires,
                )
            )
            self._cases.asked(session, case, side)
            about = {"side": side, "expires": int(expires), "by": person}
            self._cases._record(session, case, "link_made", **about)
        return LinkAnswer(path=f"s/{token}", side=side, expires=expires)

    def page(self, token: str) -> StatementPage:
        """What the page of a link shows. Raises Refusal 404, 410."""
        self._check_signature(token)
        with self._store.database.reading() as session:
            link, case = self._usable(session, token)
            repeats = self._cases.repeats(session, case) if link.side == "buyer" else None
            return StatementPage(
                side=link.side,  # type: ignore[arg-type]
                product=case.product,
                order_id=case.order_id,
                nonce=link.nonce,
                expires=link.expires,
                frames=FRAMES if link.side == "buyer" else 0,
                takes_videos=_takes_videos(),
                repeats=repeats,
            )

    def receive(
        self, token: str, form: StatementForm, detector: Detector, deadline: float
    ) -> dict[str, Any]:
        """Judge what came through a link and keep it in the claim's evidence, whole or not at all.

        deadline: in time.monotonic. Raises Refusal 404 and 410 for a link that cannot be used, 422
        for an empty statement.
        """
        self._check_signature(token)
        if not (form.text.strip() or form.photos or form.frames or form.videos):
            raise Refusal(422, "missing_field", "Send a text, a photo, frames or a video.")
        if form.videos and not _takes_videos():
            message = "This service reads no videos: its extra `video` is not installed."
            raise Refusal(422, "no_video_extra", message)
        with self._store.database.reading() as session:
            link, _ = self._usable(session, token)
            about = {"claim_id": link.claim_id, "side": link.side, "nonce": link.nonce}
            created = link.created
        values, files = self._judge(form, about, created, detector)
        if time.monotonic() > deadline:
            raise DeadlineError  # nobody waits for the answer any more
        folder = self._store.claims / link.claim_id
        name = f"{secrets.token_hex(4)}-{link.side}"
        digests = add_statement(folder, name, values, files)
        kept = len(digests)
        with self._store.database.transaction() as session:
            link, case = self._usable(session, token)  # nobody else has used it meanwhile
            link.used = now()
            query = select(Statement.folder).where(Statement.claim_id == link.claim_id)
            earlier = session.scalars(query.order_by(Statement.number)).all()
            number = 1 + len(earlier)
            page = page_with_statements(folder, [*earlier, name])
            digests[HTML_NAME] = hashlib.sha256(page).hexdigest()
            session.add(
                Statement(
                    claim_id=link.claim_id,
                    number=number,
                    side=link.side,
                    received=now(),
                    text=form.text,
                    folder=name,
                )
            )
            event: dict[str, Any] = {"event": STATEMENT, "claim_id": link.claim_id}
            event |= {"side": link.side, "number": number, "files": digests}
            self._store.database.record(session, event)
            self._cases.answered(session, case, link.side)
            # Last: when this fails, nothing of the transaction happened.
            with replaced_page(folder, page):
                append_entry(folder, event)
        return {"received": True, "number": number, "files": kept}

    def _judge(
        self, form: StatementForm, about: dict[str, str], created: float, detector: Detector
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """statement.json, and the small pictures of the photos and frames."""
        videos, stills = _read_videos(form.videos, self._settings.seals)
        sent = [*form.photos, *form.frames, *stills]
        values: dict[str, Any] = {
            "claim_id": about["claim_id"],
            "side": about["side"],
            "received": int(now()),
            "text": form.text,
            "photos": [],
            "findings": [],
            "recommendation": None,
            "videos": videos,
            "recapture": None,
        }
        if sent:
            claim = self._judge_photos(sent, about["claim_id"], detector)
            found = claim.to_dict(heatmaps=False)
            values |= {"photos": found["photos"], "findings": found["reasons"]}
            values["recommendation"] = found["recommendation"]
            if form.frames:
                start = len(form.photos)
                frames = claim.photos[start : start + len(form.frames)]
                values["recapture"] = check_frames(form, frames, about["nonce"], created)
        pictures = small_pictures("photo", sent)
        files = {path.removeprefix(f"{PICTURES}/"): data for path, data in pictures.items()}
        if self._store.keep_originals:
            files |= dict(originals_of([*form.photos, *form.frames, *form.videos], []))
        return values, files

    def _judge_photos(
        self, photos: Sequence[tuple[str, bytes]], claim_id: str, detector: Detector
    ) -> Claim:
        """As those of a claim, compared with its own and the listing's pictures; nothing is
        remembered."""
        try:
            return judge_claim(
                photos,
                detector=detector,
                listings=self._earlier_pictures(claim_id),
                claim_id=claim_id,
                policy=self._policy,
                index=self._store.read_only_index,
                max_pixels=self._settings.max_pixels,
                trust_anchors=self._trust_anchors,
            )
        except PhotoError as error:
            raise Refusal(422, "unreadable_photo", str(error)) from error

    def _earlier_pictures(self, claim_id: str) -> list[tuple[str, bytes]]:
        """The small pictures of the listing and of the claim, as many as may be compared."""
        folder = self._store.claims / claim_id / PICTURES
        paths = files_named(folder, "listing-*.jpg") + files_named(folder, "photo-*.jpg")
        most = self._policy.photos.listings_at_most
        return [(path.name, path.read_bytes()) for path in paths[:most]]

    def _open_case(self, session: Session, claim_id: str) -> Case:
        case = self._cases._find(session, claim_id)
        if case.state in ("closed", "decided"):
            message = f"The case is {case.state}; an appeal opens it again."
            raise Refusal(409, "wrong_state", message)
        return case

    def _usable(self, session: Session, token: str) -> tuple[Link, Case]:
        link = session.get(Link, _digest(token))
        if link is None:
            raise Refusal(404, "link_unknown", "This link does not exist any more.")
        if link.used:
            raise Refusal(410, "link_used", "This link was used already. Ask for a new one.")
        if link.revoked:
            raise Refusal(410, "link_revoked", "There is a newer link. Use that one.")
        if link.expires <= now():
            raise Refusal(410, "link_expired", "This link has expired. Ask for a new one.")
        return link, self._open_case(session, link.claim_id)

    def _check_signature(self, token: str) -> None:
        """Forged links cost no look into the database. Raises Refusal 404, 410."""
        found = _TOKEN.fullmatch(token)
        expected = self._sign(found[1], int(found[2])) if found else ""
        if not found or not secrets.compare_digest(expected, found[3]):
            raise Refusal(404, "link_forged", "This link is damaged. Copy it again, whole.")
        if int(found[2]) <= now() - 1:
            raise Refusal(410, "link_expired", "This link has expired. Ask for a new one.")

    def _sign(self, random: str, expires: int) -> str:
        return self._store.secret.sign("link", f"{random}.{expires}")[:32]


def check_frames(
    form: StatementForm, frames: Sequence[Any], nonce: str, created: float
) -> dict[str, Any]:
    """What can be said of frames from the camera: their order, the nonce, and the product.

    frames: the judged photos. screen and virtual_camera are never checked: nothing here can tell.
    """
    taken = form.taken_ms()
    later = all(before < after for before, after in pairwise(taken))
    span = (taken[-1] - taken[0]) / 1000 if len(taken) > 1 else 0.0
    in_time = bool(taken) and taken[0] / 1000 > created - 300 and taken[-1] / 1000 < now() + 300
    compared = [found for frame in frames for _, found in frame.comparisons]
    outcomes = {found.outcome for found in compared}
    best = next((one for one in ("same_capture", "same_object") if one in outcomes), "unrelated")
    return {
        "frames": len(frames),
        "nonce_matches": secrets.compare_digest(form.nonce.encode(), nonce.encode()),
        "in_order": len(taken) == len(frames) and later and span <= _LONGEST_BURST_S,
        "after_the_link": in_time,
        "span_s": round(span, 2),
        "distinct": len({frame.sha256 for frame in frames}) == len(frames),
        "product": best if compared else "not_compared",
        "screen": "not_checked",
        "virtual_camera": "not_checked",
    }


def _read_videos(
    videos: Sequence[Upload], seals: Path | None
) -> tuple[list[dict[str, Any]], list[tuple[str, bytes]]]:
    """What each video's file says, and its sharpest frames as (name, JPEG).

    seals: the log of `realdamage seal`; tells whether the video existed when it was sealed. Raises
    Refusal 422 for a video that cannot be read.
    """
    facts: list[dict[str, Any]] = []
    stills: list[tuple[str, bytes]] = []
    if not videos:
        return facts, stills
    entries = EvidenceLog(seals).verify().entries if seals and seals.exists() else ()
    for video in videos:
        try:
            found = read_video(video.data, video.name)
        except PhotoError as error:
            # The link stays usable, so the sender can send another file.
            raise Refusal(422, error.code, str(error)) from error
        sealed = [
            {"time": entry["time"], "order": entry["payload"].get("order"), "hash": entry["hash"]}
            for entry in entries
            if entry["event"] == SEALED and entry["payload"].get("sha256") == found.sha256
        ]
        facts.append(found.to_dict() | {"sealed": sealed})
        stills += found.frames
    return facts, stills


def _takes_videos() -> bool:
    """Whether the extra for videos is installed."""
    return importlib.util.find_spec("av") is not None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
