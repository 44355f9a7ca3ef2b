"""A book of leases just before a lease is renewed, with a clock of the test."""

from __future__ import annotations

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, limit_set
from fastapi_keyauth.domain.limits import hour_limit
from fastapi_keyauth.limiter import Decision, LimitCheck, Verdict
from fastapi_keyauth.limiter.leases.addresses import address_check
from fastapi_keyauth.limiter.leases.book import LeaseBook
from fastapi_keyauth.limiter.leases.terms import Grant, Plan
from fastapi_keyauth.telemetry.counters import Counters

LIMITS = limit_set((hour_limit(1000).model_copy(update={"algorithm": "fixed_window"}),), ())
ADDRESS = "192.0.2.1"
QUESTION = LimitCheck("k", ADDRESS, LIMITS, ONE_REQUEST, "0:g.o", 1.0, False, "o")
PLACE = "memory owner 500000"
UNBLOCKED = Decision(Verdict.STALE)
ADMITTED = Decision(Verdict.ADMITTED)


class Lab:
    """A book, its clock and its counters, with a lease of 20 requests that has admitted ten."""

    def __init__(self, lasts_ms: int = 100, units: int = 20) -> None:
        self.now = 100.0
        self.counters = Counters()
        self.book = LeaseBook(100, lambda: self.now, self.counters)
        plan = self.book.plan([QUESTION] * 4)
        plan.mark_sent(self.now, 0)
        self.book.receive(plan, [self.grant(units, lasts_ms)], 0)
        self.book.note_unblocked([QUESTION], [ADMITTED], plan.sent_at)
        for _ in range(10):
            assert self.book.admit(QUESTION) is not None

    @staticmethod
    def grant(units: int, lasts_ms: int = 100, *, place: str = PLACE, hour: int = 500_000, free: int = 900) -> Grant:
        return Grant(units, lasts_ms, hour, 1800, [free, 1800, 1_800_003_600], f"123 {place}")

    def renew(self) -> Plan:
        """Send a request shortly before the lease ends; return what is sent."""
        self.now += 0.0975
        assert self.book.admit(QUESTION) is not None
        plan = self.book.plan_renewals()
        plan.mark_sent(self.now, 0)
        return plan

    def receive(self, plan: Plan, grant: Grant) -> None:
        """Receive the answer to a renewal."""
        self.book.receive(plan, [grant], 0)
        self.book.note_unblocked(list(map(address_check, plan.buckets)), [UNBLOCKED] * len(plan.buckets), plan.sent_at)

    def returned(self) -> list[tuple[int, int]]:
        """Return what is returned at the end: requests that were admitted, and that were not."""
        self.book.end_all()
        return [(lease.used, lease.left) for lease in self.book.plan(()).returns]
