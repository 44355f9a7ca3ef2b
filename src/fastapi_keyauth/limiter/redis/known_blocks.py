"""Blocks that one worker caches."""

import math
from collections.abc import Callable

from fastapi_keyauth.concurrency.bounded_dict import BoundedDict

KNOWN_BLOCK_S = 5.0
"""Seconds for which a worker caches a block, so that a flood from a blocked address costs no round trips. Short, so
that all workers soon notice if a block is lifted."""
_MAX_KNOWN_BLOCKS = 10_000


class KnownBlocks(BoundedDict[str, tuple[float, float]]):
    """Bucket to (cached until, blocked until), by the local clock. It may contain blocks that are no longer cached.

    Args:
        now: The local clock, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(_MAX_KNOWN_BLOCKS)
        self._now = now

    def left_s(self, bucket: str) -> int | None:
        """Return for how many seconds an address is still blocked, or None if no block is cached."""
        known = self.get(bucket)
        if known is None:
            return None
        cached_until, blocked_until = known
        now = self._now()
        if now >= cached_until:
            del self[bucket]
            return None
        return max(1, math.ceil(blocked_until - now))

    def add(self, bucket: str, blocked_s: int) -> None:
        """Cache a block that ends in this many seconds, rounded up."""
        # One second less, since whole seconds are rounded up: a block must not last longer here than in Redis.
        cached_s = min(KNOWN_BLOCK_S, blocked_s - 1)
        if cached_s > 0:
            now = self._now()
            self[bucket] = (now + cached_s, now + blocked_s)
