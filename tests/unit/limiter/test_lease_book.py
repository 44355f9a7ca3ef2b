"""The leases of one worker, with a clock of the test."""

from __future__ import annotations

import pytest

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, limit_set
from fastapi_keyauth.domain.limits import hour_limit
from fastapi_keyauth.limiter import Decision, LimitCheck, Verdict
from fastapi_keyauth.limiter.leases.book import LeaseBook
from fastapi_keyauth.limiter.leases.clock import SteppedClock, lease_clock, outlast_s
from fastapi_keyauth.limiter.leases.terms import Grant, Plan
from fastapi_keyauth.limiter.protocol import Charge
from fastapi_keyauth.telemetry.counters import Counters

LIMITS = limit_set((hour_limit(1000).model_copy(update={"algorithm": "fixed_window"}),), ())
QUESTION = LimitCheck("k", None, LIMITS, ONE_REQUEST, "0:g.o", 1.0, False, "o")


class Lab:
    """A book, its clock and its counters."""

    def __init__(self) -> None:
        self.now = 100.0
        self.counters = Counters()
        self.book = LeaseBook(100, lambda: self.now, self.counters)

    def plan(self, questions: int = 1, epoch: int = 0, question: LimitCheck = QUESTION) -> Plan:
        """Send questions."""
        plan = self.book.plan([question] * questions)
        plan.mark_sent(self.now, epoch)
        return plan

    def lease(self, units: int = 3, question: LimitCheck = QUESTION) -> None:
        """Get a lease for the key of a question, from the server's first moment on."""
        plan = self.plan(4, question=question)
        assert len(plan.asks) == 1
        self.book.receive(plan, [Grant(units, 100, 500_000, 1800, [900, 1800, 1_800_003_600], "s")], 0)
        self.book.note_unblocked([question], [Decision(Verdict.ADMITTED)], plan.sent_at)


def test_requests_are_admitted_until_the_units_are_used_up() -> None:
    lab = Lab()
    lab.lease()
    decisions = [lab.book.admit(QUESTION) for _ in range(4)]
    assert [None if decision is None else decision.states[0] for decision in decisions] == [902, 901, 900, None]
    assert decisions[0] is not None
    assert decisions[0][:4] == (Verdict.ADMITTED, "0:g.o", 1800, 500_000)
    (over,) = lab.plan().returned
    assert (over.used, over.left) == (3, 0)


def test_lease_ends_before_its_time_measured_from_the_question() -> None:
    lab = Lab()
    plan = lab.plan(4)
    lab.now += 0.05  # the answer takes a while
    lab.book.receive(plan, [Grant(3, 100, 0, 1, [900, 1, 2], "s")], 0)
    lab.now = 100.0979
    assert lab.book.admit(QUESTION) is not None
    lab.now = 100.098
    assert lab.book.admit(QUESTION) is None
    assert lab.plan().returned[0].left == 2


@pytest.mark.parametrize(
    "question",
    [
        QUESTION._replace(generation="0:h.o"),
        QUESTION._replace(cost=(("requests", 2),)),
        QUESTION._replace(cost=None),
        QUESTION._replace(bucket="192.0.2.1"),
        QUESTION._replace(limits=limit_set((), ())),
        QUESTION._replace(is_fresh=True),
        QUESTION._replace(charge=Charge("c", 60, is_hold=True)),
        QUESTION._replace(charge=Charge("c", 60, ONE_REQUEST)),
    ],
)
def test_other_requests_are_not_admitted(question: LimitCheck) -> None:
    lab = Lab()
    lab.lease()
    assert lab.book.admit(question) is None


def test_address_must_have_been_found_unblocked_lately() -> None:
    lab = Lab()
    asked = QUESTION._replace(bucket="192.0.2.1")
    lab.lease(question=asked)
    assert lab.book.admit(asked) is not None
    assert lab.book.admit(asked._replace(bucket="192.0.2.2")) is None
    lab.book.note_unblocked([asked._replace(bucket="192.0.2.2")], [Decision(Verdict.BLOCKED)], lab.now)
    assert lab.book.admit(asked._replace(bucket="192.0.2.2")) is None
    lab.book.forget_address("192.0.2.1")
    assert lab.book.admit(asked) is None


def test_only_busy_keys_are_leased_and_a_denied_lease_is_not_asked_for_again_soon() -> None:
    lab = Lab()
    assert lab.plan(3).asks == []
    plan = lab.plan(1)
    assert [ask.units for ask in plan.asks] == [5]
    assert lab.plan(1).asks == []  # one is on its way
    lab.book.receive(plan, [Grant(0)], 0)
    assert lab.plan(4).asks == []
    lab.now += 0.101
    assert len(lab.plan(4).asks) == 1
    lab.now += 1
    assert lab.plan(3).asks == []


def test_leases_end_with_the_epoch_and_are_only_counted_then() -> None:
    lab = Lab()
    lab.lease()
    lab.book.admit(QUESTION)
    lab.book.end_all()
    assert lab.book.admit(QUESTION) is None
    plan = lab.plan(epoch=1)
    assert plan.returned == []
    assert [lease.used for lease in plan.counted] == [1]


def test_call_that_is_repeated_after_a_lost_connection_returns_nothing_twice() -> None:
    lab = Lab()
    lab.lease()
    lab.book.admit(QUESTION)
    lab.book.end_all()
    plan = lab.plan()
    assert len(plan.returned) == 1
    plan.mark_sent(lab.now, 0)  # the server did not know the script
    assert len(plan.returned) == 1
    plan.mark_sent(lab.now, 1)
    assert (plan.returned, plan.counted) == ([], [])


def test_grant_of_another_epoch_is_not_used() -> None:
    lab = Lab()
    plan = lab.plan(4)
    lab.book.receive(plan, [Grant(3, 100, 0, 1, [900, 1, 2], "s")], epoch=1)
    assert lab.book.admit(QUESTION) is None


def test_changes_wait_for_the_longest_lease_that_is_known() -> None:
    assert outlast_s(100) == pytest.approx(0.102)
    assert outlast_s(0, 80) == pytest.approx(0.0816)
    assert outlast_s(100, 10**9) == pytest.approx(1.02)  # by a clock that was ahead
    assert outlast_s(0) == 0


def test_lease_clock_of_tests_advances_with_both_clocks_and_never_goes_back() -> None:
    now = [1000.0]
    clock = SteppedClock(lambda: now[0], lambda: 5.0)
    assert clock() == 5.0
    now[0] += 3
    assert clock() == 8.0
    now[0] -= 10
    assert clock() == 18.0
    assert lease_clock()() <= lease_clock()()
