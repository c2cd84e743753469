"""A service whose files are in an object store: over S3, as moto's server speaks it."""

import time

import pytest
from sqlalchemy import update

from realdamage.claims import verify_evidence
from realdamage.claims.database import Case, Database
from realdamage.claims.paths import ObjectPath
from realdamage.commands.cli import main
from realdamage.errors import RealDamageError
from realdamage.service.store import ClaimStore, Purged, purge

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A store that does not answer is asked once, not several times with waits in between."""
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)


@pytest.fixture
def place(bucket, postgres):
    """Settings of a service with a new bucket and a new database."""
    return {"store": f"{bucket}/shop", "database": postgres.new_url()}


@pytest.fixture
def store(place):
    found = ClaimStore(place["store"], 30, database=place["database"])
    yield found
    found.close()


def finished(shop, job):
    """The job once it is over, however slow the machine is: the limit of the test ends it."""
    while (found := shop.call("GET", job).json())["status"] == "running":
        time.sleep(0.05)
    return found


def refusal(response):
    return response.status_code, response.json()["error"]["code"]


def status(shop, claim_id):
    return int(shop.call("GET", f"claims/{claim_id}").status_code)


def keys(place):
    return list(place.below())


def test_the_life_of_a_claim(open_shop, place, wait_until):
    shop = open_shop(**place, keep_originals=True)
    url, database = place["store"], place["database"]
    here, photo = ObjectPath.at(url), shop.photos(0)[0][1][1]
    assert shop.call("GET", "/readyz").status_code == 200
    assert "realdamage_store_free_bytes" not in shop.call("GET", "/metrics").text

    answer = shop.claim("A", later="true")
    assert answer.status_code == 202
    assert finished(shop, answer.json()["url"])["error"] is None
    wait_until(lambda: keys(here / "jobs") == [])  # soon after the job is done
    assert shop.call("GET", "claims/A").json()["photos"][0]["sha256"]
    files = shop.call("GET", "claims/A/files/pictures/photo-01.jpg")
    assert files.content.startswith(b"\xff\xd8")
    assert (here / "claims/A/originals/photo-01.jpg").read_bytes() == photo

    asked = shop.call("POST", "claims/A/links", json={"side": "buyer"}).json()
    link = f"statements/{asked['path'].removeprefix('s/')}"
    said = shop.call("POST", link, files=shop.photos(9), data={"text": "it was wet"})
    assert said.status_code == 201, said.text
    assert "it was wet" in shop.call("GET", "claims/A/evidence.html").text
    (name,) = [one["folder"] for one in shop.call("GET", "claims/A/case").json()["statements"]]
    read = shop.call("GET", f"claims/A/files/statements/{name}/statement.json").json()
    assert (read["text"], len(read["photos"])) == ("it was wet", 1)

    claim = f"{url}/claims/A"
    assert verify_evidence(claim, log=database).problems == ()
    assert main(["verify", claim, "--log", database]) == 0
    page = (here / "claims/A/evidence.html").read_bytes()
    (here / "claims/A/evidence.html").write_bytes(page + b" ")
    assert main(["verify", claim]) == 1

    assert shop.call("DELETE", "claims/A").json() == {"deleted": "A"}
    assert refusal(shop.call("GET", "claims/A")) == (404, "not_found")
    assert keys(here / "claims") == []
    assert shop.claim("A").status_code == 200, "its id is free"


def test_two_services_see_each_others_claims(open_shop, place):
    first, second = open_shop(**place), open_shop(**place)
    assert first.claim("A").status_code == 200
    assert second.call("GET", "claims/A").json() == first.call("GET", "claims/A").json()
    assert refusal(second.claim("A")) == (409, "claim_exists")
    seen = second.claim("B").json()["photos"][0]["duplicates"]
    assert [one["claim_id"] for one in seen] == ["A"]
    link = first.call("POST", "claims/A/links", json={"side": "buyer"}).json()["path"]
    page = second.call("GET", f"statements/{link.removeprefix('s/')}")
    assert page.json()["side"] == "buyer", "both sign with one secret"
    assert second.call("DELETE", "claims/A").status_code == 200
    assert [status(first, claim_id) for claim_id in "AB"] == [404, 200]


def test_expired_claims_and_what_was_left_behind_are_purged(store, open_shop, place, bucket):
    """A store that has lost its bucket removes nothing from the database."""
    shop = open_shop(**place)
    for number, claim_id in enumerate(("old", "young", "begun")):
        assert shop.claim(claim_id, seed=number).status_code == 200
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

    ObjectPath.at(place["store"]).remove()
    with pytest.raises(RealDamageError) as gone:
        purge(store)
    with pytest.raises(RealDamageError) as other:
        ClaimStore(f"{bucket}/other", 30, database=place["database"])
    assert (gone.value.code, other.value.code) == ("store_unusable", "other_store")
    assert refusal(shop.call("GET", "/readyz")) == (503, "store_fails")
    with store.database.reading() as session:
        assert session.get(Case, "young") is not None


# What is wrong with the store


def wrong_at_the_start(url, database):
    with pytest.raises(RealDamageError) as caught:
        ClaimStore(url, 30, database=database)
    assert url.rpartition("/")[0] in str(caught.value)
    return caught.value.code


def test_a_store_that_cannot_be_used_is_an_error_at_the_start(bucket, postgres, monkeypatch):
    import s3fs

    database = postgres.new_url()
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
    open_shop, place, object_server, held, wait_until, monkeypatch
):
    monkeypatch.setattr("realdamage.service.jobs._RETRY_S", 0.2)
    shop, jobs = open_shop(**place), ObjectPath.at(place["store"]) / "jobs"
    assert shop.claim("A").status_code == 200
    with held(shop.client):
        job = shop.claim("J", seed=5, later="true").json()["url"]
        tries = jobs / job.rpartition("/")[2] / "tries"
        wait_until(tries.is_file)
        object_server.stop()
    try:
        assert refusal(shop.call("GET", "/readyz")) == (503, "store_fails")
        assert refusal(shop.call("GET", "claims/A")) == (503, "unavailable")
        assert refusal(shop.claim("B", seed=1)) == (503, "unavailable")
        assert refusal(shop.claim("C", seed=2, later="true")) == (503, "store_fails")
        assert refusal(shop.call("DELETE", "claims/A")) == (503, "unavailable")
    finally:
        object_server.start()
    assert finished(shop, job)["error"] is None, "what was accepted waits for the store"
    assert shop.call("GET", "/readyz").status_code == 200
    assert [status(shop, claim_id) for claim_id in "AJ"] == [200, 200]
    assert shop.call("GET", "claims").json()["total"] == 2
    for number, claim_id in enumerate("BC"):
        assert shop.claim(claim_id, seed=1 + number).status_code == 200
    wait_until(lambda: keys(jobs) == [])
