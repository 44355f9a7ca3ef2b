"""Leases that are renewed before they end, with a clock of the test. `test_leases.py` does it on a real Redis."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fastapi_keyauth.limiter import Decision, Verdict
from fastapi_keyauth.limiter.leases.addresses import ADDRESS_RENEWALS, MAX_LEASE_ADDRESSES, address_check
from fastapi_keyauth.limiter.leases.book import LeaseBook
from fastapi_keyauth.limiter.leases.clock import GRACE_MS, LEASE_SHARE
from fastapi_keyauth.limiter.leases.terms import MAX_SHARE, Grant, Plan
from fastapi_keyauth.telemetry.counters import Counters
from tests.helpers.renewals import ADDRESS, ADMITTED, QUESTION, Lab
from tests.simulation.authority import Authority


def test_renewal_returns_what_was_used_and_asks_for_as_much_as_is_needed() -> None:
    lab = Lab()
    plan = lab.renew()
    assert [(part.used, part.left) for part in plan.returned] == [(11, 0)]
    assert [ask.units for ask in plan.asks] == [13 - 9]  # 11 and a quarter, of which 9 are left
    assert plan.buckets == [ADDRESS]
    assert not lab.book.to_renew


def test_requests_are_admitted_while_a_renewal_is_on_its_way_and_after_it() -> None:
    lab = Lab()
    plan = lab.renew()
    decisions = [lab.book.admit(QUESTION)]
    lab.receive(plan, lab.grant(4, free=891 - 4))
    lab.now += 0.09  # the first lease would have ended long ago
    decisions += [lab.book.admit(QUESTION) for _ in range(13)]
    assert [None if decision is None else decision.states[0] for decision in decisions] == [
        908,
        *range(898, 886, -1),
        None,
    ]
    assert lab.returned() == [(13, 0)]
    assert lab.counters.lease_used == 24


def test_one_request_triggers_a_renewal_and_the_next_ones_do_not() -> None:
    lab = Lab()
    lab.renew()
    assert lab.book.admit(QUESTION) is not None
    assert not lab.book.to_renew
    assert lab.book.plan_renewals() == Plan(buckets=[])
    assert lab.book.plan([QUESTION] * 4).asks == []


def test_allowance_leaves_the_renewal_to_the_book_and_ends_with_the_lease_before() -> None:
    lab = Lab()
    allowance = lab.book.find_allowance(QUESTION)
    assert allowance is not None
    assert allowance.take(ADDRESS) is not None
    lab.now += 0.0975
    assert allowance.take(ADDRESS) is None
    assert lab.book.admit(QUESTION) is not None
    plan = lab.book.plan_renewals()
    plan.mark_sent(lab.now, 0)
    assert allowance.take(ADDRESS) is not None
    lab.receive(plan, lab.grant(4))
    assert allowance.take(ADDRESS) is None


def test_units_that_are_not_needed_any_more_are_returned_with_the_renewal() -> None:
    lab = Lab(units=100)
    plan = lab.renew()
    assert [(part.used, part.left) for part in plan.returned] == [(11, 89 - 13)]
    assert [ask.units for ask in plan.asks] == [1]
    lab.receive(plan, lab.grant(1))
    assert lab.returned() == [(0, 14)]


@pytest.mark.parametrize(
    "grant",
    [
        Lab.grant(4, place="memory owner 500001"),
        Lab.grant(4, place="another owner 500000"),
        Lab.grant(4, hour=500_001),
    ],
    ids=["window", "memory", "hour"],
)
def test_nothing_is_taken_over_into_another_window_or_memory(grant: Grant) -> None:
    lab = Lab()
    lab.receive(lab.renew(), grant)
    assert lab.book.admit(QUESTION) is not None
    assert lab.returned() == [(0, 9), (1, 3)]


def test_lease_that_ends_with_a_window_is_not_renewed() -> None:
    lab = Lab(lasts_ms=99)
    lab.now += 0.0965
    assert lab.book.admit(QUESTION) is not None
    assert not lab.book.to_renew


def test_key_that_is_not_busy_any_more_is_not_renewed() -> None:
    lab = Lab()
    lab.receive(lab.renew(), lab.grant(4))
    lab.now += 0.201  # nothing was sent since
    assert lab.book.admit(QUESTION) is None
    lab = Lab()
    lab.book.to_renew.extend(lab.book._live.values())
    lab.book.end_all()
    assert lab.book.plan_renewals().asks == []


def test_lease_goes_on_until_its_end_if_its_renewal_is_denied_or_fails() -> None:
    for is_denied in (True, False):
        lab = Lab()
        plan = lab.renew()
        if is_denied:
            lab.receive(plan, Grant(0))
        else:
            lab.book.fail(plan)
        assert lab.book.admit(QUESTION) is not None
        lab.now += 0.001
        assert lab.book.admit(QUESTION) is None
        assert lab.returned() == [(1, 8)]
        assert (lab.counters.lease_returned, lab.counters.lease_forfeited) == (0, 0)


def test_renewal_that_arrives_after_the_end_takes_over_what_was_left() -> None:
    lab = Lab()
    plan = lab.renew()
    lab.now += 0.04
    assert lab.book.admit(QUESTION) is None
    assert not lab.book.end_due()
    asked = lab.book.plan([QUESTION])
    assert (asked.returns, asked.asks) == ([], [])
    lab.receive(plan, lab.grant(4, free=887))
    (corrected,) = lab.book.receive(asked, [], 0, [QUESTION], [ADMITTED._replace(states=[886, 1800, 1_800_003_600])])
    assert corrected.states[0] == 886 + 13
    admitted = lab.book.admit(QUESTION)
    assert admitted is not None
    assert admitted.states[0] == 886 + 12
    assert lab.returned() == [(1, 12)]


def test_renewal_that_arrives_when_units_count_as_forfeited_takes_nothing_over() -> None:
    lab = Lab()
    plan = lab.renew()
    lab.now = 100.098 + GRACE_MS * LEASE_SHARE / 1000
    lab.receive(plan, lab.grant(4))
    assert lab.book.admit(QUESTION) is not None
    assert lab.returned() == [(0, 9), (1, 3)]


@pytest.mark.parametrize("cost", [1, 29, 32, 50])
def test_nobody_is_refused_for_units_that_come_back_after_a_late_renewal(cost: int) -> None:
    now, server, admitted = [100.0], Authority(), 0
    book = LeaseBook(100, lambda: now[0], Counters())
    generation = server.generation("k", "o")

    def now_ms() -> int:
        return int(now[0] * 1000)

    def call(plan: Plan) -> None:
        for part in plan.returned:
            server.give_back(part, part.used, part.left, now_ms())
        asks = [replace(ask, generation=generation) for ask in plan.asks]
        book.receive(plan, [server.grant(ask, 100, now_ms()) for ask in asks], 0)

    def renew(after_s: float, requests: int, late_s: float) -> int:
        now[0] += after_s
        count = sum(book.admit(question) is not None for _ in range(requests))
        plan = book.plan_renewals()
        plan.mark_sent(now[0], 0)
        now[0] += late_s
        call(plan)
        ended = book.plan(())  # of the timer
        ended.mark_sent(now[0], 0)
        call(ended)
        return count

    question = QUESTION._replace(bucket=None, generation=f"0:{generation}")
    plan = book.plan([question] * 40)
    plan.mark_sent(now[0], 0)
    call(plan)
    admitted += renew(0.0975, 26, late_s=0.08)
    admitted += renew(0.016, 24, late_s=0.001)
    other = QUESTION._replace(bucket=None, cost=(("requests", cost),), is_fresh=True)
    decision = server.take(other, now_ms())
    while decision.verdict is Verdict.ADMITTED:
        admitted += cost
        decision = server.take(other, now_ms())
    assert (decision.verdict is Verdict.WAITING) == (admitted + cost <= 1000)


def test_renewed_lease_gives_up_what_a_new_one_would_not_get() -> None:
    lab = Lab(units=60)
    for _ in range(40):
        assert lab.book.admit(QUESTION) is not None
    lab.receive(lab.renew(), lab.grant(50, free=100))  # others have used up most of the rest
    plan = lab.renew()
    assert [(part.used, part.left) for part in plan.returned] == [(1, 58 - (100 + 58) // MAX_SHARE)]
    assert [ask.units for ask in plan.asks] == [52 + 52 // 4 - 9]
    lab.receive(plan, lab.grant(9, free=0))
    plan = lab.renew()
    assert [(part.used, part.left) for part in plan.returned] == [(1, 16)]
    assert lab.book.admit(QUESTION) is not None


def test_lease_that_is_over_is_returned_if_its_renewal_fails_or_its_row_changes() -> None:
    lab = Lab()
    plan = lab.renew()
    lab.now += 0.05
    assert not lab.book.end_due()
    lab.book.fail(plan)
    assert lab.book.end_due()
    assert lab.returned() == [(0, 9)]
    lab = Lab()
    lab.renew()
    assert lab.book.admit(QUESTION._replace(generation="0:h.o")) is None
    assert lab.book.end_due()


def test_the_longer_calls_take_the_earlier_leases_are_renewed() -> None:
    lab = Lab()
    plan = lab.renew()
    lab.now += 0.02
    lab.receive(plan, lab.grant(40))
    ends_at = plan.sent_at + 0.098
    lab.now = ends_at - 0.0432
    assert lab.book.admit(QUESTION) is not None
    assert not lab.book.to_renew
    lab.now = ends_at - 0.0429
    assert lab.book.admit(QUESTION) is not None
    assert lab.book.to_renew


def test_requests_that_waited_for_a_lease_count_for_the_whole_time_of_the_call() -> None:
    now = [100.0]
    book = LeaseBook(100, lambda: now[0], Counters())
    question = QUESTION._replace(bucket=None)
    plan = book.plan([question] * 40)
    plan.mark_sent(now[0], 0)
    now[0] += 0.08
    book.receive(plan, [Lab.grant(50)], 0)
    for _ in range(30):  # they waited behind the call
        assert book.admit(question) is not None
    (ask,) = book.plan_renewals().asks
    assert ask.units == 50 - 20  # for 40 in 100 ms, and a quarter more, of which 20 are left


def test_addresses_are_checked_again_with_some_renewals() -> None:
    lab = Lab()
    lab.book.note_unblocked([QUESTION._replace(bucket="192.0.2.2")], [ADMITTED], lab.now)
    for number in range(ADDRESS_RENEWALS + 2):
        plan = lab.renew()
        assert set(plan.buckets) == ({ADDRESS, "192.0.2.2"} if number < ADDRESS_RENEWALS else {ADDRESS})
        lab.receive(plan, lab.grant(20))
        for _ in range(10):
            assert lab.book.admit(QUESTION) is not None
    some = [QUESTION._replace(bucket=f"192.0.2.{number}") for number in range(3, 20)]
    lab.book.note_unblocked(some, [ADMITTED] * len(some), lab.now)
    assert len(lab.renew().buckets) == MAX_LEASE_ADDRESSES


def test_address_that_is_blocked_meanwhile_is_not_admitted_after_a_renewal() -> None:
    lab = Lab()
    plan = lab.renew()
    lab.book.receive(plan, [lab.grant(4)], 0)
    lab.book.note_unblocked([address_check(ADDRESS)], [Decision(Verdict.BLOCKED)], plan.sent_at)
    assert lab.book.admit(QUESTION) is not None  # by what is known since before, which the block outlasts
    lab.now += 0.001
    assert lab.book.admit(QUESTION) is None
