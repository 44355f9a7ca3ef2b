"""Leases on a real Redis: few calls, exact limits, and changes that hold once they are answered."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, LimitSet, limit_set
from fastapi_keyauth.domain.limits import hour_limit
from fastapi_keyauth.limiter import Decision, LimitCheck, SingleNodeLimiter, Verdict
from fastapi_keyauth.limiter.leases.addresses import MAX_LEASE_ADDRESSES
from fastapi_keyauth.limiter.leases.terms import LeaseAsk, Plan
from fastapi_keyauth.limiter.protocol import Policy
from fastapi_keyauth.limiter.redis import leasing
from fastapi_keyauth.limiter.redis.base import RedisLimiterBase
from fastapi_keyauth.limiter.redis.cluster import ClusterLimiter
from fastapi_keyauth.limiter.redis.leasing import RETURN_AFTER_S
from fastapi_keyauth.telemetry.counters import Counters
from tests.helpers.limits import resolved
from tests.helpers.session import Servers

POLICY = Policy(3, 60_000, 120_000)
_numbers = itertools.count()


class Worker:
    """A limiter, as one worker uses it for one key."""

    def __init__(self, limiter: RedisLimiterBase, counters: Counters, calls: list[int]) -> None:
        self.limiter = limiter
        self.counters = counters
        self.calls = calls
        """Questions of each call."""
        self.generation = ""

    async def ask(self, limits: LimitSet, bucket: str | None = None, key_id: str = "k") -> Decision:
        """Ask about a request as the authenticator does, reading the row again if it may have changed."""
        question = LimitCheck(key_id, bucket, limits, ONE_REQUEST, self.generation, 1.0, False, "o")
        decision = self.limiter.try_decide(question) or await self.limiter.check(question)
        if decision.verdict is Verdict.STALE:
            self.generation = decision.generation
            decision = await self.limiter.check(question._replace(generation=self.generation, is_fresh=True))
        return decision

    async def admit(self, limits: LimitSet, requests: int, bucket: str | None = None) -> int:
        """Return how many of these requests are admitted, one after another."""
        verdicts = [(await self.ask(limits, bucket)).verdict for _ in range(requests)]
        return verdicts.count(Verdict.ADMITTED)


MakeWorker = Callable[..., Worker]
"""Takes a clock in place of Redis's, in seconds since 1970."""
NOON_S = 1_800_014_400.0


@pytest.fixture(params=["valkey", "cluster"])
async def make_worker(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[MakeWorker]:
    """Yield a factory of limiters on one server, or on one cluster."""
    namespace = f"t{next(_numbers)}"
    kind, url = (
        (ClusterLimiter, servers.cluster().url)
        if request.param == "cluster"
        else (SingleNodeLimiter, servers.fresh_redis_url(request.param))
    )
    async with AsyncExitStack() as closing:

        def make(clock: Callable[[], float] | None = None) -> Worker:
            counters, calls = Counters(), list[int]()
            limiter = kind(
                url,
                POLICY,
                namespace,
                10.0,
                clock,
                answered=lambda questions, _seconds, _error: calls.append(questions),
                lease_ms=100,
                counters=counters,
            )
            closing.push_async_callback(limiter.close)
            return Worker(limiter, counters, calls)

        yield make


HOURLY = limit_set((hour_limit(1_000_000).model_copy(update={"algorithm": "fixed_window"}),), ())


async def test_busy_key_rarely_asks_redis_and_counts_each_request(make_worker: MakeWorker) -> None:
    worker = make_worker()
    remaining = [(await worker.ask(HOURLY, "192.0.2.1")).states[0] for _ in range(500)]
    assert remaining == list(range(999_999, 999_499, -1))
    assert len(worker.calls) < 60
    await worker.limiter.close()
    assert worker.counters.lease_used > 400


async def test_rare_key_is_not_leased(make_worker: MakeWorker) -> None:
    worker = make_worker()
    for number in range(30):
        await worker.ask(HOURLY, key_id=f"k{number}")
    assert worker.counters.leases_granted == 0


async def test_limit_is_used_up_exactly_by_several_workers(make_worker: MakeWorker) -> None:
    workers = [make_worker() for _ in range(3)]
    limits = limit_set((resolved(limit=400),), (resolved(name="all", limit=3000, per="day"),))
    admitted = await asyncio.gather(*(worker.admit(limits, 250) for worker in workers))
    assert sum(admitted) == 400
    assert sum(worker.counters.lease_used for worker in workers) > 20


async def test_changed_key_is_admitted_by_no_lease_once_the_change_is_answered(make_worker: MakeWorker) -> None:
    busy, other = make_worker(), make_worker()
    for bump in (lambda: other.limiter.bump_generation("k", "o"), lambda: other.limiter.bump_owner_generation("o")):
        used = busy.counters.lease_used
        await busy.admit(HOURLY, 50)
        generation = busy.generation
        task = asyncio.ensure_future(bump())
        while not task.done():
            await busy.ask(HOURLY)
            await asyncio.sleep(0)
        await task
        question = LimitCheck("k", None, HOURLY, ONE_REQUEST, generation, 1.0, False, "o")
        decision = busy.limiter.try_decide(question) or await busy.limiter.check(question)
        assert decision.verdict is Verdict.STALE
        assert busy.counters.lease_used > used


async def test_change_waits_as_long_as_the_longest_lease(make_worker: MakeWorker) -> None:
    other = make_worker()
    began_at = time.monotonic()
    await other.limiter.bump_generation("k", "o")
    assert time.monotonic() - began_at >= 0.1
    began_at = time.monotonic()
    await asyncio.gather(*(other.limiter.bump_generation(f"k{number}", "o") for number in range(50)))
    assert time.monotonic() - began_at < 2  # and not 5: they wait together


async def test_process_without_leases_waits_for_those_of_others(make_worker: MakeWorker) -> None:
    busy, script = make_worker(), make_worker()
    script.limiter._lease_ms = 0
    await script.limiter.bump_generation("other", "other")  # connects
    await busy.admit(HOURLY, 20)
    lease_left_s = busy.limiter._leases._book.next_end_s()  # type: ignore[union-attr]  # it has leases
    assert lease_left_s
    began_at = time.monotonic()
    await script.limiter.bump_generation("k", "o")
    assert time.monotonic() - began_at >= lease_left_s


async def test_blocked_address_is_admitted_by_no_lease_once_the_attempt_is_answered(make_worker: MakeWorker) -> None:
    busy, other = make_worker(), make_worker()
    bucket = "192.0.2.7"
    assert await busy.admit(HOURLY, 20, bucket) == 20
    assert busy.counters.lease_used
    for expected in (None, None, 0):
        began_at = time.monotonic()
        assert await other.limiter.record_failure(bucket) == expected
    assert time.monotonic() - began_at >= 0.1
    assert (await busy.ask(HOURLY, bucket)).verdict is Verdict.BLOCKED
    assert await busy.admit(HOURLY, 20, "192.0.2.8") == 20


async def test_busy_key_is_renewed_without_a_question(make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, other = make_worker(), make_worker()
    leases, renewals, remaining = worker.limiter._leases, list[LeaseAsk](), list[int]()
    send = leases._send

    def send_noting(plan: Plan) -> None:
        renewals.extend(plan.asks)
        send(plan)

    monkeypatch.setattr(leases, "_send", send_noting)
    while len(renewals) < 4:
        remaining.append((await worker.ask(HOURLY, "192.0.2.1")).states[0])
        await asyncio.sleep(0)
    truth = range(999_999, 999_999 - len(remaining), -1)
    if isinstance(worker.limiter, ClusterLimiter):  # calls overtake each other: units on their way here look taken
        assert all(said <= left for said, left in zip(remaining, truth, strict=True))
    else:
        assert remaining == list(truth)
    await worker.limiter.close()
    assert (await other.ask(HOURLY)).states[0] == 1_000_000 - len(remaining) - 1
    assert worker.counters.lease_returned == worker.counters.lease_units - worker.counters.lease_used


async def test_one_of_many_addresses_is_blocked_while_leases_are_renewed(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, other = make_worker(), make_worker()
    addresses = [f"192.0.2.{number}" for number in range(MAX_LEASE_ADDRESSES + 2)]
    leases, renewals = busy.limiter._leases, list[LeaseAsk]()
    send = leases._send

    def send_noting(plan: Plan) -> None:
        renewals.extend(plan.asks)
        send(plan)

    async def ask_until(is_over: Callable[[], bool]) -> None:
        for address in itertools.cycle(addresses):
            if is_over():
                return
            await busy.ask(HOURLY, address)
            await asyncio.sleep(0)

    async def ask_until_renewed() -> None:
        count = len(renewals)
        await ask_until(lambda: len(renewals) > count)

    async def block() -> None:
        for _ in range(POLICY.block_after_failures):
            blocked_s = await other.limiter.record_failure(addresses[0])
        assert blocked_s == 0

    monkeypatch.setattr(leases, "_send", send_noting)
    await ask_until_renewed()
    task = asyncio.create_task(block())
    await ask_until(task.done)
    await task
    for _ in range(2):
        verdicts = [(await busy.ask(HOURLY, address)).verdict for address in addresses]
        assert verdicts == [Verdict.BLOCKED, *[Verdict.ADMITTED] * (len(addresses) - 1)]
        await ask_until_renewed()


async def test_timer_leaves_the_return_of_a_lease_to_the_next_request(make_worker: MakeWorker) -> None:
    worker = make_worker()
    while not worker.counters.leases_granted:
        await worker.ask(HOURLY)
    leases = worker.limiter._leases
    assert leases._timer is not None
    fires_in_s = leases._timer.when() - asyncio.get_running_loop().time()
    ends_in_s = leases._book.next_end_s()  # type: ignore[union-attr]  # it has leases
    assert ends_in_s is not None
    assert fires_in_s >= ends_in_s + RETURN_AFTER_S


async def test_unused_units_return_by_themselves_and_when_a_worker_stops(make_worker: MakeWorker) -> None:
    worker, other = make_worker(), make_worker()
    await worker.admit(HOURLY, 7)
    assert worker.counters.lease_units > worker.counters.lease_used
    await asyncio.sleep(0.3)  # real time: the leases of Redis end by its clock
    left = worker.counters
    assert left.lease_returned == left.lease_units - left.lease_used
    assert (await other.ask(HOURLY)).states[0] == 1_000_000 - 8
    await worker.admit(HOURLY, 6)
    await worker.limiter.close()
    assert (await other.ask(HOURLY)).states[0] == 1_000_000 - 15


async def test_reported_number_repeats_once_unused_units_have_returned(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leasing, "lease_clock", lambda: lambda: 0.0)  # a lease ends when this test ends it
    holder, other = make_worker(lambda: NOON_S), make_worker(lambda: NOON_S)
    while not holder.counters.leases_granted:
        left = (await holder.ask(HOURLY)).states[0]
    leased = holder.counters.lease_units
    assert leased > 1
    seen = (await other.ask(HOURLY)).states[0]
    assert seen == left - leased - 1
    holder.limiter.end_leases()  # returned by the next call
    later = [(await holder.ask(HOURLY)).states[0] for _ in range(leased)]
    assert later == list(range(left - 2, seen - 1, -1))
    admitted = 1_000_000 - left + 1 + leased
    await holder.limiter.close()
    assert (await other.ask(HOURLY)).states[0] == 1_000_000 - admitted - 1  # each request was counted once


async def test_number_reported_under_a_lease_is_as_old_as_the_lease(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leasing, "lease_clock", lambda: lambda: 0.0)  # as above
    holder, other = make_worker(lambda: NOON_S), make_worker(lambda: NOON_S)
    while not holder.counters.leases_granted:
        left = (await holder.ask(HOURLY)).states[0]
    await other.admit(HOURLY, 3)
    assert (await holder.ask(HOURLY)).states[0] == left - 1
    holder.limiter.end_leases()
    assert (await holder.ask(HOURLY)).states[0] == left - 5
