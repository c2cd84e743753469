"""Remembers the photos of earlier claims as hashes and claim ids: no photo, file name or text.

Stricter than in a training set (data/duplicates.py), since a person's claim depends on it: two
shots of one thing are different photos, and plain surfaces match only byte by byte.

A search misses none within the radius. The 256 bits are 11 bands, each with an index in the
database. Hashes that differ in at most 32 bits differ in at most as many bits as BANDS allows in at
least one band (pigeonhole), so all values that near are looked up in each.
"""

from __future__ import annotations

import datetime as dt
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from realdamage.claims.database import BANDS, Database
from realdamage.claims.database import Photo as Row
from realdamage.claims.decide import Duplicate
from realdamage.core.decode import UInt8Array
from realdamage.core.fingerprint import PhotoHash, perceptual_hash
from realdamage.errors import UsageError

if TYPE_CHECKING:
    from realdamage.claims.exchange import ExchangeKey

COARSE_RADIUS = 12
"""Bits of 64 in which candidates may differ."""
FINE_RADIUS = 32
"""Bits of 256 in which the same photo may differ. Re-saves down to a third of the side stay below
15, half of the crops by 2% below 34; from 38 on, photos of two similar products on one shelf match
(data/results/LOG.md)."""
CORRELATION = 0.93
"""Of the thumbnails, at least."""
_PLAIN_CONTRAST = 4.0  # grey levels over the frame of any channel: a coloured wall has less
_MOST = 50  # findings a photo: more do not help anybody
_OLDEST_DAYS = 36_500
_FIRST_CHUNK = 50  # photos that the first transaction of a purge removes
_CHUNK_S = 0.1  # that each further one may take: others can write in between
_CANDIDATES = 500  # rows a query, below SQLite's oldest limit of 999 parameters
_POSTGRES_PLAN = """
SET LOCAL enable_seqscan = off;
SET LOCAL plan_cache_mode = force_generic_plan;
SET LOCAL jit = off
"""
"""For a search in bands: without statistics of a new table it would read all of it, and compile
the query. A plan for these very values would compare each with the statistics, for longer than the
search takes."""


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


class ClaimIndex:
    """The hashes of photos in a database; use it in a `with`, or `close` it.

    counts(claim_id, earlier): whether photos of that claim may be found; `earlier`: added before
    those of the claim that asks. adds: without, it only searches. Methods raise RealDamageError,
    naming the file.
    """

    def __init__(
        self,
        database: Database,
        *,
        counts: Callable[[str, bool], bool] = lambda _, earlier: True,
        adds: bool = True,
        exchange: ExchangeKey | None = None,
    ) -> None:
        self.database = database
        self._counts, self._adds, self._exchange = counts, adds, exchange

    @classmethod
    def open(cls, path: str | Path) -> ClaimIndex:
        """The index in this file; refuses one that is not an index now, not during a claim."""
        index = cls(Database(Path(path)))
        len(index)
        return index

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """How many photos are remembered."""
        with self.database.reading() as session:
            return session.scalar(select(func.count()).select_from(Row)) or 0

    def has_photo(self, sha256: str) -> bool:
        """Whether a claim had the file with this SHA-256, as hex digits."""
        query = select(Row.id).where(Row.sha256 == bytes.fromhex(sha256)).limit(1)
        with self.database.reading() as session:
            return session.scalar(query) is not None

    def add_fingerprints(
        self, claim_id: str, photos: Iterable[Fingerprint], *, seen: str | None = None
    ) -> int:
        """Remember the photos of a claim; returns how many were new. Old ones keep their time."""
        if not self._adds:
            return 0
        seen = seen or dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        with self.database.transaction() as session:
            known = set(session.scalars(select(Row.sha256).where(Row.claim_id == claim_id)))
            before = len(known)
            for photo in photos:
                digest = bytes.fromhex(photo.sha256)
                if digest not in known:
                    known.add(digest)
                    hashes = _to_row(photo.seen)
                    about = {"claim_id": claim_id, "number": len(known), "seen": seen}
                    session.add(Row(sha256=digest, **about, **hashes))
        return len(known) - before

    def find_fingerprint(
        self, photo: Fingerprint, *, name: str = "photo", other_than: str = ""
    ) -> tuple[Duplicate, ...]:
        """Where a photo was seen, nearest first, at most 50. other_than: the photo's own claim."""
        found = []
        with self.database.reading() as session:
            wanted = _near(session, (photo.seen, photo.mirror))
            exact = select(Row.id).where(Row.sha256 == bytes.fromhex(photo.sha256))
            wanted |= set(session.scalars(exact))
            rows = list(_rows(session, sorted(wanted)))
        first = min((row.id for row in rows if row.claim_id == other_than), default=0)
        for row in rows:
            if row.claim_id == other_than:
                continue
            if (same := _match(photo, row.sha256.hex(), _from_row(row))) is not None:
                bits, is_exact, mirrored = same
                of = f"photo {row.number}"
                one = Duplicate(name, of, row.claim_id, bits, is_exact, row.seen, mirrored)
                found.append((one, row.id < first))
        nearest_first = attrgetter("distance", "seen", "claim_id", "of")
        found.sort(key=lambda pair: (not pair[0].exact, nearest_first(pair[0])))
        counted = (one for one, earlier in found if self._counts(one.claim_id, earlier))
        return tuple(itertools.islice(counted, _MOST))

    def elsewhere(self, photos: Iterable[Fingerprint]) -> list[tuple[str, str]]:
        """(shop, kind) of the hashes that other shops share and one of these photos has."""
        if self._exchange is None:
            return []
        return self._exchange.find(self.database, photos)

    def delete(self, claim_id: str) -> int:
        """Forget a claim; returns how many photos it had. SQLite overwrites them with zeros."""
        with self.database.transaction() as session:
            gone: Any = session.execute(delete(Row).where(Row.claim_id == claim_id))
            return int(gone.rowcount)

    def purge(self, older_than_days: float) -> int:
        """Forget older photos; returns how many. Raises UsageError unless in 0..36,500 days."""
        if not 0 <= older_than_days <= _OLDEST_DAYS:
            raise UsageError(
                f"older_than_days={older_than_days:g}: must be a number of days in "
                f"0..{_OLDEST_DAYS}"
            )
        limit = dt.datetime.now(dt.UTC) - dt.timedelta(days=older_than_days)
        old = select(Row.id).where(Row.seen < limit.isoformat(timespec="seconds"))
        count, chunk = 0, _FIRST_CHUNK
        while True:
            start = time.monotonic()
            with self.database.transaction() as session:
                gone: Any = session.execute(delete(Row).where(Row.id.in_(old.limit(chunk))))
            if not gone.rowcount:
                return count
            count += int(gone.rowcount)
            took = time.monotonic() - start
            chunk = max(1, int(chunk * min(2.0, _CHUNK_S / max(took, 1e-9))))

    def close(self) -> None:
        """Close the connections of all threads; none may be in use."""
        self.database.close()


def _near(session: Session, hashes: Sequence[PhotoHash]) -> set[int]:
    """Ids of all photos within both radii of one of these hashes."""
    connection = session.connection()
    is_sqlite = connection.dialect.name == "sqlite"
    bands: list[str] = []
    arrays: list[str] = []
    for start, length, most in BANDS:
        near = (_values_near(one.fine, start, length, most) for one in hashes)
        values = sorted({text for texts in near for text in texts})
        band = f"substr(fine, {start}, {length})"
        if is_sqlite:
            literals = "',x'".join(values)
            bands.append(f"{band} IN (x'{literals}')")
        else:
            bands.append(f"{band} = ANY (%s::bytea[])")
            arrays.append(r"{\\x" + r",\\x".join(values) + "}")
    if not is_sqlite:
        connection.exec_driver_sql(_POSTGRES_PLAN)
    query = f"SELECT id, coarse, fine FROM photos WHERE {' OR '.join(bands)}"
    rows = connection.exec_driver_sql(query, tuple(arrays)).all()
    coarse = np.array([row[1] for row in rows], np.int64).view(np.uint64)
    fine = np.frombuffer(b"".join(row[2] for row in rows), "<u8").reshape(-1, 4)
    is_near = np.zeros(len(rows), np.bool_)
    for one in hashes:
        is_close = np.bitwise_count(coarse ^ one.coarse) <= COARSE_RADIUS
        is_near |= is_close & (np.bitwise_count(fine ^ one.fine).sum(axis=1) <= FINE_RADIUS)
    return {int(rows[int(n)][0]) for n in np.flatnonzero(is_near)}


def _values_near(fine: npt.NDArray[np.uint64], start: int, length: int, most: int) -> list[str]:
    """All values of a band, as hex digits, that differ from the hash's own in at most so many
    bits."""
    band = fine.astype("<u8").tobytes()[start - 1 : start - 1 + length]
    values = _masks(8 * length, most) ^ int.from_bytes(band, "big")
    digits = values.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 4 - length :].tobytes().hex()
    return [digits[at : at + 2 * length] for at in range(0, len(digits), 2 * length)]


@cache
def _masks(bits: int, most: int) -> npt.NDArray[np.int64]:
    """All numbers of so many bits with at most `most` ones."""
    ones = (itertools.combinations(range(bits), count) for count in range(most + 1))
    masks = [sum(1 << bit for bit in chosen) for chosen in itertools.chain.from_iterable(ones)]
    return np.array(masks, np.int64)


def _rows(session: Session, ids: Sequence[int]) -> Iterator[Row]:
    for start in range(0, len(ids), _CANDIDATES):
        some = ids[start : start + _CANDIDATES]
        yield from session.scalars(select(Row).where(Row.id.in_(some)))


def _to_row(found: PhotoHash) -> dict[str, Any]:
    """The thumbnail in 8 bits a value: its correlation changes by less than a thousandth."""
    thumbnail = np.clip(np.rint(found.thumbnail * 512), -127, 127).astype(np.int8)
    return {
        "coarse": int(np.uint64(found.coarse).view(np.int64)),
        "fine": found.fine.astype("<u8").tobytes(),
        "thumbnail": thumbnail.tobytes(),
    }


def _from_row(row: Row) -> PhotoHash:
    values = np.frombuffer(row.thumbnail, np.int8).astype(np.float32)
    length = float(np.linalg.norm(values))
    return PhotoHash(
        np.int64(row.coarse).view(np.uint64),
        np.frombuffer(row.fine, "<u8").astype(np.uint64),
        values / length if length else values,
    )
