"""The limiter of a single process."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from fastapi_keyauth.domain.limits import MAX_LIMITS, Limit
from fastapi_keyauth.domain.units import HOUR_MS
from fastapi_keyauth.limiter.counters import Counter, Room, states_of
from fastapi_keyauth.limiter.protocol import SETTLED_S, Charge, Decision, LimitCheck, Policy, Verdict, ceil_s
from fastapi_keyauth.settings.checks import CheckWarning

MAX_ADDRESSES = 100_000
MAX_KEYS = 1_000_000
MAX_OWNERS = 1_000_000
MAX_CHARGES = 100_000
"""Charges with a name: reservations, and costs above 1 of the last seconds."""
MAX_COUNTERS = 4 * MAX_LIMITS
"""Counters of one key or owner, those of limits that it no longer has included."""


class _Holder:
    """The generation of a key or of an owner, and the counters of its limits."""

    __slots__ = ("counters", "generation", "owner_id")

    def __init__(self, owner_id: str = "") -> None:
        self.generation = secrets.token_hex(8)
        self.owner_id = owner_id
        self.counters: dict[str, Counter] = {}

    def rooms(self, limits: Sequence[Limit], now_ms: int) -> list[Room]:
        """What the limits have room for now."""
        rooms = []
        for limit in limits:
            counter = self.counters.get(limit.counter_id)
            if counter is None:
                if len(self.counters) >= MAX_COUNTERS:  # those of limits that were replaced must not pile up
                    del self.counters[next(iter(self.counters))]
                counter = self.counters[limit.counter_id] = Counter()
            rooms.append(Room(limit, counter, now_ms))
        return rooms


class _Attempts:
    """Failed attempts of an address since ``first_ms``, or its block."""

    __slots__ = ("blocked_until_ms", "count", "first_ms")

    def __init__(self, now_ms: int) -> None:
        self.count = 0
        self.first_ms = now_ms
        self.blocked_until_ms = 0


class MemoryLimiter:
    """The same answers as the Redis limiter, for one process. Bounded: the least recently seen are forgotten.

    Args:
        policy: the numbers.
        max_age_s: seconds after which a row is believed no more, 0: at once; another process may have changed it
            without our knowing.
        clock: seconds since 1970.
    """

    def __init__(self, policy: Policy, max_age_s: float, clock: Callable[[], float] = time.time) -> None:
        self._policy = policy
        self._max_age_s = max_age_s
        self._clock = clock
        self._keys: OrderedDict[str, _Holder] = OrderedDict()
        self._owners: OrderedDict[str, _Holder] = OrderedDict()
        self._charges: OrderedDict[str, tuple[int, tuple[int, ...] | None]] = OrderedDict()
        """Name to when it is forgotten, and the windows that were charged; None once it is settled."""
        self._attempts: OrderedDict[str, _Attempts] = OrderedDict()

    async def start(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def check(self, ask: LimitCheck) -> Decision:
        """See ``Limiter``."""
        return self.decide(ask)

    def decide(self, ask: LimitCheck) -> Decision:
        """Answer as ``check`` does. It never waits, so that nothing comes between comparing and counting."""
        now_ms = int(self._clock() * 1000)
        hour = now_ms // HOUR_MS
        if ask.bucket is not None and ask.bucket in self._attempts:
            blocked_ms = self._blocked_ms(ask.bucket, now_ms)
            if blocked_ms:
                return Decision(Verdict.BLOCKED, wait_s=ceil_s(blocked_ms), hour=hour)
        has_row = ask.age_s is not None
        key, owner = self._find_holders(ask, has_row)
        if key is None or owner is None:
            return Decision(Verdict.STALE, hour=hour, share_s=self._max_age_s)
        generation = f"{key.generation}.{owner.generation}"
        if not ask.is_fresh and (generation != ask.generation or ask.age_s is None or ask.age_s >= self._max_age_s):
            return Decision(Verdict.STALE, generation, hour=hour, share_s=self._max_age_s)
        if ask.cost is None:
            return Decision(Verdict.ADMITTED, generation, ceil_s((hour + 1) * HOUR_MS - now_ms), hour)
        return self._charge(ask, key, owner, generation, now_ms)

    def _find_holders(self, ask: LimitCheck, has_row: bool) -> tuple[_Holder | None, _Holder | None]:
        """The key and its owner, both known already unless the asker has the row."""
        key = self._keys.get(ask.key_id)
        if not has_row:
            return key, None if key is None else self._owners.get(key.owner_id)
        owner_id = ask.owner_id or ""
        if key is None:
            key = self._keys[ask.key_id] = _Holder(owner_id)
            _trim(self._keys, MAX_KEYS)
        owner = self._owners.get(owner_id)
        if owner is None:
            owner = self._owners[owner_id] = _Holder()
            _trim(self._owners, MAX_OWNERS)
        self._keys.move_to_end(ask.key_id)
        self._owners.move_to_end(owner_id)
        return key, owner

    def _charge(self, ask: LimitCheck, key: _Holder, owner: _Holder, generation: str, now_ms: int) -> Decision:
        """Charge every limit, or none."""
        hour = now_ms // HOUR_MS
        rooms = key.rooms(ask.limits.key, now_ms) + owner.rooms(ask.limits.owner, now_ms)
        costs = ask.limits.costs(ask.cost or ())
        if ask.charge is not None and self._was_charged(ask.charge, rooms, costs, now_ms):
            rooms = [Room(room.limit, room.counter, now_ms) for room in rooms]
            costs = (0,) * len(costs)
        elif not all(room.free >= cost for room, cost in zip(rooms, costs, strict=True)):
            states = states_of(rooms, costs, is_charged=False)
            exhausted = [position for position, cost in enumerate(costs) if rooms[position].free < cost]
            wait_s = max(states[3 * position + 1] for position in exhausted)
            return Decision(Verdict.LIMITED, generation, wait_s, hour, states=states + exhausted)
        else:
            for room, cost in zip(rooms, costs, strict=True):
                room.counter.charge(cost)
            if ask.charge is not None:
                self._charges[ask.charge.id] = (
                    now_ms + ask.charge.keep_s * 1000,
                    tuple(room.counter.number for room in rooms),
                )
                _trim(self._charges, MAX_CHARGES)
        states = states_of(rooms, costs, is_charged=True)
        wait_s = states[1] if states else ceil_s((hour + 1) * HOUR_MS - now_ms)
        return Decision(Verdict.ADMITTED, generation, wait_s, hour, states=states)

    def _was_charged(self, charge: Charge, rooms: list[Room], costs: Sequence[int], now_ms: int) -> bool:
        """Whether nothing is left to charge: it was charged before, or this settles it."""
        until_ms, numbers = self._charges.get(charge.id, (0, None))
        is_known = until_ms > now_ms
        if charge.actual is None or not is_known or numbers is None:
            return is_known or charge.actual is not None
        for room, number, cost, actual in zip(rooms, numbers, costs, charge.actual, strict=True):
            if actual > cost:
                room.counter.charge(actual - cost)
            else:
                room.counter.give_back(number, cost - actual)
        self._charges[charge.id] = (now_ms + SETTLED_S * 1000, None)
        return True

    def known_block_s(self, bucket: str) -> int | None:
        """See ``Limiter``."""
        if bucket not in self._attempts:
            return None
        blocked_ms = self._blocked_ms(bucket, int(self._clock() * 1000))
        return ceil_s(blocked_ms) if blocked_ms else None

    async def record_failure(self, bucket: str) -> int | None:
        """See ``Limiter``."""
        now_ms = int(self._clock() * 1000)
        blocked_ms = self._blocked_ms(bucket, now_ms)
        if blocked_ms:
            return ceil_s(blocked_ms)
        attempts = self._attempts.get(bucket)
        over = attempts is not None and (
            attempts.blocked_until_ms or attempts.first_ms + self._policy.failure_window_ms <= now_ms
        )
        if attempts is None or over:
            attempts = self._attempts[bucket] = _Attempts(now_ms)
        attempts.count += 1
        begins_block = attempts.count >= self._policy.block_after_failures
        if begins_block:
            attempts.blocked_until_ms = now_ms + self._policy.block_for_ms
        self._attempts.move_to_end(bucket)
        while len(self._attempts) > MAX_ADDRESSES:
            self._attempts.popitem(last=False)
        return 0 if begins_block else None

    async def bump_generation(self, key_id: str, owner_id: str = "") -> None:
        """See ``Limiter``."""
        key = self._keys.get(key_id)
        if key is not None:
            key.generation = secrets.token_hex(8)

    async def bump_owner_generation(self, owner_id: str) -> None:
        """See ``Limiter``."""
        owner = self._owners.get(owner_id)
        if owner is not None:
            owner.generation = secrets.token_hex(8)

    async def blocks(self) -> dict[str, int]:
        """See ``Limiter``."""
        now_ms = int(self._clock() * 1000)
        left = {bucket: self._blocked_ms(bucket, now_ms) for bucket in self._attempts}
        return {bucket: ceil_s(left_ms) for bucket, left_ms in left.items() if left_ms}

    async def unblock(self, bucket: str) -> bool:
        """See ``Limiter``."""
        was_blocked = self._blocked_ms(bucket, int(self._clock() * 1000)) > 0
        self._attempts.pop(bucket, None)
        return was_blocked

    async def run_checks(self) -> list[CheckWarning]:
        """There is no server."""
        return []

    def _blocked_ms(self, bucket: str, now_ms: int) -> int:
        attempts = self._attempts.get(bucket)
        return max(0, attempts.blocked_until_ms - now_ms) if attempts is not None else 0


def _trim(known: OrderedDict[str, Any], most: int) -> None:
    """Forget the oldest."""
    while len(known) > most:
        known.popitem(last=False)
