"""A list of what was recorded and when, in which no entry can be changed, taken out or moved without breaking a chain.

JSON lines; each entry holds the SHA-256 of its payload and of the entry before it. Whoever holds the file can still
write a new one from the first line on: only a head that was published elsewhere rules that out.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from realdamage.errors import RealDamageError, UsageError

GENESIS = "0" * 64
"""Stands for the entry before the first."""
_KEYS = ("index", "time", "event", "payload", "payload_sha256", "previous", "hash")
_CHUNK = 65536


@dataclass(frozen=True)
class LogReport:
    """What a look at the whole chain found. entries: those read. head: hash of the last. problems: empty when whole.
    since: entries after the given head; None without one."""

    entries: tuple[dict[str, Any], ...]
    head: str
    problems: tuple[str, ...]
    since: int | None = None

    @property
    def steps_back(self) -> tuple[int, ...]:
        """Lines (from 1) whose time is before that of the line above: the clock was wrong at one of them."""
        times = [time_of(entry) for entry in self.entries]
        return tuple(
            line for line, (before, after) in enumerate(pairwise(times), start=2) if after < before
        )


class EvidenceLog:
    """The log in one file, made by the first `append`; several threads and processes may append at once."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def head(self) -> str:
        """Hash of the last entry, to be published or time-stamped elsewhere; 64 zeros while there is none.

        Raises RealDamageError when the file does not end with a whole entry.
        """
        try:
            with self.path.open("rb") as file:
                return self._last(file)[1]
        except FileNotFoundError:
            return GENESIS
        except OSError as error:
            raise self._unusable(error) from error

    def append(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Add one entry at the end and return it; on the disk, whole, before this returns, or not at all.

        event: "event", its name, and what else is to be recorded: plain JSON values, whole numbers only, since not all
        programs write fractions alike. Raises UsageError on anything else, RealDamageError when the file cannot be
        written or does not end with a whole entry.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file, locked(file):
                return self._append(file, event)
        except OSError as error:
            raise self._unusable(error) from error

    def recover(self) -> bool:
        """Move half an entry at the end, left by a power loss or a kill, to a file of its own, and append an entry
        "recovered" that names this file. Returns whether there was one.

        A last line that is JSON stays: somebody changed it. Raises RealDamageError when a file cannot be written.
        """
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
                event = {
                    "event": "recovered",
                    "file": aside.name,
                    "bytes": len(torn),
                    "sha256": digest,
                }
                self._append(file, event)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unusable(error) from error
        return True

    def verify(self, head: str | None = None) -> LogReport:
        """Follow the chain from its first entry. head: a hash noted earlier, which must still be in the chain.

        Raises RealDamageError when there is no such file.
        """
        try:
            lines = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise self._unusable(error) from error
        entries: list[dict[str, Any]] = []
        problems: list[str] = []
        if lines[-1]:
            problems.append(f"{self.path}: ends in the middle of line {len(lines)}")
        previous = GENESIS
        for number, line in enumerate(lines[:-1]):
            entry, faults = _check(line, number, previous)
            problems += [f"{self.path}, line {number + 1}: {fault}" for fault in faults]
            if entry is None:
                break  # what follows cannot be told from a chain of its own
            entries.append(entry)
            previous = entry["hash"]
        if not entries and not problems:
            problems.append(f"{self.path}: holds no entry")
        since = None
        if head is not None:
            known = [entry["hash"] for entry in entries]
            if head.lower() in known:
                since = len(known) - 1 - known.index(head.lower())
            else:
                problems.append(
                    f"{self.path}: the head {head[:16]}… is not in the chain of {len(known)} entries (it ends with "
                    f"{previous[:16]}…): entries were taken out or written anew, or it is another log's head"
                )
        return LogReport(tuple(entries), previous, tuple(problems), since)

    def _append(self, file: IO[bytes], event: Mapping[str, Any]) -> dict[str, Any]:
        payload = {key: value for key, value in event.items() if key != "event"}
        name = event.get("event")
        if not isinstance(name, str) or not name:
            raise UsageError("an entry of the log needs `event`: its name")
        try:
            payload_sha256 = _sha256(payload)
        except UnicodeEncodeError as error:
            raise UsageError(
                f"an entry of the log holds a text that is not Unicode: {error}"
            ) from error
        index, previous = self._last(file)
        time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        entry = {"index": index + 1, "time": time, "event": name, "payload": payload}
        entry |= {"payload_sha256": payload_sha256, "previous": previous}
        entry["hash"] = entry_hash(entry)
        self._write(file, f"{canonical(entry)}\n".encode())
        return entry

    def _end(self, file: IO[bytes]) -> list[bytes]:
        """The end of the file, split at newlines: at least the last whole line, and what follows it (b"" mostly)."""
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
                f"{self.path}: does not end with a whole entry, so nothing can be added; keep this file, look at it "
                "with `realdamage verify`, and start another log"
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
            os.ftruncate(
                file.fileno(), size
            )  # a full disk: takes back the part of this entry that was written
            raise

    def _unusable(self, error: OSError) -> RealDamageError:
        return RealDamageError(f"{self.path}: the log cannot be used: {error.strerror or error}")


def canonical(values: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values have equal digests.

    Raises UsageError on a fraction, NaN or a value that JSON has not.
    """
    if fault := _no_json(values):
        raise UsageError(
            f"the log holds texts, whole numbers, true, false, null, lists and objects; found {fault!r}"
        )
    return json.dumps(
        values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def entry_hash(entry: Mapping[str, Any]) -> str:
    """SHA-256 of an entry without its hash and its payload, which stands in it by its own digest."""
    return _sha256({key: value for key, value in entry.items() if key not in ("hash", "payload")})


def time_of(entry: Mapping[str, Any]) -> float:
    """Seconds since 1970; -inf when the entry's time is none."""
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
    """The entry, None when the line is none, and what is wrong with it; place in the chain only where it is given."""
    try:
        text = line.decode()
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None, ["is not JSON"]
    if (
        not isinstance(entry, dict)
        or set(entry) != set(_KEYS)
        or not isinstance(entry["hash"], str)
        or not isinstance(entry["payload"], dict)
    ):
        return None, ["is no entry of a log"]
    try:
        faults = [] if canonical(entry) == text else ["is not written as an entry is"]
        if entry["payload_sha256"] != _sha256(entry["payload"]):
            faults.append("its payload was changed (payload_sha256)")
        if entry["hash"] != entry_hash(entry):
            faults.append("it was changed (hash)")
    except (UsageError, UnicodeEncodeError):
        return None, ["is no entry of a log"]
    if previous is not None and entry["previous"] != previous:
        faults.append(
            f"does not follow the entry before it ({previous[:16]}…): taken out, put in, moved or changed"
        )
    if index is not None and entry["index"] != index:
        faults.append(f"says index {entry['index']!r}, it stands at {index}")
    return (None if faults and index is None else entry), faults


def _no_json(values: Any) -> str | None:
    if isinstance(values, Mapping):
        faults = (
            _no_json(value) if isinstance(key, str) else repr(key) for key, value in values.items()
        )
        return next((fault for fault in faults if fault), None)
    if isinstance(values, list | tuple):
        return next((fault for value in values if (fault := _no_json(value))), None)
    return None if values is None or isinstance(values, str | bool | int) else repr(values)


def _sha256(values: Any) -> str:
    return hashlib.sha256(canonical(values).encode()).hexdigest()


@contextmanager
def locked(file: IO[bytes], *, wait: bool = True) -> Iterator[None]:
    """Only one open file at a time gets past this, in all processes; the system frees it when a process dies.

    Raises BlockingIOError when another holds it and `wait` is false.
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
