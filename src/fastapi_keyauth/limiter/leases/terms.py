"""The types that pass between a worker and the limiter. The units of a lease are requests of one cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fastapi_keyauth.domain.limit_sets import Cost, LimitSet

MAX_SHARE = 16
"""A lease gets at most one part in this many of what is left, as in ``lua/take_others.lua``."""

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
        is_void: Whether the lease must be returned immediately: what it was requested for has changed meanwhile.
    """

    key_id: str
    owner_id: str
    limits: LimitSet
    cost: Cost
    generation: str
    units: int
    sent_at: float = 0.0
    epoch: int = 0
    is_void: bool = False

    @property
    def name(self) -> LeaseName:
        """The key and the cost."""
        return self.key_id, self.cost


class Grant(NamedTuple):
    """The answer to a ``LeaseAsk``.

    Attributes:
        units: Requests that the lease admits; 0: no lease.
        lasts_ms: Milliseconds from the grant until the lease ends.
        hour: The hour of the limiter's clock, in hours since 1970. It does not end before the lease.
        wait_s: As in ``Decision``.
        states: As in ``Decision``: what is left after all units of the lease.
        stamp: What the limiter needs to recognize the lease when it is returned: when the lease ends, a space, and then
            its place.
    """

    units: int
    lasts_ms: int = 0
    hour: int = 0
    wait_s: int = 0
    states: Sequence[int] = ()
    stamp: str = ""

    @property
    def place(self) -> str:
        """The server, the memory and the windows where its units were charged. Opaque."""
        return self.stamp.partition(" ")[2]


BalanceName = tuple[bool, str, str, int]
"""Whether a counter is the owner's, the id of the key or owner, the counter's id, and the end of its window."""


class Balance:
    """The units that are left of one counter in one window, as far as this worker knows.

    Args:
        name: The counter and the window.

    Attributes:
        name: As above.
        left: Units that are left, with those that this worker's leases hold.
        shares: Leases that hold units of it, and what each of their requests costs.
    """

    __slots__ = ("left", "name", "shares")

    def __init__(self, name: BalanceName) -> None:
        self.name = name
        self.left = 0
        self.shares: dict[Lease, int] = {}

    def held(self) -> int:
        """Return the units that this worker's leases hold."""
        return sum(lease.left * cost for lease, cost in self.shares.items())


class Lease:
    """A lease that was granted.

    Attributes:
        ask: The request for it.
        grant: The answer.
        costs: The units that a request costs, for each limit.
        began_at: When it was requested, or last returned what it had admitted, on the lease clock.
        ends_at: When it ends, on the lease clock. Long ago, once it has ended.
        renew_at: When it should be renewed, or its end if it should not.
        units: Number of requests that it is still to account for: those that it was granted or took over from the lease
            before it, without those that were already returned.
        left: Number of requests that it still admits.
        balances: What is left of each limit.
        addresses: Addresses that are checked for blocks when it is renewed, and how often still.
    """

    __slots__ = (
        "addresses",
        "ask",
        "balances",
        "began_at",
        "costs",
        "ends_at",
        "generation",
        "grant",
        "left",
        "limits",
        "renew_at",
        "units",
    )

    def __init__(self, ask: LeaseAsk, grant: Grant, began_at: float, ends_at: float) -> None:
        self.ask = ask
        self.grant = grant
        self.generation = ask.generation
        self.limits = ask.limits
        self.costs = ask.limits.costs(ask.cost)
        self.began_at = began_at
        self.ends_at = self.renew_at = ends_at
        self.units = self.left = grant.units
        self.addresses: dict[str, int] = {}
        self.balances: tuple[Balance, ...] = ()

    def share(self) -> int:
        """Return the maximum number of requests that it may hand on when it is renewed: as many as a new lease would
        admit by what it says is left, and at least 1.
        """
        shares = [
            balance.left // (MAX_SHARE * cost) for balance, cost in zip(self.balances, self.costs, strict=True) if cost
        ]
        return max(1, min(shares, default=self.left))

    def split(self, unused: int) -> "Lease":
        """Return the part of this lease that is returned while the rest goes on: what it has admitted until now.

        Args:
            unused: Number of requests that it gives up besides.
        """
        part = Lease(self.ask, self.grant, self.began_at, self.ends_at)
        part.units, part.left, part.balances = self.used + unused, unused, self.balances
        self.left -= unused
        self.units = self.left
        return part

    def continues(self, before: "Lease") -> bool:
        """Return whether this lease may take over what another one still admits: both are for the same row, and were
        charged to the same counters, in the same windows.
        """
        return (
            self.generation == before.generation
            and self.limits is before.limits
            and self.grant.hour == before.grant.hour
            and self.grant.place == before.grant.place
        )

    def take_over(self, before: "Lease") -> None:
        """Take over what another lease still admits, and what it is to account for."""
        self.left += before.left
        self.units += before.units
        self.began_at = before.began_at
        before.left = before.units = 0
        before.end()

    def end(self) -> None:
        """Have its allowances admit nothing more."""
        self.ends_at = self.renew_at = -math.inf

    def take(self) -> None:
        """Admit one request."""
        self.left -= 1
        for balance, cost in zip(self.balances, self.costs, strict=True):
            balance.left -= cost

    def states(self) -> Sequence[int]:
        """Return what is left of each limit, with what this worker's leases still hold; see ``Decision``."""
        if len(self.balances) == 1:
            return (self.balances[0].left, *self.grant.states[1:3])
        found = list(self.grant.states)
        for position, balance in enumerate(self.balances):
            found[3 * position] = balance.left
        return found

    @property
    def name(self) -> LeaseName:
        """The key and the cost."""
        return self.ask.name

    @property
    def used(self) -> int:
        """Number of requests that it has admitted, without those that were already returned."""
        return self.units - self.left


@dataclass(slots=True)
class Plan:
    """The part of a call to the limiter that concerns leases.

    Attributes:
        returns: Leases that have ended.
        asks: Leases that are requested.
        buckets: Addresses to check for blocks.
        returned: Those of ``returns`` whose unused units the call returns.
        counted: Those of ``returns`` of which the call only reports the used units. They are of another epoch: the
            server may have been replaced, and not know them.
        sent_at: Time on the lease clock, just before the call was sent.
        epoch: The epoch of the limiter in which it was sent. -1: not sent yet.
    """

    returns: list[Lease] = field(default_factory=list)
    asks: list[LeaseAsk] = field(default_factory=list)
    buckets: Sequence[str] = ()
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
