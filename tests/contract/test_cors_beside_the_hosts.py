"""The plugin's CORS with the application's own: in any order, neither changes the effect of the other."""

import gc
from collections.abc import Callable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_keyauth import KeyAuth, KeyPrincipal
from tests.helpers.stage import MakeAuth, MakeClient

STACKS = ("sqlite-memory",)

FRONT, PARTNER, SHOP, EVIL = (f"https://{name}.example" for name in ("front", "partner", "shop", "evil"))
ORDERS = ("install first", "CORSMiddleware first", "protect last", "protect first")


class FixedOrigin:
    """A middleware of the application that allows its front end in every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                mine = [
                    (b"Access-Control-Allow-Origin", FRONT.encode()),
                    (b"Access-Control-Allow-Credentials", b"true"),
                ]
                message = {**message, "headers": [*message["headers"], *mine]}
            await send(message)

        await self._app(scope, receive, send_allowed)


def add_cors(app: FastAPI) -> None:
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[FRONT],
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["X-Request-ID"],
    )


def add_routes(app: FastAPI, auth: KeyAuth) -> FastAPI:
    @app.get("/me")
    async def me(request: Request) -> str:
        return f"private data of {request.cookies.get('sid')}"

    @app.get("/models")
    async def models(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> str:
        return key.name

    return app


def build(auth: KeyAuth, order: str) -> FastAPI:
    app = FastAPI()
    steps: list[Callable[[], Any]] = [lambda: auth.install(app), lambda: add_cors(app)]
    if order.startswith("protect"):
        steps[0] = lambda: auth.protect(app, exempt=["/me"])
    for step in steps if order in ("install first", "protect first") else reversed(steps):
        step()
    return add_routes(app, auth)


def cors_of(answer: httpx.Response) -> tuple[str | None, str | None]:
    """Return the allowed origin, and whether credentials are allowed."""
    origin, credentials = (f"access-control-allow-{name}" for name in ("origin", "credentials"))
    return answer.headers.get(origin), answer.headers.get(credentials)


async def ask(client: httpx.AsyncClient, origin: str, path: str = "/models", headers: str = "api-key") -> Any:
    asked = {"Origin": origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": headers}
    return await client.options(path, headers=asked)


@pytest.mark.parametrize("order", ORDERS)
async def test_no_key_changes_what_the_front_end_gets(make_auth: MakeAuth, make_client: MakeClient, order: str) -> None:
    auth = make_auth()
    plain = add_routes(FastAPI(), make_auth())
    add_cors(plain)
    async with auth:
        token = (await auth.keys.create("ada", "server")).token
        await auth.keys.create("mallory", "takes over", allowed_origins=[FRONT])
        client, alone = make_client(build(auth, order)), make_client(plain)
        assert dict((await ask(client, FRONT)).headers) == dict((await ask(alone, FRONT)).headers)
        for path, headers in (("/me", {}), ("/models", {}), ("/models", {"api-key": token})):
            answer = await client.get(path, headers={"Origin": FRONT, **headers})
            assert cors_of(answer) == (FRONT, "true"), path
            assert answer.headers["access-control-expose-headers"] == "X-Request-ID"


@pytest.mark.parametrize("order", ORDERS)
async def test_origins_of_keys_and_of_the_setting_get_no_credentials(
    make_auth: MakeAuth, make_client: MakeClient, order: str
) -> None:
    auth = make_auth(allowed_origins=[PARTNER])
    async with auth:
        shop = (await auth.keys.create("shop", "browser", allowed_origins=[SHOP])).token
        server = (await auth.keys.create("ada", "server")).token
        client = make_client(build(auth, order))
        for origin, token in ((SHOP, shop), (PARTNER, server)):
            preflight = await ask(client, origin)
            assert (preflight.status_code, *cors_of(preflight)) == (204, origin, None)
            assert preflight.headers["access-control-allow-methods"] == "GET"
            assert preflight.headers["access-control-allow-headers"] == "api-key"
            for headers in ({"api-key": token}, {}, {"api-key": "wrong"}):
                answer = await client.get("/models", headers={"Origin": origin, **headers})
                assert cors_of(answer) == (origin, None)
                exposed = answer.headers["access-control-expose-headers"].split(", ")
                assert exposed == ["X-Request-ID", "RateLimit", "RateLimit-Policy", "Retry-After"]
        assert cors_of(await ask(client, EVIL)) == (None, "true")  # CORSMiddleware says so to everybody
        assert cors_of(await client.get("/models", headers={"Origin": EVIL, "api-key": server}))[0] is None


@pytest.mark.parametrize("order", [*ORDERS, "alone"])
async def test_a_tenants_key_opens_no_cookie_route(make_auth: MakeAuth, make_client: MakeClient, order: str) -> None:
    auth = make_auth()
    app = FastAPI() if order == "alone" else build(auth, order)
    if order == "alone":
        auth.install(app)
        add_routes(app, auth)
    async with auth:
        await auth.keys.create("mallory", "mine", allowed_origins=[EVIL])
        client = make_client(app)
        answer = await client.get("/me", headers={"Origin": EVIL, "Cookie": "sid=victim"})
        assert (answer.text, cors_of(answer)[0]) == ('"private data of victim"', None)
        for headers in ("content-type", "x-csrf"):
            preflight = await ask(client, EVIL, "/me", headers)
            assert preflight.status_code == (405 if order == "alone" else 400)
            assert cors_of(preflight)[0] is None


async def test_another_middleware_that_allows_one_origin_does_not_lend_its_credentials(
    make_auth: MakeAuth, make_client: MakeClient
) -> None:
    auth = make_auth(allowed_origins=[SHOP])
    app = FastAPI()
    auth.install(app)
    app.add_middleware(FixedOrigin)
    add_routes(app, auth)
    async with auth:
        client = make_client(app)
        assert cors_of(await client.get("/models", headers={"Origin": SHOP})) == (SHOP, None)
        assert cors_of(await client.get("/models", headers={"Origin": FRONT})) == (FRONT, "true")
        assert cors_of(await client.get("/me", headers={"Origin": SHOP})) == (FRONT, "true")


class Relay:
    """A middleware that stores `send` in an object, as `GZipMiddleware` does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, Sender(send))


class Sender:
    """Object that calls the `send` that it was given."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def __call__(self, message: Message) -> None:
        await self._send(message)


async def call_next(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Pass the request on, as a function that `@app.middleware("http")` decorates."""
    return await call_next(request)


BETWEEN: dict[str, list[Middleware]] = {
    "nothing": [],
    "gzip": [Middleware(GZipMiddleware)],
    "function": [Middleware(BaseHTTPMiddleware, dispatch=call_next)],
    "object": [Middleware(Relay)],
    "all": [Middleware(Relay), Middleware(BaseHTTPMiddleware, dispatch=call_next), Middleware(GZipMiddleware)],
}


def wrap(app: FastAPI, way: str, layers: list[Middleware]) -> ASGIApp:
    """Put middlewares outside of the application's own, the first outermost."""
    if way == "in a parent":
        parent = FastAPI(middleware=layers)
        parent.mount("", app)
        return parent
    outer: ASGIApp = app
    for layer in reversed(layers):
        outer = layer.cls(outer, *layer.args, **layer.kwargs)
    return outer


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("way", ["around", "in a parent"])
async def test_cors_middleware_that_is_out_of_reach_is_not_completed(
    make_auth: MakeAuth, make_client: MakeClient, way: str, between: str
) -> None:
    """It adds `Access-Control-Allow-Credentials` to each response, so none may allow an origin of ours."""
    auth = make_auth(allowed_origins=[SHOP])
    app = FastAPI()
    auth.install(app)
    add_routes(app, auth)
    cors = Middleware(CORSMiddleware, allow_origins=[FRONT], allow_credentials=True, allow_methods=["*"])
    async with auth:
        client = make_client(wrap(app, way, [cors, *BETWEEN[between]]))
        assert cors_of(await client.get("/models", headers={"Origin": SHOP}))[0] is None
        assert cors_of(await client.get("/models", headers={"Origin": FRONT})) == (FRONT, "true")


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("way", ["around", "in a parent"])
async def test_other_middlewares_outside_do_not_hide_responses_from_origins_of_keys(
    make_auth: MakeAuth, make_client: MakeClient, way: str, between: str
) -> None:
    auth = make_auth(allowed_origins=[SHOP])
    app = FastAPI()
    auth.install(app)
    add_cors(app)  # inside of them, so it adds nothing to what we send
    add_routes(app, auth)
    async with auth:
        client = make_client(wrap(app, way, BETWEEN[between]))
        assert cors_of(await client.get("/models", headers={"Origin": SHOP})) == (SHOP, None)


async def test_a_mounted_applications_front_end_keeps_its_preflights(
    make_auth: MakeAuth, make_client: MakeClient
) -> None:
    auth = make_auth(allowed_origins=[SHOP])
    parent, child = FastAPI(), FastAPI()
    for app in (parent, child):
        auth.install(app)
        add_routes(app, auth)
    add_cors(child)
    parent.mount("/v1", child)
    async with auth:
        await auth.keys.create("mallory", "takes over", allowed_origins=[FRONT])
        client = make_client(parent)
        assert cors_of(await ask(client, FRONT, "/v1/models")) == (FRONT, "true")
        assert cors_of(await ask(client, SHOP, "/v1/models")) == (SHOP, None)
        assert cors_of(await ask(client, FRONT)) == (FRONT, None)
        assert cors_of(await client.get("/v1/models", headers={"Origin": SHOP})) == (SHOP, None)


async def test_preflight_behind_protect_needs_a_key_unless_the_application_has_cors_rules(
    make_auth: MakeAuth, make_client: MakeClient
) -> None:
    auth = make_auth(allowed_origins=[SHOP])
    app = auth.protect(FastAPI())
    app.options("/models")(lambda: "in")
    add_routes(app, auth)
    async with auth:
        client = make_client(app)
        assert (await ask(client, SHOP)).status_code == 204
        assert (await ask(client, SHOP, headers="content-type")).status_code == 401
        assert (await ask(client, EVIL)).status_code == 401


async def test_a_route_of_an_included_router_takes_a_key_before_its_dependency_is_called(
    make_auth: MakeAuth, make_client: MakeClient
) -> None:
    auth = make_auth(allowed_origins=[SHOP])
    app = FastAPI()
    auth.install(app)
    router = APIRouter()

    @router.post("/notes")
    async def notes(text: dict[str, str]) -> Response:
        return Response()

    app.include_router(router, prefix="/a", dependencies=[Depends(auth.require_key)])
    app.include_router(router, prefix="/b")
    async with auth:
        client = make_client(app)
        headers = {"Origin": SHOP, "Content-Type": "application/json"}
        for prefix, origin in (("/a", SHOP), ("/b", None)):
            answer = await client.post(f"{prefix}/notes", content=b"{", headers=headers)
            assert (answer.status_code, cors_of(answer)[0]) == (422, origin)


async def test_an_application_that_was_not_started_reports_that_to_browsers_too(
    make_auth: MakeAuth, caplog: pytest.LogCaptureFixture
) -> None:
    auth = make_auth()
    app = FastAPI()
    auth.install(app)
    add_routes(app, auth)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="not started"):
                await ask(client, SHOP)
            with pytest.raises(RuntimeError, match="not started"):
                await client.get("/models", headers={"Origin": SHOP})
    gc.collect()
    assert "never retrieved" not in caplog.text
