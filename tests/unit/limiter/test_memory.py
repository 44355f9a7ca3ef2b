"""The limiter in memory by itself: reservations, generations, blocks and the numbers in its decisions."""

from __future__ import annotations

import pytest

from fastapi_keyauth.domain.limit_sets import Cost
from fastapi_keyauth.domain.usage import UsageOf
from fastapi_keyauth.limiter import Decision, MemoryLimiter, Verdict, memory
from fastapi_keyauth.limiter.protocol import SETTLED_S, Charge, Policy
from tests.helpers.limits import question, resolved

ADDRESS = "192.0.2.1"
HOUR = 3600
START = 2 * HOUR + 600.0  # ten minutes into the third hour


def cost_of(units: int) -> Cost:
    """Return a cost in requests."""
    return (("requests", units),)


class Lab:
    """A limiter and its clock."""

    def __init__(self) -> None:
        self.now = START
        self.limiter = MemoryLimiter(Policy(3, 60_000, 120_000), 0.5, lambda: self.now, lambda: self.now)

    def ask(self, units: int = 1, limit: int | None = 100, charge: Charge | None = None) -> Decision:
        """Ask about a request of a key with an hourly limit."""
        return self.limiter.try_decide(question(limit=limit, cost=cost_of(units), charge=charge, owner_id="o"))

    def hold(self, units: int = 10, name: str = "c") -> Decision:
        """Reserve units for a minute."""
        return self.ask(units, charge=Charge(name, 60, is_hold=True))

    def settle(self, actual: int, units: int = 10, name: str = "c") -> Decision:
        """Settle a reservation."""
        return self.ask(units, charge=Charge(name, 60, cost_of(actual)))


@pytest.mark.parametrize(("actual", "left"), [(3, 97), (10, 90), (25, 75), (0, 100)])
def test_reservation_is_settled_once_with_what_was_used(actual: int, left: int) -> None:
    lab = Lab()
    held = lab.hold()
    assert (held.verdict, held.states[0], held.usage) == (Verdict.ADMITTED, 90, ())
    settled = lab.settle(actual)
    assert (settled.verdict, settled.states[0], settled.usage) == (Verdict.ADMITTED, left, cost_of(actual))
    again = lab.settle(actual)
    assert (again.verdict, again.states[0], again.usage) == (Verdict.ADMITTED, left, ())


def test_reservation_that_is_repeated_charges_nothing_more() -> None:
    lab = Lab()
    assert lab.hold().states[0] == 90
    assert (lab.hold().states[0], lab.hold().usage) == (90, ())
    assert lab.limiter.has_charge("c") is True
    assert lab.limiter.has_charge("d") is False


def test_reservation_that_is_unknown_or_over_is_not_settled() -> None:
    lab = Lab()
    unknown = lab.settle(3)
    assert (unknown.verdict, unknown.states[0], unknown.usage) == (Verdict.ADMITTED, 100, ())
    for after_s, left in ((59.99, 97), (60.0, 90), (60.03, 90)):
        lab = Lab()
        lab.hold()
        lab.now += after_s
        assert lab.settle(3).states[0] == left


def test_reservation_that_arrives_after_its_settlement_charges_nothing_for_a_minute() -> None:
    for after_s, left in ((SETTLED_S - 0.01, 97), (SETTLED_S, 87), (SETTLED_S + 0.03, 87)):
        lab = Lab()
        lab.hold()
        lab.settle(3)
        lab.now += after_s
        assert lab.hold().states[0] == left


def test_every_request_is_charged_what_it_costs_in_the_hour_in_which_it_arrives() -> None:
    lab = Lab()
    assert [lab.ask(units).states[0] for units in (1, 3, 1, 5)] == [99, 96, 95, 90]
    lab.now += HOUR
    assert lab.ask().states[0] == 99


@pytest.mark.parametrize("limit", [100, None])
@pytest.mark.parametrize("units", [1, 3])
def test_decision_states_the_hour_the_wait_and_the_usage(limit: int | None, units: int) -> None:
    lab = Lab()
    for _ in range(2):
        decision = lab.ask(units, limit)
        assert (decision.hour, decision.wait_s, decision.usage) == (2, HOUR - 600, cost_of(units))


def test_refusal_names_the_limits_without_room_and_waits_for_them() -> None:
    lab = Lab()
    limits = (resolved(name="h", limit=5), resolved(name="m", limit=4, per="minute"))
    check = question(key=limits, cost=cost_of(2))
    lab.now += 20
    assert lab.limiter.try_decide(question(key=limits, cost=cost_of(3))).verdict is Verdict.ADMITTED
    refused = lab.limiter.try_decide(check)  # the hour has just enough room
    assert (refused.verdict, refused.wait_s) == (Verdict.LIMITED, 40)
    assert refused.states == [2, HOUR - 620, 3 * HOUR, 1, 40, int(START) + 60, 1]


def test_allowance_lasts_as_long_as_the_row_may_be_used() -> None:
    lab = Lab()
    generation = lab.ask().generation
    check = question(limit=100, age_s=0.3, generation=generation)
    allowance = lab.limiter.find_allowance(check)
    assert allowance is not None
    assert (allowance.decision.wait_s, allowance.decision.states) == (HOUR - 600, (99, HOUR - 600, 3 * HOUR))
    lab.now += 0.19
    assert allowance.take(None) is not None
    lab.now += 0.02
    assert allowance.take(None) is None


def test_no_allowance_without_a_counter_of_this_hour() -> None:
    lab = Lab()
    generation = lab.ask(limit=None).generation
    check = question(limit=100, age_s=0.0, generation=generation)
    assert lab.limiter.find_allowance(check) is None
    lab.ask()
    assert lab.limiter.find_allowance(check) is not None
    lab.now += HOUR
    assert lab.limiter.find_allowance(check) is None


async def test_generations_are_those_of_keys_of_these_owners() -> None:
    lab = Lab()
    assert await lab.limiter.find_generations([("k", "o")]) == [""]
    generation = lab.ask().generation
    assert generation
    found = await lab.limiter.find_generations([("k", "o"), ("k", "p"), ("j", "o")])
    assert found == [generation, "", ""]


async def test_block_is_known_until_it_ends_or_is_removed() -> None:
    lab = Lab()
    assert lab.limiter.known_block_s(ADDRESS) is None
    await lab.limiter.record_failure(ADDRESS)
    assert lab.limiter.known_block_s(ADDRESS) is None
    for _ in range(2):
        await lab.limiter.record_failure(ADDRESS)
    assert lab.limiter.known_block_s(ADDRESS) == 120
    lab.now += 100
    assert lab.limiter.known_block_s(ADDRESS) == 20
    lab.now += 19.9995
    assert await lab.limiter.unblock(ADDRESS) is True  # it had one more millisecond
    assert lab.limiter.known_block_s(ADDRESS) is None
    assert await lab.limiter.unblock(ADDRESS) is False


async def test_address_that_failed_least_recently_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_ADDRESSES", 2)
    lab = Lab()
    for address in ("a", "b", "a", "c"):
        assert await lab.limiter.record_failure(address) is None
    assert await lab.limiter.record_failure("a") == 0
    assert await lab.limiter.blocks() == {"a": 120}


async def test_limiter_in_memory_has_no_usage_to_read_and_no_server_to_check() -> None:
    lab = Lab()
    lab.ask()
    assert await lab.limiter.read_usage([UsageOf("k", "o", None)], 0) == []
    assert await lab.limiter.run_checks() == []
