"""A worker that starts while Redis is unavailable begins with an outage; a Redis that rejects it stops the start."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from fastapi_keyauth import (
    AuthEvent,
    ChangePending,
    KeyAuth,
    KeyAuthSettings,
    LimiterUnavailable,
    RateLimitExceeded,
    RevokedApiKey,
    SetupError,
)
from fastapi_keyauth.limiter import LimitCheck, SingleNodeLimiter
from fastapi_keyauth.limiter.redis.base import START_TRIES
from fastapi_keyauth.settings.check_warnings import CheckWarning
from tests.helpers.cutting_proxy import cutting_proxy
from tests.helpers.fakes import listening
from tests.helpers.keys import authenticate, make_key
from tests.helpers.redis_outage import build
from tests.helpers.servers import PASSWORD, RedisServer, Server
from tests.helpers.waiting import until

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
StartValkey = Callable[..., RedisServer]


@pytest.fixture
def redis(start_valkey: StartValkey) -> RedisServer:
    return start_valkey()


async def _is_back(auth: KeyAuth) -> bool:
    return not auth._parts.limiter._breaker.is_open  # type: ignore[attr-defined]  # of the one on Redis


@pytest.mark.parametrize("how", ["killed", "hung"])
async def test_with_the_local_policy_it_limits_by_itself_and_recovers(
    database_url: str, redis: Server, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[str, str | None]] = []

    async def on_event(event: AuthEvent) -> None:
        if event.part is not None:
            seen.append((event.kind, event.part))

    redis.kill() if how == "killed" else redis.stop()
    settings = build(database_url, redis).settings
    async with KeyAuth(settings, on_event=on_event) as auth:
        assert "redis unavailable" in caplog.text
        created = await auth.keys.create(owner_id="a", name="k", hourly_limit=2)
        other = await make_key(auth)
        for _ in range(2):
            await authenticate(auth, created.token)
        with pytest.raises(RateLimitExceeded):
            await authenticate(auth, created.token)
        with pytest.raises(ChangePending):
            await auth.keys.revoke(other.key.id)
        with pytest.raises(RevokedApiKey):
            await authenticate(auth, other.token)
        redis.restart() if how == "killed" else redis.cont()
        await until(lambda: _is_back(auth))
        assert (await authenticate(auth, created.token)).remaining == 1
        with pytest.raises(RevokedApiKey):
            await authenticate(auth, other.token)
    assert seen == [("outage", "redis"), ("recovered", "redis")]


async def test_a_block_of_its_own_is_known_and_can_be_removed(database_url: str, redis: Server) -> None:
    redis.kill()
    async with build(database_url, redis, block_after_failures=1) as auth:
        assert await auth._parts.limiter.record_failure("192.0.2.1") == 0
        assert auth._parts.limiter.known_block_s("192.0.2.1") is not None
        with pytest.raises(LimiterUnavailable):  # what other workers have cannot be lifted now
            await auth.blocks.clear("192.0.2.1")
        assert auth._parts.limiter.known_block_s("192.0.2.1") is None


async def test_with_the_deny_policy_it_refuses_until_redis_is_available(database_url: str, redis: Server) -> None:
    redis.kill()
    async with build(database_url, redis, on_limiter_outage="deny") as auth:
        created = await make_key(auth)
        with pytest.raises(LimiterUnavailable):
            await authenticate(auth, created.token)
        redis.restart()
        await until(lambda: _is_back(auth))
        assert (await authenticate(auth, created.token)).id == created.key.id


async def test_a_server_that_does_not_accept_writes_yet_is_unavailable(database_url: str, redis: Server) -> None:
    async with Redis.from_url(redis.url) as admin:
        await admin.replicaof("127.0.0.1", 1)
        async with build(database_url, redis, on_limiter_outage="deny") as auth:
            created = await make_key(auth)
            with pytest.raises(LimiterUnavailable):
                await authenticate(auth, created.token)
            await admin.replicaof("NO", "ONE")
            await until(lambda: _is_back(auth))
            assert (await authenticate(auth, created.token)).id == created.key.id


async def test_warnings_about_the_server_are_logged_once_it_is_available(
    database_url: str, start_valkey: StartValkey, caplog: pytest.LogCaptureFixture
) -> None:
    redis = start_valkey("--maxmemory-policy", "allkeys-lru", "--maxmemory", "100mb")
    redis.kill()

    def dangers() -> list[str]:
        found = (vars(record) for record in caplog.records if record.levelno == logging.WARNING)
        return [record["reason"] for record in found if record.get("keyauth_event") == "danger"]

    async with build(database_url, redis) as auth:
        assert "redis_evicts" not in dangers()
        for _ in range(2):  # a second outage repeats nothing
            redis.restart()
            await until(lambda: _is_back(auth))
            assert dangers().count("redis_evicts") == 1
            redis.kill()
            await authenticate(auth, (await make_key(auth)).token)


async def test_a_bug_in_the_checks_of_the_server_does_not_prevent_recovery(
    database_url: str, redis: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run_checks(_limiter: SingleNodeLimiter) -> list[CheckWarning]:
        raise ZeroDivisionError

    redis.kill()
    monkeypatch.setattr(SingleNodeLimiter, "run_checks", run_checks)
    async with build(database_url, redis) as auth:
        redis.restart()
        await until(lambda: _is_back(auth))
        await make_key(auth)
    assert [record.levelname for record in caplog.records if "redis health check failed" in record.message] == ["ERROR"]


async def test_it_can_be_stopped_immediately_and_started_again_with_redis(database_url: str, redis: Server) -> None:
    redis.kill()
    auth = KeyAuth(build(database_url, redis).settings, telemetry=False)  # else it counts together with others
    for _ in range(2):
        async with auth:
            pass
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("keyauth")]
    redis.restart()
    async with auth:
        await auth.keys.revoke((await make_key(auth)).key.id)
    counts = auth._parts.observer.metrics.counters
    assert (counts.outages["redis"], counts.recoveries["redis"]) == (1, 1)  # one, over all three starts


async def test_a_question_that_waits_during_a_stop_causes_no_outage(database_url: str, redis: Server) -> None:
    async with build(database_url, redis, on_limiter_outage="deny") as auth:
        redis.stop()
        asked = asyncio.ensure_future(auth._parts.limiter.check(LimitCheck("k", None)))
    with pytest.raises(LimiterUnavailable):
        await asked
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("keyauth")]


@pytest.mark.parametrize(("failures", "is_unavailable"), [(START_TRIES - 1, False), (START_TRIES, True)])
async def test_redis_counts_as_unavailable_at_startup_after_several_probes(
    database_url: str, redis: Server, monkeypatch: pytest.MonkeyPatch, failures: int, is_unavailable: bool
) -> None:
    left = iter(range(failures))

    async def probe(_limiter: SingleNodeLimiter) -> None:
        for _ in left:
            raise LimiterUnavailable("TimeoutError")

    monkeypatch.setattr(SingleNodeLimiter, "probe", probe)
    async with build(database_url, redis) as auth:
        assert await _is_back(auth) is not is_unavailable


def _refused_urls(redis: RedisServer) -> dict[str, str]:
    place = redis.url.partition("@")[2]
    return {
        "another password": f"redis://:hunter2@{place}",
        "no password": f"redis://{place}",
        "a right that requests need": f"redis://api:hunter2@{place}",
        "a database that it does not have": f"{redis.url.rpartition('/')[0]}/99",
    }


@pytest.mark.parametrize(
    "why", ["another password", "no password", "a right that requests need", "a database that it does not have"]
)
async def test_a_server_that_rejects_the_connection_stops_the_start_with_one_sentence(
    database_url: str, redis: RedisServer, why: str
) -> None:
    async with Redis.from_url(redis.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "api", "on", ">hunter2", "~keyauth:*", "+@all", "-hmget")
    url = _refused_urls(redis)[why]
    with pytest.raises(SetupError, match=r"^The Redis server at .* rejects the connection \(.+\)\.$") as failure:
        async with KeyAuth(KeyAuthSettings(_env_file=None, database_url=database_url, redis_url=url)):
            pass
    assert "hunter2" not in str(failure.value)


@pytest.mark.parametrize("is_cluster", [False, True], ids=["single server", "cluster"])
async def test_a_permission_that_charges_need_is_missed_at_startup(
    database_url: str, redis: RedisServer, is_cluster: bool
) -> None:
    async with (
        Redis.from_url(redis.url) as admin,
        cutting_proxy(redis.url.replace(f":{PASSWORD}@", "api:hunter2@"), is_cluster=is_cluster) as proxy,
    ):
        for command in ("hmget", "hset", "get", "set", "expire", "ttl"):
            await admin.execute_command(
                "ACL", "SETUSER", "api", "reset", "on", ">hunter2", "~*", "+@all", f"-{command}"
            )
            await admin.flushdb()
            with pytest.raises(SetupError, match="rejects the connection"):
                async with KeyAuth(KeyAuthSettings(_env_file=None, database_url=database_url, redis_url=proxy.url)):
                    pass


@pytest.mark.parametrize("kind", ["redis", "rediss", "redis+cluster"])
async def test_a_server_of_another_kind_stops_the_start(database_url: str, kind: str) -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with listening(answer) as port:
        url = f"{kind}://127.0.0.1:{port}"
        with pytest.raises(SetupError, match=r"rejects the connection"):
            async with KeyAuth(KeyAuthSettings(_env_file=None, database_url=database_url, redis_url=url)):
                pass
