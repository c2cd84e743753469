"""Checks a folder of evidence: does the log record these files, and is its chain intact?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realdamage.claims.database import Database
from realdamage.claims.decide import SCHEMA_VERSION
from realdamage.claims.evidence import (
    EVENT,
    HTML_NAME,
    JSON_NAME,
    LOG_NAME,
    ORIGINALS,
    STATEMENT,
    read_log,
)
from realdamage.claims.paths import AnyPath, files_below, files_named, to_path
from realdamage.claims.proof import nodes_of, prove
from realdamage.errors import RealDamageError, UsageError

_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True)
class VerifyReport:
    """checked: what is right. problems: what does not match; empty when all is well.
    notes: what is not covered. proves: what follows from it, and what does not.
    head: of the folder's log, or of the given log. entries: how many that has."""

    checked: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    proves: tuple[str, ...]
    head: str
    entries: int

    @property
    def passed(self) -> bool:
        """Whether everything matches."""
        return not self.problems


def verify_evidence(
    folder: str | AnyPath,
    *,
    head: str | None = None,
    log: str | Path | None = None,
    photos: Sequence[tuple[str, bytes]] = (),
) -> VerifyReport:
    """Recompute the digests of a folder of evidence, and follow its log.

    folder: a path, or the URL of a prefix such as s3://bucket/store/claims/ID.
    head: a hash noted or published earlier, 64 hex digits. log: the log over all claims, a file or
        the URL of a database, which is checked too; `head` is then one of that log.
        photos: (name, bytes) of originals to find.

    Raises UsageError when there is no such folder or log, or `head` is not a hash.
    """
    folder = to_path(folder)
    if not (folder / JSON_NAME).is_file() and not (folder / LOG_NAME).is_file():
        raise UsageError(f"{folder}: no evidence here; it has neither {JSON_NAME} nor {LOG_NAME}")
    if head is not None and (len(head) != 64 or set(head.lower()) - set("0123456789abcdef")):
        raise UsageError(
            f"--head {head!r}: a head has 64 hex digits, as `realdamage claim` and `verify` print "
            "it"
        )
    of_all = None if log is None else _log_at(log)
    check = _Check(folder)
    check.read_json()
    check.follow(folder / LOG_NAME, head if log is None else None, about_all=False)
    if of_all is not None:
        check.follow(of_all, head, about_all=True)
    check.compare_originals(photos)
    return VerifyReport(
        tuple(dict.fromkeys(check.checked)),
        tuple(dict.fromkeys(check.problems)),
        tuple(dict.fromkeys(check.notes)),
        () if check.problems else _proves(head, check.since, check.later),
        check.head,
        check.entries,
    )


def prove_claim(log: str | Path, claim_id: str, size: int | None = None) -> dict[str, Any]:
    """The proof that all entries about a claim ("": none, for the root alone) are in a log: a file
    or the URL of a database. size: see `proof.prove`.

    Raises UsageError without such entries, RealDamageError for a log that is not intact.
    """
    place = _log_at(log)
    if isinstance(place, Database):
        try:
            made = place.prove(claim_id, size)
        finally:
            place.close()
    else:
        report = read_log(place)
        if report.problems:
            raise RealDamageError(report.problems[0], code="log_broken")
        node = nodes_of(entry["hash"] for entry in report.entries)
        of_claim = [
            entry for entry in report.entries if entry["payload"].get("claim_id", "") == claim_id
        ]
        made = prove(of_claim if claim_id else (), node, len(report.entries), size)
    if claim_id and not made["entries"]:
        among = f"among its first {made['size']}"
        raise UsageError(f"the log has no entry about claim {claim_id!r} {among}", code="no_entry")
    return made


class _Check:
    """The lists of a `VerifyReport` while they grow, and what was read so far.

    since: entries after the given head. later: whether the evidence was recorded after it.
    """

    def __init__(self, folder: AnyPath) -> None:
        self.folder = folder
        self.checked: list[str] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.values: Mapping[str, Any] = {}
        self.head, self.entries = "", 0
        self.since: int | None = None
        self.later = False

    def read_json(self) -> None:
        path = self.folder / JSON_NAME
        try:
            values = json.loads(path.read_bytes())
        except OSError:
            return  # reported as missing where the files are compared
        except (ValueError, RecursionError):
            self.problems.append(f"{path}: is not JSON")
            return
        if isinstance(values, dict) and values.get("schema_version") == SCHEMA_VERSION:
            self.values = values
        else:
            self.problems.append(f"{path}: is not evidence of version {SCHEMA_VERSION}")

    def follow(self, log: AnyPath | Database, head: str | None, *, about_all: bool) -> None:
        """Follow a log, and compare the files with it. about_all: it is the log over all claims."""
        if isinstance(log, Database):
            path = log.name  # without a password
            report = log.verify(head)
            log.close()
        else:
            path = str(log)
            if not log.is_file():
                self.problems.append(f"{path}: is missing")
                return
            report = read_log(log, head)
        self.problems += report.problems
        self.head, self.entries, self.since = report.head, len(report.entries), report.since
        if not report.problems:
            self.checked.append(f"{path}: {_entries(self.entries)}, the chain is intact")
        self.notes += [
            f"{path}, line {line}: its time is before that of the line above, so a clock was wrong"
            for line in report.steps_back
        ]
        claim_id = self.values.get("claim_id") if about_all else None
        place = self._compare_files(path, claim_id, report.entries)
        if self.since is not None and place is not None and place >= self.entries - self.since:
            self.later = True
            self.notes.append(
                f"{path}: the entry about this evidence was added after the given head"
            )

    def _compare_files(
        self, path: str, claim_id: Any, entries: Sequence[Mapping[str, Any]]
    ) -> int | None:
        """The files against the log's last entry about evidence (about `claim_id`, if given).
        Returns the number of that entry, None without one."""
        place, recorded = None, None
        for index, entry in enumerate(entries):
            payload = entry["payload"]
            about_it = claim_id is None or payload.get("claim_id") == claim_id
            if entry["event"] == EVENT and about_it:
                place, recorded = index, payload.get("files")
            elif entry["event"] == STATEMENT and about_it and isinstance(recorded, dict):
                files = payload.get("files")
                recorded = recorded | files if isinstance(files, dict) else None
        if not isinstance(recorded, dict):
            which = f" (claim {claim_id})" if claim_id else ""
            self.problems.append(f"{path}: has no entry about this evidence{which}")
            return None
        source = path.rpartition("/")[2]
        for name in sorted({JSON_NAME, HTML_NAME} | set(recorded)):
            file = self.folder / name
            if name not in recorded or not _inside(name):
                self.problems.append(f"{path}: its entry about this evidence does not cover {name}")
            elif not file.is_file():
                self.problems.append(f"{file}: is missing")
            elif hashlib.sha256(file.read_bytes()).hexdigest() != recorded[name]:
                self.problems.append(f"{file}: was changed, {source} records another file")
            else:
                self.checked.append(f"{file}: as recorded")
        for name in sorted(files_below(self.folder).keys() - set(recorded) - {LOG_NAME}):
            self.notes.append(f"{self.folder / name}: is not part of the evidence")
        return place

    def compare_originals(self, photos: Sequence[tuple[str, bytes]]) -> None:
        """The originals in the folder, and the given ones, against the digests in the evidence."""
        names: dict[str, str] = {}
        for key, what in (("listings", "the listing photo"), ("photos", "the claim's photo")):
            found = self.values.get(key)
            for one in found if isinstance(found, list) else ():
                if isinstance(one, dict):
                    names[str(one.get("sha256"))] = f"{what} {one.get('name')}"
        files = files_named(self.folder / ORIGINALS, "*")
        kept = [(str(file), file.read_bytes()) for file in files if file.is_file()]
        for name, data in [*kept, *photos]:
            digest = hashlib.sha256(data).hexdigest()
            if digest in names:
                self.checked.append(f"{name}: is {names[digest]}, byte for byte")
            else:
                self.problems.append(
                    f"{name}: is not a photo of the claim, nor a listing photo (SHA-256 {digest})"
                )


def _log_at(log: str | Path) -> Path | Database:
    """A log over all claims: a file, or a database of SQLite or at a URL. Raises UsageError."""
    if "://" in str(log):
        return Database(str(log))
    path = Path(log)
    if not path.is_file():
        raise UsageError(f"{log}: no such log", code="no_log")
    with path.open("rb") as file:
        return Database(path) if file.read(len(_SQLITE)) == _SQLITE else path


def _proves(head: str | None, since: int | None, later: bool) -> tuple[str, ...]:
    if head is None:
        return (
            "Shown: the files are those that the log records, and the log's chain is intact: no "
            "entry was changed, removed or moved on its own.",
            "Not shown: when it was written, and by whom. Anyone with the folder can rewrite all "
            "of it, including the log. Publish the head or have it time-stamped elsewhere, and "
            "pass it with --head.",
        )
    added = f"{_entries(since)} added since" if since else "it is the last entry"
    covered = "These files were recorded by then and have not changed since the head was noted."
    if later:
        covered = (
            "But these files were recorded after that head: it says nothing about them, and they "
            "may have replaced earlier evidence."
        )
    return (
        "Shown: the files are those that the log records, and the log is the one with the given "
        f"head; {added}. {covered}",
        "Not shown: that what was recorded was true. The head is worth as much as the place where "
        "it was noted: one kept next to the folder can be replaced with it.",
    )


def _entries(number: int) -> str:
    return f"{number} entr{'y' if number == 1 else 'ies'}"


def _inside(name: str) -> bool:
    """Whether a recorded name stays in the folder: a forged log must not name other files."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts
