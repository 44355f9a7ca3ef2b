"""Requests leave no reference cycles: only the garbage collector frees those, and it stops the process meanwhile."""

import gc
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Request, Security
from starlette.types import Receive, Scope, Send

from fastapi_keyauth import KeyAuth, KeyPrincipal
from fastapi_keyauth.domain.tokens import format_token, new_key_id
from fastapi_keyauth.testing import cheap_settings
from tests.helpers.asgi import HeaderLines, call

REQUESTS = 20


@pytest.fixture
async def auth() -> AsyncIterator[KeyAuth]:
    # An old row is read again by SQLAlchemy, which does leave cycles.
    auth = KeyAuth(cheap_settings(max_staleness_s=60, block_after_failures=1000), telemetry=False)
    async with auth:
        yield auth


async def find_cyclic_objects(app: FastAPI, path: str, headers: HeaderLines, status: int) -> list[object]:
    """Return our objects that a number of requests left in cycles. SQLAlchemy leaves its own beside them."""
    for _ in range(3):  # caches are filled
        assert (await call(app, path, headers=headers)).status == status
    gc.collect(1)  # what is older than the requests below need not be looked at
    gc.disable()
    try:
        for _ in range(REQUESTS):
            await call(app, path, headers=headers)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect(0)
        return [
            thing for thing in gc.garbage if (getattr(thing, "__module__", None) or "").startswith("fastapi_keyauth")
        ]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("is_protected", [False, True], ids=["dependency", "protect"])
@pytest.mark.parametrize(
    ("path", "case", "status"),
    [
        ("/open", "admitted", 200),
        ("/scoped", "admitted", 403),
        ("/open", "missing", 401),
        ("/open", "malformed", 401),
        ("/open", "unknown", 401),
        ("/open", "revoked", 401),
        ("/open", "disabled", 401),
        ("/open", "limited", 429),
        ("/session", "admitted", 401),
        ("/session", "wrong session", 401),
    ],
)
async def test_requests_leave_no_reference_cycles(
    auth: KeyAuth, path: str, case: str, status: int, is_protected: bool
) -> None:
    app = FastAPI()
    if is_protected:
        auth.protect(app)
    auth.install(app)

    @app.get("/open")
    async def read(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> str:
        return key.id

    @app.get("/scoped")
    async def read_scoped(key: Annotated[KeyPrincipal, Security(auth.require_key, scopes=["write"])]) -> str:
        return key.id

    @app.get("/session", dependencies=[Depends(auth.require_session)])
    async def read_session() -> str:
        return "session"

    issued = await auth.keys.create("alice", "k", scopes=["read"], hourly_limit=1 if case == "limited" else 1000)
    headers = [(b"api-key", issued.token.encode())]
    match case:
        case "missing":
            headers = []
        case "malformed":
            headers = [(b"api-key", b"x")]
        case "unknown":
            secret = issued.token.split("_")[3][:43]
            headers = [(b"api-key", format_token("ka", "live", new_key_id(), secret).encode())]
        case "wrong session":
            headers.append((b"authorization", b"Bearer nobody"))
        case "revoked":
            await auth.keys.revoke(issued.key.id)
        case "disabled":
            await auth.keys.update(issued.key.id, enabled=False)
        case "limited":
            await call(app, path, headers=headers)
    assert not await find_cyclic_objects(app, path, headers, status)


async def test_nothing_of_a_request_stays_in_its_scope(auth: KeyAuth) -> None:
    """Servers keep the scope until the next request of the connection; see ``RequestHandler.close_context``."""
    app = FastAPI()
    auth.install(app)
    scopes: list[Scope] = []
    requests: list[Request] = []

    @app.get("/", dependencies=[Depends(auth.require_key)])
    async def read(request: Request) -> str:
        requests.append(request)
        return auth.session_token(request) or "none"

    async def server(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await app(scope, receive, send)

    issued = await auth.keys.create("alice", "k")
    assert (await call(server, "/", headers=[(b"api-key", issued.token.encode())])).status == 200
    assert [name for name in scopes[0] if name.startswith("fastapi_keyauth")] == []
    with pytest.raises(RuntimeError, match="The request is over"):
        auth.session_token(requests[0])
