"""The limiter of a single process."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from fastapi_keyauth.domain.units import HOUR_MS, HOUR_S
from fastapi_keyauth.limiter.protocol import Decision, LimitCheck, Policy, Verdict, ceil_s
from fastapi_keyauth.settings.checks import CheckWarning

MAX_ADDRESSES = 100_000
MAX_KEYS = 1_000_000


class _Quota:
    """A key's generation and its units in the latest hour and the one before."""

    __slots__ = ("current", "generation", "hour", "previous")

    def __init__(self, hour: int) -> None:
        self.generation = secrets.token_hex(8)
        self.hour = hour
        self.current = 0
        self.previous = 0

    def roll(self, hour: int) -> None:
        """Move on to ``hour``. A clock that went back changes nothing: units stay used."""
        if hour > self.hour:
            self.previous = self.current if hour == self.hour + 1 else 0
            self.current = 0
            self.hour = hour


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
        self._quotas: OrderedDict[str, _Quota] = OrderedDict()
        self._attempts: OrderedDict[str, _Attempts] = OrderedDict()

    async def start(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def check(self, ask: LimitCheck) -> Decision:
        """See ``Limiter``."""
        return self.decide(ask)

    def decide(self, ask: LimitCheck) -> Decision:
        """What ``take`` answers. Nothing is waited for, so nothing comes between looking and counting."""
        now_ms = int(self._clock() * 1000)
        hour = now_ms // HOUR_MS
        if ask.bucket is not None and ask.bucket in self._attempts:
            blocked_ms = self._blocked_ms(ask.bucket, now_ms)
            if blocked_ms:
                return Decision(Verdict.BLOCKED, wait_s=ceil_s(blocked_ms), hour=hour)
        quota = self._quotas.get(ask.key_id)
        if not ask.is_fresh and (quota is None or self._is_stale(ask, quota)):
            if quota is None and ask.age_s is not None:
                quota = self._add_quota(ask.key_id, hour)
            generation = quota.generation if quota else ""
            return Decision(Verdict.STALE, generation, hour=hour, share_s=self._max_age_s)
        if quota is None:
            if not ask.units:
                return Decision(Verdict.ADMITTED, hour=hour)
            quota = self._add_quota(ask.key_id, hour)
        self._quotas.move_to_end(ask.key_id)
        quota.roll(hour)
        return self._use(quota, ask, now_ms)

    def _is_stale(self, ask: LimitCheck, quota: _Quota) -> bool:
        return quota.generation != ask.generation or ask.age_s is None or ask.age_s >= self._max_age_s

    def _use(self, quota: _Quota, ask: LimitCheck, now_ms: int) -> Decision:
        """Count and compare. ``redis/lua/take.lua`` does the same arithmetic, in the same units."""
        hour, limit = quota.hour, ask.limit
        reset_at_s = (hour + 1) * HOUR_S
        left_ms = reset_at_s * 1000 - now_ms
        wait_s = -(-left_ms // 1000)
        if limit is None or not ask.units:
            return Decision(Verdict.ADMITTED, quota.generation, None, reset_at_s, wait_s, hour)
        weighted = quota.current * HOUR_MS
        if self._policy.algorithm == "sliding_window":
            weighted += quota.previous * min(left_ms, HOUR_MS)
        room = limit * HOUR_MS - weighted - HOUR_MS
        if room < 0:
            wait_ms = left_ms if self._policy.algorithm == "fixed_window" else _sliding_wait(quota, limit, left_ms)
            return Decision(Verdict.LIMITED, quota.generation, 0, reset_at_s, ceil_s(wait_ms), hour)
        quota.current += 1
        return Decision(Verdict.ADMITTED, quota.generation, room // HOUR_MS, reset_at_s, wait_s, hour)

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

    async def bump_generation(self, key_id: str) -> None:
        """See ``Limiter``."""
        quota = self._quotas.get(key_id)
        if quota is not None:
            quota.generation = secrets.token_hex(8)

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

    def _add_quota(self, key_id: str, hour: int) -> _Quota:
        quota = self._quotas[key_id] = _Quota(hour)
        while len(self._quotas) > MAX_KEYS:
            self._quotas.popitem(last=False)
        return quota


def _sliding_wait(quota: _Quota, limit: int, left_ms: int) -> int:
    """Milliseconds until one unit is free: when enough of the previous hour, or of this one, has slid out."""
    free = limit - quota.current - 1
    if free >= 0:
        # previous * left <= free * hour
        return left_ms - free * HOUR_MS // quota.previous
    return left_ms + HOUR_MS - (limit - 1) * HOUR_MS // quota.current
