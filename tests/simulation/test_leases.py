"""Leases keep every promise in random schedules, and the simulation notices code that does not."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import pytest

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, LimitSet
from fastapi_keyauth.domain.limits import Limit
from fastapi_keyauth.limiter.leases.book import LeaseBook
from fastapi_keyauth.limiter.leases.terms import Grant, Lease, Plan
from tests.helpers.fuzzing import IS_LONG, TIMES
from tests.helpers.thorough import turns
from tests.simulation import world as world_module
from tests.simulation.authority import Authority, Holder
from tests.simulation.schedules import make_schedule, shrink
from tests.simulation.world import Action, Schedule, Violation, Worker, World

CHUNKS = 8
SCHEDULES = 33_334 * max(1, TIMES) // CHUNKS if IS_LONG else turns(thorough=500, brief=250)
"""In each chunk: 10^6 in all with `make fuzz`."""


def find_violation(seeds: range) -> Schedule | None:
    """Return the first schedule that breaks a promise."""
    for seed in seeds:
        schedule = make_schedule(seed)
        if breaks_a_promise(schedule):
            return schedule
    return None


def breaks_a_promise(schedule: Schedule) -> bool:
    """Run a schedule."""
    try:
        World(schedule).run()
    except Violation:
        return True
    return False


@pytest.mark.fuzz
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_schedule_breaks_a_promise(chunk: int) -> None:
    began_at = time.monotonic()
    found = find_violation(range(chunk * SCHEDULES, (chunk + 1) * SCHEDULES))
    if IS_LONG:
        sys.__stderr__.write(f"{SCHEDULES} schedules in {time.monotonic() - began_at:.0f} s\n")  # type: ignore[union-attr]
    if found is not None:
        smallest = shrink(found, breaks_a_promise)
        World(smallest).run()  # raises what it found
        pytest.fail("it fails only with more")


def test_requests_are_admitted_from_leases() -> None:
    """Otherwise the schedules would prove nothing."""
    worlds = [World(make_schedule(seed)) for seed in range(50)]
    for world in worlds:
        world.run()
    admitted = sum(len(world.admissions) for world in worlds)
    leased = sum(worker.counters.lease_used for world in worlds for worker in world.workers)
    assert leased > admitted / 5
    assert sum(worker.allowed for world in worlds for worker in world.workers) > leased / 5
    assert any(world.refusals for world in worlds)


def measured_from_the_answer() -> AbstractContextManager[Any]:
    """End leases a while after the answer instead of after the question."""
    receive = LeaseBook.receive

    def late(self: LeaseBook, plan: Plan, grants: Sequence[Grant], epoch: int) -> None:
        for ask in plan.asks:
            ask.sent_at = self._clock()
        receive(self, plan, grants, epoch)

    return mock.patch.object(LeaseBook, "receive", late)


def believing_addresses_for_ever() -> AbstractContextManager[Any]:
    """Admit from every address, whatever is known of it."""
    admit = LeaseBook.admit
    return mock.patch.object(LeaseBook, "admit", lambda self, question: admit(self, question._replace(bucket=None)))


def allowances_that_outlive_their_leases() -> AbstractContextManager[Any]:
    """Leave an ended lease the time that it would have had."""
    end = LeaseBook._end

    def end_late(self: LeaseBook, lease: Lease, now: float) -> None:
        ends_at = lease.ends_at
        end(self, lease, now)
        lease.renew_at = ends_at

    return mock.patch.object(LeaseBook, "_end", end_late)


def splitting(*, returns_all: bool = False, forgets: bool = False) -> AbstractContextManager[Any]:
    """Return all that a renewed lease has left, although it goes on, or forget what was returned already."""
    split = Lease.split

    def split_wrongly(self: Lease, unused: int) -> Lease:
        units = self.units
        part = split(self, unused)
        if returns_all:
            part.units, part.left = part.units + self.left, part.left + self.left
        if forgets:
            self.units = units
        return part

    return mock.patch.object(Lease, "split", split_wrongly)


def renewing_without_an_answer() -> AbstractContextManager[Any]:
    """Have leases go on while they are being renewed."""
    plan_renewals = LeaseBook.plan_renewals

    def plan(self: LeaseBook) -> Plan:
        renewed = list(self.to_renew)
        planned = plan_renewals(self)
        for lease in renewed:
            lease.ends_at = lease.renew_at = lease.ends_at + 0.1
        return planned

    return mock.patch.object(LeaseBook, "plan_renewals", plan)


MUTATIONS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "a change does not wait": lambda: mock.patch.object(world_module, "outlast_s", return_value=0.0),
    "a change waits without the share for its clock": lambda: mock.patch.object(
        world_module, "outlast_s", lambda lease_ms, *_: lease_ms / 1000
    ),
    "a lease lasts as long as it was granted": lambda: mock.patch(
        "fastapi_keyauth.limiter.leases.book.LEASE_SHARE", 1.0
    ),
    "a lease is measured from the answer": measured_from_the_answer,
    "an address is believed for ever": believing_addresses_for_ever,
    "a renewed lease goes on without an answer": renewing_without_an_answer,
    "a renewed lease returns units that it goes on using": lambda: splitting(returns_all=True),
    "a renewed lease returns twice what it admitted": lambda: splitting(forgets=True),
    "a lease takes over units of another window": lambda: mock.patch.object(Lease, "continues", return_value=True),
    "an allowance outlives its lease": allowances_that_outlive_their_leases,
    "units are not returned": lambda: mock.patch.object(Authority, "give_back", return_value=None),
    "a lease crosses the end of a window": lambda: mock.patch.object(
        Authority, "lasts_ms", lambda _self, lease_ms, *_: lease_ms
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_simulation_notices_broken_code(mutation: str) -> None:
    with MUTATIONS[mutation]():
        directed = [crowd_in_the_next_window(), *map(change_at_a_grant, range(100)), *map(used_up_beside, range(60))]
        assert any(map(breaks_a_promise, directed)) or find_violation(range(400))


def crowd_in_the_next_window() -> Schedule:
    """One worker has a lease when a window ends; then another one uses up the next window."""
    limits = LimitSet([Limit(name="k", limit=100, per="second", algorithm="fixed_window")], [])
    actions = (
        Action(262, "burst", (1, 0, None, ONE_REQUEST, 20, 6)),
        Action(305, "burst", (0, 0, None, ONE_REQUEST, 120, 0.2)),
    )
    return Schedule(1, actions, (limits,), workers=2, delay_ms=1, starts_at_ms=10**12 - 300, is_calm=True)


def used_up_beside(seed: int) -> Schedule:
    """One worker's lease is renewed, first about when a window ends; another worker uses up the next window."""
    limits = LimitSet([Limit(name="k", limit=800, per="second", algorithm="fixed_window")], [])
    actions = (
        Action(5, "burst", (0, 0, None, ONE_REQUEST, 65, 6)),
        Action(330 + seed % 20, "burst", (1, 0, None, (("requests", 4),), 210, 0.05)),
    )
    starts_at_ms = 10**12 - 161 - seed % 6
    return Schedule(seed, actions, (limits,), workers=2, delay_ms=20, starts_at_ms=starts_at_ms, is_calm=True)


def test_renewed_lease_admits_no_more_than_the_limit_of_each_window() -> None:
    worlds = [World(used_up_beside(seed)) for seed in range(60)]
    for world in worlds:
        world.run()
    assert sum(worker.renewed for world in worlds for worker in world.workers) > 60


def change_at_a_grant(seed: int) -> Schedule:
    """A key is changed as soon as a lease of it was granted. The seed decides how wrong clocks are."""
    actions = (Action(0, "ambush", ("change", 0)), Action(1, "burst", (0, 0, None, ONE_REQUEST, 6, 2)))
    return Schedule(
        seed, actions, (LimitSet([], []),), workers=1, delay_ms=(0.01, 100)[seed % 2], starts_at_ms=10**12, is_calm=True
    )


def test_change_at_a_grant_outlasts_the_lease() -> None:
    assert not any(map(breaks_a_promise, map(change_at_a_grant, range(100))))


def test_no_lease_crosses_the_end_of_a_window() -> None:
    World(crowd_in_the_next_window()).run()


@pytest.mark.parametrize("offset_ms", [0.2, 0.4, 0.5, 0.6, 0.8])
def test_lease_on_the_slowest_clock_ends_with_its_window(offset_ms: float) -> None:
    """The server's clock is in whole milliseconds: what it says is left of a window may be almost one more than is."""
    limits = LimitSet([Limit(name="k", limit=2000, per="second", algorithm="fixed_window")], [])
    actions = (Action(offset_ms, "burst", (0, 0, None, ONE_REQUEST, 100, 1)),)
    schedule = Schedule(1, actions, (limits,), workers=1, delay_ms=0.01, starts_at_ms=10**12 - 60, is_calm=True)
    with mock.patch.object(World, "new_worker", lambda self, number: Worker(self, number, 0.98)):
        world = World(schedule)
    world.run()
    leased = [one for one in world.admissions if "#" in one.charge]
    assert len(leased) > 50
    assert [one.now_ms for one in leased if one.now_ms // 1000 != int(one.charge.rpartition(" ")[2])] == []


def crowd_beside_a_lease(limit: int) -> Schedule:
    """One worker has a lease that it does not need any more; then another one uses up what is left."""
    limits = LimitSet([Limit(name="k", limit=limit, per="minute", algorithm="fixed_window")], [])
    actions = (
        Action(10, "burst", (1, 0, None, ONE_REQUEST, 8, 1)),
        Action(25, "burst", (0, 0, None, ONE_REQUEST, limit + 20, 0.2)),
    )
    return Schedule(1, actions, (limits,), workers=2, delay_ms=1, starts_at_ms=10**12, is_calm=True)


def test_units_leased_elsewhere_are_waited_for() -> None:
    world = World(crowd_beside_a_lease(100))
    world.run()
    assert len(world.admissions) == 100
    assert sum(worker.counters.lease_returned for worker in world.workers) > 0


def test_simulation_notices_a_refusal_while_units_are_leased() -> None:
    with mock.patch.object(Holder, "out_of", return_value=0), pytest.raises(Violation, match="room"):
        World(crowd_beside_a_lease(100)).run()


def test_shrinking_keeps_what_fails() -> None:
    with MUTATIONS["a change does not wait"]():
        found = find_violation(range(400))
        assert found is not None
        smallest = shrink(found, breaks_a_promise)
        assert breaks_a_promise(smallest)
    assert 1 <= len(smallest.actions) < len(found.actions)
    assert not breaks_a_promise(smallest)
