"""Section 6: the public names, the principals, auth.keys, auth.sessions, and the resolver."""

import inspect
from collections.abc import Iterable
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

import fastapi_keyauth
from fastapi_keyauth import InvalidField, KeyPrincipal, SessionPrincipal
from tests.helpers.stage import ROW_FIELDS, Clock, MakeAuth, MakeClient, OpenScene, code_of

FROZEN = (AttributeError, TypeError, ValueError)


def rows_of(page: Any) -> Iterable[Any]:
    """Return the keys of a page of auth.keys.list."""
    rows: Iterable[Any] = page["items"] if isinstance(page, dict) else getattr(page, "items", page)
    return rows


def test_the_named_things_can_be_imported() -> None:
    for name in ("KeyAuth", "KeyAuthSettings", "KeyPrincipal", "SessionPrincipal", "TOKEN_PATTERN"):
        assert hasattr(fastapi_keyauth, name)


def test_every_public_name_can_be_read_and_is_listed() -> None:
    assert set(fastapi_keyauth.__all__) <= set(dir(fastapi_keyauth))
    assert all(getattr(fastapi_keyauth, name) for name in fastapi_keyauth.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        fastapi_keyauth.__getattr__("no_such_name")


def test_every_public_name_has_a_docstring() -> None:
    for name in fastapi_keyauth.__all__:
        thing = getattr(fastapi_keyauth, name)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert inspect.getdoc(thing), name
    for name, member in inspect.getmembers(fastapi_keyauth.KeyAuth):
        if not name.startswith("_"):
            assert inspect.getdoc(member), f"KeyAuth.{name}"


def test_the_package_is_typed() -> None:
    assert files("fastapi_keyauth").joinpath("py.typed").is_file()


async def test_a_key_principal_has_all_data_of_its_key(
    make_auth: MakeAuth, make_client: MakeClient, clock: Clock
) -> None:
    auth = make_auth(clock=clock)
    app = FastAPI()
    auth.install(app)
    seen: list[KeyPrincipal] = []

    @app.get("/")
    async def root(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> None:
        seen.append(key)

    async with auth, make_client(app) as client:
        expires_at = clock.moment(7200)
        created = await auth.keys.create(
            owner_id="team-7",
            name="production-app",
            scopes=["items:read", "items:write"],
            environment="test",
            hourly_limit=50,
            expires_at=expires_at,
            metadata={"plan": "gold", "seats": 3},
        )
        assert (await client.get("/", headers={"api-key": created.token})).status_code == 200
    (principal,) = seen
    assert isinstance(principal, KeyPrincipal)
    assert (principal.id, principal.name) == (created.key.id, "production-app")
    assert (principal.owner_id, principal.environment) == ("team-7", "test")
    assert set(principal.scopes) == {"items:read", "items:write"}
    assert dict(principal.metadata) == {"plan": "gold", "seats": 3}
    assert principal.expires_at == expires_at
    assert (principal.hourly_limit, principal.remaining) == (50, 49)
    assert principal.reset_at is not None
    assert created.token not in repr(principal)
    with pytest.raises(FROZEN):
        principal.__setattr__("scopes", frozenset({"admin"}))


async def test_a_session_principal_has_the_key_only_if_the_route_requires_one(
    open_scene: OpenScene,
) -> None:
    async with open_scene() as scene:
        key = await scene.key(owner_id="project")
        session = await scene.session("alice", ["items:read", "items:write"])
        both = await scene.send("POST", "/notes", token=key.token, bearer=session)
        assert both.json() == {
            "user_id": "alice",
            "key_id": key.id,
            "scopes": ["items:read", "items:write"],
        }
        alone = await scene.get("/me", bearer=session)
        assert alone.json() == {"user_id": "alice", "key": None}
        beside = await scene.get("/me", token=key.token, bearer=session)
        assert beside.json() == {"user_id": "alice", "key": None}


async def test_an_optional_key_may_be_absent_but_not_bad(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        assert (await scene.get("/maybe")).json() == {"id": None}
        assert (await scene.get("/maybe", token="")).json() == {"id": None}
        assert (await scene.get("/maybe", token=key.token)).json() == {"id": key.id}
        assert code_of(await scene.get("/maybe", token=key.token[:-1])) == "malformed_api_key"
        await scene.auth.keys.revoke(key.id)
        assert code_of(await scene.get("/maybe", token=key.token)) == "revoked_api_key"


async def test_create_needs_an_owner_and_a_name_alone(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        created = await scene.auth.keys.create(owner_id="someone", name="local-dev-alice")
        assert all(hasattr(created.key, field) for field in ROW_FIELDS)
        assert set(created.key.scopes) == {"*"}
        assert created.key.status == "active"
        assert created.key.environment == "live"
        assert created.key.expires_at is None


async def test_trusted_code_is_not_bound_by_the_rules_for_callers(open_scene: OpenScene) -> None:
    async with open_scene(default_hourly_limit=10) as scene:
        key = await scene.key(scopes=["admin", "keys:write", "*"], hourly_limit=1_000_000)
        answer = await scene.get(token=key.token)
        assert answer.json()["hourly_limit"] == 1_000_000
        assert set(answer.json()["scopes"]) == {"admin", "keys:write", "*"}


async def test_the_token_is_only_in_what_create_and_rotate_return(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        row = await scene.auth.keys.get(key.id)
        assert not hasattr(row, "token")
        for text in (repr(row), str(vars(row)) if hasattr(row, "__dict__") else "", repr(key.row)):
            assert key.token.rsplit("_", 1)[1][:43] not in text


async def test_scripts_can_do_all_that_keys_need(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        keys = scene.auth.keys
        key = await scene.key(owner_id="bob", name="old name")
        await scene.key(owner_id="carol", name="other")
        await keys.update(key.id, name="new name")
        assert (await keys.get(key.id)).name == "new name"
        assert [row.id for row in rows_of(await keys.list(owner_id="bob"))] == [key.id]
        assert [row.id for row in rows_of(await keys.list(owner_id="bob", q="new"))] == [key.id]
        assert list(rows_of(await keys.list(owner_id="bob", status="revoked"))) == []
        rotated = await keys.rotate(key.id, overlap=timedelta(seconds=60))
        assert rotated.key.id == key.id
        assert await scene.spend(key.token) == await scene.spend(rotated.token) == [200]
        assert await keys.usage(key.id, hours=24) is not None
        await keys.revoke(key.id)
        assert (await keys.get(key.id)).status == "revoked"
        assert code_of(await scene.get(token=rotated.token)) == "revoked_api_key"


async def test_a_session_ends_with_its_ttl(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session(ttl_s=60)
        scene.clock.advance(59)
        assert (await scene.get("/me", bearer=session)).status_code == 200
        scene.clock.advance(2)
        assert code_of(await scene.get("/me", bearer=session)) == "invalid_session"


async def test_a_session_without_a_ttl_lasts_as_long_as_the_setting_says(
    open_scene: OpenScene,
) -> None:
    async with open_scene(session_ttl_s=90) as scene:
        session = await scene.auth.sessions.create("alice")
        assert (await scene.get("/me", bearer=session)).json()["user_id"] == "alice"
        scene.clock.advance(91)
        assert code_of(await scene.get("/me", bearer=session)) == "invalid_session"


async def test_a_revoked_session_is_refused_immediately(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        one, other = await scene.session("alice"), await scene.session("alice")
        bobs = await scene.session("bob")
        for session in (one, other, bobs):
            assert (await scene.get("/me", bearer=session)).status_code == 200
        await scene.auth.sessions.revoke(one)
        assert code_of(await scene.get("/me", bearer=one)) == "invalid_session"
        assert (await scene.get("/me", bearer=other)).status_code == 200
        await scene.auth.sessions.revoke_all("alice")
        assert code_of(await scene.get("/me", bearer=other)) == "invalid_session"
        assert (await scene.get("/me", bearer=bobs)).status_code == 200


async def test_an_own_resolver_replaces_the_sessions(open_scene: OpenScene, clock: Clock) -> None:
    asked: list[tuple[str, str]] = []

    async def resolve(token: str, connection: HTTPConnection) -> SessionPrincipal | None:
        asked.append((token, connection.url.path))
        if token != "header.claims.signature":
            return None
        return SessionPrincipal(user_id="dora", scopes=frozenset({"*"}), expires_at=clock.moment(600), key=None)

    async with open_scene(session_resolver=resolve) as scene:
        key = await scene.key()
        jwt = "header.claims.signature"
        assert (await scene.get("/me", bearer=jwt)).json() == {"user_id": "dora", "key": None}
        assert asked == [(jwt, "/me")]
        both = await scene.send("POST", "/notes", token=key.token, bearer=jwt)
        assert both.json()["user_id"] == "dora"
        assert both.json()["key_id"] == key.id
        assert code_of(await scene.get("/me", bearer="forged")) == "invalid_session"
        made = await scene.send("POST", "/api-keys", bearer=jwt, json={"name": "from a jwt"})
        assert made.status_code == 201
        assert made.json()["owner_id"] == "dora"


async def test_the_scopes_of_a_resolved_session_bind(open_scene: OpenScene, clock: Clock) -> None:
    async def resolve(token: str, connection: HTTPConnection) -> SessionPrincipal | None:
        return SessionPrincipal(
            user_id="dora",
            scopes=frozenset(token.split(".")),
            expires_at=clock.moment(600),
            key=None,
        )

    async with open_scene(session_resolver=resolve) as scene:
        assert (await scene.get("/my-profile", bearer="items:read")).status_code == 200
        answer = await scene.get("/my-profile", bearer="items:write")
        assert code_of(answer) == "insufficient_scope"


def test_a_session_whose_expiry_has_no_time_zone_is_rejected_when_it_is_created() -> None:
    with pytest.raises(ValueError, match="time zone"):
        SessionPrincipal(user_id="dora", expires_at=datetime(2030, 1, 1))  # noqa: DTZ001  # that is the mistake


@pytest.mark.parametrize(
    ("field", "value"), [("status", "gone"), ("limit", 201), ("cursor", "1"), ("unused_for_days", -1)]
)
async def test_invalid_filter_of_a_list_is_named(open_scene: OpenScene, field: str, value: Any) -> None:
    async with open_scene() as scene:
        with pytest.raises(InvalidField) as invalid:
            await scene.auth.keys.list(**{field: value})
        assert invalid.value.field == field
