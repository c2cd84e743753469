"""A log's chain: every way to tamper with it is found, and several processes append to it at once."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realdamage.claims import log as log_module
from realdamage.claims.log import GENESIS, EvidenceLog, canonical, entry_hash
from realdamage.errors import RealDamageError, UsageError


@pytest.fixture
def log(tmp_path: Path) -> EvidenceLog:
    found = EvidenceLog(tmp_path / "log.jsonl")
    for number in range(5):
        found.append({"event": "noted", "number": number, "text": "裂纹"})
    return found


def lines_of(log: EvidenceLog) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.path.read_text().splitlines()]


def write(log: EvidenceLog, entries: list[dict[str, Any]]) -> None:
    log.path.write_text("".join(f"{canonical(entry)}\n" for entry in entries))


def test_each_entry_names_the_one_before_it(log: EvidenceLog) -> None:
    entries = lines_of(log)
    assert [entry["index"] for entry in entries] == [0, 1, 2, 3, 4]
    assert [entry["previous"] for entry in entries] == [
        GENESIS,
        *(entry["hash"] for entry in entries[:-1]),
    ]
    assert entries[2]["payload"] == {"number": 2, "text": "裂纹"}
    report = log.verify()
    assert report.problems == ()
    assert report.head == log.head == entries[-1]["hash"]
    assert len({entry["hash"] for entry in entries}) == 5


def test_a_new_log_has_no_head_yet(tmp_path: Path) -> None:
    assert EvidenceLog(tmp_path / "none.jsonl").head == GENESIS


def edit(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    entries[2]["payload"]["number"] = 7
    return entries


def edit_with_digest(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    entries[2] = forged(entries[2], {"number": 7}, rehash=False)
    return entries


def edit_with_hash(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    entries[2] = forged(entries[2], {"number": 7}, rehash=True)
    return entries


def edit_time(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    entries[3]["time"] = "2020-01-01T00:00:00.000+00:00"
    return entries


def delete(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return entries[:2] + entries[3:]


def delete_first(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return entries[1:]


def swap(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    entries[1], entries[2] = entries[2], entries[1]
    return entries


def repeat(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*entries, entries[-1]]


def append_forged(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        *entries,
        forged({**entries[-1], "index": 5, "previous": "a" * 64}, {"number": 5}, rehash=True),
    ]


def another_key(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    entries[4]["comment"] = "added"
    return entries


def list_as_payload(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    entries[4]["payload"] = [1]
    return entries


def forged(entry: dict[str, Any], payload: dict[str, Any], *, rehash: bool) -> dict[str, Any]:
    entry = {
        **entry,
        "payload": payload,
        "payload_sha256": hashlib.sha256(canonical(payload).encode()).hexdigest(),
    }
    return {**entry, "hash": entry_hash(entry)} if rehash else entry


@pytest.mark.parametrize(
    ("tamper", "line", "says"),
    [
        (edit, 3, "payload was changed"),
        (edit_with_digest, 3, "it was changed"),
        (edit_with_hash, 4, "does not follow"),
        (edit_time, 4, "it was changed"),
        (delete, 3, "does not follow"),
        (delete_first, 1, "does not follow"),
        (swap, 2, "does not follow"),
        (repeat, 6, "does not follow"),
        (append_forged, 6, "does not follow"),
        (another_key, 5, "no entry of a log"),
        (list_as_payload, 5, "no entry of a log"),
    ],
)
def test_tampering_is_found_and_its_line_named(
    log: EvidenceLog,
    tamper: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    line: int,
    says: str,
) -> None:
    write(log, tamper(lines_of(log)))
    problems = log.verify().problems
    assert problems
    assert f"line {line}: " in problems[0]
    assert says in problems[0]


@pytest.mark.parametrize(
    "text", ["not json\n", "[]\n", "{}\n", '{"index": NaN}\n', "[" * 100_000 + "\n", "\udc80\n"]
)
def test_what_is_no_entry_is_a_problem_not_a_crash(log: EvidenceLog, text: str) -> None:
    with log.path.open("ab") as file:
        file.write(text.encode(errors="surrogateescape"))
    assert "line 6: is no" in log.verify().problems[0]


def test_a_truncated_chain_is_whole_in_itself_and_found_by_its_head_only(log: EvidenceLog) -> None:
    head = log.head
    write(log, lines_of(log)[:3])
    assert log.verify().problems == ()
    assert "is not in the chain of 3 entries" in log.verify(head).problems[0]


def test_a_log_that_was_written_anew_is_found_by_its_head_only(
    log: EvidenceLog, tmp_path: Path
) -> None:
    other = EvidenceLog(tmp_path / "other.jsonl")
    for number in range(5):
        other.append({"event": "noted", "number": number, "text": "changed"})
    assert other.verify().problems == ()
    assert other.verify(log.head).problems != ()


def test_a_log_may_have_grown_since_its_head_was_noted(log: EvidenceLog) -> None:
    head = log.head
    assert log.verify(head).since == 0
    log.append({"event": "noted"})
    log.append({"event": "noted"})
    assert log.verify(head.upper()).since == 2


def test_half_an_entry_at_the_end_is_told_and_not_built_upon(log: EvidenceLog) -> None:
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-20])
    assert "ends in the middle of line 5" in log.verify().problems[0]
    with pytest.raises(RealDamageError, match="does not end with a whole entry"):
        log.append({"event": "noted"})
    assert log.path.read_bytes() == whole[:-20]


@pytest.mark.parametrize(
    "tear",
    [
        lambda whole: whole[:-20],
        lambda whole: whole[:-1],
        lambda whole: whole + b"\0" * 4096,
        lambda whole: whole + b"\0" * 200_000 + b'"}\n',
    ],
    ids=["half", "no newline", "zeros", "zeros and an end"],
)
def test_a_torn_end_is_set_aside_and_the_chain_goes_on(
    log: EvidenceLog, tear: Callable[[bytes], bytes]
) -> None:
    torn = tear(log.path.read_bytes())
    log.path.write_bytes(torn)
    assert log.recover() is True
    log.append({"event": "noted", "number": 6})
    report = log.verify()
    assert report.problems == ()
    kept = len(report.entries) - 2
    assert kept == (5 if b"\0" in torn else 4)
    assert [entry["event"] for entry in report.entries] == ["noted"] * kept + ["recovered", "noted"]
    recovered = report.entries[kept]["payload"]
    aside = (log.path.parent / recovered["file"]).read_bytes()
    assert (
        torn
        == b"".join(f"{canonical(entry)}\n".encode() for entry in report.entries[:kept]) + aside
    )
    assert (recovered["bytes"], recovered["sha256"]) == (
        len(aside),
        hashlib.sha256(aside).hexdigest(),
    )
    before = log.path.read_bytes()
    assert log.recover() is False
    assert log.path.read_bytes() == before


def test_a_log_of_nothing_but_a_torn_entry(log: EvidenceLog, tmp_path: Path) -> None:
    log.path.write_bytes(log.path.read_bytes()[:50])
    assert log.recover() is True
    assert [(entry["index"], entry["event"]) for entry in log.verify().entries] == [
        (0, "recovered")
    ]
    assert EvidenceLog(tmp_path / "none.jsonl").recover() is False
    assert not (tmp_path / "none.jsonl").exists()


def test_a_torn_end_stays_where_it_cannot_be_set_aside(
    log: EvidenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = log.path.read_bytes()[:-20]
    log.path.write_bytes(torn)

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(RealDamageError, match="No space left"):
            log.recover()
    assert log.path.read_bytes() == torn
    assert log.recover() is True


def test_a_changed_last_entry_is_no_torn_one(log: EvidenceLog) -> None:
    write(log, edit_time(lines_of(log)[:4]))
    before = log.path.read_bytes()
    assert log.recover() is False
    assert log.path.read_bytes() == before


def test_lines_at_which_the_clock_ran_backwards(
    log: EvidenceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert log.verify().steps_back == ()

    class Early(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
            return dt.datetime(2020, 1, 1, tzinfo=tz)

    with monkeypatch.context() as patch:
        patch.setattr(log_module.dt, "datetime", Early)
        log.append({"event": "noted"})
    log.append({"event": "noted"})
    report = log.verify()
    assert report.steps_back == (6,)
    assert report.problems == ()


def test_a_forged_last_entry_is_not_built_upon(log: EvidenceLog) -> None:
    write(log, edit_time(lines_of(log)[:4]))
    with pytest.raises(RealDamageError, match="does not end with a whole entry"):
        log.append({"event": "noted"})


def test_entries_longer_than_a_read_at_the_end(log: EvidenceLog) -> None:
    for _ in range(2):
        log.append({"event": "noted", "text": "x" * 200_000})
    assert log.verify().problems == ()
    assert len(lines_of(log)) == 7


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"number": 1}, "needs `event`"),
        ({"event": "noted", "share": 0.5}, "0.5"),
        ({"event": "noted", "text": "\ud800"}, "not Unicode"),
        ({"event": "noted", "path": Path("x")}, "whole numbers"),
        ({"event": "noted", "inside": {0: "a"}}, "whole numbers"),
    ],
)
def test_what_has_no_one_form_is_refused(
    log: EvidenceLog, event: dict[str, Any], says: str
) -> None:
    before = log.path.read_bytes()
    with pytest.raises(UsageError, match=says):
        log.append(event)
    assert log.path.read_bytes() == before


def test_a_log_in_no_folder_or_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(RealDamageError, match="cannot be used"):
        EvidenceLog(tmp_path).append({"event": "noted"})
    with pytest.raises(RealDamageError, match="cannot be used"):
        EvidenceLog(tmp_path / "none.jsonl").verify()


def append_many(path: Path, writer: int, count: int) -> None:
    log = EvidenceLog(path)
    for number in range(count):
        log.append({"event": "noted", "writer": writer, "number": number})


def test_threads_and_processes_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(path, writer, 15)) for writer in range(3)]
    writers += [threading.Thread(target=append_many, args=(path, writer, 15)) for writer in (3, 4)]  # type: ignore[list-item]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    report = EvidenceLog(path).verify()
    assert report.problems == ()
    seen = [(entry["payload"]["writer"], entry["payload"]["number"]) for entry in report.entries]
    assert len(seen) == 75
    for writer in range(5):
        assert [number for who, number in seen if who == writer] == list(range(15))
