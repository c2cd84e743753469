"""Claims that the caller asked to keep: one folder of evidence each, found and removed by id, gone after their time.

What is kept is the decision with its evidence, drawn small. The photos themselves are not, so neither are the positions
that their metadata may hold.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from realdamage.inference.claim import Claim, ClaimIndex, EvidenceLog, write_evidence
from realdamage.inference.claim.sightings import Fingerprint
from realdamage.inference.errors import RealDamageError
from realdamage.service.refusals import Refusal

CLAIM_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""Ids that are names of folders on every system; ids made by us are among them."""

DOCUMENTS = {"evidence.json": "application/json", "evidence.html": "text/html; charset=utf-8"}

Photos = Sequence[tuple[str, bytes]]


class _LookOnly(ClaimIndex):
    """The index for claims that are not to be kept: they are compared with earlier ones and leave no trace."""

    def add_fingerprints(self, claim_id: str, photos: Iterable[Fingerprint], *, seen: str | None = None) -> int:
        """Remembers nothing."""
        return 0


class ClaimStore:
    """In a folder: claims/ID/ with the evidence, claims.sqlite with hashes of photos, log.jsonl over all claims.

    Safe for several threads. Raises RealDamageError when the folder cannot be used.
    """

    def __init__(self, folder: Path, retention_days: int) -> None:
        self._claims, self._retention_days = folder / "claims", retention_days
        try:
            self._claims.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RealDamageError(
                f"{folder}: the store cannot be made: {error.strerror}; name a folder that can be written"
            ) from error
        self.index = ClaimIndex.open(folder / "claims.sqlite")
        self.look_only = _LookOnly.open(folder / "claims.sqlite")
        self._log = EvidenceLog(folder / "log.jsonl")
        self._begun: set[str] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def new(self, claim_id: str) -> Iterator[None]:
        """Around the judging and keeping of a claim; when that fails, the index forgets it again.

        Raises Refusal 409 when a claim with this id is kept or under way.
        """
        with self._lock:
            if claim_id in self._begun or self._folder(claim_id).exists():
                raise Refusal(
                    409, "claim_exists", f"a claim {claim_id!r} is stored already; send another id, or DELETE it first"
                )
            self._begun.add(claim_id)
        try:
            yield
        except BaseException:
            self.index.delete(claim_id)
            raise
        finally:
            with self._lock:
                self._begun.discard(claim_id)

    def keep(self, claim: Claim, photos: Photos, listings: Photos) -> None:
        """Write the evidence, whole or not at all. Raises RealDamageError when it cannot be written."""
        write_evidence(claim, photos, listings, self._folder(claim.claim_id), log=self._log)

    def read(self, claim_id: str, document: str) -> bytes:
        """One of DOCUMENTS. Raises Refusal 404."""
        try:
            return (self._folder(claim_id) / document).read_bytes()
        except OSError:
            raise not_stored(claim_id) from None

    def delete(self, claim_id: str) -> None:
        """Remove the evidence and the hashes of its photos; the log keeps that there was one. Raises Refusal 404."""
        folder = self._folder(claim_id)
        forgotten = self.index.delete(claim_id)
        if folder.is_dir():
            shutil.rmtree(folder)
        elif not forgotten:
            raise not_stored(claim_id)
        self._log.append({"event": "claim_deleted", "claim_id": claim_id})

    def purge(self) -> list[str]:
        """Remove what is older than the retention; the ids of the claims that went."""
        oldest = time.time() - 86400 * self._retention_days
        gone = []
        for folder in sorted(self._claims.iterdir()):
            document = folder / "evidence.json"
            if re.fullmatch(CLAIM_ID, folder.name) and document.is_file() and document.stat().st_mtime < oldest:
                self.delete(folder.name)
                gone.append(folder.name)
        self.index.purge(self._retention_days)
        return gone

    def close(self) -> None:
        """Close the index."""
        self.index.close()
        self.look_only.close()

    def _folder(self, claim_id: str) -> Path:
        if not re.fullmatch(CLAIM_ID, claim_id):
            raise not_stored(claim_id)
        return self._claims / claim_id


def not_stored(claim_id: str) -> Refusal:
    """No such claim."""
    return Refusal(
        404, "not_found", f"no claim {claim_id[:64]!r} is stored; only those sent with keep=true are, for a time"
    )
