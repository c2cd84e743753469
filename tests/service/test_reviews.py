"""Decisions of reviewers: history, what a later one replaces, and an export that the manifest's reader takes."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import sqlite3
import threading
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from realdamage.data.readers import read_dataset
from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import RealDamageError, UsageError
from realdamage.service.keys import hash_key
from realdamage.service.review_export import BIAS_NOTICE, EXPORT_COLUMNS, export_manifest
from realdamage.service.review_store import Damage, JudgedPhotos, Review, ReviewStore
from realdamage.service.reviews import router

Serve = Callable[..., TestClient]
Encode = Callable[..., bytes]

ONE, TWO, THREE = ("1" * 64, "2" * 64, "3" * 64)


@pytest.fixture
def store() -> Iterator[ReviewStore]:
    made = ReviewStore(None)
    yield made
    made.close()


@pytest.fixture
def client(store: ReviewStore) -> TestClient:
    app = FastAPI()
    app.include_router(router(store, lambda digest: digest in (ONE, TWO, THREE)))
    return TestClient(app)


def exported(store: ReviewStore, **options: typing.Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(export_manifest(store.current(), **options))))


def test_a_decision_goes_in_and_comes_out(client: TestClient) -> None:
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
    assert answer.status_code == 201
    stored = answer.json()
    assert {name: stored[name] for name in sent} == sent
    assert stored["decided_at"].endswith("Z")
    listed = client.get("/v1/reviews").json()
    assert listed == {
        "reviews": [stored],
        "counts": {"real": 0, "synthetic": 1, "unsure": 0},
        "on_disk": False,
        "notice": BIAS_NOTICE,
    }


def test_a_decision_names_the_key_that_made_it(
    serve: Serve, encode: Encode, tmp_path: Path
) -> None:
    key, other = ("a" * 30, "b" * 30)
    keys = f"{hash_key(key, 'shop')},{hash_key(other, 'night-shift')}"
    client = serve(api_key_hashes=keys, store=tmp_path / "store")
    photo = encode()
    client.post("/v1/photos", files=[("photos", ("a.jpg", photo))], headers={"X-API-Key": key})
    sent = {
        "photo_sha256": hashlib.sha256(photo).hexdigest(),
        "decision": "real",
        "reviewer": "Ana",
    }
    for given in (key, other):
        assert (
            client.post("/v1/reviews", json=sent, headers={"X-API-Key": given}).status_code == 201
        )
    found = client.get("/v1/reviews", headers={"X-API-Key": key}).json()["reviews"]
    assert [(review["reviewer"], review["key_name"]) for review in found] == [
        ("Ana", "night-shift"),
        ("Ana", "shop"),
    ]
    stored = b"".join(path.read_bytes() for path in (tmp_path / "store").glob("reviews.sqlite*"))
    for secret in (key, other):
        assert secret.encode() not in stored
        assert hashlib.sha256(secret.encode()).hexdigest().encode() not in stored


def decide(client: TestClient, photo: bytes) -> typing.Any:
    return client.post(
        "/v1/reviews", json={"photo_sha256": hashlib.sha256(photo).hexdigest(), "decision": "real"}
    )


@pytest.mark.parametrize("route", ["photos", "claims"])
def test_only_photos_that_were_judged_are_decided(serve: Serve, encode: Encode, route: str) -> None:
    client, photo, other, broken = serve(), encode(seed=1), encode(seed=2), encode(seed=3)[:400]
    files = [("photos", ("a.jpg", photo)), ("photos", ("b.jpg", broken))]
    assert client.post(f"/v1/{route}", files=files).status_code == 200
    assert decide(client, photo).status_code == 201
    for refused in (other, broken):
        answer = decide(client, refused)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "photo_not_judged")
    assert client.get("/v1/reviews").json()["counts"] == {"real": 1, "synthetic": 0, "unsure": 0}


def test_after_a_restart_kept_claims_and_earlier_decisions_are_known(
    serve: Serve, encode: Encode, tmp_path: Path
) -> None:
    kept, decided, neither = (encode(seed=seed) for seed in range(3))
    first = serve(store=tmp_path / "store")
    first.post(
        "/v1/claims", files=[("photos", ("a.jpg", kept))], data={"keep": "true", "claim_id": "C-1"}
    )
    first.post("/v1/photos", files=[("photos", ("b.jpg", decided)), ("photos", ("c.jpg", neither))])
    assert decide(first, decided).status_code == 201
    second = serve(store=tmp_path / "store")
    assert [decide(second, photo).status_code for photo in (kept, decided, neither)] == [
        201,
        201,
        409,
    ]


def test_the_photos_judged_last_are_remembered() -> None:
    judged = JudgedPhotos(most=2)
    for digest in (ONE, TWO, ONE, THREE):
        judged.add(digest)
    assert [digest in judged for digest in (ONE, TWO, THREE)] == [True, False, True]


def test_a_file_of_an_older_version_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "reviews.sqlite"
    store = ReviewStore(path)
    store.add(Review(ONE, "real", reviewer="＝Ana"))
    store.close()
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE reviews DROP COLUMN key_name")
    database.close()
    stores = [ReviewStore(path) for _ in range(2)]
    stores[1].add(Review(ONE, "synthetic", key_name="shop"))
    assert [review.key_name for review in stores[0].history()] == ["shop", ""]
    for store in stores:
        store.close()


def test_the_history_is_kept_and_the_last_decision_counts(store: ReviewStore) -> None:
    for decision in ("synthetic", "unsure", "real"):
        store.add(Review(ONE, decision, file_name="a.jpg"))
    store.add(Review(TWO, "real", file_name="b.jpg"))
    store.add(Review(TWO, "unsure", file_name="b.jpg"))
    assert [review.decision for review in store.history(photos=[ONE])] == [
        "real",
        "unsure",
        "synthetic",
    ]
    assert len(store.history()) == 5
    assert [(row["file_name"], row["label"]) for row in exported(store)] == [("a.jpg", "real")]
    assert store.counts() == {"real": 1, "synthetic": 0, "unsure": 1}


def test_what_the_export_says_of_a_photo(store: ReviewStore) -> None:
    store.add(
        Review(
            ONE,
            "real",
            "dented",
            "a.jpg",
            "c1",
            reviewer="Bo",
            outcome="synthetic",
            score=2.5,
            key_name="shop",
        )
    )
    store.add(Review(TWO, "synthetic", "cracked", "b.png", "c1"))
    store.add(Review(THREE, "real", "", "c.jpg"))
    rows = exported(store)
    assert tuple(rows[0]) == EXPORT_COLUMNS
    told = [
        [row[name] for name in ("label", "kind", "condition", "damage", "group")] for row in rows
    ]
    assert told == [
        ["real", "damaged", "damaged", "dented", "claim c1"],
        ["synthetic", "", "unknown", "cracked", "claim c1"],
        ["real", "original", "unknown", "", ""],
    ]
    first = rows[0]
    assert (first["sha256"], first["label_source"]) == (ONE, "review")
    assert (first["decided_by"], first["decided_key"]) == ("Bo", "shop")
    assert (first["model_outcome"], first["model_score"]) == ("synthetic", "2.5")
    assert first["decided_at"] == store.history(photos=[ONE])[0].decided_at
    assert rows[2]["model_score"] == ""


@pytest.mark.parametrize("names", ["given", "sha256"])
def test_the_manifest_reader_takes_the_export(
    store: ReviewStore, tmp_path: Path, names: typing.Any
) -> None:
    given = [
        "cup.jpg",
        "CUP.jpg",
        "../../etc/passwd",
        "=cmd().jpg",
        ".hidden.png",
        "",
        'a,"b".jpg',
        "metadata.csv",
        "杯.jpg",
    ]
    photos = {}
    for index, name in enumerate(given):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 30), (index * 20, 90, 10)).save(buffer, "JPEG")
        photos[hashlib.sha256(buffer.getvalue()).hexdigest()] = buffer.getvalue()
        digest = list(photos)[index]
        store.add(
            Review(
                digest,
                "real" if index % 2 else "synthetic",
                "torn",
                name,
                f"=claim{index}",
                outcome="review",
            )
        )
    rows = exported(store, names=names)
    for row in rows:
        (tmp_path / row["file_name"]).write_bytes(photos[row["sha256"]])
    (tmp_path / "metadata.csv").write_text(
        export_manifest(store.current(), names), encoding="utf-8"
    )
    manifest = read_dataset(tmp_path)
    assert len(manifest) == len(given)
    table: pd.DataFrame = manifest.table
    assert table["file_name"].str.lower().nunique() == len(given)
    assert not table["file_name"].str.contains(r"^[=.]|/", regex=True).any()
    assert list(table["kind"]) == ["", "damaged"] * 4 + [""]
    assert set(table["label_source"]) == {"review"}
    assert list(table["file_name"])[-1] == (
        "杯.jpg" if names == "given" else f"{rows[-1]['sha256']}.jpg"
    )


def test_no_cell_is_a_formula(store: ReviewStore) -> None:
    store.add(Review(ONE, "real", file_name="=1+1.jpg", claim_id="@x", model_version="-2+3"))
    store.add(
        Review(
            TWO, "real", file_name="＝1+1.jpg", reviewer="＠x", key_name="-x", model_version="－2+3"
        )
    )
    marks = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
    assert not any(value.startswith(marks) for row in exported(store) for value in row.values())


def test_the_export_over_http_warns_of_its_bias(client: TestClient, store: ReviewStore) -> None:
    store.add(Review(ONE, "real", file_name="a.jpg"))
    store.add(Review(TWO, "unsure", file_name="b.jpg"))
    answer = client.get("/v1/reviews/export")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="metadata.csv"'
    assert "biased sample" in answer.headers["x-realdamage-notice"]
    assert answer.headers["x-realdamage-left-out"] == "1"
    assert answer.text.splitlines()[1].startswith(f"a.jpg,real,original,unknown,,,{ONE},review,")
    assert (
        client.get("/v1/reviews/export", params={"names": "sha256"})
        .text.splitlines()[1]
        .startswith(f"{ONE}.jpg,")
    )
    assert client.get("/v1/reviews/export", params={"names": "both"}).status_code == 422


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"photo_sha256": "ABC"}, "photo_sha256"),
        ({"decision": "fake"}, "decision"),
        ({"damage": "crakced"}, "damage"),
        ({"note": "x" * 2001}, "note"),
        ({"reviewr": "Ana"}, "reviewr"),
        ({"score": "high"}, "score"),
        ({"outcome": "fake"}, "outcome"),
        ({"note": "bell \a"}, "note"),
        ({"reviewer": "=HYPERLINK()"}, "reviewer"),
        ({"reviewer": "＝HYPERLINK()"}, "reviewer"),
        ({"key_name": "shop"}, "key_name"),
    ],
)
def test_a_wrong_field_is_named(
    client: TestClient, store: ReviewStore, changed: dict[str, str], field: str
) -> None:
    answer = client.post("/v1/reviews", json={"photo_sha256": ONE, "decision": "real"} | changed)
    assert answer.status_code == 422
    assert field in answer.text
    assert store.history() == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"decision": "fake"}, "decision: found 'fake'; send 'real', 'synthetic' or 'unsure'"),
        (
            {"photo_sha256": "ABC"},
            "photo_sha256: found 'ABC'; send the SHA-256 of the photo's bytes, as in its verdict: "
            "64 lower-case hexadecimal digits",
        ),
        ({"note": "x" * 2001}, "note: has 2001 characters, at most 2000 are taken; shorten it"),
        (
            {"score": "high"},
            "score: found 'high'; it should be a valid number (the verdict's score)",
        ),
    ],
)
def test_a_wrong_field_is_told_with_what_it_should_be(
    serve: Serve, changed: dict[str, str], told: str
) -> None:
    answer = serve().post("/v1/reviews", json={"photo_sha256": ONE, "decision": "real"} | changed)
    assert answer.json()["error"]["message"] == told


FIELDS = (
    "Fields: photo_sha256, decision (needed); "
    "damage, file_name, claim_id, note, reviewer, outcome, score, model_version"
)


def test_missing_and_unknown_fields_are_told_beside_those_there_are(serve: Serve) -> None:
    client = serve()

    def told(**request: typing.Any) -> str:
        answer = client.post("/v1/reviews", **request)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_field")
        return str(answer.json()["error"]["message"])

    assert told(json={}) == (
        "photo_sha256: missing; send the SHA-256 of the photo's bytes, as in its verdict: 64 lower-case hexadecimal "
        f"digits. decision: missing; send what the person decided: real, synthetic or unsure. {FIELDS}"
    )
    misspelt = told(json={"photo_sha256": ONE, "decision": "real", "reviewr": "Ana"})
    assert misspelt == f"reviewr: no such field; leave it out or correct its name. {FIELDS}"
    sent = "send an object with the header Content-Type: application/json"
    assert told(json=[1]) == f"the body is no JSON object; {sent}. {FIELDS}"
    assert told(data={"decision": "real"}) == f"the body is no JSON object; {sent}. {FIELDS}"
    assert told() == f"the body is empty; {sent}. {FIELDS}"
    cut = told(content=b'{"decision": ', headers={"Content-Type": "application/json"})
    assert cut == f"the body is no JSON (Expecting value); {sent}. {FIELDS}"


def test_a_wrong_query_is_told_with_what_it_should_be(serve: Serve) -> None:
    client = serve()

    def told(**query: typing.Any) -> str:
        return str(client.get("/v1/reviews", params=query).json()["error"]["message"])

    assert told(limit=0) == "limit: found '0'; it should be greater than or equal to 1"
    assert (
        told(photo_sha256=[ONE] * 101)
        == "photo_sha256: has 101 values, at most 100 are taken; shorten it"
    )


def test_history_of_some_photos_and_of_a_claim(client: TestClient, store: ReviewStore) -> None:
    store.add(Review(ONE, "real", claim_id="c1"))
    store.add(Review(TWO, "real", claim_id="c2"))
    store.add(Review(THREE, "unsure", claim_id="c2"))

    def found(**query: typing.Any) -> list[str]:
        return [
            review["photo_sha256"]
            for review in client.get("/v1/reviews", params=query).json()["reviews"]
        ]

    assert found(photo_sha256=[ONE, THREE]) == [THREE, ONE]
    assert found(claim_id="c2") == [THREE, TWO]
    assert found(limit=1) == [THREE]
    assert client.get("/v1/reviews", params={"limit": 0}).status_code == 422


def test_a_claim_is_forgotten_and_old_decisions_too(store: ReviewStore) -> None:
    store.add(Review(ONE, "real", claim_id="c1"))
    store.add(Review(TWO, "real", claim_id="c2"))
    assert store.delete("c1") == 1
    assert [review.claim_id for review in store.history()] == ["c2"]
    assert store.purge(older_than_days=1) == 0
    assert store.purge(older_than_days=-1) == 1
    assert store.history() == []


def test_decisions_outlive_the_process_and_hold_no_photo(tmp_path: Path) -> None:
    path = tmp_path / "new" / "reviews.sqlite"
    first = ReviewStore(path)
    first.add(Review(ONE, "real", reviewer="Ana"))
    second = ReviewStore(path)  # as another process would, beside it
    second.add(Review(ONE, "synthetic", reviewer="Bo"))
    first.close()
    assert [review.reviewer for review in second.history()] == ["Bo", "Ana"]
    second.close()
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        types = {row[2] for row in database.execute("PRAGMA table_info(reviews)")}
    database.close()
    assert types == {"INTEGER", "TEXT", "REAL"}


def test_many_threads_write_at_once(tmp_path: Path) -> None:
    stores = [ReviewStore(tmp_path / "reviews.sqlite") for _ in range(2)]
    work = [
        threading.Thread(
            target=lambda n=n: [stores[n % 2].add(Review(f"{n:064x}", "real")) for _ in range(5)]
        )
        for n in range(6)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(stores[0].history()) == 30
    assert stores[1].counts() == {"real": 6, "synthetic": 0, "unsure": 0}
    for store in stores:
        store.close()


def test_a_note_that_was_deleted_is_not_left_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "reviews.sqlite"
    store = ReviewStore(path)
    store.add(Review(ONE, "real", claim_id="c", note="a very private note"))
    assert store.delete("c") == 1
    store.close()
    assert b"private" not in path.read_bytes()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "reviews.sqlite"
    path.write_bytes(b"this is not a database at all" * 50)
    with pytest.raises(
        RealDamageError, match=r"reviews\.sqlite: decisions cannot be kept there .*not a database"
    ):
        ReviewStore(path)


def test_values_out_of_range_never_reach_the_file() -> None:
    with pytest.raises(UsageError, match="expected 64 lower-case hexadecimal digits"):
        Review("A" * 64, "real")
    assert math.isnan(Review(ONE, "real").score)
    assert Review(ONE, "real").to_dict()["score"] is None


def test_the_damages_are_those_of_the_manifest() -> None:
    assert typing.get_args(Damage) == ("", *DAMAGES)
