"""Decisions of reviewers: history, what a later one replaces, and an export that the manifest's
reader takes."""

import csv
import hashlib
import io

import pytest
from PIL import Image

from realdamage.claims.database import Database
from realdamage.data.readers import read_dataset
from realdamage.files import FORMULA
from realdamage.service.auth import hash_key
from realdamage.service.reviews import (
    BIAS_NOTICE,
    EXPORT_COLUMNS,
    Review,
    ReviewStore,
    export_manifest,
)

ONE, TWO, THREE = ("1" * 64, "2" * 64, "3" * 64)


def review(digest, decision="real", **values):
    """A decision, not checked, as one that is read from the file."""
    return Review.model_construct(photo_sha256=digest, decision=decision, **values)


@pytest.fixture
def store():
    database = Database(None)
    yield ReviewStore(database)
    database.close()


@pytest.fixture
def client(serve):
    found = serve()
    for digest in (ONE, TWO, THREE):
        found.app.state.service.judged.add(digest)
    return found


def exported(store):
    return list(csv.DictReader(io.StringIO(export_manifest(store.current()))))


def test_decisions_go_in_and_come_out(client):
    sent = {
        "photo_sha256": ONE,
        "decision": "synthetic",
        "damage": "cracked",
        "file_name": "杯子.jpg",
        "claim_id": "c-7",
        "note": "The seam\nis visible",
        "reviewer": "Ana",
        "outcome": "review",
        "score": 0.25,
        "model_version": "m-1",
    }
    answer = client.post("/v1/reviews", json=sent)
    stored = answer.json()
    assert answer.status_code == 201
    assert stored == sent | {"key_name": "", "decided_at": stored["decided_at"]}
    assert stored["decided_at"].endswith("Z")
    assert client.get("/v1/reviews").json() == {
        "reviews": [stored],
        "counts": {"real": 0, "synthetic": 1, "unsure": 0},
        "on_disk": False,
        "notice": BIAS_NOTICE,
    }
    for digest, decision in ((TWO, "real"), (THREE, "unsure")):
        sent = {"photo_sha256": digest, "decision": decision, "claim_id": "c-8"}
        sent["file_name"] = f"{decision}.jpg"
        assert client.post("/v1/reviews", json=sent).status_code == 201

    def found(**query):
        answer = client.get("/v1/reviews", params=query).json()
        return [one["photo_sha256"] for one in answer["reviews"]]

    assert found(photo_sha256=[ONE, THREE]) == [THREE, ONE]
    assert found(claim_id="c-8") == [THREE, TWO]
    assert found(limit=1) == [THREE]
    table = client.get("/v1/reviews/export")
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    names = [line.partition(",")[0] for line in table.text.splitlines()]
    assert names == ["file_name", "杯子.jpg", "real.jpg"]


def test_a_wrong_field_is_named(client):
    for changed, code in (
        ({"decision": None}, "invalid_field"),
        ({"note": "bell \a"}, "invalid_review"),
        ({"key_name": "shop"}, "invalid_field"),
    ):
        sent = {"photo_sha256": ONE, "decision": "real"} | changed
        refused(client.post("/v1/reviews", json=sent), code, changed)
    for query in ({"limit": 0}, {"photo_sha256": [ONE] * 101}):
        refused(client.get("/v1/reviews", params=query), "invalid_field", query)
    assert client.get("/v1/reviews").json()["reviews"] == []


def refused(answer, code, fields):
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)
    assert next(iter(fields)) in answer.json()["error"]["message"]


def test_judged_photos_are_decided_also_after_a_restart_and_decisions_name_the_key(
    serve, encode, tmp_path
):
    keys = {"shop": "a" * 30, "night-shift": "b" * 30}
    hashes = ",".join(hash_key(key, name) for name, key in keys.items())
    kept, claimed, decided, neither, other = (encode(seed=seed) for seed in range(5))
    broken = encode()[:400]

    def start():
        client = serve(api_key_hashes=hashes, store=tmp_path / "store")
        client.headers["X-API-Key"] = keys["shop"]
        return client

    def judge(client, route, *photos, **fields):
        files = [("photos", ("a.jpg", one)) for one in photos]
        assert client.post(f"/v1/{route}", files=files, data=fields).status_code == 200

    def decide(client, *photos, by="shop"):
        client.headers["X-API-Key"] = keys[by]
        sent = [{"photo_sha256": hashlib.sha256(one).hexdigest()} for one in photos]
        answers = [client.post("/v1/reviews", json={**one, "decision": "real"}) for one in sent]
        codes = {one.json()["error"]["code"] for one in answers if one.status_code != 201}
        assert codes <= {"photo_not_judged"}
        return [one.status_code for one in answers]

    first = start()
    judge(first, "claims", kept, keep="true")
    judge(first, "claims", claimed, broken)
    judge(first, "photos", decided, neither, broken)
    assert decide(first, claimed, decided, other, broken) == [201, 201, 409, 409]
    second = start()
    assert decide(second, kept, decided, neither, by="night-shift") == [201, 201, 409]
    found = second.get("/v1/reviews").json()["reviews"]
    assert [one["key_name"] for one in found] == ["night-shift"] * 2 + ["shop"] * 2
    stored = b"".join(path.read_bytes() for path in (tmp_path / "store").glob("claims.sqlite*"))
    for key in keys.values():
        assert key.encode() not in stored
        assert hashlib.sha256(key.encode()).hexdigest().encode() not in stored


def test_the_history_is_kept_and_the_last_decision_counts(store):
    for decision in ("synthetic", "unsure", "real"):
        store.add(review(ONE, decision, file_name="a.jpg"))
    store.add(review(TWO, "real", file_name="b.jpg"))
    store.add(review(TWO, "unsure", file_name="b.jpg"))
    found = store.history(photos=[ONE])
    assert [one.decision for one in found] == ["real", "unsure", "synthetic"]
    assert len(store.history()) == 5
    assert [(row["file_name"], row["label"]) for row in exported(store)] == [("a.jpg", "real")]
    assert store.counts() == {"real": 1, "synthetic": 0, "unsure": 1}


def test_what_the_export_says_of_a_photo(store):
    about = {"reviewer": "Bo", "outcome": "synthetic", "score": 2.5, "key_name": "shop"}
    store.add(review(ONE, "real", damage="dented", claim_id="c1", **about))
    store.add(review(TWO, "synthetic", damage="cracked", claim_id="c1"))
    store.add(review(THREE, "real"))
    rows = exported(store)
    assert tuple(rows[0]) == EXPORT_COLUMNS
    columns = ("label", "kind", "condition", "damage", "group", "model_score")
    assert [[row[name] for name in columns] for row in rows] == [
        ["real", "damaged", "damaged", "dented", "claim c1", "2.5"],
        ["synthetic", "", "unknown", "cracked", "claim c1", ""],
        ["real", "original", "unknown", "", "", ""],
    ]
    first = rows[0]
    assert (first["sha256"], first["label_source"], first["model_outcome"]) == (
        ONE,
        "review",
        "synthetic",
    )
    assert (first["decided_by"], first["decided_key"]) == ("Bo", "shop")
    assert first["decided_at"] == store.history(photos=[ONE])[0].decided_at


NAMES = ["cup.jpg", "CUP.jpg", "../../etc/passwd", "=cmd().jpg", ".hidden.png", ""]
NAMES += ['a,"b".jpg', "metadata.csv", "杯.jpg"]


def test_the_manifest_reader_takes_the_export(store, tmp_path):
    photos = {}
    for index, name in enumerate(NAMES):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 30), (index * 20, 90, 10)).save(buffer, "JPEG")
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        photos[digest] = buffer.getvalue()
        about = {"damage": "torn", "file_name": name, "reviewer": "＝x", "model_version": "-2+3"}
        store.add(review(digest, "real" if index % 2 else "synthetic", **about))
    rows = exported(store)
    for row in rows:
        (tmp_path / row["file_name"]).write_bytes(photos[row["sha256"]])
    table = export_manifest(store.current())
    (tmp_path / "metadata.csv").write_text(table, encoding="utf-8")
    found = read_dataset(tmp_path).table
    assert found["file_name"].str.lower().nunique() == len(NAMES)
    assert not found["file_name"].str.contains(r"^[=.]|/", regex=True).any()
    assert not any(value.startswith(FORMULA) for row in rows for value in row.values())
    assert list(found["kind"]) == ["", "damaged"] * 4 + [""]
    assert list(found["file_name"])[-1] == "杯.jpg"
