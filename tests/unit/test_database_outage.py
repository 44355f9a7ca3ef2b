"""PostgreSQL killed and restarted: warm keys go on, the rest is told to come back, nothing counts as an attack."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from fastapi_keyauth import KeyAuth, KeyAuthSettings, StoreUnavailable
from fastapi_keyauth.tokens import format_token, new_key_id, new_secret
from tests.servers import Server
from tests.unit.test_freshness import authenticate, make_key


@pytest.fixture
def postgres(start_postgres: Callable[..., Server]) -> Server:
    return start_postgres()


@pytest.fixture
async def auth(postgres: Server, start_valkey: Callable[..., Server]) -> AsyncIterator[KeyAuth]:
    settings = KeyAuthSettings(
        _env_file=None,
        database_url=postgres.url,
        redis_url=start_valkey().url,
        argon2_time_cost=1,
        argon2_memory_kib=8,
        block_after_failures=3,
    )
    async with KeyAuth(settings) as auth:
        yield auth
        if postgres.process.poll() is not None:
            postgres.restart()


async def test_warm_keys_go_on_and_the_rest_recovers_by_itself(auth: KeyAuth, postgres: Server) -> None:
    warm, cold = await make_key(auth), await make_key(auth)
    for _ in range(3):
        await authenticate(auth, warm.token)
    await auth._usage.flush()
    postgres.kill()
    seen = await asyncio.gather(*(authenticate(auth, warm.token) for _ in range(20)))
    assert {principal.id for principal in seen} == {warm.key.id}
    for _ in range(5):  # more than block_after_failures: an outage is no failed attempt
        with pytest.raises(StoreUnavailable):
            await authenticate(auth, cold.token)
        with pytest.raises(StoreUnavailable):
            await authenticate(auth, format_token("ka", "live", new_key_id(), new_secret()))
    for change in (auth.keys.revoke(warm.key.id), auth.keys.get(warm.key.id), auth.keys.create("a", "n")):
        with pytest.raises(StoreUnavailable):
            await change
    postgres.restart()
    assert (await authenticate(auth, cold.token)).id == cold.key.id
    usage = await auth.keys.usage(warm.key.id, hours=2)
    assert sum(hour.admitted for hour in usage) == 23


async def test_connections_come_back_to_the_pool(auth: KeyAuth, postgres: Server) -> None:
    created = await make_key(auth)
    postgres.kill()
    for _ in range(40):
        with pytest.raises(StoreUnavailable):
            await auth.keys.get(created.key.id)
    postgres.restart()
    await asyncio.gather(*(auth.keys.get(created.key.id) for _ in range(40)))
    assert auth._database._engine is not None
    assert auth._database._engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # of the pool that is used here


async def test_mistakes_in_statements_are_not_taken_for_an_outage(auth: KeyAuth) -> None:
    from sqlalchemy import text
    from sqlalchemy.exc import ProgrammingError

    with pytest.raises(ProgrammingError):
        async with auth._database.read() as connection:
            await connection.execute(text("SELECT nonsense FROM nowhere"))
