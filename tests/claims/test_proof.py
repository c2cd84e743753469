"""Proofs that an entry is in the log, against the vectors of Certificate Transparency."""

import copy
import hashlib
import json
from contextlib import suppress

import pytest
from sqlalchemy import text

from realdamage.claims import EvidenceLog, migrate, proof
from realdamage.claims.database import Database, Event
from realdamage.claims.verify import prove_claim
from realdamage.errors import RealDamageError

LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
LEAVES += ["606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""Of the first 0 to 8 leaves, from the tests of google/certificate-transparency."""


def test_the_tree_is_that_of_rfc_6962():
    node = proof.nodes_of(LEAVES)
    assert [proof.tree_hash(node, size).hex() for size in range(9)] == ROOTS
    for size in range(1, 9):
        for index, leaf in enumerate(LEAVES[:size]):
            path = proof.path_to(node, index, size)
            assert proof.root_from(leaf, path).hex() == ROOTS[size]


def by_sha256_alone(given, root):
    """What service/README.md tells an auditor to compute."""
    for entry in given["entries"]:
        digest = hashlib.sha256(entry["payload"].encode()).hexdigest()
        if json.loads(entry["header"])["payload_sha256"] != digest:
            return False
        found = hashlib.sha256(b"\0" + hashlib.sha256(entry["header"].encode()).digest()).digest()
        for step in entry["path"]:
            left, right = (bytes.fromhex(step.get(side, "")) or found for side in ("left", "right"))
            found = hashlib.sha256(b"\1" + left + right).digest()
        if found.hex() != root:
            return False
    return True


def write(database, count):
    for number in range(count):
        with database.transaction() as session:
            event = {"event": "noted", "claim_id": f"C-{number % 4}", "text": "裂纹"}
            database.record(session, event)


@pytest.mark.databases
def test_a_claim_is_proved_without_the_others(tmp_path, database_url):
    where = database_url or tmp_path / "claims.sqlite"
    database = Database(where)
    write(database, 11)
    made = prove_claim(where, "C-2")
    early = prove_claim(where, "C-2", 7)
    assert (made["size"], early["size"]) == (11, 7)
    assert [one["index"] for one in proof.check_proof(made, made["root"])] == [2, 6, 10]
    assert [one["index"] for one in proof.check_proof(early, early["root"])] == [2, 6]
    assert by_sha256_alone(made, made["root"])
    assert "C-1" not in json.dumps(made)
    lines = tmp_path / "log.jsonl"
    lines.write_bytes(database.log_text())
    assert prove_claim(lines, "C-2") == made  # from the chain alone
    write(database, 3)
    assert prove_claim(where, "C-2", 11) == made  # what was published stays true
    assert database.verify().problems == ()
    database.close()


def test_a_log_from_before_the_proofs_gets_its_tree(tmp_path):
    database = Database(tmp_path / "claims.sqlite")
    write(database, 13)
    made = database.prove("C-3")
    with database.transaction() as session:
        session.execute(text("ALTER TABLE events DROP COLUMN nodes"))
        session.execute(text(f"UPDATE {migrate.TABLE} SET version_num = '0002'"))
    database.close()
    migrated = Database(tmp_path / "claims.sqlite")
    assert migrated.verify().problems == ()
    assert migrated.prove("C-3") == made
    write(migrated, 4)
    assert migrated.verify().problems == ()


def test_what_cannot_be_proved_is_refused(tmp_path):
    log, broken = tmp_path / "log.jsonl", tmp_path / "broken.jsonl"
    for number in range(3):
        EvidenceLog(log).append({"event": "noted", "claim_id": f"C-{number}"})
    broken.write_text(log.read_text().replace("C-1", "C-7"))
    for path, claim, size, code in (
        (log, "C-2", 2, "no_entry"),
        (log, "C-0", 4, "log_size"),
        (tmp_path / "none.jsonl", "C-0", None, "no_log"),
        (broken, "C-0", None, "log_broken"),
    ):
        with pytest.raises(RealDamageError) as caught:
            prove_claim(path, claim, size)
        assert caught.value.code == code


@pytest.fixture(scope="module")
def made():
    database = Database(None)
    write(database, 6)
    return database.prove("C-1")


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made["entries"][0].update(payload='{"claim_id":"C-9"}'),
        lambda made: made["entries"][0].update(header=made["entries"][0]["header"] + " "),
        lambda made: made["entries"][0]["path"].pop(),
        lambda made: made["entries"].clear(),
        lambda made: made.update(format="other"),
    ],
)
def test_a_changed_proof_shows_nothing(made, change):
    root = made["root"]
    assert len(proof.check_proof(made, root.upper())) == 2
    changed = copy.deepcopy(made)
    change(changed)
    for given, known in ((changed, root), (made, "0" * 64)):
        with pytest.raises(RealDamageError) as caught:
            proof.check_proof(given, known)
        assert caught.value.code == "proof_wrong"


@pytest.mark.databases
def test_a_change_in_the_tables_is_found_and_stops_no_write(tmp_path, database_url):
    database = Database(database_url or tmp_path / "claims.sqlite")
    write(database, 6)
    with suppress(ZeroDivisionError), database.transaction() as session:
        database.record(session, {"event": "never"})
        raise ZeroDivisionError
    assert len(database.verify().entries) == 6
    with database.transaction() as session:
        session.get_one(Event, 3).nodes = b"\0" * 96
    (problem,) = database.verify().problems
    assert "line 4" in problem
    with database.transaction() as session:
        session.delete(session.get_one(Event, 3))
    write(database, 3)
    assert "line 4" in database.verify().problems[0]
    with database.transaction() as session:
        session.get_one(Event, 1).payload = '{"claim_id":"C-7"}'
    assert "line 2" in database.verify().problems[0]
    database.close()
