"""Tenants: each has its own claims, rules and quota, and no key reaches what another tenant has."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from realdamage.claims import database
from realdamage.errors import UsageError
from realdamage.service.auth import hash_key
from realdamage.service.store import purge

Serve = Callable[..., TestClient]
Encode = Callable[..., bytes]
Wait = Callable[[Callable[[], object]], None]
KEYS = {name: f"{name}-" + "k" * 32 for name in ("north", "south", "ops")}
SECRETS = {"order_id": "O-north-only", "product": "lamp-north-only", "buyer": "buyer-north-only"}
CLAIM = "C-1"


class Tenants:
    """A service with the keys of two tenants and of its operator; each may do everything."""

    def __init__(self, client: TestClient, encode: Encode) -> None:
        self.client, self.encode = client, encode

    def call(self, by: str, method: str, path: str, **options: Any) -> Any:
        headers = {"X-API-Key": KEYS[by]} if by else {}
        return self.client.request(method, path, headers=headers, **options)

    def claim(self, by: str, claim_id: str, seed: int = 0, **fields: str) -> Any:
        files = [("photos", ("a.jpg", self.encode(size=(320, 240), seed=seed)))]
        data = {"keep": "true", "claim_id": claim_id, **fields}
        return self.call(by, "POST", "/v1/claims", files=files, data=data)


@pytest.fixture
def open_tenants(
    serve: Serve, encode: Encode, tmp_path: Path, database_url: str
) -> Callable[..., Tenants]:
    """`open_tenants("north: {photos_per_day: 2}")`: with these lines as --tenants FILE."""

    def start(tenants: str = "", **settings: Any) -> Tenants:
        lines = [
            f"{hash_key(key, name)} admin reviewer {'' if name == 'ops' else f'tenant={name}'}"
            for name, key in KEYS.items()
        ]
        if tenants:
            path = tmp_path / "tenants.yaml"
            path.write_text(tenants)
            settings["tenants"] = path
        settings = {"store": tmp_path / "store", "database": database_url, **settings}
        return Tenants(serve(api_key_hashes=",".join(lines), **settings), encode)

    return start


@pytest.mark.databases
def test_no_endpoint_reaches_what_another_tenant_has(
    open_tenants: Callable[..., Tenants], wait_until: Wait
) -> None:
    """Every path and method of the interface's description, with the ids of the other tenant."""
    shop = open_tenants()
    found = shop.claim("north", CLAIM, **SECRETS)
    assert found.status_code == 200, found.text
    photo = found.json()["photos"][0]["sha256"]
    review = {"photo_sha256": photo, "decision": "real", "claim_id": CLAIM, "note": "north-only"}
    assert shop.call("north", "POST", "/v1/reviews", json=review).status_code == 201
    body = {"version": 1, "reason": "seen, north-only", "action": "refund"}
    decided = shop.call("north", "POST", f"/v1/claims/{CLAIM}/decisions", json=body)
    assert decided.status_code == 200
    later = shop.claim("north", "J-1", seed=1, later="true").json()["id"]
    job = f"/v1/jobs/{later}"
    wait_until(lambda: shop.call("north", "GET", job).json()["status"] == "done")
    before = shop.call("north", "GET", f"/v1/claims/{CLAIM}/case").json()

    values = {"claim_id": CLAIM, "job_id": later, "number": "1", "path": "pictures/photo-01.jpg"}
    values |= {"name": "realdamage", "model_name": "realdamage", "version": "1"}
    given = {**review, **body, "side": "buyer", "note": "", "reason": "seen the photos"}
    paths = shop.client.get("/openapi.json").json()["paths"]
    assert len(paths) > 20
    tried = 0
    for path, methods in paths.items():
        place = path.replace("{path}", values["path"]).replace("{token}", "x~y")
        for name, value in values.items():
            place = place.replace(f"{{{name}}}", value)
        assert "{" not in place, f"{path}: give its parameter a value of the other tenant here"
        for method in methods:
            for by in ("south", "ops"):
                schema = _schema_of(shop, methods[method])
                json = {key: one for key, one in given.items() if key in schema}
                options = {"json": json} if method != "get" else {"params": {"limit": 1000}}
                if path == "/v1/reviews" and method == "get":
                    options = {"params": {"photo_sha256": photo}}
                answer = shop.call(by, method.upper(), place, **options)
                tried += 1
                assert "north-only" not in answer.text, f"{by}: {method} {path}"
                assert answer.status_code < 500, f"{by}: {method} {path}: {answer.text}"
                if place != path and "token" not in path and not path.startswith("/v2/"):
                    assert answer.status_code == 404, f"{by}: {method} {path}: {answer.text}"
                if path == "/metrics" and by == "south":
                    assert answer.status_code == 403
    assert tried > 50
    assert shop.call("north", "GET", f"/v1/claims/{CLAIM}/case").json() == before
    assert shop.call("north", "GET", job).json()["status"] == "done"
    counts = [shop.call(by, "GET", "/v1/claims").json()["total"] for by in KEYS]
    assert counts == [2, 0, 0]
    refused = shop.call("south", "POST", "/v1/reviews", json=review)
    assert refused.status_code == 409, "nor whether the other tenant has seen a photo"


def _schema_of(shop: Tenants, operation: dict[str, Any]) -> dict[str, Any]:
    """The fields of an endpoint's JSON body."""
    content = operation.get("requestBody", {}).get("content", {})
    found = content.get("application/json", {}).get("schema", {})
    name = found.get("$ref", "").rpartition("/")[2]
    components = shop.client.get("/openapi.json").json()["components"]["schemas"]
    fields: dict[str, Any] = components.get(name, {}).get("properties", {})
    return fields


@pytest.mark.databases
def test_two_tenants_use_the_same_ids_and_photos(
    open_tenants: Callable[..., Tenants], tmp_path: Path
) -> None:
    shop = open_tenants()
    for by in KEYS:
        answer = shop.claim(by, "A", order_id=f"O-{by}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["photos"][0]["duplicates"] == [], "no other tenant's photo is found"
        assert shop.claim(by, "A").status_code == 409
    links = {}
    for by in ("north", "south"):
        made = shop.call(by, "POST", "/v1/claims/A/links", json={"side": "buyer"}).json()
        links[by] = made["path"].removeprefix("s/")
        page = shop.client.get(f"/v1/statements/{links[by]}").json()
        assert page["order_id"] == f"O-{by}", "the link needs no key and knows its tenant"
    forged = links["north"].replace("north~", "south~")
    assert shop.client.get(f"/v1/statements/{forged}").status_code == 404
    assert shop.client.get(f"/v1/statements/{links['north'].partition('~')[2]}").status_code == 404
    assert shop.client.get("/v1/statements/nobody~x").status_code == 404
    photos = [("photos", ("b.jpg", shop.encode(size=(320, 240), seed=5)))]
    sent = shop.client.post(f"/v1/statements/{links['north']}", files=photos)
    assert sent.status_code == 201, sent.text
    assert shop.call("north", "DELETE", "/v1/claims/A").status_code == 200
    statuses = [shop.call(by, "GET", "/v1/claims/A").status_code for by in KEYS]
    assert statuses == [404, 200, 200]
    for by, count in (("north", 4), ("south", 2), ("ops", 1)):
        lines = shop.call(by, "GET", "/v1/log").text.splitlines()
        assert len(lines) == count, "a chain each"
    names = sorted(path.name for path in (tmp_path / "store" / "tenants").iterdir())
    assert names == ["north", "south"]


@pytest.mark.databases
def test_quota_rules_and_retention_are_each_tenants_own(
    open_tenants: Callable[..., Tenants], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("cases: {undo_minutes: 0, second_person: [refund]}")
    shop = open_tenants(
        f"north: {{photos_per_day: 2, retention_days: 3, claim_policy: {policy}}}\nsouth: {{}}"
    )
    assert [shop.claim("north", f"C-{n}", seed=n).status_code for n in range(3)] == [200, 200, 429]
    refused = shop.claim("north", "C-3")
    assert refused.json()["error"]["code"] == "quota"
    assert 1 <= int(refused.headers["retry-after"]) <= 86400
    assert [shop.claim("south", f"C-{n}", seed=n).status_code for n in range(3)] == [200] * 3
    body = {"version": 1, "reason": "seen the photos", "action": "refund"}
    states = [
        shop.call(by, "POST", "/v1/claims/C-0/decisions", json=body).json()["case"]["state"]
        for by in ("north", "south")
    ]
    assert states == ["open", "decided"], "one needs a second person"
    service = shop.client.app.state.service  # type: ignore[attr-defined]
    tomorrow = time.time() + 86400
    monkeypatch.setattr("realdamage.service.routes.now", lambda: tomorrow)
    assert shop.claim("north", "C-4", seed=4).status_code == 200
    monkeypatch.setattr(database, "now", lambda: time.time() + 5 * 86400)
    gone = [len(purge(one.store).claims) for one in service.each()]
    assert gone == [0, 3, 0], "of the operator, of north, of south"


@pytest.mark.parametrize("text", ["north: {quota: 1}", "North: {}", "{"])
def test_a_wrong_file_of_tenants_does_not_start(text: str, serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"tenants\.yaml") as caught:
        serve(tenants=path)
    assert caught.value.code == "tenants"
