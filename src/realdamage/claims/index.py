"""Remembers the photos of earlier claims as hashes and claim ids: no photo, file name or text.

Stricter than in a training set (data/duplicates.py), since a person's claim depends on it: two
shots of one thing are different photos, and plain surfaces match only byte by byte.

SQLite in WAL mode, one connection a thread. Every search compares the 64-bit hashes of *all* photos
(8 bytes each, cached), about a millisecond for 100,000; bands of bits would miss light crops.
"""

from __future__ import annotations

import datetime as dt
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from realdamage.claims.decide import Duplicate
from realdamage.core.decode import UInt8Array
from realdamage.core.fingerprint import PhotoHash, perceptual_hash
from realdamage.errors import RealDamageError, UsageError

COARSE_RADIUS = 12
"""Bits of 64 in which candidates may differ."""
FINE_RADIUS = 32
"""Bits of 256 in which the same photo may differ. Re-saves down to a third of the side stay below
15, half of the crops by 2% below 34; from 38 on, photos of two similar products on one shelf match
(data/results/LOG.md)."""
CORRELATION = 0.93
"""Of the thumbnails, at least."""
_PLAIN_CONTRAST = 4.0  # grey levels over the frame of any channel: a coloured wall has less
_VERSION = 1
_APPLICATION = 0x7264_6D67  # "rdmg", in the file's header: other programs' databases are left alone
_WAIT_S = 30.0  # for another process that is writing
_MOST = 50  # findings a photo: more do not help anybody
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


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """sha256: hex digest of the bytes. seen, mirror: hashes of the photo, and of it mirrored."""

    sha256: str
    seen: PhotoHash
    mirror: PhotoHash


def take_fingerprint(rgb: UInt8Array, sha256: str) -> Fingerprint:
    """The fingerprint of decoded pixels, uint8 [h, w, 3]. Raises MissingExtraError without
    imagehash."""
    photo = Image.fromarray(rgb)
    photo.thumbnail((512, 512), Image.Resampling.BOX)
    small = np.asarray(photo.resize((16, 16), Image.Resampling.BOX), np.float32)
    turned = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    hashes = [perceptual_hash(one) for one in (photo, turned)]
    if float(small.std(axis=(0, 1)).max()) < _PLAIN_CONTRAST:
        hashes = [one._replace(thumbnail=np.zeros_like(one.thumbnail)) for one in hashes]
    return Fingerprint(sha256, *hashes)


def distance(a: PhotoHash, b: PhotoHash) -> int | None:
    """Bits of 256 between two photos that count as the same; None for others and plain ones."""
    if int(np.bitwise_count(a.coarse ^ b.coarse)) > COARSE_RADIUS:
        return None
    bits = int(np.bitwise_count(a.fine ^ b.fine).sum())
    if bits > FINE_RADIUS or float(a.thumbnail @ b.thumbnail) < CORRELATION:
        return None
    return bits


def _match(photo: Fingerprint, sha256: str, other: PhotoHash) -> tuple[int, bool, bool] | None:
    """(distance, exact, mirrored) when the other photo is the same one; None otherwise."""
    if photo.sha256 == sha256:
        return 0, True, False
    for mirrored, own in ((False, photo.seen), (True, photo.mirror)):
        if (bits := distance(own, other)) is not None:
            return bits, False, mirrored
    return None


def repeats(photos: Sequence[tuple[str, Fingerprint]]) -> list[Duplicate]:
    """Photos of one claim that repeat an earlier one: each pair once, under the later photo."""
    found = []
    for index, (name, photo) in enumerate(photos):
        for earlier, other in photos[:index]:
            if (same := _match(photo, other.sha256, other.seen)) is not None:
                bits, exact, mirrored = same
                found.append(Duplicate(name, earlier, "", bits, exact, "", mirrored))
    return found


class _Connection(threading.local):
    """What one thread has: its connection, and the hashes that it has read so far."""

    def __init__(self) -> None:
        self.sqlite: sqlite3.Connection | None = None
        self.ids: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self.coarse: npt.NDArray[np.uint64] = np.empty(0, np.uint64)


class ClaimIndex:
    """The index in one file, made on first use; use it in a `with`, or `close` it.

    counts(claim_id, earlier): whether photos of that claim may be found; `earlier`: added before
    those of the claim that asks. Methods raise RealDamageError, naming the file.
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
        """Refuse a file that is not an index now, not in the middle of a claim."""
        with self._transaction():
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """How many photos are remembered."""
        with self._transaction(write=False) as sqlite:
            return int(sqlite.execute("SELECT count(*) FROM photos").fetchone()[0])

    def has_photo(self, sha256: str) -> bool:
        """Whether a claim had the file with this SHA-256, as hex digits."""
        query = "SELECT 1 FROM photos WHERE sha256 = ? LIMIT 1"
        with self._transaction(write=False) as sqlite:
            return sqlite.execute(query, (bytes.fromhex(sha256),)).fetchone() is not None

    def add_fingerprints(
        self, claim_id: str, photos: Iterable[Fingerprint], *, seen: str | None = None
    ) -> int:
        """Remember the photos of a claim; returns how many were new. Old ones keep their time."""
        if not claim_id:
            raise UsageError("the index needs the claim_id of a claim")
        seen = seen or dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        count = "SELECT count(*) FROM photos WHERE claim_id = ?"
        with self._transaction() as sqlite:
            before = number = int(sqlite.execute(count, (claim_id,)).fetchone()[0])
            for photo in photos:
                cursor = sqlite.execute(
                    "INSERT OR IGNORE INTO photos "
                    "(claim_id, number, seen, sha256, coarse, fine, thumbnail) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (claim_id, number + 1, seen, bytes.fromhex(photo.sha256), *_to_row(photo.seen)),
                )
                number += cursor.rowcount
        return number - before

    def find_fingerprint(
        self, photo: Fingerprint, *, name: str = "photo", other_than: str = ""
    ) -> tuple[Duplicate, ...]:
        """Where a photo was seen, nearest first, at most 50. other_than: the photo's own claim."""
        found = []
        exact = "SELECT id FROM photos WHERE sha256 = ?"
        with self._transaction(write=False) as sqlite:
            self._top_up(sqlite)
            own = np.array([photo.seen.coarse, photo.mirror.coarse], np.uint64)
            near = (np.bitwise_count(own[:, None] ^ self._own.coarse) <= COARSE_RADIUS).any(axis=0)
            ids = {int(row) for row in self._own.ids[near]}
            ids |= {row for (row,) in sqlite.execute(exact, (bytes.fromhex(photo.sha256),))}
            rows = list(_rows(sqlite, sorted(ids)))
            first = min((row[0] for row in rows if row[1] == other_than), default=0)
            for row_id, claim_id, number, seen, sha256, coarse, fine, thumbnail in rows:
                if claim_id == other_than:
                    continue
                other = _from_row(coarse, fine, thumbnail)
                if (same := _match(photo, sha256.hex(), other)) is not None:
                    bits, is_exact, mirrored = same
                    of = f"photo {number}"
                    one = Duplicate(name, of, claim_id, bits, is_exact, seen, mirrored)
                    found.append((one, row_id < first))
        found.sort(key=lambda pair: _nearest_first(pair[0]))
        counted = (one for one, earlier in found if self._counts(one.claim_id, earlier))
        return tuple(itertools.islice(counted, _MOST))

    def delete(self, claim_id: str) -> int:
        """Forget a claim; returns how many photos it had. The file's pages are overwritten with
        zeros."""
        with self._transaction() as sqlite:
            return sqlite.execute("DELETE FROM photos WHERE claim_id = ?", (claim_id,)).rowcount

    def purge(self, older_than_days: float) -> int:
        """Forget older photos; returns how many. Raises UsageError unless in 0..36,500 days."""
        if not 0 <= older_than_days <= _OLDEST_DAYS:
            raise UsageError(
                f"older_than_days={older_than_days:g}: must be a number of days in "
                f"0..{_OLDEST_DAYS}"
            )
        limit = dt.datetime.now(dt.UTC) - dt.timedelta(days=older_than_days)
        before = (limit.isoformat(timespec="seconds"),)
        with self._transaction() as sqlite:
            return sqlite.execute("DELETE FROM photos WHERE seen < ?", before).rowcount

    def close(self) -> None:
        """Close the connections of all threads; none may be in use."""
        with self._lock:
            for sqlite in self._opened:
                sqlite.close()
            self._opened.clear()
        self._own = _Connection()

    def _top_up(self, sqlite: sqlite3.Connection) -> None:
        """Read the new hashes. Ids are never used twice, so deleted ones simply find no row."""
        last = int(self._own.ids[-1]) if len(self._own.ids) else 0
        # From the index alone, which is a tenth of the table.
        query = "SELECT id, coarse FROM photos INDEXED BY photos_coarse WHERE id > ? ORDER BY id"
        rows = itertools.chain.from_iterable(sqlite.execute(query, (last,)))
        added = np.fromiter(rows, np.int64).reshape(-1, 2)
        if len(added):
            coarse = added[:, 1].copy().view(np.uint64)
            self._own.ids = np.concatenate([self._own.ids, added[:, 0]])
            self._own.coarse = np.concatenate([self._own.coarse, coarse])

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
                f"{self.path}: cannot use the index of claims: {error}. Check that it is one, and "
                "its "
                "folder's free space and permissions.",
                code="index_unusable",
            ) from error

    def _connect(self) -> sqlite3.Connection:
        if not self.path.parent.is_dir():
            raise UsageError(
                f"{self.path}: cannot make the index of claims: no folder {self.path.parent}"
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
        def pragma(key: str) -> int | str:
            value: int | str = sqlite.execute(f"PRAGMA {key}").fetchone()[0]
            return value

        # Tables first: another process that makes them writes both numbers in the same transaction.
        tables = sqlite.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        found = (pragma("application_id"), pragma("user_version"))
        if tables and found != (_APPLICATION, _VERSION):
            raise RealDamageError(
                f"{self.path}: not an index of claims of this version (application {found[0]:#x}, "
                f"version {found[1]}); name a new file",
                code="not_an_index",
            )
        if pragma("journal_mode") != "wal":
            sqlite.execute("PRAGMA journal_mode = WAL")
        sqlite.execute("PRAGMA synchronous = NORMAL")
        sqlite.execute("PRAGMA secure_delete = ON")
        if not tables:
            sqlite.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {_APPLICATION}; "
                f"PRAGMA user_version = {_VERSION}; COMMIT;"
            )


def _nearest_first(one: Duplicate) -> tuple[bool, int, str, str, str]:
    return not one.exact, one.distance, one.seen, one.claim_id, one.of


def _rows(
    sqlite: sqlite3.Connection, ids: Sequence[int]
) -> Iterator[tuple[int, str, int, str, bytes, int, bytes, bytes]]:
    columns = "id, claim_id, number, seen, sha256, coarse, fine, thumbnail"
    for start in range(0, len(ids), _CANDIDATES):
        some = ids[start : start + _CANDIDATES]
        marks = ",".join("?" * len(some))
        yield from sqlite.execute(f"SELECT {columns} FROM photos WHERE id IN ({marks})", some)


def _to_row(found: PhotoHash) -> tuple[int, bytes, bytes]:
    """The thumbnail in 8 bits a value: its correlation changes by less than a thousandth."""
    thumbnail = np.clip(np.rint(found.thumbnail * 512), -127, 127).astype(np.int8)
    coarse = int(np.uint64(found.coarse).view(np.int64))
    return coarse, found.fine.astype("<u8").tobytes(), thumbnail.tobytes()


def _from_row(coarse: int, fine: bytes, thumbnail: bytes) -> PhotoHash:
    values = np.frombuffer(thumbnail, np.int8).astype(np.float32)
    length = float(np.linalg.norm(values))
    return PhotoHash(
        np.int64(coarse).view(np.uint64),
        np.frombuffer(fine, "<u8").astype(np.uint64),
        values / length if length else values,
    )
