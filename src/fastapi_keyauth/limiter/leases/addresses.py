"""Addresses that a worker knows not to be blocked. No I/O; the clock is passed in."""

import math

from fastapi_keyauth.concurrency.bounded_dict import BoundedDict
from fastapi_keyauth.limiter.leases.clock import LEASE_SHARE
from fastapi_keyauth.limiter.leases.terms import Lease
from fastapi_keyauth.limiter.protocol import LimitCheck

MAX_ADDRESSES = 10_000
"""Maximum number of addresses that a worker caches as not blocked."""
MAX_LEASE_ADDRESSES = 8
"""Maximum number of addresses that are checked for blocks when a lease is renewed."""
ADDRESS_RENEWALS = 10
"""Number of renewals with which an address is checked after it was last seen in a question. It may be gone by then."""


class UnblockedAddresses:
    """Addresses that were found not to be blocked, each for as long as a lease.

    Args:
        lease_ms: Maximum duration of a lease.

    Attributes:
        until: Addresses, and until when they count as not blocked, on the lease clock.
    """

    def __init__(self, lease_ms: int) -> None:
        self._lasts_s = lease_ms * LEASE_SHARE / 1000
        self.until: BoundedDict[str, float] = BoundedDict(MAX_ADDRESSES)

    def covers(self, bucket: str | None, now: float) -> bool:
        """Return whether an address counts as not blocked. None: there is no address that could be."""
        return bucket is None or self.until.get(bucket, -math.inf) > now

    def add(self, bucket: str, sent_at: float) -> None:
        """Add an address that was not blocked when a call was sent, on the lease clock."""
        until = sent_at + self._lasts_s
        self.until[bucket] = max(until, self.until.get(bucket, until))

    def forget(self, bucket: str) -> None:
        """Remove an address."""
        self.until.pop(bucket, None)

    def clear(self) -> None:
        """Remove all addresses."""
        self.until.clear()


def note_address(lease: Lease, bucket: str | None) -> None:
    """Have an address checked for a block whenever a lease is renewed in the near future."""
    if bucket is not None and (bucket in lease.addresses or len(lease.addresses) < MAX_LEASE_ADDRESSES):
        lease.addresses[bucket] = ADDRESS_RENEWALS


def address_check(bucket: str) -> LimitCheck:
    """Return the question whether an address is blocked, without a key."""
    return LimitCheck("", bucket)
