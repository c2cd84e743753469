"""What shops share: keyed hashes, signed, replaced by newer ones, and findings for review only."""

import json
import time

import pytest

from realdamage.claims import ClaimIndex, judge_claim
from realdamage.claims.database import Case, Database, Decision
from realdamage.claims.exchange import (
    ExchangeKey,
    export_hashes,
    find_hashes,
    import_hashes,
    make_keys,
)
from realdamage.claims.index import take_fingerprint
from realdamage.commands import cli
from realdamage.core.tiles import PixelSpec, read_photo
from realdamage.errors import RealDamageError, UsageError

KEY, OTHER_KEY = ExchangeKey(b"c" * 32), ExchangeKey(b"d" * 32)


@pytest.fixture
def exported(tmp_path, claim_photo):
    """`exported(undone=False)`: the file of a shop that refused one claim of two."""
    make_keys(tmp_path, "north")

    def export(*, undone=False):
        path = tmp_path / f"north-{undone}"
        path.mkdir()
        database = Database(path / "claims.sqlite")
        for number, claim_id in enumerate(("refused", "paid")):
            photo = read_photo(claim_photo(number + 1), PixelSpec())
            seen = take_fingerprint(photo.rgb, photo.sha256)
            ClaimIndex(database).add_fingerprints(claim_id, [seen])
            shared = KEY.buyer(f"buyer {number}")
            about = {"claim_id": claim_id, "created": 1.0, "updated": 1.0}
            action = "refund" if number else "refuse"
            decision = {"number": 1, "reason": "a secret remark", "by": "ana", "at": time.time()}
            decision |= {"is_final": True, "state_before": "open", "undone": undone}
            with database.transaction() as session:
                session.add(Case(state="decided", buyer_shared=shared, **about))
                session.add(Decision(claim_id=claim_id, action=action, **decision))
        made = export_hashes(database, KEY, tmp_path / "north.key", shop="north", days=30)
        database.close()
        (path / "north.json").write_bytes(made)
        return path / "north.json"

    return export


@pytest.fixture
def own(tmp_path):
    database = Database(tmp_path / "own.sqlite")
    yield database
    database.close()


def test_a_match_is_a_finding_for_a_person_until_it_is_taken_back(
    exported, own, tmp_path, claim_photo, detector
):
    path, public = exported(), tmp_path / "north.pub"
    text = path.read_text()
    assert "secret remark" not in text
    assert "buyer" not in text.replace('"buyer"', "")
    assert import_hashes(own, KEY, path, public) == 3
    index = ClaimIndex(own, adds=False, exchange=KEY)

    def judged(seed):
        return judge_claim([("mine.jpg", claim_photo(seed))], detector=detector, index=index)

    found = judged(1)
    codes = [reason.code for reason in found.reasons]
    assert codes.count("seen_at_other_shop") == 2, "the file, and its look"
    assert found.recommendation == "review"
    assert "seen_at_other_shop" not in [reason.code for reason in judged(2).reasons]
    assert find_hashes(own, [KEY.buyer("buyer 0")]) == [("north", "buyer")]
    assert find_hashes(own, [OTHER_KEY.buyer("buyer 0")]) == []
    assert import_hashes(own, KEY, exported(undone=True), public) == 0
    assert find_hashes(own, [KEY.buyer("buyer 0")]) == []
    with pytest.raises(RealDamageError) as caught:
        import_hashes(own, KEY, path, public)
    assert caught.value.code == "exchange_older"


def test_a_file_that_was_changed_or_is_not_theirs_is_refused_and_nothing_changes(
    exported, own, tmp_path, monkeypatch
):
    public, path = tmp_path / "north.pub", exported()
    other = make_keys(tmp_path, "south")[1]
    import_hashes(own, KEY, path, public)

    def refused(content=None, key=KEY, by=public):
        tried = tmp_path / "tried.json"
        tried.write_bytes(path.read_bytes() if content is None else content)
        with pytest.raises(RealDamageError) as caught:
            import_hashes(own, key, tried, by)
        return caught.value.code

    values = json.loads(path.read_bytes())
    changed = json.dumps(values | {"hashes": [["buyer", "0" * 64]]}).encode()
    assert refused(changed) == "exchange_signature"
    assert refused(by=other) == "exchange_signature"
    assert refused(by=tmp_path / "north.key") == "exchange_key"
    assert refused(key=OTHER_KEY) == "exchange_other_key"
    for broken in (b"", b"[]", b"{", b"[" * 100_000, json.dumps({"signature": "zz"}).encode()):
        assert refused(broken) == "exchange_damaged"
    monkeypatch.setattr(time, "time", lambda: values["expires"] + 1)
    assert refused() == "exchange_expired"
    monkeypatch.undo()
    assert find_hashes(own, [KEY.buyer("buyer 0")]) == [("north", "buyer")]
    assert len(own.verify().entries) == 1


def test_keys_are_not_replaced_and_short_ones_refused(tmp_path):
    secret, _ = make_keys(tmp_path, "north")
    assert secret.stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError):
        make_keys(tmp_path, "north")
    with pytest.raises(UsageError) as caught:
        ExchangeKey(b"short")
    assert caught.value.code == "short_key"


def test_the_command(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = exported().parent
    (tmp_path / "consortium.txt").write_text("c" * 32 + "\n")
    known = ["exchange", "--store", str(folder), "--key", "consortium.txt", "--file", "out.json"]
    assert cli.main(["exchange", "keys", "--shop", "south"]) == 0
    assert cli.main([*known, "export", "--shop", "south", "--signer", "south.key"]) == 0
    assert cli.main([*known, "import", "--public", "south.pub"]) == 0
    assert "3 hashes imported" in capsys.readouterr().out
    assert cli.main([*known, "import", "--public", "north.pub"]) == 3
    assert cli.main(["exchange", "export", "--store", str(folder)]) == 2
    assert cli.main(["exchange", "keys", "--shop", "../x"]) == 2
