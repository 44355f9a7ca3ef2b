"""What Redis has counted reaches closed days once: through killed workers, outages, and a Redis that was emptied."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from fastapi_keyauth import CreatedKey, KeyAuth, KeyAuthSettings, StoreUnavailable
from fastapi_keyauth.keys import usage_closing
from fastapi_keyauth.limiter import FailoverLimiter
from fastapi_keyauth.store.usage_buffer import UsageRecorder
from tests.conftest import CLUSTER_STACK
from tests.helpers.keys import authenticate
from tests.helpers.servers import Server
from tests.helpers.waiting import until

MakeAuth = Callable[..., KeyAuth]
TODAY = date(2026, 11, 10)
CLOSED_WITHIN_S = 60.0  # the lease of a worker that was interrupted lasts half as long
on_redis = pytest.mark.parametrize("stack", ["postgres-valkey", "sqlite-redis6", CLUSTER_STACK], indirect=True)
on_one_redis = pytest.mark.parametrize("stack", ["postgres-valkey"], indirect=True)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC)

    def __call__(self) -> float:
        return self.now.timestamp()

    def to_next_day(self) -> None:
        """Advance to an hour after midnight."""
        tomorrow = self.now.date() + timedelta(days=1)
        self.now = datetime(tomorrow.year, tomorrow.month, tomorrow.day, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def start(make_auth: MakeAuth, clock: Clock) -> AsyncIterator[Callable[..., Any]]:
    """Yield a function that starts a worker."""
    async with AsyncExitStack() as stopping:

        async def started(**settings: Any) -> KeyAuth:
            auth = make_auth(clock=clock, units=["tokens"], **settings)
            await stopping.enter_async_context(auth)
            return auth

        yield started


async def use(auth: KeyAuth, created: CreatedKey, times: int = 1) -> None:
    for _ in range(times):
        await authenticate(auth, created.token)


def kill(auth: KeyAuth) -> None:
    """Have a worker forget what it has not written, as if it had been killed."""
    recorder = auth._parts.usage
    recorder._pending, recorder._units, recorder._touched, recorder._batch = {}, {}, {}, None


async def close_day(auth: KeyAuth, clock: Clock) -> None:
    clock.to_next_day()
    await auth._parts.usage.flush()
    await auth._parts.day_closer.close_due_days()


async def bill(auth: KeyAuth, day: date = TODAY) -> tuple[int, bool]:
    [item] = await auth.usage.report(day, day + timedelta(days=1))
    return item.units["requests"], item.closed


@on_redis
async def test_what_a_killed_worker_left_is_billed(start: Any, clock: Clock) -> None:
    killed, other = await start(), await start()
    keys = [await other.keys.create(owner_id=f"o{number}", name="k") for number in range(3)]
    for number, created in enumerate(keys, 1):
        await use(killed, created, number)
    await use(other, keys[0], 1)
    await other.keys.revoke(keys[1].key.id)
    kill(killed)
    await other._parts.usage.flush()
    assert await bill(other) == (2, False)  # the other worker has used the first key, too
    await close_day(other, clock)
    assert await bill(other) == (7, True)


@on_redis
async def test_a_killed_workers_hours_are_read_by_whoever_uses_the_key_next(start: Any, clock: Clock) -> None:
    killed, other = await start(), await start()
    created = await other.keys.create(owner_id="o", name="k")
    await use(killed, created, 4)
    kill(killed)
    clock.now += timedelta(hours=2)
    await use(other, created)
    assert [hour.admitted for hour in await other.keys.usage(created.key.id, hours=3)] == [4, 0, 1]


@on_redis
async def test_an_erased_owners_units_are_billed(start: Any, clock: Clock) -> None:
    killed, other = await start(), await start()
    created = await other.keys.create(owner_id="ada@example.com", name="k")
    await use(killed, created, 4)
    kill(killed)
    await other.owners.erase("ada@example.com")
    await close_day(other, clock)
    assert await bill(other) == (4, True)


@on_one_redis
async def test_several_workers_close_a_day_together(start: Any, clock: Clock) -> None:
    workers = [await start() for _ in range(3)]
    created = await workers[0].keys.create(owner_id="o", name="k")
    for auth in workers:
        await use(auth, created, 2)
    clock.to_next_day()
    await asyncio.gather(*(auth._parts.day_closer.close_due_days() for auth in workers))
    await until(lambda: _is_closed(workers[0]))
    assert await bill(workers[0]) == (6, True)
    assert len(await workers[0].usage.batches()) == 1


async def _is_closed(auth: KeyAuth) -> bool:
    await auth._parts.day_closer.close_due_days()
    return (await bill(auth))[1]


@on_one_redis
async def test_counts_of_closed_days_leave_redis_and_count_once(start: Any, clock: Clock) -> None:
    auth = await start()
    created = await auth.keys.create(owner_id="o", name="k")
    server: Redis = Redis.from_url(auth.settings.redis_url)
    for _ in range(3):
        await use(auth, created, 2)
        await close_day(auth, clock)
    await use(auth, created)
    await auth._parts.usage.flush()  # knows that the day before is closed now
    clock.now += timedelta(hours=1)
    await use(auth, created)
    await auth._parts.usage.flush()
    fields = await server.hkeys(f"keyauth:ka:{{{created.key.id}}}")
    assert len([field for field in fields if field[:1] == b"u" and field != b"ub"]) == 2
    assert await server.ttl(f"keyauth:ka:{{{created.key.id}}}") > 3 * 86_400 - 60
    assert [await bill(auth, TODAY + timedelta(days=day)) for day in range(3)] == [(2, True)] * 3
    await server.aclose()


@on_one_redis
async def test_a_redis_that_was_emptied_loses_only_what_was_not_written(start: Any, clock: Clock) -> None:
    auth = await start()
    created = await auth.keys.create(owner_id="o", name="k")
    await use(auth, created, 5)
    await auth._parts.usage.flush()
    await use(auth, created, 2)
    async with Redis.from_url(auth.settings.redis_url) as server:
        await server.flushdb()
    await use(auth, created, 3)
    await auth._parts.usage.flush()
    billed, is_closed = await bill(auth)
    # The two that were not written are lost, unless the worker had admitted them from a lease.
    assert 8 <= billed <= 10
    assert not is_closed
    await close_day(auth, clock)
    assert await bill(auth) == (billed, True)


@on_one_redis
async def test_units_of_a_database_outage_are_billed_when_it_ends(
    start: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = await start()
    created = await auth.keys.create(owner_id="o", name="k")
    await use(auth, created, 2)

    async def fail(*_: Any) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as outage:
        for name in ("write", "set_counts"):
            outage.setattr(auth._parts.usage._store, name, fail)
        outage.setattr(auth._parts.day_closer._days, "find_open", fail)
        for _ in range(3):
            await use(auth, created, 2)
            await auth._parts.usage.flush()
            clock.now += timedelta(hours=1)
        clock.to_next_day()
        await use(auth, created)
        with pytest.raises(StoreUnavailable):
            await auth._parts.day_closer.close_due_days()
    await auth._parts.usage.flush()
    assert await bill(auth) == (8, False)
    await auth._parts.day_closer.close_due_days()
    assert await bill(auth) == (8, True)
    assert await bill(auth, TODAY + timedelta(days=1)) == (1, False)


@on_one_redis
async def test_a_lease_that_is_returned_after_its_day_was_closed_is_billed_once(start: Any, clock: Clock) -> None:
    slow, other = await start(lease_ms=1000), await start()
    created = await other.keys.create(owner_id="o", name="k")
    await use(slow, created)
    await slow._parts.usage.flush()
    requests, counters = 4, slow._parts.metrics.counters  # of all tests
    before = counters.leases_granted
    while counters.leases_granted == before:
        await use(slow, created)
        requests += 1
    await use(slow, created, 3)  # of the lease
    clock.to_next_day()
    await other._parts.day_closer.close_due_days()  # before the other worker has returned its lease
    await use(slow, created)  # it now reads the hour before, and all hours
    await slow._parts.usage.flush()
    report = await other.usage.report(TODAY, TODAY + timedelta(days=2))
    assert [item.closed for item in report] == [True, False]
    assert sum(item.units["requests"] for item in report) == requests + 1


def drop_leases(auth: KeyAuth) -> int:
    """Have a worker forget its leases, as if it had been killed. Return the requests that they have admitted."""
    limiter = auth._parts.limiter
    assert isinstance(limiter, FailoverLimiter)
    book = limiter.primary._leases._book
    if book is None:
        return 0
    limiter.primary.end_leases()
    admitted = sum(lease.used for lease in book._ended)
    book._ended.clear()
    return admitted


async def fail_to_write(auth: KeyAuth, monkeypatch: pytest.MonkeyPatch, *, is_written: bool) -> None:
    """Have a worker write its usage, with an error before or after the commit."""
    store = auth._parts.usage._store

    def broken(write: Any) -> Any:
        async def fail(*args: Any) -> None:
            if is_written:
                await write(*args)
            raise StoreUnavailable

        return fail

    with monkeypatch.context() as outage:
        for name in ("write", "set_counts"):
            outage.setattr(store, name, broken(getattr(store, name)))
        await auth._parts.usage.flush()


@pytest.mark.parametrize("seed", [0, 8, 12, 15])
@pytest.mark.parametrize("lease_ms", [0, 1000])
@on_one_redis
async def test_nothing_is_billed_twice_in_a_random_schedule(
    start: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch, lease_ms: int, seed: int
) -> None:
    random_ = random.Random(seed)
    workers = [await start(lease_ms=lease_ms) for _ in range(3)]
    keys = [await workers[0].keys.create(owner_id=f"o{number}", name="k") for number in range(3)]
    used = lost = 0

    async def close_by_two() -> None:
        await asyncio.gather(*(one._parts.day_closer.close_due_days() for one in random_.sample(workers, 2)))

    steps = {"use": 20, "use often": 25, "write": 10, "all write": 5, "fail": 10, "kill": 3, "advance": 6, "close": 10}
    for step in random_.choices(list(steps), list(steps.values()), k=100):
        worker = random_.choice(workers)
        if step.startswith("use"):
            times = 1 if step == "use" else random_.randint(3, 12)
            await use(worker, random_.choice(keys), times)
            used += times
        elif step == "write":
            await worker._parts.usage.flush()
        elif step == "all write":
            await asyncio.gather(*(one._parts.usage.flush() for one in workers), close_by_two())
        elif step == "fail":
            await fail_to_write(worker, monkeypatch, is_written=random_.random() < 0.5)
        elif step == "advance":
            clock.now += timedelta(hours=random_.choice([1, 1, 1, 18] if lease_ms == 0 else [-1, 1, 1, 18]))
        elif step == "close":
            await close_by_two()
        if step == "kill" or (step == "fail" and random_.random() < 0.5):
            lost += drop_leases(worker)
            kill(worker)
    for worker in workers:
        await worker._parts.usage.flush()
    clock.to_next_day()

    async def is_closed() -> bool:
        """Close what is left. Another worker, whose periodic task began with it, may still be closing it."""
        await workers[0]._parts.day_closer.close_due_days()
        past = await workers[0].usage.report(TODAY - timedelta(days=1), clock.now.date())
        return all(item.closed for item in past)

    await until(is_closed, CLOSED_WITHIN_S)
    report = await workers[0].usage.report(TODAY - timedelta(days=1), clock.now.date() + timedelta(days=1))
    billed = sum(item.units["requests"] for item in report)
    # What a lease returns after its hour was closed and deleted from Redis is not billed.
    assert billed == used if lease_ms == 0 else 0 < billed <= used - lost


async def test_a_day_waits_for_a_redis_that_does_not_respond(
    start_valkey: Callable[..., Server], tmp_path: Any, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    redis = start_valkey()
    settings = KeyAuthSettings(
        _env_file=None,
        database_url=f"sqlite+aiosqlite:///{tmp_path}/keyauth.db",
        redis_url=redis.url,
        argon2_memory_kib=8,
        argon2_time_cost=1,
    )
    async with KeyAuth(settings, clock=clock) as auth:
        created = await auth.keys.create(owner_id="o", name="k")
        await use(auth, created, 2)
        await auth._parts.usage.flush()
        redis.stop()
        limiter = auth._parts.limiter
        assert isinstance(limiter, FailoverLimiter)
        await use(auth, created, 3)  # counted by the worker
        clock.to_next_day()
        await auth._parts.usage.flush()
        await auth._parts.day_closer.close_due_days()
        assert await bill(auth) == (5, False)
        assert "is not closed yet" in caplog.text
        redis.cont()
        await until(lambda: not limiter._breaker.is_open)
        await auth._parts.day_closer.close_due_days()
        number, closed = await bill(auth)
        assert closed
        assert number in (5, 6)  # the request that found Redis frozen may be counted by both


async def test_a_worker_that_is_killed_while_it_prepares_a_closing_is_replaced(
    database_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = KeyAuthSettings(_env_file=None, database_url=database_url, argon2_memory_kib=8, argon2_time_cost=1)
    async with KeyAuth(settings, clock=clock) as auth:
        await use(auth, await auth.keys.create(owner_id="o", name="k"))
        await auth._parts.usage.flush()
        clock.to_next_day()
        parts = auth._parts
        store = parts.day_closer._days
        open_days = await store.find_open()
        assert open_days is not None
        now = datetime.now(UTC)
        assert await store.lease(open_days.open_day, now, now + usage_closing.LEASE)  # of a worker that was killed
        await parts.day_closer.close_due_days()
        assert await bill(auth) == (1, False)
        monkeypatch.setattr(parts.day_closer, "_lease_now", lambda: now + usage_closing.LEASE)
        await parts.day_closer.close_due_days()
        assert await bill(auth) == (1, True)


async def test_a_unit_that_is_used_while_counts_are_read_is_read_the_next_time() -> None:
    read: list[Any] = []

    class Store:
        async def set_counts(self, counts: Any, _now: Any) -> None:
            read.extend(counts)

    recorder: Any = None

    async def read_counts(wanted: Any, _forget: int) -> list[Any]:
        if not read:
            recorder._touched[("k", 1)] = "o"  # another request, after Redis has answered
        return list(wanted)

    recorder = UsageRecorder(Store(), read_counts, lambda: 0.0)  # type: ignore[arg-type]  # as much as is needed of it
    recorder._touched[("k", 1)] = "o"
    await recorder.flush()
    await recorder.flush()
    await recorder.flush()
    assert len(read) == 2
