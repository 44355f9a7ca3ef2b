"""The leases of one worker. No I/O; the clock is passed in."""

from collections.abc import Callable, Collection, Sequence

from fastapi_keyauth.limiter.leases.addresses import UnblockedAddresses, note_address
from fastapi_keyauth.limiter.leases.allowance import LeaseAllowance, decision_of
from fastapi_keyauth.limiter.leases.balances import Balances
from fastapi_keyauth.limiter.leases.clock import GRACE_MS, LEASE_SHARE
from fastapi_keyauth.limiter.leases.demand import Demand
from fastapi_keyauth.limiter.leases.terms import Grant, Lease, LeaseAsk, LeaseName, Plan
from fastapi_keyauth.limiter.protocol import BLOCKED, Decision, LimitCheck
from fastapi_keyauth.telemetry.counters import Counters

MIN_ELAPSED_S = 0.001
"""Minimum duration of a lease in seconds, for computing how busy its key is."""
MIN_AHEAD_S = 0.003
"""Minimum number of seconds before its end at which a lease is renewed. To this, the duration of the last call is added
twice."""
MAX_AHEAD_SHARE = 0.5
"""Maximum share of its duration by which a lease is renewed before its end."""


class LeaseBook:
    """Admits requests from leases, and plans which leases to request and which to return.

    Args:
        lease_ms: Maximum duration of a lease.
        clock: The lease clock, in seconds.
        counters: Counters of leases.

    Attributes:
        to_renew: Leases that should be renewed; see ``plan_renewals``.
    """

    def __init__(self, lease_ms: int, clock: Callable[[], float], counters: Counters) -> None:
        self.lease_ms = lease_ms
        self._clock = clock
        self._counters = counters
        self._live: dict[LeaseName, Lease] = {}
        self._ended: list[Lease] = []
        """Leases that have ended and are not returned yet."""
        self._asking: dict[LeaseName, LeaseAsk] = {}
        """Requests for leases that are not answered yet."""
        self._balances = Balances()
        self.to_renew: list[Lease] = []
        self._demand = Demand(lease_ms / 1000)
        self._unblocked = UnblockedAddresses(lease_ms)

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
            self._is_alive(lease, question.generation, now)
            return None
        if lease.limits is not question.limits or not self._unblocked.covers(question.bucket, now):
            return None
        lease.take()
        decision = decision_of(lease)
        if not lease.left:
            self._end(lease, now)
        elif now >= lease.renew_at:
            lease.renew_at = lease.ends_at
            note_address(lease, question.bucket)
            self.to_renew.append(lease)
        return decision

    def find_allowance(self, question: LimitCheck) -> LeaseAllowance | None:
        """Return what admits further requests from the lease that has just admitted a question."""
        lease = self._live.get((question.key_id, question.cost))  # type: ignore[arg-type]  # as in ``admit``
        return None if lease is None else LeaseAllowance(lease, self._clock, self._unblocked.until)

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
            if not _is_plain(question):
                self._end_of_owner(question.owner_id or "", now)
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
            if lease is not None and self._is_alive(lease, generation, now):
                continue
            units = self._demand.units_to_ask(name)
            if units and name not in self._asking:
                asks[name] = LeaseAsk(key_id, owner_id or "", limits, cost or (), generation, units)
        self._asking |= asks
        if owners is None:
            returns, self._ended = self._ended, []
        else:
            returns = [lease for lease in self._ended if lease.ask.owner_id in owners]
            self._ended = [lease for lease in self._ended if lease.ask.owner_id not in owners]
        return Plan(returns, list(asks.values()))

    def plan_renewals(self) -> Plan:
        """Return what a call says that renews leases before they end, so that no request has to wait for it.

        The call returns what the leases have admitted, and units that are not needed any more. The rest goes on
        admitting requests, and the new lease takes it over.
        """
        now = self._clock()
        self._demand.advance(now)
        plan, buckets = Plan(), dict[str, None]()
        for lease in self.to_renew:
            name = lease.name
            if now >= lease.ends_at or name in self._asking:
                continue
            self._note_demand(lease, now)
            units = self._demand.units_to_ask(name)
            if not units:
                continue
            part = lease.split(max(0, lease.left - min(units, lease.share())))
            self._balances.share(part)
            self._count_used(part)
            lease.began_at = now
            ask, needed = lease.ask, max(1, units - lease.left)
            plan.returns.append(part)
            again = LeaseAsk(ask.key_id, ask.owner_id, ask.limits, ask.cost, ask.generation, needed)
            plan.asks.append(again)
            buckets |= dict.fromkeys(lease.addresses)
            self._asking[name] = again
        self.to_renew.clear()
        plan.buckets = list(buckets)
        return plan

    def receive(
        self,
        plan: Plan,
        grants: Sequence[Grant],
        epoch: int,
        questions: Sequence[LimitCheck] = (),
        decisions: Sequence[Decision] = (),
    ) -> list[Decision]:
        """Receive the answer to a call: store the leases that were granted, and count those that were returned.

        Args:
            plan: The plan.
            grants: One for each of ``plan.asks``, in order.
            epoch: The current epoch of the limiter.
            questions: The questions of the call.
            decisions: The answers, after what was returned and before what was granted.

        Returns:
            The decisions, with the units that this worker's leases hold.
        """
        now = self._clock()
        for lease in plan.returns:
            self._count_return(lease, is_returned=lease in plan.returned)
        corrected = [self._balances.correct(*pair) for pair in zip(questions, decisions, strict=True)]
        for ask, grant in zip(plan.asks, grants, strict=True):
            self._asking.pop(ask.name, None)
            if not grant.units:
                self._demand.deny(ask.name)
                continue
            self._counters.leases_granted += 1
            self._counters.lease_units += grant.units
            lease = Lease(ask, grant, ask.sent_at, ask.sent_at + grant.lasts_ms * LEASE_SHARE / 1000)
            self._balances.join(lease)
            if ask.epoch == epoch and now < lease.ends_at and not ask.is_void:
                self._begin(lease, now)
            else:
                self._ended.append(lease)
        return corrected

    def _begin(self, lease: Lease, now: float) -> None:
        """Have a lease admit requests, in place of the one before."""
        before = self._live.get(lease.name)
        if before is not None:
            lease.addresses = {bucket: left - 1 for bucket, left in before.addresses.items() if left > 1}
            # Later, the limiter may no longer count its units among those that others have to wait for.
            if lease.continues(before) and now < before.ends_at + GRACE_MS * LEASE_SHARE / 1000:
                lease.take_over(before)
                self._balances.leave(before, is_returned=True)
            else:
                self._end(before, now)
        self._live[lease.name] = lease
        if lease.grant.lasts_ms == self.lease_ms:  # otherwise a window ends with it, and the next one knows no lease
            ahead_s = MIN_AHEAD_S + 2 * (now - lease.ask.sent_at)
            lease.renew_at = max(now, lease.ends_at - ahead_s, lease.ends_at - MAX_AHEAD_SHARE * self.lease_ms / 1000)

    def fail(self, plan: Plan) -> None:
        """Record that a call failed. It may have been executed, so nothing in it is sent again."""
        for ask in plan.asks:
            self._asking.pop(ask.name, None)
        for lease in plan.returns:
            self._count_return(lease, is_returned=False)

    def note_unblocked(self, questions: Sequence[LimitCheck], decisions: Sequence[Decision], sent_at: float) -> None:
        """Cache that the addresses of requests with leased keys were not blocked.

        Args:
            questions: The questions of a call, which may be those of ``address_check``.
            decisions: The answers.
            sent_at: Time on the lease clock, just before the call was sent.
        """
        if not self._live:
            return
        for question, decision in zip(questions, decisions, strict=True):
            bucket = question.bucket
            if bucket is None or decision.verdict is BLOCKED:
                continue
            lease = self._live.get((question.key_id, question.cost))  # type: ignore[arg-type]  # as in ``admit``
            if lease is not None:
                note_address(lease, bucket)
            if lease is not None or not question.key_id:
                self._unblocked.add(bucket, sent_at)

    def forget_address(self, bucket: str) -> None:
        """Remove an address from those cached as not blocked."""
        self._unblocked.forget(bucket)

    def end_all(self) -> None:
        """End all leases before their time is over."""
        now = self._clock()
        self._unblocked.clear()
        for lease in list(self._live.values()):
            self._end(lease, now)

    def end_due(self) -> bool:
        """End the leases whose time is over. Return whether any leases must be returned."""
        now = self._clock()
        for lease in list(self._live.values()):
            self._is_alive(lease, lease.generation, now)
        return bool(self._ended)

    def next_end_s(self) -> float | None:
        """Return the seconds until a lease must be returned. None if there are no leases."""
        if self._ended:
            return 0.0
        if not self._live:
            return None
        return max(0.0, min(lease.ends_at for lease in self._live.values()) - self._clock())

    def _is_alive(self, lease: Lease, generation: str, now: float) -> bool:
        """Return whether a lease goes on. End it if its time is over, or if its row has changed.

        While it is being renewed, it admits nothing more after its time, but is not returned: the new lease takes over
        what it still has.
        """
        if lease.generation == generation and (now < lease.ends_at or lease.name in self._asking):
            return True
        self._end(lease, now)
        return False

    def _end(self, lease: Lease, now: float) -> None:
        del self._live[lease.name]
        self._count_used(lease)
        self._ended.append(lease)
        self._note_demand(lease, now)
        lease.end()  # its allowances are still in use, and its units are about to be returned

    def _note_demand(self, lease: Lease, now: float) -> None:
        elapsed = max(min(now, lease.ends_at) - lease.began_at, MIN_ELAPSED_S)
        self._demand.note(lease.name, int(lease.used * max(1.0, self.lease_ms / 1000 / elapsed)))

    def _count_used(self, lease: Lease) -> None:
        self._counters.lease_used += lease.used
        self._counters.lease_trips_saved += max(0, lease.used - 1)

    def _end_of_owner(self, owner_id: str, now: float) -> None:
        """End the leases of an owner's keys: a reservation is charged or settled, which may leave a debt."""
        for lease in list(self._live.values()):
            if lease.ask.owner_id == owner_id:
                self._end(lease, now)
        for ask in self._asking.values():
            if ask.owner_id == owner_id:
                ask.is_void = True

    def _count_return(self, lease: Lease, *, is_returned: bool) -> None:
        self._balances.leave(lease, is_returned=is_returned)
        if is_returned:
            self._counters.lease_returned += lease.left
        else:
            self._counters.lease_forfeited += lease.left


def _is_plain(question: LimitCheck) -> bool:
    """Return whether a charge is final. A reservation is not: the limiter must know it in order to settle it."""
    charge = question.charge
    return charge is None or (charge.actual is None and not charge.is_hold)
