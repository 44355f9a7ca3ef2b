"""PostgreSQL behind PgBouncer in transaction mode, and a server whose connection slots are taken."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError
from starlette.requests import HTTPConnection

from fastapi_keyauth import KeyAuth, KeyAuthSettings, StoreUnavailable
from fastapi_keyauth.store import Database, pool, schema
from fastapi_keyauth.store.failures import is_mistake
from tests.helpers.keys import authenticate
from tests.helpers.servers import PASSWORD, Server
from tests.helpers.session import Servers
from tests.helpers.waiting import HANG_S, until

CLIENTS = 12
ANYONE = HTTPConnection({"type": "http"})


@pytest.fixture
def pooled_url(servers: Servers, postgres: Server) -> Iterator[str]:
    bouncer = servers.start_pgbouncer(postgres)
    yield bouncer.url
    bouncer.close()


def make_auth(url: str) -> KeyAuth:
    cheap = {"argon2_time_cost": 1, "argon2_memory_kib": 8}
    return KeyAuth(KeyAuthSettings(_env_file=None, database_url=url, max_staleness_s=0, **cheap))


async def live(auth: KeyAuth) -> None:
    created = await auth.keys.create(owner_id="ada", name="key")
    session = await auth.sessions.create("ada")
    for _ in range(4):
        assert (await authenticate(auth, created.token)).owner_id == "ada"
        assert await auth.sessions.resolve(session, ANYONE) is not None
    await auth.keys.update(created.key.id, name="other", metadata={"a": 1})
    await auth.keys.revoke(created.key.id)
    assert (await auth.keys.get(created.key.id)).status == "revoked"


async def test_everything_works_behind_pgbouncer_also_after_a_restart(
    pooled_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fastapi_keyauth"):
        for _ in range(2):  # the pooler keeps its connections, and with them what a first process left on these
            async with make_auth(pooled_url) as auth:
                await asyncio.gather(*(live(auth) for _ in range(CLIENTS)))
    assert [record.message for record in caplog.records if "failed" in record.message] == []


async def test_no_prepared_statement_stays_on_the_connections_of_a_pooler(pooled_url: str, postgres: Server) -> None:
    async with make_auth(pooled_url) as auth:
        await live(auth)
    connection = await asyncpg.connect(pooled_url.replace("+asyncpg", ""), statement_cache_size=0)
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("parameter", "has_pooler"), [("", False), ("?pgbouncer=true", True), ("?pgbouncer=false", False)]
)
async def test_a_pooler_may_be_named_in_the_url(postgres: Server, parameter: str, has_pooler: bool) -> None:
    database = Database(postgres.url + parameter)
    async with database.opening(), database.read() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        assert (driver._config.statement_cache_size == 0) is has_pooler
    await database.close()


async def test_a_statement_that_another_client_prepared_is_not_reported_as_a_mistake() -> None:
    error = asyncpg.DuplicatePreparedStatementError("it exists")
    assert not is_mistake(ProgrammingError("SELECT 1", {}, error))


@asynccontextmanager
async def limited_role(postgres: Server, slots: int) -> AsyncIterator[str]:
    """Return the URL of a role with a limited number of connections."""
    admin = await asyncpg.connect(postgres.url.replace("+asyncpg", ""))
    await admin.execute(f"CREATE ROLE limited LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT {slots}")
    await admin.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO limited")
    await admin.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO limited")
    try:
        yield postgres.url.replace("//keyauth:", "//limited:")
    finally:
        await admin.execute("DROP OWNED BY limited")
        await admin.execute("DROP ROLE limited")
        await admin.close()


async def test_a_burst_without_a_free_slot_is_not_an_outage(
    postgres: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool, "POOL_TIMEOUT_S", HANG_S)  # Load on the machine must not count as an outage.
    async with make_auth(postgres.url):
        pass
    async with limited_role(postgres, slots=2) as url, make_auth(url) as auth:
        token = (await auth.keys.create(owner_id="ada", name="key")).token
        session = await auth.sessions.create("ada")
        with caplog.at_level(logging.WARNING, "fastapi_keyauth"):
            found = await asyncio.gather(*(auth.sessions.resolve(session, ANYONE) for _ in range(40)))
        assert all(one is not None for one in found)
        assert (await authenticate(auth, token)).owner_id == "ada"
        assert "unavailable" not in caplog.text


async def test_slots_that_stay_full_do_not_open_the_breaker(
    postgres: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool, "POOL_TIMEOUT_S", 0.2)
    async with make_auth(postgres.url):
        pass
    async with limited_role(postgres, slots=1) as url:
        database = Database(url)
        await database.start()
        async with database.read() as held:
            await held.execute(text("SELECT 1"))
            with caplog.at_level(logging.WARNING, "fastapi_keyauth"), pytest.raises(StoreUnavailable):
                async with database.read():
                    pytest.fail("there is one slot")
            await until(lambda: "database call failed" in caplog.text)
        assert "unavailable" not in caplog.text
        async with database.read() as connection:
            assert await connection.run_sync(schema.find_revision) == schema.NEWEST
        await database.close()


async def test_a_changed_column_type_fails_no_read(postgres: Server) -> None:
    async with make_auth(postgres.url) as auth:
        token = (await auth.keys.create(owner_id="ada", name="key")).token
        await authenticate(auth, token)
        admin = await asyncpg.connect(postgres.url.replace("+asyncpg", ""))
        try:
            for type_ in ("TEXT", "VARCHAR(200)"):
                await admin.execute(f"ALTER TABLE keyauth_keys ALTER COLUMN name TYPE {type_}")
                assert (await authenticate(auth, token)).name == "key"
        finally:
            await admin.execute("ALTER TABLE keyauth_keys ALTER COLUMN name TYPE VARCHAR(100)")
            await admin.close()


async def test_a_character_that_the_encoding_lacks_is_an_invalid_value(postgres: Server) -> None:
    admin = await asyncpg.connect(postgres.url.replace("+asyncpg", ""))
    await admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'")
    try:
        async with make_auth(
            make_url(postgres.url).set(database="latin").render_as_string(hide_password=False)
        ) as auth:
            assert (await auth.keys.create(owner_id="ada", name="é")).key.name == "é"
            with pytest.raises(ValueError, match="encoding"):
                await auth.keys.create(owner_id="ada", name="鍵")
            with pytest.raises(ValueError, match="encoding"):
                await auth.keys.list(q="鍵")
    finally:
        await admin.execute("DROP DATABASE latin WITH (FORCE)")
        await admin.close()
