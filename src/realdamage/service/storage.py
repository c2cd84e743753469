"""Claims that the caller asked to keep: one folder of evidence each, found and removed by id (`retention`: by age).

What is kept is the decision with its evidence, drawn small. The photos themselves are not, so neither are the positions
that their metadata may hold.

A claim is kept as long as its folder has evidence.json: the folder appears whole, and that file is the first to be
removed. Photos in the index count only while their claim is kept. Whoever works on a claim locks the file .ID.lock,
and the system frees that lock when the process dies. So a service that is killed blocks no id.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from realdamage.claims import Claim, ClaimIndex, EvidenceLog, write_evidence
from realdamage.claims.evidence import HTML_NAME, JSON_NAME, LOG_NAME
from realdamage.claims.index import Fingerprint
from realdamage.claims.log import locked
from realdamage.errors import RealDamageError, UsageError
from realdamage.service.refusals import Refusal

CLAIM_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""Ids that are names of folders on every system; ids made by us are among them."""

DOCUMENTS = {"evidence.json": "application/json", "evidence.html": "text/html; charset=utf-8"}

LEAST_FREE_BYTES = 64 * 1024 * 1024
"""Free space of the store's disk below which no claim is kept and the service is not ready."""

DELETED = "claim_deleted"
"""Of the log's entries about a claim that was removed."""

Photos = Sequence[tuple[str, bytes]]

_PARTS = ("claims", "claims.sqlite", "reviews.sqlite", "log.jsonl")
_OF_OTHERS = ("lost+found",)  # at the top of a disk
_PATIENCE_S = 0.5  # for a lock that `purge` or a search holds for a moment
_WAIT_S = 30.0  # for the end of another claim with the same photo
_POLL_S = 0.02


def prepare_store(folder: Path) -> Path:
    """The folder, made for this user alone when absent.

    Raises RealDamageError when it cannot be made, UsageError when it holds what no store holds: claims in it would be
    removed after their time, whoever wrote them.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - set(
            _OF_OTHERS
        )
        strange = sorted(
            name for name in names if not name.startswith(_PARTS[1:]) and name != "claims"
        )
        if (
            not strange
            and not {"claims.sqlite", "reviews.sqlite"} <= names
            and (folder / "claims").exists()
        ):
            strange = [f"claims/{path.name}" for path in (folder / "claims").iterdir()]
    except OSError as error:
        raise RealDamageError(
            f"{folder}: the store cannot be made: {error.strerror}; name a folder that can be written"
        ) from error
    if strange:
        raise UsageError(
            f"{folder}: no store of this service, it holds {strange[0]!r}; name a new or an empty folder"
        )
    return folder


def has_room(folder: Path) -> bool:
    """Whether there is enough free space to write."""
    return shutil.disk_usage(folder).free >= LEAST_FREE_BYTES


def is_left_behind(folder: Path) -> bool:
    """Whether there is a folder with nothing but what a process leaves that dies while it keeps or deletes a claim."""
    try:
        return {path.name for path in folder.iterdir()} <= {HTML_NAME, LOG_NAME}
    except OSError:
        return False


class _LookOnly(ClaimIndex):
    """The index for claims that are not to be kept: they are compared with earlier ones and leave no trace."""

    def add_fingerprints(
        self, claim_id: str, photos: Iterable[Fingerprint], *, seen: str | None = None
    ) -> int:
        """Remembers nothing."""
        return 0


class ClaimStore:
    """In a folder: claims/ID/ with the evidence, claims.sqlite with hashes of photos, log.jsonl over all claims.

    Safe for several threads, and for several processes on one folder. Opening one on a full disk works, since only
    removing claims makes room. Raises what `prepare_store` raises.
    """

    def __init__(self, folder: Path, retention_days: int) -> None:
        self.folder, self.retention_days = prepare_store(folder), retention_days
        self.claims = folder / "claims"
        try:
            self.claims.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.claims, error) from error
        self.index = ClaimIndex(folder / "claims.sqlite", counts=self._counts)
        self.look_only = _LookOnly(folder / "claims.sqlite", counts=self._counts)
        self.log = EvidenceLog(folder / "log.jsonl")
        if has_room(folder) or not self.index.path.exists():
            self.index.check()
            with contextlib.suppress(RealDamageError):  # `check` reports it
                self.log.recover()

    def check(self) -> None:
        """Raises Refusal 503 when no claim can be kept: too little free space, or a log or folder that is unusable."""
        self._check_room()
        try:
            _ = self.log.head
            fault = "" if os.access(self.claims, os.W_OK) else "its folder cannot be written"
        except RealDamageError:
            fault = "its log does not end with a whole entry"
        if fault:
            raise Refusal(
                503,
                "store_fails",
                f"the store of claims cannot be used: {fault}",
                {"Retry-After": "60"},
            )

    @contextlib.contextmanager
    def new(self, claim_id: str) -> Iterator[None]:
        """Around the judging and keeping of a claim; when that fails, nothing of it is left.

        Raises Refusal 409 when a claim with this id is kept or under way, 503 when the disk is nearly full.
        """
        self._check_room()
        self._check_unused(claim_id)
        with self.reserved(claim_id) as release:
            self._check_unused(claim_id)
            try:
                self.forget(claim_id)  # what a killed service left of it
                yield
            except BaseException:
                with contextlib.suppress(
                    RealDamageError
                ):  # the lock file stays then, and `purge` tries again
                    self.forget(claim_id)
                    release()
                raise
            release()

    def keep(self, claim: Claim, photos: Photos, listings: Photos) -> None:
        """Write the evidence, whole or not at all. Raises RealDamageError when it cannot be written."""
        write_evidence(claim, photos, listings, self._path(claim.claim_id), log=self.log)

    def read(self, claim_id: str, document: str) -> bytes:
        """One of DOCUMENTS. Raises Refusal 404."""
        try:
            return (self._path(claim_id) / document).read_bytes()
        except OSError:
            raise not_stored(claim_id) from None

    def delete(
        self,
        claim_id: str,
        *,
        reviews: Callable[[str], int] = lambda _: 0,
        by: str = "",
        reason: str = "request",
    ) -> None:
        """Remove the evidence, the hashes of its photos and the reviews of it; the log keeps how many, and who asked.

        reviews: removes them, returns how many. by: name of the caller's key. Raises Refusal 404 when there is nothing
        to remove, 409 while the claim is being judged.
        """
        event = {"event": DELETED, "claim_id": claim_id, "by": by, "reason": reason}
        if not re.fullmatch(
            CLAIM_ID, claim_id
        ):  # never a claim of this store, but a reviewer may have named it
            if not (count := reviews(claim_id)):
                raise not_stored(claim_id)
            self.record({**event, "reviews": count})
            return
        with self.reserved(claim_id, even_when_full=True) as release:
            found = {
                "evidence": self.is_kept(claim_id),
                "photos": self.forget(claim_id),
                "reviews": reviews(claim_id),
            }
            if any(found.values()):
                self.record({**event, **found})
            release()
        if not any(found.values()):
            raise not_stored(claim_id)

    def close(self) -> None:
        """Close the index."""
        self.index.close()
        self.look_only.close()

    def _counts(self, claim_id: str, earlier: bool) -> bool:
        """Whether the photos of a claim count. One that added its photos `earlier` and is under way is waited for: of
        two claims with the same photo at once, the second must see the first, unless that one fails."""
        if not re.fullmatch(CLAIM_ID, claim_id):
            return False
        end = time.monotonic() + _WAIT_S
        while earlier and self._is_under_way(claim_id):
            if time.monotonic() > end:
                raise RealDamageError(
                    f"claim {claim_id}: has the same photo and is still being judged after {_WAIT_S:g} s; try again"
                )
            time.sleep(_POLL_S)
        return self.is_kept(claim_id)

    def is_kept(self, claim_id: str) -> bool:
        """Whether there is evidence of it."""
        return (self.claims / claim_id / JSON_NAME).is_file()

    def _is_under_way(self, claim_id: str) -> bool:
        try:
            with self._lock_of(claim_id).open("r+b") as file, locked(file, wait=False):
                return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True

    @contextlib.contextmanager
    def reserved(
        self, claim_id: str, *, patience: float = _PATIENCE_S, even_when_full: bool = False
    ) -> Iterator[Callable[[], None]]:
        """Nobody else works on this id until the block ends. Yields a function that removes the lock file; where it is
        not called, because something failed, `purge` finds the file and finishes or undoes what was begun.

        even_when_full: go on without a lock when the disk has no room for its file, since no claim can be kept then.
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
                        raise Refusal(
                            409,
                            "claim_under_way",
                            f"a claim {claim_id!r} is being judged; wait for its answer",
                        )
                    time.sleep(_POLL_S)
            except OSError as error:
                if not (even_when_full and error.errno == errno.ENOSPC):
                    raise _unwritable(path, error) from error
            yield release

    def forget(self, claim_id: str) -> int:
        """Remove the files of a claim, then its photos from the index; returns how many those were. Not logged."""
        folder = self._path(claim_id)
        try:
            if self.is_kept(claim_id) or is_left_behind(folder):
                (folder / JSON_NAME).unlink(missing_ok=True)  # from now on the claim is not kept
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(folder)
        except OSError as error:
            raise _unwritable(folder, error) from error
        return self.index.delete(claim_id)

    def record(self, event: Mapping[str, Any]) -> None:
        """Add an entry to the log over all claims."""
        self.log.recover()
        self.log.append(event)

    def _check_unused(self, claim_id: str) -> None:
        folder = self._path(claim_id)
        if folder.exists() and not is_left_behind(folder):
            message = f"a claim {claim_id!r} is stored already; send another id, or DELETE it first"
            raise Refusal(409, "claim_exists", message)

    def _check_room(self) -> None:
        if not has_room(self.folder):
            message = f"the disk of the store has less than {LEAST_FREE_BYTES} bytes free; make room, or delete claims"
            raise Refusal(503, "store_full", message, {"Retry-After": "60"})

    def _path(self, claim_id: str) -> Path:
        if not re.fullmatch(CLAIM_ID, claim_id):
            raise not_stored(claim_id)
        return self.claims / claim_id

    def _lock_of(self, claim_id: str) -> Path:
        return self.claims / f".{claim_id}.lock"


def _take(path: Path, stack: contextlib.ExitStack) -> bool:
    """Whether the lock is ours now, until the stack is closed."""
    try:
        with contextlib.ExitStack() as attempt:
            file = attempt.enter_context(path.open("ab"))
            attempt.enter_context(locked(file, wait=False))
            if not os.path.samestat(
                os.fstat(file.fileno()), path.stat()
            ):  # removed by who held it before
                return False
            stack.enter_context(attempt.pop_all())
            return True
    except (BlockingIOError, FileNotFoundError):
        return False


def _unwritable(path: Path, error: OSError) -> RealDamageError:
    return RealDamageError(
        f"{path}: cannot write to the store of claims: {error.strerror or error}; free disk space, or fix the "
        "permissions of the folder"
    )


def not_stored(claim_id: str) -> Refusal:
    """No such claim."""
    return Refusal(
        404,
        "not_found",
        f"no claim {claim_id[:64]!r} is stored; only those sent with keep=true are, for a time",
    )
