"""The behavior of every limiter: memory, Valkey 9, Redis 6.2 and a cluster, with a clock that the test moves."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import redis
from redis.asyncio import Redis

from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.limiter import ClusterLimiter, Limiter, MemoryLimiter, SingleNodeLimiter, Verdict, memory
from fastapi_keyauth.limiter.protocol import Charge, Policy
from tests.helpers.limits import question
from tests.helpers.session import Servers

HOUR = 3600
SLIDING = "sliding_window"
START = 500_000 * HOUR + 600  # ten minutes into an hour


class Clock:
    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


MakeLimiter = Callable[..., Limiter]


@pytest.fixture(params=["memory", "valkey", "redis6", "cluster"])
async def make_limiter(request: pytest.FixtureRequest, servers: Servers, clock: Clock) -> AsyncIterator[MakeLimiter]:
    """Build limiters with shared counters: two of them are two workers (in memory there is only one)."""
    url = None
    if request.param == "cluster":
        url = servers.cluster().url
    elif request.param != "memory":
        url = servers.fresh_redis_url(request.param)
    made: list[Limiter] = []

    def make(max_age_s: float = 1.0) -> Limiter:
        policy = Policy(block_after_failures=3, failure_window_ms=60_000, block_for_ms=120_000)
        if url is None:
            if not made:
                made.append(MemoryLimiter(policy, max_age_s, clock))
            return made[0]
        kind = ClusterLimiter if request.param == "cluster" else SingleNodeLimiter
        made.append(kind(url, policy, "t", 5.0, clock))
        return made[-1]

    yield make
    for limiter in made:
        await limiter.close()


class TestLimit:
    async def test_exactly_the_limit_is_admitted_and_later_requests_get_the_time_to_retry(
        self, make_limiter: MakeLimiter
    ) -> None:
        limiter = make_limiter()
        seen = [await limiter.check(question()) for _ in range(7)]
        assert [decision.verdict for decision in seen] == [Verdict.ADMITTED] * 5 + [Verdict.LIMITED] * 2
        assert [decision.remaining for decision in seen] == [4, 3, 2, 1, 0, 0, 0]
        assert {decision.wait_s for decision in seen} == {3000}
        assert {decision.states[2] for decision in seen} == {START - 600 + HOUR}

    async def test_what_a_limiter_decides_without_io_is_charged_once_and_what_it_does_not_is_not(
        self, make_limiter: MakeLimiter
    ) -> None:
        limiter = make_limiter()
        seen = [limiter.try_decide(question()) or await limiter.check(question()) for _ in range(7)]
        assert [decision.verdict for decision in seen] == [Verdict.ADMITTED] * 5 + [Verdict.LIMITED] * 2
        assert [decision.remaining for decision in seen] == [4, 3, 2, 1, 0, 0, 0]

    async def test_concurrent_requests_on_two_workers_share_one_limit(self, make_limiter: MakeLimiter) -> None:
        workers = [make_limiter(), make_limiter()]
        seen = await asyncio.gather(*(workers[i % 2].check(question(limit=50)) for i in range(400)))
        assert sum(decision.verdict is Verdict.ADMITTED for decision in seen) == 50

    async def test_the_next_hour_starts_at_zero(self, make_limiter: MakeLimiter, clock: Clock) -> None:
        limiter = make_limiter()
        for _ in range(5):
            await limiter.check(question())
        clock.now = START + 2999.999
        assert (await limiter.check(question())).verdict is Verdict.LIMITED
        clock.now = START + 3000
        assert (await limiter.check(question())).remaining == 4

    async def test_a_clock_that_goes_back_gives_no_units_back(self, make_limiter: MakeLimiter, clock: Clock) -> None:
        limiter = make_limiter()
        for _ in range(5):
            await limiter.check(question())
        clock.now -= HOUR
        assert (await limiter.check(question())).verdict is Verdict.LIMITED

    async def test_a_check_without_cost_uses_no_unit(self, make_limiter: MakeLimiter) -> None:
        limiter = make_limiter()
        for _ in range(9):
            seen = await limiter.check(question(units=0))
            assert (seen.verdict, seen.wait_s, seen.hour) == (Verdict.ADMITTED, 3000, START // HOUR)
        assert (await limiter.check(question())).remaining == 4

    async def test_a_key_without_a_limit_is_not_counted(self, make_limiter: MakeLimiter) -> None:
        limiter = make_limiter()
        seen = [await limiter.check(question(limit=None)) for _ in range(20)]
        assert {(decision.verdict, decision.remaining) for decision in seen} == {(Verdict.ADMITTED, None)}

    async def test_a_limit_lowered_below_the_used_units_refuses(self, make_limiter: MakeLimiter) -> None:
        limiter = make_limiter()
        for _ in range(5):
            await limiter.check(question())
        decision = await limiter.check(question(limit=2))
        assert (decision.verdict, decision.remaining) == (Verdict.LIMITED, 0)

    async def test_a_named_charge_of_one_unit_is_charged_once(self, make_limiter: MakeLimiter) -> None:
        limiter = make_limiter()
        await limiter.check(question())
        named = question(charge=Charge("name", 60))
        assert [(await limiter.check(named)).remaining for _ in range(3)] == [3, 3, 3]
        assert (await limiter.check(question())).remaining == 2

    async def test_keys_are_counted_separately(self, make_limiter: MakeLimiter) -> None:
        limiter = make_limiter()
        assert (await limiter.check(question("a", limit=1))).verdict is Verdict.ADMITTED
        assert (await limiter.check(question("b", limit=1))).verdict is Verdict.ADMITTED
        assert (await limiter.check(question("a", limit=1))).verdict is Verdict.LIMITED


# The arithmetic of a cluster is that of one server: the same script.
@pytest.mark.parametrize("make_limiter", ["memory", "valkey", "redis6"], indirect=True)
class TestSlidingWindow:
    @pytest.mark.parametrize(("minutes", "admitted"), [(0, 0), (15, 25), (30, 50), (45, 75), (59.99, 99), (60, 100)])
    async def test_the_previous_hour_slides_out(
        self, make_limiter: MakeLimiter, clock: Clock, minutes: float, admitted: int
    ) -> None:
        limiter = make_limiter()
        for _ in range(100):
            await limiter.check(question(limit=100, algorithm=SLIDING))
        clock.now = START + 3000 + minutes * 60
        seen = [await limiter.check(question(limit=100, algorithm=SLIDING)) for _ in range(101)]
        assert sum(decision.verdict is Verdict.ADMITTED for decision in seen) == admitted

    @pytest.mark.parametrize("minutes", [1, 17, 31, 59])
    @pytest.mark.parametrize("limit", [1, 2, 7, 100])
    async def test_retry_after_is_when_one_unit_is_free_and_not_a_second_later(
        self, make_limiter: MakeLimiter, clock: Clock, minutes: int, limit: int
    ) -> None:
        limiter = make_limiter()
        for _ in range(limit):
            await limiter.check(question(limit=limit, algorithm=SLIDING))
        clock.now = START + 3000 + minutes * 60
        while (refused := await limiter.check(question(limit=limit, algorithm=SLIDING))).verdict is Verdict.ADMITTED:
            pass
        clock.now += refused.wait_s - 1.001
        assert (await limiter.check(question(limit=limit, algorithm=SLIDING))).verdict is Verdict.LIMITED
        clock.now += 1.001
        assert (await limiter.check(question(limit=limit, algorithm=SLIDING))).verdict is Verdict.ADMITTED


class TestGeneration:
    async def test_a_row_is_current_until_the_key_changes(self, make_limiter: MakeLimiter) -> None:
        limiter, other = make_limiter(), make_limiter()
        generation = (await limiter.check(question())).generation
        assert (await limiter.check(question(generation=generation, age_s=0.5))).verdict is Verdict.ADMITTED
        await other.bump_generation("k")
        stale = await limiter.check(question(generation=generation, age_s=0.5))
        assert stale.verdict is Verdict.STALE
        assert stale.generation not in ("", generation)
        assert (await limiter.check(question(generation=stale.generation, age_s=0.5))).verdict is Verdict.ADMITTED

    async def test_a_stale_row_uses_no_unit(self, make_limiter: MakeLimiter) -> None:
        limiter = make_limiter()
        await limiter.check(question())
        await limiter.check(question(generation="another", age_s=0.5))
        assert (await limiter.check(question())).remaining == 3

    async def test_an_unproven_row_is_never_current(self, make_limiter: MakeLimiter) -> None:
        limiter = make_limiter()
        assert (await limiter.check(question(generation="", age_s=0.5))).verdict is Verdict.STALE
        assert (await limiter.check(question(generation="", age_s=0.5))).verdict is Verdict.STALE
        assert (await limiter.check(question(generation="-", age_s=0.5))).verdict is Verdict.STALE

    async def test_checking_unknown_keys_stores_nothing(self, make_limiter: MakeLimiter, servers: Servers) -> None:
        limiter = make_limiter()
        seen = [await limiter.check(question(f"k{i}", units=0, age_s=None)) for i in range(50)]
        assert {(decision.verdict, decision.generation) for decision in seen} == {(Verdict.STALE, "")}
        if isinstance(limiter, MemoryLimiter):
            assert not limiter._keys
            assert not limiter._owners
        elif isinstance(limiter, SingleNodeLimiter):
            assert await limiter._control_client.dbsize() == 0
        else:
            assert servers.cluster(emptied=False).names() == set()

    async def test_each_change_gives_a_generation_that_was_never_there(self, make_limiter: MakeLimiter) -> None:
        limiter = make_limiter()
        seen = []
        for _ in range(5):
            seen.append((await limiter.check(question(limit=None))).generation)
            await limiter.bump_generation("k")
        seen.append((await limiter.check(question(limit=None))).generation)
        assert len(set(seen)) == 6
        for generation in seen[:-1]:
            assert (await limiter.check(question(generation=generation, age_s=0.5))).verdict is Verdict.STALE

    async def test_a_key_that_gets_another_owner_changes_with_that_one(self, make_limiter: MakeLimiter) -> None:
        limiter = make_limiter()
        for owner_id in ("former", "present"):
            asked = question(age_s=0.5)._replace(owner_id=owner_id)
            generation = (await limiter.check(asked)).generation
            asked = asked._replace(generation=generation)
            assert (await limiter.check(asked)).verdict is Verdict.ADMITTED
        await limiter.bump_owner_generation("former")
        assert (await limiter.check(asked)).verdict is Verdict.ADMITTED
        await limiter.bump_owner_generation("present")
        assert (await limiter.check(asked)).verdict is Verdict.STALE

    async def test_a_key_changed_before_its_first_check_is_stale_for_old_rows(self, make_limiter: MakeLimiter) -> None:
        limiter = make_limiter()
        await limiter.bump_generation("k")
        assert (await limiter.check(question(generation="", age_s=0.5))).verdict is Verdict.STALE


class TestBlocking:
    async def test_the_failed_attempt_that_reaches_the_limit_blocks_the_address(
        self, make_limiter: MakeLimiter
    ) -> None:
        limiter, other = make_limiter(), make_limiter()
        assert [
            await limiter.record_failure("a"),
            await other.record_failure("a"),
            await limiter.record_failure("a"),
        ] == [None, None, 0]
        assert await limiter.record_failure("a") == 120
        assert await other.record_failure("a") == 120
        decision = await other.check(question(bucket="a"))
        assert (decision.verdict, decision.wait_s) == (Verdict.BLOCKED, 120)
        assert (await other.check(question(bucket="b"))).verdict is Verdict.ADMITTED
        assert (await other.check(question(bucket=None))).verdict is Verdict.ADMITTED

    async def test_concurrent_failed_attempts_are_counted_exactly(self, make_limiter: MakeLimiter) -> None:
        workers = [make_limiter(), make_limiter()]
        seen = await asyncio.gather(*(workers[i % 2].record_failure("a") for i in range(60)))
        assert (seen.count(None), seen.count(0)) == (2, 1)

    async def test_the_window_runs_from_the_first_failure(self, make_limiter: MakeLimiter, clock: Clock) -> None:
        limiter = make_limiter()
        await limiter.record_failure("a")
        clock.now += 59
        await limiter.record_failure("a")
        clock.now += 1  # the first one has expired; counting starts at zero
        assert [await limiter.record_failure("a") for _ in range(3)] == [None, None, 0]
        assert await limiter.record_failure("a") == 120

    async def test_a_block_is_not_extended_and_afterwards_counting_starts_at_zero(
        self, make_limiter: MakeLimiter, clock: Clock
    ) -> None:
        limiter = make_limiter()
        for _ in range(3):
            await limiter.record_failure("a")
        clock.now += 119
        assert await limiter.record_failure("a") == 1
        clock.now += 1
        assert (await limiter.check(question(bucket="a"))).verdict is Verdict.ADMITTED
        assert [await limiter.record_failure("a") for _ in range(3)] == [None, None, 0]
        assert await limiter.record_failure("a") == 120

    async def test_lifting_a_block_says_whether_there_was_one_and_forgets_the_failed_attempts(
        self, make_limiter: MakeLimiter, clock: Clock
    ) -> None:
        limiter = make_limiter()
        for _ in range(3):
            await limiter.record_failure("192.0.2.1")
        assert [await limiter.unblock("192.0.2.1") for _ in range(2)] == [True, False]
        assert (await make_limiter().check(question(bucket="192.0.2.1"))).verdict is Verdict.ADMITTED
        assert [await limiter.record_failure("192.0.2.1") for _ in range(2)] == [None, None]
        assert await limiter.unblock("192.0.2.1") is False
        assert [await limiter.record_failure("192.0.2.1") for _ in range(3)] == [None, None, 0]
        clock.now += 120
        assert await limiter.unblock("192.0.2.1") is False  # the block is over


class TestRedisOnly:
    async def test_one_call_serves_all_waiting_requests_and_cancelled_ones_affect_no_other(
        self, redis_server_url: str, clock: Clock
    ) -> None:
        limiter = SingleNodeLimiter(redis_server_url, Policy(3, 1000, 1000), "t", 5.0, clock)
        admin: Redis = Redis.from_url(redis_server_url)
        await limiter.check(question())
        before = (await admin.info("commandstats"))["cmdstat_evalsha"]["calls"]
        tasks = [asyncio.ensure_future(limiter.check(question(limit=1000))) for _ in range(100)]
        await asyncio.sleep(0)
        for task in tasks[10:20]:
            task.cancel()
        seen = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(answer, asyncio.CancelledError) for answer in seen) == 10
        assert sum(not isinstance(answer, BaseException) for answer in seen) == 90
        after = (await admin.info("commandstats"))["cmdstat_evalsha"]["calls"]
        assert after - before <= 2
        await admin.aclose()
        await limiter.close()

    async def test_everything_in_redis_expires(self, redis_server_url: str) -> None:
        limiter = SingleNodeLimiter(redis_server_url, Policy(3, 60_000, 60_000), "t", 5.0)
        await limiter.check(question())
        await limiter.check(question("n", limit=None))
        await limiter.bump_generation("c")
        for bucket in ("a", "b", "b", "b"):
            await limiter.record_failure(bucket)
        await limiter.probe()
        names = [name async for name in limiter._control_client.scan_iter()]
        assert len(names) >= 5
        assert all([await limiter._control_client.pttl(name) > 0 for name in names])
        await limiter.close()

    async def test_a_counter_that_turns_the_hour_is_kept_for_longer(self, redis_server_url: str, clock: Clock) -> None:
        limiter = SingleNodeLimiter(redis_server_url, Policy(3, 60_000, 60_000), "t", 5.0, clock)
        await limiter.check(question())
        assert await limiter._control_client.expire("t:{k}", 60)
        clock.now += HOUR
        assert (await limiter.check(question())).remaining == 4
        assert await limiter._control_client.ttl("t:{k}") >= HOUR - 600  # until the end of the new window at least
        await limiter.close()

    async def test_failed_attempts_are_bounded_by_maxmemory(self, redis_server_url: str) -> None:
        limiter = SingleNodeLimiter(redis_server_url, Policy(3, 60_000, 60_000), "t", 5.0)
        admin: Redis = Redis.from_url(redis_server_url)
        for bucket in ("known", "nearly", "nearly"):
            await limiter.record_failure(bucket)
        await admin.config_set("maxmemory", 1)
        try:
            for bucket in ("new", "known", "nearly"):
                with pytest.raises(LimiterUnavailable, match="OOM"):
                    await limiter.record_failure(bucket)
        finally:
            await admin.config_set("maxmemory", 0)
        assert await limiter.record_failure("nearly") == 0  # what was refused was not counted
        await admin.aclose()
        await limiter.close()

    async def test_rows_are_read_again_after_a_reconnect(self, redis_server_url: str) -> None:
        limiter = SingleNodeLimiter(redis_server_url, Policy(3, 1000, 1000), "t", 5.0)
        generation = (await limiter.check(question())).generation
        assert (await limiter.check(question(generation=generation, age_s=0.5))).verdict is Verdict.ADMITTED
        admin: Redis = Redis.from_url(redis_server_url)
        await admin.client_kill_filter(_type="normal", skipme=True)
        assert (await limiter.check(question(generation=generation, age_s=0.5))).verdict is Verdict.STALE
        await admin.aclose()
        await limiter.close()

    async def test_forgotten_scripts_are_loaded_again(self, redis_server_url: str) -> None:
        limiter = SingleNodeLimiter(redis_server_url, Policy(3, 1000, 1000), "t", 5.0)
        await limiter.check(question())
        await limiter._control_client.script_flush()
        assert (await limiter.check(question())).remaining == 3
        await limiter.close()

    async def test_the_clock_of_redis_is_used_by_default(self, redis_server_url: str) -> None:
        limiter = SingleNodeLimiter(redis_server_url, Policy(3, 1000, 1000), "t", 5.0)
        seconds, _ = await limiter._control_client.time()
        decision = await limiter.check(question())
        assert decision.hour in (seconds // HOUR, seconds // HOUR + 1)
        assert abs(decision.states[2] - decision.wait_s - seconds) <= 2
        await limiter.close()


async def test_no_cached_row_is_current_if_max_staleness_is_zero_however_coarse_the_clock(clock: Clock) -> None:
    """`max_staleness_s=0`, as in the fallback during an outage: a clock that has not moved makes no row current."""
    limiter = MemoryLimiter(Policy(3, 60_000, 120_000), 0.0, clock)
    generation = (await limiter.check(question())).generation
    assert (await limiter.check(question(generation=generation, age_s=0.0))).verdict is Verdict.STALE


async def test_limiter_in_memory_forgets_the_key_that_was_not_used_for_longest(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MAX_KEYS", 2)
    limiter = MemoryLimiter(Policy(3, 60_000, 120_000), 1.0, clock)
    for key_id in ("a", "b", "a", "c"):
        await limiter.check(question(key_id))
    assert [(await limiter.check(question(key_id))).remaining for key_id in ("a", "b")] == [2, 4]


async def test_a_clock_that_was_a_day_ahead_blocks_for_no_longer_than_the_policy_says(
    make_limiter: MakeLimiter, clock: Clock
) -> None:
    limiter = make_limiter()
    clock.now += 86_400
    for _ in range(3):
        await limiter.record_failure("192.0.2.1")
    await limiter.record_failure("192.0.2.2")
    clock.now -= 86_400
    other = make_limiter()  # a worker that has not met the block yet
    assert await other.blocks() == {"192.0.2.1": 120}
    assert await other.record_failure("192.0.2.1") == 120
    assert [await other.record_failure("192.0.2.2") for _ in range(3)] == [None, None, 0]
    clock.now += 121
    assert await make_limiter().record_failure("192.0.2.1") is None


@pytest.mark.parametrize("make_limiter", ["valkey", "redis6", "cluster"], indirect=True)
@pytest.mark.parametrize("ask", ["failure", "check"])
async def test_block_that_a_clock_ahead_began_is_shortened_once_and_kept_until_its_end(
    make_limiter: MakeLimiter, servers: Servers, clock: Clock, ask: str
) -> None:
    async def blocked_s() -> int | None:
        worker = make_limiter()  # one that has not met the block yet
        if ask == "failure":
            return await worker.record_failure("192.0.2.1")
        decision = await worker.check(question(bucket="192.0.2.1"))
        assert decision.verdict is Verdict.BLOCKED
        return decision.wait_s

    limiter = make_limiter()
    clock.now += 86_400
    for _ in range(3):
        await limiter.record_failure("192.0.2.1")
    clock.now -= 86_400
    with _client_of(limiter, servers) as client:
        (name,) = [name for name in client.scan_iter() if b"192.0.2.1" in name]
        client.pexpire(name, 30_000)
        assert await blocked_s() == 120
        assert client.pttl(name) > 90_000
        clock.now += 60
        assert await blocked_s() == 60


@pytest.mark.parametrize("make_limiter", ["valkey", "redis6"], indirect=True)
async def test_failed_attempts_are_kept_until_their_window_ends_and_a_block_until_its_own_end(
    make_limiter: MakeLimiter, servers: Servers, clock: Clock
) -> None:
    limiter = make_limiter()
    await limiter.record_failure("192.0.2.1")
    with _client_of(limiter, servers) as client:
        (name,) = client.keys()
        assert 50_000 < client.pttl(name) <= 60_000
        clock.now += 20
        await limiter.record_failure("192.0.2.1")
        assert 30_000 < client.pttl(name) <= 40_000
        await limiter.record_failure("192.0.2.1")
        assert 110_000 < client.pttl(name) <= 120_000


_ADDRESS = {"host", "port", "db", "username", "password"}


def _client_of(limiter: Limiter, servers: Servers) -> redis.Redis:
    """Return a client for the server of a limiter that has the entry of 192.0.2.1."""
    if isinstance(limiter, SingleNodeLimiter):
        given = limiter._control_client.connection_pool.connection_kwargs
        return redis.Redis(**{name: given[name] for name in _ADDRESS & given.keys()})
    cluster = servers.cluster(emptied=False)
    (name,) = [name for name in cluster.names() if "192.0.2.1" in name]
    return redis.Redis.from_url(cluster.owner(name).url)
