"""Evidence in an object store: the same bytes as in a folder, and nothing counts before its last
object is there."""

import hashlib
import secrets

import pytest

from realdamage.claims import judge_claim, verify_evidence, write_evidence
from realdamage.claims.evidence import (
    add_statement,
    append_entry,
    page_with_statements,
    replaced_page,
)
from realdamage.claims.paths import ObjectPath, StoreError, files_below, remove_folder, to_path
from realdamage.errors import MissingExtraError, UsageError


@pytest.fixture
def store():
    """An empty prefix of fsspec's store in memory, which takes no time."""
    return ObjectPath.at(f"memory://{secrets.token_hex(8)}/store")


@pytest.fixture(scope="module")
def photos(claim_photo):
    return [("a.jpg", claim_photo(1)), ("b.jpg", claim_photo(2, red=True))]


@pytest.fixture(scope="module")
def claim(detector, photos):
    return judge_claim(photos, detector=detector, claim_id="C-1")


def test_a_prefix_is_used_like_a_folder(store):
    for name in ("A/evidence.json", "A/pictures/photo-01.jpg", "AB/evidence.json"):
        (store / name).write_bytes(name.encode())
    assert sorted(path.name for path in store.iterdir()) == ["A", "AB"]
    assert [path.name for path in store.glob("*B")] == ["AB"]
    assert files_below(store / "A") == {"evidence.json": 15, "pictures/photo-01.jpg": 23}
    assert [(store / "A").is_file(), (store / "A" / "evidence.json").is_file()] == [False, True]
    assert (store / "A/evidence.json").read_bytes() == b"A/evidence.json"
    assert (store / "A").modified() > 0
    remove_folder(store / "A", "evidence.json")
    assert list(store.below()) == ["AB/evidence.json"]
    assert list((store / "none").iterdir()) == []
    remove_folder(store / "none")
    with pytest.raises(FileNotFoundError):
        (store / "none").read_bytes()


def test_what_makes_a_claim_count_is_written_last_and_removed_first(
    store, claim, photos, monkeypatch
):
    written = []
    write = ObjectPath.write_bytes
    monkeypatch.setattr(
        ObjectPath, "write_bytes", lambda path, data: (written.append(path.key), write(path, data))
    )
    folder = store / "C-1"
    write_evidence(claim, photos, [], folder, keep_pictures=True)
    add_statement(folder, "1-buyer", {"side": "buyer"}, {"photo-01.jpg": b"x"})
    names = [key.removeprefix(f"{folder.key}/") for key in written]
    assert names.index("evidence.json") == len(names) - 3
    assert names[-2:] == ["statements/1-buyer/photo-01.jpg", "statements/1-buyer/statement.json"]

    def stuck(keys):
        raise RuntimeError(keys)

    for remove in (stuck, lambda keys: None):  # an error, and none though nothing was done
        monkeypatch.setattr(folder._filesystem, "rm", remove)
        with pytest.raises(StoreError) as caught:
            remove_folder(folder, "evidence.json")
        assert caught.value.code == "store_unusable"
        assert not (folder / "evidence.json").is_file()


def test_evidence_has_the_same_bytes_as_in_a_folder_and_verifies(store, claim, photos, tmp_path):
    for folder in (tmp_path / "C-1", store / "C-1"):
        write_evidence(claim, photos, [], folder, keep_originals=True, keep_pictures=True)
        values = {"side": "buyer", "received": 1_790_000_000, "text": "它裂了", "findings": []}
        values |= {"videos": [], "recapture": None}
        digests = add_statement(folder, "1-buyer", values, {"photo-01.jpg": b"x"})
        with replaced_page(folder, page_with_statements(folder, ["1-buyer"])):
            page = (folder / "evidence.html").read_bytes()
            digests["evidence.html"] = hashlib.sha256(page).hexdigest()
            append_entry(folder, {"event": "statement_received", "files": digests})
        before = (folder / "evidence.html").read_bytes()
        with pytest.raises(ZeroDivisionError), replaced_page(folder, b"new"):
            raise ZeroDivisionError
        assert (folder / "evidence.html").read_bytes() == before
    local, remote = (
        {name: (folder / name).read_bytes() for name in files_below(folder)}
        for folder in (tmp_path / "C-1", store / "C-1")
    )
    assert [len(one.pop("log.jsonl").splitlines()) for one in (local, remote)] == [2, 2]
    assert local == remote
    report = verify_evidence(store / "C-1", photos=photos)
    assert (report.problems, report.entries) == ((), 2)
    assert verify_evidence(str(store / "C-1"), head=report.head).passed, "by its URL"
    (store / "C-1" / "evidence.html").write_bytes(b"other")
    (store / "C-1" / "pictures" / "photo-01.jpg").write_bytes(b"other")
    assert len(verify_evidence(store / "C-1").problems) == 2


def test_places_that_cannot_be_used_are_errors_with_a_code(tmp_path):
    assert to_path(str(tmp_path)) == tmp_path
    with pytest.raises(UsageError) as unknown:
        to_path("nowhere://bucket/store")
    assert unknown.value.code == "unknown_url"
    with pytest.raises(MissingExtraError):  # fsspec knows it, but its package is not installed
        to_path("dropbox://bucket/store")
