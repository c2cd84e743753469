"""Claims that the caller asked to keep: one folder of evidence each, found and removed by id, gone after their time.

What is kept is the decision with its evidence, drawn small. The photos themselves are not, so neither are the positions
that their metadata may hold.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from realdamage.inference.claim import Claim, ClaimIndex, EvidenceLog, write_evidence
from realdamage.inference.claim.sightings import Fingerprint
from realdamage.inference.errors import RealDamageError, UsageError
from realdamage.service.refusals import Refusal

CLAIM_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""Ids that are names of folders on every system; ids made by us are among them."""

DOCUMENTS = {"evidence.json": "application/json", "evidence.html": "text/html; charset=utf-8"}

Photos = Sequence[tuple[str, bytes]]

_PARTS = ("claims", "claims.sqlite", "reviews.sqlite", "log.jsonl")
_OF_OTHERS = ("lost+found",)  # at the top of a disk
_LEFT_BEHIND_S = 3600
"""Seconds after which a folder without evidence is what a process left that was killed: no claim takes that long."""


def prepare_store(folder: Path) -> Path:
    """The folder, made for this user alone when absent.

    Raises RealDamageError when it cannot be made, UsageError when it holds what no store holds: claims in it would be
    removed after their time, whoever wrote them.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - set(_OF_OTHERS)
        strange = sorted(name for name in names if not name.startswith(_PARTS[1:]) and name != "claims")
        if not strange and not {"claims.sqlite", "reviews.sqlite"} <= names and (folder / "claims").exists():
            strange = [f"claims/{path.name}" for path in (folder / "claims").iterdir()]
    except OSError as error:
        raise RealDamageError(
            f"{folder}: the store cannot be made: {error.strerror}; name a folder that can be written"
        ) from error
    if strange:
        raise UsageError(f"{folder}: no store of this service, it holds {strange[0]!r}; name a new or an empty folder")
    return folder


class _LookOnly(ClaimIndex):
    """The index for claims that are not to be kept: they are compared with earlier ones and leave no trace."""

    def add_fingerprints(self, claim_id: str, photos: Iterable[Fingerprint], *, seen: str | None = None) -> int:
        """Remembers nothing."""
        return 0


@dataclass(frozen=True)
class Purged:
    """claims: ids of those that went. problems: what could not be removed, in words."""

    claims: tuple[str, ...]
    problems: tuple[str, ...]


class ClaimStore:
    """In a folder: claims/ID/ with the evidence, claims.sqlite with hashes of photos, log.jsonl over all claims.

    A claim's folder is made when its judging begins, so that the id is taken, and stays empty until it is judged.
    Safe for several threads, and for several processes on one folder. Raises what `prepare_store` raises.
    """

    def __init__(self, folder: Path, retention_days: int) -> None:
        self._claims, self._retention_days = prepare_store(folder) / "claims", retention_days
        try:
            self._claims.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _unwritable(self._claims, error) from error
        self.index = ClaimIndex.open(folder / "claims.sqlite")
        self.look_only = _LookOnly.open(folder / "claims.sqlite")
        self._log = EvidenceLog(folder / "log.jsonl")

    @contextlib.contextmanager
    def new(self, claim_id: str) -> Iterator[None]:
        """Around the judging and keeping of a claim; when that fails, the index forgets it again.

        Raises Refusal 409 when a claim with this id is kept or under way.
        """
        folder = self._folder(claim_id)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            raise Refusal(
                409, "claim_exists", f"a claim {claim_id!r} is stored already; send another id, or DELETE it first"
            ) from None
        except OSError as error:
            raise _unwritable(folder, error) from error
        try:
            yield
        except BaseException:
            # In this order: where the index cannot forget now, `purge` finds the empty folder and tries again.
            self.index.delete(claim_id)
            self._free(folder)
            raise
        self._free(folder)

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
        """Remove the evidence and the hashes of its photos; the log keeps that there was one. Raises Refusal 404, also
        for a claim that is still being judged."""
        folder = self._folder(claim_id)
        if not (folder / "evidence.json").is_file():
            raise not_stored(claim_id)
        self.index.delete(claim_id)
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:  # another process was faster
            raise not_stored(claim_id) from None
        except OSError as error:
            raise _unwritable(folder, error) from error
        self._log.append({"event": "claim_deleted", "claim_id": claim_id})

    def purge(self) -> Purged:
        """Remove what is older than the retention, and what killed processes left. One that cannot be removed keeps no
        other from being so."""
        oldest = time.time() - 86400 * self._retention_days
        gone, problems = [], []
        for folder in sorted(self._claims.iterdir()):
            try:
                if self._remove_if_old(folder, oldest):
                    gone.append(folder.name)
            except (RealDamageError, OSError) as error:
                problems.append(str(error))
            except Refusal:
                continue  # another process was faster
        self.index.purge(self._retention_days)
        return Purged(tuple(gone), tuple(problems))

    def _free(self, folder: Path) -> None:
        """The id may be used again, unless evidence was kept."""
        with contextlib.suppress(OSError):
            folder.rmdir()

    def _remove_if_old(self, folder: Path, oldest: float) -> bool:
        """Whether a claim went."""
        document = folder / "evidence.json"
        if re.fullmatch(CLAIM_ID, folder.name) and document.is_file():
            if document.stat().st_mtime < oldest:
                self.delete(folder.name)
                return True
        elif _is_left_behind(folder) and folder.stat().st_mtime < time.time() - _LEFT_BEHIND_S:
            self.index.delete(folder.name)
            shutil.rmtree(folder)
        return False

    def close(self) -> None:
        """Close the index."""
        self.index.close()
        self.look_only.close()

    def _folder(self, claim_id: str) -> Path:
        if not re.fullmatch(CLAIM_ID, claim_id):
            raise not_stored(claim_id)
        return self._claims / claim_id


def _is_left_behind(folder: Path) -> bool:
    """A claim whose judging or removal ended in the middle, or evidence half written; nothing that others put here."""
    if not folder.is_dir():
        return False
    if re.fullmatch(rf"\.{CLAIM_ID}\.[0-9a-f]+\.(tmp|old)", folder.name):
        return True
    inside = {path.name for path in folder.iterdir()}
    return re.fullmatch(CLAIM_ID, folder.name) is not None and inside <= {"evidence.html", "log.jsonl"}


def _unwritable(path: Path, error: OSError) -> RealDamageError:
    return RealDamageError(f"{path}: the store cannot be changed: {error.strerror or error}; make room, or its rights")


def not_stored(claim_id: str) -> Refusal:
    """No such claim."""
    return Refusal(
        404, "not_found", f"no claim {claim_id[:64]!r} is stored; only those sent with keep=true are, for a time"
    )
