"""An append-only list of events; changing, removing or moving an entry breaks its chain.

JSON lines; each entry holds the SHA-256 of its payload and of the entry before it. The whole file
can still be rewritten: only a head that was published elsewhere rules that out.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from realdamage.errors import RealDamageError, UsageError

GENESIS = "0" * 64
"""Replaces the hash of the entry before the first."""
_KEYS = {"index", "time", "event", "payload", "payload_sha256", "previous", "hash"}
_CHUNK = 65536


@dataclass(frozen=True)
class LogReport:
    """The result of following the chain. problems: empty when it is intact. head: the last hash.

    since: number of entries after the given head; None without one.
    """

    entries: tuple[dict[str, Any], ...]
    head: str
    problems: tuple[str, ...]
    since: int | None = None

    @property
    def steps_back(self) -> tuple[int, ...]:
        """Lines (from 1) with an earlier time than the line above: a clock was wrong."""
        times = pairwise(time_of(entry) for entry in self.entries)
        return tuple(line for line, (before, after) in enumerate(times, start=2) if after < before)


class EvidenceLog:
    """The log in one file, made by the first `append`; threads and processes may append at once."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def head(self) -> str:
        """Hash of the last entry, to be published or time-stamped elsewhere; 64 zeros without one.

        Raises RealDamageError when the file does not end with a complete entry.
        """
        try:
            with self.path.open("rb") as file:
                return self._last(file)[1]
        except FileNotFoundError:
            return GENESIS
        except OSError as error:
            raise self._unusable(error) from error

    def append(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Add one entry and return it once it is on the disk; a failure adds nothing.

        event: its name under "event", and plain JSON values, whole numbers only.
        Raises UsageError on anything else, RealDamageError when it cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file, locked(file):
                return self._append(file, event)
        except OSError as error:
            raise self._unusable(error) from error

    def recover(self) -> bool:
        """Move an incomplete entry at the end, left by a power loss, to a file of its own, and
        append an entry "recovered" that names it. Returns whether there was one. A last line that
        is JSON stays."""
        try:
            with self.path.open("r+b", buffering=0) as file, locked(file):
                *lines, torn = self._end(file)
                if not torn and lines and not _is_json(lines[-1]):
                    torn = lines[-1] + b"\n"
                if not torn:
                    return False
                digest = hashlib.sha256(torn).hexdigest()
                aside = self.path.with_name(f"{self.path.name}.torn-{digest[:16]}")
                with aside.open("wb") as copy:
                    copy.write(torn)
                    copy.flush()
                    os.fsync(copy.fileno())
                file.truncate(file.seek(0, os.SEEK_END) - len(torn))
                event = {"event": "recovered", "file": aside.name}
                self._append(file, event | {"bytes": len(torn), "sha256": digest})
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unusable(error) from error
        return True

    def verify(self, head: str | None = None) -> LogReport:
        """Follow the chain from its first entry. head: a hash noted earlier, to be found in it.

        Raises RealDamageError when there is no such file.
        """
        try:
            *lines, rest = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise self._unusable(error) from error
        report = follow_chain(lines, str(self.path), head)
        if not rest:
            return report
        torn = f"{self.path}: ends in the middle of line {len(lines) + 1}"
        return replace(report, problems=(torn, *report.problems))

    def _append(self, file: IO[bytes], event: Mapping[str, Any]) -> dict[str, Any]:
        entry = make_entry(event, *self._last(file))
        self._write(file, f"{canonical(entry)}\n".encode())
        return entry

    def _end(self, file: IO[bytes]) -> list[bytes]:
        """The end of the file, split at newlines: at least the last line and what follows it."""
        end, tail = file.seek(0, os.SEEK_END), b""
        while end and tail.count(b"\n") < 2:
            start = max(0, end - _CHUNK)
            file.seek(start)
            tail, end = file.read(end - start) + tail, start
        return tail.split(b"\n")

    def _last(self, file: IO[bytes]) -> tuple[int, str]:
        """(index, hash) of the last entry; (-1, GENESIS) without any."""
        *before, rest = self._end(file)
        if not before and not rest:
            return -1, GENESIS
        entry = None
        if not rest and before:
            entry, _ = _check(before[-1], None, None)
        if entry is None:
            raise RealDamageError(
                f"{self.path}: does not end with a complete entry, so nothing can be added; keep "
                "this file, check it with `realdamage verify`, and start another log",
                code="log_torn",
            )
        return int(entry["index"]), str(entry["hash"])

    def _write(self, file: IO[bytes], line: bytes) -> None:
        size = file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), size)  # a full disk: remove the part that was written
            raise

    def _unusable(self, error: OSError) -> RealDamageError:
        return RealDamageError(
            f"{self.path}: cannot use the log: {error.strerror or error}. Check free space and "
            "permissions.",
            code="log_unusable",
        )


def make_entry(event: Mapping[str, Any], last: int, previous: str) -> dict[str, Any]:
    """The entry of an event, dated now. last, previous: index and hash of the entry before it.

    Raises UsageError when the event has no name, or a value that JSON or the log does not take.
    """
    payload = {key: value for key, value in event.items() if key != "event"}
    name = event.get("event")
    if not isinstance(name, str) or not name:
        raise UsageError("an entry of the log needs `event`: its name", code="log_entry")
    try:
        payload_sha256 = _sha256(payload)
    except UnicodeEncodeError as error:
        raise UsageError(
            f"an entry of the log has a text that is not Unicode: {error}", code="log_entry"
        ) from error
    time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    entry = {"index": last + 1, "time": time, "event": name, "payload": payload}
    entry |= {"payload_sha256": payload_sha256, "previous": previous}
    return entry | {"hash": entry_hash(entry)}


def follow_chain(lines: Iterable[bytes], name: str, head: str | None = None) -> LogReport:
    """Follow the entries of a log, one a line. name: of the log, for messages. head: a hash noted
    earlier, to be found in it."""
    entries: list[dict[str, Any]] = []
    problems: list[str] = []
    previous = GENESIS
    for number, line in enumerate(lines):
        entry, faults = _check(line, number, previous)
        problems += [f"{name}, line {number + 1}: {fault}" for fault in faults]
        if entry is None:
            break  # the rest could be a separate chain
        entries.append(entry)
        previous = entry["hash"]
    if not entries and not problems:
        problems.append(f"{name}: has no entry")
    since = None
    known = [entry["hash"] for entry in entries]
    if head is not None and head.lower() in known:
        since = len(known) - 1 - known.index(head.lower())
    elif head is not None:
        problems.append(
            f"{name}: the head {head[:16]}… is not in the chain of {len(known)} entries (it ends "
            f"with {previous[:16]}…): entries were removed or rewritten, or it is another log's "
            "head"
        )
    return LogReport(tuple(entries), previous, tuple(problems), since)


def canonical(values: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values have equal digests.

    Raises UsageError on a fraction, NaN or a value that JSON does not have.
    """
    if fault := _not_json(values):
        raise UsageError(
            "the log holds texts, whole numbers, true, false, null, lists and objects; "
            f"found {fault!r}",
            code="log_entry",
        )
    return json.dumps(
        values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def entry_hash(entry: Mapping[str, Any]) -> str:
    """SHA-256 of an entry without its hash and its payload, of which it holds the digest."""
    return _sha256({key: value for key, value in entry.items() if key not in ("hash", "payload")})


def time_of(entry: Mapping[str, Any]) -> float:
    """Seconds since 1970; -inf when the entry has no valid time."""
    try:
        return dt.datetime.fromisoformat(entry["time"]).timestamp()
    except (TypeError, ValueError, OverflowError):
        return -math.inf


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _check(
    line: bytes, index: int | None, previous: str | None
) -> tuple[dict[str, Any] | None, list[str]]:
    """The entry, or None, and what is wrong with it; its place only when `index` is given."""
    try:
        text = line.decode()
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None, ["is not JSON"]
    is_entry = isinstance(entry, dict) and set(entry) == _KEYS
    if not (is_entry and isinstance(entry["hash"], str) and isinstance(entry["payload"], dict)):
        return None, ["is not an entry of a log"]
    try:
        faults = [] if canonical(entry) == text else ["is not formatted as an entry"]
        if entry["payload_sha256"] != _sha256(entry["payload"]):
            faults.append("its payload was changed (payload_sha256)")
        if entry["hash"] != entry_hash(entry):
            faults.append("it was changed (hash)")
    except (UsageError, UnicodeEncodeError):
        return None, ["is not an entry of a log"]
    if previous is not None and entry["previous"] != previous:
        faults.append(
            f"does not follow the entry before it ({previous[:16]}…): removed, added, moved or "
            "changed"
        )
    if index is not None and entry["index"] != index:
        faults.append(f"has the index {entry['index']!r}, but is number {index}")
    return (None if faults and index is None else entry), faults


def _not_json(values: Any) -> str | None:
    """A value that the log does not take, or None."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if fault := _not_json(value) if isinstance(key, str) else repr(key):
                return fault
        return None
    if isinstance(values, list | tuple):
        return next((fault for value in values if (fault := _not_json(value))), None)
    return None if values is None or isinstance(values, str | bool | int) else repr(values)


def _sha256(values: Any) -> str:
    return hashlib.sha256(canonical(values).encode()).hexdigest()


@contextmanager
def locked(file: IO[bytes], *, wait: bool = True) -> Iterator[None]:
    """Lock an open file against all processes; the system frees it when a process dies.

    Raises BlockingIOError when another process holds it and `wait` is false.
    """
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise error if wait else BlockingIOError(*error.args) from error
        try:
            yield
        finally:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            fcntl.flock(file.fileno(), fcntl.LOCK_UN)
