"""What is removed from the store without being asked for: claims past their time, and what killed processes left."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from realdamage.claims.evidence import EVENT, JSON_NAME, LOG_NAME
from realdamage.claims.log import EvidenceLog, time_of
from realdamage.errors import RealDamageError
from realdamage.service.refusals import Refusal
from realdamage.service.storage import CLAIM_ID, DELETED, ClaimStore, is_left_behind

CLOCK_GAP_DAYS = 7
"""When nothing was logged for longer, the clock may be wrong: no claim is removed until the operator confirms it. A
service that runs logs at least once a day."""
LARGEST_SHARE = 0.25
"""Of the stored claims, removed by one `purge`; one claim at least."""

_BESIDE = re.compile(rf"\.({CLAIM_ID})\.(?:lock|[0-9a-f]+\.(?:tmp|old))")
_CHECKED, _CONFIRMED = "retention_checked", "clock_confirmed"
_DAY = 86400


@dataclass(frozen=True)
class Purged:
    """claims: ids of those that were removed. problems: what could not be done, in words. waiting: claims past their
    time that were left for the next purge. clock_in_doubt: no claim was removed because the clock may be wrong."""

    claims: tuple[str, ...]
    problems: tuple[str, ...]
    waiting: int = 0
    clock_in_doubt: bool = False


def purge(store: ClaimStore, *, clock_confirmed: bool = False) -> Purged:
    """Remove claims that are older than the retention, the oldest first, and finish what killed processes left. A claim
    that cannot be removed does not stop the others.

    clock_confirmed: the operator says that the clock is right, so all claims past their time are removed at once.
    """
    gone: list[str] = []
    problems: list[str] = []
    kept, left = _look_through(store.claims)
    for claim_id, beside in left.items():
        with _noted(problems):
            _finish(store, claim_id, beside)
    entries, faults = _read(store)
    problems += faults
    doubt = _is_clock_in_doubt(entries, kept)
    if doubt and clock_confirmed:
        doubt = False
        with _noted(problems):
            store.record({"event": _CONFIRMED})
    due = [
        claim_id
        for since, claim_id in sorted(kept)
        if since < time.time() - _DAY * store.retention_days
    ]
    if doubt:
        problems.append(
            f"{store.folder}: nothing was logged for more than {CLOCK_GAP_DAYS} days, so the clock may be wrong, and "
            f"nothing is removed ({len(due)} of {len(kept)} claims are past their time); check the clock, then start "
            "once with --clock-confirmed"
        )
    at_most = len(due) if clock_confirmed else max(1, int(LARGEST_SHARE * len(kept)))
    for claim_id in [] if doubt else due:
        if len(gone) < at_most:
            with _noted(problems):
                store.delete(claim_id, reason="retention")
                gone.append(claim_id)
    with _noted(problems):
        if not doubt and len(gone) == len(due):
            store.index.purge(store.retention_days)
        if entries and not gone and time.time() - time_of(entries[-1]) > _DAY:
            store.record({"event": _CHECKED})  # so that the log of an idle service has no gap
    return Purged(tuple(gone), tuple(problems), 0 if doubt else len(due) - len(gone), doubt)


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
        about = [
            one["event"] for one in _read(store)[0] if one["payload"].get("claim_id") == claim_id
        ]
        is_logged = about[-1:] == [EVENT]
        if not store.is_kept(claim_id):
            store.forget(claim_id)
            if is_logged:
                store.record({"event": DELETED, "claim_id": claim_id, "reason": "interrupted"})
        elif not is_logged:
            for entry in EvidenceLog(store.claims / claim_id / LOG_NAME).verify().entries[-1:]:
                store.record({"event": entry["event"], **entry["payload"]})
        release()


def _is_clock_in_doubt(
    entries: Sequence[dict[str, Any]], kept: Sequence[tuple[float, str]]
) -> bool:
    """Whether the log has too long a gap between the oldest claim, or the operator's last confirmation, and now."""
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


def _read(store: ClaimStore) -> tuple[Sequence[dict[str, Any]], Sequence[str]]:
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
