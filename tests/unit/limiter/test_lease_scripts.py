"""Leases in Redis: the script and the model of the simulation give the same answers."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost, LimitSet, limit_set
from fastapi_keyauth.domain.limits import hour_limit
from fastapi_keyauth.domain.usage import UsageOf
from fastapi_keyauth.limiter import Decision, LimitCheck, SingleNodeLimiter, Verdict
from fastapi_keyauth.limiter.leases.terms import Grant, Lease, LeaseAsk, Plan
from fastapi_keyauth.limiter.protocol import Policy
from fastapi_keyauth.limiter.redis.leasing import read_grants
from tests.helpers.fuzzing import fuzzed
from tests.helpers.limits import resolved
from tests.helpers.session import Servers
from tests.simulation.authority import Authority

POLICY = Policy(3, 60_000, 120_000)
START_MS = 1_800_000_000_000 - 900
"""Shortly before the end of an hour."""
_numbers = itertools.count()
TWO_TOKENS: Cost = (("requests", 1), ("tokens", 2))


@pytest.fixture(params=["valkey", "redis6"])
def url(request: pytest.FixtureRequest, servers: Servers) -> str:
    return servers.fresh_redis_url(request.param)


class Both:
    """The script in Redis, and the model."""

    def __init__(self, url: str) -> None:
        self.now_ms = START_MS
        self.namespace = f"t{next(_numbers)}"
        self.redis = SingleNodeLimiter(url, POLICY, self.namespace, 10.0, lambda: self.now_ms / 1000, lease_ms=100)
        self.model = Authority()

    async def call(self, questions: list[LimitCheck], plan: Plan) -> tuple[list[Decision], list[Grant]]:
        """Send a call to Redis."""
        reply: Any = await self.redis._take.run(lambda: self.redis._prepare(questions, plan))
        first, last = 5 * len(plan.returned), len(reply) - 5 * len(plan.asks)
        return self.redis._decide(questions, reply[first:last]), read_grants(reply[last:])

    async def take(self, limits: LimitSet, cost: Cost, key_id: str = "k") -> Decision:
        """Ask both about a request; return the answer that both give."""
        question = LimitCheck(key_id, None, limits, cost, "", 0.0, is_fresh=True, owner_id="o")
        (found,), _ = await self.call([question], Plan())
        expected = self.model.take(question, self.now_ms)
        self.generations = found.generation, expected.generation
        assert found.verdict == expected.verdict
        assert found.wait_s == expected.wait_s
        assert list(found.states) == list(expected.states)
        return found

    async def grant(self, limits: LimitSet, cost: Cost, units: int, key_id: str = "k") -> tuple[Lease, Lease] | None:
        """Ask both for a lease."""
        asks = [LeaseAsk(key_id, "o", limits, cost, generation, units) for generation in self.generations]
        _, (found,) = await self.call([], Plan(asks=[asks[0]]))
        expected = self.model.grant(asks[1], 100, self.now_ms)
        assert found[:4] == expected[:4]
        assert list(found.states) == list(expected.states)
        if not found.units:
            return None
        asks[0].epoch = self.redis._epoch
        return Lease(asks[0], found, 0.0, 0.0), Lease(asks[1], expected, 0.0, 0.0)

    async def give_back(self, leases: tuple[Lease, Lease], left: int) -> None:
        """Return a lease to both."""
        for lease in leases:
            lease.left = left
        await self.call([], Plan([leases[0]]))
        self.model.give_back(leases[1], leases[1].used, left, self.now_ms)


LIMITS = st.lists(
    st.builds(
        resolved,
        name=st.sampled_from("abc"),
        limit=st.sampled_from([3, 40, 200]),
        per=st.sampled_from(["second", "minute", "hour", "month", 2]),
        unit=st.sampled_from(["requests", "requests", "tokens"]),
        algorithm=st.sampled_from(["fixed_window", "sliding_window"]),
    ),
    max_size=2,
    unique_by=lambda limit: limit.name,
) | st.sampled_from([[hour_limit(200).model_copy(update={"algorithm": "fixed_window"})]])
COSTS = st.sampled_from([ONE_REQUEST, ONE_REQUEST, TWO_TOKENS, (("requests", 30),)])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "grant", "grant", "return"]),
        COSTS,
        st.integers(0, 20),
        st.sampled_from([0, 0, 0, 1, 20, 49, 50, 60, 100, 151, 900, 3_600_000]),
        st.sampled_from(["k", "k", "k2"]),
    ),
    min_size=5,
    max_size=40,
)


@fuzzed(40)
@given(key=LIMITS, owner=LIMITS, steps=STEPS)
def test_script_and_model_agree(url: str, key: Any, owner: Any, steps: Any) -> None:
    asyncio.run(_compare(url, limit_set(tuple(key), tuple(owner)), steps))


async def _compare(url: str, limits: LimitSet, steps: Any) -> None:
    both = Both(url)
    leases: list[tuple[tuple[Lease, Lease], int]] = []
    try:
        for action, cost, number, passes_ms, key_id in steps:
            both.now_ms += passes_ms
            await both.take(limits, cost, key_id)
            if action == "grant":
                granted = await both.grant(limits, cost, number, key_id)
                if granted is not None:
                    leases.append((granted, granted[0].grant.units))
            elif action == "return" and leases:
                lease, units = leases.pop(number % len(leases))
                await both.give_back(lease, number % (units + 1))
        for key_id in both.model.usage:
            counted = await both.redis.read_usage([UsageOf(key_id, "o", None)], 0)
            assert sum(one.units for one in counted if one.unit == "requests") == both.model.usage[key_id]
    finally:
        await both.redis.close()


async def test_units_on_lease_are_waited_for_then_forfeited(url: str) -> None:
    both, limits = Both(url), limit_set((resolved(limit=32, per="minute"),), ())
    both.now_ms -= both.now_ms % 60_000
    await both.take(limits, (("requests", 0),))
    lease = await both.grant(limits, ONE_REQUEST, 5)
    assert lease is not None
    assert lease[0].grant.units == 2
    assert (await both.take(limits, (("requests", 30),))).verdict is Verdict.ADMITTED
    waiting = await both.take(limits, ONE_REQUEST)
    assert (waiting.verdict, waiting.wait_s) == (Verdict.WAITING, 150)
    assert (await both.take(limits, (("requests", 3),))).verdict is Verdict.LIMITED
    both.now_ms += 149
    assert (await both.take(limits, ONE_REQUEST)).verdict is Verdict.WAITING
    both.now_ms += 1
    assert (await both.take(limits, ONE_REQUEST)).verdict is Verdict.LIMITED
    await both.give_back(lease, 1)  # too late to be waited for, but it was not used
    assert (await both.take(limits, ONE_REQUEST)).verdict is Verdict.ADMITTED
    assert (await both.take(limits, ONE_REQUEST)).verdict is Verdict.LIMITED
    await both.redis.close()


async def test_nothing_returns_to_a_server_that_was_emptied(url: str) -> None:
    both, limits = Both(url), limit_set((resolved(limit=320, per="minute"),), ())
    await both.take(limits, ONE_REQUEST)
    lease = await both.grant(limits, ONE_REQUEST, 19)
    assert lease is not None
    async with both.redis._clients.borrow() as client:
        await client.flushdb()
    both.model = Authority()
    before = await both.take(limits, (("requests", 10),))
    await both.give_back(lease, 19)
    after = await both.take(limits, ONE_REQUEST)
    assert after.states[0] == before.states[0] - 1
    await both.give_back(lease, 17)
    counted = await both.redis.read_usage([UsageOf("k", "o", None)], 0)
    assert [one.units for one in counted] == [10 + 1 + 2]  # what was admitted counts as usage all the same
    await both.redis.close()


async def test_lease_needs_the_generation_of_its_row(url: str) -> None:
    both, limits = Both(url), limit_set((resolved(limit=320, per="minute"),), ())
    await both.take(limits, ONE_REQUEST)
    assert await both.grant(limits, ONE_REQUEST, 5) is not None
    await both.redis.bump_generation("k", "o")
    both.model.bump("k", both.now_ms)
    assert await both.grant(limits, ONE_REQUEST, 5) is None
    await both.redis.close()
