"""Teams of the example: members manage keys by their role, and plans limit all keys of a team together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.example.people import bearer, create_key, log_in

pytestmark = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


@pytest.fixture
def client(example_app: FastAPI, make_client: Callable[..., httpx.AsyncClient]) -> httpx.AsyncClient:
    return make_client(example_app)


async def team_of(client: httpx.AsyncClient, session: str) -> dict[str, Any]:
    """Return the only team of a user."""
    (team,) = (await client.get("/teams", headers=bearer(session))).json()
    assert isinstance(team, dict)
    return team


async def add(client: httpx.AsyncClient, manager: str, email: str, role: str) -> httpx.Response:
    """Add a member to the manager's team."""
    team = await team_of(client, manager)
    return await client.put(
        f"/teams/{team['id']}/members", json={"email": email, "role": role}, headers=bearer(manager)
    )


async def test_account_starts_with_a_team_of_its_own_on_the_free_plan(client: httpx.AsyncClient) -> None:
    session = await log_in(client)
    team = await team_of(client, session)
    assert team["plan"] == "free"
    assert [(member["email"], member["role"]) for member in team["members"]] == [("alice@example.com", "manager")]
    assert (await create_key(client, session))["owner_id"] == team["id"]


@pytest.mark.parametrize(("role", "created"), [("viewer", 403), ("developer", 201)])
async def test_member_manages_keys_as_far_as_the_role_allows(
    client: httpx.AsyncClient, role: str, created: int
) -> None:
    alice, bob = await log_in(client), await log_in(client, "bob@example.com")
    team, key = await team_of(client, alice), await create_key(client, alice)
    one = f"/api-keys/{key['id']}"
    assert (await client.get(one, headers=bearer(bob))).status_code == 404
    assert (await add(client, alice, "bob@example.com", role)).status_code == 200
    assert (await client.get(one, headers=bearer(bob))).status_code == 200
    new = {"name": "bob's", "owner_id": team["id"]}
    assert (await client.post("/api-keys", json=new, headers=bearer(bob))).status_code == created
    for path, body in (("plan", {"plan": "pro"}), ("members", {"email": "bob@example.com", "role": "manager"})):
        answer = await client.put(f"/teams/{team['id']}/{path}", json=body, headers=bearer(bob))
        assert answer.status_code == 403, path


async def test_keys_of_a_removed_member_are_revoked(client: httpx.AsyncClient) -> None:
    alice, bob = await log_in(client), await log_in(client, "bob@example.com")
    team = await team_of(client, alice)
    await add(client, alice, "bob@example.com", "developer")
    kept, removed = await create_key(client, alice), await create_key(client, bob, owner_id=team["id"])
    bobs_own = await create_key(client, bob)
    (bob_id,) = [
        member["user_id"] for member in (await team_of(client, alice))["members"] if member["role"] != "manager"
    ]
    answer = await client.delete(f"/teams/{team['id']}/members/{bob_id}", headers=bearer(alice))
    assert answer.status_code == 204
    statuses = [
        (await client.get("/v1/models", headers={"api-key": key["token"]})).status_code
        for key in (kept, removed, bobs_own)
    ]
    assert statuses == [200, 401, 200]
    assert (await client.get(f"/api-keys/{kept['id']}", headers=bearer(bob))).status_code == 404


async def test_founder_stays_and_strangers_see_nothing(client: httpx.AsyncClient) -> None:
    alice, stranger = await log_in(client), await log_in(client, "mallory@example.com")
    team = await team_of(client, alice)
    assert (await add(client, alice, "alice@example.com", "viewer")).status_code == 409
    assert (await add(client, alice, "nobody@example.com", "viewer")).status_code == 404
    founder = f"/teams/{team['id']}/members/{team['id']}"
    assert (await client.delete(founder, headers=bearer(alice))).status_code == 409
    assert (await client.delete(founder, headers=bearer(stranger))).status_code == 404
    assert (await client.delete(founder)).json()["code"] == "missing_session"


async def test_plan_limits_all_keys_of_a_team_together(client: httpx.AsyncClient) -> None:
    alice = await log_in(client)
    team = await team_of(client, alice)
    first, second = [{"api-key": (await create_key(client, alice))["token"]} for _ in range(2)]

    async def remaining(key: dict[str, str]) -> dict[str, int]:
        limits = (await client.get("/api-keys/owners/current", headers=key)).json()["limits"]
        return {limit["name"]: limit["remaining"] for limit in limits}

    assert (await client.get("/v1/models", headers=first)).status_code == 200
    assert await remaining(second) == {"day": 999, "tokens": 10_000}
    changed = await client.put(f"/teams/{team['id']}/plan", json={"plan": "pro"}, headers=bearer(alice))
    assert (changed.status_code, changed.json()["plan"]) == (200, "pro")
    assert await remaining(second) == {"day": 99_999, "tokens": 5_000_000}
