"""The leases of one worker. No I/O; the clock is passed in."""

import math
from collections.abc import Callable, Collection, Sequence

from fastapi_keyauth.concurrency.bounded_dict import BoundedDict
from fastapi_keyauth.limiter.leases.allowance import LeaseAllowance, decision_of
from fastapi_keyauth.limiter.leases.clock import LEASE_SHARE
from fastapi_keyauth.limiter.leases.demand import Demand
from fastapi_keyauth.limiter.leases.terms import Grant, Lease, LeaseAsk, LeaseName, Plan
from fastapi_keyauth.limiter.protocol import ADMITTED, BLOCKED, Decision, LimitCheck
from fastapi_keyauth.telemetry.counters import Counters

MAX_ADDRESSES = 10_000
"""Maximum number of addresses that a worker caches as not blocked."""
MIN_ELAPSED_S = 0.001
"""Minimum duration of a lease in seconds, for computing how busy its key is."""


class LeaseBook:
    """Admits requests from leases, and plans which leases to request and which to return.

    Args:
        lease_ms: Maximum duration of a lease.
        clock: The lease clock, in seconds.
        counters: Counters of leases.
    """

    def __init__(self, lease_ms: int, clock: Callable[[], float], counters: Counters) -> None:
        self.lease_ms = lease_ms
        self._clock = clock
        self._counters = counters
        self._live: dict[LeaseName, Lease] = {}
        self._ended: list[Lease] = []
        """Leases that have ended and are not returned yet."""
        self._asking: set[LeaseName] = set()
        self._demand = Demand(lease_ms / 1000)
        self._unblocked_until: BoundedDict[str, float] = BoundedDict(MAX_ADDRESSES)

    @property
    def has_leases(self) -> bool:
        """Whether this worker has a lease."""
        return bool(self._live)

    def admit(self, question: LimitCheck) -> Decision | None:
        """Admit a request from a lease. Return None if the limiter must decide.

        Args:
            question: The question about a request.
        """
        lease = self._live.get((question.key_id, question.cost))  # type: ignore[arg-type]  # no lease has the cost None
        if lease is None or question.is_fresh or not _is_plain(question):
            return None
        now = self._clock()
        if now >= lease.ends_at or lease.generation != question.generation:
            self._end(lease, now)
            return None
        if lease.limits is not question.limits:
            return None
        bucket = question.bucket
        if bucket is not None and self._unblocked_until.get(bucket, -math.inf) <= now:
            return None
        lease.left -= 1
        decision = decision_of(lease)
        if not lease.left:
            self._end(lease, now)
        return decision

    def find_allowance(self, question: LimitCheck) -> LeaseAllowance | None:
        """Return what admits further requests from the lease that has just admitted a question."""
        lease = self._live.get((question.key_id, question.cost))  # type: ignore[arg-type]  # as in ``admit``
        return None if lease is None else LeaseAllowance(lease, self._clock, self._unblocked_until)

    def correct(self, question: LimitCheck, decision: Decision) -> Decision:
        """Return a decision of the limiter, with the units that this worker's lease still has added."""
        lease = self._live.get((question.key_id, question.cost))  # type: ignore[arg-type]  # as in ``admit``
        if lease is None or lease.limits is not question.limits or decision.verdict is not ADMITTED:
            return decision
        states = list(decision.states)
        for position, cost in enumerate(lease.costs):
            states[3 * position] += lease.left * cost
        return decision._replace(states=states)

    def plan(self, questions: Sequence[LimitCheck], owners: Collection[str] | None = None) -> Plan:
        """Return the leases that the next call requests and returns.

        Args:
            questions: The questions of the call.
            owners: Return only leases of these owners. None: all leases.
        """
        now = self._clock()
        self._demand.advance(now)
        asked: dict[LeaseName, LimitCheck] = {}
        for question in questions:
            if question.cost is None or question.age_s is None or question.owner_id is None:
                continue
            # A row that was read for one request cannot admit others, and an earlier call has counted that request.
            if question.is_fresh or not _is_plain(question):
                continue
            name = (question.key_id, question.cost)
            self._demand.add(name)
            asked[name] = question
        asks: dict[LeaseName, LeaseAsk] = {}
        for name, (key_id, _, limits, cost, generation, _, _, owner_id, _) in asked.items():
            lease = self._live.get(name)
            if lease is not None and now < lease.ends_at and lease.generation == generation:
                continue
            if lease is not None:
                self._end(lease, now)
            units = self._demand.units_to_ask(name)
            if units and name not in self._asking:
                asks[name] = LeaseAsk(key_id, owner_id or "", limits, cost or (), generation, units)
        self._asking.update(asks)
        if owners is None:
            returns, self._ended = self._ended, []
        else:
            returns = [lease for lease in self._ended if lease.ask.owner_id in owners]
            self._ended = [lease for lease in self._ended if lease.ask.owner_id not in owners]
        return Plan(returns, list(asks.values()))

    def receive(self, plan: Plan, grants: Sequence[Grant], epoch: int) -> None:
        """Store the leases that were granted, and count those that were returned.

        Args:
            plan: The plan.
            grants: One for each of ``plan.asks``, in order.
            epoch: The current epoch of the limiter.
        """
        now = self._clock()
        for lease in plan.returns:
            self._count_return(lease, is_returned=lease in plan.returned)
        for ask, grant in zip(plan.asks, grants, strict=True):
            name = (ask.key_id, ask.cost)
            self._asking.discard(name)
            if not grant.units:
                self._demand.deny(name)
                continue
            self._counters.leases_granted += 1
            self._counters.lease_units += grant.units
            lease = Lease(ask, grant, now, ask.sent_at + grant.lasts_ms * LEASE_SHARE / 1000)
            if ask.epoch == epoch and now < lease.ends_at and name not in self._live:
                self._live[name] = lease
            else:
                self._ended.append(lease)

    def fail(self, plan: Plan) -> None:
        """Record that a call failed. It may have been executed, so nothing in it is sent again."""
        self._asking.difference_update((ask.key_id, ask.cost) for ask in plan.asks)
        for lease in plan.returns:
            self._count_return(lease, is_returned=False)

    def note_unblocked(self, questions: Sequence[LimitCheck], decisions: Sequence[Decision], sent_at: float) -> None:
        """Cache that the addresses of requests with leased keys were not blocked.

        Args:
            questions: The questions of a call.
            decisions: The answers.
            sent_at: Time on the lease clock, just before the call was sent.
        """
        if not self._live:
            return
        until = sent_at + self.lease_ms * LEASE_SHARE / 1000
        for question, decision in zip(questions, decisions, strict=True):
            if (
                question.bucket is not None
                and decision.verdict is not BLOCKED
                and (question.key_id, question.cost) in self._live
            ):
                self._unblocked_until[question.bucket] = max(until, self._unblocked_until.get(question.bucket, until))

    def forget_address(self, bucket: str) -> None:
        """Remove an address from those cached as not blocked."""
        self._unblocked_until.pop(bucket, None)

    def end_all(self) -> None:
        """End all leases before their time is over."""
        now = self._clock()
        self._unblocked_until.clear()
        for lease in list(self._live.values()):
            self._end(lease, now)

    def end_due(self) -> bool:
        """End the leases whose time is over. Return whether any leases must be returned."""
        now = self._clock()
        for lease in [lease for lease in self._live.values() if lease.ends_at <= now]:
            self._end(lease, now)
        return bool(self._ended)

    def next_end_s(self) -> float | None:
        """Return the seconds until a lease must be returned. None if there are no leases."""
        if self._ended:
            return 0.0
        if not self._live:
            return None
        return max(0.0, min(lease.ends_at for lease in self._live.values()) - self._clock())

    def _end(self, lease: Lease, now: float) -> None:
        del self._live[lease.name]
        self._counters.lease_used += lease.used
        self._counters.lease_trips_saved += max(0, lease.used - 1)
        self._ended.append(lease)
        elapsed = max(min(now, lease.ends_at) - lease.began_at, MIN_ELAPSED_S)
        self._demand.note(lease.name, int(lease.used * max(1.0, self.lease_ms / 1000 / elapsed)))
        lease.ends_at = -math.inf  # its allowances are still in use, and its units are about to be returned

    def _count_return(self, lease: Lease, *, is_returned: bool) -> None:
        if is_returned:
            self._counters.lease_returned += lease.left
        else:
            self._counters.lease_forfeited += lease.left


def _is_plain(question: LimitCheck) -> bool:
    """Return whether a charge is final. A reservation is not: the limiter must know it in order to settle it."""
    charge = question.charge
    return charge is None or (charge.actual is None and not charge.is_hold)
