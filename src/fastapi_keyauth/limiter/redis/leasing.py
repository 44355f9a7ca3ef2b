"""The leases of a worker, between its limiter on Redis and the book of leases: a clock, a timer, and replies."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

from fastapi_keyauth.limiter.leases.book import LeaseBook
from fastapi_keyauth.limiter.leases.clock import SteppedClock, lease_clock
from fastapi_keyauth.limiter.leases.terms import Grant, Plan
from fastapi_keyauth.limiter.protocol import Allowance, Decision, LimitCheck
from fastapi_keyauth.telemetry.counters import Counters

RETURN_AFTER_S = 0.01
"""Seconds after the end of a lease at which a call is made only to return it. Until then, the next request of a busy
key makes a call that also returns the lease. Redis expects units back within 50 ms."""


class Leasing:
    """The leases of one worker. Use it from one event loop.

    Args:
        lease_ms: See the setting. 0: there are no leases.
        clock: Seconds since 1970, in place of the clock of Redis; for tests.
        counters: Where leases are counted.
        send: Makes a call that carries no questions of requests.
    """

    def __init__(
        self,
        lease_ms: int,
        clock: Callable[[], float] | None,
        counters: Counters,
        send: Callable[[Plan], object],
    ) -> None:
        self._now = lease_clock() if clock is None else SteppedClock(clock, lease_clock())
        self._book = LeaseBook(lease_ms, self._now, counters) if lease_ms else None
        self._send = send
        self._timer: asyncio.TimerHandle | None = None
        self._returning: dict[int, asyncio.Future[None]] = {}
        """Calls in flight that return leases, by the identity of their plan."""

    def admit(self, question: LimitCheck) -> Decision | None:
        """Admit a request from a lease, or return None."""
        book = self._book
        if book is None:
            return None
        decision = book.admit(question)
        if book.to_renew:
            # Now, not in the next turn of the event loop: with many requests, a turn takes a good part of a lease.
            self._send(self._tracked(book.plan_renewals()))
        return decision

    def find_allowance(self, question: LimitCheck) -> Allowance | None:
        """Return what admits further requests from the lease that has just admitted a question."""
        return None if self._book is None else self._book.find_allowance(question)

    def plan(self, questions: Sequence[LimitCheck], owners: Collection[str] | None = None) -> Plan:
        """Return what the next call says about leases; see ``LeaseBook.plan``."""
        if self._book is None:
            return Plan()
        return self._tracked(self._book.plan(questions, owners))

    def _tracked(self, plan: Plan) -> Plan:
        if plan.returns:
            self._returning[id(plan)] = asyncio.get_running_loop().create_future()
        return plan

    def settle(self, plan: Plan) -> None:
        """Note that the call with a plan has ended."""
        returning = self._returning.pop(id(plan), None)
        if returning is not None:
            returning.set_result(None)

    async def returned(self) -> None:
        """Wait until no call is in flight that returns leases."""
        if self._returning:
            await asyncio.wait(list(self._returning.values()))

    def now(self) -> float:
        """Return the time on the lease clock, in seconds."""
        return self._now()

    def mark_sent(self, plan: Plan, epoch: int, *, is_repeatable: bool = False) -> None:
        """Note that a call is about to be sent; see ``Plan.mark_sent``."""
        if self._book is not None:
            plan.mark_sent(self._now(), epoch, is_repeatable=is_repeatable)

    def receive(
        self, questions: Sequence[LimitCheck], decisions: list[Decision], plan: Plan, grants: Sequence[Any], epoch: int
    ) -> list[Decision]:
        """Take the answer to a call, and return the decisions, with what this worker holds.

        Args:
            questions: The questions.
            decisions: The answers, which were given before leases were granted.
            plan: What the call said about leases.
            grants: The items of ``lua/take.lua`` about grants.
            epoch: The epoch of the limiter now.
        """
        book = self._book
        if book is None:
            return decisions
        self.settle(plan)
        decisions = book.receive(plan, read_grants(grants), epoch, questions, decisions)
        if book.has_leases:
            book.note_unblocked(questions, decisions, plan.sent_at)
        self._set_timer(book)  # also if all leases came too late to be used
        return decisions

    def note_unblocked(self, question: LimitCheck, decision: Decision, sent_at: float) -> None:
        """Note that an address was not blocked at a moment on the lease clock."""
        if self._book is not None:
            self._book.note_unblocked((question,), (decision,), sent_at)

    def fail(self, plan: Plan) -> None:
        """Note that a call failed."""
        self.settle(plan)
        if self._book is not None:
            self._book.fail(plan)

    def forget_address(self, bucket: str) -> None:
        """Forget that an address was not blocked."""
        if self._book is not None:
            self._book.forget_address(bucket)

    def end_all(self) -> None:
        """End all leases."""
        if self._book is not None:
            self._book.end_all()

    def end(self) -> Plan:
        """End all leases, and return what to say about them."""
        self.end_all()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return self.plan(())

    def _set_timer(self, book: LeaseBook) -> None:
        if self._timer is None:
            next_end_s = book.next_end_s()
            if next_end_s is not None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(next_end_s + RETURN_AFTER_S, self._return_due, book)

    def _return_due(self, book: LeaseBook) -> None:
        self._timer = None
        if book.end_due():
            self._send(self.plan(()))
        self._set_timer(book)


def read_grants(items: Sequence[Any]) -> list[Grant]:
    """Return the grants in the reply of ``lua/take.lua``."""
    fields = iter(items)
    return [_read_grant(*item) for item in zip(*[fields] * 5, strict=True)]


def _read_grant(units: int, stamp: str, hour: int, wait_s: int, states: list[int]) -> Grant:
    return Grant(units, states.pop(), hour, wait_s, states, stamp) if units else Grant(0)
