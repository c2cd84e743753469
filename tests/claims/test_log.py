"""A log's chain: tampering is found, and several processes append to it at once."""

import datetime as dt
import hashlib
import json
import multiprocessing
import threading

import pytest

from realdamage.claims import log as log_module
from realdamage.claims.log import GENESIS, EvidenceLog, canonical, entry_hash
from realdamage.errors import RealDamageError, UsageError


@pytest.fixture
def log(tmp_path):
    found = EvidenceLog(tmp_path / "log.jsonl")
    for number in range(5):
        found.append({"event": "noted", "number": number, "text": "裂纹"})
    return found


def lines_of(log):
    return [json.loads(line) for line in log.path.read_text().splitlines()]


def text_of(entries):
    return "".join(f"{canonical(entry)}\n" for entry in entries)


def test_each_entry_has_the_hash_of_the_one_before(log):
    entries = lines_of(log)
    assert [entry["index"] for entry in entries] == [0, 1, 2, 3, 4]
    hashes = [entry["hash"] for entry in entries]
    assert [entry["previous"] for entry in entries] == [GENESIS, *hashes[:-1]]
    assert entries[2]["payload"] == {"number": 2, "text": "裂纹"}
    report = log.verify()
    assert report.problems == ()
    assert report.head == log.head == hashes[-1]


def forged(entry, *, rehash=False, **changes):
    """The entry with another payload, its digest, and with `rehash` its hash."""
    payload = {"number": 7}
    digest = hashlib.sha256(canonical(payload).encode()).hexdigest()
    entry = {**entry, "payload": payload, "payload_sha256": digest, **changes}
    return {**entry, "hash": entry_hash(entry)} if rehash else entry


@pytest.mark.parametrize(
    ("tamper", "line"),
    [
        (lambda e: text_of([*e[:2], forged(e[2]), *e[3:]]), 3),
        (lambda e: text_of([*e[:2], forged(e[2], rehash=True), *e[3:]]), 4),
        (lambda e: text_of(e[:2] + e[3:]), 3),
        (lambda e: text_of([*e, forged(e[-1], rehash=True, index=5, previous="a" * 64)]), 6),
        (lambda e: text_of([*e[:4], {**e[4], "comment": "added"}]), 5),
        (lambda e: text_of(e) + "not json\n", 6),
        (lambda e: text_of(e) + '{"index": NaN}\n', 6),
        (lambda e: text_of(e) + "[" * 100_000 + "\n", 6),
        (lambda e: text_of(e) + "\udc80\n", 6),
    ],
    ids=("digest", "hash", "delete", "append", "key", "text", "nan", "deep", "bytes"),
)
def test_tampering_is_found_and_its_line_named(log, tamper, line):
    log.path.write_text(tamper(lines_of(log)), errors="surrogateescape")
    assert f"line {line}: " in log.verify().problems[0]


def test_a_truncated_or_rewritten_log_is_found_by_its_head_only(log, tmp_path):
    head = log.head
    assert log.verify(head).since == 0
    log.append({"event": "noted"})
    assert log.verify(head.upper()).since == 1
    log.path.write_text(text_of(lines_of(log)[:3]))
    other = EvidenceLog(tmp_path / "other.jsonl")
    for number in range(5):
        other.append({"event": "noted", "number": number, "text": "changed"})
    for found in (log, other):
        assert found.verify().problems == ()
        assert head[:16] in found.verify(head).problems[0]


@pytest.mark.parametrize(
    "tear",
    [
        lambda whole: whole[:-20],
        lambda whole: whole[:-1],
        lambda whole: whole + b"\0" * 200_000 + b'"}\n',
        lambda whole: whole[:50],
    ],
    ids=("half", "no newline", "zeros and an end", "nothing else"),
)
def test_a_torn_end_is_set_aside_and_the_chain_continues(log, tear):
    torn = tear(log.path.read_bytes())
    log.path.write_bytes(torn)
    assert log.verify().problems
    with pytest.raises(RealDamageError) as caught:
        log.append({"event": "noted"})
    assert caught.value.code == "log_torn"
    assert log.path.read_bytes() == torn
    assert log.recover() is True
    log.append({"event": "noted", "number": 6})
    report = log.verify()
    assert report.problems == ()
    kept = len(report.entries) - 2
    assert [entry["event"] for entry in report.entries] == ["noted"] * kept + ["recovered", "noted"]
    recovered = report.entries[kept]["payload"]
    aside = (log.path.parent / recovered["file"]).read_bytes()
    assert torn == text_of(list(report.entries[:kept])).encode() + aside
    digest = hashlib.sha256(aside).hexdigest()
    assert (recovered["bytes"], recovered["sha256"]) == (len(aside), digest)
    assert log.recover() is False


def test_a_full_disk_adds_nothing_and_a_changed_end_is_not_a_torn_one(log, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    whole = log.path.read_bytes()
    for content, use in (
        (whole[:-20], log.recover),
        (whole, lambda: log.append({"event": "noted"})),
    ):
        log.path.write_bytes(content)
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(RealDamageError) as caught:
                use()
        assert caught.value.code == "log_unusable"
        assert log.path.read_bytes() == content
    changed = whole.replace(b'"number":4', b'"number":5')
    log.path.write_bytes(changed)
    assert log.recover() is False
    with pytest.raises(RealDamageError) as caught:
        log.append({"event": "noted"})
    assert caught.value.code == "log_torn"
    assert log.path.read_bytes() == changed


def test_lines_at_which_the_clock_ran_backwards(log, monkeypatch):
    class Early(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return dt.datetime(2020, 1, 1, tzinfo=tz)

    with monkeypatch.context() as patch:
        patch.setattr(log_module.dt, "datetime", Early)
        log.append({"event": "noted"})
    log.append({"event": "noted", "text": "x" * 200_000})  # longer than one read at the end
    log.append({"event": "noted"})
    report = log.verify()
    assert (report.steps_back, report.problems) == ((6,), ())


@pytest.mark.parametrize(
    "event",
    [
        {"number": 1},
        {"event": "noted", "share": 0.5},
        {"event": "noted", "text": "\ud800"},
        {"event": "noted", "inside": {0: "a"}},
    ],
)
def test_what_programs_write_differently_is_refused(log, event):
    before = log.path.read_bytes()
    with pytest.raises(UsageError) as caught:
        log.append(event)
    assert caught.value.code == "log_entry"
    assert log.path.read_bytes() == before


def test_a_folder_and_a_missing_file_are_no_log(tmp_path):
    missing = EvidenceLog(tmp_path / "none.jsonl")
    assert missing.head == GENESIS
    assert missing.recover() is False
    for use in (lambda: EvidenceLog(tmp_path).append({"event": "noted"}), missing.verify):
        with pytest.raises(RealDamageError) as caught:
            use()
        assert caught.value.code == "log_unusable"


def append_many(path, writer, count):
    log = EvidenceLog(path)
    for number in range(count):
        log.append({"event": "noted", "writer": writer, "number": number})


def test_threads_and_processes_append_at_once(tmp_path):
    path = tmp_path / "log.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(path, writer, 15)) for writer in range(3)]
    writers += [threading.Thread(target=append_many, args=(path, writer, 15)) for writer in (3, 4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    report = EvidenceLog(path).verify()
    assert report.problems == ()
    seen = [(entry["payload"]["writer"], entry["payload"]["number"]) for entry in report.entries]
    for writer in range(5):
        assert [number for who, number in seen if who == writer] == list(range(15))
