"""The leases of one worker, with a clock of the test."""

from __future__ import annotations

import pytest

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, limit_set
from fastapi_keyauth.domain.limits import hour_limit
from fastapi_keyauth.limiter import Decision, LimitCheck, Verdict
from fastapi_keyauth.limiter.leases.book import LeaseBook
from fastapi_keyauth.limiter.leases.terms import Grant, Plan
from fastapi_keyauth.limiter.protocol import Charge
from fastapi_keyauth.telemetry.counters import Counters

LIMITS = limit_set((hour_limit(1000).model_copy(update={"algorithm": "fixed_window"}),), ())
QUESTION = LimitCheck("k", None, LIMITS, ONE_REQUEST, "0:g.o", 1.0, False, "o")
OF_OTHER_OWNER = QUESTION._replace(key_id="l", owner_id="p")
HOLD = QUESTION._replace(charge=Charge("c", 60, is_hold=True))
GRANT = Grant(3, 100, 500_000, 1800, [900, 1800, 1_800_003_600], "s")


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
        self.book.receive(plan, [GRANT._replace(units=units)], 0)
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
    lab.now = 100.09795
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
        HOLD,
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
    assert not lab.book.has_leases
    assert lab.plan().counted == []  # nothing was used


def test_grant_that_arrives_at_the_end_of_its_lease_is_returned() -> None:
    lab = Lab()
    plan = lab.plan(4)
    lab.now = plan.sent_at + 0.098
    lab.book.receive(plan, [Grant(3, 100, 0, 1, [900, 1, 2], "s")], 0)
    assert not lab.book.has_leases
    assert [(lease.used, lease.left) for lease in lab.plan().returned] == [(0, 3)]


@pytest.mark.parametrize(
    "question",
    [
        QUESTION._replace(cost=None),
        QUESTION._replace(age_s=None),
        QUESTION._replace(owner_id=None),
        QUESTION._replace(is_fresh=True),
        HOLD,
        QUESTION._replace(charge=Charge("c", 60, ONE_REQUEST)),
    ],
    ids=["no cost", "no age", "no owner", "fresh", "reserved", "settled"],
)
def test_no_lease_is_requested_for_requests_that_none_could_admit(question: LimitCheck) -> None:
    lab = Lab()
    assert lab.plan(40, question=question).asks == []
    assert lab.plan(3).asks == []  # nor do they make the key busy


def test_busy_period_is_as_long_as_a_lease() -> None:
    lab = Lab()
    lab.plan(3)
    lab.now += 0.09995
    assert len(lab.plan(1).asks) == 1
    lab = Lab()
    lab.plan(3)
    lab.now += 0.1001
    assert lab.plan(1).asks == []


@pytest.mark.parametrize("charge", [Charge("c", 60, is_hold=True), Charge("c", 60, ONE_REQUEST)])
def test_reservation_ends_the_leases_of_its_owner_and_those_that_are_requested(charge: Charge) -> None:
    lab = Lab()
    lab.lease()
    lab.lease(question=OF_OTHER_OWNER)
    other_key, other = QUESTION._replace(key_id="j"), OF_OTHER_OWNER._replace(key_id="m")
    asked = lab.plan(4, question=other_key)
    asked_by_other = lab.plan(4, question=other)
    assert len(asked.asks) == len(asked_by_other.asks) == 1
    plan = lab.plan(question=other_key._replace(charge=charge))
    assert [lease.ask.key_id for lease in plan.returned] == ["k"]
    assert lab.book.admit(QUESTION) is None
    assert lab.book.admit(OF_OTHER_OWNER) is not None
    for call in (asked, asked_by_other):
        lab.book.receive(call, [GRANT], 0)
    assert lab.book.admit(other_key) is None
    assert lab.book.admit(other) is not None
    assert [lease.ask.key_id for lease in lab.plan().returned] == ["j"]


def test_leases_are_returned_once_and_only_those_of_the_owners_of_the_call() -> None:
    lab = Lab()
    lab.lease()
    lab.lease(question=OF_OTHER_OWNER)
    lab.book.end_all()
    for owners, returned in (({"x"}, []), ({"p", "x"}, ["l"]), ({"p"}, []), ({"o"}, ["k"]), (None, [])):
        assert [lease.ask.key_id for lease in lab.book.plan((), owners).returns] == returned


def test_timer_runs_until_the_first_lease_ends() -> None:
    lab = Lab()
    assert lab.book.next_end_s() is None
    assert not lab.book.end_due()
    lab.lease()
    lab.now += 0.05
    lab.lease(question=OF_OTHER_OWNER)
    assert lab.book.next_end_s() == pytest.approx(0.048)
    lab.now += 0.04
    assert lab.book.next_end_s() == pytest.approx(0.008)
    lab.now += 0.01
    assert lab.book.next_end_s() == 0
    assert lab.book.end_due() is True
    assert lab.book.next_end_s() == 0
    assert [lease.ask.key_id for lease in lab.plan().returned] == ["k"]
    assert lab.book.next_end_s() == pytest.approx(0.048)
    assert lab.book.end_due() is False
    assert lab.book.has_leases


def test_counters_say_what_became_of_the_units_of_leases() -> None:
    lab = Lab()
    lab.lease(5)
    assert (lab.counters.leases_granted, lab.counters.lease_units) == (1, 5)
    for _ in range(3):
        lab.book.admit(QUESTION)
    lab.book.end_all()
    assert (lab.counters.lease_used, lab.counters.lease_trips_saved) == (3, 2)
    lab.book.receive(lab.plan(0), [], 0)
    assert (lab.counters.lease_returned, lab.counters.lease_forfeited) == (2, 0)
    lab.now += 1
    lab.lease(4)
    assert (lab.counters.leases_granted, lab.counters.lease_units) == (2, 9)
    lab.book.end_all()
    assert (lab.counters.lease_used, lab.counters.lease_trips_saved) == (3, 2)  # it saved nothing
    lab.book.fail(lab.plan(0))
    assert (lab.counters.lease_returned, lab.counters.lease_forfeited) == (2, 4)


def test_lease_can_be_requested_again_after_a_call_that_failed() -> None:
    lab = Lab()
    plan = lab.plan(4)
    lab.book.fail(plan)
    assert len(lab.plan(1).asks) == 1


def test_units_of_a_call_that_failed_are_not_stated_as_left_any_more() -> None:
    lab = Lab()
    lab.lease(5)
    lab.book.end_all()
    lab.lease(5)  # the call that returns the first lease
    lab.book.fail(lab.plan(0))
    decision = Decision(Verdict.ADMITTED, states=[890, 1800, 1_800_003_600])
    (corrected,) = lab.book.receive(lab.plan(0), [], 0, [QUESTION], [decision])
    assert corrected.states[0] == 895


def test_key_with_a_lease_is_not_leased_again_for_requests_that_need_a_call() -> None:
    lab = Lab()
    lab.lease()
    assert lab.plan(8, question=QUESTION._replace(bucket="192.0.2.1")).asks == []
    assert lab.book.admit(QUESTION) is not None


def test_changed_key_is_leased_again_by_the_call_that_returns_its_lease() -> None:
    lab = Lab()
    lab.lease()
    plan = lab.plan(4, question=QUESTION._replace(generation="0:h.o"))
    assert [ask.generation for ask in plan.asks] == ["0:h.o"]
    assert [lease.generation for lease in plan.returned] == ["0:g.o"]


def test_addresses_are_asked_about_again_after_all_leases_were_ended() -> None:
    lab = Lab()
    asked = QUESTION._replace(bucket="192.0.2.1")
    lab.lease(question=asked)
    lab.book.end_all()
    plan = lab.plan(4)
    lab.book.receive(plan, [GRANT], 0)
    assert lab.book.admit(asked) is None
    assert lab.book.admit(QUESTION) is not None


def test_next_lease_is_as_large_as_the_time_needs_in_which_the_last_one_was_used_up() -> None:
    lab = Lab()
    lab.lease(10)
    lab.now += 0.05
    for _ in range(10):
        assert lab.book.admit(QUESTION) is not None
    (ask,) = lab.plan(1).asks
    assert ask.units == 21 + 21 // 4  # 20 in 100 ms, and this request
