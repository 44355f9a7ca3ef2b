"""Section 6: install, protect, start and stop, WebSockets, and the OpenAPI document."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.types import ASGIApp

from fastapi_keyauth import KeyAuth
from tests.helpers.asgi import knock
from tests.helpers.contract_app import add_key_routes, build_app
from tests.helpers.stage import Clock, MakeAuth, MakeClient, OpenScene, code_of, remaining_of
from tests.helpers.tokens import NO_TOKEN

# What is checked here happens before the store and the limiter, so one stack says it all.
STACKS = ("sqlite-memory",)


async def test_install_starts_beside_the_apps_own_lifespan(
    make_auth: MakeAuth, make_client: MakeClient, clock: Clock
) -> None:
    auth = make_auth(clock=clock)
    steps: list[str] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        steps.append("started")
        yield {"own": "state"}
        steps.append("stopped")

    app = FastAPI(lifespan=own)
    auth.install(app)
    add_key_routes(app, auth)
    async with app.router.lifespan_context(app) as state, make_client(app) as client:
        assert steps == ["started"]
        assert state is not None
        assert state["own"] == "state"
        token = (await auth.keys.create(owner_id="o", name="n")).token
        assert (await client.get("/models", headers={"api-key": token})).status_code == 200
    assert steps == ["started", "stopped"]


def protected(auth: KeyAuth) -> ASGIApp:
    """Yield an app without a dependency, behind the middleware."""
    app = FastAPI(docs_url=None, redoc_url=None)
    auth.install(app)
    wrapped: ASGIApp | None = auth.protect(app, exempt=["/health", "/public/*"])
    add_key_routes(app, auth)

    @app.get("/state")
    async def state(request: Request) -> dict[str, Any]:
        return {"id": request.state.key.id, "owner_id": request.state.key.owner_id}

    @app.get("/health")
    async def health() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/healthy")
    async def healthy() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/public/{page}")
    async def public(page: str) -> dict[str, str]:
        return {"page": page}

    @app.websocket("/bare-ws")
    async def bare(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    return app if wrapped is None else wrapped


async def test_protect_asks_for_a_key_before_routing(
    make_auth: MakeAuth, make_client: MakeClient, clock: Clock
) -> None:
    auth = make_auth(clock=clock, realm="tests")
    app = protected(auth)
    async with auth, make_client(app) as client:
        for path in ("/state", "/open", "/nowhere", "/healthy", "/health/x", "/models"):
            answer = await client.get(path)
            assert (answer.status_code, code_of(answer)) == (401, "missing_api_key"), path
            assert answer.headers.get_list("www-authenticate")[0] == 'api-key realm="tests"'
        answer = await client.get("/state", headers={"api-key": NO_TOKEN})
        assert code_of(answer) == "malformed_api_key"


async def test_protect_hands_the_principal_on_and_counts_once(
    make_auth: MakeAuth, make_client: MakeClient, clock: Clock
) -> None:
    auth = make_auth(clock=clock)
    app = protected(auth)
    async with auth, make_client(app) as client:
        created = await auth.keys.create(owner_id="o", name="n", hourly_limit=4)
        for headers in ({"api-key": created.token}, {"authorization": f"Bearer {created.token}"}):
            answer = await client.get("/state", headers=headers)
            assert answer.json() == {"id": created.key.id, "owner_id": "o"}
        assert remaining_of(answer) == 2
        assert remaining_of(await client.get("/models", headers=headers)) == 1
        assert remaining_of(await client.get("/nowhere", headers=headers)) == 0
        answer = await client.get("/open", headers=headers)
        assert code_of(answer) == "rate_limit_exceeded"


async def test_exempt_paths_need_no_key(make_auth: MakeAuth, make_client: MakeClient, clock: Clock) -> None:
    auth = make_auth(clock=clock, block_after_failures=1)
    app = protected(auth)
    async with auth, make_client(app) as client:
        for headers in ({}, {"api-key": NO_TOKEN}):
            assert (await client.get("/health", headers=headers)).json() == {"ok": True}
            assert (await client.get("/public/a", headers=headers)).json() == {"page": "a"}


async def test_protect_refuses_an_upgrade_without_a_key(make_auth: MakeAuth, clock: Clock) -> None:
    auth = make_auth(clock=clock)
    app = protected(auth)
    async with auth:
        assert (await knock(app, "/bare-ws"))[0]["type"] != "websocket.accept"
        token = (await auth.keys.create(owner_id="o", name="n")).token
        sent = await knock(app, "/bare-ws", headers=[(b"api-key", token.encode())])
        assert sent[0]["type"] == "websocket.accept"


async def test_a_websocket_with_a_key_is_accepted_and_counted(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(hourly_limit=3)
        for name, value in (("api-key", key.token), ("authorization", f"Bearer {key.token}")):
            sent = await knock(scene.app, headers=[(name.encode(), value.encode())])
            assert sent[0]["type"] == "websocket.accept"
            assert json.loads(sent[1]["text"]) == {"id": key.id}
        assert remaining_of(await scene.get(token=key.token)) == 0


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ([], 401, "missing_api_key"),
        ([(b"api-key", NO_TOKEN.encode())], 401, "malformed_api_key"),
    ],
)
async def test_a_refused_upgrade_has_the_same_status_and_body(
    open_scene: OpenScene, headers: list[tuple[bytes, bytes]], status: int, code: str
) -> None:
    async with open_scene() as scene:
        sent = await knock(scene.app, headers=headers)
        assert sent[0]["type"] == "websocket.http.response.start"
        assert sent[0]["status"] == status
        lines = [value for name, value in sent[0]["headers"] if name.lower() == b"www-authenticate"]
        assert lines[0].startswith(b'api-key realm="tests"')
        body = b"".join(message.get("body", b"") for message in sent[1:])
        assert json.loads(body)["code"] == code
        answer = await scene.get(headers=[(n.decode(), v.decode()) for n, v in headers])
        assert json.loads(body) == answer.json()


async def test_a_refused_upgrade_closes_with_1008_if_the_server_does_not_support_denial_responses(
    open_scene: OpenScene,
) -> None:
    async with open_scene() as scene:
        key = await scene.key(hourly_limit=1)
        headers = [(b"api-key", key.token.encode())]
        assert (await knock(scene.app, headers=headers))[0]["type"] == "websocket.accept"
        for refused, code in (
            ([], "missing_api_key"),
            ([(b"api-key", NO_TOKEN.encode())], "malformed_api_key"),
            (headers, "rate_limit_exceeded"),
        ):
            sent = await knock(scene.app, headers=refused, denial_response=False)
            assert sent == [{"type": "websocket.close", "code": 1008, "reason": code}]


async def test_upgrades_with_invalid_keys_count_as_failed_attempts(open_scene: OpenScene) -> None:
    async with open_scene(block_after_failures=3) as scene:
        key = await scene.key()
        for _ in range(3):
            await knock(scene.app, headers=[(b"api-key", NO_TOKEN.encode())])
        assert code_of(await scene.get(token=key.token)) == "address_blocked"
        sent = await knock(scene.app, headers=[(b"api-key", key.token.encode())])
        assert sent[0]["status"] == 429


def openapi(make_auth: MakeAuth, **settings: Any) -> dict[str, Any]:
    """Return the OpenAPI document of the tests' app."""
    document: dict[str, Any] = build_app(make_auth(**settings)).openapi()
    return document


def test_openapi_shows_both_schemes(make_auth: MakeAuth) -> None:
    schemes = openapi(make_auth)["components"]["securitySchemes"]
    assert {"ApiKey", "Session"} <= set(schemes)
    assert schemes["ApiKey"]["type"] == "apiKey"
    assert (schemes["ApiKey"]["in"], schemes["ApiKey"]["name"]) == ("header", "api-key")
    assert schemes["Session"]["type"] == "http"
    assert schemes["Session"]["scheme"].lower() == "bearer"


def test_openapi_shows_the_header_of_the_setting(make_auth: MakeAuth) -> None:
    document = openapi(make_auth, header_name="x-acme-key")
    assert document["components"]["securitySchemes"]["ApiKey"]["name"].lower() == "x-acme-key"


def test_openapi_joins_key_and_session_with_and(make_auth: MakeAuth) -> None:
    paths = openapi(make_auth)["paths"]
    for path in ("/notes", "/scoped-notes"):
        assert [set(one) for one in paths[path]["post"]["security"]] == [{"ApiKey", "Session"}]
    for path in ("/models", "/items"):
        requirements = [set(one) for one in paths[path]["get"]["security"]]
        assert {"ApiKey"} in requirements
        assert all("Session" not in one for one in requirements)
    assert [set(one) for one in paths["/me"]["get"]["security"]] == [{"Session"}]
    assert not paths["/open"]["get"].get("security")
    for requirement in paths["/api-keys"]["post"]["security"]:
        assert len(requirement) <= 1


def test_openapi_shows_what_a_refusal_looks_like(make_auth: MakeAuth) -> None:
    paths = openapi(make_auth)["paths"]
    assert {"401", "403", "429"} <= set(paths["/notes"]["post"]["responses"])
    assert {"401", "429"} <= set(paths["/models"]["get"]["responses"])
    assert {"401", "403", "429"} <= set(paths["/items"]["get"]["responses"])
    assert not {"401", "403", "429"} & set(paths["/open"]["get"]["responses"])
    assert "parameters" not in paths["/models"]["get"]
