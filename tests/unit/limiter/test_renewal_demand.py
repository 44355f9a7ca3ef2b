"""When leases are renewed, for how many requests, and what is left meanwhile; with a clock of the test."""

from __future__ import annotations

from fastapi_keyauth.limiter import Decision, Verdict
from fastapi_keyauth.limiter.leases.clock import GRACE_MS, LEASE_SHARE
from fastapi_keyauth.limiter.leases.terms import Plan
from tests.helpers.renewals import ADMITTED, QUESTION, Lab

ENDS_AT = 100.0 + 100 * LEASE_SHARE / 1000
"""When the first lease of a lab ends."""


def renewals_at(lab: Lab, now: float) -> int:
    """Return the number of leases that should be renewed after a request at a time."""
    lab.now = now
    assert lab.book.admit(QUESTION) is not None
    return len(lab.book.to_renew)


def test_lease_is_renewed_three_milliseconds_before_its_end() -> None:
    assert renewals_at(Lab(), ENDS_AT - 0.0031) == 0
    assert renewals_at(Lab(), ENDS_AT - 0.0029) == 1


def test_lease_is_not_renewed_before_half_of_its_time_however_long_calls_take() -> None:
    for early_s, renewals in ((0.0501, 0), (0.04998, 1)):
        lab = Lab()
        plan = lab.renew()
        lab.now += 0.04
        lab.receive(plan, lab.grant(40))
        assert renewals_at(lab, plan.sent_at + 0.098 - early_s) == renewals


def test_lease_that_arrives_in_its_second_half_is_renewed_with_its_first_request() -> None:
    lab = Lab()
    plan = lab.renew()
    lab.now += 0.07
    lab.receive(plan, lab.grant(40))
    assert renewals_at(lab, lab.now) == 1


def test_lease_is_not_renewed_after_its_end() -> None:
    for late_s in (0.0, 0.001):
        lab = Lab()
        assert renewals_at(lab, ENDS_AT - 0.0005) == 1
        lab.now = ENDS_AT + late_s
        assert lab.book.plan_renewals() == Plan(buckets=[])


def test_demand_of_a_renewed_lease_is_measured_since_its_renewal() -> None:
    lab = Lab(units=100)
    lab.receive(lab.renew(), lab.grant(50))
    for _ in range(40):
        assert lab.book.admit(QUESTION) is not None
    (ask,) = lab.renew().asks  # 41 in 97.5 ms are 42 in 100 ms
    assert ask.units == 42 + 42 // 4 - (13 + 50 - 41)


def test_renewals_follow_a_demand_that_falls() -> None:
    lab = Lab(units=90)
    for _ in range(70):
        assert lab.book.admit(QUESTION) is not None
    lab.receive(lab.renew(), lab.grant(90))  # 81 requests
    for _ in range(2):
        lab.receive(lab.renew(), lab.grant(20))  # one request each
    assert lab.book.plan_renewals().asks == []
    lab.now += 0.0975
    assert lab.book.admit(QUESTION) is not None
    assert lab.book.plan_renewals().asks == []  # the key is not busy any more


def test_units_that_a_renewal_gives_up_are_left_until_the_call_fails() -> None:
    lab = Lab(units=100)
    plan = lab.renew()
    assert [(part.used, part.left) for part in plan.returned] == [(11, 76)]
    decision = ADMITTED._replace(states=[800, 1800, 1_800_003_600])
    (corrected,) = lab.book.receive(Plan(), [], 0, [QUESTION], [decision])
    assert corrected.states[0] == 800 + 13 + 76
    lab.book.fail(plan)
    admitted = lab.book.admit(QUESTION)
    assert admitted is not None
    assert admitted.states[0] == 800 + 13 - 1
    assert (lab.counters.lease_returned, lab.counters.lease_forfeited) == (0, 76)


def test_units_that_a_renewal_gives_up_are_left_after_it() -> None:
    lab = Lab(units=100)
    lab.receive(lab.renew(), lab.grant(1, free=900))
    assert (lab.counters.lease_returned, lab.counters.lease_forfeited) == (76, 0)
    assert (lab.counters.leases_granted, lab.counters.lease_units) == (2, 101)
    admitted = lab.book.admit(QUESTION)
    assert admitted is not None
    assert admitted.states[0] == 900 + 13 + 1 - 1


def test_renewal_that_arrives_just_before_units_count_as_forfeited_takes_over_what_was_left() -> None:
    lab = Lab()
    plan = lab.renew()
    lab.now = ENDS_AT + GRACE_MS * LEASE_SHARE / 1000 - 0.00001
    lab.receive(plan, lab.grant(4))
    assert lab.returned() == [(0, 13)]


def test_nothing_is_leased_any_more_once_renewed_leases_are_returned() -> None:
    lab = Lab()
    lab.receive(lab.renew(), lab.grant(4))
    lab.book.end_all()
    ended = lab.book.plan(())
    ended.mark_sent(lab.now, 0)
    lab.book.receive(ended, [], 0)
    assert not lab.book.has_leases
    decision = Decision(Verdict.ADMITTED, states=(800, 1800, 1_800_003_600))
    (corrected,) = lab.book.receive(Plan(), [], 0, [QUESTION], [decision])
    assert corrected is decision
