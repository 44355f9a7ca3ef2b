"""Redis in the simulation: the arithmetic of `lua/take.lua`, in Python and without a server.

`tests/unit/limiter/test_lease_scripts.py` checks that both give the same answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi_keyauth.domain.limits import Limit
from fastapi_keyauth.domain.units import HOUR_MS
from fastapi_keyauth.limiter.counters import Counter, Room, states_of
from fastapi_keyauth.limiter.leases.clock import GRACE_MS, MAX_LEASE_MS
from fastapi_keyauth.limiter.leases.terms import Grant, Lease, LeaseAsk
from fastapi_keyauth.limiter.protocol import Decision, LimitCheck, Verdict, ceil_s

SHARE = 16
"""A lease gets at most one part in this many of what is left."""
MIN_LASTS_MS = 10
"""A lease that would be shorter is not granted."""
HOLD_MS = 100
"""No lease is granted for so long after the moment at which a waiting question was told to ask again."""


@dataclass
class Out:
    """Units of one counter that are out on lease, in one window."""

    number: int
    units: int


@dataclass
class Record:
    """What a key or an owner knows of its leases."""

    birth: str
    end_ms: int = 0
    hold_ms: int = 0
    out: dict[str, Out] = field(default_factory=dict)

    def is_open(self, now_ms: int) -> bool:
        """Return whether leases may be alive, or their units on the way back."""
        return now_ms < self.end_ms + GRACE_MS and self.end_ms <= now_ms + MAX_LEASE_MS

    def is_held(self, now_ms: int) -> bool:
        """Return whether a question waits for units to come back."""
        return now_ms < self.hold_ms <= now_ms + MAX_LEASE_MS + GRACE_MS + HOLD_MS


class Holder:
    """A key or an owner."""

    def __init__(self, generation: str) -> None:
        self.generation = generation
        self.counters: dict[str, Counter] = {}
        self.leases: Record | None = None

    def rooms(self, limits: Sequence[Limit], now_ms: int) -> list[Room]:
        """Return the room that each limit has now."""
        return [Room(limit, self.counters.setdefault(limit.counter_id, Counter()), now_ms) for limit in limits]

    def out_of(self, room: Room, now_ms: int) -> int:
        """Return the units of a counter that may still come back."""
        record = self.leases
        if record is None or not record.is_open(now_ms):
            return 0
        out = record.out.get(room.limit.counter_id)
        if out is None or out.number < room.counter.number - (1 if room.limit.is_sliding else 0):
            return 0
        return out.units


class Authority:
    """One server: its memory can be copied, and replaced by a copy."""

    def __init__(self, max_failures: int = 3) -> None:
        self.holders: dict[str, Holder] = {}
        self.failures: dict[str, int] = {}
        self.blocks: set[str] = set()
        self.usage: dict[str, int] = {}
        self.charges: set[str] = set()
        """Names of the charges and grants that this memory knows; for the oracle."""
        self._max_failures = max_failures
        self._numbers = itertools.count()

    def fresh(self) -> str:
        """Return a name that was never used."""
        return f"n{next(self._numbers)}"

    def holder(self, name: str) -> Holder:
        """Return a key or an owner, created if need be."""
        if name not in self.holders:
            self.holders[name] = Holder(self.fresh())
        return self.holders[name]

    def generation(self, key_id: str, owner_id: str) -> str:
        """Return the generation of a key."""
        return f"{self.holder(key_id).generation}.{self.holder(owner_id).generation}"

    def take(self, question: LimitCheck, now_ms: int) -> Decision:
        """Answer a question. The name of its charge is that of the question."""
        if question.bucket in self.blocks:
            return Decision(Verdict.BLOCKED, wait_s=1)
        owner_id = question.owner_id or ""
        generation = self.generation(question.key_id, owner_id)
        if not question.is_fresh and question.generation != generation:
            return Decision(Verdict.STALE, generation)
        key, owner = self.holder(question.key_id), self.holder(owner_id)
        limits = question.limits
        rooms = key.rooms(limits.key, now_ms) + owner.rooms(limits.owner, now_ms)
        owners = [key] * len(limits.key) + [owner] * len(limits.owner)
        costs = limits.costs(question.cost or ())
        hour = now_ms // HOUR_MS
        exhausted = [position for position, cost in enumerate(costs) if rooms[position].free < cost]
        if exhausted:
            wait_ms = 0
            for position in exhausted:
                holder, room = owners[position], rooms[position]
                if room.free + holder.out_of(room, now_ms) < costs[position]:
                    states = states_of(rooms, costs, is_charged=False)
                    return Decision(
                        Verdict.LIMITED,
                        generation,
                        max(states[3 * number + 1] for number in exhausted),
                        hour,
                        states=states + exhausted,
                    )
                assert holder.leases is not None
                wait_ms = max(wait_ms, holder.leases.end_ms + GRACE_MS - now_ms)
            for position in exhausted:
                record = owners[position].leases
                assert record is not None
                record.hold_ms = now_ms + wait_ms + HOLD_MS
            return Decision(Verdict.WAITING, generation, wait_ms, hour)
        for room, cost in zip(rooms, costs, strict=True):
            room.counter.charge(cost)
        self.count(question.key_id, dict(question.cost or ()).get("requests", 0))
        states = states_of(rooms, costs, is_charged=True)
        wait_s = states[1] if states else ceil_s((hour + 1) * HOUR_MS - now_ms)
        return Decision(Verdict.ADMITTED, generation, wait_s, hour, states=states)

    def lasts_ms(self, lease_ms: int, rooms: Sequence[Room], now_ms: int) -> int:
        """Return how long a lease lasts that is granted now: never beyond the end of an hour or a window."""
        left_ms = min([HOUR_MS - now_ms % HOUR_MS, *(room.left_ms for room in rooms)])
        return min(lease_ms, left_ms - 1)  # the moment is up to one millisecond later than its whole milliseconds say

    def grant(self, ask: LeaseAsk, lease_ms: int, now_ms: int) -> Grant:
        """Grant a lease, or none."""
        if ask.generation != self.generation(ask.key_id, ask.owner_id):
            return Grant(0)
        key, owner = self.holder(ask.key_id), self.holder(ask.owner_id)
        if any(holder.leases is not None and holder.leases.is_held(now_ms) for holder in (key, owner)):
            return Grant(0)
        rooms = key.rooms(ask.limits.key, now_ms) + owner.rooms(ask.limits.owner, now_ms)
        owners = [key] * len(ask.limits.key) + [owner] * len(ask.limits.owner)
        costs = ask.limits.costs(ask.cost)
        lasts_ms = self.lasts_ms(lease_ms, rooms, now_ms)
        units = min(
            [ask.units, *(max(0, room.free) // (SHARE * cost) for room, cost in zip(rooms, costs, strict=True) if cost)]
        )
        if lasts_ms < MIN_LASTS_MS or units < 1:
            return Grant(0)
        for holder in (key, owner):
            if holder.leases is None:
                holder.leases = Record(self.fresh())
            record = holder.leases
            if not record.is_open(now_ms):
                record.end_ms, record.out = 0, {}
            record.end_ms = max(record.end_ms, now_ms + lasts_ms)
        for holder, room, cost in zip(owners, rooms, costs, strict=True):
            room.counter.charge(units * cost)
            assert holder.leases is not None
            number, before = room.counter.number, holder.leases.out.get(room.limit.counter_id)
            kept = before.units if before and (before.number == number or room.limit.is_sliding) else 0
            holder.leases.out[room.limit.counter_id] = Out(number, kept + units * cost)
        assert key.leases is not None
        assert owner.leases is not None
        windows = " ".join(str(room.counter.number) for room in rooms)
        stamp = f"{now_ms + lasts_ms} {key.leases.birth} {owner.leases.birth} {windows}"
        rooms = [Room(room.limit, room.counter, now_ms) for room in rooms]
        states = states_of(rooms, (0,) * len(rooms), is_charged=True)
        hour = now_ms // HOUR_MS
        wait_s = states[1] if states else ceil_s((hour + 1) * HOUR_MS - now_ms)
        return Grant(units, lasts_ms, hour, wait_s, states, stamp)

    def give_back(self, lease: Lease, used: int, left: int, now_ms: int) -> None:
        """Take back what a lease, or a part of it, did not use."""
        ask = lease.ask
        end_ms, key_birth, owner_birth, *windows = lease.grant.stamp.split(" ")
        numbers = [int(window) for window in windows if window]
        places = [(ask.key_id, key_birth, limit) for limit in ask.limits.key]
        places += [(ask.owner_id, owner_birth, limit) for limit in ask.limits.owner]
        for (name, birth, limit), number, cost in zip(places, numbers, lease.costs, strict=True):
            holder = self.holders.get(name)
            if holder is None or holder.leases is None or holder.leases.birth != birth:
                continue
            (room,) = holder.rooms([limit], now_ms)
            room.counter.refund(number, left * cost)
            out = holder.leases.out.get(limit.counter_id)
            returns_in_time = now_ms < int(end_ms.partition("#")[0]) + GRACE_MS
            if out is not None and returns_in_time and (out.number == number or limit.is_sliding):
                out.units = max(0, out.units - (used + left) * cost)
        if used:
            self.count(ask.key_id, used * dict(ask.cost).get("requests", 0))

    def count(self, key_id: str, requests: int) -> None:
        """Add to the usage of a key."""
        self.usage[key_id] = self.usage.get(key_id, 0) + requests

    def bump(self, name: str, now_ms: int) -> int:
        """Replace a generation. Return the milliseconds until the latest lease that is known ends."""
        holder = self.holder(name)
        holder.generation = self.fresh()
        return 0 if holder.leases is None else max(0, holder.leases.end_ms - now_ms + 1)

    def fail(self, bucket: str) -> bool | None:
        """Count a failed attempt. Return whether it begins a block; None: it was blocked already."""
        if bucket in self.blocks:
            return None
        self.failures[bucket] = self.failures.get(bucket, 0) + 1
        if self.failures[bucket] < self._max_failures:
            return False
        self.blocks.add(bucket)
        return True
