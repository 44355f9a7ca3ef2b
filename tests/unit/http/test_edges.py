"""Applications of every make: mounted ones, raw ASGI ones, with and without a lifespan of their own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from fastapi_keyauth import KeyAuth, KeyAuthSettings, KeyPrincipal

MakeAuth = Callable[..., KeyAuth]
pytestmark = pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)


async def raw_app(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that knows HTTP alone."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    key = scope["state"]["key"].name if "key" in scope.get("state", {}) else "nobody"
    await PlainTextResponse(key)(scope, receive, send)


def fastapi_child() -> FastAPI:
    child = FastAPI()

    @child.get("/models")
    async def models(request: Request) -> str:
        return str(request.state.key.name)

    @child.get("/health")
    async def health() -> str:
        return "ok"

    return child


@pytest.mark.parametrize("make_child", [fastapi_child, lambda: raw_app], ids=["fastapi", "raw"])
async def test_a_protected_app_is_protected_also_where_it_is_mounted_in_one_that_is_installed(
    make_auth: MakeAuth, make_client: Any, make_child: Callable[[], Any]
) -> None:
    auth = make_auth()
    parent = FastAPI()
    auth.install(parent)
    parent.mount("/v1", auth.protect(make_child(), exempt=["/health"]))
    async with auth:
        created = await auth.keys.create(owner_id="a", name="k")
        client: httpx.AsyncClient = make_client(parent)
        refused = await client.get("/v1/models")
        assert (refused.status_code, refused.json()["code"]) == (401, "missing_api_key")
        assert (await client.get("/v1/health")).status_code == 200
        admitted = await client.get("/v1/models", headers={"api-key": created.token})
        assert (admitted.status_code, admitted.text.strip('"')) == (200, "k")
        assert len(admitted.headers.get_list("ratelimit")) == 1


async def test_a_mounted_app_that_was_not_installed_on_fails_closed(make_auth: MakeAuth, make_client: Any) -> None:
    auth = make_auth()

    def build(install_on_child: bool) -> FastAPI:
        parent, child = FastAPI(), FastAPI()
        auth.install(parent)
        if install_on_child:
            auth.install(child)

        @child.get("/models")
        async def models(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> str:
            return key.name

        parent.mount("/v1", child)
        return parent

    async with auth:
        assert (await make_client(build(False)).get("/v1/models")).status_code == 500
        assert (await make_client(build(True)).get("/v1/models")).status_code == 401


@pytest.mark.parametrize(
    "app", [raw_app, Starlette(routes=[Route("/x", lambda request: PlainTextResponse("k"))])], ids=["raw", "starlette"]
)
def test_a_protected_app_starts_and_stops_with_its_server(make_auth: MakeAuth, app: Any) -> None:
    auth = make_auth()
    protected = auth.protect(app)
    with TestClient(protected) as client:
        assert client.portal is not None
        created = client.portal.call(lambda: auth.keys.create(owner_id="a", name="k"))
        assert client.get("/x", headers={"api-key": created.token}).text == "k"
        assert client.get("/x").status_code == 401
    with pytest.raises(RuntimeError, match="not started"):
        TestClient(protected).get("/x", headers={"api-key": created.token})


def test_a_start_that_fails_stops_the_server_of_a_raw_app(stack: Any) -> None:
    auth = KeyAuth(KeyAuthSettings(_env_file=None, database_url="sqlite+aiosqlite:////nowhere/at/all.db"))
    with (
        pytest.raises(BaseException, match="does not answer"),  # the test client raises what the server would log
        TestClient(auth.protect(raw_app)),
    ):
        pass


def test_a_raw_app_that_starts_and_stops_by_itself_still_does(make_auth: MakeAuth) -> None:
    seen: list[str] = []

    async def living(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                message = await receive()
                assert message["type"] == f"lifespan.{phase}"
                seen.append(phase)
                await send({"type": f"lifespan.{phase}.complete"})
            return
        await raw_app(scope, receive, send)

    with TestClient(make_auth().protect(living)) as client:
        assert client.get("/").status_code == 401
        assert seen == ["startup"]
    assert seen == ["startup", "shutdown"]


async def test_a_raw_app_whose_start_fails_reports_it_once(make_auth: MakeAuth) -> None:
    """Starlette sends ``startup.failed`` and raises; a middleware of the application's may lie around it."""

    @asynccontextmanager
    async def failing(_: Any) -> AsyncIterator[None]:
        raise OSError("no model to load")
        yield

    inner = Starlette(lifespan=failing)

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    sent: list[str] = []

    async def receive() -> Any:
        if sent:
            await asyncio.Event().wait()  # a server that was told of the failure has nothing more to say
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async with asyncio.timeout(10):
        with pytest.raises(OSError, match="no model"):
            await make_auth().protect(wrapped)({"type": "lifespan", "state": {}}, receive, send)
    assert sent == ["lifespan.startup.failed"]


async def test_openapi_says_the_same_every_time(make_auth: MakeAuth, make_client: Any) -> None:
    auth = make_auth()
    app = FastAPI()
    auth.install(app)
    auth.protect(app, exempt=["/openapi.json"])
    app.include_router(auth.keys_router, prefix="/api-keys")
    client = make_client(app)
    first = (await client.get("/openapi.json")).json()
    assert (await client.get("/openapi.json")).json() == first
    assert app.openapi() == first


async def test_mounts_of_starlette_see_the_principal(make_auth: MakeAuth, make_client: Any) -> None:
    auth = make_auth()

    async def whoami(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.key.name)

    app = Starlette(routes=[Mount("/a", routes=[Route("/b", whoami)])])
    assert auth.protect(app) is app
    async with auth:
        created = await auth.keys.create(owner_id="a", name="k")
        assert (await make_client(app).get("/a/b", headers={"api-key": created.token})).text == "k"
