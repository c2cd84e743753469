"""Claims that the caller asked to keep: a row each, and a folder of evidence without the photos.

A claim is kept once its row says so, in the transaction that also logs it; the folder is there
before, whole. What a killed process leaves is a row "judging" of a worker that no longer lives,
whose id is free at once, or a folder without a row, which `purge` removes. Several machines share
one PostgreSQL database, and one folder or object store.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from realdamage.claims import Claim, ClaimIndex, write_evidence
from realdamage.claims import database as tables
from realdamage.claims.database import Case, Database, Event
from realdamage.claims.evidence import (
    EVENT,
    HTML_NAME,
    JSON_NAME,
    LOG_NAME,
    ORIGINALS,
    PICTURES,
    STATEMENTS,
    read_log,
)
from realdamage.claims.exchange import ExchangeKey
from realdamage.claims.log import locked
from realdamage.claims.paths import AnyPath, ObjectPath, StoreError, remove_folder, to_path
from realdamage.claims.secret import Secret
from realdamage.errors import RealDamageError, UsageError
from realdamage.service.schemas import CLAIM_ID, Refusal

LEAST_FREE_BYTES = 64 * 1024 * 1024
"""With less free space no claim is kept, and the service is not ready."""
CLOCK_GAP_DAYS = 7
"""After a longer pause of the retention the clock may be wrong, so nothing is removed."""
JUDGING = "judging"
Photos = Sequence[tuple[str, bytes]]
OnKept = Callable[[Session, Case], None]

_PARTS = ("claims", "claims.sqlite", "jobs", "secret", "tenants", "workers")
_INSIDE = {HTML_NAME, JSON_NAME, LOG_NAME, ORIGINALS, PICTURES, STATEMENTS}
_WAIT_S = 30.0  # for the end of another claim with the same photo
_POLL_S = 0.02
_WORK_FOLDER = re.compile(rf"\.({CLAIM_ID})\.[0-9a-f]+\.(?:tmp|old)")
_DAY = 86400
_JOBS_S = 7 * _DAY  # how long a job can be asked for


class FileWorkers:
    """Which processes live. Each holds the lock of its own file, which the system frees when it
    dies."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder, self.own = folder, secrets.token_hex(8)
        self._stack = contextlib.ExitStack()
        file = self._stack.enter_context((folder / self.own).open("ab"))
        self._stack.enter_context(locked(file, wait=False))

    def lives(self, worker: str) -> bool:
        """Whether that process still runs."""
        if worker == self.own:
            return True
        path = self._folder / worker
        try:
            with path.open("r+b") as file, locked(file, wait=False):
                path.unlink()
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def check(self) -> None:
        """Nothing to do: the system keeps the lock."""

    def close(self) -> None:
        """What this process still judges counts as interrupted from now on."""
        with contextlib.suppress(OSError):
            (self._folder / self.own).unlink()
        self._stack.close()


class PostgresWorkers:
    """The same with advisory locks, which the server frees when the connection ends."""

    def __init__(self, database: Database) -> None:
        self._database, self.own = database, secrets.token_hex(8)
        self._lock = threading.Lock()
        self._connection = database.hold(self.own)

    def lives(self, worker: str) -> bool:
        return worker == self.own or self._database.is_held(worker)

    def check(self) -> None:
        """Take the lock again after the server was restarted."""
        with self._lock:
            try:
                self._connection.execute(select(1))
            except SQLAlchemyError:
                self._connection.close()
                self._connection = self._database.hold(self.own)

    def close(self) -> None:
        with self._lock, contextlib.suppress(SQLAlchemyError):
            # Without this, the lock ends only when the server notices.
            self._connection.execute(text("SELECT pg_advisory_unlock_all()"))
            self._connection.close()


class ClaimStore:
    """claims/ID/ with the evidence, and the database with everything else.

    For several threads and processes. It opens on a full disk too, where claims can be deleted.
    folder: a path, or the URL of an object store. database: URL of the tables; default:
    claims.sqlite in the folder. share: the operator's store, of which this is a tenant's. Raises
    UsageError on a folder with other things or another database, RealDamageError when it cannot be
    made or written.
    """

    def __init__(
        self,
        folder: str | AnyPath,
        retention_days: int,
        *,
        database: str = "",
        secret: Path | None = None,
        exchange: ExchangeKey | None = None,
        keep_originals: bool = False,
        share: ClaimStore | None = None,
    ) -> None:
        folder = to_path(folder)
        self.tenant = folder.name if share else ""
        self.folder, self.retention_days = folder, retention_days
        self.claims, self.exchange = folder / "claims", exchange
        self.keep_originals = keep_originals
        try:
            if isinstance(folder, Path):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if share is not None and share.database.is_postgres:
                self.database: Database = share.database.of_tenant(self.tenant)
            else:
                self.database = Database.of_store(folder, database)
            _check_is_store(folder)
            if isinstance(folder, ObjectPath):
                self._begin_objects(folder / tables.ELSEWHERE)
            else:
                (folder / "claims").mkdir(mode=0o700, exist_ok=True)
                if self.database.is_postgres:
                    (folder / tables.ELSEWHERE).touch(0o600)
            if isinstance(folder, Path) and not self.database.is_postgres:
                self.workers: FileWorkers | PostgresWorkers = FileWorkers(folder / "workers")
            else:
                self.workers = share.workers if share else PostgresWorkers(self.database)
        except OSError as error:
            raise _not_writable(folder, error) from error
        is_local = isinstance(folder, Path)
        # Of two services that begin an object store at once, one makes its secret.
        with contextlib.nullcontext() if is_local else self.database.transaction():
            self.secret = Secret.read(secret or folder / "secret", make=secret is None)
        counts: Any = {"counts": self._counts, "exchange": exchange}
        self.index = ClaimIndex(self.database, **counts)
        self.read_only_index = ClaimIndex(self.database, adds=False, **counts)
        self._active: set[str] = set()
        self._lock = threading.Lock()
        if has_room(folder) or not (folder / "claims.sqlite").is_file():
            len(self.index)

    def check(self) -> None:
        """Raises Refusal 503 on a full disk, a read-only folder or a database that fails."""
        self.check_room()
        fault = "" if self.is_reached() else "its folder is not writable, or does not answer"
        try:
            self.workers.check()
            with self.database.reading() as session:
                session.scalar(select(Event.index).limit(1))
        except RealDamageError:
            fault = "its database cannot be read"
        if fault:
            message = f"The claim store cannot be used: {fault}."
            raise Refusal(503, "store_fails", message, retry_after=60)

    def is_reached(self) -> bool:
        """Whether its folder is writable, or its object store answers and is the same."""
        if isinstance(self.claims, Path):
            return os.access(self.claims, os.W_OK)
        with contextlib.suppress(StoreError):
            return (self.folder / tables.ELSEWHERE).is_file()
        return False

    @contextlib.contextmanager
    def new(self, claim_id: str, job_id: str = "") -> Iterator[None]:
        """Around judging and keeping a claim; when that fails, nothing of it is left.

        job_id: that judges it. Raises Refusal 409 when the id is kept or under way, 503 when the
        disk is nearly full.
        """
        self.check_room()
        self.workers.check()
        while not self._take(claim_id):
            if not job_id:
                raise under_way(claim_id)
            time.sleep(_POLL_S)  # for a request, which `_begin` refuses because of this job
        try:
            self._begin(claim_id, job_id)
            try:
                yield
            except BaseException:
                with contextlib.suppress(RealDamageError):  # `purge` tries again
                    self._give_up(claim_id)
                raise
        finally:
            with self._lock:
                self._active.discard(claim_id)

    def keep(
        self,
        claim: Claim,
        photos: Photos,
        listings: Photos,
        about: Mapping[str, Any],
        on_kept: OnKept = lambda session, case: None,
    ) -> None:
        """Write the evidence, then the row with its event, whole or not at all.

        about: columns of `Case`. on_kept: runs in the same transaction. Raises RealDamageError.
        """
        folder = self._path(claim.claim_id)
        keep_originals = self.keep_originals
        with self.database.reading() as session:
            self._check_is_mine(session, claim.claim_id)
        write_evidence(
            claim, photos, listings, folder, keep_originals=keep_originals, keep_pictures=True
        )
        (entry,) = read_log(folder / LOG_NAME).entries
        with self.database.transaction() as session:
            case = self._check_is_mine(session, claim.claim_id)
            for name, value in {**about, "state": "open", "worker": ""}.items():
                setattr(case, name, value)
            self.database.record(session, {"event": EVENT, **entry["payload"]})
            on_kept(session, case)

    def read(self, claim_id: str, document: str) -> bytes:
        """A file of the claim's folder, such as evidence.json. Raises Refusal 404."""
        folder = self._path(claim_id)
        path = folder / document
        if not self.is_kept(claim_id) or not _is_inside(path, folder):
            raise not_stored(claim_id)
        try:
            return path.read_bytes()
        except StoreError:
            raise
        except OSError:
            raise not_stored(claim_id) from None

    def delete(self, claim_id: str, *, by: str = "", reason: str = "request") -> None:
        """Remove all that is stored of a claim; the log says how much, and who asked.

        by: name of the key. Raises Refusal 404 when there is nothing to remove, 409 while the
        claim is being judged.
        """
        found: dict[str, int] = {"evidence": self.is_kept(claim_id)}
        if re.fullmatch(CLAIM_ID, claim_id):  # any other id only a reviewer can have named
            with self.database.reading() as session:
                job_id = running_job(session, claim_id)
            if job_id or self._is_under_way(claim_id):
                raise under_way(claim_id, job_id)
            self._remove_folder(claim_id)  # first: on a full disk this makes room
        with self.database.transaction() as session:
            case = session.get(Case, claim_id)
            is_new = case is not None and case.state == JUDGING
            if case is not None and is_new and self._works_on(claim_id, case.worker):
                raise under_way(claim_id)  # another process began meanwhile
            found |= self._remove_rows(session, claim_id)
            if any(found.values()):
                about = {"claim_id": claim_id, "by": by, "reason": reason}
                self.database.record(session, {"event": "claim_deleted", **about, **found})
        if not any(found.values()):
            raise not_stored(claim_id)

    def tenants(self) -> list[str]:
        """Those that have a store in this one."""
        return [path.name for path in (self.folder / "tenants").glob("*") if not path.is_file()]

    def for_tenant(self, name: str, retention_days: int) -> ClaimStore:
        """A tenant's own store: a folder in this one, and a database file or schema of its own."""
        folder, originals = self.folder / "tenants" / name, self.keep_originals
        return ClaimStore(folder, retention_days, keep_originals=originals, share=self)

    def close(self) -> None:
        """Close the database and say that this process no longer works."""
        self.workers.close()
        self.database.close()

    def is_kept(self, claim_id: str) -> bool:
        """Whether it was judged and stored."""
        query = select(Case.claim_id).where(Case.claim_id == claim_id, Case.state != JUDGING)
        with self.database.reading() as session:
            has_row = session.scalar(query) is not None
        return has_row and (self.claims / claim_id / JSON_NAME).is_file()

    def forget(self, claim_id: str) -> None:
        """Remove what a killed process left of a claim that was never kept. Not logged."""
        with self.database.transaction() as session:
            self.check_unused(session, claim_id)
            self._remove_folder(claim_id)
            self._remove_rows(session, claim_id, keep_reviews=True)

    def _begin_objects(self, mark: ObjectPath) -> None:
        """Mark an object store as ours, so that what is wrong with it shows now."""
        if not mark.is_file():
            with self.database.reading() as session:
                if session.scalar(select(Case.claim_id).limit(1)) is not None:
                    message = f"{self.folder}: is no claim store, but the database has claims. "
                    message += "Name the place that their files are in"
                    raise UsageError(message, code="other_store")
        mark.write_bytes(b"")

    def _take(self, claim_id: str) -> bool:
        """Whether this process did not work on the claim, and does now."""
        with self._lock:
            is_free = claim_id not in self._active
            self._active.add(claim_id)
        return is_free

    def _begin(self, claim_id: str, job_id: str) -> None:
        """Make the row of a claim that this process judges. One transaction, since another process
        may want the same id. What a killed one left of the claim is removed."""
        with self.database.transaction() as session:
            case = session.get(Case, claim_id)
            if case is not None and self._is_mine(case):  # this process failed to remove it
                session.delete(case)
                session.flush()
            self.check_unused(session, claim_id)
            if other := running_job(session, claim_id, other_than=job_id):
                raise under_way(claim_id, other)
            if case is not None or isinstance(self.claims, Path):
                self._remove_folder(claim_id)
            self._remove_rows(session, claim_id, keep_reviews=True)
            now = tables.now()
            about = {"worker": self.workers.own, "created": now, "updated": now}
            session.add(Case(claim_id=claim_id, state=JUDGING, **about))

    def _give_up(self, claim_id: str) -> None:
        """Remove what this process made of a claim that it does not keep."""
        with self.database.transaction() as session:
            case = session.get(Case, claim_id)
            if case is not None and self._is_mine(case):
                self._remove_folder(claim_id)
                self._remove_rows(session, claim_id, keep_reviews=True)

    def _is_mine(self, case: Case) -> bool:
        return case.state == JUDGING and case.worker == self.workers.own

    def _check_is_mine(self, session: Session, claim_id: str) -> Case:
        """The row of a claim that this process judges. Another process took the claim over if the
        database was away for a while, as if this one had been killed. Raises Refusal 503."""
        case = session.get(Case, claim_id)
        if case is None or not self._is_mine(case):
            message = f"Claim {claim_id!r} was interrupted. Send it again."
            raise Refusal(503, "interrupted", message, retry_after=1)
        return case

    def _remove_folder(self, claim_id: str) -> None:
        folder = self._path(claim_id)
        try:
            if is_left_behind(folder):
                remove_folder(folder, JSON_NAME)  # without that file it is no evidence
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _not_writable(folder, error) from error

    def _remove_rows(
        self, session: Session, claim_id: str, *, keep_reviews: bool = False
    ) -> dict[str, int]:
        """How many photos, reviews and statements were removed with the claim."""
        counted: dict[str, Any] = {"photos": tables.Photo, "reviews": tables.Review}
        counted["statements"] = tables.Statement
        others: tuple[Any, ...] = (Case, tables.Decision, tables.Link, tables.Delivery)
        found = {}
        for name, table in [*counted.items(), *((one.__tablename__, one) for one in others)]:
            if not (keep_reviews and table is tables.Review):
                gone: Any = session.execute(delete(table).where(table.claim_id == claim_id))
                found[name] = int(gone.rowcount)
        return {name: found.get(name, 0) for name in counted}

    def _counts(self, claim_id: str, earlier: bool) -> bool:
        """Whether a claim's photos count. Waits for a claim in progress that is `earlier`: of two
        concurrent claims with one photo, the second must see the first, unless the first fails."""
        end = time.monotonic() + _WAIT_S
        while earlier and self._is_under_way(claim_id):
            if time.monotonic() > end:
                raise RealDamageError(f"Claim {claim_id}, with the same photo, is still under way")
            time.sleep(_POLL_S)
        return self.is_kept(claim_id)

    def _is_under_way(self, claim_id: str) -> bool:
        query = select(Case.worker).where(Case.claim_id == claim_id, Case.state == JUDGING)
        with self.database.reading() as session:
            worker = session.scalar(query)
        return worker is not None and self._works_on(claim_id, worker)

    def check_unused(self, session: Session, claim_id: str) -> None:
        """Raises Refusal 409 for a claim that is kept or under way, or whose folder is not ours."""
        folder, case = self._path(claim_id), session.get(Case, claim_id)
        if case is not None and case.state == JUDGING:
            if self._works_on(claim_id, case.worker):
                raise under_way(claim_id)
        elif case is not None and (folder / JSON_NAME).is_file():
            raise _exists(claim_id)
        if isinstance(folder, Path) and folder.exists() and not is_left_behind(folder):
            raise _exists(claim_id)

    def _works_on(self, claim_id: str, worker: str) -> bool:
        if worker == self.workers.own:
            return claim_id in self._active
        return self.workers.lives(worker)

    def check_room(self) -> None:
        """Raises Refusal 503 when the disk is nearly full."""
        if not has_room(self.folder):
            free = f"The disk of the claim store has less than {LEAST_FREE_BYTES} bytes free"
            message = f"{free}. Free disk space, or delete claims."
            raise Refusal(503, "store_full", message, retry_after=60)

    def _path(self, claim_id: str) -> AnyPath:
        if not re.fullmatch(CLAIM_ID, claim_id):
            raise not_stored(claim_id)
        return self.claims / claim_id


def has_room(folder: AnyPath) -> bool:
    """Whether there is enough free space to write; an object store has no end."""
    return isinstance(folder, ObjectPath) or shutil.disk_usage(folder).free >= LEAST_FREE_BYTES


def is_left_behind(folder: AnyPath) -> bool:
    """Whether a folder holds only evidence, so that nobody else's files are removed with it. In an
    object store nobody looks into each claim."""
    if isinstance(folder, ObjectPath):
        return True
    try:
        return {path.name for path in folder.iterdir()} <= _INSIDE
    except OSError:
        return False


def _is_inside(path: AnyPath, folder: AnyPath) -> bool:
    """Whether a path leads nowhere else, as names with ".." and links do."""
    if isinstance(path, Path) and isinstance(folder, Path):
        return path.resolve().is_relative_to(folder.resolve())
    return ".." not in str(path).split("/")


def not_stored(claim_id: str) -> Refusal:
    """The refusal for a claim that is not there."""
    message = f"No claim {claim_id[:64]!r} is stored; only those sent with keep=true are."
    return Refusal(404, "not_found", message)


def _exists(claim_id: str) -> Refusal:
    message = f"Claim {claim_id!r} is already stored. Send another id, or DELETE it first."
    return Refusal(409, "claim_exists", message)


def running_job(session: Session, claim_id: str, other_than: str = "") -> str:
    """The id of the job that will judge the claim, or ""."""
    job = tables.Job
    of_claim = job.claim_id == claim_id, job.status == "running", job.id != other_than
    return session.scalar(select(job.id).where(*of_claim)) or ""


def under_way(claim_id: str, job_id: str = "") -> Refusal:
    """The refusal for a claim that is being judged, or waits for it."""
    where = f" at /v1/jobs/{job_id}" if job_id else ""
    message = f"Claim {claim_id!r} is being judged. Wait for its answer{where}."
    return Refusal(409, "claim_under_way", message)


def _check_is_store(folder: AnyPath) -> None:
    """Refuse other folders: what they hold would be removed when it is old."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    strange = sorted(name for name in names - {"lost+found"} if not name.startswith(_PARTS))
    is_empty = not names & {"claims.sqlite", tables.ELSEWHERE}
    if not strange and is_empty and "claims" in names:
        strange = [f"claims/{path.name}" for path in (folder / "claims").iterdir()]
    if strange:
        message = f"{folder}: not a claim store, it holds {strange[0]!r}. Use an empty folder"
        raise UsageError(message, code="not_a_store")


def _not_writable(path: AnyPath, error: OSError) -> RealDamageError:
    if isinstance(error, StoreError):
        return error  # it names the place
    why = f"{error.strerror or error}. Check free space and permissions"
    message = f"{path}: cannot write to the claim store: {why}"
    return RealDamageError(message, code="store_not_writable")


# What is removed without a request: expired claims, and what killed processes left


@dataclass(frozen=True)
class Purged:
    """claims: removed ids. problems: what failed. clock_in_doubt: nothing expired was removed."""

    claims: tuple[str, ...]
    problems: tuple[str, ...]
    clock_in_doubt: bool = False


def purge(store: ClaimStore, *, clock_confirmed: bool = False) -> Purged:
    """Remove claims that did not change for the retention, and what killed processes left.

    A claim that cannot be removed stops no other. clock_confirmed: by the operator.
    """
    gone: list[str] = []
    problems: list[str] = []
    now = tables.now()
    with store.database.reading() as session:
        query = select(Case.claim_id, Case.state, Case.updated).order_by(Case.updated)
        rows = [(one, state, updated) for one, state, updated in session.execute(query)]
    if isinstance(store.folder, ObjectPath) and not store.is_reached():
        raise StoreError(str(store.folder), "it no longer holds the claim store")
    there = {path.name for path in store.claims.iterdir()}
    for claim_id in _left_by_killed(store, rows, there):
        with _noted(problems):
            with store.database.reading() as session:
                job_id = running_job(session, claim_id)  # which begins again with it
            if not job_id and not store._is_under_way(claim_id):
                store.forget(claim_id)
    kept = [(one, then) for one, state, then in rows if state != JUDGING]
    # Deletions that were begun. In an object store a look at each claim would take hours: there,
    # one that has lost its evidence.json, but not all else, is removed after the retention.
    missing = [one for one, _ in kept if isinstance(store.claims, Path) or one not in there]
    begun = {one for one in missing if not (store.claims / one / JSON_NAME).is_file()}
    for claim_id in sorted(begun):
        with _noted(problems):
            store.delete(claim_id, reason="interrupted")
    oldest = now - _DAY * store.retention_days
    due = [one for one, then in kept if then < oldest and one not in begun]
    doubt = not _trusts_clock(store.database, now, clock_confirmed)
    if doubt:
        problems.append(
            f"The retention last ran more than {CLOCK_GAP_DAYS} days ago, so the clock may be "
            f"wrong: nothing is removed ({len(due)} claims have expired). Check the clock, then "
            "start once with --clock-confirmed"
        )
    for claim_id in [] if doubt else due:
        with _noted(problems):
            store.delete(claim_id, reason="retention")
            gone.append(claim_id)
    with _noted(problems), store.database.transaction() as session:
        done = tables.Job.status != "running", tables.Job.created < now - _JOBS_S
        session.execute(delete(tables.Job).where(*done))
        session.execute(delete(tables.ForeignHash).where(tables.ForeignHash.expires < now))
    return Purged(tuple(gone), tuple(problems), doubt)


def _trusts_clock(database: Database, now: float, confirmed: bool) -> bool:
    """Whether the retention ran in the last days by this clock; if so, or confirmed, notes now."""
    name = "retention_checked"
    with database.transaction() as session:
        last = session.get(tables.Setting, name)
        trusted = last is None or confirmed or now - last.value < CLOCK_GAP_DAYS * _DAY
        if trusted:
            session.merge(tables.Setting(name=name, value=now))
            if confirmed:
                database.record(session, {"event": "clock_confirmed"})
    return trusted


def _left_by_killed(
    store: ClaimStore, rows: Sequence[tuple[str, str, float]], there: set[str]
) -> Iterator[str]:
    """Ids that a process worked on and never kept; removes the folders it was writing. there:
    names of what lies in `claims`."""
    known = {claim_id: state for claim_id, state, _ in rows}
    yield from (claim_id for claim_id, state in known.items() if state == JUDGING)
    for name in sorted(there - known.keys()):
        work = _WORK_FOLDER.fullmatch(name)
        if work and not store._is_under_way(work[1]):
            with contextlib.suppress(OSError):
                remove_folder(store.claims / name)
        is_claim = re.fullmatch(CLAIM_ID, name)
        if is_claim and is_left_behind(store.claims / name) and not store.is_kept(name):
            yield name


@contextlib.contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """An error becomes a problem in words. That somebody else works on a claim is none."""
    try:
        yield
    except (RealDamageError, OSError) as error:
        problems.append(str(error))
    except Refusal:
        pass
