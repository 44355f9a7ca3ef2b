"""Generations for requests that are running: those that decisions have, in one call for many keys."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter import ClusterLimiter, Limiter, MemoryLimiter, SingleNodeLimiter
from fastapi_keyauth.limiter.protocol import Policy
from tests.helpers.limits import question
from tests.helpers.session import Servers

POLICY = Policy(block_after_failures=3, failure_window_ms=60_000, block_for_ms=120_000)
HOLDERS = [("a1", "ada"), ("b1", "bob"), ("a2", "ada")]

MakeLimiter = Callable[[], Limiter]


@pytest.fixture(params=["memory", "valkey", "redis6", "cluster"])
async def make_limiter(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[MakeLimiter]:
    """Build limiters with shared generations: two of them are two workers (in memory there is only one)."""
    made: list[Limiter] = []
    url = None
    if request.param == "cluster":
        url = servers.cluster().url
    elif request.param != "memory":
        url = servers.fresh_redis_url(request.param)

    def make() -> Limiter:
        if url is None:
            if not made:
                made.append(MemoryLimiter(POLICY, 1.0))
            return made[0]
        kind = ClusterLimiter if request.param == "cluster" else SingleNodeLimiter
        made.append(kind(url, POLICY, "g", 5.0))
        return made[-1]

    yield make
    for limiter in made:
        await limiter.close()


async def _admit(limiter: Limiter) -> list[str]:
    """Admit a request of each holder and return the generations of the decisions."""
    return [(await limiter.check(question(key, owner_id=owner))).generation for key, owner in HOLDERS]


async def test_they_are_those_of_the_decisions(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter()
    admitted = await _admit(limiter)
    assert await limiter.find_generations(HOLDERS) == admitted
    assert await limiter.find_generations(HOLDERS[::-1]) == admitted[::-1]
    assert await limiter.find_generations([]) == []


async def test_a_change_to_a_key_replaces_its_own_on_every_worker(make_limiter: MakeLimiter) -> None:
    limiter, other = make_limiter(), make_limiter()
    admitted = await _admit(limiter)
    await other.bump_generation("a1", "ada")
    found = await limiter.find_generations(HOLDERS)
    assert [new == old for new, old in zip(found, admitted, strict=True)] == [False, True, True]


async def test_a_change_to_an_owner_replaces_those_of_all_its_keys(make_limiter: MakeLimiter) -> None:
    limiter, other = make_limiter(), make_limiter()
    admitted = await _admit(limiter)
    await other.bump_owner_generation("ada")
    found = await limiter.find_generations(HOLDERS)
    assert [new == old for new, old in zip(found, admitted, strict=True)] == [False, True, False]


async def test_many_keys_are_asked_in_batches(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter()
    holders = [(f"key{number}", f"owner{number % 7}") for number in range(1100)]
    await asyncio.gather(*(limiter.check(question(key, owner_id=owner)) for key, owner in holders))
    found = await limiter.find_generations(holders)
    assert found == await limiter.find_generations(holders)
    assert len(set(found)) > 1
    assert "" not in found


class TestRedisOnly:
    async def test_an_expired_hash_gets_a_new_generation_that_expires_too(self, redis_server_url: str) -> None:
        limiter = SingleNodeLimiter(redis_server_url, POLICY, "g", 5.0)
        admitted = await _admit(limiter)
        admin: Redis = Redis.from_url(redis_server_url)
        await admin.flushdb()
        found = await limiter.find_generations(HOLDERS)
        assert not set(found) & set(admitted)
        assert found == await limiter.find_generations(HOLDERS)
        assert all([await admin.ttl(name) > 0 async for name in admin.scan_iter()])
        # A request of such a key is compared with it.
        decision = await limiter.check(question("a1", owner_id="ada", age_s=0.5, generation=found[0]))
        assert decision.verdict.name == "ADMITTED"
        await admin.aclose()
        await limiter.close()

    async def test_a_lost_connection_makes_all_different(self, redis_server_url: str) -> None:
        limiter = SingleNodeLimiter(redis_server_url, POLICY, "g", 5.0)
        admitted = await _admit(limiter)
        admin: Redis = Redis.from_url(redis_server_url)
        await admin.client_kill_filter(_type="normal", skipme=True)
        assert not set(await limiter.find_generations(HOLDERS)) & set(admitted)
        await admin.aclose()
        await limiter.close()

    async def test_a_server_that_may_not_write_proves_nothing(self, redis_server_url: str) -> None:
        limiter = SingleNodeLimiter(redis_server_url, POLICY, "g", 5.0)
        await _admit(limiter)
        admin: Redis = Redis.from_url(redis_server_url)
        await admin.execute_command("REPLICAOF", "127.0.0.1", "1")  # a primary that does not respond
        try:
            with pytest.raises(LimiterUnavailable, match=r"(?i)read.?only"):
                await limiter.find_generations(HOLDERS)
        finally:
            await admin.execute_command("REPLICAOF", "NO", "ONE")
        await admin.aclose()
        await limiter.close()
