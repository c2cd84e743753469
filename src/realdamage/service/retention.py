"""What is removed from the store without being asked for: claims past their time, and what killed processes left."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realdamage.inference.claim.evidence import EVENT, JSON_NAME, LOG_NAME
from realdamage.inference.claim.log import EvidenceLog
from realdamage.inference.errors import RealDamageError
from realdamage.service.refusals import Refusal
from realdamage.service.storage import CLAIM_ID, DELETED, ClaimStore, is_left_behind

_BESIDE = re.compile(rf"\.({CLAIM_ID})\.(?:lock|[0-9a-f]+\.(?:tmp|old))")
_DAY = 86400


@dataclass(frozen=True)
class Purged:
    """claims: ids of those that were removed. problems: what could not be done, in words."""

    claims: tuple[str, ...]
    problems: tuple[str, ...]


def purge(store: ClaimStore) -> Purged:
    """Remove claims that are older than the retention, the oldest first, and finish what killed processes left. A claim
    that cannot be removed does not stop the others."""
    gone: list[str] = []
    problems: list[str] = []
    kept, left = _look_through(store.claims)
    for claim_id, beside in left.items():
        with _noted(problems):
            _finish(store, claim_id, beside)
    due = [claim_id for since, claim_id in sorted(kept) if since < time.time() - _DAY * store.retention_days]
    for claim_id in due:
        with _noted(problems):
            store.delete(claim_id, reason="retention")
            gone.append(claim_id)
    with _noted(problems):
        store.index.purge(store.retention_days)
    return Purged(tuple(gone), tuple(problems))


def _look_through(claims: Path) -> tuple[list[tuple[float, str]], dict[str, list[Path]]]:
    """(since when, id) of kept claims; ids that somebody works or worked on, with the folders beside theirs."""
    kept: list[tuple[float, str]] = []
    left: dict[str, list[Path]] = {}
    for path in sorted(claims.iterdir()):
        with contextlib.suppress(OSError):  # removed meanwhile, or no folder
            if beside := _BESIDE.fullmatch(path.name):
                left.setdefault(beside[1], []).extend([path] if path.is_dir() else [])
            elif re.fullmatch(CLAIM_ID, path.name):
                if is_left_behind(path):
                    left.setdefault(path.name, [])
                else:
                    kept.append(((path / JSON_NAME).stat().st_mtime, path.name))
    return kept, left


def _finish(store: ClaimStore, claim_id: str, beside: Iterable[Path]) -> None:
    """Complete or undo what a process began that was killed. Raises Refusal 409 when it is still at it."""
    with store.reserved(claim_id, patience=0, even_when_full=True) as release:
        for path in beside:
            shutil.rmtree(path)
        about = [one["event"] for one in _read(store) if one["payload"].get("claim_id") == claim_id]
        is_logged = about[-1:] == [EVENT]
        if not store.is_kept(claim_id):
            store.forget(claim_id)
            if is_logged:
                store.record({"event": DELETED, "claim_id": claim_id, "reason": "interrupted"})
        elif not is_logged:
            for entry in EvidenceLog(store.claims / claim_id / LOG_NAME).verify().entries[-1:]:
                store.record({"event": entry["event"], **entry["payload"]})
        release()


def _read(store: ClaimStore) -> Sequence[dict[str, Any]]:
    """The entries of the log over all claims."""
    return store.log.verify().entries if store.log.path.exists() else ()


@contextlib.contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """An error becomes a problem in words. That somebody else works on a claim is none."""
    try:
        yield
    except (RealDamageError, OSError) as error:
        problems.append(str(error))
    except Refusal:
        pass
