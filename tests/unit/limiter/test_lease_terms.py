"""Leases and plans by themselves: what is handed on, what a lease counts, and what a repeated call still says."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost, LimitSet, limit_set
from fastapi_keyauth.limiter.leases.balances import Balances
from fastapi_keyauth.limiter.leases.clock import GRACE_MS, MAX_LEASE_MS
from fastapi_keyauth.limiter.leases.terms import MAX_SHARE, Grant, Lease, LeaseAsk, Plan
from tests.helpers.limits import resolved

HOURLY = limit_set((resolved(limit=10_000),), ())
TWO_UNITS = limit_set((resolved(name="r", limit=10_000), resolved(name="t", limit=50, unit="tokens")), ())
FIVE: Cost = (("requests", 5),)


def lease(units: int = 10, cost: Cost = ONE_REQUEST, limits: LimitSet = HOURLY, epoch: int = 0) -> Lease:
    """Return a lease that has admitted nothing yet; 800 units of each limit are left besides."""
    ask = LeaseAsk("k", "o", limits, cost, "g.o", units, 100.0, epoch)
    made = Lease(ask, Grant(units, 100, 500_000, 1800, [800, 1800, 9000] * len(limits.all), "123 place"), 100.0, 100.1)
    Balances().join(made)
    return made


@pytest.mark.parametrize(
    ("cost", "limits", "share"),
    [
        (ONE_REQUEST, HOURLY, 810 // 16),
        (FIVE, HOURLY, 850 // (16 * 5)),
        (FIVE, TWO_UNITS, 850 // (16 * 5)),
        ((("requests", 100),), HOURLY, 1),
        (FIVE, limit_set((), ()), 10),
    ],
    ids=["one", "five", "other unit", "expensive", "no limits"],
)
def test_lease_hands_on_as_many_requests_as_a_new_one_would_admit(cost: Cost, limits: LimitSet, share: int) -> None:
    assert lease(10, cost, limits).share() == share


def test_lease_that_was_taken_over_admits_nothing_and_accounts_for_nothing() -> None:
    before, after = lease(10), lease(4)
    for _ in range(3):
        before.take()
    after.take()
    after.take_over(before)
    assert (after.used, after.left) == (4, 10)
    assert (before.units, before.left) == (0, 0)
    assert max(before.ends_at, before.renew_at) < 0


def test_demand_of_a_lease_that_took_over_another_is_measured_since_the_other_one_was_returned() -> None:
    before, after = lease(), lease()
    before.began_at = 99.5  # its renewal was sent again after a lost connection
    after.take_over(before)
    assert after.began_at == 99.5


def test_first_call_counts_only_what_leases_of_another_epoch_have_used() -> None:
    used, unused, of_before, unused_of_before = lease(epoch=1), lease(epoch=1), lease(epoch=0), lease(epoch=0)
    used.take()
    of_before.take()
    plan = Plan([used, unused, of_before, unused_of_before])
    plan.mark_sent(100.0, 1)
    assert plan.returned == [used, unused]
    assert plan.counted == [of_before]


@pytest.mark.parametrize("is_repeatable", [True, False])
def test_call_that_is_repeated_after_a_lost_connection_counts_only_if_that_is_done_once(is_repeatable: bool) -> None:
    used, unused = lease(), lease()
    used.take()
    plan = Plan([used, unused])
    plan.mark_sent(100.0, 0)
    plan.mark_sent(100.1, 0, is_repeatable=is_repeatable)  # the same connection: nothing has changed
    assert (plan.returned, plan.counted) == ([used, unused], [])
    plan.mark_sent(100.2, 1, is_repeatable=is_repeatable)
    assert plan.returned == []
    assert plan.counted == ([used] if is_repeatable else [])


def test_call_that_is_repeated_measures_its_leases_from_the_second_time() -> None:
    ask = LeaseAsk("k", "o", HOURLY, ONE_REQUEST, "g.o", 5)
    plan = Plan([], [ask])
    plan.mark_sent(100.0, 0)
    plan.mark_sent(100.5, 1)
    assert (plan.sent_at, plan.epoch, ask.sent_at, ask.epoch) == (100.5, 1, 100.5, 1)


def test_scripts_and_workers_agree_on_the_numbers_of_leases() -> None:
    numbers: dict[str, str] = {}
    for script in ("take", "take_others"):
        text = files("fastapi_keyauth.limiter.redis").joinpath("lua", f"{script}.lua").read_text("utf-8")
        for names, values in re.findall(r"^ *local ([A-Z_]+(?:, [A-Z_]+)+) = (.+)$", text, re.MULTILINE):
            numbers |= dict(zip(names.split(", "), values.split(", "), strict=True))
    agreed = {"GRACE": GRACE_MS, "MAX_LEASE": MAX_LEASE_MS, "LEASE_SHARE": MAX_SHARE}
    assert {name: int(numbers[name]) for name in agreed} == agreed
