"""Limits, costs, clocks and charges: the limiters in memory and in Redis against a plain model, and at their bounds."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from math import ceil, floor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from fastapi_keyauth.domain.limit_sets import NO_LIMITS, ONE_REQUEST, Cost, limit_set
from fastapi_keyauth.domain.limits import Limit
from fastapi_keyauth.domain.units import MAX_UNITS
from fastapi_keyauth.domain.usage import UsageOf
from fastapi_keyauth.domain.windows import MAX_WINDOW_S, month, window_at
from fastapi_keyauth.limiter import Decision, Limiter, MemoryLimiter, SingleNodeLimiter, Verdict
from fastapi_keyauth.limiter.holders import MAX_COUNTERS
from fastapi_keyauth.limiter.protocol import Charge, LimitCheck, Policy
from tests.helpers.fuzzing import fuzzed
from tests.helpers.limits import resolved
from tests.helpers.session import Servers

START_S = int(datetime(2027, 1, 31, 22, 59, 30, tzinfo=UTC).timestamp())
_numbers = itertools.count()
POLICY = Policy(3, 60_000, 120_000)


class Clock:
    def __init__(self) -> None:
        self.now = float(START_S)

    def __call__(self) -> float:
        return self.now


@dataclass
class PlainCounter:
    """Units by the number of their window, all of them kept."""

    units: dict[int, int] = field(default_factory=dict)


class PlainModel:
    """A model of the limits with fractions and dictionaries, for a clock that only goes forward."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counters: dict[tuple[str, str], PlainCounter] = {}
        self._charges: dict[str, list[tuple[PlainCounter, int]]] = {}

    def check(self, question: LimitCheck) -> tuple[bool, list[int]]:
        now_ms = int(self._clock.now * 1000)
        limits = [(question.key_id, limit) for limit in question.limits.key] + [
            (f"owner {question.owner_id}", limit) for limit in question.limits.owner
        ]
        costs = list(question.limits.costs(question.cost or ()))
        counters = [self._counters.setdefault((holder, limit.counter_id), PlainCounter()) for holder, limit in limits]
        if question.charge is not None and question.charge.actual is not None:
            self._settle(question.charge, [limit for _, limit in limits], costs, now_ms)
            costs = [0] * len(costs)
        elif question.charge is not None and question.charge.id in self._charges:
            costs = [0] * len(costs)
        elif all(
            cost <= self.free(limit, counter, now_ms)
            for (_, limit), counter, cost in zip(limits, counters, costs, strict=True)
        ):
            windows = []
            for (_, limit), counter, cost in zip(limits, counters, costs, strict=True):
                number = window_at(limit.window_ms, now_ms).number
                counter.units[number] = counter.units.get(number, 0) + cost
                windows.append((counter, number))
            if question.charge is not None:
                self._charges[question.charge.id] = windows
        else:
            return False, [
                max(0, self.free(one, counter, now_ms)) for (_, one), counter in zip(limits, counters, strict=True)
            ]
        return True, [
            max(0, self.free(one, counter, now_ms)) for (_, one), counter in zip(limits, counters, strict=True)
        ]

    @staticmethod
    def free(limit: Limit, counter: PlainCounter, now_ms: int) -> int:
        window = window_at(limit.window_ms, now_ms)
        free = limit.limit - counter.units.get(window.number, 0)
        if limit.is_sliding:
            share = Fraction(window.end_ms - now_ms, window.length_ms)
            free -= ceil(counter.units.get(window.number - 1, 0) * share)
        return floor(free)

    def _settle(self, charge: Charge, limits: list[Limit], costs: list[int], now_ms: int) -> None:
        windows = self._charges.get(charge.id)
        if not windows:
            return
        used = dict(charge.actual or ())
        for limit, (counter, number), cost in zip(limits, windows, costs, strict=True):
            actual = used.get(limit.unit, 0)
            if actual > cost:
                number = window_at(limit.window_ms, now_ms).number
            counter.units[number] = counter.units.get(number, 0) + actual - cost
        self._charges[charge.id] = []


# Windows of at most an hour, so that a tick is a millisecond and fractions agree to the unit.
WINDOWS: list[Any] = ["second", "minute", "hour", 7, 90]
LIMITS = st.lists(
    st.builds(
        resolved,
        name=st.sampled_from("abc"),
        limit=st.integers(1, 12),
        per=st.sampled_from(WINDOWS),
        unit=st.sampled_from(["requests", "tokens"]),
        algorithm=st.sampled_from(["fixed_window", "sliding_window"]),
    )
    | st.builds(resolved, name=st.just("m"), limit=st.integers(1, 12), per=st.sampled_from(["day", "month"])),
    max_size=4,
    unique_by=lambda limit: limit.name,
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["k1", "k2"]),
        st.sampled_from(["charge", "charge", "charge", "again", "settle"]),
        st.integers(0, 5),
        st.integers(0, 5),
        st.sampled_from([0, 0, 0, 1, 400, 999, 1000, 7000, 61_000, 3_600_000]),
    ),
    min_size=5,
    max_size=25,
)


@asynccontextmanager
async def two_limiters(url: str) -> AsyncIterator[tuple[Clock, list[Limiter]]]:
    clock = Clock()
    redis = SingleNodeLimiter(url, POLICY, f"t{next(_numbers)}", 10.0, clock, units=["tokens", "images"])
    try:
        yield clock, [MemoryLimiter(POLICY, 60.0, clock), redis]
    finally:
        await redis.close()


@pytest.fixture(params=["valkey", "redis6"])
def url(request: pytest.FixtureRequest, servers: Servers) -> str:
    return servers.fresh_redis_url(request.param)


class Used:
    """What the limiter in memory says was used, compared with what Redis has counted."""

    def __init__(self) -> None:
        self._units: Counter[tuple[str, int, str]] = Counter()

    def add(self, key_id: str, decision: Decision) -> None:
        for unit, units in decision.usage:
            self._units[key_id, decision.hour, unit] += units

    async def compare(self, redis: Limiter, owners: dict[str, str]) -> None:
        counts = await redis.read_usage([UsageOf(*pair) for pair in owners.items()], 0)
        found = {(count.key_id, count.hour, count.unit): count.units for count in counts}
        assert found == {name: units for name, units in self._units.items() if units}
        hours = {(key_id, hour) for key_id, hour, _ in found}
        one_by_one = await redis.read_usage([UsageOf(key_id, owners[key_id], hour) for key_id, hour in hours], 0)
        assert sorted(one_by_one) == sorted(counts)


def summary(decision: Decision) -> tuple[Verdict, int, int, tuple[int, ...]]:
    return decision.verdict, decision.wait_s, decision.hour, tuple(decision.states)


@fuzzed(25)
@given(key=LIMITS, owner=LIMITS, steps=STEPS)
def test_memory_and_redis_agree_with_a_plain_model(url: str, key: Any, owner: Any, steps: Any) -> None:
    asyncio.run(_compare(url, limit_set(tuple(key), tuple(owner)), steps))


async def _compare(url: str, limits: Any, steps: Any) -> None:
    async with two_limiters(url) as (clock, limiters):
        model = PlainModel(clock)
        charged: dict[str, list[tuple[Charge, Any]]] = {"k1": [], "k2": []}
        used = Used()
        settled: set[str] = set()
        for number, (key_id, action, requests, tokens, passes_ms) in enumerate(steps):
            clock.now = round(clock.now * 1000 + passes_ms) / 1000
            cost, charge = (("requests", requests), ("tokens", tokens)), Charge(f"c{number}", 10**7)
            if tokens % 2:
                charge = charge._replace(is_hold=True)
            if action != "charge":
                if not charged[key_id]:
                    continue
                charge, cost = charged[key_id][tokens % len(charged[key_id])]
                if action == "settle":
                    charge = charge._replace(actual=(("requests", requests), ("tokens", tokens)))
                    settled.add(charge.id)
                elif charge.id in settled:  # is remembered for a minute, of which this clock knows nothing
                    continue
            question = LimitCheck(key_id, None, limits, cost, "", 0.0, is_fresh=True, owner_id="o", charge=charge)
            seen = [await limiter.check(question) for limiter in limiters]
            assert summary(seen[0]) == summary(seen[1])
            used.add(key_id, seen[0])
            admitted, left = model.check(question)
            assert (seen[0].verdict is Verdict.ADMITTED) == admitted
            assert list(seen[0].states[0 : 3 * len(left) : 3]) == left
            if admitted and action == "charge":
                charged[key_id].append((charge, cost))
        await used.compare(limiters[1], {"k1": "o", "k2": "o"})


JUMPS = st.sampled_from(
    [0, 0, 500, 999, 1000, 3_600_000, -1, -500, -5000, -15_000, -4_000_000, 86_400_000, -86_400_000]
)


@fuzzed(25)
@given(limits=LIMITS, steps=st.lists(st.tuples(st.integers(0, 6), JUMPS), min_size=5, max_size=25))
def test_memory_and_redis_agree_on_clocks_that_jump_and_no_wait_is_longer_than_its_window(
    url: str, limits: Any, steps: Any
) -> None:
    asyncio.run(_jump(url, limits, steps))


async def _jump(url: str, limits: Any, steps: Any) -> None:
    async with two_limiters(url) as (clock, limiters):
        every = limit_set(tuple(limits), ())
        for units, jump_ms in steps:
            clock.now = round(clock.now * 1000 + jump_ms) / 1000
            question = LimitCheck("k", None, every, (("requests", units),), "", 0.0, is_fresh=True, owner_id="o")
            seen = [await limiter.check(question) for limiter in limiters]
            assert summary(seen[0]) == summary(seen[1])
            for limit, t_s in zip(every.all, seen[0].states[1::3], strict=False):
                longest_ms = limit.window_ms * (2 if limit.is_sliding else 1) or 31 * 86_400_000
                assert 1 <= t_s <= longest_ms // 1000


@pytest.mark.parametrize("per", ["second", "hour", "day", "month", 1, MAX_WINDOW_S - 1, MAX_WINDOW_S])
@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window"])
async def test_the_largest_numbers_are_counted_to_the_unit(url: str, per: Any, algorithm: str) -> None:
    limits = limit_set((resolved(limit=MAX_UNITS, per=per, algorithm=algorithm),), ())
    async with two_limiters(url) as (clock, limiters):

        async def check(units: int) -> tuple[Any, ...]:
            question = LimitCheck("k", None, limits, (("requests", units),), "", 0.0, is_fresh=True, owner_id="o")
            seen = [summary(await limiter.check(question)) for limiter in limiters]
            assert seen[0] == seen[1]
            return seen[0]

        window = window_at(limits.all[0].window_ms, START_S * 1000)
        clock.now = (window.end_ms - window.length_ms) / 1000
        assert (await check(MAX_UNITS - 1))[3][0] == 1
        assert (await check(2))[:1] == (Verdict.LIMITED,)
        assert (await check(1))[3][0] == 0
        # In the next window the last one weighs in full, then less and less: never more than there is, and in the end
        # to the very unit.
        for share in (0, 1 / 3, 0.5, 0.999):
            clock.now = (window.end_ms + int(window.length_ms * share)) / 1000
            verdict, _, _, states = await check(0)
            expected = MAX_UNITS if not limits.all[0].is_sliding else MAX_UNITS * share
            assert verdict is Verdict.ADMITTED
            assert abs(states[0] - expected) <= MAX_UNITS / 1000 + 1
            assert (await check(states[0] + 1))[0] is Verdict.LIMITED


async def test_a_debt_is_bounded_and_counted_exactly(url: str) -> None:
    limits = limit_set((resolved(limit=MAX_UNITS, per=MAX_WINDOW_S, algorithm="sliding_window"),), ())
    async with two_limiters(url) as (_, limiters):
        for number in range(5):
            for actual in (None, (("requests", MAX_UNITS),)):
                charge = Charge(f"c{number}", 3600, actual)
                question = LimitCheck("k", None, limits, (("requests", 0),), "", 0.0, True, "o", charge)
                seen = [summary(await limiter.check(question)) for limiter in limiters]
                assert seen[0] == seen[1]
        assert seen[0][3][0] == 0


async def test_a_debt_of_one_unit_refuses_whatever_the_request_costs(url: str) -> None:
    limits = limit_set((resolved(limit=5), resolved(name="t", unit="tokens", limit=10)), ())
    async with two_limiters(url) as (clock, limiters):
        for limiter in limiters:

            async def check(cost: dict[str, int], charge: Charge | None = None, limiter: Limiter = limiter) -> Decision:
                ask = LimitCheck("k", None, limits, tuple(cost.items()), "", 0.0, True, "o", charge)
                return await limiter.check(ask)

            await check({"tokens": 4}, Charge("c", 3600))
            settled = await check({"tokens": 4}, Charge("c", 3600, (("tokens", 25),)))
            assert settled.states[3] == 0
            assert (await check({"tokens": 1})).verdict is Verdict.LIMITED
            assert (await check({"requests": 1, "tokens": 1})).verdict is Verdict.LIMITED
            assert (await check({"requests": 1})).verdict is Verdict.LIMITED
        clock.now += 3600
        assert (await check({"tokens": 10})).verdict is Verdict.ADMITTED


async def test_a_limit_in_force_keeps_its_count_however_often_others_are_replaced(url: str) -> None:
    kept = resolved(name="kept", limit=1000)
    async with two_limiters(url) as (_, limiters):
        for limiter in limiters:
            for number in range(100):
                limits = limit_set((kept, resolved(name=f"l{number}", limit=5)), ())
                ask = LimitCheck("k", None, limits, (("requests", 1),), "", 0.0, is_fresh=True, owner_id="o")
                seen = await limiter.check(ask)
                assert (seen.verdict, seen.states[0], seen.states[3]) == (Verdict.ADMITTED, 999 - number, 4)


HOURLY = limit_set((resolved(name="hour", limit=6),), ())
FIXED = limit_set(
    (*HOURLY.all, resolved(name="second", limit=2, per="second"), resolved(name="month", limit=20, per="month")),
    (resolved(name="day", limit=15, per="day"), resolved(name="tokens", limit=1, unit="tokens")),
)
"""What take.lua answers by itself, as soon as the windows have begun."""
TOGETHER = st.lists(
    st.tuples(
        st.sampled_from(["k1", "k2", "k3"]),
        st.sampled_from(
            [
                "hourly",
                "hourly",
                "fixed",
                "fixed",
                "none",
                "free",
                "tokens",
                "other limits",
                "expensive",
                "stale",
                "blocked",
            ]
        ),
        st.sampled_from([0, 0, 0, 0, 1000, 3_600_000, -500, -15_000, -4_000_000]),
    ),
    min_size=1,
    max_size=12,
)


@fuzzed(25)
@given(batches=st.lists(TOGETHER, min_size=2, max_size=8), other=LIMITS)
def test_questions_that_go_together_are_answered_as_one_by_one(url: str, batches: Any, other: Any) -> None:
    asyncio.run(_ask_together(url, batches, limit_set((*HOURLY.all, *other[:3]), tuple(other))))


LIMITS_OF = {"fixed": FIXED, "none": NO_LIMITS, "free": NO_LIMITS, "tokens": FIXED}
COST_OF: dict[str, Cost] = {
    "expensive": (("requests", 2),),
    "free": (),
    "tokens": (("images", 3), ("requests", 1), ("tokens", 1)),
}


async def _ask_together(url: str, batches: Any, other: Any) -> None:
    async with two_limiters(url) as (clock, (memory, redis)):
        generations: dict[tuple[int, str], str] = {}
        used = Used()
        for limiter in (memory, redis):
            for _ in range(POLICY.block_after_failures):
                await limiter.record_failure("blocked")
        for batch in batches:
            clock.now = round(clock.now * 1000 + batch[0][2]) / 1000
            seen = []
            for which, limiter in enumerate((memory, redis)):
                asks = [
                    LimitCheck(
                        key_id,
                        "blocked" if kind == "blocked" else "not blocked",
                        other if kind == "other limits" else LIMITS_OF.get(kind, HOURLY),
                        COST_OF.get(kind, ONE_REQUEST),
                        "" if kind == "stale" else generations.get((which, key_id), ""),
                        1.0,
                        owner_id="o1" if key_id == "k1" else "o2",
                    )
                    for key_id, kind, _ in batch
                ]
                answers = await asyncio.gather(*map(limiter.check, asks))
                for (key_id, _, _), answer in zip(batch, answers, strict=True):
                    if answer.generation:
                        generations[which, key_id] = answer.generation
                    used.add(key_id, answer)
                seen.append(
                    [answer.verdict if answer.verdict is Verdict.STALE else summary(answer) for answer in answers]
                )
            assert seen[0] == seen[1]
        await used.compare(redis, {"k1": "o1", "k2": "o2", "k3": "o2"})


@pytest.mark.parametrize("year", [1970, 2000, 2027, 2028, 2100, 2399, 9000])
async def test_months_begin_on_the_first_in_utc(url: str, year: int) -> None:
    limits = limit_set((resolved(limit=5, per="month"),), ())
    async with two_limiters(url) as (clock, limiters):
        question = LimitCheck("k", None, limits, (("requests", 1),), "", 0.0, is_fresh=True, owner_id="o")
        for number in range(12):
            window = month(year * 12 + number)
            begins_ms = window.end_ms - window.length_ms
            assert datetime.fromtimestamp(begins_ms / 1000, UTC) == datetime(year, number + 1, 1, tzinfo=UTC)
            for moment_ms in (begins_ms, window.end_ms - 1):
                clock.now = moment_ms / 1000
                seen = [summary(await limiter.check(question)) for limiter in limiters]
                assert seen[0] == seen[1]
                assert seen[0][3][2] == window.end_ms // 1000


async def test_everything_in_redis_expires_and_not_before_its_window(url: str) -> None:
    clock = Clock()
    limiter = SingleNodeLimiter(url, POLICY, "t", 10.0, clock)
    server: Redis = Redis.from_url(url)
    limits = limit_set(
        (resolved(name="s", limit=5, per="second"), resolved(name="m", limit=5, per="month", unit="tokens")),
        (resolved(limit=5, per="day", algorithm="sliding_window"),),
    )
    for step in range(3):
        charge = Charge(f"c{step}", 600)
        question = LimitCheck("k", None, limits, (("requests", 1),), "", 0.0, True, "o", charge)
        await limiter.check(question)
        await limiter.bump_generation("k", "o")
        await limiter.bump_owner_generation("o")
        clock.now += 5 * 86_400
    clock.now -= 5 * 86_400
    left = {name: await server.ttl(name) async for name in server.scan_iter()}
    assert len(left) == 5
    assert all(seconds > 0 for seconds in left.values())
    window = window_at(0, int(clock.now * 1000))
    assert left[b"t:{k}"] >= window.end_ms / 1000 - clock.now - 10
    assert left[next(name for name in left if name.count(b":") == 1 and name != b"t:{k}")] >= 86_400
    await server.aclose()
    await limiter.close()


async def test_a_hash_is_never_kept_for_less_time_than_before(url: str) -> None:
    """Neither an owner's when an hour of its key begins, nor a key's when a request charges nothing."""
    clock = Clock()
    limiter = SingleNodeLimiter(url, POLICY, "t", 10.0, clock)
    server: Redis = Redis.from_url(url)
    limits = limit_set((resolved(name="hour", limit=5), resolved(name="month", limit=5, per="month")), ())
    limits = limit_set(limits.key, (resolved(limit=5, per=MAX_WINDOW_S),))
    questions = [
        LimitCheck("k", None, limits, ONE_REQUEST, "", 0.0, is_fresh=True, owner_id="o"),
        LimitCheck("k", None, limit_set((resolved(name="hour", limit=5),), ()), ONE_REQUEST, "", 0.0, True, "o"),
        LimitCheck("k", None, limits, (("requests", 0),), "", 0.0, True, "o", Charge("c", 60)),
        LimitCheck("k", None, NO_LIMITS, ONE_REQUEST, "", 0.0, is_fresh=True, owner_id="o"),
    ]
    await limiter.check(questions[0])
    first = {name: await server.ttl(name) async for name in server.scan_iter()}
    assert len(first) == 2
    for question in questions:
        assert (await limiter.check(question)).verdict is Verdict.ADMITTED
        clock.now += 3600
        for name, seconds in first.items():
            assert await server.ttl(name) >= seconds - 60
    await server.aclose()
    await limiter.close()


async def test_limits_that_are_renamed_again_and_again_refill_no_other() -> None:
    clock = Clock()
    limiter = MemoryLimiter(POLICY, 1.0, clock)
    month_limit = resolved(name="month", limit=1, per="month")
    verdicts = []
    for number in range(2 * MAX_COUNTERS):
        limits = limit_set((month_limit, resolved(name=f"n{number}", limit=9, per="hour")), ())
        ask = LimitCheck("k", None, limits, ONE_REQUEST, age_s=0.0, is_fresh=True, owner_id="o")
        verdicts.append((await limiter.check(ask)).verdict)
    assert verdicts == [Verdict.ADMITTED] + [Verdict.LIMITED] * (2 * MAX_COUNTERS - 1)
