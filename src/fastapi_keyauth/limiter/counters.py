"""The arithmetic of counters. ``redis/lua/take.lua`` does the same, in the same units."""

from collections.abc import Sequence

from fastapi_keyauth.domain.limit_sets import MAX_USED
from fastapi_keyauth.domain.limits import Limit
from fastapi_keyauth.domain.windows import STEP_MS, Window, ticks_of, window_at, window_of


class Counter:
    """Units of one limit: in the window ``number``, and in the one before."""

    __slots__ = ("number", "previous", "used")

    def __init__(self) -> None:
        self.number = -1
        self.previous = 0
        self.used = 0

    def roll(self, window_ms: int, now_ms: int) -> Window:
        """Move on to the window of this moment, and return the window that counts.

        A clock that steps back across the end of a window leaves the window that began: no unit is forgotten. A clock
        that was further ahead was wrong: its units count in the current window, so no wait is longer than that.
        """
        window = window_at(window_ms, now_ms)
        if self.number < window.number:
            self.previous = self.used if self.number == window.number - 1 else 0
            self.number, self.used = window.number, 0
        elif self.number > window.number:
            stored = window_of(window_ms, self.number)
            if stored.end_ms - stored.length_ms - now_ms <= min(STEP_MS, stored.length_ms):
                return stored
            self.number = window.number
        return window

    def refund(self, number: int, units: int) -> None:
        """Return units to the window in which they were charged, if it still counts."""
        if number == self.number:
            self.used = max(0, self.used - units)
        elif number == self.number - 1:
            self.previous = max(0, self.previous - units)

    def charge(self, units: int) -> None:
        """Charge units to the window that counts."""
        self.used = min(self.used + units, MAX_USED)


class Room:
    """What a limit has room for at one moment.

    Attributes:
        counter: Its counter, moved on to this moment.
        free: Units that are left; below 0: a debt.
        left_ms: Milliseconds until the window ends.
        end_ms: When it ends, since 1970.
    """

    __slots__ = ("counter", "end_ms", "free", "left_ms", "limit")

    def __init__(self, limit: Limit, counter: Counter, now_ms: int) -> None:
        window = counter.roll(limit.window_ms, now_ms)
        self.limit = limit
        self.counter = counter
        self.end_ms = window.end_ms
        self.left_ms = min(window.end_ms - now_ms, window.length_ms)
        self.free = limit.limit - counter.used
        if limit.is_sliding and counter.previous:
            tick_ms, ticks = ticks_of(limit.window_ms)
            self.free -= -(-counter.previous * -(-self.left_ms // tick_ms) // ticks)

    def wait_ms(self, cost: int) -> int:
        """Return the milliseconds until a cost fits that does not fit now."""
        limit, counter, left_ms = self.limit, self.counter, self.left_ms
        if not limit.is_sliding or cost > limit.limit:
            return left_ms
        tick_ms, ticks = ticks_of(limit.window_ms)
        spare = limit.limit - counter.used - cost
        if spare >= 0:
            # previous * left <= spare * ticks
            return max(1, left_ms - spare * ticks // counter.previous * tick_ms)
        return max(1, left_ms + limit.window_ms - min(ticks, (limit.limit - cost) * ticks // counter.used) * tick_ms)


def states_of(rooms: Sequence[Room], costs: Sequence[int], *, is_charged: bool) -> list[int]:
    """Return three numbers for each limit; see ``Decision.states``."""
    states: list[int] = []
    for room, cost in zip(rooms, costs, strict=True):
        fits = is_charged or room.free >= cost
        wait_ms = room.left_ms if fits else room.wait_ms(cost)
        states += (max(0, room.free - (cost if is_charged else 0)), max(1, -(-wait_ms // 1000)), room.end_ms // 1000)
    return states
