"""Checks a folder of evidence: are the files those that were recorded, and is the chain of records whole?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realdamage.claims.decide import SCHEMA_VERSION
from realdamage.claims.evidence import EVENT, HTML_NAME, JSON_NAME, LOG_NAME, ORIGINALS
from realdamage.claims.log import EvidenceLog
from realdamage.errors import UsageError


@dataclass(frozen=True)
class VerifyReport:
    """checked: what was looked at and is right. problems: what does not match, each naming it; empty when all is well.
    notes: what is not covered. proves: what follows from it, and what does not. head: of the folder's log, or of the
    log that was given. entries: how many that has."""

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
    folder: str | Path,
    *,
    head: str | None = None,
    log: str | Path | None = None,
    photos: Sequence[tuple[str, bytes]] = (),
) -> VerifyReport:
    """Recompute the digests of a folder of evidence, and follow its log.

    head: a hash noted or published earlier, 64 hex digits. log: the one over all claims, looked at too; `head` is then
    one of that log's. photos: (name, bytes) of originals that were not kept, to be found among the claim's.

    Raises UsageError when there is no such folder or log, or `head` is no hash.
    """
    folder = Path(folder)
    if not (folder / JSON_NAME).is_file() and not (folder / LOG_NAME).is_file():
        raise UsageError(
            f"{folder}: no evidence in this folder; it has neither {JSON_NAME} nor {LOG_NAME}"
        )
    if head is not None and (len(head) != 64 or set(head.lower()) - set("0123456789abcdef")):
        raise UsageError(
            f"--head {head!r}: a head has 64 hex digits, as `realdamage claim` and `verify` print it"
        )
    if log is not None and not Path(log).is_file():
        raise UsageError(f"{log}: no such log")
    checked: list[str] = []
    problems: list[str] = []
    notes: list[str] = []
    values = _read_json(folder / JSON_NAME, problems)
    chains = [(folder / LOG_NAME, head if log is None else None)]
    chains += [(Path(log), head)] if log is not None else []
    last, entries, since, later = "", 0, None, False
    for path, anchor in chains:
        if not path.is_file():
            problems.append(f"{path}: is missing")
            continue
        report = EvidenceLog(path).verify(anchor)
        problems += report.problems
        last, entries, since = report.head, len(report.entries), report.since
        if not report.problems:
            checked.append(
                f"{path}: {entries} entr{'y' if entries == 1 else 'ies'}, the chain is whole"
            )
        notes += [
            f"{path}, line {line}: its time is before that of the line above, so the clock was wrong at one of them"
            for line in report.steps_back
        ]
        claim_id = values.get("claim_id") if path is not chains[0][0] else None
        index = _compare_files(folder, path, claim_id, report.entries, checked, problems, notes)
        if since is not None and index is not None and index >= entries - since:
            later = True
            notes.append(
                f"{path}: the entry about this evidence was added after the head that was given"
            )
    _compare_originals(folder, values, photos, checked, problems)
    return VerifyReport(
        tuple(dict.fromkeys(checked)),
        tuple(dict.fromkeys(problems)),
        tuple(dict.fromkeys(notes)),
        () if problems else _proves(head, since, later),
        last,
        entries,
    )


def _compare_files(
    folder: Path,
    path: Path,
    claim_id: Any,
    entries: Sequence[Mapping[str, Any]],
    checked: list[str],
    problems: list[str],
    notes: list[str],
) -> int | None:
    """The files against the log's last entry about evidence; of a log over all claims, about this `claim_id`. Returns
    where that entry stands, None without one."""
    about = [
        (index, entry["payload"])
        for index, entry in enumerate(entries)
        if entry["event"] == EVENT
        and (claim_id is None or entry["payload"].get("claim_id") == claim_id)
    ]
    if not about or not isinstance(about[-1][1].get("files"), dict):
        problems.append(
            f"{path}: has no entry about this evidence"
            + (f" (claim {claim_id})" if claim_id else "")
        )
        return None
    place, recorded = about[-1][0], about[-1][1]["files"]
    for name in sorted({JSON_NAME, HTML_NAME} | set(recorded)):
        file = folder / name
        if name not in recorded or not _inside(name):
            problems.append(f"{path}: its entry about this evidence does not cover {name}")
        elif not file.is_file():
            problems.append(f"{file}: is missing")
        elif hashlib.sha256(file.read_bytes()).hexdigest() != recorded[name]:
            problems.append(f"{file}: was changed, it is not the file that {path.name} records")
        else:
            checked.append(f"{file}: as recorded")
    here = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    notes += [
        f"{folder / name}: is not part of the evidence"
        for name in sorted(here - set(recorded) - {LOG_NAME})
    ]
    return place


def _compare_originals(
    folder: Path,
    values: Mapping[str, Any],
    photos: Sequence[tuple[str, bytes]],
    checked: list[str],
    problems: list[str],
) -> None:
    """The originals in the folder, and those that were handed over, against the digests in the evidence."""
    names: dict[str, str] = {}
    for key, owner in (("listings", "the listing's"), ("photos", "the claim's")):
        for one in values[key] if isinstance(values.get(key), list) else ():
            if isinstance(one, dict):
                names[str(one.get("sha256"))] = f"{owner} {one.get('name')}"
    kept = [
        (str(file), file.read_bytes())
        for file in sorted((folder / ORIGINALS).glob("*"))
        if file.is_file()
    ]
    for name, data in [*kept, *photos]:
        digest = hashlib.sha256(data).hexdigest()
        if digest in names:
            checked.append(f"{name}: is {names[digest]}, byte for byte")
        else:
            problems.append(
                f"{name}: is none of the claim's photos, nor of the listing's (SHA-256 {digest})"
            )


def _read_json(path: Path, problems: list[str]) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except OSError:
        return {}  # told as missing where the files are compared
    except (ValueError, RecursionError):
        problems.append(f"{path}: is not JSON")
        return {}
    if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
        problems.append(
            f"{path}: is not evidence of version {SCHEMA_VERSION}, the one that this realdamage reads"
        )
        return {}
    return values


def _proves(head: str | None, since: int | None, later: bool) -> tuple[str, ...]:
    if head is None:
        return (
            "Shown: the files are those that the log records, and the log's chain is whole: no entry was changed, "
            "taken out or moved by itself.",
            "Not shown: when it was written, and by whom. Whoever holds the folder can write all of it anew, log "
            "included. Publish the head or have it time-stamped elsewhere, and give it with --head.",
        )
    added = (
        "it is the last entry"
        if not since
        else f"{since} entr{'y was' if since == 1 else 'ies were'} added since"
    )
    covered = "These files were recorded by then and have not changed since the head was noted."
    if later:
        covered = (
            "But these files were recorded after that head: it says nothing about them, and earlier evidence may have "
            "been replaced by them."
        )
    return (
        "Shown: the files are those that the log records, and the log is the one with the head that was given; "
        f"{added}. {covered}",
        "Not shown: that what was recorded was true. And the head is worth as much as the place it was noted in: one "
        "kept beside the folder can be replaced with it.",
    )


def _inside(name: str) -> bool:
    """Whether a recorded name stays in the folder: a forged log shall not have other files read."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts
