"""What is left of limits that several leases of one worker share, on a real Redis: exactly what was not used."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost, LimitSet, limit_set
from fastapi_keyauth.domain.limits import hour_limit
from fastapi_keyauth.domain.usage import UsageOf
from fastapi_keyauth.limiter import Decision, LimitCheck, SingleNodeLimiter, Verdict
from fastapi_keyauth.limiter.protocol import Charge, Policy
from fastapi_keyauth.telemetry.counters import Counters
from tests.helpers.limits import resolved
from tests.helpers.session import Servers

POLICY = Policy(3, 60_000, 120_000)
FIVE: Cost = (("requests", 5),)
_numbers = itertools.count()


class Worker:
    """A limiter, and what it proves of the keys of one owner."""

    def __init__(self, limiter: SingleNodeLimiter, counters: Counters) -> None:
        self.limiter = limiter
        self.counters = counters
        self.generations: dict[str, str] = {}

    async def ask(
        self, limits: LimitSet, cost: Cost = ONE_REQUEST, key_id: str = "k", charge: Charge | None = None
    ) -> Decision:
        """Ask about a request as the authenticator does, and let replies to other calls arrive."""
        await asyncio.sleep(0)
        question = LimitCheck(key_id, None, limits, cost, self.generations.get(key_id, ""), 1.0, False, "o", charge)
        decision = self.limiter.try_decide(question) or await self.limiter.check(question)
        if decision.verdict is Verdict.STALE:
            self.generations[key_id] = decision.generation
            question = question._replace(generation=decision.generation, is_fresh=True)
            decision = await self.limiter.check(question)
        return decision


@pytest.fixture
async def worker(servers: Servers) -> AsyncIterator[Worker]:
    """Yield a worker with leases."""
    counters = Counters()
    limiter = SingleNodeLimiter(
        servers.fresh_redis_url("valkey"), POLICY, f"b{next(_numbers)}", 10.0, lease_ms=100, counters=counters
    )
    yield Worker(limiter, counters)
    await limiter.close()


def fixed(limit: int) -> LimitSet:
    """Return an hourly limit of a key in fixed windows."""
    return limit_set((hour_limit(limit).model_copy(update={"algorithm": "fixed_window"}),), ())


async def test_two_keys_of_one_owner_say_what_is_left_for_both(worker: Worker) -> None:
    limits = limit_set(
        (resolved(name="hour", limit=50_000, per="hour"),), (resolved(name="day", limit=100_000, per="day"),)
    )
    used, said = 0, []
    while worker.counters.lease_used < 400:
        decision = await worker.ask(limits, key_id=f"k{used % 2}")
        used += 1
        said.append((decision.states[0], decision.states[3]))
    assert said == [(50_000 - number // 2 - 1, 100_000 - number - 1) for number in range(used)]


async def test_two_costs_of_one_key_say_what_is_left_for_both(worker: Worker) -> None:
    limits, left, said, truth = fixed(100_000), 100_000, [], []
    for number in itertools.count():
        cost = FIVE if number % 3 == 2 else ONE_REQUEST
        said.append((await worker.ask(limits, cost)).states[0])
        left -= dict(cost)["requests"]
        truth.append(left)
        if worker.counters.lease_used >= 400:
            break
    assert said == truth


async def test_debt_of_a_reservation_is_not_hidden_by_leases(worker: Worker) -> None:
    limits = fixed(1000)
    while not worker.counters.lease_used:
        await worker.ask(limits)
    forty, many = (("requests", 40),), (("requests", 5000),)
    assert (await worker.ask(limits, forty, charge=Charge("c", 60, is_hold=True))).verdict is Verdict.ADMITTED
    await worker.ask(limits, forty, charge=Charge("c", 60, many))
    refused = await worker.ask(limits)
    assert (refused.verdict, refused.states[0]) == (Verdict.LIMITED, 0)


async def test_settlement_of_a_key_without_limits_counts_as_usage(worker: Worker) -> None:
    limits, tokens = limit_set((), ()), (("tokens", 100),)
    await worker.ask(limits, tokens, charge=Charge("c", 60, is_hold=True))
    await worker.ask(limits, tokens, charge=Charge("c", 60, (("tokens", 30),)))
    counted = await worker.limiter.read_usage([UsageOf("k", "o", None)], 0)
    assert [(one.unit, one.units) for one in counted] == [("tokens", 30)]
