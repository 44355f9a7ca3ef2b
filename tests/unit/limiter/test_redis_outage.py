"""Outages of a real Redis server: requests wait only briefly, revoked keys stay revoked, and workers recover."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from fastapi_keyauth import (
    ChangePending,
    ExpiredApiKey,
    KeyAuth,
    KeyAuthSettings,
    LimiterUnavailable,
    RateLimitExceeded,
    RevokedApiKey,
    SetupError,
    StoreUnavailable,
)
from fastapi_keyauth.limiter import SingleNodeLimiter
from fastapi_keyauth.store import usage_buffer
from tests.helpers.keys import authenticate, make_key
from tests.helpers.redis_outage import build
from tests.helpers.servers import PASSWORD, Server
from tests.helpers.waiting import HANG_S, until


@pytest.fixture
def redis(start_valkey: Callable[..., Server]) -> Server:
    return start_valkey()


def build_script(database_url: str) -> KeyAuth:
    """A KeyAuth without Redis that changes keys, such as a command."""
    return KeyAuth(KeyAuthSettings(_env_file=None, database_url=database_url, argon2_time_cost=1, argon2_memory_kib=8))


@asynccontextmanager
async def outage(redis: Server, how: str) -> AsyncIterator[None]:
    """Make Redis unavailable for the duration of the block. If it was killed, it is empty afterwards."""
    redis.kill() if how == "killed" else redis.stop()
    yield
    redis.restart() if how == "killed" else redis.cont()


@pytest.mark.parametrize("how", ["killed", "hung"])
async def test_with_the_local_policy_requests_are_limited_during_an_outage(
    database_url: str, redis: Server, how: str
) -> None:
    async with build(database_url, redis) as auth:
        created = await auth.keys.create(owner_id="a", name="k", hourly_limit=5)
        await authenticate(auth, created.token)
        async with outage(redis, how):
            seen = await asyncio.gather(*(authenticate(auth, created.token) for _ in range(8)), return_exceptions=True)
            assert sum(isinstance(answer, RateLimitExceeded) for answer in seen) == 3
            assert not [answer for answer in seen if isinstance(answer, Exception)][3:]
        await until(lambda: _is_recovered(auth))
        if how == "hung":  # what was counted before is still there
            assert (await authenticate(auth, created.token)).remaining == 3
        else:
            assert (await authenticate(auth, created.token)).remaining == 4


@pytest.mark.parametrize("how", ["killed", "hung"])
async def test_a_hold_that_redis_charged_cannot_be_settled_during_an_outage_and_can_be_afterwards(
    database_url: str, redis: Server, how: str
) -> None:
    async with build(database_url, redis) as auth:
        created = await auth.keys.create(owner_id="a", name="k", hourly_limit=100)
        key = await authenticate(auth, created.token)
        hold = await auth.reserve(key, requests=50)
        async with outage(redis, how):
            for _ in range(2):  # the call that finds the outage, and one during it
                with pytest.raises(LimiterUnavailable):
                    await hold.settle(requests=10)
            local = await auth.reserve(key, requests=20)
            await local.settle(requests=1)
            assert (await authenticate(auth, created.token)).remaining == 98
        await until(lambda: _is_recovered(auth))
        await hold.settle(requests=10)
        assert hold.is_settled
        assert (await authenticate(auth, created.token)).remaining == (88 if how == "hung" else 99)


async def _is_recovered(auth: KeyAuth) -> bool:
    try:
        await auth._parts.limiter.bump_generation("unknown-key1")
    except LimiterUnavailable:
        return False
    return True


@pytest.mark.parametrize("how", ["killed", "hung"])
async def test_a_change_during_an_outage_is_pending_and_takes_effect(
    database_url: str, redis: Server, how: str
) -> None:
    async with build(database_url, redis) as here, build(database_url, redis) as there:
        created = await make_key(here)
        for _ in range(3):
            await authenticate(there, created.token)
        async with outage(redis, how):
            with pytest.raises(ChangePending):
                await here.keys.revoke(created.key.id)
            with pytest.raises(RevokedApiKey):
                await authenticate(there, created.token)
            with pytest.raises(RevokedApiKey):
                await authenticate(here, created.token)
        await until(lambda: _is_recovered(there))
        await until(lambda: _is_recovered(here))
        await there._parts.outbox.drain()
        for auth in (here, there):
            with pytest.raises(RevokedApiKey):
                await authenticate(auth, created.token)


async def test_with_the_deny_policy_requests_are_refused_until_redis_recovers(database_url: str, redis: Server) -> None:
    async with build(database_url, redis, on_limiter_outage="deny") as auth:
        created = await make_key(auth)
        async with outage(redis, "killed"):
            with pytest.raises(LimiterUnavailable):
                await authenticate(auth, created.token)
        await until(lambda: _is_recovered(auth))
        assert (await authenticate(auth, created.token)).id == created.key.id


async def test_rows_are_read_again_after_redis_restarted_empty(database_url: str, redis: Server) -> None:
    """A change whose generation was lost with the memory of Redis still takes effect."""
    async with build(database_url, redis) as here, build(database_url, redis) as there:
        created = await make_key(here)
        for _ in range(3):
            await authenticate(there, created.token)
        await here.keys.revoke(created.key.id)
        redis.kill()
        redis.restart()
        with pytest.raises(RevokedApiKey):
            await authenticate(there, created.token)


async def test_a_database_that_does_not_respond_at_startup_is_reported_in_one_sentence() -> None:
    url = "postgresql+asyncpg://keyauth:hunter2@127.0.0.1:1/keyauth"
    with pytest.raises(SetupError, match=r"^The database at .* does not answer \(.+\)\.$") as failure:
        async with KeyAuth(KeyAuthSettings(_env_file=None, database_url=url)):
            pass
    assert "hunter2" not in str(failure.value)


@pytest.mark.parametrize("overlap_s", [0, 3600])
async def test_a_rotation_during_the_outage_loses_no_token(database_url: str, redis: Server, overlap_s: int) -> None:
    async with build(database_url, redis) as auth:
        created = await make_key(auth)
        redis.kill()
        if overlap_s:
            token = (await auth.keys.rotate(created.key.id, timedelta(seconds=overlap_s))).token
            assert (await authenticate(auth, created.token)).id == created.key.id
        else:
            with pytest.raises(ChangePending) as pending:
                await auth.keys.rotate(created.key.id, timedelta(0))
            assert pending.value.token is not None
            token = pending.value.token
            assert token not in repr(pending.value) + str(pending.value)
            with pytest.raises(ExpiredApiKey):
                await authenticate(auth, created.token)
        assert (await authenticate(auth, token)).id == created.key.id


async def test_a_change_without_redis_reaches_workers_with_redis(database_url: str, redis: Server) -> None:
    async with build(database_url, redis) as worker:
        created = await make_key(worker)
        for _ in range(3):
            await authenticate(worker, created.token)
        async with build_script(database_url) as script:
            await script.keys.revoke(created.key.id)
        await worker._parts.outbox.drain()
        with pytest.raises(RevokedApiKey):
            await authenticate(worker, created.token)


async def test_a_change_without_redis_waits_for_workers_that_do_not_reach_the_database(
    database_url: str, redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with build(database_url, redis) as worker:
        created = await make_key(worker)
        for _ in range(3):
            await authenticate(worker, created.token)
        with monkeypatch.context() as patch:
            patch.setattr(worker._parts.pending_changes, "find", _find_nothing)
            async with build_script(database_url) as script:
                await script.keys.revoke(created.key.id)
                script._parts.outbox._now = lambda: datetime.now(UTC) + timedelta(hours=20)
                await script._parts.outbox.drain()
        await worker._parts.outbox.drain()
        with pytest.raises(RevokedApiKey):
            await authenticate(worker, created.token)


async def test_a_pending_change_without_redis_is_deleted_after_a_day(database_url: str) -> None:
    async with build_script(database_url) as script:
        created = await make_key(script)
        await script.keys.revoke(created.key.id)
        changes = script._parts.pending_changes
        await script._parts.outbox.drain()
        assert len(await changes.find(10)) == 1
        script._parts.outbox._now = lambda: datetime.now(UTC) + timedelta(hours=25)
        await script._parts.outbox.drain()
        assert await changes.find(10) == []


async def _find_nothing(_limit: int) -> list[tuple[int, str]]:
    raise StoreUnavailable


async def test_rows_are_read_again_after_an_outage(database_url: str, redis: Server) -> None:
    """Redis rejects writes for a while, but keeps its connections and generations, so it misses a change."""
    admin: Redis = Redis.from_url(redis.url)
    async with build(database_url, redis) as here, build(database_url, redis) as there:
        created = await make_key(here)
        for _ in range(3):
            await authenticate(there, created.token)
        await admin.replicaof("127.0.0.1", 1)
        with pytest.raises(ChangePending):
            await here.keys.revoke(created.key.id)
        await there._parts.outbox.drain()  # its housekeeping notices the outage, no request does
        assert there._parts.limiter._breaker.is_open  # type: ignore[attr-defined]  # of the FailoverLimiter that it is
        for auth in (here, there):
            auth._parts.outbox.drain = _say_nothing  # type: ignore[method-assign]  # as if it came too late
        await admin.replicaof("NO", "ONE")
        await until(lambda: _is_recovered(there))
        with pytest.raises(RevokedApiKey):
            await authenticate(there, created.token)
    await admin.aclose()


async def _say_nothing() -> None:
    return


async def test_a_change_is_published_even_if_the_database_fails_after_it(
    start_postgres: Callable[..., Server], redis: Server
) -> None:
    postgres = start_postgres()
    admin: Redis = Redis.from_url(redis.url)
    async with build(postgres.url, redis) as here, build(postgres.url, redis) as there:
        created = await make_key(here)
        for _ in range(3):
            await authenticate(there, created.token)
        await admin.replicaof("127.0.0.1", 1)
        with pytest.raises(ChangePending):
            await here.keys.revoke(created.key.id)
        await here._parts.usage.flush()
        await there._parts.usage.flush()
        postgres.kill()
        await admin.replicaof("NO", "ONE")
        await until(lambda: _is_recovered(here))
        await here._parts.outbox.drain()
        with pytest.raises(StoreUnavailable):
            await authenticate(there, created.token)
        postgres.restart()
    await admin.aclose()


async def test_a_bug_in_the_probe_of_redis_does_not_end_probing(
    database_url: str, redis: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with build(database_url, redis) as auth:
        created = await make_key(auth)
        bugs = iter([ZeroDivisionError(), ZeroDivisionError()])
        real = SingleNodeLimiter.probe

        async def probe(limiter: SingleNodeLimiter) -> None:
            for bug in bugs:
                raise bug
            await real(limiter)

        monkeypatch.setattr(SingleNodeLimiter, "probe", probe)
        async with outage(redis, "killed"):
            await authenticate(auth, created.token)

        async def is_back() -> bool:
            return not auth._parts.limiter._breaker.is_open  # type: ignore[attr-defined]  # of the one on Redis

        await until(is_back)
        await auth.keys.revoke(created.key.id)
    assert [record.levelname for record in caplog.records if "redis health check failed" in record.message] == ["ERROR"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_redis_that_is_restored_and_rejects_the_connection_is_logged(
    database_url: str, redis: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with Redis.from_url(redis.url) as admin, build(database_url, redis) as auth:
        created = await make_key(auth)
        await admin.replicaof("127.0.0.1", 1)
        await authenticate(auth, created.token)
        await admin.config_set("requirepass", "another")
        await until(lambda: "redis responds but rejects the connection (AuthenticationError" in caplog.text)
        await admin.replicaof("NO", "ONE")
        await admin.config_set("requirepass", PASSWORD)
        await until(lambda: _is_recovered(auth))
    assert caplog.text.count("redis responds but rejects the connection") == 1
    assert PASSWORD not in caplog.text


async def test_a_stop_closes_everything_despite_errors(database_url: str, redis: Server) -> None:
    auth = build(database_url, redis)
    real = auth._parts.limiter.close

    async def close() -> None:
        await real()
        raise ZeroDivisionError

    auth._parts.limiter.close = close  # type: ignore[method-assign]  # of this one alone
    with pytest.raises(ZeroDivisionError):
        async with auth:
            await make_key(auth)
    assert auth._parts.database._engine is None


async def test_a_stop_while_redis_hangs_writes_what_this_process_counted(
    database_url: str, redis: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The last write waits for Redis until its connections are closed, and for the database only then."""
    monkeypatch.setattr(usage_buffer, "CLOSE_WAIT_S", 0.1)
    monkeypatch.setattr(usage_buffer, "SETTLE_WAIT_S", HANG_S)
    auth = build(database_url, redis, redis_timeout_s=10)
    write = auth._parts.usage._store.write

    async def write_late(*arguments: Any) -> int:
        for _ in range(1000):  # turns of the event loop, in which a stop that does not wait is over
            await asyncio.sleep(0)
        return await write(*arguments)

    async with auth:
        created = await make_key(auth)
        await authenticate(auth, created.token)
        monkeypatch.setattr(auth._parts.usage._store, "write", write_late)
        await auth.keys.revoke(created.key.id)
        with pytest.raises(RevokedApiKey):  # which only this process has counted
            await authenticate(auth, created.token)
        redis.stop()
    redis.cont()
    assert "is lost" not in caplog.text
    async with build_script(database_url).connect() as script:
        written = await script.keys.usage(created.key.id, hours=2)
    assert sum(hour.refused for hour in written) == 1
