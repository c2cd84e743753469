"""What people decided about photos: an append-only history, and its export to train on."""

from __future__ import annotations

import csv
import io
import re
import sqlite3
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from realdamage.core.policy import Outcome
from realdamage.errors import RealDamageError
from realdamage.files import FORMULA
from realdamage.service.store import has_room

Decision = Literal["real", "synthetic", "unsure"]
# Those of data/vocabulary.py, which the service may not import; a test compares the two.
_Others = Literal["torn", "holed", "creased", "crushed", "broken", "other"]
Damage = Literal["", "cracked", "scratched", "stained", "dented", _Others]
FileNames = Literal["given", "sha256"]

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
_SCHEMA = """
CREATE TABLE IF NOT EXISTS reviews (
  id INTEGER PRIMARY KEY AUTOINCREMENT, photo_sha256 TEXT NOT NULL, decision TEXT NOT NULL,
  damage TEXT NOT NULL, file_name TEXT NOT NULL, claim_id TEXT NOT NULL, note TEXT NOT NULL,
  reviewer TEXT NOT NULL, key_name TEXT NOT NULL, outcome TEXT, score REAL,
  model_version TEXT NOT NULL, decided_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_photo ON reviews (photo_sha256, id);
"""


def _printable(text: str) -> str:
    for letter in text:
        if unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t":
            raise PydanticCustomError("invalid_review", "has control characters; remove them")
    return text


def _not_formula(text: str) -> str:
    if text.startswith(FORMULA):
        raise PydanticCustomError("invalid_review", "starts like a spreadsheet formula")
    return text


Text = Annotated[str, AfterValidator(_printable)]
Name = Annotated[Text, AfterValidator(_not_formula)]


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
    reviewer: Name = Field("", max_length=100, description="name that the person typed")
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


_COLUMNS = tuple(Review.model_fields)


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
    """Decisions in one SQLite file, for several threads and processes.

    path: None keeps everything in memory. On a full disk the file is opened by the first call
    that needs it, so that the service starts. Raises RealDamageError when it cannot be used.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        if path is None or not path.exists() or has_room(path.parent):
            self.counts()

    def add(self, review: Review) -> Review:
        """Append a decision, dated now; earlier ones on the same photo stay in the history."""
        stored = review.model_copy(update={"decided_at": _iso(datetime.now(UTC))})
        marks = ", ".join(f":{column}" for column in _COLUMNS)
        with self._transaction() as database:
            command = f"INSERT INTO reviews ({', '.join(_COLUMNS)}) VALUES ({marks})"
            database.execute(command, stored.model_dump())
        return stored

    def history(
        self, *, photos: Sequence[str] = (), claim_id: str | None = None, limit: int = -1
    ) -> list[Review]:
        """At most `limit` decisions of these photos or this claim only, the newest first."""
        where, values = ["1"], list(photos)
        if photos:
            where.append(f"photo_sha256 IN ({', '.join('?' * len(photos))})")
        if claim_id is not None:
            where.append("claim_id = ?")
            values.append(claim_id)
        query = f"SELECT {', '.join(_COLUMNS)} FROM reviews WHERE {' AND '.join(where)}"
        with self._transaction() as database:
            newest = f"{query} ORDER BY id DESC LIMIT ?"
            rows = database.execute(newest, [*values, limit]).fetchall()
        return [Review.model_construct(**dict(zip(_COLUMNS, row, strict=True))) for row in rows]

    def current(self) -> list[Review]:
        """The last decision on each photo, in the order they were made; the unsure ones too."""
        last: dict[str, Review] = {}
        for review in self.history():
            last.setdefault(review.photo_sha256, review)
        return list(last.values())[::-1]

    def counts(self) -> dict[str, int]:
        """How many photos are decided each way, by their last decision."""
        last = "SELECT max(id) FROM reviews GROUP BY photo_sha256"
        query = f"SELECT decision, count(*) FROM reviews WHERE id IN ({last}) GROUP BY decision"
        with self._transaction() as database:
            counted = dict(database.execute(query).fetchall())
        return {"real": 0, "synthetic": 0, "unsure": 0} | counted

    def delete(self, claim_id: str) -> int:
        """Remove every decision of a claim; returns how many."""
        with self._transaction() as database:
            return database.execute("DELETE FROM reviews WHERE claim_id = ?", [claim_id]).rowcount

    def purge(self, older_than_days: float) -> int:
        """Remove decisions made longer ago; returns how many."""
        oldest = _iso(datetime.now(UTC) - timedelta(days=older_than_days))
        with self._transaction() as database:
            return database.execute("DELETE FROM reviews WHERE decided_at < ?", [oldest]).rowcount

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        with self._lock:
            if self._database is not None:
                self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                if self._database is None:
                    self._database = self._open()
                with self._database:
                    yield self._database
        except (sqlite3.Error, OSError) as error:
            where = self.path or "decisions in memory"
            message = f"{where}: cannot store decisions: {error}. Check free space and permissions"
            raise RealDamageError(message, code="reviews_not_writable") from error

    def _open(self) -> sqlite3.Connection:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        path = self.path or ":memory:"
        database = sqlite3.connect(path, timeout=10.0, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA secure_delete = ON")  # deleted notes leave no free pages
            database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        except BaseException:
            database.close()
            raise
        return database


def export_manifest(reviews: Sequence[Review], names: FileNames = "given") -> str:
    """Decisions, one a photo, as a manifest (CSV, EXPORT_COLUMNS) without the unsure ones.

    names: "given" keeps the photos' own names, except those that are used twice or that no
    manifest may hold; "sha256" names each photo by its digest. A claim's photos are one group.
    """
    decided = [review for review in reviews if review.decision != "unsure"]
    text = io.StringIO()
    table = csv.DictWriter(text, EXPORT_COLUMNS, lineterminator="\n")
    table.writeheader()
    for review, file_name in zip(decided, _file_names(decided, names), strict=True):
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


def _file_names(reviews: Sequence[Review], names: FileNames) -> list[str]:
    chosen: list[str] = []
    taken: set[str] = set()
    for review in reviews:
        digest, path = review.photo_sha256, PurePosixPath(review.file_name)
        suffix = path.suffix.lower() if _SUFFIX.fullmatch(path.suffix.lower()) else ""
        name = review.file_name
        if names == "sha256" or not _is_plain(name):
            name = digest + suffix
        elif name.casefold() in taken:
            name = f"{path.stem}_{digest[:16]}{path.suffix}"
        if name.casefold() in taken:
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
