"""The allowance of a key in the limiter of a single process."""

from collections.abc import Callable, Container, Sequence

from fastapi_keyauth.limiter.counters import Counter
from fastapi_keyauth.limiter.holders import KeyHolder
from fastapi_keyauth.limiter.protocol import Decision

MAX_S = 1.0
"""Maximum duration in seconds, so short that the limiter cannot evict the key meanwhile."""
SHARE = 0.98
"""Share of the rest of the hour that is used: the hour ends by another clock, which may run faster."""


class MemoryAllowance:
    """Admits requests against the one hourly limit of a key, while neither the key nor its owner changes.

    Args:
        key: The key.
        counter: The counter of the limit, which is in the current hour.
        decision: The decision on the last request.
        limit: The number of the limit.
        attempts: The addresses with failed attempts.
        monotonic: Returns seconds of a monotonic clock.
        lasts_s: Seconds until it ends.

    Attributes:
        decision: See ``Allowance``.
    """

    __slots__ = (
        "_attempts",
        "_counter",
        "_end_s",
        "_ends_at",
        "_key",
        "_key_generation",
        "_limit",
        "_monotonic",
        "_owner_generation",
        "_wait_s",
        "decision",
    )

    def __init__(
        self,
        key: KeyHolder,
        counter: Counter,
        decision: Decision,
        limit: int,
        attempts: Container[str | None],
        monotonic: Callable[[], float],
        lasts_s: float,
    ) -> None:
        self.decision = decision
        self._key = key
        self._key_generation = key.generation
        self._owner_generation = key.owner.generation
        self._counter = counter
        self._limit = limit
        _, self._wait_s, self._end_s = decision.states
        self._attempts = attempts
        self._monotonic = monotonic
        self._ends_at = monotonic() + lasts_s

    def take(self, bucket: str | None) -> Sequence[int] | None:
        """See ``Allowance``."""
        key, counter = self._key, self._counter
        used = counter.used + 1
        if (
            used > self._limit
            or self._monotonic() >= self._ends_at
            or key.generation is not self._key_generation
            or key.owner.generation is not self._owner_generation
            or bucket in self._attempts  # it may be blocked
        ):
            return None
        counter.used = used
        return (self._limit - used, self._wait_s, self._end_s)
