"""Addresses that a worker knows not to be blocked, with a clock of the test."""

from __future__ import annotations

from fastapi_keyauth.limiter.leases.addresses import UnblockedAddresses
from fastapi_keyauth.limiter.leases.clock import LEASE_SHARE

ADDRESS = "192.0.2.1"


def test_address_counts_as_not_blocked_for_as_long_as_a_lease() -> None:
    known = UnblockedAddresses(100)
    assert not known.covers(ADDRESS, 100.0)
    known.add(ADDRESS, 100.0)
    assert known.covers(ADDRESS, 100.0)
    assert known.covers(ADDRESS, 100.09795)
    assert not known.covers(ADDRESS, 100.0 + 100 * LEASE_SHARE / 1000)
    assert not known.covers("192.0.2.2", 100.0)
    assert known.covers(None, 200.0)  # there is no address that could be blocked


def test_answer_that_arrives_late_does_not_shorten_what_is_known() -> None:
    known = UnblockedAddresses(100)
    known.add(ADDRESS, 100.05)
    known.add(ADDRESS, 100.0)
    assert known.covers(ADDRESS, 100.14)


def test_forgotten_addresses_do_not_count() -> None:
    known = UnblockedAddresses(100)
    known.forget(ADDRESS)
    for address in (ADDRESS, "192.0.2.2", "192.0.2.3"):
        known.add(address, 100.0)
    known.forget(ADDRESS)
    assert [known.covers(address, 100.0) for address in (ADDRESS, "192.0.2.2", "192.0.2.3")] == [False, True, True]
    known.clear()
    assert [known.covers(address, 100.0) for address in (ADDRESS, "192.0.2.2", "192.0.2.3")] == [False] * 3
