"""The scripts that decide in Redis, at their bounds: clocks, windows, replaced limits, charges, usage and expiry."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from fastapi_keyauth.domain.limit_sets import NO_LIMITS, ONE_REQUEST, Cost, LimitSet, limit_set
from fastapi_keyauth.domain.limits import hour_limit
from fastapi_keyauth.domain.usage import UsageOf
from fastapi_keyauth.limiter import Decision, MemoryLimiter, SingleNodeLimiter, Verdict
from fastapi_keyauth.limiter.leases.terms import Plan
from fastapi_keyauth.limiter.protocol import Charge, LimitCheck, Policy
from fastapi_keyauth.limiter.redis.encoding import owner_tag
from fastapi_keyauth.limiter.redis.scripts import ScriptArgs
from fastapi_keyauth.limiter.redis.take_args import CallRecord
from tests.helpers.limits import resolved
from tests.helpers.session import Servers

POLICY = Policy(3, 60_000, 120_000)
MONTH_MS = int(datetime(2027, 2, 1, tzinfo=UTC).timestamp()) * 1000
"""A moment at which windows of every usual length begin."""
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
KEEP_S, KEEP_USAGE_S = 7200, 259_200
SLOW_S = 300
"""Seconds that a test on a busy machine may take between a write and a look at its expiry."""
SLIDING = "sliding_window"
_numbers = itertools.count()


class Pair:
    """A limiter in memory and one on Redis, which must give the same answers."""

    def __init__(self, url: str) -> None:
        self.now_ms = MONTH_MS
        self.namespace = f"t{next(_numbers)}"
        self.memory = MemoryLimiter(POLICY, 60.0, self._clock)
        self.redis = SingleNodeLimiter(url, POLICY, self.namespace, 10.0, self._clock, units=["tokens", "images"])
        self.server: Redis = Redis.from_url(url, decode_responses=True)

    def _clock(self) -> float:
        return (self.now_ms + 0.5) / 1000

    async def check(
        self, limits: LimitSet, cost: Cost | None = ONE_REQUEST, key_id: str = "k", **more: Any
    ) -> Decision:
        """Ask both; return the answer of Redis."""
        options = {"is_fresh": True, "age_s": 0.0, "owner_id": "o", **more}
        question = LimitCheck(key_id, limits=limits, cost=cost, **{"bucket": None, **options})
        expected, found = [await limiter.check(question) for limiter in (self.memory, self.redis)]
        assert (found.verdict, found.wait_s, found.hour) == (expected.verdict, expected.wait_s, expected.hour)
        assert list(found.states) == list(expected.states)
        return found

    async def run(self, call: ScriptArgs) -> Any:
        """Return the reply to one call of the script."""
        return await self.redis._take.run(lambda: call)

    async def left(self, limits: LimitSet, **more: Any) -> list[int]:
        """Return the units that are left of each limit."""
        return list((await self.check(limits, (), **more)).states[: 3 * len(limits.all) : 3])

    async def used(self, key_id: str = "k") -> dict[tuple[int, str], int]:
        """Return the usage of a key by hour and unit."""
        counts = await self.redis.read_usage([UsageOf(key_id, "o", None)], 0)
        return {(count.hour, count.unit): count.units for count in counts}

    async def ttl(self, tag: str) -> int:
        """Return the seconds for which a hash is kept."""
        return int(await self.server.ttl(f"{self.namespace}:{{{tag}}}"))

    async def close(self) -> None:
        await self.redis.close()
        await self.server.aclose()


@pytest.fixture(params=["valkey", "redis6"])
async def pair(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Pair]:
    opened = Pair(servers.fresh_redis_url(request.param))
    yield opened
    await opened.close()


def of(*limits: Any, owner: Any = ()) -> LimitSet:
    """Return the limits of a key, and of its owner."""
    return limit_set(tuple(limits), tuple(owner))


def hourly(limit: int, algorithm: str = "fixed_window") -> LimitSet:
    """Return the one limit of a key per hour, which has fields of its own in Redis."""
    return of(hour_limit(limit).model_copy(update={"algorithm": algorithm}))


class TestClocks:
    @pytest.mark.parametrize("back_ms", [1, 999, 1000, 9_999, 10_000, 10_001, 59_999, HOUR_MS, 40 * DAY_MS])
    @pytest.mark.parametrize("algorithm", ["fixed_window", SLIDING])
    async def test_a_clock_that_steps_back_leaves_a_window_only_after_ten_seconds(
        self, pair: Pair, algorithm: str, back_ms: int
    ) -> None:
        limits = [
            of(resolved(limit=9, per=per, algorithm=algorithm))
            for per in ("second", "minute", "hour", "day", "month")
            if per != "month" or algorithm != SLIDING
        ] + [hourly(9, algorithm)]
        for number, one in enumerate(limits):
            pair.now_ms = MONTH_MS - 1
            await pair.check(one, (("requests", 2),), f"k{number}")
            pair.now_ms = MONTH_MS
            await pair.check(one, (("requests", 4),), f"k{number}")
            pair.now_ms = MONTH_MS - back_ms
            await pair.check(one, key_id=f"k{number}")
            pair.now_ms = MONTH_MS + 5000
            await pair.check(one, key_id=f"k{number}")
            refused = await pair.check(one, (("requests", 9),), f"k{number}")
            assert refused.verdict is Verdict.LIMITED

    async def test_the_last_unit_of_an_hour_weighs_until_the_next_one_ends(self, pair: Pair) -> None:
        for limits in (hourly(1, SLIDING), of(resolved(limit=1, algorithm=SLIDING))):
            pair.now_ms = MONTH_MS
            await pair.check(limits, key_id=limits.all[0].name)
            pair.now_ms = MONTH_MS + 2 * HOUR_MS - 1
            assert (await pair.check(limits, key_id=limits.all[0].name)).verdict is Verdict.LIMITED
            pair.now_ms += 1
            assert (await pair.check(limits, key_id=limits.all[0].name)).verdict is Verdict.ADMITTED

    @pytest.mark.parametrize("per", [1, 7, "minute", 3601, 5400, 7200, 7201, "day", 31_622_400])
    @pytest.mark.parametrize("limit", [3, 1000])
    async def test_waits_in_a_sliding_window_are_those_of_memory(self, pair: Pair, per: Any, limit: int) -> None:
        limits = of(resolved(limit=limit, per=per, algorithm=SLIDING))
        length_ms = limits.all[0].window_ms
        begin_ms = MONTH_MS - MONTH_MS % length_ms
        for share, units in [(0.0, 1), (0.5, 1), (0.75, 1), (1.0, 1), (1.1, 1), (1.3, 2), (1.999, 1), (2.4, 3), (4, 1)]:
            pair.now_ms = begin_ms + int(length_ms * share)
            await pair.check(limits, (("requests", limit // 3),))
            await pair.check(limits, (("requests", units),))
            assert (await pair.check(limits, (("requests", limit + 1),))).verdict is Verdict.LIMITED
            await pair.check(limits, (("requests", limit),))
            await pair.check(limits, (("requests", limit - 1),))

    async def test_a_window_begins_and_ends_to_the_millisecond(self, pair: Pair) -> None:
        every = [of(resolved(limit=2, per=per)) for per in ("second", "minute", "hour", "day", "month", 7)]
        for number, limits in enumerate([*every, hourly(2)]):
            for moment_ms in (-1, 0, 1, 999, 1000, 1001, 59_999, 60_000, HOUR_MS - 1, HOUR_MS, HOUR_MS + 1):
                pair.now_ms = MONTH_MS + moment_ms
                for _ in range(3):
                    await pair.check(limits, key_id=f"k{number}")


class TestReplacedLimits:
    async def test_units_are_kept_while_limits_come_go_and_change_places(self, pair: Pair) -> None:
        hour, minute = (
            hour_limit(90).model_copy(update={"algorithm": "fixed_window"}),
            resolved(name="minute", limit=50),
        )
        sliding = resolved(name="sliding", limit=70, algorithm=SLIDING)
        month, tokens = resolved(name="month", limit=80, per="month"), resolved(name="t", limit=40, unit="tokens")
        sets = [
            of(hour),
            of(hour, minute),
            of(minute, hour, month),
            of(hour),
            of(minute),
            of(),
            of(month, hour, sliding, owner=(minute, tokens)),
            of(hour, owner=(tokens,)),
            of(hour),
            of(sliding, owner=(sliding, minute)),
            of(minute, month, tokens, owner=(hour,)),
            of(hour, minute, sliding),
        ]
        for passes_ms in (0, 1000, HOUR_MS, 0, HOUR_MS // 2, 2 * HOUR_MS):
            pair.now_ms += passes_ms
            for limits in sets:
                await pair.check(limits, (("requests", 2), ("tokens", 1)))
                await pair.check(limits)
                await pair.check(limits, key_id="k2")

    async def test_an_hour_that_was_alone_keeps_its_units_and_those_of_the_hour_before(self, pair: Pair) -> None:
        for algorithm in ("fixed_window", SLIDING):
            alone = hourly(10, algorithm)
            more = of(*alone.all, resolved(name="more", limit=99))
            key_id = algorithm
            await pair.check(alone, (("requests", 6),), key_id)
            assert (await pair.left(more, key_id=key_id))[0] == 4
            pair.now_ms += HOUR_MS
            await pair.check(alone, (("requests", 1),), key_id)
            pair.now_ms += 1
            expected = 9 if algorithm == "fixed_window" else 3
            assert (await pair.left(more, key_id=key_id))[0] == expected
            assert await pair.left(alone, key_id=key_id) == [expected]
            await pair.check(more, key_id=key_id)
            assert await pair.left(alone, key_id=key_id) == [expected - 1]
            pair.now_ms += 2 * HOUR_MS
            assert await pair.left(alone, key_id=key_id) == [10]

    async def test_the_oldest_of_many_former_limits_is_forgotten_first(self, pair: Pair) -> None:
        limits = [of(resolved(name=f"n{number}", limit=9, per="month")) for number in range(36)]
        for one in limits:
            await pair.check(one)
        assert [await pair.left(one) for one in limits[-31:]] == [[8]] * 31


class TestCharges:
    LIMITS = of(
        resolved(name="s", limit=50, per="second"),
        resolved(name="h", limit=60, algorithm=SLIDING),
        resolved(name="t", limit=70, unit="tokens"),
        owner=(resolved(name="d", limit=80, per="day"), resolved(name="o", limit=90, unit="tokens", algorithm=SLIDING)),
    )

    @pytest.mark.parametrize("passes_ms", [0, 999, 1000, 1999, 2000, HOUR_MS, 2 * HOUR_MS])
    @pytest.mark.parametrize("requests", [0, 3, 6, 8])
    async def test_a_settled_charge_moves_units_of_the_windows_that_it_was_charged_to(
        self, pair: Pair, passes_ms: int, requests: int
    ) -> None:
        cost: Cost = (("requests", 5), ("tokens", 5))
        await pair.check(self.LIMITS, (("requests", 1), ("tokens", 2)))
        charge = Charge("c", 10**6, is_hold=True)
        await pair.check(self.LIMITS, cost, charge=charge)
        await pair.check(self.LIMITS, cost, charge=charge)
        pair.now_ms += passes_ms
        actual: Cost = (("requests", requests), ("tokens", 8 - requests))
        for _ in range(2):
            await pair.check(self.LIMITS, cost, charge=charge._replace(actual=actual))
        await pair.left(self.LIMITS)
        await pair.check(self.LIMITS, cost, charge=charge)  # late: it is settled
        before = await pair.left(self.LIMITS)
        await pair.check(self.LIMITS, cost, charge=Charge("unknown", 60, actual))
        assert await pair.left(self.LIMITS) == before
        used: dict[str, int] = {}
        for (_, unit), units in (await pair.used()).items():
            used[unit] = used.get(unit, 0) + units
        assert used == {"requests": 1 + requests, "tokens": 2 + 8 - requests}

    async def test_a_refused_charge_can_be_made_later(self, pair: Pair) -> None:
        limits, charge = hourly(5), Charge("c", 60)
        await pair.check(limits, (("requests", 4),))
        assert (await pair.check(limits, (("requests", 2),), charge=charge)).verdict is Verdict.LIMITED
        pair.now_ms += HOUR_MS
        assert (await pair.check(limits, (("requests", 2),), charge=charge)).states[0] == 3
        assert (await pair.check(limits, (("requests", 2),), charge=charge)).states[0] == 3

    @pytest.mark.parametrize("limits", [LIMITS, NO_LIMITS, hourly(5)], ids=["limits", "no limits", "hour"])
    async def test_a_charge_is_known_for_as_long_as_it_says_and_counts_usage_once(
        self, pair: Pair, limits: LimitSet
    ) -> None:
        charge = Charge("c", 1000)
        for _ in range(3):
            await pair.check(limits, (("requests", 2), ("tokens", 3)), charge=charge)
        hour = MONTH_MS // HOUR_MS
        assert await pair.used() == {(hour, "requests"): 2, (hour, "tokens"): 3}
        (name,) = [name async for name in pair.server.scan_iter() if await pair.server.type(name) == "string"]
        assert 1000 - SLOW_S < await pair.server.ttl(name) <= 1000
        await pair.check(limits, (("requests", 2), ("tokens", 3)), charge=charge._replace(actual=(("requests", 1),)))
        assert await pair.server.ttl(name) > 0

    async def test_a_reservation_without_limits_counts_as_usage_when_it_is_settled(self, pair: Pair) -> None:
        charge = Charge("c", 60, is_hold=True)
        await pair.check(NO_LIMITS, charge=charge)
        assert await pair.used() == {}
        for _ in range(2):
            await pair.check(NO_LIMITS, charge=charge._replace(actual=(("requests", 3),)))
            assert await pair.used() == {(MONTH_MS // HOUR_MS, "requests"): 3}

    async def test_a_debt_is_paid_before_anything_is_admitted(self, pair: Pair) -> None:
        for limits in (hourly(5), self.LIMITS):
            key_id = str(len(limits.all))
            await pair.check(limits, (("requests", 1),), key_id, charge=Charge("c" + key_id, 60))
            actual = (("requests", 500),)
            await pair.check(limits, (("requests", 1),), key_id, charge=Charge("c" + key_id, 60, actual))
            for _ in range(3):
                refused = await pair.check(limits, key_id=key_id)
                assert refused.verdict is Verdict.LIMITED
                assert 0 in refused.states[: 3 * len(limits.all) : 3]
                pair.now_ms += 500
            pair.now_ms += DAY_MS
            assert (await pair.check(limits, key_id=key_id)).verdict is Verdict.ADMITTED


class TestUsage:
    async def test_units_are_counted_in_the_hour_of_the_request_whatever_the_limits(self, pair: Pair) -> None:
        hour = MONTH_MS // HOUR_MS
        sets = [hourly(900), NO_LIMITS, of(resolved(limit=900)), of(owner=(resolved(limit=900, algorithm=SLIDING),))]
        for number, limits in enumerate(sets):
            pair.now_ms = MONTH_MS
            for _ in range(3):
                await pair.check(limits, ONE_REQUEST, f"k{number}")
            await pair.check(limits, (("images", 4), ("requests", 2), ("tokens", 0)), f"k{number}")
            pair.now_ms += HOUR_MS
            await pair.check(limits, (("images", 1),), f"k{number}")
            await pair.check(limits, (("requests", 3),), f"k{number}")
            assert await pair.used(f"k{number}") == {
                (hour, "requests"): 5,
                (hour, "images"): 4,
                (hour + 1, "images"): 1,
                (hour + 1, "requests"): 3,
            }

    async def test_usage_of_a_memory_that_was_lost_is_told_apart_from_that_of_the_next(self, pair: Pair) -> None:
        sources = set()
        for _ in range(3):
            await pair.redis.check(LimitCheck("k", None, hourly(9), ONE_REQUEST, "", 0.0, True, "o"))
            (count,) = await pair.redis.read_usage([UsageOf("k", "o", None)], 0)
            sources.add(count.source)
            await pair.server.flushdb()
        assert len(sources) == 3

    async def test_requests_of_one_call_are_all_counted(self, pair: Pair) -> None:
        sets = [hourly(8), of(resolved(limit=8)), of(owner=(resolved(limit=900),)), NO_LIMITS, hourly(8, SLIDING)]
        for _ in range(3):
            questions = [
                LimitCheck(f"k{number}", None, limits, cost, "", 0.0, is_fresh=True, owner_id="o")
                for number, limits in enumerate(sets)
                for cost in (ONE_REQUEST, ONE_REQUEST, (("requests", 2),), (("requests", 1), ("tokens", 5)))
            ]
            found = await asyncio.gather(*map(pair.redis.check, questions))
            expected = [await pair.memory.check(question) for question in questions]
            assert [(one.verdict, list(one.states)) for one in found] == [
                (one.verdict, list(one.states)) for one in expected
            ]
        hour = MONTH_MS // HOUR_MS
        limited = {(hour, "requests"): 8, (hour, "tokens"): 10}
        free = {(hour, "requests"): 15, (hour, "tokens"): 15}
        assert [await pair.used(f"k{number}") for number in range(5)] == [limited, limited, free, free, limited]


class TestBlocks:
    @pytest.mark.parametrize(("left_ms", "wait_s"), [(120_000, 120), (1001, 2), (1000, 1), (1, 1), (0, 0)])
    @pytest.mark.parametrize("limits", [hourly(5), NO_LIMITS, hourly(5, SLIDING), of(resolved(limit=5))])
    async def test_a_block_ends_to_the_millisecond_for_every_kind_of_question(
        self, pair: Pair, limits: LimitSet, left_ms: int, wait_s: int
    ) -> None:
        await pair.check(limits)
        for _ in range(POLICY.block_after_failures):
            await pair.memory.record_failure("192.0.2.1")
            await pair.redis.record_failure("192.0.2.1")
        pair.now_ms += POLICY.block_for_ms - left_ms
        pair.redis._known_blocks.clear()  # as on a worker that has not met the block
        found = await pair.check(limits, bucket="192.0.2.1")
        assert (found.verdict is Verdict.BLOCKED) == (wait_s > 0)
        if wait_s:
            assert found.wait_s == wait_s
            assert await pair.left(limits) == [4] * len(limits.all)

    @pytest.mark.parametrize(("left_ms", "wait_s"), [(1001, 2), (1000, 1), (1, 1)])
    async def test_a_block_holds_for_questions_without_a_row_and_for_named_charges(
        self, pair: Pair, left_ms: int, wait_s: int
    ) -> None:
        for _ in range(POLICY.block_after_failures):
            await pair.memory.record_failure("192.0.2.1")
            await pair.redis.record_failure("192.0.2.1")
        pair.now_ms += POLICY.block_for_ms - left_ms
        unknown: dict[str, Any] = {"is_fresh": False, "age_s": None}
        asked: list[dict[str, Any]] = [{"charge": Charge("c", 60)}, unknown, {"cost": None}, {"cost": None, **unknown}]
        for more in asked:
            pair.redis._known_blocks.clear()
            found = await pair.check(hourly(5), bucket="192.0.2.1", **more)
            assert (found.verdict, found.wait_s) == (Verdict.BLOCKED, wait_s)


class TestCalls:
    """Calls as the script gets them from the network: repeated, and from workers with another clock."""

    QUESTIONS = (
        LimitCheck("k", None, hourly(9), ONE_REQUEST, "", 0.0, is_fresh=True, owner_id="o"),
        LimitCheck("k2", None, of(resolved(limit=9)), ONE_REQUEST, "", 0.0, is_fresh=True, owner_id="o"),
        LimitCheck("k3", None, hourly(9, SLIDING), ONE_REQUEST, "", 0.0, True, "o", Charge("c", 60)),
        LimitCheck("k4", None, NO_LIMITS, ONE_REQUEST, "", 0.0, is_fresh=True, owner_id="o"),
    )

    @pytest.mark.parametrize("signs", [False, True])
    async def test_a_call_that_is_sent_twice_is_carried_out_once_and_proves_nothing_the_second_time(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch, signs: bool
    ) -> None:
        monkeypatch.setattr(SingleNodeLimiter, "signs", signs)
        record = CallRecord(is_used=True)
        for number in range(2):
            call = pair.redis._prepare(self.QUESTIONS, Plan(), record)
            first: Any = await pair.run(call)
            assert (len(first), await pair.used()) == (5 * 4, {(MONTH_MS // HOUR_MS, "requests"): number + 1})
            assert [("@" in generation) for generation in first[1::5]] == [signs] * 4
            ((*second,),) = await pair.run(call)
            assert await pair.used() == {(MONTH_MS // HOUR_MS, "requests"): number + 1}
            assert second[1::5] == [""] * 4
            for part in (0, 2, 3, 4):
                assert second[part::5] == first[part::5]
            assert record.name
            assert 60 - SLOW_S < await pair.server.ttl(record.name) <= 60
            record = CallRecord(is_used=True)

    async def test_a_signed_generation_is_current_until_another_server_takes_over(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(SingleNodeLimiter, "signs", True)
        for question in self.QUESTIONS:
            found = await pair.redis.check(question)
            again = question._replace(is_fresh=False, generation=found.generation, charge=None)
            assert (await pair.redis.check(again)).verdict is Verdict.ADMITTED
            (unsigned, _, replica) = found.generation.partition("@")
            for other in (unsigned, f"{unsigned}@{replica[::-1]}"):
                assert (await pair.redis.check(again._replace(generation=other))).verdict is Verdict.STALE

    @pytest.mark.parametrize("skew_ms", [-HOUR_MS - 1, -HOUR_MS, -1, 0, 999, HOUR_MS - 1, HOUR_MS, 2 * HOUR_MS])
    async def test_windows_are_those_of_the_clock_of_redis_whatever_the_clock_of_the_worker(
        self, pair: Pair, skew_ms: int
    ) -> None:
        limits = of(resolved(limit=9, per="hour"), owner=(resolved(name="o", limit=20, per="day"),))
        await pair.check(limits)
        pair.now_ms += skew_ms
        names, args = pair.redis._prepare([LimitCheck("k", None, limits, ONE_REQUEST, "", 0.0, True, "o")], Plan())
        pair.now_ms -= skew_ms
        reply: Any = await pair.run((names, [pair.now_ms, *args[1:]]))
        await pair.memory.check(LimitCheck("k", None, limits, ONE_REQUEST, "", 0.0, True, "o"))
        left = reply[4] if len(reply[4]) == 2 else reply[4][::3]
        assert (reply[0], left) == (0, [7, 18])
        await pair.check(limits)

    async def test_a_memory_that_was_lost_makes_no_earlier_row_current(self, pair: Pair) -> None:
        seen = set()
        for _ in range(3):
            seen.add((await pair.redis.check(self.QUESTIONS[0])).generation)
            await pair.server.flushdb()
        assert len(seen) == 3

    async def test_hourly_limits_of_one_call_may_differ(self, pair: Pair) -> None:
        questions = [LimitCheck(f"k{n}", None, hourly(n), ONE_REQUEST, "", 0.0, True, "o") for n in (3, 5, 4, 7, 6)]
        found = await asyncio.gather(*map(pair.redis.check, questions))
        assert [one.states[0] for one in found] == [2, 4, 3, 6, 5]

    async def test_a_key_that_changed_before_its_first_check_is_stale_without_its_row(self, pair: Pair) -> None:
        await pair.redis.bump_generation("k", "o")
        question = LimitCheck("k", None, hourly(5), ONE_REQUEST, "", None, owner_id=None)
        found = await pair.redis.check(question)
        assert (found.verdict, found.generation) == (Verdict.STALE, "")

    async def test_each_of_many_questions_of_one_call_is_answered_by_its_own_arguments(self, pair: Pair) -> None:
        hour = self.QUESTIONS[0]
        for _ in range(2):
            questions = []
            for number, question in enumerate((*self.QUESTIONS, *self.QUESTIONS[::-1])):
                charge = Charge(f"c{number}", 60)
                questions += [question._replace(charge=charge), question._replace(charge=None), hour]
            reply: Any = await pair.run(pair.redis._prepare(questions, Plan()))
            found = pair.redis._decide(questions, reply)
            expected = [await pair.memory.check(question) for question in questions]
            assert [(one.verdict, one.wait_s, list(one.states)) for one in found] == [
                (one.verdict, one.wait_s, list(one.states)) for one in expected
            ]


class TestExpiry:
    """What is written is kept until nobody needs it, and not for longer."""

    @pytest.mark.parametrize(
        ("limits", "key_life_s", "owner_life_s"),
        [
            (hourly(5), 3600, 0),
            (hourly(5, SLIDING), 7200, 0),
            (of(resolved(limit=5, per="day")), 86_400, 0),
            (
                of(resolved(limit=5, per="day", algorithm=SLIDING), resolved(limit=5, name="2", per="minute")),
                2 * 86_400,
                0,
            ),
            (
                of(resolved(limit=5, per="minute"), owner=(resolved(limit=5, per="day"), resolved(limit=5, name="2"))),
                60,
                86_400,
            ),
            (of(owner=(resolved(limit=5, name="2"), resolved(limit=5, per="day", algorithm=SLIDING))), 0, 2 * 86_400),
            (of(resolved(limit=5, per="month")), 28 * 86_400, 0),
            (NO_LIMITS, 0, 0),
        ],
    )
    async def test_a_hash_is_kept_for_two_hours_after_its_last_window(
        self, pair: Pair, limits: LimitSet, key_life_s: int, owner_life_s: int
    ) -> None:
        await pair.check(limits, ())
        for life_s, tag in ((key_life_s, "k"), (owner_life_s, owner_tag("o"))):
            assert KEEP_S + life_s - SLOW_S < await pair.ttl(tag) <= KEEP_S + life_s

    @pytest.mark.parametrize("limits", [hourly(5), NO_LIMITS, of(resolved(limit=5, per="minute"))])
    async def test_usage_is_kept_for_three_days(self, pair: Pair, limits: LimitSet) -> None:
        await pair.check(limits)
        assert KEEP_USAGE_S - SLOW_S < await pair.ttl("k") <= KEEP_USAGE_S
        await pair.server.expire(f"{pair.namespace}:{{k}}", 60)
        pair.now_ms += HOUR_MS
        await pair.check(limits, (("tokens", 1),))
        assert KEEP_USAGE_S - SLOW_S < await pair.ttl("k") <= KEEP_USAGE_S

    async def test_keys_without_limits_are_kept_while_they_are_used(self, pair: Pair) -> None:
        questions = [LimitCheck(f"k{n}", None, NO_LIMITS, (), "", 0.0, is_fresh=True, owner_id="o") for n in range(3)]
        await asyncio.gather(*map(pair.redis.check, questions))
        for number in range(3):
            await pair.server.expire(f"{pair.namespace}:{{k{number}}}", 60)
        await asyncio.gather(*map(pair.redis.check, questions))
        for number in range(3):
            assert KEEP_S - SLOW_S < await pair.ttl(f"k{number}") <= KEEP_S
        await pair.server.expire(f"{pair.namespace}:{{k0}}", 90_000)
        await pair.redis.check(questions[0])
        assert KEEP_S < await pair.ttl("k0") <= 90_000

    async def test_an_owner_is_kept_for_as_long_as_its_key_is_written(self, pair: Pair) -> None:
        await pair.check(hourly(5))
        await pair.server.expire(f"{pair.namespace}:{{{owner_tag('o')}}}", 60)
        pair.now_ms += HOUR_MS
        await pair.check(hourly(5))
        assert KEEP_S - SLOW_S < await pair.ttl(owner_tag("o")) <= KEEP_S


class TestShortPath:
    """Questions that the first part of the script must leave to the second one, or answer just as well."""

    @pytest.mark.parametrize("of_key", [(), (resolved(limit=99, per="day"),)])
    async def test_the_window_of_an_owner_ends_before_that_of_its_key(self, pair: Pair, of_key: Any) -> None:
        limits = of(*of_key, owner=[resolved(limit=5, per="minute")])
        for _ in range(3):
            assert (await pair.check(limits, (("requests", 4),))).verdict is Verdict.ADMITTED
            assert (await pair.check(limits, (("requests", 4),))).verdict is Verdict.LIMITED
            pair.now_ms += 60_000

    async def test_a_question_that_costs_nothing_begins_no_usage(self, pair: Pair) -> None:
        limits = of(resolved(limit=5, per="day"))
        await pair.check(limits)
        pair.now_ms += HOUR_MS
        for _ in range(2):
            assert (await pair.check(limits, (("requests", 0),))).verdict is Verdict.ADMITTED
        assert await pair.used() == {(MONTH_MS // HOUR_MS, "requests"): 1}
