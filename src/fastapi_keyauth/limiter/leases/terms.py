"""The types that pass between a worker and the limiter. The units of a lease are requests of one cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fastapi_keyauth.domain.limit_sets import Cost, LimitSet

LeaseName = tuple[str, Cost]
"""The id of a key, and the cost of a request. A worker has at most one lease for each pair."""


@dataclass(slots=True)
class LeaseAsk:
    """A request for a lease.

    Attributes:
        key_id: The key.
        owner_id: Its owner.
        limits: Their limits.
        cost: The cost of each request.
        generation: The generation of the row that the lease is for.
        units: Maximum number of requests that the lease would admit.
        sent_at: Time on the lease clock, just before it was sent. If it was sent twice, before the second time.
        epoch: The epoch of the limiter in which it was sent.
    """

    key_id: str
    owner_id: str
    limits: LimitSet
    cost: Cost
    generation: str
    units: int
    sent_at: float = 0.0
    epoch: int = 0


class Grant(NamedTuple):
    """The answer to a ``LeaseAsk``.

    Attributes:
        units: Requests that the lease admits; 0: no lease.
        lasts_ms: Milliseconds from the grant until the lease ends.
        hour: The hour of the limiter's clock, in hours since 1970. It does not end before the lease.
        wait_s: As in ``Decision``.
        states: As in ``Decision``: what is left after all units of the lease.
        stamp: What the limiter needs to recognize the lease when it is returned. Opaque.
    """

    units: int
    lasts_ms: int = 0
    hour: int = 0
    wait_s: int = 0
    states: Sequence[int] = ()
    stamp: str = ""


class Lease:
    """A lease that was granted.

    Attributes:
        ask: The request for it.
        grant: The answer.
        costs: The units that a request costs, for each limit.
        began_at: When it was received, on the lease clock.
        ends_at: When it ends, on the lease clock. Long ago, once it has ended.
        left: Number of requests that it still admits.
    """

    __slots__ = ("ask", "began_at", "costs", "ends_at", "generation", "grant", "left", "limits")

    def __init__(self, ask: LeaseAsk, grant: Grant, began_at: float, ends_at: float) -> None:
        self.ask = ask
        self.grant = grant
        self.generation = ask.generation
        self.limits = ask.limits
        self.costs = ask.limits.costs(ask.cost)
        self.began_at = began_at
        self.ends_at = ends_at
        self.left = grant.units

    def states(self) -> Sequence[int]:
        """Return what is left of each limit, including what this lease still admits; see ``Decision``."""
        states, costs = self.grant.states, self.costs
        if len(costs) == 1:
            return (states[0] + self.left * costs[0], states[1], states[2])
        found = list(states)
        for position, cost in enumerate(costs):
            found[3 * position] += self.left * cost
        return found

    @property
    def name(self) -> LeaseName:
        """The key and the cost."""
        return self.ask.key_id, self.ask.cost

    @property
    def used(self) -> int:
        """Number of requests that it has admitted."""
        return self.grant.units - self.left


@dataclass(slots=True)
class Plan:
    """The part of a call to the limiter that concerns leases.

    Attributes:
        returns: Leases that have ended.
        asks: Leases that are requested.
        returned: Those of ``returns`` whose unused units the call returns.
        counted: Those of ``returns`` of which the call only reports the used units. They are of another epoch: the
            server may have been replaced, and not know them.
        sent_at: Time on the lease clock, just before the call was sent.
        epoch: The epoch of the limiter in which it was sent. -1: not sent yet.
    """

    returns: list[Lease] = field(default_factory=list)
    asks: list[LeaseAsk] = field(default_factory=list)
    returned: list[Lease] = field(default_factory=list)
    counted: list[Lease] = field(default_factory=list)
    sent_at: float = 0.0
    epoch: int = -1

    def mark_sent(self, now: float, epoch: int, *, is_repeatable: bool = False) -> None:
        """Record that the call is about to be sent, perhaps for the second time.

        Args:
            now: Time on the lease clock.
            epoch: The epoch of the limiter.
            is_repeatable: Whether the limiter carries out the call once, however often it is sent.
        """
        if self.epoch < 0:
            self.returned = [lease for lease in self.returns if lease.ask.epoch == epoch]
            self.counted = [lease for lease in self.returns if lease.ask.epoch != epoch and lease.used]
        elif self.epoch != epoch:
            # The connection was lost. The first call may have been executed, so nothing in it is repeated, unless the
            # limiter knows that. Even then the server may be another one, to which the units do not belong.
            self.returned, self.counted = [], [lease for lease in self.returns if lease.used and is_repeatable]
        self.sent_at, self.epoch = now, epoch
        for ask in self.asks:
            ask.sent_at, ask.epoch = now, epoch
