"""What people decided about photos: kept as an append-only history, and given back as a manifest to train on.

Digests, names and decisions only; a photo is never stored. Labels made this way are a biased sample (`BIAS_NOTICE`).
"""

from __future__ import annotations

import csv
import io
import math
import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from realdamage.inference.errors import RealDamageError, UsageError
from realdamage.inference.policy import Outcome
from realdamage.service.refusals import Refusal

Decision = Literal["real", "synthetic", "unsure"]
# The manifest's words (data/vocabulary.py), which this room may not import; a test compares the two.
Damage = Literal[
    "", "cracked", "scratched", "stained", "dented", "torn", "holed", "creased", "crushed", "broken", "other"
]
FileNames = Literal["given", "sha256"]

BIAS_NOTICE = (
    "Reviewed photos are a biased sample: only those that somebody looked at, mostly those the model was unsure about. "
    "Train on them beside other photos; do not calibrate thresholds or report figures on them."
)
EXPORT_COLUMNS = (
    *("file_name", "label", "kind", "condition", "damage", "group", "sha256"),
    *("label_source", "decided_by", "decided_at", "model_outcome", "model_score", "model_version"),
)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
_LENGTHS = {"file_name": 255, "claim_id": 100, "note": 2000, "reviewer": 100, "model_version": 200}
_FORMULA = ("=", "+", "-", "@")  # a spreadsheet would run a cell that starts so
_BUSY_SECONDS = 10.0


@dataclass(frozen=True)
class Review:
    """One person's decision on one photo, beside what the model said of it then.

    photo_sha256: of the photo's bytes. damage: what the photo shows, real or not; "" when nobody told.
    outcome, score: the model's; None and NaN when unknown. decided_at: UTC, ISO 8601, "" until it is stored.

    Raises UsageError on a value out of its range, naming the field.
    """

    photo_sha256: str
    decision: Decision
    damage: Damage = ""
    file_name: str = ""
    claim_id: str = ""
    note: str = ""
    reviewer: str = ""
    outcome: Outcome | None = None
    score: float = math.nan
    model_version: str = ""
    decided_at: str = ""

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.photo_sha256):
            raise UsageError(
                f"photo_sha256: found {self.photo_sha256[:80]!r}; expected 64 lower-case hexadecimal digits, "
                "as in the verdict"
            )
        for name, longest in _LENGTHS.items():
            value = getattr(self, name)
            if len(value) > longest:
                raise UsageError(f"{name}: {len(value)} characters, at most {longest} are kept; shorten it")
            if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value if letter not in "\n\t"):
                raise UsageError(f"{name}: has control characters; remove them")
        if self.reviewer.startswith(_FORMULA):
            raise UsageError(f"reviewer: found {self.reviewer!r}; a name cannot start with {self.reviewer[0]!r}")

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types; an unknown score is null."""
        return asdict(self) | {"score": None if math.isnan(self.score) else self.score}


_COLUMNS = tuple(field.name for field in fields(Review))


class ReviewStore:
    """Decisions in one SQLite file; safe to call from several threads, and from several processes on one file.

    path: the file, made when absent; None keeps everything in memory. Raises RealDamageError when it cannot be used.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._errors():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path or ":memory:", timeout=_BUSY_SECONDS, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            with self._database:
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS reviews (id INTEGER PRIMARY KEY AUTOINCREMENT, "
                    "photo_sha256 TEXT NOT NULL, decision TEXT NOT NULL, damage TEXT NOT NULL, "
                    "file_name TEXT NOT NULL, claim_id TEXT NOT NULL, note TEXT NOT NULL, reviewer TEXT NOT NULL, "
                    "outcome TEXT, score REAL, "
                    "model_version TEXT NOT NULL, decided_at TEXT NOT NULL)"
                )
                self._database.execute("CREATE INDEX IF NOT EXISTS by_photo ON reviews (photo_sha256, id)")

    def add(self, review: Review) -> Review:
        """Append a decision, dated now; earlier ones on the same photo stay in the history."""
        stored = Review(**(asdict(review) | {"decided_at": _iso(datetime.now(UTC))}))
        values = [None if isinstance(value, float) and math.isnan(value) else value for value in astuple(stored)]
        marks = ", ".join("?" * len(_COLUMNS))
        with self._transaction() as database:
            database.execute(f"INSERT INTO reviews ({', '.join(_COLUMNS)}) VALUES ({marks})", values)
        return stored

    def history(
        self, *, photos: Sequence[str] = (), claim_id: str | None = None, limit: int | None = None
    ) -> list[Review]:
        """Decisions, the newest first: of these photos (digests) or this claim only, and at most `limit`."""
        where, values = ["1"], list(photos)
        if photos:
            where.append(f"photo_sha256 IN ({', '.join('?' * len(photos))})")
        if claim_id is not None:
            where.append("claim_id = ?")
            values.append(claim_id)
        query = f"SELECT {', '.join(_COLUMNS)} FROM reviews WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?"
        with self._transaction() as database:
            rows = database.execute(query, [*values, -1 if limit is None else limit]).fetchall()
        return [Review(**_known(dict(zip(_COLUMNS, row, strict=True)))) for row in rows]

    def current(self) -> list[Review]:
        """The last decision on each photo, in the order they were made; the unsure ones too."""
        last: dict[str, Review] = {}
        for review in self.history():
            last.setdefault(review.photo_sha256, review)
        return list(last.values())[::-1]

    def counts(self) -> dict[str, int]:
        """How many photos are decided each way, by their last decision."""
        made = [review.decision for review in self.current()]
        return {"real": made.count("real"), "synthetic": made.count("synthetic"), "unsure": made.count("unsure")}

    def export(self, names: FileNames = "given") -> str:
        """The last decision on each photo as a manifest (CSV, EXPORT_COLUMNS); the unsure ones are left out.

        names: "given" keeps the photos' own names; a name used twice, or one that no manifest may hold, gets digits of
        its digest. "sha256" names every photo by its digest. The photos of one claim are one group.
        """
        decided = [review for review in self.current() if review.decision != "unsure"]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(EXPORT_COLUMNS)
        for review, file_name in zip(decided, _file_names(decided, names), strict=True):
            really_damaged = review.decision == "real" and review.damage != ""
            kind = "damaged" if really_damaged else "original" if review.decision == "real" else ""
            group = _cell(f"claim {review.claim_id}") if review.claim_id else ""
            table.writerow(
                (
                    *(file_name, review.decision, kind, "damaged" if really_damaged else "unknown", review.damage),
                    *(group, review.photo_sha256, "review", _cell(review.reviewer), review.decided_at),
                    review.outcome or "",
                    "" if math.isnan(review.score) else review.score,
                    _cell(review.model_version),
                )
            )
        return text.getvalue()

    def delete(self, claim_id: str) -> int:
        """Forget every decision of a claim; how many there were."""
        with self._transaction() as database:
            return database.execute("DELETE FROM reviews WHERE claim_id = ?", [claim_id]).rowcount

    def purge(self, older_than_days: float) -> int:
        """Forget decisions made longer ago than this; how many there were."""
        oldest = _iso(datetime.now(UTC) - timedelta(days=older_than_days))
        with self._transaction() as database:
            return database.execute("DELETE FROM reviews WHERE decided_at < ?", [oldest]).rowcount

    def close(self) -> None:
        """Give the file back; the store cannot be used afterwards."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors(), self._database:
            yield self._database

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise RealDamageError(
                f"{self.path or 'decisions in memory'}: decisions cannot be kept there ({error}). "
                "Name another file, or move one that is no SQLite database away"
            ) from error


class ReviewRequest(BaseModel):
    """A decision as the page sends it; what the model said travels along, because the server keeps no verdicts."""

    model_config = ConfigDict(extra="forbid")

    photo_sha256: str = Field(description="of the photo's bytes, as in its verdict", pattern="^[0-9a-f]{64}$")
    decision: Decision
    damage: Damage = Field("", description="what the photo shows, real or not; empty: not told")
    file_name: str = Field("", max_length=_LENGTHS["file_name"])
    claim_id: str = Field("", max_length=_LENGTHS["claim_id"])
    note: str = Field("", max_length=_LENGTHS["note"])
    reviewer: str = Field("", max_length=_LENGTHS["reviewer"])
    outcome: Outcome | None = Field(None, description="the verdict's outcome when the decision was made")
    score: float | None = Field(None, description="the verdict's score", allow_inf_nan=False)
    model_version: str = Field("", max_length=_LENGTHS["model_version"])

    def to_review(self) -> Review:
        """The typed value. Raises UsageError on what the schema cannot tell, such as control characters."""
        return Review(**_known(self.model_dump()))


def router(store: ReviewStore) -> APIRouter:
    """The routes under /v1/reviews, over this store."""
    routes = APIRouter(prefix="/v1/reviews", tags=["reviews"])

    @routes.post("", status_code=201, summary="Store a person's decision on a photo")
    def add(request: ReviewRequest) -> dict[str, Any]:
        try:
            review = request.to_review()
        except UsageError as error:
            raise Refusal(422, "invalid_review", str(error)) from error
        return store.add(review).to_dict()

    @routes.get("", summary="Decisions, the newest first; on_disk tells whether they outlive the service")
    def history(
        photo_sha256: Annotated[list[str] | None, Query(max_length=100)] = None,
        claim_id: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> dict[str, Any]:
        found = store.history(photos=photo_sha256 or (), claim_id=claim_id, limit=limit)
        return {
            "reviews": [review.to_dict() for review in found],
            "counts": store.counts(),
            "on_disk": store.path is not None,
            "notice": BIAS_NOTICE,
        }

    @routes.get("/export", response_class=Response, summary="Decided photos as a manifest (CSV) to train on")
    def export(
        names: Annotated[FileNames, Query(description="the photos' own names, or their digests")] = "given",
    ) -> Response:
        """Put the photos beside it and name it metadata.csv. Only the last decision on a photo counts; those that
        nobody was sure about are left out. Such labels are a biased sample: only photos that somebody looked at."""
        headers = {
            "Content-Disposition": 'attachment; filename="metadata.csv"',
            "X-Realdamage-Notice": BIAS_NOTICE,
            "X-Realdamage-Left-Out": str(store.counts()["unsure"]),
        }
        return Response(store.export(names), media_type="text/csv; charset=utf-8", headers=headers)

    return routes


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"score": math.nan if values["score"] is None else values["score"]}


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _cell(text: str) -> str:
    """`text` as one line that no spreadsheet takes for a formula."""
    return " ".join(text.split()).lstrip("".join(_FORMULA) + " ")


def _file_names(reviews: Sequence[Review], names: FileNames) -> list[str]:
    taken: set[str] = set()
    chosen = []
    for review in reviews:
        digest, path = review.photo_sha256, PurePosixPath(review.file_name)
        suffix = path.suffix.lower() if _SUFFIX.fullmatch(path.suffix.lower()) else ""
        name = review.file_name
        if names == "sha256" or not _plain(name):
            name = digest + suffix
        elif name.casefold() in taken:
            name = f"{path.stem}_{digest[:16]}{path.suffix}"
        name = digest + suffix if name.casefold() in taken else name
        taken.add(name.casefold())
        chosen.append(name)
    return chosen


def _plain(name: str) -> bool:
    """Whether a manifest, a file system and a spreadsheet all take the name for what it is."""
    if name != name.strip() or any(letter in name for letter in '/\\:\n\t"*?<>|'):
        return False
    return name != "" and not name.startswith((*_FORMULA, ".")) and name.casefold() != "metadata.csv"
