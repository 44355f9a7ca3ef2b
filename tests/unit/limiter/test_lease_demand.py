"""The demand for keys, which decides whether a lease is requested, and for how many requests."""

from __future__ import annotations

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST
from fastapi_keyauth.limiter.leases.demand import MAX_UNITS, MIN_RECENT, Demand

NAME = ("k", ONE_REQUEST)


class Lab:
    """The demand for one key. The clock begins at 0, and a period lasts half a second."""

    def __init__(self) -> None:
        self.demand = Demand(0.5)

    def ask(self, now: float, requests: int = 0) -> int:
        """Count requests at a time; return the number of units to request then."""
        self.demand.advance(now)
        for _ in range(requests):
            self.demand.add(NAME)
        return self.demand.units_to_ask(NAME)


def test_lease_is_requested_for_a_quarter_more_than_one_period_needed() -> None:
    assert Lab().ask(0.0, MIN_RECENT - 1) == 0
    assert Lab().ask(0.0, 4) == 5
    assert Lab().ask(0.0, 21) == 26
    lab = Lab()
    lab.demand.note(NAME, 10 * MAX_UNITS)
    assert lab.ask(0.0) == MAX_UNITS


def test_period_and_the_one_before_count() -> None:
    lab = Lab()
    assert lab.ask(0.25, 8) == 10
    assert lab.ask(0.5) == 10
    assert lab.ask(0.75, 4) == 10
    assert lab.ask(1.0) == 5
    assert lab.ask(1.25) == 5
    assert lab.ask(1.5) == 0


def test_requests_of_several_periods_are_not_added_up() -> None:
    lab = Lab()
    assert [lab.ask(0.5 * period, 3) for period in range(6)] == [0] * 6


def test_nothing_counts_after_two_periods_without_a_request() -> None:
    lab = Lab()
    lab.ask(0.0, 8)
    assert lab.ask(1.0) == 0
    lab.ask(1.0, 8)
    assert lab.ask(1.99) == 10


def test_denied_lease_is_not_requested_again_in_the_same_period() -> None:
    lab = Lab()
    lab.ask(0.0, 8)
    lab.demand.deny(NAME)
    assert lab.ask(0.25, 8) == 0
    assert lab.ask(0.5) == 20


def test_lease_that_was_not_used_does_not_count_as_a_request() -> None:
    lab = Lab()
    lab.demand.note(NAME, 0)
    assert lab.ask(0.0, MIN_RECENT - 1) == 0


def test_most_requests_of_a_period_count() -> None:
    lab = Lab()
    lab.ask(0.0, 8)
    lab.demand.note(NAME, 4)
    assert lab.ask(0.0) == 10
    lab.demand.note(NAME, 40)
    assert lab.ask(0.0) == 50
