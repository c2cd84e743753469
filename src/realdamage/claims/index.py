"""Remembers which photos earlier claims brought, as hashes and claim ids only: never a photo, a file name or a text.

SQLite in WAL mode, one connection a thread, so that several threads and processes read and write at once. Every search
compares the 64-bit hashes of *all* photos (8 bytes each, kept in memory and topped up with what was added since), which
finds whatever lies within the radius and takes about a millisecond for 100,000; bands of bits would miss light crops,
whose distance is above what four 16-bit bands can promise (3). Candidates are then compared as `sightings` does.
"""

from __future__ import annotations

import datetime as dt
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from realdamage.claims.decide import Duplicate
from realdamage.claims.index import COARSE_RADIUS, Fingerprint, match, take_fingerprint
from realdamage.core.fingerprint import PhotoHash
from realdamage.core.tiles import PixelSpec, read_photo
from realdamage.errors import RealDamageError, UsageError

_VERSION = 1
_APPLICATION = (
    0x7264_6D67  # "rdmg", in the header of the file: another program's database is not written to
)
_WAIT_S = 30.0  # for another process that is writing
_MOST = 50  # findings a photo: who repeats a photo more often is known by then
_OLDEST_DAYS = 36_500
_CANDIDATES = 500  # rows a query, below SQLite's oldest limit of 999 parameters
_SCHEMA = """
CREATE TABLE IF NOT EXISTS photos (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  claim_id TEXT NOT NULL, number INTEGER NOT NULL, seen TEXT NOT NULL, sha256 BLOB NOT NULL,
  coarse INTEGER NOT NULL, fine BLOB NOT NULL, thumbnail BLOB NOT NULL,
  UNIQUE (claim_id, sha256)
);
CREATE INDEX IF NOT EXISTS photos_sha256 ON photos (sha256);
CREATE INDEX IF NOT EXISTS photos_coarse ON photos (id, coarse);
CREATE INDEX IF NOT EXISTS photos_seen ON photos (seen);
"""


class _Connection(threading.local):
    """What one thread holds: its connection, and the hashes that it has read so far."""

    def __init__(self) -> None:
        self.sqlite: sqlite3.Connection | None = None
        self.ids: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self.coarse: npt.NDArray[np.uint64] = np.empty(0, np.uint64)


class ClaimIndex:
    """The index in one file, made when it is not there; use it in a `with`, or `close` it.

    counts(claim_id, earlier): whether photos of that claim may be found; all are without it. `earlier`: they were added
    before those of the claim that asks. Methods raise RealDamageError, naming the file, when it is another program's or
    cannot be read or written.
    """

    def __init__(
        self, path: str | Path, *, counts: Callable[[str, bool], bool] = lambda _, earlier: True
    ) -> None:
        self.path = Path(path)
        self._counts = counts
        self._own = _Connection()
        self._opened: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str | Path) -> ClaimIndex:
        """The index in this file, checked."""
        index = cls(path)
        index.check()
        return index

    def check(self) -> None:
        """Refuse a file that is no index now, not in the middle of a claim."""
        with self._transaction():
            pass

    def __enter__(self) -> ClaimIndex:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """How many photos are remembered."""
        with self._transaction(write=False) as sqlite:
            return int(sqlite.execute("SELECT count(*) FROM photos").fetchone()[0])

    def has_photo(self, sha256: str) -> bool:
        """Whether a claim brought the file with this SHA-256, as hex digits."""
        with self._transaction(write=False) as sqlite:
            found = sqlite.execute(
                "SELECT 1 FROM photos WHERE sha256 = ? LIMIT 1", (bytes.fromhex(sha256),)
            )
            return found.fetchone() is not None

    def add(
        self, claim_id: str, photos: Sequence[tuple[str, bytes]], *, seen: str | None = None
    ) -> int:
        """Remember the photos (name, bytes) of a claim; returns how many were new. Names are not stored.

        Raises PhotoError when one cannot be read; nothing is stored then.
        """
        return self.add_fingerprints(
            claim_id, [_fingerprint_of(name, data) for name, data in photos], seen=seen
        )

    def add_fingerprints(
        self, claim_id: str, photos: Iterable[Fingerprint], *, seen: str | None = None
    ) -> int:
        """`add` of photos whose fingerprints were taken before. Photos that the claim has already keep their time."""
        if not claim_id:
            raise UsageError("the index: a claim needs a claim_id to be remembered by")
        seen = seen or dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        with self._transaction() as sqlite:
            (number,) = sqlite.execute(
                "SELECT count(*) FROM photos WHERE claim_id = ?", (claim_id,)
            ).fetchone()
            before = number
            for photo in photos:
                cursor = sqlite.execute(
                    "INSERT OR IGNORE INTO photos (claim_id, number, seen, sha256, coarse, fine, thumbnail) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (claim_id, number + 1, seen, bytes.fromhex(photo.sha256), *_to_row(photo.seen)),
                )
                number += cursor.rowcount
        return int(number - before)

    def find(
        self, photo: bytes, *, name: str = "photo", other_than: str = ""
    ) -> tuple[Duplicate, ...]:
        """Where a photo was seen, nearest first and at most 50; `other_than`: the photo's own claim, which is left out.

        Raises PhotoError when it cannot be read.
        """
        return self.find_fingerprint(_fingerprint_of(name, photo), name=name, other_than=other_than)

    def find_fingerprint(
        self, photo: Fingerprint, *, name: str = "photo", other_than: str = ""
    ) -> tuple[Duplicate, ...]:
        """`find` of a photo whose fingerprint was taken before."""
        found = []
        with self._transaction(write=False) as sqlite:
            self._top_up(sqlite)
            own = np.array([photo.seen.coarse, photo.mirror.coarse], np.uint64)
            near = (np.bitwise_count(own[:, None] ^ self._own.coarse) <= COARSE_RADIUS).any(axis=0)
            ids = {int(row) for row in self._own.ids[near]}
            exact = sqlite.execute(
                "SELECT id FROM photos WHERE sha256 = ?", (bytes.fromhex(photo.sha256),)
            )
            rows = list(_rows(sqlite, sorted(ids | {row for (row,) in exact})))
            first = min((row[0] for row in rows if row[1] == other_than), default=0)
            for row_id, claim_id, number, seen, sha256, coarse, fine, thumbnail in rows:
                same = (
                    match(photo, sha256.hex(), _from_row(coarse, fine, thumbnail))
                    if claim_id != other_than
                    else None
                )
                if same is not None:
                    bits, is_exact, mirrored = same
                    one = Duplicate(
                        name, f"photo {number}", claim_id, bits, is_exact, seen, mirrored
                    )
                    found.append((one, row_id < first))
        found.sort(
            key=lambda pair: (
                not pair[0].exact,
                pair[0].distance,
                pair[0].seen,
                pair[0].claim_id,
                pair[0].of,
            )
        )
        counted = (one for one, earlier in found if self._counts(one.claim_id, earlier))
        return tuple(itertools.islice(counted, _MOST))

    def delete(self, claim_id: str) -> int:
        """Forget a claim; returns how many photos it had. The file's pages are overwritten with zeros."""
        with self._transaction() as sqlite:
            return sqlite.execute("DELETE FROM photos WHERE claim_id = ?", (claim_id,)).rowcount

    def purge(self, older_than_days: float) -> int:
        """Forget the photos seen longer ago; returns how many. Raises UsageError unless 0 <= age <= 36,500 days."""
        if not 0 <= older_than_days <= _OLDEST_DAYS:
            raise UsageError(
                f"older_than_days={older_than_days:g}: must be a number of days in 0..{_OLDEST_DAYS}"
            )
        limit = dt.datetime.now(dt.UTC) - dt.timedelta(days=older_than_days)
        with self._transaction() as sqlite:
            return sqlite.execute(
                "DELETE FROM photos WHERE seen < ?", (limit.isoformat(timespec="seconds"),)
            ).rowcount

    def close(self) -> None:
        """Close the connections of all threads; none may be in use."""
        with self._lock:
            for sqlite in self._opened:
                sqlite.close()
            self._opened.clear()
        self._own = _Connection()

    def _top_up(self, sqlite: sqlite3.Connection) -> None:
        """Read the hashes added since. Ids are never used twice, so what was deleted just finds no row any more."""
        last = int(self._own.ids[-1]) if len(self._own.ids) else 0
        # From the index alone, which is a tenth of the table.
        rows = sqlite.execute(
            "SELECT id, coarse FROM photos INDEXED BY photos_coarse WHERE id > ? ORDER BY id",
            (last,),
        )
        added = np.fromiter(itertools.chain.from_iterable(rows), np.int64).reshape(-1, 2)
        if len(added):
            self._own.ids = np.concatenate([self._own.ids, added[:, 0]])
            self._own.coarse = np.concatenate(
                [self._own.coarse, added[:, 1].copy().view(np.uint64)]
            )

    @contextmanager
    def _transaction(self, write: bool = True) -> Iterator[sqlite3.Connection]:
        try:
            sqlite = self._own.sqlite or self._connect()
            sqlite.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield sqlite
            except BaseException:
                sqlite.rollback()
                raise
            sqlite.commit()
        except sqlite3.Error as error:
            raise RealDamageError(
                f"{self.path}: the index of claims cannot be used: {error}. Check that the file is one, that its "
                "folder can be written, and that the disk has room"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        if not self.path.parent.is_dir():
            raise UsageError(
                f"{self.path}: the index of claims cannot be made: no folder {self.path.parent}"
            )
        sqlite = sqlite3.connect(
            self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(sqlite)
        except BaseException:
            sqlite.close()
            raise
        with self._lock:
            self._opened.append(sqlite)
        self._own.sqlite = sqlite
        return sqlite

    def _prepare(self, sqlite: sqlite3.Connection) -> None:
        # Tables first: another process may be making them, and writes the two numbers in the same transaction.
        tables = sqlite.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application, version = (
            sqlite.execute(f"PRAGMA {key}").fetchone()[0]
            for key in ("application_id", "user_version")
        )
        if tables and (application, version) != (_APPLICATION, _VERSION):
            raise RealDamageError(
                f"{self.path}: not an index of claims of this version (application {application:#x}, version "
                f"{version}); name another file, and it will be made"
            )
        if sqlite.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            sqlite.execute("PRAGMA journal_mode = WAL")
        sqlite.execute("PRAGMA synchronous = NORMAL")
        sqlite.execute("PRAGMA secure_delete = ON")
        if not tables:
            sqlite.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_VERSION}; "
                "COMMIT;"
            )


def _fingerprint_of(name: str, data: bytes) -> Fingerprint:
    photo = read_photo(data, PixelSpec(), name=name)
    return take_fingerprint(photo.rgb, photo.sha256)


def _rows(
    sqlite: sqlite3.Connection, ids: Sequence[int]
) -> Iterator[tuple[int, str, int, str, bytes, int, bytes, bytes]]:
    for start in range(0, len(ids), _CANDIDATES):
        some = ids[start : start + _CANDIDATES]
        marks = ",".join("?" * len(some))
        yield from sqlite.execute(
            f"SELECT id, claim_id, number, seen, sha256, coarse, fine, thumbnail FROM photos WHERE id IN ({marks})",
            some,
        )


def _to_row(found: PhotoHash) -> tuple[int, bytes, bytes]:
    """The thumbnail in 8 bits a value: its correlation moves by less than a thousandth."""
    thumbnail = np.clip(np.rint(found.thumbnail * 512), -127, 127).astype(np.int8)
    return (
        int(np.uint64(found.coarse).view(np.int64)),
        found.fine.astype("<u8").tobytes(),
        thumbnail.tobytes(),
    )


def _from_row(coarse: int, fine: bytes, thumbnail: bytes) -> PhotoHash:
    values = np.frombuffer(thumbnail, np.int8).astype(np.float32)
    length = float(np.linalg.norm(values))
    return PhotoHash(
        np.int64(coarse).view(np.uint64),
        np.frombuffer(fine, "<u8").astype(np.uint64),
        values / length if length else values,
    )
