"""Leases in Redis: the script and the model of the simulation give the same answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
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


FREE: Cost = (("requests", 0),)
"""Charges nothing, and shows what is left."""


class TestBounds:
    """Script and model agree to the millisecond and to the unit; each call compares their answers."""

    @pytest.fixture
    async def both(self, url: str) -> AsyncIterator[Both]:
        opened = Both(url)
        yield opened
        await opened.redis.close()

    @pytest.mark.parametrize(("left_ms", "is_granted"), [(102, True), (101, True), (12, True), (11, True), (10, False)])
    @pytest.mark.parametrize("per", ["minute", "hour", None])
    async def test_a_lease_ends_one_millisecond_before_its_window_and_lasts_ten(
        self, both: Both, per: Any, left_ms: int, is_granted: bool
    ) -> None:
        limits = limit_set((resolved(limit=320, per=per),) if per else (), ())
        both.now_ms = START_MS + 900 - left_ms
        await both.take(limits, ONE_REQUEST)
        lease = await both.grant(limits, ONE_REQUEST, 5)
        assert (lease is not None) == is_granted
        if lease is not None:
            assert lease[0].grant.lasts_ms == min(100, left_ms - 1)

    @pytest.mark.parametrize(("used", "cost", "units"), [(0, 1, 3), (1, 1, 2), (16, 1, 2), (17, 1, 1), (33, 1, 0)])
    @pytest.mark.parametrize("of_owner", [False, True])
    async def test_a_lease_gets_a_sixteenth_of_what_is_left(
        self, both: Both, of_owner: bool, used: int, cost: int, units: int
    ) -> None:
        limit = (resolved(limit=48),)
        limits = limit_set((), limit) if of_owner else limit_set(limit, ())
        await both.take(limits, (("requests", used),))
        lease = await both.grant(limits, (("requests", cost),), 9)
        assert (lease[0].grant.units if lease else 0) == units
        await both.take(limits, FREE)

    async def test_what_a_lease_costs_is_what_its_requests_cost(self, both: Both) -> None:
        limits = limit_set(
            (resolved(limit=100), resolved(name="t", unit="tokens", limit=160)),
            (resolved(name="o", limit=90, unit="tokens", per="day"),),
        )
        await both.take(limits, FREE)
        lease = await both.grant(limits, TWO_TOKENS, 9)
        assert lease is not None
        assert lease[0].grant.units == 2
        assert list(lease[0].grant.states[0:9:3]) == [98, 156, 86]
        await both.take(limits, (("requests", 98), ("tokens", 86)))
        assert (await both.take(limits, (("tokens", 4),))).verdict is Verdict.WAITING
        assert (await both.take(limits, (("tokens", 5),))).verdict is Verdict.LIMITED
        assert (await both.take(limits, (("requests", 2), ("tokens", 4)))).verdict is Verdict.WAITING
        assert (await both.take(limits, (("requests", 3), ("tokens", 4)))).verdict is Verdict.LIMITED
        await both.give_back(lease, 1)
        assert (await both.take(limits, (("requests", 1), ("tokens", 2)))).verdict is Verdict.ADMITTED
        assert (await both.take(limits, (("requests", 1),))).verdict is Verdict.LIMITED
        counted = await both.redis.read_usage([UsageOf("k", "o", None)], 0)
        assert {one.unit: one.units for one in counted} == {"requests": 98 + 1 + 1, "tokens": 86 + 2 + 2}

    @pytest.mark.parametrize("of_owner", [False, True])
    async def test_while_a_request_waits_and_shortly_after_nothing_is_leased(self, both: Both, of_owner: bool) -> None:
        limit, other = resolved(limit=32), resolved(name="other", limit=9000)
        limits = limit_set((other,), (limit,)) if of_owner else limit_set((limit,), (other,))
        both.now_ms = START_MS + 900
        await both.take(limits, FREE)
        lease = await both.grant(limits, ONE_REQUEST, 1)
        assert lease is not None
        await both.take(limits, (("requests", 31),))
        both.now_ms += 20
        waiting = await both.take(limits, ONE_REQUEST)
        assert (waiting.verdict, waiting.wait_s) == (Verdict.WAITING, 130)
        await both.give_back(lease, 1)
        other_limits = limit_set(tuple(one for one in limits.key if one.limit == 9000), ())
        for passes_ms, is_granted in [(0, False), (129, False), (100, False), (1, True)]:
            both.now_ms += passes_ms
            await both.take(other_limits, FREE)
            found = await both.grant(other_limits if not of_owner else limit_set((other,), ()), ONE_REQUEST, 1)
            assert (found is not None) == is_granted

    async def test_the_longest_wait_of_several_limits_counts(self, both: Both) -> None:
        key, owner = resolved(limit=32), resolved(name="o", limit=64)
        limits = limit_set((key,), (owner,))
        both.now_ms = START_MS + 900
        await both.take(limits, FREE)
        assert await both.grant(limits, ONE_REQUEST, 1) is not None
        await both.take(limits, FREE, "k2")
        both.now_ms += 30
        assert await both.grant(limits, ONE_REQUEST, 2, "k2") is not None
        await both.take(limits, (("requests", 30),), "k2")
        await both.take(limits, (("requests", 31),))
        assert (await both.take(limits, ONE_REQUEST)).wait_s == 150
        assert (await both.take(limits, ONE_REQUEST, "k2")).wait_s == 150
        both.now_ms += 120
        assert (await both.take(limits, ONE_REQUEST)).verdict is Verdict.LIMITED
        waiting = await both.take(limits, ONE_REQUEST, "k2")  # its own limit is exhausted longer
        assert (waiting.verdict, waiting.wait_s) == (Verdict.WAITING, 30)
        both.now_ms += 30
        assert (await both.take(limits, ONE_REQUEST, "k2")).verdict is Verdict.LIMITED

    async def test_units_of_several_leases_are_added_and_each_returns_its_own(self, both: Both) -> None:
        limits = limit_set((resolved(limit=320), resolved(name="b", limit=400)), (resolved(name="o", limit=330),))
        both.now_ms = START_MS + 900
        await both.take(limits, FREE)
        leases = []
        for units in (3, 4, 5):
            both.now_ms += 10
            await both.take(limits, FREE)
            lease = await both.grant(limits, ONE_REQUEST, units)
            assert lease is not None
            leases.append(lease)
        await both.take(limits, (("requests", 308),))
        assert (await both.take(limits, (("requests", 12),))).verdict is Verdict.WAITING
        assert (await both.take(limits, (("requests", 13),))).verdict is Verdict.LIMITED
        await both.give_back(leases[1], 1)
        assert (await both.take(limits, (("requests", 9),))).verdict is Verdict.WAITING
        assert (await both.take(limits, (("requests", 10),))).verdict is Verdict.LIMITED
        await both.give_back(leases[0], 0)
        await both.give_back(leases[2], 5)
        assert (await both.take(limits, (("requests", 7),))).verdict is Verdict.LIMITED
        assert (await both.take(limits, (("requests", 6),))).verdict is Verdict.ADMITTED
        both.now_ms += 10_000
        assert (await both.take(limits, ONE_REQUEST)).verdict is Verdict.LIMITED

    @pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window"])
    @pytest.mark.parametrize("passes_ms", [1, 2, 500, 1000, 1500, 2000, 2500])
    async def test_units_return_to_the_window_that_they_came_from(
        self, both: Both, algorithm: str, passes_ms: int
    ) -> None:
        limits = limit_set(
            (resolved(limit=80, per="second", algorithm=algorithm), resolved(name="b", limit=170, per="minute")),
            (resolved(name="o", limit=90, per="second", algorithm=algorithm),),
        )
        both.now_ms = START_MS + 900 - 50 - 60_000
        await both.take(limits, (("requests", 10),))
        lease = await both.grant(limits, ONE_REQUEST, 4)
        assert lease is not None
        both.now_ms += 48 + passes_ms
        await both.take(limits, (("requests", 5),))
        for units in (80, 75, 72, 71, 70, 1):
            await both.take(limits, (("requests", units),))
        await both.give_back(lease, 3)
        for units in (80, 76, 72, 2, 1, 0):
            await both.take(limits, (("requests", units),))
        again = await both.grant(limits, ONE_REQUEST, 2)
        await both.take(limits, FREE)
        if again is not None:
            await both.give_back(again, 2)
        await both.take(limits, FREE)

    @pytest.mark.parametrize("back_ms", [900, 901, 949, 950, 999, 1000, 1001, 1050, 1051, 1100, 1149, 1150, 1151, 5000])
    async def test_leases_of_a_clock_that_was_ahead_are_over(self, both: Both, back_ms: int) -> None:
        limits = limit_set((resolved(limit=32),), (resolved(name="o", limit=900),))
        both.now_ms = START_MS + 900 + 600_000
        await both.take(limits, FREE)
        assert await both.grant(limits, ONE_REQUEST, 1) is not None
        await both.take(limits, (("requests", 31),))
        both.now_ms -= back_ms
        await both.take(limits, ONE_REQUEST)
        await both.take(limits, FREE)
        await both.grant(limit_set((), limits.owner), ONE_REQUEST, 1)
        await both.take(limits, ONE_REQUEST)

    @pytest.mark.parametrize("back_ms", [0, 899, 900, 901, 999, 1000, 1001, 1150, 1151, 5000])
    async def test_a_hold_of_a_clock_that_was_ahead_is_over(self, both: Both, back_ms: int) -> None:
        limits = limit_set((resolved(limit=32),), ())
        both.now_ms = START_MS + 900 + 600_000
        await both.take(limits, FREE)
        assert await both.grant(limits, ONE_REQUEST, 1) is not None
        await both.take(limits, (("requests", 31),))
        assert (await both.take(limits, ONE_REQUEST)).verdict is Verdict.WAITING
        both.now_ms -= back_ms
        other = limit_set((resolved(name="other", limit=900),), ())
        await both.take(other, FREE)
        await both.grant(other, ONE_REQUEST, 1)
        await both.take(limits, ONE_REQUEST)

    async def test_a_lease_that_is_returned_late_is_used_in_its_own_hour(self, both: Both) -> None:
        for name, limits in (
            ("k", limit_set((), ())),
            ("k2", limit_set((hour_limit(320).model_copy(update={"algorithm": "fixed_window"}),), ())),
        ):
            both.now_ms = START_MS + 900 - 50
            await both.take(limits, ONE_REQUEST, name)
            lease = await both.grant(limits, ONE_REQUEST, 5, name)
            assert lease is not None
            both.now_ms += 80
            await both.take(limits, ONE_REQUEST, name)
            await both.give_back(lease, 2)
            await both.take(limits, FREE, name)
            hour = (START_MS + 900) // 3_600_000
            counted = await both.redis.read_usage([UsageOf(name, "o", None)], 0)
            assert {one.hour: one.units for one in counted} == {hour - 1: 4, hour: 1}

    async def test_a_lease_of_an_emptied_server_returns_nothing_but_its_usage(self, both: Both) -> None:
        limits = limit_set((resolved(limit=320),), (resolved(name="o", limit=320),))
        await both.take(limits, ONE_REQUEST)
        lease = await both.grant(limits, ONE_REQUEST, 9)
        assert lease is not None
        async with both.redis._clients.borrow() as client:
            await client.flushdb()
        both.model = Authority()
        for _ in range(9):
            both.model.fresh()  # no name that the memory before it gave
        await both.take(limits, (("requests", 40),))
        assert await both.grant(limits, ONE_REQUEST, 1) is not None
        await both.give_back(lease, 9)
        await both.take(limits, FREE)
        for units in (280, 279, 278):
            await both.take(limits, (("requests", units),))

    async def test_a_key_whose_owner_changed_leases_nothing(self, both: Both) -> None:
        limits = limit_set((resolved(limit=320),), (resolved(name="o", limit=320),))
        await both.take(limits, ONE_REQUEST)
        await both.redis.bump_owner_generation("o")
        both.model.bump("o", both.now_ms)
        assert await both.grant(limits, ONE_REQUEST, 1) is None
        await both.take(limits, ONE_REQUEST)
        assert await both.grant(limits, ONE_REQUEST, 1) is not None

    async def test_a_change_outlasts_the_latest_lease_to_the_millisecond(self, both: Both) -> None:
        limits = limit_set((resolved(limit=320, per="day"),), ())
        holders = both.redis._holder_names("k", "o")
        await both.take(limits, ONE_REQUEST)
        assert [await both.redis._bump(name) for name in holders] == [0, 0]
        await both.take(limits, ONE_REQUEST)
        assert await both.grant(limits, ONE_REQUEST, 1) is not None
        both.now_ms += 40
        # The clock had passed the whole millisecond of the grant by up to one more.
        assert [await both.redis._bump(name) for name in holders] == [61, 61]
        both.now_ms += 61
        assert [await both.redis._bump(name) for name in holders] == [0, 0]

    async def test_returns_questions_and_grants_go_together_in_one_call(self, both: Both) -> None:
        hour = limit_set((hour_limit(3200).model_copy(update={"algorithm": "fixed_window"}),), ())
        other = limit_set((resolved(limit=3200),), (resolved(name="o", limit=4000),))
        leases = []
        for name, limits in (("k", hour), ("k2", other), ("k3", other)):
            await both.take(limits, FREE, name)
            lease = await both.grant(limits, ONE_REQUEST, 5, name)
            assert lease is not None
            leases.append(lease)
        for in_redis, in_model in leases:
            in_redis.left = 3
            both.model.give_back(in_model, 2, 3, both.now_ms)
        questions = [
            LimitCheck("k2", None, other, ONE_REQUEST, "", 0.0, is_fresh=True, owner_id="o"),
            LimitCheck("k", None, hour, ONE_REQUEST, "", 0.0, is_fresh=True, owner_id="o"),
        ]
        generation = both.generations[0]
        asks = [LeaseAsk("k3", "o", other, TWO_TOKENS, generation, 4), LeaseAsk("k3", "o", other, ONE_REQUEST, "x", 4)]
        plan = Plan([one for one, _ in leases], asks=[asks[0], asks[1], asks[0]])
        found, grants = await both.call(questions, plan)
        expected = [both.model.take(question, both.now_ms) for question in questions]
        assert [(one.verdict, list(one.states)) for one in found] == [
            (one.verdict, list(one.states)) for one in expected
        ]
        assert [grant.units for grant in grants] == [4, 0, 4]
        for _ in range(2):
            both.model.grant(LeaseAsk("k3", "o", other, TWO_TOKENS, both.generations[1], 4), 100, both.now_ms)
        for name, limits in (("k", hour), ("k2", other), ("k3", other)):
            await both.take(limits, FREE, name)
            counted = await both.redis.read_usage([UsageOf(name, "o", None)], 0)
            assert sum(one.units for one in counted) == both.model.usage[name]

    async def test_an_hourly_limit_waits_for_its_leases_and_not_for_those_of_others(self, both: Both) -> None:
        limits = limit_set((hour_limit(32).model_copy(update={"algorithm": "fixed_window"}),), ())
        both.now_ms = START_MS + 900
        for name in ("k", "k2"):
            await both.take(limits, ONE_REQUEST, name)
        assert await both.grant(limits, ONE_REQUEST, 1, "k2") is not None
        for _ in range(30):
            await both.take(limits, ONE_REQUEST, "k2")
        for passes_ms, wait_ms in ((0, 150), (100, 50), (49, 1)):
            both.now_ms += passes_ms
            for _ in range(2):
                waiting = await both.take(limits, ONE_REQUEST, "k2")
                assert (waiting.verdict, waiting.wait_s) == (Verdict.WAITING, wait_ms)
        both.now_ms += 1
        for _ in range(2):
            assert (await both.take(limits, ONE_REQUEST, "k2")).verdict is Verdict.LIMITED
        assert (await both.take(limits, ONE_REQUEST)).states[0] == 30

    async def test_a_sliding_limit_waits_for_its_leases(self, both: Both) -> None:
        limits = limit_set((resolved(limit=32, algorithm="sliding_window"),), ())
        both.now_ms = START_MS + 900
        await both.take(limits, FREE)
        lease = await both.grant(limits, ONE_REQUEST, 1)
        assert lease is not None
        await both.take(limits, (("requests", 31),))
        assert (await both.take(limits, ONE_REQUEST)).verdict is Verdict.WAITING
        both.now_ms += 80
        await both.give_back(lease, 0)  # in time: there is nothing left to wait for
        assert (await both.take(limits, ONE_REQUEST)).verdict is Verdict.LIMITED

    @pytest.mark.parametrize("passes_ms", [0, 1000])
    async def test_a_lease_that_was_not_used_leaves_no_trace(self, both: Both, passes_ms: int) -> None:
        limits = limit_set((resolved(limit=32, per="second", algorithm="sliding_window"),), ())
        await both.take(limits, FREE)
        lease = await both.grant(limits, ONE_REQUEST, 1)
        assert lease is not None
        both.now_ms += passes_ms
        await both.give_back(lease, 1)
        assert (await both.take(limits, FREE)).states[0] == 32

    async def test_a_shorter_lease_does_not_end_those_before_it(self, both: Both) -> None:
        limits = limit_set((resolved(limit=32, per="hour"),), ())
        both.now_ms = START_MS + 900 + 1000 - 72
        await both.take(limits, FREE)
        assert await both.grant(limits, ONE_REQUEST, 1) is not None
        both.now_ms += 60
        brief = limit_set((resolved(name="second", limit=32, per="second"),), ())
        await both.take(brief, FREE)
        lease = await both.grant(brief, ONE_REQUEST, 1)
        assert lease is not None
        assert lease[0].grant.lasts_ms == 11
        await both.take(limits, (("requests", 31),))
        assert (await both.take(limits, ONE_REQUEST)).wait_s == 90

    async def test_a_limit_that_is_exhausted_and_costs_nothing_prevents_no_lease(self, both: Both) -> None:
        limits = limit_set((resolved(limit=32), resolved(name="t", unit="tokens", limit=5)), ())
        await both.take(limits, (("tokens", 5),))
        lease = await both.grant(limits, ONE_REQUEST, 1)
        assert lease is not None
        assert list(lease[0].grant.states[0:6:3]) == [31, 0]

    async def test_a_lease_of_a_server_that_was_replaced_returns_only_its_usage(self, both: Both) -> None:
        limits = limit_set((resolved(limit=320),), ())
        await both.take(limits, FREE)
        lease = await both.grant(limits, ONE_REQUEST, 9)
        assert lease is not None
        ends, _, rest = lease[0].grant.stamp.split(" ", 2)
        lease[0].grant = lease[0].grant._replace(stamp=f"{ends} @another {rest}")
        lease[0].left = 7
        await both.call([], Plan([lease[0]]))
        assert (await both.take(limits, FREE)).states[0] == 311
        (counted,) = await both.redis.read_usage([UsageOf("k", "o", None)], 0)
        assert counted.units == 2

    async def test_the_first_usage_and_the_first_lease_may_come_in_one_call(self, both: Both) -> None:
        limits = limit_set((resolved(limit=32),), ())
        await both.take(limits, FREE)
        question = LimitCheck("k", None, limits, ONE_REQUEST, "", 0.0, is_fresh=True, owner_id="o")
        _, (grant,) = await both.call(
            [question], Plan(asks=[LeaseAsk("k", "o", limits, ONE_REQUEST, both.generations[0], 1)])
        )
        assert grant.units == 1
        (counted,) = await both.redis.read_usage([UsageOf("k", "o", None)], 0)
        assert counted.units == 1
        (found,), _ = await both.call([question._replace(cost=(("requests", 31),))], Plan())
        assert found.verdict is Verdict.WAITING

    async def test_a_lease_whose_key_was_lost_returns_the_units_of_its_owner(self, both: Both) -> None:
        limits = limit_set((resolved(limit=320),), (resolved(name="o", limit=320),))
        await both.take(limits, FREE)
        lease = await both.grant(limits, ONE_REQUEST, 9)
        assert lease is not None
        async with both.redis._clients.borrow() as client:
            await client.delete(f"{both.namespace}:{{k}}")
        del both.model.holders["k"]
        await both.give_back(lease, 9)
        assert list((await both.take(limits, FREE)).states[0:6:3]) == [320, 320]

    async def test_leases_of_two_windows_are_told_apart_while_both_may_return(self, both: Both) -> None:
        limits = limit_set((resolved(limit=32, per="second"), resolved(name="b", limit=64)), ())
        both.now_ms = START_MS - 12 + 900 - 2000
        await both.take(limits, FREE)
        first = await both.grant(limits, ONE_REQUEST, 1)
        both.now_ms += 15
        await both.take(limits, FREE)
        second = await both.grant(limits, ONE_REQUEST, 1)
        assert first is not None
        assert second is not None
        await both.give_back(second, 1)
        await both.take(limits, (("requests", 32),))
        await both.give_back(first, 1)
        assert list((await both.take(limits, FREE)).states[0:6:3]) == [0, 32]

    async def test_a_key_waits_for_the_leases_of_other_keys_of_its_owner(self, both: Both) -> None:
        limits = limit_set((resolved(limit=900),), (resolved(name="o", limit=32),))
        both.now_ms = START_MS + 900
        await both.take(limits, ONE_REQUEST)
        await both.take(limits, FREE, "k2")
        assert await both.grant(limits, ONE_REQUEST, 1, "k2") is not None
        await both.take(limits, (("requests", 30),))
        for passes_ms, wait_ms in ((0, 150), (149, 1)):
            both.now_ms += passes_ms
            waiting = await both.take(limits, ONE_REQUEST)
            assert (waiting.verdict, waiting.wait_s) == (Verdict.WAITING, wait_ms)
        both.now_ms += 1
        assert (await both.take(limits, ONE_REQUEST)).verdict is Verdict.LIMITED
