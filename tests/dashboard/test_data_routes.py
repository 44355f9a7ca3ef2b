"""The routes behind the page: a session like the management routes, the same view, and one statement for many keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event

from fastapi_keyauth import InvalidField, KeyAuth
from fastapi_keyauth.domain.units import REQUESTS
from fastapi_keyauth.store import Usage

DATA = "/settings/api-keys/data"
MakeAuth = Callable[..., KeyAuth]
MakeClient = Callable[..., httpx.AsyncClient]
on_one_stack = pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)


def app_of(auth: KeyAuth) -> FastAPI:
    app = FastAPI()
    auth.install(app)
    app.include_router(auth.dashboard_router, prefix="/settings/api-keys")
    return app


@asynccontextmanager
async def calling(
    auth: KeyAuth, make_client: MakeClient, *scopes: str, user: str = "ada"
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a started application, with a user's session."""
    client = make_client(app_of(auth))
    async with auth:
        session = await auth.sessions.create(user, scopes or ("*",))
        client.headers["Authorization"] = f"Bearer {session}"
        yield client


@on_one_stack
@pytest.mark.parametrize("path", ["/options", "/usage?ids=000000000000", "/keys", "/usage?nonsense=1"])
async def test_data_routes_require_credentials_before_anything_else(
    make_auth: MakeAuth, make_client: MakeClient, path: str
) -> None:
    auth = make_auth()
    async with auth:
        client = make_client(app_of(auth))
        nobody = await client.get(DATA + path)
        assert (nobody.status_code, nobody.json()["code"]) == (401, "missing_credentials")
        stranger = await client.get(DATA + path, headers={"Authorization": "Bearer ks_no_session"})
        assert (stranger.status_code, stranger.json()["code"]) == (401, "invalid_session")
        key = await auth.keys.create("ada", "cannot read keys")
        weak = await client.get(DATA + path, headers={"api-key": key.token})
        assert (weak.status_code, weak.json()["missing_scopes"]) == (403, ["keys:read"])


@pytest.mark.parametrize("stack", ["sqlite-memory", "postgres-valkey"], indirect=True)
async def test_usage_of_many_keys_takes_one_statement_and_shows_own_keys_alone(
    make_auth: MakeAuth, make_client: MakeClient
) -> None:
    auth = make_auth()
    async with calling(auth, make_client) as client:
        mine = [(await auth.keys.create("ada", f"key {number}")).key.id for number in range(3)]
        other = (await auth.keys.create("bob", "not hers")).key.id
        this_hour = int(datetime.now(UTC).timestamp()) // 3600
        counts = {
            (mine[0], this_hour): [5, 1],
            (mine[0], this_hour - 23): [7, 0],
            (mine[0], this_hour - 24): [100, 0],
            (mine[1], this_hour - 2): [0, 3],
            (other, this_hour): [9, 9],
        }
        units = {(*key_and_hour, REQUESTS): admitted for key_and_hour, (admitted, _) in counts.items()}
        refused = {key_and_hour: number for key_and_hour, (_, number) in counts.items()}
        await auth.keys._queries._usage.write(Usage(units, refused), [], "test", 1, datetime.now(UTC))
        statements: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            if "keyauth_usage" in statement or "keyauth_keys" in statement:
                statements.append(statement)

        engine = auth._parts.database._engine
        assert engine is not None
        event.listen(engine.sync_engine, "before_cursor_execute", note)
        answer = await client.get(f"{DATA}/usage", params={"ids": [*mine, other]})
        event.remove(engine.sync_engine, "before_cursor_execute", note)
        assert answer.headers["cache-control"] == "no-store"
        found = answer.json()
        assert datetime.fromisoformat(found["first_hour"]).timestamp() == (this_hour - 23) * 3600
        usage = {item["id"]: (item["admitted"], item["refused"]) for item in found["items"]}
        assert usage == {
            mine[0]: ([7, *[0] * 22, 5], [0] * 23 + [1]),
            mine[1]: ([0] * 24, [*[0] * 21, 3, 0, 0]),
        }
        [usage_of_keys, suspended_owners] = statements
        assert "keyauth_usage" in usage_of_keys
        assert "keyauth_owners" in suspended_owners
        admin = {"Authorization": "Bearer " + await auth.sessions.create("root", ("admin",))}
        seen = await client.get(f"{DATA}/usage", params={"ids": [mine[0], other]}, headers=admin)
        assert {item["id"] for item in seen.json()["items"]} == {mine[0], other}


@on_one_stack
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "ids"),
        ("ids=short", "ids"),
        ("ids=" + "x" * 12 + "'", "ids"),
        ("&".join(["ids=000000000000"] * 201), "ids"),
        ("ids=000000000000&hours=169", "hours"),
        ("ids=000000000000&owner_id=bob", "owner_id"),
    ],
)
async def test_usage_rejects_invalid_values(
    make_auth: MakeAuth, make_client: MakeClient, query: str, field: str
) -> None:
    async with calling(make_auth(), make_client) as client:
        answer = await client.get(f"{DATA}/usage?{query}")
        assert (answer.status_code, answer.json()["detail"][0]["loc"][1]) == (422, field)


@on_one_stack
async def test_usage_of_many_keys_from_code_has_its_bounds(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        with pytest.raises(InvalidField):
            await auth.keys._queries.usage_of_many(["000000000000"], hours=0)


@on_one_stack
@pytest.mark.parametrize(
    ("catalogue", "scopes", "grantable", "grants_all", "any_scope"),
    [
        ({"a": "does a", "b": ""}, ("*",), {"a", "b", "keys:read", "keys:write"}, True, False),
        ({"a": "does a", "b": ""}, ("a", "gone"), {"a", "keys:read", "keys:write"}, False, False),
        ({"a": "does a"}, ("admin",), {"a", "keys:read", "keys:write", "admin"}, True, False),
        ({}, ("*",), {"keys:read", "keys:write"}, True, True),
        ({}, ("x", "y"), {"x", "y", "keys:read", "keys:write"}, False, False),
    ],
)
async def test_options_offer_what_the_caller_may_grant(
    make_auth: MakeAuth,
    make_client: MakeClient,
    catalogue: dict[str, str],
    scopes: tuple[str, ...],
    grantable: set[str],
    grants_all: bool,
    any_scope: bool,
) -> None:
    auth = make_auth(scopes=catalogue, default_hourly_limit=70)
    async with calling(auth, make_client, *scopes) as client:
        found = (await client.get(f"{DATA}/options")).json()
        assert {scope["name"] for scope in found["scopes"]} == grantable
        assert (found["grants_all"], found["any_scope"]) == (grants_all, any_scope)
        assert found["is_admin"] == ("admin" in scopes)
        assert (found["default_hourly_limit"], found["limit_is_bound"]) == (70, "admin" not in scopes)
        for name in grantable:
            made = await client.post(f"{DATA}/keys", json={"name": name, "scopes": [name]})
            assert made.status_code == 201, made.text


@on_one_stack
async def test_the_page_brings_the_management_routes_along(make_auth: MakeAuth, make_client: MakeClient) -> None:
    async with calling(make_auth(), make_client) as client:
        made = await client.post(f"{DATA}/keys", json={"name": "x"})
        assert made.headers["location"] == f"{DATA}/keys/{made.json()['id']}"
        assert (await client.delete(made.headers["location"])).status_code == 204
        current = await client.get(f"{DATA}/keys/current", headers={"api-key": made.json()["token"]})
        assert current.json()["code"] == "revoked_api_key"


@on_one_stack
async def test_no_route_of_the_page_is_in_the_schema(make_auth: MakeAuth, make_client: MakeClient) -> None:
    """Programs use `keys_router`; the page's own routes may change with the page."""
    async with calling(make_auth(), make_client) as client:
        assert (await client.get("/openapi.json")).json()["paths"] == {}


@on_one_stack
async def test_the_page_works_beside_a_keys_router_and_behind_protect(
    make_auth: MakeAuth, make_client: MakeClient
) -> None:
    auth = make_auth()
    app = app_of(auth)
    app.include_router(auth.keys_router, prefix="/api-keys")
    auth.protect(app, exempt=["/settings/api-keys/*", "/api-keys/*"])
    async with auth:
        client = make_client(app)
        session = {"Authorization": "Bearer " + await auth.sessions.create("ada", ttl=timedelta(minutes=1))}
        assert (await client.get("/settings/api-keys")).status_code == 200
        assert (await client.get(f"{DATA}/options", headers=session)).status_code == 200
        made = (await client.post("/api-keys", json={"name": "x"}, headers=session)).json()
        assert (await client.get(f"{DATA}/keys/{made['id']}", headers=session)).status_code == 200
        assert (await client.get("/openapi.json")).json()["code"] == "missing_api_key"


@on_one_stack
async def test_options_name_the_limits_of_a_new_key_and_what_they_can_count(
    make_auth: MakeAuth, make_client: MakeClient
) -> None:
    auth = make_auth(default_limits=[{"name": "day", "limit": 9, "per": "day"}], units=["tokens"])
    async with calling(auth, make_client) as client:
        found = (await client.get(f"{DATA}/options")).json()
        assert [(limit["name"], limit["limit"]) for limit in found["default_limits"]] == [("day", 9)]
        assert found["units"] == ["requests", "tokens"]
        assert found["acts_for_owners"] is False


@on_one_stack
async def test_usage_of_many_keys_names_their_suspended_owners_to_those_who_may_see_them(
    make_auth: MakeAuth, make_client: MakeClient
) -> None:
    auth = make_auth()
    async with calling(auth, make_client) as client:
        ids = [(await auth.keys.create(owner, "key")).key.id for owner in ("ada", "bob", "eve")]
        for owner in ("bob", "eve", "without keys"):
            await auth.owners.suspend(owner)
        found = (await client.get(f"{DATA}/usage", params={"ids": ids})).json()
        assert found["suspended_owners"] == []
        admin = {"Authorization": "Bearer " + await auth.sessions.create("root", ("admin",))}
        found = (await client.get(f"{DATA}/usage", params={"ids": ids[:2]}, headers=admin)).json()
        assert found["suspended_owners"] == ["bob"]
        await auth.owners.suspend("ada")
        assert (await client.get(f"{DATA}/usage", params={"ids": ids})).json()["suspended_owners"] == ["ada"]


@on_one_stack
async def test_options_have_the_policy_for_lifetimes(make_auth: MakeAuth, make_client: MakeClient) -> None:
    async with calling(make_auth(max_key_ttl_s=86_400, disable_unused_after_days=30), make_client) as client:
        policy = {"default_ttl_s": None, "max_ttl_s": 86_400, "unused_after_days": 30, "applies_to_all": False}
        assert (await client.get(f"{DATA}/options")).json()["policy"] == policy
    async with calling(make_auth(), make_client) as client:
        assert (await client.get(f"{DATA}/options")).json()["policy"] is None


@on_one_stack
async def test_limits_of_a_key_are_shown_to_its_owner_alone_and_cost_nothing(
    make_auth: MakeAuth, make_client: MakeClient
) -> None:
    auth = make_auth(default_hourly_limit=5)
    async with calling(auth, make_client) as client:
        mine, other = await auth.keys.create("ada", "mine"), await auth.keys.create("bob", "not hers")
        await auth.owners.set("ada", limits=[{"name": "day", "limit": 9, "per": "day"}])
        for _ in range(3):
            found = (await client.get(f"{DATA}/limits/{mine.key.id}")).json()
        assert [(limit["name"], limit["remaining"]) for limit in found] == [("hour", 5), ("owner-day", 9)]
        assert (await client.get(f"{DATA}/limits/{other.key.id}")).json()["code"] == "not_found"
