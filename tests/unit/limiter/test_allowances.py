"""Allowances, which admit requests without a question: when they end, and what they charge."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost, LimitSet, limit_set
from fastapi_keyauth.domain.limits import hour_limit
from fastapi_keyauth.limiter import LimitCheck, MemoryLimiter, Verdict
from fastapi_keyauth.limiter.leases.book import LeaseBook
from fastapi_keyauth.limiter.leases.clock import LEASE_SHARE
from fastapi_keyauth.limiter.leases.terms import Grant
from fastapi_keyauth.limiter.protocol import Allowance, Decision, Policy
from fastapi_keyauth.telemetry.counters import Counters
from tests.helpers.limits import resolved

BUCKET = "192.0.2.1"
HOURLY = limit_set((hour_limit(10).model_copy(update={"algorithm": "fixed_window"}),), ())


class Memory:
    """A limiter in memory, and the question that an allowance is for."""

    def __init__(self, limits: LimitSet = HOURLY, starts_at: float = 7200.0, max_age_s: float = 0.5) -> None:
        self.now = starts_at
        self.limiter = MemoryLimiter(Policy(3, 60_000, 120_000), max_age_s, lambda: self.now, lambda: self.now)
        self.question = LimitCheck("k", BUCKET, limits, ONE_REQUEST, "", 0.0, True, "o")
        generation = self.limiter.try_decide(self.question).generation
        self.question = self.question._replace(generation=generation, is_fresh=False)

    def find(self) -> Allowance:
        """Return the allowance."""
        assert self.limiter.try_decide(self.question).verdict is Verdict.ADMITTED
        found = self.limiter.find_allowance(self.question)
        assert found is not None
        return found


async def test_memory_allowance_decides_as_the_limiter_does_until_the_limit_is_used_up() -> None:
    memory = Memory()
    allowance = memory.find()
    decision = allowance.decision
    assert (decision.verdict, decision.generation, decision.hour) == (Verdict.ADMITTED, memory.question.generation, 2)
    assert (decision.usage, decision.states) == (ONE_REQUEST, (8, 3600, 10_800))
    assert [allowance.take(BUCKET) for _ in range(4)] == [(left, 3600, 10_800) for left in (7, 6, 5, 4)]
    assert memory.limiter.try_decide(memory.question).states[0] == 3
    assert [allowance.take(BUCKET) is None for _ in range(5)] == [False, False, False, True, True]
    assert memory.limiter.try_decide(memory.question).verdict is Verdict.LIMITED


@pytest.mark.parametrize(
    "change",
    [
        lambda limiter: limiter.bump_generation("k", "o"),
        lambda limiter: limiter.bump_owner_generation("o"),
        lambda limiter: limiter.record_failure(BUCKET),
    ],
    ids=["key", "owner", "address"],
)
async def test_memory_allowance_ends_with_a_change(change: Callable[[MemoryLimiter], object]) -> None:
    memory = Memory()
    allowance = memory.find()
    assert allowance.take(BUCKET) is not None
    await change(memory.limiter)  # type: ignore[misc]  # each returns a coroutine
    assert allowance.take(BUCKET) is None


async def test_memory_allowance_ends_with_the_age_of_the_row_and_before_the_hour() -> None:
    memory = Memory()
    allowance = memory.find()
    memory.now += 0.5
    assert allowance.take(BUCKET) is None
    memory = Memory(starts_at=7199.9)
    allowance = memory.find()
    memory.now += 0.09
    assert allowance.take(BUCKET) is not None
    memory.now += 0.009
    assert allowance.take(BUCKET) is None


async def test_memory_allowance_ends_after_a_second_however_old_a_row_may_be() -> None:
    memory = Memory(max_age_s=3600.0)
    allowance = memory.find()
    memory.now += 0.999
    assert allowance.take(BUCKET) is not None
    memory.now += 0.001
    assert allowance.take(BUCKET) is None


async def test_memory_limiter_has_allowances_for_nothing_but_an_hourly_limit_of_a_recent_row() -> None:
    memory = Memory()
    assert memory.limiter.find_allowance(memory.question._replace(key_id="other")) is None
    assert memory.limiter.find_allowance(memory.question._replace(age_s=None)) is None
    await memory.limiter.record_failure(BUCKET)
    assert memory.limiter.find_allowance(memory.question) is None
    for limits in (limit_set((), ()), limit_set((resolved(name="m", limit=5, per="minute"),), ())):
        other = Memory(limits)
        assert other.limiter.find_allowance(other.question) is None


class Book:
    """A book with a lease of four requests, and the question that it is for."""

    def __init__(
        self,
        limits: LimitSet,
        states: list[int],
        *,
        cost: Cost = ONE_REQUEST,
        lasts_ms: int = 100,
        known_at: float = 100.0,
    ) -> None:
        self.now = 100.0
        self.counters = Counters()
        self.book = LeaseBook(100, lambda: self.now, self.counters)
        self.question = LimitCheck("k", BUCKET, limits, cost, "0:g.o", 1.0, False, "o")
        plan = self.book.plan([self.question] * 4)
        plan.mark_sent(self.now, 0)
        self.book.receive(plan, [Grant(4, lasts_ms, 500_000, 1800, states, "s")], 0)
        self.book.note_unblocked([self.question], [Decision(Verdict.ADMITTED)], known_at)
        self.first = self.book.admit(self.question)

    def find(self) -> Allowance:
        """Return the allowance."""
        found = self.book.find_allowance(self.question)
        assert found is not None
        return found


def test_lease_allowance_leaves_the_last_request_to_the_book_which_ends_the_lease() -> None:
    book = Book(HOURLY, [900, 1800, 9000])
    allowance = book.find()
    assert allowance.decision == book.first == (Verdict.ADMITTED, "0:g.o", 1800, 500_000, *allowance.decision[4:])
    assert (allowance.decision.usage, allowance.decision.states) == ((), (903, 1800, 9000))
    assert [allowance.take(BUCKET) for _ in range(3)] == [(902, 1800, 9000), (901, 1800, 9000), None]
    last = book.book.admit(book.question)
    assert last is not None
    assert last.states == (900, 1800, 9000)
    assert book.book.find_allowance(book.question) is None
    assert book.counters.lease_used == 4


def test_lease_allowance_charges_what_a_request_costs() -> None:
    book = Book(HOURLY, [900, 1800, 9000], cost=(("requests", 2),))
    allowance = book.find()
    assert allowance.decision.states == (906, 1800, 9000)
    assert [allowance.take(BUCKET) for _ in range(2)] == [(904, 1800, 9000), (902, 1800, 9000)]


@pytest.mark.parametrize(
    ("lasts_ms", "known_at", "ends_at"),
    [
        (50, 100.0, 100.0 + 50 * LEASE_SHARE / 1000),
        (100, 99.95, 99.95 + 100 * LEASE_SHARE / 1000),
    ],
    ids=["lease", "address"],
)
def test_lease_allowance_has_ended_when_its_lease_ends_or_its_address_may_be_blocked(
    lasts_ms: int, known_at: float, ends_at: float
) -> None:
    book = Book(HOURLY, [900, 1800, 9000], lasts_ms=lasts_ms, known_at=known_at)
    allowance = book.find()
    book.now = ends_at - 0.00001
    assert allowance.take(BUCKET) is not None
    book.now = ends_at
    assert allowance.take(BUCKET) is None
    assert book.book.admit(book.question) is None


def test_lease_allowance_states_all_limits() -> None:
    minute, tokens = resolved(name="m", limit=50, per="minute"), resolved(name="t", limit=1000, unit="tokens")
    book = Book(limit_set((minute, tokens), ()), [40, 5, 60, 900, 1800, 9000])
    assert book.find().take(BUCKET) == [42, 5, 60, 900, 1800, 9000]


@pytest.mark.parametrize(
    "end",
    [
        lambda book: book.book.end_all(),
        lambda book: book.book.forget_address(BUCKET),
        lambda book: book.book.admit(book.question._replace(generation="0:h.o")),
        lambda book: setattr(book, "now", book.now + 0.098),
    ],
    ids=["reconnected", "blocked", "changed", "over"],
)
def test_lease_allowance_ends_with_its_lease_or_what_is_known_of_the_address(
    end: Callable[[Book], object],
) -> None:
    book = Book(HOURLY, [900, 1800, 9000])
    allowance = book.find()
    assert allowance.take(BUCKET) is not None
    assert allowance.take("192.0.2.2") is None
    end(book)
    assert allowance.take(BUCKET) is None
    book.book.end_all()
    (returned,) = book.book.plan(()).returns
    assert (returned.used, returned.left) == (2, 2)
