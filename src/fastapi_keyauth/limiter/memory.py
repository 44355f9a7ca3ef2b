"""The limiter of a single process."""

import secrets
import time
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

from typing_extensions import override

from fastapi_keyauth.concurrency.bounded_dict import BoundedDict
from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost, LimitSet
from fastapi_keyauth.domain.units import HOUR_MS, HOUR_S
from fastapi_keyauth.domain.usage import UsageCount, UsageOf
from fastapi_keyauth.limiter.counters import Room, states_of
from fastapi_keyauth.limiter.holders import KeyHolder, OwnerHolder
from fastapi_keyauth.limiter.memory_allowance import MAX_S, SHARE, MemoryAllowance
from fastapi_keyauth.limiter.protocol import (
    ADMITTED,
    BLOCKED,
    LIMITED,
    SETTLED_S,
    STALE,
    Charge,
    Decision,
    LimitCheck,
    Limiter,
    Policy,
    ceil_s,
    usage_of,
)
from fastapi_keyauth.settings.check_warnings import CheckWarning

MAX_ADDRESSES = 100_000
"""Maximum number of addresses with failed attempts."""
MAX_KEYS = 1_000_000
"""Maximum number of keys with counters."""
MAX_CHARGES = 100_000
"""Maximum number of named charges: reservations, and recent costs above 1."""


class _Attempts:
    """Failed attempts of an address since ``first_ms``, or its block."""

    __slots__ = ("blocked_until_ms", "count", "first_ms")

    def __init__(self, now_ms: int) -> None:
        self.count = 0
        self.first_ms = now_ms
        self.blocked_until_ms = 0


class MemoryLimiter(Limiter):
    """A limiter for one process that decides like the one on Redis. Evicts the least recently used entries.

    Args:
        policy: The policy for failed attempts.
        max_age_s: Seconds after which a row must be read again, since another process may have changed it without
            notice. 0: always.
        clock: Returns seconds since 1970.
        monotonic: Returns seconds of a monotonic clock.
    """

    def __init__(
        self,
        policy: Policy,
        max_age_s: float,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._max_age_s = max_age_s
        self._clock = clock
        self._monotonic = monotonic
        self._keys: BoundedDict[str, KeyHolder] = BoundedDict(MAX_KEYS)
        self._owners: WeakValueDictionary[str, OwnerHolder] = WeakValueDictionary()
        self._charges: BoundedDict[str, tuple[int, tuple[int, ...] | None]] = BoundedDict(MAX_CHARGES)
        """Name to expiry (ms since 1970) and charged windows. The windows are None once the charge is settled."""
        self._attempts: BoundedDict[str, _Attempts] = BoundedDict(MAX_ADDRESSES)

    @override
    async def start(self) -> None:
        """Do nothing: there is no connection."""

    @override
    async def close(self) -> None:
        """Do nothing: there is no connection."""

    @override
    async def check(self, question: LimitCheck) -> Decision:
        return self.try_decide(question)

    @override
    def try_decide(self, question: LimitCheck) -> Decision:
        """Decide. It never awaits, so comparing and counting are atomic."""
        now = self._clock()
        now_s = int(now)
        hour = now_s // HOUR_S
        key_id, bucket, limits, cost, known_generation, age_s, is_fresh, owner_id, charge = question
        if bucket is not None and bucket in self._attempts:
            blocked_ms = self._blocked_ms(bucket, int(now * 1000))
            if blocked_ms:
                return Decision(BLOCKED, wait_s=ceil_s(blocked_ms), hour=hour)
        key = self._keys.get(key_id)
        if age_s is not None:
            if key is None or key.owner.id != owner_id:
                key = self._add(key_id, owner_id or "")
            self._keys.move_to_end(key_id)
        elif key is None:
            return Decision(STALE, hour=hour, share_s=self._max_age_s)
        generation = f"{key.generation}.{key.owner.generation}"
        if not is_fresh and (generation != known_generation or age_s is None or age_s >= self._max_age_s):
            return Decision(STALE, generation, hour=hour, share_s=self._max_age_s)
        if cost is None:
            return Decision(ADMITTED, generation, (hour + 1) * HOUR_S - now_s, hour)
        if limits.hourly and cost == ONE_REQUEST and charge is None:
            # Fast path for the most frequent check: one request against an hourly limit, in the current hour.
            counter = key.counters.get("")
            if counter is not None and counter.number == hour:
                used = counter.used + 1
                remaining = limits.hourly - used
                if remaining >= 0:
                    counter.used = used
                    end_s = (hour + 1) * HOUR_S
                    wait_s = end_s - now_s
                    # Like Decision(...), but without a call of its Python-level __new__ for each request.
                    states = (remaining, wait_s, end_s)
                    return tuple.__new__(Decision, (ADMITTED, generation, wait_s, hour, 0.0, states, ONE_REQUEST))
        return self._charge(question, key, generation, int(now * 1000))

    @override
    def find_allowance(self, question: LimitCheck) -> MemoryAllowance | None:
        limit, now = question.limits.hourly, self._clock()
        if not limit or question.age_s is None or question.bucket in self._attempts:
            return None
        key, hour = self._keys.get(question.key_id), int(now) // HOUR_S
        counter = None if key is None else key.counters.get("")
        if key is None or counter is None or counter.number != hour:
            return None
        end_s = (hour + 1) * HOUR_S
        states = (limit - counter.used, end_s - int(now), end_s)
        decision = Decision(ADMITTED, question.generation, states[1], hour, states=states, usage=ONE_REQUEST)
        lasts_s = min(MAX_S, self._max_age_s - question.age_s, SHARE * (end_s - now))
        return MemoryAllowance(key, counter, decision, limit, self._attempts, self._monotonic, lasts_s)

    def _add(self, key_id: str, owner_id: str) -> KeyHolder:
        """Return the key of this owner. Create what is missing."""
        owner = self._owners.get(owner_id)
        if owner is None:
            owner = self._owners[owner_id] = OwnerHolder(owner_id)
        key = self._keys.get(key_id)
        if key is None:
            key = self._keys[key_id] = KeyHolder(owner)
        key.owner = owner
        return key

    def _charge(self, question: LimitCheck, key: KeyHolder, generation: str, now_ms: int) -> Decision:
        """Charge all limits, or none of them if one has no room."""
        hour = now_ms // HOUR_MS
        rooms = key.rooms(question.limits.key, now_ms) + key.owner.rooms(question.limits.owner, now_ms)
        costs = question.limits.costs(question.cost or ())
        usage = usage_of(question.cost or (), question.charge)
        settled = None
        if question.charge is not None:
            settled = self._find_settled(question.charge, question.limits, rooms, costs, now_ms)
        if settled is not None:
            usage = settled
            rooms = [Room(room.limit, room.counter, now_ms) for room in rooms]
            costs = (0,) * len(costs)
        elif not all(room.free >= cost for room, cost in zip(rooms, costs, strict=True)):
            states = states_of(rooms, costs, is_charged=False)
            exhausted = [position for position, cost in enumerate(costs) if rooms[position].free < cost]
            wait_s = max(states[3 * position + 1] for position in exhausted)
            return Decision(LIMITED, generation, wait_s, hour, states=states + exhausted)
        else:
            for room, cost in zip(rooms, costs, strict=True):
                room.counter.charge(cost)
            if question.charge is not None:
                self._charges[question.charge.id] = (
                    now_ms + question.charge.keep_s * 1000,
                    tuple(room.counter.number for room in rooms),
                )
        states = states_of(rooms, costs, is_charged=True)
        wait_s = states[1] if states else ceil_s((hour + 1) * HOUR_MS - now_ms)
        return Decision(ADMITTED, generation, wait_s, hour, states=states, usage=usage)

    def _find_settled(
        self, charge: Charge, limits: LimitSet, rooms: list[Room], costs: Sequence[int], now_ms: int
    ) -> Cost | None:
        """Return None if the charge is to be made; otherwise what this call settles, () if nothing."""
        until_ms, numbers = self._charges.get(charge.id, (0, None))
        is_known = until_ms > now_ms
        if charge.actual is None:
            return () if is_known else None
        if not is_known or numbers is None:
            return ()
        for room, number, cost, actual in zip(rooms, numbers, costs, limits.costs(charge.actual), strict=True):
            if actual > cost:
                room.counter.charge(actual - cost)
            else:
                room.counter.refund(number, cost - actual)
        self._charges[charge.id] = (now_ms + SETTLED_S * 1000, None)
        return charge.actual

    def has_charge(self, charge_id: str) -> bool:
        """Return whether a charge with this name was made here."""
        return charge_id in self._charges

    @override
    def known_block_s(self, bucket: str) -> int | None:
        if bucket not in self._attempts:
            return None
        blocked_ms = self._blocked_ms(bucket, int(self._clock() * 1000))
        return ceil_s(blocked_ms) if blocked_ms else None

    @override
    async def record_failure(self, bucket: str) -> int | None:
        now_ms = int(self._clock() * 1000)
        blocked_ms = self._blocked_ms(bucket, now_ms)
        if blocked_ms:
            return ceil_s(blocked_ms)
        attempts = self._attempts.get(bucket)
        over = attempts is not None and (
            attempts.blocked_until_ms
            or not attempts.first_ms <= now_ms < attempts.first_ms + self._policy.failure_window_ms
        )
        if attempts is None or over:
            attempts = self._attempts[bucket] = _Attempts(now_ms)
        attempts.count += 1
        begins_block = attempts.count >= self._policy.block_after_failures
        if begins_block:
            attempts.blocked_until_ms = now_ms + self._policy.block_for_ms
        self._attempts.move_to_end(bucket)
        return 0 if begins_block else None

    @override
    async def bump_generation(self, key_id: str, owner_id: str = "") -> None:
        key = self._keys.get(key_id)
        if key is not None:
            key.generation = secrets.token_hex(8)

    @override
    async def bump_owner_generation(self, owner_id: str) -> None:
        owner = self._owners.get(owner_id)
        if owner is not None:
            owner.generation = secrets.token_hex(8)

    @override
    async def read_ticket(self, key_id: str, secret_id: int) -> str | None:
        """Return None: the process itself caches what it has verified."""
        return None

    @override
    async def write_ticket(self, key_id: str, secret_id: int, ticket: str) -> None:
        """Do nothing."""

    @override
    async def find_generations(self, holders: Sequence[tuple[str, str]]) -> list[str]:
        return [self._generation_of(key_id, owner_id) for key_id, owner_id in holders]

    def _generation_of(self, key_id: str, owner_id: str) -> str:
        key = self._keys.get(key_id)
        is_known = key is not None and key.owner.id == owner_id
        return f"{key.generation}.{key.owner.generation}" if key is not None and is_known else ""

    @override
    async def read_usage(self, wanted: Sequence[UsageOf], forget_before: int) -> list[UsageCount]:
        """Return nothing: each decision says what was used."""
        return []

    @override
    async def blocks(self) -> dict[str, int]:
        now_ms = int(self._clock() * 1000)
        left = {bucket: self._blocked_ms(bucket, now_ms) for bucket in self._attempts}
        return {bucket: ceil_s(left_ms) for bucket, left_ms in left.items() if left_ms}

    @override
    async def unblock(self, bucket: str) -> bool:
        was_blocked = self._blocked_ms(bucket, int(self._clock() * 1000)) > 0
        self._attempts.pop(bucket, None)
        return was_blocked

    @override
    async def run_checks(self) -> list[CheckWarning]:
        """Return no warnings, since there is no server."""
        return []

    def _blocked_ms(self, bucket: str, now_ms: int) -> int:
        attempts = self._attempts.get(bucket)
        if attempts is None:
            return 0
        # A clock that was ahead for a moment must not block for longer than the policy says.
        attempts.blocked_until_ms = min(attempts.blocked_until_ms, now_ms + self._policy.block_for_ms)
        return max(0, attempts.blocked_until_ms - now_ms)
