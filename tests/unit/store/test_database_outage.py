"""Database outages: cached keys work, other requests get a 503 immediately, and no connection leaks."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import NullPool, make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from fastapi_keyauth import KeyAuth, KeyAuthSettings, StoreUnavailable
from fastapi_keyauth.domain.tokens import format_token, new_key_id, new_secret
from fastapi_keyauth.store import database, engine, pool
from fastapi_keyauth.store import postgres as postgres_urls
from fastapi_keyauth.store import usage_buffer as usage
from tests.helpers.keys import authenticate, make_key
from tests.helpers.servers import Server
from tests.helpers.session import Servers
from tests.helpers.waiting import HANG_S, until

POOL = engine.MAX_CONNECTIONS


@pytest.fixture(scope="module")
def server(servers: Servers) -> Iterator[Server]:
    """Yield one server for all tests of this module, since creating one takes longer than most of them."""
    postgres = servers.start("postgres")
    yield postgres
    postgres.close()


@pytest.fixture
def postgres(server: Server) -> Iterator[Server]:
    yield server
    server.cont()
    if server.process.poll() is not None:
        server.restart()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a database that responds more time than in production: a busy machine is not an outage."""
    monkeypatch.setattr(database, "READ_TIMEOUT_S", HANG_S)
    monkeypatch.setattr(postgres_urls, "CONNECT_TIMEOUT_S", HANG_S)


@pytest.fixture
async def auth(postgres: Server, servers: Servers) -> AsyncIterator[KeyAuth]:
    auth = KeyAuth(
        KeyAuthSettings(
            _env_file=None,
            database_url=postgres.url,
            redis_url=servers.fresh_redis_url("valkey"),
            redis_timeout_s=10,  # a busy machine is no outage
            argon2_time_cost=1,
            argon2_memory_kib=8,
            block_after_failures=3,
        )
    )
    async with auth:
        yield auth


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """Return the log lines about the database that start with this text."""
    caplog.set_level(logging.WARNING, "fastapi_keyauth")
    return lambda start: [line for line in caplog.messages if line.startswith(start)]


async def is_admitted(auth: KeyAuth, token: str) -> bool:
    try:
        await authenticate(auth, token)
    except StoreUnavailable:
        return False
    return True


async def refused(auth: KeyAuth, *tokens: str) -> None:
    for token in tokens:
        with pytest.raises(StoreUnavailable):
            await authenticate(auth, token)


async def warm_up(auth: KeyAuth, token: str) -> None:
    for _ in range(3):  # a key that Redis has not seen is read once more, when it has
        await authenticate(auth, token)


@contextlib.contextmanager
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shorten the timeout while the database hangs. Before and afterwards a busy machine is not an outage."""
    with monkeypatch.context() as patch:
        patch.setattr(database, "READ_TIMEOUT_S", 0.5)
        yield


def unknown_token() -> str:
    return format_token("ka", "live", new_key_id(), new_secret())


def engine_of(auth: KeyAuth) -> AsyncEngine:
    assert auth._parts.database._engine is not None
    return auth._parts.database._engine


def pool_of(auth: KeyAuth) -> Any:
    return engine_of(auth).pool


async def connections_at(server: Server) -> int:
    """Return the number of connections of the server, without the one of this query."""
    async with create_async_engine(server.url, poolclass=NullPool).connect() as connection:
        others = text(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return int((await connection.execute(others)).scalar_one())


async def assert_nothing_leaked(auth: KeyAuth, server: Server) -> None:
    """Check that no connection is in use or lost, and that the server has only those of the pool."""
    pool = pool_of(auth)
    await until(lambda: pool.checkedout() == 0 and not auth._parts.database._reads._running)
    assert pool.checkedin() == pool.size() + pool.overflow() <= engine.POOL_SIZE

    async def is_level() -> bool:
        return bool(await connections_at(server) <= pool.checkedin())  # some places may be empty

    await until(is_level)


async def test_a_database_that_is_killed_and_restarted(
    auth: KeyAuth, postgres: Server, make_client: Callable[..., httpx.AsyncClient], lines: Callable[[str], list[str]]
) -> None:
    app = FastAPI()
    auth.install(app)
    app.include_router(auth.keys_router, prefix="/api-keys")
    app.get("/models", dependencies=[Depends(auth.require_key)])(lambda: 1)
    app.get("/me", dependencies=[Depends(auth.require_session)])(lambda: 1)
    client = make_client(app)
    warm, cold = await make_key(auth), await make_key(auth)
    session = {"authorization": f"Bearer {await auth.sessions.create('alice')}"}
    await warm_up(auth, warm.token)
    await auth._parts.usage.flush()
    postgres.kill()
    seen = await asyncio.gather(*(client.get("/models", headers={"api-key": warm.token}) for _ in range(20)))
    assert {answer.status_code for answer in seen} == {200}
    asked = [
        *(("GET", "/models", {"api-key": token}) for token in [cold.token, unknown_token()] * 3),
        ("GET", "/me", session),
        ("GET", "/api-keys", session),
        ("POST", "/api-keys", session),
        ("DELETE", f"/api-keys/{warm.key.id}", session),
    ]
    for _ in range(2):  # more often than block_after_failures: an outage is no failed attempt
        for method, path, headers in asked:
            answer = await client.request(
                method, path, headers=headers, json={"name": "n"} if method == "POST" else None
            )
            assert (answer.status_code, answer.json()["code"]) == (503, "temporarily_unavailable"), (method, path)
            assert int(answer.headers["retry-after"]) >= 1
    postgres.restart()
    await until(lambda: is_admitted(auth, cold.token))
    assert (await client.get("/me", headers=session)).status_code == 200
    usage = await auth.keys.usage(warm.key.id, hours=2)
    assert sum(hour.admitted for hour in usage) == 23
    assert len(lines("database unavailable (")) == 1
    assert lines("database recovered") == ["database recovered"]
    await assert_nothing_leaked(auth, postgres)


async def test_a_database_that_hangs_and_recovers(
    auth: KeyAuth, postgres: Server, lines: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    warm, cold = await make_key(auth), await make_key(auth)
    session = await auth.sessions.create("alice")
    await warm_up(auth, warm.token)
    # Slow statements, so that they overlap and the pool opens all of its connections.
    await asyncio.gather(*(auth._parts.database.fetch(text("SELECT pg_sleep(0.05)")) for _ in range(POOL)))
    postgres.stop()
    with hurried(monkeypatch):
        first = asyncio.gather(*(is_admitted(auth, token) for token in [cold.token, unknown_token()] * 30))
        assert await is_admitted(auth, warm.token)
        assert not any(await first)
        await until(lambda: auth._parts.database._breaker.is_open)
        began = time.monotonic()
        for _ in range(50):
            await refused(auth, cold.token, unknown_token())
            calls = (
                auth.sessions.resolve(session, None),  # type: ignore[arg-type]  # built-in sessions need no connection
                auth.keys.get(cold.key.id),
                auth.keys.revoke(cold.key.id),
            )
            for call in calls:
                with pytest.raises(StoreUnavailable):
                    await call
        assert time.monotonic() - began < 60  # If each of the 250 calls waited, 125 s would pass.
        assert await is_admitted(auth, warm.token)
    postgres.cont()
    await until(lambda: is_admitted(auth, cold.token))
    assert len(lines("database unavailable (")) == len(lines("database recovered")) == 1
    await assert_nothing_leaked(auth, postgres)


async def test_a_frozen_database_does_not_hold_up_the_stop(
    auth: KeyAuth, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_the_stop(monkeypatch)
    async with asyncio.timeout(20), KeyAuth(auth.settings) as other:
        created = await make_key(other)
        await authenticate(other, created.token)
        postgres.stop()
        with hurried(monkeypatch):
            await refused(other, unknown_token())
            await until(lambda: other._parts.database._breaker.is_open)
    postgres.cont()


def shorten_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "CLOSE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(pool, "LEAVE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(usage, "CLOSE_WAIT_S", 0.5)
    monkeypatch.setattr(usage, "SETTLE_WAIT_S", 0.5)


async def test_a_database_that_freezes_in_the_moment_of_the_stop_does_not_hold_it_up(
    auth: KeyAuth, postgres: Server, lines: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_the_stop(monkeypatch)
    # Without Redis, which would keep the usage until another worker writes it.
    settings = auth.settings.model_copy(update={"redis_url": None})
    async with asyncio.timeout(database.COMMAND_TIMEOUT_S - 1), KeyAuth(settings) as other:
        await authenticate(other, (await make_key(other)).token)
        postgres.stop()
    postgres.cont()
    assert lines("usage of 1 keys is lost")


async def test_tables_that_are_locked_are_an_outage_until_they_are_free(
    auth: KeyAuth, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm, cold = await make_key(auth), await make_key(auth)
    await warm_up(auth, warm.token)
    async with create_async_engine(postgres.url, poolclass=NullPool).begin() as connection:
        await connection.execute(text("LOCK TABLE keyauth_keys IN ACCESS EXCLUSIVE MODE"))
        with hurried(monkeypatch):
            await asyncio.gather(*(refused(auth, cold.token) for _ in range(POOL + 5)))
            await until(lambda: auth._parts.database._breaker.is_open)
            assert await is_admitted(auth, warm.token)
    await until(lambda: is_admitted(auth, cold.token))
    await assert_nothing_leaked(auth, postgres)


@pytest.mark.parametrize(
    "statement", ["SELECT pg_sleep(30)", "DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$"], ids=["slow", "deadlock"]
)
async def test_one_failed_statement_is_not_an_outage(
    auth: KeyAuth, postgres: Server, statement: str, lines: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cold = await make_key(auth)
    with monkeypatch.context() as patch:
        patch.setattr(database, "READ_TIMEOUT_S", 0.2)
        with pytest.raises(StoreUnavailable):
            await auth._parts.database.fetch(text(statement))
    await authenticate(auth, cold.token)
    await until(lambda: bool(lines("database call failed, ")))
    assert not auth._parts.database._breaker.is_open
    await assert_nothing_leaked(auth, postgres)


async def test_management_leaves_connections_to_requests(auth: KeyAuth) -> None:
    cold = await make_key(auth)
    is_over = asyncio.Event()

    async def hold() -> None:
        async with auth._parts.database.read():
            await is_over.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(POOL + 5):
            group.create_task(hold())
        await until(lambda: pool_of(auth).checkedout() == database.MAX_BACKGROUND_CONNECTIONS)
        await authenticate(auth, cold.token)  # while all that hold still do
        is_over.set()


async def test_an_exhausted_pool_is_not_an_outage(
    auth: KeyAuth, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm, cold = await make_key(auth), await make_key(auth)
    await warm_up(auth, warm.token)
    async with contextlib.AsyncExitStack() as taken:
        for _ in range(POOL):
            await taken.enter_async_context(engine_of(auth).connect())
        with hurried(monkeypatch):
            await asyncio.gather(*(refused(auth, token) for token in [cold.token, unknown_token()] * 5))
            assert await is_admitted(auth, warm.token)
            await until(lambda: auth._parts.database._breaker._handling is None)
            assert not auth._parts.database._breaker.is_open
    await authenticate(auth, cold.token)
    await assert_nothing_leaked(auth, postgres)


async def test_a_burst_of_uncached_keys_is_not_an_outage(auth: KeyAuth, lines: Callable[[str], list[str]]) -> None:
    made = [await make_key(auth) for _ in range(3)]
    await asyncio.gather(*(authenticate(auth, key.token) for key in made for _ in range(50)))
    assert not lines("database unavailable (")


async def test_a_cancelled_request_leaves_its_connection_usable(auth: KeyAuth, postgres: Server) -> None:
    await auth._parts.database.fetch(text("SELECT 1"))
    made = pool_of(auth).checkedin()
    tasks = [asyncio.create_task(auth._parts.database.fetch(text("SELECT pg_sleep(30)"))) for _ in range(made)]
    await until(lambda: pool_of(auth).checkedout() == made)
    for task in tasks:
        task.cancel()
    assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*tasks, return_exceptions=True))
    await until(lambda: pool_of(auth).checkedin() == made)
    await assert_nothing_leaked(auth, postgres)


@pytest.mark.parametrize(
    ("take", "give_back"),
    [
        ("REVOKE ALL ON keyauth_keys FROM keyauth_plain", "GRANT ALL ON keyauth_keys TO keyauth_plain"),
        ("ALTER TABLE keyauth_keys RENAME TO gone", "ALTER TABLE gone RENAME TO keyauth_keys"),
        ("ALTER TABLE keyauth_keys RENAME name TO gone", "ALTER TABLE keyauth_keys RENAME gone TO name"),
    ],
    ids=["rights", "table", "column"],
)
async def test_revoked_permissions_and_dropped_tables_are_an_outage(
    auth: KeyAuth, postgres: Server, servers: Servers, take: str, give_back: str
) -> None:
    async def administer(*statements: str) -> None:
        maker = create_async_engine(postgres.url, poolclass=NullPool)
        async with maker.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    role = "CREATE ROLE keyauth_plain LOGIN PASSWORD 'plain'"
    await administer(f"DO $$ BEGIN {role}; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    await administer("GRANT ALL ON ALL TABLES IN SCHEMA public TO keyauth_plain")
    await administer("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO keyauth_plain")
    url = make_url(postgres.url).set(username="keyauth_plain", password="plain").render_as_string(hide_password=False)
    settings = auth.settings.model_copy(update={"database_url": url})
    async with KeyAuth(settings) as plain:
        created = await make_key(plain)
        await administer(take)
        try:
            await refused(plain, created.token, unknown_token())
            with pytest.raises(StoreUnavailable):
                await plain.keys.revoke(created.key.id)
        finally:
            await administer(give_back)
        await until(lambda: is_admitted(plain, created.token))


async def test_mistakes_in_statements_are_not_taken_for_an_outage(auth: KeyAuth) -> None:
    with pytest.raises(ProgrammingError):
        async with auth._parts.database.read() as connection:
            await connection.execute(text("SELECT 1 FROM keyauth_keys WHERE"))
    with pytest.raises(ProgrammingError):
        await auth._parts.database.fetch(text("SELECT 1 FROM keyauth_keys WHERE"))
