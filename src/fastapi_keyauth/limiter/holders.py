"""What the limiter of a single process knows about keys and their owners: generations and counters."""

import secrets
from collections.abc import Sequence

from fastapi_keyauth.domain.limits import MAX_LIMITS, Limit
from fastapi_keyauth.limiter.counters import Counter, Room

MAX_COUNTERS = 4 * MAX_LIMITS
"""Maximum number of counters of one key or owner, including those of former limits."""


class Holder:
    """The generation of a key or of an owner, and the counters of its limits."""

    __slots__ = ("counters", "generation")

    def __init__(self) -> None:
        self.generation = secrets.token_hex(8)
        self.counters: dict[str, Counter] = {}

    def rooms(self, limits: Sequence[Limit], now_ms: int) -> list[Room]:
        """Return the room that each limit has now."""
        rooms = []
        for limit in limits:
            counter = self.counters.get(limit.counter_id)
            if counter is None:
                if len(self.counters) >= MAX_COUNTERS:  # counters of replaced limits must not accumulate
                    self._forget_one_except(limits)
                counter = self.counters[limit.counter_id] = Counter()
            rooms.append(Room(limit, counter, now_ms))
        return rooms

    def _forget_one_except(self, limits: Sequence[Limit]) -> None:
        """Delete the oldest counter that belongs to none of these limits. There are more counters than limits."""
        kept = {limit.counter_id for limit in limits}
        del self.counters[next(name for name in self.counters if name not in kept)]


class OwnerHolder(Holder):
    """An owner. It exists as long as one of its keys does."""

    __slots__ = ("__weakref__", "id")

    def __init__(self, owner_id: str) -> None:
        super().__init__()
        self.id = owner_id


class KeyHolder(Holder):
    """A key, and its owner."""

    __slots__ = ("owner",)

    def __init__(self, owner: OwnerHolder) -> None:
        super().__init__()
        self.owner = owner
