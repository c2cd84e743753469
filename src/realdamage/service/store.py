"""Claims that the caller asked to keep: a folder of evidence each, without the photos.

A claim is kept as long as its folder has evidence.json: the folder appears whole, and that file
is removed first. Photos in the index count only while their claim is kept. A process that works on
a claim locks .ID.lock, and the lock ends with the process: a killed service blocks no id.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from realdamage.claims import Claim, ClaimIndex, EvidenceLog, write_evidence
from realdamage.claims.evidence import EVENT, HTML_NAME, JSON_NAME, LOG_NAME
from realdamage.claims.index import Fingerprint
from realdamage.claims.log import locked, time_of
from realdamage.errors import RealDamageError, UsageError
from realdamage.service.schemas import CLAIM_ID, Refusal

LEAST_FREE_BYTES = 64 * 1024 * 1024
"""With less free space no claim is kept, and the service is not ready."""
CLOCK_GAP_DAYS = 7
"""After a longer gap in the log, which a running service never leaves, the clock may be wrong."""
LARGEST_SHARE = 0.25
"""Of the stored claims, removed by one `purge`; at least one claim."""
Photos = Sequence[tuple[str, bytes]]

_PARTS = ("claims", "claims.sqlite", "reviews.sqlite", "log.jsonl")
_PATIENCE_S = 0.5  # for a lock that `purge` or a search holds for a moment
_WAIT_S = 30.0  # for the end of another claim with the same photo
_POLL_S = 0.02
_WORK_FILE = re.compile(rf"\.({CLAIM_ID})\.(?:lock|[0-9a-f]+\.(?:tmp|old))")
_DELETED, _CHECKED, _CONFIRMED = "claim_deleted", "retention_checked", "clock_confirmed"
_DAY = 86400


class _ReadOnlyIndex(ClaimIndex):
    """The index for claims that are compared with earlier ones but leave no trace."""

    def add_fingerprints(
        self, claim_id: str, photos: Iterable[Fingerprint], *, seen: str | None = None
    ) -> int:
        """Adds nothing."""
        return 0


class ClaimStore:
    """claims/ID/ with the evidence, claims.sqlite with hashes of photos, log.jsonl over all.

    For several threads and processes. It opens on a full disk too, where claims can be deleted.
    Raises UsageError on a folder with other things, RealDamageError when it cannot be made.
    """

    def __init__(self, folder: Path, retention_days: int) -> None:
        self.folder, self.retention_days = folder, retention_days
        self.claims = folder / "claims"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_is_store(folder)
            self.claims.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _not_writable(folder, error) from error
        self.index = ClaimIndex(folder / "claims.sqlite", counts=self._counts)
        self.read_only_index = _ReadOnlyIndex(folder / "claims.sqlite", counts=self._counts)
        self.log = EvidenceLog(folder / "log.jsonl")
        if has_room(folder) or not self.index.path.exists():
            self.index.check()
            with contextlib.suppress(RealDamageError):  # `check` reports it
                self.log.recover()

    def check(self) -> None:
        """Raises Refusal 503 on a full disk, a read-only folder or a damaged log."""
        self._check_room()
        fault = "" if os.access(self.claims, os.W_OK) else "its folder is not writable"
        try:
            _ = self.log.head
        except RealDamageError:
            fault = "its log does not end with a whole entry"
        if fault:
            message = f"The claim store cannot be used: {fault}."
            raise Refusal(503, "store_fails", message, retry_after=60)

    @contextlib.contextmanager
    def new(self, claim_id: str) -> Iterator[None]:
        """Around judging and keeping a claim; when that fails, nothing of it is left.

        Raises Refusal 409 when the id is kept or under way, 503 when the disk is nearly full.
        """
        self._check_room()
        self._check_unused(claim_id)
        with self.reserved(claim_id) as release:
            self._check_unused(claim_id)
            try:
                self.forget(claim_id)  # what a killed service left of it
                yield
            except BaseException:
                # When this fails too, the lock file stays, and `purge` tries again.
                with contextlib.suppress(RealDamageError):
                    self.forget(claim_id)
                    release()
                raise
            release()

    def keep(self, claim: Claim, photos: Photos, listings: Photos) -> None:
        """Write the evidence, whole or not at all. Raises RealDamageError."""
        write_evidence(claim, photos, listings, self._path(claim.claim_id), log=self.log)

    def read(self, claim_id: str, document: str) -> bytes:
        """A file of the claim's folder: evidence.json or evidence.html. Raises Refusal 404."""
        try:
            return (self._path(claim_id) / document).read_bytes()
        except OSError:
            raise _not_stored(claim_id) from None

    def delete(
        self, claim_id: str, reviews: Callable[[str], int], *, by: str = "", reason: str = "request"
    ) -> None:
        """Remove evidence, hashes and reviews of a claim; the log says how many, and who asked.

        reviews: removes reviews, returns how many. by: name of the key. Raises Refusal 404 when
        there is nothing to remove, 409 while the claim is being judged.
        """
        found: dict[str, int] = {}
        with contextlib.ExitStack() as stack:
            release = None
            if re.fullmatch(CLAIM_ID, claim_id):  # any other id only a reviewer can have named
                release = stack.enter_context(self.reserved(claim_id, even_when_full=True))
                found["evidence"] = self.is_kept(claim_id)
                found["photos"] = self.forget(claim_id)
            found["reviews"] = reviews(claim_id)
            about = {"claim_id": claim_id, "by": by, "reason": reason}
            if any(found.values()):
                self.record({"event": _DELETED, **about, **found})
            if release is not None:
                release()
        if not any(found.values()):
            raise _not_stored(claim_id)

    def close(self) -> None:
        """Close the index."""
        self.index.close()
        self.read_only_index.close()

    def is_kept(self, claim_id: str) -> bool:
        """Whether there is evidence of it."""
        return (self.claims / claim_id / JSON_NAME).is_file()

    @contextlib.contextmanager
    def reserved(
        self, claim_id: str, *, patience: float = _PATIENCE_S, even_when_full: bool = False
    ) -> Iterator[Callable[[], None]]:
        """Nobody else works on this id until the block ends.

        Yields a function that removes the lock file; without that call `purge` later finishes or
        undoes what was begun. even_when_full: go on without a lock where its file finds no room.
        Raises Refusal 409 when somebody else works on it, 404 when no claim can have this id.
        """
        self._path(claim_id)
        path, end = self._lock_of(claim_id), time.monotonic() + patience

        def release() -> None:
            with contextlib.suppress(OSError):
                path.unlink()

        with contextlib.ExitStack() as stack:
            try:
                while not _take(path, stack):
                    if time.monotonic() >= end:
                        message = f"Claim {claim_id!r} is being judged. Wait for its answer."
                        raise Refusal(409, "claim_under_way", message)
                    time.sleep(_POLL_S)
            except OSError as error:
                if not (even_when_full and error.errno == errno.ENOSPC):
                    raise _not_writable(path, error) from error
            yield release

    def forget(self, claim_id: str) -> int:
        """Remove a claim's files, then its photos from the index; returns how many. Not logged."""
        folder = self._path(claim_id)
        try:
            if self.is_kept(claim_id) or is_left_behind(folder):
                (folder / JSON_NAME).unlink(missing_ok=True)  # from now on the claim is not kept
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(folder)
        except OSError as error:
            raise _not_writable(folder, error) from error
        return self.index.delete(claim_id)

    def record(self, event: Mapping[str, Any]) -> None:
        """Add an entry to the log over all claims."""
        self.log.recover()
        self.log.append(event)

    def _counts(self, claim_id: str, earlier: bool) -> bool:
        """Whether a claim's photos count. Waits for a claim in progress that is `earlier`: of two
        concurrent claims with one photo, the second must see the first, unless the first fails."""
        if not re.fullmatch(CLAIM_ID, claim_id):
            return False
        end = time.monotonic() + _WAIT_S
        while earlier and self._is_under_way(claim_id):
            if time.monotonic() > end:
                raise RealDamageError(f"Claim {claim_id}, with the same photo, is still under way")
            time.sleep(_POLL_S)
        return self.is_kept(claim_id)

    def _is_under_way(self, claim_id: str) -> bool:
        try:
            with self._lock_of(claim_id).open("r+b") as file, locked(file, wait=False):
                return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True

    def _check_unused(self, claim_id: str) -> None:
        folder = self._path(claim_id)
        if folder.exists() and not is_left_behind(folder):
            message = f"Claim {claim_id!r} is already stored. Send another id, or DELETE it first."
            raise Refusal(409, "claim_exists", message)

    def _check_room(self) -> None:
        if not has_room(self.folder):
            free = f"The disk of the claim store has less than {LEAST_FREE_BYTES} bytes free"
            message = f"{free}. Free disk space, or delete claims."
            raise Refusal(503, "store_full", message, retry_after=60)

    def _path(self, claim_id: str) -> Path:
        if not re.fullmatch(CLAIM_ID, claim_id):
            raise _not_stored(claim_id)
        return self.claims / claim_id

    def _lock_of(self, claim_id: str) -> Path:
        return self.claims / f".{claim_id}.lock"


def has_room(folder: Path) -> bool:
    """Whether there is enough free space to write."""
    return shutil.disk_usage(folder).free >= LEAST_FREE_BYTES


def is_left_behind(folder: Path) -> bool:
    """Whether a folder holds only what a process leaves that dies over a claim."""
    try:
        return {path.name for path in folder.iterdir()} <= {HTML_NAME, LOG_NAME}
    except OSError:
        return False


def _check_is_store(folder: Path) -> None:
    """Refuse other folders: what they hold would be removed when it is old."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    strange = sorted(name for name in names - {"lost+found"} if not name.startswith(_PARTS))
    if not strange and not {"claims.sqlite", "reviews.sqlite"} <= names and "claims" in names:
        strange = [f"claims/{path.name}" for path in (folder / "claims").iterdir()]
    if strange:
        message = f"{folder}: not a claim store, it holds {strange[0]!r}. Use an empty folder"
        raise UsageError(message, code="not_a_store")


def _take(path: Path, stack: contextlib.ExitStack) -> bool:
    """Whether this process now has the lock, until the stack is closed."""
    try:
        with contextlib.ExitStack() as attempt:
            file = attempt.enter_context(path.open("ab"))
            attempt.enter_context(locked(file, wait=False))
            # The previous holder may have removed the file.
            if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return False
            stack.enter_context(attempt.pop_all())
            return True
    except (BlockingIOError, FileNotFoundError):
        return False


def _not_writable(path: Path, error: OSError) -> RealDamageError:
    why = f"{error.strerror or error}. Check free space and permissions"
    message = f"{path}: cannot write to the claim store: {why}"
    return RealDamageError(message, code="store_not_writable")


def _not_stored(claim_id: str) -> Refusal:
    message = f"No claim {claim_id[:64]!r} is stored; only those sent with keep=true are."
    return Refusal(404, "not_found", message)


# What is removed without a request: expired claims, and what killed processes left


@dataclass(frozen=True)
class Purged:
    """claims: removed ids. problems: what failed. waiting: expired, left for the next purge."""

    claims: tuple[str, ...]
    problems: tuple[str, ...]
    waiting: int = 0
    clock_in_doubt: bool = False


def purge(store: ClaimStore, *, clock_confirmed: bool = False) -> Purged:
    """Remove expired claims, the oldest first, and finish what killed processes left.

    A claim that cannot be removed stops no other. clock_confirmed: by the operator; then all
    expired claims are removed at once.
    """
    gone: list[str] = []
    problems: list[str] = []
    kept, left = _scan(store.claims)
    for claim_id, folders in left.items():
        with _noted(problems):
            _finish(store, claim_id, folders)
    entries, faults = _read_log(store)
    problems += faults
    doubt = _is_clock_in_doubt(entries, kept)
    if doubt and clock_confirmed:
        doubt = False
        with _noted(problems):
            store.record({"event": _CONFIRMED})
    oldest = time.time() - _DAY * store.retention_days
    due = [claim_id for since, claim_id in sorted(kept) if since < oldest]
    if doubt:
        problems.append(
            f"Nothing was logged for more than {CLOCK_GAP_DAYS} days, so the clock may be wrong: "
            f"nothing is removed ({len(due)} of {len(kept)} claims have expired). Check the clock, "
            "then start once with --clock-confirmed"
        )
    at_most = len(due) if clock_confirmed else max(1, int(LARGEST_SHARE * len(kept)))
    for claim_id in [] if doubt else due:
        if len(gone) < at_most:
            with _noted(problems):
                store.delete(claim_id, lambda _: 0, reason="retention")
                gone.append(claim_id)
    with _noted(problems):
        if not doubt and len(gone) == len(due):
            store.index.purge(store.retention_days)
        if entries and not gone and time.time() - time_of(entries[-1]) > _DAY:
            store.record({"event": _CHECKED})  # so that the log of an idle service has no gap
    return Purged(tuple(gone), tuple(problems), 0 if doubt else len(due) - len(gone), doubt)


def _scan(claims: Path) -> tuple[list[tuple[float, str]], dict[str, list[Path]]]:
    """(since when, id) of kept claims; other ids that were worked on, with leftover folders."""
    kept: list[tuple[float, str]] = []
    left: dict[str, list[Path]] = {}
    for path in sorted(claims.iterdir()):
        with contextlib.suppress(OSError):  # removed meanwhile, or no folder
            if work := _WORK_FILE.fullmatch(path.name):
                left.setdefault(work[1], []).extend([path] if path.is_dir() else [])
            elif re.fullmatch(CLAIM_ID, path.name):
                if is_left_behind(path):
                    left.setdefault(path.name, [])
                else:
                    kept.append(((path / JSON_NAME).stat().st_mtime, path.name))
    return kept, left


def _finish(store: ClaimStore, claim_id: str, folders: Iterable[Path]) -> None:
    """Complete or undo what a killed process began. Raises Refusal 409 when it is still at work."""
    with store.reserved(claim_id, patience=0, even_when_full=True) as release:
        for path in folders:
            shutil.rmtree(path)
        entries, _ = _read_log(store)
        about = [one["event"] for one in entries if one["payload"].get("claim_id") == claim_id]
        is_logged = about[-1:] == [EVENT]
        if not store.is_kept(claim_id):
            store.forget(claim_id)
            if is_logged:
                store.record({"event": _DELETED, "claim_id": claim_id, "reason": "interrupted"})
        elif not is_logged:
            for entry in EvidenceLog(store.claims / claim_id / LOG_NAME).verify().entries[-1:]:
                store.record({"event": entry["event"], **entry["payload"]})
        release()


def _is_clock_in_doubt(
    entries: Sequence[dict[str, Any]], kept: Sequence[tuple[float, str]]
) -> bool:
    """Whether the log has too long a gap since the oldest claim or the last confirmation."""
    confirmed = max(
        (at for at, entry in enumerate(entries) if entry["event"] == _CONFIRMED), default=0
    )
    times = [time_of(entry) for entry in entries[confirmed:]]
    since = min(since for since, _ in kept) - 60 if kept else max(times, default=0)
    steady: list[float] = []
    for one in [*(when for when in times if when >= since), time.time()]:
        while steady and steady[-1] > one:  # the clock had been ahead, and was set right
            steady.pop()
        steady.append(one)
    return any(after - before > CLOCK_GAP_DAYS * _DAY for before, after in pairwise(steady))


def _read_log(store: ClaimStore) -> tuple[Sequence[dict[str, Any]], Sequence[str]]:
    """The entries of the log over all claims, and what is wrong with it."""
    if not store.log.path.exists():
        return (), ()
    report = store.log.verify()
    return report.entries, report.problems


@contextlib.contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """An error becomes a problem in words. That somebody else works on a claim is none."""
    try:
        yield
    except (RealDamageError, OSError) as error:
        problems.append(str(error))
    except Refusal:
        pass
