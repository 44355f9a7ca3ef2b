"""What a browser lets pages of other origins read, with a tenant whose key lists an origin of the tenant's own.

The application has cookie login and a `CORSMiddleware` that allows its front end with credentials. Each host below
`localhost` is a site of its own, so cookies cross sites, as they do on the web.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from playwright.sync_api import Page
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_keyauth import KeyAuth, KeyPrincipal
from fastapi_keyauth.testing import cheap_settings
from tests.dashboard.chromium import Chromium
from tests.dashboard.server import Server

ORDERS = ("install-first", "cors-first", "protect-first", "protect-last", "two-products")
UNREADABLE = "unreadable"

READ = """async ([url, options]) => {
    try {
        const response = await fetch(url, options);
        return [response.status, await response.text(), response.headers.get("ratelimit")];
    } catch (error) {
        return "unreadable";
    }
}"""


class Web:
    """An application in each order of its middlewares, its front end, and a foreign page."""

    def __init__(self, folder: Path) -> None:
        database = f"sqlite+aiosqlite:///{folder / 'web.db'}"
        self.auth = KeyAuth(cheap_settings(database_url=database))
        self.other = KeyAuth(cheap_settings(database_url=database, key_prefix="other", header_name="other-key"))
        self._apps: dict[str, ASGIApp] = {}
        self.cookies: list[str | None] = []
        self.server = Server(self._dispatch, self.auth, self.other)
        self.front, self.evil = self.origin("front"), self.origin("evil")
        self._apps = {order: self._build(order) for order in ORDERS}
        create = self.auth.keys.create
        self.tokens = {
            "server": self.server.run(create("ada", "server")).token,
            "evil": self.server.run(create("mallory", "evil", allowed_origins=[self.evil])).token,
            "front": self.server.run(create("mallory", "front", allowed_origins=[self.front])).token,
        }

    def origin(self, host: str) -> str:
        return f"http://{host}.localhost:{self.server.port}"

    def _build(self, order: str) -> FastAPI:
        app = FastAPI()

        def add_cors() -> None:
            app.add_middleware(
                CORSMiddleware,
                allow_origins=[self.front],
                allow_credentials=True,
                allow_methods=["*"],
                allow_headers=["*"],
            )

        def add_ours() -> None:
            if order.startswith("protect"):
                self.auth.protect(app, exempt=["/login", "/me"])
            else:
                self.auth.install(app)
            if order == "two-products":
                self.other.install(app)

        for step in (add_cors, add_ours) if order in ("cors-first", "protect-last") else (add_ours, add_cors):
            step()
        add_routes(app, self.auth, self.cookies)
        return app

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = dict(scope["headers"])[b"host"].decode().partition(".")[0]
        await self._apps.get(host, HTMLResponse("<!doctype html><link rel=icon href='data:,'>"))(scope, receive, send)


def add_routes(app: FastAPI, auth: KeyAuth, cookies: list[str | None]) -> None:
    """Add cookie login, a cookie route that notes the cookies it was sent, and a key route."""

    @app.get("/login")
    async def log_in() -> Response:
        response = Response("welcome")
        response.set_cookie("sid", "victim", httponly=True, secure=True, samesite="none")
        return response

    @app.get("/me")
    @app.delete("/me")
    async def me(request: Request) -> str:
        cookies.append(request.cookies.get("sid"))
        return f"private data of {cookies[-1]}"

    @app.get("/models")
    async def models(request: Request, key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> str:
        return f"{key.name}, cookie of {request.cookies.get('sid')}"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """The application and the two pages, served."""
    served = Web(tmp_path_factory.mktemp("web"))
    yield served
    served.server.close()


class Pages:
    """A browser whose user is logged in at the application, with a page of the front end and a foreign one."""

    def __init__(self, web: Web, page: Page, order: str) -> None:
        self._web, self._page, self._app = web, page, web.origin(order)
        page.goto(f"{self._app}/login")

    def read(self, origin: str, path: str, credentials: str, key: str | None = None, method: str = "GET") -> Any:
        """Return what a page of this origin reads of a response: status, body and `RateLimit`."""
        if not self._page.url.startswith(origin):
            self._page.goto(origin)
        headers = {} if key is None else {"api-key": key}
        options = {"credentials": credentials, "headers": headers, "method": method}
        return self._page.evaluate(READ, [self._app + path, options])


@pytest.mark.parametrize("order", ORDERS)
def test_a_tenants_page_reads_key_routes_without_cookies_and_nothing_else(
    chromium: Chromium, web: Web, order: str
) -> None:
    page = chromium.tab("foreign pages")
    pages = Pages(web, page, order)
    evil, front, tokens = web.evil, web.front, web.tokens

    assert pages.read(evil, "/models", "omit", tokens["evil"])[:2] == [200, '"evil, cookie of None"']
    assert pages.read(evil, "/models", "omit", tokens["evil"])[2].startswith('"hour";r=')
    status, body, _ = pages.read(evil, "/models", "omit", "undefined")
    assert (status, "malformed_api_key" in body) == (401, True)
    for credentials in ("include", "omit"):
        assert pages.read(evil, "/me", credentials) == UNREADABLE
        assert web.cookies[-1] == ("victim" if credentials == "include" else None)
        assert pages.read(evil, "/me", credentials, method="DELETE") == UNREADABLE
        assert pages.read(evil, "/me", credentials, tokens["evil"]) == UNREADABLE
    assert pages.read(evil, "/models", "include", tokens["evil"]) == UNREADABLE
    assert pages.read(evil, "/models", "include") == UNREADABLE
    assert pages.read(evil, "/models", "omit", tokens["server"]) == UNREADABLE

    for method in ("GET", "DELETE"):
        assert pages.read(front, "/me", "include", method=method)[:2] == [200, '"private data of victim"']
    for name in ("server", "front"):
        assert pages.read(front, "/models", "include", tokens[name])[:2] == [200, f'"{name}, cookie of victim"']
    status, body, _ = pages.read(front, "/models", "include", tokens["evil"])
    assert (status, "origin_not_allowed" in body) == (401, True)
    page.close()
