"""Requests in flight end cleanly in other people's servers and libraries.

Strawberry and FastMCP are imported by their tests: that takes two seconds, in every process that collects the tests.
"""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import hypercorn.asyncio
import pytest
import websockets
from fastapi import Depends, FastAPI
from fastapi.sse import EventSourceResponse as FastAPIEventSource
from hypercorn.config import Config
from sse_starlette import EventSourceResponse

from fastapi_keyauth import KeyAuth
from tests.helpers.long_running import ENDS_WITHIN_S, Clients, Record, build_long_app, ends
from tests.helpers.served import served
from tests.helpers.stage import MakeAuth
from tests.helpers.waiting import until

STACKS = ("sqlite-memory",)
WITHIN_S = 0.3


@pytest.fixture
async def auth(make_auth: MakeAuth, caplog: pytest.LogCaptureFixture) -> AsyncIterator[KeyAuth]:
    """A started KeyAuth. Nobody logs an error while it is used."""
    caplog.set_level(logging.INFO)
    async with make_auth(end_in_flight_within_s=WITHIN_S) as auth:
        yield auth
    assert [line.getMessage() for line in caplog.records if line.levelno >= logging.ERROR] == []


@asynccontextmanager
async def _served_by_hypercorn(app: Any) -> AsyncIterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listening.detach()}"]  # Hypercorn closes it
    config.errorlog = logging.getLogger("hypercorn.error")
    stop = asyncio.Event()
    serving = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))
    try:
        yield port
    finally:
        stop.set()
        await serving


async def test_hypercorn_logs_no_error(auth: KeyAuth) -> None:
    record = Record()
    app = build_long_app(auth, record)
    async with _served_by_hypercorn(app) as port, Clients(f"http://127.0.0.1:{port}", record) as clients:
        key = await auth.keys.create(owner_id="alice", name="k")
        paths = ("/slow", "/stream", "/events", "/socket")
        tasks = [await clients.open(path, {"api-key": key.token}) for path in paths]
        await auth.keys.revoke(key.key.id)
        slow, stream, events, socket_ = [await ends(task) for task in tasks]
        assert (slow.status, slow.code) == (401, "revoked_api_key")
        assert (stream.is_cut, events.code, socket_.code) == (True, "revoked_api_key", "revoked_api_key")
        assert sorted(record.cancelled) == ["events", "slow", "socket", "stream"]
        await until(lambda: record.released == ["held"] * 4)


@pytest.mark.parametrize("library", ["sse-starlette", "fastapi"])
async def test_event_streams_of_other_libraries_end_with_an_event(auth: KeyAuth, library: str) -> None:
    released: list[str] = []

    async def numbers() -> AsyncIterator[dict[str, str]]:
        try:
            yield {"data": "1"}
            await asyncio.Event().wait()
        finally:
            released.append("numbers")

    app = FastAPI(dependencies=[Depends(auth.require_key)])
    auth.install(app)
    if library == "fastapi":
        app.get("/numbers", response_class=FastAPIEventSource)(numbers)
    else:

        @app.get("/numbers")
        async def events() -> EventSourceResponse:
            return EventSourceResponse(numbers())

    async with served(app, "httptools") as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        key = await auth.keys.create(owner_id="alice", name="k")
        received = b""
        with contextlib.suppress(httpx.RemoteProtocolError):
            async with client.stream("GET", "/numbers", headers={"api-key": key.token}) as response:
                async for part in response.aiter_bytes():
                    if not received:
                        await auth.keys.revoke(key.key.id)
                    received += part
                pytest.fail("the response is complete")
        last = received.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n\n")[-1]
        assert last.startswith(b"event: error\ndata: ")
        assert json.loads(last.removeprefix(b"event: error\ndata: "))["code"] == "revoked_api_key"
        await until(lambda: released == ["numbers"])


async def test_a_graphql_subscription_over_a_websocket_ends(auth: KeyAuth) -> None:
    import strawberry
    from strawberry.fastapi import GraphQLRouter

    released: list[str] = []

    @strawberry.type
    class Query:
        version: str = "1"

    @strawberry.type
    class Subscription:
        @strawberry.subscription
        async def count(self) -> AsyncIterator[int]:
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                released.append("count")

    app = FastAPI()
    auth.install(app)
    schema = strawberry.Schema(Query, subscription=Subscription)
    router: GraphQLRouter[None, None] = GraphQLRouter(schema, dependencies=[Depends(auth.require_key)])
    app.include_router(router, prefix="/graphql")
    key = await auth.keys.create(owner_id="alice", name="k")
    before = asyncio.all_tasks()
    async with (
        served(app, "httptools") as port,
        websockets.connect(
            f"ws://127.0.0.1:{port}/graphql",
            additional_headers={"api-key": key.token},
            subprotocols=[websockets.Subprotocol("graphql-transport-ws")],
        ) as connection,
    ):
        await connection.send(json.dumps({"type": "connection_init"}))
        assert json.loads(await connection.recv())["type"] == "connection_ack"
        query = {"query": "subscription { count }"}
        await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": query}))
        assert json.loads(await connection.recv())["payload"] == {"data": {"count": 1}}
        await auth.keys.revoke(key.key.id)
        async with asyncio.timeout(ENDS_WITHIN_S):
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await connection.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "revoked_api_key")
        await until(lambda: released == ["count"])
    await until(lambda: not {task for task in asyncio.all_tasks() - before if "keyauth" not in task.get_name()})


async def test_calls_to_a_mounted_mcp_server_end(auth: KeyAuth) -> None:
    from fastmcp import Client, FastMCP
    from fastmcp.client.transports import StreamableHttpTransport

    mcp: FastMCP[None] = FastMCP("tools")
    waiting: list[str] = []
    go_on = asyncio.Event()

    @mcp.tool
    async def wait_for(name: str) -> str:
        """Wait."""
        waiting.append(name)
        await go_on.wait()
        return f"{name} done"

    mounted = mcp.http_app(path="/")
    app = FastAPI()
    app.mount("/mcp", mounted)
    auth.protect(app)
    key, other = [await auth.keys.create(owner_id="alice", name=name) for name in ("k", "other")]
    async with mounted.lifespan(mounted), served(app, "httptools") as port:

        async def call(token: str, name: str) -> str:
            transport = StreamableHttpTransport(f"http://127.0.0.1:{port}/mcp/", headers={"api-key": token})
            async with Client(transport) as client:
                result = await client.call_tool("wait_for", {"name": name})
            return str(result.data)

        lost = asyncio.create_task(call(key.token, "lost"))
        kept = asyncio.create_task(call(other.token, "kept"))
        await until(lambda: sorted(waiting) == ["kept", "lost"])
        await auth.keys.revoke(key.key.id)
        async with asyncio.timeout(ENDS_WITHIN_S):
            (failed,) = await asyncio.gather(lost, return_exceptions=True)
        assert isinstance(failed, Exception)
        assert not kept.done()
        go_on.set()
        assert await kept == "kept done"
