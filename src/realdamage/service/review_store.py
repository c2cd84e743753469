"""What people decided about photos, kept as an append-only history: digests, names and decisions, never a photo."""

from __future__ import annotations

import math
import re
import sqlite3
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from realdamage.core.policy import Outcome
from realdamage.errors import RealDamageError, UsageError
from realdamage.service.storage import has_room

Decision = Literal["real", "synthetic", "unsure"]
# The manifest's words (data/vocabulary.py), which this room may not import; a test compares the two.
Damage = Literal[
    "",
    "cracked",
    "scratched",
    "stained",
    "dented",
    "torn",
    "holed",
    "creased",
    "crushed",
    "broken",
    "other",
]

LENGTHS = {"file_name": 255, "claim_id": 100, "note": 2000, "reviewer": 100, "model_version": 200}
"""Characters of each text, at most."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BUSY_SECONDS = 10.0


@dataclass(frozen=True)
class Review:
    """One person's decision on one photo, beside what the model said of it then.

    photo_sha256: of the photo's bytes. damage: what the photo shows, real or not; "" when nobody told.
    reviewer: the name that the person typed. key_name: of the API key that sent the decision, as in keys.txt; "" where
    no key is needed, and in decisions that older versions stored.
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
    key_name: str = ""
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
        for name, longest in LENGTHS.items():
            value = getattr(self, name)
            if len(value) > longest:
                raise UsageError(
                    f"{name}: {len(value)} characters, at most {longest} are kept; shorten it"
                )
            if any(
                unicodedata.category(letter) in ("Cc", "Cs")
                for letter in value
                if letter not in "\n\t"
            ):
                raise UsageError(f"{name}: has control characters; remove them")

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON types; an unknown score is null."""
        return asdict(self) | {"score": None if math.isnan(self.score) else self.score}


_COLUMNS = tuple(field.name for field in fields(Review))


class JudgedPhotos:
    """Digests of the photos that were judged last, in memory only; several threads may add at once.

    most: digests that are kept; the oldest go first. One takes some 200 bytes.
    """

    def __init__(self, most: int = 100_000) -> None:
        self._most, self._lock = most, threading.Lock()
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def add(self, sha256: str) -> None:
        """Remember a photo by the SHA-256 of its bytes, as hex digits."""
        digest = bytes.fromhex(sha256)
        with self._lock:
            self._digests[digest] = None
            self._digests.move_to_end(digest)
            if len(self._digests) > self._most:
                self._digests.popitem(last=False)

    def __contains__(self, sha256: str) -> bool:
        return bytes.fromhex(sha256) in self._digests


class ReviewStore:
    """Decisions in one SQLite file; safe to call from several threads, and from several processes on one file.

    path: the file, made when absent; None keeps everything in memory. On a full disk it is opened by the first call
    that needs it, so that the service can start. Raises RealDamageError when it cannot be used.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        if path is None or not path.exists() or has_room(path.parent):
            self._open()

    def _open(self) -> None:
        path = self.path
        with self._errors():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                path or ":memory:", timeout=_BUSY_SECONDS, check_same_thread=False
            )
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute(
                "PRAGMA secure_delete=ON"
            )  # a note that was deleted is not found in free pages
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")  # another process may be making the table
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS reviews (id INTEGER PRIMARY KEY AUTOINCREMENT, "
                    "photo_sha256 TEXT NOT NULL, decision TEXT NOT NULL, damage TEXT NOT NULL, "
                    "file_name TEXT NOT NULL, claim_id TEXT NOT NULL, note TEXT NOT NULL, reviewer TEXT NOT NULL, "
                    "key_name TEXT NOT NULL DEFAULT '', outcome TEXT, score REAL, "
                    "model_version TEXT NOT NULL, decided_at TEXT NOT NULL)"
                )
                columns = {row[1] for row in self._database.execute("PRAGMA table_info(reviews)")}
                if "key_name" not in columns:  # a file of an older version
                    self._database.execute(
                        "ALTER TABLE reviews ADD COLUMN key_name TEXT NOT NULL DEFAULT ''"
                    )
                self._database.execute(
                    "CREATE INDEX IF NOT EXISTS by_photo ON reviews (photo_sha256, id)"
                )

    def add(self, review: Review) -> Review:
        """Append a decision, dated now; earlier ones on the same photo stay in the history."""
        stored = Review(**(asdict(review) | {"decided_at": _iso(datetime.now(UTC))}))
        values = [
            None if isinstance(value, float) and math.isnan(value) else value
            for value in astuple(stored)
        ]
        marks = ", ".join("?" * len(_COLUMNS))
        with self._transaction() as database:
            database.execute(
                f"INSERT INTO reviews ({', '.join(_COLUMNS)}) VALUES ({marks})", values
            )
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
        return [Review(**with_nan(dict(zip(_COLUMNS, row, strict=True)))) for row in rows]

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
            return {"real": 0, "synthetic": 0, "unsure": 0} | dict(
                database.execute(query).fetchall()
            )

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
            if self._database is not None:
                self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            if self._database is None:
                try:
                    self._open()
                except RealDamageError:
                    self._database = None  # a part of the settings may be missing
                    raise
            assert self._database is not None
            with self._database:
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


def with_nan(values: dict[str, Any]) -> dict[str, Any]:
    """The values with NaN for an unknown score, which is null in JSON and in the file."""
    return values | {"score": math.nan if values["score"] is None else values["score"]}


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
