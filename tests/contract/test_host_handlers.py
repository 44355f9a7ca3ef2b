"""The application's own exception handlers, and several KeyAuths on one application."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse

from fastapi_keyauth import KeyAuthError, KeyPrincipal, MissingApiKey
from tests.helpers.asgi import knock
from tests.helpers.stage import MakeAuth, MakeClient, challenges_of, code_of

STACKS = ("sqlite-memory",)


async def own(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"own": type(error).__name__}, 418)


def own_in_a_thread(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"own": type(error).__name__}, 418)


@pytest.mark.parametrize("kind", [KeyAuthError, MissingApiKey])
@pytest.mark.parametrize("registers_first", [True, False])
@pytest.mark.parametrize("way", ["install", "protect"])
@pytest.mark.parametrize("handler", [own, own_in_a_thread])
async def test_the_applications_own_handler_answers(
    make_auth: MakeAuth, make_client: MakeClient, kind: Any, registers_first: bool, way: str, handler: Any
) -> None:
    auth = make_auth()
    app = FastAPI()
    steps = [lambda: app.add_exception_handler(kind, handler), lambda: getattr(auth, way)(app)]
    for step in steps if registers_first else reversed(steps):
        step()
    app.get("/models", dependencies=[Depends(auth.require_key)])(list)
    async with auth:
        client = make_client(app)
        answer = await client.get("/models")
        assert (answer.status_code, answer.json()) == (418, {"own": "MissingApiKey"})
        answer = await client.get("/models", headers={"api-key": "wrong"})
        assert answer.status_code == (401 if kind is MissingApiKey else 418)


async def test_the_applications_own_handler_may_close_a_websocket_under_protect(make_auth: MakeAuth) -> None:
    auth = make_auth()
    app = auth.protect(FastAPI())

    @app.exception_handler(KeyAuthError)
    async def close(websocket: WebSocket, error: KeyAuthError) -> None:
        await websocket.close(4001)

    async with auth:
        sent = await knock(app, "/ws")
        assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 4001)]


async def test_protect_may_be_called_once_for_an_app(make_auth: MakeAuth, make_client: MakeClient) -> None:
    auth = make_auth()
    app = auth.protect(FastAPI(), exempt=["/health"])
    app.get("/health")(lambda: "up")
    with pytest.raises(RuntimeError, match="already called"):
        auth.protect(app)
    async with auth:
        assert (await make_client(app).get("/health")).status_code == 200


@pytest.mark.parametrize("way", ["install", "protect"])
async def test_an_app_that_has_started_cannot_be_joined(make_auth: MakeAuth, make_client: MakeClient, way: str) -> None:
    app = FastAPI()
    await make_client(app).get("/")
    with pytest.raises(RuntimeError, match="started"):
        getattr(make_auth(), way)(app)


async def test_each_keyauth_answers_for_its_own_routes(make_auth: MakeAuth, make_client: MakeClient) -> None:
    partner = make_auth(header_name="x-partner-key", key_prefix="prt", realm="partner", accept_bearer_keys=False)
    admin = make_auth(header_name="x-admin-key", key_prefix="adm", realm="admin", accept_bearer_keys=False)
    app = FastAPI()
    for auth in (partner, admin):
        auth.install(app)
        app.include_router(auth.keys_router, prefix=f"/{auth.settings.realm}/keys")

    @app.get("/both")
    async def both(
        one: Annotated[KeyPrincipal, Depends(partner.require_key)],
        two: Annotated[KeyPrincipal, Depends(admin.require_key)],
    ) -> list[str]:
        return [one.name, two.name]

    async with partner, admin:
        client = make_client(app)
        for auth in (partner, admin):
            name = auth.settings.realm
            answer = await client.get(f"/{name}/keys", headers={f"x-{name}-key": "wrong"})
            assert code_of(answer) == "malformed_api_key"
            assert challenges_of(answer)[0] == f'x-{name}-key realm="{name}"'
            token = (await auth.keys.create("ada", name, ["keys:read"])).token
            answer = await client.get(f"/{name}/keys/000000000000", headers={f"x-{name}-key": token})
            assert code_of(answer) == "not_found"
            client.headers[f"x-{name}-key"] = token
        assert (await client.get("/both")).json() == ["partner", "admin"]
        del client.headers["x-admin-key"]
        answer = await client.get("/both")
        assert challenges_of(answer) == ['x-admin-key realm="admin"']
