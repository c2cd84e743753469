"""A service whose files are in an object store: over S3, as moto's server speaks it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from realdamage.claims import verify_evidence
from realdamage.claims.database import Case, Database
from realdamage.claims.paths import ObjectPath
from realdamage.commands.cli import main
from realdamage.errors import RealDamageError
from realdamage.service.store import ClaimStore, Purged, purge

Serve = Callable[..., TestClient]
Encode = Callable[..., bytes]
Wait = Callable[[Callable[[], object]], None]
SIZE = (320, 240)

pytestmark = pytest.mark.slow


@pytest.fixture
def database(postgres: Any) -> str:
    url: str = postgres.new_url()
    return url


@pytest.fixture
def store(bucket: str, database: str) -> Iterator[ClaimStore]:
    found = ClaimStore(f"{bucket}/shop", 30, database=database)
    yield found
    found.close()


def post(client: TestClient, photo: bytes, claim_id: str, **fields: str) -> Any:
    data = {"keep": "true", "claim_id": claim_id, "buyer": "B-7", "amount": "12.50", **fields}
    data["currency"] = "CNY"
    return client.post("/v1/claims", files=[("photos", ("a.jpg", photo))], data=data)


def finished(client: TestClient, job: str) -> Any:
    """The job once it is over, however slow the machine is: the limit of the test ends it."""
    while (found := client.get(job).json())["status"] == "running":
        time.sleep(0.05)
    return found


def refusal(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def keys(place: ObjectPath) -> list[str]:
    return list(place.below())


def test_the_life_of_a_claim(
    serve: Serve, encode: Encode, bucket: str, database: str, wait_until: Wait
) -> None:
    url = f"{bucket}/shop"
    client = serve(store=url, database=database, keep_originals=True)
    place, photo = ObjectPath.at(url), encode(size=SIZE)
    assert client.get("/readyz").status_code == 200
    assert "realdamage_store_free_bytes" not in client.get("/metrics").text

    answer = post(client, photo, "A", later="true")
    assert answer.status_code == 202
    assert finished(client, answer.json()["url"])["error"] is None
    wait_until(lambda: keys(place / "jobs") == [])  # soon after the job is done
    assert client.get("/v1/claims/A").json()["photos"][0]["sha256"]
    files = client.get("/v1/claims/A/files/pictures/photo-01.jpg")
    assert files.content.startswith(b"\xff\xd8")
    assert (place / "claims/A/originals/photo-01.jpg").read_bytes() == photo

    asked = client.post("/v1/claims/A/links", json={"side": "buyer"}).json()
    sent = [("photos", ("box.jpg", encode(size=SIZE, seed=9)))]
    statement = f"/v1/statements/{asked['path'].removeprefix('s/')}"
    said = client.post(statement, files=sent, data={"text": "it was wet"})
    assert said.status_code == 201, said.text
    assert "it was wet" in client.get("/v1/claims/A/evidence.html").text
    (name,) = [one["folder"] for one in client.get("/v1/claims/A/case").json()["statements"]]
    read = client.get(f"/v1/claims/A/files/statements/{name}/statement.json").json()
    assert (read["text"], len(read["photos"])) == ("it was wet", 1)

    claim = f"{url}/claims/A"
    assert verify_evidence(claim, log=database).problems == ()
    assert main(["verify", claim, "--log", database]) == 0
    page = (place / "claims/A/evidence.html").read_bytes()
    (place / "claims/A/evidence.html").write_bytes(page + b" ")
    assert main(["verify", claim]) == 1

    assert client.delete("/v1/claims/A").json() == {"deleted": "A"}
    assert refusal(client.get("/v1/claims/A")) == (404, "not_found")
    assert keys(place / "claims") == []
    assert post(client, photo, "A").status_code == 200, "its id is free"


def test_two_services_see_each_others_claims(
    serve: Serve, encode: Encode, bucket: str, database: str
) -> None:
    settings = {"store": f"{bucket}/shop", "database": database}
    first, second = serve(**settings), serve(**settings)
    photo = encode(size=(640, 480))
    assert post(first, photo, "A").status_code == 200
    assert second.get("/v1/claims/A").json() == first.get("/v1/claims/A").json()
    assert refusal(post(second, photo, "A")) == (409, "claim_exists")
    seen = post(second, photo, "B").json()["photos"][0]["duplicates"]
    assert [one["claim_id"] for one in seen] == ["A"]
    link = first.post("/v1/claims/A/links", json={"side": "buyer"}).json()["path"]
    page = second.get(f"/v1/statements/{link.removeprefix('s/')}")
    assert page.json()["side"] == "buyer", "both sign with one secret"
    assert second.delete("/v1/claims/A").status_code == 200
    assert refusal(first.get("/v1/claims/A")) == (404, "not_found")
    assert first.get("/v1/claims/B").status_code == 200


def test_expired_claims_and_what_was_left_behind_are_purged(
    store: ClaimStore, serve: Serve, encode: Encode, database: str
) -> None:
    client = serve(store=str(store.folder), database=database)
    for number, claim_id in enumerate(("old", "young", "begun")):
        assert post(client, encode(size=SIZE, seed=number), claim_id).status_code == 200
    with store.database.transaction() as session:
        session.execute(update(Case).where(Case.claim_id == "old").values(updated=1e9))
    claims = store.claims
    assert isinstance(claims, ObjectPath)
    (claims / "begun").remove()
    (claims / "nobody" / "evidence.html").write_bytes(b"of a killed process")
    assert purge(store) == Purged(("old",), ())
    assert {key.partition("/")[0] for key in keys(claims)} == {"young"}
    report = store.database.verify()
    reasons = [entry["payload"].get("reason") for entry in report.entries]
    assert [one for one in reasons if one] == ["interrupted", "retention"]


def test_a_store_that_lost_its_bucket_removes_nothing_from_the_database(
    store: ClaimStore, serve: Serve, encode: Encode, database: str, bucket: str
) -> None:
    client = serve(store=str(store.folder), database=database)
    assert post(client, encode(size=SIZE), "A").status_code == 200
    assert isinstance(store.folder, ObjectPath)
    store.folder.remove()
    with pytest.raises(RealDamageError) as gone:
        purge(store)
    with pytest.raises(RealDamageError) as other:
        ClaimStore(f"{bucket}/other", 30, database=database)
    assert (gone.value.code, other.value.code) == ("store_unusable", "other_store")
    assert refusal(client.get("/readyz")) == (503, "store_fails")
    with store.database.reading() as session:
        assert session.get(Case, "A") is not None


# What is wrong with the store


def wrong_at_the_start(url: str, database: str) -> str:
    with pytest.raises(RealDamageError) as caught:
        ClaimStore(url, 30, database=database)
    assert url.rpartition("/")[0] in str(caught.value)
    return caught.value.code


def test_a_store_that_cannot_be_used_is_an_error_at_the_start(
    bucket: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    assert wrong_at_the_start(f"{bucket}/shop", "") == "needs_database"
    assert wrong_at_the_start("s3://no-such-bucket/shop", database) == "store_unusable"
    (ObjectPath.at(bucket) / "photos/holiday.jpg").write_bytes(b"x")
    assert wrong_at_the_start(f"{bucket}/", database) == "not_a_store"
    with monkeypatch.context() as patch:
        # From the first request on, moto looks at the credentials, and knows none.
        patch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
        assert wrong_at_the_start(f"{bucket}/shop", database) == "store_unusable"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    assert wrong_at_the_start(f"{bucket}/shop", database) == "store_unusable"
    found = Database(database)
    with found.reading() as session:
        assert session.query(Case).count() == 0
    found.close()


def test_a_store_that_goes_away_is_a_503_and_nothing_is_half_accepted(
    serve: Serve,
    encode: Encode,
    bucket: str,
    database: str,
    object_server: Any,
    held: Callable[[TestClient], AbstractContextManager[None]],
    wait_until: Wait,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("realdamage.service.jobs._RETRY_S", 0.2)
    client = serve(store=f"{bucket}/shop", database=database)
    assert post(client, encode(size=SIZE), "A").status_code == 200
    with held(client):
        job = post(client, encode(size=SIZE, seed=5), "J", later="true").json()["url"]
        tries = ObjectPath.at(f"{bucket}/shop/jobs/{job.rpartition('/')[2]}/tries")
        wait_until(tries.is_file)
        object_server.stop()
    try:
        assert refusal(client.get("/readyz")) == (503, "store_fails")
        assert refusal(client.get("/v1/claims/A")) == (503, "unavailable")
        assert refusal(post(client, encode(size=SIZE, seed=1), "B")) == (503, "unavailable")
        later = post(client, encode(size=SIZE, seed=2), "C", later="true")
        assert refusal(later) == (503, "store_fails")
        assert refusal(client.delete("/v1/claims/A")) == (503, "unavailable")
    finally:
        object_server.start()
    assert finished(client, job)["error"] is None, "what was accepted waits for the store"
    assert client.get("/readyz").status_code == 200
    assert [client.get(f"/v1/claims/{one}").status_code for one in "AJ"] == [200, 200]
    assert client.get("/v1/claims").json()["total"] == 2
    for number, claim_id in enumerate("BC"):
        assert post(client, encode(size=SIZE, seed=1 + number), claim_id).status_code == 200
    wait_until(lambda: keys(ObjectPath.at(f"{bucket}/shop/jobs")) == [])
