"""Tenants: each has its own claims, rules and quota, and no key reaches what another tenant has."""

import time

import pytest

from realdamage.claims import database
from realdamage.errors import UsageError
from realdamage.service.store import purge

TENANTS = ("north", "south", "ops")
ROLES = {
    "north": "admin reviewer tenant=north",
    "south": "admin reviewer tenant=south",
    "ops": "admin reviewer",
}
SECRETS = {"order_id": "O-north-only", "product": "lamp-north-only", "buyer": "buyer-north-only"}
CLAIM = "C-1"


@pytest.fixture
def open_tenants(open_shop, tmp_path):
    """`open_tenants("north: {photos_per_day: 2}")`: with these lines as --tenants FILE."""

    def start(tenants=""):
        path = tmp_path / "tenants.yaml"
        path.write_text(tenants)
        return open_shop(ROLES, tenants=path)

    return start


@pytest.mark.databases
def test_no_endpoint_reaches_what_another_tenant_has(open_tenants, wait_until):
    """Every path and method of the interface's description, with the ids of the other tenant."""
    shop = open_tenants()
    found = shop.claim(CLAIM, "north", **SECRETS)
    assert found.status_code == 200, found.text
    photo = found.json()["photos"][0]["sha256"]
    review = {"photo_sha256": photo, "decision": "real", "claim_id": CLAIM, "note": "north-only"}
    assert shop.call("POST", "/v1/reviews", "north", json=review).status_code == 201
    body = {"version": 1, "reason": "seen, north-only", "action": "refund"}
    decided = shop.call("POST", f"/v1/claims/{CLAIM}/decisions", "north", json=body)
    assert decided.status_code == 200
    later = shop.claim("J-1", "north", seed=1, later="true").json()["id"]
    job = f"/v1/jobs/{later}"
    wait_until(lambda: shop.call("GET", job, "north").json()["status"] == "done")
    before = shop.call("GET", f"/v1/claims/{CLAIM}/case", "north").json()

    values = {"claim_id": CLAIM, "job_id": later, "number": "1", "path": "pictures/photo-01.jpg"}
    values |= {"name": "realdamage", "model_name": "realdamage", "version": "1"}
    given = {**review, **body, "side": "buyer", "note": "", "reason": "seen the photos"}
    described = shop.client.get("/openapi.json").json()
    paths = described["paths"]
    assert len(paths) > 20
    tried = 0
    for path, methods in paths.items():
        place = path.replace("{path}", values["path"]).replace("{token}", "x~y")
        for name, value in values.items():
            place = place.replace(f"{{{name}}}", value)
        assert "{" not in place, f"{path}: give its parameter a value of the other tenant here"
        for method in methods:
            fields = _fields_of(methods[method], described)
            options = {"json": {key: one for key, one in given.items() if key in fields}}
            if method == "get":
                options = {"params": {"limit": 1000}}
                if path == "/v1/reviews":
                    options = {"params": {"photo_sha256": photo}}
            for by in ("south", "ops"):
                answer = shop.call(method.upper(), place, by, **options)
                tried += 1
                assert "north-only" not in answer.text, f"{by}: {method} {path}"
                assert answer.status_code < 500, f"{by}: {method} {path}: {answer.text}"
                if place != path and "token" not in path and not path.startswith("/v2/"):
                    assert answer.status_code == 404, f"{by}: {method} {path}: {answer.text}"
                if path == "/metrics" and by == "south":
                    assert answer.status_code == 403
    assert tried > 50
    assert shop.call("GET", f"/v1/claims/{CLAIM}/case", "north").json() == before
    assert shop.call("GET", job, "north").json()["status"] == "done"
    counts = [shop.call("GET", "/v1/claims", by).json()["total"] for by in TENANTS]
    assert counts == [2, 0, 0]
    refused = shop.call("POST", "/v1/reviews", "south", json=review)
    assert refused.status_code == 409, "nor whether the other tenant has seen a photo"


def _fields_of(operation, described):
    """The fields of an endpoint's JSON body."""
    content = operation.get("requestBody", {}).get("content", {})
    found = content.get("application/json", {}).get("schema", {})
    name = found.get("$ref", "").rpartition("/")[2]
    return described["components"]["schemas"].get(name, {}).get("properties", {})


@pytest.mark.databases
def test_two_tenants_use_the_same_ids_and_photos(open_tenants, tmp_path):
    shop = open_tenants()
    for by in TENANTS:
        answer = shop.claim("A", by, order_id=f"O-{by}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["photos"][0]["duplicates"] == [], "no other tenant's photo is found"
        assert shop.claim("A", by).status_code == 409
    links = {}
    for by in ("north", "south"):
        made = shop.call("POST", "/v1/claims/A/links", by, json={"side": "buyer"}).json()
        links[by] = made["path"].removeprefix("s/")
        page = shop.client.get(f"/v1/statements/{links[by]}").json()
        assert page["order_id"] == f"O-{by}", "the link needs no key and knows its tenant"
    forged = links["north"].replace("north~", "south~")
    assert shop.client.get(f"/v1/statements/{forged}").status_code == 404
    assert shop.client.get(f"/v1/statements/{links['north'].partition('~')[2]}").status_code == 404
    assert shop.client.get("/v1/statements/nobody~x").status_code == 404
    sent = shop.client.post(f"/v1/statements/{links['north']}", files=shop.photos(5))
    assert sent.status_code == 201, sent.text
    assert shop.call("DELETE", "/v1/claims/A", "north").status_code == 200
    statuses = [shop.call("GET", "/v1/claims/A", by).status_code for by in TENANTS]
    assert statuses == [404, 200, 200]
    for by, count in (("north", 4), ("south", 2), ("ops", 1)):
        lines = shop.call("GET", "/v1/log", by).text.splitlines()
        assert len(lines) == count, "a chain each"
    names = sorted(path.name for path in (tmp_path / "store" / "tenants").iterdir())
    assert names == ["north", "south"]


def test_quota_rules_and_retention_are_each_tenants_own(open_tenants, tmp_path, monkeypatch):
    policy = tmp_path / "policy.yaml"
    policy.write_text("cases: {undo_minutes: 0, second_person: [refund]}")
    shop = open_tenants(
        f"north: {{photos_per_day: 2, retention_days: 3, claim_policy: {policy}}}\nsouth: {{}}"
    )
    assert [shop.claim(f"C-{n}", "north", seed=n).status_code for n in range(3)] == [200, 200, 429]
    refused = shop.claim("C-3", "north")
    assert refused.json()["error"]["code"] == "quota"
    assert 1 <= int(refused.headers["retry-after"]) <= 86400
    assert [shop.claim(f"C-{n}", "south", seed=n).status_code for n in range(3)] == [200] * 3
    body = {"version": 1, "reason": "seen the photos", "action": "refund"}
    states = [
        shop.call("POST", "/v1/claims/C-0/decisions", by, json=body).json()["case"]["state"]
        for by in ("north", "south")
    ]
    assert states == ["open", "decided"], "one needs a second person"
    tomorrow = time.time() + 86400
    monkeypatch.setattr("realdamage.service.routes.now", lambda: tomorrow)
    assert shop.claim("C-4", "north", seed=4).status_code == 200
    monkeypatch.setattr(database, "now", lambda: time.time() + 5 * 86400)
    gone = [len(purge(one.store).claims) for one in shop.service.each()]
    assert gone == [0, 3, 0], "of the operator, of north, of south"


@pytest.mark.parametrize("text", ["north: {quota: 1}", "{"])
def test_a_wrong_file_of_tenants_does_not_start(text, open_tenants):
    with pytest.raises(UsageError, match=r"tenants\.yaml") as caught:
        open_tenants(text)
    assert caught.value.code == "tenants"
