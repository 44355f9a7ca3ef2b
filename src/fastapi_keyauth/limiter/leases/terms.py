"""What is asked, granted and returned. All numbers of units are in requests of one cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fastapi_keyauth.domain.limit_sets import Cost, LimitSet

LeaseName = tuple[str, Cost]
"""A key's id and the cost of a request: a worker has one lease for each at most."""


@dataclass(slots=True)
class LeaseAsk:
    """A question for a lease.

    Attributes:
        key_id: The key.
        owner_id: Its owner.
        limits: Their limits.
        cost: What each request costs.
        generation: The generation of the row that the lease is for.
        units: Requests to be admitted at most.
        returned: Those of ``returns`` that the call returns.
        counted: Those of which the call only says what was used: the server may not know them.
        sent_at: On the lease clock, the moment before the question was sent, for the last time if it was sent twice.
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
        ask: The question.
        grant: The answer.
        costs: What a request costs of each limit.
        began_at: When it was received, on the lease clock.
        ends_at: From then on it admits nothing, on the lease clock.
        left: Requests that it still admits.
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

    @property
    def name(self) -> LeaseName:
        """The key and the cost."""
        return self.ask.key_id, self.ask.cost

    @property
    def used(self) -> int:
        """Requests that it has admitted."""
        return self.grant.units - self.left


@dataclass(slots=True)
class Plan:
    """What one call to the limiter says about leases, beside its questions.

    Attributes:
        returns: Leases that are over.
        asks: Leases that are wanted.
        sent_at: On the lease clock, the moment before the call was sent.
        epoch: The epoch of the limiter in which it was sent; -1: not yet. Leases of another epoch are not returned: the
            server may have been replaced.
    """

    returns: list[Lease] = field(default_factory=list)
    asks: list[LeaseAsk] = field(default_factory=list)
    returned: list[Lease] = field(default_factory=list)
    counted: list[Lease] = field(default_factory=list)
    sent_at: float = 0.0
    epoch: int = -1

    def mark_sent(self, now: float, epoch: int) -> None:
        """Note that the call is about to be sent, perhaps for the second time."""
        if self.epoch < 0:
            self.returned = [lease for lease in self.returns if lease.ask.epoch == epoch]
            self.counted = [lease for lease in self.returns if lease.ask.epoch != epoch and lease.used]
        elif self.epoch != epoch:
            # The connection was lost. The first call may have been carried out, so nothing of it is repeated.
            self.returned, self.counted = [], []
        self.sent_at, self.epoch = now, epoch
        for ask in self.asks:
            ask.sent_at, ask.epoch = now, epoch
