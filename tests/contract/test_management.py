"""Section 7: permitted callers, visible keys, and the responses of create, read and PATCH."""

import re
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.helpers.stage import (
    HOUR_S,
    OWNER,
    ROW_FIELDS,
    OpenScene,
    Scene,
    challenges_of,
    code_of,
    remaining_of,
)
from tests.helpers.tokens import NO_TOKEN, checksummed, forge, secret_of

RFC3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
ROUTES = [
    ("GET", "", None),
    ("GET", "/{id}", None),
    ("PATCH", "/{id}", {"name": "renamed"}),
    ("POST", "/{id}/rotate", {}),
    ("GET", "/{id}/usage", None),
    ("GET", "/{id}/events", None),
    ("DELETE", "/{id}", None),
]
OF_ONE_KEY = ROUTES[1:]


async def call_route(scene: Scene, route: tuple[str, str, Any], key_id: str, **credentials: Any) -> httpx.Response:
    """Send one management request about the key."""
    method, path, json = route
    return await scene.send(method, "/api-keys" + path.format(id=key_id), json=json, **credentials)


async def test_a_session_makes_a_key_that_works(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        body = {
            "name": "prod-api-server",
            "scopes": ["items:read"],
            "environment": "test",
            "hourly_limit": 20,
            "allowed_origins": ["https://shop.example"],
            "allowed_ips": ["203.0.113.0/24"],
            "metadata": {"team": "blue"},
            "expires_in_s": HOUR_S,
        }
        answer = await scene.send("POST", "/api-keys", bearer=session, json=body)
        assert answer.status_code == 201
        made = answer.json()
        token = made["token"]
        assert set(made) >= ROW_FIELDS | {"token"}
        assert token == checksummed(token[:-6])
        assert token.startswith(f"ka_test_{made['id']}_")
        assert "no-store" in answer.headers["cache-control"]
        assert answer.headers["location"].endswith(f"/api-keys/{made['id']}")
        assert (await scene.get(answer.headers["location"], bearer=session)).status_code == 200
        for field in ("name", "scopes", "environment", "hourly_limit", "metadata"):
            assert made[field] == body[field]
        assert made["allowed_origins"] == ["https://shop.example"]
        assert made["allowed_ips"] == ["203.0.113.0/24"]
        assert made["owner_id"] == OWNER
        assert (made["status"], made["enabled"]) == ("active", True)
        assert (made["revoked_at"], made["last_used_at"]) == (None, None)
        assert datetime.fromisoformat(made["expires_at"]) == scene.clock.moment(HOUR_S)
        assert (await scene.get("/items", token=token)).status_code == 200


async def test_every_time_is_rfc_3339_in_utc(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        body = {"name": "n", "expires_at": scene.clock.moment(HOUR_S).isoformat()}
        made = (await scene.send("POST", "/api-keys", bearer=session, json=body)).json()
        times = [made["created_at"], made["expires_at"], made["secrets"][0]["created_at"]]
        assert all(RFC3339_UTC.fullmatch(time) for time in times)


async def test_an_expiry_with_an_offset_is_the_same_moment(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        local = (scene.clock.moment(HOUR_S).replace(tzinfo=None) + timedelta(hours=2)).isoformat()
        body = {"name": "n", "expires_at": local + "+02:00"}
        made = (await scene.send("POST", "/api-keys", bearer=session, json=body)).json()
        assert datetime.fromisoformat(made["expires_at"]) == scene.clock.moment(HOUR_S)
        scene.clock.advance(HOUR_S - 1)
        assert await scene.spend(made["token"]) == [200]
        scene.clock.advance(2)
        assert code_of(await scene.get(token=made["token"])) == "expired_api_key"


async def test_a_hint_shows_the_id_and_the_last_four(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        hint = (await scene.get(f"/api-keys/{key.id}", bearer=await scene.session())).json()["hint"]
        ends = (key.token[-4:], secret_of(key.token)[-4:])
        assert hint in [f"ka_live_{key.id}_…{end}" for end in ends]


async def test_no_read_shows_a_secret(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        body = {"name": "n"}
        made = (await scene.send("POST", "/api-keys", bearer=session, json=body)).json()
        for route in ROUTES[:3] + ROUTES[4:6]:
            answer = await call_route(scene, route, made["id"], bearer=session)
            assert answer.status_code == 200
            assert secret_of(made["token"]) not in answer.text
            assert "token" not in answer.json()
            assert "$argon2" not in answer.text


async def test_another_owners_key_does_not_exist(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        key = await scene.key(scopes=["*", "keys:read", "keys:write"])
        for route in OF_ONE_KEY:
            theirs = await scene.key(owner_id="somebody else")
            for credentials in ({"bearer": session}, {"token": key.token}):
                answer = await call_route(scene, route, theirs.id, **credentials)
                assert (answer.status_code, code_of(answer)) == (404, "not_found"), route
                unknown = await call_route(scene, route, "0123456789Ab", **credentials)
                assert (unknown.status_code, code_of(unknown)) == (404, "not_found"), route
            assert await scene.spend(theirs.token) == [200], route
            assert (await scene.auth.keys.get(theirs.id)).name == "test key", route


@pytest.mark.parametrize("kind", ["session", "key"])
async def test_an_admin_can_access_all_keys(open_scene: OpenScene, kind: str) -> None:
    async with open_scene() as scene:
        admin = await scene.caller(kind, "admin", user_id="root")
        for route in OF_ONE_KEY:
            theirs = await scene.key(owner_id="somebody else")
            assert (await call_route(scene, route, theirs.id, **admin)).is_success, route


async def test_owner_id_is_for_admins_alone(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        theirs = await scene.key(owner_id="zoe")
        body = {"name": "n", "owner_id": "zoe"}
        admin = await scene.caller("session", "* admin", user_id="root")
        made = await scene.send("POST", "/api-keys", json=body, **admin)
        assert (made.status_code, made.json()["owner_id"]) == (201, "zoe")
        found = await scene.get("/api-keys?owner_id=zoe", **admin)
        assert {item["id"] for item in found.json()["items"]} == {theirs.id, made.json()["id"]}
        for kind, scopes in (("session", "*"), ("key", "* keys:read keys:write")):
            caller = await scene.caller(kind, scopes)
            made = await scene.send("POST", "/api-keys", json=body, **caller)
            found = await scene.get("/api-keys?owner_id=zoe", **caller)
            assert (made.status_code, found.status_code) == (403, 403)


@pytest.mark.parametrize(
    ("scopes", "may_read", "may_write"),
    [
        ("*", False, False),
        ("items:read", False, False),
        ("keys:read", True, False),
        ("* keys:read", True, False),
        ("keys:read keys:write", True, True),
        ("admin", True, True),
    ],
)
async def test_what_a_key_may_manage_is_in_its_scopes_by_name(
    open_scene: OpenScene, scopes: str, may_read: bool, may_write: bool
) -> None:
    async with open_scene() as scene:
        target = await scene.key(scopes=[])
        caller = await scene.caller("key", scopes)
        for route in ROUTES:
            allowed = may_read if route[0] == "GET" else may_write
            answer = await call_route(scene, route, target.id, **caller)
            assert answer.is_success is allowed, route
            if not allowed:
                assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
        answer = await scene.send("POST", "/api-keys", json={"name": "n", "scopes": []}, **caller)
        assert answer.status_code == (201 if may_write else 403)


async def test_invalid_credentials_are_refused_as_on_other_routes(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        for credentials, code in (
            ({}, "missing_credentials"),
            ({"token": NO_TOKEN}, "malformed_api_key"),
            ({"token": forge()}, "invalid_api_key"),
            ({"bearer": forge()}, "invalid_api_key"),
            ({"bearer": "no-session"}, "invalid_session"),
        ):
            answer = await scene.get("/api-keys", **credentials)
            assert (answer.status_code, code_of(answer)) == (401, code)
            assert challenges_of(answer)


async def test_a_management_call_by_key_uses_a_unit(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(scopes=["keys:read"], hourly_limit=2)
        assert remaining_of(await scene.get("/api-keys", token=key.token)) == 1
        assert remaining_of(await scene.get("/api-keys", bearer=key.token)) == 0
        assert code_of(await scene.get("/api-keys", token=key.token)) == "rate_limit_exceeded"


async def test_current_returns_the_calling_key_and_what_is_left(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(scopes=[], hourly_limit=9, name="who am i")
        for credentials in ({"token": key.token}, {"bearer": key.token}):
            answer = await scene.get("/api-keys/current", **credentials)
            assert answer.status_code == 200
            current = answer.json()
            assert set(current) >= ROW_FIELDS | {"remaining", "reset_at"}
            assert (current["id"], current["name"]) == (key.id, "who am i")
            assert current["remaining"] == remaining_of(answer)
            assert RFC3339_UTC.fullmatch(current["reset_at"])
            reset_at = datetime.fromisoformat(current["reset_at"])
            assert reset_at == scene.clock.moment(HOUR_S - scene.clock.now % HOUR_S)
            assert secret_of(key.token) not in answer.text
        assert (await scene.get("/api-keys/current")).status_code == 401
        session = await scene.session()
        assert (await scene.get("/api-keys/current", bearer=session)).status_code == 401


async def test_the_number_of_keys_of_an_owner_is_limited(open_scene: OpenScene) -> None:
    async with open_scene(max_keys_per_owner=2) as scene:
        session = await scene.session()

        async def make() -> httpx.Response:
            return await scene.send("POST", "/api-keys", bearer=session, json={"name": "n"})

        first = await make()
        assert (first.status_code, (await make()).status_code) == (201, 201)
        answer = await make()
        assert (answer.status_code, code_of(answer)) == (409, "too_many_keys")
        neighbour = await scene.session("neighbour")
        body = {"name": "n"}
        made = await scene.send("POST", "/api-keys", bearer=neighbour, json=body)
        assert made.status_code == 201
        await scene.send("DELETE", f"/api-keys/{first.json()['id']}", bearer=session)
        assert (await make()).status_code == 201
        assert (await make()).status_code == 409


@pytest.mark.parametrize("fields", [{}, {"scopes": None, "hourly_limit": None, "metadata": None}])
async def test_a_name_is_enough(open_scene: OpenScene, fields: dict[str, None]) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        answer = await scene.send("POST", "/api-keys", bearer=session, json={"name": "ci", **fields})
        assert answer.status_code in ((201,) if not fields else (201, 422))
        if answer.status_code == 201:
            made = answer.json()
            assert made["scopes"] == ["*"]
            assert (made["allowed_origins"], made["allowed_ips"]) == ([], [])
            assert (made["metadata"], made["expires_at"]) == ({}, None)
            assert made["hourly_limit"] in (1000, None)
