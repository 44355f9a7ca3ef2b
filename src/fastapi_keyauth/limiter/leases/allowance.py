"""The allowance of a lease, through which most requests of a busy key are admitted."""

import math
from collections.abc import Callable, Mapping, Sequence

from fastapi_keyauth.limiter.leases.terms import Lease
from fastapi_keyauth.limiter.protocol import ADMITTED, Decision

_NEVER = -math.inf


class LeaseAllowance:
    """Admits requests from a lease, until it should be renewed, and except for the last one.

    These two are left to ``LeaseBook.admit``, which then renews or ends the lease.

    Args:
        lease: The lease.
        clock: The lease clock, in seconds.
        unblocked_until: Addresses, and until when they count as not blocked, on the lease clock.

    Attributes:
        decision: See ``Allowance``.
    """

    __slots__ = (
        "_balance",
        "_clock",
        "_end_s",
        "_lease",
        "_unblocked_until",
        "_wait_s",
        "decision",
    )

    def __init__(self, lease: Lease, clock: Callable[[], float], unblocked_until: Mapping[str, float]) -> None:
        self._lease = lease
        self._clock = clock
        self._unblocked_until = unblocked_until
        self.decision = decision_of(lease)
        self._balance = lease.balances[0] if lease.costs == (1,) else None
        self._wait_s, self._end_s = (0, 0) if self._balance is None else lease.grant.states[1:3]

    def take(self, bucket: str | None) -> Sequence[int] | None:
        """See ``Allowance``."""
        lease = self._lease
        left = lease.left - 1
        now = self._clock()
        # A lease that was ended, whatever the reason, has no time left.
        if left < 1 or now >= lease.renew_at:
            return None
        if bucket is not None and self._unblocked_until.get(bucket, _NEVER) <= now:
            return None
        balance = self._balance
        if balance is None:
            lease.take()
            return lease.states()
        lease.left = left
        balance.left = remaining = balance.left - 1
        return (remaining, self._wait_s, self._end_s)


def decision_of(lease: Lease) -> Decision:
    """Return the decision on the request that a lease has admitted last."""
    return tuple.__new__(  # without the function of Python's around it, as in ``RedisLimiterBase``
        Decision,
        (
            ADMITTED,
            lease.generation,
            lease.grant.wait_s,
            lease.grant.hour,
            math.inf,  # every change replaces the generation, and waits until this lease has ended
            lease.states(),
            (),  # counted as usage when the lease is returned
        ),
    )
