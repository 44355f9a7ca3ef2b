"""Balances of the counters that the leases of one worker were charged to. No I/O."""

from collections.abc import Iterator, Sequence

from fastapi_keyauth.domain.limit_sets import LimitSet
from fastapi_keyauth.limiter.leases.terms import Balance, BalanceName, Lease
from fastapi_keyauth.limiter.protocol import Decision, LimitCheck


class Balances:
    """The balances of all counters of which a worker holds leased units.

    The limiter counts leased units as used. So a worker adds those that its own leases still hold to what the limiter
    says is left. Leases share counters: two keys of one owner, and two costs of one key.
    """

    def __init__(self) -> None:
        self._by_name: dict[BalanceName, Balance] = {}

    def join(self, lease: Lease) -> None:
        """Add a lease that was granted. What its grant says is left is the latest that is known."""
        ask, states = lease.ask, lease.grant.states
        lease.balances = tuple(
            self._by_name.setdefault(name, Balance(name))
            for name in _names(ask.key_id, ask.owner_id, ask.limits, states)
        )
        self.share(lease)
        for position, balance in enumerate(lease.balances):
            balance.left = states[3 * position] + balance.held()

    @staticmethod
    def share(lease: Lease) -> None:
        """Add a lease, or a part of one, to those that hold units of its balances."""
        for balance, cost in zip(lease.balances, lease.costs, strict=True):
            balance.shares[lease] = cost

    def leave(self, lease: Lease, *, is_returned: bool) -> None:
        """Remove a lease whose units were returned, or are forfeited."""
        for balance in lease.balances:
            cost = balance.shares.pop(lease, 0)
            if not is_returned:
                balance.left -= lease.left * cost
            if not balance.shares and self._by_name.get(balance.name) is balance:
                del self._by_name[balance.name]

    def correct(self, question: LimitCheck, decision: Decision) -> Decision:
        """Return a decision of the limiter, with the units that this worker's leases still hold added."""
        if not self._by_name or not decision.states:
            return decision
        states = list(decision.states)
        names = _names(question.key_id, question.owner_id or "", question.limits, states)
        for position, name in enumerate(names):
            balance = self._by_name.get(name)
            if balance is not None:
                balance.left = states[3 * position] = states[3 * position] + balance.held()
        return decision._replace(states=states)


def _names(key_id: str, owner_id: str, limits: LimitSet, states: Sequence[int]) -> Iterator[BalanceName]:
    of_key = len(limits.key)
    for position, limit in enumerate(limits.all):
        is_of_owner = position >= of_key
        yield is_of_owner, owner_id if is_of_owner else key_id, limit.counter_id, states[3 * position + 2]
