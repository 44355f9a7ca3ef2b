"""The servers report their versions, can be killed and frozen by outage tests, and leave nothing behind."""

from __future__ import annotations

import os
from collections.abc import Callable

import asyncpg
import httpx
import psutil
import pytest
import redis

from tests.conftest import Stack
from tests.helpers.processes import is_alive
from tests.helpers.servers import Server
from tests.helpers.session import URL_VARIABLES, Kind, Servers
from tests.helpers.workers import Workers


async def hello(scope, receive, send):
    """An application that answers every request with the id of its process."""
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        print("goodbye")
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


def ping(server: Server) -> bool:
    """Return whether the server responds in time."""
    try:
        with redis.Redis.from_url(server.url, socket_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.mark.parametrize(
    ("kind", "version"), [("valkey", "Valkey 9."), ("redis6", "Redis 6.2."), ("postgres", "PostgreSQL 18.")]
)
def test_server_is_the_version_that_it_claims(servers: Servers, kind: Kind, version: str) -> None:
    if URL_VARIABLES[kind] in os.environ:
        pytest.skip("a server was given, of whatever version")
    servers.url(kind)
    assert servers.versions[kind].startswith(version)


async def test_database_is_empty_and_usable(database_url: str) -> None:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE fresh (id INTEGER PRIMARY KEY)"))
    await engine.dispose()


@pytest.mark.parametrize("attempt", [1, 2])
def test_redis_is_empty_for_every_test(redis_server_url: str, attempt: int) -> None:
    with redis.Redis.from_url(redis_server_url) as client:
        assert client.keys() == []
        client.set("left", attempt)


def test_stack_gives_settings_for_its_limiter(stack: Stack) -> None:
    assert set(stack.settings) == {"database_url", "redis_url"}
    assert (stack.settings["redis_url"] is None) == (stack.limiter == "memory")
    assert stack.settings["database_url"].startswith(stack.database)


@pytest.mark.parametrize("starter", ["start_valkey", "start_redis6"])
def test_redis_hangs_resumes_and_restarts_empty_after_a_kill(request: pytest.FixtureRequest, starter: str) -> None:
    server: Server = request.getfixturevalue(starter)()
    with redis.Redis.from_url(server.url) as client:
        client.set("name", "value")
        server.stop()
        assert not ping(server)
        server.cont()
        assert client.get("name") == b"value"
        server.kill()
        assert not ping(server)
        server.restart()
        assert client.get("name") is None


async def test_postgres_restarts_with_its_data_after_a_kill(start_postgres: Callable[..., Server]) -> None:
    server = start_postgres()
    url = server.url.replace("postgresql+asyncpg", "postgresql")
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE kept (id INTEGER)")
    server.stop()
    with pytest.raises(TimeoutError):
        await connection.execute("INSERT INTO kept VALUES (1)", timeout=0.2)
    server.cont()
    await connection.execute("INSERT INTO kept VALUES (2)")
    server.kill()
    connection.terminate()
    with pytest.raises((OSError, asyncpg.PostgresError)):
        await asyncpg.connect(url)
    server.restart()
    connection = await asyncpg.connect(url)
    assert 2 in [row["id"] for row in await connection.fetch("SELECT id FROM kept")]
    await connection.close()


async def test_client_calls_from_the_address_that_it_was_given(make_client: Callable[..., httpx.AsyncClient]) -> None:
    async def whoami(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str((scope.get("client") or [None])[0]).encode()})

    assert (await make_client(whoami).get("/")).text == "203.0.113.7"
    assert (await make_client(whoami, "2001:db8::1").get("/")).text == "2001:db8::1"
    assert (await make_client(whoami, None).get("/")).text == "None"


def test_workers_all_answer_and_all_end(start_workers: Callable[..., Workers]) -> None:
    group = start_workers("tests.test_servers:hello", workers=2)
    children = psutil.Process(group.process.pid).children(recursive=True)
    pids = {int(httpx.get(group.base_url).text) for _ in range(5)}
    assert pids <= {child.pid for child in children}
    group.stop()
    assert group.log().count("goodbye") == 2
    assert not [child for child in children if is_alive(child)]


def test_workers_that_cannot_start_report_the_reason(start_workers: Callable[..., Workers]) -> None:
    with pytest.raises(RuntimeError, match="no_such_attribute"):
        start_workers("tests.test_servers:no_such_attribute", workers=1)
