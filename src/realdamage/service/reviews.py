"""What people decided about photos: an append-only history, and its export to train on."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Delete, delete, func, select

from realdamage.claims.database import Database
from realdamage.claims.database import Review as Row
from realdamage.core.policy import Outcome
from realdamage.files import FORMULA
from realdamage.service.schemas import Text

Decision = Literal["real", "synthetic", "unsure"]
# Those of data/vocabulary.py, which the service may not import; a test compares the two.
_Others = Literal["torn", "holed", "creased", "crushed", "broken", "other"]
Damage = Literal["", "cracked", "scratched", "stained", "dented", _Others]

BIAS_NOTICE = (
    "Reviewed photos are a biased sample: only those that somebody looked at, mostly those the "
    "model was unsure about. Train on them together with other photos; do not calibrate "
    "thresholds or report figures on them."
)
EXPORT_COLUMNS = (
    *("file_name", "label", "kind", "condition", "damage", "group", "sha256", "label_source"),
    *("decided_by", "decided_key", "decided_at", "model_outcome", "model_score", "model_version"),
)
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


class ReviewRequest(BaseModel):
    """A decision as the page sends it, with what the model said: the server keeps no verdicts."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    photo_sha256: str = Field(
        description="SHA-256 of the photo's bytes, as in its verdict: 64 lower-case hex digits",
        pattern="^[0-9a-f]{64}$",
    )
    decision: Decision = Field(description="what the person decided")
    damage: Damage = Field("", description="what the photo shows, real or not; empty: unknown")
    file_name: Text = Field("", max_length=255)
    claim_id: Text = Field("", max_length=100)
    note: Text = Field("", max_length=2000)
    reviewer: Text = Field("", max_length=100, description="name that the person typed")
    outcome: Outcome | None = Field(None, description="the verdict's outcome at that time")
    score: float | None = Field(None, description="the verdict's score", allow_inf_nan=False)
    model_version: Text = Field("", max_length=200)


class Review(ReviewRequest):
    """A decision as stored."""

    key_name: str = Field("", description="name of the API key that sent it")
    decided_at: str = Field("", description="UTC, ISO 8601")


class History(BaseModel):
    """Stored decisions, the newest first."""

    reviews: list[Review]
    counts: dict[str, int] = Field(description="photos by their last decision")
    on_disk: bool = Field(description="whether decisions outlive the service")
    notice: str


class JudgedPhotos:
    """SHA-256 of the last `most` judged photos, in memory; several threads may add."""

    def __init__(self, most: int = 100_000) -> None:
        self._most, self._lock = most, threading.Lock()
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def add(self, sha256: str) -> None:
        digest = bytes.fromhex(sha256)
        with self._lock:
            self._digests[digest] = None
            self._digests.move_to_end(digest)
            if len(self._digests) > self._most:
                self._digests.popitem(last=False)

    def __contains__(self, sha256: str) -> bool:
        return bytes.fromhex(sha256) in self._digests


class ReviewStore:
    """Decisions about photos in a database, for several threads and processes."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, review: Review) -> Review:
        """Append a decision, dated now; earlier ones on the same photo stay in the history."""
        stored = review.model_copy(update={"decided_at": _iso(datetime.now(UTC))})
        with self.database.transaction() as session:
            session.add(Row(**stored.model_dump()))
        return stored

    def history(
        self, *, photos: Sequence[str] = (), claim_id: str | None = None, limit: int | None = None
    ) -> list[Review]:
        """At most `limit` decisions of these photos or this claim only, the newest first."""
        query = select(Row).order_by(Row.id.desc()).limit(limit)
        if photos:
            query = query.where(Row.photo_sha256.in_(photos))
        if claim_id is not None:
            query = query.where(Row.claim_id == claim_id)
        with self.database.reading() as session:
            return [
                Review.model_construct(**{name: getattr(row, name) for name in Review.model_fields})
                for row in session.scalars(query)
            ]

    def current(self) -> list[Review]:
        """The last decision on each photo, in the order they were made; the unsure ones too."""
        last: dict[str, Review] = {}
        for review in self.history():
            last.setdefault(review.photo_sha256, review)
        return list(last.values())[::-1]

    def counts(self) -> dict[str, int]:
        """How many photos are decided each way, by their last decision."""
        last = select(func.max(Row.id)).group_by(Row.photo_sha256)
        query = select(Row.decision, func.count()).where(Row.id.in_(last)).group_by(Row.decision)
        with self.database.reading() as session:
            counted = {row[0]: row[1] for row in session.execute(query)}
        return {"real": 0, "synthetic": 0, "unsure": 0} | counted

    def delete(self, claim_id: str) -> int:
        """Remove every decision of a claim; returns how many."""
        return self._remove(delete(Row).where(Row.claim_id == claim_id))

    def purge(self, older_than_days: float) -> int:
        """Remove decisions made longer ago; returns how many."""
        oldest = _iso(datetime.now(UTC) - timedelta(days=older_than_days))
        return self._remove(delete(Row).where(Row.decided_at < oldest))

    def _remove(self, rows: Delete) -> int:
        with self.database.transaction() as session:
            gone: Any = session.execute(rows)
            return int(gone.rowcount)


def export_manifest(reviews: Sequence[Review]) -> str:
    """Decisions, one a photo, as a manifest (CSV) without the unsure ones. Photos keep their names
    where a manifest may hold them; the others are called by their digests."""
    decided = [review for review in reviews if review.decision != "unsure"]
    text = io.StringIO()
    table = csv.DictWriter(text, EXPORT_COLUMNS, lineterminator="\n")
    table.writeheader()
    for review, file_name in zip(decided, _file_names(decided), strict=True):
        is_real = review.decision == "real"
        really_damaged = is_real and review.damage != ""
        table.writerow(
            {
                "file_name": file_name,
                "label": review.decision,
                "kind": ("damaged" if really_damaged else "original") if is_real else "",
                "condition": "damaged" if really_damaged else "unknown",
                "damage": review.damage,
                "group": _cell(f"claim {review.claim_id}") if review.claim_id else "",
                "sha256": review.photo_sha256,
                "label_source": "review",
                "decided_by": _cell(review.reviewer),
                "decided_key": _cell(review.key_name),
                "decided_at": review.decided_at,
                "model_outcome": review.outcome or "",
                "model_score": "" if review.score is None else review.score,
                "model_version": _cell(review.model_version),
            }
        )
    return text.getvalue()


def _cell(text: str) -> str:
    """`text` as one line that no spreadsheet takes for a formula."""
    return " ".join(text.split()).lstrip("".join(FORMULA) + " ")


def _file_names(reviews: Sequence[Review]) -> list[str]:
    chosen: list[str] = []
    taken: set[str] = set()
    for review in reviews:
        digest, path = review.photo_sha256, PurePosixPath(review.file_name)
        suffix = path.suffix.lower() if _SUFFIX.fullmatch(path.suffix.lower()) else ""
        name = review.file_name
        if not _is_plain(name) or name.casefold() in taken:
            name = digest + suffix
        taken.add(name.casefold())
        chosen.append(name)
    return chosen


def _is_plain(name: str) -> bool:
    """Whether a manifest, a file system and a spreadsheet all accept the name unchanged."""
    if name != name.strip() or any(letter in name for letter in '/\\:\n\t"*?<>|'):
        return False
    return name != "" and not name.startswith((*FORMULA, ".")) and name.casefold() != "metadata.csv"


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
